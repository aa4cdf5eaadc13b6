"""Every operation on tensors: values against NumPy, gradients to second order against differences, on all kinds of memory."""

import operator

import numpy as np
import pytest

import staticgrad as sg
from staticgrad import eager
from staticgrad.eager import operations, operators
from staticgrad.eager.autograd import gradcheck, gradgradcheck
from tests.eager.samples import FUNCTIONS_ALONE, METHODS_ALONE, SAMPLES, Sample, fractions, mixed, positive, steps, whole

DTYPES = {"float", "double", "int", "long", "short", "bool"}  # in the namespace these names are dtypes
FUNCTIONS = [sample for sample in SAMPLES if sample not in METHODS_ALONE and sample.name not in DTYPES]
METHODS = [sample for sample in SAMPLES if sample.name in operations.METHODS and sample not in FUNCTIONS_ALONE]
ELEMENTWISE = [sample for sample in SAMPLES if sample.elementwise]
SMOOTH = [sample for sample in FUNCTIONS if sample.smooth]
IN_PLACE = [
    sample
    for sample in METHODS
    if f"{sample.name}_" in operations.METHODS and np.shape(sample.reference(*sample.operands)) == sample.operands[0].shape
]


def label(sample):
    return sample.label


def function(sample):
    return getattr(eager, sample.name)


def method(sample):
    return lambda x, *args, **kwargs: getattr(x, sample.name)(*args, **kwargs)


def tensors(arrays, requires_grad=False):
    return [sg.tensor(array, requires_grad=requires_grad and array.dtype.kind == "f") for array in arrays]


def parts(result):
    return list(result) if isinstance(result, tuple) else [result]


def assert_agree(found, expected, tolerance=1e-12):
    found, expected = parts(found), parts(expected)
    assert len(found) == len(expected)
    for x, y in zip(found, expected, strict=True):
        assert type(x) is sg.Tensor
        assert x.shape == np.shape(y)
        assert x.dtype == np.asarray(y).dtype
        np.testing.assert_allclose(x.detach().numpy(), y, rtol=tolerance, atol=tolerance)


def single(arrays):
    return [array.astype(np.float32) if array.dtype == np.float64 else array for array in arrays]


def test_every_function_has_a_sample():
    assert set(operations.FUNCTIONS) - DTYPES == {sample.name for sample in FUNCTIONS}


def test_every_method_has_a_sample():
    assert set(operations.METHODS) == {sample.name for sample in METHODS} | {f"{sample.name}_" for sample in IN_PLACE}


def test_every_operation_is_a_name_of_the_namespace():
    assert set(operations.FUNCTIONS) <= set(eager.__all__)


# ---- values


@pytest.mark.parametrize("sample", FUNCTIONS, ids=label)
def test_functions_mean_what_numpys_do(sample):
    assert_agree(sample.call(function(sample), *tensors(sample.operands)), sample.reference(*sample.operands))


@pytest.mark.parametrize("sample", FUNCTIONS, ids=label)
def test_functions_of_single_precision(sample):
    arrays = single(sample.operands)
    assert_agree(sample.call(function(sample), *tensors(arrays)), sample.reference(*arrays), 1e-5)


@pytest.mark.parametrize("sample", METHODS, ids=label)
def test_methods_do_what_functions_do(sample):
    assert_agree(sample.call(method(sample), *tensors(sample.operands)), sample.reference(*sample.operands))


@pytest.mark.parametrize("sample", FUNCTIONS, ids=label)
def test_functions_are_part_of_a_trace(sample):
    traced = sg.trace(lambda *arrays: sample.call(function(sample), *arrays), backend="interp")
    found, expected = traced(*sample.operands), sample.reference(*sample.operands)
    for x, y in zip(parts(found), parts(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("sample", ELEMENTWISE, ids=label)
def test_shapes(sample, shape):
    arrays = [np.resize(array, shape) for array in sample.operands]
    xs = tensors(arrays, requires_grad=True)
    found = sample.call(function(sample), *xs)
    assert_agree(found, sample.reference(*arrays))
    if sample.smooth:
        found.sum().backward()
        assert all(x.grad.shape == shape for x in xs)


LAYOUTS = {
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "strided": lambda x: np.repeat(x, 2, -1)[..., ::2] if x.ndim else x,
    "backward": lambda x: np.flip(np.array(np.flip(x))) if x.ndim else x,
    "read-only": lambda x: np.broadcast_to(x, x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_of_any_layout(layout):
    for sample in FUNCTIONS:
        arrays = [LAYOUTS[layout](array) for array in sample.operands]
        xs = [eager.from_numpy(array) for array in arrays]
        plain = tensors(sample.operands, requires_grad=True)
        for x, leaf in zip(xs, plain, strict=True):
            x.requires_grad_(leaf.requires_grad)
        found = sample.call(function(sample), *xs)
        assert_agree(found, sample.reference(*sample.operands))
        if not sample.smooth:
            continue
        expected = parts(sample.call(function(sample), *plain))
        weights = [sg.tensor(np.cos(np.arange(y.numel())).reshape(y.shape)).to(y.dtype) for y in expected]
        for outputs in (parts(found), expected):
            chosen = [(y, w) for y, w in zip(outputs, weights, strict=True) if y.requires_grad]
            eager.autograd.backward([y for y, _ in chosen], [w for _, w in chosen])
        for x, leaf in zip(xs, plain, strict=True):
            if leaf.requires_grad:
                np.testing.assert_allclose(x.grad.numpy(), leaf.grad.numpy(), rtol=1e-14, atol=1e-14, err_msg=sample.label)


# ---- derivatives


@pytest.mark.parametrize("sample", SMOOTH, ids=label)
def test_derivatives(sample):
    xs = tensors(sample.operands, requires_grad=True)

    def of_floats(*args):
        return tuple(y for y in parts(sample.call(function(sample), *args)) if y.dtype.kind == "f")

    assert any(y.requires_grad for y in of_floats(*xs))
    assert gradcheck(of_floats, xs, atol=1e-7, rtol=1e-6)
    assert gradgradcheck(of_floats, xs, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("sample", [s for s in FUNCTIONS if not s.smooth], ids=label)
def test_no_derivatives(sample):
    found = sample.call(function(sample), *tensors(sample.operands, requires_grad=True))
    for y in parts(found):
        assert y.requires_grad == (y.dtype.kind == "f")


# ---- operators

BINARY = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv, "floordiv": operator.floordiv,
    "mod": operator.mod, "pow": operator.pow, "matmul": operator.matmul, "and": operator.and_, "or": operator.or_,
    "xor": operator.xor, "lshift": operator.lshift, "rshift": operator.rshift,
}  # fmt: skip
COMPARISONS = {"lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": operator.eq, "ne": operator.ne}
UNARY = {"neg": operator.neg, "pos": operator.pos, "abs": operator.abs, "invert": operator.invert}
INTEGER = {"and", "or", "xor", "lshift", "rshift", "invert"}


def test_every_operator_is_tried():
    assert set(BINARY) == set(operators.ARITHMETIC)
    assert set(COMPARISONS) == set(operators.COMPARISONS)
    assert set(UNARY) == set(operators.UNARY)


@pytest.mark.parametrize("name", BINARY)
def test_operators(name):
    operate = BINARY[name]
    domain = whole if name in INTEGER else positive
    x, y = domain(3, 3), (steps if name in ("mod", "floordiv") else domain)(3, 3)
    a, b = tensors([x, y], requires_grad=True)
    assert_agree(operate(a, b), operate(x, y))
    assert_agree(operate(a, y), operate(x, y))
    assert_agree(operate(x, b), operate(x, y))
    if name != "matmul":
        number = 2 if name in INTEGER else 2.5
        assert_agree(operate(a, number), operate(x, number))
        assert_agree(operate(number, b), operate(number, y))
        assert_agree(operate(a, 2), operate(x, 2))
        assert_agree(operate(2, b), operate(2, y))
    if name in INTEGER:
        return
    assert gradcheck(operate, (a, b), atol=1e-7, rtol=1e-6)
    assert gradgradcheck(operate, (a, b), atol=1e-7, rtol=1e-6)
    if name != "matmul":
        for number in (2, 2.5):
            assert gradcheck(lambda a, n=number: operate(a, n), (a,), atol=1e-7, rtol=1e-6)
            assert gradcheck(lambda b, n=number: operate(n, b), (b,), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("name", BINARY)
def test_operators_in_place(name):
    operate, in_place = BINARY[name], getattr(operator, f"i{name.rstrip('_')}")
    domain = whole if name in INTEGER else positive
    x, y = domain(3, 3), (steps if name in ("mod", "floordiv") else domain)(3, 3)
    a, b = tensors([x, y], requires_grad=True)
    changed = a.clone()
    same = changed
    changed = in_place(changed, b)
    assert changed is same
    assert changed._version == 1
    assert_agree(changed, operate(x, y))
    if name in INTEGER:
        return

    def change(a, b):
        c = a.clone()
        c = in_place(c, b)
        return c

    assert gradcheck(change, (a, b), atol=1e-7, rtol=1e-6)
    assert gradgradcheck(change, (a, b), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons(name):
    operate = COMPARISONS[name]
    x, y = whole(3, 4), whole(3, 4)
    a, b = tensors([x, y])
    for found in (operate(a, b), operate(a, y), operate(x, b)):
        assert_agree(found, operate(x, y))
    assert_agree(operate(a, 4), operate(x, 4))
    assert_agree(operate(4, a), operate(4, x))
    assert_agree(operate(a, 4.5), operate(x, 4.5))


@pytest.mark.parametrize("name", UNARY)
def test_operators_of_one_operand(name):
    x = whole(2, 3) if name in INTEGER else mixed(2, 3)
    (a,) = tensors([x], requires_grad=True)
    assert_agree(UNARY[name](a), UNARY[name](x))
    if name not in INTEGER:
        assert gradcheck(UNARY[name], (a,), atol=1e-7)


@pytest.mark.parametrize("other", ["text", None, {}, {1, 2}, object(), 1 + 2j])
@pytest.mark.parametrize("name", ["add", "mul", "matmul"])
def test_operands_that_are_none(name, other):
    with pytest.raises(TypeError):
        BINARY[name](sg.tensor([1.0]), other)
    with pytest.raises(TypeError):
        BINARY[name](other, sg.tensor([1.0]))


def test_numbers_are_no_new_recipes():
    x = sg.tensor([1.0, 2.0], requires_grad=True)
    (x * 0.5).sum().backward()
    before = len(operations_kept())
    for k in range(50):
        y = (x * (k + 0.25) + k / 7 - k) / (k + 1.5)
        y.sum().backward()
    assert len(operations_kept()) - before < 10
    assert float(y.sum()) == pytest.approx(sum((v * 49.25 + 7 - 49) / 50.5 for v in (1, 2)), rel=1e-6)


def operations_kept():
    from staticgrad.eager import recipes

    return recipes._recipes


# ---- in place


@pytest.mark.parametrize("sample", IN_PLACE, ids=label)
def test_in_place(sample):
    arrays = list(sample.operands)
    expected = sample.reference(*arrays).astype(arrays[0].dtype)
    xs = tensors(arrays)
    before = xs[0].data_ptr()
    found = sample.call(lambda x, *args, **kwargs: getattr(x, f"{sample.name}_")(*args, **kwargs), *xs)
    assert found is xs[0]
    assert found.data_ptr() == before
    assert found._version == 1
    assert_agree(found, expected)


@pytest.mark.parametrize("sample", [s for s in IN_PLACE if s.smooth], ids=label)
def test_derivatives_of_changes_in_place(sample):
    xs = tensors(sample.operands, requires_grad=True)

    def change(x, *others):
        return sample.call(lambda y, *args, **kwargs: getattr(y, f"{sample.name}_")(*args, **kwargs), x.clone(), *others)

    if xs[0].requires_grad:
        assert gradcheck(change, xs, atol=1e-7, rtol=1e-6)
        assert gradgradcheck(change, xs, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("sample", [s for s in METHODS_ALONE if s.name.endswith("_")], ids=label)
def test_derivatives_of_writing(sample):
    xs = tensors(sample.operands, requires_grad=True)

    def change(x, *others):
        x = x * 2
        sample.call(lambda y, *args: getattr(y, sample.name)(*args), x, *others)
        return x

    assert gradcheck(change, xs, atol=1e-7)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.add_(0.5),
        lambda x: x.mul_(sg.tensor([1.5, 2.0])),
        lambda x: x.div_(2),
        lambda x: x.sqrt_(),
        lambda x: operator.iadd(x, 0.5),
        lambda x: operator.itruediv(x, 2),
        lambda x: np.exp(x, out=x),
    ],
)
def test_floats_do_not_fit_integers_in_place(change):
    x = sg.tensor([1, 2])
    with pytest.raises(TypeError, match="int64"):
        change(x)
    assert x.tolist() == [1, 2]
    assert x._version == 0


def test_in_place_results_keep_the_dtype():
    x = sg.tensor([1.0, 2.0])
    x += sg.tensor([1.0, 1.0], dtype=np.float64)
    assert x.dtype == np.float32
    x *= 2
    assert x.tolist() == [4.0, 6.0]


def test_in_place_results_must_fit():
    x = sg.tensor([1.0, 2.0])
    with pytest.raises(ValueError, match="shape"):
        x += sg.tensor([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(ValueError, match="shape"):
        x.copy_(sg.tensor([1.0, 2.0, 3.0]))


# ---- arguments

WRONG = {
    "axis out of range": (lambda x: x.sum(2), ValueError, "axis 2|2.*out of bounds"),
    "negative axis out of range": (lambda x: x.mean(dim=-3), ValueError, "-3"),
    "axis twice": (lambda x: x.sum((0, 0)), ValueError, "axis|duplicate|repeated"),
    "axis of softmax": (lambda x: x.softmax(2), ValueError, "2"),
    "no axis of softmax": (lambda x: x.softmax(), RuntimeError, "dim"),
    "no axis of cumsum": (lambda x: x.cumsum(), RuntimeError, "dim"),
    "axis of max": (lambda x: x.max(5), ValueError, "5"),
    "axis of sort": (lambda x: x.sort(4), ValueError, "4"),
    "axis of argmax": (lambda x: x.argmax(3), ValueError, "3"),
    "axis of unbind": (lambda x: x.unbind(2), IndexError, "2"),
    "axis of split": (lambda x: x.split(1, dim=2), IndexError, "2"),
    "axis of chunk": (lambda x: x.chunk(2, dim=-3), IndexError, "-3"),
    "axis of select": (lambda x: x.select(3, 0), IndexError, "3"),
    "axis of narrow": (lambda x: x.narrow(2, 0, 1), IndexError, "2"),
    "axis of flatten": (lambda x: x.flatten(2), IndexError, "2"),
    "axis of unflatten": (lambda x: x.unflatten(2, (1, 1)), IndexError, "2"),
    "axis of squeeze": (lambda x: x.squeeze(2), IndexError, "2"),
    "axis of unsqueeze": (lambda x: x.unsqueeze(4), ValueError, "4"),
    "axis of gather": (lambda x: x.gather(2, sg.tensor([[0]])), IndexError, "2"),
    "axis of index_select": (lambda x: x.index_select(2, sg.tensor([0])), ValueError, "2"),
    "axis of index_fill": (lambda x: x.index_fill(2, sg.tensor([0]), 1.0), IndexError, "2"),
    "axis of transpose": (lambda x: x.transpose(0, 2), ValueError, "2"),
    "axis of cat": (lambda x: eager.cat([x, x], 2), ValueError, "2"),
    "a part too long": (lambda x: x.narrow(0, 1, 5), (IndexError, RuntimeError, ValueError), "narrow"),
    "a place out of range": (lambda x: x.select(0, 2), IndexError, "2"),
    "parts that do not add up": (lambda x: x.split([1, 3]), ValueError, "add up"),
    "parts of no length": (lambda x: x.split(0), ValueError, "at least 1"),
    "no parts": (lambda x: x.chunk(0), (ValueError, RuntimeError), "at least 1"),
    "shapes that do not broadcast": (lambda x: x + sg.tensor([1.0, 2.0]), ValueError, r"\(2, 3\)|\[2, ?3\]"),
    "shapes of products": (lambda x: x @ x, ValueError, r"\(2, 3\)|\[2, ?3\]"),
    "ranks of mm": (lambda x: x.mm(x[0]), ValueError, "mm"),
    "ranks of dot": (lambda x: x.dot(x), ValueError, "dot"),
    "ranks of t": (lambda x: x[None].t(), ValueError, "axes"),
    "reshape": (lambda x: x.reshape(4, 2), ValueError, "4, 2"),
    "view": (lambda x: x.view(5), ValueError, "5"),
    "expand": (lambda x: x.expand(4, 3), ValueError, "4, 3"),
    "expand to fewer axes": (lambda x: x.expand(3), ValueError, "3"),
    "stack of different shapes": (lambda x: eager.stack([x, x[0]]), ValueError, "shape"),
    "cat of different shapes": (lambda x: eager.cat([x, x.T]), ValueError, "shape|size|axis"),
    "stack of nothing": (lambda x: eager.stack([]), (ValueError, RuntimeError, TypeError), "at least one|empty"),
    "cat of nothing": (lambda x: eager.cat([]), (ValueError, RuntimeError, TypeError), "at least one|empty"),
    "cat of a tensor": (lambda x: eager.cat(x[0]), (ValueError, RuntimeError, TypeError), "cat|axes|axis|dimension"),
    "a wrong name": (lambda x: x.sum(dims=0), TypeError, "dims"),
    "a wrong name of a function": (lambda x: eager.exp(x, axis=0), TypeError, "axis"),
    "too many arguments": (lambda x: x.exp(2), TypeError, "exp"),
    "too few arguments": (lambda x: x.add(), TypeError, "add.*other"),
    "too few arguments of a product": (lambda x: x.matmul(), TypeError, "this operation.*y"),
    "too few arguments in place": (lambda x: x.detach().add_(), TypeError, "add.*other"),
    "no such method": (lambda x: x.summ(), AttributeError, "summ.*sum"),
    "no such function": (lambda x: eager.sinn(x), AttributeError, "sinn.*sin"),
    "no such dtype": (lambda x: x.to("float99"), TypeError, "float99"),
    "no such device": (lambda x: x.to("cuda"), RuntimeError, "CPU"),
    "the bits as another dtype": (lambda x: x.view(np.int32), RuntimeError, "dtype"),
    "mean of integers": (lambda x: x.long().mean(), (TypeError, RuntimeError), "float"),
    "clamp without bounds": (lambda x: x.clamp(), ValueError, "min and max"),
    "a wrong rounding mode": (lambda x: x.div(2, rounding_mode="up"), ValueError, "rounding_mode"),
    "where alone": (lambda x: eager.where(x > 0), TypeError, r"x\[condition\]"),
    "extremum of nothing": (lambda x: x[:0].max(), (ValueError, RuntimeError), "empty|identity|zero-size"),
    "place of the extremum of nothing": (lambda x: x[:0].argmax(), (ValueError, RuntimeError), "empty|sequence|zero-size"),
    "an option that is no option": (lambda x: x.sum(dim=np.ones), TypeError, "sum|axis|dim|integer"),
    "bits of floats": (lambda x: x & x, TypeError, "bitwise_and|float"),
    "a matrix product with a number": (lambda x: x @ 2, (TypeError, ValueError), "matmul"),
}


@pytest.mark.parametrize("call, error, words", WRONG.values(), ids=list(WRONG))
def test_wrong_arguments(call, error, words):
    x = sg.tensor(mixed(2, 3).astype(np.float32), requires_grad=True)
    with pytest.raises(error, match=words) as caught:
        call(x)
    assert isinstance(caught.value, sg.StaticgradError)
    assert __file__ in str(caught.value)


def test_reductions_take_both_vocabularies():
    x = sg.tensor(mixed(2, 3, 2))
    for name in ("sum", "mean", "prod", "amax", "amin", "var", "std", "any", "all"):
        reduce = getattr(x, name)
        assert reduce(dim=1, keepdim=True).tolist() == reduce(axis=1, keepdims=True).tolist()
        assert reduce(dim=(0, 2)).tolist() == reduce(axis=(0, 2)).tolist()
        assert reduce(dim=[0, 2]).tolist() == reduce(axis=(0, 2)).tolist()
        assert reduce(-1).tolist() == reduce(2).tolist()
        assert reduce().shape == ()


def test_results_of_max_and_sort_have_names():
    x = sg.tensor([[1.0, 3.0, 2.0], [6.0, 5.0, 4.0]], requires_grad=True)
    best = x.max(dim=1)
    assert best.values.tolist() == [3.0, 6.0]
    assert best.indices.tolist() == [1, 0]
    ordered, places = eager.sort(x, descending=True)
    assert ordered.tolist() == [[3.0, 2.0, 1.0], [6.0, 5.0, 4.0]]
    assert places.dtype == np.int64
    best.values.sum().backward()
    assert x.grad.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]


def test_numpys_methods_of_arrays():
    array = mixed(3, 4)
    x = sg.tensor(array, requires_grad=True)
    assert_agree(x.astype(np.float32), array.astype(np.float32))
    assert_agree(x.ravel(), array.ravel())
    assert_agree(x.round(), array.round())
    assert_agree(x.trace(), array.trace())
    assert_agree(x.take(sg.tensor([0, 5])), array.take([0, 5]))
    assert_agree(x.copy(), array)
    assert_agree(x.conj(), array)
    assert_agree(x.compress([True, False, True], axis=0), array[::2])
    assert gradcheck(lambda x: x.ravel() * x.copy().ravel(), (x,))
    assert x.nbytes == 96
    assert x.itemsize == 8


def test_properties():
    array = mixed(2, 3, 4)
    x = sg.tensor(array)
    assert_agree(x[0].T, array[0].T)
    assert_agree(x.mT, array.mT)
    assert_agree(x[0].H, array[0].T)
    assert x.real is x


# ---- dtypes


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "bool"])
def test_functions_of_integers_give_the_default_dtype(dtype):
    x = sg.tensor([1, 0, 1]).to(dtype)
    for name in ("exp", "sin", "sqrt", "log1p", "tanh", "sigmoid"):
        assert getattr(x, name)().dtype == np.float32
    assert (x / 2).dtype == np.float32
    assert (x / x).dtype == np.float32
    assert x.sum().dtype == np.int64
    assert x.softmax(0).dtype == np.float32


def test_promotion():
    single, double = sg.tensor([1.0]), sg.tensor([1.0], dtype=np.float64)
    assert (single + double).dtype == np.float64
    assert (single + sg.tensor(1.0, dtype=np.float64)).dtype == np.float32
    assert (single + 2.5).dtype == np.float32
    assert (double + 2.5).dtype == np.float64
    assert (sg.tensor([1]) + 2.5).dtype == np.float32
    assert (sg.tensor([1]) + single).dtype == np.float32
    assert (sg.tensor([1], dtype=np.int32) + sg.tensor([1])).dtype == np.int64
    assert (sg.tensor([1], dtype=np.int32) + 1).dtype == np.int32
    assert (sg.tensor([True]) + 1).dtype == np.int64
    assert eager.stack([single, double]).dtype == np.float64
    assert eager.where(sg.tensor([True]), single, double).dtype == np.float64


def test_gradients_have_the_dtype_of_their_leaves():
    single, double = sg.tensor([1.0, 2.0], requires_grad=True), sg.tensor([1.0, 2.0], dtype=np.float64, requires_grad=True)
    (single * double).sum().backward()
    assert single.grad.dtype == np.float32
    assert double.grad.dtype == np.float64


def test_kinks():
    x = sg.tensor([-1.0, 0.0, 1.0, 0.0], requires_grad=True)
    for f, expected in (
        (lambda x: x.abs(), [-1, 0, 1, 0]),
        (lambda x: x.relu(), [0, 0, 1, 0]),
        (lambda x: x.clamp(min=0), [0, 1, 1, 1]),
        (lambda x: x.clamp(-1, 1), [1, 1, 1, 1]),
        (lambda x: eager.maximum(x, x.detach() * 0), [0, 0.5, 1, 0.5]),
        (lambda x: x.amax(), [0, 0, 1, 0]),
        (lambda x: x[1:].amin(), [0, 0.5, 0, 0.5]),
    ):
        (gradient,) = sg.autograd_grad(f(x).sum(), x)
        assert gradient.tolist() == expected


def test_domains():
    inf, nan = float("inf"), float("nan")
    x = sg.tensor([-1.0, 0.0, inf, nan], requires_grad=True)
    np.testing.assert_array_equal(x.log().detach().numpy(), np.array([nan, -inf, inf, nan], np.float32))
    np.testing.assert_array_equal((1 / x).detach().numpy(), np.array([-1, inf, 0, nan], np.float32))
    assert sg.tensor(fractions(3)).asin().isfinite().all()
    assert Sample("x", None, None, ()).smooth
