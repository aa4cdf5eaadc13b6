"""How a tensor prints: PyTorch's format, made of a NumPy array.

`np.array([1.0, 0.25], np.float32)` -> `tensor([1.0000, 0.2500])`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, InvalidValueError
from staticgrad.ir.options import whole
from staticgrad.ir.source import at_user_line

OPENING = "tensor("
DTYPE_PREFIX = ""
"""What stands before the name of a dtype; in PyTorch `torch.`."""

_COMPLEX_OF: dict[np.dtype, np.dtype] = {np.dtype(np.float32): np.dtype(np.complex64), np.dtype(np.float64): np.dtype(np.complex128)}


@dataclass(frozen=True)
class PrintOptions:
    """How tensors print: what `set_printoptions` sets."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


PROFILES = {
    "default": PrintOptions(),
    "short": PrintOptions(precision=2, edgeitems=2),
    "full": PrintOptions(threshold=math.inf),
}

_options = PrintOptions()


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Set how tensors print, as PyTorch's function of this name does; what is not given stays as it is, apart from `sci_mode`.

    Parameters
    ----------
    precision : int
        Digits after the point.
    threshold : int or inf
        How many elements are shown in full; of larger tensors only those at the edges are.
    edgeitems : int
        How many elements that is, at each end of each axis.
    linewidth : int
        Characters of a line.
    profile : {"default", "short", "full"}
        Values for all options at once, which the others given overrule.
    sci_mode : bool or None
        Whether floats print like `1.0000e+00`; None, also where it is not given, leaves that to their sizes.

    Raises
    ------
    StaticgradError
        If a number is negative or no number, or there is no such profile.

    Examples
    --------
    >>> show = lambda x: print(tensor_text(np.array(x), default_dtype=np.dtype("float64")))
    >>> set_printoptions(precision=2)
    >>> show([1.25, -3.0])
    tensor([ 1.25, -3.00])
    >>> set_printoptions(profile="default")
    >>> show([1.25, -3.0])
    tensor([ 1.2500, -3.0000])
    """
    global _options
    if profile is not None and profile not in PROFILES:
        raise InvalidValueError(at_user_line(f"set_printoptions: profile={profile!r}: expected one of {', '.join(PROFILES)}"))
    if not (sci_mode is None or isinstance(sci_mode, (bool, np.bool_))):
        raise ArgumentError(at_user_line(f"set_printoptions: sci_mode={sci_mode!r}: expected True, False or None"))
    given: dict[str, Any] = {
        name: whole(name, value, least)
        for name, value, least in (("precision", precision, 0), ("edgeitems", edgeitems, 0), ("linewidth", linewidth, 1))
        if value is not None
    }
    if threshold is not None:
        given["threshold"] = threshold if threshold == math.inf else whole("threshold", threshold, 0)
    _options = replace(_options if profile is None else PROFILES[profile], **given, sci_mode=sci_mode)


def tensor_text(array: np.ndarray, *, default_dtype: np.dtype, grad_fn: str | None = None, requires_grad: bool = False) -> str:
    """Return what PyTorch prints for a tensor with these elements.

    Parameters
    ----------
    array : ndarray
        The elements: booleans, integers, floats or complex numbers.
    default_dtype : dtype
        The dtype of floats that is not mentioned.
    grad_fn : str or None
        The name of the operation that made the tensor.
    requires_grad : bool
        Whether gradients are wanted; only mentioned of a leaf, which has no `grad_fn`.

    Returns
    -------
    str

    Examples
    --------
    >>> single = np.dtype("float32")
    >>> print(tensor_text(np.array([5.3671, -17.3012], single), default_dtype=single, requires_grad=True))
    tensor([  5.3671, -17.3012], requires_grad=True)
    >>> print(tensor_text(np.array(9.0), default_dtype=single, grad_fn="PowBackward0"))
    tensor(9., dtype=float64, grad_fn=<PowBackward0>)
    """
    options = _options
    remarks = []
    if (array.size == 0 and array.ndim != 1) or (array.size and not options.edgeitems):
        remarks.append(f"size={tuple(array.shape)}")
    unmentioned = {default_dtype}
    if array.size:  # of no elements one cannot see that they are integers
        unmentioned |= {np.dtype(np.int64), np.dtype(np.bool_), _COMPLEX_OF.get(default_dtype, default_dtype)}
    if array.dtype not in unmentioned:
        remarks.append(f"dtype={DTYPE_PREFIX}{array.dtype.name}")
    if grad_fn is not None:
        remarks.append(f"grad_fn=<{grad_fn}>")
    elif requires_grad:
        remarks.append("requires_grad=True")
    return _with_remarks(OPENING + _elements(array, options), remarks, options)


def _with_remarks(text: str, remarks: Sequence[str], options: PrintOptions) -> str:
    """Return `text` and the remarks behind it, each on a line of its own where the line before is full."""
    # PyTorch counts the last line of the elements two characters longer than it is.
    length = len(text) - (text.rfind("\n") + 1) + 2
    for remark in remarks:
        if length + 2 + len(remark) > options.linewidth:
            separator, length = ",\n" + " " * len(OPENING), len(OPENING) + len(remark)
        else:
            separator, length = ", ", length + 2 + len(remark)
        text += separator + remark
    return text + ")"


def _elements(array: np.ndarray, options: PrintOptions) -> str:
    """Return the elements in brackets, those in the middle left out where there are many."""
    if not array.size:
        return "[]"
    edge = options.edgeitems
    is_cut = [array.size > options.threshold and extent > 2 * edge for extent in array.shape]
    for axis, extent in enumerate(array.shape):
        if is_cut[axis]:
            array = array.take([*range(edge), *range(extent - edge, extent)], axis)
    writer = _writer(array, options)
    texts = np.empty(array.size, object)
    texts[:] = [writer.text(value) for value in array.ravel().tolist()]
    room = options.linewidth, writer.width + 2
    return _bracketed(texts.reshape(array.shape), is_cut, len(OPENING), room)


def _bracketed(texts: np.ndarray, is_cut: Sequence[bool], indent: int, room: tuple[int, int]) -> str:
    """Return texts in brackets, rows under each other, with dots in the middle of axes that are cut.

    `room` is the width of a line and what an element takes of it.
    """
    if texts.ndim == 0:
        return str(texts.item())
    half = len(texts) // 2
    if texts.ndim > 1:
        rows = [_bracketed(row, is_cut[1:], indent + 1, room) for row in texts]
        if is_cut[0]:
            rows.insert(half, "...")
        return "[" + ("," + "\n" * (texts.ndim - 1) + " " * (indent + 1)).join(rows) + "]"
    items = texts.tolist()
    if is_cut[0]:
        items.insert(half, " ..." if half else "...")
    line, element = room
    count = max(1, (line - indent) // element)
    lines = [", ".join(items[start : start + count]) for start in range(0, len(items), count)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


@dataclass(frozen=True)
class _Writer:
    """Turns Python numbers into text, at least `width` characters wide."""

    text: Callable[[Any], str]
    width: int


def _writer(values: np.ndarray, options: PrintOptions) -> _Writer:
    """Return the writer that fits the values: all are written in one style and, where they are finite, in one width."""
    if values.dtype.kind == "c":
        return _complex_writer(_writer(values.real, options), _writer(values.imag, options))
    if values.dtype.kind != "f":
        return _padded(str, values.ravel().tolist())
    # Zeros, infinities and NaN decide neither style nor width: they may stand out of line.
    counted = values[np.isfinite(values) & (values != 0)]
    if not counted.size:
        return _padded(_whole_float, [])
    sizes = np.abs(counted.astype(np.float64))
    least, most = float(sizes.min()), float(sizes.max())
    is_scientific = options.sci_mode
    if is_scientific is None:
        is_scientific = most / least > 1000 or most > 1e8 or least < 1e-4
    form = f".{options.precision}{'e' if is_scientific else 'f'}"
    are_whole = not is_scientific and bool(np.all(sizes == np.floor(sizes)))
    return _padded(_whole_float if are_whole else lambda value: format(value, form), counted.tolist())


def _padded(text: Callable[[Any], str], values: Sequence[Any]) -> _Writer:
    """Return the writer whose width is that of the longest of `values`."""
    width = max((len(text(value)) for value in values), default=1)
    return _Writer(lambda value: text(value).rjust(width), width)


def _whole_float(value: float) -> str:
    return f"{value:.0f}." if math.isfinite(value) else f"{value:.0f}"


def _complex_writer(real: _Writer, imaginary: _Writer) -> _Writer:
    def text(value: complex) -> str:
        second = imaginary.text(value.imag).lstrip() + "j"
        return real.text(value.real) + ("" if second.startswith("-") else "+") + second

    return _Writer(text, real.width + imaginary.width + 1)
