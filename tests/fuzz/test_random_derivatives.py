"""Derivatives of random programs that hold every op there is: both modes, second order in every mixture of modes, and rules by hand.

Each op is applied near operands that suit it (those of its samples), moved a little by what the program computed before.
"""

import functools
from collections.abc import Callable

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.ad.batch import all_batched
from staticgrad.ad.forward import tangents
from staticgrad.ad.reverse import cotangents
from staticgrad.ir.aval import FLOAT32, FLOAT64, Aval
from staticgrad.ir.graph import Graph, inline
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import Value, apply, apply_all, constant, full, new_input, zeros_like
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.casts import cast
from staticgrad.ops.movement import concatenate, reshape, slice_
from staticgrad.ops.reduce import sum_
from staticgrad.ops.trigonometric import sin
from staticgrad.tracing.lift import lift
from staticgrad.tracing.tracer import tracer_of
from tests.fuzz.programs import Program
from tests.ops.derivatives import Function, assert_adjoint, assert_differences, inner
from tests.ops.samples import Sample, samples_of, smooth_samples

OPS = 8
SEEDS = range(-(-len(REGISTRY) // OPS))

STEP = 1e-3
"""How far operands are moved from those of a sample: by less than what lies between two of them."""

STAY = ("stop_gradient", "nextafter")
"""Ops that are constant to derivatives only: their operands do not move, nor do those of what rounds to float32."""


def ops_of(seed: int) -> list[str]:
    """Return the ops that a program is given; every op is given to one program at least."""
    order = [str(name) for name in np.random.default_rng(0).permutation(sorted(REGISTRY))]
    return (order * 2)[seed * OPS : (seed + 1) * OPS]


@functools.cache
def usable(name: str) -> list[Sample]:
    """Return the small samples of an op, at points where it is smooth if it takes floats."""
    samples = smooth_samples(name) or samples_of(name)
    return [s for s in samples if all(0 < x.size <= 60 for x in s.operands)]


class Composed(Program):
    """A random program of smooth steps and of given ops."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, smooth=True)
        self.made: list[Value] = []
        for shape in ((), (3,), (2, 3)):
            self.input(shape)
        for name in ops_of(seed):
            self.grow(2)
            for _ in range(1 + self.rng.integers(2)):
                self.sampled(self.pick(usable(name)))

    def steps(self) -> list[Callable[[], Value]]:
        """Return the smooth steps without calls, which are differentiated as what they call."""
        return [step for step in super().steps() if step != self.called]

    def near(self, shape: tuple[int, ...]) -> Value:
        """Return something smooth of this shape between -1 and 1."""
        v = self.value()
        v = sin(self.gentle(v if v.aval.size else self.inputs[0]))
        if v.shape == shape:
            return v
        count, size = v.aval.size, int(np.prod(shape))
        flat = concatenate([reshape(v, (count,))] * -(-size // count), 0)
        return reshape(slice_(flat, (0,), (size,), (1,)), shape)

    def moved(self, x: np.ndarray, stay: bool) -> Value:
        """Return operands that lie near `x`: floats by a step, others no more than it takes to depend on the inputs."""
        near = self.near(x.shape)
        if x.dtype == bool:
            return apply(REGISTRY["logical_xor"](), constant(x), apply(REGISTRY["less"](), near, full(x.shape, -2, FLOAT64)))
        small = cast(apply(REGISTRY["rint"](), near * 0.1), x.dtype) if stay or x.dtype.kind in "iu" else cast(near * STEP, x.dtype)
        return constant(x) + small

    def sampled(self, sample: Sample) -> None:
        """Take in the results of an op, as numbers of about 1 that move as much as its operands."""
        stay = sample.op.name in STAY or any(y.dtype == FLOAT32 for y in sample.apply()[1])
        operands = [self.moved(x, stay) for x in sample.operands]
        for y in apply_all(sample.op, *operands):
            if not y.aval.size:
                continue
            if y.dtype == FLOAT64 and not stay:
                y = (y - constant(self.at_point(y))) * (1 / STEP)
            else:
                y = self.gentle(cast(y, FLOAT64)) * self.near(y.shape)
            y = self.gentle(y)
            self.take(y, self.at_point(y))
            self.made.append(y)

    def gentle(self, y: Value) -> Value:
        """Return a multiple of a value that is small, and changes little."""
        (slope,) = tangents([y], self.inputs, [full(v.shape, 1, v.dtype) for v in self.inputs])
        largest = max(float(np.max(np.abs(self.at_point(v)))) for v in (y, slope) if v is not None)
        return y * (1 / max(largest, 1.0))

    def at_point(self, v: Value) -> np.ndarray:
        """Return the numbers of a value."""
        return interpret(Graph(tuple(self.inputs), (v,)), self.arrays)[0]

    def total(self) -> Value:
        """Return one number that depends on all that the ops made, curved."""
        rng = np.random.default_rng(self.seed)
        parts = [sum_(sin(y) * constant(np.asarray(rng.standard_normal(y.shape))), tuple(range(len(y.shape)))) for y in self.made]
        return functools.reduce(lambda x, y: x + y, parts)

    def directions(self) -> list[Value]:
        """Return a random vector for each input."""
        return [constant(np.asarray(self.rng.standard_normal(v.shape))) for v in self.inputs]


composed = functools.cache(Composed)


def ops_in(graph: Graph) -> set[str]:
    """Return the names of the ops of a graph and of the graphs inside of them."""
    return {node.op.name for node in graph.nodes}.union(*(ops_in(each) for node in graph.nodes for each in node.op.subgraphs))


def pulled(outputs: list[Value], inputs: list[Value], seeds: list[Value]) -> list[Value]:
    return [zeros_like(x) if g is None else g for g, x in zip(cotangents(outputs, inputs, seeds), inputs, strict=True)]


def pushed(outputs: list[Value], inputs: list[Value], seeds: list[Value]) -> list[Value]:
    return [zeros_like(y) if t is None else t for t, y in zip(tangents(outputs, inputs, seeds), outputs, strict=True)]


def test_the_programs_hold_every_op():
    held = set().union(*(ops_in(Graph(tuple(composed(seed).inputs), tuple(composed(seed).made))) for seed in SEEDS))
    assert held >= set(REGISTRY)


@pytest.mark.parametrize("seed", SEEDS)
def test_tangents_are_differences_and_adjoint_to_cotangents(seed):
    program = composed(seed)
    function, rng = Function(program.inputs, program.made, program.arrays), np.random.default_rng(seed)
    assert_differences("", function, rng, 1e-8, levels=4)
    assert_adjoint("", function, rng, 1e-11)


@pytest.mark.parametrize("seed", SEEDS)
def test_second_derivatives_in_every_mixture_of_modes(seed):
    """H u and H v by forward over reverse, reverse over forward and reverse over reverse; u H v by forward over forward; symmetric."""
    program, one = composed(seed), full((), 1, FLOAT64)
    total, inputs = program.total(), program.inputs
    u, v = program.directions(), program.directions()
    gradient = pulled([total], inputs, [one])
    (along_u,), (along_v,) = (pushed([total], inputs, t) for t in (u, v))
    ways = [
        *(pushed(gradient, inputs, t) for t in (u, v)),
        *(pulled([along], inputs, [one]) for along in (along_u, along_v)),
        *(pulled(gradient, inputs, t) for t in (u, v)),
        pushed([along_u], inputs, v),
    ]
    found = iter(interpret(Graph(tuple(inputs), tuple(x for way in [u, v, *ways] for x in way)), program.arrays))
    u, v, *products, (twice,) = ([next(found) for _ in way] for way in [u, v, *ways])
    for number, (hu, hv) in enumerate(zip(products[::2], products[1::2], strict=True)):
        for x, y in zip((*hu, *hv), (*products[0], *products[1]), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9, err_msg=f"way {number}")
        (left, scale), (right, _) = inner(v, hu), inner(u, hv)
        assert abs(left - right) <= 1e-9 * max(scale, 1), f"way {number} is not symmetric"
        assert abs(left - twice) <= 1e-9 * max(scale, 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_batches_of_values_and_of_gradients(seed):
    program, rows = composed(seed), 3
    results = [*program.made, *pulled([program.total()], program.inputs, [full((), 1, FLOAT64)])]
    stacks = [np.stack([x, x + 0.1 * program.rng.standard_normal(x.shape), -x]) for x in program.arrays]
    for mapped in ([True] * len(stacks), [k == 0 for k in range(len(stacks))]):
        arguments = [new_input(Aval((rows, *v.shape) if m else v.shape, v.dtype)) for v, m in zip(program.inputs, mapped, strict=True)]
        together = Graph(tuple(arguments), tuple(all_batched(results, program.inputs, arguments, mapped, rows)))
        found = interpret(together, [xs if m else xs[0] for xs, m in zip(stacks, mapped, strict=True)])
        single = Graph(tuple(program.inputs), tuple(results))
        for row in range(rows):
            expected = interpret(single, [xs[row] if m else xs[0] for xs, m in zip(stacks, mapped, strict=True)])
            for many, one in zip(found, expected, strict=True):
                np.testing.assert_allclose(many[row], one, rtol=1e-9, atol=1e-9)


def ruled(function: Callable[..., object], word: str) -> Callable[..., object]:
    """Return a function with a rule that says twice its derivative."""
    if word == "custom_jvp":
        made = sg.custom_jvp(function)
        made.defjvp(lambda primals, t: (made(*primals), 2 * sg.jvp(function, primals, t)[1]))
        return made
    made = sg.custom_vjp(function)
    made.defvjp(lambda *x: (made(*x), x), lambda x, g: tuple(2 * g * each for each in sg.grad(function, tuple(range(len(x))))(*x)))
    return made


@pytest.mark.parametrize("word", ["custom_jvp", "custom_vjp"])
@pytest.mark.parametrize("seed", SEEDS[::4])
def test_rules_by_hand_hold_at_every_order(seed, word):
    """A rule that says twice the derivative of f is the derivative of 2 f - stop_gradient(f), of which there are as many as one likes."""
    program = composed(seed)
    graph = Graph(tuple(program.inputs), (program.total(),))

    def plain(*x):
        return tracer_of(inline(graph, [lift(each) for each in x])[0])

    def doubled(*x):
        return 2 * plain(*x) - sg.stop_gradient(plain(*x))

    def used(f):
        return sg.trace(lambda *x: np.sin(f(*x)) * np.exp(0.1 * x[0]) + f(*(0.5 * each for each in x)), backend="interp")

    rng = np.random.default_rng(seed)
    found, expected = used(ruled(plain, word)), used(doubled)
    for _ in range(3):
        np.testing.assert_allclose(found(*program.arrays), expected(*program.arrays), rtol=1e-9, atol=1e-9)
        mode = rng.choice(["forward", "reverse"]) if word == "custom_jvp" else "reverse"
        t = [rng.standard_normal(x.shape) for x in program.arrays]
        found, expected = (along(f, t, mode) for f in (found, expected))


def along(f: Callable[..., object], t: list[np.ndarray], mode: str) -> Callable[..., object]:
    """Return the derivative of a function along vectors, as a function."""
    if mode == "forward":
        return sg.trace(lambda *x: sg.jvp(f, x, t)[1], backend="interp")
    gradient = sg.grad(f, tuple(range(len(t))))
    return sg.trace(lambda *x: sum(np.sum(g * each) for g, each in zip(gradient(*x), t, strict=True)), backend="interp")
