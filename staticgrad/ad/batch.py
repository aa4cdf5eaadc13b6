"""Batching: every node is replaced by its op's batching rule; the batch axis stands in front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from staticgrad.ir.aval import Aval
from staticgrad.ir.graph import Graph, topological
from staticgrad.ir.node import Value, apply_all, at_line, new_input
from staticgrad.ops.control import Call, NoDerivative, Rules, call
from staticgrad.ops.movement import Broadcast, broadcast
from staticgrad.ops.nested import TRANSFORMS, in_front
from staticgrad.ops.reduce import sum_


def batched(
    outputs: Sequence[Value], inputs: Sequence[Value], arguments: Sequence[Value], axes: Sequence[bool], size: int
) -> tuple[list[Value], list[bool]]:
    """Return the outputs for `arguments` that carry a batch axis of `size` in front where `axes` says so, and which outputs carry it.

    What is the same for the whole batch is computed once.
    """
    image = dict(zip(inputs, arguments, strict=True))
    has = dict(zip(inputs, axes, strict=True))
    for node in topological(outputs, stop=inputs):
        flags = [has[value] for value in node.inputs]
        operands = [image[value] for value in node.inputs]
        with at_line(node.line):
            if any(flags) and isinstance(node.op, Call):
                made = _batched_call(node.op, size, flags, operands)
            elif any(flags):
                made = node.op.batch(size, flags, *operands)
                made = made if isinstance(made, tuple) else (made,)
            else:
                made = apply_all(node.op, *operands)
        for value, result in zip(node.outputs, made, strict=True):
            image[value], has[value] = _without_copies(result) if any(flags) else (result, False)
    return [image[v] for v in outputs], [has[v] for v in outputs]


def _without_copies(x: Value) -> tuple[Value, bool]:
    """Return x, and that it carries a batch axis; what it consists of if that is copies of one value."""
    if not isinstance(x.op, Broadcast) or 0 not in x.op.axes:
        return x, True
    return broadcast(x.node.inputs[0], x.shape[1:], tuple(axis - 1 for axis in x.op.axes if axis)), False


def all_batched(
    outputs: Sequence[Value], inputs: Sequence[Value], arguments: Sequence[Value], axes: Sequence[bool], size: int
) -> list[Value]:
    """Return the outputs as `batched` does, each with a batch axis."""
    results = zip(*batched(outputs, inputs, arguments, axes, size), strict=True)
    return [v if has else in_front(v, size) for v, has in results]


# ---- calls: a batch of calls is the call of a batch, with the rules of each of them


def _batched_call(op: Call, size: int, axes: Sequence[bool], operands: Sequence[Value]) -> tuple[Value, ...]:
    inputs = tuple(new_input(Aval(v.shape, v.dtype)) for v in operands)
    outputs = all_batched(op.graph.outputs, op.graph.inputs, inputs, axes, size)
    rules = op.rules
    if rules is not None:
        flags = tuple(axes)
        key = f"{rules.key}/{size}{''.join('-+'[has] for has in flags)}"
        jvp = rules.jvp and _BatchedJvp(rules.jvp, size, flags)
        vjp = rules.vjp and _BatchedVjp(rules.vjp, size, flags)
        rules = Rules(rules.name, key, jvp, vjp, (size, *rules.sizes), (flags, *rules.mapped))
    return call(Graph(inputs, tuple(outputs), (), op.graph.name), *operands, rules=rules)


@dataclass(frozen=True)
class _BatchedRule:
    """The rule of one call, applied to a batch of them; `axes` says which operands have the batch axis, as all results do."""

    rule: Callable[..., Any]
    size: int
    axes: tuple[bool, ...]

    def _mapped(self, seeds: Sequence[Value | None], has: Sequence[bool], y: Sequence[Value], x: Sequence[Value]) -> list[Any]:
        given = [*seeds, *y, *x]
        axes = [*has, *(True for _ in y), *self.axes]
        single = [
            None if v is None else new_input(Aval(v.shape[1:] if axis else v.shape, v.dtype)) for v, axis in zip(given, axes, strict=True)
        ]
        made = self.rule(tuple(single[: len(seeds)]), tuple(single[len(seeds) : len(seeds) + len(y)]), *single[len(seeds) + len(y) :])
        there = [(one, v, axis) for one, v, axis in zip(single, given, axes, strict=True) if one is not None and v is not None]
        inputs, arguments, flags = zip(*there, strict=True) if there else ((), (), ())
        found = iter(all_batched([v for v in made if isinstance(v, Value)], inputs, arguments, flags, self.size))
        return [next(found) if isinstance(v, Value) else v for v in made]


class _BatchedJvp(_BatchedRule):
    def __call__(self, tangents: Sequence[Value | None], y: Sequence[Value], *x: Value) -> list[Value | None]:
        return self._mapped(tangents, self.axes, y, x)


class _BatchedVjp(_BatchedRule):
    def __call__(self, g: Sequence[Value | None], y: Sequence[Value], *x: Value) -> list[Value | NoDerivative | None]:
        """What all calls share gets the sum of their cotangents."""
        made = self._mapped(g, [True] * len(y), y, x)
        return [sum_(v, (0,)) if isinstance(v, Value) and not has else v for v, has in zip(made, self.axes, strict=True)]


TRANSFORMS["batched"] = batched
