"""Contractions: every product of matrices, vectors and tensors is one op with labelled axes, closed under differentiation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from staticgrad.errors import DTypeError, ShapeError
from staticgrad.ir.aval import BOOL, Aval, Extent, product
from staticgrad.ir.links import Links, numbers_without
from staticgrad.ir.node import Value, apply
from staticgrad.ir.op import Op, op
from staticgrad.ir.sparsity import check_entries

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Labels = tuple[int, ...]


@op
class Contract(Op):
    """Sum of products over the labels that `out` lacks: matmul is Contract((0, 2), (2, 1), (0, 1)).

    Each label names an axis; a label in both operands and in `out` is a batch axis. No label occurs twice in one place.
    """

    lhs: Labels
    rhs: Labels
    out: Labels
    kind = "contract"

    def extents(self, x: Aval, y: Aval) -> dict[int, Extent]:
        """Return the length of every label."""
        found: dict[int, Extent] = {}
        for labels, aval in ((self.lhs, x), (self.rhs, y)):
            if len(labels) != aval.rank or len(set(labels)) != len(labels):
                raise ShapeError(f"contract: labels {labels} do not fit {aval}")
            for label, extent in zip(labels, aval.shape, strict=True):
                if found.setdefault(label, extent) != extent:
                    raise ShapeError(f"contract: {x} and {y} differ in a shared axis ({found[label]} and {extent})")
        return found

    def infer(self, x: Aval, y: Aval) -> Aval:
        extents = self.extents(x, y)
        if x.dtype != y.dtype or x.dtype == BOOL:
            raise DTypeError(f"contract: dtypes {x.dtype} and {y.dtype}")
        lone = (set(self.lhs) ^ set(self.rhs)) - set(self.out)
        if lone or not set(self.out) <= set(extents) or len(set(self.out)) != len(self.out):
            raise ShapeError(f"contract: output labels {self.out} do not fit {self.lhs} and {self.rhs}")
        return Aval(tuple(extents[label] for label in self.out), x.dtype, x.weak and y.weak)

    def groups(self) -> tuple[Labels, Labels, Labels, Labels]:
        """Return the labels of batch, left, right and contracted axes, each in the order of its first operand."""
        batch = tuple(label for label in self.out if label in self.lhs and label in self.rhs)
        left = tuple(label for label in self.out if label in self.lhs and label not in self.rhs)
        right = tuple(label for label in self.out if label not in self.lhs)
        inner = tuple(label for label in self.lhs if label not in self.out)
        return batch, left, right, inner

    def numpy(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        batch, left, right, inner = self.groups()
        extents = self.extents(Aval(x.shape, x.dtype), Aval(y.shape, y.dtype))
        sizes = [product(extents[label] for label in group) for group in (batch, left, right, inner)]
        a = np.transpose(x, [self.lhs.index(k) for k in (*batch, *left, *inner)]).reshape(sizes[0], sizes[1], sizes[3])
        c = np.transpose(y, [self.rhs.index(k) for k in (*batch, *inner, *right)]).reshape(sizes[0], sizes[3], sizes[2])
        made = (*batch, *left, *right)
        result = np.matmul(a, c).reshape([extents[label] for label in made])
        return np.transpose(result, [made.index(label) for label in self.out])

    def jvp(self, tangents: Sequence[Value | None], out: Value, x: Value, y: Value) -> Value | None:
        terms = [] if tangents[0] is None else [apply(self, tangents[0], y)]
        if tangents[1] is not None:
            terms.append(apply(self, x, tangents[1]))
        return None if not terms else terms[0] if len(terms) == 1 else terms[0] + terms[1]

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, Value]:
        return contract(g, y, self.out, self.rhs, self.lhs), contract(x, g, self.lhs, self.out, self.rhs)

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        found = []
        factors = ((self.lhs, self.rhs, known[1]), (self.rhs, self.lhs, known[0]))
        for (labels, others, factor), x in zip(factors, avals, strict=True):
            if factor is not None and not factor.all():
                found.append(Links(relation=self._relation(labels, x, others, factor, y)))
                continue
            groups, count = numbers_without(x.shape, (axis for axis, label in enumerate(labels) if label not in self.out))
            kept = [label for label in labels if label in self.out]
            extents = dict(zip(labels, x.shape, strict=True))
            numbers = np.arange(count).reshape([extents[label] for label in kept])
            ordered = numbers.transpose([kept.index(label) for label in self.out if label in kept])
            repeated = tuple(axis for axis, label in enumerate(self.out) if label not in kept)
            source = np.broadcast_to(np.expand_dims(ordered, repeated), y.shape)
            found.append(Links(groups.reshape(-1), count, source.reshape(-1)))
        return found

    def _relation(self, labels: Labels, x: Aval, others: Labels, factor: np.ndarray, y: Aval) -> csr_array:
        """Return which elements of an operand `x` meet something that is not 0 in the other one, which is known, on their way to `y`."""
        from scipy.sparse import csr_array

        places = dict(zip(others, np.nonzero(factor), strict=True))
        lone = {label: extent for label, extent in zip(labels, x.shape, strict=True) if label not in places}
        shape = int(np.count_nonzero(factor)), int(product(lone.values()))
        check_entries(math.prod(shape))
        numbers = np.indices(tuple(lone.values())).reshape(len(lone), 1, shape[1])
        at = {label: place[:, None] for label, place in places.items()} | dict(zip(lone, numbers, strict=True))

        def offsets(axes: Labels, aval: Aval) -> np.ndarray:
            steps = (at[label] * product(aval.shape[axis + 1 :]) for axis, label in enumerate(axes))
            return np.broadcast_to(sum(steps, np.int64(0)), shape).reshape(-1)

        rows, columns = offsets(self.out, y), offsets(labels, x)
        return csr_array((np.ones(len(rows), np.bool_), (rows, columns)), shape=(y.size, x.size))

    def batch(self, size: int, batched: Sequence[bool], x: Value, y: Value) -> Value:
        new = max((*self.lhs, *self.rhs, -1)) + 1
        lhs, rhs = ((new, *labels) if has else labels for labels, has in zip((self.lhs, self.rhs), batched, strict=True))
        return contract(x, y, lhs, rhs, (new, *self.out))


def contract(x: Value, y: Value, lhs: Labels, rhs: Labels, out: Labels) -> Value:
    """Return the contraction with its labels renumbered by first appearance, so that equal contractions are equal ops."""
    number: dict[int, int] = {}
    for label in (*lhs, *rhs):
        number.setdefault(label, len(number))
    renumber = [tuple(number[label] for label in labels) for labels in (lhs, rhs, out)]
    return apply(Contract(*renumber), x, y)


def matmul(x: Value, y: Value) -> Value:
    """Return the product of two matrices."""
    return contract(x, y, (0, 1), (1, 2), (0, 2))
