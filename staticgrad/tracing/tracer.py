"""Tracers: what stands for an array while a function is recorded.

A tracer is a handle on a storage. The storage's value changes when it is written; views hold the storage and the path to their
part, so a write through any of them reaches all.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, NoReturn

import numpy as np

from staticgrad.errors import ReadOnlyError, TraceError, UnsupportedAttributeError, UnsupportedError
from staticgrad.ir.aval import Aval, Shape
from staticgrad.ir.node import Value
from staticgrad.ir.source import at_user_line, user_line
from staticgrad.ops.movement import reshape
from staticgrad.tracing.context import Trace, check_usable, current_trace, note_read
from staticgrad.tracing.indexing import masked, parsed
from staticgrad.tracing.lift import checked_broadcast, convert, lift, strong
from staticgrad.tracing.views import Strides, TransposeView, View, strides_of


class Storage:
    """The present value of an array and who may write it; `array` tells NumPy's 0-d arrays from its scalars, which `+=` binds anew."""

    __slots__ = ("array", "read_only", "trace", "value", "version")

    def __init__(self, value: Value, trace: Trace, read_only: str = "", array: bool = False) -> None:
        self.value = value
        self.trace = trace
        self.read_only = read_only
        self.array = array or bool(value.shape)
        self.version = 0

    def check_writable(self) -> None:
        """Raise `ReadOnlyError` unless this storage may be written now."""
        check_usable(self.trace)
        if self.read_only:
            raise ReadOnlyError(
                at_user_line(
                    f"{self.read_only} cannot be written in place: a traced function may not change what it was given. "
                    "Work on a copy, x = x.copy(), and return it"
                )
            )
        if self.trace is not current_trace():
            raise ReadOnlyError(
                at_user_line(f"an array of {self.trace.name!r} cannot be written inside of {current_trace().name!r}: return the new value")
            )


class Tracer(np.lib.mixins.NDArrayOperatorsMixin):
    """Stands for an array of known shape and dtype while a function is traced."""

    __slots__ = ("_known", "_storage", "_version", "_views")
    __array_priority__ = 1000
    __pandas_priority__ = 5000
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, storage: Storage, views: tuple[View, ...] = ()) -> None:
        self._storage = storage
        self._views = views
        self._version = -1
        self._known: Value | None = None

    # ---- what it stands for

    @property
    def value(self) -> Value:
        """The value of the graph that this array has now."""
        storage = self._storage
        check_usable(storage.trace)
        if self._known is None or self._version != storage.version:
            value = storage.value
            for view in self._views:
                value = view.read(value)
            self._known, self._version = value, storage.version
        if storage.trace is not current_trace():
            note_read(storage.trace, storage.value)
        return self._known

    @property
    def aval(self) -> Aval:
        """Shape and dtype."""
        return self.value.aval

    @property
    def shape(self) -> Shape:
        """The lengths of the axes."""
        return self.value.shape

    @shape.setter
    def shape(self, new: object) -> NoReturn:
        raise UnsupportedAttributeError(at_user_line(f"the shape of a traced array cannot be set; use x = x.reshape({new!r})"))

    @property
    def dtype(self) -> np.dtype:
        """The dtype."""
        return self.value.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.value.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.value.aval.size

    @property
    def itemsize(self) -> int:
        """The number of bytes of one element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """The number of bytes of all elements."""
        return self.value.aval.nbytes

    def __len__(self) -> int:
        if not self.shape:
            raise TraceError(at_user_line("len() of a traced array without axes"))
        return self.shape[0]

    def __repr__(self) -> str:
        if not self._storage.trace.alive:
            return f"Tracer<dead, of {self._storage.trace.name}>"
        return f"Tracer<{self.dtype}[{','.join(map(str, self.shape))}]>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    # ---- what it cannot give

    def _needs_value(self, what: str, way_out: str) -> NoReturn:
        raise TraceError(
            at_user_line(f"{what} needs the value of a traced array ({self.value.aval}), which is not known while tracing; {way_out}")
        )

    def __bool__(self) -> bool:  # noqa: PLE0304  (it raises)  # noqa: PLE0304  (never returns)
        self._needs_value("a Python `if`, `while`, `and`, `or`, `not` or `bool()`", "use np.where, sg.cond or sg.while_loop")

    def __float__(self) -> float:
        function, instead = _math_function()
        self._needs_value(f"float() or a function of `math`{function}", f"keep it an array and use NumPy's functions, {instead}")

    def __int__(self) -> int:
        self._needs_value("int()", "use .astype(int), or pass it as a static argument (static_argnames)")

    def __complex__(self) -> complex:
        self._needs_value("complex()", "keep it an array")

    def __index__(self) -> int:  # noqa: PLE0305  (it raises)  # noqa: PLE0305  (never returns)
        self._needs_value("using it as a Python integer", "pass it as a static argument (static_argnames)")

    def __round__(self, digits: int | None = None) -> Tracer:
        return self._whole(np.rint, "round()", "np.round") if digits is None else self._scalar("round()", "np.round").round(digits)

    def __floor__(self) -> Tracer:
        return self._whole(np.floor, "math.floor()", "np.floor")

    def __ceil__(self) -> Tracer:
        return self._whole(np.ceil, "math.ceil()", "np.ceil")

    def __trunc__(self) -> Tracer:
        return self._whole(np.trunc, "math.trunc()", "np.trunc")

    def _scalar(self, what: str, instead: str) -> Tracer:
        if self.shape:
            raise UnsupportedError(at_user_line(f"{what} of a traced array ({self.value.aval}) is not supported; use {instead}"))
        return self

    def _whole(self, ufunc: np.ufunc, what: str, instead: str) -> Tracer:
        """Return a number rounded, as the integer that Python's functions give."""
        x = self._scalar(what, instead)
        return (ufunc(x) if x.dtype.kind == "f" else x).astype(np.int64)  # type: ignore[no-any-return]

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        function = _scipy_function()
        if function:
            if function in ("logsumexp", "softmax", "log_softmax"):
                near = f"use sg.nn.{function}"
            elif function in ("__matmul__", "__mul__", "dot"):
                near = "a product with a sparse matrix, A.tocoo(), is np.add.at(y, A.row, A.data * x[A.col]) with y = snp.zeros(A.shape[0])"
            else:
                near = "write it with NumPy's functions"
            self._needs_value(f"SciPy's {function}, which does not take traced arrays,", near)
        self._needs_value(
            "converting to a real NumPy array (np.asarray, np.array, or writing it into one)",
            "use staticgrad.numpy (snp.array, snp.stack) to build arrays of traced values, and write into snp.zeros(...), "
            "np.zeros_like(x) or x.copy(); to index a real array with a traced one, use snp.asarray(array)[i] or snp.take(array, i)",
        )

    def item(self, *index: int) -> NoReturn:
        """Raise: there is no value yet."""
        self._needs_value(".item()", "keep it an array, or return it from the function")

    def tolist(self) -> NoReturn:
        """Raise: there is no value yet."""
        self._needs_value(".tolist()", "return it from the function")

    def tobytes(self, *_: object) -> NoReturn:
        """Raise: there is no value yet."""
        self._needs_value(".tobytes()", "return it from the function")

    # ---- NumPy's protocols

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        from staticgrad.tracing.ufuncs import apply_ufunc

        return apply_ufunc(ufunc, method, inputs, options)

    def __array_function__(
        self, function: Callable[..., Any], types: tuple[type, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        from staticgrad.tracing.functions import call_numpy_function

        return call_numpy_function(function, args, dict(kwargs))

    def __getattr__(self, name: str) -> Any:
        from staticgrad.tracing.functions import array_method

        if name.startswith("__"):
            raise AttributeError(name)
        return array_method(self, name)

    # ---- reading and writing parts

    def view(self, view: View | None = None) -> Tracer:
        """Return a tracer of a part of the same storage, of all of it without an argument."""
        if view is None:
            return Tracer(self._storage, self._views)
        if not isinstance(view, View):
            raise UnsupportedError(
                at_user_line(f".view({view!r}) of a traced array: its bits cannot be read as another dtype; use .astype()")
            )
        if not self.is_array and not self._storage.read_only:  # NumPy's scalars have no views: it makes an array of them first
            return Tracer(Storage(self.value, current_trace(), array=True), (view,))
        return Tracer(self._storage, (*self._views, view))

    @property
    def element_strides(self) -> Strides:
        """The steps in elements between neighbours along each axis, as NumPy's array would have them."""
        value, steps = self._storage.value, []
        shape = value.shape
        for view in self._views:
            value = view.read(value)
            steps.append((view, value.shape))
        return strides_of(shape, steps)

    def shares_storage(self, other: Tracer) -> bool:
        """Return whether both are parts of one storage."""
        return self._storage is other._storage

    def __copy__(self) -> Tracer:
        return tracer_of(strong(self.value), array=self.is_array or bool(self._storage.read_only))

    def __deepcopy__(self, memo: object) -> Tracer:
        return self.__copy__()

    @property
    def is_array(self) -> bool:
        """Whether NumPy would have an array here, which in-place operators write, and not a scalar."""
        return self._storage.array or bool(self._views)

    def __getitem__(self, index: Any) -> Tracer:
        views, own = parsed(index, self.shape)
        if not own:
            return functools.reduce(Tracer.view, views, self)
        return tracer_of(self.part(views).value)

    def __setitem__(self, index: Any, new: Any) -> None:
        written = masked(index, lift(new), self.value)
        if written is not None:
            self.assign(written, "assignment to a mask")
            return
        views, _ = parsed(index, self.shape)
        self.part(views).assign(lift(new), "assignment to an index")

    def part(self, views: tuple[View, ...]) -> Tracer:
        """Return a tracer of a part of the same storage, to read it once or to write it."""
        return Tracer(self._storage, (*self._views, *views))

    def assign(self, new: Value, operation: str) -> None:
        """Write `new`, cast and broadcast, into the part of the storage that this tracer shows."""
        self._storage.check_writable()
        surplus = len(new.shape) - len(self.shape)
        if surplus > 0 and all(extent == 1 for extent in new.shape[:surplus]):
            new = reshape(new, new.shape[surplus:])
        new = checked_broadcast(strong(convert(new, self.dtype)), self.shape, operation)
        bases = [self._storage.value]
        for view in self._views[:-1]:
            bases.append(view.read(bases[-1]))
        for base, view in zip(reversed(bases), reversed(self._views), strict=False):
            new = view.write(base, new)
        self._storage.value = new
        self._storage.version += 1

    def __iter__(self) -> Iterator[Tracer]:
        if not self.shape:
            raise TraceError(at_user_line("a traced array without axes cannot be iterated over"))
        return (self[k] for k in range(self.shape[0]))

    @property
    def T(self) -> Tracer:  # noqa: N802  # noqa: N802  (NumPy's name)
        """The transpose, a view."""
        return self.view(TransposeView(tuple(reversed(range(self.ndim)))))

    @property
    def mT(self) -> Tracer:  # noqa: N802  # noqa: N802  (NumPy's name)
        """The transpose of the last two axes, a view."""
        if self.ndim < 2:
            raise UnsupportedError(at_user_line(f".mT needs at least two axes, {self.aval} has {self.ndim}"))
        order = (*range(self.ndim - 2), self.ndim - 1, self.ndim - 2)
        return self.view(TransposeView(order))

    @property
    def real(self) -> Tracer:
        """The real part: the array itself."""
        return self

    @property
    def flat(self) -> NoReturn:
        """Raise: use ravel()."""
        raise UnsupportedError(at_user_line(".flat of a traced array is not supported; use .ravel()"))


_NOT_NUMPYS_NAME = {
    "fabs": "np.abs", "pow": "np.power", "dist": "np.linalg.norm", "fsum": "np.sum", "lgamma": "sg.special.gammaln",
    "erf": "sg.special.erf", "erfc": "sg.special.erfc", "gamma": "np.exp(sg.special.gammaln(x))",
} | {f"a{name}": f"np.arc{name}" for name in ("sin", "cos", "tan", "tan2", "sinh", "cosh", "tanh")}  # fmt: skip


def _math_function() -> tuple[str, str]:
    """Return which function of `math` the user's line calls and what to write instead, where the line shows it."""
    line = user_line()
    found = re.search(r"\bmath\.(\w+)\(", line.text if line else "")
    if found is None:
        return "", "np.exp instead of math.exp"
    name = found[1]
    instead = _NOT_NUMPYS_NAME.get(name) or (f"np.{name}" if hasattr(np, name) else "those of sg.special")
    return f" (math.{name})", f"{instead} instead of math.{name}"


def _scipy_function() -> str:
    """Return the name of the function of SciPy that the user called, empty for none."""
    frame: FrameType | None = sys._getframe(1)
    found = ""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("scipy."):
            found = frame.f_code.co_name
        elif not module.startswith(("numpy.", "staticgrad.")):
            break
        frame = frame.f_back
    return found


def _in_place(ufunc: np.ufunc) -> Callable[[Tracer, Any], Any]:
    """Return the in-place operator: NumPy writes arrays through, scalars are bound anew."""

    def operate(self: Tracer, other: Any) -> Any:
        return ufunc(self, other, out=(self,)) if self.is_array else ufunc(self, other)

    return operate


for _name, _ufunc in {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide, "floordiv": np.floor_divide, "mod": np.remainder,
    "pow": np.power, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "matmul": np.matmul,
    "lshift": np.left_shift, "rshift": np.right_shift,
}.items():  # fmt: skip
    setattr(Tracer, f"__i{_name}__", _in_place(_ufunc))


def tracer_of(value: Value, array: bool = False) -> Tracer:
    """Return a tracer of a new storage that holds `value`; `array` makes a 0-d array of what would be a scalar."""
    return Tracer(Storage(value, current_trace(), array=array))


def argument_tracer(value: Value, trace: Trace, label: str) -> Tracer:
    """Return the tracer of an argument, which cannot be written."""
    return Tracer(Storage(value, trace, f"argument {label!r}"))
