"""Samples of every op: the operands that the tests of this folder run it on, and where its derivatives are smooth.

An op that is elementwise and has no parameters gets its samples from its arity and dtypes; any other needs an entry in `SAMPLERS`.
A test fails if an op has none.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields

import numpy as np

import staticgrad.ops  # noqa: F401  (fills the registry)
from staticgrad.ir.aval import DTYPES, Aval
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Value, apply_all, new_input
from staticgrad.ir.op import REGISTRY, Op
from staticgrad.ops.elementwise import Elementwise

SHAPES = ((), (1,), (0, 3), (2, 3), (3, 1, 2))
FLOATS = ("float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")

EXACT = 0
ULPS = {
    "exp": 2, "expm1": 3, "log": 2, "log1p": 3, "sin": 2, "cos": 2, "tanh": 4, "sigmoid": 4, "softplus": 4, "power": 3, "exp2": 2,
    "log2": 2, "log10": 2, "logaddexp": 4, "logaddexp2": 4, "tan": 3, "sinh": 3, "cosh": 3, "arcsin": 2, "arccos": 2, "arctan": 2,
    "arctan2": 2, "arcsinh": 3, "arccosh": 3, "arctanh": 3, "cbrt": 2, "hypot": 2,
}  # fmt: skip
ULPS |= {"erf": 3, "erfc": 4, "erfinv": 6, "gaussian": 4, "normal_density": 4, "log_ratio": 5, "rel_entr": 6, "kl_div": 12}
ULPS |= {"erfcx": 16, "ndtr": 20, "log_ndtr": 8, "gammaln": 60, "gamma": 30, "digamma": 60, "polygamma": 60, "betaln": 4000}
"""How far, in units in the last place, interpreter and kernel may lie apart: the errors of both, NumPy's being the larger one."""

REORDERED = ("sum", "prod", "contract", "qr", "eigen", "singular_values", "pseudo_inverse")
REORDERED += ("solve", "solve_factored", "determinant", "sign_and_log_determinant", "cofactors")
"""Ops whose float results depend on the order of the additions, or are a sum of logarithms: compared with a relative tolerance."""


@dataclass(frozen=True, eq=False)
class Sample:
    """An op with operands."""

    op: Op
    operands: tuple[np.ndarray, ...]
    note: str = ""

    def __str__(self) -> str:
        operands = ", ".join(str(Aval(x.shape, x.dtype)) for x in self.operands)
        return f"{self.op.signature()}({operands}){' ' + self.note if self.note else ''}"

    def apply(self) -> tuple[list[Value], tuple[Value, ...]]:
        """Return fresh inputs, and the op's outputs for them."""
        inputs = [new_input(Aval(x.shape, x.dtype)) for x in self.operands]
        return inputs, apply_all(self.op, *inputs)

    def graph(self) -> Graph:
        """Return the op as a graph."""
        inputs, outputs = self.apply()
        return Graph(tuple(inputs), outputs)


def edge_values(dtype: np.dtype) -> np.ndarray:
    """Return zeros, units, extremes and the special values of a dtype."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        wanted = [0, 1, 2, 7, info.max, info.max - 1, info.min, info.min + 1, info.max // 2, *([-1, -7] if dtype.kind == "i" else [])]
        return np.array(wanted, dtype)
    info = np.finfo(dtype)
    some = [0.0, 1.0, 0.5, 2.5, 1e-3, 3.7, 40.25, 89.5, 700.0, 2.0**33, 2.0**70, info.max, info.tiny, info.smallest_subnormal, np.inf]
    return np.array([*some, *(-x for x in some), np.nan], dtype)


def pairs(dtype: np.dtype, arity: int) -> tuple[np.ndarray, ...]:
    """Return every combination of `arity` edge values, flat."""
    values = edge_values(dtype)
    if arity == 3 and len(values) > 9:
        values = values[[0, 1, 3, 11 % len(values), 14 % len(values), -1, -2, -9, -len(values) // 2]]
    grids = np.meshgrid(*[values] * arity, indexing="ij")
    return tuple(grid.ravel() for grid in grids)


def random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: object) -> np.ndarray:
    """Return moderate values of any dtype."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, shape)).astype(bool)
    if dtype.kind == "u":
        return np.asarray(rng.integers(0, 9, shape)).astype(dtype)
    if dtype.kind == "i":
        return np.asarray(rng.integers(-5, 6, shape)).astype(dtype)
    return np.asarray(rng.standard_normal(shape) * 2).astype(dtype)


def distinct(rng: np.random.Generator, shape: tuple[int, ...], low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Return float64 numbers in (low, high) that lie well apart from each other and from 0: nothing ties."""
    size = int(np.prod(shape))
    steps = (np.arange(size) + 0.25 + 0.5 * rng.random(size)) / max(size, 1)
    return np.asarray(rng.permutation(low + (high - low) * steps)).reshape(shape)


# ---- which dtypes, which domain --------------------------------------------------------------------------------------------


def dtypes_of(cls: type[Elementwise]) -> list[np.dtype]:
    """Return the dtypes that an elementwise op takes."""
    return [dtype for dtype in DTYPES.values() if dtype.kind in cls.kinds]


DOMAINS: dict[str, tuple[tuple[float, float], ...]] = {
    "sqrt": ((0.2, 3.0),), "log": ((0.2, 3.0),), "log1p": ((-0.8, 3.0),), "power": ((0.2, 3.0), (-2.0, 2.0)),
    "divide": ((-2.0, 2.0), (0.3, 2.0)), "clip": ((-2.0, 2.0), (-1.1, -0.4), (0.3, 1.2)), "integer_power": ((0.3, 2.0),),
    "erfinv": ((-0.9, 0.9),),
    "log2": ((0.2, 3.0),), "log10": ((0.2, 3.0),), "cbrt": ((0.2, 3.0),), "tan": ((-1.2, 1.2),), "arcsin": ((-0.8, 0.8),),
    "arccos": ((-0.8, 0.8),), "arctanh": ((-0.8, 0.8),), "arccosh": ((1.3, 3.0),), "arctan2": ((0.3, 2.0), (-2.0, 2.0)),
    "hypot": ((-2.0, 2.0), (0.3, 2.0)), "remainder": ((3.1, 3.8), (-1.4, -1.3)), "fmod": ((3.1, 3.8), (-1.4, -1.3)),
    "floor_divide": ((3.1, 3.8), (-1.4, -1.3)), "ceil": ((0.1, 0.9),), "rint": ((-0.4, 0.4),), "copysign": ((-2.0, 2.0), (0.3, 2.0)),
    "gammaln": ((0.3, 3.0),), "gamma": ((0.3, 3.0),), "digamma": ((0.3, 3.0),), "polygamma": ((0.4, 3.0),),
    "betaln": ((0.4, 3.0), (0.3, 9.0)),
    "log_ratio": ((0.2, 3.0), (0.3, 2.0)), "rel_entr": ((0.2, 3.0), (0.3, 2.0)), "kl_div": ((0.2, 3.0), (0.3, 2.0)),
}  # fmt: skip
"""Where the operands of an elementwise op lie when its derivatives are compared with differences; (-2, 2) by default."""


# ---- ops with parameters ---------------------------------------------------------------------------------------------------

Sampler = Callable[[], Iterator[Sample]]
SAMPLERS: dict[str, Sampler] = {}


def sampler(*names: str) -> Callable[[Callable[[str], Iterator[Sample]]], None]:
    """Register the samples of ops with parameters: a function of the op's name."""

    def register(make: Callable[[str], Iterator[Sample]]) -> None:
        for name in names:
            SAMPLERS[name] = lambda name=name: make(name)

    return register


def plain_samples(cls: type[Elementwise], op: Op | None = None, dtypes: list[np.dtype] | None = None) -> Iterator[Sample]:
    """Yield the samples of an elementwise op: each dtype and shape, then all combinations of edge values."""
    rng = np.random.default_rng(1)
    op = op or cls()
    for dtype in dtypes or dtypes_of(cls):
        for shape in SHAPES:
            yield Sample(op, _plain_operands(op, lambda d, shape=shape: random_array(rng, shape, d), dtype))
        yield Sample(op, _edge_operands(op, dtype), "edge values")


def _plain_operands(op: Op, make: Callable[[np.dtype], np.ndarray], dtype: np.dtype) -> tuple[np.ndarray, ...]:
    operands = [make(dtype) for _ in range(op.arity)]
    if op.name == "where":
        operands[0] = make(np.dtype(bool))
    if op.name == "power" and dtype.kind == "i":
        operands[1] = np.abs(operands[1])
    if op.name == "ldexp":
        operands[1] = make(np.dtype(np.int64))
    if op.name == "betaln":
        operands = [np.abs(x) for x in operands]
    return tuple(operands)


def _edge_operands(op: Op, dtype: np.dtype) -> tuple[np.ndarray, ...]:
    operands = list(pairs(dtype, 2 if op.name == "where" else op.arity))
    if op.name == "where":
        operands = [np.resize([True, False, False], operands[0].shape), *operands]
    if op.name == "power" and dtype.kind == "i":
        operands[1] = np.where(operands[1] < 0, dtype.type(3), operands[1])
    if op.name == "ldexp":
        numbers = np.array([0, 1, -1, 30, -30, 127, -149, 1000, -1022, 1023, -1050, 2097, -2098, 3000, -3000, 2**62, -(2**63)])
        operands = [grid.ravel() for grid in np.meshgrid(edge_values(dtype), numbers)]
    if op.name == "betaln":  # SciPy has rules of its own for negative integers, and overflows for subnormal and huge numbers
        usual = np.all([(x == 0) | ((x >= np.finfo(dtype).tiny) & (x < 1e30)) for x in operands], axis=0)
        operands = [x[usual] for x in operands]
    return tuple(operands)


@sampler("integer_power")
def _integer_power(name: str) -> Iterator[Sample]:
    cls = REGISTRY[name]
    for exponent in (0, 1, 2, 3, 7, 10):
        yield from plain_samples(cls, cls(exponent), None if exponent == 3 else [DTYPES["float32"], DTYPES["float64"], DTYPES["int8"]])
    for exponent in (-1, -2, -5):
        yield from plain_samples(cls, cls(exponent), [DTYPES["float32"], DTYPES["float64"]])


@sampler("again")
def _once_more(name: str) -> Iterator[Sample]:
    cls = REGISTRY[name]
    yield from plain_samples(cls, cls(1))


@sampler("polygamma", "erfcx_integral")
def _of_order(name: str) -> Iterator[Sample]:
    cls = REGISTRY[name]
    for order in (1, 2, 4):
        yield from plain_samples(cls, cls(order))


@sampler("cast")
def _cast(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(2)
    for shape in SHAPES:
        yield Sample(REGISTRY[name](DTYPES["float32"]), (random_array(rng, shape, np.float64),))
        yield Sample(REGISTRY[name](DTYPES["int16"]), (random_array(rng, shape, np.float32),))
    around = [2.0**k + d for k in (7, 8, 15, 16, 31, 32, 63, 64) for d in (-1.5, -1.0, -0.5, 0.0, 0.5)]
    for source, target in itertools.product(DTYPES.values(), DTYPES.values()):
        values = edge_values(source)
        if source.kind == "f":
            values = np.concatenate([values, np.array([*around, *(-x for x in around)], source)])
        yield Sample(REGISTRY[name](target), (values,), "edge values")


@sampler("reshape")
def _reshape(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(3)
    shapes = [((), (1,)), ((), (1, 1)), ((1,), ()), ((0, 3), (3, 0)), ((0, 3), (0,)), ((2, 3), (3, 2)), ((2, 3), (6,)),
              ((6,), (1, 2, 3)), ((3, 1, 2), (3, 2)), ((3, 2), (1, 3, 1, 2)), ((3, 1, 2), (2, 3))]  # fmt: skip
    for before, after in shapes:
        yield Sample(REGISTRY[name](after), (random_array(rng, before, np.float64),))
    for dtype in DTYPES.values():
        yield Sample(REGISTRY[name]((3, 2)), (random_array(rng, (2, 3), dtype),))


@sampler("transpose")
def _transpose(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(4)
    for shape in (*SHAPES, (2, 3, 4)):
        for order in itertools.permutations(range(len(shape))):
            yield Sample(REGISTRY[name](order), (random_array(rng, shape, np.float64),))
    for dtype in DTYPES.values():
        yield Sample(REGISTRY[name]((1, 0)), (random_array(rng, (2, 3), dtype),))


@sampler("broadcast")
def _broadcast(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(5)
    cases = [((), (), ()), ((), (1,), (0,)), ((), (2, 3), (0, 1)), ((), (0, 3), (0, 1)), ((1,), (3, 1), (0,)), ((3,), (2, 3), (0,)),
             ((3,), (3, 2), (1,)), ((3,), (0, 3), (0,)),
             ((0,), (2, 0), (0,)), ((2, 3), (2, 4, 3), (1,)), ((3, 1, 2), (2, 3, 1, 2), (0,))]  # fmt: skip
    for before, after, axes in cases:
        yield Sample(REGISTRY[name](after, axes), (random_array(rng, before, np.float64),))
    for dtype in DTYPES.values():
        yield Sample(REGISTRY[name]((2, 3), (0,)), (random_array(rng, (3,), dtype),))


SLICES = [
    ((), (), (), ()), ((5,), (0,), (5,), (2,)), ((5,), (1,), (4,), (1,)), ((5,), (4,), (4,), (1,)), ((1,), (0,), (1,), (1,)),
    ((0, 3), (0, 1), (0, 3), (1, 1)), ((2, 3), (0, 0), (2, 3), (1, 2)), ((2, 3), (1, 1), (2, 3), (1, 1)), ((2, 3), (0, 3), (2, 3), (1, 1)),
    ((7, 4), (1, 0), (7, 3), (3, 2)), ((3, 1, 2), (0, 0, 1), (3, 1, 2), (2, 1, 1)),
]  # fmt: skip


@sampler("slice")
def _slice(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(6)
    for shape, *region in SLICES:
        yield Sample(REGISTRY[name](*region), (random_array(rng, shape, np.float64),))
    for dtype in DTYPES.values():
        yield Sample(REGISTRY[name]((1, 0), (2, 3), (1, 2)), (random_array(rng, (2, 3), dtype),))


@sampler("slice_set")
def _slice_set(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(7)
    for shape, *region in SLICES:
        part = REGISTRY["slice"](*region).infer(Aval(shape, DTYPES["float64"])).shape
        yield Sample(REGISTRY[name](*region), (random_array(rng, shape, np.float64), random_array(rng, part, np.float64)))
    for dtype in DTYPES.values():
        yield Sample(REGISTRY[name]((1, 0), (2, 3), (1, 2)), (random_array(rng, (2, 3), dtype), random_array(rng, (1, 2), dtype)))


@sampler("flip")
def _flip(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(8)
    for shape in SHAPES:
        for count in range(len(shape) + 1):
            for axes in itertools.combinations(range(len(shape)), count):
                yield Sample(REGISTRY[name](axes), (random_array(rng, shape, np.float64),))
    for dtype in DTYPES.values():
        yield Sample(REGISTRY[name]((1,)), (random_array(rng, (2, 3), dtype),))


@sampler("pad")
def _pad(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(9)
    cases = [((), (), (), ()), ((3,), (1,), (2,), (0,)), ((3,), (0,), (0,), (2,)), ((3,), (2,), (0,), (1,)), ((1,), (0,), (1,), (3,)),
             ((0, 3), (0, 1), (0, 1), (0, 0)), ((0, 3), (2, 0), (1, 0), (1, 1)), ((2, 3), (1, 0), (0, 2), (1, 0)),
             ((2, 3), (0, 0), (0, 0), (0, 0)), ((3, 1, 2), (0, 1, 0), (1, 0, 1), (0, 2, 1))]  # fmt: skip
    for shape, *amounts in cases:
        yield Sample(REGISTRY[name](*amounts), (random_array(rng, shape, np.float64), random_array(rng, (), np.float64)))
    for dtype in DTYPES.values():
        yield Sample(REGISTRY[name]((1, 0), (0, 2), (0, 1)), (random_array(rng, (2, 3), dtype), random_array(rng, (), dtype)))


@sampler("concatenate")
def _concatenate(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(10)
    cases = [(0, [(1,)]), (0, [(1,), (2,)]), (0, [(3,), (0,), (2,)]), (0, [(2, 3), (1, 3)]), (1, [(2, 3), (2, 1), (2, 2)]),
             (1, [(0, 3), (0, 2)]), (0, [(0, 3), (0, 3)]), (2, [(3, 1, 2), (3, 1, 1)]), (1, [(3, 1, 2), (3, 2, 2)])]  # fmt: skip
    for axis, shapes in cases:
        yield Sample(REGISTRY[name](axis), tuple(random_array(rng, shape, np.float64) for shape in shapes))
    for dtype in DTYPES.values():
        yield Sample(REGISTRY[name](1), (random_array(rng, (2, 3), dtype), random_array(rng, (2, 1), dtype)))


REDUCE_DTYPES = {"any": ("bool",), "all": ("bool",), "sum": (*INTEGERS, *FLOATS), "prod": (*INTEGERS, *FLOATS)}


@sampler("sum", "prod", "max", "min", "any", "all", "arg_max", "arg_min")
def _reduce(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(11)
    cls = REGISTRY[name]
    dtypes = REDUCE_DTYPES.get(name, tuple(DTYPES))
    main = "bool" if name in ("any", "all") else "float64"
    for shape in (*SHAPES, (4, 0), (2, 3, 4), (1, 1), (5, 1, 40)):
        for count in range(len(shape) + 1):
            for axes in itertools.combinations(range(len(shape)), count):
                if name in ("arg_max", "arg_min") and count != 1:
                    continue
                x = random_array(rng, shape, main)
                if not cls.empty_allowed and 0 in [shape[k] for k in axes]:
                    continue
                yield Sample(cls(axes), (x,))
    for dtype in dtypes:
        for shape, axis in (((2, 3), 1), ((2, 3), 0), ((33,), 0), ((3, 38), 1)):
            yield Sample(cls((axis,)), (random_array(rng, shape, dtype),))
    for dtype in dtypes:
        values = edge_values(dtype)
        if dtype in FLOATS and name in REORDERED:
            values = values[np.isin(np.abs(values), (0.0, 0.5, 1.0, np.inf)) | np.isnan(values)]
        windows = np.lib.stride_tricks.sliding_window_view(np.tile(values, 2), 3)
        yield Sample(cls((1,)), (np.ascontiguousarray(windows),), "edge values")
        yield Sample(cls((0,)), (np.ascontiguousarray(windows.T),), "edge values")
        yield Sample(cls((1,)), (np.ascontiguousarray(windows.repeat(20, 1)),), "edge values in lanes")


def reduce_in_lanes() -> Iterator[Sample]:
    """Yield reductions long enough for lanes, blocks and what is left over; for compiled tests."""
    rng = np.random.default_rng(12)
    for name, dtype in itertools.product(("sum", "prod", "max", "min", "arg_max", "arg_min"), ("float32", "float64", "int32")):
        for shape, axis in (((3000,), 0), ((2, 1025), 1), ((1027, 2), 0)):
            x = random_array(rng, shape, dtype)
            if name == "prod" and dtype != "int32":
                x = (1 + x / 1000).astype(dtype)
            yield Sample(REGISTRY[name]((axis,)), (x,))


@sampler("contract")
def _contract(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(13)
    cls = REGISTRY[name]
    matmul = ((0, 1), (1, 2), (0, 2))
    cases = [
        (matmul, (2, 3), (3, 4)), (matmul, (1, 1), (1, 1)), (matmul, (0, 3), (3, 2)), (matmul, (2, 0), (0, 3)), (matmul, (2, 3), (3, 0)),
        (((0, 1), (1, 2), (2, 0)), (2, 3), (3, 4)), (((1, 0), (1, 2), (0, 2)), (3, 2), (3, 4)), (((0, 1), (2, 1), (0, 2)), (2, 3), (4, 3)),
        (((0,), (0,), ()), (5,), (5,)), (((0, 1), (1,), (0,)), (2, 3), (3,)), (((0,), (0, 1), (1,)), (3,), (3, 2)),
        (((0,), (1,), (0, 1)), (2,), (3,)), (((), (0,), (0,)), (), (3,)), (((), (), ()), (), ()), (((0,), (0,), (0,)), (3,), (3,)),
        (((0, 1, 2), (0, 2, 3), (0, 1, 3)), (2, 3, 4), (2, 4, 5)), (((0, 1, 2), (2, 0, 3), (3, 1, 0)), (2, 3, 4), (4, 2, 5)),
        (((0, 1, 2), (1, 2, 3), (0, 3)), (3, 1, 2), (1, 2, 4)), (((0, 1), (0, 1), ()), (2, 3), (2, 3)),
        (((0, 1, 2), (2, 3, 4), (0, 1, 3, 4)), (2, 1, 3), (3, 2, 1)), (matmul, (7, 9), (9, 13)), (matmul, (5, 33), (33, 35)),
        (((0, 1, 2), (0, 2, 3), (0, 1, 3)), (2, 6, 8), (2, 8, 9)), (((0, 1, 2), (3, 1, 2), (3, 0)), (5, 4, 6), (7, 4, 6)),
    ]  # fmt: skip
    for labels, left, right in cases:
        yield Sample(cls(*labels), (random_array(rng, left, np.float64), random_array(rng, right, np.float64)))
    for dtype in (*INTEGERS, *FLOATS):
        yield Sample(cls(*matmul), (random_array(rng, (2, 3), dtype), random_array(rng, (3, 4), dtype)))
    yield Sample(cls(*matmul), (random_array(rng, (9, 10), np.float32), random_array(rng, (10, 37), np.float32)))


@sampler("checkpoint_start", "checkpoint_end")
def _marks(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(16)
    op = REGISTRY[name](("exp",)) if name == "checkpoint_end" else REGISTRY[name]()
    for dtype in DTYPES:
        for shape in SHAPES:
            others = (random_array(rng, (2,), dtype), random_array(rng, (), "int32")) if name == "checkpoint_end" else ()
            yield Sample(op, (random_array(rng, shape, dtype), *others))


@sampler("random_bits")
def _random_bits(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(15)
    for dtype, shape in itertools.product(("uint32", "uint64"), (*SHAPES, (40,), (5, 7))):
        for rank in range(len(shape) + 1):
            key = [rng.integers(0, 2**32, shape, dtype=np.uint32) for _ in range(2)]
            start = rng.choice(np.array([0, 5, 2**32 - 2, 2**63, 2**64 - 1], np.uint64), shape)
            yield Sample(REGISTRY[name](DTYPES[dtype], rank), (*map(np.asarray, key), np.asarray(start)), f"{dtype} along {rank} axes")


@sampler("solve", "solve_factored")
def _solve(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(16)
    cases = [((1, 1), ()), ((2, 1), ()), ((2, 2), (3,)), ((3, 1), (2,)), ((4, 3), ()), ((3, 2), (2, 1)), ((2, 0), (2,)), ((2, 1), (0,)),
             ((0, 0), (2,)), ((9, 4), ()), ((7, 1), ()), ((17, 1), ()), ((7, 9), ()), ((8, 9), ())]  # fmt: skip
    for number, ((order, sides), leading) in enumerate(cases):
        for axis in range(len(leading) + 1):
            a, b = (random_array(rng, (*leading, order * columns), np.float64) for columns in (order, sides))
            a = _as_factors(a, order) if name == "solve_factored" else a
            yield Sample(REGISTRY[name](axis, bool(number % 2)), tuple(np.moveaxis(x, -1, axis).copy() for x in (a, b)))
    a = random_array(rng, (4, 9), np.float32)
    a = _as_factors(a, 3) if name == "solve_factored" else a
    yield Sample(REGISTRY[name](1), (a, random_array(rng, (4, 3), np.float32)))
    if name == "solve":
        matrices = [[1, 2, 2, 4], [0, 0, 0, 0], [0, 1, 1, 0], [np.nan, 1, 1, 2], [1, np.inf, 0, 1], [1, 2, 3, 4]]
        for dtype in FLOATS:
            sides = random_array(rng, (6, 2), dtype)
            yield Sample(REGISTRY[name](1), (np.array(matrices, dtype), sides), "singular ones beside others")


def _as_factors(rows: np.ndarray, order: int) -> np.ndarray:
    """Return rows of matrices as factors, with exchanges of rows far from where they would become others."""
    places = np.maximum(np.arange(order), np.arange(order)[::-1]) + 0.5
    return np.concatenate([rows, np.broadcast_to(places.astype(rows.dtype), (*rows.shape[:-1], order))], axis=-1)


@sampler("permutation")
def _permutation(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(21)
    for order, leading in (*MATRIX_ORDERS, (0, (2,))):
        for axis in range(len(leading) + 1):
            rows = _as_factors(random_array(rng, (*leading, order * order), np.float64), order)
            yield Sample(REGISTRY[name](axis), (np.moveaxis(rows, -1, axis).copy(),))
    places = np.array([[0, 2, 2], [np.nan, np.inf, -np.inf], [-7, 1e30, 1], [2, 1, 0]])
    for dtype in FLOATS:
        yield Sample(REGISTRY[name](1), (np.concatenate([np.ones((4, 9)), places], axis=1).astype(dtype),), "any rows to exchange with")


MATRIX_ORDERS = [(1, ()), (2, (3,)), (3, ()), (4, (2,)), (2, (2, 1)), (5, ()), (2, (0,))]
HOSTILE = [[1, 2, 2, 4], [0, 0, 0, 0], [0, 1, 1, 0], [np.nan, 1, 1, 2], [4, np.inf, 2, 5], [4, 2, 2, 5], [0, 1, 0, 1]]
"""Matrices of two rows: singular, not finite, to be pivoted, indefinite."""


def _square(rng: np.random.Generator, order: int, leading: tuple[int, ...], axis: int) -> np.ndarray:
    rows = random_array(rng, (*leading, order * order), np.float64)
    rows[..., :: order + 1] = 2 * order + np.abs(rows[..., :: order + 1])
    return np.moveaxis(rows, -1, axis).copy()


@sampler("lu", "cholesky", "determinant", "sign_and_log_determinant", "cofactors")
def _of_square_matrices(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(17)
    for order, leading in MATRIX_ORDERS:
        for axis in range(len(leading) + 1):
            yield Sample(REGISTRY[name](axis), (_square(rng, order, leading, axis),))
    for dtype in FLOATS:
        yield Sample(REGISTRY[name](1), (np.array(HOSTILE, dtype),), "hostile ones beside others")


@sampler("solve_triangular")
def _solve_triangular(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(18)
    for (order, leading), sides, (lower, unit) in zip(
        (*MATRIX_ORDERS, (0, (2,))), (1, 2, 1, 3, 2, 1, 1, 0), itertools.cycle(itertools.product((False, True), repeat=2)), strict=False
    ):
        for axis in range(len(leading) + 1):
            right = np.moveaxis(random_array(rng, (*leading, order * sides), np.float64), -1, axis).copy()
            yield Sample(REGISTRY[name](axis, lower, unit), (_square(rng, order, leading, axis), right))
    for dtype, lower in itertools.product(FLOATS, (False, True)):
        operands = np.array(HOSTILE, dtype), random_array(rng, (len(HOSTILE), 4), dtype)
        yield Sample(REGISTRY[name](1, lower, False), operands, "hostile ones beside others")


@sampler("qr", "singular_values", "pseudo_inverse")
def _of_tall_matrices(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(19)
    for rows, columns, leading in [(1, 1, ()), (2, 2, (3,)), (3, 2, ()), (4, 3, (2,)), (5, 5, ()), (2, 2, (0,)), (3, 1, (2, 1))]:
        for axis in range(len(leading) + 1):
            matrices = np.moveaxis(random_array(rng, (*leading, rows * columns), np.float64), -1, axis).copy()
            yield Sample(_of_rows(name, axis, rows), (matrices,))
    yield Sample(_of_rows(name, 1, 2), (np.array([[4, 2, 2, 5], [2, 1, 0, 3]], np.float32),), "float32")
    if name != "qr":
        rows = np.array([*HOSTILE[3:5], [1, 2, 3, 4], [1, 2, 2, 4]] if name == "pseudo_inverse" else [*HOSTILE[3:5], [1, 2, 3, 4]])
        yield Sample(_of_rows(name, 1, 2), (rows,), "what is not finite beside others")


def _of_rows(name: str, axis: int, rows: int) -> Op:
    return REGISTRY[name](axis, rows, 1e-15) if name == "pseudo_inverse" else REGISTRY[name](axis, rows)


@sampler("eigen")
def _eigen(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(20)
    for order, leading in MATRIX_ORDERS:
        for axis in range(len(leading) + 1):
            matrices = np.moveaxis(random_array(rng, (*leading, order * order), np.float64), -1, axis).copy()
            yield Sample(REGISTRY[name](axis), (matrices,))
    hostile = [[2, 1, 1, 3], [np.nan, 1, 1, 2], [4, np.inf, np.inf, 5], [0, 1, 1, 0], [3, 0, 0, 1]]
    for dtype in FLOATS:
        yield Sample(REGISTRY[name](1), (np.array(hostile, dtype),), "hostile ones beside others")


def _well_conditioned(op: Op, a: np.ndarray) -> np.ndarray:
    rows = np.moveaxis(a, op.axis, -1).copy()
    order = math.isqrt(rows.shape[-1])
    rows[..., :: order + 1] += 8
    return np.moveaxis(rows, -1, op.axis).copy()


# ---- all of them -----------------------------------------------------------------------------------------------------------


def samples_of(name: str) -> list[Sample]:
    """Return the samples of an op, none where nothing is known of it."""
    import tests.ops.index_samples
    import tests.ops.nested_samples  # noqa: F401  (both fill the table)

    if name in SAMPLERS:
        return list(SAMPLERS[name]())
    cls = REGISTRY[name]
    plain = issubclass(cls, Elementwise) and not fields(cls)
    return list(plain_samples(cls)) if plain else []


def smooth_samples(name: str) -> list[Sample]:
    """Return float64 samples at points where the op is differentiable, without ties."""
    rng = np.random.default_rng(14)
    found = []
    for sample in samples_of(name):
        if sample.note or not any(x.dtype == np.float64 for x in sample.operands):
            continue
        if max(x.size for x in sample.operands) > 60:
            continue
        domains = DOMAINS.get(name, ((-2.0, 2.0),) * len(sample.operands))
        operands = [
            distinct(rng, x.shape, *domain) if x.dtype == np.float64 else x for x, domain in zip(sample.operands, domains, strict=True)
        ]
        if name in ("maximum", "minimum", "fmax", "fmin"):
            operands[1] = operands[0] + distinct(rng, operands[0].shape, 0.1, 0.5) * np.resize([1.0, -1.0], operands[0].shape)
        if name == "search_sorted":
            operands[0] = np.sort(operands[0])
        if name in ("solve", "solve_triangular", "lu", "cholesky", "determinant", "sign_and_log_determinant", "cofactors"):
            operands[0] = _well_conditioned(sample.op, operands[0])
        if name in ("solve_factored", "permutation"):
            order = math.isqrt(operands[0].shape[sample.op.axis])
            rows = np.moveaxis(operands[0], sample.op.axis, -1)[..., : order * order]
            rows[..., :: order + 1] += 8
            operands[0] = np.moveaxis(_as_factors(rows, order), -1, sample.op.axis).copy()
        found.append(Sample(sample.op, tuple(operands)))
    return found


@dataclass
class Grouped:
    """Many samples as one graph: few compilations. `parts` says which outputs belong to which sample."""

    samples: list[Sample]
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    parts: list[slice] = field(default_factory=list)

    def __post_init__(self) -> None:
        for sample in self.samples:
            inputs, outputs = sample.apply()
            self.inputs += inputs
            self.parts.append(slice(len(self.outputs), len(self.outputs) + len(outputs)))
            self.outputs += outputs

    @property
    def graph(self) -> Graph:
        """The graph of all of them."""
        return Graph(tuple(self.inputs), tuple(self.outputs))

    @property
    def arguments(self) -> list[np.ndarray]:
        """The operands of all of them."""
        return [x for sample in self.samples for x in sample.operands]
