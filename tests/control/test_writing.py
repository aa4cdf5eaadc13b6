"""Writes into what a loop carries along go into its memory: a step costs what it writes, not what is carried."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.ir.interp import interpret
from tests.ops.running import run_uncompiled

N = 1000


def accumulated(x: Any) -> Any:
    def step(i: Any, c: Any) -> Any:
        c = c.copy()
        c[i + 1] = c[i] * 0.9 + x[i]
        return c

    return sg.fori_loop(0, N - 1, step, x)


def until(x: Any) -> Any:
    def step(state: Any) -> Any:
        i, c = state
        c = c.copy()
        c[i] = 0.5 * (c[i] + c[i - 1])
        c[i - 1] += c[i]
        return i + 1, c

    return sg.while_loop(lambda state: state[0] < N, step, (0, x))[1]


def table(x: Any) -> Any:
    def row(i: Any, t: Any) -> Any:
        def cell(j: Any, t: Any) -> Any:
            t = t.copy()
            t[i + 1, j + 1] = np.maximum(t[i, j + 1], t[i + 1, j]) + x[i] * x[j]
            return t

        return sg.fori_loop(0, 20, cell, t)

    return sg.fori_loop(0, 20, row, np.zeros((21, 21)))


def chosen(x: Any) -> Any:
    def written(c: Any, i: Any, value: Any) -> Any:
        c = c.copy()
        c[i] = value
        return c

    def step(i: Any, c: Any) -> Any:
        return sg.cond(c[i] > 0, lambda c: written(c, i + 1, c[i] * 0.9 + x[i]), lambda c: c, c)

    return sg.fori_loop(0, N - 1, step, x)


@pytest.mark.parametrize(("function", "size"), [(accumulated, N), (until, N), (table, 441), (chosen, N)])
def test_a_step_copies_nothing(function: Callable[..., Any], size: int) -> None:
    """The only loop over the elements copies or fills what the loop starts from."""
    x = np.random.default_rng(0).normal(size=N) / 2
    lowered = sg.trace(function).lower(x)
    assert re.findall(r"range\((\d+)\)", lowered.source).count(str(size)) == 1
    np.testing.assert_allclose(lowered.compile().run([x])[0], interpret(lowered.graph, [x])[0], rtol=1e-13)


def test_a_step_of_a_gradient_copies_nothing() -> None:
    gradient = sg.grad(lambda x: np.sum(accumulated(x) ** 2))
    lowered = gradient.lower(np.ones(N))
    body = lowered.source[lowered.source.index("for step in") :]
    backward = body[body.index("for step in", 20) :]
    assert "range(1000)" not in backward[: backward.index("@kernel")]
    x = np.random.default_rng(1).normal(size=N) / 2
    np.testing.assert_allclose(gradient(x), interpret(lowered.graph, [x])[0], rtol=1e-12)


def test_a_part_that_is_written_where_it_is_read_stays_vectorised() -> None:
    """The carry is handed to a function of its own once, so that it is known that nothing overlaps."""

    def step(c: Any, x: Any) -> Any:
        h, m = c
        z = h + x
        m = np.tanh(z[:, :64]) * m + np.tanh(z[:, 64:128]) * np.exp(-(z[:, 128:192] ** 2))
        h = np.concatenate([m, np.tanh(m) * np.tanh(z[:, 192:]), z[:, :128]], axis=1)
        return (h, m), None

    def f(xs: Any) -> Any:
        return sg.scan(step, (np.zeros((4, 256)), np.zeros((4, 64))), xs)[0]

    source = sg.trace(f).lower(np.ones((5, 4, 256)), printer="numba").source
    heads = re.findall(r"@kernel\((.*)\)\ndef (\w+)", source)
    assert any(name.startswith("part") for _, name in heads)
    assert all("disjoint=True" in options for options, name in heads if name.startswith("part"))


# ---- what is read later, or twice, is not written over


class Plain:
    """The same loops in Python."""

    @staticmethod
    def fori_loop(low: int, high: int, body: Callable[..., Any], carry: Any) -> Any:
        for i in range(low, high):
            carry = body(i, carry)
        return carry

    @staticmethod
    def while_loop(goes_on: Callable[..., Any], body: Callable[..., Any], carry: Any) -> Any:
        while goes_on(carry):
            carry = body(carry)
        return carry

    @staticmethod
    def scan(body: Callable[..., Any], carry: Any, xs: Any) -> Any:
        ys = []
        for x in xs:
            carry, y = body(carry, x)
            ys.append(y)
        return carry, np.stack(ys)

    @staticmethod
    def cond(predicate: Any, first: Callable[..., Any], second: Callable[..., Any], *operands: Any) -> Any:
        return first(*operands) if predicate else second(*operands)


def old_and_new_change_places(lax: Any, a: Any, b: Any, m: Any) -> Any:
    def step(i: Any, c: Any) -> Any:
        a, b = c
        new = a.copy()
        new[i] = b[0]
        return new, a

    return lax.fori_loop(0, 4, step, (a, b))


def written_twice_from_one(lax: Any, a: Any, b: Any, m: Any) -> Any:
    def step(c: Any, x: Any) -> Any:
        a = c[0]
        first, second = a.copy(), a.copy()
        first[1] = x
        second[2:4] = first[:2]
        return (second, first), np.sum(a)

    return lax.scan(step, (a, b), m[0])


def kept_as_it_was(lax: Any, a: Any, b: Any, m: Any) -> Any:
    def step(c: Any, x: Any) -> Any:
        new = c.copy()
        new[1:4] += new[:3] * x
        return new, c

    return lax.scan(step, a, m[0])


def between_is_a_result(lax: Any, a: Any, b: Any, m: Any) -> Any:
    def step(c: Any, x: Any) -> Any:
        first = c.copy()
        first[0] = x
        second = first.copy()
        second[5] = first[0] * 2
        return second, first

    return lax.scan(step, a, m[1])


def loop_in_a_loop(lax: Any, a: Any, b: Any, m: Any) -> Any:
    def step(i: Any, c: Any) -> Any:
        a, m = c

        def inner(j: Any, d: Any) -> Any:
            d = d.copy()
            d[i, j] = d[j, i] + a[j]
            return d

        turned = lax.fori_loop(0, 3, inner, m)
        a = a.copy()
        a[i] = np.sum(turned[i]) - m[i, i]
        return a, turned

    return lax.fori_loop(0, 4, step, (a, m))


def branch_in_a_loop(lax: Any, a: Any, b: Any, m: Any) -> Any:
    def step(c: Any) -> Any:
        i, a, b = c

        def written(a: Any, b: Any) -> Any:
            a = a.copy()
            a[i] = b[i] - 1
            return a, b

        a, b = lax.cond(a[i] > 0, written, lambda a, b: (b, a), a, b)
        b = b.copy()
        b[i] += a[i]
        return i + 1, a, b

    return lax.while_loop(lambda c: c[0] < 6, step, (0, a, b))


def under_another_shape(lax: Any, a: Any, b: Any, m: Any) -> Any:
    def step(i: Any, m: Any) -> Any:
        m = m.copy()
        before = m.reshape(-1)[::7] * 1.0
        m.reshape(-1)[i] += 3.0
        m[i] *= np.sum(before)
        return m

    return lax.fori_loop(0, 4, step, m)


def branches_that_read_it_later(lax: Any, a: Any, b: Any, m: Any) -> Any:
    def step(i: Any, c: Any) -> Any:
        a, b = c

        def written(a: Any, b: Any) -> Any:
            new = a.copy()
            new[i] = b[0] + np.sum(a)
            return new, np.cumsum(a[::-1]) * 0.1

        def left(a: Any, b: Any) -> Any:
            return a, a * b

        return lax.cond(a[i] > 0, written, left, a, b)

    return lax.fori_loop(0, 6, step, (a, b))


PROGRAMS = (
    branches_that_read_it_later,
    old_and_new_change_places,
    written_twice_from_one,
    kept_as_it_was,
    between_is_a_result,
    loop_in_a_loop,
    branch_in_a_loop,
    under_another_shape,
)


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_needed_later_stays(program: Callable[..., Any], same: bool) -> None:
    rng = np.random.default_rng(2)
    a, m = rng.normal(size=6), rng.normal(size=(6, 6))
    b = a if same else rng.normal(size=6)

    def loss(a: Any, b: Any, m: Any) -> Any:
        first, *rest = sg.vmap(lambda v: program(sg, v, b, m))(a[None])
        return np.sum(first[-1] ** 2) + sum(np.sum(np.sin(leaf)) for leaf in rest)

    expected = flat(program(Plain, a, b, m))
    graphs = [sg.trace(lambda *args: program(sg, *args)).program(a, b, m).graph, sg.grad(loss, (0, 1, 2)).program(a, b, m).graph]
    for x, y in zip(run_uncompiled(graphs[0], [a, b, m]), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-13)
    for x, y in zip(run_uncompiled(graphs[1], [a, b, m]), interpret(graphs[1], [a, b, m]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-12)


def flat(result: Any) -> list[np.ndarray]:
    return [leaf for part in result for leaf in flat(part)] if isinstance(result, tuple) else [np.asarray(result)]
