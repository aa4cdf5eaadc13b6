"""The Numba printer: what the source looks like, and that loops, branches, variables and calls mean what the loop IR says."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from staticgrad.codegen.numba_printer import print_unit
from staticgrad.codegen.overlap import disjoint_functions
from staticgrad.codegen.python_values import Names, literal_text
from staticgrad.errors import VerificationError
from staticgrad.ir.aval import FLOAT32, FLOAT64, INT64
from staticgrad.ir.loops import Buffer, Index, Invoke, Scalar, Space, Unit
from tests.codegen.units import LANES, doubling, function, matmul, parameter, run, unit_of, whole


def body_of(f):
    """Return the lines of a function's body, title left out, as printed."""
    text = print_unit(unit_of("text", f))
    start = text.index(f"def {f.name}(")
    return text[start : text.index("\n\n", start)].split(":\n", 1)[1]


# ---- text


def test_a_whole_unit(golden):
    x, y, out = (parameter(name, "f4", 128) for name in ("x", "y", "out"))

    def make(b):
        b.comment("multiply, add")
        with b.loop(128) as i:
            t = b.load(x, i)
            b.store(out, i, b.fma(t, b.load(y, i), b.like(0.1, t)))

    values, total = parameter("values", "f4", 128), parameter("total", "f4", 1)

    def add_up(b):
        acc = b.local(FLOAT32, 16, "acc")
        with b.loop(16) as j:
            b.store(acc, j, b.literal(0, FLOAT32))
        with b.loop(128, step=16) as i, b.loop(16) as j:
            b.store(acc, j, b.add(b.load(acc, j), b.load(values, i + j)))
        s = b.variable(b.literal(0, FLOAT32), "s")
        with b.loop(16) as j:
            b.set(s, b.add(b.get(s), b.load(acc, j)))
        b.fail_if(b.is_nan(b.get(s)), 1, 12)
        b.store(total, 0, b.get(s))

    nest = function("nest_0", [x, y, out], make, title='fma of `h` (model.py:12), called "nest"')
    reduce = function("reduce_0", [values, total], add_up, title="sum of `h` (model.py:13)")
    X, Y = (Buffer(name, FLOAT32, 128, Space.INPUT, position=k) for k, name in enumerate("xy"))
    S = Buffer("sum", FLOAT32, 1, Space.OUTPUT, position=2)
    H = Buffer("h", FLOAT32, 128, Space.RESIDUAL, offset=64)
    forward, backward = (Invoke(nest, whole(X, Y, H)), Invoke(reduce, whole(H, S))), (Invoke(nest, whole(H, H, X)),)
    golden("numba_unit.py.txt", print_unit(Unit("sg_1a2b3c", (X, Y, S), forward, backward, 576, 576, (nest, reduce))))


def test_single_uses_fold_and_others_get_names():
    x, y, out = (parameter(name, "f8", 8) for name in ("x", "y", "out"))

    def make(b):
        with b.loop(8) as i:
            p, q = b.load(x, i), b.load(y, i)
            b.store(out, i, b.mul(b.sub(p, b.add(q, b.like(1, q))), b.neg(p)))

    assert body_of(function("f", [x, y, out], make)).splitlines() == [
        "    for i in range(8):",
        "        x0 = x[i]",
        "        out[i] = (x0 - (y[i] + 1.0)) * -x0",
    ]


def test_loads_stay_before_the_stores_that_follow_them():
    x, out = parameter("x", "f8", 8), parameter("out", "f8", 8)

    def make(b):
        first = b.load(x, 0)
        b.store(x, 0, b.load(x, 1))
        b.store(out, 0, b.neg(first))

    assert body_of(function("f", [x, out], make)).splitlines() == ["    x0 = x[0]", "    x[0] = x[1]", "    out[0] = -x0"]


def test_long_lines_are_broken_at_operands():
    x, out = parameter("a_rather_long_name", "f8", 64), parameter("out", "f8", 8)

    def make(b):
        with b.loop(8) as i:
            terms = [b.mul(b.load(x, i * 8 + k), b.literal(k + 0.12345678901234567, FLOAT64)) for k in range(8)]
            while len(terms) > 1:
                terms = [b.add(p, q) for p, q in zip(terms[::2], terms[1::2])]
            b.store(out, i, terms[0])

    f = function("f", [x, out], make)
    assert max(len(line) for line in body_of(f).splitlines()) <= 100
    run(unit_of("long", f), [np.random.default_rng(0).normal(size=64), np.zeros(8)])


def test_long_headers_are_broken():
    buffers = [parameter(f"a_rather_long_name_{k}", "f8", 1) for k in range(20)]
    unit = unit_of("wide", function("f", buffers, lambda b: None))
    text = print_unit(unit)
    assert max(map(len, text.splitlines())) <= 100
    assert "    pass\n" in text
    run(unit, [np.zeros(1)] * 20)


def test_names_shadow_nothing():
    assert [Names().unique(wish) for wish in ("sum", "lambda", "2x", "a.b c", "match", "")] == [
        "sum2",
        "lambda2",
        "v2x",
        "a_b_c",
        "match2",
        "value",
    ]
    names = Names({"x"})
    assert [names.unique("x"), names.unique("x"), names.unique("h1"), names.unique("h1")] == ["x2", "x3", "h1", "h1_2"]
    np_, kernel = parameter("np", "f8", 1), parameter("kernel", "f8", 1)
    f = function("forward", [np_, kernel], lambda b: b.store(kernel, 0, b.load(np_, 0)))
    text = print_unit(unit_of("names", f))
    assert "def forward2(np2, kernel2):" in text and "forward2(np2, kernel2)\n" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32(1), "np.float32(1.0)"),
        (np.float64(-0.0), "-0.0"),
        (np.float32(-0.0), "np.float32(-0.0)"),
        (np.float32(np.inf), "np.float32(np.inf)"),
        (np.float64(-np.inf), "-np.inf"),
        (np.float64(np.nan), "np.nan"),
        (np.int64(-3), "-3"),
        (np.int64(-(2**63)), "np.int64(-9223372036854775808)"),
        (np.uint64(2**64 - 1), "np.uint64(18446744073709551615)"),
        (np.int8(3), "np.int8(3)"),
        (np.bool_(True), "True"),
        (np.float32(1e-45), "np.float32(1e-45)"),
    ],
)
def test_literals(value, text):
    assert literal_text(value).text == text
    assert eval(text, {"np": np}) == value or value != value


def test_float32_literals_round_trip():
    values = np.random.default_rng(0).integers(0, 2**31, 2000, dtype=np.uint32).view(np.float32)
    for value in values[np.isfinite(values)]:
        assert eval(literal_text(value).text, {"np": np}).tobytes() == value.tobytes()


def test_equal_units_print_the_same_text():
    assert print_unit(unit_of("same", matmul(4, 4, 32, 4, 2))) == print_unit(unit_of("same", matmul(4, 4, 32, 4, 2)))


def test_counters_and_indices():
    x, out = parameter("x", "f8", 64), parameter("out", "f8", 64)
    n = Scalar(-1, INT64, hint="n")

    def make(b):
        with b.loop(n) as i, b.loop(8, start=2, step=2) as j:
            b.store(out, i * 8 - j + 7, b.load(x, j * -1 + i * 8 + 7))
        with b.loop(2) as i, b.loop(i + 1) as j:
            b.store(out, i - j * 3 + 5, b.load(x, 0))

    f = function("f", [x, out], make, [n])
    unit = unit_of("indices", f)
    unit = replace(unit, forward=(Invoke(f, unit.forward[0].buffers, (Index(8),)),))
    lines = print_unit(unit)
    for line in (
        "def f(x, out, n):",
        "    for i in range(n):",
        "        for j in range(2, 8, 2):",
        "            out[i * 8 - j + 7] = x[i * 8 - j + 7]",
        "    for i in range(2):",
        "        for j in range(i + 1):",
        "            out[i - j * 3 + 5] = x[0]",
        "    f(x, out, 8)",
    ):
        assert f"{line}\n" in lines
    run(unit, [np.arange(64.0), np.zeros(64)])


def test_long_stages_become_several_functions():
    f = doubling("f", n=2)
    arguments = [Buffer(f"x{k}", FLOAT64, 2, Space.INPUT, position=k) for k in range(121)]
    calls = tuple(Invoke(f, whole(x, y)) for x, y in itertools.pairwise(arguments))
    unit = Unit("sg_stages", tuple(arguments), calls, None, 0, 0, (f,))
    assert print_unit(unit).count("def forward_part") == 3
    result = run(unit, [np.ones(2), *(np.zeros(2) for _ in range(120))]).compiled
    assert result[-1].tolist() == [2.0**120] * 2


def test_what_cannot_be_printed():
    x = parameter("x", "f8", 1)

    with pytest.raises(VerificationError, match="was not handed to"):
        print_unit(unit_of("foreign", function("f", [], lambda b: b.load(x, 0) and b.store(x, 0, b.load(x, 0)))))
    with pytest.raises(VerificationError, match="used before it is made"):
        print_unit(unit_of("early", function("f", [x], lambda b: b.store(x, 0, Scalar(5, FLOAT64)))))
    f = function("f", [x], lambda b: None)
    local = Buffer("y", FLOAT64, 1, Space.LOCAL)
    with pytest.raises(VerificationError, match="cannot be handed"):
        print_unit(Unit("sg_local", (), (Invoke(f, whole(local)),), None, 0, 0, (f,)))


def test_overlapping_buffers_are_not_disjoint():
    def unit(first, second, f):
        return Unit("sg_overlap", (), (Invoke(f, whole(first, second)),), None, 0, 0, (f,))

    f = doubling("f")
    at = lambda offset: Buffer("h", FLOAT64, 8, Space.WORKSPACE, offset=offset)  # noqa: E731
    x = Buffer("x", FLOAT64, 8, Space.INPUT, position=0)
    assert disjoint_functions(unit(x, at(0), f)) == {f}
    assert disjoint_functions(unit(at(0), at(64), f)) == {f}
    assert disjoint_functions(unit(at(0), at(32), f)) == set()
    assert disjoint_functions(unit(x, x, f)) == set()
    a, b_ = parameter("a", "f8", 8), parameter("b", "f8", 8)
    outer = function("outer", [a, b_], lambda b: b.invoke(f, whole(a, b_)))
    nested = Unit("sg_nested", (), (Invoke(outer, whole(x, x)),), None, 0, 0, (f, outer))
    assert disjoint_functions(nested) == set()
    assert disjoint_functions(replace(nested, forward=(Invoke(outer, whole(x, at(0))),))) == {f, outer}
    same = function("same", [a], lambda b: b.invoke(f, ((a, Index()), (a, Index(4)))))
    assert disjoint_functions(Unit("sg_same", (), (Invoke(same, whole(x)),), None, 0, 0, (f, same))) == {same}


# ---- meaning


def test_broadcast_and_reduction_with_local_array():
    rows, columns = 6, 48
    x, y = parameter("x", "f4", rows * columns), parameter("y", "f4", columns)
    h = parameter("out_h", "f4", rows * columns)

    def add_row(b):
        with b.loop(rows) as i, b.loop(columns, hint="j") as j:
            b.store(h, i * columns + j, b.add(b.load(x, i * columns + j), b.load(y, j)))

    source, total = parameter("x", "f4", rows * columns), parameter("out", "f4", 1)

    def add_up(b):
        acc = b.local(np.dtype("f4"), 16, "acc")
        with b.loop(16) as j:
            b.store(acc, j, b.literal(0, acc.dtype))
        with b.loop(rows * columns, step=16) as i, b.loop(16, hint="j") as j:
            b.store(acc, j, b.add(b.load(acc, j), b.load(source, i + j)))
        s = b.variable(b.literal(0, acc.dtype), "s")
        with b.loop(16) as j:
            b.set(s, b.add(b.get(s), b.load(acc, j)))
        b.store(total, 0, b.get(s))

    first, second = function("add_row", [x, y, h], add_row), function("add_up", [source, total], add_up)
    X, Y, T = (Buffer(n, np.dtype("f4"), s, Space.INPUT, position=k) for k, (n, s) in enumerate([("x", 288), ("y", 48), ("t", 1)]))
    H = Buffer("h", np.dtype("f4"), rows * columns, Space.RESIDUAL, offset=64)
    unit = Unit("sg_rows", (X, Y, T), (Invoke(first, whole(X, Y, H)),), (Invoke(second, whole(H, T)),), 2048, 2048, (first, second))
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(rows, columns)).astype("f4"), rng.normal(size=columns).astype("f4")
    result = run(unit, [a.ravel(), b, np.zeros(1, "f4")], ("forward", "backward")).compiled[2]
    lanes = np.zeros(16, "f4")
    for part in (a + b).reshape(-1, 16):
        lanes += part
    expected = np.float32(0)
    for lane in lanes:
        expected += lane
    assert result[0] == expected


def test_control_flow():
    """Collatz lengths: while, if, variables; a count of long ones that is a failure at 27."""
    n, out = parameter("n", "i8", 40), parameter("out", "i4", 40)

    def make(b):
        with b.loop(40) as i:
            value, length = b.variable(b.load(n, i), "value"), b.variable(b.literal(0, np.dtype("i4")), "length")
            with b.while_() as parts:
                with parts.test():
                    parts.until(b.gt(b.get(value), b.literal(1, INT64)))
                with parts.body():
                    now = b.get(value)
                    with b.if_(b.eq(b.and_(now, b.literal(1, INT64)), b.literal(0, INT64))) as other:
                        b.set(value, b.shr(now, 1))
                    with b.otherwise(other):
                        b.set(value, b.add(b.mul(now, b.literal(3, INT64)), b.literal(1, INT64)))
                    b.set(length, b.add(b.get(length), b.literal(1, np.dtype("i4"))))
            b.fail_if(b.gt(b.get(length), b.literal(105, np.dtype("i4"))), 1, 7, i)
            b.store(out, i, b.get(length))

    ran = run(unit_of("collatz", function("collatz", [n, out], make)), [np.arange(1, 41), np.zeros(40, "i4")])

    def collatz(value):
        return 0 if value == 1 else 1 + collatz(value // 2 if value % 2 == 0 else 3 * value + 1)

    assert ran.compiled[1].tolist() == [collatz(value) for value in range(1, 41)]
    assert (ran.code, ran.context[1], ran.context[2]) == (1, 7, 26)  # 27 needs 111 steps; 31, which comes later, 106


def test_values_of_variables_are_taken_before_they_change():
    x, out = parameter("x", "f8", 8), parameter("out", "f8", 8)

    def make(b):
        older, newer = b.variable(b.literal(0, x.dtype), "older"), b.variable(b.literal(1, x.dtype), "newer")
        with b.loop(8) as i:
            p, q = b.get(older), b.get(newer)
            b.set(older, q)
            b.set(newer, b.add(p, q))
            before = b.load(x, i)
            b.store(x, i, b.get(older))
            b.store(out, i, before)

    ran = run(unit_of("fibonacci", function("fibonacci", [x, out], make)), [np.arange(8.0), np.zeros(8)])
    assert ran.compiled[0].tolist() == [1, 1, 2, 3, 5, 8, 13, 21]
    assert ran.compiled[1].tolist() == list(range(8))


def test_calls_with_offsets_numbers_and_failures():
    """An internal function that is called for each row, with a pointer to the row and its number."""
    row, out = parameter("row", "f4", 8), parameter("out", "f4", 1)
    n = Scalar(-7, INT64, hint="n")

    def dot(b):
        acc = b.variable(b.literal(0, row.dtype), "acc")
        with b.loop(n) as i:
            b.set(acc, b.fma(b.load(row, i), b.load(row, i), b.get(acc)))
        b.fail_if(b.lt(b.load(row, 0), b.literal(0, row.dtype)), 1, 3, n)
        b.store(out, 0, b.get(acc))

    inner = function("norm", [row, out], dot, [n], "a row's norm")
    x, y = parameter("x", "f4", 32), parameter("out", "f4", 4)

    def rows(b):
        with b.loop(4) as i:
            b.invoke(inner, ((x, i * 8), (y, Index.of(i))), (i + 5,))

    outer = function("rows", [x, y], rows)
    unit = replace(unit_of("offsets", outer), functions=(inner, outer))
    data = np.arange(32, dtype="f4")
    data[16] = -1
    ran = run(unit, [data, np.zeros(4, "f4")])
    assert ran.compiled[1].tolist() == [np.sum(data[8 * i : 8 * i + i + 5] ** 2) for i in range(4)]
    assert (ran.code, ran.context[1], ran.context[2]) == (1, 3, 7)


def test_variables_of_lanes_are_values():
    """Two sums that start as the same vector stay apart, in plain Python too, where vectors are arrays."""
    x, out = parameter("x", "f8", 64), parameter("out", "f8", 2 * LANES)

    def make(b):
        zero = b.literal(0, x.dtype, LANES)
        even, odd = b.variable(zero, "even"), b.variable(zero, "odd")
        with b.loop(64, step=2 * LANES) as i:
            b.set(even, b.add(b.get(even), b.load(x, i, LANES)))
            b.set(odd, b.add(b.get(odd), b.load(x, i + LANES, LANES)))
        b.store(out, 0, b.get(even))
        b.store(out, LANES, b.get(odd))

    ran = run(unit_of("sums", function("sums", [x, out], make)), [np.arange(64.0), np.zeros(2 * LANES)])
    assert ran.python[1].tolist() == (np.arange(32.0) * 2 + 32).tolist()


def test_masked_stores_and_positions():
    x, out, where = parameter("x", "i4", 32), parameter("out", "i4", 32), parameter("out_where", "i8", 32)

    def make(b):
        with b.loop(32, step=LANES) as i:
            v = b.load(x, i, LANES)
            b.store(out, i, b.add(v, v), b.lt(v, b.like(20, v)))
        with b.loop(32) as i:
            b.store(where, i, b.mul(b.position(i * 3 + 1), b.position(i - 40)))

    ran = run(
        unit_of("masked", function("masked", [x, out, where], make)), [np.arange(32, dtype="i4"), np.full(32, -1, "i4"), np.zeros(32, "i8")]
    )
    assert ran.compiled[1].tolist() == [2 * k if k < 20 else -1 for k in range(32)]
    assert ran.compiled[2].tolist() == [(3 * k + 1) * (k - 40) for k in range(32)]


def test_index_from_memory_wraps_nowhere():
    index, x, out = parameter("index", "u4", 6), parameter("x", "f8", 6), parameter("out", "f8", 6)

    def make(b):
        with b.loop(6) as i:
            b.store(out, i, b.load(x, b.load(index, i)))

    ran = run(
        unit_of("gather", function("gather", [index, x, out], make)), [np.array([5, 0, 3, 3, 1, 2], "u4"), np.arange(6.0), np.zeros(6)]
    )
    assert ran.compiled[2].tolist() == [5, 0, 3, 3, 1, 2]
