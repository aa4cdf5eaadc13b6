"""Compiled units: the printed source means the same to Numba, to plain Python and to the documented total semantics."""

import inspect
import itertools
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

import staticgrad as sg
from staticgrad.codegen.numba_printer import print_unit
from staticgrad.errors import StaticgradError, VerificationError
from staticgrad.ir.aval import BOOL, DTYPES
from staticgrad.ir.floats import OnFloats
from staticgrad.ir.loops import Unit
from staticgrad.runtime.compile import Stage, compile_count, compile_unit, load_object, target_machine
from tests.codegen.units import LANES, assert_same, call, doubling, function, matmul, parameter, pointers, run, unit_of

CHECKOUT = Path(sg.__file__).parents[1]
FLOATS, INTEGERS = ("float32", "float64"), tuple(name for name in DTYPES if "int" in name)

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
    values = {name: list(edges(name)) for name in DTYPES}
    outputs = [parameter(f"out{k}", name, len(values[name])) for k, name in enumerate(values)]

    def make(b):
        for out, constants in zip(outputs, values.values()):
            for k, value in enumerate(constants):
                b.store(out, k, b.literal(value, out.dtype))

    f = function("literals", outputs, make)
    results = run(unit_of("literals", f), [np.zeros(len(v), name) for name, v in values.items()]).compiled
    for name, got in zip(values, results):
        assert_same(got, np.array(values[name], name), name)


def test_register_tiled_matmul():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(8, 5)).astype("f4"), rng.normal(size=(5, 64)).astype("f4")
    ran = run(unit_of("matmul", matmul(8, 5, 64, 4, 2)), [a.ravel(), b.ravel(), np.zeros(512, "f4")])
    np.testing.assert_allclose(ran.compiled[2].reshape(8, 64), a.astype("f8") @ b, rtol=1e-5, atol=1e-6)


# ---- dispatchers, objects, errors


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


def test_dispatchers_serve_jitted_callers():
    import numba
    from numba import types

    unit = unit_of("callee", doubling("callee", factor=4.0))
    forward = compile_unit(unit.name, print_unit(unit)).forward
    signature = types.int64(types.CPointer(types.voidptr), types.CPointer(types.uint8), types.CPointer(types.int64))

    @numba.cfunc(signature)
    def twice(arguments, workspace, context):
        return forward(arguments, workspace, context) + forward(arguments, workspace, context)

    x, out, context = np.arange(8.0), np.zeros(8), np.zeros(8, np.int64)
    table = pointers([x, out])
    assert Stage(twice.address)(table.ctypes.data, 0, context.ctypes.data) == 0
    assert out.tolist() == (4 * x).tolist()


def test_source_is_shown():
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
    text = """
declare i64 @no_such_symbol()
define i64 @sg_lost_forward(ptr %arguments, ptr %workspace, ptr %context) {
  %result = call i64 @no_such_symbol()
  ret i64 %result
}"""
    object_code = target_machine().emit_object(llvm.parse_assembly(text))
    with pytest.raises(StaticgradError, match="sg_lost cannot be loaded"):
        load_object("sg_lost", object_code, False)
    with pytest.raises(StaticgradError, match="no machine code"):
        load_object("sg_lost", b"", False)


def test_objects_need_nothing_of_python():
    compiled = compile_unit("sg_free", print_unit(unit_of("free", matmul(4, 4, 32, 4, 2), doubling("free"))))
    assert b"sg_free_forward" in compiled.object_code
    for word in (b"Py", b"NRT", b"numba"):
        assert word not in symbols_of(compiled.object_code), word
    assert llvm.address_of_symbol("sg_free_forward") is None  # the engine's, not the process's


def symbols_of(object_code):
    """Return the names of the symbols that an object does not define, or all bytes where it is not ELF."""
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
import staticgrad as sg
from staticgrad.codegen.numba_printer import print_unit
from staticgrad.runtime.compile import compile_unit
from tests.codegen.units import call, doubling, unit_of
unit = unit_of("plain", doubling("kernel"))
compiled = compile_unit(unit.name, print_unit(unit))
x, out = np.arange(8.0), np.zeros(8)
assert call(compiled, [x, out]) == 0 and out.tolist() == (2 * x).tolist()
assert compiled.object_code == b"" and compiled.forward.__name__ == "forward"
"""
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


FRAGMENTED = """
import ctypes
import numpy as np
import staticgrad as sg

libc = ctypes.CDLL(None)
libc.mmap.restype, libc.munmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


def reserve(pages):
    return libc.mmap(None, 4096 * pages, 0, 0x4022, -1, 0)  # private, of nothing, not counted


sg.trace(np.exp)(np.ones(5))
start = reserve(4001)
for k in range(2000):
    libc.munmap(start + 4096 * (2 * k + 1), 4096)
far = reserve((3 << 30) // 4096)
for pages in (4096, 1024, 256, 64, 16, 8, 4, 3, 2):
    while reserve(pages) > far:
        pass
for k in range(30):
    x = np.linspace(0.1, 1.0, 7 + k)
    found = sg.trace(lambda x: np.sum(np.exp(x * k) * np.sin(x) + np.tanh(x)))(x)
    np.testing.assert_allclose(found, np.sum(np.exp(x * k) * np.sin(x) + np.tanh(x)), rtol=1e-13)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="lays out memory with Linux's mmap")
def test_code_reaches_its_constants_where_memory_is_full_of_small_holes():
    """Holes of a page, and below them 3 GiB in one piece: whatever takes more than a page is further away than code can reach."""
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "STATICGRAD_CACHE": "off", "STATICGRAD_PRINTER": "llvm"}
    done = subprocess.run([sys.executable, "-c", FRAGMENTED], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
