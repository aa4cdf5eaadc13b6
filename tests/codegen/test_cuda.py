"""The lowering and the printer for GPUs: what the source looks like, that it compiles to PTX, and what is said without a GPU."""

import importlib.util
import re
import subprocess
import sys

import numpy as np
import pytest

from staticgrad.api import trace, value_and_grad
from staticgrad.codegen.axes import LoopAxis
from staticgrad.codegen.cuda_nest import ENOUGH, FAN_IN, LEAST, SERIAL, Flattened, partial_count
from staticgrad.codegen.cuda_printer import launch_extent, print_cuda
from staticgrad.errors import DependencyError, ExecutionError, VerificationError
from staticgrad.ir.aval import BOOL, DTYPES, FLOAT32, FLOAT64, INT64
from staticgrad.ir.builder import Builder, Index
from staticgrad.ir.loop_verify import verify_unit
from staticgrad.ir.loops import OPCODES, Loop, walk
from staticgrad.runtime import cuda as runtime
from staticgrad.runtime.cuda import compile_ptx, lower_cuda
from tests.codegen.cuda_programs import PROGRAMS, counting_unit
from tests.codegen.units import function, parameter, unit_of

has_numba_cuda = importlib.util.find_spec("numba_cuda") is not None
needs_numba_cuda = pytest.mark.skipif(not has_numba_cuda, reason="numba-cuda is not installed")


def lowering_of(name):
    return lower_cuda(PROGRAMS[name].graph_and_arrays()[0])


def loss(w, x, b):
    return np.sum(np.tanh(x * w + b))


# ---- the source


def test_golden(golden):
    x = np.zeros((1000, 30), np.float32)
    source = value_and_grad(trace(loss)).lower(x, x, x[0], backend="cuda").source
    golden("cuda_unit.py.txt", re.sub(r"sg_\w{16}", "sg_...", re.sub(r"test_cuda\.py:\d+", "test_cuda.py", source)))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_kernel_is_one_parallel_loop(name):
    lowering = lowering_of(name)
    unit = lowering.lowered.unit
    verify_unit(unit)
    for f in unit.functions:
        loops = [s for s in walk(f.body) if isinstance(s, Loop) and s.parallel]
        assert len(loops) <= 1 and all(s in f.body.statements for s in loops)
        assert launch_extent(f) == (loops[0].stop.constant if loops else 1)
    compile(lowering.source, name, "exec")
    assert max(map(len, lowering.source.splitlines())) <= 130


def test_what_lower_shows():
    x = np.ones((4, 3))
    lowered = value_and_grad(trace(loss)).lower(x, x, x[0], backend="cuda")
    assert lowered.printer == "cuda"
    assert "def forward(arguments, workspace, context):" in lowered.source and "def backward(" in lowered.source
    assert lowered.memory >= lowered._lowering.lowered.unit.workspace > 0
    assert [nest.stage for nest in lowered.schedule.nests] == ["forward", "backward"]
    assert lowered.report.forward_nests == lowered.report.backward_nests == 1


def test_source_needs_no_numba_cuda():
    program = """if True:
        import sys
        sys.modules["numba_cuda"] = sys.modules["numba.cuda"] = None
        import numpy as np
        from staticgrad.api import trace
        source = trace(lambda x: np.exp(x)).lower(np.ones(3), backend="cuda").source
        assert "@cuda.jit" in source
    """
    subprocess.run([sys.executable, "-c", program], check=True)


def test_products_that_are_added_to_are_rounded():
    def source(f):
        return trace(f).lower(np.ones(3), np.ones(3), backend="cuda").source

    assert "times(x[i], y[i]) + 1.0" in source(lambda x, y: x * y + 1.0)
    assert "x[i] * y[i] < 1.0" in source(lambda x, y: x * y < 1.0)
    assert "out0[i] = x[i] * y[i]" in source(lambda x, y: x * y)
    assert "times(" in source(lambda x, y: np.sum(x * y))
    assert "times(" in source(lambda x, y: -(x * y) + y)
    assert "times(" not in trace(lambda i: i * i + i).lower(np.arange(3), backend="cuda").source


# ---- schedules of threads


def test_partial_count():
    for kept in (1, 3, 100, ENOUGH // 2, ENOUGH):
        for reduced in (1, SERIAL, SERIAL + 1, 1000, 10**9):
            parts = partial_count(kept, reduced)
            assert parts & (parts - 1) == 0
            assert parts == 1 or (parts * kept <= ENOUGH and reduced >= parts * LEAST)
            assert (parts > 1) == (reduced > SERIAL and 2 * kept <= ENOUGH)


def test_long_reductions_are_merged_in_a_tree():
    lowering = lower_cuda(trace(lambda x: np.sum(x)).program(np.ones(10**6, np.float32)).graph)
    extents = [launch_extent(call.function) for call in lowering.lowered.unit.forward]
    assert extents == [8192, 8192 // FAN_IN, 8192 // FAN_IN**2, 1]
    assert lowering.lowered.unit.workspace >= 4 * 8192


def test_a_long_float_sum_is_made_in_blocks():
    source = trace(lambda x: np.sum(x, axis=1)).lower(np.ones((3, 200)), backend="cuda").source
    assert "for block in range(0, 200, 64):" in source and "for k in range(block, minimum(block + 64, 200)):" in source
    assert "for block" not in trace(lambda x: np.max(x, axis=1)).lower(np.ones((3, 200)), backend="cuda").source


def test_flattened_counters():
    b = Builder()
    with b.loop(24) as i:
        flat = Flattened(b, i, (2, 3, 4))
        x, y, z = flat.parts
        assert flat.folded(x * 12 + y * 4 + z + 5) == i + 5
        assert flat.folded(x * 24 + y * 8 + z * 2) == i * 2
        kept = x * 12 + z
        assert flat.folded(kept) is kept
        assert Flattened(b, i, (24,)).parts == (i,)
        assert Flattened(b, i, ()).folded(Index(3)) == Index(3)
    assert LoopAxis((0, 2), 6).counted == 2


def test_lanes_and_malformed_kernels_are_refused():
    x = parameter("x", "f4", 32)

    def lanes(b):
        b.store(x, 0, b.add(b.load(x, 0, 8), b.load(x, 8, 8)))

    with pytest.raises(VerificationError, match=r"load_lanes.*CUDA"):
        print_cuda(unit_of("lanes", function("lanes", [x], lanes)))

    def two_loops(b):
        for _ in range(2):
            with b.loop(32, parallel=True) as i:
                b.store(x, i, b.literal(0, FLOAT32))

    with pytest.raises(VerificationError, match="one parallel loop"):
        print_cuda(unit_of("two", function("two", [x], two_loops)))


# ---- PTX: kernels go through NVIDIA's compiler, which needs no GPU

COMPILED = ("chain", "short_reductions", "integers", "moved", "perceptron", "integer_powers")


@needs_numba_cuda
@pytest.mark.parametrize("name", COMPILED)
def test_programs_compile(name):
    lowering = lowering_of(name)
    ptx = compile_ptx(lowering, (9, 0))
    assert set(ptx) == {f.name for f in lowering.lowered.unit.functions}
    for text in ptx.values():
        assert ".target sm_90" in text and ".visible .entry" in text


@needs_numba_cuda
def test_nothing_is_fused_that_is_not_fused_in_the_source():
    ptx = compile_ptx(lower_cuda(trace(lambda x, y: (x * y + 1.0, np.sum(x * y), x * y * x)).program(np.ones(9), np.ones(9)).graph))
    assert not any(re.search(r"\bfma\.", text) for text in ptx.values())
    assert any("mul.rn.f64" in text for text in ptx.values())


def all_instructions(dtype):
    """Return a kernel that uses every instruction that `dtype` has."""
    floating, flag = dtype.kind == "f", dtype == BOOL
    x, out = parameter("x", dtype, 64), parameter("out", dtype, 64)
    skipped = {"splat", "extract", "any", "cast", "bitcast", "select"}
    if flag:
        names = {"lt", "le", "eq", "ne", "and", "or", "xor", "not", "min", "max"}
    elif floating:
        names = set(OPCODES) - {"quotient", "remainder", "mulhi", "shl", "shr", "and", "or", "xor", "not"}
    else:
        names = set(OPCODES) - {"div", "fma", "sqrt", "floor", "rint", "trunc"}

    def make(b):
        with b.loop(64, parallel=True) as i:
            value = b.load(x, i)
            for name in sorted(names - skipped):
                result = b.instruction(name, *[value] * OPCODES[name], dtype=BOOL if name in ("lt", "le", "eq", "ne") else dtype)
                value = b.select(result, value, b.load(x, 0)) if result.dtype == BOOL and not flag else result
            for other in DTYPES.values():
                if other != dtype and not (flag and other.kind == "f"):
                    turned = b.ne(value, b.like(0, value)) if other == BOOL and not flag else b.cast(value, other)
                    value = b.cast(turned, dtype) if dtype != BOOL else b.ne(turned, b.like(0, turned))
            if not flag:
                bits = b.bitcast(value, np.dtype(f"u{dtype.itemsize}"))
                value = b.bitcast(bits, dtype)
            b.store(out, i, value)

    return function(f"all_{dtype.name}", [x, out], make)


@needs_numba_cuda
def test_every_instruction_compiles():
    units = [unit_of(dtype.name, all_instructions(dtype)) for dtype in (FLOAT32, FLOAT64, INT64, DTYPES["int8"], DTYPES["uint32"], BOOL)]
    for unit in [*units, counting_unit()[0]]:
        namespace = runtime.load_source(print_cuda(unit)).namespace
        kernel = unit.forward[0].function
        text, _ = runtime.vocabulary().cuda.compile_ptx(namespace[kernel.name].py_func, runtime.kernel_signature(kernel), cc=(9, 0))
        assert ".visible .entry" in text


# ---- without a GPU, or without numba-cuda


@needs_numba_cuda
def test_stages_are_python_functions():
    lowered = trace(loss).lower(np.ones(3), np.ones(3), np.ones(3), backend="cuda")
    assert lowered.forward.__name__ == "forward" and lowered.backward is None
    assert value_and_grad(trace(loss)).lower(np.ones(3), np.ones(3), np.ones(3), backend="cuda").backward.__name__ == "backward"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    lowered = trace(loss).lower(np.ones(3), np.ones(3), np.ones(3), backend="cuda")
    assert "@cuda.jit" in lowered.source
    for attempt in (lambda: lowered.forward, lambda: trace(loss, backend="cuda")(np.ones(3), np.ones(3), np.ones(3))):
        with pytest.raises(DependencyError, match=r"numba-cuda: pip install 'staticgrad\[cuda\]'.*\.source"):
            attempt()


@needs_numba_cuda
def test_a_missing_gpu_is_named(monkeypatch):
    monkeypatch.setattr(runtime.vocabulary().cuda, "is_available", lambda: False)
    with pytest.raises(ExecutionError, match=r"needs a CUDA GPU.*\.source.*NUMBA_ENABLE_CUDASIM=1"):
        trace(loss, backend="cuda")(np.ones(3), np.ones(3), np.ones(3))
