"""`ExpressionGraph`: expressions as a network whose constants are learned from data."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from staticgrad.api import trace
from staticgrad.calls.traced import Traced
from staticgrad.errors import ArgumentError, InvalidValueError, StepOrderError
from staticgrad.ir.options import number, whole
from staticgrad.ir.source import at_user_line
from staticgrad.primer import pictures, sweep
from staticgrad.primer.network import Network, network_of
from staticgrad.primer.training import BY_MEASURE, PARTIALS, ExpressionTraining
from staticgrad.train import Loop

LEAST, MOST = 0.1, 1.0
"""Between these all inputs and the first constants are drawn: away from 0, where a relative difference of slopes says little."""


@dataclass(frozen=True)
class ExpressionData:
    """Samples: for each independent variable and each output an array with one number a sample."""

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]


class ExpressionGraph:
    """A network written as expressions, whose constants are learned from data.

    The first letter of a name decides its role: `x...` is a vertex, anything else a constant that is trained. An expression defines a
    vertex by others: `xy = ab*xx + ac*xa`, with `+ - * /`, `^` for powers, parentheses, numbers, and the functions abs, cos, exp, log,
    sin, sqrt, tan and tanh. It is read by a parser of its own; nothing is executed as Python.

    Parameters
    ----------
    expressions : sequence of str
        One for each vertex but the independent ones, in any order.
    output_vars : sequence of str, optional
        The vertices whose values are compared with data; by default those that no expression reads.
    dataset_size : int
        The number of samples.
    learning_rate : float
        Constants move by minus this times their gradient, after each sample.
    display_vals_how_often : int
        After so many samples a line about the training is printed; 0 prints nothing.
    grad_delta : float
        How far a vertex is moved to either side when the slope of an edge is measured.
    seed : int
        What all random numbers depend on.

    Examples
    --------
    >>> import staticgrad as sg
    >>> graph = sg.ExpressionGraph(["xy = a*xx + b", "xx = xa^2"], learning_rate=0.3, display_vals_how_often=0)
    >>> graph.parse_expressions()
    >>> graph.independent_vars, graph.output_vars, graph.learnable_params
    (['xa'], ['xy'], ['a', 'b'])
    >>> graph.depends_on
    {'xy': ['xx'], 'xx': ['xa']}
    >>> graph.gen_gt_dataset(vals_for_learnable_params={"a": 3.0, "b": 0.5})
    >>> training = graph.train_on_all_data()
    >>> {name: round(value, 4) for name, value in training.constants.items()}
    {'a': 3.0, 'b': 0.5}
    >>> max(training.disagreement.values()) < 1e-3
    True

    References
    ----------
    Modelled on the teaching module ComputationalGraphPrimer of Avinash Kak, Purdue University.
    """

    def __init__(
        self,
        expressions: Sequence[str],
        output_vars: Sequence[str] | None = None,
        dataset_size: int = 10000,
        learning_rate: float = 1e-6,
        display_vals_how_often: int = 1000,
        grad_delta: float = 1e-4,
        seed: int = 0,
    ) -> None:
        self.expressions = _strings("expressions", expressions)
        if not self.expressions:
            raise InvalidValueError(at_user_line("expressions is empty; write for example ['xx = xa^2', 'xy = ab*xx + ac*xa']"))
        self._asked_outputs = None if output_vars is None else _strings("output_vars", output_vars)
        if self._asked_outputs == []:
            raise InvalidValueError(at_user_line("output_vars is empty; leave it out to take the vertices that no expression reads"))
        self.dataset_size = whole("dataset_size", dataset_size)
        self.learning_rate = number("learning_rate", learning_rate)
        self.display_vals_how_often = whole("display_vals_how_often", display_vals_how_often, 0)
        self.grad_delta = number("grad_delta", grad_delta)
        if self.grad_delta == 0:
            raise InvalidValueError(at_user_line("grad_delta=0: expected a distance greater than 0"))
        self.seed = whole("seed", seed, 0)
        self._network: Network | None = None
        self._function: Traced | None = None
        self._data: ExpressionData | None = None
        self._training: ExpressionTraining | None = None

    # ---- the network

    def parse_expressions(self) -> None:
        """Read the expressions and find out how they depend on each other.

        Raises
        ------
        ExpressionError
            For an expression that is malformed, a vertex with two expressions, a cycle, an output that does not exist; the message
            shows the expression with a caret below the place. It is a `SyntaxError` and a `ValueError`.
        """
        self._network = network_of(self.expressions, self._asked_outputs)
        self._function = trace(sweep.forward_function(self._network))
        self._data = self._training = None

    @property
    def variables(self) -> list[str]:
        """All vertices: the independent ones, then the others in the order of their expressions."""
        return list(self._parsed.variables)

    @property
    def independent_vars(self) -> list[str]:
        """The vertices without an expression."""
        return list(self._parsed.inputs)

    @property
    def output_vars(self) -> list[str]:
        """The vertices whose values are compared with data."""
        return list(self._parsed.outputs)

    @property
    def learnable_params(self) -> list[str]:
        """The constants, in alphabetical order."""
        return list(self._parsed.constants)

    @property
    def depends_on(self) -> dict[str, list[str]]:
        """The vertices that each vertex reads; independent ones are not there."""
        return self._parsed.depends_on

    @property
    def leads_to(self) -> dict[str, list[str]]:
        """The vertices that read each vertex; those that nothing reads are not there."""
        return self._parsed.leads_to

    @property
    def function(self) -> Traced:
        """The network as a traced function: (inputs, constants), dicts of numbers or arrays, to a dict of the values of all vertices.

        Examples
        --------
        >>> import numpy as np, staticgrad as sg
        >>> graph = sg.ExpressionGraph(["xy = k*xa^2"])
        >>> graph.parse_expressions()
        >>> graph.function({"xa": np.array([1.0, 2.0])}, {"k": 3.0})["xy"]
        array([ 3., 12.])
        >>> sg.grad(lambda k: graph.function({"xa": 2.0}, {"k": k})["xy"])(3.0)
        np.float64(4.0)
        """
        if self._function is None:
            raise self._not_read()
        return self._function

    # ---- data and training

    def gen_gt_dataset(self, vals_for_learnable_params: Mapping[str, float]) -> None:
        """Draw values of the independent variables and compute the outputs that belong to them: the ground truth.

        The values are uniform between 0.1 and 1 and depend on the seed alone.

        Parameters
        ----------
        vals_for_learnable_params : dict of str to float
            The true value of every constant.

        Raises
        ------
        InvalidValueError
            If a constant is missing or unknown, or an output is not finite.
        """
        network = self._parsed
        constants = _true_constants(vals_for_learnable_params, network.constants)
        generator = np.random.default_rng([self.seed, 0])
        inputs = {name: generator.uniform(LEAST, MOST, self.dataset_size) for name in network.inputs}
        values = self.function(inputs, constants)
        outputs = {name: np.broadcast_to(values[name], (self.dataset_size,)).copy() for name in network.outputs}
        for name, samples in outputs.items():
            wrong = np.flatnonzero(~np.isfinite(samples))
            if wrong.size:
                first = ", ".join(f"{each} = {column[wrong[0]]:.6g}" for each, column in inputs.items())
                text = f"with these constants {name} is not finite at {wrong.size} of {self.dataset_size} samples, first at {first}"
                raise InvalidValueError(at_user_line(f"{text}; choose other constants or another expression"))
        self._data, self._training = ExpressionData(inputs, outputs), None

    @property
    def dataset(self) -> ExpressionData:
        """The samples that `gen_gt_dataset` made."""
        if self._data is None:
            raise StepOrderError(at_user_line("there are no data yet: call gen_gt_dataset(vals_for_learnable_params={...}) first"))
        return self._data

    def train_on_all_data(self, partials: str = BY_MEASURE) -> ExpressionTraining:
        """Start from random constants, go through all samples once, and return what happened.

        For each sample values flow forward, and with them the partial derivative of every edge is found in two ways: measured by moving
        its source by `grad_delta` to either side, and exactly, by the compiled derivative. Then the gradient of the loss flows backward
        along the edges to every vertex and constant, and the constants take a step. All samples are one native call. A loss that
        becomes infinite is no error: the report says from which sample on.

        Parameters
        ----------
        partials : str
            Which partial derivatives the gradient follows: `"finite differences"` or `"exact"`.

        Returns
        -------
        ExpressionTraining
            Losses, constants, gradients and both partial derivatives; its `repr` is the report.

        Raises
        ------
        StepOrderError
            If there are no data yet.
        """
        if partials not in PARTIALS:
            raise InvalidValueError(at_user_line(f"partials={partials!r}: expected one of {', '.join(map(repr, PARTIALS))}"))
        network, data, column = self._parsed, self.dataset, sweep.column
        generator = np.random.default_rng([self.seed, 1])
        constants = {name: np.float64(generator.uniform(LEAST, MOST)) for name in network.constants}
        carry = {
            "row": 0, "constants": constants, "inputs": data.inputs, "targets": data.outputs,
            "rate": self.learning_rate, "delta": self.grad_delta,
        }  # fmt: skip
        end, history = Loop(sweep.training_step(network, partials == BY_MEASURE)).run(carry, epochs=self.dataset_size)
        if history.interrupted:
            raise KeyboardInterrupt
        self._training = training = ExpressionTraining(
            np.array(history["squared error"]),
            {name: float(value) for name, value in end["constants"].items()},
            {name: np.array(history[column("gradient", name)]) for name in network.variables},
            {name: np.array(history[column("gradient", name)]) for name in network.constants},
            {name: np.array(history[column("constant", name)]) for name in network.constants},
            {edge: np.array(history[column("exact", *edge)]) for edge in network.edges},
            {edge: np.array(history[column("measured", *edge)]) for edge in network.edges},
            partials,
        )
        self._print(training)
        return training

    def _print(self, training: ExpressionTraining) -> None:
        every = self.display_vals_how_often
        for place, mean in enumerate(training.mean_losses(every) if every else ()):
            last = min((place + 1) * every, len(training.losses)) - 1
            constants = ", ".join(f"{name} {values[last]:.6g}" for name, values in training.trajectory.items())
            print(f"samples {place * every + 1} to {last + 1}: mean loss {mean:.6g}; {constants}")
        if every and training.first_nonfinite is not None:
            print(f"the loss is infinite or not a number from sample {training.first_nonfinite + 1} on")

    # ---- pictures

    def display_network(self, path: str | os.PathLike[str] | None = None, *, operators: bool = False) -> Path | None:
        """Show the network: its vertices, or with `operators` all operators between them, as boxes, and arrows from sources to targets.

        Parameters
        ----------
        path
            A file to write instead (`.png`, `.svg` or `.pdf`). Without a screen, `network.png` or `operators.png` is written.
        operators
            Whether operators are the nodes.

        Returns
        -------
        Path or None
            The file that was written.
        """
        picture = pictures.operator_picture(self._parsed) if operators else pictures.network_picture(self._parsed)
        return pictures.present(lambda figure: pictures.draw(picture, figure), "operators" if operators else "network", path)

    display_network2 = display_network

    def plot_loss(self, path: str | os.PathLike[str] | None = None) -> Path | None:
        """Show the loss of each sample of the last training and the means over `display_vals_how_often` samples.

        Parameters
        ----------
        path
            A file to write instead. Without a screen, `loss.png` is written.

        Returns
        -------
        Path or None
            The file that was written.
        """
        training, every = self._training, self.display_vals_how_often or 1000
        if training is None:
            raise StepOrderError(at_user_line("there are no losses yet: call train_on_all_data() first"))
        return pictures.present(lambda figure: pictures.draw_losses(training, every, figure), "loss", path)

    @property
    def _parsed(self) -> Network:
        if self._network is None:
            raise self._not_read()
        return self._network

    def _not_read(self) -> StepOrderError:
        return StepOrderError(at_user_line("the expressions have not been read yet: call parse_expressions() first"))

    def __repr__(self) -> str:
        return f"<expression graph: {'; '.join(text.strip() for text in self.expressions)}>"


def _strings(name: str, values: Any) -> list[str]:
    if isinstance(values, (list, tuple)) and all(isinstance(each, str) for each in values):
        return list(values)
    found = type(values).__name__
    if isinstance(values, (list, tuple)):
        found += " that holds a " + next(type(each).__name__ for each in values if not isinstance(each, str))
    raise ArgumentError(at_user_line(f"{name}: expected a list of strings, not a {found}"))


def _true_constants(values: Any, constants: Sequence[str]) -> dict[str, float]:
    """Return the values of all constants as floats, or raise for those that are missing, unknown or no numbers."""
    if not isinstance(values, Mapping):
        kind = type(values).__name__
        raise ArgumentError(at_user_line(f"vals_for_learnable_params: expected a dict of numbers by name, not a {kind}"))
    for name in values:
        if name not in constants:
            close = difflib.get_close_matches(str(name), constants, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            known = ", ".join(constants) or "there are none"
            raise InvalidValueError(at_user_line(f"vals_for_learnable_params: {name!r} is not a constant ({known}){hint}"))
    missing = [name for name in constants if name not in values]
    if missing:
        raise InvalidValueError(at_user_line(f"vals_for_learnable_params: no value for {', '.join(missing)}"))
    found = {name: values[name] for name in constants}
    for name, value in found.items():
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise ArgumentError(at_user_line(f"vals_for_learnable_params: {name} is a {type(value).__name__}, not a number"))
        if not np.isfinite(value):
            raise InvalidValueError(at_user_line(f"vals_for_learnable_params: {name} is {value}, not a finite number"))
    return {name: float(value) for name, value in found.items()}
