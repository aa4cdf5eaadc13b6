"""Lesson L3, automatic differentiation on one page: each number by tensors and traced."""

from xml.etree import ElementTree

import numpy as np
import pytest

import staticgrad as sg
import staticgrad.eager as torch
from tests.lessons.running import run

T_C = np.array([0.5, 14, 15, 28, 11, 8, 3, -4, 6, 13, 21], np.float32)
T_U = np.array([35.7, 55.9, 58.2, 81.9, 56.3, 48.9, 33.9, 21.8, 48.4, 60.4, 68.4], np.float32)
LOSSES = {
    500: 7.860116, 1000: 3.828538, 1500: 3.092191, 2000: 2.957697, 2500: 2.933134, 3000: 2.928648, 3500: 2.927830, 4000: 2.927679,
    4500: 2.927652, 5000: 2.927647,
}  # fmt: skip


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    return run("l3_autograd_on_one_page", tmp_path_factory.mktemp("pictures"))


def squares(params, readings, celsius):
    """Return the mean squared difference, of tensors or traced arrays."""
    return ((params[0] * readings + params[1] - celsius) ** 2).mean()


def test_gradient_on_raw_readings_eagerly(lesson):
    params = torch.tensor([1.0, 0.0], requires_grad=True)
    squares(params, torch.tensor(T_U), torch.tensor(T_C)).backward()
    assert params.dtype == params.grad.dtype == np.float32
    np.testing.assert_allclose(params.grad.numpy(), [4517.2969, 82.6000], rtol=1e-5)
    assert repr(params.grad) == "tensor([4517.2969,   82.6000])"
    np.testing.assert_array_equal(lesson["first_gradient"].numpy(), params.grad.numpy())
    assert lesson["gradient_before"] is None


def test_gradient_on_raw_readings_traced(lesson):
    found = sg.grad(squares)(np.array([1.0, 0.0], np.float32), T_U, T_C)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [4517.2969, 82.6000], rtol=1e-5)
    np.testing.assert_allclose(lesson["traced_gradient"], found, rtol=1e-6)
    np.testing.assert_allclose(lesson["by_hand"], found, rtol=1e-5)


def test_gradient_on_raw_readings_through_a_traced_function_on_tensors():
    """One node of the tape, whose forward and backward are the compiled kernels."""
    params = torch.tensor([1.0, 0.0], requires_grad=True)
    loss = sg.trace(squares)(params, torch.tensor(T_U), torch.tensor(T_C))
    assert [operation.backward for operation in torch.backward_graph(loss).operations] == ["SquaresBackward"]
    loss.backward()
    np.testing.assert_allclose(params.grad.numpy(), [4517.2969, 82.6000], rtol=1e-5)


def test_losses_of_training_eagerly(lesson):
    assert len(lesson["losses"]) == 5000
    for epoch, loss in LOSSES.items():
        assert lesson["losses"][epoch - 1] == pytest.approx(loss, abs=1e-5)


def test_losses_of_training_compiled(lesson):
    assert len(lesson["compiled_losses"]) == 5000
    for epoch, loss in LOSSES.items():
        assert lesson["compiled_losses"][epoch - 1] == pytest.approx(loss, abs=1e-5)
    np.testing.assert_allclose(lesson["compiled_losses"], lesson["losses"], rtol=1e-5)


def test_losses_of_training_traced_step_by_step():
    """The third way: `sg.value_and_grad` in a loop of Python's."""
    step, params, losses = sg.value_and_grad(squares), np.array([1.0, 0.0], np.float32), []
    scaled = np.float32(0.1) * T_U
    for _ in range(5000):
        loss, gradient = step(params, scaled, T_C)
        params = params - np.float32(1e-2) * gradient
        losses.append(loss)
    for epoch, loss in LOSSES.items():
        assert losses[epoch - 1] == pytest.approx(loss, abs=1e-5)
    np.testing.assert_allclose(params, [5.3671, -17.3012], rtol=1e-5)


def test_parameters_at_the_end(lesson):
    np.testing.assert_allclose(lesson["params"].detach().numpy(), [5.3671, -17.3012], rtol=1e-5)
    np.testing.assert_allclose(lesson["compiled_params"], [5.3671, -17.3012], rtol=1e-5)
    assert repr(lesson["params"]) == "tensor([  5.3671, -17.3012], requires_grad=True)"


def test_the_compiled_loop_is_one_native_call(lesson):
    """5000 epochs without validation or callbacks go to native code at once, and nothing is compiled for more of them."""
    loop = sg.Loop(lesson["step"])
    loop.run(lesson["start"], epochs=10)
    before = loop.cache_info()
    _, history = loop.run(lesson["start"], epochs=5000)
    assert history.epochs == 5000
    assert (before.traces, before.compiles) == (loop.cache_info().traces, loop.cache_info().compiles)
    assert 0 < lesson["native_seconds"] < lesson["eager_seconds"]


def test_the_least_squares_optimum(lesson):
    np.testing.assert_allclose(lesson["optimum"], [5.36772, -17.30478], rtol=1e-6)
    np.testing.assert_allclose(lesson["gradient_there"], 0.0, atol=1e-10)
    optimum = torch.tensor(lesson["optimum"], requires_grad=True)
    readings = 0.1 * T_U.astype(float)
    squares(optimum, torch.tensor(readings), torch.tensor(T_C.astype(float))).backward()
    np.testing.assert_allclose(optimum.grad.numpy(), 0.0, atol=1e-4)  # the lesson's readings were scaled in single precision
    assert lesson["losses"][-1] > float(squares(lesson["optimum"], lesson["start"][1], T_C))


def test_gradients_accumulate_without_zeroing(lesson):
    once = lesson["first_gradient"].numpy()
    for times, gradient in enumerate(lesson["accumulated"], 1):
        np.testing.assert_allclose(gradient.numpy(), times * once, rtol=1e-6)
    assert len(lesson["accumulated"]) == 3


def test_the_forward_graph(lesson):
    graph = lesson["graph"]
    assert graph.forward_arrows == [
        ("params", "Select"), ("Select", "w"), ("params", "Select #2"), ("Select #2", "b"), ("w", "Mul"), ("t_u", "Mul"), ("Mul", "%1"),
        ("%1", "Add"), ("b", "Add"), ("Add", "predicted"), ("predicted", "Sub"), ("t_c", "Sub"), ("Sub", "%2"), ("%2", "Pow"),
        ("Pow", "%3"), ("%3", "Mean"), ("Mean", "loss"),
    ]  # fmt: skip
    np.testing.assert_array_equal(graph["t_u"].fields.data.numpy(), T_U)
    assert [graph[name].kind for name in ("params", "t_u", "t_c", "w", "loss")] == ["leaf", "untracked", "untracked", "result", "result"]


def test_the_arrows_of_the_backward_pass(lesson):
    """They are those of the forward graph, turned round, where a gradient is wanted."""
    graph = lesson["graph"]
    turned = set()
    for operation in graph.operations:
        makers = {k: other.backward for other in graph.operations for k in other.results}
        turned |= {(operation.backward, makers.get(k, f"{graph.tensors[k].name}.grad")) for k in operation.gradients}
        assert set(operation.gradients) == {k for k in operation.operands if graph.tensors[k].kind != "untracked"}
    assert set(graph.backward_arrows) == turned | {("loss.backward()", "MeanBackward0")}
    assert lesson["walked"][0] == "MeanBackward0" and lesson["walked"][-1] == "AccumulateGrad"


def test_the_drawing(lesson):
    svg = (lesson["output"] / "l3_graph.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(svg)
    for operation in lesson["graph"].operations:
        assert f">{operation.name}<" in svg and f">{operation.backward}<" in svg
    for text in (">params<", ">params.grad<", ">loss.backward()<", "grad tensor([4517.2969, 82.6000])", "grad_fn &lt;MeanBackward0&gt;"):
        assert text in svg


def test_the_forward_graph_traced():
    """What `@sg.trace` records of the same function is a picture, too."""
    graph = sg.trace(squares).lower(np.zeros(2, np.float32), T_U, T_C).graph
    svg = graph._repr_svg_()
    assert all(f">{name}<" in svg for name in ("multiply", "add", "subtract"))


def test_the_picture(lesson):
    before, after = lesson["drawn_lines"]
    np.testing.assert_allclose(before[:, 1], 0.1 * before[:, 0], rtol=1e-6)
    w, b = lesson["compiled_params"]
    np.testing.assert_allclose(after[:, 1], w * 0.1 * after[:, 0] + b, rtol=1e-5)
    eager, compiled = lesson["drawn_losses"]
    np.testing.assert_array_equal(eager, lesson["losses"])
    np.testing.assert_array_equal(compiled, lesson["compiled_losses"])
    assert sorted(path.name for path in lesson["output"].iterdir()) == ["l3_graph.svg", "l3_thermometer.png"]
