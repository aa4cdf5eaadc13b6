"""The public functions: `trace` and the transforms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

from staticgrad.calls.linear_part import LinearPart
from staticgrad.calls.records import Options, checked_memory
from staticgrad.calls.traced import Traced, traced
from staticgrad.errors import ArgumentError
from staticgrad.ir.options import positions
from staticgrad.ir.source import at_user_line
from staticgrad.ops.control import stop_gradient as stop_gradient_value
from staticgrad.tracing.directions import with_zeros
from staticgrad.tracing.pytree import flatten, leaf_aval, tree_map, unflatten
from staticgrad.tracing.record import checked
from staticgrad.tracing.tracer import Tracer, tracer_of
from staticgrad.transforms import Grad, Jvp, Linearize, Vjp, Vmap


@overload
def trace(
    fn: Callable[..., Any],
    *,
    static_argnames: str | Iterable[str] = (),
    backend: str | None = None,
    printer: str | None = None,
    threads: int | None = None,
    fastmath: bool | None = None,
    max_memory: int | str | None = None,
) -> Traced: ...
@overload
def trace(
    fn: None = None,
    *,
    static_argnames: str | Iterable[str] = (),
    backend: str | None = None,
    printer: str | None = None,
    threads: int | None = None,
    fastmath: bool | None = None,
    max_memory: int | str | None = None,
) -> Callable[[Callable[..., Any]], Traced]: ...
def trace(
    fn: Callable[..., Any] | None = None,
    *,
    static_argnames: str | Iterable[str] = (),
    backend: str | None = None,
    printer: str | None = None,
    threads: int | None = None,
    fastmath: bool | None = None,
    max_memory: int | str | None = None,
) -> Traced | Callable[[Callable[..., Any]], Traced]:
    """Return `fn` as a function that is recorded once for each signature, compiled, and reused.

    Parameters
    ----------
    fn
        A function of arrays, numbers and containers of these that is written with NumPy.
    static_argnames
        Names of arguments that are options: any hashable value; a new value is a new trace.
    backend
        `"cpu"`, `"cuda"` or `"interp"` (the NumPy reference interpreter); by default `STATICGRAD_BACKEND` or `"cpu"`.
    printer
        The printer that writes what is compiled for CPUs: `"llvm"`, which compiles faster, or `"numba"`; both compute the same bits.
        By default `STATICGRAD_PRINTER` or `"llvm"` (`"numba"` under `NUMBA_DISABLE_JIT`, where the source runs as plain Python).
    threads
        How many threads a call may use; by default `STATICGRAD_THREADS`, or as many as there are processors that the process may run
        on. Only loops that take a core some 50 microseconds are shared among threads, and results have the same bits for any number.
    fastmath
        Whether results may differ in their last digits, so that less has to be computed. Multiplication and addition become one
        instruction that rounds once; a division by a number, or by one value for a whole row, becomes a product with the reciprocal;
        constant factors are multiplied together; `sqrt(x * x)`, `log(exp(x))`, `x ** 0.5` and their like become simpler where that
        is safe. `a * b - c * d` need not be 0 where both products are equal. What would overflow or underflow on the way may not:
        infinities and NaN that come from there differ, and a divisor below the least normal number may count as 0. All else
        stays: `isnan`, `isinf` and `isfinite` tell the truth, NaN is never assumed away, sums keep their order, and the same
        input gives the same bits. The interpreter takes no notice. By default results keep every bit.
    max_memory
        The most bytes that outputs and workspace of a call may take together, as `.lower(...).memory` tells them: a whole number, or a
        text such as `"64MB"` or `"1.5GiB"`. Where more would be needed, the compiler chooses what the backward pass computes anew
        instead of reading what the forward pass kept, with as little additional work as it can. Results keep every bit. Arguments and
        constants do not count. The interpreter takes no notice.

    Returns
    -------
    Traced
        Call it like `fn`. A keyword `out`, where `fn` has no parameter of that name, holds arrays that receive the results: it has
        the structure of the result, and is returned. `.lower(...)` shows the graph and the emitted source, `.cache_info()` what was
        compiled.

    Raises
    ------
    StaticgradError
        Whatever a user can do wrong; the message names the line in `fn`. A `max_memory` that is too small is a `ValueError` that names
        the least that is enough.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> @sg.trace
    ... def energy(x):
    ...     return np.sum(x ** 2) / 2
    >>> energy(np.array([3.0, 4.0]))
    np.float64(12.5)
    >>> value = np.empty(())
    >>> energy(np.array([3.0, 4.0]), out=value) is value
    True
    """
    names = (static_argnames,) if isinstance(static_argnames, str) else tuple(static_argnames)
    options = Options(names, backend, printer, threads, fastmath, checked_memory(max_memory))
    if fn is None:
        return lambda function: traced(function, options)
    return traced(fn, options)


def grad(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Traced:
    """Return the gradient function of the scalar function `f`.

    Parameters
    ----------
    f
        A function that returns one float (with `has_aux` a pair of it and anything else).
    argnums
        Which positional arguments to differentiate: a number, or a tuple for a tuple of gradients.
    has_aux
        Whether `f` returns `(value, aux)`; then `(gradient, aux)` is returned.

    Returns
    -------
    Traced
        A function with the arguments of `f`; each gradient has the structure, shapes and dtypes of its argument.

    Raises
    ------
    ShapeError, DTypeError
        When `f` does not return a float scalar, or an argument is not of floats.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> sg.grad(lambda x: np.sum(np.sin(x)))(np.zeros(3))
    array([1., 1., 1.])
    """
    return traced(f).derive(Grad(checked_argnums(argnums), has_aux, False, "grad"), "grad")


def value_and_grad(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Traced:
    """Return a function that gives the value of `f` and its gradient together.

    Parameters and errors are those of `grad`; the result is `(value, gradient)`, with `has_aux` `((value, aux), gradient)`.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> sg.value_and_grad(lambda x: np.sum(x * x))(np.array([1.0, 2.0]))
    (np.float64(5.0), array([2., 4.]))
    """
    return traced(f).derive(Grad(checked_argnums(argnums), has_aux, True, "value_and_grad"), "value_and_grad")


def checked_argnums(argnums: Any) -> int | tuple[int, ...]:
    """Return `argnums` as a whole number or a tuple of them, or raise `ArgumentError`."""
    numbers = positions("argnums", argnums)
    if not numbers:
        raise ArgumentError(at_user_line(f"argnums={argnums!r}: expected at least one argument"))
    return numbers if isinstance(argnums, (tuple, list)) else numbers[0]


def check_no_static(word: str, function: Traced) -> None:
    """Raise `ArgumentError` for a function with static arguments, which have no place among primals and tangents."""
    if function._static:
        name, option = function._record.name, next(iter(function._static))
        raise ArgumentError(
            at_user_line(
                f"{word} of {name}: its argument {option!r} is static, and has no tangent; bind it first, "
                f"sg.{word}(functools.partial({name}, {option}=...), ...)"
            )
        )


def check_tuple(word: str, name: str, given: Any) -> None:
    """Raise `ArgumentError` unless arguments or directions are given as a tuple (or a list)."""
    if not isinstance(given, (tuple, list)):
        raise ArgumentError(at_user_line(f"{word}: {name} must be a tuple with one entry an argument, not {type(given).__name__}"))


def jvp(f: Callable[..., Any], primals: Iterable[Any], tangents: Iterable[Any], has_aux: bool = False) -> tuple[Any, ...]:
    """Return the value of `f` at `primals` and its derivative along `tangents`.

    Parameters
    ----------
    f
        A function of arrays.
    primals, tangents
        Two tuples of one structure: the arguments, and the direction for each of them. Integers and truth values have none: None, or
        an array of their shape and dtype that nobody reads (JAX's float0 also is); in results they have zeros.
    has_aux
        Whether `f` returns `(value, aux)`; then `(value, derivative, aux)` is returned.

    Returns
    -------
    tuple
        `(f(*primals), derivative)`, both with the structure of the result of `f`.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> sg.jvp(np.square, (3.0,), (1.0,))
    (np.float64(9.0), np.float64(6.0))
    """
    for name, given in (("primals", primals), ("tangents", tangents)):
        check_tuple("jvp", name, given)
    function = traced(f)
    check_no_static("jvp", function)
    primals = tuple(primals)
    leaves, tree = flatten(primals)
    tangents = with_zeros(tuple(tangents), tree, lambda: [leaf_aval(leaf) for leaf in leaves], f"jvp of {function._record.name}: a tangent")
    result: tuple[Any, ...] = function.derive(Jvp(has_aux=has_aux), "jvp")(primals, tangents)
    return result


def vjp(f: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """Return the value of `f` at `primals` and its pullback.

    Parameters
    ----------
    f
        A function of arrays.
    *primals
        Its arguments.
    has_aux
        Whether `f` returns `(value, aux)`; then `(value, pullback, aux)` is returned.

    Returns
    -------
    tuple
        `(value, pullback)`. The pullback takes a cotangent with the structure of the value and returns a tuple with one
        cotangent for each argument. The forward kernel has run once; every call of the pullback runs the backward kernel alone.
        Integers and truth values among the results have None for a cotangent, among the arguments they are given zeros.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> value, pullback = sg.vjp(lambda x: x * x, np.array([1.0, 2.0]))
    >>> pullback(np.array([1.0, 10.0]))
    (array([ 2., 40.]),)
    """
    at = _At(f, Vjp(has_aux), primals, has_aux)
    word = f"the pullback of {at.name}"

    @checked(word)
    def pullback(cotangent: Any) -> tuple[Any, ...]:
        """Return the cotangents of the arguments for a cotangent of the value."""
        seeds = at.linear.seeds(
            cotangent, at.value_tree, f"{word}: a cotangent", f"{word}: the value has structure {{}}, the cotangent {{}}"
        )
        found = at.linear(seeds, f"{word}: a value is {{}}, its cotangent {{}}")
        cotangents: tuple[Any, ...] = unflatten(at.args_tree, found)
        return cotangents

    return at.with_aux(pullback)


def linearize(f: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """Return the value of `f` at `primals` and its linear approximation there, the pushforward.

    Parameters
    ----------
    f, *primals, has_aux
        As for `vjp`; with `has_aux` `(value, pushforward, aux)` is returned.

    Returns
    -------
    tuple
        `(value, pushforward)`. The pushforward takes one tangent for each argument, with the structure of the argument, and returns
        the tangent of the value. What does not depend on the tangents was computed once; every call computes the rest alone.
        Integers and truth values have None for a tangent, as for `jvp`.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> value, pushforward = sg.linearize(lambda x: x * x, np.array([1.0, 2.0]))
    >>> pushforward(np.array([1.0, 10.0]))
    array([ 2., 40.])
    """
    at = _At(f, Linearize(has_aux), primals, has_aux)
    word = f"the pushforward of {at.name}"

    @checked(word)
    def pushforward(*tangents: Any) -> Any:
        """Return the tangent of the value for tangents of the arguments."""
        seeds = at.linear.seeds(
            tangents, at.args_tree, f"{word}: a tangent", f"{word}: the arguments have structure {{}}, the tangents {{}}"
        )
        return unflatten(at.value_tree, at.linear(seeds, f"{word}: an argument is {{}}, its tangent {{}}"))

    return at.with_aux(pushforward)


class _At:
    """A function at a point: its value there, and one of its two linear parts."""

    def __init__(self, f: Callable[..., Any], transform: Vjp | Linearize, primals: tuple[Any, ...], has_aux: bool) -> None:
        function = traced(f)
        self.name = function._record.name
        self.linear = LinearPart(function.derive(transform, type(transform).__name__.lower()), primals)
        result = self.linear.result
        self.value = result[0] if has_aux else result
        self._aux: tuple[Any, ...] = result[1:] if has_aux else ()
        self.value_tree = flatten(self.value)[1]
        self.args_tree = self.linear.arguments_tree

    def with_aux(self, linear: Callable[..., Any]) -> tuple[Any, ...]:
        """Return (value, linear part), with aux where there is one."""
        return (self.value, linear, *self._aux)


def vmap(
    f: Callable[..., Any],
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_name: Any = None,
    axis_size: int | None = None,
    spmd_axis_name: Any = None,
) -> Traced:
    """Return `f` mapped over an axis of its arguments: one batched graph, no loop.

    Parameters
    ----------
    f
        A function of arrays.
    in_axes
        The axis to map: one for all positional arguments, or a tuple with one for each, which may be a container of axes, a prefix
        of the argument's structure. None: not mapped. Keyword arguments are mapped along their first axis.
    out_axes
        Where the mapped axis stands in the results, as a prefix of their structure. None for a result that is the same all along
        the axis: it is returned once.
    axis_name, spmd_axis_name
        Only None: there are no operations across the mapped axis from within `f`.
    axis_size
        The length of the mapped axis; needed only where no argument is mapped.

    Raises
    ------
    AxisError
        For an axis that an argument or a result does not have.
    ShapeError
        For mapped axes that differ in length.
    ArgumentError
        For `in_axes` or `out_axes` that do not fit the arguments or the results.
    InvalidValueError
        If nothing is mapped, or a result with None in `out_axes` differs along the axis.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> sg.vmap(lambda x, y: np.dot(x, y), in_axes=(0, None))(np.eye(2), np.array([3.0, 4.0]))
    array([3., 4.])
    """
    function = traced(f)
    if axis_name is not None or spmd_axis_name is not None:
        raise ArgumentError(
            at_user_line(
                f"vmap of {function._record.name}: axis_name is not supported, as no function reduces over a named axis; "
                "let the mapped function return what is to be reduced, and reduce over the axis of the result"
            )
        )
    return function.derive(Vmap.of(in_axes, out_axes, axis_size), "vmap")


def stop_gradient(x: Any) -> Any:
    """Return `x`, constant to every derivative; containers are taken leaf by leaf.

    Examples
    --------
    >>> import staticgrad as sg
    >>> sg.grad(lambda x: x * sg.stop_gradient(x))(3.0)
    np.float64(3.0)
    """

    def stop(leaf: Any) -> Any:
        if isinstance(leaf, Tracer):
            return tracer_of(stop_gradient_value(leaf.value))
        return leaf

    return tree_map(stop, x)
