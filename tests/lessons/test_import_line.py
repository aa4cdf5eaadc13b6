"""Code as introductions to PyTorch write it runs when its import line reads `import staticgrad.eager as torch`.

Each block is such a piece of code. The values that it must give were compared with PyTorch's when it was written.
"""

import inspect
import re

import numpy as np
import pytest

import staticgrad as sg
import staticgrad.eager as torch

NAMES = [
    "tensor", "as_tensor", "randn", "zeros", "ones", "arange", "linspace", "manual_seed", "float", "float32", "float64", "double", "int",
    "uint8", "int64", "bool", "device", "cuda.is_available", "sin", "cos", "exp", "log", "sqrt", "sigmoid", "relu", "tanh", "clamp",
    "where", "sum", "mean", "stack", "cat", "matmul", "mm", "no_grad", "enable_grad", "is_grad_enabled", "set_default_dtype",
    "get_default_dtype", "autograd.Function", "autograd.grad", "autograd.gradcheck",
]  # fmt: skip
ATTRIBUTES = [
    "mm", "matmul", "view", "reshape", "pow", "sub", "add", "mul", "clamp", "sum", "mean", "sin", "exp", "log", "sigmoid", "relu",
    "clone", "float", "double", "int", "to", "item", "numpy", "tolist", "detach", "requires_grad_", "zero_", "backward", "retain_grad",
    "register_hook", "T", "shape", "size", "dim", "dtype", "grad", "grad_fn", "is_leaf", "requires_grad", "data",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_of_the_namespace_exist(name):
    found = torch
    for part in name.split("."):
        found = getattr(found, part)
    assert name.partition(".")[0] in dir(torch)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_of_tensors_exist(name):
    x = torch.ones(2, 2, requires_grad=True)
    getattr(x, name)
    assert name in dir(x)


def test_every_name_occurs_in_a_block():
    """What is only there is not yet what works: each name of the lists is used below."""
    blocks = "".join(inspect.getsource(function) for name, function in globals().items() if name.startswith("test_block_"))
    assert [name for name in NAMES if not re.search(rf"torch\.{re.escape(name)}\b", blocks)] == []
    assert [name for name in ATTRIBUTES if not re.search(rf"\.{name}\b", blocks.replace("torch.", ""))] == []


# ---- making tensors


def test_block_tensors_of_data():
    scalar = torch.tensor(3.0)
    vector = torch.tensor([1, 2, 3])
    matrix = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert (scalar.dtype, vector.dtype, matrix.dtype) == (torch.float32, torch.int64, torch.float)
    assert (scalar.dim(), vector.dim(), matrix.dim()) == (0, 1, 2)
    assert matrix.shape == matrix.size() == (2, 2) and matrix.size(0) == 2
    assert scalar.item() == 3.0 and matrix.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    array = np.array([0.5, 1.5])
    assert torch.tensor(array).dtype == torch.float64 == torch.double
    shared = torch.as_tensor(array)
    array[0] = 7.0
    assert shared.tolist() == [7.0, 1.5]
    assert torch.tensor([True, False]).dtype == torch.bool
    assert torch.tensor([300, -1]).to(torch.uint8).tolist() == [44, 255]


def test_block_tensors_of_nothing():
    assert torch.zeros(2, 3).tolist() == [[0.0] * 3] * 2
    assert torch.ones(2, dtype=torch.int64).tolist() == [1, 1]
    assert torch.arange(5).tolist() == [0, 1, 2, 3, 4] and torch.arange(5).dtype == torch.int64
    assert torch.arange(0, 1, 0.25).tolist() == [0.0, 0.25, 0.5, 0.75]
    assert torch.linspace(0, 1, 5).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_block_random_tensors():
    torch.manual_seed(0)
    first = torch.randn(2000, 3)
    torch.manual_seed(0)
    second = torch.randn(2000, 3)
    assert torch.equal(first, second) and first.dtype == torch.float32
    assert abs(first.mean().item()) < 0.05 and abs(first.numpy().std() - 1) < 0.05


def test_block_devices():
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x = torch.ones(3, device=device)
    y = torch.zeros(3).to(device)
    assert (x + y).tolist() == [1.0, 1.0, 1.0]
    assert str(device) == "cpu" and device.type == "cpu"


def test_block_dtypes():
    x = torch.tensor([1.7, -1.7])
    assert x.int().tolist() == [1, -1] and x.int().dtype == torch.int
    assert x.double().dtype == torch.float64 and x.double().float().dtype == torch.float32
    assert x.to(torch.int64).dtype == torch.int64
    assert (x > 0).dtype == torch.bool and (x > 0).float().tolist() == [1.0, 0.0]
    assert torch.get_default_dtype() == torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.tensor(0.1).dtype == torch.zeros(1).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


# ---- operations


def test_block_elementwise_functions():
    x = torch.tensor([0.25, 1.0])
    for function, reference in (
        (torch.sin, np.sin), (torch.cos, np.cos), (torch.exp, np.exp), (torch.log, np.log), (torch.sqrt, np.sqrt), (torch.tanh, np.tanh),
    ):  # fmt: skip
        np.testing.assert_allclose(function(x).numpy(), reference(x.numpy()), rtol=1e-6)
    np.testing.assert_allclose(torch.sigmoid(x).tolist(), [0.5621765, 0.7310586], rtol=1e-6)
    assert torch.relu(torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]
    assert torch.clamp(torch.tensor([-1.0, 0.5, 2.0]), min=0, max=1).tolist() == [0.0, 0.5, 1.0]
    assert torch.where(x > 0.5, x, torch.zeros(2)).tolist() == [0.0, 1.0]
    assert torch.sum(x).item() == 1.25 and torch.mean(x).item() == 0.625


def test_block_methods():
    x = torch.tensor([1.0, 4.0])
    assert x.add(1).tolist() == [2.0, 5.0] and x.sub(x).tolist() == [0.0, 0.0]
    assert x.mul(2).tolist() == [2.0, 8.0] and x.pow(2).tolist() == [1.0, 16.0]
    assert x.clamp(min=2).tolist() == [2.0, 4.0] and x.relu().tolist() == [1.0, 4.0]
    assert x.sum().item() == 5.0 and x.mean().item() == 2.5
    np.testing.assert_allclose(x.sin().tolist(), [0.841471, -0.7568025], rtol=1e-6)
    np.testing.assert_allclose(x.exp().log().tolist(), [1.0, 4.0], rtol=1e-6)
    np.testing.assert_allclose(x.sigmoid().tolist(), [0.7310586, 0.9820138], rtol=1e-6)
    assert torch.tensor([[1.0, 2.0], [3.0, 4.0]]).sum(dim=0).tolist() == [4.0, 6.0]
    assert torch.tensor([[1.0, 2.0], [3.0, 4.0]]).mean(dim=1, keepdim=True).tolist() == [[1.5], [3.5]]


def test_block_shapes():
    x = torch.arange(6)
    assert x.view(2, 3).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert x.view(-1, 2).shape == (3, 2) and x.reshape(3, 2).T.tolist() == [[0, 2, 4], [1, 3, 5]]
    viewed = x.view(2, 3)
    viewed[0, 0] = 10
    assert x[0].item() == 10
    a, b = torch.ones(2), torch.zeros(2)
    assert torch.stack([a, b]).tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert torch.cat([a, b]).tolist() == [1.0, 1.0, 0.0, 0.0]
    assert torch.cat((a.view(1, 2), b.view(1, 2)), dim=1).tolist() == [[1.0, 1.0, 0.0, 0.0]]


def test_block_matrix_products():
    a, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    expected = [[2.0, 1.0], [4.0, 3.0]]
    for product in (torch.mm(a, b), torch.matmul(a, b), a.mm(b), a.matmul(b), a @ b):
        assert product.tolist() == expected
    assert torch.matmul(a, torch.tensor([1.0, 1.0])).tolist() == [3.0, 7.0]
    with pytest.raises(RuntimeError):
        torch.mm(a, torch.ones(3, 3))


# ---- gradients


def test_block_first_gradient():
    x = torch.tensor(3.0, requires_grad=True)
    y = x**2
    assert (y.is_leaf, y.requires_grad, y.grad_fn.name()) == (False, True, "PowBackward0")
    y.backward()
    assert x.grad.item() == 6.0 and x.is_leaf and x.grad_fn is None
    assert x.data.item() == 3.0


def test_block_accumulating_and_zeroing():
    w = torch.ones(2, requires_grad=True)
    for total in (3.0, 6.0):
        (3 * w).sum().backward()
        assert w.grad.tolist() == [total, total]
    w.grad.zero_()
    assert w.grad.tolist() == [0.0, 0.0]


def test_block_retain_grad_and_hooks():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    seen = []
    y = x * 2
    y.retain_grad()
    handle = y.register_hook(lambda grad: seen.append(grad.tolist()))
    y.pow(2).sum().backward()
    assert y.grad.tolist() == [4.0, 8.0] and x.grad.tolist() == [8.0, 16.0] and seen == [[4.0, 8.0]]
    handle.remove()
    y = x * 2
    y.register_hook(lambda grad: grad * 10)
    x.grad = None
    y.sum().backward()
    assert x.grad.tolist() == [20.0, 20.0]


def test_block_not_tracking():
    x = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        assert not (x * 2).requires_grad and not torch.is_grad_enabled()
        with torch.enable_grad():
            assert (x * 2).requires_grad and torch.is_grad_enabled()
    assert not x.detach().requires_grad
    with pytest.raises(RuntimeError, match="detach"):
        x.numpy()
    copy = x.clone()
    assert copy.requires_grad and copy.detach().numpy().tolist() == [1.0, 1.0]
    plain = torch.zeros(1)
    assert plain.requires_grad_().requires_grad
    with pytest.raises(RuntimeError):
        x.add_(1)


def test_block_regression():
    torch.manual_seed(1)
    x = torch.linspace(-1, 1, 50).view(-1, 1)
    y = 3 * x - 2 + 0.01 * torch.randn(50, 1)
    w, b = torch.zeros(1, 1, requires_grad=True), torch.zeros(1, requires_grad=True)
    for _ in range(200):
        loss = ((x.mm(w) + b - y) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            w -= 0.5 * w.grad
            b -= 0.5 * b.grad
        w.grad.zero_()
        b.grad.zero_()
    np.testing.assert_allclose([w.item(), b.item()], [3.0, -2.0], atol=0.02)


def test_block_network_by_hand_and_by_autograd():
    torch.manual_seed(2)
    dtype, device = torch.float, torch.device("cpu")
    x, y = torch.randn(8, 5, device=device, dtype=dtype), torch.randn(8, 2, device=device, dtype=dtype)
    w1 = torch.randn(5, 6, device=device, dtype=dtype, requires_grad=True)
    w2 = torch.randn(6, 2, device=device, dtype=dtype, requires_grad=True)
    hidden = x.mm(w1)
    active = hidden.clamp(min=0)
    predicted = active.mm(w2)
    loss = (predicted - y).pow(2).sum()
    loss.backward()
    with torch.no_grad():
        of_predicted = 2.0 * (predicted - y)
        of_w2 = active.T.mm(of_predicted)
        of_hidden = of_predicted.mm(w2.T).clone()
        of_hidden[hidden < 0] = 0
        of_w1 = x.T.mm(of_hidden)
    np.testing.assert_allclose(w1.grad.numpy(), of_w1.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(w2.grad.numpy(), of_w2.numpy(), rtol=1e-4, atol=1e-4)


def test_block_custom_function():
    class Exponential(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            result = x.exp()
            ctx.save_for_backward(result)
            return result

        @staticmethod
        def backward(ctx, grad_output):
            (result,) = ctx.saved_tensors
            return grad_output * result

    x = torch.tensor([0.0, 1.0], dtype=torch.double, requires_grad=True)
    Exponential.apply(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp([0.0, 1.0]), rtol=1e-12)
    assert torch.autograd.gradcheck(Exponential.apply, (x,), eps=1e-6, atol=1e-4)


def test_block_autograd_grad():
    x = torch.tensor(2.0, requires_grad=True)
    (first,) = torch.autograd.grad(x**3, x, create_graph=True)
    (second,) = torch.autograd.grad(first, x)
    assert (first.item(), second.item()) == (12.0, 12.0) and x.grad is None


def test_block_weights_for_a_vector():
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * x
    y.backward(torch.tensor([1.0, 0.1, 0.01]))
    np.testing.assert_allclose(x.grad.tolist(), [2.0, 0.4, 0.06], rtol=1e-6)


# ---- printing

PRINTED = {
    "tensor(9., grad_fn=<PowBackward0>)": lambda: torch.tensor(3.0, requires_grad=True) ** 2,
    "tensor([4517.2969,   82.6000])": lambda: torch.tensor([4517.296875, 82.6]),
    "tensor([  5.3671, -17.3012], requires_grad=True)": lambda: torch.tensor([5.3671, -17.3012], requires_grad=True),
    "tensor([1, 2, 3])": lambda: torch.tensor([1, 2, 3]),
    "tensor([1., 2.], dtype=float64)": lambda: torch.tensor([1.0, 2.0], dtype=torch.float64),
    "tensor([ True, False])": lambda: torch.tensor([1.0, 0.0]) > 0.5,
    "tensor([[1., 0.],\n        [0., 1.]])": lambda: torch.eye(2),
    "tensor([0.6667, 1.3333, 2.0000])": lambda: torch.tensor([1.0, 2.0, 3.0]) * 2 / 3,
}
"""Of the spaces in front of 5.3671 there are two, as in PyTorch: columns are as wide as their widest number."""


@pytest.mark.parametrize("text", PRINTED)
def test_printing(text):
    assert repr(PRINTED[text]()) == str(PRINTED[text]()) == text


# ---- the same names inside of a trace

TRACED = {
    "sin cos exp log sqrt tanh sigmoid": lambda x: torch.sum(
        torch.sin(x) * torch.cos(x) + torch.exp(x) / torch.log(x + 2) + torch.sqrt(x) * torch.tanh(x) - torch.sigmoid(x)
    ),
    "relu clamp where": lambda x: torch.sum(torch.relu(x - 0.5) + torch.clamp(x, 0.3, 1.0) * torch.where(x > 0.7, x, x * x)),
    "mean stack cat": lambda x: torch.mean(torch.cat([torch.stack([x, x * x]), torch.stack([x.sum() * x, x])]) ** 2),
    "matmul mm": lambda x: torch.sum(torch.mm(x.reshape(2, 2), x.reshape(2, 2).T) * torch.matmul(x.reshape(2, 2), x.reshape(2, 2))),
}  # fmt: skip


@pytest.mark.parametrize("names", TRACED)
def test_functions_mean_the_same_in_a_trace(names):
    function, at = TRACED[names], np.array([0.4, 0.9, 1.7, 0.2])
    value, gradient = sg.value_and_grad(function)(at)
    x = torch.tensor(at, requires_grad=True)
    loss = function(x)
    loss.backward()
    np.testing.assert_allclose(value, loss.item(), rtol=1e-12)
    np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-9)
    np.testing.assert_allclose(gradient, sg.numeric_grad(function)(at), rtol=1e-7)


def test_a_custom_function_means_the_same_in_a_trace():
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient * 3 * x**2

    x = torch.tensor([1.0, 2.0], requires_grad=True)
    Cube.apply(x).sum().backward()
    assert x.grad.tolist() == sg.grad(lambda x: np.sum(Cube.apply(x)))(np.array([1.0, 2.0])).tolist() == [3.0, 12.0]
