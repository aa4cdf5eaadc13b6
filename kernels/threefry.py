"""Counter-based random bits."""

from __future__ import annotations

from staticgrad.kernels.floating import Value, Vocabulary

Words = tuple[Value, Value]

PARITY = 0x1BD11BDA
"""The third word of the key is the exclusive or of this and the other two."""

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(b: Vocabulary, key: Words, counter: Words) -> Words:
    """Return two words of random bits for a key and a counter of two words each, all uint32: Threefry-2x32 with 20 rounds.

    No instruction but additions, rotations and exclusive ors; a stream is the function at the counters 0, 1, 2 and so on.

    References
    ----------
    J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC, 2011).
    """
    keys = (*key, b.xor(b.xor(key[0], key[1]), b.like(PARITY, key[0])))
    x, y = b.add(counter[0], keys[0]), b.add(counter[1], keys[1])
    for turn in range(5):
        for distance in ROTATIONS[turn % 2]:
            x = b.add(x, y)
            y = b.xor(_rotated(b, y, distance), x)
        x = b.add(x, keys[(turn + 1) % 3])
        y = b.add(y, b.add(keys[(turn + 2) % 3], b.like(turn + 1, y)))
    return x, y


def _rotated(b: Vocabulary, x: Value, distance: int) -> Value:
    """Return x with its bits moved to the left, those that leave entering on the right."""
    return b.or_(b.shl(x, distance), b.shr(x, 32 - distance))
