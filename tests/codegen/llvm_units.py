"""Running units as LLVM text, as it is printed and with vectors, and comparing with plain Python."""

from dataclasses import replace

import numpy as np

from staticgrad.codegen.llvm_printer import named_text
from staticgrad.codegen.numba_printer import print_unit
from staticgrad.codegen.widen import widened
from staticgrad.errors import VerificationError
from staticgrad.ir.loop_verify import verify_unit
from staticgrad.ir.loops import Space
from staticgrad.runtime.compile import run_python
from staticgrad.runtime.llvm_compile import compile_text
from tests.codegen.units import Ran, aligned, assert_same, call


def writable(unit):
    """Return a hand-built unit with outputs as its arguments, as the verifier wants what is written to."""
    known = {buffer: replace(buffer, space=Space.OUTPUT) for buffer in unit.arguments}

    def stage(calls):
        return tuple(replace(call, buffers=tuple((known.get(buffer, buffer), index) for buffer, index in call.buffers)) for call in calls)

    backward = None if unit.backward is None else stage(unit.backward)
    return replace(unit, arguments=tuple(known.values()), forward=stage(unit.forward), backward=backward)


def verifies(unit):
    """Return whether the verifier accepts a unit (it knows no order of flags)."""
    try:
        verify_unit(unit)
    except VerificationError:
        return False
    return True


def run_text(unit, arrays, stages=("forward",)):
    """Run a unit as plain Python and in both forms of its LLVM text, and check that all write the same bits."""
    unit = writable(unit)
    python = [array.copy() for array in arrays]
    workspace, context = aligned(unit.workspace), np.zeros(8, np.int64)
    source = print_unit(unit)
    for stage in stages:
        code = run_python(source, python, workspace, context, stage)
    vectors = widened(unit)
    if verifies(unit):
        verify_unit(vectors, "widening")
    for form, other in (("printed", unit), ("widened", vectors)):
        name, text = named_text(other)
        compiled = compile_text(name, text, unit.backward is not None)
        own, own_workspace, own_context = [array.copy() for array in arrays], aligned(unit.workspace), np.zeros(8, np.int64)
        for stage in stages:
            own_code = call(compiled, own, stage, own_workspace, own_context)
        for buffer, x, y in zip(unit.arguments, own, python):
            assert_same(x, y, f"{buffer.name}: {form} and Python")
        assert own_code == code and own_context.tolist() == context.tolist()
    return Ran(own, python, code, context)
