"""Loops that go on while a condition holds.

Backwards, the number of steps is known, as the loop counts them. It is divided into at most `CHECKPOINTS` segments, and what each
starts from is kept. The last segment comes first; it goes through its last `CHECKPOINTS` steps once more, keeps what each of them
starts from, pulls back through them, and so on to its beginning. So memory is bounded whatever the number n of steps: up to n = 65536
it takes 2 n steps more than the loop itself, beyond that some n / 131072 for each step (fewer are kept of a large carry). All of it is
made of other ops, and has derivatives and batches because they do. (A workspace that grows while the loop runs would save steps, but it
would have to grow inside of other loops, too, and in every caller.) With a `limit`, every step's start is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from staticgrad.errors import VerificationError
from staticgrad.ir.aval import BOOL, INT64, Aval
from staticgrad.ir.graph import Graph, inline
from staticgrad.ir.interp import interpret
from staticgrad.ir.links import Reached
from staticgrad.ir.node import Value, apply, apply_all, constant, new_input
from staticgrad.ir.op import register
from staticgrad.ops.comparison import less, where
from staticgrad.ops.extrema import maximum, minimum
from staticgrad.ops.leaving_out import have_their_own, spread, taking_part
from staticgrad.ops.loop_sparsity import looped
from staticgrad.ops.loops import MOST_BYTES, Scan
from staticgrad.ops.nested import (
    Nested,
    Trimmed,
    check_operands,
    depends,
    in_front,
    is_active,
    mapped,
    may_fail,
    plain,
    pushed,
    read_inputs,
    read_of_carry,
    trim,
    with_inputs,
    zeros,
)
from staticgrad.ops.reduce import Any_
from staticgrad.ops.remainders import floor_divide

if TYPE_CHECKING:
    from scipy.sparse import csr_array

CHECKPOINTS, FEWEST = 256, 16
"""So many carries are kept of a loop whose number of steps has no limit, and as many of the steps between two of them; of a carry for
which that would be more bytes only as many as fit, but not too few."""


@register
@dataclass(frozen=True, eq=False)
class While(Nested):
    """A loop that goes on while a condition holds: (*constants, *init) -> (*carry, steps: i64[]).

    The condition and the body take (*constants, *carry). A `limit` that is not negative is the most steps that are done.
    """

    condition: Graph
    body: Graph
    consts: int
    limit: int = -1
    name = "while"

    @property
    def subgraphs(self) -> tuple[Graph, ...]:
        return (self.condition, self.body)

    @property
    def constants(self) -> int:
        return self.consts

    @property
    def carries(self) -> int:
        """How many values are carried along."""
        return len(self.body.outputs)

    @property
    def starts(self) -> range:
        return range(self.consts, self.consts + self.carries)

    def with_subgraphs(self, graphs: Sequence[Graph], constants: int) -> While:
        return replace(self, condition=graphs[0], body=graphs[1], consts=constants)

    def infer(self, *avals: Aval) -> tuple[Aval, ...]:
        check_operands(self.name, self.condition, avals)
        check_operands(self.name, self.body, avals)
        if [plain(v.aval) for v in self.condition.outputs] != [Aval((), BOOL)]:
            raise VerificationError(f"while: the condition is {self.condition.outputs}")
        init = list(map(plain, avals[self.consts :]))
        if [plain(v.aval) for v in self.body.outputs] != init:
            raise VerificationError(f"while: the carry starts as {init} and becomes {self.body.outputs}")
        return (*init, Aval((), INT64))

    def dependence(self, node: Reached) -> Sequence[csr_array | None]:
        return [*looped(self.body, None if self.limit < 0 else self.limit, self.consts, node.avals, node.found), None]

    def numpy(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        consts, carry = arrays[: self.consts], list(arrays[self.consts :])
        steps = 0
        while steps != self.limit and interpret(self.condition, [*consts, *carry])[0]:
            carry = interpret(self.body, [*consts, *carry])
            steps += 1
        return (*carry, np.asarray(steps, np.int64))

    def jvp(self, tangents: Sequence[Value | None], y: Sequence[Value], *x: Value) -> tuple[Value | None, ...]:
        """The loop over the carry and its tangents together."""
        flags = [is_active(v, t is not None) for v, t in zip(x, tangents, strict=True)]
        consts, carry = flags[: self.consts], flags[self.consts :]
        while True:
            seeds, found = pushed(self.body, [*consts, *carry])
            after = [has or t is not None for has, t in zip(carry, found, strict=True)]
            if after == carry:
                break
            carry = after
        moving, fixed = sum(carry), sum(consts)
        made = [zeros(v.aval) if t is None else t for t, v, has in zip(found, self.body.outputs, carry, strict=True) if has]
        own = self.body.inputs
        inputs = (*own[: self.consts], *seeds[:fixed], *own[self.consts :], *seeds[fixed:])
        others = self.condition.inputs
        ignored = [new_input(seed.aval) for seed in seeds]
        condition = replace(
            self.condition, inputs=(*others[: self.consts], *ignored[:fixed], *others[self.consts :], *ignored[fixed:]), labels=()
        )
        body = Graph(inputs, (*self.body.outputs, *made), (), f"tangent of {self.body.name}")
        given = [t if t is not None else zeros(v.aval) for t, v in zip(tangents, x, strict=True)]
        moved = [t for t, has in zip(given, [*consts, *carry], strict=True) if has]
        op = While(condition, body, self.consts + fixed, self.limit)
        results = iter(apply_all(op, *x[: self.consts], *moved[:fixed], *x[self.consts :], *moved[fixed:])[self.carries :])
        assert moving == op.carries - self.carries
        return (*(next(results) if has else None for has in carry), None)

    def vjp(self, g: Sequence[Value | None], y: Sequence[Value], *x: Value) -> tuple[Value | None, ...]:
        steps, consts, init = y[-1], x[: self.consts], x[self.consts :]
        if self.limit >= 0:
            return counted(self.body, self.limit, self.consts).vjp(g[:-1], y[:-1], steps, *x)[1:]
        return _segments(self.body, g[:-1], steps, consts, init)

    def batch(self, size: int, batched: Sequence[bool], *x: Value) -> tuple[Value, ...]:
        """The loop goes on while the condition holds for any element; those for which it does not stay as they are."""
        consts, carry = list(batched[: self.consts]), list(batched[self.consts :])
        while True:
            made = depends(self.body, [*consts, *carry])
            apart = depends(self.condition, [*consts, *carry])[0]
            after = [has or now or apart for has, now in zip(carry, made, strict=True)]
            if after == carry:
                break
            carry = after
        flags = [*consts, *carry]
        if apart:
            flags = have_their_own(flags, self.body.inputs)
        inputs, outputs = mapped(self.body, flags, size, carry)
        others, (goes_on,) = mapped(self.condition, flags, size, [apart])
        starts = [in_front(v, size) if has and not had else v for v, has, had in zip(x, flags, batched, strict=True)]
        body = Graph(tuple(inputs), tuple(outputs), (), self.body.name, self.body.labels)
        condition = Graph(tuple(others), (goes_on,), (), self.condition.name, self.condition.labels)
        if apart:
            body, condition = self._masked(body, condition, flags, size)
            counts = [constant(np.zeros(size, np.int64))]
        else:
            counts = []
        op = replace(self, body=body, condition=condition)
        results = apply_all(op, *starts, *counts)
        ends = [v if has else in_front(v, size) for v, has in zip(results, [*carry, apart], strict=False)]
        return (*ends[: self.carries], results[self.carries] if apart else in_front(results[-1], size))

    def _masked(self, body: Graph, condition: Graph, flags: Sequence[bool], size: int) -> tuple[Graph, Graph]:
        """Return the body that leaves alone what is done and counts the steps of each element, and the condition for any of them."""
        inputs = [new_input(v.aval) for v in body.inputs]
        steps, others = new_input(Aval((size,), INT64), "steps"), new_input(Aval((size,), INT64), "steps")
        (goes_on,) = inline(condition, inputs)
        given = taking_part(goes_on, inputs, flags, may_fail(body))
        made = [where(spread(goes_on, new), new, old) for new, old in zip(inline(body, given), inputs[self.consts :], strict=True)]
        more = where(goes_on, steps + 1, steps)
        anyone = apply(Any_((0,)), condition.outputs[0])
        return (
            Graph((*inputs, steps), (*made, more), (), body.name, body.labels),
            Graph((*condition.inputs, others), (anyone,), (), condition.name, condition.labels),
        )

    def trimmed(self, read: Sequence[bool]) -> Trimmed:
        asked, first = read_inputs(self.condition), self.consts
        kept = [a or b for a, b in zip(read[:-1], asked[first:], strict=True)]
        kept = read_of_carry(self.body, kept, first, len(kept))
        body = trim(self.body.with_outputs([v for v, flag in zip(self.body.outputs, kept, strict=True) if flag]))
        used = [a or b for a, b in zip(read_inputs(body), asked, strict=True)]
        inputs = [k for k, flag in enumerate([*used[:first], *kept]) if flag]
        op = replace(self, condition=with_inputs(self.condition, inputs), body=with_inputs(body, inputs), consts=sum(used[:first]))
        return op, inputs, [*(k for k, flag in enumerate(kept) if flag), len(read) - 1]


def counted(body: Graph, length: int, consts: int) -> Scan:
    """Return the loop of a body without a step, over a number of steps that is an operand and no more than `length`."""
    step = new_input(Aval((), INT64), "step")
    return Scan(replace(body, inputs=(step, *body.inputs), labels=("step", *body.labels)), length, consts, len(body.outputs), counted=True)


# ---- the way back through a loop of any number of steps; see the top of the file


def _segments(
    body: Graph, g: Sequence[Value | None], steps: Value, consts: Sequence[Value], init: Sequence[Value]
) -> tuple[Value | None, ...]:
    """Return the cotangents of the constants and of what the carry starts as."""
    kept = max(FEWEST, min(CHECKPOINTS, MOST_BYTES // max(1, sum(v.aval.nbytes for v in init))))
    pieces = counted(body, kept, len(consts))
    found = pieces.vjp(g, init, steps, *consts, *init)[1:]  # for the number of them; the nodes themselves are of no use
    has = [each is not None for each in found]
    starts = [zeros(v.aval) if each is None else each for v, each in zip(init, g, strict=True)]
    starts = [start for start, flag in zip(starts, has[len(consts) :], strict=True) if flag]
    totals = [zeros(plain(v.aval)) for v, flag in zip(consts, has, strict=False) if flag]
    length = maximum(floor_divide(steps + (kept - 1), _number(kept)), _number(kept))
    count = floor_divide(steps + length - 1, length)
    forward, backward = _forward_segment(body, kept, consts, init), _backward_segment(pieces, consts, init, has)
    checkpoints = apply_all(forward, count, steps, length, *consts, *init)[len(init) :]
    made = apply_all(backward, count, steps, length, *consts, *starts, *totals, *checkpoints)
    of_carry, of_constants = iter(made[: len(starts)]), iter(made[len(starts) :])
    return tuple((next(of_constants if k < len(consts) else of_carry) if flag else None) for k, flag in enumerate(has))


def _number(value: int) -> Value:
    return constant(np.int64(value))


def _fresh(values: Sequence[Value]) -> list[Value]:
    return [new_input(plain(v.aval)) for v in values]


def _forward_segment(body: Graph, kept: int, consts: Sequence[Value], init: Sequence[Value]) -> Scan:
    """Return the loop over segments that keeps what each starts from."""
    step, steps, length = _fresh([_number(0)] * 3)
    own, carry = _fresh(consts), _fresh(init)
    after = _advanced(body, minimum(length, steps - step * length), own, carry)
    graph = Graph((step, steps, length, *own, *carry), (*after, *carry), (), f"segment of {body.name}")
    return Scan(graph, kept, 2 + len(own), len(carry), counted=True, padded=False)


def _advanced(body: Graph, count: Value, consts: Sequence[Value], carry: Sequence[Value]) -> Sequence[Value]:
    """Return the carry after so many steps."""
    end, step, own, before = *_fresh([count, count]), _fresh(consts), _fresh(carry)
    condition = Graph((end, *own, step, *before), (less(step, end),), (), "steps left")
    stepping = Graph((end, *own, step, *before), (step + 1, *inline(body, (*own, *before))), (), body.name)
    return apply_all(While(condition, stepping, 1 + len(own)), count, *consts, _number(0), *carry)[1:-1]


def _backward_segment(pieces: Scan, consts: Sequence[Value], init: Sequence[Value], has: Sequence[bool]) -> Scan:
    """Return the loop over segments, last one first, whose carry are the cotangents of the loop's carry and of its constants."""
    step, steps, length = _fresh([_number(0)] * 3)
    own, start = _fresh(consts), _fresh(init)
    g = _fresh([v for v, flag in zip(init, has[len(consts) :], strict=True) if flag])
    totals = _fresh([v for v, flag in zip(consts, has, strict=False) if flag])
    left = minimum(length, steps - step * length)
    condition, piece = _piece(pieces, own, start, g, totals, has)
    made = apply_all(While(condition, piece, len(own) + len(start)), *own, *start, left, *g, *totals)[1:-1]
    graph = Graph((step, steps, length, *own, *g, *totals, *start), tuple(made), (), f"pullback of a segment of {pieces.body.name}")
    return Scan(graph, pieces.length, 2 + len(own), len(made), reverse=True, counted=True)


def _piece(
    pieces: Scan, consts: Sequence[Value], start: Sequence[Value], g: Sequence[Value], totals: Sequence[Value], has: Sequence[bool]
) -> tuple[Graph, Graph]:
    """Return the loop that pulls back through the last steps that are left of a segment, until none are, as condition and body."""
    own, begin, left, after, sums = _fresh(consts), _fresh(start), new_input(Aval((), INT64), "left"), _fresh(g), _fresh(totals)
    inputs = (*own, *begin, left, *after, *sums)
    count = minimum(left, _number(pieces.length))
    before = replace(pieces.body, inputs=pieces.body.inputs[1:], labels=pieces.body.labels[1:])
    carry = _advanced(before, left - count, own, begin)
    given, flags = iter(after), has[len(consts) :]
    found = pieces.vjp([next(given) if flag else None for flag in flags], carry, count, *own, *carry)[1:]
    of_constants = [c for c, flag in zip(found[: len(consts)], has, strict=False) if flag]
    of_carry = [c for c, flag in zip(found[len(consts) :], flags, strict=True) if flag]
    added = [total + c for total, c in zip(sums, of_constants, strict=True) if c is not None]
    outputs = (left - count, *(c for c in of_carry if c is not None), *added)
    condition = Graph(inputs, (less(_number(0), left),), (), "steps left")
    return condition, Graph(inputs, outputs, (), f"pullback of {pieces.body.name}")
