"""Loops with a known number of steps at most: one sub-graph runs over and over, what it carries along goes from step to step.

Backwards, `Scan` is a scan of the pullback of its body in the other direction. What a pullback needs of its step are what that step
started from and what is dear to compute; the rest it computes anew. The loop that stacks both has the same body as the one that computed
the value, and a pass makes the two one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from staticgrad.errors import VerificationError
from staticgrad.ir.aval import INT64, Aval
from staticgrad.ir.graph import Graph, inline, substitution, topological
from staticgrad.ir.interp import interpret
from staticgrad.ir.links import Reached
from staticgrad.ir.node import Value, apply_all, full, new_input
from staticgrad.ir.op import register
from staticgrad.ops.checkpoint import checkpointed
from staticgrad.ops.comparison import less, where
from staticgrad.ops.elimination import Solve, share_factors
from staticgrad.ops.leaving_out import have_their_own, spread, taking_part
from staticgrad.ops.loop_sparsity import scanned
from staticgrad.ops.movement import Concatenate, SliceSet, broadcast, transpose
from staticgrad.ops.nested import (
    TRANSFORMS,
    Nested,
    Trimmed,
    check_operands,
    depends,
    in_front,
    is_active,
    mapped,
    may_fail,
    plain,
    pulled,
    pushed,
    read_inputs,
    read_of_carry,
    trim,
    with_inputs,
    zeros,
)
from staticgrad.ops.reduce import max_

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Each = TypeVar("Each")

DEAR = 10
"""An operation that costs so much, or is not done element by element, is not repeated on the way back: its results are stacked."""

MOST_BYTES = 2**26
"""So much room at most is taken for what is stacked of one value where nobody knows how many steps there will be."""


@register
@dataclass(frozen=True, eq=False)
class Scan(Nested):
    """A loop of `length` steps: ([count], *constants, *init, *stacked) -> (*carry, *stacked results).

    The body makes (*next carry, *results of the step) of (step, *constants, *carry, *parts of the step). With `counted` only the first
    `count` steps run, no more than `length`; what the others would have stacked is 0, or, unless `padded`, anything: then nobody reads
    it. In `reverse` the last step comes first.
    """

    body: Graph
    length: int
    consts: int
    carries: int
    reverse: bool = False
    counted: bool = False
    padded: bool = True
    name = "scan"
    inner = 1

    @property
    def own(self) -> int:  # type: ignore[override]
        """The number of steps, where it is an operand."""
        return int(self.counted)

    @property
    def subgraphs(self) -> tuple[Graph, ...]:
        return (self.body,)

    @property
    def constants(self) -> int:
        return self.consts

    @property
    def starts(self) -> range:
        first = self.own + self.consts
        return range(first, first + self.carries)

    def with_subgraphs(self, graphs: Sequence[Graph], constants: int) -> Scan:
        return replace(self, body=graphs[0], consts=constants)

    @property
    def results(self) -> tuple[Value, ...]:
        """What the body gives to be stacked."""
        return self.body.outputs[self.carries :]

    def parts(self, operands: Sequence[Each]) -> tuple[Sequence[Each], Sequence[Each], Sequence[Each]]:
        """Return which of the operands are constants, which are what the carry starts as, and which are stacked."""
        first = self.own + self.consts
        return operands[self.own : first], operands[first : first + self.carries], operands[first + self.carries :]

    def infer(self, *avals: Aval) -> tuple[Aval, ...]:
        consts, init, stacked = self.parts(avals)
        if self.counted and plain(avals[0]) != Aval((), INT64):
            raise VerificationError(f"scan: the number of steps is {avals[0]}")
        if any(not aval.rank or aval.shape[0] != self.length for aval in stacked):
            raise VerificationError(f"scan: {self.length} steps over {', '.join(map(str, stacked))}")
        check_operands(self.name, self.body, [Aval((), INT64), *consts, *init, *(aval.without((0,)) for aval in stacked)])
        made = [plain(value.aval) for value in self.body.outputs]
        if made[: self.carries] != list(map(plain, init)):
            raise VerificationError(f"scan: the carry starts as {init} and becomes {made[: self.carries]}")
        return (*map(plain, init), *(Aval((self.length, *aval.shape), aval.dtype) for aval in made[self.carries :]))

    def dependence(self, node: Reached) -> Sequence[csr_array | None]:
        return scanned(self, node)

    def numpy(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        consts, carry, stacked = self.parts(arrays)
        results = [np.zeros((self.length, *value.shape), value.dtype) for value in self.results]
        count = min(int(arrays[0]), self.length) if self.counted else self.length
        steps = range(count)
        for step in reversed(steps) if self.reverse else steps:
            made = interpret(self.body, [np.asarray(step, np.int64), *consts, *carry, *(x[step] for x in stacked)])
            carry = made[: self.carries]
            for result, part in zip(results, made[self.carries :], strict=True):
                result[step] = part
        return (*carry, *results)

    # ---- derivatives

    def jvp(self, tangents: Sequence[Value | None], y: Sequence[Value], *x: Value) -> tuple[Value | None, ...]:
        """The loop over the carry and its tangents together."""
        consts, init, stacked = self.parts([is_active(v, t is not None) for v, t in zip(x, tangents, strict=True)])
        carry = list(init)
        while True:  # a carry has a tangent where it starts with one or is given one by some step
            flags = [False, *consts, *carry, *stacked]
            seeds, found = pushed(self.body, flags)
            after = [has or t is not None for has, t in zip(carry, found, strict=False)]
            if after == carry:
                break
            carry = after
        has = [*carry, *(t is not None for t in found[self.carries :])]
        made = [zeros(v.aval) if t is None else t for t, v, wanted in zip(found, self.body.outputs, has, strict=True) if wanted]
        own, given = self._divided(self.body.inputs[1:]), self._divided(seeds, [*consts, *carry, *stacked])
        inputs = (self.body.inputs[0], *(v for pair in zip(own, given, strict=True) for v in (*pair[0], *pair[1])))
        moving = sum(carry)
        outputs = (*self.body.outputs[: self.carries], *made[:moving], *self.results, *made[moving:])
        op = replace(
            self,
            body=Graph(inputs, outputs, (), f"tangent of {self.body.name}"),
            consts=self.consts + sum(consts),
            carries=self.carries + moving,
        )
        started = [t if t is not None else zeros(v.aval) for t, v in zip(tangents, x, strict=True)]
        values = self.parts(x)
        moved = [
            [v for v, flag in zip(part, flags, strict=True) if flag]
            for part, flags in zip(self.parts(started), (consts, carry, stacked), strict=True)
        ]
        results = apply_all(op, *x[: self.own], *(v for pair in zip(values, moved, strict=True) for v in (*pair[0], *pair[1])))
        kept = iter([*results[self.carries : op.carries], *results[op.carries + len(self.results) :]])
        return tuple(next(kept) if wanted else None for wanted in has)

    def _divided(self, values: Sequence[Value], flags: Sequence[bool] | None = None) -> list[list[Value]]:
        """Return inputs of the body but for the step as constants, carry and stacked ones; `flags` says which of them are given."""
        flags = [True] * len(values) if flags is None else flags
        given = iter(values)
        every = [next(given) if flag else None for flag in flags]
        ends = (0, self.consts, self.consts + self.carries, len(every))
        return [[v for v in every[a:b] if v is not None] for a, b in itertools.pairwise(ends)]

    def vjp(self, g: Sequence[Value | None], y: Sequence[Value], *x: Value) -> tuple[Value | None, ...]:
        """The loop over the pullback of the body, in the other direction; it carries the cotangents of the carry and of the constants."""
        body, carries = self.body, self.carries
        carry = [is_active(v, each is not None) for v, each in zip(y[:carries], g, strict=False)]
        results = [is_active(v, each is not None) for v, each in zip(y[carries:], g[carries:], strict=True)]
        first = 1 + self.consts
        while True:
            seeds, found = pulled(body, [*carry, *results])
            after = [has or c is not None for has, c in zip(carry, found[first : first + carries], strict=True)]
            if after == carry:
                break
            carry = after
        taken = [c is not None for c in found[1:first]]
        stacked = [c is not None for c in found[first + carries :]]
        moving = sum(carry)
        totals = [new_input(plain(v.aval), "cotangent") for v, has in zip(body.inputs[1:first], taken, strict=True) if has]
        added = [TRANSFORMS["added"](total, c) for total, c in zip(totals, (c for c in found[1:first] if c is not None), strict=True)]
        own = self._divided(body.inputs[1:])
        back = [zeros(v.aval) if c is None else c for c, v, has in zip(found[first : first + carries], own[1], carry, strict=True) if has]
        roots = [*back, *added, *(c for c in found[first + carries :] if c is not None)]
        roots = list(share_factors(Graph((*body.inputs, *seeds, *totals), tuple(roots)), Solve).outputs)
        never = checkpointed(body.outputs, with_results=True)
        saved = worth_saving(roots, body.inputs, [*seeds, *totals], never, MOST_BYTES // max(1, self.length) if self.counted else None)
        known = {v: new_input(plain(v.aval), "saved") for v in saved}
        image = substitution(roots, {**{v: v for v in (*body.inputs, *seeds, *totals)}, **known})
        inputs = (body.inputs[0], *own[0], *seeds[:moving], *totals, *own[1], *known.values(), *own[2], *seeds[moving:])
        op = Scan(
            Graph(inputs, tuple(image[v] for v in roots), (), f"pullback of {body.name}"),
            self.length,
            self.consts,
            moving + len(totals),
            not self.reverse,
            self.counted,
        )
        values = self.parts(x)
        starts = [zeros(v.aval) if each is None else each for v, each, has in zip(y, g, carry, strict=False) if has]
        given = [each for each, has in zip(g[carries:], results, strict=True) if has and each is not None]
        sums = [zeros(plain(v.aval)) for v in totals]
        kept = self._also_stacking([*own[1], *saved], x)
        backwards = apply_all(op, *x[: self.own], *values[0], *starts, *sums, *kept, *values[2], *given)
        made = iter(backwards)
        of_carry = [next(made) if has else None for has in carry]
        of_constants = [next(made) if has else None for has in taken]
        of_stacked = [next(made) if has else None for has in stacked]
        return (*(None for _ in range(self.own)), *of_constants, *of_carry, *of_stacked)

    def _also_stacking(self, values: Sequence[Value], x: Sequence[Value]) -> tuple[Value, ...]:
        """Return values of every step, stacked by the loop over the operands `x`."""
        whole = self.counted and not self.results  # otherwise what else is stacked may be read
        op = replace(self, body=self.body.with_outputs((*self.body.outputs, *values)), padded=self.padded and not whole)
        return apply_all(op, *x)[len(self.body.outputs) :]

    # ---- batches

    def batch(self, size: int, batched: Sequence[bool], *x: Value) -> tuple[Value, ...]:
        """The loop over whatever of the carry differs; where the numbers of steps do, each element stays as it is after its last one."""
        apart = self.counted and batched[0]
        consts, init, stacked = self.parts(batched)
        carry = list(init)
        while True:
            flags = [*consts, *carry, *stacked]
            made = depends(self.body, [False, *flags])
            after = [has or now or apart for has, now in zip(carry, made, strict=False)]
            if after == carry:
                break
            carry = after
        wanted = [has or apart for has in made]
        wanted[: self.carries] = carry
        if apart:
            flags = have_their_own(flags, self.body.inputs[1:])
        inputs, outputs = mapped(self.body, [False, *flags], size, wanted)
        body = Graph(tuple(inputs), tuple(outputs), (), self.body.name, self.body.labels)
        given = list(zip(x[self.own :], flags, batched[self.own :], strict=True))
        over = self.consts + self.carries
        operands = [in_front(v, size) if has and not had else v for v, has, had in given[:over]]
        operands += [_exchanged(v) if had else _repeated(v, size) if has else v for v, has, had in given[over:]]
        if apart:
            most = max_(x[0], (0,)) if size else full((), 0, INT64)
            op = replace(self, body=self._masked(body, flags, size), consts=self.consts + 1)
            results = apply_all(op, most, x[0], *operands)
        else:
            results = apply_all(replace(self, body=body), *x[: self.own], *operands)
        ends = [v if has else in_front(v, size) for v, has in zip(results[: self.carries], carry, strict=True)]
        parts = zip(results[self.carries :], wanted[self.carries :], strict=True)
        return (*ends, *(_exchanged(v) if has else in_front(v, size) for v, has in parts))

    def _masked(self, body: Graph, flags: Sequence[bool], size: int) -> Graph:
        """Return the body that is given the number of steps of each element, and leaves alone what has done them."""
        step, *rest = body.inputs
        counts = new_input(Aval((size,), INT64), "counts")
        goes_on = less(in_front(step, size), counts)
        after = inline(body, (step, *taking_part(goes_on, rest, flags, may_fail(body))))
        others = (*self._divided(rest)[1], *(zeros(v.aval) for v in body.outputs[self.carries :]))
        made = [where(spread(goes_on, new), new, old) for new, old in zip(after, others, strict=True)]
        return Graph((step, counts, *rest), tuple(made), (), body.name)

    # ---- what is needed of it

    def trimmed(self, read: Sequence[bool]) -> Trimmed:
        first = 1 + self.consts
        kept = read_of_carry(self.body, read, first, self.carries)
        places = [k for k, flag in enumerate(kept) if flag]
        body = trim(self.body.with_outputs([self.body.outputs[k] for k in places]))
        used = read_inputs(body)
        flags = [True, *used[1:first], *kept[: self.carries], *used[first + self.carries :]]
        inputs = [k for k, flag in enumerate(flags) if flag]
        op = replace(self, body=with_inputs(body, inputs), consts=sum(flags[1:first]), carries=sum(kept[: self.carries]))
        return op, [*range(self.own), *(self.own + k - 1 for k in inputs[1:])], places


def _exchanged(x: Value) -> Value:
    """Return x with its first two axes exchanged: the batch and the steps."""
    return transpose(x, (1, 0, *range(2, len(x.shape))))


def _repeated(x: Value, size: int) -> Value:
    """Return x, whose first axis are the steps, for each element of a batch along the second."""
    return broadcast(x, (x.shape[0], size, *x.shape[1:]), (1,))


def worth_saving(
    roots: Sequence[Value], inputs: Sequence[Value], late: Sequence[Value], never: Set[Value], most: int | None = None
) -> list[Value]:
    """Return the results of dear operations on `inputs` alone that `roots` need besides what they need of `late`.

    They are looked for below what depends on `late`, through operations that are cheap enough to be repeated, and what is `never` saved
    or has more than `most` bytes: the checkpoints of a loop inside, of which each step of a loop around it would need its own. Arrays
    that are put together, as `roll` does, are cheap where what they consist of takes no more bytes than they do.
    """
    depends_on_late: set[Value] = set(late)
    stack = list(roots)
    for node in topological(roots, stop=(*inputs, *late)):
        if any(v in depends_on_late for v in node.inputs):
            depends_on_late.update(node.outputs)
            stack += node.inputs

    given = {*inputs, *depends_on_late}
    repeated: set[Value] = set()  # what is put together and cheap

    def dear(values: Sequence[Value]) -> dict[Value, None]:
        """Return the dear results that these are computed of."""
        found: dict[Value, None] = {}
        seen = set(given)
        stack = list(values)
        while stack:
            value = stack.pop()
            if value in seen or value.node.is_fixed:
                continue
            seen.add(value)
            fits = value not in never and (most is None or value.aval.nbytes <= most)
            cheap = value in repeated or (value.op.kind in ("map", "view", "alias", "mark") and value.op.cost < DEAR)
            if fits and not cheap:
                found[value] = None
            else:
                stack += value.node.inputs
        return found

    for node in topological(stack, stop=given):
        if isinstance(node.op, (Concatenate, SliceSet)) and sum(v.aval.nbytes for v in dear(node.inputs)) <= node.outputs[0].aval.nbytes:
            repeated.add(node.outputs[0])
    return list(dear(stack))
