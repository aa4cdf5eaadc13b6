"""Functions that pick or write elements by index arrays: take, put, their like, and `ufunc.at`."""

from __future__ import annotations

from typing import Any

import numpy as np

from staticgrad.errors import DTypeError, IndexingError, InvalidValueError, ShapeError, TraceError, UnsupportedError
from staticgrad.ir.aval import BOOL, INT64, Shape
from staticgrad.ir.node import Value, apply, constant, constant_array, full
from staticgrad.ir.source import at_user_line
from staticgrad.ops import arithmetic, comparison
from staticgrad.ops.along import along_last_axis, axis_last
from staticgrad.ops.index import Gather, ScatterSet, known_arrays
from staticgrad.ops.movement import broadcast_to, inverse_order, reshape, transpose
from staticgrad.tracing.functions.arguments import axis_of, deliver, operand
from staticgrad.tracing.functions.table import implements, name_of
from staticgrad.tracing.indexing import Array, PickView, bounded, spread_together
from staticgrad.tracing.lift import checked_broadcast, convert, lift, promoted, result_dtype, strong, together
from staticgrad.tracing.tracer import Tracer, tracer_of
from staticgrad.tracing.ufuncs import UFUNCS, elementwise_value
from staticgrad.tracing.views import TransposeView

MOST_ROUNDS = 64
"""The most often that `ufunc.at` of another function than add and subtract takes one element."""


def _integers(x: Any, name: str) -> Array:
    """Return an array of positions, known or traced."""
    value = lift(np.zeros(np.shape(x), INT64) if isinstance(x, (list, tuple)) and not np.size(x) else x)
    if not np.can_cast(value.dtype, INT64, "safe"):
        raise DTypeError(at_user_line(f"{name}: indices of {value.aval} cannot be cast to int64 according to the rule 'safe'"))
    known = constant_array(value)
    return convert(strong(value), INT64) if known is None else known


def _target(x: Any, name: str) -> Tracer:
    if not isinstance(x, Tracer):
        raise TraceError(
            at_user_line(f"{name}: a real NumPy array cannot hold traced values; make it with snp.zeros(...), np.zeros_like(x) or x.copy()")
        )
    return x


def _check_mode(mode: Any, name: str) -> str:
    if mode not in ("raise", "wrap", "clip"):
        raise InvalidValueError(at_user_line(f"{name}: mode must be one of 'raise', 'wrap' or 'clip', got {mode!r}"))
    return str(mode)


def _taken(x: Value, index: Array, axis: int, name: str, mode: str = "raise") -> Value:
    """Return what `index` picks along one axis: its axes stand in place of that one."""
    if not x.shape[axis] and np.prod(index.shape):
        raise IndexingError(at_user_line(f"{name}: cannot do a non-empty take from the empty axis {axis} of {x.aval}"))
    return apply(Gather((axis,), axis), x, *spread_together([bounded(index, x.shape[axis], axis, mode)]))


@implements(np.take)
def np_take(a: Any, indices: Any, axis: Any = None, out: Any = None, mode: Any = "raise") -> Tracer:
    """Return what `indices` pick along one axis, of all elements in a row by default."""
    x, index = operand(a), _integers(indices, "np.take")
    if axis is None or not x.shape:
        x, axis = reshape(x, (x.aval.size,)), 0 if axis is None else axis_of(axis, 1, "np.take")
    return deliver("take", _taken(x, index, axis_of(axis, len(x.shape), "np.take"), "np.take", _check_mode(mode, "np.take")), out)


@implements(np.compress)
def np_compress(condition: Any, a: Any, axis: Any = None, out: Any = None) -> Tracer:
    """Return the slices along one axis for which a condition holds that is known while tracing."""
    flags = constant_array(operand(condition))
    if flags is None:
        raise UnsupportedError(at_user_line("np.compress with a traced condition has a shape that depends on its values; use np.where"))
    if flags.ndim != 1:
        raise InvalidValueError(at_user_line("np.compress: condition must be a 1-d array"))
    return np_take(a, np.flatnonzero(flags), axis, out)


@implements(np.extract)
def np_extract(condition: Any, arr: Any) -> Tracer:
    """Return the elements for which a condition holds that is known while tracing."""
    flags = constant_array(operand(condition))
    if flags is None:
        raise UnsupportedError(at_user_line("np.extract with a traced condition has a shape that depends on its values; use np.where"))
    return np_take(arr, np.flatnonzero(flags))


@implements(np.choose)
def np_choose(a: Any, choices: Any, out: Any = None, mode: Any = "raise") -> Tracer:
    """Return, element by element, the one of `choices` that `a` says."""
    values = promoted(*map(lift, choices))
    index = _integers(a, "np.choose")
    try:
        index = bounded(index, len(values), 0, _check_mode(mode, "np.choose"))
    except IndexingError as error:
        raise InvalidValueError(f"np.choose: invalid entry in choice array: {error}") from error
    which, *options = together([*spread_together([index]), *map(strong, values)], "np.choose")
    result = options[0]
    for number, option in enumerate(options[1:], 1):
        result = comparison.where(comparison.equal(which, full(which.shape, number, INT64)), option, result)
    return deliver("choose", result, out)


# ---- along an axis


def _along(x: Shape, indices: Any, axis: int, name: str) -> tuple[Value, tuple[int, ...]]:
    """Return index arrays with their axis at the end and the other axes those of x, and the order of axes that takes it there."""
    index = _integers(indices, name)
    if len(index.shape) != len(x):
        raise InvalidValueError(at_user_line(f"{name}: `indices` and `arr` must have the same number of dimensions"))
    order = axis_last(len(x), axis)
    (value,) = spread_together([bounded(index, x[axis], axis)])
    moved = transpose(value, order)
    shape = (*(x[k] for k in order[:-1]), moved.shape[-1])
    try:
        return broadcast_to(moved, shape), order
    except ShapeError as error:
        raise IndexingError(at_user_line(f"{name}: indices {value.aval} do not fit an array of shape {x} along axis {axis}")) from error


@implements(np.take_along_axis)
def np_take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> Tracer:
    """Return what `indices` pick along one axis, each row of them out of its own row."""
    x, name = operand(arr), "np.take_along_axis"
    if axis is None:
        x, axis = reshape(x, (x.aval.size,)), 0
    place = axis_of(axis, len(x.shape), name)
    shape = np.shape(indices) if not isinstance(indices, Tracer) else indices.shape
    if len(shape) == len(x.shape):
        wide = tuple(m if n == 1 and k != place else n for k, (n, m) in enumerate(zip(x.shape, shape, strict=True)))
        x = broadcast_to(x, wide)
    index, order = _along(x.shape, indices, place, name)
    return tracer_of(along_last_axis(transpose(x, order), index, order))


@implements(np.put_along_axis)
def np_put_along_axis(arr: Any, indices: Any, values: Any, axis: Any) -> None:
    """Write `values` where `indices` say along one axis, each row of them into its own row."""
    x, name = _target(arr, "np.put_along_axis"), "np.put_along_axis"
    if axis is None:
        np_put(x, indices, values)
        return
    index, order = _along(x.shape, indices, axis_of(axis, x.ndim, name), name)
    rows, last = x.view(TransposeView(order)), x.ndim - 1
    back = inverse_order(order)
    new = checked_broadcast(strong(convert(lift(values), x.dtype)), transpose(index, back).shape, name)
    rows.assign(apply(ScatterSet((last,), last, last), rows.value, transpose(new, order), index), name)


@implements(np.put)
def np_put(a: Any, ind: Any, v: Any, mode: Any = "raise") -> None:
    """Write `v`, repeated as often as it takes, at places counted through all elements."""
    x, index = _target(a, "np.put"), _integers(ind, "np.put")
    index = bounded(index.reshape(-1) if isinstance(index, np.ndarray) else reshape(index, (index.aval.size,)), x.size, 0, mode)
    values = strong(convert(lift(v), x.dtype))
    values = reshape(values, (values.aval.size,))
    if not index.shape[0] or not values.shape[0]:
        return
    repeated = _taken(values, np.arange(index.shape[0]) % values.shape[0], 0, "np.put")
    flat = reshape(x.value, (x.size,))
    x.assign(reshape(apply(ScatterSet((0,), 0), flat, repeated, *spread_together([index])), x.shape), "np.put")


# ---- ufunc.at


def at_arrays(ufunc: np.ufunc, base: Tracer, pick: PickView, operands: tuple[Any, ...]) -> None:
    """Write the function of what index arrays pick out of `base`, as often as they name an element, in their order."""
    name = f"{name_of(ufunc)}.at"
    values = [lift(x) for x in operands]
    part = pick.read(base.value)
    result = result_dtype(part, *values)
    if not np.can_cast(result, base.dtype, "same_kind"):
        raise DTypeError(at_user_line(f"{name}: cannot cast the result from {result} to {base.dtype} with casting rule 'same_kind'"))
    values = [checked_broadcast(strong(convert(v, result) if v.aval.weak else v), part.shape, name) for v in values]
    if ufunc in (np.add, np.subtract) and base.dtype != BOOL:
        new = convert(values[0], base.dtype)
        base.assign(pick.add(base.value, new if ufunc is np.add else arithmetic.negative(new)), name)
        return
    for round_, chosen in _rounds(pick, name):
        part, picked = round_.read(base.value), [v if chosen is None else _of_round(v, pick, chosen) for v in values]
        new = elementwise_value(ufunc, part, *picked) if ufunc in UFUNCS else lift(ufunc(tracer_of(part), *map(tracer_of, picked)))
        base.assign(round_.write(base.value, convert(new, base.dtype)), name)


def _rounds(pick: PickView, name: str) -> list[tuple[PickView, np.ndarray | None]]:
    """Return picks that name no element twice and together, in order, do what `pick` does, with the numbers of its elements."""
    shape = pick.indices[0].shape
    count = int(np.prod(shape))
    if count < 2:
        return [(pick, None)]
    arrays = known_arrays(pick.indices)
    if arrays is None:
        raise UnsupportedError(
            at_user_line(
                f"{name} with traced index arrays is not supported, as they may name an element twice; np.add.at and np.subtract.at are"
            )
        )
    known = [array.reshape(-1) for array in arrays]
    seen: dict[tuple[int, ...], int] = {}
    turn = np.empty(count, INT64)
    for number, place in enumerate(zip(*known, strict=True)):
        turn[number] = seen[place] = seen.get(place, -1) + 1
    if turn.max() >= MOST_ROUNDS:
        raise UnsupportedError(at_user_line(f"{name}: an element is named {turn.max() + 1} times; at most {MOST_ROUNDS} are supported"))
    if not turn.max():
        return [(pick, None)]
    chosen = [np.flatnonzero(turn == k) for k in range(int(turn.max()) + 1)]
    return [(PickView(pick.axes, pick.place, tuple(constant(i[numbers]) for i in known)), numbers) for numbers in chosen]


def _of_round(v: Value, pick: PickView, numbers: np.ndarray) -> Value:
    """Return the elements of `v`, in the shape of what `pick` picks, that belong to a choice of its elements."""
    own = len(pick.indices[0].shape)
    shape = (*v.shape[: pick.place], -1, *v.shape[pick.place + own :])
    count = int(np.prod(v.shape[pick.place : pick.place + own]))
    flat = reshape(v, tuple(count if extent == -1 else extent for extent in shape))
    return _taken(flat, numbers, pick.place, "at")
