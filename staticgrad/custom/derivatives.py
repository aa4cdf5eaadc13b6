"""`custom_vjp` and `custom_jvp`: functions that come with derivatives of their own."""

from __future__ import annotations

import functools
import inspect
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from staticgrad.calls.traced import traced
from staticgrad.custom.modes import call_with_pullback, call_with_tangents
from staticgrad.custom.rules import CustomFunction, name_of
from staticgrad.errors import ArgumentError, InvalidValueError, MissingDerivativeError, ShapeError, UnsupportedError
from staticgrad.ir.options import positions
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.context import tracing
from staticgrad.tracing.directions import aligned
from staticgrad.tracing.protocol import taker
from staticgrad.tracing.pytree import flatten, unflatten
from staticgrad.tracing.record import called
from staticgrad.tracing.static_arguments import static_positions
from staticgrad.tracing.tracer import Tracer


class _Custom(ABC):
    """A function with derivatives of its own; outside of a trace it is the function itself."""

    guarded: tuple[str, ...] = ()
    """Attributes whose change is a reason to trace anew."""

    def __init__(
        self, fun: Callable[..., Any], nondiff_argnums: int | Sequence[int] = (), nondiff_argnames: str | Sequence[str] = ()
    ) -> None:
        word = type(self).__name__
        if not callable(fun):
            raise ArgumentError(at_user_line(f"{word}: expected a function, not {type(fun).__name__}"))
        names = (nondiff_argnames,) if isinstance(nondiff_argnames, str) else tuple(nondiff_argnames)
        named = static_positions(fun, names, f"{word}: nondiff_argnames") if names else {}
        self._function = fun
        self._nondiff = (*positions(f"{word}: nondiff_argnums", nondiff_argnums), *(k for k in named.values() if k is not None))
        functools.update_wrapper(self, fun, updated=())

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind to an instance as a function does: with `nondiff_argnums=(0,)`, `self` is handed to the rules."""
        return self if instance is None else types.MethodType(self, instance)

    @property
    def static_argnames(self) -> tuple[str, ...]:
        """The parameters that are no arrays: they are static in transforms of the function."""
        try:
            parameters = [p.name for p in inspect.signature(self._function).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        except (TypeError, ValueError):
            return ()
        return tuple(parameters[k] for k in self._nondiff if -len(parameters) <= k < len(parameters))

    def _checked(self, *rules: Any) -> None:
        """Raise unless rules are functions."""
        for rule in rules:
            if not callable(rule):
                raise ArgumentError(at_user_line(f"a rule of {name_of(self._function)} must be a function, not {type(rule).__name__}"))

    def _check_symbolic_zeros(self, wanted: bool) -> None:
        if wanted:
            raise UnsupportedError(
                at_user_line(
                    f"{name_of(self._function)}: symbolic_zeros=True is not supported: rules are given arrays, of zeros where nothing "
                    "changes, and what is multiplied by these is not computed; leave symbolic_zeros out, and return None for zero"
                )
            )

    @property
    @abstractmethod
    def _is_complete(self) -> bool:
        """Whether the rules are given."""

    @abstractmethod
    def _call(self, given: _Given) -> Any:
        """Return the result of a call inside of a trace."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the function returns."""
        name = name_of(self._function)
        if not self._is_complete:
            word = type(self).__name__
            how = "defvjp(forward, backward)" if word == "custom_vjp" else "defjvp(rule)"
            raise MissingDerivativeError(at_user_line(f"{name} is a {word} function without rules: give them with {name}.{how}"))
        given = _Given(self, self._function, self._nondiff, self._positional(args, kwargs))
        if taker(given.arrays) is not None:
            return traced(given.without_options(self))(*given.arrays)
        return self._call(given) if tracing() else self._function(*given.args)

    def _positional(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return all arguments by position, default values included."""
        name = name_of(self._function)
        try:
            known = inspect.signature(self._function) if not isinstance(self._function, np.ufunc) else None
        except (TypeError, ValueError):
            known = None
        if known is None:
            if kwargs:
                raise ArgumentError(at_user_line(f"{name}: pass {', '.join(kwargs)} by position, as its rules need it"))
            return args
        try:
            bound = known.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentError(at_user_line(f"{name}{known}: {error}")) from None
        if bound.kwargs:
            raise ArgumentError(
                at_user_line(
                    f"{name}{known}: {', '.join(bound.kwargs)} cannot be given by position, as its rules need it; see functools.partial"
                )
            )
        bound.apply_defaults()
        return bound.args


class _Given:
    """The arguments of a call: arrays, and others that the rules get as they are."""

    def __init__(self, owner: _Custom, function: Callable[..., Any], nondiff: tuple[int, ...], args: tuple[Any, ...]) -> None:
        name = name_of(function)
        self.args = args
        for k in nondiff:
            if not -len(args) <= k < len(args):
                raise InvalidValueError(at_user_line(f"{name}: nondiff_argnums={nondiff}, but there are {len(args)} arguments"))
        self._others = sorted({k % len(args) for k in nondiff})
        self.options = tuple(args[k] for k in self._others)
        for k, option in zip(self._others, self.options, strict=True):
            if any(isinstance(leaf, Tracer) for leaf in flatten(option)[0]):
                raise ArgumentError(
                    at_user_line(
                        f"{name}: argument {k} is in nondiff_argnums, and a traced array was passed; "
                        "make it an ordinary argument and let the rule return None (zero) for it"
                    )
                )
        self.arrays = tuple(arg for k, arg in enumerate(args) if k not in self._others)
        self.custom = CustomFunction(name, self.without_options(function), owner, self.options)

    def without_options(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of all arguments as one of the arrays alone."""
        if not self._others:
            return function

        def of_arrays(*arrays: Any) -> Any:
            args = list(arrays)
            for k, option in zip(self._others, self.options, strict=True):
                args.insert(k, option)
            return function(*args)

        of_arrays.__name__ = name_of(function)
        try:
            known = inspect.signature(function)
        except (TypeError, ValueError):
            return of_arrays
        kept = [p for k, p in enumerate(known.parameters.values()) if k not in self._others]
        of_arrays.__signature__ = known.replace(parameters=kept)  # type: ignore[attr-defined]
        return of_arrays

    def after_options(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a rule, which takes the options first, as one that has them."""
        if not self._others:
            return function

        def with_options(*args: Any) -> Any:
            return function(*self.options, *args)

        with_options.__name__ = name_of(function)
        return with_options


class custom_vjp(_Custom):
    """Return a function whose reverse-mode derivative is given by hand.

    Parameters
    ----------
    fun
        A function of arrays, numbers and containers of these.
    nondiff_argnums
        Positions of arguments that are no arrays, such as functions or options; the rules get them, first, as they are. Transforms of
        the function take them as static. Of a method, `self` is one.
    nondiff_argnames
        Names of further ones.

    Returns
    -------
    custom_vjp
        `fun`, to be completed with `.defvjp(forward, backward)`. `forward` takes the arguments of `fun` and returns
        `(value, residuals)`; `backward` takes those of `nondiff_argnums`, the residuals and the cotangent of the value, and returns a
        tuple with a cotangent for each of the other arguments, None for zero. Residuals that are no arrays are handed on as they are.
        The rules are recorded when the function is differentiated; they may be differentiated and mapped like any code. What they
        and `fun` close over is a constant: differentiating by it is an error. So is forward mode; `custom_jvp` serves both modes.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError
        When the function is differentiated, if a rule returns what does not fit.
    MissingDerivativeError
        When it is called without rules, or differentiated in forward mode.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> @sg.custom_vjp
    ... def clip_gradient(x):
    ...     return x
    >>> clip_gradient.defvjp(lambda x: (x, None), lambda _, g: (np.clip(g, -1.0, 1.0),))
    >>> sg.grad(lambda x: np.sum(clip_gradient(x) ** 3))(np.array([0.1, 5.0]))
    array([0.03, 1.  ])
    """

    guarded = ("_forward", "_backward")
    _forward: Callable[..., Any] | None = None
    _backward: Callable[..., Any] | None = None

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any], symbolic_zeros: bool = False, optimize_remat: bool = False) -> None:
        """Give the rules: `fwd(*args) -> (value, residuals)` and `bwd(*nondiff, residuals, cotangent) -> cotangents`.

        `symbolic_zeros` and `optimize_remat` are JAX's. The first may only be False; the second changes nothing, as what nobody reads
        of a forward rule is not computed in any case.
        """
        self._checked(fwd, bwd)
        self._check_symbolic_zeros(symbolic_zeros)
        self._forward, self._backward = fwd, bwd

    @property
    def _is_complete(self) -> bool:
        return self._forward is not None

    def _call(self, given: _Given) -> Any:
        assert self._forward is not None and self._backward is not None
        forward, backward = given.without_options(self._forward), given.after_options(self._backward)
        return call_with_pullback(given.custom, forward, backward, given.arrays)


class custom_jvp(_Custom):
    """Return a function whose derivative is given by hand, as a rule for tangents that serves both modes.

    Parameters
    ----------
    fun, nondiff_argnums, nondiff_argnames
        As for `custom_vjp`.

    Returns
    -------
    custom_jvp
        `fun`, to be completed with `.defjvp(rule)`, also as a decorator. The rule takes the arguments of `nondiff_argnums`, a tuple
        of the others and a tuple of their tangents, and returns `(value, tangent)`; it must be linear in the tangents, as reverse
        mode is the rule read backwards. It is recorded when the function is differentiated, and may itself be differentiated and
        mapped. What it and `fun` close over is a constant: differentiating by it is an error.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError
        When the function is differentiated, if the rule returns what does not fit.
    MissingDerivativeError
        When it is called without a rule.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> @sg.custom_jvp
    ... def log1pexp(x):
    ...     return np.log(1 + np.exp(x))
    >>> @log1pexp.defjvp
    ... def rule(primals, tangents):
    ...     (x,), (t,) = primals, tangents
    ...     return log1pexp(x), t * (1 - 1 / (1 + np.exp(x)))
    >>> sg.grad(log1pexp)(100.0)
    np.float64(1.0)
    """

    guarded = ("_rule",)
    _rule: Callable[..., Any] | None = None

    def defjvp(self, jvp: Callable[..., Any], symbolic_zeros: bool = False) -> Callable[..., Any]:
        """Give the rule, `jvp(*nondiff, primals, tangents) -> (value, tangent)`; returns it. `symbolic_zeros` may only be False."""
        self._checked(jvp)
        self._check_symbolic_zeros(symbolic_zeros)
        self._rule = jvp
        return jvp

    def defjvps(self, *jvps: Callable[..., Any] | None) -> None:
        """Give a rule for each argument alone, `jvp(tangent, value, *args) -> tangent of the value`, None for zero; they are added up."""
        if self._nondiff:
            raise ArgumentError(at_user_line(f"{name_of(self._function)} has nondiff_argnums, which defjvps does not know; use defjvp"))
        self._checked(*(jvp for jvp in jvps if jvp is not None))

        def rule(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
            if len(jvps) != len(primals):
                raise ArgumentError(
                    at_user_line(f"{name_of(self._function)} has {len(primals)} arguments, but defjvps was given {len(jvps)} rules")
                )
            value = self(*primals)
            leaves, tree = flatten(value)
            total: list[Any] = [None] * len(leaves)
            for jvp, t in zip(jvps, tangents, strict=True):
                if jvp is not None:
                    made = called(jvp, f"{name_of(jvp)}, a rule of {name_of(self._function)}, ", t, value, *primals)
                    parts = self._parts(made, value, jvp)
                    total = [y if x is None else x if y is None else x + y for x, y in zip(total, parts, strict=True)]
            return value, unflatten(tree, total)

        self._rule = rule

    def _parts(self, made: Any, value: Any, rule: Callable[..., Any]) -> list[Any]:
        """Return the leaves of a tangent that the rule for one argument returned, or raise where they are not like those of the value."""
        both = f"{name_of(self._function)}: {name_of(rule)} must return a tangent like the value, {{}}, not {{}}"
        try:
            parts = aligned(value, made)
        except ValueError:
            raise ArgumentError(at_user_line(both.format(flatten(value)[1], flatten(made)[1]))) from None
        for part, leaf in zip(parts, flatten(value)[0], strict=True):
            if part is not None and np.shape(part) != np.shape(leaf):
                raise ShapeError(at_user_line(both.format(f"of shape {np.shape(leaf)}", f"of shape {np.shape(part)}")))
        return parts

    @property
    def _is_complete(self) -> bool:
        return self._rule is not None

    def _call(self, given: _Given) -> Any:
        assert self._rule is not None
        return call_with_tangents(given.custom, given.after_options(self._rule), given.arrays)
