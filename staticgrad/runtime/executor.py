"""Calling compiled units: arrays in, arrays out."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from staticgrad.errors import ExecutionError, IndexingError, IntegerPowerError, StaticgradError
from staticgrad.ir.aval import Aval
from staticgrad.ir.context import CONTEXT_WORDS, POLL, WORK_LEFT
from staticgrad.ir.loops import EXTERNAL_FAILED, FAILURES, INTERRUPTED, NEGATIVE_POWER, OUT_OF_BOUNDS, WORK_BETWEEN_POLLS
from staticgrad.ir.source import at_user_line
from staticgrad.runtime.interrupts import poll_address, raise_interruption
from staticgrad.runtime.result_memory import aligned_bytes, new_array
from staticgrad.runtime.threads import share

Stage = Callable[[Any, int, int], int]


@dataclass(frozen=True)
class CallPlan:
    """What a call needs to know of a unit. `outputs` says, for each result, which output buffer holds it."""

    inputs: tuple[Aval, ...]
    constants: tuple[np.ndarray, ...]
    outputs: tuple[Aval, ...]
    order: tuple[int, ...]
    workspace: int
    residual: int
    work: float = 0.0
    """The nanoseconds that one core is expected to need."""

    early: tuple[int, ...] = ()
    """The output buffers that the forward stage writes."""

    parallel: bool = False
    """Whether any kernel runs in blocks, which several threads may share."""

    polls: bool = False
    """Whether it may take so long that it asks now and then whether to go on."""

    def prepare(self, context: Any, threads: int | None) -> None:
        """Fill the words of a context that say what a call may use: so many threads, and a way to be interrupted."""
        if self.parallel:
            share(context, threads)
        if self.polls:
            context[WORK_LEFT], context[POLL] = WORK_BETWEEN_POLLS, poll_address()


class Workspace:
    """Memory that a call writes to, aligned to a cache line."""

    __slots__ = ("_array", "address")

    def __init__(self, size: int) -> None:
        self._array = aligned_bytes(size)
        self.address = self._array.ctypes.data


@dataclass(frozen=True)
class ForwardState:
    """All that the backward stage needs of a forward call: the arguments, the outputs and the saved values."""

    workspace: Workspace
    outputs: list[np.ndarray]
    keep: tuple[Any, ...]
    threads: int | None


class Executable:
    """A compiled unit as a function of NumPy arrays. Safe to call from several threads at once."""

    def __init__(self, plan: CallPlan, forward: Stage, backward: Stage | None) -> None:
        self.plan = plan
        self._forward = forward
        self._backward = backward
        self._spare: list[Workspace] = []  # each call takes one, or makes one, and gives it back
        self._pointers = ctypes.c_void_p * (len(plan.inputs) + len(plan.constants) + len(plan.outputs))
        self._constants = [array.ctypes.data for array in plan.constants]

    @property
    def addresses(self) -> tuple[int, int]:
        """Where the machine code of forward and backward stands; 0 where there is no backward stage."""
        stages: tuple[Any, Any] = (self._forward, self._backward)
        forward, backward = (0 if stage is None else ctypes.cast(stage, ctypes.c_void_p).value or 0 for stage in stages)
        return forward, backward

    def __call__(self, arrays: Sequence[np.ndarray], threads: int | None = None) -> list[np.ndarray]:
        """Return all results; both stages run in one workspace. `threads` is how many threads may share the work."""
        outputs = [new_array(aval) for aval in self.plan.outputs]
        pointers = self._table(arrays, outputs)
        try:
            workspace = self._spare.pop()
        except IndexError:
            workspace = Workspace(self.plan.workspace)
        self._run(self._forward, pointers, workspace, threads)
        if self._backward is not None:
            self._run(self._backward, pointers, workspace, threads)
        self._spare.append(workspace)
        order = self.plan.order
        if len(order) == len(outputs):
            return [outputs[k] for k in order]
        seen: set[int] = set()
        results = []
        for k in order:
            results.append(outputs[k].copy() if k in seen else outputs[k])
            seen.add(k)
        return results

    def release(self) -> None:
        """Let go of the workspace that waits for the next call."""
        self._spare.clear()

    def begin(self, arrays: Sequence[np.ndarray], threads: int | None = None) -> ForwardState:
        """Run the forward stage alone, in a workspace that stays until the backward stage wants it."""
        kept = tuple(np.array(array, order="C") for array in arrays)
        outputs = [new_array(aval) for aval in self.plan.outputs]
        workspace = Workspace(self.plan.workspace)
        self._run(self._forward, self._table(kept, outputs), workspace, threads)
        return ForwardState(workspace, outputs, kept, threads)

    def finish(self, state: ForwardState, late: dict[int, np.ndarray]) -> list[np.ndarray]:
        """Run the backward stage for a forward state, with the inputs of `late` (by position) filled in.

        The state can be used again: what forward saved is only read, and each call has outputs of its own.
        """
        outputs = [array.copy() for array in state.outputs]
        arrays = [late.get(k, array) for k, array in enumerate(state.keep)]
        pointers = self._table(arrays, outputs)
        if self._backward is not None:
            workspace = Workspace(self.plan.workspace)
            ctypes.memmove(workspace.address, state.workspace.address, self.plan.residual)
            self._run(self._backward, pointers, workspace, state.threads)
        return [outputs[k] for k in self.plan.order]

    def _table(self, arrays: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Any:
        addresses = [array.ctypes.data for array in arrays]
        addresses += self._constants
        addresses += [array.ctypes.data for array in outputs]
        return self._pointers(*addresses)

    def _run(self, stage: Stage, pointers: Any, workspace: Workspace, threads: int | None) -> None:
        context = (ctypes.c_int64 * CONTEXT_WORDS)()
        self.plan.prepare(context, threads)
        code = stage(pointers, workspace.address, ctypes.addressof(context))
        if code:
            raise failure(context)


def failure(context: Any) -> StaticgradError:
    """Return the error that a context holds; it names the user's line that made the call. What interrupted the call is raised."""
    code, node, index = (int(word) for word in context[:3])
    if code == INTERRUPTED:
        raise_interruption()
    message = FAILURES.get(code, f"failure {code}")
    if code == NEGATIVE_POWER:
        return IntegerPowerError(at_user_line(f"{message}; make the base or the exponent a float"))
    if code == OUT_OF_BOUNDS:
        return IndexingError(at_user_line(f"{message}: {index} for an axis with size {node}"))
    if code == EXTERNAL_FAILED:
        from staticgrad.runtime.foreign import kept_failure

        return kept_failure(index)
    return ExecutionError(at_user_line(message))
