"""What the solvers that are traced functions share: how they are called outside of traces, and derivatives of what they find.

A solver is a function `solver(f, x0, args, options)` of traced arrays; x0 is a pytree of float arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

import staticgrad.numpy as snp
from staticgrad.calls.traced import traced
from staticgrad.custom.implicit import custom_root
from staticgrad.errors import ArgumentError
from staticgrad.ir.graph import inline
from staticgrad.ir.source import at_user_line
from staticgrad.jacobians import jacobian
from staticgrad.optim.normal_equations import Layout
from staticgrad.tracing.context import tracing
from staticgrad.tracing.lift import convert, lift
from staticgrad.tracing.pytree import Signature, flatten, tree_map, unflatten
from staticgrad.tracing.record import Program, record
from staticgrad.tracing.tracer import tracer_of
from staticgrad.transforms import Source

Solver = Callable[..., Any]


def start(x0: Any) -> Any:
    """Return `x0` with Python's whole numbers as floats; a list or a tuple of numbers as an array."""

    def is_number(leaf: Any) -> bool:
        return isinstance(leaf, (int, float, np.floating)) and not isinstance(leaf, bool)

    if type(x0) in (list, tuple) and x0 and all(map(is_number, x0)):
        return np.array(x0, np.result_type(*(x if isinstance(x, np.floating) else np.float64 for x in x0)))
    return tree_map(lambda leaf: float(leaf) if type(leaf) is int else leaf, x0)


def run(solver: Solver, f: Callable[..., Any], x0: Any, args: Any, options: Hashable, word: str) -> Any:
    """Return what a solver finds: as a part of the trace under way, otherwise as a compiled program, one for each function."""
    if not isinstance(args, (tuple, list)):
        raise ArgumentError(at_user_line(f"{word}: args must be a tuple, not {type(args).__name__}; for one argument args=(data,)"))
    layout = Layout(start(x0), word)
    guess = layout.tree(layout.vector)
    if tracing():
        return solver(f, guess, tuple(args), options)
    return traced(f).derive(_Solving(solver, options, word), word)(guess, *args)


@dataclass(frozen=True)
class _Solving:
    """A function of (x, *args) as the program of (x0, *args) that gives what a solver finds."""

    solver: Solver
    options: Hashable
    word: str

    def __call__(self, base: Source, signature: Signature) -> Program:
        program = base.program(signature)

        def f(*args: Any) -> Any:
            values = [convert(lift(leaf), v.dtype) for leaf, v in zip(flatten((args, {}))[0], program.graph.inputs, strict=True)]
            outputs = inline(program.graph, values)
            return unflatten(program.out_tree, [tracer_of(v) for v in outputs[: program.results]])

        def solution(x0: Any, *args: Any) -> Any:
            return self.solver(f, x0, args, self.options)

        made = record(solution, signature, f"{self.word}({base.name})")
        return Program(made.graph, signature, made.out_tree, program.guards, made.captures, made.prints)


def implicit_root(equations: Callable[[Any], Any], guess: Any, solve: Callable[[Any], tuple[Any, Any]], word: str) -> tuple[Any, Any]:
    """Return what `solve(guess)` returns: the root of `equations`, and anything else, which has no derivative.

    The root is a pytree like `guess`, and so is what the equations return of it. Derivatives are those of the root, by the implicit
    function theorem: the Jacobian of the equations there is formed, and a linear system solved.
    """
    layout = Layout(guess, word)

    def tangent_solve(linear: Callable[[Any], Any], right: Any) -> Any:
        matrix = jacobian(lambda vector: Layout(linear(layout.tree(vector)), word).vector)(np.zeros(layout.size))
        return layout.tree(snp.linalg.solve(matrix, Layout(right, word).vector))

    found: tuple[Any, Any] = custom_root(equations, guess, lambda _, first: solve(first), tangent_solve, has_aux=True)
    return found
