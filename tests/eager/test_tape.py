"""The tape: what is recorded, where gradients go, how it is freed, hooks, and modes of threads."""

import gc
import threading
import warnings
import weakref

import numpy as np
import pytest

import staticgrad as sg
from staticgrad import eager
from staticgrad.errors import BackwardError, TensorError


def leaf(*values):
    return sg.tensor(values[0] if len(values) == 1 else list(values), requires_grad=True)


# ---- leaves


def test_leaves_and_results():
    a, b = leaf(1.0, 2.0), sg.tensor([3.0, 4.0])
    c = a * b
    assert a.is_leaf and b.is_leaf and not c.is_leaf
    assert a.requires_grad and not b.requires_grad and c.requires_grad
    assert a.grad_fn is None and b.grad_fn is None
    assert c.grad_fn.name() == "MulBackward0"
    assert a.grad is None and b.grad is None
    assert (b * 2).is_leaf
    assert (b * 2).grad_fn is None
    c.sum().backward()
    assert a.grad.tolist() == [3.0, 4.0]
    assert b.grad is None
    assert a.grad.is_leaf and not a.grad.requires_grad


def test_gradients_accumulate_in_place():
    x = leaf(2.0)
    (x**2).backward()
    kept = x.grad
    assert kept.item() == 4.0
    (x**2).backward()
    assert x.grad is kept
    assert kept.item() == 8.0
    x.grad.zero_()
    (x**2).backward()
    assert x.grad.item() == 4.0
    x.grad = None
    (x**3).backward()
    assert x.grad.item() == 12.0


def test_the_first_gradient_is_memory_of_its_own():
    a, b, seed = leaf(1.0, 2.0), leaf(3.0, 4.0), sg.tensor([1.0, 1.0])
    (a + b).backward(seed)
    a.grad.zero_()
    assert b.grad.tolist() == [1.0, 1.0]
    assert seed.tolist() == [1.0, 1.0]
    x = leaf(1.0, 2.0)
    for recording in (False, True):
        x.grad = None
        x.backward(seed, create_graph=recording)
        x.grad.mul_(5)
        assert seed.tolist() == [1.0, 1.0]


def test_recorded_gradients_are_memory_of_their_own():
    a, b, seed = leaf(1.0, 2.0), leaf(3.0, 4.0), sg.tensor([1.0, 1.0])
    (a + b).backward(seed, create_graph=True)
    a.grad.zero_()
    assert b.grad.tolist() == [1.0, 1.0]
    assert seed.tolist() == [1.0, 1.0]


def test_gradients_that_are_returned_can_be_changed():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    first, second = sg.autograd_grad((a + b).sum(), (a, b))
    first.add_(1)
    first[0] = 7.0
    assert first.tolist() == [7.0, 2.0]
    assert second.tolist() == [1.0, 1.0]


def test_setting_gradients():
    x = leaf(1.0, 2.0)
    x.grad = sg.tensor([5.0, 6.0])
    x.sum().backward()
    assert x.grad.tolist() == [6.0, 7.0]
    with pytest.raises(RuntimeError, match=r"\[3\].*\[2\]"):
        x.grad = sg.tensor([1.0, 2.0, 3.0])
    with pytest.raises(RuntimeError, match="float64"):
        x.grad = sg.tensor([1.0, 2.0], dtype=np.float64)
    with pytest.raises(TypeError, match="expected a tensor"):
        x.grad = 1.0


def test_stopping_to_require_gradients():
    x = leaf(1.0)
    y = x * 2
    with pytest.raises(TensorError, match="detach"):
        y.requires_grad_(False)
    y.requires_grad_()
    x.requires_grad_(False)
    assert not (x * 2).requires_grad
    y.backward()
    assert x.requires_grad is False


def test_requires_grad_spreads():
    a, b = leaf(1.0), sg.tensor(2.0)
    assert (a + b).requires_grad and (b + a).requires_grad
    assert not (b + b).requires_grad
    assert eager.stack([a, b]).requires_grad
    assert not (a > b).requires_grad
    assert not a.detach().requires_grad
    assert not a.argmax().requires_grad
    assert not a.long().requires_grad


# ---- freeing


def test_a_second_pass_through_saved_values_is_an_error():
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True") as caught:
        y.backward()
    assert isinstance(caught.value, sg.StaticgradError)
    assert x.grad.tolist() == [2.0, 4.0]


def test_a_second_pass_where_nothing_was_saved():
    x = leaf(1.0, 2.0)
    y = (x + 1).sum()
    y.backward()
    y.backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_retain_graph():
    x = leaf(3.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 18.0
    with pytest.raises(BackwardError, match="freed"):
        y.backward()


def test_create_graph_retains():
    x = leaf(3.0)
    y = x * x
    y.backward(create_graph=True)
    y.backward()
    assert x.grad.item() == 12.0
    z = x * x
    z.backward(create_graph=True, retain_graph=False)
    with pytest.raises(BackwardError, match="freed"):
        z.backward()


def test_a_shared_part_that_was_freed():
    x = leaf(2.0)
    shared = x * x
    a, b = shared * 3, shared + 1
    a.backward()
    with pytest.raises(BackwardError, match=r"freed.*retain_graph"):
        b.backward()


def test_a_pass_to_one_leaf_frees_only_what_it_ran():
    a, b = leaf(2.0), leaf(3.0)
    left, right = a * a, b * b
    total = left + right
    assert sg.autograd_grad(total, a)[0].item() == 4.0
    right.backward()
    assert b.grad.item() == 6.0


# ---- gradients of gradients


def test_third_order():
    x = leaf(0.7)
    y = (x * x).sin()
    derivatives = []
    for _ in range(3):
        (y,) = sg.autograd_grad(y, x, create_graph=True)
        derivatives.append(y.item())
    t = 0.7
    s, c = np.sin(t * t), np.cos(t * t)
    expected = [2 * t * c, 2 * c - 4 * t * t * s, -12 * t * s - 8 * t**3 * c]
    np.testing.assert_allclose(derivatives, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "f, third",
    [
        (lambda x: x.exp(), lambda x: np.exp(x)),
        (lambda x: x**4, lambda x: 24 * x),
        (lambda x: 1 / x, lambda x: -6 / x**4),
        (lambda x: x.tanh(), lambda x: (4 * np.tanh(x) ** 2 - 2 * (1 - np.tanh(x) ** 2)) * (1 - np.tanh(x) ** 2)),
        (lambda x: x.sqrt(), lambda x: 3 / 8 * x**-2.5),
        (lambda x: x.log(), lambda x: 2 / x**3),
        (lambda x: x.sin() * x.cos(), lambda x: -4 * np.cos(2 * x)),
        (lambda x: 2.0**x, lambda x: np.log(2) ** 3 * 2**x),
    ],
)
def test_third_derivatives(f, third):
    x = sg.tensor(1.3, dtype=np.float64, requires_grad=True)
    y = f(x)
    for _ in range(3):
        (y,) = sg.autograd_grad(y, x, create_graph=True)
    np.testing.assert_allclose(y.item(), third(1.3), rtol=1e-12)


def test_backward_through_a_gradient():
    x = leaf(2.0)
    (x**3).backward(create_graph=True)
    slope = x.grad
    assert slope.requires_grad
    x.grad = None
    slope.backward()
    assert x.grad.item() == 12.0


def test_recorded_accumulation():
    x = leaf(2.0)
    (x**2).backward(create_graph=True)
    (x**3).backward(create_graph=True)
    assert x.grad.item() == 16.0
    assert sg.autograd_grad(x.grad, x)[0].item() == 14.0


def test_penalty_on_a_gradient():
    w = leaf(1.0, -2.0)
    x = sg.tensor([3.0, 4.0])
    loss = ((w * x).sum() - 1) ** 2
    (slope,) = sg.autograd_grad(loss, w, create_graph=True)
    (loss + (slope**2).sum()).backward()
    r = 1 * 3 - 2 * 4 - 1
    expected = [2 * r * v + 8 * r * v * 25 for v in (3, 4)]
    np.testing.assert_allclose(w.grad.numpy(), expected, rtol=1e-6)


# ---- gradients of results


def test_gradients_of_results_are_not_kept():
    x = leaf(2.0)
    y = x * x
    (y * 3).backward()
    with pytest.warns(UserWarning, match="retain_grad"):
        assert y.grad is None


def test_retain_grad():
    x = leaf(2.0)
    y = x * x
    y.retain_grad()
    y.retain_grad()
    z = y * 3
    z.backward(retain_graph=True)
    assert y.retains_grad
    assert y.grad.item() == 3.0
    z.backward()
    assert y.grad.item() == 6.0
    assert x.grad.item() == 24.0
    x.retain_grad()
    with pytest.raises(RuntimeError, match="does not require"):
        sg.tensor(1.0).retain_grad()


def test_retain_grad_of_the_root():
    x = leaf(2.0)
    y = x * x
    y.retain_grad()
    y.backward()
    assert y.grad.item() == 1.0


def test_retained_gradients_follow_changes_in_place():
    x = leaf(2.0)
    y = x * 1
    y.retain_grad()
    y.mul_(3)
    (y * 5).backward()
    assert y.grad.item() == 5.0
    assert x.grad.item() == 15.0


# ---- hooks


def test_hooks_on_results():
    x, seen = leaf(2.0), []
    y = x * 3
    y.register_hook(lambda g: seen.append(("first", g.item())))
    y.register_hook(lambda g: g * 10)
    y.register_hook(lambda g: seen.append(("third", g.item())))
    y.backward()
    assert seen == [("first", 1.0), ("third", 10.0)]
    assert x.grad.item() == 30.0


def test_hooks_on_leaves():
    x, seen = leaf(2.0), []
    first = x.register_hook(lambda g: g + 1)
    x.register_hook(lambda g: seen.append(g.item()))
    (x * 3).backward()
    assert x.grad.item() == 4.0
    first.remove()
    first.remove()
    (x * 3).backward()
    assert x.grad.item() == 7.0
    assert seen == [4.0, 3.0]


def test_a_hook_on_a_leaf_sees_the_whole_gradient_once():
    x, seen = leaf(2.0), []
    x.register_hook(lambda g: seen.append(g.item()))
    (x * 3 + x * 4 + x).backward()
    assert seen == [8.0]


def test_a_hook_on_a_leaf_registered_after_recording():
    x, seen = leaf(2.0), []
    y = x * 3
    x.register_hook(lambda g: seen.append(g.item()))
    y.backward()
    assert seen == [3.0]


def test_a_handle_is_a_context():
    x = leaf(2.0)
    with x.register_hook(lambda g: g * 2):
        (x * 1).backward()
    (x * 1).backward()
    assert x.grad.item() == 3.0


def test_a_handle_keeps_nothing_alive():
    x = leaf(2.0)
    y = x * 2
    handle = y.register_hook(lambda g: g)
    reference = weakref.ref(y.grad_fn)
    del y
    assert reference() is None
    handle.remove()


def test_hooks_see_gradients_of_autograd_grad():
    x = leaf(2.0)
    x.register_hook(lambda g: g * 2)
    assert sg.autograd_grad(x * 3, x)[0].item() == 6.0


def test_hooks_are_recorded_with_create_graph():
    x = leaf(2.0)
    y = x * x
    y.register_hook(lambda g: g * x)
    (slope,) = sg.autograd_grad(y, x, create_graph=True)
    assert slope.item() == 8.0
    assert sg.autograd_grad(slope, x)[0].item() == 8.0


def test_retained_gradients_come_after_hooks():
    x = leaf(2.0)
    y = x * 3
    y.retain_grad()
    y.register_hook(lambda g: g * 10)
    y.backward()
    assert y.grad.item() == 10.0


def test_hooks_that_return_something_else():
    x = leaf(1.0, 2.0)
    y = x * 2
    handle = y.register_hook(lambda g: 3.0)
    with pytest.raises(TypeError, match="hook returned float"):
        y.sum().backward()
    handle.remove()
    z = x * 2
    z.register_hook(lambda g: g[:1])
    with pytest.raises(RuntimeError, match="shape"):
        z.sum().backward()
    with pytest.raises(RuntimeError, match="does not require"):
        x.detach().register_hook(lambda g: g)


def test_errors_in_hooks_leave_the_mode_alone():
    x = leaf(1.0)
    y = x * 2

    def fail(gradient):
        raise KeyError("mine")

    handle = y.register_hook(fail)
    with pytest.raises(KeyError, match="mine"):
        y.backward()
    assert sg.is_grad_enabled()
    handle.remove()
    (x * 2).backward()
    assert x.grad.item() == 2.0


def test_hooks_on_nodes():
    x, seen = leaf(2.0), []
    y = x * 3

    def see(operands, results):
        seen.append(([g if g is None else g.item() for g in operands], [g.item() for g in results]))

    y.grad_fn.register_hook(see)
    handle = y.grad_fn.register_hook(lambda operands, results: tuple(None if g is None else g * 2 for g in operands))
    y.backward(retain_graph=True)
    assert seen == [([3.0, None], [1.0])]
    assert x.grad.item() == 6.0
    handle.remove()
    y.backward()
    assert x.grad.item() == 9.0


# ---- autograd_grad


def test_several_outputs_and_inputs():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    outputs = [(a * b).sum(), a * 2]
    found = sg.autograd_grad(outputs, [a, b], grad_outputs=[None, sg.tensor([1.0, 10.0])])
    assert [g.tolist() for g in found] == [[5.0, 24.0], [1.0, 2.0]]
    assert a.grad is None


def test_inputs_that_are_no_leaves():
    x = leaf(2.0)
    y = x * x
    z = y * y
    gy, gx = sg.autograd_grad(z, [y, x])
    assert gy.item() == 8.0
    assert gx.item() == 32.0


def test_the_same_input_twice():
    x = leaf(2.0)
    first, second = sg.autograd_grad(x * x, (x, x))
    assert first.item() == second.item() == 4.0


def test_an_output_that_is_an_input():
    x = leaf(2.0)
    assert sg.autograd_grad(x, x)[0].item() == 1.0
    y = x * 3
    gy, gx = sg.autograd_grad(y, (y, x))
    assert (gy.item(), gx.item()) == (1.0, 3.0)
    z = y * y
    gz, gy = sg.autograd_grad([z, y], [z, y])
    assert (gz.item(), gy.item()) == (1.0, 13.0)


def test_unused_inputs():
    a, b = leaf(1.0), leaf(2.0, 3.0)
    with pytest.raises(RuntimeError, match=r"inputs\[1\].*allow_unused=True"):
        sg.autograd_grad(a * 2, (a, b))
    assert sg.autograd_grad(a * 2, (a, b), allow_unused=True)[1] is None
    zero = sg.autograd_grad(a * 2, (a, b), materialize_grads=True)[1]
    assert zero.tolist() == [0.0, 0.0]
    with pytest.raises(RuntimeError, match="does not require"):
        sg.autograd_grad(a * 2, sg.tensor(1.0))
    with pytest.raises(RuntimeError, match="empty"):
        sg.autograd_grad(a * 2, [])
    with pytest.raises(TypeError, match="sequence of tensors"):
        sg.autograd_grad(a * 2, 1.0)


def test_an_unused_input_with_materialized_gradients_and_no_allowance():
    a, b = leaf(1.0), leaf(2.0)
    with pytest.raises(ValueError, match="allow_unused"):
        sg.autograd_grad(a * 2, (a, b), allow_unused=False, materialize_grads=True)


def test_many_weights_at_once():
    x = leaf(1.0, 2.0, 3.0)
    y = x * x
    (rows,) = sg.autograd_grad(y, x, eager.eye(3), is_grads_batched=True)
    assert rows.tolist() == [[2.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 6.0]]


def test_backward_of_many():
    a, b = leaf(1.0, 2.0), leaf(3.0)
    eager.autograd.backward([a * 2, b * b], [sg.tensor([1.0, 1.0]), None])
    assert a.grad.tolist() == [2.0, 2.0]
    assert b.grad.item() == 6.0


def test_the_same_root_twice():
    x = leaf(2.0)
    y = x * x
    eager.autograd.backward([y, y])
    assert x.grad.item() == 8.0


def test_one_root_below_another():
    x = leaf(2.0)
    y = x * x
    z = y * 3
    eager.autograd.backward([y, z])
    assert x.grad.item() == 16.0


def test_backward_into_some_inputs():
    a, b = leaf(2.0), leaf(3.0)
    y = a * b
    z = y * a
    z.backward(inputs=[a], retain_graph=True)
    assert a.grad.item() == 12.0
    assert b.grad is None
    z.backward(inputs=b, retain_graph=True)
    assert b.grad.item() == 4.0
    z.backward(inputs=[y])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert y.grad.item() == 2.0
    with pytest.raises(RuntimeError, match="empty"):
        (a * b).backward(inputs=[])


# ---- shapes of graphs


def test_diamonds():
    x = leaf(1.5)
    y = x
    for _ in range(40):  # 2**40 paths
        y = y * 0.5 + y * 0.5
    y.backward()
    assert x.grad.item() == 1.0


def test_each_node_runs_once():
    x = leaf(1.0)
    y = x * 2
    calls = []
    y.register_hook(lambda g: calls.append(g.item()))
    (y + y * 2 + (y * 3).exp() * 0).backward()
    assert calls == [3.0]


def test_deep_chains():
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y + 0.001
    y.backward()
    assert x.grad.item() == 1.0
    first = weakref.ref(y.grad_fn)
    del y
    assert first() is None


def test_deep_chains_with_saved_values_and_gradients_of_gradients():
    x = sg.tensor(1.0, dtype=np.float64, requires_grad=True)
    y = x
    for _ in range(3_000):
        y = y * 1.001 * x / x
    (slope,) = sg.autograd_grad(y, x, create_graph=True)
    assert slope.item() == pytest.approx(1.001**3000)
    assert sg.autograd_grad(slope, x)[0].item() == pytest.approx(0, abs=1e-6)


def test_walking_the_graph():
    a, b = leaf(2.0), leaf(3.0)
    y = (a * b + 1).exp()
    node = y.grad_fn
    assert repr(node) == "<ExpBackward0>"
    ((added, _),) = node.next_functions
    assert added.name() == "AddBackward0"
    assert [edge[0] and edge[0].name() for edge in added.next_functions] == ["MulBackward0", None]
    multiplied = added.next_functions[0][0]
    ends = [edge[0] for edge in multiplied.next_functions]
    assert [end.name() for end in ends] == ["AccumulateGrad", "AccumulateGrad"]
    assert ends[0].variable is a
    assert ends[1].variable is b
    assert ends[0].next_functions == ()


def test_one_end_for_each_leaf():
    x = leaf(2.0)
    y = x * x
    first, second = (edge[0] for edge in y.grad_fn.next_functions)
    assert first is second


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda x: x + 1, "AddBackward0"),
        (lambda x: x - 1, "SubBackward0"),
        (lambda x: x / 2, "DivBackward0"),
        (lambda x: x**2, "PowBackward0"),
        (lambda x: -x, "NegBackward0"),
        (lambda x: x @ x.T, "MmBackward0"),
        (lambda x: x @ x[0], "MvBackward0"),
        (lambda x: x[0] @ x[0], "DotBackward0"),
        (lambda x: x.sum(), "SumBackward0"),
        (lambda x: x.mean(0), "MeanBackward1"),
        (lambda x: np.exp(x), "ExpBackward0"),
        (lambda x: x.relu(), "ReluBackward0"),
        (lambda x: x.clamp(min=0), "ClampBackward1"),
        (lambda x: x[0], "SelectBackward0"),
        (lambda x: x[:1], "SliceBackward0"),
        (lambda x: x.T, "PermuteBackward0"),
        (lambda x: x.reshape(4), "ViewBackward0"),
        (lambda x: x.clone(), "CloneBackward0"),
        (lambda x: eager.cat([x, x]), "CatBackward0"),
        (lambda x: eager.stack([x, x]), "StackBackward0"),
        (lambda x: eager.where(x > 0, x, 0.0), "WhereBackward0"),
        (lambda x: x.double(), "ToCopyBackward0"),
    ],
)
def test_names(make, name):
    assert make(leaf([1.0, 2.0], [3.0, 4.0])).grad_fn.name() == name


def test_a_tape_is_freed_with_its_last_result():
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        y = (x * x + x).exp()
        reference = weakref.ref(y.grad_fn)
        z = y.sum()
        del y
        z.backward()
        del z
        assert reference() is None
    finally:
        gc.enable()


# ---- weights


def test_weights_of_results():
    x = leaf(1.0, 2.0)
    y = x * x
    for weights in (sg.tensor([1.0, 10.0]), np.array([1.0, 10.0]), [1.0, 10.0]):
        x.grad = None
        y.backward(weights, retain_graph=True) if not isinstance(weights, list) else y.backward(sg.tensor(weights), retain_graph=True)
        assert x.grad.tolist() == [2.0, 40.0]
    with pytest.raises(RuntimeError, match=r"\(3,\).*\(2,\)"):
        y.backward(sg.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(RuntimeError, match="gradient=v"):
        y.backward()
    with pytest.raises(RuntimeError, match="does not require gradients"):
        y.detach().backward()
    with pytest.raises(RuntimeError, match="2 tensors and 1 gradients"):
        eager.autograd.backward([y, y], [sg.tensor([1.0, 1.0])])


def test_weights_that_require_gradients():
    x, v = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (g,) = sg.autograd_grad(x * x, x, v, create_graph=True)
    g.sum().backward()
    assert v.grad.tolist() == [2.0, 4.0]
    assert x.grad.tolist() == [6.0, 8.0]


def test_forward_by_two_backward_passes():
    x, t = leaf(1.0, 2.0, 3.0), sg.tensor([1.0, 0.5, 2.0])
    y = x.sin() * x
    v = eager.zeros(3, requires_grad=True)
    (pulled,) = sg.autograd_grad(y, x, v, create_graph=True)
    (pushed,) = sg.autograd_grad(pulled, v, t)
    expected = (np.cos(x.detach().numpy()) * x.detach().numpy() + np.sin(x.detach().numpy())) * t.numpy()
    np.testing.assert_allclose(pushed.numpy(), expected, rtol=1e-5)


# ---- modes


def test_no_grad():
    x = leaf(2.0)
    with sg.no_grad():
        y = x * x
        assert not sg.is_grad_enabled()
        with sg.enable_grad():
            z = x * x
            with sg.no_grad():
                assert not (x * 1).requires_grad
            assert (x * 1).requires_grad
        assert not (x * 1).requires_grad
    assert sg.is_grad_enabled()
    assert not y.requires_grad and y.grad_fn is None
    z.backward()
    assert x.grad.item() == 4.0


def test_decorated_functions():
    x = leaf(2.0)

    @sg.no_grad()
    def square(x, *, times=1):
        """Square it."""
        return x * x * times

    @sg.no_grad
    def cube(x):
        return x * x * x

    @sg.no_grad()
    def outer(x):
        return inner(x), x * 2

    @sg.enable_grad()
    def inner(x):
        return x * 3

    assert not square(x, times=2).requires_grad
    assert square.__doc__ == "Square it."
    assert square.__name__ == "square"
    assert not cube(x).requires_grad
    tracked, untracked = outer(x)
    assert tracked.requires_grad and not untracked.requires_grad
    assert sg.is_grad_enabled()


def test_decorated_generators():
    modes = []

    @sg.no_grad()
    def steps(n):
        received = None
        for k in range(n):
            modes.append(sg.is_grad_enabled())
            received = yield k, received
        return "end"

    def outer():
        result = yield from steps(3)
        yield result

    generator = outer()
    found = [next(generator)]
    assert sg.is_grad_enabled()
    with sg.enable_grad():
        found.append(generator.send("sent"))
    found.append(next(generator))
    assert next(generator) == "end"
    assert found == [(0, None), (1, "sent"), (2, None)]
    assert modes == [False] * 3


def test_generators_are_thrown_into_and_closed():
    seen = []

    @sg.no_grad()
    def careful():
        try:
            while True:
                try:
                    yield 1
                except KeyError:
                    seen.append(("caught", sg.is_grad_enabled()))
        finally:
            seen.append(("closed", sg.is_grad_enabled()))

    generator = careful()
    next(generator)
    assert generator.throw(KeyError()) == 1
    generator.close()
    assert seen == [("caught", False), ("closed", False)]
    assert sg.is_grad_enabled()


def test_exceptions_restore_the_mode():
    with pytest.raises(KeyError), sg.no_grad():
        raise KeyError
    assert sg.is_grad_enabled()

    @sg.no_grad()
    def fail():
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert sg.is_grad_enabled()


def test_one_context_entered_twice():
    mode = sg.no_grad()
    with mode:
        with mode:
            assert not sg.is_grad_enabled()
        assert not sg.is_grad_enabled()
    assert sg.is_grad_enabled()


def test_set_grad_enabled():
    with eager.set_grad_enabled(False):
        assert not sg.is_grad_enabled()
        with eager.set_grad_enabled(True):
            assert sg.is_grad_enabled()
        assert not sg.is_grad_enabled()
    assert sg.is_grad_enabled()
    eager.set_grad_enabled(False)
    assert not sg.is_grad_enabled()
    eager.set_grad_enabled(True)
    assert sg.is_grad_enabled()

    @eager.set_grad_enabled(False)
    def value(x):
        return x * 2

    assert sg.is_grad_enabled()
    assert not value(leaf(1.0)).requires_grad


def test_backward_under_no_grad():
    x = leaf(2.0)
    y = x * x
    with sg.no_grad():
        y.backward()
    assert x.grad.item() == 4.0


def test_modes_do_not_decorate_values():
    with pytest.raises(TypeError, match="no_grad"):
        sg.no_grad(3)


# ---- threads


def in_threads(work, count=8):
    errors, start = [], threading.Barrier(count)

    def run(number):
        try:
            start.wait()
            work(number)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_modes_belong_to_threads():
    seen = {}
    with sg.no_grad():
        in_threads(lambda k: seen.update({k: sg.is_grad_enabled()}), 2)
    assert seen == {0: True, 1: True}


def test_backward_passes_in_threads():
    def work(number):
        for k in range(30):
            x = leaf(float(number), float(k))
            with sg.no_grad() if k % 2 else sg.enable_grad():
                y = (x * x * (number + 1)).sum()
            assert y.requires_grad == (k % 2 == 0)
            if y.requires_grad:
                y.backward()
                assert x.grad.tolist() == [2.0 * number * (number + 1), 2.0 * k * (number + 1)]

    in_threads(work)


def test_threads_share_a_leaf():
    shared = sg.tensor(np.ones(2000), requires_grad=True)

    def work(number):
        for _ in range(25):
            (shared * 2).sum().backward()

    in_threads(work)
    assert set(shared.grad.tolist()) == {8 * 25 * 2.0}


def test_threads_share_a_graph():
    x = leaf(3.0)
    y = x * x
    found = []
    in_threads(lambda k: found.append(sg.autograd_grad(y, x, retain_graph=True)[0].item()))
    assert found == [6.0] * 8


def test_post_accumulate_hooks_see_the_whole_gradient():
    x, seen = sg.tensor([1.0, 2.0], requires_grad=True), []
    x.grad = sg.tensor([10.0, 10.0])
    handle = x.register_post_accumulate_grad_hook(lambda leaf: seen.append((leaf is x, leaf.grad.tolist())))
    (x * x + x).sum().backward()
    sg.autograd_grad((x * x).sum(), x)  # which accumulates nothing
    assert seen == [(True, [13.0, 15.0])]
    handle.remove()
    (x * x).sum().backward()
    assert len(seen) == 1


def test_post_accumulate_hooks_may_update_the_leaf():
    x = sg.tensor(3.0, requires_grad=True)

    def descend(leaf):
        with sg.no_grad():
            leaf -= 0.1 * leaf.grad
        leaf.grad = None

    x.register_post_accumulate_grad_hook(descend)
    for _ in range(2):
        (x**2).backward()
    assert x.grad is None
    assert x.item() == pytest.approx(3.0 * 0.8**2)


@pytest.mark.parametrize("make", [lambda x: x * 2, lambda x: x.detach()])
def test_post_accumulate_hooks_are_for_leaves(make):
    with pytest.raises(RuntimeError, match=r"leaves that require gradients.*register_hook"):
        make(sg.tensor([1.0], requires_grad=True)).register_post_accumulate_grad_hook(print)


def test_what_is_no_function_is_no_hook():
    x = sg.tensor([1.0], requires_grad=True)
    for register in (x.register_hook, (x * 2).register_hook, x.register_post_accumulate_grad_hook, (x * 2).grad_fn.register_hook):
        with pytest.raises(TypeError, match="a hook must be a function, not int"):
            register(3)
