"""One sample through a network: values forward with the slope of every edge, gradients backward, and the update of the constants.

inputs, constants  --sweep-->  values, partials of every edge: exact and measured
errors, partials   --backward-->  the gradient of the loss at every vertex and constant
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from staticgrad.api import value_and_grad
from staticgrad.primer.grammar import evaluate
from staticgrad.primer.network import Edge, Network

Values = dict[str, Any]
Partials = dict[Edge, Any]


def forward_function(network: Network) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Values]:
    """Return the network as a function: (inputs, constants) -> the values of all its vertices."""

    def forward(inputs: Mapping[str, Any], constants: Mapping[str, Any]) -> Values:
        values = {**constants, **inputs}
        with np.errstate(all="ignore"):  # numbers among themselves are computed here and now
            for target, definition in network.definitions.items():
                values[target] = evaluate(definition.tree, values)
        return {name: values[name] for name in network.variables}

    return forward


def sweep(network: Network, inputs: Values, constants: Values, delta: Any) -> tuple[Values, Partials, Partials]:
    """Return the values of all vertices, and the exact and the measured partial derivative of every edge.

    A measured one is the change of the target, divided by the distance, as its source alone moves from `delta` below its value to
    `delta` above.
    """
    values, exact, measured = {**constants, **inputs}, Partials(), Partials()
    with np.errstate(all="ignore"):
        for target, definition in network.definitions.items():

            def function(operands: Values, tree: Any = definition.tree) -> Any:
                return evaluate(tree, operands)

            operands = {name: values[name] for name in network.operands(target)}
            values[target], slopes = value_and_grad(function)(operands)
            for source, value in operands.items():
                above, below = function({**operands, source: value + delta}), function({**operands, source: value - delta})
                exact[source, target] = slopes[source]
                measured[source, target] = (above - below) / (2 * delta)
    return values, exact, measured


def backward(network: Network, errors: Values, partials: Partials) -> Values:
    """Return the gradient of the loss at every vertex and constant: what each reader passes back along its edge, added up.

    Parameters
    ----------
    network
        Its edges carry gradients from targets to sources.
    errors
        For each output the predicted minus the true value; the loss is the sum of their squares.
    partials
        The partial derivative of every edge.
    """
    gradients: Values = {name: 2 * error for name, error in errors.items()}
    for target in reversed(list(network.definitions)):
        arriving = gradients.setdefault(target, 0.0)
        for source in network.operands(target):
            passed = arriving * partials[source, target]
            gradients[source] = gradients[source] + passed if source in gradients else passed
    return gradients


def training_step(network: Network, use_measured: bool) -> Callable[[Values], tuple[Values, Values]]:
    """Return the step of a loop: one sample, one update. It reads the row `carry["row"]` of the data that it carries."""

    def step(carry: Values) -> tuple[Values, Values]:
        row, constants = carry["row"], carry["constants"]
        inputs = {name: samples[row] for name, samples in carry["inputs"].items()}
        values, exact, measured = sweep(network, inputs, constants, carry["delta"])
        errors = {name: values[name] - samples[row] for name, samples in carry["targets"].items()}
        gradients = backward(network, errors, measured if use_measured else exact)
        moved = {name: constants[name] - carry["rate"] * gradients[name] for name in constants}
        told = {
            "squared error": sum(error * error for error in errors.values()),
            **{column("gradient", name): gradients[name] for name in (*network.variables, *network.constants)},
            **{column("constant", name): constants[name] for name in constants},
            **{column("exact", *edge): exact[edge] for edge in network.edges},
            **{column("measured", *edge): measured[edge] for edge in network.edges},
        }
        return {**carry, "row": row + 1, "constants": moved}, told

    return step


def column(kind: str, *names: str) -> str:
    """Return how the record of a training calls what a step tells about a vertex, a constant or an edge."""
    return " ".join((kind, *names))
