"""What people read: graphs, schedules and emitted sources, held to the letter (`make golden` writes them anew)."""

import numpy as np
import pytest

import staticgrad as sg


def chain(x, b):
    y = np.tanh(2 * x + b)
    return np.sum(np.where(y > 0, y, 0.1 * y))


def layer(x, w, b):
    return np.mean(np.maximum(x @ w + b, 0) ** 2)


def differences(x):
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def blocks(x, b):
    return np.sum(np.sqrt(x * x + b))


def words(table, bias, k, order):
    y = table[k] + bias
    y[order] *= 2
    return np.sum(np.sort(y, axis=1)[:, -1])


def loop(w, x, xs):
    def step(h, row):
        h = sg.cond(h[0] > row[0], lambda: np.tanh(w @ h), lambda: h + row)
        return h, h

    return np.sum(sg.scan(step, x, xs)[1] ** 2)


def root(x):
    return sg.while_loop(lambda r: abs(r * r - x) > 1e-12, lambda r: (r + x / r) / 2, x)


PROGRAMS = {
    "chain": (chain, (np.zeros((5, 7)), np.zeros(7)), (0, 1)),
    "layer": (layer, (np.zeros((8, 16), np.float32), np.zeros((16, 20), np.float32), np.zeros(20, np.float32)), (1, 2)),
    "differences": (differences, (np.zeros(10),), 0),
    "blocks": (blocks, (np.zeros((2000, 300)), np.zeros(300)), (0, 1)),
    "words": (words, (np.zeros((50, 20)), np.zeros(20), np.zeros(6, int), np.zeros(3, int)), (0, 1)),
    "loop": (loop, (np.zeros((3, 3)), np.zeros(3), np.zeros((100, 3))), (0, 1)),
    "root": (root, (2.0,), 0),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_people_read(name, golden):
    function, arguments, argnums = PROGRAMS[name]
    lowered = sg.value_and_grad(function, argnums=argnums).lower(*arguments)
    parts = [str(lowered.graph), str(lowered.optimized), str(lowered.report), str(lowered.schedule), lowered.source]
    golden(f"{name}.txt", "\n\n".join(parts) + "\n")
