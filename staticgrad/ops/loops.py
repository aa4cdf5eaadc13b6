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
from staticgrad.ir.aval import INT64, Aval, is_float
from staticgrad.ir.graph import Graph, substitution, topological
from staticgrad.ir.interp import interpret
from staticgrad.ir.links import Links
from staticgrad.ir.node import Value, apply_all, full, new_input
from staticgrad.ir.op import register
from staticgrad.ir.sparsity import linked, related, relation_of, stacked, union
from staticgrad.ops.checkpoint import checkpointed
from staticgrad.ops.comparison import less, where
from staticgrad.ops.movement import broadcast, transpose
from staticgrad.ops.nested import (
    Nested,
    check_operands,
    depends,
    in_front,
    is_active,
    mapped,
    plain,
    pulled,
    pushed,
    read_inputs,
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

    def dependence(
        self,
        outputs: Sequence[Aval],
        avals: Sequence[Aval],
        known: Sequence[np.ndarray | None],
        found: Sequence[csr_array | None],
    ) -> Sequence[csr_array | None]:
        """What is carried on may depend on what any step is given; what is stacked on that, and on the parts of its own step."""
        from scipy.sparse import eye_array, kron

        columns = next(pattern.shape[1] for pattern in found if pattern is not None)
        consts, init, over = (
            [(aval, pattern) for aval, pattern in group if is_float(aval.dtype)]
            for group in self.parts(list(zip(avals, found, strict=True)))
        )
        steps = [aval.without((0,)).size for aval, _ in over]
        fixed, carry = (stacked([pattern for _, pattern in group], [aval.size for aval, _ in group], columns) for group in (consts, init))
        all_steps = [Links(np.tile(np.arange(size), self.length), size) for size in steps]
        given = [None if p is None else linked(links, p) for links, (_, p) in zip(all_steps, over, strict=True)]
        parts = stacked(given, steps, columns)
        ends = np.cumsum([v.aval.size for v in self.body.outputs])
        rows = [relation_of(self.body)[end - v.aval.size : end] for v, end in zip(self.body.outputs, ends, strict=True)]
        first, second = fixed.shape[0], fixed.shape[0] + carry.shape[0]

        def without_parts(relation: csr_array, carry: csr_array) -> csr_array:
            return related(relation[:, :first], fixed) + related(relation[:, first:second], carry)

        carried = [k for k in range(self.carries) if is_float(outputs[k].dtype)]
        onward = stacked([rows[k] for k in carried], [outputs[k].size for k in carried], second + parts.shape[0])
        entering = related(onward[:, second:], parts)
        for _ in range(self.length):
            before = carry.nnz
            carry = carry + entering + without_parts(onward, carry)
            if carry.nnz == before:
                break
        places = np.cumsum([0, *(outputs[k].size for k in carried)])
        made: list[csr_array | None] = [None for _ in outputs]
        for k, start, end in zip(carried, places, places[1:], strict=False):
            made[k] = carry[start:end]
        columns_of = np.cumsum([second, *steps])
        for k in range(self.carries, len(outputs)):
            each = Links(source=np.tile(np.arange(rows[k].shape[0]), self.length))
            own = [
                related(kron(eye_array(self.length), rows[k][:, start:end], format="csr").astype(np.bool_), pattern)
                for (_, pattern), start, end in zip(over, columns_of, columns_of[1:], strict=False)
                if pattern is not None
            ]
            made[k] = union([linked(each, without_parts(rows[k], carry)), *own])
        return made

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
        added = [total + c for total, c in zip(totals, (c for c in found[1:first] if c is not None), strict=True)]
        own = self._divided(body.inputs[1:])
        back = [zeros(v.aval) if c is None else c for c, v, has in zip(found[first : first + carries], own[1], carry, strict=True) if has]
        roots = [*back, *added, *(c for c in found[first + carries :] if c is not None)]
        saved = worth_saving(roots, body.inputs, [*seeds, *totals], checkpointed(body.outputs, with_results=True))
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
        if self.counted and batched[0]:
            most = max_(x[0], (0,)) if size else full((), 0, INT64)
            return self._masked().batch(size, (False, *batched), most, *x)
        consts, init, stacked = self.parts(batched)
        carry = list(init)
        while True:
            flags = [False, *consts, *carry, *stacked]
            made = depends(self.body, flags)
            after = [has or now for has, now in zip(carry, made, strict=False)]
            if after == carry:
                break
            carry = after
        wanted = [*carry, *made[self.carries :]]
        inputs, outputs = mapped(self.body, flags, size, wanted)
        op = replace(self, body=Graph(tuple(inputs), tuple(outputs), (), self.body.name, self.body.labels))
        values = self.parts(x)
        starts = [in_front(v, size) if has and not had else v for v, has, had in zip(values[1], carry, init, strict=True)]
        over = [_exchanged(v) if has else v for v, has in zip(values[2], stacked, strict=True)]
        results = apply_all(op, *x[: self.own], *values[0], *starts, *over)
        ends = [v if has else in_front(v, size) for v, has in zip(results[: self.carries], carry, strict=True)]
        made_values = zip(results[self.carries :], wanted[self.carries :], strict=True)
        return (*ends, *(_exchanged(v) if has else in_front(v, size) for v, has in made_values))

    def _masked(self) -> Scan:
        """Return the loop whose number of steps is a constant as well, beside one that may be larger."""
        step, *rest = self.body.inputs
        count = new_input(Aval((), INT64), "count")
        before = self._divided(rest)[1]
        goes_on = less(step, count)
        made = [
            where(broadcast(goes_on, new.shape, tuple(range(len(new.shape)))), new, old)
            for new, old in zip(self.body.outputs, (*before, *(zeros(v.aval) for v in self.results)), strict=True)
        ]
        return replace(self, body=Graph((step, count, *rest), tuple(made), (), self.body.name), consts=self.consts + 1)

    # ---- what is needed of it

    def trimmed(self, read: Sequence[bool]) -> tuple[Scan, list[int], list[int]]:
        kept, first = self._needed(read), 1 + self.consts
        places = [k for k, flag in enumerate(kept) if flag]
        body = trim(self.body.with_outputs([self.body.outputs[k] for k in places]))
        used = read_inputs(body)
        flags = [True, *used[1:first], *kept[: self.carries], *used[first + self.carries :]]
        inputs = [k for k, flag in enumerate(flags) if flag]
        op = replace(self, body=with_inputs(body, inputs), consts=sum(flags[1:first]), carries=sum(kept[: self.carries]))
        return op, [*range(self.own), *(self.own + k - 1 for k in inputs[1:])], places

    def _needed(self, read: Sequence[bool]) -> list[bool]:
        """Return which outputs of the body are needed: what is read, and the carry that it depends on."""
        first = 1 + self.consts
        needed = list(read)
        while True:
            inputs = read_inputs(trim(self.body.with_outputs([v for v, flag in zip(self.body.outputs, needed, strict=True) if flag])))
            after = [flag or used for flag, used in zip(needed, inputs[first : first + self.carries], strict=False)]
            after += needed[self.carries :]
            if after == needed:
                return needed
            needed = after


def _exchanged(x: Value) -> Value:
    """Return x with its first two axes exchanged: the batch and the steps."""
    return transpose(x, (1, 0, *range(2, len(x.shape))))


def worth_saving(roots: Sequence[Value], inputs: Sequence[Value], late: Sequence[Value], never: Set[Value]) -> list[Value]:
    """Return the results of dear operations on `inputs` alone that `roots` need besides what they need of `late`.

    They are looked for below what depends on `late`, through operations that are cheap enough to be repeated, and what is `never` saved.
    """
    depends_on_late: set[Value] = set(late)
    stack = list(roots)
    for node in topological(roots, stop=(*inputs, *late)):
        if any(v in depends_on_late for v in node.inputs):
            depends_on_late.update(node.outputs)
            stack += node.inputs
    found: dict[Value, None] = {}
    seen: set[Value] = {*inputs, *depends_on_late}
    while stack:
        value = stack.pop()
        if value in seen or value.node.is_fixed:
            continue
        seen.add(value)
        if value not in never and (value.op.kind not in ("map", "view", "alias", "mark") or value.op.cost >= DEAR):
            found[value] = None
        else:
            stack += value.node.inputs
    return list(found)
