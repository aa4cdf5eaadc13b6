"""From a graph to expressions: what one element of a value is, in terms of elements of the inputs.

An index is a tuple of expressions. Views map it as their lowering does; a reduction adds indices of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from staticgrad.errors import UnsupportedError
from staticgrad.formulas.algebra import FALSE, TRUE, Expression, call, constant, make, multiply, number, symbol, walk
from staticgrad.formulas.notation import OPERANDS, expression_of
from staticgrad.ir.aval import BOOL
from staticgrad.ir.loops import Index
from staticgrad.ir.node import Constant, Input, Node, Value
from staticgrad.ir.source import at_user_line
from staticgrad.ops.contract import Contract
from staticgrad.ops.elementwise import Elementwise
from staticgrad.ops.movement import Reshape, View, only_unit_axes_differ, unit_axes_source
from staticgrad.ops.reduce import Reduce

Place = tuple[Expression, ...]
Request = tuple[Value, Place]
Plan = tuple[list[Request], Callable[[list[Expression]], Expression]]

SUPPORTED = "formulas hold elementwise functions of numbers and arrays, sums, products, matrix products, slices and transpositions"
LETTERS = "ijklmnpqr"
MOST = 5000
"""A formula of more elements is refused: every matrix product in a row multiplies what has to be written down."""


class Elements:
    """Gives the elements of values as expressions; `names` are those of the inputs."""

    def __init__(self, names: dict[Value, str], what: str, plain: bool = False) -> None:
        self._names, self._what, self._plain = names, what, plain
        self._made: dict[Request, Expression] = {}
        self._plans: dict[Request, Plan] = {}
        self._letters = self._free_letters()
        self.read: set[Place] = set()
        """The indices at which arrays were read."""

    def _free_letters(self) -> Iterator[Expression]:
        taken = set(self._names.values())
        number_of_letters = 0
        while True:
            suffix = str(number_of_letters // len(LETTERS) or "")
            letter = LETTERS[number_of_letters % len(LETTERS)] + suffix
            number_of_letters += 1
            if letter not in taken:
                yield symbol(letter)

    def index_of(self, shape: Sequence[int]) -> Place:
        """Return a fresh letter for each axis, 0 for those of length 1."""
        return tuple(number(0) if extent == 1 else next(self._letters) for extent in shape)

    def __call__(self, value: Value, place: Place) -> Expression:
        """Return the element of a value at a place. Iterative: depth is no limit."""
        stack: list[Request] = [(value, place)]
        while stack:
            request = stack[-1]
            if request in self._made:
                stack.pop()
                continue
            if request not in self._plans:
                if len(self._plans) == MOST:
                    raise UnsupportedError(
                        at_user_line(
                            f"{self._what} would hold more than {MOST} elements of arrays; its graph is shorter: print "
                            "fn.lower(...).optimized",
                            request[0].node.line,
                        )
                    )
                self._plans[request] = self._plan(*request)
            needs, build = self._plans[request]
            missing = [each for each in needs if each not in self._made]
            if missing:
                stack += missing
            else:
                self._made[request] = build([self._made[each] for each in needs])
        return self._made[value, place]

    def _plan(self, value: Value, place: Place) -> Plan:
        """Return which elements of operands an element is made of, and how."""
        node, op = value.node, value.op
        if isinstance(op, Input):
            return [], lambda _: self._leaf(value, place)
        if isinstance(op, Constant):
            return [], lambda _: self._constant(op.bits.array(), node)
        if op.kind == "mark":
            return [(node.inputs[0], place)], lambda parts: parts[0]
        if isinstance(op, Elementwise):
            avals = [v.aval for v in node.inputs]
            notation = op.formula(*avals)
            if notation is None:
                raise self._refused(node)
            return [(v, place) for v in node.inputs], lambda x: expression_of(notation, dict(zip(OPERANDS, x, strict=False)))
        if isinstance(op, Reshape):
            x = node.inputs[0]
            if not only_unit_axes_differ(x.shape, op.shape):
                raise self._refused(node)
            return [(x, _place(unit_axes_source(place, op.shape, x.shape)))], lambda parts: parts[0]  # type: ignore[arg-type]
        if isinstance(op, View):
            x = node.inputs[0]
            return [(x, _place(op.source(place, x.shape)))], lambda parts: parts[0]  # type: ignore[arg-type]
        if isinstance(op, Reduce) and op.notation is not None:
            x = node.inputs[0]
            own = {axis: self.index_of(x.shape[axis : axis + 1])[0] for axis in op.axes}
            rest = iter(place)
            inner = tuple(own[axis] if axis in own else next(rest) for axis in range(len(x.shape)))
            extents = [(own[axis], x.shape[axis]) for axis in op.axes]
            return [(x, inner)], lambda parts: _big(str(op.notation), parts[0], extents)
        if isinstance(op, Contract):
            return self._contraction(op, node, place)
        raise self._refused(node)

    def _contraction(self, op: Contract, node: Node, place: Place) -> Plan:
        extents = op.extents(*(v.aval for v in node.inputs))
        index = dict(zip(op.out, place, strict=True))
        summed = [label for label in op.lhs if label not in index]
        index |= dict(zip(summed, self.index_of([extents[label] for label in summed]), strict=True))
        needs = [(v, tuple(index[label] for label in labels)) for v, labels in zip(node.inputs, (op.lhs, op.rhs), strict=True)]
        return needs, lambda parts: _big("Sum", multiply(*parts), [(index[label], extents[label]) for label in summed])

    def _leaf(self, value: Value, place: Place) -> Expression:
        name = self._names[value]
        if not value.shape:
            return symbol(name)
        self.read.add(place)
        return symbol(name) if self._plain else make("element", name, *place)

    def _constant(self, array: np.ndarray, node: Node) -> Expression:
        values = np.unique(array)
        if len(values) != 1:
            raise UnsupportedError(
                at_user_line(
                    f"{self._what}: a constant array of shape {array.shape} has no name in a formula; make it an argument", node.line
                )
            )
        known = values[0]
        if array.dtype == BOOL:
            return TRUE if known else FALSE
        return constant(float(str(known))) if array.dtype.kind == "f" else number(int(known))

    def _refused(self, node: Node) -> UnsupportedError:
        shapes = ", ".join(str(v.aval) for v in node.inputs)
        return UnsupportedError(at_user_line(f"{self._what}: {node.op.name}({shapes}) has no notation; {SUPPORTED}", node.line))


def _place(index: Sequence[object]) -> Place:
    """Return indices as expressions: the constant ones of views are numbers."""
    return tuple(number(part.constant) if isinstance(part, Index) else part for part in index)  # type: ignore[misc]


def _big(name: str, body: Expression, extents: Sequence[tuple[Expression, int]]) -> Expression:
    """Return the sum (or product) of a body over indices: Sum(x[i], (i, 0, 2))."""
    ranges = [make("tuple", "", letter, number(0), number(extent - 1)) for letter, extent in extents if letter.kind == "symbol"]
    if not ranges:
        return body
    if name == "Sum" and body.kind == "product":
        letters = {pair.parts[0] for pair in ranges}
        outside = [part for part in body.parts if not _mentions(part, letters)]
        inside = [part for part in body.parts if _mentions(part, letters)]
        if inside:
            return multiply(number(body.head), *outside, call("Sum", multiply(*inside), *ranges))  # type: ignore[arg-type]
    return call(name, body, *ranges)


def _mentions(x: Expression, letters: set[Expression]) -> bool:
    return any(node in letters for node in walk([x]))
