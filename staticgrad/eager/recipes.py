"""Recipes: what an operation on tensors computes, as a graph recorded once from the meaning it has on tracers.

`x * y` on tensors is the graph that `x * y` records under `@sg.trace`, run by the NumPy interpreter; its backward pass is the graph
that reverse mode derives from the same rules. So eager code and traced code cannot mean different things. Recipes are kept by
operation, shapes, dtypes and options: what a loop repeats is recorded once.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from staticgrad.ad.reverse import cotangents
from staticgrad.eager.names import WRITTEN, tape_name
from staticgrad.errors import UnsupportedError
from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.graph import Graph, substitution, topological
from staticgrad.ir.interp import Interpreter
from staticgrad.ir.node import Input, Value, new_input, zeros_like
from staticgrad.ir.source import at_user_line
from staticgrad.ops.control import inline_calls
from staticgrad.tracing.context import Trace
from staticgrad.tracing.pytree import Tree, flatten
from staticgrad.tracing.tracer import Storage, Tracer
from staticgrad.tracing.views import View

Path = tuple[View, ...]

CAPACITY = 4096
"""So many recipes are kept, those used last; a program that indexes with ever new numbers must not grow."""


COMPUTED_AGAIN = frozenset({"divide"})
"""Ops whose results a backward pass computes a second time, from operands that it needs anyway: they may be changed in place."""


@dataclass(frozen=True)
class Computed:
    """A result with memory of its own: an output of the graph."""

    place: int


@dataclass(frozen=True)
class Viewed:
    """A result that is a part of an operand's memory; the operand itself where the path is empty."""

    operand: int
    path: Path


@dataclass(frozen=True)
class Known:
    """A result that is no array: a shape, a number."""

    value: Any


Result = Computed | Viewed | Known


@dataclass(frozen=True, eq=False)
class Backward:
    """The cotangents of some operands as a recipe of operands, results and the results' cotangents."""

    recipe: Recipe
    operands: tuple[int, ...]
    results: tuple[int, ...]
    seeds: tuple[int, ...]

    @cached_property
    def saved_names(self) -> tuple[str, ...]:
        """What errors call the operands and results that are needed."""
        return (*(f"operand {k}" for k in self.operands), *("its result" for _ in self.results))


@dataclass(eq=False)
class Recipe:
    """One operation: a graph over its operands, what becomes of its outputs, and what is written to operands in place."""

    name: str
    graph: Graph
    results: tuple[Result, ...] = ()
    tree: Tree | None = None
    writes: tuple[int, ...] = ()
    """The operands that are written; their new values are the last outputs of the graph."""

    _backward: dict[tuple[int, ...], Backward] = field(default_factory=dict)

    @cached_property
    def tape_name(self) -> str:
        """What the tape calls its nodes."""
        return tape_name(self.name)

    @cached_property
    def run(self) -> Interpreter:
        """The graph, ready to be run."""
        return Interpreter(self.graph)

    def backward(self, wanted: tuple[int, ...]) -> Backward:
        """Return the backward pass for the operands of these numbers."""
        found = self._backward.get(wanted)
        if found is None:
            found = self._backward[wanted] = self._derived(wanted)
        return found

    def _derived(self, wanted: tuple[int, ...]) -> Backward:
        """Cut at the results: what backward needs of them is not computed a second time."""
        graph = self.graph
        differentiable = [k for k, value in enumerate(graph.outputs) if is_float(value.dtype)]
        seeds = [new_input(Aval(graph.outputs[k].shape, graph.outputs[k].dtype), "cotangent") for k in differentiable]
        heads = [graph.outputs[k] for k in differentiable]
        inputs = [graph.inputs[k] for k in wanted]
        found = [zeros_like(x) if g is None else g for g, x in zip(cotangents(heads, inputs, seeds), inputs, strict=True)]
        results = {value: new_input(Aval(value.shape, value.dtype), "result") for value in graph.outputs}
        known = {value: value for value in (*graph.inputs, *seeds)}
        known |= {
            value: result
            for value, result in results.items()
            if not isinstance(value.op, Input) and not value.node.is_fixed and value.op.name not in COMPUTED_AGAIN
        }
        image = substitution(found, known)
        outputs = tuple(image[g] for g in found)
        used = {node.outputs[0] for node in topological(outputs) if isinstance(node.op, Input)}
        operands = tuple(k for k, value in enumerate(graph.inputs) if value in used)
        kept = tuple({results[v]: k for k, v in reversed(list(enumerate(graph.outputs))) if results[v] in used}.values())
        parameters = (*(graph.inputs[k] for k in operands), *(results[graph.outputs[k]] for k in kept), *seeds)
        name = f"{re.sub('Backward[0-9]$', '', self.name)}Backward"
        return Backward(Recipe(name, Graph(parameters, outputs, (), name)), operands, kept, tuple(differentiable))


def recorded(function: Callable[..., Any], avals: Sequence[Aval], name: Any) -> Recipe:
    """Return the recipe of `function`, which is given one tracer an operand.

    `name` is what the tape calls it, or says so given the tracers.
    """
    with Trace(getattr(function, "__name__", "an operation")) as trace:
        inputs = tuple(new_input(aval, "", trace) for aval in avals)
        storages = [Storage(value, trace, array=not value.aval.weak) for value in inputs]
        operands = [Tracer(storage) for storage in storages]
        leaves, tree = flatten(function(*operands))
        values: list[Value] = []
        results: list[Result] = []
        for leaf in leaves:
            if not isinstance(leaf, Tracer):
                results.append(Known(leaf))
                continue
            number = next((k for k, storage in enumerate(storages) if storage is leaf._storage), None)
            if number is not None and not inputs[number].aval.weak:
                results.append(Viewed(number, leaf._views))
                continue
            results.append(Computed(len(values)))
            values.append(leaf.value)
        writes = tuple(k for k, storage in enumerate(storages) if storage.version)
        values += [storages[k].value for k in writes]
        title = name if isinstance(name, str) else name(*operands)
    graph = inline_calls(Graph(inputs, tuple(values), (), title))
    if graph.free:
        raise UnsupportedError(
            at_user_line(f"{title}: a traced array was used in an operation on tensors; trace the whole function instead")
        )
    return Recipe(title, graph, tuple(results), tree, writes)


def reading(aval: Aval, path: Path, name: str) -> Recipe:
    """Return the recipe that reads a part of an array."""

    def make() -> Recipe:
        source = new_input(aval)
        part = source
        for view in path:
            part = view.read(part)
        return Recipe(name, Graph((source,), (part,), (), name), (Computed(0),))

    return kept(("read", aval, path, name), make)


def writing(aval: Aval, path: Path, part: Aval) -> Recipe:
    """Return the recipe of an array in which a part was replaced: of the array and the part."""

    def make() -> Recipe:
        source, new = new_input(aval), new_input(part)
        bases = [source]
        for view in path[:-1]:
            bases.append(view.read(bases[-1]))
        written = new
        for base, view in zip(reversed(bases), reversed(path), strict=True):
            written = view.write(base, written)
        return Recipe(WRITTEN, Graph((source, new), (written,), (), WRITTEN), (Computed(0),))

    return kept(("write", aval, path, part), make)


_recipes: OrderedDict[Hashable, Recipe] = OrderedDict()
_lock = threading.Lock()


def kept(key: Hashable, make: Callable[[], Recipe]) -> Recipe:
    """Return the recipe kept under `key`, made where there is none."""
    with _lock:
        found = _recipes.get(key)
        if found is not None:
            _recipes.move_to_end(key)
            return found
    made = make()
    with _lock:
        found = _recipes.setdefault(key, made)
        if len(_recipes) > CAPACITY:
            _recipes.popitem(last=False)
    return found
