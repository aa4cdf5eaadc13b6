"""Compile LLVM text into machine code: llvmlite alone, without Numba.

    text -> parse, verify -> optimise -> check the symbols -> one relocatable object -> addresses

Numba comes in where its dispatchers are asked for: `forward` and `backward` link the unit into a function of one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from staticgrad.errors import VerificationError
from staticgrad.runtime.compile import CompiledUnit, count_compilation, load_object, target_machine
from staticgrad.runtime.report import phase


@dataclass(frozen=True)
class CompiledText(CompiledUnit):
    """A unit of LLVM text, which `source` holds, as machine code in this process."""

    def _linked(self, stage: str) -> Any:
        from staticgrad.runtime.llvm_dispatcher import linked

        return linked(self.name, self.source, stage)


def compile_text(name: str, text: str, has_backward: bool, externals: Sequence[str] = ()) -> CompiledText:
    """Return the machine code of a unit's LLVM text.

    Parameters
    ----------
    name, text
        The name of the unit, and what `print_llvm` returned for it.
    has_backward
        Whether the text defines a backward stage.
    externals
        The symbols outside of the unit that it calls.

    Raises
    ------
    VerificationError
        If LLVM does not accept the text, or its machine code would need a symbol that no unit may need.
    StaticgradError
        If the machine code needs what this process does not have.
    """
    object_code = assemble_text(name, text, externals)
    forward, backward = load_object(name, object_code, has_backward, externals)
    count_compilation()
    return CompiledText(name, text, object_code, forward, backward, {}, tuple(externals))


def assemble_text(name: str, text: str, externals: Sequence[str] = ()) -> bytes:
    """Return one relocatable object."""
    return _object(optimised(name, text, externals))


def _object(module: Any) -> bytes:
    with phase("LLVM codegen"):
        code: bytes = target_machine().emit_object(module)
    return code


def assemble_library(name: str, text: str) -> bytes:
    """Return the object of a text of the package's own, which may call the interpreter and the C library."""
    module = _parsed(name, text)
    optimise(module, plain_loops=False)
    return _object(module)


def optimised(name: str, text: str, externals: Sequence[str] = ()) -> Any:
    """Return LLVM's module of a unit's text, verified and optimised for this machine."""
    module = _parsed(name, text)
    optimise(module, plain_loops="!staticgrad.plain_loops" in text)
    check_symbols(name, module, externals)
    return module


def _parsed(name: str, text: str) -> Any:
    import llvmlite.binding as llvm

    try:
        with phase("LLVM parse"):
            machine = target_machine()
            module = llvm.parse_assembly(text)
            module.name, module.triple, module.data_layout = name, machine.triple, str(machine.target_data)
            module.verify()
    except RuntimeError as error:
        raise VerificationError(f"LLVM does not accept the text of {name}: {str(error).strip()}") from error
    return module


SHORT_PIPELINE = ("always_inliner", "ipsccp", "sroa", "instruction_combine", "simplify_cfg")


def optimise(module: Any, plain_loops: bool) -> None:
    """Run LLVM over a module.

    Vectors and hoisted values are there already, so a few passes are enough: variables into registers, simpler arithmetic. O3 comes
    in for `plain_loops`, which the loop vectoriser takes care of; it does not unroll, since an unrolled inner loop is not vectorised.
    """
    import llvmlite.binding as llvm

    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.loop_interleaving = True
    options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(target_machine(), options)
    passes = builder.getModulePassManager()
    if not plain_loops and hasattr(passes, "add_sroa_pass"):  # older versions of llvmlite have fewer
        passes = llvm.create_new_module_pass_manager()
        for name in SHORT_PIPELINE:
            getattr(passes, f"add_{name}_pass")()
    with phase("LLVM optimise"):
        passes.run(module, builder)


def check_symbols(name: str, module: Any, externals: Sequence[str] = ()) -> None:
    """Refuse machine code that would call anything else: a unit is complete but for its own externals and LLVM's intrinsics."""
    undefined = [value.name for value in [*module.functions, *module.global_variables] if value.is_declaration]
    foreign = [symbol for symbol in undefined if not symbol.startswith("llvm.") and symbol not in externals]
    if foreign:
        raise VerificationError(f"the machine code of {name} would need {', '.join(foreign)}")
