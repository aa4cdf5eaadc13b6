"""What the solvers that are traced functions share: how they are called outside of traces, and derivatives of what they find.

A solver is a function `solver(f, x0, args, options, *given)` of traced arrays; x0 is a pytree of float arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

import staticgrad.numpy as snp
from staticgrad.calls.traced import traced
from staticgrad.custom.implicit import root_of
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


def run(solver: Solver, f: Callable[..., Any], x0: Any, args: Any, options: Hashable, word: str, given: tuple[Any, ...] = ()) -> Any:
    """Return what a solver finds: as a part of the trace under way, otherwise as a compiled program, one for each function.

    `given` are further arrays for the solver.
    """
    if not isinstance(args, (tuple, list)):
        raise ArgumentError(at_user_line(f"{word}: args must be a tuple, not {type(args).__name__}; for one argument args=(data,)"))
    layout = Layout(start(x0), word)
    guess = layout.tree(layout.vector)
    if tracing():
        return solver(f, guess, tuple(args), options, *given)
    return traced(f).derive(_Solving(solver, options, word), word)(guess, given, *args)


@dataclass(frozen=True)
class _Solving:
    """A function of (x, *args) as the program of (x0, given, *args) that gives what a solver finds."""

    solver: Solver
    options: Hashable
    word: str

    def __call__(self, base: Source, signature: Signature) -> Program:
        (guess, _, *args), _ = unflatten(signature.tree, list(range(len(signature.avals))))
        places, tree = flatten(((guess, *args), {}))
        program = base.program(signature._replace(tree=tree, avals=tuple(signature.avals[k] for k in places)))

        def f(*args: Any) -> Any:
            values = [convert(lift(leaf), v.dtype) for leaf, v in zip(flatten((args, {}))[0], program.graph.inputs, strict=True)]
            outputs = inline(program.graph, values)
            return unflatten(program.out_tree, [tracer_of(v) for v in outputs[: program.results]])

        def solution(x0: Any, given: tuple[Any, ...], *args: Any) -> Any:
            return self.solver(f, x0, args, self.options, *given)

        made = record(solution, signature, f"{self.word}({base.name})")
        return Program(made.graph, signature, made.out_tree, program.guards, made.captures, made.prints)


def implicit_root(
    equations: Callable[[Any], Any], guess: Any, solve: Callable[[Any], tuple[Any, Any, Any]], word: str
) -> tuple[Any, tuple[Any, Any]]:
    """Return what `solve(guess)` returns: the root of `equations`, whether it converged, and anything else; the root has derivatives.

    The root is a pytree like `guess`, and so is what the equations return of it. Derivatives are those of the root, by the implicit
    function theorem: the Jacobian of the equations there is formed, and a linear system solved. Where there is no root, for the numbers
    are not finite or the search has come to a singular matrix, they are 0.
    """
    layout = Layout(guess, word)

    def are_finite(values: Any) -> Any:
        return np.all(np.isfinite(Layout(values, word).vector))

    def matrix(linear: Callable[[Any], Any]) -> Any:
        return jacobian(lambda vector: Layout(linear(layout.tree(vector)), word).vector)(np.zeros(layout.size))

    def tangent_solve(linear: Callable[[Any], Any], right: Any) -> Any:
        return layout.tree(snp.linalg.solve(matrix(linear), Layout(right, word).vector))

    def is_sound(linear: Callable[[Any], Any], root: Any, aux: Any) -> Any:
        solvable = are_finite(equations(root)) & are_finite(snp.linalg.solve(matrix(linear), np.ones(layout.size)))
        return are_finite(root) & (aux[0] | solvable)

    def searched(_: Any, first: Any) -> tuple[Any, tuple[Any, Any]]:
        root, converged, others = solve(first)
        return root, (converged, others)

    found: tuple[Any, tuple[Any, Any]] = root_of(equations, guess, searched, tangent_solve, is_sound, has_aux=True)
    return found
