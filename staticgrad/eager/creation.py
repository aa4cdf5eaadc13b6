"""Making tensors: of data, of nothing, of random numbers."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.eager.apply import apply
from staticgrad.eager.modes import get_default_dtype
from staticgrad.eager.operations import FUNCTIONS
from staticgrad.eager.tensors import Tensor, check_differentiable
from staticgrad.errors import ArgumentError, TensorError
from staticgrad.ir.source import at_user_line, user_stack_level
from staticgrad.tracing.lift import as_array, check_dtype_here
from staticgrad.tracing.tracer import Tracer


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Any:
    """Return a new tensor that holds a copy of `data`.

    Parameters
    ----------
    data : array_like
        A number, nested lists of numbers, a NumPy array, a tensor.
    dtype : dtype, optional
        By default that of an array; the default dtype (float32) for Python floats, int64 for integers, bool for truth values.
    device : optional
        Only the CPU.
    requires_grad : bool
        Whether operations on it are recorded, so that `backward` gives its gradient.

    Returns
    -------
    Tensor
        A leaf.

    Raises
    ------
    TensorError
        For gradients of anything but floats.

    Examples
    --------
    >>> import staticgrad as sg
    >>> sg.tensor([[1.0, 2.0], [3.0, 4.5]])
    tensor([[1.0000, 2.0000],
            [3.0000, 4.5000]])
    """
    _check_device(device)
    if isinstance(data, Tracer):
        return np.copy(data) if dtype is None else data.astype(dtype)
    kind = None if dtype is None else check_dtype_here(dtype, "sg.tensor: dtype")
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite there
        try:
            array = np.array(_plain(data), kind, order="C")
        except OverflowError as error:
            raise TensorError(at_user_line(f"sg.tensor: {error}")) from None
        if dtype is None and not _holds_arrays(data):
            if array.dtype == np.float64:
                array = array.astype(get_default_dtype())
            elif array.dtype == np.uint64:
                raise TensorError(at_user_line("sg.tensor: an integer is too large for int64; write it with a point, or pass dtype"))
    return _made(array, requires_grad, "sg.tensor")


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Any:
    """Return `data` as a tensor: itself if it is one, the same memory if it is an array, otherwise a new one.

    Examples
    --------
    >>> import numpy as np
    >>> array = np.zeros(2)
    >>> x = as_tensor(array)
    >>> x[0] = 5.0
    >>> array
    array([5., 0.])
    """
    _check_device(device)
    if isinstance(data, (Tensor, Tracer)):
        return data if dtype is None or data.dtype == np.dtype(dtype) else apply(FUNCTIONS["to"], (data,), {"dtype": dtype})
    if isinstance(data, np.ndarray) and (dtype is None or data.dtype == np.dtype(dtype)):
        return _made(data, False, "as_tensor")
    return tensor(data, dtype=dtype)


def Variable(data: Any, requires_grad: bool = False) -> Tensor:  # noqa: N802  (PyTorch's name)
    """Return a tensor: the wrapper of old, which tensors made needless. Warns that it is deprecated.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", DeprecationWarning)
    ...     Variable([1.0, 2.0], requires_grad=True)
    tensor([1., 2.], requires_grad=True)
    """
    warnings.warn(
        "Variable is deprecated: tensors carry their gradients themselves; write sg.tensor(data, requires_grad=True)",
        DeprecationWarning,
        stacklevel=user_stack_level(),
    )
    found: Tensor = as_tensor(data)
    return found.detach().requires_grad_(requires_grad)


def from_numpy(array: np.ndarray) -> Tensor:
    """Return a tensor that shares the memory of a NumPy array.

    Examples
    --------
    >>> import numpy as np
    >>> from_numpy(np.arange(3))
    tensor([0, 1, 2])
    """
    if not isinstance(array, np.ndarray):
        raise ArgumentError(at_user_line(f"from_numpy: expected a NumPy array, not {type(array).__name__}; use sg.tensor"))
    return _made(array, False, "from_numpy")


def from_dlpack(other: Any) -> Tensor:
    """Return a tensor that shares the memory of another library's array.

    Examples
    --------
    >>> import numpy as np
    >>> from_dlpack(np.ones(2))
    tensor([1., 1.], dtype=float64)
    """
    return _made(np.from_dlpack(other), False, "from_dlpack")


def _plain(data: Any) -> Any:
    """Return `data` with arrays in place of tensors."""
    if isinstance(data, Tensor):
        return data._array
    if isinstance(data, (list, tuple)):
        return [_plain(part) for part in data]
    return data if isinstance(data, (bool, int, float)) else as_array(data)


def _holds_arrays(data: Any) -> bool:
    """Return whether the dtype comes from arrays; that of Python's numbers is the default dtype."""
    if isinstance(data, (list, tuple)):
        return any(_holds_arrays(part) for part in data)
    return not isinstance(data, (bool, int, float)) or isinstance(data, np.floating)


def _made(array: np.ndarray, requires_grad: bool, name: str) -> Tensor:
    if array.dtype.kind in "OUSV":
        raise ArgumentError(at_user_line(f"{name}: {array.dtype} is not a dtype of numbers"))
    check_dtype_here(array.dtype, name)
    if requires_grad:
        check_differentiable(array.dtype)
    return Tensor._of(array, requires=bool(requires_grad))


def _check_device(device: Any) -> None:
    if device is not None and not str(device).startswith("cpu"):
        raise TensorError(at_user_line(f"device {str(device)!r}: eager tensors live on the CPU; trace with backend='cuda' to run on a GPU"))


# ---- of nothing


def _shape(size: tuple[Any, ...], name: str) -> tuple[int, ...]:
    given = size[0] if len(size) == 1 and isinstance(size[0], (tuple, list)) else size
    try:
        shape = tuple(int(n.__index__()) for n in given)
    except (AttributeError, TypeError):
        raise ArgumentError(at_user_line(f"{name}: a shape is made of whole numbers, not {size!r}")) from None
    if any(n < 0 for n in shape):
        raise TensorError(at_user_line(f"{name}: negative lengths in the shape {shape}"))
    return shape


def _filling(name: str, make: Callable[..., np.ndarray], title: str) -> Callable[..., Tensor]:
    def fill(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, out: Any = None) -> Tensor:
        _check_device(device)
        kind = get_default_dtype() if dtype is None else check_dtype_here(dtype, f"{name}: dtype")
        return _made(make(_shape(size, name), kind), requires_grad, name)

    fill.__name__ = fill.__qualname__ = name
    fill.__doc__ = f"Return a tensor of the given shape {title}, by default of the default dtype."
    return fill


def _filling_like(name: str, make: Callable[..., np.ndarray], title: str) -> Callable[..., Tensor]:
    def fill(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        _check_device(device)
        kind = input.dtype if dtype is None else check_dtype_here(dtype, f"{name}: dtype")
        return _made(make(input.shape, kind), requires_grad, name)

    fill.__name__ = fill.__qualname__ = name
    fill.__doc__ = f"Return a tensor of the shape and dtype of another one {title}."
    return fill


zeros, zeros_like = _filling("zeros", np.zeros, "full of zeros"), _filling_like("zeros_like", np.zeros, "full of zeros")
ones, ones_like = _filling("ones", np.ones, "full of ones"), _filling_like("ones_like", np.ones, "full of ones")
empty, empty_like = _filling("empty", np.zeros, "to be written"), _filling_like("empty_like", np.zeros, "to be written")


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Return a tensor of the given shape full of one number, whose kind decides the dtype."""
    _check_device(device)
    kind = tensor(fill_value).dtype if dtype is None else check_dtype_here(dtype, "full: dtype")
    return _made(np.full(_shape((size,), "full"), float(fill_value) if kind.kind == "f" else fill_value, kind), requires_grad, "full")


def full_like(input: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Return a tensor of the shape and dtype of another one full of one number."""
    return full(input.shape, fill_value, dtype=input.dtype if dtype is None else dtype, device=device, requires_grad=requires_grad)


def arange(*bounds: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **named: Any) -> Tensor:
    """Return numbers from a start (0) up to, without, an end, in steps (of 1): int64 if all three are whole.

    Examples
    --------
    >>> arange(3), arange(1, 2, 0.25), arange(start=6, end=0, step=-2)
    (tensor([0, 1, 2]), tensor([1.0000, 1.2500, 1.5000, 1.7500]), tensor([6, 4, 2]))
    """
    _check_device(device)
    names = ("end",) if len(bounds) == 1 else ("start", "end", "step")
    given = {"start": 0, "step": 1} | dict(zip(names, bounds, strict=False)) | named
    if len(bounds) > 3 or given.keys() != {"start", "end", "step"} or named.keys() & set(names[: len(bounds)]):
        raise ArgumentError(at_user_line("arange: expected arange(end), arange(start, end) or arange(start, end, step)"))
    start, end, step = (given[name] for name in ("start", "end", "step"))
    if step == 0 or (end - start) * (1 if step > 0 else -1) < 0:
        raise TensorError(at_user_line(f"arange: no steps of {step} lead from {start} to {end}"))
    whole = all(isinstance(b, (int, np.integer)) for b in (start, end, step))
    kind = (np.dtype(np.int64) if whole else get_default_dtype()) if dtype is None else check_dtype_here(dtype, "arange: dtype")
    return _made(np.arange(start, end, step).astype(kind), requires_grad, "arange")


def linspace(start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Return `steps` numbers at equal distances from `start` to `end`, both included."""
    _check_device(device)
    kind = get_default_dtype() if dtype is None else check_dtype_here(dtype, "linspace: dtype")
    return _made(np.linspace(float(start), float(end), int(steps)).astype(kind), requires_grad, "linspace")


def logspace(
    start: Any, end: Any, steps: int, base: float = 10.0, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Return `steps` powers of `base`, with exponents at equal distances from `start` to `end`."""
    _check_device(device)
    kind = get_default_dtype() if dtype is None else check_dtype_here(dtype, "logspace: dtype")
    return _made(np.logspace(float(start), float(end), int(steps), base=base).astype(kind), requires_grad, "logspace")


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Return the identity matrix, of n rows and m (n) columns."""
    _check_device(device)
    kind = get_default_dtype() if dtype is None else check_dtype_here(dtype, "eye: dtype")
    return _made(np.eye(n, m, dtype=kind), requires_grad, "eye")


# ---- of random numbers

_generator = np.random.default_rng()
_generator_lock = threading.Lock()


def manual_seed(seed: int) -> None:
    """Start the sequence of random tensors anew; equal seeds give equal tensors (other ones than PyTorch's).

    Examples
    --------
    >>> manual_seed(1)
    >>> first = rand(3)
    >>> manual_seed(1)
    >>> bool((rand(3) == first).all())
    True
    """
    global _generator
    with _generator_lock:
        _generator = np.random.default_rng(int(seed))


def _drawn(draw: Callable[[np.random.Generator], Any], dtype: Any, requires_grad: bool, name: str) -> Tensor:
    with _generator_lock:
        array = np.asarray(draw(_generator))
    kind = get_default_dtype() if dtype is None else check_dtype_here(dtype, f"{name}: dtype")
    return _made(array.astype(kind), requires_grad, name)


def randn(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Return numbers of the standard normal distribution."""
    _check_device(device)
    return _drawn(lambda generator: generator.standard_normal(_shape(size, "randn")), dtype, requires_grad, "randn")


def rand(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Return numbers spread evenly over [0, 1)."""
    _check_device(device)
    return _drawn(lambda generator: generator.random(_shape(size, "rand"), np.float32), dtype, requires_grad, "rand")


def randn_like(input: Tensor, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Return numbers of the standard normal distribution in the shape and dtype of another tensor."""
    return randn(*input.shape, dtype=input.dtype if dtype is None else dtype, requires_grad=requires_grad)


def rand_like(input: Tensor, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Return numbers spread evenly over [0, 1) in the shape and dtype of another tensor."""
    return rand(*input.shape, dtype=input.dtype if dtype is None else dtype, requires_grad=requires_grad)


def randint(*bounds_and_size: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Return whole numbers from low (0) up to, without, high: randint(low, high, size) or randint(high, size)."""
    *bounds, size = bounds_and_size
    low, high = bounds if len(bounds) == 2 else (0, *bounds)
    kind = np.dtype(np.int64) if dtype is None else dtype
    return _drawn(lambda generator: generator.integers(low, high, _shape((size,), "randint")), kind, requires_grad, "randint")


def randperm(n: int, *, dtype: Any = None) -> Tensor:
    """Return the whole numbers below n in random order."""
    return _drawn(lambda generator: generator.permutation(n), np.dtype(np.int64) if dtype is None else dtype, False, "randperm")


def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None) -> Tensor:
    """Return normal numbers of a mean and a standard deviation, which may be tensors."""
    spread, centre = (x._array if isinstance(x, Tensor) else np.asarray(x) for x in (std, mean))
    shape = np.broadcast_shapes(spread.shape, centre.shape) if size is None else _shape((size,), "normal")
    return _drawn(lambda generator: generator.standard_normal(shape) * spread + centre, None, False, "normal")
