"""Looking into compiled functions while they run."""

from __future__ import annotations

import builtins
from typing import Any

from staticgrad.errors import InvalidValueError
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.context import current_trace, tracing
from staticgrad.tracing.lift import lift


def print(text: Any, *values: Any) -> None:
    """Print values each time a traced function runs, after its kernels have finished.

    The plain `print` shows a tracer's shape and dtype, once, at tracing. Under `sg.vmap` the values of the whole batch are printed
    together, stacked along a new first axis.

    Parameters
    ----------
    text
        A format with a `{}` for each value, as for `str.format`; or an array to be printed as it is.
    *values
        Arrays or numbers.

    Examples
    --------
    >>> import staticgrad as sg
    >>> @sg.trace
    ... def double(x):
    ...     sg.debug.print("x is {}", x)
    ...     return 2 * x
    >>> double(3.0)
    x is 3.0
    np.float64(6.0)
    """
    if not isinstance(text, str):
        text, values = "{}" + " {}" * len(values), (text, *values)
    try:
        text.format(*(0.0 for _ in values))
    except (IndexError, KeyError, ValueError) as error:
        raise InvalidValueError(at_user_line(f"sg.debug.print: the format {text!r} does not fit {len(values)} values: {error}")) from error
    if tracing():
        current_trace().prints.append((text, tuple(lift(value) for value in values)))
    else:
        builtins.print(text.format(*values))
