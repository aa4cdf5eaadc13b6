"""Loops over the parts of arrays: `scan`, `map` and `associative_scan`, with the signatures of `jax.lax`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from staticgrad.calls.traced import traced
from staticgrad.control.bodies import carried, gives_way, joined, known_number, named, operand, unrolled
from staticgrad.errors import ArgumentError, AxisError, DTypeError, InvalidValueError, ShapeError
from staticgrad.ir.aval import INT64, Aval
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Value, apply_all, new_input
from staticgrad.ir.source import at_user_line
from staticgrad.ops.loops import Scan
from staticgrad.tracing.bodies import check_callable
from staticgrad.tracing.context import tracing
from staticgrad.tracing.lift import convert, lift
from staticgrad.tracing.pytree import flatten, unflatten
from staticgrad.tracing.tracer import tracer_of
from staticgrad.transforms import Vmap


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
) -> tuple[Any, Any]:
    """Return what `init` has become after a step for each part of `xs`, and what the steps gave beside that, stacked.

    As `for k in range(length): carry, ys[k] = f(carry, xs[k])`, with `ys` stacked along a new first axis.

    Parameters
    ----------
    f
        A function of the carry and a part of `xs` that returns a pair: the next carry, of the same structure, shapes and dtypes, and
        anything else. It may close over traced arrays.
    init
        What the carry starts as: arrays, numbers, or containers of these.
    xs
        Arrays with one first axis length, in any container, or None.
    length
        The number of steps; it may be left out where `xs` has arrays.
    reverse
        Whether to begin with the last part. Results are stacked in the order of `xs` all the same.
    unroll
        Accepted as `jax.lax` has it; the compiler decides.

    Returns
    -------
    tuple
        `(carry, ys)`; where `f` returns None in place of a part of `ys`, there is None.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        Where arrays of `xs` differ in length, the number of steps is not known, or the carry changes structure, shape or dtype.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> sg.scan(lambda total, x: (total + x, total), 0.0, np.array([1.0, 2.0, 3.0]))
    (np.float64(6.0), array([0., 1., 3.]))
    """
    unrolled(unroll, "scan")
    if not tracing():
        return traced(named(lambda start, parts: scan(f, start, parts, length, reverse), "scan"))(init, xs)  # type: ignore[no-any-return]
    return _scanned("scan", f, init, xs, length, reverse)


def map(f: Callable[[Any], Any], xs: Any, *, batch_size: int | None = None) -> Any:
    """Return what `f` makes of each part of `xs`, stacked: one after the other, in the memory that one takes.

    As `np.stack([f(x) for x in xs])`. Where memory is no concern, `vmap` does all of them at once.

    Parameters
    ----------
    f
        A function of a part of `xs`. It may close over traced arrays.
    xs
        Arrays with one first axis length, in any container.
    batch_size
        So many parts are done at once, by `vmap`.

    Returns
    -------
    Any
        Arrays in the structure of the results of `f`, with a new first axis.

    Raises
    ------
    ShapeError, ArgumentError, InvalidValueError
        Where arrays of `xs` differ in length or there are none, or `batch_size` is no number from 1 on.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> sg.map(lambda x: x * x.sum(), np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[ 3.,  6.],
           [21., 28.]])
    """
    size = None if batch_size is None else known_number(batch_size, "map: batch_size")
    if size is not None and size < 1:
        raise InvalidValueError(at_user_line(f"map: batch_size={size}: give a number from 1 on, or None for one after the other"))
    if not tracing():
        return traced(named(lambda parts: map(f, parts, batch_size=size), "map"))(xs)
    check_callable(f, "map: the function")
    leaves, tree = flatten(xs)
    if not leaves:
        raise ArgumentError(at_user_line("map: xs has no arrays, so there is nothing to map over"))
    length = _length("map", [operand(leaf, "map: a part of xs") for leaf in leaves], None)

    def over(function: Callable[[Any], Any], parts: Any) -> Any:
        return _scanned("map", named(lambda carry, x: (carry, function(x)), getattr(f, "__name__", "f")), (), parts)[1]

    if size is None:
        return over(f, xs)
    batched = traced(f).derive(Vmap.of(0, 0, None), "vmap")
    whole, rest = divmod(length, size)
    parts = [tracer_of(lift(leaf)) for leaf in leaves]
    blocks = unflatten(tree, [part[: whole * size].reshape((whole, size, *part.shape[1:])) for part in parts])
    results = []
    if whole or not rest:
        made, out_tree = flatten(over(batched, blocks))
        results.append([part.reshape((whole * size, *part.shape[2:])) for part in made])
    if rest:
        made, out_tree = flatten(batched(unflatten(tree, [part[whole * size :] for part in parts])))
        results.append(made)
    return unflatten(out_tree, [np.concatenate(each) for each in zip(*results, strict=True)])


def _scanned(what: str, f: Callable[[Any, Any], Any], init: Any, xs: Any, length: Any = None, reverse: bool = False) -> tuple[Any, Any]:
    """Return what becomes of `init`, and the results of all steps; `what` does it, for messages."""
    stacked, xs_tree = flatten(xs)
    parts = [operand(leaf, f"{what}: a part of xs") for leaf in stacked]
    steps = _length(what, parts, length)
    leaves, tree = flatten(init)
    behind = [v.aval.without((0,)) for v in parts]
    x_tree = unflatten(xs_tree, list(range(len(parts))))
    values, body = carried(what, f, tree, leaves, behind=(behind, x_tree))
    captures, (graph,) = joined([body])
    stepping = Graph((new_input(Aval((), INT64), "step"), *graph.inputs), graph.outputs, (), graph.name, ("step", *graph.labels))
    op = Scan(stepping, steps, len(captures), len(values), bool(reverse))
    results = apply_all(op, *captures, *values, *parts)
    found: tuple[Any, Any] = body.result([tracer_of(v) for v in results])
    return unflatten(tree, flatten(found[0])[0]), found[1]


def associative_scan(fn: Callable[[Any, Any], Any], elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """Return all partial results of an associative function: of x, y, z these are x, fn(x, y), fn(fn(x, y), z).

    It takes some 2 log2(n) applications of `fn` to many elements at once instead of n steps one after the other.

    Parameters
    ----------
    fn
        A function of two values with the structure of `elems`, whose arrays hold several elements along `axis`: it works on all pairs
        of these, and returns the results in the same structure and shapes. It has to be associative.
    elems
        Arrays of one length along `axis`, in any container.
    reverse
        Whether to begin with the last element; results stand in the order of `elems` all the same.
    axis
        The axis along which the elements stand.

    Raises
    ------
    ShapeError, AxisError, ArgumentError
        Where lengths differ, there is no such axis, or `fn` changes the structure.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> sg.associative_scan(np.multiply, np.array([1.0, 2.0, 3.0, 4.0]))
    array([ 1.,  2.,  6., 24.])
    """
    check_callable(fn, "associative_scan: the function")
    if not tracing():
        return traced(named(lambda each: associative_scan(fn, each, reverse, axis), "associative_scan"))(elems)
    leaves, tree = flatten(elems)
    values = [operand(leaf, "associative_scan: a part of elems") for leaf in leaves]
    if not values:
        raise ArgumentError(at_user_line("associative_scan: there are no arrays"))
    for v in values:
        if not -len(v.shape) <= axis < len(v.shape):
            raise AxisError(at_user_line(f"associative_scan: axis {axis} of an array of shape {v.shape}"))
    lengths = dict.fromkeys(v.shape[axis] for v in values)
    if len(lengths) > 1:
        raise ShapeError(
            at_user_line(f"associative_scan: the arrays have {' and '.join(str(each) for each in lengths)} elements along axis {axis}")
        )
    ahead = [tracer_of(v).swapaxes(0, axis) for v in values]

    def combined(first: list[Any], second: list[Any]) -> list[Any]:
        pair = [unflatten(tree, [each.swapaxes(0, axis) for each in part]) for part in (first, second)]
        made, found = flatten(fn(*pair))
        if found != tree:
            raise ArgumentError(at_user_line(f"associative_scan: the elements have structure {tree}, the results {found}"))
        return [_still(each, part, axis) for each, part in zip(made, first, strict=True)]

    def partial(parts: list[Any]) -> list[Any]:
        count = parts[0].shape[0]
        if count < 2:
            return parts
        odd = partial(combined([p[: count - 1 : 2] for p in parts], [p[1::2] for p in parts]))  # of 0 and 1, of 2 and 3 ...
        rest = [p[2::2] for p in parts]
        between = combined([p[: rest[0].shape[0]] for p in odd], rest) if count > 2 else rest
        return [_woven(np.concatenate([p[:1], e]), o) for p, e, o in zip(parts, between, odd, strict=True)]

    ordered = [each[::-1] for each in ahead] if reverse else ahead
    results = partial(ordered)
    return unflatten(tree, [(each[::-1] if reverse else each).swapaxes(0, axis) for each in results])


def _still(result: Any, part: Any, axis: int) -> Any:
    """Return what became of a part of the elements, with the axis along which they stand in front, as it does in `part`."""
    value = operand(result, "associative_scan: a result")
    before = part.swapaxes(0, axis).value.aval
    if value.shape != before.shape or (value.dtype != before.dtype and not (value.aval.weak and gives_way(value.dtype, before.dtype))):
        error = ShapeError if value.shape != before.shape else DTypeError
        raise error(at_user_line(f"associative_scan: several elements are {before}, and the function makes {value.aval} of them"))
    return tracer_of(convert(value, before.dtype)).swapaxes(0, axis)


def _woven(even: Any, odd: Any) -> Any:
    """Return the rows of both in turn: there are as many even ones, or one more."""
    count = odd.shape[0]
    pairs = np.stack([even[:count], odd], axis=1).reshape((2 * count, *odd.shape[1:]))
    return np.concatenate([pairs, even[count:]]) if even.shape[0] > count else pairs


def _length(what: str, parts: Sequence[Value], length: int | None) -> int:
    """Return the number of steps."""
    if any(not v.shape for v in parts):
        raise ShapeError(at_user_line(f"{what}: a part of xs has no axis to run along; close over it instead"))
    lengths = dict.fromkeys(v.shape[0] for v in parts)
    if len(lengths) > 1:
        raise ShapeError(
            at_user_line(f"{what}: the arrays of xs have {' and '.join(str(each) for each in lengths)} parts along their first axis")
        )
    if length is None:
        if not lengths:
            raise ArgumentError(at_user_line(f"{what}: xs has no arrays, so the number of steps must be given: length=10"))
        (only,) = lengths
        return int(only)
    steps = known_number(length, f"{what}: length")
    if steps < 0:
        raise InvalidValueError(at_user_line(f"{what}: length={steps} is negative"))
    if lengths and next(iter(lengths)) != steps:
        raise ShapeError(at_user_line(f"{what}: length={steps}, but the arrays of xs have {next(iter(lengths))} parts"))
    return steps
