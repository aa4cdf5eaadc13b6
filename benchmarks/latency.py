"""What a scientist waits for: one call from Python, the first call of a new function, the start of a new process.

Each table is one run in which the contenders take turns, so that a machine that slows down slows all of them; medians over the
rounds and ratios are printed. Packages that are not installed (`pip install -e '.[bench]'` brings all) are left out and named.

    python benchmarks/latency.py [--rounds 7] [--only calls compile start elements]

calls      value and gradient of the Rosenbrock function of 10 variables, float64, NumPy arrays in and out
compile    from a new function to its first value and gradient, in a process that has compiled others before; no disk caches
start      a new process: import and first gradient, staticgrad with a filled cache; against `import jax` alone
elements   exp and tanh of 65536 float32 numbers on one core
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Measured = dict[str, list[float]]


def installed(*names: str) -> bool:
    """Return whether packages are there, and say so where one is not."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    for name in missing:
        print(f"  ({name} is not installed)")
    return not missing


def show(title: str, unit: str, scale: float, measured: Measured) -> None:
    """Print the medians, and how many times the first contender's each is."""
    print(f"\n{title}")
    first = next(iter(measured))
    for name, seconds in measured.items():
        ratios = [other / own for other, own in zip(seconds, measured[first])]
        spread = f"{min(seconds) * scale:.4g} to {max(seconds) * scale:.4g}"
        print(f"  {name:<42}{statistics.median(seconds) * scale:>12.4g} {unit}   {statistics.median(ratios):>8.2f} x   ({spread})")


def a_call(function: Callable[..., Any], *args: Any, seconds: float = 0.05) -> float:
    """Return the time of one call: the least of three long loops."""
    count = 1
    while True:
        start = time.perf_counter()
        for _ in range(count):
            function(*args)
        taken = time.perf_counter() - start
        if taken >= seconds / 4:
            break
        count *= 4
    best = taken
    for _ in range(2):
        start = time.perf_counter()
        for _ in range(count):
            function(*args)
        best = min(best, time.perf_counter() - start)
    return best / count


# ---- models, written once for every NumPy-like module


class Torch:
    """What the models use of NumPy, under NumPy's names, for PyTorch."""

    def __init__(self) -> None:
        import torch

        self.sum, self.mean, self.tanh, self.exp, self.log = torch.sum, torch.mean, torch.tanh, torch.exp, torch.log
        self.dot, self.max, self.from_numpy = torch.matmul, torch.amax, torch.from_numpy


def constant(xp: Any, array: np.ndarray) -> Any:
    """Return an array as the module `xp` wants its constants."""
    return xp.from_numpy(array) if isinstance(xp, Torch) else array


def rosenbrock(xp: Any, scale: float = 1.0) -> Callable[..., Any]:
    """Return the Rosenbrock function (H. H. Rosenbrock, The Computer Journal 3, 1960)."""

    def value(x: Any) -> Any:
        return xp.sum(100.0 * scale * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)

    return value


def network(xp: Any, scale: float = 1.0) -> Callable[..., Any]:
    """Return the loss of the network 64-128-10 on a batch of 32."""
    rng = np.random.default_rng(0)
    x = constant(xp, rng.uniform(0, 1, (32, 64)).astype(np.float32))
    y = constant(xp, np.eye(10, dtype=np.float32)[rng.integers(0, 10, 32)])

    def loss(w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
        scores = xp.dot(xp.tanh(xp.dot(x, w1) + b1), w2) + b2
        shifted = scores - xp.max(scores, axis=1, keepdims=True)
        return -xp.mean(xp.sum(y * (shifted - xp.log(xp.sum(xp.exp(shifted), axis=1, keepdims=True))), axis=1)) * scale

    return loss


def network_start() -> tuple[np.ndarray, ...]:
    """Return parameters of the network."""
    rng = np.random.default_rng(1)
    shapes = ((64, 128), (128,), (128, 10), (10,))
    return tuple((rng.standard_normal(shape) * 0.1).astype(np.float32) for shape in shapes)


def hierarchy(xp: Any, scale: float = 1.0) -> Callable[..., Any]:
    """Return the log-density of a hierarchical linear model: 12 groups with intercepts and slopes of their own, 200 observations."""
    rng = np.random.default_rng(2)
    groups = constant(xp, np.eye(12)[rng.integers(0, 12, 200)])
    x, y = constant(xp, rng.normal(size=200)), constant(xp, rng.normal(size=200))

    def log_density(a: Any, b: Any, hyper: Any) -> Any:
        mu_a, mu_b, log_sd_a, log_sd_b, log_sd_y = hyper[0], hyper[1], hyper[2], hyper[3], hyper[4]
        prior = -0.5 * xp.sum(hyper**2) - 12 * (log_sd_a + log_sd_b)
        prior = prior - 0.5 * xp.sum(((a - mu_a) / xp.exp(log_sd_a)) ** 2) - 0.5 * xp.sum(((b - mu_b) / xp.exp(log_sd_b)) ** 2)
        mean = xp.dot(groups, a) + xp.dot(groups, b) * x
        return scale * (prior - 0.5 * xp.sum(((y - mean) / xp.exp(log_sd_y)) ** 2) - 200 * log_sd_y)

    return log_density


def hierarchy_start() -> tuple[np.ndarray, ...]:
    """Return a point of the hierarchical model."""
    rng = np.random.default_rng(3)
    return rng.normal(size=12), rng.normal(size=12), rng.normal(size=5) * 0.1


Model = tuple[Callable[..., Callable[..., Any]], Callable[[], tuple[np.ndarray, ...]]]
MODELS: dict[str, Model] = {
    "rosenbrock": (rosenbrock, lambda: (np.linspace(-1.0, 1.0, 10),)),
    "mlp_small": (network, network_start),
    "hierarchical": (hierarchy, hierarchy_start),
}

# ---- contenders: a model and its arguments to a function of NumPy arrays that gives value and gradients as NumPy arrays


def with_staticgrad(model: Callable[..., Any], start: tuple[np.ndarray, ...], scale: float = 1.0) -> Callable[..., Any]:
    import staticgrad as sg

    return sg.value_and_grad(model(np, scale), argnums=tuple(range(len(start))))


def with_jax(model: Callable[..., Any], start: tuple[np.ndarray, ...], scale: float = 1.0) -> Callable[..., Any]:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    compiled = jax.jit(jax.value_and_grad(model(jnp, scale), argnums=tuple(range(len(start)))))

    def call(*args: np.ndarray) -> Any:
        value, gradients = compiled(*args)
        return np.asarray(value), [np.asarray(g) for g in gradients]

    return call


def with_pytensor(model: Callable[..., Any], start: tuple[np.ndarray, ...], scale: float = 1.0) -> Callable[..., Any]:
    import pytensor
    import pytensor.tensor as pt

    pytensor.config.numba__cache = False  # a cache on disk would be another race
    inputs = [pt.tensor(f"x{k}", shape=x.shape, dtype=str(x.dtype)) for k, x in enumerate(start)]
    value = model(pt, scale)(*inputs)
    return pytensor.function(inputs, [value, *pytensor.grad(value, inputs)], mode="NUMBA", trust_input=True)


def with_autograd(model: Callable[..., Any], start: tuple[np.ndarray, ...], scale: float = 1.0) -> Callable[..., Any]:
    import autograd
    import autograd.numpy as anp

    return autograd.value_and_grad(model(anp, scale), argnum=tuple(range(len(start))))


def with_torch(model: Callable[..., Any], start: tuple[np.ndarray, ...], scale: float = 1.0, compiled: bool = False) -> Callable[..., Any]:
    import torch

    torch.set_num_threads(1)
    value = model(Torch(), scale)
    function = torch.compile(value) if compiled else value

    def call(*args: np.ndarray) -> Any:
        leaves = [torch.from_numpy(x).requires_grad_() for x in args]
        result = function(*leaves)
        result.backward()
        return result.item(), [leaf.grad.numpy() for leaf in leaves]

    return call


def with_torch_compile(model: Callable[..., Any], start: tuple[np.ndarray, ...], scale: float = 1.0) -> Callable[..., Any]:
    import torch
    import torch._inductor.config

    torch._dynamo.reset()
    torch._inductor.config.force_disable_caches = True
    return with_torch(model, start, scale, compiled=True)


def casadi_function(size: int, scale: float) -> Any:
    """Return the Rosenbrock function and its gradient as CasADi has them."""
    import casadi

    x = casadi.SX.sym("x", size)
    value = casadi.sum1(100.0 * scale * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)
    return casadi.Function("f", [x], [value, casadi.gradient(value, x)])


def with_casadi(model: Callable[..., Any], start: tuple[np.ndarray, ...], scale: float = 1.0) -> Callable[..., Any]:
    function = casadi_function(len(start[0]), scale)
    return lambda x: tuple(np.asarray(part) for part in function(x))


def with_casadi_buffers(model: Callable[..., Any], start: tuple[np.ndarray, ...], scale: float = 1.0) -> Callable[..., Any]:
    """Return a call that finds its argument and leaves its results in arrays fixed beforehand; it checks nothing."""
    function = casadi_function(len(start[0]), scale)
    buffer, evaluate = function.buffer()
    x, value, gradient = start[0].copy(), np.zeros(1), np.zeros(len(start[0]))
    buffer.set_arg(0, memoryview(x))
    buffer.set_res(0, memoryview(value))
    buffer.set_res(1, memoryview(gradient))

    kept = (function, buffer, x)  # CasADi holds bare pointers

    def call(_: np.ndarray, kept: Any = kept) -> tuple[np.ndarray, np.ndarray]:
        evaluate()
        return value, gradient

    return call


# ---- the tables


def calls(rounds: int) -> None:
    """Time single calls."""
    model, start = MODELS["rosenbrock"]
    args = start()
    contenders: dict[str, Callable[..., Any]] = {"staticgrad": with_staticgrad(model, args)}
    makers: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
        "JAX (jit)": (("jax",), with_jax), "PyTensor (Numba, trusted input)": (("pytensor",), with_pytensor),
        "HIPS autograd": (("autograd",), with_autograd), "PyTorch, eager": (("torch",), with_torch),
        "CasADi (SX)": (("casadi",), with_casadi), "CasADi (SX), fixed buffers": (("casadi",), with_casadi_buffers),
    }  # fmt: skip
    for name, (packages, maker) in makers.items():
        if installed(*packages):
            contenders[name] = maker(model, args)
    expected = contenders["staticgrad"](*args)[0]
    for function in contenders.values():
        for _ in range(5):
            found = function(*args)[0]
        assert np.allclose(found, expected)
    out = (np.empty(()), (np.empty(10),))
    own = contenders["staticgrad"]
    measured: Measured = {}
    for _ in range(rounds):
        for name, function in contenders.items():
            measured.setdefault(name, []).append(a_call(function, *args))
            if function is own:
                measured.setdefault("staticgrad, out=", []).append(a_call(lambda x: own(x, out=out), *args))
    show("Rosenbrock, n = 10: value and gradient, a call (out= includes a Python lambda)", "us", 1e6, measured)


def compile_times(rounds: int) -> None:
    """Time the way from a function to its first result."""
    import staticgrad as sg
    from staticgrad.config import config, configure

    makers: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
        "staticgrad": ((), with_staticgrad), "JAX": (("jax",), with_jax), "PyTensor (Numba)": (("pytensor",), with_pytensor),
    }  # fmt: skip
    there = {name: maker for name, (packages, maker) in makers.items() if installed(*packages)}
    has_torch = installed("torch")
    previous = configure(type(config())(**(vars(config()) | {"cache": None})))
    try:
        for title, (model, start) in MODELS.items():
            args = start()
            contenders = dict(there)
            if has_torch:
                contenders["torch.compile"] = with_torch_compile
            measured: Measured = {}
            for round_number in range(rounds + 1):
                for name, maker in contenders.items():
                    slow = name in ("PyTensor (Numba)", "torch.compile")
                    if slow and round_number > 2:
                        measured[name].append(measured[name][-1])
                        continue
                    scale = 1.0 + 0.125 * round_number  # a program of its own each time
                    begin = time.perf_counter()
                    maker(model, args, scale)(*args)
                    if round_number:  # the first round warms the process up
                        measured.setdefault(name, []).append(time.perf_counter() - begin)
            show(f"{title}: from the function to the first value and gradient", "ms", 1e3, measured)
    finally:
        configure(previous)
    print(f"\n(staticgrad {sg.__version__}, printer {config().printer})")


START = """
import numpy as np, staticgrad as sg
def rosenbrock(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)
sg.value_and_grad(rosenbrock)(np.linspace(-1.0, 1.0, 10))
"""


def process_starts(rounds: int) -> None:
    """Time whole processes."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"STATICGRAD_CACHE": os.path.join(folder, "cache")}

        def run(code: str) -> float:
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=environment)
            return time.perf_counter() - begin

        run(START)
        contenders = {
            "staticgrad: import and first gradient": START,
            "import staticgrad": "import staticgrad",
            "import numpy": "import numpy",
        }
        if installed("jax"):
            contenders["import jax"] = "import jax"
        measured: Measured = {}
        for _ in range(rounds):
            for name, code in contenders.items():
                measured.setdefault(name, []).append(run(code))
    show("A new process with a filled cache", "ms", 1e3, measured)


def elements(rounds: int) -> None:
    """Time exp and tanh an element, on one core."""
    import staticgrad as sg

    count = 65536
    x = np.linspace(-4, 4, count, dtype=np.float32)
    for name in ("exp", "tanh"):
        function = getattr(np, name)
        out = np.empty_like(x)
        own = sg.trace(lambda x, function=function: function(x), threads=1)
        contenders: dict[str, Callable[[], Any]] = {
            "staticgrad": lambda own=own, out=out: own(x, out=out),
            "NumPy": lambda function=function, out=out: function(x, out=out),
        }
        if installed("jax"):
            import jax

            compiled = jax.jit(getattr(jax.numpy, name))
            on_device = jax.device_put(x)
            contenders["JAX (its threads)"] = lambda compiled=compiled, on_device=on_device: compiled(on_device).block_until_ready()
        measured: Measured = {}
        for _ in range(rounds):
            for title, call in contenders.items():
                measured.setdefault(title, []).append(a_call(call) / count)
        show(f"{name} of float32, an element", "ns", 1e9, measured)


TABLES = {"calls": calls, "compile": compile_times, "start": process_starts, "elements": elements}


def main(arguments: Iterable[str] | None = None) -> None:
    """Run the tables that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    chosen = parser.parse_args(arguments)  # type: ignore[arg-type]
    for name in chosen.only:
        TABLES[name](chosen.rounds)


if __name__ == "__main__":
    main()
