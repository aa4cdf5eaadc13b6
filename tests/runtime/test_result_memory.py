"""The memory of results: it begins at a cache line, and that of very large ones is used again once nobody holds them."""

import threading

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.ir.aval import Aval
from staticgrad.runtime import result_memory
from staticgrad.runtime.result_memory import ALIGNMENT, KEPT, LARGE, MOST_KEPT


@pytest.fixture(autouse=True)
def nothing_kept():
    result_memory.let_go()
    yield
    result_memory.let_go()


def owner(array):
    while array.base is not None:
        array = array.base
    return array


def test_large_results_begin_at_a_cache_line():
    """At the first call, which Python makes, and at the later ones; several at once, with what NumPy knows of any new array."""

    @sg.trace
    def f(x):
        return x * 2, np.outer(x[:300], x), (x > 0).reshape(100, -1), np.sum(x)

    x = np.arange(LARGE // 8 + 8.0).reshape(-1)[:8200]
    for _ in range(3):
        doubled, table, signs, total = f(x)
        assert all(a.ctypes.data % ALIGNMENT == 0 for a in (doubled, table) if a.nbytes >= LARGE)
        assert all(a.flags.c_contiguous and a.flags.writeable and a.flags.aligned for a in (doubled, table, signs))
        np.testing.assert_array_equal(table, np.outer(x[:300], x))
        np.testing.assert_array_equal(signs, (x > 0).reshape(100, -1))
        assert doubled[1] == 2 and total == x.sum()
        doubled[:] = 0  # it is the caller's
    assert result_memory.new_array(Aval((3, 5), np.dtype(float))).flags.owndata


def test_memory_of_very_large_results_is_used_again():
    @sg.trace
    def f(x):
        return x + 1

    x = np.zeros(KEPT // 8)
    first = f(x)
    second = f(x)
    place = first.ctypes.data
    assert second.ctypes.data != place
    del first
    third = f(x)
    assert third.ctypes.data == place
    part = third[7:9]
    del third, second
    fourth = f(x)
    assert owner(fourth) is not owner(part) and part.tolist() == [1, 1]
    del fourth, part
    result_memory.let_go()
    assert not result_memory._kept


def test_what_is_kept_is_bounded():
    size = MOST_KEPT // 3
    held = [result_memory.result_memory(size) for _ in range(5)]
    assert len({id(memory) for memory in held}) == 5
    assert sum(memory.nbytes for memory in result_memory._kept) <= MOST_KEPT
    result_memory.result_memory(MOST_KEPT)
    assert all(memory.nbytes < MOST_KEPT for memory in result_memory._kept)


def test_threads_never_share_memory():
    def work(number):
        for turn in range(200):
            memory = result_memory.result_memory(KEPT)
            memory[:8] = number
            if not (memory[:8] == number).all():
                wrong.append(turn)

    wrong = []
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_clearing_a_function_lets_go():
    f = sg.trace(lambda x: x + 1)
    f(np.zeros(KEPT // 8))
    assert result_memory._kept
    f.cache_clear()
    assert not result_memory._kept
