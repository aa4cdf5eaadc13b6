"""The nodes of operations that ran a recipe, and what they save for the backward pass."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np

from staticgrad.eager.recipes import Recipe
from staticgrad.eager.tape import NOWHERE, Edge, Node, Version
from staticgrad.eager.tensors import Tensor
from staticgrad.errors import BackwardError, StaleValueError
from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.source import at_user_line, user_line


class Saved:
    """An array kept for the backward pass, with what is needed to notice that it was written since, and to differentiate through it.

    `result` is its number among the results of the node that keeps it, if it is one with a gradient: the tensor has no edge yet.
    """

    __slots__ = ("array", "edge", "number", "requires_grad", "result", "version")

    def __init__(self, tensor: Tensor, result: int | None = None, own_copy: bool = False) -> None:
        self.array: np.ndarray = tensor._array.copy() if own_copy else tensor._array
        self.version: Version = Version() if own_copy else tensor._writes
        self.number = self.version.number
        self.result = result
        # A result gets its place on the tape only after its node was made.
        self.requires_grad = tensor.requires_grad or (result is not None and is_float(tensor._array.dtype))
        self.edge: Edge = NOWHERE if result is not None or not self.requires_grad else tensor._gradient_edge()

    def checked(self, node: Node, what: str) -> np.ndarray:
        """Return the array, or raise if it was written since it was saved."""
        if self.version.number != self.number:
            where = f"\n  {node.name()} was recorded at {node.line.describe()}" if node.line else ""
            raise StaleValueError(
                at_user_line(
                    f"{node.name()} needs {what} ({self.array.dtype}{list(self.array.shape)}) as it was when it was recorded, but an "
                    f"in-place operation has changed it since (it is at version {self.version.number}, version {self.number} is needed); "
                    f"write y = x + 1 instead of x += 1, or change a copy, x.clone(){where}"
                )
            )
        return self.array

    def tensor(self, node: Node, what: str) -> Tensor:
        """Return the array as a tensor that is connected to where it came from."""
        edge: Edge = self.edge if self.result is None else (node, self.result)
        return Tensor._of(self.checked(node, what), edge=edge if self.requires_grad else NOWHERE, version=self.version)


FREED = (
    "the saved values of {} have been freed: a backward pass has gone through this part of the graph before. Call the first one as "
    "backward(retain_graph=True) to go through it again, or compute the loss anew for every backward pass"
)


class RecipeNode(Node):
    """An operation that runs a recipe; its backward pass is the recipe's."""

    __slots__ = ("_freed", "_recipe", "_saved", "_untracked", "_wanted")

    def __init__(
        self, recipe: Recipe, operands: Sequence[Tensor], results: Sequence[Tensor], overwritten: frozenset[int] = frozenset()
    ) -> None:
        super().__init__(
            recipe.tape_name,
            tuple([x._gradient_edge() for x in operands]),
            [(r._array.shape, r._array.dtype) for r in results],
            user_line(),
        )
        self._recipe = recipe
        self._wanted = tuple(k for k, (node, _) in enumerate(self.next_functions) if node is not None)
        self._untracked: dict[int, float | weakref.ref[Tensor]] = {}
        if len(self._wanted) < len(operands):
            for k, (node, _) in enumerate(self.next_functions):
                if node is None:
                    x = operands[k]
                    self._untracked[k] = x._array.item() if recipe.graph.inputs[k].aval.weak else weakref.ref(x)
        backward = recipe.backward(self._wanted)
        self._saved: tuple[Saved, ...] = (
            *(Saved(operands[k], own_copy=k in overwritten) for k in backward.operands),
            *(Saved(results[k], result=k) for k in backward.results),
        )
        self._freed = False

    def cotangents(self, grads: list[Tensor | None], recording: bool) -> Sequence[Tensor | None]:
        from staticgrad.eager.apply import run_recipe

        if self._freed:
            raise BackwardError(at_user_line(FREED.format(self._name)))
        backward = self._recipe.backward(self._wanted)
        seeds = [or_zeros(grads[k], *self.results[k]) for k in backward.seeds]
        if recording:
            saved = [each.tensor(self, name) for each, name in zip(self._saved, backward.saved_names, strict=True)]
            found = run_recipe(backward.recipe, [*saved, *seeds])
        else:
            arrays = [each.checked(self, name) for each, name in zip(self._saved, backward.saved_names, strict=True)]
            found = [Tensor._of(g) for g in backward.recipe.run([*arrays, *(seed._array for seed in seeds)])]
        given: list[Tensor | None] = [None] * len(self.next_functions)
        for k, grad in zip(self._wanted, found, strict=True):
            given[k] = grad
        return given

    def untracked(self, operand: int) -> Tensor | Aval | float:
        held = self._untracked[operand]
        if not isinstance(held, weakref.ref):
            return held
        x = held()  # which an operation in place may have put on the tape since
        return self._recipe.graph.inputs[operand].aval if x is None or x.requires_grad else x

    def reads(self) -> tuple[Sequence[int], Sequence[int]]:
        backward = self._recipe.backward(self._wanted)
        return backward.operands, backward.results

    def release(self) -> None:
        if self._saved:
            self._saved, self._freed = (), True


def or_zeros(grad: Tensor | None, shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
    """Return a gradient, zeros where there is none."""
    return Tensor._of(np.zeros(shape, dtype)) if grad is None else grad
