"""`ExpressionGraph`: the lesson's example, the network of expressions, data, training, and what is wrong with wrong input."""

import re
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import staticgrad as sg
from staticgrad.config import config, configure
from staticgrad.errors import ArgumentError, ExpressionError, InvalidValueError, StaticgradError, StepOrderError
from staticgrad.primer.grammar import evaluate, parse
from staticgrad.runtime import training_loop

LESSON = ["xx=xa^2", "xy=ab*xx+ac*xa", "xz=bc*xx+xy", "xw=cd*xx+xz^3"]
TRUTH = {"ab": 1.0, "bc": 2.0, "cd": 3.0, "ac": 4.0}
EDGES = [
    ("xa", "xx"), ("xa", "xy"), ("xx", "xy"), ("ab", "xy"), ("ac", "xy"), ("xx", "xz"), ("xy", "xz"), ("bc", "xz"), ("xx", "xw"),
    ("xz", "xw"), ("cd", "xw"),
]  # fmt: skip

TWO_OUTPUTS = ["xc = exp(-k*xa)*xb + sin(xb)", "xd = xc^2/(1 + xa) - m", "xe = tanh(m*xc) + xd*xa^p", "xf = xc", "xg = p"]
TWO_TRUTH = {"k": 0.7, "m": 1.3, "p": 2.5}


def graph_of(expressions, truth=None, **options):
    options = {"display_vals_how_often": 0, "dataset_size": 60} | options
    graph = sg.ExpressionGraph(expressions, **options)
    graph.parse_expressions()
    if truth is not None:
        graph.gen_gt_dataset(vals_for_learnable_params=truth)
    return graph


# ---- the lesson


def test_the_lesson():
    """The example of lesson L2 with all defaults, from the expressions to the report."""
    graph = sg.ExpressionGraph(LESSON)
    graph.parse_expressions()
    assert graph.variables == ["xa", "xx", "xy", "xz", "xw"]
    assert graph.learnable_params == ["ab", "ac", "bc", "cd"]
    assert graph.depends_on == {"xx": ["xa"], "xy": ["xa", "xx"], "xz": ["xx", "xy"], "xw": ["xx", "xz"]}
    assert graph.leads_to == {"xa": ["xx", "xy"], "xx": ["xy", "xz", "xw"], "xy": ["xz"], "xz": ["xw"]}
    assert graph.independent_vars == ["xa"]
    assert graph.output_vars == ["xw"]
    assert (graph.dataset_size, graph.learning_rate, graph.display_vals_how_often, graph.grad_delta) == (10000, 1e-6, 1000, 1e-4)

    graph.gen_gt_dataset(vals_for_learnable_params=TRUTH)
    x = graph.dataset.inputs["xa"]
    assert x.shape == (10000,)
    np.testing.assert_allclose(graph.dataset.outputs["xw"], 3 * x**2 + (3 * x**2 + 4 * x) ** 3, rtol=1e-14)

    results = {partials: graph.train_on_all_data(partials) for partials in ("exact", "finite differences")}
    for training in results.values():
        assert training.losses.shape == (10000,)
        assert training.constants.keys() == TRUTH.keys()
        assert training.vertex_gradients.keys() == set(graph.variables)
        assert training.constant_gradients.keys() == TRUTH.keys()
        assert list(training.exact_partials) == list(training.measured_partials) == EDGES
        assert training.first_nonfinite is None
        assert max(training.disagreement.values()) < 1e-3
        for edge in EDGES:
            np.testing.assert_allclose(training.measured_partials[edge], training.exact_partials[edge], rtol=1e-3)
    exact, measured = results.values()
    np.testing.assert_allclose(measured.losses, exact.losses, rtol=1e-4)
    assert measured.constants == pytest.approx(exact.constants, rel=1e-6)


def test_the_partial_derivatives_by_hand():
    graph = graph_of(LESSON, TRUTH, learning_rate=1e-4)
    training = graph.train_on_all_data("exact")
    x, ab, ac, bc, cd = graph.dataset.inputs["xa"], *(training.trajectory[name] for name in ("ab", "ac", "bc", "cd"))
    one, xx = np.ones(60), x**2
    z = bc * xx + ab * xx + ac * x
    by_hand = [2 * x, ac, ab, xx, x, bc, one, xx, cd, 3 * z**2, xx]
    for edge, expected in zip(EDGES, by_hand, strict=True):
        np.testing.assert_allclose(training.exact_partials[edge], expected, rtol=1e-13)
    error = cd * xx + z**3 - graph.dataset.outputs["xw"]
    np.testing.assert_allclose(training.losses, error**2, rtol=1e-10)
    np.testing.assert_allclose(training.vertex_gradients["xw"], 2 * error, rtol=1e-10)
    np.testing.assert_allclose(training.constant_gradients["ac"], 2 * error * 3 * z**2 * x, rtol=1e-10)


def test_slopes_are_measured_by_moving_the_source():
    """Central differences of a cube are too large by delta squared, those of a square are right."""
    graph = graph_of(LESSON, TRUTH, grad_delta=0.1)
    training = graph.train_on_all_data()
    excess = training.measured_partials["xz", "xw"] - training.exact_partials["xz", "xw"]
    np.testing.assert_allclose(excess, 0.01, rtol=1e-9)
    assert training.disagreement["xz", "xw"] > 1e-3
    np.testing.assert_allclose(training.measured_partials["xa", "xx"], 2 * graph.dataset.inputs["xa"], rtol=1e-12)


def test_what_can_be_recovered():
    """ab and bc stand for the same term: their sum is found, they themselves are not."""
    graph = graph_of(["xx = xa^2", "xy = ab*xx + ac*xa", "xz = bc*xx + xy", "xw = cd + xz"], TRUTH, dataset_size=20000, learning_rate=0.3)
    training = graph.train_on_all_data()
    found = training.constants
    assert [found["ab"] + found["bc"], found["ac"], found["cd"]] == pytest.approx([3.0, 4.0, 3.0], abs=1e-3)
    assert abs(found["ab"] - 1.0) > 0.1
    start = {name: values[0] for name, values in training.trajectory.items()}
    assert found["ab"] - start["ab"] == pytest.approx(found["bc"] - start["bc"])


# ---- gradients against those of the composed function


def composed(expressions):
    """Return the loss of one sample as a plain function; `offsets` are added to the vertices."""
    definitions = [parse(text) for text in expressions]

    def loss(offsets, constants, inputs, targets):
        values = {name: value + offsets[name] for name, value in inputs.items()} | constants
        for definition in definitions:
            name = definition.target.name
            values[name] = evaluate(definition.tree, values) + offsets[name]
        return sum((values[name] - target) ** 2 for name, target in targets.items())

    return loss


CASES = {
    "lesson": (LESSON, TRUTH, None, 1e-5),
    "functions, an output that is read": (TWO_OUTPUTS, TWO_TRUTH, ["xd", "xe", "xf"], 0.05),
    "a vertex that leads to no output": (TWO_OUTPUTS, TWO_TRUTH, ["xd"], 0.05),
    "an output of constants alone": (TWO_OUTPUTS, TWO_TRUTH, ["xg", "xe"], 0.05),
    "no constants": (["xb = xa^2", "xc = sin(xb)"], {}, None, 0.1),
}


@pytest.mark.parametrize("partials", ["exact", "finite differences"])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_composed_function(case, partials):
    expressions, truth, outputs, rate = CASES[case]
    graph = graph_of(expressions, truth, output_vars=outputs, learning_rate=rate)
    training = graph.train_on_all_data(partials)
    data = graph.dataset
    zeros = {name: np.zeros(60) for name in graph.variables}
    arguments = (zeros, dict(training.trajectory), dict(data.inputs), dict(data.outputs))
    losses, (vertices, constants) = sg.vmap(sg.value_and_grad(composed(expressions), argnums=(0, 1)))(*arguments)
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if partials == "exact" else {"rtol": 1e-3, "atol": 1e-9}
    np.testing.assert_allclose(training.losses, losses, rtol=1e-9, atol=1e-12)
    assert training.vertex_gradients.keys() == vertices.keys()
    for found, expected in ((training.vertex_gradients, vertices), (training.constant_gradients, constants)):
        for name, gradient in expected.items():
            np.testing.assert_allclose(found[name], gradient, **tolerance, err_msg=name)
    assert max(training.disagreement.values()) < 1e-3
    for name, values in training.trajectory.items():
        path = np.append(values, training.constants[name])
        np.testing.assert_allclose(path[1:], path[:-1] - rate * training.constant_gradients[name], rtol=1e-13)


@st.composite
def networks(draw):
    """Expressions over some inputs, constants and earlier vertices, in any order; values stay moderate."""
    names, expressions = ["xa", "xb", "k", "m", "2"], []
    for number in range(draw(st.integers(1, 5))):
        name = st.sampled_from(names)
        text = "xa" if number == 0 else draw(name)
        for form in draw(
            st.lists(st.sampled_from(["sin({0})", "-({0})", "tanh({0})^2", "({0})*{1}", "{0} - {1}", "{0} + {1}/2"]), max_size=4)
        ):
            text = form.format(text, draw(name))
        expressions.append(f"x{number} = {text} + xa*0.1")
        names.append(f"x{number}")
    return draw(st.permutations(expressions)), sorted({name for name in "km" if any(name in text for text in expressions)})


@contextmanager
def interpreted():
    """Nothing is compiled: what is compared has nothing to do with the backend."""
    before = configure(replace(config(), backend="interp"))
    try:
        yield
    finally:
        configure(before)


@given(networks())
def test_random_networks(case):
    """At unchanged constants, exact and measured gradients are those of the composed function."""
    expressions, constants = case
    with interpreted():
        graph = graph_of(expressions, dict.fromkeys(constants, 1.5), learning_rate=0.0, dataset_size=4)
        training, data = graph.train_on_all_data("exact"), graph.dataset
        arguments = ({name: np.zeros(4) for name in graph.variables}, dict(training.trajectory), data.inputs, data.outputs)
        losses, (vertices, slopes) = sg.vmap(sg.value_and_grad(composed(sorted(expressions)), argnums=(0, 1)))(*arguments)
    np.testing.assert_allclose(training.losses, losses, rtol=1e-7, atol=1e-12)
    for name, gradient in vertices.items():
        np.testing.assert_allclose(training.vertex_gradients[name], gradient, rtol=1e-7, atol=1e-10)
    for name, gradient in slopes.items():
        np.testing.assert_allclose(training.constant_gradients[name], gradient, rtol=1e-7, atol=1e-10)
    for edge, exact in training.exact_partials.items():
        np.testing.assert_allclose(training.measured_partials[edge], exact, rtol=1e-3, atol=1e-6)


def test_the_function_is_traced_and_composes():
    graph = graph_of(TWO_OUTPUTS)
    inputs = {"xa": np.linspace(0.1, 1.0, 5), "xb": np.linspace(-1.0, 1.0, 5)}
    values = graph.function(inputs, TWO_TRUTH)
    assert values.keys() == set(graph.variables)
    np.testing.assert_allclose(values["xc"], np.exp(-0.7 * inputs["xa"]) * inputs["xb"] + np.sin(inputs["xb"]), rtol=1e-14)
    assert values["xg"] == 2.5
    slopes = sg.grad(lambda constants: np.sum(graph.function(inputs, constants)["xd"]))(TWO_TRUTH)
    assert slopes["m"] == -5.0
    assert "exp" in graph.function.lower(inputs, TWO_TRUTH).source
    assert graph.function is graph.function


# ---- data and training


def test_everything_depends_on_the_seed():
    graphs = [graph_of(LESSON, TRUTH, seed=seed) for seed in (3, 3, 4)]
    first, again, other = (graph.train_on_all_data() for graph in graphs)
    np.testing.assert_array_equal(first.losses, again.losses)
    assert first.constants == again.constants
    assert not np.any(graphs[0].dataset.inputs["xa"] == graphs[2].dataset.inputs["xa"])
    assert first.trajectory["ab"][0] != other.trajectory["ab"][0]
    assert graphs[0].train_on_all_data().constants == first.constants  # every training starts anew
    inputs = graphs[0].dataset.inputs["xa"]
    assert inputs.min() >= 0.1
    assert inputs.max() <= 1.0


def test_the_order_of_expressions_does_not_matter():
    expected = graph_of(LESSON, TRUTH).train_on_all_data()
    for order in ([3, 2, 1, 0], [2, 0, 3, 1]):
        graph = graph_of([LESSON[k] for k in order], TRUTH)
        assert graph.variables == ["xa", *(["xx", "xy", "xz", "xw"][k] for k in order)]
        assert graph.leads_to.keys() == {"xa", "xx", "xy", "xz"}
        np.testing.assert_allclose(graph.train_on_all_data().losses, expected.losses, rtol=1e-12)


def test_all_samples_are_few_native_calls(monkeypatch):
    graph = graph_of(LESSON, TRUTH, dataset_size=10000)
    calls, run = [], training_loop.TrainingLoop.run
    monkeypatch.setattr(training_loop.TrainingLoop, "run", lambda self, epochs: calls.append(epochs) or run(self, epochs))
    assert len(graph.train_on_all_data().losses) == 10000
    assert len(calls) < 20


def test_a_loss_that_is_not_finite_is_reported(capsys):
    graph = graph_of(LESSON, TRUTH, learning_rate=0.1, display_vals_how_often=25)
    training = graph.train_on_all_data("exact")
    first = training.first_nonfinite
    assert first is not None
    assert np.isfinite(training.losses[:first]).all()
    assert not np.isfinite(training.losses[first])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4
    assert printed[1].startswith("samples 26 to 50: mean loss nan; ab ")
    assert printed[-1] == f"the loss is infinite or not a number from sample {first + 1} on"
    assert f"not a number from sample {first + 1} on: lower the learning rate" in repr(training)


def test_measured_slopes_of_huge_values_are_lost():
    """A huge value moved by `grad_delta` is still itself: the slope is measured as 0 and training stands still."""
    training = graph_of(LESSON, TRUTH, learning_rate=0.1).train_on_all_data("finite differences")
    assert training.first_nonfinite is None
    assert training.disagreement["xz", "xw"] == 1.0
    assert training.measured_partials["xz", "xw"][-1] == 0.0
    assert training.trajectory["ab"][-1] == training.constants["ab"]


def test_what_is_printed(capsys):
    training = graph_of(LESSON, TRUTH, display_vals_how_often=40).train_on_all_data()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"samples 1 to 40: mean loss {np.mean(training.losses[:40]):.6g}; ab ")
    assert second == f"samples 41 to 60: mean loss {np.mean(training.losses[40:]):.6g}; " + ", ".join(
        f"{name} {values[-1]:.6g}" for name, values in training.trajectory.items()
    )
    graph_of(LESSON, TRUTH).train_on_all_data()
    assert capsys.readouterr().out == ""


def test_the_report():
    training = graph_of(LESSON, TRUTH).train_on_all_data("exact")
    lines = repr(training).splitlines()
    assert lines[0] == "60 samples, partial derivatives: exact"
    assert lines[1] == f"loss: {training.losses[0]:.6g} at the first sample, {training.losses[-1]:.6g} at the last"
    assert lines[2] == f"ab: {training.trajectory['ab'][0]:.6g} -> {training.constants['ab']:.6g}"
    table = [re.split(r"  +", line) for line in lines[6:]]
    assert table[0] == ["edge", "exact", "measured", "largest relative difference"]
    assert [row[0] for row in table[1:]] == [" -> ".join(edge) for edge in EDGES]
    for (_, exact, measured, difference), edge in zip(table[1:], EDGES, strict=True):
        assert float(exact) == pytest.approx(training.exact_partials[edge][-1], rel=1e-7)
        assert float(measured) == pytest.approx(training.measured_partials[edge][-1], rel=1e-7)
        assert float(difference) < 1e-3


# ---- mistakes


WRONG_NETWORKS = {
    "two expressions": (["xb=xa", " xb = xc"], None, " xb = xc", 1, "'xb' has two expressions; the first is xb=xa"),
    "a cycle": (["xb=xc*xa", "xc=xd", "xd=k*xb"], None, "xd=k*xb", 5, "a cycle: xb reads xc reads xd reads xb"),
    "a cycle further down": (["xb=xc+xa", "xc=xd", "xd=2*xc"], None, "xd=2*xc", 5, "a cycle: xc reads xd reads xc"),
    "a vertex that reads itself": (["xb=xa+xb"], None, "xb=xa+xb", 6, "a cycle: xb reads xb"),
    "no names": (["xb=xa", "xc=2^3"], None, "xc=2^3", 0, "'xc' depends on nothing"),
    "nothing independent": (["xb=k"], None, "xb=k", 0, "no vertex is independent"),
    "an unknown output": (["xb=xa", "xc=xb"], ["xb", "xq"], "xb, xq", 4, "'xq' is not a vertex of these expressions; choose from xb, xc"),
    "a constant as output": (["xb=k*xa"], ["k"], "k", 0, "'k' is not a vertex"),
    "an input as output": (["xb=xa"], ["xa"], "xa", 0, "'xa' is an independent variable"),
    "an output twice": (["xb=xa"], ["xb", "xb"], "xb, xb", 4, "'xb' stands there twice"),
    "a malformed one among others": (["xb=xa", "xc=xb*"], None, "xc=xb*", 6, "expected a number"),
}


@pytest.mark.parametrize("case", WRONG_NETWORKS)
def test_wrong_networks(case):
    expressions, outputs, text, position, message = WRONG_NETWORKS[case]
    with pytest.raises(ExpressionError, match=re.escape(message)) as caught:
        sg.ExpressionGraph(expressions, outputs).parse_expressions()
    _, shown, caret, where, _ = str(caught.value).splitlines()
    assert shown == "    " + text
    assert caret == " " * (4 + position) + "^"
    assert "test_expression_graph.py" in where


def parsed(**options):
    return graph_of(LESSON, **options)


def ready():
    return graph_of(LESSON, TRUTH)


def with_values(values):
    return lambda: parsed().gen_gt_dataset(values)


MISTAKES = {
    "empty list": (lambda: sg.ExpressionGraph([]), InvalidValueError, "expressions is empty"),
    "one string": (lambda: sg.ExpressionGraph("xb=xa"), ArgumentError, "expected a list of strings, not a str"),
    "no strings": (lambda: sg.ExpressionGraph(["xb=xa", 3]), ArgumentError, "not a list that holds a int"),
    "no outputs": (lambda: sg.ExpressionGraph(["xb=xa"], []), InvalidValueError, "output_vars is empty"),
    "outputs of a string": (lambda: sg.ExpressionGraph(["xb=xa"], "xb"), ArgumentError, "output_vars: expected a list of strings"),
    "size": (lambda: parsed(dataset_size=0), InvalidValueError, "dataset_size=0"),
    "size of another type": (lambda: parsed(dataset_size=1e4), ArgumentError, "dataset_size=10000.0"),
    "rate": (lambda: parsed(learning_rate="fast"), ArgumentError, "learning_rate='fast'"),
    "infinite rate": (lambda: parsed(learning_rate=np.inf), InvalidValueError, "learning_rate=inf"),
    "display": (lambda: parsed(display_vals_how_often=-1), InvalidValueError, "display_vals_how_often=-1"),
    "delta": (lambda: parsed(grad_delta=0.0), InvalidValueError, "grad_delta=0"),
    "seed": (lambda: parsed(seed=None), ArgumentError, "seed=None"),
    "reading first": (lambda: sg.ExpressionGraph(LESSON).depends_on, StepOrderError, "call parse_expressions() first"),
    "reading before the function": (lambda: sg.ExpressionGraph(LESSON).function, StepOrderError, "call parse_expressions() first"),
    "reading before data": (
        lambda: sg.ExpressionGraph(LESSON).gen_gt_dataset(vals_for_learnable_params=TRUTH),
        StepOrderError,
        "call parse_expressions() first",
    ),
    "data before training": (lambda: parsed().train_on_all_data(), StepOrderError, "call gen_gt_dataset(vals_for_learnable_params={...})"),
    "data": (lambda: parsed().dataset, StepOrderError, "call gen_gt_dataset"),
    "training before its picture": (lambda: ready().plot_loss(), StepOrderError, "call train_on_all_data() first"),
    "partials": (lambda: ready().train_on_all_data("central"), InvalidValueError, "'finite differences', 'exact'"),
    "partials of another type": (lambda: ready().train_on_all_data(["exact"]), InvalidValueError, "partials=['exact']"),
    "missing constants": (with_values({"ab": 1.0, "cd": 2.0}), InvalidValueError, "no value for ac, bc"),
    "unknown constant": (
        with_values({**TRUTH, "cdd": 1.0}),
        InvalidValueError,
        "'cdd' is not a constant (ab, ac, bc, cd); did you mean 'cd'?",
    ),
    "a vertex": (with_values({**TRUTH, "xx": 1.0}), InvalidValueError, "'xx' is not a constant"),
    "no constants to give": (
        lambda: graph_of(["xb=xa"]).gen_gt_dataset({"k": 1.0}),
        InvalidValueError,
        "'k' is not a constant (there are none)",
    ),
    "no dict": (with_values([1.0, 2.0]), ArgumentError, "expected a dict of numbers by name, not a list"),
    "no number": (with_values({**TRUTH, "ab": "1"}), ArgumentError, "ab is a str, not a number"),
    "a flag": (with_values({**TRUTH, "ab": True}), ArgumentError, "ab is a bool, not a number"),
    "not finite": (with_values({**TRUTH, "ab": np.nan}), InvalidValueError, "ab is nan"),
    "truth that is not finite": (
        lambda: graph_of(["xb = log(xa - k)"], {"k": 0.5}),
        InvalidValueError,
        "xb is not finite at",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(case):
    run, kind, message = MISTAKES[case]
    with pytest.raises(kind, match=re.escape(message)) as caught:
        run()
    assert isinstance(caught.value, StaticgradError)
    assert "test_expression_graph.py" in str(caught.value)


def test_numbers_of_any_kind_are_constants():
    values = {"ab": 1, "bc": np.float32(2), "cd": np.int64(3), "ac": 4.0}
    graph = parsed()
    graph.gen_gt_dataset(values)
    np.testing.assert_array_equal(graph.dataset.outputs["xw"], ready().dataset.outputs["xw"])


def test_reading_again_forgets_what_came_after():
    graph = ready()
    graph.train_on_all_data()
    graph.parse_expressions()
    with pytest.raises(StepOrderError):
        graph.train_on_all_data()
    graph.gen_gt_dataset(TRUTH)
    with pytest.raises(StepOrderError):
        graph.plot_loss()
