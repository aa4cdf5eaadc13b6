"""How tensors print, against what PyTorch prints."""

import doctest
from pathlib import Path

import numpy as np
import pytest

from staticgrad.eager import text
from staticgrad.errors import ArgumentError, InvalidValueError

SINGLE = np.dtype("float32")
TABLE = Path(__file__).with_name("printed_tensors.txt")
PRINTED = doctest.DocTestParser().get_examples(TABLE.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def options_as_they_were():
    yield
    text.set_printoptions(profile="default")


def show(array, *, grad_fn=None, requires_grad=False, default="float32", **options):
    if options:
        text.set_printoptions(**options)
    return text.tensor_text(np.asarray(array), default_dtype=np.dtype(default), grad_fn=grad_fn, requires_grad=requires_grad)


def test_the_table_is_there():
    assert len(PRINTED) > 150


@pytest.mark.parametrize("example", PRINTED, ids=lambda example: example.source.strip())
def test_like_pytorch(example, monkeypatch):
    monkeypatch.setattr(text, "DTYPE_PREFIX", "torch.")
    found = eval(example.source, {"np": np, "show": show})
    assert [line or "<BLANKLINE>" for line in found.split("\n")] == example.want.removesuffix("\n").split("\n")


def test_dtypes_have_our_names():
    assert show(np.float64([1.0, 2.5])) == "tensor([1.0000, 2.5000], dtype=float64)"
    assert show(np.int32(3)) == "tensor(3, dtype=int32)"
    assert show(np.zeros((0, 3), bool)) == "tensor([], size=(0, 3), dtype=bool)"


def test_layout_of_the_array_does_not_matter():
    rows = np.arange(12.0, dtype=SINGLE).reshape(3, 4)
    assert show(np.asfortranarray(rows)) == show(rows)
    assert show(rows[::-1, ::2]) == show(rows[::-1, ::2].copy())
    assert show(np.broadcast_to(SINGLE.type(2), (2, 2))) == show(np.full((2, 2), 2, SINGLE))


def test_nothing_is_written():
    frozen = np.arange(3.0)
    frozen.flags.writeable = False
    assert show(frozen, default="float64") == "tensor([0., 1., 2.])"


def test_options_last_and_sci_mode_does_not():
    assert show([1.25], precision=1, sci_mode=True, default="float64") == "tensor([1.2e+00])"
    assert show([1.25], default="float64") == "tensor([1.2e+00])"
    assert show([1.25], edgeitems=1, default="float64") == "tensor([1.2])"
    assert show([1.25], profile="default", default="float64") == "tensor([1.2500])"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"precision": -1}, InvalidValueError),
        ({"edgeitems": -1}, InvalidValueError),
        ({"linewidth": 0}, InvalidValueError),
        ({"threshold": -3}, InvalidValueError),
        ({"profile": "long"}, InvalidValueError),
        ({"precision": 2.5}, ArgumentError),
        ({"threshold": "many"}, ArgumentError),
        ({"threshold": float("nan")}, ArgumentError),
        ({"edgeitems": True}, ArgumentError),
        ({"sci_mode": "yes"}, ArgumentError),
    ],
)
def test_wrong_options(options, error):
    with pytest.raises(error, match=next(iter(options))):
        text.set_printoptions(**{"precision": 7} | options)
    assert show([1.25], default="float64") == "tensor([1.2500])", "an error leaves all options as they were"
