"""Calls of symbols outside of a unit: both printers, plain Python, failures, and what the verifier makes of them."""

import itertools

import numba
import numpy as np
import pytest

from staticgrad.codegen.llvm_printer import named_text
from staticgrad.codegen.numba_printer import print_unit
from staticgrad.codegen.overlap import disjoint_functions
from staticgrad.codegen.widen import widened
from staticgrad.errors import VerificationError
from staticgrad.ir.aval import FLOAT64
from staticgrad.ir.builder import Builder
from staticgrad.ir.loop_text import function_text
from staticgrad.ir.loop_verify import verify_unit
from staticgrad.ir.loops import EXTERNAL_FAILED, External, Function, Index, Space, external_symbols
from staticgrad.ops.foreign import FUNCTIONS, ForeignFunction
from staticgrad.runtime.compile import compile_unit, run_python
from staticgrad.runtime.foreign import kept_failure
from staticgrad.runtime.llvm_compile import compile_text
from tests.codegen.llvm_units import writable
from tests.codegen.units import aligned, call, parameter, unit_of

X, FACTOR, Y = parameter("x", "f8", 12), parameter("factor", "f8", 1), parameter("y", "f8", 12)
numbers = itertools.count()


@numba.njit
def scaled(x, factor):
    if x[0] > 100:
        raise ValueError("too large")
    return x * factor


@pytest.fixture
def symbol():
    """The symbol of a function that is known for the length of a test."""
    name = f"sg_foreign_scaled_{next(numbers)}"
    operands = ((FLOAT64, 1), (FLOAT64, 0))
    FUNCTIONS[name] = ForeignFunction(name, "scaled", "here", scaled, operands, ("x", "factor"), FLOAT64, 1)
    yield name
    del FUNCTIONS[name]


def in_a_loop(symbol):
    """Four calls on three elements each, the second of them on what the first has made."""
    b = Builder()
    with b.loop(4) as i:
        b.external(symbol, "numba", ((X, i * 3), (FACTOR, Index()), (Y, i * 3)), (3, 3))
    return Function("nest", (X, FACTOR, Y), (), b.root, "scaled rows")


def results(function, symbol, x):
    """Return what the function makes of x in every way, as (y, code, message of the failure)."""
    unit = writable(unit_of(f"external_{symbol}", function))
    verify_unit(unit)
    assert external_symbols(unit) == (symbol,)
    source, text = print_unit(unit), named_text(widened(unit))
    ways = {"numba": compile_unit(unit.name, source, (symbol,)), "llvm": compile_text(*text, False, (symbol,)), "python": None}
    found = []
    for compiled in ways.values():
        arrays, context = [x.copy(), np.array([2.0]), np.zeros(12)], np.zeros(8, np.int64)
        if compiled is None:
            code = run_python(source, arrays, aligned(64), context)
        else:
            code = call(compiled, arrays, context=context)
        failure = kept_failure(int(context[2])) if code else None
        found.append((arrays[2].tolist(), code, failure and (str(failure), repr(failure.__cause__))))
    return found


def test_every_way_calls_it(symbol):
    x = np.arange(12.0)
    assert results(in_a_loop(symbol), symbol, x) == [((2 * x).tolist(), 0, None)] * 3


def test_the_first_failure_stays_and_ends_the_calls(symbol):
    x = np.arange(12.0)
    x[3] = x[6] = 101
    first = [0, 2, 4] + [0] * 9
    said = "scaled (here): it raised ValueError: too large", "ValueError('too large')"
    assert results(in_a_loop(symbol), symbol, x) == [(first, EXTERNAL_FAILED, said)] * 3


def test_what_people_read(symbol):
    function = in_a_loop(symbol)
    unit = unit_of("read", function)
    assert f"    call numba:{symbol}(x[i0*3], factor, y[i0*3]; 3, 3) (thread-safe)" in function_text(function)
    expected = f'        call_external(context, "{symbol}", offset(x, i * 3), factor, offset(y, i * 3), 3, 3)'
    assert " ".join(expected.split()) in " ".join(print_unit(unit).split()).replace("( context", "(context").replace("3 )", "3)")
    assert f"call i64 @{symbol}(ptr %x_at0, ptr %factor, ptr %y_at0, i64 3, i64 3)" in named_text(unit)[1]


def test_loops_around_it_are_no_vectors(symbol):
    unit = unit_of("loops", in_a_loop(symbol))
    assert function_text(widened(unit).functions[0]) == function_text(unit.functions[0])
    assert "plain_loops" not in named_text(unit)[1]


def test_it_writes_to_its_last_pointer_only(symbol):
    unit = writable(unit_of("written", in_a_loop(symbol)))
    text = named_text(unit)[1]
    assert "readonly align 8 dereferenceable(96) %x" in text and "nocapture align 8 dereferenceable(96) %y" in text
    inputs = unit_of("inputs", in_a_loop(symbol))
    assert all(buffer.space is Space.INPUT for buffer in inputs.arguments)
    with pytest.raises(VerificationError, match="the input 'y' is written to"):
        verify_unit(inputs)
    assert disjoint_functions(unit) == frozenset(unit.functions)


def test_a_call_that_makes_no_sense():
    for broken in (External("no name", "numba", (), (), results=0), External("name", "numba", ((X, Index()),), (), results=2)):
        b = Builder()
        b.root.statements.append(broken)
        with pytest.raises(VerificationError, match=r"results of . pointers cannot be called"):
            verify_unit(unit_of("broken", Function("f", (X,), (), b.root)))


def test_symbols_of_others_are_refused(symbol):
    unit = unit_of("refused", in_a_loop(symbol))
    with pytest.raises(VerificationError, match=f"would need {symbol}"):
        compile_text(*named_text(unit), False)
    with pytest.raises(VerificationError, match=f"would need {symbol}"):
        compile_unit(unit.name, print_unit(unit), ("sg_foreign_other",))
