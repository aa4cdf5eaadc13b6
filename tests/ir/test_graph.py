"""Nodes and graphs: hash-consing, freezing, order, digests, rewriting, verification, printing."""

from __future__ import annotations

import gc
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from staticgrad.errors import VerificationError
from staticgrad.ir import node as node_module
from staticgrad.ir.aval import BOOL, FLOAT32, FLOAT64, INT64, Aval
from staticgrad.ir.graph import Graph, inline, rebuild, substitution, topological
from staticgrad.ir.node import Node, Value, apply, apply_all, at_line, constant, constant_array, new_input
from staticgrad.ir.op import REGISTRY, Op, op
from staticgrad.ir.source import SourceLine
from staticgrad.ir.verify import verify

VECTOR = Aval((3,), FLOAT64)
DEEP = 100_000


@pytest.fixture(scope="module", autouse=True)
def ops():
    """Return tiny ops of unusual names, registered while this file runs."""
    before = set(REGISTRY)

    @op
    class ZzJoin(Op):
        """x + y."""

        def infer(self, *avals: Aval) -> Aval:
            return avals[0]

    @op
    class ZzTwist(Op):
        """scale * x."""

        scale: float = 1.0

        def infer(self, *avals: Aval) -> Aval:
            return avals[0]

    @op
    class ZzSplit(Op):
        """The halves of a vector and its length."""

        outputs = 2

        def infer(self, *avals: Aval) -> tuple[Aval, Aval]:
            return avals[0].with_shape((avals[0].size // 2,)), Aval((), INT64)

    @op
    class ZzHold(Op):
        """An op that holds graphs."""

        bodies: tuple[Graph, ...] = ()

        def infer(self, *avals: Aval) -> Aval:
            return avals[0]

    yield SimpleNamespace(join=ZzJoin, twist=ZzTwist, split=ZzSplit, hold=ZzHold)
    for name in set(REGISTRY) - before:
        del REGISTRY[name]


def chain(ops: SimpleNamespace, length: int) -> Graph:
    x = value = new_input(VECTOR, "x")
    with at_line(SourceLine("model.py", 1, "f")):  # looking for the user's line takes longer than all the rest
        for _ in range(length):
            value = apply(ops.twist(2.0), value)
    return Graph((x,), (value,))


def sum_of_two(ops: SimpleNamespace) -> tuple[Value, Value, Value]:
    x, y = new_input(VECTOR, "x"), new_input(VECTOR, "y")
    return x, y, apply(ops.join(), x, y)


# ---- nodes


def test_names_of_ops(ops):
    assert ops.join.name == "zz_join"
    assert REGISTRY["zz_join"] is ops.join
    with pytest.raises(VerificationError, match="two ops are called 'zz_join'"):
        op(type("ZzJoin", (Op,), {}))


def test_equal_applications_are_one_node(ops):
    x, y, total = sum_of_two(ops)
    assert apply(ops.join(), x, y) is total
    assert apply(ops.twist(2.0), x) is apply(ops.twist(2.0), x)


def test_other_operands_or_parameters_are_other_nodes(ops):
    x, y, total = sum_of_two(ops)
    assert apply(ops.join(), y, x) is not total
    assert apply(ops.twist(2.0), x) is not apply(ops.twist(3.0), x)
    assert new_input(VECTOR, "x") is not new_input(VECTOR, "x")


OTHER_BITS = [(0.0, -0.0), (1.0, np.float32(1.0)), (1, 1.0), (1, True), (np.nan, -np.nan), ([1.0], [[1.0]]), (np.int32(1), np.int64(1))]


@pytest.mark.parametrize(("first", "second"), OTHER_BITS, ids=str)
def test_constants_of_other_bits_differ(first, second):
    assert constant(first) is not constant(second)


@pytest.mark.parametrize("value", [0.0, -0.0, np.nan, np.inf, 3, True, [1.0, np.nan], np.zeros((0, 2))], ids=str)
def test_constants_of_equal_bits_are_one_node(value):
    assert constant(value) is constant(np.array(value))


def test_constants_are_copies():
    array = np.arange(3.0)
    value = constant(array)
    array[0] = 7.0
    found = constant_array(value)
    assert found.tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1.0
    assert constant_array(new_input(VECTOR)) is None


def test_layout_does_not_tell_constants_apart():
    array = np.arange(6.0).reshape(2, 3)
    assert constant(array) is constant(np.asfortranarray(array))
    assert constant(array) is constant(array.astype(">f8"))


def test_nodes_are_frozen(ops):
    _, _, total = sum_of_two(ops)
    with pytest.raises(VerificationError, match="frozen"):
        total.node.op = ops.twist(1.0)
    with pytest.raises(AttributeError):
        ops.twist(1.0).scale = 2.0


def test_lines(ops):
    x = new_input(VECTOR)
    here = SourceLine("model.py", 12, "loss")
    assert apply(ops.twist(5.0), x).node.line.file == __file__
    with at_line(here):
        inside = apply(ops.twist(6.0), x)
        with at_line(None):
            pass
        assert apply(ops.twist(7.0), x).node.line is here
    assert inside.node.line is here
    assert str(here) == "model.py:12"
    assert apply(ops.twist(8.0), x).node.line.file == __file__


def test_a_shape_rule_may_build_nodes(ops, monkeypatch):
    monkeypatch.setattr(node_module, "_lock", threading.Lock())  # a deadlock should not outlive this test

    class Nested(Op):
        name = "zz_nested"

        def infer(self, *avals: Aval) -> Aval:
            return apply(ops.twist(9.0), new_input(avals[0])).aval

    thread = threading.Thread(target=lambda: apply(Nested(), new_input(VECTOR)), daemon=True)
    thread.start()
    thread.join(3)
    assert not thread.is_alive(), "deadlock"


# ---- order and memory


def test_operands_come_first(ops):
    x, y, total = sum_of_two(ops)
    top = apply(ops.join(), apply(ops.twist(2.0), total), x)
    order = topological([top, total])
    assert len(order) == len(set(order)) == 5
    place = {node: position for position, node in enumerate(order)}
    assert all(place[value.node] < place[node] for node in order for value in node.inputs)
    assert total.node not in topological([top], stop=[total])
    assert Graph((y, x), (top,)).nodes[:2] == (y.node, x.node)
    assert Graph((x, y), (x,)).nodes == (x.node, y.node), "unused inputs are nodes too"


def test_deep_graphs(ops):
    graph = chain(ops, DEEP)
    assert len(graph.nodes) == DEEP + 1
    assert len(graph.digest) == 64
    verify(graph)
    doubled = rebuild(graph, lambda node, inputs: apply_all(ops.twist(3.0), *inputs, line=node.line))
    assert len(doubled.nodes) == DEEP + 1
    assert graph.forward_nodes == frozenset(graph.nodes)


def test_deep_graphs_are_freed_at_once(ops):
    graph = chain(ops, DEEP)
    first, last = weakref.ref(graph.nodes[1]), weakref.ref(graph.nodes[-1])
    del graph
    gc.collect()
    assert last() is None
    assert first() is None, "a node keeps its operands alive after its own death"


# ---- digests


def program(ops: SimpleNamespace, scale: float = 2.0, swap: bool = False, aval: Aval = VECTOR, factor: float = 1.0) -> Graph:
    x, y = new_input(aval, "x"), new_input(aval, "y")
    scaled = apply(ops.twist(scale), x)
    pair = (y, scaled) if swap else (scaled, y)
    return Graph((x, y), (apply(ops.join(), apply(ops.join(), *pair), constant(np.full(aval.shape, factor))),))


def test_equal_programs_have_equal_digests(ops):
    first, second = program(ops), program(ops)
    assert first.outputs != second.outputs
    assert first.digest == second.digest


CHANGES = [{"scale": 3.0}, {"swap": True}, {"aval": Aval((4,), FLOAT64)}, {"aval": Aval((3,), FLOAT32)}, {"factor": -1.0}]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_other_programs_have_other_digests(ops, change):
    assert program(ops, **change).digest != program(ops).digest
    assert program(ops, factor=0.0).digest != program(ops, factor=-0.0).digest


def test_digests_tell_the_order_of_outputs_apart(ops):
    x, y, total = sum_of_two(ops)
    other = apply(ops.twist(2.0), x)
    digests = {Graph((x, y), outputs).digest for outputs in ((total, other), (other, total), (total,), (total, total))}
    assert len(digests) == 4


def test_digests_tell_backward_outputs_apart(ops):
    x, y, total = sum_of_two(ops)
    gradient = apply(ops.twist(2.0), total)
    together, apart = Graph((x, y), (total, gradient)), Graph((x, y), (total, gradient), (total,))
    assert together.digest != apart.digest
    assert apart.differentiated
    assert not together.differentiated


def test_digests_tell_outputs_of_a_node_apart(ops):
    x = new_input(Aval((4,), FLOAT64))
    half, length = apply_all(ops.split(), x)
    assert Graph((x,), (half,)).digest != Graph((x,), (length,)).digest


def test_digests_tell_parameters_from_what_is_closed_over(ops):
    x, y, total = sum_of_two(ops)
    assert Graph((x,), (total,)).digest != Graph((x, y), (total,)).digest


def test_digests_tell_how_often_an_input_is_taken(ops):
    x = new_input(VECTOR)
    y = apply(ops.twist(2.0), x)
    assert Graph((x,), (y,)).digest != Graph((x, x), (y,)).digest


def test_digests_cover_held_graphs(ops):
    x = new_input(VECTOR)
    once, twice = chain(ops, 1), chain(ops, 2)
    first, second, third = (Graph((x,), (apply(ops.hold((body,)), x),)) for body in (once, twice, chain(ops, 1)))
    assert first.digest != second.digest
    assert first.digest == third.digest


# ---- graphs


def test_free_inputs(ops):
    x, y, total = sum_of_two(ops)
    graph = Graph((x,), (total,))
    assert graph.free == (y,)
    assert Graph((x, y), (total,)).free == ()
    with pytest.raises(VerificationError, match="after fusing: the graph reads an input of another graph"):
        verify(graph, after="fusing")


def test_rebuild_replaces_nodes(ops):
    graph = program(ops)

    def triple(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        return apply_all(ops.twist(3.0) if isinstance(node.op, ops.twist) else node.op, *inputs)

    found = rebuild(graph, triple)
    x, y = graph.inputs
    expected = apply(ops.join(), apply(ops.join(), apply(ops.twist(3.0), x), y), constant(np.ones(3)))
    assert found.outputs == (expected,)
    assert found.inputs == graph.inputs
    assert found.name == graph.name
    verify(found)
    assert rebuild(graph, lambda node, inputs: apply_all(node.op, *inputs)).outputs == graph.outputs


def test_rebuild_follows_primals(ops):
    x, _, total = sum_of_two(ops)
    gradient = apply(ops.twist(2.0), total)
    graph = Graph((x, *total.node.inputs[1:]), (total, gradient), (total,))
    found = rebuild(graph, lambda node, inputs: apply_all(ops.twist(4.0), inputs[0]) if node is total.node else apply_all(node.op, *inputs))
    assert found.primals == found.outputs[:1]
    assert found.outputs[0].op == ops.twist(4.0)


def test_rebuild_with_known_values(ops):
    x, y, total = sum_of_two(ops)
    graph = Graph((x, y), (apply(ops.twist(2.0), total),))
    assert rebuild(graph, lambda node, inputs: apply_all(node.op, *inputs), {total: y}).outputs == (apply(ops.twist(2.0), y),)


def test_inline(ops):
    graph = program(ops)
    x, y = new_input(VECTOR), constant([1.0, 2.0, 3.0])
    (found,) = inline(graph, [x, y])
    assert found is apply(ops.join(), apply(ops.join(), apply(ops.twist(2.0), x), y), constant(np.ones(3)))
    assert inline(graph, graph.inputs) == graph.outputs
    with pytest.raises(ValueError, match="zip"):
        inline(graph, [x])


def test_inlined_nodes_keep_their_lines(ops):
    line = SourceLine("model.py", 3, "f")
    x = new_input(VECTOR)
    with at_line(line):
        graph = Graph((x,), (apply(ops.twist(2.0), x),))
    assert inline(graph, [new_input(VECTOR)])[0].node.line is line


def test_several_outputs(ops):
    x = new_input(Aval((4,), FLOAT64), "x")
    half, length = apply_all(ops.split(), x)
    assert (half.index, length.index) == (0, 1)
    assert half.node is length.node
    assert (half.shape, length.dtype) == ((2,), INT64)
    graph = Graph((x,), (length, apply(ops.twist(2.0), half)))
    verify(graph)
    other = new_input(Aval((4,), FLOAT64))
    image = substitution(graph.outputs, {x: other})
    assert image[half].node is image[length].node is apply_all(ops.split(), other)[0].node


# ---- verification and printing


def test_verify_runs_the_shape_rules_again(ops):
    x = new_input(VECTOR, "x")
    wrong = Node(ops.twist(2.0), (x,), (Aval((4,), FLOAT64),), None).outputs[0]
    with pytest.raises(VerificationError, match=r"after simplify: <zz_twist\(scale=2.0\) -> f64\[4\]> should give f64\[3\]"):
        verify(Graph((x,), (wrong,)), after="simplify")


def test_verify_finds_values_of_no_node(ops):
    x = new_input(VECTOR, "x")
    stranger = Value(x.node, 0, VECTOR)
    broken = Node(ops.twist(2.0), (stranger,), (VECTOR,), None).outputs[0]
    with pytest.raises(VerificationError, match="reads a value that does not come before it"):
        verify(Graph((x,), (broken,)))


def test_text(ops):
    x, y = new_input(VECTOR, "x"), new_input(Aval((), BOOL), "y")
    with at_line(SourceLine("/home/ada/model.py", 12, "loss")):
        total = apply(ops.join(), apply(ops.twist(0.5), x), constant([0.125, 2.0, 3.0]))
        scaled = apply(ops.join(), total, constant(2.0))
    graph = Graph((x, y), (total, scaled), (total,), "loss", ("x",))
    digest = graph.nodes[3].op.signature().rpartition(":")[2].split(",")[0]
    assert str(graph).splitlines() == [
        "loss(x: f64[3], x1: bool[]):",
        "  %0: f64[3] = zz_twist(x; scale=0.5)  # model.py:12",
        f"  %1: f64[3] = constant(; bits=float64[3]:{digest}, weak=False)",
        "  %2: f64[3] = zz_join(%0, %1)  # model.py:12",
        "  # backward",
        "  %3: f64[3] = zz_join(%2, 2.0)  # model.py:12",
        "  return %2, %3",
    ]


def test_equal_labels_are_told_apart(ops):
    x, y, total = sum_of_two(ops)
    text = str(Graph((x, y), (total,), labels=("x", "x")))
    assert text.startswith("graph(x: f64[3], x_: f64[3]):")
    assert "zz_join(x, x_)" in text


def test_text_of_several_outputs(ops):
    x = new_input(Aval((4,), FLOAT64), "x")
    half, length = apply_all(ops.split(), x)
    assert "  %0: f64[2], %1: i64[] = zz_split(x)" in str(Graph((x,), (half, length), labels=("x",)))
    assert repr(length) == "<Value zz_split.1 i64[]>"
    assert repr(length.node) == "<zz_split -> f64[2], i64[]>"
