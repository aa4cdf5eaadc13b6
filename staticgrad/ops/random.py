"""Random bits as a function of a key and a counter: no state, so any element of a stream can be made anywhere, in any order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import staticgrad.kernels as kernels
from staticgrad.errors import DTypeError, ShapeError
from staticgrad.ir.aval import Aval, product
from staticgrad.ir.builder import Builder, Index, Scalar
from staticgrad.ir.node import Value, apply
from staticgrad.ir.op import Op, Read, op
from staticgrad.kernels.threefry import PARITY, ROTATIONS
from staticgrad.ops.movement import broadcast

UINT32, UINT64 = np.dtype(np.uint32), np.dtype(np.uint64)


@op
class RandomBits(Op):
    """The bits of Threefry-2x32 for the two words of a key and a counter: `start` plus the element's place in C order.

    Places are counted along the last `rank` axes; every operand has the shape of the result. As uint64 the bits are both words that
    Threefry makes, as uint32 their exclusive or. With zeros for `start` this is the stream of a key; with no axis to count along, it
    is the element of the stream at `start`.
    """

    dtype: np.dtype
    rank: int
    kind = "map"
    cost = 90

    def infer(self, *avals: Aval) -> Aval:
        listed = f"{self.name} along {self.rank} axes of {', '.join(map(str, avals))}"
        if len(avals) != 3 or any(aval.shape != avals[0].shape for aval in avals) or not 0 <= self.rank <= avals[0].rank:
            raise ShapeError(f"{listed}: two words of a key and a start, all of one shape")
        if tuple(aval.dtype for aval in avals) != (UINT32, UINT32, UINT64) or self.dtype not in (UINT32, UINT64):
            raise DTypeError(f"{listed}: the words of the key are uint32, the start is uint64")
        return Aval(avals[0].shape, self.dtype)

    def numpy(self, first: np.ndarray, second: np.ndarray, start: np.ndarray) -> np.ndarray:
        counted = first.shape[first.ndim - self.rank :]
        count = start + np.arange(product(counted), dtype=UINT64).reshape(counted)
        x, y = _threefry(first, second, (count >> np.uint64(32)).astype(UINT32), count.astype(UINT32))
        return np.asarray(x.astype(UINT64) << np.uint64(32) | y if self.dtype == UINT64 else x ^ y)

    def jvp(self, tangents: Sequence[Value | None], y: Value, *x: Value) -> None:
        return None

    def vjp(self, g: Value, y: Value, *x: Value) -> tuple[None, None, None]:
        return None, None, None

    def batch(self, size: int, batched: Sequence[bool], *x: Value) -> Value:
        return apply(self, *(v if has else broadcast(v, (size, *v.shape), (0,)) for v, has in zip(x, batched, strict=True)))

    def element(self, b: Builder, read: Read, index: tuple[Index, ...], avals: Sequence[Aval]) -> Scalar:
        first, second, start = (read(k, index) for k in range(3))
        counted = avals[0].shape[avals[0].rank - self.rank :]
        counter = _counter(b, start, index[len(index) - self.rank :], counted)
        x, y = kernels.threefry(b, (first, second), counter)
        if self.dtype == UINT64:
            return b.or_(b.shl(b.cast(x, UINT64), 32), b.cast(y, UINT64))
        return b.xor(x, y)


def _threefry(first: np.ndarray, second: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two words of Threefry-2x32 for a key and a counter (x, y)."""
    keys = (first, second, first ^ second ^ np.uint32(PARITY))
    x, y = np.asarray(x + first), np.asarray(y + second)
    for turn in range(5):
        for distance in ROTATIONS[turn % 2]:
            x += y
            y = np.asarray((y << np.uint32(distance) | y >> np.uint32(32 - distance)) ^ x)
        x += keys[(turn + 1) % 3]
        y += keys[(turn + 2) % 3] + np.uint32(turn + 1)
    return x, y


def _counter(b: Builder, start: Scalar, index: Sequence[Index], shape: Sequence[int]) -> tuple[Scalar, Scalar]:
    """Return the words of start plus the place of `index` in an array of `shape`, the high one first."""
    place, step = Index(), 1
    for i, extent in zip(reversed(index), reversed(shape), strict=True):
        place, step = place + i * step, step * extent
    if start.literal == 0 and step <= 1 << 32:
        return b.literal(0, UINT32), b.cast(b.position(place), UINT32)
    count = b.add(start, b.cast(b.position(place), UINT64)) if place != Index() else start
    return b.cast(b.shr(count, 32), UINT32), b.cast(count, UINT32)
