"""What expressions say together: vertices in the order in which values flow, constants, and the edges between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from staticgrad.errors import ExpressionError
from staticgrad.primer.grammar import Binary, Definition, Name, Negative, Tree, error_at, is_vertex, names_in, parse

Edge = tuple[str, str]
"""(source, target): the target's expression reads the source, a vertex or a constant."""


@dataclass(frozen=True)
class Network:
    """The graph of a list of expressions.

    Parameters
    ----------
    definitions
        The expression of each vertex that has one, in an order in which every vertex follows those that it reads.
    variables
        All vertices: those without an expression in the order in which they are met, then the others as they were written.
    constants
        All other names, in alphabetical order.
    outputs
        The vertices that are compared with data.
    """

    definitions: Mapping[str, Definition]
    variables: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The vertices without an expression."""
        return tuple(name for name in self.variables if name not in self.definitions)

    def operands(self, target: str) -> tuple[str, ...]:
        """Return the vertices and the constants that a vertex reads, each once, vertices first."""
        found = {each.name for each in names_in(self.definitions[target].tree)}
        return tuple(name for name in (*self.variables, *self.constants) if name in found)

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All edges, those from constants included, in the order in which values flow."""
        return tuple((source, target) for target in self.definitions for source in self.operands(target))

    @property
    def depends_on(self) -> dict[str, list[str]]:
        """The vertices that each vertex with an expression reads."""
        return {v: [name for name in self.operands(v) if is_vertex(name)] for v in self.variables if v in self.definitions}

    @property
    def leads_to(self) -> dict[str, list[str]]:
        """The vertices that read each vertex; one that nothing reads is not there."""
        depends_on = self.depends_on
        readers = {source: [v for v in depends_on if source in depends_on[v]] for source in self.variables}
        return {source: found for source, found in readers.items() if found}

    def constants_beside(self, edge: Edge) -> list[str]:
        """Return the constants in those summands of an expression that read a vertex: in ab*xx + ac*xa, ab stands beside xx."""
        source, target = edge
        beside = {
            name.name
            for summand in _summands(self.definitions[target].tree)
            if source in {each.name for each in names_in(summand)}
            for name in names_in(summand)
        }
        return [name for name in self.constants if name in beside]


def _summands(tree: Tree) -> list[Tree]:
    match tree:
        case Binary("+" | "-", left, right):
            return [*_summands(left), *_summands(right)]
        case Negative(operand):
            return _summands(operand)
        case _:
            return [tree]


def network_of(expressions: Sequence[str], output_vars: Sequence[str] | None) -> Network:
    """Return the network of expressions; without `output_vars`, the vertices that nothing reads are its outputs.

    Raises
    ------
    ExpressionError
        For an expression that is malformed, a vertex with two of them or within a cycle, an output that does not exist ...
    """
    written: dict[str, Definition] = {}
    for definition in map(parse, expressions):
        first = written.setdefault(definition.target.name, definition)
        if first is not definition:
            text = f"{definition.target.name!r} has two expressions; the first is {first.text.strip()}"
            raise error_at(text, definition.text, definition.target.position)
        if not any(names_in(definition.tree)):
            raise error_at(f"{definition.target.name!r} depends on nothing; write the number where it is used", definition.text, 0)
    ordered = _in_order(written)
    names = dict.fromkeys(each.name for definition in written.values() for each in names_in(definition.tree))
    inputs = [name for name in names if is_vertex(name) and name not in written]
    if not inputs:
        first = next(iter(written.values()))
        raise error_at("no vertex is independent: each has an expression, and there is nothing to vary", first.text, first.target.position)
    constants = sorted(name for name in names if not is_vertex(name))
    outputs = [name for name in written if name not in names] if output_vars is None else list(output_vars)
    for place, name in enumerate(outputs):
        if name not in written or name in outputs[:place]:
            raise _wrong_output(outputs, place, inputs, list(written))
    return Network(ordered, (*inputs, *written), tuple(constants), tuple(outputs))


def _wrong_output(outputs: list[str], place: int, inputs: list[str], written: list[str]) -> ExpressionError:
    name = outputs[place]
    problem = "stands there twice"
    if name not in written:
        problem = "is an independent variable, which nothing predicts" if name in inputs else "is not a vertex of these expressions"
    message = f"output_vars: {name!r} {problem}; choose from {', '.join(written)}"
    return error_at(message, ", ".join(outputs), sum(len(each) + 2 for each in outputs[:place]))


def _in_order(written: Mapping[str, Definition]) -> dict[str, Definition]:
    """Return the definitions so that each follows those that it reads (a depth-first search without recursion)."""
    ordered: dict[str, Definition] = {}
    for start in written:
        path = [(start, iter(list(names_in(written[start].tree))))] if start not in ordered else []
        while path:
            target, left = path[-1]
            name = next((name for name in left if name.name in written and name.name not in ordered), None)
            if name is None:
                ordered[target] = written[target]
                path.pop()
            elif name.name in (on_path := [each for each, _ in path]):
                raise _cycle(on_path[on_path.index(name.name) :], written[target], name)
            else:
                path.append((name.name, iter(list(names_in(written[name.name].tree)))))
    return ordered


def _cycle(cycle: list[str], definition: Definition, name: Name) -> ExpressionError:
    reads = " reads ".join([*cycle, cycle[0]])
    return error_at(f"a cycle: {reads}; values cannot flow", definition.text, name.position)
