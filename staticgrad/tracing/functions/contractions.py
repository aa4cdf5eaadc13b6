"""Products of vectors, matrices and tensors: all are sums of products over labelled axes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from staticgrad.errors import InvalidValueError, ShapeError
from staticgrad.ir.aval import BOOL, INT64, Aval, product
from staticgrad.ir.node import Value
from staticgrad.ir.source import at_user_line
from staticgrad.ops import arithmetic
from staticgrad.ops.contract import contract
from staticgrad.ops.movement import broadcast, reshape, transpose
from staticgrad.ops.reduce import sum_
from staticgrad.tracing.functions.arguments import as_tracer, axis_of, deliver, distinct_axes, operand, whole_number
from staticgrad.tracing.functions.joining import np_stack
from staticgrad.tracing.functions.shapes import np_moveaxis
from staticgrad.tracing.functions.table import implements
from staticgrad.tracing.lift import convert, promoted
from staticgrad.tracing.tracer import Tracer, tracer_of
from staticgrad.tracing.ufuncs import elementwise_value

Labels = tuple[Hashable, ...]
Term = tuple[Value, Labels]


def sum_of_products(terms: Sequence[Term], out: Labels) -> Value:
    """Return the product of the terms summed over the labels that `out` lacks; axes of length 1 broadcast.

    Terms are contracted in pairs, the pair that shrinks the intermediate results most first.
    """
    extents: dict[Hashable, int] = {}
    for value, labels in terms:
        for label, extent in zip(labels, value.shape, strict=True):
            extents[label] = extent if extents.get(label, 1) == 1 else extents[label]
    left = [_without_units(value, labels, extents) for value, labels in terms]
    while len(left) > 1:
        first, second = _cheapest_pair(left, extents, set(out)) if len(left) > 2 else (0, 1)
        b, a = left.pop(second), left.pop(first)
        needed = set(out).union(*(labels for _, labels in left))
        left.insert(first, _pair(a, b, needed))
    value, labels = _without_lone(left[0], set(out))
    return transpose(value, tuple(labels.index(label) for label in out))


def _without_units(value: Value, labels: Labels, extents: dict[Hashable, int]) -> Term:
    """Drop the axes of length 1 that another term stretches."""
    kept = [k for k, label in enumerate(labels) if value.shape[k] == extents[label]]
    return reshape(value, tuple(value.shape[k] for k in kept)), tuple(labels[k] for k in kept)


def _without_lone(term: Term, needed: set[Hashable]) -> Term:
    value, labels = term
    axes = tuple(k for k, label in enumerate(labels) if label not in needed)
    return sum_(value, axes), tuple(label for label in labels if label in needed)


def _pair(a: Term, b: Term, needed: set[Hashable]) -> Term:
    (x, lhs), (y, rhs) = _without_lone(a, needed | set(b[1])), _without_lone(b, needed | set(a[1]))
    labels = tuple(dict.fromkeys(label for label in (*lhs, *rhs) if label in needed))
    if set(lhs) | set(rhs) == set(labels):
        return arithmetic.multiply(*(_spread(term, labels, (x, lhs), (y, rhs)) for term in ((x, lhs), (y, rhs)))), labels
    number = {label: k for k, label in enumerate(dict.fromkeys((*lhs, *rhs)))}
    left, right, out = (tuple(number[label] for label in each) for each in (lhs, rhs, labels))
    return contract(x, y, left, right, out), labels


def _spread(term: Term, labels: Labels, *all_terms: Term) -> Value:
    """Return a term with its axes ordered like `labels` and repeated along those it lacks."""
    value, own = term
    shape = tuple(next(v.shape[ls.index(label)] for v, ls in all_terms if label in ls) for label in labels)
    ordered = transpose(value, tuple(own.index(label) for label in labels if label in own))
    return broadcast(ordered, shape, tuple(k for k, label in enumerate(labels) if label not in own))


def _cheapest_pair(terms: list[Term], extents: dict[Hashable, int], out: set[Hashable]) -> tuple[int, int]:
    """Return the pair whose contraction makes the least of the sizes of result minus operands; ties go to the first."""

    def growth(pair: tuple[int, int]) -> int:
        i, j = pair
        needed = out.union(*(terms[k][1] for k in range(len(terms)) if k not in pair))
        size = product(extents[label] for label in {*terms[i][1], *terms[j][1]} & needed)
        return size - terms[i][0].aval.size - terms[j][0].aval.size

    pairs = [(i, j) for i in range(len(terms)) for j in range(i + 1, len(terms))]
    return min(pairs, key=growth)


def products(terms: Sequence[Term], out: Labels) -> Value:
    """Return `sum_of_products` in the common dtype of the terms; for bool a sum is `or`."""
    values = promoted(*(value for value, _ in terms))
    kind = values[0].dtype
    work = [convert(v, INT64) if kind == BOOL else v for v in values]
    return convert(sum_of_products([(v, labels) for v, (_, labels) in zip(work, terms, strict=True)], out), kind)


def _batched(name: str, x: Value, y: Value, core_x: str, core_y: str, core_out: str) -> Value:
    """Return a product of the last axes of x and y; the axes before them broadcast."""
    ranks = len(x.shape) - len(core_x), len(y.shape) - len(core_y)
    if min(ranks) < 0:
        raise ShapeError(at_user_line(f"{name}: {x.aval} and {y.aval}: both need at least {len(core_x)} and {len(core_y)} axes"))
    _check_core(name, x.aval, y.aval, core_x, core_y)
    try:
        batch = len(np.broadcast_shapes(x.shape[: ranks[0]], y.shape[: ranks[1]]))
    except ValueError as error:
        raise ShapeError(at_user_line(f"{name}: the batch axes of {x.aval} and {y.aval} cannot be broadcast together")) from error
    lhs, rhs = ((*range(batch - rank, batch), *core) for rank, core in zip(ranks, (core_x, core_y), strict=True))
    return products([(x, lhs), (y, rhs)], (*range(batch), *core_out))


def _check_core(name: str, x: Aval, y: Aval, core_x: str, core_y: str) -> None:
    lengths = dict(zip(core_x, x.shape[x.rank - len(core_x) :], strict=True))
    for label, extent in zip(core_y, y.shape[y.rank - len(core_y) :], strict=True):
        if lengths.get(label, extent) != extent:
            first, second = core_x.index(label) - len(core_x), core_y.index(label) - len(core_y)
            raise ShapeError(
                at_user_line(
                    f"{name}: {x} and {y} do not fit: axis {first} of the first ({lengths[label]}) must be as long as "
                    f"axis {second} of the second ({extent})"
                )
            )


def matmul_of(x: Value, y: Value, name: str = "np.matmul") -> Value:
    """Return the matrix product by the rules of `@`: vectors stay vectors, axes before the last two broadcast."""
    if not x.shape or not y.shape:
        raise ShapeError(at_user_line(f"{name}: {x.aval} and {y.aval}: a scalar has no axis to sum over; use *"))
    core_x = "k" if len(x.shape) == 1 else "ik"
    core_y = "k" if len(y.shape) == 1 else "kj"
    return _batched(name, x, y, core_x, core_y, core_x[:-1] + core_y[1:])


MATRIX_UFUNCS: dict[str, Callable[[Value, Value], Value]] = {
    "matmul": matmul_of,
    "vecdot": lambda x, y: _batched("np.vecdot", x, y, "k", "k", ""),
    "matvec": lambda x, y: _batched("np.matvec", x, y, "ik", "k", "i"),
    "vecmat": lambda x, y: _batched("np.vecmat", x, y, "k", "kj", "j"),
}
"""The generalised universal functions, by name: not every version of NumPy has all."""


@implements(getattr(np.linalg, "matmul", None))
def np_linalg_matmul(x1: Any, x2: Any, /) -> Tracer:
    """Return the matrix product."""
    return tracer_of(matmul_of(operand(x1), operand(x2), "np.linalg.matmul"))


@implements(getattr(np.linalg, "vecdot", None))
def np_linalg_vecdot(x1: Any, x2: Any, /, *, axis: Any = -1) -> Tracer:
    """Return the products of vectors along the last axis."""
    return tracer_of(MATRIX_UFUNCS["vecdot"](_last(operand(x1), axis), _last(operand(x2), axis)))


def _last(x: Value, axis: Any) -> Value:
    place = axis_of(axis, len(x.shape), "np.linalg.vecdot")
    return transpose(x, (*(k for k in range(len(x.shape)) if k != place), place))


@implements(np.dot)
def np_dot(a: Any, b: Any, out: Any = None) -> Tracer:
    """Return the sum over the last axis of `a` and the last but one of `b`."""
    x, y = operand(a), operand(b)
    if not x.shape or not y.shape:
        return deliver("dot", products([(x, _letters(x)), (y, _letters(y))], _letters(x) or _letters(y)), out)
    axis = max(len(y.shape) - 2, 0)
    return deliver("dot", _summed("np.dot", x, y, (len(x.shape) - 1,), (axis,)), out)


@implements(np.vdot)
def np_vdot(a: Any, b: Any, /) -> Tracer:
    """Return the product of the flattened arguments."""
    x, y = (reshape(v, (v.aval.size,)) for v in (operand(a), operand(b)))
    return tracer_of(_summed("np.vdot", x, y, (0,), (0,)))


@implements(np.inner)
def np_inner(a: Any, b: Any, /) -> Tracer:
    """Return the sum over the last axes."""
    x, y = operand(a), operand(b)
    if not x.shape or not y.shape:
        return np_dot(x, y)
    return tracer_of(_summed("np.inner", x, y, (len(x.shape) - 1,), (len(y.shape) - 1,)))


@implements(np.outer, getattr(np.linalg, "outer", None))
def np_outer(a: Any, b: Any, out: Any = None) -> Tracer:
    """Return all products of the elements of the flattened arguments."""
    x, y = (reshape(v, (v.aval.size,)) for v in (operand(a), operand(b)))
    return deliver("outer", products([(x, ("i",)), (y, ("j",))], ("i", "j")), out)


@implements(np.tensordot, getattr(np.linalg, "tensordot", None))
def np_tensordot(a: Any, b: Any, axes: Any = 2) -> Tracer:
    """Return the sum over pairs of axes."""
    x, y = operand(a), operand(b)
    if isinstance(axes, (tuple, list)):
        if len(axes) != 2:
            raise InvalidValueError(at_user_line(f"np.tensordot: axes must be a number or two sequences, not {axes!r}"))
        first, second = (tuple(each) if isinstance(each, (tuple, list)) else (each,) for each in axes)
    else:
        count = whole_number(axes, "np.tensordot: axes")
        if count < 0 or count > min(len(x.shape), len(y.shape)):
            raise ShapeError(at_user_line(f"np.tensordot: {x.aval} and {y.aval} do not have {count} axes to sum over"))
        first, second = tuple(range(len(x.shape) - count, len(x.shape))), tuple(range(count))
    if len(first) != len(second):
        raise ShapeError(at_user_line(f"np.tensordot: shape-mismatch for sum: axes {first} and {second} differ in number"))
    pairs = (distinct_axes(each, len(v.shape), "np.tensordot") for each, v in ((first, x), (second, y)))
    return tracer_of(_summed("np.tensordot", x, y, *pairs))


def _letters(x: Value, upper: bool = False) -> Labels:
    return tuple((upper, k) for k in range(len(x.shape)))


def _summed(name: str, x: Value, y: Value, first: Sequence[int], second: Sequence[int]) -> Value:
    """Return the sum of products over the axes `first` of x and `second` of y."""
    if any(x.shape[i] != y.shape[j] for i, j in zip(first, second, strict=True)):
        lengths = [x.shape[i] for i in first], [y.shape[j] for j in second]
        raise ShapeError(
            at_user_line(f"{name}: shapes {x.aval} and {y.aval} not aligned: axes {tuple(first)} and {tuple(second)} are {lengths}")
        )
    lhs, rhs = list(_letters(x)), list(_letters(y, upper=True))
    for i, j in zip(first, second, strict=True):
        rhs[j] = lhs[i]
    out = [label for k, label in enumerate(lhs) if k not in first] + [label for k, label in enumerate(rhs) if k not in second]
    return products([(x, tuple(lhs)), (y, tuple(rhs))], tuple(out))


@implements(np.kron)
def np_kron(a: Any, b: Any) -> Tracer:
    """Return the Kronecker product: every element of `a` times all of `b`."""
    x, y = operand(a), operand(b)
    rank = max(len(x.shape), len(y.shape))
    shapes = [(1,) * (rank - len(v.shape)) + v.shape for v in (x, y)]
    wide = [reshape(x, tuple(k for n in shapes[0] for k in (n, 1))), reshape(y, tuple(k for n in shapes[1] for k in (1, n)))]
    return tracer_of(reshape(elementwise_value(np.multiply, *wide), tuple(n * m for n, m in zip(*shapes, strict=True))))


@implements(np.cross)
def np_cross(a: Any, b: Any, axisa: Any = -1, axisb: Any = -1, axisc: Any = -1, axis: Any = None) -> Tracer:
    """Return the cross product of vectors of length 3."""
    if axis is not None:
        axisa = axisb = axisc = axis
    x, y = (np_moveaxis(as_tracer(v), place, -1) for v, place in ((a, axisa), (b, axisb)))
    if x.shape[-1] != 3 or y.shape[-1] != 3:
        listed = f"{x.shape[-1]} and {y.shape[-1]}"
        raise InvalidValueError(
            at_user_line(f"np.cross: vectors must have 3 components on traced arrays, not {listed}; for 2 use x[0] * y[1] - x[1] * y[0]")
        )
    (x0, x1, x2), (y0, y1, y2) = ((v[..., 0], v[..., 1], v[..., 2]) for v in (x, y))
    parts = [x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0]
    return np_stack(parts, axis_of(axisc, parts[0].ndim + 1, "np.cross", "axisc"))


@implements(getattr(np.linalg, "cross", None))
def np_linalg_cross(x1: Any, x2: Any, /, *, axis: Any = -1) -> Tracer:
    """Return the cross product of vectors of length 3."""
    return np_cross(x1, x2, axis=axis)
