"""Compiled units: the printed source means the same to Numba, to plain Python and to the documented total semantics."""

import itertools
import subprocess
import sys
import threading
from dataclasses import dataclass

import numpy as np
import pytest

from staticgrad.codegen.numba_printer import print_unit
from staticgrad.errors import StaticgradError, VerificationError
from staticgrad.ir.aval import BOOL, DTYPES, INT64
from staticgrad.ir.builder import Builder
from staticgrad.ir.floats import OnFloats
from staticgrad.ir.loops import Buffer, Function, Index, Invoke, Scalar, Space, Unit
from staticgrad.runtime.compile import compile_count, compile_unit, load_object, run_python

FLOATS, INTEGERS = ("float32", "float64"), tuple(name for name in DTYPES if "int" in name)
LANES = 16


def parameter(name, dtype, size):
    return Buffer(name, np.dtype(dtype), size, Space.PARAMETER)


def function(name, buffers, make, numbers=(), title=""):
    builder = Builder()
    make(builder)
    return Function(name, tuple(buffers), tuple(numbers), builder.root, title)


def argument_buffers(function, names=None):
    """Return argument buffers for all parameters of a function; those called `out...` are outputs."""
    return [
        Buffer(b.name, b.dtype, b.size, Space.OUTPUT if b.name.startswith("out") else Space.INPUT, position=k)
        for k, b in enumerate(function.buffers)
    ]


def whole(*buffers):
    return tuple((buffer, Index()) for buffer in buffers)


def unit_of(name, *functions):
    """Return a unit that calls each function on arguments of its own."""
    arguments, calls = [], []
    for f in functions:
        own = [
            Buffer(f"{b.name}_{f.name}", b.dtype, b.size, Space.OUTPUT if b.name.startswith("out") else Space.INPUT, len(arguments) + k)
            for k, b in enumerate(f.buffers)
        ]
        arguments += own
        calls.append(Invoke(f, whole(*own)))
    return Unit(f"sg_{name}", tuple(arguments), tuple(calls), None, 0, 0, functions)


@dataclass
class Ran:
    compiled: list
    python: list
    code: int
    context: np.ndarray


def pointers(arrays):
    return np.array([array.ctypes.data for array in arrays], np.uintp)


def aligned(size):
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def run(unit, arrays, stages=("forward",)):
    """Run a unit compiled and as plain Python, and check that both write the same bytes."""
    source = print_unit(unit)
    compiled = compile_unit(unit.name, source)
    results = []
    for mode in ("compiled", "python"):
        own = [array.copy() for array in arrays]
        workspace, context = aligned(unit.workspace), np.zeros(8, np.int64)
        for stage in stages:
            if mode == "python":
                code = run_python(source, own, workspace, context, stage)
            else:
                call = compiled.call_forward if stage == "forward" else compiled.call_backward
                table = pointers(own)
                code = call(table.ctypes.data, workspace.ctypes.data, context.ctypes.data)
        results.append((own, code, context))
    (first, code, context), (second, other_code, other_context) = results
    for buffer, x, y in zip(unit.arguments, first, second):
        assert_same(x, y, f"{buffer.name}: compiled and Python")
    assert code == other_code and context.tolist() == other_context.tolist()
    return Ran(first, second, code, context)


def assert_same(x, y, what):
    """Check equal bits, any NaN being as good as another."""
    assert x.dtype == y.dtype and x.shape == y.shape
    same = (bits(x) == bits(y)) | ((x != x) & (y != y))
    if not same.all():
        at = int(np.flatnonzero(~same)[0])
        raise AssertionError(f"{what}: element {at} is {x[at]!r} and {y[at]!r}")


def bits(x):
    return x.view(f"u{x.dtype.itemsize}")


# ---- every instruction


def edges(name):
    dtype = DTYPES[name]
    if name == "bool":
        return np.array([False, True])
    if dtype.kind == "f":
        info = np.finfo(dtype)
        values = [0.0, -0.0, 1.0, -1.5, 2.5, 0.5, -3.7, np.inf, -np.inf, np.nan, info.max, -info.max, info.tiny, -info.smallest_subnormal]
        return np.array([*values, 1e10, 16777217.0, 0.1], dtype)
    info = np.iinfo(dtype)
    values = {0, 1, 2, 3, 7, 8, 100, info.max, info.max - 1, info.min, info.min + 1, 8 * dtype.itemsize - 1, 8 * dtype.itemsize}
    if dtype.kind == "i":
        values |= {-1, -2, -7, -100}
    return np.array(sorted(values), dtype)


def pairs(name):
    """Return all pairs of edge values, filled up to whole vectors, and a third operand."""
    x, y = (np.array(column) for column in zip(*itertools.product(edges(name), repeat=2)))
    z = np.roll(x, 5)
    return tuple(np.resize(v, x.size + -x.size % LANES).astype(DTYPES[name]) for v in (x, y, z))


def instructions(name):
    """Return name -> (instruction on a vocabulary, dtype of the result)."""
    dtype = DTYPES[name]
    logic = {"lt": BOOL, "le": BOOL, "eq": BOOL, "ne": BOOL, "and_": dtype, "or_": dtype, "xor": dtype}
    table = {op: (lambda b, x, y, z, op=op: getattr(b, op)(x, y), result) for op, result in logic.items()}
    table["min"] = (lambda b, x, y, z: b.min(x, y), dtype)
    table["max"] = (lambda b, x, y, z: b.max(x, y), dtype)
    table["not"] = (lambda b, x, y, z: b.not_(x), dtype)
    table["select"] = (lambda b, x, y, z: b.select(b.lt(x, y), z, y), dtype)
    if dtype.kind == "f":
        for op in ("and_", "or_", "xor", "not"):
            del table[op]
        for op in ("sqrt", "floor", "rint", "trunc"):
            table[op] = (lambda b, x, y, z, op=op: getattr(b, op)(x), dtype)
        table["div"] = (lambda b, x, y, z: b.div(x, y), dtype)
        table["fma"] = (lambda b, x, y, z: b.fma(x, y, z), dtype)
        table["bits"] = (lambda b, x, y, z: b.bitcast(x, np.dtype(f"i{dtype.itemsize}")), np.dtype(f"i{dtype.itemsize}"))
        table["back"] = (lambda b, x, y, z: b.bitcast(b.bitcast(x, np.dtype(f"u{dtype.itemsize}")), dtype), dtype)
    if name != "bool":
        for op in ("add", "sub", "mul"):
            table[op] = (lambda b, x, y, z, op=op: getattr(b, op)(x, y), dtype)
        for op in ("neg", "abs"):
            table[op] = (lambda b, x, y, z, op=op: getattr(b, op)(x), dtype)
        table["chain"] = (lambda b, x, y, z: b.sub(b.add(x, y), b.mul(b.sub(y, z), b.add(x, b.like(3, x)))), dtype)
    if dtype.kind in "iu":
        for op in ("quotient", "remainder", "mulhi", "shl", "shr"):
            table[op] = (lambda b, x, y, z, op=op: getattr(b, op)(x, y), dtype)
        table["literal shl"] = (lambda b, x, y, z: b.shl(x, 3), dtype)
        table["literal shr"] = (lambda b, x, y, z: b.shr(x, 3), dtype)
        table["wide shr"] = (lambda b, x, y, z: b.shr(x, 8 * dtype.itemsize), dtype)
        table["quotient by 7"] = (lambda b, x, y, z: b.quotient(x, b.like(7, x)), dtype)
        table["remainder by 0"] = (lambda b, x, y, z: b.remainder(x, b.like(0, x)), dtype)
        table["wrapped compare"] = (lambda b, x, y, z: b.lt(b.add(x, y), z), BOOL)
    return table


def tabulate(name, table, lanes):
    """Return a function that writes the result of every instruction of `table` for all operands."""
    size = pairs(name)[0].size
    inputs = [parameter(operand, DTYPES[name], size) for operand in "xyz"]
    outputs = [parameter(f"out{k}", dtype, size) for k, (_, dtype) in enumerate(table.values())]

    def make(b):
        with b.loop(size, step=lanes) as i:
            x, y, z = (b.load(buffer, i, lanes) for buffer in inputs)
            for out, (apply, _) in zip(outputs, table.values()):
                b.store(out, i, apply(b, x, y, z))

    return function(f"{name}_{lanes}", [*inputs, *outputs], make)


@pytest.mark.parametrize("lanes", [1, LANES])
@pytest.mark.parametrize("group", [("bool", *FLOATS), INTEGERS[:4], INTEGERS[4:]], ids=["floats", "signed", "unsigned"])
def test_every_instruction(group, lanes):
    tables = [instructions(name) for name in group]
    unit = unit_of(f"every_{group[0]}_{lanes}", *(tabulate(name, table, lanes) for name, table in zip(group, tables)))
    arrays = [array for name, table in zip(group, tables) for array in operands_and_outputs(name, table)]
    results = iter(run(unit, arrays).compiled)
    reference = OnFloats()
    for name, table in zip(group, tables):
        x, y, z = (next(results) for _ in range(3))
        for op, (apply, _) in table.items():
            with np.errstate(all="ignore"):
                expected = apply(reference, x, y, z)
            got = next(results)
            if op in ("min", "max") and DTYPES[name].kind == "f":
                zero = (x == 0) & (y == 0)  # NumPy's result for -0.0 and 0.0 depends on the machine; ours is y
                expected = np.where(zero, y, expected)
            assert_same(got, np.asarray(expected), f"{op} of {name}")


def operands_and_outputs(name, table):
    x, y, z = pairs(name)
    return [x, y, z, *(np.zeros(x.size, dtype) for _, dtype in table.values())]


@pytest.mark.parametrize("lanes", [1, LANES])
def test_every_cast(lanes):
    def casts(name):
        return {target: (lambda b, x, y, z, target=target: b.cast(x, DTYPES[target]), DTYPES[target]) for target in DTYPES}

    extra = np.array([2.0**31, -(2.0**31), -(2.0**31) - 1, 2.0**32, 2.0**63, -(2.0**63), 2.0**64, 1.8e19, 300.7, -129.2, -0.9, 65536.0])
    arrays, functions = [], []
    for name in DTYPES:
        x = pairs(name)[0]
        if DTYPES[name].kind == "f":
            x[: extra.size] = extra
        arrays += [x, x, x, *(np.zeros(x.size, dtype) for dtype in DTYPES.values())]
        functions.append(tabulate(name, casts(name), lanes))
    results = iter(run(unit_of(f"casts_{lanes}", *functions), arrays).compiled)
    for name in DTYPES:
        x, _, _ = (next(results) for _ in range(3))
        for target in DTYPES:
            with np.errstate(all="ignore"):
                assert_same(next(results), OnFloats().cast(x, DTYPES[target]), f"{name} to {target}")


def test_literals_keep_their_bits():
    values = {name: [v for v in edges(name)] for name in DTYPES}
    outputs = [parameter(f"out{k}", name, len(values[name])) for k, name in enumerate(values)]

    def make(b):
        for out, constants in zip(outputs, values.values()):
            for k, value in enumerate(constants):
                b.store(out, k, b.literal(value, out.dtype))

    f = function("literals", outputs, make)
    results = run(unit_of("literals", f), [np.zeros(len(v), name) for name, v in values.items()]).compiled
    for name, got in zip(values, results):
        assert_same(got, np.array(values[name], name), name)


# ---- loops and memory


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
    buffers = argument_buffers(outer)
    unit = Unit("sg_offsets", tuple(buffers), (Invoke(outer, whole(*buffers)),), None, 0, 0, (inner, outer))
    data = np.arange(32, dtype="f4")
    data[16] = -1
    ran = run(unit, [data, np.zeros(4, "f4")])
    assert ran.compiled[1].tolist() == [np.sum(data[8 * i : 8 * i + i + 5] ** 2) for i in range(4)]
    assert (ran.code, ran.context[1], ran.context[2]) == (1, 3, 7)


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


def matmul(rows, inner, columns, height, width):
    """Return a register-tiled product: `height` rows of `width` vectors stay in registers."""
    a, b_, c = parameter("a", "f4", rows * inner), parameter("b", "f4", inner * columns), parameter("out", "f4", rows * columns)

    def make(b):
        with b.loop(columns, step=width * LANES, hint="column") as j, b.loop(rows, step=height, hint="row") as i:
            zero = b.literal(0, a.dtype, LANES)
            tile = {(m, n): b.variable(zero, f"c{m}_{n}") for m in range(height) for n in range(width)}
            with b.loop(inner, hint="k") as k:
                right = [b.load(b_, k * columns + j + n * LANES, LANES) for n in range(width)]
                for m in range(height):
                    left = b.splat(b.load(a, (i + m) * inner + k), LANES)
                    for n in range(width):
                        b.set(tile[m, n], b.fma(left, right[n], b.get(tile[m, n])))
            for (m, n), variable in tile.items():
                b.store(c, (i + m) * columns + j + n * LANES, b.get(variable))

    return function("matmul", [a, b_, c], make)


def test_register_tiled_matmul():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(8, 5)).astype("f4"), rng.normal(size=(5, 64)).astype("f4")
    ran = run(unit_of("matmul", matmul(8, 5, 64, 4, 2)), [a.ravel(), b.ravel(), np.zeros(512, "f4")])
    np.testing.assert_allclose(ran.compiled[2].reshape(8, 64), a.astype("f8") @ b, rtol=1e-5, atol=1e-6)


# ---- dispatchers, objects, errors


def doubling(name, n=8, factor=2.0, title=""):
    x, out = parameter(f"x_{name}", "f8", n), parameter(f"out_{name}", "f8", n)

    def make(b):
        with b.loop(n) as i:
            value = b.load(x, i)
            b.store(out, i, b.mul(value, b.like(factor, value)))

    return function(name, [x, out], make, title=title)


def call(compiled, arrays, stage="forward"):
    table, context = pointers(arrays), np.zeros(8, np.int64)
    function = compiled.call_forward if stage == "forward" else compiled.call_backward
    return function(table.ctypes.data, 0, context.ctypes.data)


def test_equal_kernels_compile_once():
    from staticgrad.runtime.assemble import lowered_count

    units = [unit_of(f"once_{name}", doubling(name, n=11, title=f"at {name}.py:3")) for name in ("here", "there")]
    compile_unit(units[0].name, print_unit(units[0]))
    lowered, count = lowered_count(), compile_count()
    second = compile_unit(units[1].name, print_unit(units[1]))
    assert (lowered_count(), compile_count()) == (lowered, count + 1)
    x, out = np.arange(11.0), np.zeros(11)
    assert call(second, [x, out]) == 0 and out.tolist() == (2 * x).tolist()
    other = unit_of("once_other", doubling("here", n=11, factor=-2.0))
    compile_unit(other.name, print_unit(other))
    assert lowered_count() == lowered + 2  # the kernel and the stage that calls it


def test_dispatchers_have_one_nopython_signature():
    unit = unit_of("dispatcher", doubling("kernel"))
    compiled = compile_unit(unit.name, print_unit(unit))
    assert len(compiled.forward.nopython_signatures) == len(compiled.forward.signatures) == 1
    assert compiled.backward is None and compiled.call_backward is None
    with pytest.raises(TypeError, match="No matching definition"):
        compiled.forward(1, 2, 3)


def test_source_is_shown():
    import inspect

    unit = unit_of("shown", doubling("shown_kernel", n=5))
    compiled = compile_unit(unit.name, print_unit(unit))
    assert "for i in range(5):" in inspect.getsource(compiled.namespace["shown_kernel"].py_func)


CHILD = """
import ctypes, sys
from pathlib import Path
from staticgrad.runtime.compile import Stage, load_object
address, backward = load_object("sg_child", Path(sys.argv[1]).read_bytes(), True)
x, out = (ctypes.c_double * 8)(*range(8)), (ctypes.c_double * 8)()
table = (ctypes.c_void_p * 4)(*(ctypes.addressof(v) for v in (x, out, out, x)))
context = (ctypes.c_int64 * 8)()
assert Stage(address)(table, None, context) == 0
assert Stage(backward)(table, None, context) == 0
assert list(out) == [2 * k for k in range(8)] and list(x) == [6 * k for k in range(8)], (list(x), list(out))
assert "numba" not in sys.modules, "numba was imported"
"""


def test_object_in_another_process_without_numba(tmp_path):
    first, second = doubling("first"), doubling("second", factor=3.0)
    both = unit_of("child", first, second)
    unit = Unit("sg_child", both.arguments, both.forward[:1], both.forward[1:], 0, 0, both.functions)
    path = tmp_path / "object"
    path.write_bytes(compile_unit(unit.name, print_unit(unit)).object_code)
    done = subprocess.run([sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_unresolved_symbols_raise():
    import llvmlite.binding as llvm

    from staticgrad.runtime.compile import target_machine

    text = "declare i64 @no_such_symbol()\ndefine i64 @sg_lost_forward(ptr %a, ptr %b, ptr %c) {\n%r = call i64 @no_such_symbol()\nret i64 %r\n}"
    machine = target_machine()
    object_code = machine.emit_object(llvm.parse_assembly(text))
    with pytest.raises(StaticgradError, match="sg_lost cannot be loaded"):
        load_object("sg_lost", object_code, False)
    with pytest.raises(StaticgradError, match="no machine code"):
        load_object("sg_lost", b"", False)


def test_objects_need_nothing_of_python():
    import llvmlite.binding as llvm

    compiled = compile_unit("sg_free", print_unit(unit_of("free", matmul(4, 4, 32, 4, 2), doubling("free"))))
    assert b"sg_free_forward" in compiled.object_code
    for word in (b"Py", b"NRT", b"numba"):
        assert word not in symbols_of(compiled.object_code), word
    assert llvm.address_of_symbol("sg_free_forward") is None  # the engine's, not the process's


def symbols_of(object_code):
    """Return the names of the symbols that an object does not define, or all bytes where it is not ELF."""
    import struct

    if object_code[:4] != b"\x7fELF":
        return object_code
    table, size, count = struct.unpack_from("<Q", object_code, 40)[0], *struct.unpack_from("<HH", object_code, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", object_code, table + k * size) for k in range(count)]
    names = []
    for section in sections:
        if section[1] == 2:  # SHT_SYMTAB
            strings = sections[section[6]][4]
            for at in range(section[4], section[4] + section[5], 24):
                name, _, _, home = struct.unpack_from("<IBBH", object_code, at)
                if home == 0 and name:
                    start = strings + name
                    names.append(object_code[start : object_code.index(b"\0", start)])
    return b" ".join(names)


def test_threads_compile_and_call():
    units = [unit_of(f"thread_{k}", doubling("kernel", n=8, factor=float(k % 3))) for k in range(6)]
    failures = []

    def work(k):
        try:
            compiled, x, out = compile_unit(units[k].name, print_unit(units[k])), np.arange(8.0), np.zeros(8)
            for _ in range(50):
                assert call(compiled, [x, out]) == 0
            assert out.tolist() == (x * (k % 3)).tolist()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_without_jit():
    script = """
import numpy as np
from tests.runtime.test_compile import *
unit = unit_of("plain", doubling("kernel"))
compiled = compile_unit(unit.name, print_unit(unit))
x, out = np.arange(8.0), np.zeros(8)
assert call(compiled, [x, out]) == 0 and out.tolist() == (2 * x).tolist()
assert compiled.object_code == b"" and compiled.forward.__name__ == "forward"
"""
    import os

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}
    )
    assert done.returncode == 0, done.stderr


def test_a_kernel_that_needs_more_than_the_vocabulary_is_refused():
    source = """
from staticgrad.runtime.vocabulary import kernel

@kernel("void**, u8*, i64*", entry=True)
def forward(arguments, workspace, context):
    print(context[0])
    return context[0]
"""
    with pytest.raises(VerificationError, match="would need"):
        compile_unit("sg_print", source)
