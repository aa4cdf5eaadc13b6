"""Vectors in place of inner loops: which loops they take the place of, and that every element keeps its bits."""

import itertools

import numpy as np
import pytest

from staticgrad.codegen.widen import widened
from staticgrad.errors import StaticgradError
from staticgrad.ir.aval import BOOL, DTYPES, FLOAT32, FLOAT64, INT64
from staticgrad.ir.interp import interpret
from staticgrad.ir.loop_text import function_text
from staticgrad.ir.loop_verify import verify_unit
from staticgrad.ir.loops import Buffer, Invoke, Load, Loop, Space, Unit, walk
from staticgrad.runtime.build import build, lower_graph
from tests.codegen.llvm_units import run_text
from tests.codegen.units import function, parameter, unit_of, whole
from tests.fuzz.programs import Program
from tests.ops.running import identical, run_uncompiled

INT32 = np.dtype(np.int32)


def unit_with(make, *buffers):
    return unit_of("widened", function("f", buffers, make))


def lanes_of(unit):
    """Return the widths of all loads and stores, in order, 1 for what stays as it is."""
    return [statement.target.lanes for statement in walk(widened(unit).functions[0].body) if isinstance(statement, Load)]


def becomes_vectors(make, *buffers):
    return max(lanes_of(unit_with(make, *buffers))) > 1


def text_of(unit):
    return function_text(widened(unit).functions[0]).splitlines()


# ---- what it looks like


def scaled(n, dtype=FLOAT64):
    x, y = parameter("x", dtype, n), parameter("y", dtype, n)

    def make(b):
        with b.loop(n) as i:
            v = b.load(x, i)
            b.store(y, i, b.mul(v, b.like(2, v)))

    return unit_with(make, x, y)


def test_a_long_loop():
    assert text_of(scaled(44)) == [
        "function f(x: f64[44], y: f64[44]):",
        "  for i0 in 0..44 step 8:",
        "    %1 = min i0, 36",
        "    %2: f64x8 = load x[%1]",
        "    %3: f64x8 = splat 2.0",
        "    %4 = mul %2, %3",
        "    store y[%1] <- %4",
    ]


def test_whole_vectors_need_no_last_one():
    assert text_of(scaled(64))[1:3] == ["  for i0 in 0..64 step 8:", "    %1: f64x8 = load x[i0]"]


def test_a_short_loop_is_written_out():
    assert [line for line in text_of(scaled(12)) if "load" in line] == ["  %1: f64x8 = load x[0]", "  %4: f64x8 = load x[4]"]
    assert [line for line in text_of(scaled(3)) if "load" in line] == [f"  %{2 * k + 1} = load x[{k}]" for k in range(3)]
    assert not any("for" in line for n in range(1, 17) for line in text_of(scaled(n)))


def test_what_is_left_over_where_the_loop_reads_what_it_writes():
    x = parameter("x", FLOAT32, 47)

    def make(b):
        with b.loop(47) as i:
            v = b.load(x, i)
            b.store(x, i, b.add(v, b.like(1, v)))

    assert lanes_of(unit_with(make, x)) == [16, 16, 8, 4, 2, 1]
    run_text(unit_with(make, x), [np.arange(47, dtype="f4")])


def test_a_long_body_is_not_repeated():
    def chain(n, back):
        x, y = parameter("x", FLOAT32, n), parameter("y", FLOAT32, n)

        def make(b):
            with b.loop(n) as i:
                v = b.load(x, i)
                for _ in range(50):
                    v = b.add(v, b.like(1, v))
                b.store(x if back else y, i, v)

        return unit_with(make, x, y)

    assert [lanes_of(chain(n, False)) for n in (16, 17, 40)] == [[16], [16], [16]]
    assert [lanes_of(chain(n, True)) for n in (16, 17, 40)] == [[16], [16, 1], [16, 1]]
    for n, back in itertools.product((16, 17, 40), (False, True)):
        run_text(chain(n, back), [np.arange(n, dtype="f4"), np.zeros(n, "f4")])


def test_long_loops_of_short_bodies_take_two_vectors_at_a_time():
    def chain(n, adds, *, back=False, branches=False, step=1):
        x, y = parameter("x", FLOAT32, n * step), parameter("y", FLOAT32, n)

        def make(b):
            with b.loop(n) as i:
                v = b.load(x, i * step)
                for _ in range(adds):
                    v = b.add(v, b.like(1, v))
                if branches:
                    cell = b.variable(v)
                    with b.if_(b.lt(b.like(3, v), v)):
                        b.set(cell, b.like(3, v))
                    v = b.get(cell)
                b.store(x if back else y, i * step if back else i, v)

        return unit_with(make, x, y)

    kinds = {"short": {}, "back": {"back": True}, "branches": {"branches": True}, "strided": {"step": 2}}
    assert lanes_of(chain(255, 8)) == [16]
    assert {kind: max(lanes_of(chain(300, 8, **options))) for kind, options in kinds.items() if kind != "strided"} == {
        "short": 32, "back": 16, "branches": 16,
    }  # fmt: skip
    assert lanes_of(chain(300, 50)) == [16]
    assert "f32x32" not in str(text_of(chain(300, 8, step=2)))
    for n, options in itertools.product((256, 271, 288, 300), kinds.values()):
        run_text(chain(n, 8, **options), [np.arange(n * options.get("step", 1), dtype="f4"), np.zeros(n, "f4")])


def outer(rows, columns, name="f", disturbed=False):
    """Return the function y[j, k] = x[j] * w[k]; `disturbed` writes into w as well."""
    x, w, y = parameter("x", FLOAT32, rows), parameter("w", FLOAT32, columns), parameter("y", FLOAT32, rows * columns)

    def make(b):
        with b.loop(rows) as j:
            v = b.load(x, j)
            with b.loop(columns) as k:
                product = b.mul(v, b.load(w, k))
                b.store(y, j * columns + k, product)
                if disturbed:
                    b.store(w, k, product)

    return function(name, (x, w, y), make)


def test_rows_that_all_iterations_read_are_kept():
    assert text_of(unit_of("outer", outer(9, 36))) == [
        "function f(x: f32[9], w: f32[36], y: f32[324]):",
        "  %1: f32x16 = load w[0]",
        "  %2: f32x16 = load w[16]",
        "  %3: f32x16 = load w[20]",
        "  for i0 in 0..9:",
        "    %4 = load x[i0]",
        "    %5: f32x16 = splat %4",
        "    %6 = mul %5, %1",
        "    store y[i0*36] <- %6",
        "    %7: f32x16 = splat %4",
        "    %8 = mul %7, %2",
        "    store y[i0*36 + 16] <- %8",
        "    %9: f32x16 = splat %4",
        "    %10 = mul %9, %3",
        "    store y[i0*36 + 20] <- %10",
    ]
    assert "for" in text_of(unit_of("outer", outer(9, 1000)))[1]
    assert "for" in text_of(unit_of("outer", outer(9, 36, disturbed=True)))[1]
    rng = np.random.default_rng(2)
    shapes = list(itertools.product((1, 9), (1, 3, 10, 36, 128, 250, 257)))
    functions = [outer(rows, columns, f"outer_{rows}_{columns}") for rows, columns in shapes]
    sizes = [size for rows, columns in shapes for size in (rows, columns, rows * columns)]
    run_text(unit_of("outers", *functions), [rng.normal(size=size).astype("f4") for size in sizes])


# ---- every element keeps its bits


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "bool"])
def test_all_lengths(dtype):
    """Functions of every length up to a little more than two vectors, one that writes elsewhere and one in place."""
    lengths = [*range(1, 40), 63, 64, 65, 100, 131]
    functions, arrays = [], []
    rng = np.random.default_rng(0)
    for n in lengths:
        x, y, z = (parameter(name, dtype, n) for name in ("x", "y", "z"))

        def make(b, x=x, y=y, z=z, n=n):
            combine = b.xor if dtype == "bool" else b.sub
            with b.loop(n) as i:
                b.store(y, i, combine(b.load(x, i), b.load(z, i)))
            with b.loop(n) as i:
                b.store(z, i, combine(b.load(z, i), b.load(y, i)))

        functions.append(function(f"f{n}", [x, y, z], make))
        arrays += [rng.integers(-50, 50, n).astype(dtype) for _ in range(3)]
    run_text(unit_of("lengths", *functions), arrays)


@pytest.mark.parametrize("n", [5, 16, 37, 200])
def test_strides_and_positions(n):
    """x[::-1], x[::2], a column, its own place as a number, and a store with a stride."""
    x, y, z = parameter("x", FLOAT32, 3 * n), parameter("y", FLOAT32, 2 * n), parameter("z", INT64, n)

    def make(b):
        with b.loop(n) as i:
            back, even, column = b.load(x, -i + (n - 1)), b.load(x, i * 2), b.load(x, i * 3 + 1)
            v = b.fma(back, even, column)
            for _ in range(20):
                v = b.fma(v, b.like(0.5, v), back)
            place = b.cast(b.position(i * 7 + 3), FLOAT32)
            b.store(y, i * 2 + 1, b.add(v, place))
            b.store(z, i, b.mul(b.position(i - 5), b.position(i)))

    unit = unit_with(make, x, y, z)
    assert max(lanes_of(unit)) == (4 if n == 5 else 8)
    run_text(unit, [np.arange(3 * n, dtype="f4"), np.zeros(2 * n, "f4"), np.zeros(n, "i8")])


def test_gathers():
    index, x, y = parameter("index", INT32, 50), parameter("x", FLOAT64, 20), parameter("y", FLOAT64, 50)

    def make(b):
        with b.loop(50) as i:
            v = b.load(x, b.load(index, i))
            for _ in range(6):
                v = b.add(v, b.mul(v, v))
            b.store(y, i, v)

    unit = unit_with(make, index, x, y)
    assert 8 in lanes_of(unit)
    run_text(unit, [np.random.default_rng(0).integers(0, 20, 50).astype("i4"), np.linspace(-0.1, 0.1, 20), np.zeros(50)])


@pytest.mark.parametrize("rare", [0.0, 0.02, 0.5, 1.0])
def test_branches(rare):
    """Nested branches with variables of the iteration and of the function, taken by some lanes, by none or by all."""
    x, y, k = parameter("x", FLOAT32, 100), parameter("y", FLOAT32, 100), parameter("k", INT64, 1)

    def make(b):
        scale = b.variable(b.literal(3, FLOAT32), "scale")
        shift = b.cast(b.load(k, 0), FLOAT32)
        with b.loop(100) as i:
            v = b.load(x, i)
            result, other = b.variable(v, "result"), b.variable(b.like(7, v), "other")
            with b.if_(b.lt(v, b.like(0, v))) as positive:
                w = b.mul(v, b.get(scale))
                with b.if_(b.lt(v, b.like(-1, v))):
                    b.set(other, b.add(w, shift))
                b.set(result, b.mul(b.get(result), w))
            with b.otherwise(positive):
                b.set(result, b.add(b.get(result), b.cast(b.position(i), FLOAT32)))
            b.store(y, i, b.sub(b.get(result), b.get(other)))

    unit = unit_with(make, x, y, k)
    assert max(lanes_of(unit)) == 8
    assert any("any" in line for line in text_of(unit))
    values = np.random.default_rng(0).uniform(0, 2, 100).astype("f4")
    values[np.random.default_rng(1).random(100) < rare] *= -1
    run_text(unit, [values, np.zeros(100, "f4"), np.array([5])])


@pytest.mark.parametrize("n", [3, 16, 37])
@pytest.mark.parametrize("rare", [False, True])
def test_loops_of_unknown_length(n, rare):
    """Halve until below 1, counting: lanes that are done stay as they are; inside of a branch, only the lanes that take it run."""
    x, y = parameter("x", FLOAT32, n), parameter("y", FLOAT32, n)

    def make(b):
        def halve(v, count):
            with b.while_() as parts:
                with parts.test():
                    parts.until(b.le(b.like(1, b.get(v)), b.get(v)))
                with parts.body():
                    b.set(v, b.mul(b.get(v), b.like(0.5, b.get(v))))
                    b.set(count, b.add(b.get(count), b.like(1, b.get(count))))

        with b.loop(n) as i:
            v = b.variable(b.load(x, i))
            count = b.variable(b.like(0, b.get(v)))
            if rare:
                with b.if_(b.lt(b.like(100, b.get(v)), b.get(v))):
                    halve(v, count)
            else:
                halve(v, count)
            b.store(y, i, b.add(b.get(count), b.get(v)))

    unit = unit_with(make, x, y)
    assert max(lanes_of(unit)) == (1 if n == 3 else 16)
    numbers = np.array([0.5, 1, 3e8, 7, 0, 1e3, 100.5, 99, np.nan, -5], "f4")
    run_text(unit, [np.resize(numbers, n), np.zeros(n, "f4")])


def test_a_loop_of_unknown_length_whose_test_writes_stays():
    x, y = parameter("x", FLOAT32, 16), parameter("y", FLOAT32, 16)

    def make(b):
        with b.loop(16) as i:
            v = b.variable(b.load(x, i))
            with b.while_() as parts:
                with parts.test():
                    b.set(v, b.mul(b.get(v), b.like(0.5, b.get(v))))
                    parts.until(b.le(b.like(1, b.get(v)), b.get(v)))
                with parts.body():
                    pass
            b.store(y, i, b.get(v))

    assert not becomes_vectors(make, x, y)
    run_text(unit_with(make, x, y), [np.arange(16, dtype="f4"), np.zeros(16, "f4")])


def test_lanes_of_a_reduction():
    """Loops that are declared to run in lockstep need no proof, and narrow merges stay in order."""
    x, out = parameter("x", FLOAT32, 128), parameter("out", FLOAT32, 1)

    def make(b):
        partial = b.local(FLOAT32, 16, "partial")
        with b.loop(16, hint="lane") as lane:
            b.store(partial, lane, b.literal(0, FLOAT32))
        with b.loop(128, step=16) as i, b.loop(16, lanes=16, hint="lane") as lane:
            b.store(partial, lane, b.add(b.load(partial, lane), b.load(x, i + lane)))
        for half in (8, 4, 2, 1):
            with b.loop(half, hint="lane") as lane:
                b.store(partial, lane, b.add(b.load(partial, lane), b.load(partial, lane + half)))
        b.store(out, 0, b.load(partial, 0))

    unit = unit_with(make, x, out)
    assert lanes_of(unit) == [16, 16, 8, 8, 4, 4, *[1] * 7]
    assert sum(isinstance(statement, Loop) for statement in walk(widened(unit).functions[0].body)) == 1
    run_text(unit, [np.random.default_rng(0).normal(size=128).astype("f4"), np.zeros(1, "f4")])


def test_mixed_dtypes_share_a_width():
    x, y, flags = parameter("x", FLOAT32, 64), parameter("y", FLOAT64, 64), parameter("flags", BOOL, 64)

    def make(b):
        with b.loop(64) as i:
            v = b.load(x, i)
            b.store(flags, i, b.lt(v, b.like(0, v)))
            b.store(y, i, b.select(b.load(flags, i), b.cast(v, FLOAT64), b.literal(1, FLOAT64)))

    assert set(lanes_of(unit_with(make, x, y, flags))) == {8}
    run_text(unit_with(make, x, y, flags), [np.linspace(-1, 1, 64).astype("f4"), np.zeros(64), np.zeros(64, bool)])


@pytest.mark.parametrize("n", [37, 64])
def test_counters_that_are_cast_do_not_narrow_vectors(n):
    """The place of an element as 32 bits, on which random bits are built, needs its 64 bits for an instant."""
    word = np.dtype(np.uint32)
    x, y = parameter("x", word, n), parameter("y", word, n)

    def make(b):
        with b.loop(n) as i:
            v = b.xor(b.load(x, i), b.cast(b.position(i), word))
            b.store(y, i, b.add(v, b.cast(b.position(i * 3 + 7), word)))

    assert set(lanes_of(unit_with(make, x, y))) == {16}
    run_text(unit_with(make, x, y), [np.arange(n, dtype="u4") * 77, np.zeros(n, "u4")])


# ---- loops that stay


def test_iterations_that_depend_on_each_other_stay():
    x, y = parameter("x", FLOAT64, 100), parameter("y", FLOAT64, 100)

    def vectors(body, trip=40):
        def make(b):
            with b.loop(trip) as i:
                body(b, i)

        unit = unit_with(make, x, y)
        run_text(unit, [np.linspace(1, 2, 100), np.linspace(3, 4, 100)])
        return max(lanes_of(unit)) > 1

    assert not vectors(lambda b, i: b.store(x, i + 1, b.neg(b.load(x, i))))
    assert not vectors(lambda b, i: b.store(x, i, b.neg(b.load(x, i + 1))))
    assert not vectors(lambda b, i: b.store(x, i, b.neg(b.load(x, 3))))
    assert not vectors(lambda b, i: b.store(x, 3, b.neg(b.load(y, i))))
    assert not vectors(lambda b, i: (b.store(x, i, b.load(y, i)), b.store(x, i + 1, b.load(y, i))))
    assert not vectors(lambda b, i: b.store(x, i, b.load(x, -i + 60)))
    assert vectors(lambda b, i: b.store(x, i + 40, b.neg(b.load(x, i))))
    assert vectors(lambda b, i: b.store(x, i, b.neg(b.load(x, i + 40))))
    assert not vectors(lambda b, i: b.store(x, i + 39, b.neg(b.load(x, i))))


def test_interleaved_stores_are_independent():
    x, y = parameter("x", FLOAT64, 80), parameter("y", FLOAT64, 40)

    def make(b):
        with b.loop(40) as i:
            v = b.load(y, i)
            for _ in range(9):
                v = b.add(v, b.mul(v, v))
            b.store(x, i * 2, v)
            b.store(x, i * 2 + 1, b.neg(v))

    unit = unit_with(make, x, y)
    assert max(lanes_of(unit)) == 8
    run_text(unit, [np.zeros(80), np.linspace(0, 0.01, 40)])


def test_what_is_carried_along_stays():
    x, out = parameter("x", FLOAT64, 40), parameter("out", FLOAT64, 1)

    def total(b):
        acc = b.variable(b.literal(0, FLOAT64))
        with b.loop(40) as i:
            b.set(acc, b.add(b.get(acc), b.load(x, i)))
        b.store(out, 0, b.get(acc))

    def failing(b):
        with b.loop(40) as i:
            v = b.load(x, i)
            b.fail_if(b.lt(v, b.like(0, v)), 1, 0)
            b.store(x, i, b.neg(v))

    def guarded(b):
        with b.loop(40) as i, b.if_(b.lt(b.load(x, i), b.literal(0, FLOAT64))):
            b.store(x, i, b.literal(0, FLOAT64))

    def divided(b):
        n = parameter("n", INT64, 40)
        with b.loop(40) as i:
            b.store(n, i, b.quotient(b.load(n, i), b.load(n, i)))

    for make in (total, failing, guarded, divided):
        assert not becomes_vectors(make, x, out)


def test_pointers_that_may_overlap_stay():
    x, y = parameter("x", FLOAT64, 40), parameter("y", FLOAT64, 40)

    def make(b):
        with b.loop(40) as i:
            b.store(y, i, b.neg(b.load(x, i)))

    f = function("f", [x, y], make)

    def unit(first, second):
        memory = [Buffer("m", FLOAT64, 40, Space.WORKSPACE, offset=offset) for offset in (first, second)]
        return Unit("sg_near", (), (Invoke(f, whole(*memory)),), None, 1024, 0, (f,))

    assert max(lanes_of(unit(0, 320))) == 8
    assert max(lanes_of(unit(0, 64))) == 1


def test_calls_keep_what_they_call():
    x, y = parameter("x", FLOAT64, 40), parameter("y", FLOAT64, 40)

    def negative(b):
        with b.loop(8) as i:
            b.store(y, i, b.neg(b.load(x, i)))

    inner = function("inner", [x, y], negative)

    def rows(b):
        with b.loop(5) as i:
            b.invoke(inner, ((x, i * 8), (y, i * 8)))

    outer = function("outer", [x, y], rows)
    unit = unit_of("calls", outer)
    unit = Unit(unit.name, unit.arguments, unit.forward, unit.forward, 0, 0, (inner, outer))
    made = widened(unit)
    assert {call.function for call in (*made.forward, *made.backward)} == {made.functions[1]}
    assert "f64x8" in function_text(made.functions[0])
    run_text(unit, [np.arange(40.0), np.zeros(40)], ("forward", "backward"))


# ---- whole graphs


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs(seed):
    """Machine code from LLVM text writes the bits of the Numba source run as plain Python."""
    program = Program(seed + 300).grow(25)
    for graph in (program.graph(), program.gradient()):
        lowering = lower_graph(graph)
        verify_unit(widened(lowering.lowered.unit), "widening")
        try:
            expected = run_uncompiled(graph, program.arrays, lowering=lowering)
        except StaticgradError:
            continue
        found = build(graph, "cpu", "llvm")[0].run(program.arrays)
        for x, y, z in zip(found, expected, interpret(graph, program.arrays), strict=True):
            assert identical(x, y), f"{graph}\n{x}\n{y}"
            assert x.shape == z.shape


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_every_instruction_in_vectors(name, monkeypatch):
    """The table of all instructions as a loop over single values, which becomes vectors."""
    import tests.runtime.test_compile as tables

    table = {op: entry for op, entry in tables.instructions(name).items() if not op.startswith(("quotient", "remainder"))}
    unit = unit_of(f"wide_{name}", tables.tabulate(name, table, 1))
    assert max(lanes_of(unit)) >= 8
    run_text(unit, tables.operands_and_outputs(name, table))
