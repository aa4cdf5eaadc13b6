"""Long loops of machine code can be interrupted: signal handlers run meanwhile, and what one of them raises ends the call."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import staticgrad as sg

SOON, LATER, AT_MOST = 0.05, 0.3, 2.0  # seconds; a poll comes each 50 ms, and the machine may be busy

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="timers of POSIX")


class Ended(Exception):
    """What the handlers of these tests raise."""


@contextlib.contextmanager
def handler(function, after=SOON, interval=0.0):
    """Call `function` at the signal of a timer that begins now, once or again and again."""
    before = signal.signal(signal.SIGALRM, lambda *_: function())
    signal.setitimer(signal.ITIMER_REAL, after, interval)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def end(error=Ended):
    raise error


def count_down(n, x):
    """A loop of n steps, a number that nobody knows in advance."""
    return sg.while_loop(lambda s: s[0] > 0, lambda s: (s[0] - 1, np.sin(s[1]) + x), (n, x))[1]


@sg.trace
def every_loop(which, n, x):
    """One of the loops of all kinds: it ends where n and `which` are 0."""
    steps = 10**12

    def whole(x):  # stops at no condition: each step is nothing where n is 0
        return sg.scan(lambda c, _: (np.sin(c) + n, None), x, None, length=steps)[0]

    return sg.switch(
        which,
        [
            lambda x: count_down(n, x),
            whole,
            lambda x: sg.scan(lambda c, _: (count_down(5, c), None), x, None, length=steps)[0],  # short loops in a long one
            lambda x: sg.while_loop(lambda v: v[0] < n, lambda v: (v[0] + 1, count_down(n, v[1])), (0, x))[1],
            lambda x: sg.vmap(count_down)(n * np.array([1, 0, 1, 0]) + 2, x * np.arange(4.0)).sum(),
            lambda x: sg.while_loop(lambda v: v[0] < n, lambda v: (v[0] + 1, np.tanh(v[1] + x)), (0, np.ones(40_000) * x))[1].sum(),
        ],
        x,
    )


@pytest.mark.parametrize("which", range(6))
def test_every_loop_can_be_interrupted(which):
    result = every_loop(0, 3, 0.5)
    start = time.process_time()
    with handler(end), pytest.raises(Ended):
        every_loop(which, 10**15, 0.5)
    assert time.process_time() - start < AT_MOST
    assert every_loop(0, 3, 0.5) == result  # and the function is as it was


def test_the_way_back_can_be_interrupted():
    slope = sg.grad(count_down, 1)
    expected = slope(5, 0.5)
    with handler(end), pytest.raises(Ended):
        slope(10**13, 0.5)
    assert slope(5, 0.5) == expected


def test_handlers_that_raise_nothing_run_and_the_loop_goes_on():
    times = []
    with handler(lambda: times.append(every_loop(0, 3, 0.5)), interval=SOON):  # which may call the very function that is under way
        for steps in (10**7, 10**8, 10**9):  # so many as it takes until the timer has run out several times
            times.clear()
            found = every_loop(0, steps, 0.5)
            if len(times) > 1:
                break
    assert len(times) > 1
    assert set(times) == {every_loop(0, 3, 0.5)}
    assert found == every_loop(0, steps, 0.5)


def test_other_threads_are_not_interrupted():
    results = []
    thread = threading.Thread(target=lambda: results.append(every_loop(0, 5_000_000, 0.5)))
    with handler(end), pytest.raises(Ended):
        thread.start()
        every_loop(0, 10**15, 0.5)
    thread.join()
    assert results == [every_loop(0, 5_000_000, 0.5)]


def test_training_ends_with_the_last_whole_step():
    def loss(w, steps):
        return count_down(steps[0], w) ** 2

    trainer = sg.Trainer(loss, sg.optim.sgd(0.125))
    steps = np.array([3, 4, 10**15])

    expected = trainer.fit(trainer.init(0.5), steps[:2], epochs=1, batch_size=1, shuffle=False)
    with handler(lambda: end(KeyboardInterrupt), LATER):
        result = trainer.fit(trainer.init(0.5), steps, epochs=1, batch_size=1, shuffle=False)
    assert result.history.ended_by == "Ctrl-C"
    np.testing.assert_array_equal(result.state.params, expected.state.params)


FOREVER = """
import signal, staticgrad as sg
signal.signal(signal.SIGINT, signal.default_int_handler)  # which Python does not install where a parent has it ignored
forever = sg.trace(lambda x, n: sg.while_loop(lambda v: v < n, lambda v: v + 0 * x, x))
forever(2.0, 1.0)
print("ready", flush=True)
forever(2.0, 3.0)
"""


def test_ctrl_c_ends_a_program_by_a_traceback_to_the_users_line():
    with subprocess.Popen([sys.executable, "-c", FOREVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            time.sleep(LATER)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert "line 7, in <module>" in errors
    assert errors.endswith("KeyboardInterrupt\n")
    assert process.returncode == -signal.SIGINT


CHILD = """
import os, signal, threading
import staticgrad as sg

forever = sg.trace(lambda x, n: sg.while_loop(lambda v: v < n, lambda v: v + 0 * x, x))
forever(2.0, 1.0)

def fork():
    if os.fork() == 0:
        signal.alarm(1)  # ends the child, whose only thread this is, by a handler of Python's
        try:
            forever(2.0, 3.0)
        except ZeroDivisionError:
            os._exit(7)

signal.signal(signal.SIGALRM, lambda *_: 1 // 0)
thread = threading.Thread(target=fork)
thread.start()
thread.join()
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that fork")
def test_the_thread_that_forks_is_the_main_one_of_the_child():
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", CHILD], check=False, timeout=30).returncode == 7
