"""`sg.Function`: operations with a backward pass of the user's own, on tensors and inside of traces."""

import gc
import weakref

import numpy as np
import pytest

import staticgrad as sg
from staticgrad import eager
from staticgrad.eager.autograd import gradcheck, gradgradcheck
from staticgrad.errors import ArgumentError, BackwardError
from tests.eager.garbage import cycles


class Exp(sg.Function):
    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y


class Product(sg.Function):
    @staticmethod
    def forward(ctx, x, y, scale=1.0):
        ctx.save_for_backward(x, y)
        ctx.scale = scale
        return x * y * scale

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        gx = g * y * ctx.scale if ctx.needs_input_grad[0] else None
        gy = g * x * ctx.scale if ctx.needs_input_grad[1] else None
        return gx, gy, None


class SinCos(sg.Function):
    @staticmethod
    def forward(ctx, x):
        s, c = x.sin(), x.cos()
        ctx.save_for_backward(s, c)
        return s, c

    @staticmethod
    def backward(ctx, gs, gc):
        s, c = ctx.saved_tensors
        return gs * c - gc * s


class Cube(sg.Function):
    """With the context set up apart."""

    @staticmethod
    def forward(x):
        return x * x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        (x,) = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x * x * g


def leaf(*values, dtype=np.float64):
    return sg.tensor(values[0] if len(values) == 1 else list(values), dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("function", [Exp, SinCos, Cube])
def test_derivatives(function):
    assert gradcheck(function.apply, leaf(0.5, -1.5))
    assert gradgradcheck(function.apply, leaf(0.5, -1.5))


def test_third_order():
    x = leaf(0.3)
    y = Cube.apply(x)
    for expected in (3 * 0.3**2, 6 * 0.3, 6.0):
        (y,) = sg.autograd_grad(y, x, create_graph=True)
        assert y.item() == pytest.approx(expected)


def test_several_arguments():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    assert gradcheck(lambda x, y: Product.apply(x, y, 2.5), (x, y))
    assert gradgradcheck(lambda x, y: Product.apply(x, y, 2.5), (x, y))
    Product.apply(x, y.detach(), 2.0).sum().backward()
    assert x.grad.tolist() == [6.0, 8.0]
    assert y.grad is None
    with sg.no_grad():
        assert not Product.apply(x, y, 1.0).requires_grad


def test_needs_input_grad():
    seen = []

    class Watch(sg.Function):
        @staticmethod
        def forward(ctx, x, y, n):
            seen.append(ctx.needs_input_grad)
            return x + y

        @staticmethod
        def backward(ctx, g):
            seen.append(ctx.needs_input_grad)
            return g, g, None

    x = leaf(1.0)
    Watch.apply(x, sg.tensor(2.0, dtype=np.float64), 3).backward()
    with sg.no_grad():
        Watch.apply(x, x, 3)
    assert seen == [(True, False, False), (True, False, False), (False, False, False)]


def test_the_node():
    x = leaf(1.0)
    y = Exp.apply(x)
    assert y.grad_fn.name() == "ExpBackward"
    assert y.grad_fn.next_functions[0][0].variable is x
    assert not y.is_leaf


def test_forward_is_not_recorded():
    recording = []

    class Look(sg.Function):
        @staticmethod
        def forward(ctx, x):
            y = x * 2
            recording.append((sg.is_grad_enabled(), y.requires_grad))
            return y

        @staticmethod
        def backward(ctx, g):
            recording.append(sg.is_grad_enabled())
            return g * 2

    x = leaf(1.0)
    Look.apply(x).backward()
    sg.autograd_grad(Look.apply(x), x, create_graph=True)
    assert recording == [(False, False), False, (False, False), True]


def test_results_without_gradients():
    class Split(sg.Function):
        @staticmethod
        def forward(ctx, x):
            kept, place = x.clone(), x.argmax()
            constant = x * 0 + 7
            ctx.mark_non_differentiable(constant)
            return kept, place, constant, "text", None

        @staticmethod
        def backward(ctx, g, *others):
            assert len(others) in (2, 4)
            return g

    x = leaf(1.0, 3.0)
    kept, place, constant, text, nothing = Split.apply(x)
    assert kept.requires_grad and not place.requires_grad and not constant.requires_grad
    assert place.item() == 1 and text == "text" and nothing is None
    kept.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_saving_a_result_without_gradients():
    class Masked(sg.Function):
        @staticmethod
        def forward(ctx, x):
            mask = (x > 0).double()
            ctx.mark_non_differentiable(mask)
            ctx.save_for_backward(mask)
            return x * mask, mask

        @staticmethod
        def backward(ctx, g, _):
            (mask,) = ctx.saved_tensors
            return g * mask

    assert gradcheck(lambda x: Masked.apply(x)[0], leaf(1.0, -2.0))
    assert gradgradcheck(lambda x: Masked.apply(x * x * x)[0], leaf(1.0, -2.0))


def test_missing_gradients_are_zeros():
    seen = []

    def function(materialize):
        class Both(sg.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.set_materialize_grads(materialize)
                return x * 2, x * 3

            @staticmethod
            def backward(ctx, a, b):
                seen.append((a.tolist(), b if b is None else b.tolist()))
                return a * 2 if b is None else a * 2 + b * 3

        return Both

    for materialize in (True, False):
        function(materialize).apply(leaf(1.0, 2.0))[0].sum().backward()
    assert seen == [([1.0, 1.0], [0.0, 0.0]), ([1.0, 1.0], None)]


def test_no_gradient_at_all():
    class Stop(sg.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return None

    x = leaf(1.0)
    (Stop.apply(x) + x).backward()
    assert x.grad.item() == 1.0


def test_straight_through():
    class Round(sg.Function):
        @staticmethod
        def forward(ctx, x):
            return x.round()

        @staticmethod
        def backward(ctx, g):
            return g

    x = leaf(0.4, 1.6)
    (Round.apply(x) * sg.tensor([2.0, 3.0])).sum().backward()
    assert x.grad.tolist() == [2.0, 3.0]


def test_returning_an_argument():
    class Scaled(sg.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 10

    x = leaf(1.0, 2.0)
    y = Scaled.apply(x)
    assert y is not x
    y.sum().backward()
    assert x.grad.tolist() == [10.0, 10.0]
    z = x * 1
    Scaled.apply(z).sum().backward()
    assert x.grad.tolist() == [20.0, 20.0]


def test_changing_an_argument():
    class Double(sg.Function):
        @staticmethod
        def forward(ctx, x):
            x.mul_(2)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = leaf(1.0, 2.0)
    y = x * 1
    z = Double.apply(y)
    assert z is y
    assert y.grad_fn.name() == "DoubleBackward"
    (y * y).sum().backward()
    assert x.grad.tolist() == [8.0, 16.0]
    with pytest.raises(RuntimeError, match="leaf"):
        Double.apply(leaf(1.0))
    constant = sg.tensor([1.0])
    assert Double.apply(constant) is constant
    assert constant.tolist() == [2.0]


def test_saved_values_that_were_changed():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    factor = y * 1
    z = Product.apply(x, factor)
    factor.add_(1)
    with pytest.raises(RuntimeError, match=r"in-place.*saved tensor|saved tensor.*in-place|saved tensor 1"):
        z.sum().backward()
    result = Exp.apply(x)
    result.mul_(2)
    with pytest.raises(RuntimeError, match="saved tensor 0"):
        result.sum().backward()


def test_saved_intermediate_values():
    class Sigmoid(sg.Function):
        @staticmethod
        def forward(ctx, x):
            e = (-x).exp()
            ctx.save_for_backward(e, None)
            return 1 / (1 + e)

        @staticmethod
        def backward(ctx, g):
            e, nothing = ctx.saved_tensors
            assert nothing is None
            return g * e / (1 + e) ** 2

    assert gradcheck(Sigmoid.apply, leaf(0.5, -1.0))


def test_backward_twice():
    x = leaf(1.0)
    y = Exp.apply(x)
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()


def test_saved_tensors_are_freed():
    x = leaf(1.0, 2.0)
    y = Product.apply(x, x * 2)
    node = y.grad_fn
    y.sum().backward()
    with pytest.raises(BackwardError, match="freed"):
        node.unpacked()


WRONG = {
    "too few": (lambda g: g, "returned 1 gradients, but forward has 2 arguments"),
    "too many": (lambda g: (g, g, g), "returned 3 gradients, but forward has 2 arguments"),
    "a wrong shape": (lambda g: (g[:1], g), r"shape is \(2,\)|gradient of .*\[1\]"),
    "a wrong rank": (lambda g: (g, g.sum()), "argument 1"),
    "a wrong type": (lambda g: (g, 1.0), "float for argument 1"),
    "an array": (lambda g: (g.numpy(), g), "ndarray for argument 0"),
}


@pytest.mark.parametrize("gradients, words", WRONG.values(), ids=list(WRONG))
def test_wrong_gradients(gradients, words):
    class Sum(sg.Function):
        @staticmethod
        def forward(ctx, x, y):
            return x + y

        @staticmethod
        def backward(ctx, g):
            return gradients(g)

    z = Sum.apply(leaf(1.0, 2.0), leaf(3.0, 4.0)).sum()
    with pytest.raises(RuntimeError, match=words) as caught:
        z.backward()
    assert isinstance(caught.value, sg.StaticgradError)
    assert "Sum.backward" in str(caught.value)


def test_a_gradient_for_what_is_no_tensor():
    class Times(sg.Function):
        @staticmethod
        def forward(ctx, x, n):
            ctx.n = n
            return x * n

        @staticmethod
        def backward(ctx, g):
            return g * ctx.n, g

    with pytest.raises(RuntimeError, match="no tensor; return None"):
        Times.apply(leaf(1.0), 2).backward()


def test_surplus_none_is_fine():
    class Same(sg.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return g, None, None

    x = leaf(1.0)
    Same.apply(x).backward()
    assert x.grad.item() == 1.0


def test_gradients_of_other_dtypes():
    class Single(sg.Function):
        @staticmethod
        def forward(ctx, x):
            return x.float()

        @staticmethod
        def backward(ctx, g):
            assert g.dtype == np.float32
            return g

    x = leaf(1.0, 2.0)
    Single.apply(x).sum().backward()
    assert x.grad.dtype == np.float64


def test_methods_with_other_parameters():
    class Few(sg.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx):
            return None

    x = leaf(1.0)
    for call, method in (
        (lambda: Few.apply(x, x), "forward"),
        (lambda: sg.trace(lambda x: Few.apply(x, x))(np.ones(1)), "forward"),
        (lambda: Few.apply(x).backward(), "backward"),
        (lambda: sg.grad(lambda x: np.sum(Few.apply(x)))(np.ones(1)), "backward"),
    ):
        with pytest.raises(ArgumentError, match=rf"Few\.{method}\(ctx.*too many positional arguments"):
            call()


def test_what_is_not_defined():
    class Nothing(sg.Function):
        pass

    class Forward(sg.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

    with pytest.raises(NotImplementedError, match="forward"):
        Nothing.apply(leaf(1.0))
    with pytest.raises(NotImplementedError, match="backward"):
        Forward.apply(leaf(1.0)).backward()
    with pytest.raises(RuntimeError, match="apply"):
        Forward()
    with pytest.raises(TypeError, match=r"ctx\.name = value"):

        class Saves(Forward):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(3.0)
                return x

        Saves.apply(leaf(1.0))


def test_errors_inside():
    class Fails(sg.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            raise KeyError("mine")

    y = Fails.apply(leaf(1.0))
    with pytest.raises(KeyError, match="mine"):
        y.backward()
    assert sg.is_grad_enabled()


def test_functions_in_functions():
    class Outer(sg.Function):
        @staticmethod
        def forward(ctx, x):
            with sg.enable_grad():
                inner = x.detach().requires_grad_()
                ctx.inner, ctx.result = inner, Exp.apply(inner)
            return ctx.result.detach()

        @staticmethod
        def backward(ctx, g):
            return sg.autograd_grad(ctx.result, ctx.inner, g, retain_graph=True)[0]

    assert gradcheck(Outer.apply, leaf(0.5, 1.0))


def test_no_reference_cycles():
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            x = leaf(1.0, 2.0)
            y = Product.apply(Exp.apply(x), Cube.apply(x))
            s, c = SinCos.apply(y)
            (g,) = sg.autograd_grad((s * c).sum(), x, create_graph=True)
            g.sum().backward()
            references = [weakref.ref(t.grad_fn) for t in (y, s, g)]
            del x, y, s, c, g
            assert [r() for r in references] == [None] * 3
        assert not cycles()
    finally:
        gc.enable()


# ---- inside of traces


@pytest.mark.parametrize("backend", ["interp", "cpu"])
@pytest.mark.parametrize("function", [Exp, Cube])
def test_inside_of_a_trace(function, backend):
    @sg.trace(backend=backend)
    def f(x):
        return np.sum(function.apply(x * 2.0) * 3.0)

    array = np.array([0.5, -0.25])
    value, gradient = sg.value_and_grad(f)(array)
    x = leaf(*array)
    loss = (function.apply(x * 2.0) * 3.0).sum()
    loss.backward()
    np.testing.assert_allclose(value, loss.item(), rtol=1e-12)
    np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-12)


def test_several_results_inside_of_a_trace():
    @sg.trace(backend="interp")
    def f(x, y):
        s, c = SinCos.apply(x)
        return np.sum(Product.apply(s, y, 2.0) + c)

    x, y = np.array([0.3, 0.6]), np.array([1.5, 2.5])
    gx, gy = sg.grad(f, argnums=(0, 1))(x, y)
    np.testing.assert_allclose(gx, 2 * np.cos(x) * y - np.sin(x), rtol=1e-12)
    np.testing.assert_allclose(gy, 2 * np.sin(x), rtol=1e-12)


def test_a_traced_function_inside_of_forward():
    square = sg.trace(lambda x: x * x, backend="interp")

    class Squared(sg.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            y = square(x)
            assert isinstance(y, sg.Tensor) and not y.requires_grad
            return y

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 2 * x * g

    assert gradcheck(Squared.apply, leaf(1.0, 2.0))
    assert gradgradcheck(Squared.apply, leaf(1.0, 2.0))
    assert eager.autograd.Function is sg.Function
