"""Derivatives by differences: `numeric_grad`, and `check_grads`, which holds both modes against them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optree

from staticgrad.api import trace, vjp
from staticgrad.calls.traced import traced
from staticgrad.errors import ArgumentError, DTypeError, GradientCheckError, InvalidValueError, ShapeError
from staticgrad.ir.aval import FLOAT32, is_float
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.pytree import flatten, unflatten
from staticgrad.tracing.record import called
from staticgrad.transforms import Jvp

LEVELS, ORDERS = 24, 6
"""So many steps are tried, each half of the one before; so many powers of the step are extrapolated away."""

TOLERANCE, TOLERANCE_OF_FLOAT32 = 1e-6, 2e-3


# ---- differences -----------------------------------------------------------------------------------------------------------


def derivative_at_zero(f: Callable[[float], np.ndarray], first_step: float, levels: int = LEVELS) -> np.ndarray:
    """Return f'(0) of an array-valued function of one number, in float64.

    Central differences over ever smaller steps, extrapolated to step 0; for each element the estimate that changed least.

    References
    ----------
    C. J. F. Ridders, "Accurate computation of F'(x) and F'(x)F''(x)", Advances in Engineering Software 4 (1982).
    """

    def central(step: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the central difference and the error that the rounding of f alone gives it."""
        ahead, behind = np.asarray(f(step), np.float64), np.asarray(f(-step), np.float64)
        return (ahead - behind) / (2 * step), 2.0**-53 * (np.abs(ahead) + np.abs(behind)) / step

    with np.errstate(all="ignore"):
        first, _ = central(first_step)
        best, error, row = first, np.full(first.shape, np.inf), [first]
        for level in range(1, levels):
            estimate, noise = central(first_step * 0.5**level)
            new = [estimate]
            for k, before in enumerate(row[:ORDERS]):
                new.append((new[k] * 4 ** (k + 1) - before) / (4 ** (k + 1) - 1))
                change = np.maximum(np.abs(new[-1] - new[k]), np.abs(new[-1] - before)) + noise
                better = change < error  # never for NaN
                best, error = np.where(better, new[-1], best), np.where(better, change, error)
            row = new
            if np.all(noise >= error):  # it only grows
                break
    return best


def numeric_grad(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, step: float | None = None) -> Callable[..., Any]:
    """Return a function that estimates the gradient of `f` by central differences with Richardson extrapolation.

    It calls `f` some 50 times for each element: a check of `grad`, not a replacement.

    Parameters
    ----------
    f
        A function that returns one float. Its float32 arguments are passed as float64.
    argnums
        Which positional arguments to differentiate: a number, or a tuple for a tuple of gradients. They may be any pytrees.
    step
        The largest step; by default an eighth of max(1, abs(x)) for each element x. Smaller ones follow.

    Returns
    -------
    Callable
        A function with the arguments of `f`; each gradient has the structure and shapes of its argument, in float64.

    Raises
    ------
    ShapeError, DTypeError
        When `f` does not return a float scalar, or an argument is not of floats.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> np.round(sg.numeric_grad(lambda x: np.sum(np.exp(x)))(np.array([0.0, 1.0])), 6)
    array([1.      , 2.718282])
    """
    name = getattr(f, "__name__", "the function")

    def gradient(*args: Any, **kwargs: Any) -> Any:
        def value(arguments: Sequence[Any]) -> np.ndarray:
            result = np.asarray(called(f, name, *arguments, **kwargs))
            if result.shape:
                raise ShapeError(at_user_line(f"numeric_grad of {name}: the function returned shape {result.shape}, not a scalar"))
            if not is_float(result.dtype):
                raise DTypeError(at_user_line(f"numeric_grad of {name}: the function returned {result.dtype}, not a float"))
            return result

        def gradient_of(number: int) -> Any:
            if not -len(args) <= number < len(args):
                raise InvalidValueError(at_user_line(f"numeric_grad of {name}: argnums={argnums}, but {len(args)} arguments were given"))
            leaves, tree = flatten(args[number])
            point = [_in_float64(leaf) for leaf in leaves]
            for leaf in point:
                if not is_float(leaf.dtype):
                    raise DTypeError(at_user_line(f"numeric_grad of {name}: argument {number} has dtype {leaf.dtype}; pass floats"))

            def partial(place: int, index: tuple[int, ...]) -> np.ndarray:
                def along(distance: float) -> np.ndarray:
                    moved = [leaf.copy() for leaf in point]
                    moved[place][index] += distance
                    arguments = [_all_in_float64(arg) for arg in args]
                    arguments[number] = unflatten(tree, [leaf[()] for leaf in moved])
                    return value(arguments)

                return derivative_at_zero(along, step or max(1.0, abs(float(point[place][index]))) / 8)

            found = [np.array([partial(k, i) for i in np.ndindex(leaf.shape)], np.float64) for k, leaf in enumerate(point)]
            return unflatten(tree, [values.reshape(leaf.shape)[()] for values, leaf in zip(found, point, strict=True)])

        return gradient_of(argnums) if isinstance(argnums, int) else tuple(gradient_of(number) for number in argnums)

    return gradient


def _in_float64(leaf: Any) -> np.ndarray:
    array = np.array(leaf)
    return array.astype(np.float64) if is_float(array.dtype) else array


def _all_in_float64(arg: Any) -> Any:
    leaves, tree = flatten(arg)
    return unflatten(tree, [_in_float64(leaf)[()] for leaf in leaves])


# ---- checking --------------------------------------------------------------------------------------------------------------


def check_grads(
    f: Callable[..., Any],
    args: Iterable[Any],
    order: int = 2,
    modes: Sequence[str] = ("fwd", "rev"),
    atol: float | None = None,
    rtol: float | None = None,
    eps: float | None = None,
) -> None:
    """Check the derivatives of `f` at `args` in both modes, and those of its derivatives up to `order`.

    Forward mode is compared with differences along a random direction; reverse mode with forward mode (with differences where
    `modes` has no `"fwd"`), by <cotangent, tangent of f> = <pullback of the cotangent, tangent>. Each leaf of `args` has its turn.

    Parameters
    ----------
    f
        A function of arrays; arguments and results may be any pytrees. Those of other dtypes than floats are left alone.
    args
        The point to check at.
    order
        How often to differentiate: 2 checks the derivatives of the first derivatives too.
    modes
        `"fwd"`, `"rev"` or both.
    atol, rtol
        Tolerances; by default 1e-6, or 2e-3 where float32 takes part.
    eps
        The largest step of the differences, relative to max(1, abs(x)); by default 1/8. Smaller ones follow.

    Raises
    ------
    GradientCheckError
        Naming the function, the argument, the mode, the order and the two numbers that differ.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> sg.check_grads(lambda x, y: np.sin(x) * y, (np.array([0.1, 2.0]), 3.0))
    """
    wanted = (modes,) if isinstance(modes, str) else tuple(modes)
    if not wanted or set(wanted) - {"fwd", "rev"}:
        raise InvalidValueError(at_user_line(f"check_grads: modes={modes!r}; expected 'fwd', 'rev' or both"))
    if order < 1:
        raise InvalidValueError(at_user_line(f"check_grads: order={order}; expected at least 1"))
    if not isinstance(args, (tuple, list)):
        raise ArgumentError(at_user_line(f"check_grads: args must be a tuple of arguments, not {type(args).__name__}"))
    _Check(wanted, atol, rtol, eps or 0.125, order).run(f, tuple(args), getattr(f, "__name__", repr(f)), 1)


@dataclass(frozen=True)
class _Check:
    """The parameters of one call of `check_grads`."""

    modes: tuple[str, ...]
    atol: float | None
    rtol: float | None
    step: float
    order: int

    def run(self, f: Callable[..., Any], args: tuple[Any, ...], name: str, level: int) -> None:
        """Check f at args, and its derivatives where `level` is below the order."""
        rng = np.random.default_rng(level)
        pushforward = traced(f).derive(Jvp(), "jvp")
        leaves, tree = flatten(args)
        arrays = [np.array(leaf) for leaf in leaves]
        directions = [_random_like(array, rng) for array in arrays]
        active = [k for k, array in enumerate(arrays) if is_float(array.dtype) and array.size]
        if not active:
            raise DTypeError(at_user_line(f"check_grads of {name}: no argument holds floats"))

        def only(k: int) -> list[np.ndarray]:
            return [d if j == k else np.zeros_like(d) for j, d in enumerate(directions)]

        def tangent_of(k: int) -> list[np.ndarray]:
            return _arrays(pushforward(args, unflatten(tree, [t[()] for t in only(k)]))[1])

        if "fwd" in self.modes:
            for k in active:
                where = f"forward mode, order {level}, {_path(args, k)}"
                for found, expected in zip(tangent_of(k), self._differences(f, arrays, tree, only(k)), strict=True):
                    self._compare(f"the JVP of {name}", where, found, expected, "differences", _lowest(arrays, [found]))
            if level < self.order:
                tangents = unflatten(tree, [d[()] for d in directions])
                self.run(pushforward, (args, tangents), f"the JVP of {name}", level + 1)
        if "rev" in self.modes:
            value, pullback = vjp(f, *args)
            outputs, out_tree = flatten(value)
            cotangents = [_random_like(np.array(y), rng) for y in outputs]
            gradients = _arrays(pullback(unflatten(out_tree, [c[()] for c in cotangents])))
            for k in active:
                by_reverse = _inner([gradients[k]], [directions[k]])
                forward = "fwd" in self.modes
                by_other = _inner(tangent_of(k) if forward else self._differences(f, arrays, tree, only(k)), cotangents)
                where = f"reverse mode, order {level}, {_path(args, k)}"
                source = "forward mode" if forward else "differences"
                self._compare(f"the VJP of {name}", where, by_reverse, by_other, source, _lowest(arrays, cotangents))
            if level < self.order:
                self.run(_pulled_back(f), args, f"the VJP of {name}", level + 1)

    def _differences(self, f: Callable[..., Any], arrays: list[np.ndarray], tree: Any, direction: list[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the derivative of each leaf of f's result along `direction`."""
        shapes: list[tuple[int, ...]] = []
        scale = max(1.0, *(float(np.max(np.abs(x), initial=0.0)) for x, t in zip(arrays, direction, strict=True) if np.any(t)))

        def along(distance: float) -> np.ndarray:
            moved = [_in_float64(x) for x in arrays]
            for k, t in enumerate(direction):
                if is_float(t.dtype):
                    moved[k] = moved[k] + distance * t.astype(np.float64)
            results = _arrays(f(*unflatten(tree, [x[()] for x in moved])))
            shapes[:] = [y.shape for y in results]
            kept = [y if is_float(y.dtype) else np.zeros(y.shape) for y in results]
            return np.concatenate([np.ravel(y) for y in kept]) if kept else np.zeros(0)

        flat = derivative_at_zero(along, self.step * scale, levels=16)
        start = 0
        for shape in shapes:
            size = int(np.prod(shape))
            yield flat[start : start + size].reshape(shape)
            start += size

    def _compare(self, what: str, where: str, found: Any, expected: Any, source: str, single: bool) -> None:
        default = TOLERANCE_OF_FLOAT32 if single else TOLERANCE
        atol = default if self.atol is None else self.atol
        rtol = default if self.rtol is None else self.rtol
        x, y = np.asarray(found, np.float64), np.asarray(expected, np.float64)
        with np.errstate(all="ignore"):
            off = ~(np.abs(x - y) <= atol + rtol * np.maximum(np.abs(x), np.abs(y)))
        if not off.any():
            return
        index = tuple(int(i) for i in np.argwhere(off)[0])
        place = f", element {index} of the result" if index else ""
        raise GradientCheckError(
            f"{what} is wrong ({where}{place}): it says {x[index]!s}, {source} {'say' if source == 'differences' else 'says'} {y[index]!s}"
        )


def _pulled_back(f: Callable[..., Any]) -> Callable[..., Any]:
    def pulled_back(*args: Any) -> Any:
        value, pullback = vjp(f, *args)
        return pullback(value)

    options = traced(f)._options
    return trace(
        pulled_back,
        backend=options.backend,
        printer=options.printer,
        threads=options.threads,
        fastmath=options.fastmath,
        max_memory=options.max_memory,
    )


def _arrays(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in flatten(tree)[0]]


def _random_like(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(rng.standard_normal(x.shape)).astype(x.dtype) if is_float(x.dtype) else np.zeros_like(x)


def _inner(xs: Iterable[np.ndarray], ys: Iterable[np.ndarray]) -> float:
    pairs = [(x, y) for x, y in zip(xs, ys, strict=True) if is_float(y.dtype)]
    return float(sum(np.sum(x.astype(np.float64) * y.astype(np.float64)) for x, y in pairs))


def _lowest(*groups: list[np.ndarray]) -> bool:
    """Return whether float32 takes part."""
    return any(x.dtype == FLOAT32 for group in groups for x in group)


def _path(args: tuple[Any, ...], k: int) -> str:
    number, *rest = optree.tree_paths(args)[k]  # type: ignore[arg-type]
    return f"argument {number}" + "".join(f"[{key!r}]" for key in rest)
