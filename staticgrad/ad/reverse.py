"""Reverse mode: cotangents flow from the outputs to the inputs, through each op's `vjp`."""

from __future__ import annotations

import threading
from collections.abc import Container, Sequence

import numpy as np

from staticgrad.errors import VerificationError
from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.graph import topological
from staticgrad.ir.node import Node, Value, apply, at_line, constant_array, full, new_input
from staticgrad.ops.control import Call, NoDerivative, StopGradient
from staticgrad.ops.index import ScatterAdd
from staticgrad.ops.movement import Broadcast, Pad, apart, slice_, slice_set
from staticgrad.ops.nested import TRANSFORMS, Nested


def cotangents(outputs: Sequence[Value], inputs: Sequence[Value], seeds: Sequence[Value | None]) -> list[Value | None]:
    """Return the cotangent of each input for the cotangents `seeds` of the outputs; None stands for zero.

    Parameters
    ----------
    outputs, inputs
        Values of one graph without calls that lack rules.
    seeds
        One value of the shape and dtype of each output, or None.
    """
    order = topological(outputs, stop=inputs)
    ends = set(inputs)
    active = _active(order, [value for value in inputs if value not in _constant.inputs])
    gathered: dict[Value, _Gathered] = {}

    def give(value: Value, g: Value | NoDerivative | None) -> None:
        while value.op.kind == "mark" and value not in ends:  # so that sums are taken in the same order with and without marks
            value = value.node.inputs[0]
        if g is None or value not in active or not is_float(value.dtype):
            return
        if isinstance(g, NoDerivative):
            raise g.error
        if g.shape != value.shape or g.dtype != value.dtype:
            raise VerificationError(f"the cotangent {g.aval} does not fit {value!r}")
        gathered.setdefault(value, _Gathered()).add(g)

    def total(value: Value) -> Value | None:
        return gathered[value].total() if value in gathered else None

    for value, seed in zip(outputs, seeds, strict=True):
        give(value, seed)
    for node in reversed(order):
        if not any(value in gathered for value in node.outputs) or not any(value in active for value in node.inputs):
            continue
        with at_line(node.line), _Constants(node, active):
            found = [total(value) for value in node.outputs]
            single = node.op.outputs == 1 and len(node.outputs) == 1 and not isinstance(node.op, Call)
            g, y = (found[0], node.outputs[0]) if single else (tuple(found), node.outputs)
            for value, piece in zip(node.inputs, node.op.vjp(g, y, *node.inputs), strict=True):
                give(value, piece)
    return [total(value) for value in inputs]


class _Constant(threading.local):
    """Inputs of the sub-graphs of the op at hand whose cotangents nobody wants."""

    inputs: frozenset[Value] = frozenset()


_constant = _Constant()


class _Constants:
    """Context manager: while an op with sub-graphs is differentiated, what it hands to them and does not depend on the inputs is constant.

    So a rule that knows no derivative by what it closes over serves in a loop, too.
    """

    def __init__(self, node: Node, active: Container[Value]) -> None:
        self._inputs: frozenset[Value] = frozenset()
        if isinstance(node.op, Nested):
            own, inner = node.op.own, node.op.inner
            places = [k for k in range(node.op.constants) if node.inputs[own + k] not in active]
            self._inputs = frozenset(graph.inputs[inner + k] for graph in node.op.subgraphs for k in places)

    def __enter__(self) -> None:
        self._before, _constant.inputs = _constant.inputs, self._inputs

    def __exit__(self, *_: object) -> None:
        _constant.inputs = self._before


def tangents_by_pullback(outputs: Sequence[Value], inputs: Sequence[Value], seeds: Sequence[Value | None]) -> list[Value | None]:
    """Return the tangent of each output for the tangents `seeds` of the inputs by reverse mode: the pullback of the pullback."""
    gs = [new_input(Aval(y.shape, y.dtype), "cotangent") if is_float(y.dtype) else None for y in outputs]
    pulled = cotangents(outputs, inputs, gs)
    there = [(v, t) for v, t in zip(pulled, seeds, strict=True) if v is not None and t is not None]
    found = iter(cotangents([v for v, _ in there], [g for g in gs if g is not None], [t for _, t in there]))
    return [None if g is None else next(found) for g in gs]


SPARSE = 4
"""A cotangent of a part this many times smaller than the whole is written into the sum at its place, not added as a padded array."""


class _Gathered:
    """The cotangents of one value: whole arrays are added up, those of small parts are kept apart and added at their place."""

    def __init__(self) -> None:
        self._whole: Value | None = None
        self._pieces: list[tuple[Pad, Value]] = []
        self._scattered: list[Value] = []

    def add(self, g: Value) -> None:
        """Take in one more cotangent."""
        if isinstance(g.op, Pad) and g.node.inputs[0].aval.size * SPARSE <= g.aval.size and _is_zero(g.node.inputs[1]):
            self._pieces.append((g.op, g.node.inputs[0]))
        elif (scattered := _scattered(g)) is not None:
            self._scattered += scattered
        else:
            self._whole = g if self._whole is None else self._whole + g

    def total(self) -> Value:
        """Return the sum."""
        if self._whole is None and len(self._pieces) == 1 and not self._scattered:
            pad, piece = self._pieces[0]
            return apply(pad, piece, full((), 0, piece.dtype))
        result = self._whole
        untouched = result is None
        for number, (pad, piece) in enumerate(self._pieces):
            region = pad.region(piece.shape)
            if result is None:
                result = full(pad.infer(piece.aval, piece.aval.with_shape(())).shape, 0, piece.dtype)
            where = tuple(zip(*((s.start, s.stop, s.step) for s in region), strict=True))
            others = [(p.region(v.shape), v.shape) for k, (p, v) in enumerate(self._pieces) if k != number]
            alone = untouched and all(apart(region, piece.shape, other, shape) for other, shape in others)
            result = slice_set(result, piece if alone else slice_(result, *where) + piece, *where)
        for g in self._scattered:
            result = g if result is None else apply(g.op, result, *g.node.inputs[1:])
        assert result is not None
        self._whole, self._pieces, self._scattered = result, [], []
        return result


def _scattered(g: Value) -> list[Value] | None:
    """Return the additions of small parts, the first one first, that make up a cotangent, None if there is more to it."""
    found: list[Value] = []
    while isinstance(g.op, ScatterAdd) and g.node.inputs[1].aval.size * SPARSE <= g.aval.size:
        found.insert(0, g)
        g = g.node.inputs[0]
    return found if found and _is_zero(g) else None


def added(total: Value, g: Value) -> Value:
    """Return the sum of two cotangents; small parts are added where they belong."""
    gathered = _Gathered()
    gathered.add(total)
    gathered.add(g)
    return gathered.total()


def _is_zero(x: Value) -> bool:
    while isinstance(x.op, Broadcast):
        x = x.node.inputs[0]
    array = constant_array(x)
    return array is not None and not np.any(array)


def _active(order: Sequence[Node], inputs: Sequence[Value]) -> set[Value]:
    """Return the values that depend on `inputs` through floats, but for what is marked as a constant."""
    active = {value for value in inputs if is_float(value.dtype)}
    for node in order:
        if any(value in active for value in node.inputs) and not isinstance(node.op, StopGradient):
            active.update(value for value in node.outputs if is_float(value.dtype))
    return active


TRANSFORMS["cotangents"], TRANSFORMS["added"] = cotangents, added
