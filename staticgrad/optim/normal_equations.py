"""Residuals made linear: one compiled program gives them, their Jacobian J, J^T J and J^T r; and solutions of normal equations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

import staticgrad.numpy as snp
from staticgrad.ad.forward import tangents
from staticgrad.ad.jacobian import of_unit_vectors
from staticgrad.calls.traced import Traced, traced
from staticgrad.errors import DTypeError, InvalidValueError, ShapeError
from staticgrad.ir.aval import FLOAT64, Aval, is_float
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Value, constant, full, new_input
from staticgrad.ir.source import at_user_line
from staticgrad.ops.casts import cast
from staticgrad.ops.contract import contract
from staticgrad.ops.control import inline_calls
from staticgrad.ops.movement import concatenate, reshape
from staticgrad.ops.powers import sqrt
from staticgrad.ops.reduce import sum_
from staticgrad.optim.optimizer import operand, parameters
from staticgrad.tracing.context import tracing
from staticgrad.tracing.pytree import Signature, Tree, flatten, tree_map, unflatten
from staticgrad.tracing.record import Program
from staticgrad.tracing.tracer import Tracer
from staticgrad.transforms import Source

EPSILON = float(np.finfo(np.float64).eps)


class Linearization(NamedTuple):
    """Residuals and their derivatives at a point; m residuals and n parameters, both in the order of their leaves."""

    value: Any
    """What the function of the residuals returned."""
    residuals: np.ndarray
    """All residuals, (m,)."""
    transposed: Any
    """The transposed Jacobian, (n, m): one row a parameter. An array; sparse where the method is."""
    gram: Any
    """J^T J, (n, n), in float64; likewise."""
    gradient: np.ndarray
    """J^T r, the gradient of the cost, (n,), in float64."""
    columns: np.ndarray
    """The lengths of the columns of the Jacobian, (n,), in float64."""
    cost: np.ndarray
    """Half of the sum of the squares of the residuals, in float64."""

    @property
    def jacobian(self) -> Any:
        """The Jacobian, (m, n)."""
        return self.transposed.T

    @property
    def finite(self) -> Any:
        """Whether neither the residuals nor their derivatives are infinite or NaN."""
        return np.isfinite(self.cost) & np.isfinite(self.gram).all() & np.isfinite(self.gradient).all()

    @property
    def wrong_parameters(self) -> np.ndarray:
        """The parameters by which some derivative is not finite."""
        return np.flatnonzero(~np.isfinite(self.transposed).all(axis=1))

    def inverse(self, damping: Any) -> Callable[[Any], Any]:
        """Return the function of b that gives the x of (J^T J + diag(damping)) x = b."""
        return damped_inverse(self.gram, damping)

    def restricted(self, free: Any) -> Linearization:
        """Return this where only some parameters can move: the rows and columns of the others in J^T J are 0."""
        return self._replace(gram=np.where(free & free[:, None], self.gram, 0))

    @property
    def norm(self) -> Any:
        """The length of the vector of residuals."""
        return np.sqrt(2 * self.cost)


class Layout:
    """How a pytree of parameters and a vector stand for each other."""

    def __init__(self, params: Any, word: str) -> None:
        self._leaves, self._tree = parameters(params, word)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the leaves."""
        return [leaf.shape for leaf in self._leaves]

    @property
    def structure(self) -> Tree:
        """The structure of the pytree."""
        return self._tree

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(leaf.size for leaf in self._leaves)

    @property
    def vector(self) -> Any:
        """The parameters, one after the other, in float64."""
        return snp.concatenate([leaf.ravel() for leaf in self._leaves], dtype=np.float64) if self._leaves else np.zeros(0)

    @property
    def epsilon(self) -> float:
        """The relative precision of the least precise parameter."""
        return max((float(np.finfo(leaf.dtype).eps) for leaf in self._leaves), default=EPSILON)

    def tree(self, vector: np.ndarray) -> Any:
        """Return a vector as a pytree; its leaves have the dtypes of the parameters, which may round it."""
        start, leaves = 0, []
        with np.errstate(over="ignore"):
            for leaf in self._leaves:
                leaves.append(vector[start : start + leaf.size].reshape(leaf.shape).astype(leaf.dtype)[()])
                start += leaf.size
        return unflatten(self._tree, leaves)


# ---- the programs


@dataclass(frozen=True)
class NormalEquations:
    """A function of residuals as one program that gives all of `Linearization`; the derivatives are pushed forward in batches."""

    def __call__(self, base: Source, signature: Signature) -> Program:
        program, graph, inputs, results = _residuals(base, signature)
        unknowns = sum(x.aval.size for x in inputs)
        if unknowns > MOST_PARAMETERS:
            raise InvalidValueError(
                at_user_line(
                    f"least_squares: {base.name} has {unknowns} parameters, and J^T J would take {8e-9 * unknowns**2:.3g} GB; where it is "
                    "sparse, method=sg.optim.levenberg_marquardt(sparse=True); otherwise so many are trained by their gradient alone: "
                    "sg.grad with an optimiser such as sg.optim.adam"
                )
            )
        residuals = _joined([reshape(v, (v.aval.size,)) for v in results], 0)
        rows = _joined([_pushed(residuals, x) for x in inputs], 0)
        wide, column = cast(rows, FLOAT64), cast(residuals, FLOAT64)
        gram = contract(wide, wide, (0, 1), (2, 1), (0, 2))
        gradient = contract(wide, column, (0, 1), (1,), (0,))
        columns = sqrt(sum_(wide * wide, (1,)))
        cost = contract(column, column, (0,), (0,), ()) * constant(0.5)
        outputs = (*results, residuals, rows, gram, gradient, columns, cost)
        count = len(results)
        shape = Linearization(unflatten(program.out_tree, list(range(count))), *range(count, count + 6))
        return _derived(program, graph, signature, graph.inputs, outputs, flatten(shape)[1], f"least_squares({base.name})")


@dataclass(frozen=True)
class SecondDerivative:
    """A function of residuals as the program of their second derivative along a direction.

    It is called as the function is, with the pair (params, direction) in place of params.
    """

    def __call__(self, base: Source, signature: Signature) -> Program:
        ((params, direction), *rest), kwargs = unflatten(signature.tree, list(range(len(signature.avals))))
        leaves, tree = flatten(((params, *rest), kwargs))
        inner = Signature(tree, tuple(signature.avals[k] for k in leaves), signature.static)
        program, graph, inputs, results = _residuals(base, inner)
        seeds = [new_input(Aval(x.shape, x.dtype), "direction") for x in inputs]
        first = tangents(results, inputs, seeds)
        moving = [v for v in first if v is not None]
        second = dict(zip(moving, tangents(moving, inputs, seeds), strict=True))
        curved = [None if v is None else second[v] for v in first]
        flat = _joined(
            [reshape(full(r.shape, 0, r.dtype) if v is None else v, (r.aval.size,)) for v, r in zip(curved, results, strict=True)], 0
        )
        place = dict(zip(flatten(direction)[0], seeds, strict=True)) | dict(zip(leaves, graph.inputs, strict=False))
        arguments = (*(place[k] for k in range(len(signature.avals))), *program.captures)
        return _derived(program, graph, signature, arguments, (flat,), flatten(0)[1], f"second_derivative({base.name})")


def _residuals(base: Source, signature: Signature) -> tuple[Program, Graph, list[Value], list[Value]]:
    """Return the program of the residuals, its graph, the parameters and the residuals, which must be floats."""
    program = base.program(signature)
    graph = inline_calls(program.graph)
    args, _ = unflatten(signature.tree, list(range(len(signature.avals))))
    inputs = [graph.inputs[k] for k in flatten(args[0])[0]]
    results = list(graph.outputs[: program.results])
    for v in results:
        if not is_float(v.dtype):
            raise DTypeError(at_user_line(f"least_squares: {base.name} returned {v.dtype}, which has no derivative; residuals are floats"))
    count, unknowns = sum(v.aval.size for v in results), sum(v.aval.size for v in inputs)
    if not count or not unknowns:
        raise ShapeError(at_user_line(f"least_squares: {base.name} has {count} residuals and {unknowns} parameters; there must be some"))
    return program, graph, inputs, results


MOST_PARAMETERS = 20_000
"""With so many, J^T J takes 3.2 GB."""


def _pushed(residuals: Value, x: Value) -> Value:
    """Return the derivatives by each element of x as rows: (size of x, number of residuals)."""
    rows = of_unit_vectors(lambda direction: tangents([residuals], [x], [direction]), x.aval)[0]
    return full((x.aval.size, residuals.aval.size), 0, residuals.dtype) if rows is None else rows


def _joined(values: Sequence[Value], axis: int) -> Value:
    """Return values one after the other, in the dtype that holds them all."""
    dtype = np.result_type(*(v.dtype for v in values))
    converted = [cast(v, dtype) for v in values]
    return converted[0] if len(converted) == 1 else concatenate(converted, axis)


def _derived(
    program: Program, graph: Graph, signature: Signature, inputs: Sequence[Value], outputs: Sequence[Value], out_tree: Tree, name: str
) -> Program:
    """Return a program made of that of the residuals: it keeps their guards, and shows what they print."""
    printed = graph.outputs[program.results :]
    derived = Graph(tuple(inputs), (*outputs, *printed), graph.outputs, name)
    return Program(derived, signature, out_tree, program.guards, program.captures, program.prints)


class Residuals:
    """A function of residuals with its programs, so that each call of them goes straight to machine code."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._traced = traced(function)
        self._linear = self._traced.derive(NormalEquations(), "least_squares")

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Residuals:
        """Return a function as residuals; itself if it is such."""
        return function if isinstance(function, cls) else cls(function)

    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the residuals at `params`, as the function does."""
        return self._traced(params, *args, **kwargs)

    def linearize(self, params: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Linearization:
        """Return residuals, Jacobian, J^T J, J^T r and cost at `params`."""
        value, *rest = self._linear(params, *args, **kwargs)
        return Linearization(value, *map(operand, rest))  # of tensors if there are any among the data

    def second_derivative(self, params: Any, direction: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return the second derivative of the residuals along `direction`, (m,)."""
        return operand(self._second((params, direction), *args, **kwargs))

    @cached_property
    def _second(self) -> Traced:
        return self._traced.derive(SecondDerivative(), "second_derivative")


# ---- small linear algebra, on arrays and traced arrays


def chosen(flag: Any, new: Any, old: Any) -> Any:
    """Return the pytree `new` if the flag holds, otherwise `old`, which is like it."""
    if isinstance(flag, Tracer):
        return tree_map(lambda x, y: np.where(flag, x, y), new, old)
    return new if flag else old


def length(vector: Any) -> Any:
    """Return the Euclidean length of a vector, as `np.linalg.norm` in a fraction of its time."""
    return np.sqrt(vector @ vector)


def damped_inverse(gram: Any, damping: Any) -> Callable[[Any], Any]:
    """Return the function of b that gives the x of (J^T J + diag(damping)) x = b.

    Where the matrix is singular, x is the shortest of those that come closest; in a traced function it holds infinities or NaN.

    The unknowns are first scaled so that the matrix has a diagonal of ones, so the units of the parameters do not matter.

    Parameters
    ----------
    gram
        J^T J, (n, n).
    damping
        What is added to its diagonal, (n,), at least 0.

    Examples
    --------
    >>> import numpy as np
    >>> damped_inverse(np.diag([4.0, 1e18]), np.array([4.0, 0.0]))(np.array([8.0, 1e9]))
    array([1.e+00, 1.e-09])
    >>> damped_inverse(np.ones((2, 2)), np.zeros(2))(np.array([2.0, 2.0]))
    array([1., 1.])
    """
    diagonal = gram.diagonal() + damping
    damped_enough = np.isfinite(diagonal).all()  # otherwise too much for any step
    root = np.sqrt(diagonal)
    scale = np.where(root == 0, 1, root)  # 0 for a parameter without any influence
    matrix = np.where(np.eye(len(gram), dtype=bool), diagonal / scale / scale, gram / scale / scale[:, None])
    if tracing():
        return lambda right: np.where(damped_enough, snp.linalg.solve(matrix, right / scale) / scale, 0)
    return _inverse(matrix, scale) if damped_enough else np.zeros_like


def _inverse(matrix: np.ndarray, scale: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    least = 4 * len(matrix) * EPSILON
    try:
        lower = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        lower = np.zeros((1, 1))
    if lower.diagonal().min() ** 2 > least:
        inverse = np.linalg.inv(lower) / scale
        return lambda right: inverse.T @ (inverse @ right)
    values, vectors = np.linalg.eigh(matrix)
    seen = values > least * values[-1]
    shortest = vectors[:, seen].T / scale
    return lambda right: shortest.T @ ((shortest @ right) / values[seen])


def inverse_gram(transposed: np.ndarray) -> np.ndarray | None:
    """Return the inverse of J^T J, from J itself: twice the digits that J^T J would give; None where the columns are dependent.

    Examples
    --------
    >>> import numpy as np
    >>> inverse_gram(np.array([[2.0, 0.0, 0.0], [0.0, 4.0, 3.0]]))
    array([[0.25, 0.  ],
           [0.  , 0.04]])
    """
    jacobian = transposed.T.astype(np.float64)
    if len(jacobian) < len(transposed) or not np.all(np.isfinite(jacobian)):
        return None
    scale = np.linalg.norm(jacobian, axis=0)
    scale[scale == 0] = 1
    _, values, vectors = np.linalg.svd(np.linalg.qr(jacobian / scale, mode="r"))
    if values[-1] <= max(jacobian.shape) * np.finfo(transposed.dtype).eps * values[0]:
        return None
    root = vectors.T / values / scale[:, None]
    inverse: np.ndarray = root @ root.T
    return inverse
