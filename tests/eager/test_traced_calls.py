"""Traced functions, transforms and NumPy's functions on tensors: each call is one node of the tape."""

from typing import NamedTuple

import numpy as np
import pytest

import staticgrad as sg
import staticgrad.numpy as snp
from staticgrad.eager.autograd import gradcheck, gradgradcheck

BACKENDS = ["interp", "cpu"]


class Point(NamedTuple):
    x: object
    y: object


def leaf(*values, dtype=np.float64):
    return sg.tensor(values[0] if len(values) == 1 else list(values), dtype=dtype, requires_grad=True)


@sg.trace(backend="interp")
def wave(x, y):
    return np.sin(x) * y + x**3


# ---- values and gradients


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_node(backend):
    @sg.trace(backend=backend)
    def layer(x, w):
        return np.tanh(x @ w)

    x, w = leaf([1.0, 2.0], [3.0, 4.0]), leaf([0.1, 0.2], [0.3, -0.4])
    y = layer(x, w)
    assert isinstance(y, sg.Tensor)
    assert y.grad_fn.name() == "LayerBackward"
    assert [edge[0].variable for edge in y.grad_fn.next_functions] == [x, w]
    assert gradcheck(layer, (x, w))
    assert gradgradcheck(layer, (x, w))
    np.testing.assert_allclose(y.detach().numpy(), np.tanh(x.detach().numpy() @ w.detach().numpy()), rtol=1e-12)


def test_only_what_is_wanted():
    x, y = leaf(1.0, 2.0), sg.tensor([3.0, 4.0], dtype=np.float64)
    z = wave(x, y)
    assert len(z.grad_fn.next_functions) == 1
    z.sum().backward()
    assert y.grad is None
    assert not wave(y, y).requires_grad
    with sg.no_grad():
        assert not wave(x, y).requires_grad
        assert isinstance(wave(x, y), sg.Tensor)


def test_third_order():
    x, y = leaf(0.7), sg.tensor(2.0, dtype=np.float64)
    z = wave(x, y)
    c, s = np.cos(0.7), np.sin(0.7)
    for expected in (2 * c + 3 * 0.7**2, -2 * s + 6 * 0.7, -2 * c + 6):
        (z,) = sg.autograd_grad(z, x, create_graph=True)
        assert z.item() == pytest.approx(expected, rel=1e-12)


def test_in_the_middle_of_other_operations():
    def f(x, y):
        return (wave(x.exp(), y * y).sum() * wave(y, x)).relu()

    assert gradcheck(f, (leaf(0.5, 0.25), leaf(1.5, 2.5)))
    assert gradgradcheck(f, (leaf(0.5, 0.25), leaf(1.5, 2.5)))


def test_the_same_tensor_twice():
    x = leaf(0.5, 1.0)
    assert gradcheck(lambda x: wave(x, x), x)
    assert gradgradcheck(lambda x: wave(x, x), x)


def test_numbers_and_arrays_beside_tensors():
    x = leaf(0.5, 1.0)
    for other in (2.0, 3, np.array([1.0, 2.0]), np.float64(1.5)):
        z = wave(x, other)
        expected = np.sin(x.detach().numpy()) * other + x.detach().numpy() ** 3
        np.testing.assert_allclose(z.detach().numpy(), expected, rtol=1e-12)
        assert gradgradcheck(lambda x, other=other: wave(x, other), x)


def test_single_precision_stays():
    x = leaf(0.5, 1.0, dtype=np.float32)
    z = wave(x, 2.0)
    assert z.dtype == np.float32
    (g,) = sg.autograd_grad(z.sum(), x, create_graph=True)
    assert g.dtype == np.float32
    (second,) = sg.autograd_grad(g.sum(), x)
    assert second.dtype == np.float32


def test_dtypes_that_are_mixed():
    x, y = leaf(0.5, dtype=np.float32), leaf(2.0)
    wave(x, y).backward()
    assert x.grad.dtype == np.float32
    assert y.grad.dtype == np.float64


# ---- arguments and results


@sg.trace(backend="interp")
def model(params, x, *, scale=1.0):
    (w, b), rest = params["layer"], params["point"]
    return {"out": x @ w + b, "pair": (rest.x * scale, [rest.y]), "count": np.argmax(x, axis=1)}


def test_trees():
    params = {"layer": (leaf([1.0], [2.0]), leaf(0.5)), "point": Point(leaf(3.0), leaf(4.0, 5.0))}
    x = np.array([[1.0, 2.0], [4.0, 3.0]])
    result = model(params, x, scale=leaf(2.0))
    assert set(result) == {"out", "pair", "count"}
    assert result["pair"][0].item() == 6.0
    assert isinstance(result["pair"][1], list)
    assert result["count"].tolist() == [1, 0]
    assert not result["count"].requires_grad and result["count"].dtype == np.int64
    (result["out"].sum() + result["pair"][0] * 10).backward()
    assert params["layer"][0].grad.tolist() == [[5.0], [5.0]]
    assert params["layer"][1].grad.item() == 2.0
    assert params["point"].x.grad.item() == 20.0
    assert params["point"].y.grad.tolist() == [0.0, 0.0]


def test_keywords():
    scale = leaf(2.0)
    params = {"layer": (leaf([1.0], [2.0]), leaf(0.5)), "point": Point(leaf(3.0), leaf(4.0, 5.0))}
    model(params, x=np.ones((2, 2)), scale=scale)["pair"][0].backward()
    assert scale.grad.item() == 3.0


def test_static_arguments():
    @sg.trace(static_argnames=("power", "name"), backend="interp")
    def raised(x, power, *, name="a"):
        return x**power if name == "a" else x * power

    x = leaf(2.0)
    raised(x, 3).backward()
    assert x.grad.item() == 12.0
    assert gradgradcheck(lambda x: raised(x, 4), x)
    assert raised(x, power=5, name="b").item() == 10.0
    assert gradgradcheck(lambda x: raised(x * x, 3, name="b"), x)


def test_some_results_used():
    @sg.trace(backend="interp")
    def both(x, y):
        return x * y, np.exp(x)

    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    product, exponential = both(x, y)
    exponential.sum().backward(retain_graph=True)
    np.testing.assert_allclose(x.grad.numpy(), np.exp([1.0, 2.0]))
    assert y.grad.tolist() == [0.0, 0.0]
    (product.sum() + exponential.sum()).backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp([1.0, 2.0]) + [3.0, 4.0])
    assert gradgradcheck(lambda x, y: both(x, y)[0], (x, y))


def test_integer_results_and_arguments():
    @sg.trace(backend="interp")
    def chosen(x, index):
        return x[index] * 2.0, np.argsort(x), index + 1

    x = leaf(3.0, 1.0, 2.0)
    value, order, index = chosen(x, sg.tensor([0, 2]))
    assert order.tolist() == [1, 2, 0]
    assert index.tolist() == [1, 3]
    value.sum().backward()
    assert x.grad.tolist() == [2.0, 0.0, 2.0]


def test_closures_over_arrays():
    weights = np.array([1.0, 2.0])

    @sg.trace(backend="interp")
    def weighted(x):
        return np.sum(weights * x * x)

    x = leaf(3.0, 4.0)
    weighted(x).backward()
    assert x.grad.tolist() == [6.0, 16.0]


def test_methods():
    class Model:
        def __init__(self):
            self.factor = 3.0

        @sg.trace(backend="interp")
        def __call__(self, x):
            return x * self.factor

    x = leaf(2.0)
    Model()(x).backward()
    assert x.grad.item() == 3.0


# ---- changes between forward and backward


@pytest.mark.parametrize("backend", BACKENDS)
def test_changes_in_place_do_no_harm(backend):
    square = sg.trace(lambda x, y: x * x * y, backend=backend)
    x, y = leaf(1.0, 2.0), sg.tensor([3.0, 4.0], dtype=np.float64)
    z = square(x, y)
    sg.autograd_grad(z.sum(), x, create_graph=True)
    with sg.no_grad():
        x += 10
        y.zero_()
        z.zero_()
    z.sum().backward()
    assert x.grad.tolist() == [6.0, 16.0]


def test_results_are_memory_of_their_own():
    same = sg.trace(lambda x: (x, x, x[:1]), backend="interp")
    x = leaf(1.0, 2.0)
    for tracked in (True, False):
        source = x if tracked else x.detach()
        a, b, c = same(source)
        with sg.no_grad():
            a.zero_()
            assert b.tolist() == [1.0, 2.0]
            assert c.tolist() == [1.0]
            assert x.tolist() == [1.0, 2.0]


def test_backward_twice():
    x = leaf(1.0)
    z = wave(x, 1.0)
    z.backward(retain_graph=True)
    z.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        z.backward()


# ---- transforms


def loss(w, x):
    return np.sum(np.tanh(w * x) ** 2)


def test_transforms_give_tensors():
    w, x = leaf(0.5, -0.25), sg.tensor([1.0, 2.0], dtype=np.float64)
    gradient = sg.grad(loss)(w, x)
    value, same = sg.value_and_grad(loss)(w, x)
    (expected,) = sg.autograd_grad(sg.trace(loss)(w, x), w)
    assert isinstance(gradient, sg.Tensor)
    np.testing.assert_allclose(gradient.detach().numpy(), expected.numpy(), rtol=1e-12)
    np.testing.assert_allclose(same.detach().numpy(), expected.numpy(), rtol=1e-12)
    assert value.item() == pytest.approx(loss(w.detach().numpy(), x.numpy()))


@pytest.mark.parametrize(
    "make",
    [
        lambda: sg.trace(sg.grad(loss), backend="interp"),
        lambda: sg.trace(lambda w, x: sg.jacobian(lambda w: np.sin(w * x) * w[::-1])(w), backend="interp"),
        lambda: sg.trace(sg.vmap(lambda w, x: w * x * w), backend="interp"),
        lambda: sg.trace(sg.hessian(loss), backend="interp"),
    ],
    ids=["grad", "jacobian", "vmap", "hessian"],
)
def test_gradients_through_transforms(make):
    function = make()
    assert gradcheck(function, (leaf(0.5, -0.25), leaf(1.0, 2.0)))


# ---- NumPy's functions

FUNCTIONS = {
    "np.exp": (np.exp, ((3,),)),
    "np.add": (np.add, ((3,), (3,))),
    "np.matmul": (np.matmul, ((2, 3), (3, 2))),
    "np.sum": (lambda x: np.sum(x, axis=0), ((2, 3),)),
    "np.mean": (np.mean, ((2, 3),)),
    "np.concatenate": (lambda x, y: np.concatenate([x, y]), ((3,), (2,))),
    "np.where": (lambda x, y: np.where(x > 0, x, y), ((3,), (3,))),
    "np.einsum": (lambda x, y: np.einsum("ij,jk->i", x, y), ((2, 3), (3, 2))),
    "np.linalg.norm": (np.linalg.norm, ((3,),)),
    "np.cumsum": (np.cumsum, ((3,),)),
    "np.clip": (lambda x: np.clip(x, -0.5, 0.5), ((3,),)),
    "np.trace": (np.trace, ((3, 3),)),
    "np.outer": (np.outer, ((2,), (3,))),
    "np.pad": (lambda x: np.pad(x, 1), ((3,),)),
    "np.add.reduce": (lambda x: np.add.reduce(x, axis=1), ((2, 3),)),
    "snp.exp": (snp.exp, ((3,),)),
    "snp.array": (lambda x, y: snp.array([x[0] * y[1], x[1]]), ((3,), (3,))),
    "snp.full": (lambda x: snp.full(4, x.sum()), ((3,),)),
    "sg.nn.relu": (sg.nn.relu, ((3,),)),
    "sg.nn.gelu": (sg.nn.gelu, ((3,),)),
    "sg.nn.softmax": (lambda x: sg.nn.softmax(x, axis=1), ((2, 3),)),
    "sg.nn.softplus": (sg.nn.softplus, ((3,),)),
    "sg.special.erf": (sg.special.erf, ((3,),)),
    "sg.special.gammaln": (lambda x: sg.special.gammaln(x * x + 1), ((3,),)),
    "sg.special.logsumexp": (sg.special.logsumexp, ((3,),)),
    "sg.special.expit": (sg.special.expit, ((3,),)),
}


@pytest.mark.parametrize("function, shapes", FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions_of_arrays(function, shapes):
    rng = np.random.default_rng(5)
    arrays = [rng.uniform(0.1, 1.0, shape) * rng.choice([-1, 1], shape) for shape in shapes]
    xs = [sg.tensor(array, requires_grad=True) for array in arrays]
    found = function(*xs)
    assert isinstance(found, sg.Tensor) and found.requires_grad
    expected = sg.trace(lambda *a: function(*a), backend="interp")(*arrays)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-12)
    assert gradcheck(function, xs, atol=1e-7)
    assert gradgradcheck(function, xs, atol=1e-6)


def test_out():
    x, y = sg.tensor([1.0, 2.0]), sg.tensor([0.0, 0.0])
    assert np.multiply(x, 3, out=y) is y
    assert y.tolist() == [3.0, 6.0]
    np.add.at(y, [0, 0], 1.0)
    assert y.tolist() == [5.0, 6.0]
    np.copyto(y, x)
    assert y.tolist() == [1.0, 2.0]


def test_functions_without_derivative():
    x = leaf(1.0, 2.0)
    with pytest.raises(TypeError):
        np.histogram(x)
    counts, _ = np.histogram(x.detach(), bins=2)
    assert counts.tolist() == [1, 1]


# ---- errors


def test_errors_show_the_users_lines():
    @sg.trace(backend="interp")
    def wrong(x):
        return x @ np.ones(5)

    with pytest.raises(ValueError, match="matmul") as caught:
        wrong(leaf(1.0, 2.0))
    assert __file__ in str(caught.value)

    @sg.trace(backend="interp")
    def branches(x):
        return x if x > 0 else -x

    with pytest.raises(sg.TraceError, match=r"np\.where"):
        branches(leaf(1.0))


def test_weights_of_wrong_shapes():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="shape"):
        wave(x, 1.0).backward(sg.tensor([1.0]))


def test_tensors_in_a_trace():
    outside = leaf(2.0)

    @sg.trace(backend="interp")
    def uses(x):
        return x * outside

    with pytest.raises(sg.StaticgradError, match=r"argument|detach"):
        uses(np.array(1.0))
    constant = sg.tensor(3.0, dtype=np.float64)
    assert sg.trace(lambda x: x * constant, backend="interp")(np.array(2.0)) == 6.0
