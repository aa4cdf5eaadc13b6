"""The backward pass: gradients go from the roots to the leaves, each node once, the latest first."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np

from staticgrad.eager.modes import modes
from staticgrad.eager.tape import AccumulateGrad, Edge, Node
from staticgrad.eager.tensors import Tensor, aval_of, check_differentiable
from staticgrad.errors import ArgumentError, BackwardError, InvalidValueError
from staticgrad.ir.aval import is_float
from staticgrad.ir.source import at_user_line


def backward(tensors: Any, gradients: Any = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None) -> None:
    """Add the gradients of `tensors`, weighted by `gradients`, to the `.grad` of the leaves (or of `inputs`)."""
    roots = _tensors(tensors, "backward: the tensors")
    seeds = _seeds(roots, gradients, "backward", "gradient")
    if inputs is None:
        wanted = None
    else:
        wanted = _tensors(inputs, "backward: inputs")
        if not wanted:
            raise BackwardError(at_user_line("backward: inputs is empty; leave it out to accumulate into all leaves"))
    edges = None if wanted is None else [_edge_of(x, f"backward: inputs[{k}]") for k, x in enumerate(wanted)]
    found = _Pass(roots, seeds, create_graph, edges).run(bool(create_graph if retain_graph is None else retain_graph))
    for x, grad in zip(wanted or (), found, strict=True):
        if grad is not None:
            x._accumulate(grad, create_graph)


def autograd_grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of tensors with respect to others, which need not be leaves; no `.grad` is touched.

    Parameters
    ----------
    outputs : Tensor or sequence of Tensor
        What to differentiate.
    inputs : Tensor or sequence of Tensor
        With respect to what.
    grad_outputs : Tensor or sequence of Tensor, optional
        The weights of the elements of each output; a scalar needs none.
    retain_graph : bool, optional
        Whether to keep the saved values for another backward pass; by default the value of `create_graph`.
    create_graph : bool
        Whether the gradients can be differentiated again.
    allow_unused : bool, optional
        Whether an input that the outputs do not depend on gets None; otherwise it is an error.
    is_grads_batched : bool
        Whether each of `grad_outputs` has an axis in front, for many backward passes.
    materialize_grads : bool
        Whether such an input gets zeros.

    Returns
    -------
    tuple of Tensor
        One gradient for each input.

    Raises
    ------
    BackwardError
        For an input that the outputs do not depend on, an output that is no scalar without weights, a graph that was freed.

    Examples
    --------
    >>> import staticgrad as sg
    >>> x = sg.tensor(2.0, requires_grad=True)
    >>> (slope,) = sg.autograd_grad(x ** 3, x, create_graph=True)
    >>> slope
    tensor(12., grad_fn=<PowBackwardBackward0>)
    >>> sg.autograd_grad(slope, x)
    (tensor(12.),)
    """
    roots, wanted = _tensors(outputs, "autograd_grad: outputs"), _tensors(inputs, "autograd_grad: inputs")
    if not wanted:
        raise BackwardError(at_user_line("autograd_grad: inputs is empty"))
    if materialize_grads and allow_unused is False:
        raise InvalidValueError(at_user_line("autograd_grad: materialize_grads=True needs allow_unused=True, or leave allow_unused out"))
    if is_grads_batched:
        return _many(roots, wanted, grad_outputs, retain_graph, create_graph, allow_unused, materialize_grads)
    seeds = _seeds(roots, grad_outputs, "autograd_grad", "grad_outputs")
    edges = [_edge_of(x, f"autograd_grad: inputs[{k}]") for k, x in enumerate(wanted)]
    found = _Pass(roots, seeds, create_graph, edges).run(bool(create_graph if retain_graph is None else retain_graph))
    allowed = materialize_grads if allow_unused is None else allow_unused
    results: list[Tensor | None] = []
    for k, (x, grad) in enumerate(zip(wanted, found, strict=True)):
        if grad is None and not allowed:
            raise BackwardError(
                at_user_line(
                    f"autograd_grad: the outputs do not depend on inputs[{k}] ({aval_of(x)}); pass allow_unused=True to get None for it"
                )
            )
        results.append(Tensor._of(np.zeros(x.shape, x.dtype)) if grad is None and materialize_grads else grad)
    return tuple(results)


def _many(
    roots: list[Tensor],
    wanted: list[Tensor],
    grad_outputs: Any,
    retain_graph: bool | None,
    create_graph: bool,
    allow_unused: bool | None,
    materialize_grads: bool,
) -> tuple[Tensor | None, ...]:
    """Take a backward pass for each row of the weights, and stack the gradients."""
    from staticgrad.eager.apply import apply
    from staticgrad.eager.operations import FUNCTIONS

    weights = _tensors(grad_outputs, "autograd_grad: grad_outputs")
    rows = len(weights[0])
    found = [
        autograd_grad(
            roots, wanted, [w[k] for w in weights], True if k < rows - 1 else retain_graph, create_graph, allow_unused, False,
            materialize_grads,
        )
        for k in range(rows)
    ]  # fmt: skip
    return tuple(
        None if any(g is None for g in column) else apply(FUNCTIONS["stack"], (list(column),)) for column in zip(*found, strict=True)
    )


class _Pass:
    """One backward pass from some roots, to all leaves or to given edges."""

    def __init__(self, roots: Sequence[Tensor], seeds: Sequence[Tensor], recording: bool, captures: Sequence[Edge] | None) -> None:
        self._recording = recording
        self._captures = captures
        self._grads: dict[Node, list[Tensor | None]] = {}
        self._captured: dict[Edge, Tensor | None] = dict.fromkeys(captures or ())
        self._starts = [(root._gradient_edge(), seed) for root, seed in zip(roots, seeds, strict=True)]
        self._waiting = self._dependencies()
        self._needed = None if captures is None else self._on_the_way()

    def run(self, keep: bool) -> list[Tensor | None]:
        """Walk the tape; `keep` says whether what was saved stays. Return the captured gradients."""
        for (node, result), seed in self._starts:
            if node is not None:
                self._give(node, result, seed)
        ready = [(-node.serial, node) for node, count in self._waiting.items() if not count]
        heapq.heapify(ready)
        before, modes.records = modes.records, self._recording
        try:
            while ready:
                _, node = heapq.heappop(ready)
                grads = self._hooked(node)
                if self._captured:
                    for result, grad in enumerate(grads):
                        if (node, result) in self._captured:
                            self._captured[node, result] = grad
                if self._needed is None or node in self._needed:
                    self._propagate(node, grads, keep)
                for target, _ in node.next_functions:
                    if target is not None:
                        self._waiting[target] -= 1
                        if not self._waiting[target]:
                            heapq.heappush(ready, (-target.serial, target))
        finally:
            modes.records = before
        found = [self._captured[edge] for edge in self._captures or ()]
        return found if self._recording else [None if grad is None else grad._copied() for grad in found]  # nodes share theirs

    def _dependencies(self) -> dict[Node, int]:
        """Return for each node that is reached by how many edges it is."""
        starts = [node for (node, _), _ in self._starts if node is not None]
        counts: dict[Node, int] = dict.fromkeys(starts, 0)
        stack = list(counts)
        while stack:
            for target, _ in stack.pop().next_functions:
                if target is None:
                    continue
                if target not in counts:
                    counts[target] = 0
                    stack.append(target)
                counts[target] += 1
        return counts

    def _on_the_way(self) -> set[Node]:
        """Return the nodes from which a captured edge can be reached: the others need not run."""
        goals = {node for node, _ in self._captured}
        needed: set[Node] = set()
        for node in sorted(self._waiting, key=lambda node: node.serial):  # operands were recorded before what uses them
            if any(target in goals or target in needed for target, _ in node.next_functions):
                needed.add(node)
        return needed

    def _give(self, node: Node, result: int, grad: Tensor) -> None:
        dtype = node.results[result][1]
        if grad._array.dtype != dtype:
            grad = grad.to(dtype)
        held = self._grads.setdefault(node, [None] * len(node.results))
        before = held[result]
        if before is None:
            held[result] = grad
        else:
            held[result] = before + grad if self._recording else Tensor._of(np.asarray(before._array + grad._array))

    def _hooked(self, node: Node) -> list[Tensor | None]:
        """Return the gradients of the results of a node, once its tensors' hooks have seen them."""
        grads = self._grads.pop(node, None) or [None] * len(node.results)
        if not (node.hooks or node._retained):
            return grads
        for result, hooks in node.hooks.items():
            for hook in list(hooks.values()):
                grad = grads[result]
                if grad is None:
                    continue
                answer = hook(grad)
                if answer is not None:
                    grads[result] = _checked_answer(answer, grad)
        for result, grad in enumerate(grads):
            tensor = node.retained(result)
            if tensor is not None and grad is not None:
                tensor._accumulate(grad, self._recording)
        return grads

    def _propagate(self, node: Node, grads: list[Tensor | None], keep: bool) -> None:
        if all(grad is None for grad in grads):
            return
        if isinstance(node, AccumulateGrad):
            if self._captures is None:
                node.cotangents(grads, self._recording)
                node.call_after((), tuple(grads))
            return
        found = node.call_after(tuple(node.cotangents(grads, self._recording)), tuple(grads))
        if not keep:
            node.release()
        for (target, result), grad in zip(node.next_functions, found, strict=True):
            if target is not None and grad is not None:
                self._give(target, result, grad)


def _checked_answer(answer: Any, grad: Tensor) -> Tensor:
    if not isinstance(answer, Tensor):
        raise ArgumentError(at_user_line(f"a hook returned {type(answer).__name__}: expected a tensor, or None to keep the gradient"))
    if answer.shape != grad.shape:
        raise BackwardError(at_user_line(f"a hook replaced a gradient of shape {grad.shape} by one of shape {answer.shape}"))
    return answer


def _edge_of(x: Tensor, what: str) -> Edge:
    if not x.requires_grad:
        raise BackwardError(at_user_line(f"{what} ({aval_of(x)}) does not require gradients"))
    return x._gradient_edge()


def _tensors(given: Any, what: str) -> list[Tensor]:
    found = [given] if isinstance(given, Tensor) else list(given) if isinstance(given, (tuple, list)) else None
    if found is None or not all(isinstance(x, Tensor) for x in found):
        raise ArgumentError(at_user_line(f"{what} must be a tensor or a sequence of tensors, not {type(given).__name__}"))
    return found


def _seeds(roots: Sequence[Tensor], gradients: Any, name: str, argument: str) -> list[Tensor]:
    """Return the gradients that a pass starts with: ones for scalars."""
    given = list(gradients) if isinstance(gradients, (tuple, list)) else [gradients] * (1 if gradients is not None else len(roots))
    if len(given) != len(roots):
        raise BackwardError(at_user_line(f"{name}: {len(roots)} tensors and {len(given)} gradients for them"))
    seeds = []
    for root, gradient in zip(roots, given, strict=True):
        if not root.requires_grad:
            raise BackwardError(
                at_user_line(
                    f"{name}: the tensor ({aval_of(root)}) does not require gradients and has no grad_fn: nothing it was computed from "
                    "was made with requires_grad=True, or it was computed under no_grad() or from a detached tensor"
                )
            )
        check_differentiable(root.dtype)
        if gradient is None:
            if root._array.size != 1:
                raise BackwardError(
                    at_user_line(
                        f"{name} of a tensor of shape {root.shape}: gradients start from a scalar. Reduce it first, x.sum(), or pass "
                        f"{argument}=v of that shape for the vector-Jacobian product with v"
                    )
                )
            seeds.append(Tensor._of(np.ones(root.shape, root.dtype)))
            continue
        seed = gradient if isinstance(gradient, Tensor) else Tensor._of(np.asarray(gradient, root.dtype))
        if seed.shape != root.shape:
            raise BackwardError(
                at_user_line(f"{name}: {argument} has shape {seed.shape}, the tensor it belongs to {root.shape}; they must be equal")
            )
        seeds.append(seed if is_float(seed.dtype) else seed.to(root.dtype))
    return seeds
