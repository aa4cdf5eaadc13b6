"""The native training loop: compiled steps over all rows of the data, whole epochs in one call without the GIL.

    rows -> order of the epoch -> batches -> step(carry, batch) -> carry, metrics

New values are written to memory of their own, which the next step reads: two buffers take turns and nothing is copied.
All that changes is changed by the machine code of `epoch_driver`, so Python may be interrupted anywhere.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from staticgrad.ir.aval import Aval
from staticgrad.ir.context import CONTEXT_WORDS
from staticgrad.ir.graph import Graph
from staticgrad.runtime.build import Built, machine_code
from staticgrad.runtime.executor import CallPlan, Workspace, failure
from staticgrad.runtime.result_memory import ALIGNMENT

SECONDS_A_CALL = 0.1
"""About so long a call lasts: between two calls Python looks for Ctrl-C and moves the progress bar."""

EPOCHS_A_CALL = 8192
"""A call ends at most so many epochs, however short they are."""


class Plan(IntEnum):
    """The words of the driver's plan: what Python asks for, then (from EPOCH on) how far it got."""

    LIMIT, ROWS, BATCH, SHUFFLE, SEED, CARRIED, LEAVES, METRICS, EPOCH_LIMIT, LOSS, STOP = range(11)
    EPOCH, POSITION, STEP, ORDERED, BAD_EPOCH, BAD_POSITION, BACK, FIRST = range(11, 19)


@dataclass(frozen=True)
class Place:
    """How far a loop is: epochs done, rows done of the epoch under way, steps done."""

    epoch: int = 0
    position: int = 0
    step: int = 0


@dataclass(eq=False)
class Step:
    """A runnable step: (carried values, batch) -> (new carried values; metrics, float64 scalars).

    Parameters
    ----------
    graph
        Its inputs are the carried values and the arrays of a batch; metrics and weight are among its primals.
    built
        The graph as something that runs.
    updates
        For each carried value the output that replaces it, -1 if it does not change.
    metrics
        The outputs that are metrics.
    weight
        The output that says how much the batch counts in the means of the metrics; -1 for its number of rows.
    pace
        The seconds a step took when it last ran, 0 if it never did.
    """

    graph: Graph
    built: Built
    updates: tuple[int, ...]
    metrics: tuple[int, ...]
    weight: int = -1
    pace: float = 0.0
    threads: int | None = None

    @functools.cached_property
    def plan(self) -> CallPlan:
        """What a call needs to know."""
        if self.built.executable is not None:
            return self.built.executable.plan
        outputs = tuple(v.aval for v in self.graph.outputs)
        return CallPlan(tuple(v.aval for v in self.graph.inputs), (), outputs, tuple(range(len(outputs))), 0, 0)

    @functools.cached_property
    def early(self) -> frozenset[int]:
        """The buffers of outputs that the forward stage writes."""
        return frozenset(self.plan.early if self.built.executable is not None else range(len(self.plan.outputs)))


@dataclass(eq=False)
class _Callback:
    """A stage that calls back into Python, for backends without machine code. An exception becomes a failure code and is kept."""

    step: Step
    error: BaseException | None = None
    stage: Any = field(init=False)

    def __post_init__(self) -> None:
        from staticgrad.runtime.compile import Stage

        self.stage = Stage(self._run)

    def _run(self, table: int, workspace: int | None, context: int) -> int:
        try:
            plan, count = self.step.plan, len(self.step.plan.inputs)
            addresses = (ctypes.c_int64 * (count + len(plan.outputs))).from_address(table)
            arrays = [array_at(address, aval).copy() for address, aval in zip(addresses, plan.inputs)]
            results = self.step.built.run(arrays)
            for address, aval, result in zip(addresses[count:], plan.outputs, results, strict=True):
                array_at(address, aval)[...] = result
        except BaseException as error:
            self.error = error
            return -1
        return 0


class TrainingLoop:
    """A loop under way: a training, an evaluation, or whatever its steps do.

    Parameters
    ----------
    steps
        The step for whole batches, and the one for the last batch where that is smaller.
    carried
        What goes from step to step. Copied, but for what no step changes.
    data
        C-contiguous arrays of one length; a batch holds rows of them.
    rows, batch
        That length, and the rows of a whole batch.
    seed
        What the order of the rows depends on, together with the epoch; None keeps their own order.
    place
        Where the loop starts.
    loss
        Which metric must be finite; -1 for none.
    stop
        Whether one that is not ends the loop, with what was carried before the step that led there.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        carried: Sequence[np.ndarray],
        data: Sequence[np.ndarray],
        rows: int,
        batch: int,
        seed: int | None = None,
        place: Place | None = None,
        loss: int = -1,
        stop: bool = False,
    ) -> None:
        place, metrics = place or Place(), len(steps[0].metrics)
        self._avals = [Aval(array.shape, array.dtype) for array in carried]
        self._owned: list[Any] = [data, carried]
        self._callbacks: list[_Callback] = []
        self._plan = np.zeros(len(Plan), np.int64)
        for word, value in (
            (Plan.ROWS, rows), (Plan.BATCH, batch), (Plan.SHUFFLE, seed is not None), (Plan.CARRIED, len(carried)),
            (Plan.LEAVES, len(data)), (Plan.METRICS, metrics), (Plan.LOSS, loss), (Plan.STOP, stop), (Plan.EPOCH, place.epoch),
            (Plan.FIRST, place.epoch), (Plan.POSITION, place.position), (Plan.STEP, place.step), (Plan.ORDERED, -1), (Plan.BAD_EPOCH, -1),
        ):  # fmt: skip
            self._plan[word] = value
        self._plan.view(np.uint64)[Plan.SEED] = (seed or 0) % 2**64
        order = np.zeros(rows if seed is not None else 1, np.int64)
        leaves = [self._leaf(array, batch, shuffled=seed is not None) for array in data]
        changed = [any(step.updates[k] >= 0 for step in steps) for k in range(len(carried))]
        blocks = [self._block(array) if moves else array for array, moves in zip(carried, changed, strict=True)]
        self._carried = np.array(2 * [block.ctypes.data for block in blocks], np.int64)
        self._totals = np.zeros((EPOCHS_A_CALL + 1, metrics + 1))
        tables = [self._plan, order, np.array(leaves, np.int64), self._carried, self._totals]
        for step in steps:
            tables += self._program(step)
        self._owned.append(tables)
        self._pointers = (ctypes.c_void_p * 15)(*(table.ctypes.data for table in tables))
        self._workspace = Workspace(max(step.plan.workspace for step in steps))
        self._context = (ctypes.c_int64 * CONTEXT_WORDS)()
        self._step = steps[0]
        self._plans = [step.plan for step in steps]

    # ---- memory

    def _block(self, content: np.ndarray | Aval) -> np.ndarray:
        """Return memory that lives as long as the loop: a copy of an array, or room for one."""
        size = content.nbytes
        raw = np.zeros(size + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        block: np.ndarray = raw[start : start + size].view(content.dtype).reshape(content.shape)
        if isinstance(content, np.ndarray):
            block[...] = content
        self._owned.append(raw)
        return block

    def _leaf(self, array: np.ndarray, batch: int, shuffled: bool) -> tuple[int, int, int]:
        size = array.nbytes // len(array)
        room = self._block(Aval((batch, *array.shape[1:]), array.dtype)).ctypes.data if shuffled else 0
        return array.ctypes.data, size, room

    def _program(self, step: Step) -> list[np.ndarray]:
        """Return the five tables of a step that `epoch_driver` describes."""
        plan = step.plan
        slots = [0] * len(plan.inputs) + [array.ctypes.data for array in plan.constants]
        first = len(slots)
        slots += [self._block(aval).ctypes.data for aval in plan.outputs]
        count = len(slots)
        spare = [0] * (2 * count)
        for output in {plan.order[number] for number in step.updates if number >= 0}:
            for turn in range(2 if output in step.early else 1):
                spare[first + output + turn * count] = self._block(plan.outputs[output]).ctypes.data
        slot_of = [*(first + output for output in plan.order), -1]  # number -1 is no output
        result = [slot_of[number] for number in step.updates]
        metric = [slot_of[number] for number in (*step.metrics, step.weight)]
        table = np.array(slots, np.int64)
        stages = [*self._addresses(step), table.ctypes.data, count]
        self._owned.append(step)
        return [np.array(stages, np.int64), table, *(np.array(each or [0], np.int64) for each in (result, spare, metric))]

    def _addresses(self, step: Step) -> tuple[int, int]:
        if step.built.executable is not None:
            return step.built.executable.addresses
        self._callbacks.append(_Callback(step))
        return ctypes.cast(self._callbacks[-1].stage, ctypes.c_void_p).value or 0, 0

    # ---- running

    def run(self, epochs: int) -> tuple[float, int]:
        """Run for about `SECONDS_A_CALL`, to the end of `epochs` epochs at most; return the seconds and the steps that it went on."""
        before = int(self._plan[Plan.STEP])
        pace = self._step.pace
        self._plan[Plan.LIMIT] = 1 if pace == 0.0 else max(1, int(SECONDS_A_CALL / pace))
        self._plan[Plan.EPOCH_LIMIT] = min(epochs, EPOCHS_A_CALL)
        self._context[0] = 0
        for plan in self._plans:
            plan.prepare(self._context, self._step.threads)
        start = time.perf_counter()
        code = driver()(ctypes.addressof(self._pointers), self._workspace.address, ctypes.addressof(self._context))
        seconds = time.perf_counter() - start
        for callback in self._callbacks:
            if callback.error is not None:
                error, callback.error = callback.error, None
                raise error
        if code:
            raise failure(self._context)
        steps = max(int(self._plan[Plan.STEP]) - before, 0)  # one that is taken back does not count
        if steps:
            # A call that is much longer than the one before would make up for a wrong guess of the pace at the user's expense.
            self._step.pace = max(seconds / steps, 1e-9, SECONDS_A_CALL / (64 * steps))
        return seconds, steps

    @property
    def place(self) -> Place:
        """How far the training is."""
        epoch, position, step = (int(self._plan[word]) for word in (Plan.EPOCH, Plan.POSITION, Plan.STEP))
        return Place(epoch, position, step)

    @property
    def bad_place(self) -> tuple[int, int] | None:
        """The epoch and the first row of the first batch whose loss was infinite or not a number."""
        epoch = int(self._plan[Plan.BAD_EPOCH])
        return None if epoch < 0 else (epoch, int(self._plan[Plan.BAD_POSITION]))

    def means(self, epoch: int) -> np.ndarray:
        """Return the means of all metrics, a row for each epoch of the last call from `epoch` on that is complete."""
        first, end = int(self._plan[Plan.FIRST]), int(self._plan[Plan.EPOCH])
        return _means(self._totals[epoch - first : end - first])

    def mean_so_far(self) -> list[float]:
        """Return the means of the epoch under way; of the last one at its end."""
        row = int(self._plan[Plan.EPOCH] - self._plan[Plan.FIRST])
        row -= bool(row and not self._plan[Plan.POSITION])
        means: list[float] = _means(self._totals[row]).tolist()
        return means

    def carried(self) -> list[np.ndarray]:
        """Return copies of what is carried, as it is now."""
        return [array_at(int(address), aval).copy() for address, aval in zip(self._carried, self._avals, strict=False)]

    def borrow(self, other: TrainingLoop) -> None:
        """Let an evaluation read what a training carries, where it is now."""
        self._carried[:] = other._carried


def _means(totals: np.ndarray) -> np.ndarray:
    """Return sums of metrics divided by the sums of weights behind them; of nothing, not a number."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(totals[..., :-1] / totals[..., -1:])


def array_at(address: int, aval: Aval) -> np.ndarray:
    """Return the memory at an address as an array."""
    if not aval.size:
        return np.empty(aval.shape, aval.dtype)
    memory: Any = (ctypes.c_uint8 * aval.nbytes).from_address(address)
    return np.frombuffer(memory, aval.dtype).reshape(aval.shape)


@functools.cache
def driver() -> Callable[[int, int, int], int]:
    """Return the epoch driver, compiled once for all graphs and kept on disk."""
    from staticgrad.runtime.compile import Stage

    source = Path(__file__).with_name("epoch_driver.py").read_text(encoding="utf-8")
    address, _, _ = machine_code(source, has_backward=False, title="epoch driver")
    stage: Callable[[int, int, int], int] = Stage(address)
    return stage
