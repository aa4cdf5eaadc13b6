"""Control flow that depends on values: `cond`, `switch`, `while_loop` and `fori_loop`, with the signatures of `jax.lax`.

Each becomes one operation that holds its functions as graphs of their own, and a native branch or loop in compiled code. Outside of a
trace they compute at once, as one traced call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from staticgrad.calls.traced import traced
from staticgrad.control.bodies import carried, converted, gives_way, joined, known_number, named, names_of, operand, unrolled, without_step
from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError
from staticgrad.ir.aval import BOOL, INT64, Aval, is_integer
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Value, apply_all, new_input
from staticgrad.ir.source import at_user_line
from staticgrad.ops.branches import switch as switch_values
from staticgrad.ops.casts import cast
from staticgrad.ops.comparison import less
from staticgrad.ops.loops import Scan
from staticgrad.ops.while_loops import While
from staticgrad.tracing.bodies import record_body
from staticgrad.tracing.context import tracing
from staticgrad.tracing.lift import lift
from staticgrad.tracing.pytree import flatten, unflatten
from staticgrad.tracing.tracer import Tracer, tracer_of


def cond(pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any) -> Any:
    """Return `true_fun(*operands)` where `pred` holds, otherwise `false_fun(*operands)`; only one of them runs.

    Parameters
    ----------
    pred
        A boolean scalar.
    true_fun, false_fun
        Functions whose results have the same structure, shapes and dtypes. They may close over traced arrays.
    *operands
        Arrays, numbers, or containers of these.

    Raises
    ------
    DTypeError, ShapeError
        Where `pred` is no boolean scalar, or the results differ.
    ArgumentError
        Where the structures of the results differ.

    Examples
    --------
    >>> import staticgrad as sg
    >>> sg.grad(lambda x: sg.cond(x > 0, lambda x: x * x, lambda x: -x, x))(3.0)
    np.float64(6.0)
    """
    if not tracing():
        return traced(named(lambda p, *rest: cond(p, true_fun, false_fun, *rest), "cond"))(pred, *operands)
    choice = operand(pred, "cond: the predicate")
    if choice.dtype != BOOL:
        raise DTypeError(at_user_line(f"cond: the predicate is {choice.aval}, not bool; compare, as in `x != 0`"))
    if choice.shape:
        raise ShapeError(at_user_line(f"cond: the predicate has shape {choice.shape}; it is one bool for all: np.all, np.any, or sg.vmap"))
    return _branches("cond", cast(choice, INT64), (false_fun, true_fun), operands)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """Return `branches[index](*operands)`; an index that is too small or too large means the first or the last branch.

    Parameters
    ----------
    index
        An integer scalar.
    branches
        Functions whose results have the same structure, shapes and dtypes. They may close over traced arrays.
    *operands
        Arrays, numbers, or containers of these.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        Where `index` is no integer scalar, or the results differ.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> sg.switch(1, [np.sin, np.cos, np.exp], 0.0)
    np.float64(1.0)
    """
    functions = tuple(branches)
    if not functions:
        raise InvalidValueError(at_user_line("switch: there are no branches"))
    if not tracing():
        return traced(named(lambda k, *rest: switch(k, functions, *rest), "switch"))(index, *operands)
    choice = operand(index, "switch: the index")
    if not is_integer(choice.dtype):
        raise DTypeError(at_user_line(f"switch: the index is {choice.aval}, not an integer"))
    if choice.shape:
        raise ShapeError(at_user_line(f"switch: the index has shape {choice.shape}; it is one number for all"))
    return _branches("switch", cast(choice, INT64), functions, operands)


def _branches(what: str, index: Value, functions: Sequence[Callable[..., Any]], operands: Sequence[Any]) -> Any:
    leaves, tree = flatten(tuple(operands))
    values = [operand(leaf, f"{what}: an operand") for leaf in leaves]
    bodies = [record_body(function, tree, [v.aval for v in values], f"a branch of {what}") for function in functions]
    names = names_of(functions)
    first = bodies[0]
    for body, name in zip(bodies, names, strict=True):
        if body.out_tree != first.out_tree:
            raise ArgumentError(at_user_line(f"{what}: {names[0]} returns the structure {first.out_tree}, {name} returns {body.out_tree}"))
    dtypes = []
    for number, avals in enumerate(zip(*(body.avals for body in bodies), strict=True)):
        kept = [aval for aval in avals if not aval.weak] or [_widest(avals)]
        for aval, name in zip(avals, names, strict=True):
            fits = aval.dtype == kept[0].dtype or (aval.weak and gives_way(aval.dtype, kept[0].dtype))
            if aval.shape != avals[0].shape or not fits:
                error = ShapeError if aval.shape != avals[0].shape else DTypeError
                other = names[avals.index(kept[0])] if aval.shape == avals[0].shape else names[0]
                found = kept[0] if aval.shape == avals[0].shape else avals[0]
                raise error(at_user_line(f"{what}: result {number} of {other} is {found}, that of {name} is {aval}"))
        dtypes.append(kept[0].dtype)
    captures, graphs = joined(bodies)
    graphs = [converted(graph, dtypes) for graph in graphs]
    results = switch_values(index, graphs, *captures, *values)
    return first.result([tracer_of(v) for v in results])


def _widest(avals: Sequence[Aval]) -> Aval:
    return max(avals, key=lambda aval: aval.dtype.kind == "f")


def while_loop(cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init_val: Any, *, max_steps: int | None = None) -> Any:
    """Return what `init_val` has become when `cond_fun` does not hold for it any more: `while cond_fun(val): val = body_fun(val)`.

    Parameters
    ----------
    cond_fun
        A function of the value that returns a boolean scalar. It may close over traced arrays, as may `body_fun`.
    body_fun
        A function of the value that returns the next one, of the same structure, shapes and dtypes.
    init_val
        What to start from: arrays, numbers, or containers of these.
    max_steps
        The most steps to be done. Then the way back keeps what each step starts from, at most so many times the size of the value;
        without a limit it computes much of that anew, in memory that does not depend on the number of steps.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        Where the condition is no boolean scalar, or the body changes structure, shapes or dtypes.

    Examples
    --------
    >>> import staticgrad as sg
    >>> def root(x):
    ...     return sg.while_loop(lambda r: abs(r * r - x) > 1e-14, lambda r: (r + x / r) / 2, x)
    >>> round(float(sg.grad(root)(16.0)), 12)
    0.125
    """
    if not tracing():
        run = named(lambda init: while_loop(cond_fun, body_fun, init, max_steps=max_steps), "while_loop")
        return traced(run)(init_val)
    limit = -1 if max_steps is None else known_number(max_steps, "while_loop: max_steps")
    if max_steps is not None and limit < 0:
        raise InvalidValueError(at_user_line(f"while_loop: max_steps={limit} is negative"))
    leaves, tree = flatten(init_val)
    values, body = carried("while_loop", body_fun, tree, leaves)
    args_tree = flatten((unflatten(tree, list(range(len(values)))),))[1]
    test = record_body(cond_fun, args_tree, [v.aval for v in values], "the condition of while_loop")
    if len(test.avals) != 1 or test.avals[0].dtype != BOOL or test.avals[0].shape:
        found = ", ".join(map(str, test.avals))
        error = ShapeError if len(test.avals) == 1 and test.avals[0].dtype == BOOL else DTypeError
        raise error(at_user_line(f"while_loop: the condition {names_of([cond_fun])[0]} returns {found}; it has to be one bool"))
    captures, (condition, step) = joined([test, body])
    results = apply_all(While(condition, step, len(captures), limit), *captures, *values)
    return unflatten(tree, [tracer_of(v) for v in results[:-1]])


def fori_loop(lower: Any, upper: Any, body_fun: Callable[[Any, Any], Any], init_val: Any, *, unroll: int | bool | None = None) -> Any:
    """Return what becomes of `init_val`: `for i in range(lower, upper): val = body_fun(i, val)`.

    Parameters
    ----------
    lower, upper
        Integers; they may be traced.
    body_fun
        A function of the number (as a Python integer, which takes on the dtype of what it is combined with) and the value that returns
        the next value, of the same structure, shapes and dtypes. It may close over traced arrays.
    init_val
        What to start from: arrays, numbers, or containers of these.
    unroll
        Accepted as `jax.lax` has it; the compiler decides.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        Where a bound is no integer, or the body changes structure, shapes or dtypes.

    Examples
    --------
    >>> import staticgrad as sg
    >>> sg.grad(lambda x: sg.fori_loop(0, 3, lambda i, value: value * x, 1.0))(2.0)
    np.float64(12.0)
    """
    unrolled(unroll, "fori_loop")
    if not tracing():
        return traced(named(lambda init: fori_loop(lower, upper, body_fun, init), "fori_loop"))(init_val)
    bounds = [_bound(bound, "fori_loop") for bound in (lower, upper)]
    leaves, tree = flatten(init_val)
    values, body = carried("fori_loop", body_fun, tree, leaves, ahead=[Aval((), INT64, weak=True)])
    captures, (graph,) = joined([body])
    own, counter, carry = graph.inputs[: len(captures)], graph.inputs[len(captures)], graph.inputs[len(captures) + 1 :]
    if all(isinstance(bound, int) for bound in bounds):
        first, end = (int(bound) for bound in bounds if isinstance(bound, int))
        stepping = without_step(Graph((counter, *own, *carry), graph.outputs, (), graph.name), first)
        results = apply_all(Scan(stepping, max(end - first, 0), len(captures), len(values)), *captures, *values)
    else:
        begin, last = (lift(np.int64(bound)) if isinstance(bound, int) else bound for bound in bounds)
        inputs = [new_input(v.aval) for v in (last, *own, begin, *carry)]
        condition = Graph(tuple(inputs), (less(inputs[1 + len(own)], inputs[0]),), (), "numbers left")
        stop = new_input(last.aval)
        step = Graph((stop, *own, counter, *carry), (counter + 1, *graph.outputs), (), graph.name)
        results = apply_all(While(condition, step, 1 + len(captures)), last, *captures, begin, *values)[1:-1]
    return unflatten(tree, [tracer_of(v) for v in results])


def _bound(bound: Any, what: str) -> int | Value:
    """Return a bound as a number where it is known."""
    if not isinstance(bound, Tracer):
        return known_number(bound, f"{what}: a bound")
    value = bound.value
    if not is_integer(value.dtype):
        raise DTypeError(at_user_line(f"{what}: a bound is {value.aval}, not an integer"))
    if value.shape:
        raise ShapeError(at_user_line(f"{what}: a bound has shape {value.shape}; it is one number"))
    return cast(value, INT64)
