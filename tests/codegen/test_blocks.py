"""Nests in blocks: which are divided and how, that they mean the same, and that both printers and Python give the same bits."""

from dataclasses import replace

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.codegen.blocks import MOST_BLOCKS, Grain
from staticgrad.codegen.numba_printer import print_unit
from staticgrad.errors import VerificationError
from staticgrad.ir.interp import interpret
from staticgrad.ir.loop_text import unit_text
from staticgrad.ir.loop_verify import verify_unit
from staticgrad.ir.loops import Buffer, Index, Invoke, Space, calls
from staticgrad.runtime.build import lower_graph, machine_code
from staticgrad.runtime.compile import Stage, compile_unit
from staticgrad.runtime.executor import Executable
from staticgrad.runtime.llvm_compile import compile_text
from tests.codegen.llvm_units import run_text
from tests.codegen.units import assert_same, function, parameter, pointers, run, unit_of, whole
from tests.ops.running import close, run_uncompiled

FINE = Grain(work=1e-6, row=2, partial=1e9)
WHOLE = Grain(work=np.inf)

rng = np.random.default_rng(5)


def numbers(*shape, dtype=np.float64):
    return rng.standard_normal(shape).astype(dtype)


def lowerings(f, *arguments, grain=FINE):
    """Return the graph, and its lowering in blocks and without."""
    graph = sg.trace(f).lower(*arguments).graph
    return graph, lower_graph(graph, grain=grain), lower_graph(graph, grain=WHOLE)


def logsumexp(x):
    top = np.max(x)
    return np.log(np.sum(np.exp(x - top))) + top


def written(x):
    y = np.copy(x)
    y[3:70] *= 2
    return y


def repeated(w, x):
    return sg.scan(lambda c, k: (np.tanh(w @ c) + k, c[:, 1:] * k), x, np.arange(3.0))


SAME_BITS = {
    "elementwise": (lambda x, y: x * y + x, numbers(301), numbers(301)),
    "rows": (lambda x: x / 3, numbers(7, 40)[:, ::2].copy()),
    "broadcast": (lambda x, b: x + b, numbers(21, 10), numbers(10)),
    "columns of broadcasts": (lambda x, b: x * b, numbers(2, 3), numbers(50, 1, 1)),
    "sums of rows": (lambda x: (x.sum(1), x.max(1), x * 2), numbers(21, 35)),
    "sums over the middle": (lambda x: x.sum(1), numbers(9, 5, 20)),
    "long rows": (lambda x: x.max(1), numbers(2, 400)),
    "places in rows": (lambda x: np.argmax(x, 1), numbers(13, 20)),
    "places in columns": (lambda x: np.argmin(x, 0), numbers(23, 10)),
    "greatest": (np.max, numbers(403)),
    "place of the greatest": (np.argmax, numbers(403)),
    "integers": (lambda x: (x.sum(), x.prod(0), (x > 2).any()), rng.integers(-9, 9, (40, 7))),
    "joined": (lambda x, y: np.concatenate([x, y, x * 2]), numbers(40), numbers(50)),
    "padded": (lambda x: np.pad(x, ((3, 10), (1, 2))) * 2, numbers(20, 10)),
    "written to": (written, numbers(97, 3)),
    "product, rows": (lambda x, w: x @ w, numbers(31, 7), numbers(7, 12)),
    "product, columns": (lambda x, w: x @ w, numbers(3, 7), numbers(7, 111)),
    "products": (lambda x, w: x @ w, numbers(9, 5, 7), numbers(9, 7, 11)),
    "reversed": (lambda x: x[::-1] * 2, numbers(99)),
    "loop": (repeated, numbers(9, 9) / 3, numbers(9, 40)),
    "loop in a branch": (lambda w, x: sg.cond(x[0, 0] > 9, lambda: x * 2, lambda: repeated(w, x)[0]), numbers(9, 9) / 3, numbers(9, 40)),
    "while": (lambda x: sg.while_loop(lambda c: c[0, 0] < 9, lambda c: np.exp(c[::-1] / 9) + c * c, x), np.abs(numbers(9, 40))),
}
"""Functions whose results do not depend on blocks at all."""

REORDERED = {
    "sum": (np.sum, numbers(2301)),
    "sum of a product": (lambda x, y: np.sum(x * y), numbers(20, 30), numbers(20, 30)),
    "two sums": (lambda x: (np.sum(x), np.prod(x / np.abs(x).max() + 1)), numbers(303)),
    "sums of columns": (lambda x: x.sum(0), numbers(103, 3)),
    "sums of columns and of all": (lambda x: (x.sum(0), x.sum(), x.max(1)), numbers(103, 5)),
    "outer and inner axes": (lambda x: x.sum((0, 2)), numbers(21, 3, 10)),
    "single": (np.sum, numbers(901, dtype=np.float32)),
    "gradient of logsumexp": (sg.value_and_grad(logsumexp), numbers(101)),
    "layer": (sg.value_and_grad(lambda w, x: np.mean((x @ w) ** 2)), numbers(5, 12), numbers(31, 5)),
    "gradient of a loop": (sg.grad(lambda w, x: np.sum(repeated(w, x)[1] ** 2), (0, 1)), numbers(9, 9) / 3, numbers(9, 40)),
    "normalised": (sg.value_and_grad(lambda x: np.sum(((x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)) ** 3)), numbers(13, 20)),
}
"""Functions with sums over a divided axis."""

NUMBA = ("sums of rows", "place of the greatest", "written to", "product, columns", "sums of columns and of all", "single", "layer", "loop")
"""Those that are compiled through Numba as well."""


def agree(found, expected, exact):
    for x, y in zip(found, expected, strict=True):
        if exact:
            assert_same(x.reshape(-1), y.reshape(-1), "in blocks and whole")
        else:
            assert close(x, y, 100.0)


@pytest.mark.parametrize("name", [*SAME_BITS, *REORDERED])
def test_blocks_mean_the_same(name):
    f, *arguments = (SAME_BITS | REORDERED)[name]
    graph, divided, undivided = lowerings(f, *arguments)
    verify_unit(divided.lowered.unit)
    found = run_uncompiled(graph, arguments, lowering=divided)
    agree(found, run_uncompiled(graph, arguments, lowering=undivided), name in SAME_BITS)
    agree(found, interpret(graph, arguments), exact=False)
    assert any(call.blocks for call in calls(divided.lowered.unit))
    assert divided.call_plan.parallel and not undivided.call_plan.parallel


@pytest.mark.parametrize("grain", [FINE, Grain(work=50.0, row=40, partial=0.5)], ids=["fine", "coarser"])
@pytest.mark.parametrize("printer", ["numba", "llvm"])
def test_both_printers_and_python_give_the_same_bits(printer, grain):
    cases = [case for name, case in (SAME_BITS | REORDERED).items() if printer == "llvm" or name in NUMBA]

    def everything(*leaves):
        at, results = 0, []
        for f, *arguments in cases:
            results.append(f(*leaves[at : at + len(arguments)]))
            at += len(arguments)
        return results

    arrays = [a for _, *arguments in cases for a in arguments]
    graph, divided, _ = lowerings(everything, *arrays, grain=grain)
    expected = run_uncompiled(graph, arrays, lowering=divided)
    staged = divided.lowered.unit.backward is not None
    if printer == "numba":
        forward, backward, _ = machine_code(divided.source, staged, "blocks")
    else:
        compiled = compile_text(*divided.llvm, staged)
        forward, backward = compiled.forward_address, compiled.backward_address
    executable = Executable(divided.call_plan, Stage(forward), None if backward is None else Stage(backward))
    for threads in (1, 3):
        agree(executable(arrays, threads), expected, exact=True)


# ---- the choice

CHOICES = [
    ("one loop", lambda x: x * 2, (1000000,), "1000000 in 11 blocks of 90880"),
    ("rows", lambda x: np.sum(x * 2, 1), (1000, 1000), "1000x1000 in 11 blocks of 90"),
    ("columns", lambda x: np.sum(x, 0), (1000, 4000), "1000x4000 in 15 blocks of 256"),
    ("a few columns", lambda x: np.sum(x, 0), (400000, 3), "400000x3 in 9 blocks of 44444"),
    ("the whole", np.sum, (1000000,), "1000000 in 8 blocks of 124992"),
    ("small", lambda x: x * 2, (10000,), "10000: multiply"),
    ("one row", lambda x: np.sum(x, 0), (2, 400000), "2x400000 in 6 blocks of 66624"),
    ("front to back", lambda x: x[:, :, None] * x[:, None, :], (100, 400), "100x400x400 in 50 blocks of 2"),
]


@pytest.mark.parametrize(("f", "shape", "text"), [case[1:] for case in CHOICES], ids=[case[0] for case in CHOICES])
def test_which_loop_is_divided(f, shape, text):
    assert text in str(sg.trace(f).lower(np.zeros(shape)).schedule)


PRODUCTS = [((256, 784), (784, 512), "8 blocks of 64"), ((4096, 64), (64, 64), "6 blocks of 680"), ((64, 9, 300), (64, 300, 8), "")]


@pytest.mark.parametrize(("left", "right", "text"), PRODUCTS)
def test_how_products_are_divided(left, right, text):
    schedule = sg.trace(np.matmul).lower(np.zeros(left, np.float32), np.zeros(right, np.float32)).schedule
    assert text in str(schedule)
    assert bool(text) == any(nest.blocks is not None for nest in schedule.nests)


def test_small_nests_are_what_they_were():
    arguments = numbers(64, 128), numbers(32, 64)
    f = sg.value_and_grad(lambda w, x: np.mean(np.tanh(x @ w)))
    graph = f.lower(*arguments).graph
    assert lower_graph(graph).source == lower_graph(graph, grain=WHOLE).source
    assert lower_graph(graph).lowered.unit.workspace == lower_graph(graph, grain=WHOLE).lowered.unit.workspace


def test_choices_cover_their_loops():
    for extent in (*range(2, 300), 1000, 4099, 65537):
        schedule = lowerings(lambda x: x * 2, np.zeros(extent))[1].schedule
        (nest,) = schedule.nests
        if nest.blocks is None:
            assert extent < 4
            continue
        rest = extent - nest.blocks.count * nest.blocks.size
        assert 2 <= nest.blocks.count <= MOST_BLOCKS
        assert 0 <= rest <= max(nest.blocks.size, 64 * nest.blocks.count)


def test_report_and_text_show_blocks():
    lowered = sg.trace(lambda x: np.sum(x * 2)).lower(np.zeros(1000000))
    assert str(lowered.report).splitlines()[-1].split() == ["of", "both,", "in", "blocks", "1"]
    assert "of both" not in str(sg.trace(np.sum).lower(np.zeros(10)).report)
    assert "11 blocks of nest_0(" in unit_text(lowered._lowering.lowered.unit)
    assert lowered.memory > sg.trace(np.sum).lower(np.zeros(10)).memory  # the partial sums


# ---- the loop IR


def failing(*blocks):
    """Return a unit of 8 blocks that write their numbers; `blocks` fail."""
    out = parameter("out", "f8", 8)

    def make(b):
        block = b.number(8, "block")
        made.append(block)
        b.store(out, block, b.cast(block, np.dtype("f8")))
        for number in blocks:
            b.fail_if(b.eq(block, b.literal(number, np.dtype("i8"))), 1, 7, Index.of(block) * 10)

    made = []
    f = function("f", [out], make)
    unit = unit_of("blocks", replace(f, numbers=tuple(made)))
    (call,) = unit.forward
    buffer = replace(unit.arguments[0], space=Space.OUTPUT)
    return replace(unit, arguments=(buffer,), forward=(replace(call, buffers=whole(buffer), blocks=8),))


def failing_inside(*blocks):
    """Return a unit of a function that has another one run 8 blocks, of which `blocks` fail."""
    unit = failing(*blocks)
    (call,) = unit.forward
    outer = function("outer", [parameter("out", "f8", 8)], lambda b: None)
    outer.body.statements.append(Invoke(call.function, whole(outer.buffers[0]), blocks=8))
    return replace(unit, functions=(*unit.functions, outer), forward=(Invoke(outer, call.buffers),))


@pytest.mark.parametrize("made", [failing, failing_inside])
@pytest.mark.parametrize("runner", [run, run_text])
def test_blocks_in_order(runner, made):
    unit = made(6, 3, 5)
    verify_unit(unit)
    ran = runner(unit, [np.zeros(8)])
    np.testing.assert_array_equal(ran.compiled[0], np.arange(8.0))
    assert ran.code == 1 and ran.context.tolist() == [1, 7, 30, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("made", [failing, failing_inside])
def test_dispatchers_run_blocks(made):
    import numba
    from numba import types

    compiled = compile_unit(f"sg_dispatched_blocks_of_{made.__name__}", print_unit(made(4)))
    forward = compiled.forward
    signature = types.int64(types.CPointer(types.voidptr), types.CPointer(types.uint8), types.CPointer(types.int64))

    @numba.cfunc(signature)
    def caller(arguments, workspace, context):
        return forward(arguments, workspace, context)

    out, context = np.zeros(8), np.zeros(8, np.int64)
    assert Stage(caller.address)(pointers([out]).ctypes.data, 0, context.ctypes.data) == 1
    np.testing.assert_array_equal(out, np.arange(8.0))
    assert context[:3].tolist() == [1, 7, 40]


def test_the_verifier_knows_blocks():
    unit = failing()
    (call,) = unit.forward
    for wrong, text in (
        (replace(call, blocks=9), "8 elements"),
        (replace(call, blocks=0), "takes 1 buffers and 1 numbers, not 1 and 0"),
        (replace(call, numbers=(Index(),)), "not 1 and 2"),
        (replace(call, blocks=-1), "-1 blocks"),
    ):
        with pytest.raises(VerificationError, match=text):
            verify_unit(replace(unit, forward=(wrong,)))
    unit = failing_inside()
    body = unit.functions[1].body.statements
    body[0] = replace(body[0], blocks=9)
    with pytest.raises(VerificationError, match="8 elements"):
        verify_unit(unit)


def test_names_of_buffers_do_not_meet_the_block():
    out = Buffer("block", np.dtype("f8"), 8, Space.OUTPUT, position=0)
    unit = failing()
    unit = replace(unit, arguments=(out,), forward=(replace(unit.forward[0], buffers=whole(out)),))
    np.testing.assert_array_equal(run(unit, [np.zeros(8)]).compiled[0], np.arange(8.0))
    np.testing.assert_array_equal(run_text(unit, [np.zeros(8)]).compiled[0], np.arange(8.0))
