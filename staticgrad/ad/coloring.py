"""Colourings of sparsity patterns: columns, or rows, of one colour are computed together and can be told apart afterwards.

References
----------
A. H. Gebremedhin, F. Manne, A. Pothen, "What color is your Jacobian? Graph coloring for computing derivatives" (SIAM Review 47, 2005).

A. H. Gebremedhin, A. Tarafdar, F. Manne, A. Pothen, "New acyclic and star coloring algorithms with application to computing Hessians"
(SIAM Journal on Scientific Computing 29, 2007).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True, eq=False)
class Coloring:
    """The colours of the columns or the rows of a pattern; one sweep computes the sum of those of one colour.

    Attributes
    ----------
    mode : str
        `"forward"`: columns are coloured, and no row has two of one colour. `"reverse"`: rows are, and no column has two of one colour.
        `"both"`: a few rows that are long are coloured so, and columns so that no other row has two of one colour.
        `"symmetric"`: columns of a symmetric pattern are, so that of the entries (i, j) and (j, i) at least one can be read.
    colors : array of int
        The colour of each column, or row. In mode `"both"` those of the columns, then those of the rows, which have other colours; rows
        that are read from the columns' sweeps have the number `count`.
    count : int
        How many colours there are, which is the number of sweeps.
    """

    mode: str
    colors: np.ndarray
    count: int

    def sides(self, columns: int) -> tuple[tuple[np.ndarray, int], tuple[np.ndarray, int]]:
        """Return the colours of the columns and how many there are, and those of the rows, from 0 on."""
        nobody = self.colors[:0], 0
        if self.mode == "reverse":
            return nobody, (self.colors, self.count)
        if self.mode != "both":
            return (self.colors, self.count), nobody
        own, rows = self.colors[:columns], self.colors[columns:]
        forward = int(own.max()) + 1
        return (own, forward), (np.maximum(rows, forward) - forward, self.count - forward)

    def places(self, pattern: csr_array) -> np.ndarray:
        """Return where each entry of the pattern stands in the sweeps, which are (colours, rows) forward and then (colours, columns)."""
        count, width = pattern.shape
        rows: np.ndarray = np.repeat(np.arange(count), np.diff(pattern.indptr))
        columns = pattern.indices.astype(np.int64)
        (by_column, forward), (by_row, reverse) = ((colors.astype(np.int64), each) for colors, each in self.sides(width))
        if self.mode == "symmetric":
            # Of the two places of (i, j) and (j, i) both are read at one, so that the matrix is symmetric to the last bit: at that of
            # the entry above the diagonal, unless its row has several columns of that colour.
            low, high = np.minimum(rows, columns), np.maximum(rows, columns)
            upper, lower = by_column[high] * count + low, by_column[low] * count + high
            seen = np.bincount(by_column[columns] * count + rows)
            return np.asarray(np.where(seen[upper] > 1, lower, upper))
        if self.mode == "forward":
            return np.asarray(by_column[columns] * count + rows)
        pulled = forward * count + by_row[rows] * width + columns
        return np.asarray(pulled if self.mode == "reverse" else np.where(by_row[rows] < reverse, pulled, by_column[columns] * count + rows))

    def __repr__(self) -> str:
        return f"Coloring(mode={self.mode!r}, count={self.count})"


def color_jacobian(pattern: csr_array, mode: str = "auto") -> Coloring:
    """Return a colouring of the columns (mode "forward"), the rows ("reverse"), or what needs the fewest colours ("auto"), of both too.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> color_jacobian(csr_array(np.eye(4) + np.eye(4, k=1))).colors
    array([0, 1, 0, 1], dtype=uint8)
    """
    least = least_colors(pattern)
    best: Coloring | None = None
    for each in sorted(least, key=least.__getitem__) if mode == "auto" else [mode]:
        if best is not None and best.count <= least[each]:
            break
        limit = None if best is None else best.count
        best = (_of_both(pattern, limit) if each == "both" else _of_one_side(pattern, each, least[each], limit)) or best
    assert best is not None
    return best


def least_colors(pattern: csr_array) -> dict[str, int]:
    """Return below how many colours no colouring of the columns ("forward") and of the rows ("reverse") goes.

    Where columns and a few rows together may need less than half of that, how many these do need ("both").
    """
    lengths = {"forward": np.diff(pattern.indptr), "reverse": np.bincount(pattern.indices, minlength=1)}
    least = {mode: int(np.max(found, initial=0)) for mode, found in lengths.items()}
    count, longest = _long_rows(pattern)
    return {**least, "both": count + longest} if 2 * (count + longest) < min(least.values()) else least


def _long_rows(pattern: csr_array) -> tuple[int, int]:
    """Return how many rows, the longest ones, are best taken by themselves, and how long the others are."""
    lengths = np.append(np.sort(np.diff(pattern.indptr))[::-1], 0)
    count = int(np.argmin(np.arange(len(lengths)) + lengths))
    return count, int(lengths[count])


def _of_one_side(pattern: csr_array, mode: str, least: int, limit: int | None) -> Coloring | None:
    """Return a colouring of the columns or the rows; None where it takes `limit` colours."""
    members, groups = (pattern.T.tocsr(), pattern) if mode == "forward" else (pattern, pattern.T.tocsr())
    found = _apart(members, np.diff(groups.indptr), least, limit)
    return None if found is None else Coloring(mode, *found)


def _of_both(pattern: csr_array, limit: int | None) -> Coloring | None:
    """Return a colouring of the longest rows, and of the columns for the other rows; None where it takes `limit` colours.

    So the rows and columns along the edges of an arrow's head take a sweep each, and all of its shaft takes one more.
    """
    count, longest = _long_rows(pattern)
    order = np.argsort(-np.diff(pattern.indptr), kind="stable")
    by_row = _of_one_side(pattern[order[:count]], "reverse", 1, limit)
    if by_row is None:
        return None
    by_column = _of_one_side(pattern[order[count:]], "forward", longest, limit)
    if by_column is None or (limit is not None and by_column.count + by_row.count >= limit):
        return None
    total = by_column.count + by_row.count
    rows = np.full(pattern.shape[0], total)
    rows[order[:count]] = by_row.colors.astype(np.int64) + by_column.count
    return Coloring("both", _compact(np.concatenate([by_column.colors, rows])), total)


def color_symmetric(pattern: csr_array) -> Coloring:
    """Return a colouring of a symmetric pattern: a star colouring, or one of columns as for any matrix if that takes fewer colours.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> arrow = np.eye(5)
    >>> arrow[0] = arrow[:, 0] = 1
    >>> color_symmetric(csr_array(arrow)).colors
    array([0, 1, 1, 1, 1], dtype=uint8)
    """
    lengths = np.diff(pattern.indptr)
    if pattern.nnz == len(lengths) ** 2:
        return Coloring("symmetric", _compact(np.arange(len(lengths))), len(lengths))
    order = np.argsort(-lengths, kind="stable")  # what has many neighbours, such as the head of an arrow, must come before them
    colors, count = _numbered(_star(pattern, order))
    least = int(np.max(lengths, initial=0))
    if least < count:  # on grids, and where nothing is on the diagonal
        colors, count = _apart(pattern, lengths, least, count) or (colors, count)
    return Coloring("symmetric", colors, count)


def _apart(members: csr_array, sizes: np.ndarray, least: int, limit: int | None) -> tuple[np.ndarray, int] | None:
    """Return colours of the rows of `members` such that no column has two of one colour, and their number; None for `limit` or more.

    Colours taken in turns are best for bands and good for grids. Otherwise each row gets the first colour that it can have, in the
    order they come in, and beginning with those that meet most others.
    """
    best = _in_turns(members, least, limit)
    for order in (np.arange(members.shape[0]), np.argsort(-(members.astype(np.int64) @ sizes), kind="stable")):
        if best is not None and best[1] <= least:
            break
        bits = _greedy(members, order, limit if best is None else best[1])
        best = best if bits is None else _numbered(bits)
    return best


TURNS = 8
"""How many numbers of colours are tried in turns, and how many times as long as the pattern the table of what they meet may be."""


def _in_turns(members: csr_array, least: int, limit: int | None) -> tuple[np.ndarray, int] | None:
    """Return the colours 0, 1, ..., count - 1, 0, 1, ... for a count near `least`, below `limit`, that is enough; None if none is."""
    count = members.shape[0]
    rows = np.repeat(np.arange(count), np.diff(members.indptr))
    for turns in range(max(least, 1), min(least + TURNS, count + 1, count + 1 if limit is None else limit)):
        if turns * members.shape[1] > TURNS * len(rows):
            return None
        seen = np.bincount(members.indices.astype(np.int64) * turns + rows % turns, minlength=1)
        if seen.max() < 2:
            return _compact(np.arange(count) % turns), turns
    return None


def _greedy(members: csr_array, order: np.ndarray, limit: int | None) -> list[int] | None:
    """Return for each row the first colour that none of its columns has seen, as a bit; None if that takes `limit` colours."""
    starts, columns = members.indptr.tolist(), members.indices.tolist()
    end = None if limit is None else 1 << (limit - 1)
    seen = [0] * members.shape[1]
    colors = [1] * members.shape[0]
    for row in order.tolist():
        own = columns[starts[row] : starts[row + 1]]
        taken = 0
        for column in own:
            taken |= seen[column]
        color = ~taken & (taken + 1)
        if end is not None and color >= end:
            return None
        colors[row] = color
        for column in own:
            seen[column] |= color
    return colors


def _star(pattern: csr_array, order: np.ndarray) -> list[int]:
    """Return colours, as bits, such that neighbours differ and each path of four has three colours.

    While vertex `w` has no colour its neighbours get different ones. So a path of two colours can only end at the new vertex `v`: it
    goes on to a neighbour `w`, from there to some `x`, and to another neighbour of `x` with the colour of `w`. For each `w`, `closed`
    has the colours of such `x`.
    """
    starts, columns = pattern.indptr.tolist(), pattern.indices.tolist()
    count = pattern.shape[0]
    colors, around, twice, closed = [0] * count, [0] * count, [0] * count, [0] * count
    for v in order.tolist():
        neighbours = [w for w in columns[starts[v] : starts[v + 1]] if w != v]
        taken = 0
        for w in neighbours:
            taken |= (colors[w] | closed[w]) if colors[w] else around[w]
        color = ~taken & (taken + 1)
        colors[v] = color
        for x in neighbours:
            if not around[x] & color:
                around[x] |= color
            elif colors[x]:  # v and others of its colour are around x
                closed[v] |= colors[x]
                if not twice[x] & color:
                    twice[x] |= color
                    for w in columns[starts[x] : starts[x + 1]]:
                        if w != x and colors[w] == color:
                            closed[w] |= colors[x]
    return colors


def _numbered(bits: list[int]) -> tuple[np.ndarray, int]:
    """Return colours as numbers from 0 on, and how many there are."""
    colors = np.array([bit.bit_length() - 1 for bit in bits], np.int64)
    return _compact(colors), int(np.max(colors, initial=-1)) + 1


def _compact(colors: np.ndarray) -> np.ndarray:
    """Return colours in the least dtype that holds them, read-only."""
    compact = colors.astype(np.min_scalar_type(np.max(colors, initial=0)))
    compact.setflags(write=False)
    return compact
