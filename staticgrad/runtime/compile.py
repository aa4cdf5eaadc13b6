"""Compile a unit's source into machine code, and load machine code.

Numba types and lowers each kernel; the kernels of a unit, and a thunk with the C ABI for each, become one module that LLVM
optimises once and turns into one relocatable object. `load_object` brings it into the process, with llvmlite alone.
"""

from __future__ import annotations

import ctypes
import functools
import linecache
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from staticgrad.errors import StaticgradError

STAGES = ("forward", "backward")

Stage = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
"""int64 (void *const *arguments, void *workspace, int64 *context); a call releases the GIL."""

_lock = threading.RLock()
_alive: list[Any] = []  # engines and libraries: code is never unloaded
_compiled = 0


def compile_count() -> int:
    """Return how many units this process compiled."""
    return _compiled


@dataclass(frozen=True)
class CompiledUnit:
    """A unit as machine code in this process."""

    name: str
    source: str
    object_code: bytes
    forward_address: int
    backward_address: int | None
    namespace: dict[str, Any] = field(repr=False)

    @functools.cached_property
    def call_forward(self) -> Any:
        """The forward stage as a ctypes function of three pointers."""
        return Stage(self.forward_address)

    @functools.cached_property
    def call_backward(self) -> Any:
        """The backward stage as a ctypes function of three pointers, or None."""
        return None if self.backward_address is None else Stage(self.backward_address)

    @functools.cached_property
    def forward(self) -> Any:
        """The Numba dispatcher of the forward stage."""
        return _finished_dispatcher(self.namespace["forward"])

    @functools.cached_property
    def backward(self) -> Any:
        """The Numba dispatcher of the backward stage, or None."""
        return None if self.backward_address is None else _finished_dispatcher(self.namespace["backward"])


def compile_unit(name: str, source: str) -> CompiledUnit:
    """Return the machine code of a unit's source, as `print_unit` writes it."""
    global _compiled
    from staticgrad.runtime import assemble

    with _lock:
        namespace = execute(name, source)
        entries = {stage: namespace[stage] for stage in STAGES if stage in namespace}
        object_code = assemble.object_code(name, entries)
        addresses = load_object(name, object_code, "backward" in entries)
        _compiled += 1
    return CompiledUnit(name, source, object_code, addresses[0], addresses[1], namespace)


def execute(name: str, source: str, replaced: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run a unit's source as a module of its own and return its names.

    The text is our printer's own, and Numba needs functions, so `exec` it is; `linecache` shows the lines in tracebacks and to
    `inspect`.
    """
    file = f"<staticgrad {name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace: dict[str, Any] = {"__name__": f"staticgrad.units.{name}", "__file__": file}
    code = compile(source, file, "exec")
    exec(code, namespace)
    return namespace


def run_python(
    source: str, arguments: Sequence[np.ndarray], workspace: np.ndarray, context: np.ndarray, stage: str = "forward"
) -> int:
    """Run a stage of the source as plain Python on flat arrays and return what it returns."""
    plain = source.replace("@kernel(", "@(lambda *_, **__: lambda function: function)(")
    namespace: dict[str, Any] = {}
    exec(compile(plain, "<staticgrad, uncompiled>", "exec"), namespace)
    with np.errstate(all="ignore"):
        return int(namespace[stage](arguments, workspace, context))


def _finished_dispatcher(dispatcher: Any) -> Any:
    """Return the dispatcher, compiled for its signature and for no other."""
    from staticgrad.runtime.vocabulary.kernel import numba_type

    with _lock:
        if not dispatcher.signatures:
            dispatcher.compile(tuple(numba_type(parameter) for parameter in dispatcher.kernel_parameters))
            dispatcher.disable_compile()
    return dispatcher


@functools.cache
def target_machine() -> Any:
    """Return LLVM's description of this machine."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=3, reloc="pic", codemodel="small"
    )
    machine.set_asm_verbosity(False)
    _alive.append(machine)
    return machine


@functools.cache
def _engine() -> Any:
    import llvmlite.binding as llvm

    engine = llvm.create_lljit_compiler(target_machine(), use_jit_link=False)
    _alive.append(engine)
    return engine


def symbol(name: str, stage: str) -> str:
    """Return the symbol of a stage: sg_1a2b3c_forward."""
    return f"{name if name.startswith('sg_') else 'sg_' + name}_{stage}"


def load_object(name: str, object_code: bytes, has_backward: bool) -> tuple[int, int | None]:
    """Return the addresses of the stages in an object; the caller vouches for its bytes."""
    import llvmlite.binding as llvm

    symbols = [symbol(name, stage) for stage in STAGES[: 1 + has_backward]]
    builder = llvm.JITLibraryBuilder().add_object_img(object_code).add_current_process()
    for exported in symbols:
        builder.export_symbol(exported)
    with _lock:
        try:
            library = builder.link(_engine(), f"{name}.{len(_alive)}")
        except RuntimeError as error:
            raise StaticgradError(f"the machine code of {name} cannot be loaded: {error}") from error
        _alive.append(library)
    addresses = [library[exported] for exported in symbols]
    return addresses[0], (addresses[1] if has_backward else None)
