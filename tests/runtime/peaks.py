"""Prints, for each setting, the planned peak bytes and by how many the process really grew in the calls: python -m tests.runtime.peaks."""

import os
import resource
import sys

import numpy as np
import optree

import staticgrad as sg

LAYERS, WIDTH, BATCH = 24, 32, 16384
OFTEN = ("forward", "gradient", "two threads", "limited")
RNG = np.random.default_rng(0)
WEIGHTS = [RNG.normal(size=(WIDTH, WIDTH)) / 8 for _ in range(LAYERS)]
X = RNG.normal(size=(BATCH, WIDTH))


def network(weights, x, layer=lambda x, w: np.tanh(x @ w)):
    """Return the mean square of what the layers make of x."""
    for w in weights:
        x = layer(x, w)
    return np.mean(x * x)


def gradient(layer=lambda x, w: np.tanh(x @ w), **options):
    """Return a gradient of the network, to be called with weights and x."""

    def loss(weights, x):
        return network(weights, x, layer)

    return sg.value_and_grad(sg.trace(loss, **options))


def checkpointed(policy):
    """Return the gradient of a network whose layers are checkpointed by twos."""
    layer = sg.checkpoint(lambda x, w: np.tanh(np.tanh(x @ w) @ w), policy=getattr(sg.checkpoint_policies, policy))
    return gradient(layer)


def scanned(w, x):
    """Return the mean square after steps of a loop that is differentiated."""
    return np.mean(sg.scan(lambda c, _: (np.tanh(c @ w), None), x, None, length=LAYERS)[0] ** 2)


def until(x, least):
    """Return the mean square after a loop whose number of steps, some 400, depends on the data."""
    return np.mean(sg.while_loop(lambda c: c[0, 0] > least, lambda c: np.sin(c) * 0.99, x) ** 2)


def systems(a, b):
    """Return a number that solutions, determinants and factors of many small matrices make."""
    a = a + 20 * np.eye(a.shape[-1])
    return np.sum(np.linalg.solve(a, b) ** 2) + np.sum(np.linalg.slogdet(a)[1]) + np.sum(np.linalg.cholesky(a @ a.mT))


@sg.custom_vjp
def gate(x):
    """Return x times its sigmoid, with a derivative by hand."""
    return x / (1 + np.exp(-x))


gate.defvjp(lambda x: (gate(x), (x, 1 / (1 + np.exp(-x)))), lambda kept, g: (g * kept[1] * (1 + kept[0] * (1 - kept[1])),))


def settings():
    """Return functions with their arguments, by name."""
    peak = gradient().lower(WEIGHTS, X).memory
    return {
        "forward": (sg.trace(lambda x, y: np.exp(np.tanh(x @ WEIGHTS[0]) @ WEIGHTS[1]) + y), (np.tile(X, (6, 1)), np.tile(X, (6, 1)))),
        "twice the same": (sg.trace(lambda x: (y := np.exp(x), y)), (np.tile(X, (6, 1)),)),
        "gradient": (gradient(), (WEIGHTS, X)),
        "two threads": (gradient(threads=2), (WEIGHTS, X)),
        "the other printer": (gradient(printer="numba"), (WEIGHTS, X)),
        "limited": (gradient(max_memory=peak // 2), (WEIGHTS, X)),
        "nothing saveable": (checkpointed("nothing_saveable"), (WEIGHTS, X)),
        "dots saveable": (checkpointed("dots_saveable"), (WEIGHTS, X)),
        "everything saveable": (checkpointed("everything_saveable"), (WEIGHTS, X)),
        "scan": (sg.value_and_grad(scanned), (WEIGHTS[0], X)),
        "while": (sg.value_and_grad(until), (np.ones((16384, 32)), 0.01)),
        "systems": (sg.grad(systems, (0, 1)), (RNG.normal(size=(4000, 16, 16)), RNG.normal(size=(4000, 16, 1)))),
        "a rule by hand": (gradient(lambda x, w: gate(x @ w)), (WEIGHTS, X)),
        "jacobian": (sg.jacobian(lambda x: np.tanh(np.cumsum(np.sin(x)))), (RNG.normal(size=1500),)),
        "hessian": (sg.hessian(lambda x: np.sum(np.exp(np.sin(x)[:, None] * np.cos(x)))), (RNG.normal(size=700),)),
        "vmap": (sg.vmap(sg.grad(lambda x: network(WEIGHTS, x))), (X.reshape(64, -1, WIDTH),)),
    }


def growth(call):
    """Return by how many bytes a process that has not been larger before grows in a call."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        with os.fdopen(reading) as pipe:
            text = pipe.read()
        os.waitpid(child, 0)
        return int(text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    os.write(writing, str(grown * (1 if sys.platform == "darwin" else 1024)).encode())
    os._exit(0)


def main():
    """Print a line for each setting and way to call."""
    small = sg.trace(np.exp)
    for _ in range(4):  # so that the entry in machine code is there
        small(X[0])
    for name, (function, arguments) in settings().items():
        lowered = function.lower(*arguments)
        executable = lowered.compile().executable
        leaves = [np.asarray(leaf) for leaf in optree.tree_leaves(arguments)]

        executable(leaves)  # so that all that a first call loads is there
        executable.release()

        def called_often():
            for _ in range(4):  # from the third on by machine code
                function(*arguments)  # noqa: B023

        ways = {"once": lambda: executable(leaves)}  # noqa: B023
        if name in OFTEN:
            ways["often"] = called_often
        for way, call in ways.items():
            print(f"{name}, {way}\t{int(lowered.memory)}\t{growth(call)}", flush=True)


if __name__ == "__main__":
    main()
