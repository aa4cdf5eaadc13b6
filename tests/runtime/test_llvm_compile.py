"""Units compiled from LLVM text: without Numba, with errors instead of crashes, linked into Numba's functions, kept on disk."""

import itertools
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.codegen.llvm_printer import named_text, print_llvm
from staticgrad.codegen.widen import widened
from staticgrad.config import config, configure, read_environment
from staticgrad.errors import InvalidValueError, StaticgradError, VerificationError
from staticgrad.ir.loops import Unit
from staticgrad.runtime import compile as compiling
from staticgrad.runtime.build import forget
from staticgrad.runtime.compile import Stage, compile_count
from staticgrad.runtime.llvm_compile import assemble_text, compile_text, optimised
from tests.codegen.units import call, doubling, pointers, unit_of

X = np.linspace(-1, 1, 12)


def compiled(unit):
    name, text = named_text(widened(unit))
    return compile_text(name, text, unit.backward is not None)


def child(script, *arguments, **environment):
    """Run a script in a process of its own and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- without Numba


def test_numba_is_not_imported():
    script = """
import sys
import numpy as np
import staticgrad as sg
loss = sg.trace(lambda x, w: np.sum(np.tanh(x @ w) ** 2) + np.max(x), printer="llvm")
value, (gx, gw) = sg.value_and_grad(loss, argnums=(0, 1))(np.ones((3, 4)), np.ones((4, 2)))
lowered = sg.grad(loss).lower(np.ones((3, 4)), np.ones((4, 2)))
assert "define i64" in lowered.llvm and "def forward" in lowered.source
assert gx.shape == (3, 4) and gw.shape == (4, 2)
assert "llvmlite" in sys.modules
assert not [name for name in sys.modules if name.partition(".")[0] == "numba"], "numba was imported"
"""
    child(script, STATICGRAD_CACHE="off")


def test_without_jit():
    """NUMBA_DISABLE_JIT is about Numba: the unit is machine code, the dispatchers are plain Python."""
    script = """
import numpy as np
import staticgrad as sg
f = sg.trace(lambda x: np.sum(x * x), printer="llvm")
assert sg.grad(f)(np.arange(3.0)).tolist() == [0, 2, 4]
lowered = sg.grad(f).lower(np.arange(3.0))
assert lowered.forward.__name__ == "forward" and not hasattr(lowered.forward, "signatures")
"""
    child(script, NUMBA_DISABLE_JIT="1", STATICGRAD_CACHE="off")


# ---- errors, never crashes

UNIT = "define i64 @sg_bad_forward(ptr %arguments, ptr %workspace, ptr %context) {{\n{}  ret i64 0\n}}\n"


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        UNIT.format("  %x = fadd double 0.1, i64 3\n"),
        UNIT.format("  call void @nobody()\n"),
        UNIT.format("  br label %nowhere\n"),
        "define i64 @f() {\na:\n  br label %c\nb:\n  %x = add i64 1, 2\n  br label %c\nc:\n  ret i64 %x\n}\n",
    ],
)
def test_text_that_llvm_does_not_accept(text):
    with pytest.raises(VerificationError, match="LLVM does not accept the text of sg_bad"):
        assemble_text("sg_bad", text)


@pytest.mark.parametrize("symbol", ["PyErr_SetString", "NRT_Allocate", "malloc", "no_such_symbol", "sg_other_forward"])
def test_foreign_symbols_are_refused(symbol):
    text = f"declare void @{symbol}()\n" + UNIT.format(f"  call void @{symbol}()\n")
    with pytest.raises(VerificationError, match=f"sg_bad would need {symbol}"):
        compile_text("sg_bad", text, False)


def test_foreign_variables_are_refused():
    text = "@counter = external global i64\n" + UNIT.format("  store i64 1, ptr @counter\n")
    with pytest.raises(VerificationError, match="would need counter"):
        compile_text("sg_bad", text, False)


def test_a_stage_that_is_not_there():
    unit = unit_of("lone", doubling("f"))
    with pytest.raises(StaticgradError, match="cannot be loaded"):
        compile_text("sg_lone", print_llvm(unit, "lone"), True)
    with pytest.raises(StaticgradError, match="cannot be loaded"):
        compile_text("sg_other", print_llvm(unit, "lone"), False)
    with pytest.raises(StaticgradError, match="cannot be loaded"):
        compile_text("sg_empty", "", False)


# ---- what it makes of the text


def test_stages_are_counted_and_called():
    before = compile_count()
    both = unit_of("both", doubling("f"), doubling("g", factor=3.0))
    made = compiled(Unit("sg_both", both.arguments, both.forward[:1], both.forward[1:], 0, 0, both.functions))
    assert compile_count() == before + 1
    assert made.name.encode() + b"_backward" in made.object_code
    arrays = [np.arange(8.0), np.zeros(8), np.arange(8.0), np.zeros(8)]
    assert call(made, arrays) == call(made, arrays, "backward") == 0
    assert arrays[1].tolist() == (2 * arrays[0]).tolist() and arrays[3].tolist() == (3 * arrays[0]).tolist()
    assert compiled(unit_of("alone", doubling("f"))).call_backward is None


def test_functions_of_one_call_disappear():
    text = print_llvm(widened(unit_of("inlined", doubling("f", n=100), doubling("g", n=100))), "inlined")
    assert [f.name for f in optimised("sg_inlined", text).functions if not f.is_declaration] == ["sg_inlined_forward"]


def test_variables_and_local_arrays_become_registers():
    graph = sg.value_and_grad(lambda x: np.sum(np.exp(x)) + np.max(x)).lower(np.zeros((5, 300), np.float32))
    module = optimised("sg_registers", print_llvm(widened(graph._lowering.lowered.unit), "registers"))
    assert "alloca" not in str(module)


def test_compile_time_is_linear():
    """Eight times as many functions take about eight times as long; the bound leaves room for a busy machine."""

    def seconds(count):
        unit = unit_of(f"linear_{count}", *(doubling(f"f{k}", n=60 + k, factor=float(k)) for k in range(count)))
        start = time.process_time()
        compiled(unit)
        return time.process_time() - start

    seconds(10)
    assert min(seconds(320), seconds(320)) < 20 * min(seconds(40) for _ in range(3))


def test_threads_compile_and_call():
    failures = []

    def work(k):
        try:
            made, x, out = compiled(unit_of(f"thread_{k}", doubling("f", n=40, factor=float(k % 3)))), np.arange(40.0), np.zeros(40)
            for _ in range(50):
                assert call(made, [x, out]) == 0
            assert out.tolist() == (x * (k % 3)).tolist()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# ---- Numba's dispatchers


def test_dispatchers_have_one_nopython_signature():
    lowered = sg.value_and_grad(lambda x: np.sum(np.sin(x) * x)).lower(X, printer="llvm")
    assert lowered.printer == "llvm" and "def forward" in lowered.source
    for dispatcher, name in ((lowered.forward, "forward"), (lowered.backward, "backward")):
        assert dispatcher.__name__ == name
        assert len(dispatcher.nopython_signatures) == len(dispatcher.signatures) == 1
        with pytest.raises(TypeError, match="No matching definition"):
            dispatcher(1, 2, 3)
    assert lowered.forward is lowered.forward
    assert sg.trace(lambda x: x + 1).lower(X, printer="llvm").backward is None


def test_dispatchers_serve_jitted_callers(capfd):
    import numba
    from numba import types

    both = unit_of("served", doubling("f"), doubling("g", factor=4.0))
    made = compiled(Unit("sg_served", both.arguments, both.forward[:1], both.forward[1:], 0, 0, both.functions))
    forward, backward = made.forward, made.backward
    signature = types.int64(types.CPointer(types.voidptr), types.CPointer(types.uint8), types.CPointer(types.int64))

    @numba.cfunc(signature)
    def twice(arguments, workspace, context):
        return forward(arguments, workspace, context) + backward(arguments, workspace, context)

    x, out, more = np.arange(8.0), np.zeros(8), np.zeros(8)
    table, context = pointers([x, out, x, more]), np.zeros(8, np.int64)
    assert Stage(twice.address)(table.ctypes.data, 0, context.ctypes.data) == 0
    assert out.tolist() == (2 * x).tolist() and more.tolist() == (4 * x).tolist()
    assert "warning" not in capfd.readouterr().err, "LLVM found modules for different targets"


USER = """
import sys
import types
import numpy as np
from staticgrad.runtime.compile import Stage

if sys.argv[2] == "first":
    import staticgrad as sg
    forward = sg.trace(lambda x: np.tanh(x) * 3, printer="llvm").lower(np.zeros(5)).forward
else:
    forward = None
sys.modules["prepared"] = types.SimpleNamespace(forward=forward)
sys.path.insert(0, sys.argv[1])
import user
x, out, context = np.linspace(-1, 1, 5), np.zeros(5), np.zeros(8, np.int64)
table = np.array([x.ctypes.data, out.ctypes.data], np.uintp)
assert Stage(user.stage.address)(table.ctypes.data, 0, context.ctypes.data) == 0
assert np.allclose(out, np.tanh(x) * 3)
print(user.stage.cache_hits)
"""

MODULE = """
import numba
from numba import types
from prepared import forward

@numba.cfunc(types.int64(types.CPointer(types.voidptr), types.CPointer(types.uint8), types.CPointer(types.int64)), cache=True)
def stage(arguments, workspace, context):
    return forward(arguments, workspace, context)
"""


def test_a_cached_function_of_a_user_survives_the_next_process(tmp_path):
    (tmp_path / "user.py").write_text(MODULE)
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "STATICGRAD_CACHE": "off"}
    assert child(USER, tmp_path, "first", **environment) == "0\n"
    assert child(USER, tmp_path, "second", **environment) == "1\n"


# ---- the printer as an option


@pytest.fixture
def disk(tmp_path):
    """A disk cache of its own, and nothing in memory."""
    before = configure(replace(config(), cache=tmp_path))
    forget()
    yield tmp_path
    forget()
    configure(before)


def test_printers_do_not_share_what_they_compiled(disk):
    f = lambda x: np.sum(np.tanh(x) * x)  # noqa: E731
    functions = [sg.trace(f, printer=printer) for printer in ("numba", "llvm")]
    results = [g(X) for g in functions]
    assert results[0] == results[1]
    assert [g.cache_info().compiles for g in functions] == [2, 2]  # of one record: one compilation each
    assert len(list(disk.glob("*.unit"))) == 2
    assert [g.lower(X).printer for g in functions] == ["numba", "llvm"]
    assert functions[0].lower(X, printer="llvm").printer == "llvm"
    assert functions[0].lower(X).llvm == functions[1].lower(X).llvm


def test_objects_are_found_on_disk_whatever_the_line(disk, monkeypatch):
    def make(lines):
        scope = {"np": np}
        exec("\n" * lines + "def f(x):\n    return np.sum(np.tanh(x) * x)\n", scope)
        return sg.trace(scope["f"], printer="llvm")

    first = make(1)
    value = first(X)
    assert first.cache_info()[1:4] == (1, 0, 0)
    forget()
    again = make(5)
    assert again(X) == value and again.cache_info()[1:4] == (0, 1, 0)


def test_the_key_covers_the_printer_and_the_text(disk):
    f = sg.trace(lambda x: np.sum(x * 2.5), printer="llvm")
    f(X)
    (entry,) = disk.glob("*.unit")
    forget()
    other = sg.trace(lambda x: np.sum(x * 3.5), printer="llvm")
    assert other(X) == np.sum(X * 3.5) and other.cache_info().disk_hits == 0
    assert len(list(disk.glob("*.unit"))) == 2 and entry.exists()


def test_the_configuration_chooses():
    assert read_environment({}).printer == "llvm"
    assert read_environment({"STATICGRAD_PRINTER": "numba"}).printer == "numba"
    assert read_environment({"NUMBA_DISABLE_JIT": "1"}).printer == "numba"
    assert read_environment({"NUMBA_DISABLE_JIT": "1", "STATICGRAD_PRINTER": "llvm"}).printer == "llvm"
    with pytest.raises(InvalidValueError, match=r"STATICGRAD_PRINTER='gcc': expected one of llvm, numba"):
        read_environment({"STATICGRAD_PRINTER": "gcc"})
    with pytest.raises(InvalidValueError, match="printer='gcc'"):
        sg.trace(lambda x: x, printer="gcc")
    f = sg.trace(lambda x: x * 1.25)
    before = config()
    try:
        for printer in ("llvm", "numba"):
            configure(replace(before, printer=printer))
            assert f.lower(X).printer == printer
            assert f(X).tolist() == (X * 1.25).tolist()
    finally:
        configure(before)
    assert len(f.signatures) == 2


def test_texts_are_dumped(tmp_path, disk):
    configure(replace(config(), dump=tmp_path))
    f = sg.trace(lambda x: np.sum(x * 4.5), printer="llvm")
    f(X)
    (path,) = tmp_path.glob("*.ll")
    assert path.read_text() == f.lower(X).llvm and path.stem in path.read_text()


def test_transforms_inherit_the_printer():
    f = sg.trace(lambda x: np.sum(np.tanh(x) ** 2), printer="llvm")
    for transform in (sg.grad, sg.value_and_grad):
        assert transform(f).lower(X).printer == "llvm"
    value, pullback = sg.vjp(f, X)
    reference, other = sg.vjp(sg.trace(lambda x: np.sum(np.tanh(x) ** 2), printer="numba"), X)
    assert value == reference and pullback(1.0)[0].tolist() == other(1.0)[0].tolist()


def test_training_steps_are_printed_by_the_loss_functions_printer():
    losses = [sg.trace(lambda w, x: np.mean((x @ w - 1) ** 2), printer=printer) for printer in ("numba", "llvm")]
    data = np.random.default_rng(0).normal(size=(20, 3))
    found = []
    for loss in losses:
        trainer = sg.Trainer(loss, sg.optim.adam(0.01))
        state, history = trainer.fit(trainer.init(np.zeros(3)), data, epochs=3, batch_size=6, progress=False)
        found.append([*state.params.tolist(), *history["loss"]])
    assert found[0] == found[1]


# ---- whole functions: the same bits as Numba's

SHAPES = [(), (5,), (4, 33), (130,)]

FUNCTIONS = {
    "elementwise": lambda x: np.where(x > 0, np.exp(x), np.tanh(x)) + np.maximum(x, 0.25) * np.sqrt(np.abs(x)),
    "sine": lambda x: np.sin(x * 1e7) + np.cos(x * 1e19) + np.log(x * x + 0.5),
    "reductions": lambda x: (np.sum(x), np.max(x, axis=-1) if x.ndim else x, np.prod(1 + x / 100), np.mean(x * x)),
    "moved": lambda x: (x.T[::-1] * 2 if x.ndim else x, np.ravel(x)[::2] * 1.5, np.ravel(x)[::-1] + 1),
    "integers": lambda x: ((x * 1000).astype(np.int32) * 7, np.abs((x * 100).astype(np.int8)), x.astype(bool), (x * 9).astype(np.uint64)),
    "places": lambda x: np.argmax(np.sin(x), axis=-1) if x.ndim else x,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_both_printers_compute_the_same_bits(name, dtype):
    """All shapes in one unit for each printer, and derivatives where there are any."""

    def everything(*arrays):
        return [FUNCTIONS[name](x) for x in arrays]

    rng = np.random.default_rng(0)
    arrays = [np.asarray(rng.normal(size=shape)).astype(dtype) for shape in SHAPES]
    arrays[2][0, :4] = [np.nan, np.inf, -np.inf, -0.0]
    flat = []
    for printer in ("numba", "llvm"):
        results = sg.trace(everything, printer=printer)(*arrays)
        flat.append([np.asarray(y) for each in results for y in (each if isinstance(each, tuple) else (each,))])
    for x, y in zip(*flat, strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        assert x.tobytes() == y.tobytes() or (np.array_equal(x, y, equal_nan=True) and np.isnan(x).any())


def test_products_of_matrices_have_the_same_bits():
    rng = np.random.default_rng(0)
    for (m, k, n), dtype in itertools.product([(1, 5, 1), (7, 3, 37), (9, 40, 65)], (np.float32, np.float64)):
        a, b = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(k, n)).astype(dtype)
        first, second = (sg.trace(lambda a, b: (a @ b, b.T @ a.T), printer=printer)(a, b) for printer in ("numba", "llvm"))
        assert all(x.tobytes() == y.tobytes() for x, y in zip(first, second))


@pytest.mark.skipif(not compiling._MOST_MAPS.exists(), reason="only Linux counts maps of memory")
def test_a_process_full_of_maps_is_told_so_before_llvm_ends_it(monkeypatch, tmp_path):
    limit = tmp_path / "max_map_count"
    limit.write_text("300\n")
    monkeypatch.setattr(compiling, "_MOST_MAPS", limit)
    monkeypatch.setattr(compiling, "CHECK_EVERY", 1)
    function = sg.trace(lambda x: np.sum(np.exp(x * 0.7310585)), backend="cpu")
    with pytest.raises(RuntimeError, match=r"at most 300 \(vm.max_map_count\)") as caught:
        function(np.ones(3))
    assert isinstance(caught.value, sg.StaticgradError)
    monkeypatch.undo()
    assert np.isfinite(function(np.ones(3)))
