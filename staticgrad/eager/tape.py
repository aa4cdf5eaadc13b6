"""The tape: one node for each operation that was recorded, pointing back at the nodes its operands came from.

A node holds arrays, never the tensors it made, and tensors hold nodes: the tape has no reference cycles, so it is freed as soon as
the last result is. The forward pass builds it; `staticgrad.eager.engine` walks it backward.
"""

from __future__ import annotations

import itertools
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from staticgrad.errors import ArgumentError
from staticgrad.ir.source import SourceLine, at_user_line

if TYPE_CHECKING:
    from staticgrad.eager.tensors import Tensor
    from staticgrad.ir.aval import Aval

Edge = tuple["Node | None", int]
"""Where a gradient goes: a node and the number of one of its results. No node: nowhere."""

NOWHERE: Edge = (None, 0)

_serials = itertools.count()


class Version:
    """How often the memory that some tensors share was written."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


class Handle:
    """What registering a hook returns."""

    def __init__(self, hooks: OrderedDict[int, Any], key: int) -> None:
        self._hooks, self._key = weakref.ref(hooks), key

    def remove(self) -> None:
        """Remove the hook; a second call does nothing."""
        hooks = self._hooks()
        if hooks is not None:
            hooks.pop(self._key, None)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class Hooks(OrderedDict[int, Callable[..., Any]]):
    """Functions in the order in which they were registered."""

    __slots__ = ()

    def add(self, hook: Callable[..., Any]) -> Handle:
        """Register a function and return the handle that removes it."""
        if not callable(hook):
            raise ArgumentError(at_user_line(f"a hook must be a function, not {type(hook).__name__}"))
        key = next(_serials)
        self[key] = hook
        return Handle(self, key)


class Node(ABC):
    """A recorded operation. Subclasses say how cotangents of the results become cotangents of the operands.

    Attributes
    ----------
    next_functions : tuple of (Node or None, int)
        Where the cotangents of the operands go.
    line : SourceLine or None
        The user's line that recorded it.
    """

    __slots__ = ("__weakref__", "_name", "_post", "_retained", "hooks", "line", "next_functions", "results", "serial")

    def __init__(
        self, name: str, edges: tuple[Edge, ...], results: Sequence[tuple[tuple[int, ...], np.dtype]], line: SourceLine | None
    ) -> None:
        self._name = name
        self.next_functions = edges
        self.results = results
        self.serial = next(_serials)
        self.line = line
        self.hooks: dict[int, Hooks] = {}
        self._retained: dict[int, weakref.ref[Tensor]] = {}
        self._post: Hooks | None = None

    def name(self) -> str:
        """Return what the operation is called: MulBackward0."""
        return self._name

    def __repr__(self) -> str:
        return f"<{self._name}>"

    def register_hook(self, hook: Callable[[tuple[Any, ...], tuple[Any, ...]], Any]) -> Handle:
        """Register `hook(operands' gradients, results' gradients)`, called after this node's backward; it may return other gradients."""
        if self._post is None:
            self._post = Hooks()
        return self._post.add(hook)

    def hooks_of(self, result: int) -> Hooks:
        """Return the hooks on the gradient of one result."""
        return self.hooks.setdefault(result, Hooks())

    def retain(self, result: int, tensor: Tensor) -> None:
        """Let the gradient of one result be stored in the tensor, as long as there is one."""
        self._retained[result] = weakref.ref(tensor)

    def forget(self, tensor: Tensor) -> None:
        """Undo what `retain` did for this tensor."""
        self._retained = {k: held for k, held in self._retained.items() if held() is not tensor}

    def retained(self, result: int) -> Tensor | None:
        """Return the tensor that wants the gradient of one result."""
        reference = self._retained.get(result)
        return None if reference is None else reference()

    @abstractmethod
    def cotangents(self, grads: list[Tensor | None], recording: bool) -> Sequence[Tensor | None]:
        """Return the gradients of the operands for those of the results; `recording` says whether to record how."""

    def untracked(self, operand: int) -> Tensor | Aval | float | None:
        """Return an operand without gradient, or what is known of it when it is gone; None where there was no tensor or number."""
        return None

    def reads(self) -> tuple[Sequence[int], Sequence[int]]:
        """Return the numbers of the operands and of the results whose values the backward pass needs."""
        return (), ()

    def call_after(self, operands: tuple[Tensor | None, ...], results: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        """Return the gradients of the operands, once the hooks on this node have seen and perhaps replaced them."""
        for hook in list((self._post or {}).values()):
            answer = hook(operands, results)
            if answer is not None:
                operands = answer if isinstance(answer, tuple) else (answer,)
        return operands

    @abstractmethod
    def release(self) -> None:
        """Forget what was saved."""


class AccumulateGrad(Node):
    """Where a gradient ends: it is added to the `.grad` of a leaf."""

    __slots__ = ("variable",)

    def __init__(self, variable: Tensor) -> None:
        super().__init__("AccumulateGrad", (), [(variable._array.shape, variable._array.dtype)], None)
        self.variable = variable

    def cotangents(self, grads: list[Tensor | None], recording: bool) -> Sequence[Tensor | None]:
        (grad,) = grads
        if grad is not None:
            self.variable._accumulate(grad, recording)
        return ()

    def release(self) -> None:
        """Do nothing: nothing is saved."""
