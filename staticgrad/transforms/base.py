"""What a transform is, and what those of derivatives share."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError
from staticgrad.ir.aval import is_float
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Value
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.pytree import Signature, Tree, flatten, unflatten
from staticgrad.tracing.record import Program


class Source(Protocol):
    """What a transform is applied to: something that has a program for every signature."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    def program(self, signature: Signature) -> Program:
        """Return the program for a signature."""


class Transform(Hashable, Protocol):
    """A transform with its parameters; hashable, so that equal transforms of one function share their programs."""

    def __call__(self, base: Source, signature: Signature) -> Program:
        """Return the transformed program."""


@dataclass(frozen=True)
class Derived:
    """A transformed function that another transform is applied to, under the name of the function itself."""

    base: Source
    transform: Transform

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.base.name

    def program(self, signature: Signature) -> Program:
        """Return the transformed program."""
        return self.transform(self.base, signature)


def split_aux(result: Any, has_aux: bool, name: str, word: str) -> tuple[Any, Any]:
    """Return what a function with `has_aux` returned as (value, aux), else (result, None)."""
    if not has_aux:
        return result, None
    if not isinstance(result, tuple) or len(result) != 2:
        raise ArgumentError(at_user_line(f"{word} of {name} with has_aux=True: the function must return a pair (value, aux)"))
    return result


def selected(signature: Signature, argnums: int | tuple[int, ...], name: str, word: str) -> tuple[list[int], Tree]:
    """Return the leaves that `argnums` selects and the structure of the gradients: that of the argument, or a tuple of them."""
    args, _ = unflatten(signature.tree, list(range(len(signature.avals))))
    static = {int(place) for place, _ in signature.static if place.isdigit()}

    def pick(number: int) -> Any:
        if not -len(args) <= number < len(args):
            raise InvalidValueError(
                at_user_line(f"{word} of {name}: argnums={argnums}, but only {len(args)} positional arguments were given")
            )
        if number % len(args) in static:
            raise ArgumentError(at_user_line(f"{word} of {name}: argument {number} is static and has no derivative"))
        return args[number]

    chosen = pick(argnums) if isinstance(argnums, int) else tuple(pick(k) for k in argnums)
    return flatten(chosen)


def check_floats(graph: Graph, places: Iterable[int], name: str, word: str) -> None:
    """Raise `DTypeError` where one of the inputs at `places` has no derivative."""
    for k in places:
        dtype = graph.inputs[k].dtype
        if not is_float(dtype):
            label = graph.labels[k] or f"argument {k}"
            way_out = "close over it instead" if word == "hvp" else "choose other arguments with argnums"
            raise DTypeError(
                at_user_line(
                    f"{word} of {name}: {label} has dtype {dtype}, which has no derivative; pass floats (x.astype(float)), or {way_out}"
                )
            )


WAY_OUT = "return floats, and what is not to be differentiated as aux (has_aux=True)"


def check_float_results(outputs: Iterable[Value], name: str, word: str, way_out: str) -> None:
    """Raise `DTypeError` where one of the results of a function has no derivative."""
    for y in outputs:
        if not is_float(y.dtype):
            raise DTypeError(at_user_line(f"{word} of {name}: the function returned {y.aval}, which has no derivative; {way_out}"))


def renumber(tree: Any, start: int) -> Any:
    """Return the structure of `tree` with consecutive numbers from `start` as leaves."""
    leaves, spec = flatten(tree)
    return unflatten(spec, list(range(start, start + len(leaves))))
