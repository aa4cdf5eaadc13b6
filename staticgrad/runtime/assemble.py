"""From kernels to one object: Numba lowers each kernel once in a process, LLVM optimises all that a unit needs together."""

from __future__ import annotations

import types as python_types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
from numba.core import cgutils, compiler
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from staticgrad.errors import VerificationError
from staticgrad.runtime.compile import target_machine
from staticgrad.runtime.report import phase
from staticgrad.runtime.vocabulary.kernel import numba_type
from staticgrad.runtime.vocabulary.lowering import types
from staticgrad.runtime.vocabulary.pipeline import DisjointKernelCompiler, KernelCompiler

LLVM_TYPES = {"bool": "i1", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64", "f32": "float", "f64": "double"}


@dataclass(frozen=True)
class Lowered:
    """A kernel before optimisation: LLVM text, the function in it with Numba's own calling convention, the kernels it calls."""

    text: str
    function: str
    callees: tuple[Any, ...]


_lowered: dict[str, Lowered] = {}  # by content; written under Numba's compiler lock


def lowered_count() -> int:
    """Return how many kernels Numba lowered in this process."""
    return len(_lowered)


@global_compiler_lock
def assemble(name: str, exported: dict[str, Any], externals: Sequence[str] = ()) -> bytes:
    """Return one relocatable object that exports kernels under the names that `exported` gives them, and may call `externals`."""
    with phase("Numba"):
        needed = _in_order(list(exported.values()))
    thunks = [_thunk(_symbol(kernel), kernel, "noinline") for kernel in needed if not kernel.kernel_entry]
    thunks += [_thunk(symbol, kernel, "") for symbol, kernel in exported.items()]
    machine = target_machine()
    declarations = [_declaration(kernel) for kernel in needed]  # stages that do the same are one kernel under two names
    with phase("LLVM parse"):
        module = llvm.parse_assembly("\n".join([f'target triple = "{machine.triple}"', *declarations, *thunks]))
        module.name = name
        for kernel in needed:
            module.link_in(llvm.parse_assembly(_lower(kernel).text))
    module.data_layout = str(machine.target_data)
    for value in [*module.functions, *module.global_variables]:
        if not value.is_declaration and value.name not in exported:
            value.linkage = "internal"
    module.verify()
    with phase("LLVM optimise"):
        optimise(module)
    _check_symbols(name, module, externals)
    with phase("LLVM codegen"):
        code: bytes = machine.emit_object(module)
    return code


def _in_order(kernels: list[Any]) -> list[Any]:
    """Return `kernels` and all that they call, without repetition."""
    found: dict[str, Any] = {}
    while kernels:
        kernel = kernels.pop()
        if kernel.kernel_key not in found:
            found[kernel.kernel_key] = kernel
            kernels += _lower(kernel).callees
    return list(found.values())


# ---- Numba


class _TextLibrary(JITCodeLibrary):  # type: ignore[misc]
    """Keeps what Numba lowers as text, where Numba's own library optimises it and generates code at once."""

    def __init__(self, codegen: Any, name: str) -> None:
        super().__init__(codegen, name)
        self.texts: list[str] = []

    def add_ir_module(self, ir_module: Any) -> None:
        self.texts.append(cgutils.normalize_ir_text(str(ir_module)))

    def add_linking_library(self, library: Any) -> None:
        """Leave Numba's run-time library out; `_check_symbols` finds whatever would be missing."""


def _lower(kernel: Any) -> Lowered:
    """Return a kernel's LLVM text; the kernels that it calls become external functions with the C ABI."""
    key = kernel.kernel_key
    if key in _lowered:
        return _lowered[key]
    function = kernel.py_func
    names = dict(function.__globals__)
    callees = {name: names[name] for name in function.__code__.co_names if hasattr(names.get(name), "kernel_key")}
    for name, callee in callees.items():
        parameters = [numba_type(parameter) for parameter in callee.kernel_parameters]
        names[name] = types.ExternalFunction(_symbol(callee), types.void(*parameters))
    flags = compiler.Flags()
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.error_model = "numpy"
    library = _TextLibrary(cpu_target.target_context.codegen(), function.__name__)
    result = compiler.compile_extra(
        cpu_target.typing_context,
        cpu_target.target_context,
        python_types.FunctionType(function.__code__, names, function.__name__),
        args=tuple(numba_type(parameter) for parameter in kernel.kernel_parameters),
        return_type=types.int64 if kernel.kernel_entry else types.void,
        flags=flags,
        locals={},
        library=library,
        pipeline_class=DisjointKernelCompiler if kernel.kernel_disjoint else KernelCompiler,
    )
    (text,) = library.texts
    lowered = _lowered[key] = Lowered(text, result.fndesc.llvm_func_name, tuple(callees.values()))
    return lowered


# ---- LLVM


def _symbol(kernel: Any) -> str:
    return f"sg_kernel_{kernel.kernel_key}"


def _parameter_types(kernel: Any) -> list[str]:
    return ["ptr" if p.endswith("*") else LLVM_TYPES[p.replace("u", "i")] for p in kernel.kernel_parameters]


def _declaration(kernel: Any) -> str:
    return f"declare i32 @{_lower(kernel).function}({', '.join(['ptr', 'ptr', *_parameter_types(kernel)])})"


def _thunk(symbol: str, kernel: Any, attributes: str) -> str:
    """Return a function with the C ABI around one with Numba's: status returned, result and exception through pointers."""
    function, kinds = _lower(kernel).function, _parameter_types(kernel)
    parameters = ", ".join(f"{kind} %a{position}" for position, kind in enumerate(kinds))
    returned, result = ("i64", "i64 %value") if kernel.kernel_entry else ("void", "void")
    return f"""
define {returned} @{symbol}({parameters}) nounwind {attributes} {{
  %result = alloca i64
  %exception = alloca ptr
  %status = call i32 @{function}({", ".join(["ptr %result", "ptr %exception", *([parameters] if kinds else [])])})
  %value = load i64, ptr %result
  ret {result}
}}"""


def optimise(module: Any) -> None:
    """Run LLVM over a module: O3, with loops unrolled last, since an unrolled inner loop is not vectorised any more."""
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.loop_interleaving = True
    options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(target_machine(), options)
    passes = builder.getModulePassManager()
    for name in ("loop_unroll", "sroa", "instruction_combine", "simplify_cfg"):
        add = getattr(passes, f"add_{name}_pass", None)  # older versions of llvmlite have fewer
        if add is not None:
            add()
    passes.run(module, builder)


def _check_symbols(name: str, module: Any, externals: Sequence[str]) -> None:
    """Refuse machine code that would need Python or Numba's run-time library: it has to run without both."""
    undefined = [value.name for value in [*module.functions, *module.global_variables] if value.is_declaration]
    refused = ("Py", "_Py", "NRT", "numba", "_ZN", "sg_")
    foreign = [symbol for symbol in undefined if symbol.startswith(refused) and symbol not in externals]
    if foreign:
        raise VerificationError(f"the machine code of {name} would need {', '.join(foreign)}")
