"""`custom_root` and `custom_linear_solve`: derivatives of solutions by the implicit function theorem; solvers are not differentiated.

    f(x, p) = 0      x's tangent = -(df/dx)^-1 (df/dp) p's tangent
    A(p) x = b       x's tangent = A^-1 (b's tangent - (dA/dp x) p's tangent)

What the functions close over, the parameters p, stands among the operands of the call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

from staticgrad.ad.forward import tangents as push_forward
from staticgrad.ad.reverse import cotangents as pull_back
from staticgrad.custom.rules import CustomFunction, Rule, custom_call, name_of, recorded_rule, shown
from staticgrad.errors import ArgumentError, DTypeError, MissingDerivativeError, ShapeError
from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.graph import Graph, inline, topological
from staticgrad.ir.node import Value, new_input, zeros_like
from staticgrad.ir.source import at_user_line
from staticgrad.ops.comparison import where_zero
from staticgrad.ops.control import NoDerivative
from staticgrad.ops.movement import broadcast
from staticgrad.tracing.bodies import Body, check_callable
from staticgrad.tracing.context import tracing
from staticgrad.tracing.lift import convert, lift
from staticgrad.tracing.pytree import Tree, flatten, unflatten
from staticgrad.tracing.record import called, checked, output_value
from staticgrad.tracing.tracer import tracer_of


def custom_root(
    f: Callable[[Any], Any],
    initial_guess: Any,
    solve: Callable[..., Any],
    tangent_solve: Callable[..., Any],
    has_aux: bool = False,
) -> Any:
    """Return a root of `f` that `solve` finds; derivatives are those of the root, not of the steps that led there.

    Parameters
    ----------
    f
        A function of `x` that returns as many equations, in the structure of `x`. The root is differentiated by what it closes over.
    initial_guess
        Where to start. The root does not depend on it.
    solve
        `solve(f, initial_guess)` returns the root. Any code that can be traced.
    tangent_solve
        `tangent_solve(g, y)` returns the `x` with `g(x) = y`, for `g` the linear approximation of `f` at the root. It must be linear
        in `y`: for a number `lambda g, y: y / g(1.0)`; `custom_linear_solve` does for more.
    has_aux
        Whether `solve` returns `(root, aux)`; then so does this function. `aux` has no derivative.

    Returns
    -------
    Any
        The root, in the structure of `initial_guess`.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError
        Where the root, or what the functions return, is not like `initial_guess`.

    Examples
    --------
    >>> import staticgrad as sg
    >>> def newton(f, x):
    ...     for _ in range(8):
    ...         x = x - f(x) / (2 * x)
    ...     return x
    >>> def square_root(a):
    ...     return sg.custom_root(lambda x: x * x - a, 1.0, newton, lambda g, y: y / g(1.0))
    >>> sg.grad(square_root)(4.0)
    np.float64(0.25)
    """
    for function, word in ((f, "f"), (solve, "solve"), (tangent_solve, "tangent_solve")):
        check_callable(function, f"custom_root: {word}")
    return root_of(f, initial_guess, solve, tangent_solve, None, has_aux)


def root_of(
    f: Callable[[Any], Any],
    initial_guess: Any,
    solve: Callable[..., Any],
    tangent_solve: Callable[..., Any],
    is_sound: Callable[[Any, Any, Any], Any] | None,
    has_aux: bool,
) -> Any:
    """Return a root of `f` as `custom_root` does; its derivative is 0 where `is_sound` says that there is none.

    `is_sound(g, root, aux)` is given the linear approximation of `f` at the root. Where it does not hold the derivative is taken nowhere:
    so one call of a batch that found nothing leaves the derivatives of what it shares with the others as they are.
    """
    if not tracing():
        return _solved("custom_root", solve, f, initial_guess)

    def root(guess: Any) -> Any:
        result = _solved("custom_root", solve, f, guess)
        found = _first(result, has_aux, "custom_root", solve)
        check_like(found, guess, f"custom_root: the initial guess is {{}}, {name_of(solve)} returned {{}}", weak=True)
        return result

    count = len(flatten(initial_guess)[0])
    custom = CustomFunction("custom_root", root, root)
    return custom_call(
        custom, (initial_guess,), lambda tree, body, printed: _RootRule(custom, tree, body, printed, count, f, tangent_solve, is_sound)
    )


def custom_linear_solve(
    matvec: Callable[[Any], Any],
    b: Any,
    solve: Callable[..., Any],
    transpose_solve: Callable[..., Any] | None = None,
    symmetric: bool = False,
    has_aux: bool = False,
) -> Any:
    """Return the solution `x` of `matvec(x) = b` that `solve` finds; derivatives are solutions of linear systems, too.

    Parameters
    ----------
    matvec
        A linear function of `x`. The solution is differentiated by what it closes over, and by `b`.
    b
        The right-hand side; `x` has its structure, shapes and dtypes.
    solve
        `solve(matvec, b)` returns the solution. Any code that can be traced.
    transpose_solve
        `transpose_solve(vecmat, b)` returns the solution for the transpose `vecmat` of `matvec`. Needed in reverse mode.
    symmetric
        Whether `matvec` is its own transpose, so that `solve` serves both.
    has_aux
        Whether `solve` and `transpose_solve` return `(x, aux)`; then so does this function. `aux` has no derivative.

    Returns
    -------
    Any
        The solution, in the structure of `b`.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError
        Where the solution, or what the functions return, is not like `b`.
    MissingDerivativeError
        In reverse mode, where there is no `transpose_solve`.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> def solution(d, b):  # a diagonal system
    ...     return sg.custom_linear_solve(lambda x: d * x, b, lambda matvec, b: b / matvec(np.ones(2)), symmetric=True)
    >>> sg.grad(lambda d, b: np.sum(solution(d, b)))(np.array([2.0, 4.0]), np.array([6.0, 8.0]))
    array([-1.5, -0.5])
    """
    for function, what in ((matvec, "matvec"), (solve, "solve"), (transpose_solve or solve, "transpose_solve")):
        check_callable(function, f"custom_linear_solve: {what}")
    if not tracing():
        return _solved("custom_linear_solve", solve, matvec, b)

    def solution(right: Any) -> Any:
        result = _solved("custom_linear_solve", solve, matvec, right)
        found = _first(result, has_aux, "custom_linear_solve", solve)
        check_like(found, right, f"custom_linear_solve: b is {{}}, {name_of(solve)} returned {{}}")
        return result

    count = len(flatten(b)[0])
    custom = CustomFunction("custom_linear_solve", solution, solution)

    def rule(tree: Tree, body: Body, printed: int) -> Rule:
        return _LinearRule(
            custom, tree, body, printed, count, _Solvers(matvec, solve if symmetric else transpose_solve, symmetric, has_aux)
        )

    return custom_call(custom, (b,), rule)


class _Solvers(NamedTuple):
    """What `custom_linear_solve` is given besides `solve`."""

    matvec: Callable[..., Any]
    transpose_solve: Callable[..., Any] | None
    symmetric: bool
    has_aux: bool


def _solved(word: str, solve: Callable[..., Any], function: Callable[..., Any], start: Any) -> Any:
    return called(solve, f"{name_of(solve)}, the solve of {word}, ", function, start)


def _first(result: Any, has_aux: bool, word: str, function: Callable[..., Any]) -> Any:
    """Return what a solver found, without what it tells besides."""
    if not has_aux:
        return result
    if not isinstance(result, tuple) or len(result) != 2:
        raise ArgumentError(at_user_line(f"{word} with has_aux=True: {name_of(function)} must return a pair, not {shown(result)}"))
    return result[0]


def check_like(found: Any, model: Any, message: str, weak: bool = False) -> None:
    """Raise unless `found` has the structure, shapes and dtypes of `model`; `weak` lets Python numbers stand for any dtype."""
    leaves, tree = flatten(found)
    expected, structure = flatten(model)
    if tree != structure:
        raise ArgumentError(at_user_line(message.format(structure, tree)))
    for leaf, other in zip(leaves, expected, strict=True):
        x, y = output_value(leaf, "it").aval, lift(other).aval
        both = message.format(Aval(y.shape, y.dtype), Aval(x.shape, x.dtype))
        if x.shape != y.shape:
            raise ShapeError(at_user_line(both))
        if x.dtype != y.dtype and not (x.weak or (weak and y.weak)):
            raise DTypeError(at_user_line(both))


# ---- the rules -------------------------------------------------------------------------------------------------------------


class _ImplicitRule(Rule):
    """What both have in common: unknowns are the first results, and an equation that they solve."""

    is_recorded_at_once = True

    def __init__(
        self, custom: CustomFunction, tree: Tree, body: Body, printed: int, count: int, function: Callable[..., Any], word: str
    ) -> None:
        super().__init__(custom, tree, body, printed)
        self.count = count
        self.avals = [Aval(aval.shape, aval.dtype) for aval in body.avals[:count]]
        self.equations = self._recorded_equations(function, word)
        self.captures += [v for v in self.equations.captures if v not in self.captures]

    def _recorded_equations(self, function: Callable[..., Any], word: str) -> Body:
        """Return the equations as a graph of the unknowns; wrong ones are an error at once."""

        def run(x: Any) -> Any:
            found = self.run(function, x)
            check_like(found, x, f"{self.custom.name}: {word} is given {{}}, {name_of(function)} returned {{}}")
            return found

        return recorded_rule(self.custom, function, run, self.tree, self.avals)

    def shift(self, tangents: Sequence[Value | None], y: Sequence[Value], x: Sequence[Value]) -> list[Value | None]:
        """Return how the equations change, at the unknowns `y`, along tangents of what they close over."""
        equations = self.equations
        moves = dict(zip(self.captures, tangents, strict=False))
        seeds = [None if moves[v] is None else new_input(Aval(v.shape, v.dtype), "tangent") for v in equations.captures]
        graph = equations.graph
        moved = push_forward(graph.outputs, graph.inputs[: len(seeds)], seeds)
        return self._at(moved, seeds, [moves[v] for v in equations.captures], y, x)

    def pulled(self, g: Sequence[Value], y: Sequence[Value], x: Sequence[Value]) -> list[Value | None]:
        """Return the cotangents of what the call closes over for those of the equations at the unknowns `y`."""
        graph, captures = self.equations.graph, self.equations.captures
        seeds = [new_input(aval, "cotangent") for aval in self.avals]
        found = pull_back(graph.outputs, graph.inputs[: len(captures)], seeds)
        made = dict(zip(captures, self._at(found, seeds, g, y, x), strict=True))
        return [made.get(v) for v in self.captures]

    def _at(
        self,
        found: Sequence[Value | None],
        seeds: Sequence[Value | None],
        given: Sequence[Value | None],
        y: Sequence[Value],
        x: Sequence[Value],
    ) -> list[Value | None]:
        """Return what was derived from the equations with inputs `seeds`, at the unknowns `y` and with what is `given` for the inputs."""
        there = [(seed, v) for seed, v in zip(seeds, given, strict=True) if seed is not None and v is not None]
        values = tuple(v for v in found if v is not None)
        derived = replace(self.equations, graph=Graph((*self.equations.graph.inputs, *(seed for seed, _ in there)), values))
        made = iter(self.inlined(derived, x, *y[: self.count], *(v for _, v in there)))
        return [None if v is None else next(made) for v in found]


class _RootRule(_ImplicitRule):
    """x's tangent = -tangent_solve(df/dx, df/dp p's tangent); read backwards in reverse mode."""

    def __init__(
        self,
        custom: CustomFunction,
        tree: Tree,
        body: Body,
        printed: int,
        count: int,
        f: Callable[..., Any],
        tangent_solve: Callable[..., Any],
        is_sound: Callable[..., Any] | None,
    ) -> None:
        super().__init__(custom, tree, body, printed, count, f, "f")
        self._f, self._solve, self._is_sound = f, tangent_solve, is_sound

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        return self._f, self._solve, *([] if self._is_sound is None else [self._is_sound])

    def record(self) -> list[Body]:
        graph, own = self.equations.graph, len(self.equations.captures)
        (structure,) = unflatten(self.tree, list(range(self.count)))
        seeds = [new_input(aval, "tangent") for aval in self.avals]
        moved = push_forward(graph.outputs, graph.inputs[own:], seeds)
        linear = Graph((*graph.inputs, *seeds), tuple(zeros_like(v) if t is None else t for t, v in zip(moved, graph.outputs, strict=True)))

        def linearized(x: Any) -> Callable[[Any], Any]:
            @checked("the linear approximation of f that custom_root hands out")
            def approximation(t: Any) -> Any:
                """The derivative of f at the root along t."""
                check_like(t, x, "custom_root: the linear approximation of f takes {}, not {}", weak=True)
                given = [convert(lift(leaf), aval.dtype) for leaf, aval in zip(flatten(t)[0], self.avals, strict=True)]
                values = inline(linear, (*self.equations.captures, *map(lift, flatten(x)[0]), *given))
                return unflatten(flatten(structure)[1], [tracer_of(v) for v in values])

            return approximation

        def run(x: Any, right: Any) -> Any:
            found = self.run(self._solve, linearized(x), right)
            check_like(found, right, f"custom_root: the right-hand side is {{}}, {name_of(self._solve)} returned {{}}")
            return found

        twice = flatten((structure, structure))[1]
        self._tangent = recorded_rule(self.custom, self._solve, run, twice, [*self.avals, *self.avals])
        bodies = [self.equations, self._tangent]
        if self._is_sound is not None:
            found = self.value(range(self.results))  # (root, aux)
            avals = [Aval(aval.shape, aval.dtype) for aval in self.body.avals[: self.results]]
            test = self._is_sound
            self._sound = recorded_rule(self.custom, test, lambda x, aux: test(linearized(x), x, aux), flatten(found)[1], avals)
            bodies.append(self._sound)
        return bodies

    def push(self, tangents: Sequence[Value | None], y: Sequence[Value], *x: Value) -> Sequence[Value | None]:
        self.ready()
        if self._is_sound is None:
            return self._pushed(tangents, y, x)
        (sound,) = self.inlined(self._sound, x, *y[: self.results])

        def kept(v: Value | None) -> Value | None:
            return where_zero(broadcast(sound, v.shape, tuple(range(len(v.shape)))), v) if v is not None and is_float(v.dtype) else v

        # What is not sound must not be multiplied with anything either, not even with 0: it goes in and comes out as 0.
        inside = ([kept(v) or v for v in group] for group in (y, x))
        return [kept(t) for t in self._pushed([kept(t) for t in tangents], *inside)]

    def _pushed(self, tangents: Sequence[Value | None], y: Sequence[Value], x: Sequence[Value]) -> list[Value | None]:
        moved = self.shift(tangents, y, x)
        nothing: list[Value | None] = [None] * len(y)
        if all(t is None for t in moved):
            return nothing
        right = [zeros_like(v) if t is None else t for t, v in zip(moved, y, strict=False)]
        return [*(-t for t in self.inlined(self._tangent, x, *y[: self.count], *right)), *nothing[self.count :]]

    def pull(self, g: Sequence[Value | None], y: Sequence[Value], *x: Value) -> Sequence[Value | NoDerivative | None]:
        return self.transposed(g, y, x, range(len(self.captures)))


class _LinearRule(_ImplicitRule):
    """x's tangent = solve(b's tangent - (dA/dp x) p's tangent), b's cotangent = transpose_solve(x's cotangent)."""

    def __init__(self, custom: CustomFunction, tree: Tree, body: Body, printed: int, count: int, solvers: _Solvers) -> None:
        super().__init__(custom, tree, body, printed, count, solvers.matvec, "matvec")
        self._solvers = solvers
        self._transposed: _LinearRule | None = None

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        return (self._solvers.matvec,)

    def record(self) -> list[Body]:
        solve = self._solvers.transpose_solve
        if self._solvers.symmetric:
            self._transposed = self
        elif solve is not None:
            transpose = self._transpose()

            def run(right: Any) -> Any:
                @checked("the transpose of matvec that custom_linear_solve hands out")
                def vecmat(v: Any) -> Any:
                    """The transpose of matvec."""
                    check_like(v, right, "custom_linear_solve: the transpose of matvec takes {}, not {}", weak=True)
                    given = [convert(lift(leaf), aval.dtype) for leaf, aval in zip(flatten(v)[0], self.avals, strict=True)]
                    values = inline(transpose.graph, (*transpose.captures, *given))
                    return unflatten(flatten(right)[1], [tracer_of(each) for each in values])

                result = self.run(solve, vecmat, right)
                found = _first(result, self._solvers.has_aux, "custom_linear_solve", solve)
                check_like(found, right, f"custom_linear_solve: the right-hand side is {{}}, {name_of(solve)} returned {{}}")
                return found, []

            body = recorded_rule(self.custom, solve, run, self.tree, self.avals)
            other = self._transposed = copy(self)  # with the same list of captures: what one of them takes the other one takes
            other.key, other.body, other.results = f"{self.key}T", body, self.count
            other.equations, other._transposed, other._recorded = transpose, self, True
            return [self.equations, body]
        return [self.equations]

    def _transpose(self) -> Body:
        graph, own = self.equations.graph, len(self.equations.captures)
        seeds = [new_input(aval, "cotangent") for aval in self.avals]
        found = pull_back(graph.outputs, graph.inputs[own:], seeds)
        outputs = tuple(zeros_like(x) if v is None else v for v, x in zip(found, graph.inputs[own:], strict=True))
        unknowns = {v.node for v in graph.inputs[own:]}
        if any(node in unknowns for node in topological(outputs)):
            raise ArgumentError(self.said(f"{name_of(self._solvers.matvec)} is not linear in x"))
        return Body(Graph((*graph.inputs[:own], *seeds), outputs), self.equations.captures, self.equations.out_tree)

    def push(self, tangents: Sequence[Value | None], y: Sequence[Value], *x: Value) -> Sequence[Value | None]:
        self.ready()
        own = len(self.captures)
        moved = self.shift(tangents, y, x)
        right = [t if m is None else -m if t is None else t - m for t, m in zip(tangents[own:], moved, strict=True)]
        if all(t is None for t in right):
            return [None] * len(y)
        found = self.apply([zeros_like(v) if t is None else t for t, v in zip(right, y, strict=False)], x[:own])
        return [*found[: self.count], *(None for _ in y[self.count :])]

    def pull(self, g: Sequence[Value | None], y: Sequence[Value], *x: Value) -> Sequence[Value | NoDerivative | None]:
        self.ready()
        if self._transposed is None:
            raise MissingDerivativeError(
                self.said(
                    "reverse mode solves with the transpose of matvec: give transpose_solve=, or symmetric=True where that is the same"
                )
            )
        own = len(self.captures)
        if all(seed is None for seed in g[: self.count]):
            return [None] * len(x)
        seeds = [zeros_like(v) if seed is None else seed for seed, v in zip(g[: self.count], y, strict=False)]
        found = self._transposed.apply(seeds, x[:own])[: self.count]
        return [*(None if v is None else -v for v in self.pulled(found, y, x)), *found]
