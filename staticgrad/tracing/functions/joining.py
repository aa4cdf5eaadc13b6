"""Functions that put arrays together and take them apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, InvalidValueError, ShapeError, UnsupportedError
from staticgrad.ir.aval import BOOL
from staticgrad.ir.node import Value, constant, full
from staticgrad.ir.source import at_user_line
from staticgrad.ops import arithmetic, comparison
from staticgrad.ops.movement import broadcast_to, concatenate, pad, reshape, slice_axis
from staticgrad.tracing.functions.arguments import as_tracer, axis_of, check_equal_rank, deliver, operand, whole_number
from staticgrad.tracing.functions.shapes import np_atleast_1d, np_atleast_2d, np_atleast_3d, np_diagonal
from staticgrad.tracing.functions.table import implements
from staticgrad.tracing.lift import check_dtype_here, convert, promoted
from staticgrad.tracing.tracer import Tracer, tracer_of
from staticgrad.tracing.views import ReshapeView


def joined(values: Sequence[Value], axis: int, name: str, dtype: Any = None) -> Value:
    """Return the values, promoted, one after the other along `axis`."""
    lengths = [v.aval.without((axis,)).shape for v in values]
    if any(shape != lengths[0] for shape in lengths):
        listed = ", ".join(str(v.aval) for v in values)
        raise ShapeError(at_user_line(f"{name} along axis {axis}: all other axes must agree, got {listed}"))
    if dtype is not None:
        kind = check_dtype_here(dtype, "dtype=")
        return concatenate([convert(v, kind) for v in values], axis)
    return concatenate(promoted(*values), axis)


def stacked(values: Sequence[Value], axis: Any, name: str, dtype: Any = None) -> Value:
    """Return values of one shape joined along a new axis."""
    if not values:
        raise InvalidValueError(at_user_line(f"{name}: need at least one array to stack"))
    if any(v.shape != values[0].shape for v in values):
        listed = ", ".join(str(v.aval) for v in values)
        raise ShapeError(at_user_line(f"{name}: all arrays must have the same shape, got {listed}"))
    shape = values[0].shape
    place = axis_of(axis, len(shape) + 1, name)
    return joined([reshape(v, (*shape[:place], 1, *shape[place:])) for v in values], place, name, dtype)


def _sequence(arrays: Any, name: str) -> list[Any]:
    if (isinstance(arrays, Tracer) and not arrays.shape) or np.isscalar(arrays):
        raise ArgumentError(at_user_line(f"{name} takes a sequence of arrays"))
    return list(arrays)


@implements(np.concatenate)
def np_concatenate(arrays: Any, /, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind") -> Tracer:
    """Return the arrays one after the other along `axis`, flattened for None."""
    values = [operand(x) for x in _sequence(arrays, "np.concatenate")]
    if not values:
        raise InvalidValueError(at_user_line("np.concatenate: need at least one array to concatenate"))
    if axis is None:
        values, axis = [reshape(v, (v.aval.size,)) for v in values], 0
    if any(not v.shape for v in values):
        raise InvalidValueError(at_user_line("np.concatenate: zero-dimensional arrays cannot be concatenated; use np.stack"))
    check_equal_rank(values, "np.concatenate")
    place = axis_of(axis, len(values[0].shape), "np.concatenate")
    return deliver("concatenate", joined(values, place, "np.concatenate", dtype), out)


@implements(np.stack)
def np_stack(arrays: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind") -> Tracer:
    """Return the arrays joined along a new axis."""
    values = [operand(x) for x in _sequence(arrays, "np.stack")]
    return deliver("stack", stacked(values, axis, "np.stack", dtype), out)


@implements(np.vstack, np.__dict__.get("row_stack"))
def np_vstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Tracer:
    """Return the arrays as rows one above the other."""
    return np_concatenate([np_atleast_2d(x) for x in _sequence(tup, "np.vstack")], 0, dtype=dtype)


@implements(np.hstack)
def np_hstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Tracer:
    """Return the arrays side by side."""
    parts = [np_atleast_1d(x) for x in _sequence(tup, "np.hstack")]
    return np_concatenate(parts, 0 if parts and parts[0].ndim == 1 else 1, dtype=dtype)


@implements(np.dstack)
def np_dstack(tup: Any) -> Tracer:
    """Return the arrays one behind the other, along axis 2."""
    return np_concatenate([np_atleast_3d(x) for x in _sequence(tup, "np.dstack")], 2)


@implements(np.column_stack)
def np_column_stack(tup: Any) -> Tracer:
    """Return one-dimensional arrays as the columns of a matrix."""
    parts = [as_tracer(x) for x in _sequence(tup, "np.column_stack")]
    return np_concatenate([np_atleast_2d(x).T if x.ndim < 2 else x for x in parts], 1)


@implements(np.append)
def np_append(arr: Any, values: Any, axis: Any = None) -> Tracer:
    """Return `values` after `arr`."""
    return np_concatenate([arr, values], axis)


@implements(np.block)
def np_block(arrays: Any) -> Tracer:
    """Return nested lists of blocks put together: the innermost lists along the last axis, those around them along the one before."""
    depth = _list_depth(arrays, "np.block")
    rank = max(depth, *(as_tracer(leaf).ndim for leaf in _leaves(arrays)))

    def joined_block(part: Any, level: int) -> Tracer:
        if level == depth:
            x = as_tracer(part)
            return x.view(ReshapeView((1,) * (rank - x.ndim) + x.shape))
        return np_concatenate([joined_block(inner, level + 1) for inner in part], level - depth)

    return joined_block(arrays, 0)


def _list_depth(nested: Any, name: str) -> int:
    """Return how many lists are around each leaf, the same number for all."""
    if isinstance(nested, tuple):
        raise ArgumentError(at_user_line(f"{name}: tuples do not nest blocks; use lists"))
    if not isinstance(nested, list):
        return 0
    depths = {_list_depth(part, name) for part in nested}
    if len(depths) != 1:
        raise InvalidValueError(at_user_line(f"{name}: the lists must not be empty and must all be nested to the same depth"))
    return 1 + depths.pop()


def _leaves(nested: Any) -> list[Any]:
    return [leaf for part in nested for leaf in _leaves(part)] if isinstance(nested, list) else [nested]


# ---- taking apart -----------------------------------------------------------------------------------------------------------


def _bounds(x: Tracer, axis: int, sections: Any, equal: bool, name: str) -> list[int]:
    extent = x.shape[axis]
    if np.ndim(sections):
        return [0, *(whole_number(k, f"{name}: an index") for k in sections), extent]
    count = whole_number(sections, f"{name}: the number of sections")
    if count <= 0:
        raise InvalidValueError(at_user_line(f"{name}: number sections must be larger than 0."))
    if equal and extent % count:
        raise InvalidValueError(at_user_line(f"{name}: axis {axis} of {x.aval} does not divide into {count} equal parts"))
    each, extra = divmod(extent, count)
    return [k * each + min(k, extra) for k in range(count + 1)]


def _split(ary: Any, sections: Any, axis: Any, equal: bool, name: str) -> list[Tracer]:
    x = as_tracer(ary)
    place = axis_of(axis, x.ndim, name)
    bounds = _bounds(x, place, sections, equal, name)
    ahead = (slice(None),) * place
    return [x[(*ahead, slice(first, last), ...)] for first, last in itertools.pairwise(bounds)]


@implements(np.split)
def np_split(ary: Any, indices_or_sections: Any, axis: Any = 0) -> list[Tracer]:
    """Return views of equal parts, or of the parts between indices."""
    return _split(ary, indices_or_sections, axis, True, "np.split")


@implements(np.array_split)
def np_array_split(ary: Any, indices_or_sections: Any, axis: Any = 0) -> list[Tracer]:
    """Return views of parts that differ by at most one element."""
    return _split(ary, indices_or_sections, axis, False, "np.array_split")


@implements(np.hsplit)
def np_hsplit(ary: Any, indices_or_sections: Any) -> list[Tracer]:
    """Return parts side by side."""
    return _split(ary, indices_or_sections, 0 if as_tracer(ary).ndim == 1 else 1, True, "np.hsplit")


@implements(np.vsplit)
def np_vsplit(ary: Any, indices_or_sections: Any) -> list[Tracer]:
    """Return parts one above the other."""
    return _split(ary, indices_or_sections, 0, True, "np.vsplit")


@implements(np.dsplit)
def np_dsplit(ary: Any, indices_or_sections: Any) -> list[Tracer]:
    """Return parts one behind the other."""
    return _split(ary, indices_or_sections, 2, True, "np.dsplit")


@implements(getattr(np, "unstack", None))
def np_unstack(x: Any, /, *, axis: Any = 0) -> tuple[Tracer, ...]:
    """Return views of the parts along `axis`, without it."""
    tracer = as_tracer(x)
    place = axis_of(axis, tracer.ndim, "np.unstack")
    return tuple(tracer[(*(slice(None),) * place, k, ...)] for k in range(tracer.shape[place]))


# ---- borders and shifts -----------------------------------------------------------------------------------------------------


def _pairs(given: Any, rank: int, name: str, what: str) -> list[tuple[Any, Any]]:
    """Return one (before, after) an axis from a number, a pair, a list of pairs or a dictionary by axis."""
    if isinstance(given, dict):
        pairs: list[tuple[Any, Any]] = [(0, 0)] * rank
        for axis, pair in given.items():
            pairs[axis_of(axis, rank, name)] = tuple(pair) if isinstance(pair, (tuple, list)) else (pair, pair)
        return pairs
    if isinstance(given, Tracer):
        return [(given, given)] * rank
    try:
        table = np.broadcast_to(np.asarray(given), (rank, 2))
    except ValueError as error:
        raise InvalidValueError(at_user_line(f"{name}: {what}={given!r} does not fit {rank} axes")) from error
    return [(row[0], row[1]) for row in table]


@implements(np.pad)
def np_pad(array: Any, pad_width: Any, mode: Any = "constant", **kwargs: Any) -> Tracer:
    """Return the array with constant borders."""
    name = "np.pad"
    x = operand(array)
    if mode != "constant":
        raise UnsupportedError(at_user_line(f"{name}: mode={mode!r} is not supported on traced arrays; mode='constant' is"))
    fills = _pairs(kwargs.pop("constant_values", 0), len(x.shape), name, "constant_values")
    if kwargs:
        raise InvalidValueError(at_user_line(f"{name}: unsupported keyword arguments for mode 'constant': {set(kwargs)}"))
    widths = [tuple(whole_number(w, f"{name}: pad_width") for w in pair) for pair in _pairs(pad_width, len(x.shape), name, "pad_width")]
    if any(w < 0 for pair in widths for w in pair):
        raise InvalidValueError(at_user_line(f"{name}: index can't contain negative values: pad_width={pad_width}"))
    none = (0,) * len(x.shape)
    scalars = [tuple(convert(operand(f), x.dtype) for f in pair) for pair in fills]
    if len({scalar for pair in scalars for scalar in pair}) == 1:
        return tracer_of(pad(x, scalars[0][0], tuple(w[0] for w in widths), tuple(w[1] for w in widths), none))
    for axis, ((low, high), (before, after)) in enumerate(zip(widths, scalars, strict=True)):
        lows, highs = ((*none[:axis], width, *none[axis + 1 :]) for width in (low, high))
        x = pad(pad(x, before, lows, none, none), after, none, highs, none)
    return tracer_of(x)


@implements(np.roll)
def np_roll(a: Any, shift: Any, axis: Any = None) -> Tracer:
    """Return the elements moved along `axis`, those that leave at one end entering at the other."""
    x = operand(a)
    if axis is None:
        return tracer_of(reshape(_rolled(reshape(x, (x.aval.size,)), whole_number(shift, "np.roll: shift"), 0), x.shape))
    axes, shifts = (tuple(g) if isinstance(g, (tuple, list)) else (g,) for g in (axis, shift))
    length = max(len(axes), len(shifts))
    axes, shifts = (g * length if len(g) == 1 else g for g in (axes, shifts))
    if len(axes) != len(shifts):
        raise InvalidValueError(at_user_line(f"np.roll: shift {shift} and axis {axis} must have the same length"))
    for each, step in zip(axes, shifts, strict=True):
        x = _rolled(x, whole_number(step, "np.roll: shift"), axis_of(each, len(x.shape), "np.roll"))
    return tracer_of(x)


def _rolled(x: Value, shift: int, axis: int) -> Value:
    extent = x.shape[axis]
    cut = -shift % extent if extent else 0
    return concatenate([slice_axis(x, axis, cut, extent), slice_axis(x, axis, 0, cut)], axis) if cut else x


@implements(np.diff)
def np_diff(a: Any, n: Any = 1, axis: Any = -1, prepend: Any = None, append: Any = None) -> Tracer:
    """Return the differences of neighbours along `axis`, taken `n` times."""
    x, times = operand(a), whole_number(n, "np.diff: n")
    if times < 0:
        raise InvalidValueError(at_user_line(f"np.diff: order must be non-negative but got {times}"))
    if not x.shape:
        raise InvalidValueError(at_user_line("np.diff: diff requires input that is at least one dimensional"))
    place = axis_of(axis, len(x.shape), "np.diff")
    ends = [None if end is None else operand(end) for end in (prepend, append)]
    edge = tuple(1 if k == place else extent for k, extent in enumerate(x.shape))
    before, after = ([] if v is None else [v if v.shape else broadcast_to(v, edge)] for v in ends)
    if before or after:
        x = joined([*before, x, *after], place, "np.diff")
    for _ in range(times):
        extent = x.shape[place]
        later, sooner = slice_axis(x, place, min(1, extent), extent), slice_axis(x, place, 0, max(extent - 1, 0))
        x = comparison.not_equal(later, sooner) if x.dtype == BOOL else arithmetic.subtract(later, sooner)
    return tracer_of(x)


# ---- triangles and diagonals ------------------------------------------------------------------------------------------------


def _triangle(m: Any, k: Any, lower: bool, name: str) -> Tracer:
    x = as_tracer(m)
    value = x.value if x.ndim > 1 else broadcast_to(x.value, (*x.shape, *x.shape)) if x.ndim else x.value
    if not value.shape:
        raise InvalidValueError(at_user_line(f"{name} needs at least one axis, got {x.aval}"))
    offset = whole_number(k, f"{name}: k")
    keep = np.tri(value.shape[-2], value.shape[-1], k=offset if lower else offset - 1, dtype=bool)
    mask = broadcast_to(constant(keep if lower else ~keep), value.shape)
    return tracer_of(comparison.where(mask, value, full(value.shape, 0, value.dtype)))


@implements(np.tril)
def np_tril(m: Any, k: Any = 0) -> Tracer:
    """Return the lower triangle, zeros above."""
    return _triangle(m, k, True, "np.tril")


@implements(np.triu)
def np_triu(m: Any, k: Any = 0) -> Tracer:
    """Return the upper triangle, zeros below."""
    return _triangle(m, k, False, "np.triu")


@implements(np.diag)
def np_diag(v: Any, k: Any = 0) -> Tracer:
    """Return the diagonal of a matrix, or the matrix of a diagonal."""
    x, offset = as_tracer(v), whole_number(k, "np.diag: k")
    if x.ndim == 2:
        return np_diagonal(x, offset)
    if x.ndim != 1:
        raise InvalidValueError(at_user_line(f"np.diag: input must be 1- or 2-d, not {x.aval}"))
    size = x.shape[0] + abs(offset)
    start = max(offset, 0) + max(-offset, 0) * size
    zero = full((), 0, x.dtype)
    if not x.shape[0]:
        return tracer_of(full((size, size), 0, x.dtype))
    end = size * size - (start + (x.shape[0] - 1) * (size + 1) + 1)
    return tracer_of(reshape(pad(x.value, zero, (start,), (end,), (size,)), (size, size)))
