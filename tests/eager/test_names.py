"""What the tape calls operations: PyTorch's names, which its printouts show."""

import numpy as np
import pytest

import staticgrad.eager as torch

NAMES = {
    "AddBackward0": lambda x, s: (x + 1, 1 + x, x.add(1), torch.add(x, x), np.add(x, 1)),
    "SubBackward0": lambda x, s: (x - 1, x.sub(1), x - x),
    "RsubBackward1": lambda x, s: (1 - x, 2.5 - x),
    "MulBackward0": lambda x, s: (x * 2, 2 * x, x.mul(x)),
    "DivBackward0": lambda x, s: (x / 2, x / x, x.div(2)),
    "PowBackward0": lambda x, s: (x**2, x**0.5, x.pow(2), torch.pow(x, 2)),
    "PowBackward1": lambda x, s: (x**x, x**s),
    "PowBackward2": lambda x, s: (2**x, torch.pow(2.5, s)),
    "NegBackward0": lambda x, s: (-x, x.neg()),
    "SinBackward0": lambda x, s: (x.sin(), torch.sin(x), np.sin(x)),
    "SigmoidBackward0": lambda x, s: (x.sigmoid(), torch.sigmoid(x)),
    "ClampBackward0": lambda x, s: (x.clamp(min=x), torch.clamp(x, s, s)),
    "ClampBackward1": lambda x, s: (x.clamp(min=0), x.clamp(0, 1), torch.clamp(x, max=1.0), x.clip(0, 1)),
    "SumBackward0": lambda x, s: (x.sum(), torch.sum(x)),
    "SumBackward1": lambda x, s: (x.sum(0), x.sum(dim=1), x.sum((0, 1)), x.sum(axis=0, keepdims=True), torch.sum(x, dim=-1)),
    "MeanBackward0": lambda x, s: (x.mean(), torch.mean(x)),
    "MeanBackward1": lambda x, s: (x.mean(0), x.mean(dim=1, keepdim=True)),
    "MaxBackward0": lambda x, s: (x.max(0)[0], x.max(dim=1).values),
    "MaxBackward1": lambda x, s: (x.max(), torch.max(x)),
    "MaximumBackward0": lambda x, s: (torch.maximum(x, s), torch.max(x, x)),
    "MmBackward0": lambda x, s: (x @ x, x.mm(x), torch.matmul(x, x)),
    "MvBackward0": lambda x, s: (x @ x[0], x.mv(x[0])),
    "DotBackward0": lambda x, s: (x[0] @ x[1], torch.dot(x[0], x[1])),
    "SelectBackward0": lambda x, s: (x[0], x[0, 1], x[..., 0]),
    "SliceBackward0": lambda x, s: (x[1:],),
    "IndexBackward0": lambda x, s: (x[[0]], x[x > 0]),
    "PermuteBackward0": lambda x, s: (x.T, x.permute(1, 0)),
    "ViewBackward0": lambda x, s: (x.view(4), x.reshape(4)),
    "StackBackward0": lambda x, s: (torch.stack([x, x]),),
    "CatBackward0": lambda x, s: (torch.cat([x, x]),),
    "WhereBackward0": lambda x, s: (torch.where(x > 0, x, s),),
    "ToCopyBackward0": lambda x, s: (x.double(), x.to(torch.float64)),
    "CloneBackward0": lambda x, s: (x.clone(),),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_those_of_pytorch(name):
    x, s = torch.ones(2, 2, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    for result in NAMES[name](x, s):
        assert result.grad_fn.name() == name
        assert f"grad_fn=<{name}>" in repr(result)


def test_aliases_take_the_same_options():
    x, y = torch.tensor([7.0, -7.0]), torch.tensor([2.0, 2.0])
    assert torch.subtract(x, y, alpha=2).tolist() == torch.sub(x, y, alpha=2).tolist() == x.subtract(y, alpha=2).tolist() == [3.0, -11.0]
    assert torch.add(x, y, alpha=2).tolist() == x.add(y, alpha=2).tolist() == [11.0, -3.0]
    for divide in (torch.div, torch.divide, torch.true_divide):
        assert divide(x, 2).tolist() == [3.5, -3.5]
        assert divide(x, y, rounding_mode="floor").tolist() == [3.0, -4.0]
        assert divide(x, 2, rounding_mode="trunc").tolist() == [3.0, -3.0]


def test_second_order():
    x = torch.tensor(3.0, requires_grad=True)
    (slope,) = torch.autograd.grad(x**3, x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, x, create_graph=True)
    assert slope.grad_fn.name() == "PowBackwardBackward0"
    assert curvature.grad_fn.name() == "PowBackwardBackwardBackward0"
