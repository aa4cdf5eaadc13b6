"""Graphs on GPUs: kernels through `numba-cuda`, arrays to the device and back.

Source is written without any of it. Without a GPU kernels run in Numba's simulator (NUMBA_ENABLE_CUDASIM=1, set before Python
starts) and compile to PTX (`compile_ptx`).
"""

from __future__ import annotations

import functools
import importlib.util
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from staticgrad.codegen.cuda_nest import lower_for_gpu
from staticgrad.codegen.cuda_printer import print_cuda
from staticgrad.config import config
from staticgrad.errors import DependencyError, ExecutionError
from staticgrad.ir.context import CONTEXT_WORDS
from staticgrad.ir.graph import Graph
from staticgrad.ir.loops import Function, Invoke, can_fail, walk
from staticgrad.runtime.build import Built, Lowering, lower_graph
from staticgrad.runtime.compile import execute
from staticgrad.runtime.executor import CallPlan, failure
from staticgrad.runtime.report import UnitReport, note_unit

SOURCE_REMAINS = '`.lower(..., backend="cuda").source` shows the kernels all the same'
SIMULATOR_REMAINS = "with NUMBA_ENABLE_CUDASIM=1, set before Python starts, they run in Numba's simulator"

Stage = Callable[[list[Any], Any, Any], None]
"""Launches the kernels of a stage: device arrays of the arguments, the workspace (bytes) and the context (int64)."""

_lock = threading.RLock()  # the simulator runs one kernel at a time
_loaded: dict[str, LoadedSource] = {}


class CudaLowering(Lowering):
    """Everything between a graph and its kernels for GPUs."""

    @functools.cached_property
    def source(self) -> str:
        """The emitted source."""
        return print_cuda(self.lowered.unit)


def lower_cuda(graph: Graph, fuse: bool = True, fastmath: bool = False, max_memory: int | None = None) -> CudaLowering:
    """Return the lowering of `graph` for GPUs; it needs neither a GPU nor `numba-cuda`."""
    made = lower_graph(graph, fuse, lower_for_gpu, fastmath=fastmath, max_memory=max_memory)
    return CudaLowering(made.graph, made.optimized, made.passes, made.schedule, made.lowered)


@dataclass(frozen=True, eq=False)
class LoadedSource:
    """Emitted source as Python functions. `forward` and `backward` launch kernels on device arrays; see `Stage`."""

    namespace: dict[str, Any]

    @property
    def forward(self) -> Stage:
        """The function that launches the forward kernels."""
        launch: Stage = self.namespace["forward"]
        return launch

    @property
    def backward(self) -> Stage | None:
        """The function that launches the backward kernels, None where nothing is differentiated."""
        return self.namespace.get("backward")


def load_source(source: str) -> LoadedSource:
    """Return emitted source as functions; equal source is loaded once, so its kernels are compiled once.

    Raises
    ------
    DependencyError
        If `numba-cuda` is not installed.
    """
    vocabulary()
    with _lock:
        if source not in _loaded:
            _loaded[source] = LoadedSource(execute(f"sg_cuda_{len(_loaded)}", source))
        return _loaded[source]


def vocabulary() -> types.ModuleType:
    """Return the module that emitted CUDA source imports, and through which this one reaches `numba.cuda`.

    Raises
    ------
    DependencyError
        If `numba-cuda` is not installed.
    """
    if importlib.util.find_spec("numba_cuda") is None:
        raise DependencyError(f"backend='cuda' needs the package numba-cuda: pip install 'staticgrad[cuda]'; {SOURCE_REMAINS}")
    from staticgrad.runtime import cuda_vocabulary

    return cuda_vocabulary


def build_cuda(graph: Graph, fastmath: bool = False, max_memory: int | None = None) -> Built:
    """Return `graph` as something to call with NumPy arrays: it copies to the GPU, launches, and copies back.

    Raises
    ------
    DependencyError
        If `numba-cuda` is not installed.
    ExecutionError
        If there is no GPU.
    """
    started = time.perf_counter()
    if not vocabulary().cuda.is_available():
        needed = "backend='cuda' needs a CUDA GPU and its driver, and numba.cuda finds none on this machine"
        raise ExecutionError(f"{needed}; {SOURCE_REMAINS}, and {SIMULATOR_REMAINS}")
    lowering = lower_cuda(graph, fastmath=fastmath, max_memory=max_memory)
    unit = lowering.lowered.unit
    folder = config().dump
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{unit.name}_cuda.py").write_text(lowering.source, encoding="utf-8")
    loaded = load_source(lowering.source)
    fails = any(can_fail(function) for function in unit.functions)
    seconds = time.perf_counter() - started
    note_unit(UnitReport(graph.name, "cuda", "compiled", len(unit.functions), len(lowering.schedule.nests), 0, seconds))
    return Built(CudaExecutable(lowering.call_plan, loaded.forward, loaded.backward, fails), None, "compiled")


class CudaExecutable:
    """Kernels as a function of NumPy arrays. Safe to call from several threads: one call runs at a time."""

    def __init__(self, plan: CallPlan, forward: Stage, backward: Stage | None, fails: bool) -> None:
        self.plan = plan
        self._stages = [stage for stage in (forward, backward) if stage is not None]
        self._fails = fails
        self._constants: list[Any] | None = None
        self._workspace: Any = None

    def __call__(self, arrays: Sequence[np.ndarray], threads: int | None = None) -> list[np.ndarray]:
        """Return all results, as arrays of the host; `threads` are those of the host, which has nothing to do."""
        cuda = vocabulary().cuda
        with _lock, _without_warnings():
            if self._constants is None:
                self._constants = [cuda.to_device(_flat(array)) for array in self.plan.constants]
                self._workspace = cuda.device_array(max(self.plan.workspace, 1), np.uint8)
            outputs = [cuda.device_array(aval.size, aval.dtype) for aval in self.plan.outputs]
            arguments = [*(cuda.to_device(_flat(array)) for array in arrays), *self._constants, *outputs]
            context = cuda.to_device(np.zeros(CONTEXT_WORDS, np.int64))
            for stage in self._stages:
                stage(arguments, self._workspace, context)
            if self._fails and (noted := context.copy_to_host())[0]:
                raise failure(noted)
            results = [output.copy_to_host().reshape(aval.shape) for output, aval in zip(outputs, self.plan.outputs, strict=True)]
        repeated = [k in self.plan.order[:place] for place, k in enumerate(self.plan.order)]
        return [results[k].copy() if again else results[k] for k, again in zip(self.plan.order, repeated, strict=True)]


def _flat(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep back Numba's advice on small grids, and in the simulator NumPy's warnings: overflow is no surprise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Grid size")
        if vocabulary().SIMULATED:
            warnings.simplefilter("ignore", RuntimeWarning)
        yield


def compile_ptx(lowering: CudaLowering, compute_capability: tuple[int, int] = (9, 0)) -> dict[str, str]:
    """Return the PTX of every kernel, by name: what the compiler makes of the source, with or without a GPU.

    Parameters
    ----------
    lowering
        What `lower_cuda` returned.
    compute_capability
        Of the GPU: (9, 0) is an H100.

    Raises
    ------
    DependencyError
        If `numba-cuda` is not installed.
    """
    namespace, cuda = load_source(lowering.source).namespace, vocabulary().cuda
    unit = lowering.lowered.unit
    called = {s.function for function in unit.functions for s in walk(function.body) if isinstance(s, Invoke)}
    kernels = [function for function in unit.functions if function not in called]
    return {f.name: cuda.compile_ptx(namespace[f.name].py_func, kernel_signature(f), cc=compute_capability)[0] for f in kernels}


def kernel_signature(function: Function) -> str:
    """Return a kernel's signature as Numba writes it: void(float32[::1], int64[::1])."""
    arrays = ["boolean" if buffer.dtype == np.bool_ else buffer.dtype.name for buffer in function.buffers]
    parameters = [f"{name}[::1]" for name in arrays] + ["int64"] * len(function.numbers)
    return f"void({', '.join([*parameters, *(['int64[::1]'] if can_fail(function) else [])])})"
