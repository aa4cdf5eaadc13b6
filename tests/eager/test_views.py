"""Views and changes in place: who shares memory, where values and gradients go, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import staticgrad as sg
from staticgrad import eager
from staticgrad.eager.autograd import gradcheck, gradgradcheck
from staticgrad.errors import StaleValueError, TensorError

VIEWS = {
    "an element": lambda x: x[1, 2],
    "a row": lambda x: x[1],
    "a column": lambda x: x[:, 2],
    "from the end": lambda x: x[-1, -2:],
    "a block": lambda x: x[1:, ::2],
    "backward": lambda x: x[::-1, ::-1],
    "an ellipsis": lambda x: x[..., 1],
    "a new axis": lambda x: x[None, :, None, 1:3],
    "a tensor as index": lambda x: x[sg.tensor(1)],
    "a tensor in a slice": lambda x: x[sg.tensor(1) :],
    "T": lambda x: x.T,
    "mT": lambda x: x.mT,
    "t": lambda x: x.t(),
    "transpose": lambda x: x.transpose(0, 1),
    "permute": lambda x: x.permute(1, 0),
    "movedim": lambda x: x.movedim(0, 1),
    "view": lambda x: x.view(2, 6),
    "reshape": lambda x: x.reshape(-1),
    "flatten": lambda x: x.flatten(),
    "unflatten": lambda x: x.unflatten(1, (2, 2)),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "squeeze": lambda x: x[:1].squeeze(),
    "diagonal": lambda x: x.diagonal(),
    "select": lambda x: x.select(1, 2),
    "narrow": lambda x: x.narrow(0, 1, 2),
    "unbind": lambda x: x.unbind()[1],
    "split": lambda x: x.split(2)[1],
    "chunk": lambda x: x.chunk(2, dim=1)[1],
    "iteration": lambda x: list(x)[1],
    "np.transpose": lambda x: np.transpose(x),
    "np.reshape": lambda x: np.reshape(x, (6, 2)),
    "np.swapaxes": lambda x: np.swapaxes(x, 0, 1),
    "a view of a view": lambda x: x[1:].T[::2],
    "a view of a view of a view": lambda x: x.view(2, 6)[:, ::3].T[1],
    "detach": lambda x: x.detach(),
    "data": lambda x: x.data,
}
COPIES = {
    "clone": lambda x: x.clone(),
    "places": lambda x: x[[0, 1]],
    "a mask": lambda x: x[x > 0],
    "a tensor of places": lambda x: x[:, sg.tensor([0, 2])],
    "index_select": lambda x: x.index_select(0, sg.tensor([0])),
    "gather": lambda x: x.gather(0, sg.tensor([[0, 0, 0, 0]])),
    "repeat": lambda x: x.repeat(1, 1),
    "cat": lambda x: eager.cat([x]),
    "reshape of a transpose": lambda x: x.T.reshape(-1),
    "diag": lambda x: x.diag(),
    "a sum": lambda x: x + 0,
    "another dtype": lambda x: x.to(np.float32),
}


def base(requires_grad=False):
    return sg.tensor(np.arange(12.0).reshape(3, 4) - 4.5, requires_grad=requires_grad)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_views_share_memory(view):
    x = base()
    y = view(x)
    assert np.shares_memory(x.numpy(), y.numpy())
    before = x.numpy().copy()
    y.fill_(100.0)
    assert np.count_nonzero(x.numpy() != before) == y.numel()
    assert (x == 100).sum() == y.numel()
    x.zero_()
    assert (y == 0).all()


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_copies_do_not(copy):
    x = base()
    y = copy(x)
    before = x.tolist()
    y.fill_(100.0)
    assert x.tolist() == before


TRACKED = {name: view for name, view in VIEWS.items() if name not in ("detach", "data")}


@pytest.mark.parametrize("view", TRACKED.values(), ids=TRACKED)
def test_gradients_of_views(view):
    assert gradcheck(view, base(True))
    assert gradgradcheck(lambda x: view(x * x), base(True))


@pytest.mark.parametrize("view", TRACKED.values(), ids=TRACKED)
def test_gradients_of_writing_through_views(view):
    def change(x, w):
        y = x * 1
        part = view(y)
        part.mul_(w)
        part += part * 0.5
        return y * y, part

    w = sg.tensor(1.7, dtype=np.float64, requires_grad=True)
    assert gradcheck(change, (base(True), w), atol=1e-6)
    assert gradgradcheck(change, (base(True), w), atol=1e-6)


@pytest.mark.parametrize("view", TRACKED.values(), ids=TRACKED)
def test_gradients_of_writing_the_base(view):
    def change(x, w):
        y = x * 1
        part = view(y)
        y *= w
        y[0] = y[1].clone() * w
        return part * 2 + view(y)

    w = sg.tensor(1.7, dtype=np.float64, requires_grad=True)
    assert gradcheck(change, (base(True), w), atol=1e-6)


def test_the_version_is_shared():
    x = base()
    y = x[0]
    z = x.detach()
    data = x.data
    y += 1
    assert x._version == y._version == z._version == 1
    assert data._version == 0
    z.zero_()
    assert y._version == 2


def test_history_of_views():
    x = sg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 2
    first, rest = y[0], y[1:]
    assert first.grad_fn.name() == "SelectBackward0"
    rest.mul_(5)
    assert y.grad_fn.name() == "CopySlices"
    assert first.grad_fn.name() == "AsStridedBackward0"
    (first * 100 + y.sum()).backward()
    assert x.grad.tolist() == [202.0, 10.0, 10.0]


def test_a_constant_gets_a_history():
    x = sg.tensor(2.0, requires_grad=True)
    y = eager.zeros(3)
    kept = y[1:]
    assert not kept.requires_grad
    y[1] = x * 3
    assert y.requires_grad and not y.is_leaf
    assert kept.requires_grad
    assert not y[0].detach().requires_grad
    (kept * sg.tensor([1.0, 10.0])).sum().backward()
    assert x.grad.item() == 3.0


def test_loops_that_fill_an_array():
    x = sg.tensor([0.5, 0.25], dtype=np.float64, requires_grad=True)

    def f(x):
        y = eager.zeros(6, dtype=np.float64)
        y[:2] = x
        for k in range(2, 6):
            y[k] = y[k - 1].clone() * y[k - 2].clone() + k
        return y.sum()

    assert gradcheck(f, x)
    assert gradgradcheck(f, x)


def test_a_value_overwritten_has_no_gradient():
    x = sg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 2
    y[1] = 7.0
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 0.0, 2.0]


# ---- indices


INDICES = [
    0, -1, slice(None), slice(1, None), slice(None, None, -2), ..., None, (0, 1), (slice(None), -1), (..., 0), (None, 1, ..., None),
    [0, 2], ([0, 2], [1, 3]), (slice(1), [0, 0, 3]), np.array([[0, 1], [2, 2]]), (1, np.array([0, 1])), True, np.array([True, False, True]),
    (np.array([0, 1])[:, None], np.array([1, 2])), (slice(None), np.array([True, False, True, True])), (), (slice(0, 0), 1), [],
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_indices(index):
    array = np.arange(12.0).reshape(3, 4)
    x = sg.tensor(array, requires_grad=True)
    y = x[index]
    np.testing.assert_array_equal(y.detach().numpy(), array[index])
    weights = np.cos(np.arange(y.numel())).reshape(y.shape)
    y.backward(sg.tensor(weights))
    expected = np.zeros((3, 4))
    np.add.at(expected, index, weights)
    np.testing.assert_allclose(x.grad.numpy(), expected)


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_indices_that_are_tensors(index):
    def as_tensors(item):
        if isinstance(item, tuple):
            return tuple(map(as_tensors, item))
        return sg.tensor(np.array(item, int) if isinstance(item, list) else item) if isinstance(item, (list, np.ndarray)) else item

    array = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(sg.tensor(array)[as_tensors(index)].numpy(), array[index])


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_written_indices(index):
    array = np.arange(12.0).reshape(3, 4)
    x = sg.tensor(array, requires_grad=True)
    v = sg.tensor(5.0, dtype=np.float64, requires_grad=True)
    y = x * 2
    y[index] = v
    expected = array * 2
    expected[index] = 5.0
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    weights = np.cos(np.arange(12)).reshape(3, 4)
    y.backward(sg.tensor(weights))
    written = np.zeros((3, 4), bool)
    written[index] = True
    np.testing.assert_allclose(x.grad.numpy(), np.where(written, 0, 2 * weights))
    np.testing.assert_allclose(v.grad.item(), weights[written].sum(), atol=1e-15)


@pytest.mark.parametrize("index", [i for i in INDICES if i is not None and i is not True], ids=repr)
def test_indices_that_are_added_to(index):
    array = np.arange(12.0).reshape(3, 4)
    x = sg.tensor(array, requires_grad=True)
    y = x * 1
    y[index] += 2 * x[index] + 1
    expected = array.copy()
    expected[index] += 2 * expected[index] + 1
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    y.sum().backward()
    touched = np.zeros((3, 4), bool)
    touched[index] = True
    assert x.grad.numpy()[~touched].tolist() == [1.0] * int((~touched).sum())


@pytest.mark.parametrize(
    "index, error, words",
    [
        (3, IndexError, "3 is out of bounds for axis 0 with size 3"),
        ((0, -5), IndexError, "-5"),
        ((0, 0, 0), IndexError, "too many indices"),
        ((..., ...), IndexError, "single ellipsis"),
        (1.0, IndexError, "1.0"),
        ("a", IndexError, "'a'"),
        ([0, 3], IndexError, "3"),
        (np.array([True, False]), IndexError, "mask|boolean"),
        (np.array([0.5]), IndexError, "integer.*f64"),
        (slice(0, 2, 0), ValueError, "zero"),
        (([0, 1], [0, 1, 2]), (IndexError, ValueError), "broadcast"),
    ],
    ids=repr,
)
def test_wrong_indices(index, error, words):
    x = base()
    for use in (lambda: x[index], lambda: x.__setitem__(index, 1.0)):
        with pytest.raises(error, match=words) as caught:
            use()
        assert isinstance(caught.value, sg.StaticgradError)
        assert __file__ in str(caught.value)
    assert x._version == 0


def test_written_values_must_fit():
    x = base()
    with pytest.raises(ValueError, match=r"2"):
        x[0] = sg.tensor([1.0, 2.0])
    with pytest.raises(ValueError):
        x[0] = [1.0, 2.0, 3.0]
    assert x._version == 0


# ---- what is refused


def test_changing_leaves():
    x = base(True)
    for change in (
        lambda: x.add_(1),
        lambda: x.zero_(),
        lambda: x.__setitem__(0, 1.0),
        lambda: x[0].mul_(2),
        lambda: x.T[0].fill_(2),
        lambda: x.view(12).__setitem__(0, 2.0),
        lambda: x.__iadd__(1),
        lambda: np.add(x, 1, out=x),
    ):
        with pytest.raises(RuntimeError, match=r"leaf that requires gradients.*in\s+place") as caught:
            change()
        assert "no_grad" in str(caught.value)
        assert __file__ in str(caught.value)
    assert x._version == 0
    np.testing.assert_array_equal(x.detach().numpy(), base().numpy())


def test_changing_leaves_unrecorded():
    x = base(True)
    (x * x).sum().backward()
    before = x.detach().clone()
    with sg.no_grad():
        x -= 0.5 * x.grad
        x[0] = 1.0
        x[1].mul_(2)
    assert x.is_leaf and x.requires_grad
    assert x.grad_fn is None
    assert x[0].tolist() == [1.0] * 4
    assert x._version == 3
    x.grad.zero_()
    assert x.grad.abs().sum() == 0
    x.data -= before
    x.data[0, 0] = 3.0
    assert x.is_leaf and x.requires_grad
    assert x[0, 0].item() == 3.0
    x.detach().zero_()
    assert x.abs().sum() == 0


def test_repeated_elements_and_read_only_arrays_are_not_written():
    wide = sg.tensor([1.0, 2.0]).expand(3, 2)
    for change in (lambda: wide.add_(1), lambda: wide.__setitem__(0, 1.0), lambda: wide[0].zero_()):
        with pytest.raises(RuntimeError, match=r"clone\(\)"):
            change()
    array = np.zeros(3)
    array.setflags(write=False)
    with pytest.raises(RuntimeError, match="read-only"):
        eager.from_numpy(array).add_(1)
    assert array.tolist() == [0, 0, 0]


def test_memory_that_overlaps():
    x = sg.tensor([1.0, 2.0, 3.0, 4.0])
    x[1:] += x[:-1]
    assert x.tolist() == [1.0, 3.0, 5.0, 7.0]
    x[:] = x.flip(0)
    assert x.tolist() == [7.0, 5.0, 3.0, 1.0]
    x[1:] = x[:-1]
    assert x.tolist() == [7.0, 7.0, 5.0, 3.0]
    y = sg.tensor([[1.0, 2.0], [3.0, 4.0]])
    y += y.T
    assert y.tolist() == [[2.0, 5.0], [5.0, 8.0]]
    y.copy_(y.T * 2)


def test_a_tensor_changed_by_itself():
    def square(x):
        y = x * 1
        y *= y
        y[0] *= y[1]
        y[1:] /= y[:-1]
        y[:2] **= y[1:]
        return y

    x = sg.tensor([1.5, 2.5, 3.5], dtype=np.float64, requires_grad=True)
    a, b, c = 1.5**2 * 2.5**2, 2.5**2, 3.5**2
    np.testing.assert_allclose(square(x).tolist(), [a ** (b / a), (b / a) ** (c / b), c / b])
    assert gradcheck(square, x)
    assert gradgradcheck(square, x)


STALE = {
    "mul": lambda y, w: y * w,
    "div": lambda y, w: w / y,
    "pow": lambda y, w: y**2,
    "matmul": lambda y, w: y @ w,
    "sin": lambda y, w: y.sin(),
    "log": lambda y, w: y.log(),
    "relu": lambda y, w: y.relu(),
    "clamp": lambda y, w: y.clamp(0, 2),
    "maximum": lambda y, w: eager.maximum(y, w),
    "prod": lambda y, w: y.prod(),
    "norm": lambda y, w: y.norm(),
    "max": lambda y, w: y.amax(),
    "logsumexp": lambda y, w: y.logsumexp(0),
}


@pytest.mark.parametrize("use", STALE.values(), ids=STALE)
@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.add_(1),
        lambda y: y.__setitem__(0, 0.5),
        lambda y: y[1:].mul_(2),
        lambda y: y.detach().zero_(),
        lambda y: y.view(-1)[0].fill_(9),
        lambda y: np.exp(y, out=y),
    ],
    ids=["add_", "setitem", "view", "detached", "view of view", "out"],
)
def test_operands_changed_after_they_were_saved(use, change):
    x = sg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    w = sg.tensor([1.5, 0.5, 2.5], requires_grad=True)
    y = x * 1
    z = use(y, w).sum()
    change(y)
    with pytest.raises(RuntimeError, match=r"in-place operation.*clone\(\)") as caught:
        z.backward()
    assert isinstance(caught.value, StaleValueError)
    assert "version 1" in str(caught.value) and "version 0" in str(caught.value)
    assert str(caught.value).count(__file__) == 2  # here, and where it was recorded


@pytest.mark.parametrize("use", ["exp", "sqrt", "tanh", "sigmoid", "reciprocal"])
def test_results_changed_after_they_were_saved(use):
    x = sg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = getattr(x, use)()
    y.mul_(2)
    node = y.grad_fn.next_functions[0][0]
    if node._recipe.backward((0,)).results:
        with pytest.raises(RuntimeError, match="its result"):
            y.sum().backward()
    else:  # this one is computed anew from its operand
        y.sum().backward()


@pytest.mark.parametrize(
    "use",
    [lambda y: y + 1, lambda y: y.sum(), lambda y: -y, lambda y: y[1:], lambda y: y.T, lambda y: y * 3.0, lambda y: y.clone()],
    ids=["add", "sum", "neg", "slice", "T", "times a number", "clone"],
)
def test_what_saves_nothing_may_be_changed(use):
    x = sg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 1
    z = use(y)
    if z._base is not None:
        z = z * 1
    y.zero_()
    z.sum().backward()
    assert x.grad is not None


def test_changes_before_saving_do_no_harm():
    x = sg.tensor([1.0, 2.0], requires_grad=True)
    y = x * 1
    y += 1
    z = (y * y).sum()
    z.backward()
    assert x.grad.tolist() == [4.0, 6.0]


def test_changes_of_constants_that_were_saved():
    x, w = sg.tensor([1.0, 2.0], requires_grad=True), sg.tensor([3.0, 4.0])
    y = (x * w).sum()
    w += 1
    with pytest.raises(RuntimeError, match="in-place"):
        y.backward()


def test_changes_of_data_are_not_noticed():
    x, w = sg.tensor([1.0, 2.0], requires_grad=True), sg.tensor([3.0, 4.0])
    y = (x * w).sum()
    w.data += 1
    y.backward()
    assert x.grad.tolist() == [4.0, 5.0]


def test_changes_of_a_leaf_between_forward_and_backward():
    x = sg.tensor([1.0, 2.0], requires_grad=True)
    y = (x * x).sum()
    with sg.no_grad():
        x += 1
    with pytest.raises(RuntimeError, match="in-place"):
        y.backward()


def test_replacing_data():
    x = sg.tensor([1.0, 2.0], requires_grad=True)
    x.data = sg.tensor([5.0, 6.0, 7.0])
    (x * x).sum().backward()
    assert x.grad.tolist() == [10.0, 12.0, 14.0]
    with pytest.raises(RuntimeError, match="int64"):
        x.data = sg.tensor([1, 2])


def test_detaching_views_in_place():
    x = sg.tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    with pytest.raises(TensorError, match="view"):
        y[0].detach_()
    y.detach_()
    assert y.is_leaf and not y.requires_grad


# ---- random programs against a functional reference

SHAPE = (3, 4)
PARTS = [
    (slice(None),), (0,), (slice(1, None),), (slice(None), 1), (slice(None), slice(None, None, 2)), (slice(None, None, -1),), (..., -1),
    (slice(None), slice(3, 0, -1)), (slice(0, 2), slice(1, 3)),
]  # fmt: skip
CHANGES = {
    "add": lambda part, v: part + v,
    "mul": lambda part, v: part * v,
    "set": lambda part, v: part * 0 + v,
    "sin": lambda part, v: np.sin(part),
    "own": lambda part, v: part + part * v,
}
STEP = st.tuples(st.sampled_from(["base", "view"]), st.sampled_from(range(len(PARTS))), st.booleans(), st.sampled_from(sorted(CHANGES)))


def eagerly(program, x, v):
    """Run a program of views and changes on one tensor, whose views stay alive."""
    y = x * 1
    views = [y]
    for target, number, turned, change in program:
        source = y if target == "base" else views[-1]
        part = source[PARTS[number]] if source.ndim == 2 else source[::-1]
        if turned and part.ndim == 2:
            part = part.T
        views.append(part)
        match change:
            case "add":
                part += v
            case "mul":
                part.mul_(v)
            case "set":
                part[...] = v
            case "sin":
                np.sin(part, out=part)
            case "own":
                part.add_(part.clone() * v)
    return y, views[1:]


def functionally(program, x, v):
    """Return the same with arrays of places and no change in place: `places` says which elements of the base a view shows."""
    places = [np.arange(x.numel()).reshape(SHAPE)]
    y = x.reshape(-1)
    for target, number, turned, change in program:
        source = places[0] if target == "base" else places[-1]
        chosen = source[PARTS[number]] if source.ndim == 2 else source[::-1]
        if turned and chosen.ndim == 2:
            chosen = chosen.T
        places.append(chosen)
        if not chosen.size:
            continue
        mask = np.zeros(x.numel(), bool)
        mask[chosen.ravel()] = True
        y = eager.where(sg.tensor(mask), CHANGES[change](y, v), y)
    return y.reshape(SHAPE), [y[chosen] for chosen in places[1:]]


@given(st.lists(STEP, min_size=1, max_size=6))
def test_random_programs(program):
    array = np.linspace(0.2, 1.4, 12).reshape(SHAPE)
    found = []
    for run in (eagerly, functionally):
        x = sg.tensor(array, requires_grad=True)
        v = sg.tensor(0.8, dtype=np.float64, requires_grad=True)
        result, parts = run(program, x, v)
        loss = (result * sg.tensor(np.cos(np.arange(12.0)).reshape(SHAPE))).sum()
        for k, part in enumerate(parts):
            loss = loss + (k + 1) * (part * part).sum()
        gx, gv = sg.autograd_grad(loss, (x, v), create_graph=True, materialize_grads=True)
        second = sg.autograd_grad((gx * gx).sum() + gv, (x, v), materialize_grads=True)
        found.append([t.detach().numpy() for t in (result, *parts, gx, gv, *second)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
