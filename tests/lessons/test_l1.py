"""Lesson L1, what a gradient is for: the numbers and the pictures of its two scripts."""

import numpy as np
import pytest
import sympy
from sympy.parsing.sympy_parser import parse_expr

import staticgrad as sg
import staticgrad.eager as torch
from tests.lessons.running import LESSONS, run


@pytest.fixture(scope="module")
def descent(tmp_path_factory):
    return run("l1_gradient_descent", tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def ways(tmp_path_factory):
    return run("l1_ways_to_differentiate", tmp_path_factory.mktemp("pictures"))


# ---- linear regression by gradient descent -----------------------------------------------------------------------------------


def test_forward_loss_backward_update_repeat(descent):
    """Each step of the lesson is one step of NumPy's formulas."""
    x, y = descent["x"], descent["y"]
    params = dict(descent["start"])
    for before, value in zip(descent["path"][:50], descent["losses"][:50], strict=True):
        np.testing.assert_allclose([before["w"], before["b"]], [params["w"], params["b"]], rtol=1e-11)
        error = params["w"] * x + params["b"] - y
        np.testing.assert_allclose(value, np.mean(error**2), rtol=1e-11)
        params["w"], params["b"] = params["w"] - 0.1 * np.mean(2 * error * x), params["b"] - 0.1 * np.mean(2 * error)


def test_at_the_fit_the_gradient_is_nearly_zero(descent):
    x, y, fit = descent["x"], descent["y"], descent["fit"]
    matrix = np.stack([x, np.ones_like(x)], axis=1)
    np.testing.assert_allclose([fit["w"], fit["b"]], np.linalg.lstsq(matrix, y, rcond=None)[0], rtol=1e-9)
    assert np.linalg.norm(list(descent["slope_at_the_fit"].values())) < 1e-9


def test_the_compiled_loop_takes_the_same_steps(descent):
    np.testing.assert_allclose(descent["compiled_losses"], descent["losses"][:-1], rtol=1e-12)
    assert len(descent["compiled_losses"]) == descent["STEPS"] == 300


def test_learning_rates_too_small_and_too_large(descent):
    x, runs, rates = descent["x"], descent["runs"], descent["rates"]
    matrix = np.stack([x, np.ones_like(x)], axis=1)
    largest = np.linalg.eigvalsh(2 * matrix.T @ matrix / len(x))[-1]
    np.testing.assert_allclose(descent["limit"], 2 / largest, rtol=1e-12)
    assert rates["too small"] < rates["good"] < 2 / largest < rates["too large"]
    least = descent["losses"][-1]
    assert runs["good"][-1] < least * (1 + 1e-6)
    assert least * 1.2 < runs["too small"][-1] < runs["too small"][0]
    assert runs["too large"][-1] > 100 * runs["too large"][0]


def test_residuals_of_samples_and_their_mean_square(descent):
    x, y, start = descent["x"], descent["y"], descent["start"]
    found = descent["residuals"](start, x, y)
    np.testing.assert_allclose(found, start["w"] * x + start["b"] - y, rtol=1e-14)
    assert found.shape == (60,) and (found > 0).any() and (found < 0).any()
    np.testing.assert_allclose(descent["loss"](start, x, y), np.mean(found**2), rtol=1e-14)


def test_the_gradient_as_a_formula(descent):
    formulas = descent["formulas"]
    assert str(formulas["w"]) == "Sum(x[i]*(w*x[i] + b - y[i]), (i, 0, 59))/30"
    assert str(formulas["b"]) == "Sum(w*x[i] + b - y[i], (i, 0, 59))/30"


def test_the_picture_of_the_lines_and_losses(descent):
    left, right = descent["figure"].axes
    samples = left.collections[0].get_offsets()
    np.testing.assert_array_equal(samples, np.stack([descent["x"], descent["y"]], axis=1))
    assert [line.get_label() for line in left.get_lines()] == ["before", "during, step 5", "during, step 20", "after"]
    for line, step in zip(left.get_lines(), (0, 5, 20, 300), strict=True):
        params = descent["path"][step]
        np.testing.assert_allclose(line.get_ydata(), params["w"] * line.get_xdata() + params["b"], rtol=1e-12)
    for line, run_ in zip(right.get_lines(), descent["runs"].values(), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), run_)
    assert right.get_yscale() == "log"


def test_the_same_descent_by_hand_on_tensors(descent):
    np.testing.assert_allclose(descent["tensor_losses"], descent["losses"][:-1], rtol=1e-9)
    np.testing.assert_allclose([descent["w"].item(), descent["b"].item()], list(descent["fit"].values()), rtol=1e-9)
    assert descent["w"].grad.item() == descent["b"].grad.item() == 0.0, "set to zero after each step"


def test_at_the_fit_the_gradient_on_tensors_is_nearly_zero(descent):
    w, b = (torch.tensor(float(descent["fit"][name]), dtype=torch.float64, requires_grad=True) for name in ("w", "b"))
    ((w * torch.tensor(descent["x"]) + b - torch.tensor(descent["y"])) ** 2).mean().backward()
    assert abs(w.grad.item()) < 1e-9 and abs(b.grad.item()) < 1e-9


def test_residuals_of_samples_and_their_mean_square_on_tensors(descent):
    x, y, start = torch.tensor(descent["x"]), torch.tensor(descent["y"]), descent["start"]
    found = start["w"] * x + start["b"] - y
    np.testing.assert_allclose(found.numpy(), descent["first_residuals"], rtol=1e-12)
    np.testing.assert_allclose((found**2).mean().item(), descent["losses"][0], rtol=1e-12)


# ---- many parameters, and none ---------------------------------------------------------------------------------------------------


def test_twenty_thousand_partial_derivatives_in_one_reverse_pass(descent):
    gradient, layer, wanted = descent["layer_gradient"], descent["layer"], descent["wanted"]
    assert sum(part.size for part in gradient.values()) == 20_000
    info = descent["layer_value_and_grad"].cache_info()
    assert (info.traces, info.signatures) == (1, 1)
    lowered = descent["layer_lowered"]
    assert len(lowered.schedule.stage("backward")) == 1, "one loop over the neurons gives all of them"
    step = 1e-6
    for name, k in (("weight", 3), ("bias", 3), ("weight", 9_999)):
        moved = {key: value.copy() for key, value in layer.items()}
        moved[name][k] += step
        ahead = float(descent["layer_loss"](moved, 0.8, wanted))
        moved[name][k] -= 2 * step
        difference = (ahead - float(descent["layer_loss"](moved, 0.8, wanted))) / (2 * step)
        np.testing.assert_allclose(gradient[name][k], difference, atol=1e-9)


def test_twenty_thousand_partial_derivatives_in_one_backward_pass_on_tensors(descent):
    tensors = descent["layer_tensors"]
    for name, gradient in descent["layer_gradient"].items():
        np.testing.assert_allclose(tensors[name].grad.numpy(), gradient, rtol=1e-9, atol=1e-18)
    loss = ((torch.tanh(tensors["weight"] * 0.8 + tensors["bias"]) - torch.tensor(descent["wanted"])) ** 2).mean()
    graph = torch.backward_graph(loss, **tensors)
    assert [target for _, target in graph.backward_arrows].count("weight.grad") == 1
    assert len(graph.operations) == 6, "one step back for each operation on whole layers"


def test_what_is_only_evaluated_on_tensors_records_nothing(descent):
    layer = {name: torch.tensor(values) for name, values in descent["layer"].items()}
    assert torch.tanh(layer["weight"] * 0.8 + layer["bias"]).grad_fn is None
    with torch.no_grad():
        assert torch.tanh(descent["layer_tensors"]["weight"]).grad_fn is None


def test_what_is_only_evaluated_has_no_backward_kernel_and_saves_nothing(descent):
    evaluated, lowered = descent["evaluated"], descent["layer_lowered"]
    assert evaluated.backward is None
    assert "backward" not in evaluated.source and "saved_" not in evaluated.source
    assert "def backward" in lowered.source and "saved_" in lowered.source
    assert evaluated.memory == 72 and lowered.memory > 8 * 20_000, "the gradient's own arrays, and what is saved for it"


# ---- the ways to a derivative ------------------------------------------------------------------------------------------------------


def test_symbolic_derivatives_print_as_formulas(ways):
    assert str(sg.derivative_formula(lambda x: np.sin(x**2))) == "2*x*cos(x**2)"
    assert str(ways["slope_formula"]) == "2*x*cos(x**2)*exp(sin(x**2))"
    assert str(ways["g_formula"]) == "2*cos(p[i])*sin(p[i])/(Sum(sin(p[j])**2, (j, 0, 9)) + 1)"
    x = sympy.Symbol("x")
    expected = sympy.diff(sympy.exp(sympy.sin(x**2)), x)
    assert sympy.simplify(parse_expr(str(ways["slope_formula"])) - expected) == 0


def test_error_against_step_size_shows_truncation_and_rounding(ways):
    """On the right the errors follow Taylor's remainder closely; on the left they stay below the rounding; the best step is between."""
    h = ways["h"]
    for way, errors in (("forward", ways["forward_errors"]), ("central", ways["central_errors"])):
        right = (h > 100 * ways["best_step"][way]) & (h < 3e-3)
        np.testing.assert_allclose(errors[right], ways["truncation"][way][right], rtol=0.05)
        left = h < ways["best_step"][way] / 10
        assert (errors[left] < 8 * ways["rounding"][way][left] + 1e-15).all()
        assert np.median(errors[left] / ways["rounding"][way][left]) > 0.05
        assert ways["best_step"][way] / 30 < h[np.argmin(errors)] < ways["best_step"][way] * 30
    assert 1e-9 < ways["best_step"]["forward"] < 1e-7 < 1e-6 < ways["best_step"]["central"] < 1e-5


def test_automatic_differentiation_has_no_step(ways):
    for way in ("symbolic", "automatic, forward", "automatic, reverse"):
        assert ways["error"](ways["slopes"][way]) < 5e-16
    assert ways["error"](ways["slopes"]["forward difference"]) > 1e-12


def test_cost_at_1_to_10000_parameters(ways):
    counts, sizes = ways["counts"], [1, 10, 100, 1000, 10_000]
    assert ways["SIZES"] == sizes
    assert counts["differences"] == [n + 1 for n in sizes], "evaluations grow with the parameters"
    assert counts["forward mode"] == sizes, "one pass a parameter"
    assert counts["reverse mode"] == [2] * 5, "two passes"
    assert all(s > 0 for row in ways["seconds"].values() for s in row)


def test_errors_at_1_to_10000_parameters(ways):
    errors = ways["errors_of"]
    for way in ("symbolic", "forward mode", "reverse mode"):
        assert max(errors[way]) < 1e-13
    assert min(errors["differences"]) > 1e-10 and errors["differences"][-1] > 1e-6


def test_what_is_counted_happens(ways):
    """The counters agree with calls that are counted from outside."""
    calls = []
    found = sg.numeric_grad(lambda x: calls.append(1) or np.sin(x))(0.3)
    assert len(calls) > 4
    np.testing.assert_allclose(found, np.cos(0.3), rtol=1e-10)
    p = np.full(7, 0.3)
    assert [ways["WAYS"][way](p)[1] for way in ("symbolic", "differences", "forward mode", "reverse mode")] == [1, 8, 7, 2]


def test_written_out_formulas_grow_and_graphs_do_not(ways):
    assert np.all(np.diff(np.log(ways["written_out"])) > 0.9)
    assert list(np.diff(ways["graph_nodes"])[1:]) == [16, 16, 16], "two steps more are 16 nodes more"


def test_the_pictures_of_errors_and_costs(ways):
    (axis,) = ways["figure_of_errors"].axes
    lines = {line.get_label(): line for line in axis.get_lines()}
    np.testing.assert_allclose(lines["forward difference"].get_ydata(), np.maximum(ways["forward_errors"], 1e-17))
    np.testing.assert_allclose(
        lines["central, by Taylor's series"].get_ydata(), ways["truncation"]["central"] + ways["rounding"]["central"]
    )
    counted, timed = ways["figure_of_costs"].axes
    for way, line, clock in zip(ways["WAYS"], counted.get_lines(), timed.get_lines(), strict=True):
        assert list(line.get_xdata()) == list(clock.get_xdata()) == ways["SIZES"]
        assert list(line.get_ydata()) == ways["counts"][way] and list(clock.get_ydata()) == ways["seconds"][way]


# ---- kinks -----------------------------------------------------------------------------------------------------------------------

KINKS = {
    "abs(x) at 0": (0.0, "0", -1.0, 1.0),
    "relu(x) at 0": (0.0, "0", 0.0, 1.0),
    "clip(x, 0, 1) at 1": (1.0, "1", 1.0, 0.0),
    "maximum(x, 2) at 2": (0.5, "1/2", 0.0, 1.0),
    "max([x, 2, 2]) at 2": (1 / 3, "-", 0.0, 1.0),
    "sqrt(x) at 0": (np.inf, "zoo", np.nan, 1e3),
    "norm([x, 0]) at 0": (0.0, "-", -1.0, 1.0),
    "hypot(x, 0) at 0": (0.0, "0", -1.0, 1.0),
}  # fmt: skip
"""What both modes say, what the formula says, and the differences to the left and to the right."""


@pytest.mark.parametrize("name", KINKS)
def test_the_documented_choice_at_kinks(ways, name):
    reverse, forward, symbolic, left, right, central = ways["kink_rows"][name]
    automatic, in_formula, to_the_left, to_the_right = KINKS[name]
    assert reverse == forward == pytest.approx(automatic, rel=1e-15)
    assert symbolic == in_formula
    np.testing.assert_allclose([left, right, central], [to_the_left, to_the_right, (to_the_left + to_the_right) / 2], rtol=1e-6)


@pytest.mark.parametrize("name", KINKS)
def test_the_documented_choice_at_kinks_on_tensors(ways, name):
    assert ways["tensor_kinks"][name] == pytest.approx(KINKS[name][0], rel=1e-15)


@pytest.mark.parametrize(
    ("function", "at", "slopes"),
    [
        (torch.abs, [0.0], [0.0]),
        (torch.relu, [0.0], [0.0]),
        (lambda x: torch.clamp(x, min=0), [0.0], [1.0]),
        (lambda x: torch.clamp(x, 0, 1), [0.0, 1.0, 2.0], [1.0, 1.0, 0.0]),
        (lambda x: torch.clamp(x, max=1), [1.0], [1.0]),
        (torch.amax, [2.0, 1.0, 2.0], [0.5, 0.0, 0.5]),
        (lambda x: torch.maximum(x, torch.tensor(2.0)), [2.0], [0.5]),
        (torch.sqrt, [0.0], [np.inf]),
        (torch.norm, [0.0, 0.0], [0.0, 0.0]),
    ],
)
def test_kinks_by_the_names_of_the_namespace(function, at, slopes):
    x = torch.tensor(at, requires_grad=True)
    function(x).sum().backward()
    assert x.grad.tolist() == slopes
    assert sg.grad(lambda x: function(x).sum())(np.array(at)).tolist() == slopes


def test_every_kink_of_the_lesson_is_listed(ways):
    assert set(ways["KINKS"]) == set(KINKS)


# ---- history ---------------------------------------------------------------------------------------------------------------------


def test_variable_is_retired():
    with pytest.warns(DeprecationWarning, match=r"Variable is deprecated.*sg.tensor"):
        variable = sg.Variable([1.0, 2.0], requires_grad=True)
    assert type(variable) is sg.Tensor
    (variable**2).sum().backward()
    assert variable.grad.tolist() == [2.0, 4.0]
    assert variable.data.tolist() == [1.0, 2.0] and not variable.data.requires_grad
    assert variable.detach().grad_fn is None and not variable.detach().requires_grad
    with pytest.warns(DeprecationWarning):
        assert sg.Variable(np.ones(2)).requires_grad is False
    with pytest.warns(DeprecationWarning):
        gradient = sg.Variable(sg.tensor([3.0]), requires_grad=True)
    assert sg.grad(lambda x: np.sum(x**2))(gradient.detach().numpy()).tolist() == [6.0]


@pytest.mark.parametrize("name", sorted(path.stem for path in LESSONS.glob("l[0-9]_*.py")))
def test_scripts_are_notebooks_in_percent_format(name):
    """Every cell begins with a marker, and each cell that is no text is Python."""
    cells = (LESSONS / f"{name}.py").read_text(encoding="utf-8").split("# %%")
    assert cells[0] == "" and len(cells) > 10
    for cell in cells[1:]:
        head, _, body = cell.partition("\n")
        assert head.strip() in ("", "[markdown]")
        if head.strip():
            assert all(line.startswith("#") or not line for line in body.split("\n"))
        else:
            compile(body, name, "exec")
