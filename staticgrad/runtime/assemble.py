"""From kernels to one object: Numba lowers each kernel once, LLVM optimises all of a unit together."""

from __future__ import annotations

import types as python_types
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
from numba.core import cgutils, compiler, types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from staticgrad.errors import StaticgradError
from staticgrad.runtime.compile import symbol, target_machine
from staticgrad.runtime.vocabulary.kernel import numba_type
from staticgrad.runtime.vocabulary.pipeline import DisjointKernelCompiler, KernelCompiler


@dataclass(frozen=True)
class Lowered:
    """A kernel as unoptimised LLVM text."""

    text: str
    function: str
    callees: tuple[Any, ...]


_lowered: dict[str, Lowered] = {}


def lowered_count() -> int:
    """Return how many kernels Numba lowered in this process."""
    return len(_lowered)


class _TextLibrary(JITCodeLibrary):  # type: ignore[misc]
    """Keeps what Numba lowers as text instead of optimising it."""

    def __init__(self, codegen: Any, name: str) -> None:
        super().__init__(codegen, name)
        self.texts: list[str] = []

    def add_ir_module(self, ir_module: Any) -> None:
        self.texts.append(cgutils.normalize_ir_text(str(ir_module)))


def lower(dispatcher: Any) -> Lowered:
    """Return the LLVM text of a kernel; equal kernels are lowered once."""
    key = dispatcher.kernel_key
    if key not in _lowered:
        _lowered[key] = _lower(dispatcher)
    return _lowered[key]


def _lower(dispatcher: Any) -> Lowered:
    function = dispatcher.py_func
    names = dict(function.__globals__)
    callees = []
    for name in function.__code__.co_names:
        value = names.get(name)
        if getattr(value, "kernel_key", None) is not None:
            callees.append(value)
            arguments = [numba_type(parameter) for parameter in value.kernel_parameters]
            names[name] = types.ExternalFunction(_thunk(value), types.void(*arguments))
    plain = python_types.FunctionType(function.__code__, names, function.__name__)
    flags = compiler.Flags()
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.error_model = "numpy"
    flags.nrt = flags.boundscheck = False
    library = _TextLibrary(cpu_target.target_context.codegen(), function.__name__)
    result = compiler.compile_extra(
        cpu_target.typing_context,
        cpu_target.target_context,
        plain,
        args=tuple(numba_type(parameter) for parameter in dispatcher.kernel_parameters),
        return_type=types.int64 if dispatcher.kernel_entry else types.void,
        flags=flags,
        locals={},
        library=library,
        pipeline_class=DisjointKernelCompiler if dispatcher.kernel_disjoint else KernelCompiler,
    )
    (text,) = library.texts
    return Lowered(text, result.fndesc.llvm_func_name, tuple(callees))


def _thunk(dispatcher: Any) -> str:
    return f"sg_kernel_{dispatcher.kernel_key}"


LLVM_TYPES = {"bool": "i1", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64", "f32": "float", "f64": "double"}


def _thunk_text(dispatcher: Any, name: str, function: str, attributes: str) -> str:
    """Return a function with the C ABI around one with Numba's: status returned, result and exception by pointer."""
    kinds = ["ptr" if p.endswith("*") else LLVM_TYPES[p.replace("u", "i")] for p in dispatcher.kernel_parameters]
    parameters = ", ".join(f"{kind} %a{position}" for position, kind in enumerate(kinds))
    result = "i64" if dispatcher.kernel_entry else "ptr"
    end = "  %value = load i64, ptr %result\n  ret i64 %value" if dispatcher.kernel_entry else "  ret void"
    returned = "i64" if dispatcher.kernel_entry else "void"
    declared = ", ".join(["ptr", "ptr", *kinds])
    return f"""
declare i32 @{function}({declared})

define {returned} @{name}({parameters}) {attributes} {{
  %result = alloca {result}
  %exception = alloca ptr
  %status = call i32 @{function}(ptr %result, ptr %exception{", " if kinds else ""}{parameters})
{end}
}}
"""


@global_compiler_lock  # type: ignore[untyped-decorator]
def object_code(name: str, entries: dict[str, Any]) -> bytes:
    """Return one relocatable object that exports the stages of unit `name`."""
    order: dict[str, Any] = {}

    def visit(dispatcher: Any) -> None:
        if dispatcher.kernel_key in order:
            return
        for callee in lower(dispatcher).callees:
            visit(callee)
        order[dispatcher.kernel_key] = dispatcher

    for entry in entries.values():
        visit(entry)
    thunks = [
        _thunk_text(dispatcher, _thunk(dispatcher), lower(dispatcher).function, "noinline nounwind")
        for dispatcher in order.values()
        if not dispatcher.kernel_entry
    ]
    exported = {symbol(name, stage): entry for stage, entry in entries.items()}
    thunks += [_thunk_text(entry, exported_name, lower(entry).function, "nounwind") for exported_name, entry in exported.items()]
    machine = target_machine()
    module = llvm.parse_assembly(f'target triple = "{machine.triple}"\n' + "".join(thunks))
    for dispatcher in order.values():
        module.link_in(llvm.parse_assembly(lower(dispatcher).text))
    module.name = name
    module.data_layout = str(machine.target_data)
    for value in [*module.functions, *module.global_variables]:
        if not value.is_declaration and value.name not in exported:
            value.linkage = "internal"
    module.verify()
    optimise(module)
    undefined = [function.name for function in module.functions if function.is_declaration and not function.name.startswith("llvm.")]
    if foreign := [function for function in undefined if function.startswith(("Py", "_Py", "NRT", "numba"))]:
        raise StaticgradError(f"the machine code of {name} would call {', '.join(foreign)}")
    code: bytes = machine.emit_object(module)
    return code


def optimise(module: Any) -> None:
    """Run LLVM over a module: O3 with loops unrolled last, since an unrolled inner loop is not vectorised any more."""
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.loop_interleaving = True
    options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(target_machine(), options)
    passes = builder.getModulePassManager()
    passes.add_loop_unroll_pass()
    for name in ("add_sroa_pass", "add_instruction_combine_pass", "add_simplify_cfg_pass"):
        if hasattr(passes, name):
            getattr(passes, name)()
    passes.run(module, builder)
