"""The graph behind a tensor: its data, and that the pictures show them."""

import gc
import re
import weakref
from xml.etree import ElementTree

import numpy as np
import pytest

import staticgrad as sg
import staticgrad.eager as torch
from staticgrad.ir import draw


def two_powers():
    a = torch.tensor([1.0, 4.0], requires_grad=True)
    b = torch.tensor([5.0, 2.0], requires_grad=True)
    return a, b, 2 * a**6 - b**9


FIVE_FIELDS = ("data", "grad", "grad_fn", "is_leaf", "requires_grad")


def test_tensors_show_their_five_fields():
    a, b, c = two_powers()
    before = torch.backward_graph(c, a=a, b=b, c=c)
    c.backward(gradient=torch.ones(2))
    after = torch.backward_graph(c, a=a, b=b, c=c)
    for graph, gradient in ((before, None), (after, [12.0, 12288.0])):
        fields = graph["a"].fields
        assert fields.data.tolist() == [1.0, 4.0]
        assert (None if fields.grad is None else fields.grad.tolist()) == gradient
        assert (fields.grad_fn, fields.is_leaf, fields.requires_grad) == (None, True, True)
        assert (graph["c"].fields.grad_fn, graph["c"].fields.is_leaf, graph["c"].fields.grad) == ("SubBackward0", False, None)
        for text in (str(graph), graph.to_svg(), graph.to_dot()):
            assert all(text.count(f"{field} ") >= 3 for field in FIVE_FIELDS)


def test_fields_are_those_of_the_moment():
    a, _, c = two_powers()
    graph = torch.backward_graph(c, a=a)
    with torch.no_grad():
        a += 1.0
    assert graph["a"].fields.data.tolist() == [1.0, 4.0]


def test_arrows_of_both_passes():
    a, b, c = two_powers()
    graph = torch.backward_graph(c, a=a, b=b, c=c)
    assert graph.forward_arrows == [
        ("a", "Pow"), ("Pow", "%1"), ("2", "Mul"), ("%1", "Mul"), ("Mul", "%2"), ("b", "Pow #2"), ("Pow #2", "%3"),
        ("%2", "Sub"), ("%3", "Sub"), ("Sub", "c"),
    ]  # fmt: skip
    assert graph.backward_arrows == [
        ("c.backward()", "SubBackward0"), ("SubBackward0", "MulBackward0"), ("SubBackward0", "PowBackward0 #2"),
        ("PowBackward0 #2", "b.grad"), ("MulBackward0", "PowBackward0"), ("PowBackward0", "a.grad"),
    ]  # fmt: skip
    assert [x.kind for x in graph.tensors] == ["leaf", "result", "number", "result", "leaf", "result", "result"]
    assert [graph.tensors[k].name for k in graph.outputs] == ["c"]


def test_backward_arrows_are_next_functions():
    _, _, c = two_powers()
    names = [c.grad_fn.name()]
    stack = [c.grad_fn]
    while stack:
        following = [node for node, _ in stack.pop().next_functions if node is not None]
        names += [node.name() for node in following]
        stack += following
    drawn = [re.sub(r"leaf \d.grad", "AccumulateGrad", target).partition(" #")[0] for _, target in torch.backward_graph(c).backward_arrows]
    assert sorted(drawn) == sorted(names)


def test_what_backward_reads():
    x = torch.tensor([0.5, 1.0], requires_grad=True)
    w = torch.tensor([2.0, 3.0])
    graph = torch.backward_graph((x * w).exp() + 1.0, x=x, w=w)
    reads = {each.name: [graph.tensors[k].name for k in each.reads] for each in graph.operations}
    assert reads == {"Mul": ["w"], "Exp": ["%2"], "Add": []}
    gradients = {each.name: [graph.tensors[k].name for k in each.gradients] for each in graph.operations}
    assert gradients == {"Mul": ["x"], "Exp": ["%1"], "Add": ["%2"]}


def test_untracked_operands():
    """They are shown as long as they are there; no gradient goes to them, and the tape does not keep them."""
    x, u = torch.tensor(1.0, requires_grad=True), torch.tensor(2.0)
    y = x + u
    graph = torch.backward_graph(y)
    assert graph["untracked 1"].fields.data.item() == 2.0
    assert graph["untracked 1"].fields.requires_grad is False
    assert all("untracked" not in target for _, target in graph.backward_arrows)
    gone = weakref.ref(u)
    del u
    assert gone() is None
    assert torch.backward_graph(y)["untracked 1"].fields is None
    assert torch.backward_graph(y)["untracked 1"].aval == graph["untracked 1"].aval


def test_operands_that_were_untracked_once():
    """What is written in place, or made a leaf, after it was read: the graph shows it as it was read."""
    w, buffer = torch.tensor(2.0, requires_grad=True), torch.zeros(2)
    buffer[0] = w
    graph = torch.backward_graph(buffer.sum(), w=w, buffer=buffer)
    assert graph.forward_arrows == [
        ("untracked 1", "CopySlices"), ("w", "CopySlices"), ("CopySlices", "buffer"), ("buffer", "Sum"), ("Sum", "output"),
    ]  # fmt: skip
    assert graph.backward_arrows == [("output.backward()", "SumBackward0"), ("SumBackward0", "CopySlices"), ("CopySlices", "w.grad")]
    ElementTree.fromstring(graph.to_svg())
    later = torch.tensor(3.0)
    product = w * later
    later.requires_grad_()
    assert torch.backward_graph(product, w=w).backward_arrows[1:] == [("MulBackward0", "w.grad")]


def test_a_tensor_that_is_used_twice_is_one_node():
    x, u = torch.tensor(3.0, requires_grad=True), torch.tensor(2.0)
    graph = torch.backward_graph(x * x * u + u)
    assert [each.name for each in graph.tensors] == ["leaf 1", "%1", "untracked 1", "%2", "output"]
    assert [each.operands for each in graph.operations] == [(0, 0), (1, 2), (3, 2)]
    assert graph.backward_arrows.count(("MulBackward0", "leaf 1.grad")) == 2


def test_named_results_appear_in_the_middle():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    z = y.sum()
    graph = torch.backward_graph(z, y=y)
    assert graph["y"].fields.data.tolist() == [3.0, 6.0]
    assert graph["y"].fields.grad_fn == "MulBackward0"
    assert graph["output"].fields.data.item() == 9.0


def test_names_that_took_no_part_stand_alone():
    x, other = torch.tensor(1.0, requires_grad=True), torch.tensor(5.0)
    graph = torch.backward_graph(x * 2, other=other)
    assert graph["other"].kind == "untracked"
    assert all("other" not in arrow for arrow in (*graph.forward_arrows, *graph.backward_arrows))
    assert ">other<" in graph.to_svg()


def test_leaves_and_untracked_tensors_alone():
    leaf, plain = torch.tensor(1.0, requires_grad=True), torch.tensor(1.0)
    assert torch.backward_graph(leaf, x=leaf).backward_arrows == [("x.backward()", "x.grad")]
    assert torch.backward_graph(plain, x=plain).backward_arrows == []
    for graph in (torch.backward_graph(leaf), torch.backward_graph(plain)):
        ElementTree.fromstring(graph.to_svg())


def test_several_outputs():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = x.exp()
    graph = torch.backward_graph(y.sum(), y.mean(), x=x)
    assert [graph.tensors[k].name for k in graph.outputs] == ["output", "output 1"]
    assert graph.backward_arrows[:2] == [("output.backward()", "SumBackward0"), ("output 1.backward()", "MeanBackward0")]
    assert [name for name, target in graph.backward_arrows if target == "ExpBackward0"] == ["MeanBackward0", "SumBackward0"]


def test_functions_and_traced_functions():
    class Double(sg.Function):
        @staticmethod
        def forward(ctx, x, u, factor):
            return factor * x + u

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient, None, None

    @sg.trace
    def wave(x):
        return np.sum(np.sin(x))

    x, u = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([1.0, 1.0])
    graph = torch.backward_graph(wave(Double.apply(x, u, 2)), x=x)
    assert graph.forward_arrows == [("x", "Double"), ("untracked 1", "Double"), ("Double", "%1"), ("%1", "Wave"), ("Wave", "output")]
    assert graph.backward_arrows == [
        ("output.backward()", "WaveBackward"), ("WaveBackward", "DoubleBackward"), ("DoubleBackward", "x.grad"),
    ]  # fmt: skip


def test_after_backward_the_graph_is_the_same():
    a, b, c = two_powers()
    before = torch.backward_graph(c, a=a, b=b)
    c.sum().backward()
    after = torch.backward_graph(c, a=a, b=b)
    assert (before.forward_arrows, before.backward_arrows) == (after.forward_arrows, after.backward_arrows)
    assert [each.reads for each in before.operations] == [each.reads for each in after.operations]


def test_pictures_are_deterministic_and_well_formed():
    texts = []
    for _ in range(2):
        a, b, c = two_powers()
        graph = torch.backward_graph(c, a=a, b=b)
        assert graph._repr_svg_() == graph.to_svg()
        ElementTree.fromstring(graph.to_svg())
        texts.append((str(graph), graph.to_svg(), graph.to_dot()))
    assert texts[0] == texts[1]
    svg = texts[0][1]
    shown = ["data tensor([1., 4.])", ">Pow #2<", ">MulBackward0<", ">a.grad<", ">2<", ">leaf<", "forward value read by backward"]
    assert [text for text in shown if text not in svg] == []


def test_it_keeps_nothing_of_the_tape():
    """Neither the graph nor drawing it makes reference cycles, and the tape is freed while the graph is there."""
    gc.collect()
    gc.disable()
    try:
        a, b, c = two_powers()
        graph = torch.backward_graph(c, a=a, b=b, c=c)
        graph.to_svg(), graph.to_dot(), str(graph)
        watched = [weakref.ref(x) for x in (a, b, c, c.grad_fn)]
        del a, b, c
        assert [reference() for reference in watched] == [None] * 4
        itself = weakref.ref(graph)
        del graph
        assert itself() is None
    finally:
        gc.enable()


def test_large_graphs_are_cut_in_the_picture_alone():
    x = torch.tensor(1.0, requires_grad=True)
    y = x
    for _ in range(1000):
        y = y * 1.01
    graph = torch.backward_graph(y, x=x)
    assert len(graph.operations) == 1000
    svg = graph.to_svg()
    assert f"1000 operations, the last {draw.LIMIT // 4} of them drawn" in svg
    assert svg.count("<g><title>") < draw.LIMIT + 10
    assert graph.to_dot().count("MulBackward0") >= 1000


@pytest.mark.parametrize(
    ("outputs", "names", "message"),
    [((), {}, "give the tensor"), ((3.0,), {}, "0 is of type float"), ((sg.tensor(1.0),), {"w": np.ones(2)}, "w is of type ndarray")],
)
def test_misuse(outputs, names, message):
    with pytest.raises(TypeError, match=message):
        torch.backward_graph(*outputs, **names)


def test_unknown_names():
    with pytest.raises(KeyError, match="'y'; the graph has output"):
        torch.backward_graph(torch.tensor(1.0))["y"]
