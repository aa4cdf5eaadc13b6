"""`sg.checkpoint`: fewer bytes, and the same bits under every transform."""

import numpy as np
import optree
import pytest

import staticgrad as sg

RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 4))


def block(x, w):
    y = np.tanh(x @ w)
    return np.sin(np.exp(-y * y) @ w) + y


def loss_of(layer):
    return lambda x, w: np.sum((x + layer(layer(x, w), w) * x) ** 2)


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in optree.tree_leaves(tree)]


TRANSFORMS = {
    "grad": lambda f: sg.grad(f, argnums=(0, 1))(X, W),
    "vjp": lambda f: sg.vjp(f, X, W)[1](1.0),
    "jvp": lambda f: sg.jvp(f, (X, W), (W[:3], W)),
    "hessian": lambda f: sg.hessian(f)(X, W),
    "vmap": lambda f: sg.vmap(sg.grad(f), in_axes=(0, None))(np.stack([X, 2 * X]), W),
    "grad of grad": lambda f: sg.grad(lambda x: np.sum(sg.grad(f)(x, W) ** 2))(X),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_no_result_changes_a_bit(name):
    assert bits(TRANSFORMS[name](loss_of(sg.checkpoint(block)))) == bits(TRANSFORMS[name](loss_of(block)))


def test_inside_is_computed_anew():
    lowered = sg.grad(loss_of(sg.checkpoint(block))).lower(X, W)
    assert any(nest.title.startswith("again") for nest in lowered.schedule.nests)


@pytest.mark.parametrize(("policy", "anew"), [("nothing_saveable", True), ("everything_saveable", False)])
def test_policies(policy, anew):
    layer = sg.checkpoint(block, policy=getattr(sg.checkpoint_policies, policy))
    nests = sg.grad(loss_of(layer)).lower(X, W).schedule.nests
    assert any(nest.title.startswith("again") for nest in nests) == anew


def test_a_loop_keeps_what_its_steps_start_from():
    def looped(step):
        return sg.grad(lambda w: np.sum(sg.scan(lambda c, _: (step(c, w), None), X, None, length=20)[0]))

    plain, less = looped(block), looped(sg.checkpoint(block))
    assert bits(plain(W)) == bits(less(W))
    assert less.lower(W).memory < plain.lower(W).memory


def test_containers_options_and_closures():
    def f(tree, *, power, mode="x"):
        return {mode: tree["x"] ** power * W[0, 0], "none": None}

    g = sg.checkpoint(f)
    assert g({"x": X}, power=2)["none"] is None
    expected = sg.grad(lambda t: np.sum(f(t, power=2, mode="y")["y"]))({"x": X})
    assert bits(sg.grad(lambda t: np.sum(g(t, power=2, mode="y")["y"]))({"x": X})) == bits(expected)


def test_static_arguments_are_handed_on_as_they_are():
    def f(signs, x, power):
        return np.sum(sum(s * x**power for s in signs if s > 0))

    g = sg.checkpoint(f, static_argnums=(0, -1))
    signs = np.array([1.0, -1.0, 2.0])
    assert bits(sg.grad(lambda x: g(signs, x, 3))(X)) == bits(sg.grad(lambda x: f(signs, x, 3))(X))
    with pytest.raises(ValueError, match=r"static_argnums=\(0, -1\) of 0 arguments"):
        g()
    with pytest.raises(TypeError, match="must be integers"):
        sg.checkpoint(f, static_argnums="signs")


def test_what_one_of_two_policies_keeps():
    policies = sg.checkpoint_policies
    both = policies.save_from_both_policies(policies.checkpoint_dots, lambda name: name == "tanh")
    assert [both(name) for name in ("contract", "tanh", "exp")] == [True, True, False]


def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError, match="must be a function"):
        sg.checkpoint(3)
    with pytest.raises(TypeError, match="policy must be a function"):
        sg.checkpoint(block, policy="dots")
