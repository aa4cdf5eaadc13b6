"""Compile a unit's source into machine code, and load machine code.

Numba types and lowers each kernel; the kernels of a unit, and a thunk with the C ABI for each, become one module that LLVM
optimises once and turns into one relocatable object. `load_object` brings it into the process, with llvmlite alone.
Under NUMBA_DISABLE_JIT nothing is compiled: the addresses are those of callbacks that run the source as it stands.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import linecache
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from staticgrad.errors import ExecutionError, StaticgradError
from staticgrad.ir.loops import symbol
from staticgrad.ir.source import at_user_line
from staticgrad.runtime.report import phase

STAGES = ("forward", "backward")

Stage = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
"""int64 (void *const *arguments, void *workspace, int64 *context); a call releases the GIL."""

_lock = threading.Lock()  # held for moments, never while Numba compiles
_alive: list[Any] = []  # engines, libraries and callbacks: code is never unloaded
_linked = itertools.count()  # the name of a library that could not be linked stays taken
_compiled = 0


def compile_count() -> int:
    """Return how many units this process compiled."""
    return _compiled


def count_compilation() -> None:
    """Note that this process compiled one more unit."""
    global _compiled
    with _lock:
        _compiled += 1


def without_jit() -> bool:
    """Return whether NUMBA_DISABLE_JIT is set: then dispatchers are plain Python functions, which are made of the Numba source."""
    import numba

    return bool(numba.config.DISABLE_JIT)


@dataclass(frozen=True)
class CompiledUnit:
    """A unit as machine code in this process. `object_code` is empty under NUMBA_DISABLE_JIT.

    `externals` are the symbols outside of it that it calls: then its dispatchers call the machine code where it is.
    """

    name: str
    source: str
    object_code: bytes
    forward_address: int
    backward_address: int | None
    namespace: dict[str, Any] = field(repr=False)
    externals: tuple[str, ...] = ()

    @property
    def addresses(self) -> list[int]:
        """Where the stages are."""
        return [self.forward_address, *([] if self.backward_address is None else [self.backward_address])]

    @property
    def symbols(self) -> tuple[str, ...]:
        """What the stages are called in the object."""
        return tuple(symbol(self.name, stage) for stage, _ in zip(STAGES, self.addresses))

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
        """The Numba dispatcher of the forward stage, compiled at the first access: `void**, u8*, i64*` -> `i64`."""
        return self._dispatcher("forward", self.forward_address)

    @functools.cached_property
    def backward(self) -> Any:
        """The Numba dispatcher of the backward stage, or None."""
        return None if self.backward_address is None else self._dispatcher("backward", self.backward_address)

    def _dispatcher(self, stage: str, address: int) -> Any:
        if not self.externals or without_jit():
            return self._linked(stage)
        from staticgrad.runtime.llvm_dispatcher import calling

        return calling(address, stage)

    def _linked(self, stage: str) -> Any:
        """Return a dispatcher that holds the code of the stage."""
        return _finished(self.namespace[stage])


def compile_unit(name: str, source: str, externals: Sequence[str] = ()) -> CompiledUnit:
    """Return the machine code of a unit's source.

    Parameters
    ----------
    name
        The unit's name; it should hold a hash of its content, since it becomes the name of symbols.
    source
        What `print_unit` returned.
    externals
        The symbols outside of the unit that it calls.
    """
    with phase("imports"):
        import numba
    with phase("Numba"):
        namespace = execute(name, source)
    entries = {stage: namespace[stage] for stage in STAGES if stage in namespace}
    if numba.config.DISABLE_JIT:
        object_code, addresses = b"", [_python_address(entry) for entry in entries.values()]
    else:
        with phase("imports"):
            from staticgrad.runtime.assemble import assemble

        object_code = assemble(name, {symbol(name, stage): entry for stage, entry in entries.items()}, externals)
        found = load_object(name, object_code, "backward" in entries, externals)
        addresses = [address for address in found if address is not None]
    count_compilation()
    backward = addresses[1] if len(addresses) == 2 else None
    return CompiledUnit(name, source, object_code, addresses[0], backward, namespace, tuple(externals))


def execute(name: str, source: str) -> dict[str, Any]:
    """Run a unit's source as a module of its own and return its names.

    The text is our printer's own, and Numba takes nothing but functions, so it is executed; `linecache` shows its lines in
    tracebacks and to `inspect`.
    """
    file = f"<staticgrad {name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace: dict[str, Any] = {"__name__": f"staticgrad.units.{name}", "__file__": file}
    exec(compile(source, file, "exec"), namespace)
    return namespace


def run_python(source: str, arguments: Sequence[np.ndarray], workspace: np.ndarray, context: np.ndarray, stage: str = "forward") -> int:
    """Run a stage as plain Python and return what it returns.

    Parameters
    ----------
    source
        What `print_unit` returned.
    arguments
        One flat array for each pointer of the argument table.
    workspace, context
        Bytes that start at a multiple of 64, and int64 words.
    stage
        "forward" or "backward".
    """
    from staticgrad.runtime.vocabulary.kernel import plain

    namespace: dict[str, Any] = {"_plain": plain}
    exec(compile(source.replace("@kernel(", "@_plain("), "<staticgrad, uncompiled>", "exec"), namespace)
    return int(namespace[stage](arguments, workspace, context))


def _finished(dispatcher: Any) -> Any:
    """Return a dispatcher that is compiled for the signature of its kernel, and for no other."""
    import numba

    if numba.config.DISABLE_JIT:
        return dispatcher
    from numba.core.compiler_lock import global_compiler_lock

    from staticgrad.runtime.vocabulary.kernel import numba_type

    with global_compiler_lock:
        if not dispatcher.signatures:
            dispatcher.compile(tuple(numba_type(parameter) for parameter in dispatcher.kernel_parameters))
            dispatcher.disable_compile()
    return dispatcher


# ---- machine code


@functools.cache
def target_machine() -> Any:
    """Return LLVM's description of this machine."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3, reloc="pic", codemodel="small")


@functools.cache
def _engine() -> Any:
    """Return what brings objects into the process: LLVM's JITLink, which puts all of an object into one piece of memory.

    LLVM's older linker asks for a piece for each section. Where the process has much memory with small holes in it, code and its
    constants then end up further apart than the code can reach: LLVM ends the process, or the code reads something else.
    """
    import llvmlite.binding as llvm

    return llvm.create_lljit_compiler(target_machine(), use_jit_link=True)


def load_object(name: str, object_code: bytes, has_backward: bool, externals: Sequence[str] = ()) -> tuple[int, int | None]:
    """Return the addresses of forward and backward in an object, which may call `externals`.

    LLVM ends the process on damaged bytes: the caller has verified them.

    Raises
    ------
    StaticgradError
        If the object needs a symbol that this process does not have.
    """
    if not object_code:
        raise StaticgradError(f"there is no machine code of {name}: it was made under NUMBA_DISABLE_JIT")
    imported: dict[str, int] = {}
    if externals:
        from staticgrad.runtime.foreign import address_of

        imported = {each: address_of(each) for each in externals}
    addresses = link(name, object_code, [symbol(name, stage) for stage in STAGES[: 1 + has_backward]], imported)
    return addresses[0], (addresses[1] if has_backward else None)


def link(name: str, object_code: bytes, exported: Sequence[str], imported: Mapping[str, int] | None = None) -> list[int]:
    """Bring a verified object into the process and return the addresses of the symbols that it exports.

    `imported` says where symbols are that the process itself does not know.

    Raises
    ------
    StaticgradError
        If the object needs a symbol that this process does not have.
    """
    import llvmlite.binding as llvm

    with phase("load"), _lock:
        _check_room(name)
        builder = llvm.JITLibraryBuilder().add_object_img(object_code).add_current_process()
        for each in exported:
            builder.export_symbol(each)
        for each, address in (imported or {}).items():
            builder.import_symbol(each, address)
        try:
            library = builder.link(_engine(), f"{name}.{next(_linked)}")
        except RuntimeError as error:
            raise StaticgradError(f"the machine code of {name} cannot be loaded: {error}") from error
        _alive.append(library)
    return [library[each] for each in exported]


CHECK_EVERY = 64
"""So many units are loaded between two looks at how many maps of memory the process has: counting takes milliseconds."""

MAPS_OF_A_UNIT = 8
"""No unit takes more maps than this, nor does what runs beside while one is loaded."""

_MAPS, _MOST_MAPS = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")


def _check_room(name: str) -> None:
    """Raise before the system refuses memory for machine code, at which LLVM ends the process."""
    if len(_alive) % CHECK_EVERY or not _MOST_MAPS.exists():
        return
    held, most = _MAPS.read_bytes().count(b"\n"), int(_MOST_MAPS.read_text())
    if held + CHECK_EVERY * MAPS_OF_A_UNIT > most:
        raise ExecutionError(
            at_user_line(
                f"{name} cannot be loaded: this process holds {held} maps of memory of at most {most} (vm.max_map_count), after "
                f"{len(_alive)} compiled functions, which stay for its life; compile fewer different ones, or do the rest in a new process"
            )
        )


# ---- without machine code

UNBOUNDED = 2**40
"""The number of bytes that an array over a bare pointer claims; nothing but what the unit uses is touched."""


class _Table:
    """The argument table as plain Python sees it: pointers of unknown extent."""

    def __init__(self, address: int) -> None:
        self._pointers = ctypes.cast(address, ctypes.POINTER(ctypes.c_void_p))

    def __getitem__(self, position: int) -> np.ndarray:
        return _memory(self._pointers[position])


def _memory(address: int | None, size: int = UNBOUNDED) -> np.ndarray:
    if not address:
        return np.empty(0, np.uint8)
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def _python_address(function: Any) -> int:
    """Return the address of a callback that runs `function`, a stage, as plain Python."""

    @Stage
    def callback(arguments: int, workspace: int | None, context: int) -> int:
        words = _memory(context, 64).view(np.int64)
        return int(function(_Table(arguments), _memory(workspace), words))

    with _lock:
        _alive.append(callback)
    return ctypes.cast(callback, ctypes.c_void_p).value or 0
