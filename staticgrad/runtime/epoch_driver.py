"""The epoch driver: all that a training loop does besides its steps, as one unit that calls the steps by their addresses.

It is written in the vocabulary of emitted units and has their ABI, but it knows no graph: one machine code drives every step.
`training_loop` reads this file as text, keeps its object code on disk, and lays out the tables that it works on:

    0  plan       i64: see `training_loop.Plan`
    1  order      i64: the rows in the order of this epoch
    2  leaves     i64: for each array of the data its address, the bytes of a row, the address of its batch
    3  carried    i64: the addresses of what is carried as it is now; then, as it was before the last step
    4  totals     f64: for each epoch of a call, the sum of each metric times the weight of its batch, and the sum of these weights
    5  the program for whole batches, as five tables; 10: the one for the last batch
    +0 stages     i64: the addresses of forward, of backward (0: none), of the argument table; its length
    +1 table      i64: the argument table itself: carried values, batch, constants, outputs
    +2 result     i64: for each carried value the slot that holds its new value, -1 if it does not change
    +3 spare      i64: for each slot the address to write to in the next step, 0 to write to the same one; then, in the step after
                  that, 0 where two addresses take turns
    +4 metric     i64: for each metric its slot; then the slot of the weight of the batch, -1 if that is its number of rows

The loss is computed by the forward stage. Where it is not finite, new values that the backward stage writes do not exist yet, and
those that the forward stage writes have three addresses: what was carried before the last step is still there.
"""

from typing import Any

import numba
import numpy as np

from staticgrad.runtime.vocabulary import argument, kernel, local_array, minimum, mulhi
from staticgrad.runtime.vocabulary.calls import call_stage, copy_bytes, pointer

if not numba.config.DISABLE_JIT:
    import staticgrad.runtime.vocabulary.lowering_calls  # noqa: F401

LIMIT, ROWS, BATCH, SHUFFLE, SEED, CARRIED, LEAVES, METRICS, EPOCH_LIMIT, LOSS, STOP = range(11)
EPOCH, POSITION, STEP, ORDERED, BAD_EPOCH, BAD_POSITION, BACK, FIRST = range(11, 19)


@kernel("u64*, u64, u64")
def mixed(result: Any, key: Any, position: Any) -> None:
    """Write number `position` of the stream `key` of SplitMix64.

    G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators" (OOPSLA, 2014).
    """
    x = key + (position + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    y = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (y ^ (y >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result[0] = z ^ (z >> np.uint64(31))


@kernel("i64*, i64, u64, u64")
def shuffle(order: Any, rows: Any, seed: Any, epoch: Any) -> None:
    """Fill `order` with a permutation that depends on the seed and the epoch, and on nothing else.

    The algorithm of Fisher and Yates, inside out (D. E. Knuth, "The Art of Computer Programming", volume 2, section 3.4.2), with the
    high half of a product in place of a division (D. Lemire, "Fast random integer generation in an interval", ACM TOMACS, 2019).
    """
    number = local_array(np.uint64, 1)
    mixed(number, seed, epoch)
    key = number[0]
    for row in range(rows):
        mixed(number, key, np.uint64(row))
        other = np.int64(mulhi(number[0], np.uint64(row + 1)))
        order[row] = order[other]
        order[other] = row


@kernel("i64*, i64*, i64*, i64, i64, i64, i64")
def gather(table: Any, leaves: Any, order: Any, shuffled: Any, leaf_count: Any, start: Any, count: Any) -> None:
    """Enter the batch of `count` rows from `start` on into the table; rows in their own order stay where they are."""
    for leaf in range(leaf_count):
        data = leaves[3 * leaf]
        size = leaves[3 * leaf + 1]
        batch = leaves[3 * leaf + 2]
        if shuffled == 0:
            table[leaf] = data + start * size
        else:
            table[leaf] = batch
            for row in range(count):
                copy_bytes(batch + row * size, data + order[start + row] * size, size)


@kernel("i64*, i64*, i64*, i64, i64*, i64")
def exchange(table: Any, result: Any, carried: Any, carried_count: Any, spare: Any, slots: Any) -> None:
    """Make the new values the carried ones; the next step writes elsewhere, and nothing is copied."""
    for k in range(carried_count):
        carried[carried_count + k] = carried[k]
        if result[k] >= 0:
            carried[k] = table[result[k]]
    for slot in range(slots):
        if spare[slot] != 0:
            written = table[slot]
            table[slot] = spare[slot]
            if spare[slots + slot] != 0:
                spare[slot] = spare[slots + slot]
                spare[slots + slot] = written
            else:
                spare[slot] = written


@kernel("i64*, i64*")
def take_back(plan: Any, carried: Any) -> None:
    """Carry what was carried before the last step."""
    for k in range(plan[CARRIED]):
        carried[k] = carried[plan[CARRIED] + k]
    plan[STEP] -= plan[BACK]
    plan[BACK] = 0


@kernel("void**, u8*, i64*", entry=True)
def forward(arguments: Any, workspace: Any, context: Any) -> Any:
    """Run steps up to a limit, the end of an epoch or a loss that is not finite.

    Return the failure code of a step, which then changed nothing, or 0.
    """
    plan = argument(arguments, 0, np.int64)
    unsigned = argument(arguments, 0, np.uint64)
    order = argument(arguments, 1, np.int64)
    leaves = argument(arguments, 2, np.int64)
    carried = argument(arguments, 3, np.int64)
    totals = argument(arguments, 4, np.float64)
    carried_count = plan[CARRIED]
    metric_count = plan[METRICS]
    width = metric_count + 1
    for column in range(width):
        totals[column] = totals[(plan[EPOCH] - plan[FIRST]) * width + column]
    plan[FIRST] = plan[EPOCH]
    code: Any = np.int64(0)
    done: Any = np.int64(0)
    halted: Any = np.int64(0)
    while done < plan[LIMIT] and plan[EPOCH] - plan[FIRST] < plan[EPOCH_LIMIT] and code == 0 and halted == 0:
        current = (plan[EPOCH] - plan[FIRST]) * width
        start = plan[POSITION]
        if start == 0:
            for column in range(width):
                totals[current + column] = 0.0
        if plan[SHUFFLE] != 0 and plan[ORDERED] != plan[EPOCH]:
            shuffle(order, plan[ROWS], unsigned[SEED], unsigned[EPOCH])
            plan[ORDERED] = plan[EPOCH]
        count = minimum(plan[BATCH], plan[ROWS] - start)
        program = 5 if count == plan[BATCH] else 10
        stages = argument(arguments, program, np.int64)
        table = argument(arguments, program + 1, np.int64)
        result = argument(arguments, program + 2, np.int64)
        spare = argument(arguments, program + 3, np.int64)
        metric_slot = argument(arguments, program + 4, np.int64)
        for k in range(carried_count):
            table[k] = carried[k]
        gather(pointer(stages[2] + 8 * carried_count, np.int64), leaves, order, plan[SHUFFLE], plan[LEAVES], start, count)
        code = call_stage(stages[0], stages[2], workspace, context)
        if code == 0 and plan[LOSS] >= 0:
            loss = pointer(table[metric_slot[plan[LOSS]]], np.float64)[0]
            if loss - loss != 0.0:
                if plan[BAD_EPOCH] < 0:
                    plan[BAD_EPOCH] = plan[EPOCH]
                    plan[BAD_POSITION] = start
                halted = plan[STOP]
        if halted != 0:
            take_back(plan, carried)
        if code == 0 and halted == 0 and stages[1] != 0:
            code = call_stage(stages[1], stages[2], workspace, context)
        if code == 0 and halted == 0:
            weight: Any = np.float64(count)
            if metric_slot[metric_count] >= 0:
                weight = pointer(table[metric_slot[metric_count]], np.float64)[0]
            for k in range(metric_count):
                totals[current + k] += weight * pointer(table[metric_slot[k]], np.float64)[0]
            totals[current + metric_count] += weight
            exchange(table, result, carried, carried_count, spare, stages[3])
            plan[BACK] = 1
            done += 1
            plan[STEP] += 1
            plan[POSITION] = start + count
            if plan[POSITION] == plan[ROWS]:
                plan[POSITION] = 0
                plan[EPOCH] += 1
    return code
