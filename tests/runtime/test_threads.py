"""The thread pool: the same bits for any number of threads, whoever calls, and whatever happens beside."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.codegen.blocks import Grain
from staticgrad.codegen.llvm_printer import named_text
from staticgrad.config import config, configure
from staticgrad.errors import IntegerPowerError
from staticgrad.ir.context import CONTEXT_WORDS, PARALLEL_FOR, SLOTS
from staticgrad.runtime import threads
from staticgrad.runtime.build import lower_graph
from staticgrad.runtime.compile import Stage
from staticgrad.runtime.executor import Executable
from staticgrad.runtime.llvm_compile import compile_text
from staticgrad.runtime.threads import share, thread_count
from tests.codegen.test_blocks import failing
from tests.codegen.units import call

COUNTS = (1, 2, 3, 7)

rng = np.random.default_rng(2)
X, Y, W = rng.standard_normal((600, 400)), rng.standard_normal(400), rng.standard_normal((400, 96))

posix = pytest.mark.skipif(os.name != "posix", reason="the pool is made of POSIX threads")


def everything(x, y, w):
    top = np.max(x)
    return {
        "elementwise": np.exp(x) * np.tanh(y),
        "sum": np.sum(x * y),
        "rows": np.sum(x, 1),
        "columns": np.sum(np.exp(-x * x), 0),
        "greatest": top,
        "place": np.argmax(x),
        "logsumexp": np.log(np.sum(np.exp(x - top))) + top,
        "product": x @ w,
        "loop": sg.fori_loop(0, 3, lambda i, c: np.tanh(c @ w[:96]) * (1 + i), x[:, :96]),
    }


def loss(x, y, w):
    return np.mean(np.tanh((x * y) @ w) ** 2)


@pytest.fixture(scope="module")
def results():
    """The function above and the gradients of the loss, for each number of threads."""
    return {n: (sg.trace(everything, threads=n), sg.value_and_grad(sg.trace(loss, threads=n), argnums=(0, 1, 2))) for n in COUNTS}


def bits(tree) -> list[bytes]:
    leaves = tree.values() if isinstance(tree, dict) else [tree[0], *tree[1]]
    return [np.asarray(leaf).tobytes() for leaf in leaves]


def test_any_number_of_threads_gives_the_same_bits(results):
    expected = everything(X, Y, W)
    for number in (0, 1):
        first = results[1][number](X, Y, W)
        schedule = str(results[1][number].lower(X, Y, W).schedule)
        assert schedule.count("blocks of") >= (3 if number else 4)
        for count in COUNTS:
            for _ in range(3):
                assert bits(results[count][number](X, Y, W)) == bits(first)
        if not number:
            for name, found in first.items():
                np.testing.assert_allclose(found, expected[name], rtol=1e-9, atol=1e-9)


def test_counts_share_one_compilation(results):
    function = results[1][0]
    function(X, Y, W)
    info = function.cache_info()
    assert (info.traces, info.signatures) == (1, 1)
    assert results[7][0].cache_info() == info


def test_pullbacks(results):
    pulled = []
    for count in COUNTS:
        _, pullback = sg.vjp(sg.trace(loss, threads=count), X, Y, W)
        pulled.append([x.tobytes() for x in pullback(1.5)])
    assert all(each == pulled[0] for each in pulled)


# ---- the number


@pytest.fixture
def asked() -> Iterator[None]:
    before = configure(replace(config(), threads=3))
    yield
    configure(before)


def test_the_option_comes_before_the_environment_and_that_before_the_processors(asked):
    assert thread_count(None) == 3
    assert thread_count(5) == 5
    configure(replace(config(), threads=None))
    assert thread_count(None) == (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    assert thread_count(10**6) == threads.MOST_THREADS


@posix
def test_words_of_a_context(asked):
    context = (ctypes.c_int64 * CONTEXT_WORDS)()
    share(context, None)
    assert context[PARALLEL_FOR] and context[SLOTS] == 3
    share(context, 1)
    assert not context[PARALLEL_FOR] and context[SLOTS] == 1


# ---- callers


@pytest.fixture(scope="module")
def quick():
    """A graph of many short blocks: how to run it, what with, and what comes out."""
    x = rng.standard_normal(4096)
    graph = sg.trace(lambda x: (np.sum(x * x), x + 1)).lower(x).graph
    lowering = lower_graph(graph, grain=Grain(work=10.0, row=64))
    forward = compile_text(*lowering.llvm, False).forward_address
    executable = Executable(lowering.call_plan, Stage(forward), None)
    return executable, x, [result.tobytes() for result in executable([x], 1)]


def test_many_callers_at_once(quick):
    executable, x, expected = quick

    def work(seed: int) -> bool:
        counts = np.random.default_rng(seed)
        return all([r.tobytes() for r in executable([x], int(counts.integers(1, 6)))] == expected for _ in range(1500))

    with ThreadPoolExecutor(6) as callers:
        assert all(callers.map(work, range(6)))


def test_workers_that_sleep_are_woken(quick):
    executable, x, expected = quick
    for pause in (0.0, 1e-5, 1e-4, 1e-3, 1e-2) * 20:
        time.sleep(pause)
        assert [r.tobytes() for r in executable([x], 4)] == expected


def test_traced_functions_in_a_pool_of_threads(results):
    expected = bits(results[1][0](X, Y, W))
    with ThreadPoolExecutor(3) as callers:
        for found in callers.map(lambda count: bits(results[count][0](X, Y, W)), COUNTS * 2):
            assert found == expected


@posix
def test_a_task_that_shares_work_runs_it_itself():
    """A block that itself calls `parallel_for` finds the pool taken."""
    context = (ctypes.c_int64 * CONTEXT_WORDS)()
    share(context, 3)
    ran: list[tuple[int, int]] = []
    lock = threading.Lock()
    task_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    parallel_for = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(
        context[PARALLEL_FOR]
    )

    @task_type
    def inner(arguments, workspace, words, block):
        with lock:
            ran.append((workspace or 0, block))

    @task_type
    def outer(arguments, workspace, words, block):
        own = (ctypes.c_int64 * CONTEXT_WORDS)()
        own[PARALLEL_FOR], own[SLOTS] = context[PARALLEL_FOR], 3
        parallel_for(ctypes.cast(inner, ctypes.c_void_p), 4, None, block + 1, ctypes.addressof(own))
        assert not ctypes.c_int64.from_address(words + 8 * PARALLEL_FOR).value
        assert ctypes.c_int64.from_address(words + 8 * 6).value == 77  # the user's data

    context[6] = 77
    parallel_for(ctypes.cast(outer, ctypes.c_void_p), 5, None, None, ctypes.addressof(context))
    assert sorted(ran) == [(outer + 1, inner) for outer in range(5) for inner in range(4)]
    for k in range(5):
        assert [block for place, block in ran if place == k + 1] == [0, 1, 2, 3]


# ---- failures


def test_the_failure_of_the_lowest_block_is_the_one():
    name, text = named_text(failing(6, 3, 5))
    compiled = compile_text(name, text, False)
    for count in (1, 2, 5) * 40:
        context, out = np.zeros(CONTEXT_WORDS, np.int64), np.zeros(8)
        share(context, count)
        assert call(compiled, [out], context=context) == 1
        assert context[:3].tolist() == [1, 7, 30]
        np.testing.assert_array_equal(out, np.arange(8.0))


def test_an_earlier_failure_stays():
    name, text = named_text(failing(3))
    context = np.zeros(CONTEXT_WORDS, np.int64)
    context[:3] = 1, 2, 4
    share(context, 3)
    assert call(compile_text(name, text, False), [np.zeros(8)], context=context) == 1
    assert context[:3].tolist() == [1, 2, 4]


def test_errors_reach_the_caller():
    powers = np.arange(100000) % 7
    f = sg.trace(lambda x, p: x**p, threads=3)
    assert "blocks of" in str(f.lower(powers, powers).schedule)
    np.testing.assert_array_equal(f(powers, powers), powers**powers)
    powers[[900, 99000]] = -1
    with pytest.raises(IntegerPowerError):
        f(np.arange(100000), powers)


# ---- processes

TASKS = "/proc/self/task"


@posix
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_makes_threads_of_its_own(quick):
    executable, x, expected = quick
    stop = threading.Event()

    def go_on() -> None:
        while not stop.is_set():
            assert [r.tobytes() for r in executable([x], 3)] == expected

    other = threading.Thread(target=go_on)
    other.start()
    try:
        for _ in range(5):
            assert [r.tobytes() for r in executable([x], 4)] == expected
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    alone = not os.path.isdir(TASKS) or len(os.listdir(TASKS)) == 1
                    same = [r.tobytes() for r in executable([x], 4)] == expected
                    status = int(not (alone and same and len(threads._pool().threads) == 3))
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        other.join()
    assert [r.tobytes() for r in executable([x], 4)] == expected
    assert len(threads._pool().threads) >= 3


def test_a_process_ends_while_its_threads_wait_and_work():
    script = """
import threading, time
import numpy as np, staticgrad as sg
f, x = sg.trace(lambda x: np.sum(np.exp(x)), threads=4), np.linspace(0, 1, 300000)
f(x)
def work():
    while True:
        f(x)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
print("done", flush=True)
"""
    environment = {**os.environ, "STATICGRAD_PRINTER": "llvm"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.skipif(not os.path.isdir(TASKS), reason="the system does not show its threads")
def test_threads_take_no_signals():
    share((ctypes.c_int64 * CONTEXT_WORDS)(), 4)
    python = {thread.native_id for thread in threading.enumerate()}
    assert sum(_blocks_interrupts(task) for task in set(map(int, os.listdir(TASKS))) - python) >= 3
    assert not _blocks_interrupts(threading.get_native_id())


def _blocks_interrupts(task: int) -> bool:
    with open(f"{TASKS}/{task}/status") as lines:
        mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigBlk"))
    return bool(mask & 1 << (signal.SIGINT - 1))


# ---- training


def test_training_shares_the_pool():
    x = rng.standard_normal((2000, 96))
    target = np.tanh(x[:, :8])
    states = []
    for count in (1, 3):
        f = sg.trace(lambda params, x, y: np.mean((np.tanh(np.tanh(x @ params["v"]) @ params["w"]) - y) ** 2), threads=count)
        trainer = sg.Trainer(f, sg.optim.sgd(0.1))
        params = {"v": 0.1 * np.ones((96, 64)), "w": 0.1 * np.ones((64, 8))}
        state, history = trainer.fit(trainer.init(params), (x, target), epochs=2, batch_size=1000, progress=False)
        assert any(made.step.plan.parallel for made in trainer._loop._compiler._made.values())
        states.append([state.params["v"].tobytes(), state.params["w"].tobytes(), history["loss"]])
    assert states[0] == states[1]
