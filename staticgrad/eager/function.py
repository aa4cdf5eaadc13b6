"""`Function`: an operation with a backward pass of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from staticgrad.eager.modes import modes, no_grad
from staticgrad.eager.nodes import FREED, Saved, or_zeros
from staticgrad.eager.tape import Node
from staticgrad.eager.tensors import Tensor, aval_of
from staticgrad.errors import ArgumentError, BackwardError, MissingDerivativeError, TensorError
from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.source import at_user_line, user_line
from staticgrad.tracing.record import called
from staticgrad.tracing.tracer import Tracer


class FunctionContext:
    """What `forward` and `backward` of a `Function` have in common; attributes may be set freely.

    Attributes
    ----------
    needs_input_grad : tuple of bool
        For each argument, whether its gradient is wanted.
    """

    needs_input_grad: tuple[bool, ...] = ()

    def __init__(self) -> None:
        self._to_save: tuple[Any, ...] = ()
        self._node: FunctionNode | None = None
        self._dirty: tuple[Any, ...] = ()
        self._constant: tuple[Any, ...] = ()
        self._materializes = True

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors (arguments, results, anything in between; None, too) for the backward pass."""
        for k, x in enumerate(tensors):
            if x is not None and not isinstance(x, (Tensor, Tracer)):
                raise ArgumentError(
                    at_user_line(
                        f"save_for_backward: argument {k} is of type {type(x).__name__}; only tensors are saved, set ctx.name = value"
                    )
                )
        self._to_save = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """The saved tensors, in order."""
        return self._to_save if self._node is None else self._node.unpacked()

    def mark_dirty(self, *tensors: Any) -> None:
        """Say that `forward` changed these arguments in place; they must be results."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """Say that these results have no gradient."""
        self._constant = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Set whether `backward` is given zeros (the default) or None for results that the loss does not depend on."""
        self._materializes = bool(value)


class Function:
    """An operation with a backward pass of your own; define `forward` and `backward` as static methods and call `apply`.

    `forward(ctx, *args)` computes on tensors, unrecorded; what backward needs it saves with `ctx.save_for_backward`.
    `backward(ctx, *gradients)` is given the gradient of each result and returns that of each argument of `forward`, None for those
    that have none. Instead, `forward(*args)` and `setup_context(ctx, inputs, output)` may be separate.

    The same class works on tensors and, inside of `@sg.trace`, on traced arrays: there both methods become part of the graph.

    Examples
    --------
    >>> import staticgrad as sg
    >>> class Double(sg.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return 2 * x
    ...     @staticmethod
    ...     def backward(ctx, gradient):
    ...         return 2 * gradient
    >>> x = sg.tensor([1.0, 2.0], requires_grad=True)
    >>> Double.apply(x).sum().backward()
    >>> x.grad
    tensor([2., 2.])
    """

    def __init__(self) -> None:
        raise TensorError(
            at_user_line(
                f"{type(self).__name__} is not to be instantiated: define static methods and call {type(self).__name__}.apply(...)"
            )
        )

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Return the result; to be defined."""
        raise MissingDerivativeError(at_user_line("a Function must define the static method forward(ctx, ...)"))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Save what backward needs, if `forward` has no `ctx`."""

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Return the gradients of the arguments; to be defined."""
        raise MissingDerivativeError(at_user_line("a Function must define the static method backward(ctx, ...) to be differentiated"))

    @classmethod
    def _run(cls, ctx: FunctionContext, args: tuple[Any, ...]) -> Any:
        """Return the result of `forward`, in whichever of its two forms it is written."""
        if cls.setup_context is Function.setup_context:
            return called(cls.forward, f"{cls.__name__}.forward", ctx, *args)
        result = called(cls.forward, f"{cls.__name__}.forward", *args)
        called(cls.setup_context, f"{cls.__name__}.setup_context", ctx, args, result)
        return result

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Return the result of `forward` for these arguments, recorded with `backward`."""
        if any(isinstance(x, Tracer) or (isinstance(x, Tensor) and isinstance(x._array, Tracer)) for x in args):
            from staticgrad.eager.traced_function import apply_traced_function

            return apply_traced_function(cls, args)
        ctx = FunctionContext()
        ctx.needs_input_grad = tuple(modes.records and isinstance(x, Tensor) and x.requires_grad for x in args)
        with no_grad():
            result = cls._run(ctx, args)
        several = isinstance(result, (tuple, list))
        outputs = list(result) if several else [result]
        if any(ctx.needs_input_grad):
            given = [x for x in args if isinstance(x, Tensor)]
            for k, x in enumerate(outputs):
                if any(x is each for each in given) and not any(x is each for each in ctx._dirty):
                    outputs[k] = x.detach()  # the argument itself: its gradient must pass through `backward`, too
            _record(cls, ctx, args, outputs)
        return tuple(outputs) if several else outputs[0]


def _record(cls: type[Function], ctx: FunctionContext, args: tuple[Any, ...], outputs: list[Any]) -> None:
    """Put the node of a Function on the tape and give it to its results."""
    tensors = [x for x in outputs if isinstance(x, Tensor)]
    node = FunctionNode(cls, ctx, args, tensors)
    constant = {id(x) for x in ctx._constant}
    for k, x in enumerate(tensors):
        if id(x) in constant or not is_float(x._array.dtype):
            continue
        if any(x is each for each in ctx._dirty):
            x._check_writable()
            x._writes.number += 1
            x._requires = False
        x._rebase((node, k))
    node.save(ctx._to_save, tensors)
    ctx._to_save = ()


class FunctionNode(Node):
    """A call of a `Function`."""

    __slots__ = ("_arguments", "_context", "_freed", "_function", "_saved")

    def __init__(self, function: type[Function], ctx: FunctionContext, args: tuple[Any, ...], results: Sequence[Tensor]) -> None:
        self._arguments = [(x._array.shape, x._array.dtype) if isinstance(x, Tensor) else None for x in args]
        edges = tuple(x._gradient_edge() if isinstance(x, Tensor) else (None, 0) for x in args)
        super().__init__(f"{function.__name__}Backward", edges, [(x._array.shape, x._array.dtype) for x in results], user_line())
        self._function = function
        self._context: FunctionContext | None = ctx
        self._saved: list[Saved | None] = []
        self._freed = False

    def save(self, tensors: Sequence[Any], results: Sequence[Tensor]) -> None:
        """Keep what `forward` wants to have in `backward`."""
        place = {id(x): k for k, x in enumerate(results) if x.requires_grad}
        self._saved = [None if x is None else Saved(x, place.get(id(x))) for x in tensors]

    def unpacked(self) -> tuple[Tensor | None, ...]:
        """Return what was saved, as tensors."""
        if self._freed:
            raise BackwardError(at_user_line(FREED.format(self.name())))
        return tuple(None if x is None else x.tensor(self, f"saved tensor {k}") for k, x in enumerate(self._saved))

    def cotangents(self, grads: list[Tensor | None], recording: bool) -> Sequence[Tensor | None]:
        ctx = self._context
        if self._freed or ctx is None:
            raise BackwardError(at_user_line(FREED.format(self.name())))
        if ctx._materializes:
            grads = [or_zeros(g, *result) for g, result in zip(grads, self.results, strict=True)]
        ctx._node = self
        try:
            given = called(self._function.backward, f"{self._function.__name__}.backward", ctx, *grads)
        finally:
            ctx._node = None  # else the context and the node would hold each other
        found = checked_gradients(given, self._arguments, self._function.__name__)
        return [g if node is not None else None for g, (node, _) in zip(found, self.next_functions, strict=True)]

    def untracked(self, operand: int) -> Aval | None:
        argument = self._arguments[operand]
        return None if argument is None else Aval(*argument)

    def release(self) -> None:
        if self._saved:
            self._saved, self._freed = [], True


def checked_gradients(given: Any, arguments: Sequence[tuple[tuple[int, ...], np.dtype] | None], name: str) -> list[Any]:
    """Return what a `backward` gave, one gradient or None for each argument of `forward`."""
    found = list(given) if isinstance(given, (tuple, list)) else [given]
    surplus = found[len(arguments) :]
    if len(found) < len(arguments) or any(g is not None for g in surplus):
        raise BackwardError(
            at_user_line(
                f"{name}.backward returned {len(found)} gradients, but forward has {len(arguments)} arguments: return one for each, "
                "None for those without a gradient"
            )
        )
    for k, (g, expected) in enumerate(zip(found, arguments, strict=False)):
        if g is None or expected is None:
            found[k] = None
            if g is not None:
                raise BackwardError(
                    at_user_line(f"{name}.backward returned a gradient for argument {k} of forward, which is no tensor; return None")
                )
            continue
        if not isinstance(g, (Tensor, Tracer)):
            raise BackwardError(
                at_user_line(f"{name}.backward returned {type(g).__name__} for argument {k}; gradients are tensors, or None")
            )
        found[k] = _fitted(g, expected, k, name)
    return found[: len(arguments)]


def _fitted(g: Any, expected: tuple[tuple[int, ...], np.dtype], number: int, name: str) -> Any:
    """Return a gradient in the shape and dtype of its argument: summed over axes along which the argument was repeated."""
    shape, dtype = expected
    if g.shape != shape:
        if not _spreads(shape, g.shape):
            described = aval_of(g) if isinstance(g, Tensor) else g.aval
            raise BackwardError(
                at_user_line(f"{name}.backward returned a gradient of {described} for argument {number} of forward, whose shape is {shape}")
            )
        ahead = len(g.shape) - len(shape)
        axes = tuple(k for k in range(len(g.shape)) if k < ahead or (shape[k - ahead] == 1 and g.shape[k] != 1))
        g = np.reshape(np.sum(g, axis=axes), shape)
    return g if g.dtype == dtype or not is_float(dtype) else g.astype(dtype)


def _spreads(shape: tuple[int, ...], wide: tuple[int, ...]) -> bool:
    ahead = len(wide) - len(shape)
    return ahead >= 0 and all(n in (1, m) for n, m in zip(shape, wide[ahead:], strict=True))
