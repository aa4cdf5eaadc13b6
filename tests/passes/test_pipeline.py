"""The ordered passes: each keeps the results, a broken one is named, and every switch of the environment does what it says."""

from dataclasses import replace

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.config import config, configure
from staticgrad.errors import VerificationError
from staticgrad.ir.aval import Aval
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import new_input
from staticgrad.ir.verify import verify
from staticgrad.ops.contract import matmul
from staticgrad.ops.control import call
from staticgrad.ops.movement import transpose
from staticgrad.ops.trigonometric import sin
from staticgrad.passes import pipeline
from staticgrad.passes.pipeline import PIPELINE, REQUIRED, optimize
from tests.fuzz.programs import Program

F64 = np.dtype(float)


@pytest.fixture
def setting():
    """Change the configuration until the test ends."""
    before = config()
    yield lambda **changes: configure(replace(before, **changes))
    configure(before)


def value(*shape):
    return new_input(Aval(shape, F64))


@pytest.mark.parametrize("seed", range(9000, 9012))
def test_each_pass_keeps_the_results(seed):
    program = Program(seed).grow(25)
    for graph in (program.graph(), program.gradient()):
        expected = interpret(graph, program.arrays)
        for name, function in PIPELINE:
            graph, _ = function(graph)
            verify(graph, after=name)
            for x, y in zip(interpret(graph, program.arrays), expected, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-3 if x.dtype == np.float32 else 1e-9, atol=1e-3, err_msg=name)


def test_passes_keep_inputs_outputs_and_primals():
    for seed in range(9100, 9110):
        graph = Program(seed).grow(15).gradient()
        optimized, results = optimize(graph)
        assert optimized.inputs == graph.inputs
        assert [v.aval for v in optimized.outputs] == [v.aval for v in graph.outputs]
        assert len(optimized.primals) == len(graph.primals)
        assert [r.name for r in results] == [name for name, _ in PIPELINE]
        assert results[0].before == len(graph.nodes)
        assert results[-1].after == len(optimized.nodes)


def test_dead_and_repeated_code_falls_away():
    x = value(3)
    sin(x) * 7.0  # nobody uses it
    graph = Graph((x,), (sin(x) + sin(x), sin(x)))
    assert [node.op.name for node in graph.nodes] == ["input", "sin", "add"]


def test_transposes_are_folded_into_products():
    x, y = value(30, 20), value(40, 30)
    product = transpose(matmul(transpose(x, (1, 0)), transpose(y, (1, 0))), (1, 0))
    optimized, _ = optimize(Graph((x, y), (product,)))
    names = [node.op.name for node in optimized.nodes if node.op.name not in ("input", "contiguous")]
    assert names.count("contract") == 1
    after_simplify, _ = dict(PIPELINE)["simplify"](Graph((x, y), (product,)))
    assert [node.op.name for node in after_simplify.nodes if node.op.name != "input"] == ["contract"]


def test_calls_are_inlined():
    x, inner = value(3), value(3)
    (y,) = call(Graph((inner,), (sin(inner),)), x)
    optimized, _ = optimize(Graph((x,), (y,)))
    assert [node.op.name for node in optimized.nodes] == ["input", "sin"]


def test_a_broken_pass_is_named(monkeypatch, setting):
    stray = value(3)

    def lose_an_input(graph):
        return graph.with_outputs([sin(stray)]), {}

    monkeypatch.setattr(pipeline, "PIPELINE", (*PIPELINE[:2], ("lose an input", lose_an_input), *PIPELINE[2:]))
    setting(verify=True)
    x = value(3)
    with pytest.raises(VerificationError, match="after lose an input"):
        optimize(Graph((x,), (sin(x),)))


def test_skipping(setting):
    x = value(3)
    graph = Graph((x,), (x * 1.0,))
    assert len(optimize(graph)[0].nodes) == 1
    setting(skip=frozenset({"simplify", "simplify again"}))
    optimized, results = optimize(graph)
    assert len(optimized.nodes) > 1
    assert [r.name for r in results] == [name for name, _ in PIPELINE if not name.startswith("simplify")]
    setting(skip=frozenset({"multiply_by_one", "fold_constants"}))
    assert any(node.op.name == "multiply" for node in optimize(graph)[0].nodes)
    setting(skip=frozenset(REQUIRED))
    assert {r.name for r in optimize(graph)[1]} >= REQUIRED


def test_limit_of_rewrites(setting):
    x = value(3)
    graph = Graph((x,), ((x * 1.0 - 0.0) / 1.0,))
    sizes = []
    for limit in (0, 1, 2, None):
        setting(rewrite_limit=limit)
        sizes.append(len(optimize(graph)[0].nodes))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1] == 1


def test_dumps_of_every_pass(setting, tmp_path):
    setting(dump=tmp_path / "dump")
    x = value(3)
    optimize(Graph((x,), (sin(x) * 1.0,)))
    files = sorted(path.name for path in (tmp_path / "dump").iterdir())
    assert len(files) == len(PIPELINE)
    assert files[0].startswith("01-inline-calls-")
    assert "sin(" in (tmp_path / "dump" / files[-1]).read_text()


def test_log_of_passes(setting, caplog):
    setting(log=frozenset({"pass"}))
    x = value(3)
    with caplog.at_level("INFO", logger="staticgrad.pass"):
        optimize(Graph((x,), (sin(x) * 1.0,)))
    assert "simplify: " in caplog.text
    assert "multiply_by_one" in caplog.text


def test_report_of_a_function():
    report = sg.value_and_grad(lambda x: np.sum(np.tanh(x) * 1.0)).lower(np.ones(3)).report
    text = str(report)
    for name, _ in PIPELINE:
        assert name in text
    assert "loop nests" in text
    (simplified,) = [each for each in report.passes if each.name == "simplify"]
    assert simplified.before > simplified.after
