"""Static arguments: options of a traced function, which are values rather than arrays."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from typing import Any

from staticgrad.errors import ArgumentError, InvalidValueError
from staticgrad.ir.source import at_user_line


def static_positions(function: Callable[..., Any], names: tuple[str, ...], option: str = "static_argnames") -> dict[str, int | None]:
    """Return, for each static argument, its place among the positional ones; None for one that is a keyword only.

    `option` is what the names were given as, for messages.

    Raises
    ------
    InvalidValueError
        If the function has no such parameter.
    """
    if not names:
        return {}
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return dict.fromkeys(names)
    known = {p.name for p in parameters}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    found: dict[str, int | None] = {}
    for name in names:
        if name not in known and not open_ended:
            raise InvalidValueError(
                at_user_line(
                    f"{option}: {getattr(function, '__name__', function)} has no parameter {name!r}, only {', '.join(sorted(known))}"
                )
            )
        position = next((k for k, p in enumerate(parameters) if p.name == name and p.kind is not p.KEYWORD_ONLY), None)
        found[name] = position
    return found


def static_by_nature(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the arguments that `function` says are options, in an attribute `static_argnames`; a method has none that are bound."""
    names: tuple[str, ...] = getattr(function, "static_argnames", ())
    return tuple(name for name in names if name in inspect.signature(function).parameters) if names else ()


def hashable(name: str, value: Any) -> Hashable:
    """Return a static value as part of a signature, or an error that says what can be one."""
    try:
        hash(value)
    except TypeError:
        raise ArgumentError(
            at_user_line(
                f"the static argument {name!r} is a {type(value).__name__}, which cannot be hashed; pass a tuple or another constant"
            )
        ) from None
    return value if not isinstance(value, float) else _Number(value)


class _Number(float):
    """A static float that tells 0.0 from -0.0 and equals itself when NaN."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and self.hex() == other.hex()

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.hex())
