"""What emitted CUDA source is written in, and the one module that imports `numba.cuda`.

The instructions are those of the Numba printer: the same functions, made known to the compiler for GPUs too. In the simulator
(NUMBA_ENABLE_CUDASIM=1) they run as the plain Python that they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import cuda
from numba.core import config

from staticgrad.runtime.vocabulary.scalars import (
    bitcast,
    floor,
    fma,
    maximum,
    minimum,
    mulhi,
    quotient,
    remainder,
    rint,
    select,
    shift_left,
    shift_right,
    sqrt,
    to_integer,
    trunc,
)

__all__ = [
    "SIMULATED",
    "THREADS",
    "bitcast",
    "blocks",
    "cuda",
    "floor",
    "fma",
    "maximum",
    "minimum",
    "mulhi",
    "quotient",
    "remainder",
    "rint",
    "select",
    "shift_left",
    "shift_right",
    "sqrt",
    "times",
    "to_integer",
    "trunc",
]

SIMULATED = bool(config.ENABLE_CUDASIM)
"""Whether kernels run in the simulator, where each thread of a GPU is one of Python's."""

THREADS = 4 if SIMULATED else 256
"""Threads of a block."""

MOST_BLOCKS = 2 if SIMULATED else 2**16
"""Blocks of a launch; in longer loops each thread takes several turns."""


def blocks(count: int) -> int:
    """Return how many blocks are launched for `count` threads' work."""
    return max(1, min(-(-count // THREADS), MOST_BLOCKS))


def times(x: Any, y: Any) -> Any:
    """Return x * y rounded, for floats: never fused with an addition that follows."""
    return x * y


def _define_instructions() -> None:
    """Make the instructions known to the compiler for GPUs."""
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.cuda.extending import lower_builtin
    from numba.cuda.typing.templates import AbstractTemplate, infer_global, signature

    from staticgrad.runtime.vocabulary.lowering import INSTRUCTIONS, floats

    def define(function: Callable[..., Any], arity: int, rule: Callable[..., Any], generate: Callable[..., Any]) -> None:
        class Template(AbstractTemplate):  # type: ignore[misc]
            key = function

            def generic(self, args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
                result = None if kws else rule(*args)
                return None if result is None else signature(result, *args)

        infer_global(function)(Template)

        @lower_builtin(function, *[types.Any] * arity)
        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return generate(builder, sig, *args)

    def external(single: str, double: str) -> Callable[..., Any]:
        """Return a generator of calls of a function of floats by its names for both widths."""

        def generate(builder: Any, sig: Any, *values: Any) -> Any:
            kind = values[0].type
            name = single if kind == ir.FloatType() else double
            function = ir.FunctionType(kind, [kind] * len(values))
            return builder.call(cgutils.get_or_insert_function(builder.module, function, name), values)

        return generate

    for function, definition in INSTRUCTIONS.items():
        define(function, *(definition if function is not rint else (1, floats, external("__nv_rintf", "__nv_rint"))))
    define(times, 2, floats, external("llvm.nvvm.mul.rn.f", "llvm.nvvm.mul.rn.d"))


if not SIMULATED:
    _define_instructions()
