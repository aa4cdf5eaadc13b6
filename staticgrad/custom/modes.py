"""Rules for reverse mode alone, and rules for tangents, which serve both modes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optree

from staticgrad.custom.rules import CustomFunction, Rule, custom_call, like, name_of, recorded_rule, shown
from staticgrad.errors import ArgumentError, MissingDerivativeError
from staticgrad.ir.aval import Aval
from staticgrad.ir.node import Value, zeros_like
from staticgrad.ops.control import NoDerivative
from staticgrad.tracing.bodies import Body
from staticgrad.tracing.directions import aligned
from staticgrad.tracing.pytree import Tree, flatten, unflatten
from staticgrad.tracing.tracer import Tracer


class PullbackRule(Rule):
    """A rule for reverse mode: `forward(*args) -> (value, residuals)` and `backward(residuals, cotangent) -> cotangents of args`."""

    def __init__(
        self, custom: CustomFunction, tree: Tree, body: Body, printed: int, forward: Callable[..., Any], backward: Callable[..., Any]
    ) -> None:
        super().__init__(custom, tree, body, printed)
        self._forward, self._backward = forward, backward

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        return self.custom.function, self._forward, self._backward

    def record(self) -> list[Body]:
        own = len(self.body.captures)
        residuals_tree: list[Any] = []
        there: list[bool] = []

        def forward(*args: Any) -> Any:
            leaves, tree = flatten(self.beside_value(self.run(self._forward, *args), self._forward, "residuals"))
            residuals_tree[:] = [tree, [None if _is_array(leaf) else leaf for leaf in leaves]]
            return [leaf for leaf in leaves if _is_array(leaf)]

        avals = [v.aval for v in self.body.graph.inputs[own:]]
        first = recorded_rule(self.custom, self._forward, like(self._forward, forward), self.tree, avals)
        cotangents_tree = flatten(self.value(range(self.results)))[1]

        def backward(residuals: Any, cotangent: Any) -> Any:
            tree, known = residuals_tree
            arrays = iter(residuals)
            kept = unflatten(tree, [next(arrays) if leaf is None else leaf for leaf in known])
            found = self.cotangents(self.run(self._backward, kept, unflatten(cotangents_tree, cotangent)))
            there[:] = [leaf is not None for leaf in found]
            return [leaf for leaf in found if leaf is not None]

        count = len(first.avals)
        results = [Aval(aval.shape, aval.dtype) for aval in self.body.avals[: self.results]]
        tree = flatten((list(range(count)), list(range(self.results))))[1]
        second = recorded_rule(self.custom, self._backward, backward, tree, [*first.avals, *results])
        self._graphs = first, second, there
        return [first, second]

    def cotangents(self, found: Any) -> list[Any]:
        """Return the cotangents that a user's function returned, leaf by leaf of the arguments, or raise where they do not fit."""
        name = name_of(self._backward)
        args = unflatten(self.tree, list(range(self.tree.num_leaves)))
        if not isinstance(found, (tuple, list)) or len(found) != len(args):
            raise ArgumentError(
                self.said(f"{name} must return a tuple of {len(args)} cotangents, one for each argument, not {shown(found)}; None is zero")
            )
        leaves = []
        for k, (arg, cotangent) in enumerate(zip(args, found, strict=True)):
            try:
                leaves += aligned(arg, cotangent)
            except ValueError:
                structures = f"argument {k} has structure {flatten(arg)[1]}, {name} returned {flatten(cotangent)[1]} for it"
                raise ArgumentError(self.said(structures)) from None
        avals = [v.aval for v in self.body.graph.inputs[len(self.body.captures) :]]
        return self.all_fitting(leaves, avals, [f"argument {_path(path)}" for path in optree.tree_paths(args)], self._backward)

    def push(self, tangents: Sequence[Value | None], y: Sequence[Value], *x: Value) -> Sequence[Value | None]:
        raise MissingDerivativeError(
            self.said(
                "it has a rule for reverse mode only (custom_vjp), and this is forward mode (jvp, linearize, mode='forward', or forward "
                "over reverse); use reverse mode, or give it a rule with sg.custom_jvp, which serves both modes"
            )
        )

    def pull(self, g: Sequence[Value | None], y: Sequence[Value], *x: Value) -> Sequence[Value | NoDerivative | None]:
        self.ready()
        forward, backward, there = self._graphs
        own = len(self.captures)
        residuals = self.inlined(forward, x, *x[own:])
        seeds = [zeros_like(v) if seed is None else seed for seed, v in zip(g[: self.results], y, strict=False)]
        found = iter(self.inlined(backward, x, *residuals, *seeds))
        args = [next(found) if has else None for has in there]
        return [*(NoDerivative(self.closed_over(v)) for v in x[:own]), *args]


class PushforwardRule(Rule):
    """A rule for both modes: `rule(primals, tangents) -> (value, tangent)`, linear in the tangents."""

    def __init__(self, custom: CustomFunction, tree: Tree, body: Body, printed: int, rule: Callable[..., Any]) -> None:
        super().__init__(custom, tree, body, printed)
        self._rule = rule

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        return self.custom.function, self._rule

    def record(self) -> list[Body]:
        there: list[bool] = []
        name = name_of(self._rule)

        def tangent(primals: Any, tangents: Any) -> Any:
            made = self.beside_value(self.run(self._rule, primals, tangents), self._rule, "tangent")
            value = self.value(range(self.results))
            try:
                leaves = aligned(value, made)
            except ValueError:
                raise ArgumentError(
                    self.said(f"{name} returned a tangent of structure {flatten(made)[1]}, the value has {flatten(value)[1]}")
                ) from None
            found = self.all_fitting(leaves, self.body.avals[: self.results], ["the value"] * self.results, self._rule)
            there[:] = [leaf is not None for leaf in found]
            return [leaf for leaf in found if leaf is not None]

        avals = [v.aval for v in self.body.graph.inputs[len(self.body.captures) :]]
        args = unflatten(self.tree, list(range(len(avals))))
        tree = flatten((args, args))[1]
        body = recorded_rule(self.custom, self._rule, tangent, tree, [*avals, *(Aval(a.shape, a.dtype) for a in avals)])
        self._graph = body, there
        return [body]

    def push(self, tangents: Sequence[Value | None], y: Sequence[Value], *x: Value) -> Sequence[Value | None]:
        self.ready()
        own = len(self.captures)
        for value, t in zip(x[:own], tangents, strict=False):
            if t is not None:
                raise self.closed_over(value)
        body, there = self._graph
        seeds = [zeros_like(v) if t is None else t for v, t in zip(x[own:], tangents[own:], strict=True)]
        found = iter(self.inlined(body, x, *x[own:], *seeds))
        return [*(next(found) if has else None for has in there), *(None for _ in y[self.results :])]

    def pull(self, g: Sequence[Value | None], y: Sequence[Value], *x: Value) -> Sequence[Value | NoDerivative | None]:
        own = len(self.captures)
        args = self.transposed(g, y, x, range(own, len(x)))[own:]
        return [*(NoDerivative(self.closed_over(v)) for v in x[:own]), *args]


def _is_array(leaf: Any) -> bool:
    """Return whether a residual is an array; other things stay what they are."""
    return isinstance(leaf, (Tracer, np.ndarray, np.generic)) and not isinstance(leaf, (np.str_, np.bytes_))


def _path(path: tuple[Any, ...]) -> str:
    number, *rest = path
    return f"{number}" + "".join(f"[{key!r}]" for key in rest)


def call_with_pullback(custom: CustomFunction, forward: Callable[..., Any], backward: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Return what a function makes of arguments in the trace under way, as one node with a rule for reverse mode.

    Parameters
    ----------
    custom
        The function of these arguments, and what tells it from others.
    forward
        From the arguments to the pair of the value and the residuals: arrays, and anything else, which is handed on as it is.
    backward
        From residuals and the cotangent of the value to a tuple with a cotangent for each argument; None stands for zero.
    args
        Arrays, numbers, and containers of these.
    """
    return custom_call(custom, args, lambda tree, body, printed: PullbackRule(custom, tree, body, printed, forward, backward))


def call_with_tangents(custom: CustomFunction, rule: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Return what a function makes of arguments in the trace under way, as one node with a rule for tangents.

    The rule takes the tuples of arguments and of their tangents, and returns the pair of the value and its tangent.
    """
    return custom_call(custom, args, lambda tree, body, printed: PushforwardRule(custom, tree, body, printed, rule))
