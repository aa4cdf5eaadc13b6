"""The linear part of a function at a point: what does not depend on the seeds is computed once, the rest for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from staticgrad.calls.records import Entry
from staticgrad.calls.traced import Traced, print_later
from staticgrad.errors import ArgumentError, ShapeError, StaticgradError
from staticgrad.ir.graph import inline
from staticgrad.ir.node import full
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.context import tracing
from staticgrad.tracing.directions import check_direction, with_zeros
from staticgrad.tracing.lift import convert, lift
from staticgrad.tracing.pytree import Signature, Tree, flatten, leaf_aval, prepared, unflatten
from staticgrad.tracing.record import show
from staticgrad.tracing.tracer import tracer_of


class LinearPart:
    """The pullback or the pushforward of a function at a point, on leaves.

    Attributes
    ----------
    signature
        That of the arguments.
    leaves
        The leaves of the arguments: outside of a trace copies, which nobody writes.
    result
        The value of the function there. The forward kernel has run; calls run the backward kernel alone.
    """

    def __init__(self, function: Traced, primals: tuple[Any, ...], keywords: dict[str, Any] | None = None) -> None:
        """Take a function whose graph has seeds behind its arguments and, behind its results, what is linear in them."""
        self.leaves, tree, static = function._split(primals, keywords or {})
        inside = tracing()
        avals = tuple(lift(leaf).aval if inside else leaf_aval(leaf) for leaf in self.leaves)
        signature = self.signature = Signature(tree, avals, static)
        self._threads = function._options.threads
        self._entry = None if inside else function._record.entry(function._options.place(signature))
        program = self._program = function._record.program(signature) if self._entry is None else self._entry.program
        self._seeds = [v.aval for v in program.graph.inputs[len(avals) : len(program.graph.inputs) - len(program.captures)]]
        self._behind = program.results + program.printed
        if self._entry is None:
            graph = program.graph.with_outputs(program.graph.primals)
            zeros = [full(a.shape, 0, a.dtype) for a in self._seeds]
            values = inline(graph, (*map(lift, self.leaves), *zeros, *program.captures))
            print_later(program, values[program.results :])
            outputs: list[Any] = [tracer_of(v) for v in values[: program.results]]
        else:
            self.leaves = [np.array(prepared(leaf, aval)) for leaf, aval in zip(self.leaves, avals, strict=True)]
            outputs = self._begin(self._entry)
            show(program.prints, outputs[program.results :])
        self.result = unflatten(program.out_tree, outputs[: program.results])

    def seeds(self, given: Any, expected: Tree, what: str, misfit: str) -> list[Any]:
        """Return the leaves of what the linear part is called with; `misfit` tells of two structures, `what` it is that is given."""
        given = with_zeros(given, expected, lambda: self._seeds, what)
        leaves, tree = flatten(given)
        if tree != expected:
            raise ArgumentError(at_user_line(misfit.format(expected, tree)))
        return leaves

    @property
    def arguments_tree(self) -> Tree:
        """The structure of the positional arguments, with None for static ones."""
        args, _ = unflatten(self.signature.tree, list(range(len(self.leaves))))
        return flatten(args)[1]

    def _begin(self, entry: Entry) -> list[Any]:
        """Run the forward kernel; return results and what is printed."""
        arrays = [*self.leaves, *(np.zeros(a.shape, a.dtype) for a in self._seeds)]
        executable = entry.built.executable
        if executable is None:
            return [r[()] for r in entry.built.run(arrays)[: self._behind]]
        self._state = executable.begin(arrays, self._threads)
        return [self._state.outputs[k].copy()[()] for k in executable.plan.order[: self._behind]]

    def __call__(self, seeds: Sequence[Any], misfit: str) -> list[Any]:
        """Return what the linear part makes of `seeds`; `misfit` tells of an aval and of what does not fit it."""
        for seed, aval in zip(seeds, self._seeds, strict=True):
            try:
                found = leaf_aval(seed)
            except StaticgradError as error:
                raise type(error)(f"{misfit.format(aval, type(seed).__name__)}: {error}") from None
            if found.shape != aval.shape:
                raise ShapeError(at_user_line(misfit.format(aval, found)))
            check_direction(found, aval, misfit.format(aval, found))
        program = self._program
        if self._entry is None or tracing():
            converted = [convert(lift(seed), aval.dtype) for seed, aval in zip(seeds, self._seeds, strict=True)]
            values = inline(program.graph, (*map(lift, self.leaves), *converted, *program.captures))
            return [tracer_of(v) for v in values[self._behind :]]
        ready = [prepared(seed, aval) for seed, aval in zip(seeds, self._seeds, strict=True)]
        executable = self._entry.built.executable
        if executable is None:
            results = self._entry.built.run([*self.leaves, *ready])
        else:
            results = executable.finish(self._state, dict(enumerate(ready, len(self.leaves))))
        return [r[()] for r in results[self._behind :]]
