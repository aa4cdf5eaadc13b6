"""The short way through Numba for kernels: no closures, no rewrites, no SSA (LLVM makes its own), no annotations.

It takes a third of the time of Numba's full pipeline.
"""

from __future__ import annotations

from typing import Any

from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager
from numba.core.typed_passes import IRLegalization, NativeLowering, NoPythonBackend, NopythonTypeInference
from numba.core.untyped_passes import FixupArgs, IRProcessing, TranslateByteCode


class KernelCompiler(CompilerBase):  # type: ignore[misc]
    """Translate, type, lower."""

    def define_pipelines(self) -> list[Any]:
        passes = PassManager("staticgrad kernel")
        passes.add_pass(TranslateByteCode, "read the bytecode")
        passes.add_pass(FixupArgs, "number the arguments")
        passes.add_pass(IRProcessing, "find where variables live")
        passes.add_pass(NopythonTypeInference, "infer types")
        passes.add_pass(IRLegalization, "end the lives of variables")
        passes.add_pass(NativeLowering, "lower to LLVM")
        passes.add_pass(NoPythonBackend, "collect the result")
        passes.finalize()
        return [passes]


class DisjointKernelCompiler(KernelCompiler):
    """The same for kernels whose pointers do not overlap where they write."""

    def define_pipelines(self) -> list[Any]:
        self.state.flags.noalias = True
        return super().define_pipelines()
