"""What an operation is: the base class whose subclasses, one per op, hold all that is known of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform

import numpy as np

from staticgrad.errors import VerificationError
from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.links import Links, Reached, on_all

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from staticgrad.ir.builder import Builder, Index, Scalar
    from staticgrad.ir.graph import Graph


Read = Callable[[int, "tuple[Index, ...]"], "Scalar"]
"""Gives the element of an operand (by number) at an index."""

REGISTRY: dict[str, type[Op]] = {}
"""Every op class by name; filled by the `@op` decorator."""

OpClass = TypeVar("OpClass", bound="type[Op]")


@dataclasses.dataclass(frozen=True, eq=False)
class Op:
    """An operation on arrays; its dataclass fields are its static parameters.

    A subclass states, in one place, its shape rule (`infer`), its meaning (`numpy`), its derivatives (`jvp`, `vjp`), which
    elements they link (`links`), its batching rule (`batch`) and how the code generator treats it (`kind` and `element`).
    An op of several outputs gets and gives tuples where others have single values.
    """

    name: ClassVar[str] = ""
    outputs: ClassVar[int] = 1
    kind: ClassVar[str] = "opaque"
    """How it is scheduled: `map` (element by element), `view` (an index transformation), `reduce`, `contract`, `assemble`
    (pieces written into one buffer), `row` (whole rows along an axis), `alias` (the same bytes), `foreign` (a call of machine code
    from elsewhere, with pointers to whole arrays), `nested` (a branch or loop around sub-graphs), `leaf`, or `mark` (the first operand
    itself; gone before anything is scheduled)."""
    linear: ClassVar[bool] = False
    """Whether it is linear in all its operands together, so that the tangent of the output is the op of the tangents."""
    cost: ClassVar[int] = 1
    """Rough price of one element in scalar instructions; decides what is worth saving for the backward pass."""

    notation: ClassVar[str | None] = None
    """The op as a formula of its operands `x, y, z` over the real numbers, in SymPy's language, for people; for a reduction the name
    of its big operator. None: a formula with this op in it is refused."""

    def formula(self, *avals: Aval) -> str | None:
        """Return the notation for operands of these avals, for an op whose parameters it depends on."""
        return self.notation

    def infer(self, *avals: Any, **_: Any) -> Any:
        """Return the aval(s) of the output(s) for the avals of the operands."""
        raise VerificationError(f"{self.name} has no shape rule")

    def numpy(self, *arrays: Any, **_: Any) -> Any:
        """Return the result for NumPy arrays: the specification."""
        raise VerificationError(f"{self.name} has no meaning in NumPy")

    def jvp(self, *args: Any, **_: Any) -> Any:
        """Return the tangent(s) of the output(s) for (tangents, y, *operands); None stands for zero."""
        raise VerificationError(f"{self.name} has no forward derivative")

    def vjp(self, *args: Any, **_: Any) -> Any:
        """Return one cotangent per operand for (g, y, *operands); None stands for zero."""
        raise VerificationError(f"{self.name} has no reverse derivative")

    def batch(self, *args: Any, **_: Any) -> Any:
        """Return the output(s) for (size, batched, *operands): a batch axis stands in front where `batched` says so."""
        raise VerificationError(f"{self.name} has no batching rule")

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        """Return, for each operand, on which of its elements those of an output depend through derivatives; None for on none.

        More than there are is safe, and all is what an op without a rule says. `known` are the arrays of operands that depend on no
        input, None for others; each is computed when it is asked for.
        """
        return [on_all(x, y) for x in avals]

    def dependence(self, node: Reached) -> Sequence[csr_array | None]:
        """Return on which inputs of the graph the elements of each output of a node depend. By default that spreads along the `links`."""
        from staticgrad.ir.sparsity import linked, union

        made = []
        for y in node.outputs:
            parts = {
                (id(pattern), id(links)): (links, pattern)
                for links, pattern in zip(self.links(y, node.avals, node.known), node.found, strict=True)
                if links is not None and pattern is not None
            }
            made.append(union(linked(*part) for part in parts.values()) if is_float(y.dtype) else None)
        return made

    def may_fail(self, *avals: Aval) -> bool:
        """Return whether its code may find elements of such operands to be an error."""
        return False

    def element(self, b: Builder, read: Read, index: tuple[Index, ...], avals: Sequence[Aval]) -> Scalar:
        """Emit the computation of one element of the output (kinds `map` and `view`)."""
        raise VerificationError(f"{self.name} has no lowering")

    @property
    def subgraphs(self) -> tuple[Graph, ...]:
        """The graphs this op holds."""
        return ()

    def signature(self) -> str:
        """Return the op's name with its parameters: equal text means equal op."""
        fields = dataclasses.fields(self)
        inner = ", ".join(f"{f.name}={_parameter_text(getattr(self, f.name))}" for f in fields)
        return f"{self.name}({inner})" if inner else self.name


def _parameter_text(value: object) -> str:
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, tuple):
        return f"({', '.join(map(_parameter_text, value))}{',' if len(value) == 1 else ''})"
    digest = getattr(value, "digest", None)
    return digest if isinstance(digest, str) else repr(value)


def _assign(self: Op, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


_WITHOUT_PARAMETERS: dict[str, Callable[..., Any]] = {
    "__eq__": lambda self, other: type(self) is type(other),
    "__hash__": lambda self: hash(type(self)),
    "__setattr__": _assign,
}
"""What makes ops without parameters values, as a dataclass would."""


@dataclass_transform(frozen_default=True)
def op(cls: OpClass) -> OpClass:
    """Make `cls` a frozen dataclass and register it under its lower-case name."""
    if "__annotations__" in cls.__dict__:
        cls = dataclasses.dataclass(frozen=True)(cls)  # type: ignore[assignment]
    elif not dataclasses.fields(cls):  # most are like this, and generating the methods of each would take longer than all else here
        for name, method in _WITHOUT_PARAMETERS.items():
            setattr(cls, name, method)
    if not cls.__dict__.get("name"):
        cls.name = _snake(cls.__name__)
    return register(cls)


def register(cls: OpClass) -> OpClass:
    """Enter `cls` into the registry; a second op of the same name is a defect."""
    if cls.name in REGISTRY:
        raise VerificationError(f"two ops are called {cls.name!r}")
    REGISTRY[cls.name] = cls
    return cls


def _snake(name: str) -> str:
    return "".join(("_" + c.lower()) if c.isupper() and i else c.lower() for i, c in enumerate(name))
