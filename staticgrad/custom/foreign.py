"""`njit_op`: a user's own Numba function as an operation of traced functions."""

from __future__ import annotations

import functools
import inspect
import os
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np

from staticgrad.ad.batch import all_batched
from staticgrad.errors import ArgumentError, DTypeError, ShapeError
from staticgrad.ir.aval import Aval, Shape, is_float
from staticgrad.ir.graph import Graph, inline
from staticgrad.ir.node import Value, apply, new_input
from staticgrad.ir.source import at_user_line
from staticgrad.ops.casts import cast
from staticgrad.ops.control import inline_calls
from staticgrad.ops.foreign import FUNCTIONS, Foreign, ForeignFunction
from staticgrad.ops.reduce import sum_
from staticgrad.tracing.lift import lift, strong
from staticgrad.tracing.pytree import Signature, flatten, unflatten
from staticgrad.tracing.record import record
from staticgrad.tracing.tracer import Tracer, tracer_of

ShapeRule = Callable[..., Any]
Levels = tuple[bool, ...]
"""Which of the axes that an op is mapped over a value has."""


@overload
def njit_op(
    function: Callable[..., Any],
    *,
    shape: ShapeRule | None = None,
    vjp: Callable[..., Any] | None = None,
    jvp: Callable[..., Any] | None = None,
) -> NjitOp: ...
@overload
def njit_op(
    function: None = None,
    *,
    shape: ShapeRule | None = None,
    vjp: Callable[..., Any] | None = None,
    jvp: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., Any]], NjitOp]: ...
def njit_op(
    function: Callable[..., Any] | None = None,
    *,
    shape: ShapeRule | None = None,
    vjp: Callable[..., Any] | None = None,
    jvp: Callable[..., Any] | None = None,
) -> NjitOp | Callable[[Callable[..., Any]], NjitOp]:
    """Return a Numba function as one that can be called on traced arrays: there it becomes one operation of the graph.

    Parameters
    ----------
    function
        A function that is decorated with `numba.njit` and has no side effects. It takes C-contiguous arrays, which it had better not
        write to (then they are copied for it), and numbers; it returns one array or number. It may loop, branch and allocate.
    shape
        From the shapes of the arguments (tuples) to that of the result. By default that is () where Numba finds that the function
        returns a number, and what the arguments broadcast to where it returns an array. The dtype is what Numba finds.
    vjp
        `vjp(g, y, *x)`: from the cotangent of the result, the result and the arguments to a tuple with one cotangent for each
        argument, None for zero; written in NumPy, like any traced function. Needed where it is differentiated in reverse mode.
    jvp
        `jvp(tangents, y, *x)`: from a tuple of tangents (None for zero), the result and the arguments to the tangent of the result.
        Needed in forward mode.

    Returns
    -------
    NjitOp
        On arrays and numbers it calls the function itself. `vmap` calls it in a loop. What it raises arrives as an `ExecutionError`
        whose `__cause__` is the exception. It runs on CPUs only and without the GIL, functions with `parallel=True` one at a time;
        machine code that calls it is not kept on the disk.

    Raises
    ------
    ArgumentError
        If the function is not Numba's.
    DTypeError, ShapeError
        When it is called: if Numba cannot compile it for the arguments, or the result is not of one of the graph's dtypes, or of
        another number of axes than the shape says.
    MissingDerivativeError
        When it is differentiated in a mode for which there is no rule.

    Examples
    --------
    >>> import numba, numpy as np, staticgrad as sg
    >>> @sg.njit_op(vjp=lambda g, y, x, decay: (sg.numpy.flip(smooth(sg.numpy.flip(g), decay)), None))
    ... @numba.njit
    ... def smooth(x, decay):
    ...     y, last = np.empty_like(x), 0.0
    ...     for i in range(x.size):
    ...         last = decay * last + x[i]
    ...         y[i] = last
    ...     return y
    >>> sg.grad(lambda x: np.sum(smooth(x, 0.5)))(np.ones(3))
    array([1.75, 1.5 , 1.  ])
    """
    if function is None:
        return lambda given: NjitOp(given, shape, vjp, jvp)
    return NjitOp(function, shape, vjp, jvp)


class NjitOp:
    """A Numba function that can be called on traced arrays."""

    __name__: str

    def __init__(
        self,
        function: Callable[..., Any],
        shape: ShapeRule | None,
        vjp: Callable[..., Any] | None,
        jvp: Callable[..., Any] | None,
    ) -> None:
        from staticgrad.runtime.foreign import check_dispatcher

        name = getattr(function, "__name__", type(function).__name__)
        try:
            check_dispatcher(function, name)
        except ArgumentError as error:
            raise ArgumentError(at_user_line(str(error))) from None
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._shape, self._vjp, self._jvp = shape, vjp, jvp
        self._known: dict[tuple[tuple[np.dtype, int], ...], ForeignFunction] = {}

    def __repr__(self) -> str:
        return f"<njit_op {self.__name__}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, or make the call a part of the trace under way."""
        if not any(isinstance(x, Tracer) for x in (*args, *kwargs.values())):
            return self._function(*args, **kwargs)
        values = [strong(lift(x)) for x in self._positional(args, kwargs)]
        known = self._function_for([v.aval for v in values])
        shape = self._result_shape(known, [v.shape for v in values])
        return tracer_of(apply(Foreign(known.symbol, shape, known.result), *values))

    def _positional(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return the arguments in order, and values by default only where a later one is given."""
        try:
            bound = inspect.signature(self._function).bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentError(at_user_line(f"{self.__name__}: {error}")) from None
        if bound.kwargs:
            bound.apply_defaults()
        return bound.args

    def _function_for(self, avals: Sequence[Aval]) -> ForeignFunction:
        """Return the function as graphs know it, for operands of these dtypes and numbers of axes."""
        key = tuple((aval.dtype, aval.rank) for aval in avals)
        if key not in self._known:
            from staticgrad.runtime.foreign import infer

            name = "_".join(re.findall(r"[A-Za-z0-9]+", self.__name__))
            try:
                inferred = infer(self._function, self.__name__, avals)
            except DTypeError as error:
                raise DTypeError(at_user_line(str(error))) from error.__cause__
            known = self._known[key] = ForeignFunction(
                symbol=f"sg_foreign_{name}_{secrets.token_hex(4)}",
                name=name,
                line=self._line,
                function=self._function,
                operands=key,
                parameters=_named(self._function, len(key)),
                result=inferred.dtype,
                rank=inferred.rank,
                copies=inferred.copies,
                jvp=None if self._jvp is None else self._push_forward,
                vjp=None if self._vjp is None else self._pull_back,
            )
            FUNCTIONS[known.symbol] = known
        return self._known[key]

    @property
    def _line(self) -> str:
        code = inspect.unwrap(getattr(self._function, "py_func", self._function)).__code__
        return f"{os.path.basename(code.co_filename)}:{code.co_firstlineno}"

    def _result_shape(self, known: ForeignFunction, shapes: Sequence[Shape]) -> Shape:
        listed = ", ".join(map(str, shapes))
        if self._shape is not None:
            said = self._shape(*shapes)
            shape = tuple(said) if isinstance(said, (tuple, list)) else (said,)
            if not all(isinstance(extent, (int, np.integer)) and extent >= 0 for extent in shape):
                raise ShapeError(at_user_line(f"{self.__name__}: shape= returned {said!r} for {listed}, which is no shape"))
            shape = tuple(map(int, shape))
        elif known.rank is None:
            shape = ()
        else:
            try:
                shape = np.broadcast_shapes(*shapes)
            except ValueError:
                raise ShapeError(
                    at_user_line(f"{self.__name__}: the shapes {listed} do not broadcast; tell the shape of the result with shape=")
                ) from None
        if len(shape) != (known.rank or 0):
            what = "a number" if known.rank is None else f"an array with {known.rank} axes"
            hint = "" if self._shape is not None else "; tell the shape of the result with shape="
            raise ShapeError(at_user_line(f"{self.__name__}: it returns {what}, not one of shape {shape}, for {listed}{hint}"))
        return shape

    # ---- derivatives

    def _push_forward(self, op: Foreign, tangents: Sequence[Value | None], y: Value, *x: Value) -> Value | None:
        every = (True,) * len(op.sizes)
        operands = [op.levels(k) for k in range(len(x))]
        moved = [levels for levels, tangent in zip(operands, tangents, strict=True) if tangent is not None]
        rule = f"jvp= of {self.__name__}"
        found = _traced_rule(self._jvp, rule, (tuple(tangents), y, *x), [*moved, every, *operands], op.sizes)
        if found is not None and not isinstance(found, Value):
            raise ArgumentError(at_user_line(f"{rule}: it must return one tangent, an array, not {type(found).__name__}", y.node.line))
        return _fitting(found, y.shape, y, rule)

    def _pull_back(self, op: Foreign, g: Value, y: Value, *x: Value) -> tuple[Value | None, ...]:
        every = (True,) * len(op.sizes)
        operands = [op.levels(k) for k in range(len(x))]
        rule = f"vjp= of {self.__name__}"
        found = _traced_rule(self._vjp, rule, (g, y, *x), [every, every, *operands], op.sizes)
        if not isinstance(found, (tuple, list)) or len(found) != len(x) or not all(isinstance(v, (Value, type(None))) for v in found):
            what = f"{len(found)} things" if isinstance(found, (tuple, list)) else type(found).__name__
            raise ArgumentError(
                at_user_line(f"{rule}: it must return a tuple of {len(x)} cotangents, one for each argument, not {what}", y.node.line)
            )
        made = []
        for k, (cotangent, operand, levels) in enumerate(zip(found, x, operands, strict=True)):
            shape = (*op.sizes, *op.own_shape(k, operand.shape))
            fitting = _fitting(cotangent if is_float(operand.dtype) else None, shape, operand, f"{rule}, argument {k}")
            axes = tuple(level for level, has in enumerate(levels) if not has)
            made.append(sum_(fitting, axes) if fitting is not None and axes else fitting)
        return tuple(made)


def _named(function: Callable[..., Any], count: int) -> tuple[str, ...]:
    """Return what a function calls its first arguments; those of `*args` are numbered."""
    names = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_POSITIONAL]
    return tuple(names[k] if k < len(names) else f"argument{k}" for k in range(count))


def _traced_rule(rule: Any, name: str, args: tuple[Any, ...], levels: Sequence[Levels], sizes: Shape) -> Any:
    """Return what a user's rule makes of values, mapped over the axes that an op is mapped over."""
    leaves, tree = flatten((args, {}))
    avals = tuple(Aval(v.shape[sum(has) :], v.dtype) for v, has in zip(leaves, levels, strict=True))
    program = record(rule, Signature(tree, avals), name)
    graph = inline_calls(program.graph)
    inputs, outputs = graph.inputs, list(graph.outputs[: program.results])
    for level, size in reversed(list(enumerate(sizes))):
        flags = [*(has[level] for has in levels), *(False for _ in program.captures)]
        made = tuple(new_input(Aval((size, *v.shape) if has else v.shape, v.dtype)) for v, has in zip(inputs, flags, strict=True))
        outputs = all_batched(outputs, inputs, made, flags, size)
        inputs = made
    return unflatten(program.out_tree, list(inline(Graph(inputs, tuple(outputs)), (*leaves, *program.captures))))


def _fitting(derivative: Value | None, shape: Shape, of: Value, rule: str) -> Value | None:
    """Return a derivative in the dtype of what it belongs to, or an error if its shape is another one."""
    if derivative is None:
        return None
    if derivative.shape != shape:
        raise ShapeError(
            at_user_line(f"{rule}: it returned shape {derivative.shape} for what has shape {shape}; None stands for zero", of.node.line)
        )
    return cast(derivative, of.dtype) if derivative.dtype != of.dtype else derivative
