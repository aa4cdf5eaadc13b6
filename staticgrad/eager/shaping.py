"""Shapes, parts, joins and dtypes by PyTorch's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.eager.apply import Operation
from staticgrad.eager.names import node_name
from staticgrad.errors import ArgumentError, IndexingError, InvalidValueError, TensorError
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.functions.arguments import axis_of, distinct_axes
from staticgrad.tracing.functions.shapes import diagonal_view
from staticgrad.tracing.lift import check_dtype_here, lift
from staticgrad.tracing.tracer import Tracer, tracer_of


def _along(input: Any, dim: Any, name: str) -> int:
    """Return the axis that `dim` means, counted from the front."""
    return axis_of(dim, len(input.shape), name, "dim")


def _sizes(given: tuple[Any, ...]) -> Any:
    return given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given


def _reshape(input: Any, *shape: Any) -> Any:
    return np.reshape(input, _sizes(shape))


def _view(input: Any, *shape: Any) -> Any:
    if len(shape) == 1 and isinstance(shape[0], (np.dtype, type)):
        raise TensorError(at_user_line(f"view({shape[0]}): the bits of a tensor cannot be read as another dtype; use x.to(dtype)"))
    return np.reshape(input, _sizes(shape))


def _view_as(input: Any, other: Any) -> Any:
    return np.reshape(input, other.shape)


def _transpose(input: Any, dim0: Any, dim1: Any) -> Any:
    return np.swapaxes(input, dim0, dim1)


def _permute(input: Any, *dims: Any) -> Any:
    return np.transpose(input, _sizes(dims))


def _t(input: Any) -> Any:
    rank = len(input.shape)
    if rank > 2:
        raise InvalidValueError(at_user_line(f"t(): a tensor of at most two axes is expected, this one has {rank}; use .mT or .permute()"))
    return input.T


def _squeeze(input: Any, dim: Any = None) -> Any:
    shape = input.shape
    if dim is None:
        return np.squeeze(input)
    axes = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    single = tuple(axis for axis in axes if shape and shape[_along(input, axis, "squeeze")] == 1)
    return np.squeeze(input, single) if single else np.reshape(input, shape)


def _unsqueeze(input: Any, dim: int) -> Any:
    return np.expand_dims(input, dim)


def _flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    shape = input.shape
    if not shape:
        return np.reshape(input, (1,))
    first, last = (_along(input, dim, "flatten") for dim in (start_dim, end_dim))
    if first > last:
        raise InvalidValueError(at_user_line(f"flatten: start_dim={start_dim} comes after end_dim={end_dim}"))
    return np.reshape(input, (*shape[:first], -1 if input.size else int(np.prod(shape[first : last + 1])), *shape[last + 1 :]))


def _unflatten(input: Any, dim: int, sizes: Any) -> Any:
    shape = input.shape
    axis = _along(input, dim, "unflatten")
    return np.reshape(input, (*shape[:axis], *sizes, *shape[axis + 1 :]))


def _expand(input: Any, *sizes: Any) -> Any:
    wanted = tuple(_sizes(sizes))
    ahead = len(wanted) - len(input.shape)
    shape = tuple(input.shape[k - ahead] if n == -1 and k >= ahead else n for k, n in enumerate(wanted))
    return np.broadcast_to(input, shape)


def _expand_as(input: Any, other: Any) -> Any:
    return np.broadcast_to(input, other.shape)


def _repeat(input: Any, *sizes: Any) -> Any:
    return np.tile(input, tuple(_sizes(sizes)))


def _repeat_interleave(input: Any, repeats: Any, dim: Any = None) -> Any:
    return np.repeat(input, repeats, axis=dim)


def _promoted(tensors: Any) -> list[Any]:
    from staticgrad.eager.operations import promoted

    return promoted(*tensors)


def _check_any(tensors: Any, name: str) -> None:
    if not isinstance(tensors, (list, tuple)) or not tensors:
        given = "an empty one" if isinstance(tensors, (list, tuple)) else f"{type(tensors).__name__}"
        raise ArgumentError(at_user_line(f"{name}: expected a list or tuple of at least one tensor, not {given}"))


def _stack(tensors: Any, dim: int = 0, *, axis: Any = None) -> Any:
    _check_any(tensors, "stack")
    return np.stack(_promoted(tensors), axis=dim if axis is None else axis)


def _cat(tensors: Any, dim: int = 0, *, axis: Any = None) -> Any:
    _check_any(tensors, "cat")
    kept = [x for x in tensors if x.shape != (0,)] or list(tensors)[:1]  # PyTorch lets an empty list of numbers join anything
    return np.concatenate(_promoted(kept), axis=dim if axis is None else axis)


def _joined(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda tensors: function(_promoted(tensors))


def _split(tensor: Any, split_size_or_sections: Any, dim: int = 0) -> Any:
    dim = _along(tensor, dim, "split")
    length = tensor.shape[dim]
    if isinstance(split_size_or_sections, int):
        if split_size_or_sections < 1:
            raise InvalidValueError(at_user_line(f"split: the size of a part must be at least 1, not {split_size_or_sections}"))
        bounds = list(range(split_size_or_sections, length, split_size_or_sections))
    else:
        if sum(split_size_or_sections) != length:
            raise InvalidValueError(
                at_user_line(f"split: the parts {list(split_size_or_sections)} do not add up to the {length} there are")
            )
        bounds = [int(b) for b in np.cumsum(split_size_or_sections)[:-1]]
    return tuple(np.split(tensor, bounds, axis=dim))


def _chunk(input: Any, chunks: int, dim: int = 0) -> Any:
    if chunks < 1:
        raise InvalidValueError(at_user_line(f"chunk: the number of parts must be at least 1, not {chunks}"))
    dim = _along(input, dim, "chunk")
    return _split(input, max(1, -(-input.shape[dim] // chunks)), dim)


def _unbind(input: Any, dim: int = 0) -> Any:
    moved = np.moveaxis(input, dim, 0)
    return tuple(moved[k] for k in range(input.shape[dim]))


def _select(input: Any, dim: int, index: int) -> Any:
    return np.moveaxis(input, dim, 0)[index]


def _narrow(input: Any, dim: int, start: int, length: int) -> Any:
    axis = _along(input, dim, "narrow")
    first = start + input.shape[axis] if start < 0 else start
    if not 0 <= first <= first + length <= input.shape[axis]:
        raise IndexingError(
            at_user_line(f"narrow: {length} from {start} on are no part of axis {axis}, which has {input.shape[axis]} elements")
        )
    start, place = first, (slice(None),) * axis
    return input[(*place, slice(start, start + length))]


def _index_select(input: Any, dim: int, index: Any) -> Any:
    return np.take(input, index, axis=dim)


def _gather(input: Any, dim: int, index: Any) -> Any:
    return np.take_along_axis(_cut(input, index, dim), index, axis=dim)


def _cut(input: Any, index: Any, dim: int) -> Any:
    """Return the part of `input` that an index of smaller shape reaches: all along `dim`, the first places of the other axes."""
    axis = _along(input, dim, "gather")
    return input[tuple(slice(None) if k == axis else slice(extent) for k, extent in enumerate(index.shape))]


def _flip(input: Any, *dims: Any) -> Any:
    return np.copy(np.flip(input, tuple(_sizes(dims))))


def _roll(input: Any, shifts: Any, dims: Any = None) -> Any:
    return np.roll(input, shifts, axis=dims)


def _tril(input: Any, diagonal: int = 0) -> Any:
    return np.tril(input, diagonal)


def _triu(input: Any, diagonal: int = 0) -> Any:
    return np.triu(input, diagonal)


def _diag(input: Any, diagonal: int = 0) -> Any:
    return np.copy(np.diag(input, diagonal))


def _diagonal(input: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    return diagonal_view(input, offset, *distinct_axes((dim1, dim2), len(input.shape), "diagonal"))  # unlike NumPy's it can be written


def _ravel(input: Any) -> Any:
    return np.ravel(input)


def _trace(input: Any) -> Any:
    return np.trace(input)


def _diff(input: Any, n: int = 1, dim: int = -1) -> Any:
    return np.diff(input, n, axis=dim)


def _rot90(input: Any, k: int = 1, dims: Any = (0, 1)) -> Any:
    return np.copy(np.rot90(input, k, tuple(dims)))


def _movedim(input: Any, source: Any, destination: Any) -> Any:
    return np.moveaxis(input, source, destination)


# ---- dtypes


def _cast(input: Tracer, dtype: Any, name: str) -> Any:
    kind = check_dtype_here(dtype, name)
    return input if input.dtype == kind else input.astype(kind)


def _to(input: Any, *args: Any, dtype: Any = None, device: Any = None, non_blocking: bool = False, copy: bool = False) -> Any:
    """Convert to a dtype, to that of another tensor, or to a device, of which there is one."""
    for arg in args:
        if isinstance(arg, Tracer):
            dtype = arg.dtype
        elif isinstance(arg, str) and _is_device(arg):
            device = arg
        elif isinstance(arg, bool):
            copy = copy or arg
        elif arg is not None:
            dtype = arg
    if device is not None and not str(device).startswith("cpu"):
        raise TensorError(at_user_line(f"to({str(device)!r}): eager tensors live on the CPU; trace with backend='cuda' to run on a GPU"))
    result = input if dtype is None else _cast(input, dtype, f"to({dtype})")
    return np.copy(input) if copy and result is input else result


def _is_device(text: str) -> bool:
    return text.partition(":")[0] in ("cpu", "cuda", "mps", "meta", "xpu")


def _type(input: Any, dtype: Any) -> Any:
    return _cast(input, dtype, f"type({dtype})")


def _type_as(input: Any, other: Any) -> Any:
    return _cast(input, lift(other).dtype, "type_as")


def _casting(dtype: str) -> Callable[[Any], Any]:
    return lambda input: _cast(input, np.dtype(dtype), dtype)


def _contiguous(input: Any) -> Any:
    return np.copy(input)


def _cpu(input: Any) -> Any:
    return input


def _set_part(name: str, input: Any, dim: int, index: Any, source: Any) -> Any:
    place = (*(slice(None),) * _along(input, dim, name), index)
    if name == "index_add":
        np.add.at(input, place, source)
    else:
        input[place] = source
    return input


def _index_add(input: Any, dim: int, index: Any, source: Any, *, alpha: Any = 1) -> Any:
    return _set_part("index_add", input, dim, index, source if alpha == 1 else source * alpha)


def _index_copy(input: Any, dim: int, index: Any, source: Any) -> Any:
    return _set_part("index_copy", input, dim, index, source)


def _index_fill(input: Any, dim: int, index: Any, value: Any) -> Any:
    return _set_part("index_fill", input, dim, index, value)


def _as_new(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the form of an in-place operation that changes a copy."""
    return lambda input, *args, **kwargs: function(tracer_of(lift(input), array=True), *args, **kwargs)


def _named(name: str, function: Callable[..., Any], title: str | None = None) -> Operation:
    if function.__name__ == "<lambda>":
        function.__name__ = name
    return Operation(function, title or node_name(name))


_IN_PLACE: dict[str, Callable[..., Any]] = {"index_add": _index_add, "index_copy": _index_copy, "index_fill": _index_fill}

SHAPING: dict[str, Operation] = {
    "reshape": _named("reshape", _reshape), "view": _named("view", _view), "view_as": _named("view", _view_as),
    "transpose": _named("transpose", _transpose), "swapaxes": _named("transpose", _transpose),
    "swapdims": _named("transpose", _transpose), "permute": _named("permute", _permute), "t": _named("t", _t),
    "squeeze": _named("squeeze", _squeeze), "unsqueeze": _named("unsqueeze", _unsqueeze), "flatten": _named("view", _flatten),
    "unflatten": _named("view", _unflatten), "expand": _named("expand", _expand), "expand_as": _named("expand", _expand_as),
    "broadcast_to": _named("expand", _expand), "repeat": _named("repeat", _repeat), "tile": _named("repeat", _repeat),
    "repeat_interleave": _named("repeat_interleave", _repeat_interleave), "stack": _named("stack", _stack),
    "cat": _named("cat", _cat), "concat": _named("cat", _cat), "concatenate": _named("cat", _cat),
    "hstack": _named("cat", _joined(np.hstack)), "vstack": _named("cat", _joined(np.vstack)), "split": _named("split", _split),
    "chunk": _named("split", _chunk), "unbind": _named("unbind", _unbind), "select": _named("select", _select),
    "narrow": _named("slice", _narrow), "index_select": _named("index_select", _index_select), "gather": _named("gather", _gather),
    "flip": _named("flip", _flip), "roll": _named("roll", _roll), "tril": _named("tril", _tril), "triu": _named("triu", _triu),
    "ravel": _named("view", _ravel), "trace": _named("trace", _trace), "diff": _named("diff", _diff), "rot90": _named("rot90", _rot90),
    "column_stack": _named("cat", _joined(np.column_stack)), "diag": _named("diag", _diag),
    "diagonal": _named("diagonal", _diagonal), "movedim": _named("permute", _movedim),
    "moveaxis": _named("permute", _movedim), "take_along_dim": _named("gather", lambda input, indices, dim: _gather(input, dim, indices)),
    "to": _named("to_copy", _to), "type": _named("to_copy", _type), "type_as": _named("to_copy", _type_as),
    "contiguous": _named("clone", _contiguous), "cpu": _named("to_copy", _cpu),
} | {
    name: _named("to_copy", _casting(dtype))
    for name, dtype in {
        "float": "float32", "double": "float64", "int": "int32", "long": "int64", "short": "int16", "char": "int8", "byte": "uint8",
        "bool": "bool",
    }.items()
} | {name: _named(name, _as_new(function)) for name, function in _IN_PLACE.items()}  # fmt: skip

SHAPING_IN_PLACE: dict[str, Operation] = {f"{name}_": _named(name, function) for name, function in _IN_PLACE.items()}

SHAPING_PROPERTIES: dict[str, Operation] = {
    "T": Operation(lambda x: x.T, "Permute"), "mT": Operation(lambda x: x.mT, "Transpose"), "H": Operation(lambda x: x.T, "Permute"),
    "real": Operation(lambda x: x, "Alias"), "itemsize": Operation(lambda x: x.itemsize, ""), "nbytes": Operation(lambda x: x.nbytes, ""),
}  # fmt: skip
