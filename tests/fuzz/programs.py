"""Random graphs over all ops, with moderate numbers along the way: what overflows or leaves the domain of an op is not taken in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

import staticgrad.ops  # noqa: F401  (fills the registry)
from staticgrad.ad.forward import tangents
from staticgrad.ad.reverse import cotangents
from staticgrad.errors import StaticgradError
from staticgrad.ir.aval import BOOL, FLOAT32, FLOAT64, INT64, Aval
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import Value, apply, constant, full, new_input, zeros_like
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.arithmetic import add, multiply
from staticgrad.ops.casts import cast
from staticgrad.ops.control import call, inline_calls
from staticgrad.ops.movement import broadcast, broadcast_to, concatenate, flip, pad, reshape, slice_, slice_set, transpose
from staticgrad.ops.reduce import sum_

LARGEST = 1e3
SHAPES = ((), (1,), (3,), (4,), (2, 3), (3, 1), (1, 4), (2, 3, 4), (4, 1, 3), (18,), (2, 17))

SMOOTH_UNARY = (
    "negative", "exp", "expm1", "sin", "cos", "tanh", "sigmoid", "softplus", "sqrt", "log", "log1p", "contiguous", "exp2", "sinh", "cosh",
    "arctan", "arcsinh",
)  # fmt: skip
KINKED_UNARY = ("absolute", "sign", "floor", "relu", "stop_gradient", "ceil", "trunc", "rint", "cbrt")
SMOOTH_BINARY = ("add", "subtract", "multiply", "divide", "power", "logaddexp")
KINKED_BINARY = ("maximum", "minimum", "fmax", "fmin", "hypot", "arctan2", "remainder", "fmod", "copysign")
COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
LOGICAL = ("logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor")
INTEGER = ("bitwise_and", "bitwise_or", "bitwise_xor", "add", "multiply", "maximum", "subtract", "floor_divide", "remainder", "gcd")


@dataclass
class Program:
    """A random graph with numbers for its inputs."""

    seed: int
    smooth: bool = False
    inputs: list[Value] = field(default_factory=list)
    arrays: list[np.ndarray] = field(default_factory=list)
    pool: list[Value] = field(default_factory=list)
    numbers: dict[Value, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    # ---- picking

    def pick(self, items: Sequence[object]) -> object:
        """Return one of `items`."""
        return items[int(self.rng.integers(len(items)))]

    def value(self, kind: str = "f") -> Value:
        """Return a value of a dtype kind, a recent one more likely."""
        fitting = [v for v in self.pool if v.dtype.kind == kind]
        if not fitting:
            return self.compared() if kind == "b" else cast(self.value(), INT64)
        return fitting[-1 - min(int(self.rng.exponential(4)), len(fitting) - 1)]

    def input(self, shape: tuple[int, ...], dtype: np.dtype = FLOAT64) -> Value:
        """Return a new input."""
        x = np.asarray(self.rng.standard_normal(shape) if dtype.kind == "f" else self.rng.integers(-4, 5, shape)).astype(dtype)
        v = new_input(Aval(shape, dtype), f"x{len(self.inputs)}")
        self.inputs.append(v)
        self.arrays.append(x)
        self.take(v, x)
        return v

    def take(self, v: Value, x: np.ndarray) -> None:
        """Add a value to the pool."""
        if v not in self.numbers:
            self.pool.append(v)
        self.numbers[v] = x

    def like(self, v: Value) -> Value:
        """Return a value with the shape and dtype of `v`."""
        same = [w for w in self.pool if w.shape == v.shape and w.dtype == v.dtype]
        if same and self.rng.random() < 0.6:
            return self.pick(same)
        smaller = [w for w in self.pool if w.dtype == v.dtype and _broadcastable(w.shape, v.shape)]
        if smaller and self.rng.random() < 0.7:
            return broadcast_to(self.pick(smaller), v.shape)
        if self.rng.random() < 0.5:
            return full(v.shape, float(np.round(self.rng.uniform(-2, 2), 1)) if v.dtype.kind == "f" else 2, v.dtype)
        return constant(np.asarray(self.rng.standard_normal(v.shape) * 2).astype(v.dtype))

    # ---- steps: each returns a value that is taken in if its numbers are moderate

    def compared(self) -> Value:
        v = self.value()
        return apply(REGISTRY[self.pick(COMPARISONS)](), v, self.like(v))

    def unary(self) -> Value:
        return apply(REGISTRY[self.pick(SMOOTH_UNARY if self.smooth else SMOOTH_UNARY + KINKED_UNARY)](), self.value())

    def binary(self) -> Value:
        v = self.value()
        return apply(REGISTRY[self.pick(SMOOTH_BINARY if self.smooth else SMOOTH_BINARY + KINKED_BINARY)](), v, self.like(v))

    def powers(self) -> Value:
        return apply(REGISTRY["integer_power"](int(self.rng.integers(-2, 5))), self.value())

    def choose(self) -> Value:
        v = self.value()
        condition = self.value("b")
        while condition.shape != v.shape:
            condition = apply(REGISTRY["less"](), v, self.like(v))
        return apply(REGISTRY["where"](), condition, v, self.like(v))

    def clipped(self) -> Value:
        v = self.value()
        return apply(REGISTRY["clip"](), v, self.like(v), self.like(v))

    def logic(self) -> Value:
        v = self.value("b")
        if self.rng.random() < 0.3:
            return apply(REGISTRY[self.pick(("logical_not", "invert"))](), v)
        same = [w for w in self.pool if w.aval == v.aval]
        return apply(REGISTRY[self.pick(LOGICAL)](), v, self.pick(same or [v]))

    def integers(self) -> Value:
        v = self.value("i")
        return apply(REGISTRY[self.pick(INTEGER)](), v, self.like(v))

    def test_of_floats(self) -> Value:
        return apply(REGISTRY[self.pick(("isnan", "isinf", "isfinite"))](), self.value())

    def converted(self) -> Value:
        v = self.value(self.pick("ffib"))
        return cast(v, self.pick((FLOAT64, FLOAT64, FLOAT32, INT64, BOOL, np.dtype(np.int8))))

    def widened(self) -> Value:
        v = self.value(self.pick("fffib"))
        return cast(v, FLOAT64)

    def reduced(self) -> Value:
        v = self.value()
        rank = len(v.shape)
        axes = tuple(k for k in range(rank) if self.rng.random() < 0.6)
        name = self.pick(("sum", "sum", "prod", "max", "min") if not self.smooth else ("sum", "prod"))
        return apply(REGISTRY[name](axes), v)

    def tested(self) -> Value:
        v = self.value("b")
        return apply(REGISTRY[self.pick(("any", "all"))](tuple(k for k in range(len(v.shape)) if self.rng.random() < 0.6)), v)

    def placed(self) -> Value:
        v = self.value()
        return apply(REGISTRY[self.pick(("arg_max", "arg_min"))]((int(self.rng.integers(len(v.shape))),)), v)

    def spread(self) -> Value:
        v = self.value(self.pick("ffib"))
        rank = len(v.shape) + 1
        axis = int(self.rng.integers(rank))
        shape = (*v.shape[:axis], int(self.rng.integers(1, 4)), *v.shape[axis:])
        return broadcast(v, shape, (axis,))

    def reshaped(self) -> Value:
        v = self.value(self.pick("ffib"))
        size = v.aval.size
        shapes = [(size,), (1, size), (size, 1), *((k, size // k) for k in range(2, 6) if size % k == 0), *([()] if size == 1 else [])]
        return reshape(v, self.pick(shapes))

    def transposed(self) -> Value:
        v = self.value()
        return transpose(v, tuple(int(k) for k in self.rng.permutation(len(v.shape))))

    def sliced(self) -> Value:
        v = self.value(self.pick("fffi"))
        return slice_(v, *self.region(v.shape))

    def region(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        starts = tuple(int(self.rng.integers(0, max(n, 1))) if self.rng.random() < 0.5 else 0 for n in shape)
        stops = tuple(int(self.rng.integers(s, n + 1)) if self.rng.random() < 0.4 else n for s, n in zip(starts, shape, strict=True))
        return starts, stops, tuple(int(self.rng.integers(1, 4)) for _ in shape)

    def written(self) -> Value:
        v = self.value()
        region = self.region(v.shape)
        part = REGISTRY["slice"](*region).infer(v.aval)
        target = new_input(part)
        written = self.like(target)
        return slice_set(v, written, *region)

    def flipped(self) -> Value:
        v = self.value()
        return flip(v, tuple(k for k in range(len(v.shape)) if self.rng.random() < 0.5))

    def padded(self) -> Value:
        v = self.value()
        amounts = [tuple(int(k) for k in self.rng.integers(0, 3, len(v.shape))) for _ in range(3)]
        scalars = [w for w in self.pool if not w.shape and w.dtype == v.dtype]
        fill = self.pick(scalars) if scalars and self.rng.random() < 0.5 else full((), 0.5, v.dtype)
        return pad(v, fill, *amounts)

    def joined(self) -> Value:
        v = self.value()
        axis = int(self.rng.integers(len(v.shape)))
        fitting = [
            w
            for w in self.pool
            if w.dtype == v.dtype and len(w.shape) == len(v.shape) and w.aval.without((axis,)) == v.aval.without((axis,))
        ]
        return concatenate([v, *(self.pick(fitting) for _ in range(int(self.rng.integers(0, 3))))], axis)

    def contracted(self) -> Value:
        v = self.value(self.pick("ffffi"))
        labels = tuple(range(len(v.shape)))
        inner = tuple(k for k in labels if self.rng.random() < 0.6)
        others = [w for w in self.pool if w.dtype == v.dtype]
        right: list[int] = []
        w = self.pick(others)
        free = list(labels)
        for extent in w.shape:  # axes of equal length are shared where the coin says so
            shared = [k for k in free if v.shape[k] == extent]
            if shared and self.rng.random() < 0.8:
                right.append(shared[0])
                free.remove(shared[0])
            else:
                right.append(len(labels) + len(right) + 10)
        out = [k for k in (*labels, *right) if not (k in inner and k in right)]
        order = [int(k) for k in self.rng.permutation(list(dict.fromkeys(out)))]
        return apply(REGISTRY["contract"](labels, tuple(right), tuple(order)), v, w)

    def called(self) -> Value:
        v = self.value()
        x, y = new_input(v.aval), new_input(v.aval)
        body = Graph((x, y), (add(apply(REGISTRY["tanh"](), x), multiply(x, y)), apply(REGISTRY["sin"](), y)), (), "body")
        return self.pick(call(body, v, self.like(v)))

    def steps(self) -> list[Callable[[], Value]]:
        """Return the kinds of step, the frequent ones several times."""
        smooth = [
            self.unary, self.unary, self.unary, self.binary, self.binary, self.binary, self.powers, self.reduced, self.reduced,
            self.spread, self.reshaped, self.transposed, self.sliced, self.written, self.flipped, self.padded, self.joined,
            self.contracted, self.contracted,
            self.called,
        ]  # fmt: skip
        kinked = [self.compared, self.choose, self.choose, self.clipped, self.logic, self.integers, self.test_of_floats, self.converted,
                  self.widened, self.tested, self.placed]  # fmt: skip
        return smooth if self.smooth else smooth + kinked

    def grow(self, count: int) -> "Program":
        """Take in `count` more values."""
        if not self.inputs:
            for _ in range(3):
                self.input(self.pick(SHAPES))
            self.input((2, 3))
            if not self.smooth:
                self.input((3,), INT64)
                self.input((4,), FLOAT32)
        steps = self.steps()
        taken = 0
        for _ in range(40 * count):
            if taken == count:
                break
            made = self._attempt(self.pick(steps))
            taken += made
        return self

    def _attempt(self, step: Callable[[], Value]) -> bool:
        try:
            v = step()
        except (StaticgradError, ValueError):  # no operand fits: an axis of a scalar, a reduction of nothing
            return False
        if v.aval.size > 200 or v in self.numbers:
            return False
        if (self.smooth or v.op.name in ("power", "sqrt", "log")) and not self._well_inside(v):
            return False
        (x,) = interpret(Graph(tuple(self.inputs), (v,)), self.arrays)
        bound = LARGEST if x.dtype == FLOAT64 else 50
        if x.dtype.kind == "f" and not np.all(np.abs(x) <= bound):
            return False
        if x.dtype.kind == "i" and np.max(np.abs(x.astype(np.float64)), initial=0) > 10**6:
            return False
        self.take(v, x)
        return True

    def _well_inside(self, v: Value) -> bool:
        """Return whether the operands of `v` lie away from where its derivative has a pole."""
        poles = {"sqrt": 0, "log": 0, "power": 0, "divide": 1}
        place = poles.get(v.op.name, 0 if v.op.name == "integer_power" else None)
        if place is None:
            return True
        (x,) = interpret(Graph(tuple(self.inputs), (v.node.inputs[place],)), self.arrays)
        return bool(np.all((np.abs(x) if v.op.name in ("divide", "integer_power") else x) > 0.05))

    # ---- results

    def graph(self, count: int = 4) -> Graph:
        """Return a graph whose outputs are the last value and some others."""
        others = [self.pick(self.pool) for _ in range(count - 1)]
        return Graph(tuple(self.inputs), (self.pool[-1], *others), (), f"random_{self.seed}")

    def total(self) -> Value:
        """Return one float64 that depends on many values smoothly."""
        floats = [v for v in self.pool if v.dtype.kind == "f"]
        chosen = floats[-6:]
        parts = []
        for v in chosen:
            weights = constant(np.asarray(self.rng.uniform(-1, 1, v.shape)).astype(v.dtype))
            parts.append(cast(sum_(multiply(v, weights), tuple(range(len(v.shape)))), FLOAT64))
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def active(self) -> list[Value]:
        """Return the inputs of floats."""
        return [v for v in self.inputs if v.dtype.kind == "f"]

    def gradient(self) -> Graph:
        """Return the total and its gradient, with a forward and a backward stage."""
        plain = inline_calls(Graph(tuple(self.inputs), (self.total(),)))
        (y,) = plain.outputs
        found = cotangents([y], self.active(), [full((), 1, FLOAT64)])
        grads = [zeros_like(v) if g is None else g for g, v in zip(found, self.active(), strict=True)]
        return Graph(plain.inputs, (y, *grads), (y,), f"gradient_{self.seed}")

    def derivative(self, total: Value, directions: Sequence[np.ndarray]) -> Graph:
        """Return the derivative of `total` along `directions` of the float inputs."""
        plain = inline_calls(Graph(tuple(self.inputs), (total,)))
        seeds: list[Value | None] = [None] * len(self.inputs)
        for v, t in zip(self.active(), directions, strict=True):
            seeds[self.inputs.index(v)] = constant(t, v.dtype)
        (moved,) = tangents(plain.outputs, self.inputs, seeds)
        return Graph(plain.inputs, (zeros_like(total) if moved is None else moved,))


def _broadcastable(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    ahead = len(large) - len(small)
    return ahead >= 0 and all(e in (1, large[ahead + k]) for k, e in enumerate(small))
