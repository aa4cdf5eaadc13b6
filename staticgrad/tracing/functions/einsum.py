"""np.einsum: the string becomes labels, repeated labels become diagonals, the rest is a sum of products."""

from __future__ import annotations

import string
from collections.abc import Hashable
from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, InvalidValueError, ShapeError
from staticgrad.ir.node import Value
from staticgrad.ir.source import at_user_line
from staticgrad.ops.movement import transpose
from staticgrad.tracing.functions.arguments import as_tracer, deliver, operand, whole_number
from staticgrad.tracing.functions.contractions import Labels, Term, products
from staticgrad.tracing.functions.shapes import diagonal_view, permuted
from staticgrad.tracing.functions.table import implements
from staticgrad.tracing.lift import check_dtype_here, convert
from staticgrad.tracing.tracer import Tracer
from staticgrad.tracing.views import DiagonalView


@implements(np.einsum)
def np_einsum(*operands: Any, out: Any = None, optimize: Any = False, dtype: Any = None, order: Any = "K", casting: Any = "safe") -> Tracer:
    """Return the sums of products that the subscripts describe."""
    subscripts, arrays = _as_string(operands)
    if len(arrays) == 1 and out is None and dtype is None:
        x = as_tracer(arrays[0])
        inputs, output = _parse(subscripts, [x.value])
        if set(output) == set(inputs[0]):
            return _view(x, inputs[0], output)
    values = [operand(x) for x in arrays]
    inputs, output = _parse(subscripts, values)
    if dtype is not None:
        values = [convert(v, check_dtype_here(dtype, "dtype=")) for v in values]
    terms = [_without_repeats(v, labels) for v, labels in zip(values, inputs, strict=True)]
    return deliver("einsum", products(terms, output), out)


@implements(np.einsum_path)
def np_einsum_path(*operands: Any, optimize: Any = "greedy", einsum_call: Any = False) -> Any:
    """Return NumPy's contraction path, which depends on the shapes alone."""
    subscripts, arrays = _as_string(operands)
    return np.einsum_path(subscripts, *(np.broadcast_to(0.0, operand(x).shape) for x in arrays), optimize=optimize)


def _as_string(operands: tuple[Any, ...]) -> tuple[str, list[Any]]:
    """Return subscripts and arrays of either form: ("ij,jk", x, y) or (x, [0, 1], y, [1, 2])."""
    if not operands:
        raise InvalidValueError(at_user_line("np.einsum: must specify the einstein sum subscripts string and at least one operand"))
    if isinstance(operands[0], str):
        if len(operands) == 1:
            raise InvalidValueError(at_user_line(f"np.einsum({operands[0]!r}): must provide at least one operand"))
        return operands[0], list(operands[1:])
    pairs, last = operands, ""
    if len(operands) % 2:
        pairs, last = operands[:-1], "->" + _sublist(operands[-1])
    return ",".join(_sublist(labels) for labels in pairs[1::2]) + last, list(pairs[::2])


def _sublist(labels: Any) -> str:
    if not isinstance(labels, (list, tuple)):
        raise ArgumentError(at_user_line(f"np.einsum: each operand must be followed by a list of its axes, not {labels!r}"))
    numbers = [None if label is Ellipsis else whole_number(label, "np.einsum: a label") for label in labels]
    if any(n is not None and not 0 <= n < len(string.ascii_letters) for n in numbers):
        raise InvalidValueError(at_user_line(f"np.einsum: subscript is not within the valid range [0, 52): {labels}"))
    return "".join("..." if n is None else string.ascii_letters[n] for n in numbers)


def _parse(subscripts: str, values: list[Value]) -> tuple[list[Labels], Labels]:
    """Return the labels of each operand and of the output; the axes of an ellipsis are numbered from the last one, -1."""
    fault = _Fault(subscripts, values)
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    parts = left.split(",")
    if len(parts) != len(values):
        fault.raise_(f"{len(parts)} groups of subscripts for {len(values)} operands")
    inputs = [_labels(part, len(v.shape), fault) for part, v in zip(parts, values, strict=True)]
    _check_lengths(inputs, values, fault)
    letters = left.replace(".", "").replace(",", "")
    hidden: Labels = tuple(sorted({k for labels in inputs for k in labels if isinstance(k, int)}))
    if not arrow:
        return inputs, (*hidden, *(c for c in sorted(set(letters)) if letters.count(c) == 1))
    output = _labels(right, len(right.replace("...", "")) + (len(hidden) if "..." in right else 0), fault)
    for label in output:
        if output.count(label) > 1:
            fault.raise_(f"the output names {label!r} multiple times")
        if not any(label in labels for labels in inputs):
            fault.raise_(f"the output names {label!r}, which no operand has")
    if hidden and "..." not in right:
        fault.raise_("the output has no '...' for the axes that '...' stands for in the operands")
    return inputs, output


class _Fault:
    """Raises errors that name the subscripts and the operands."""

    def __init__(self, subscripts: str, values: list[Value]) -> None:
        self.head = f"np.einsum({subscripts!r}) of {', '.join(str(v.aval) for v in values)}"

    def raise_(self, reason: str, kind: type[Exception] = InvalidValueError) -> None:
        raise kind(at_user_line(f"{self.head}: {reason}"))


def _labels(part: str, rank: int, fault: _Fault) -> Labels:
    before, dots, after = part.partition("...")
    for letter in before + after:
        if letter not in string.ascii_letters:
            fault.raise_(f"invalid subscript {letter!r}; subscripts must be letters")
    hidden = rank - len(before) - len(after)
    if hidden < 0 or (hidden and not dots):
        fault.raise_(f"{part!r} names {len(before + after)} axes of an operand with {rank}", ShapeError)
    return (*before, *range(-hidden, 0), *after)


def _check_lengths(inputs: list[Labels], values: list[Value], fault: _Fault) -> None:
    lengths: dict[Hashable, int] = {}
    for labels, value in zip(inputs, values, strict=True):
        own: dict[Hashable, int] = {}
        for label, extent in zip(labels, value.shape, strict=True):
            if own.setdefault(label, extent) != extent:
                fault.raise_(f"dimensions of {value.aval} for collapsing {label!r} don't match ({own[label]} and {extent})", ShapeError)
            known = lengths.get(label, 1)
            if 1 not in (known, extent) and known != extent:
                name = f"axis {label} of '...'" if isinstance(label, int) else f"{label!r}"
                fault.raise_(f"{name} has length {known} in one operand and {extent} in another", ShapeError)
            lengths[label] = extent if known == 1 else known


def _repeat(labels: Labels) -> tuple[int, int] | None:
    return next(((labels.index(c), k) for k, c in enumerate(labels) if labels.index(c) != k), None)


def _without_repeats(value: Value, labels: Labels) -> Term:
    """Return the diagonals of axes with the same label."""
    while (pair := _repeat(labels)) is not None:
        order = (*(k for k in range(len(labels)) if k not in pair), *pair)
        value = DiagonalView(value.shape[pair[0]], value.shape[pair[1]]).read(transpose(value, order))
        labels = (*(labels[k] for k in order[:-2]), labels[pair[0]])
    return value, labels


def _view(x: Tracer, labels: Labels, output: Labels) -> Tracer:
    """Return a permutation or a diagonal, which is a view that can be written, as in NumPy."""
    while (pair := _repeat(labels)) is not None:
        x = diagonal_view(x, 0, *pair)
        labels = (*(label for k, label in enumerate(labels) if k not in pair), labels[pair[0]])
    return permuted(x, tuple(labels.index(label) for label in output))
