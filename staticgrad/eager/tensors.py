"""`Tensor`: an array with a gradient and a place on the tape."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from staticgrad.eager.modes import get_default_dtype, modes
from staticgrad.eager.recipes import Path, reading, writing
from staticgrad.eager.tape import NOWHERE, AccumulateGrad, Edge, Handle, Hooks, Node, Version
from staticgrad.eager.text import tensor_text
from staticgrad.errors import ArgumentError, InvalidValueError, StaticgradWarning, TensorError
from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.source import at_user_line, user_stack_level

if TYPE_CHECKING:

    class _Operator:
        """The type of an operator of two operands."""

        def __get__(self, instance: object, owner: object) -> Callable[[Any], Tensor]: ...


class Tensor:
    """An array whose operations are recorded as they run, so that `backward` can give gradients.

    Made by `sg.tensor` and by operations on tensors; `Tensor(data)` makes one of the default dtype. Operators, NumPy's functions and
    those of `staticgrad.numpy` and `staticgrad.eager` work on tensors; dtypes of results follow PyTorch's rules.

    Examples
    --------
    >>> import staticgrad as sg
    >>> x = sg.tensor(3.0, requires_grad=True)
    >>> y = x ** 2
    >>> y
    tensor(9., grad_fn=<PowBackward0>)
    >>> y.backward()
    >>> x.grad
    tensor(6.)
    """

    __slots__ = (
        "__weakref__", "_accumulator", "_after_hooks", "_array", "_base", "_edge", "_grad", "_history", "_hooks", "_path", "_requires",
        "_retains", "_writes",
    )  # fmt: skip
    __array_priority__ = 900  # below that of traced arrays

    _array: np.ndarray
    _writes: Version
    _requires: bool
    _edge: Edge
    _grad: Tensor | None
    _base: Tensor | None
    _path: Path
    _history: int
    """How often the edge of this tensor was replaced by in-place changes; of a view, how much of its base's history it has seen."""
    _accumulator: weakref.ref[AccumulateGrad] | None
    _hooks: Hooks | None
    _after_hooks: Hooks | None
    _retains: bool

    def __new__(cls, data: Any = (), *, requires_grad: bool = False) -> Tensor:
        """Return a tensor of the default dtype."""
        from staticgrad.eager.creation import tensor

        made = tensor(data, dtype=get_default_dtype(), requires_grad=requires_grad)
        return made if cls is Tensor else cls._of(made._array)

    @classmethod
    def _of(cls, array: np.ndarray, edge: Edge = NOWHERE, version: Version | None = None, requires: bool = False) -> Tensor:
        """Return a tensor of this very memory."""
        self = object.__new__(cls)
        self._array = array
        self._writes = Version() if version is None else version
        self._requires = requires
        self._edge = edge
        self._grad = None
        self._base = None
        self._path = ()
        self._history = 0
        self._accumulator = None
        self._hooks = None
        self._after_hooks = None
        self._retains = False
        return self

    if TYPE_CHECKING:  # what `operators.py` puts on the class
        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _Operator()
        __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = _Operator()
        __iadd__ = __isub__ = __imul__ = __itruediv__ = __ifloordiv__ = __imod__ = __ipow__ = __imatmul__ = _Operator()
        __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __lshift__ = __rshift__ = _Operator()
        __lt__ = __le__ = __gt__ = __ge__ = _Operator()

        def __eq__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __neg__(self) -> Tensor: ...
        def __pos__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __setitem__(self, index: Any, new: Any) -> None: ...
        def __iter__(self) -> Iterator[Tensor]: ...
        def __getattr__(self, name: str) -> Any: ...

    # ---- the five fields of a node of the graph

    @property
    def data(self) -> Tensor:
        """The same memory as a tensor without history; writes to it are not noticed by the tape."""
        return Tensor._of(self._array)

    @data.setter
    def data(self, new: Tensor) -> None:
        array = new._array if isinstance(new, Tensor) else np.asarray(new)
        if self._requires and not is_float(array.dtype):
            raise TensorError(at_user_line(f"data = a tensor of {array.dtype}: this one requires gradients, which integers have not"))
        self._array = array

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward passes have accumulated here; None before the first."""
        if self._grad is None and not self._retains and not self.is_leaf:
            _warn(
                "the .grad of a tensor that is no leaf is not kept: call .retain_grad() on it before backward(), or read the .grad of "
                "the leaf it was computed from"
            )
        return self._grad

    @grad.setter
    def grad(self, new: Tensor | None) -> None:
        if new is not None:
            if not isinstance(new, Tensor):
                raise ArgumentError(at_user_line(f".grad = {type(new).__name__}: expected a tensor or None"))
            if new._array.shape != self._array.shape or new._array.dtype != self._array.dtype:
                raise TensorError(at_user_line(f".grad = {aval_of(new)}: expected {aval_of(self)}, the shape and dtype of the tensor"))
        self._grad = new

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    @property
    def grad_fn(self) -> Node | None:
        """The node of the tape that made this tensor; None for leaves."""
        return self._gradient_edge()[0] if not self.is_leaf else None

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user and not by a recorded operation."""
        if self._base is not None:
            self._follow_base()
        return self._edge[0] is None

    @property
    def requires_grad(self) -> bool:
        """Whether operations on it are recorded; it may be set on leaves."""
        if self._base is not None:
            self._follow_base()
        return self._requires or self._edge[0] is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if not self.is_leaf:
            if wanted:
                return
            raise TensorError(
                at_user_line("only leaves can stop requiring gradients; use x = x.detach() to go on with the value of a computed tensor")
            )
        if wanted:
            check_differentiable(self._array.dtype)
        self._requires = bool(wanted)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set whether operations on this leaf are recorded, and return it."""
        self.requires_grad = requires_grad
        return self

    @property
    def retains_grad(self) -> bool:
        """Whether `retain_grad` was called on this computed tensor."""
        return self._retains

    @property
    def _version(self) -> int:
        """How often the memory of this tensor was written in place."""
        return self._writes.number

    # ---- the tape

    def _gradient_edge(self) -> Edge:
        """Return where the gradient of this tensor goes."""
        if self._base is not None:
            self._follow_base()
        if self._edge[0] is not None or not self._requires:
            return self._edge
        node_of_leaf = None if self._accumulator is None else self._accumulator()
        if node_of_leaf is None:
            node_of_leaf = AccumulateGrad(self)
            if self._hooks is not None:
                node_of_leaf.hooks[0] = self._hooks
            self._accumulator = weakref.ref(node_of_leaf)
        return node_of_leaf, 0

    def _follow_base(self) -> None:
        """Take over what in-place changes of the base, or of other views of it, have done to the history."""
        base = self._base
        assert base is not None
        if self._history == base._history:
            return
        self._history = base._history
        if base.requires_grad:
            from staticgrad.eager.nodes import RecipeNode

            self._set_edge((RecipeNode(reading(aval_of(base), self._path, "AsStrided"), [base], [self]), 0))
        else:
            self._set_edge(NOWHERE)

    def _set_edge(self, edge: Edge) -> None:
        before, self._edge = self._edge[0], edge
        if self._retains:  # the gradient of the value that it has now
            if before is not None:
                before.forget(self)
            if edge[0] is not None:
                edge[0].retain(edge[1], self)

    def _check_writable(self) -> None:
        """Raise unless this tensor may be changed in place now."""
        if not self._array.flags.writeable:
            raise TensorError(
                at_user_line(
                    f"a tensor ({aval_of(self)}) whose elements share memory, or that is a read-only NumPy array, cannot be changed in "
                    "place: change a copy, x.clone()"
                )
            )
        if not modes.records:
            return
        if self.is_leaf and self._requires:
            raise TensorError(
                at_user_line(
                    f"a leaf that requires gradients ({aval_of(self)}) cannot be changed in place by a recorded operation: write "
                    "`with sg.no_grad(): x -= ...` for an update, or change a copy, x.clone()"
                )
            )
        if self._base is not None and self._base.is_leaf and self._base._requires:
            raise TensorError(
                at_user_line(
                    f"a view ({aval_of(self)}) of a leaf that requires gradients cannot be changed in place by a recorded operation: write "
                    "it under `with sg.no_grad():`, or change a copy of the leaf, x.clone()"
                )
            )

    def _write(self, new: Tensor) -> None:
        """Take over the value of `new` into this tensor's memory, and its history."""
        np.copyto(self._array, new._array)
        self._writes.number += 1
        if not modes.records:
            return
        base = self._base
        if base is None:
            self._rebase(new._edge)
        elif base.requires_grad or new.requires_grad:
            from staticgrad.eager.nodes import RecipeNode

            node = RecipeNode(writing(aval_of(base), self._path, aval_of(new)), [base, new], [base])
            base._rebase((node, 0))

    def _copied(self) -> Tensor:
        """Return the value in memory of its own, without history."""
        return Tensor._of(np.array(self._array, order="C"))

    def _rebase(self, edge: Edge) -> None:
        self._set_edge(edge)
        self._history += 1

    def _accumulate(self, grad: Tensor, recording: bool) -> None:
        """Add a gradient that has arrived at this leaf."""
        with _accumulating:
            held = self._grad
            if held is None:
                self._grad = grad.clone() if recording else grad._copied()
            elif recording:
                self._grad = held + grad
            elif held.requires_grad or not held._array.flags.writeable:
                self._grad = Tensor._of(held._array + grad._array)
            else:
                np.add(held._array, grad._array, out=held._array)
                held._writes.number += 1
        if self._after_hooks is not None:
            for hook in list(self._after_hooks.values()):
                hook(self)

    def backward(self, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None) -> None:
        """Add the gradients of this tensor to the `.grad` of the leaves it was computed from.

        Parameters
        ----------
        gradient : Tensor, optional
            The weights of the elements, of this tensor's shape: backward is a vector-Jacobian product with them. A scalar needs none.
        retain_graph : bool, optional
            Whether to keep the saved values for another backward pass; by default the value of `create_graph`.
        create_graph : bool
            Whether to record the backward pass, so that gradients can be differentiated again.
        inputs : sequence of Tensor, optional
            The tensors to accumulate gradients into; by default all leaves.

        Raises
        ------
        BackwardError
            For a tensor that is no scalar without `gradient`, one that does not require gradients, a graph that was freed.

        Examples
        --------
        >>> import staticgrad as sg
        >>> x = sg.tensor([1.0, 2.0], requires_grad=True)
        >>> (x * x).backward(gradient=sg.tensor([1.0, 10.0]))
        >>> x.grad
        tensor([ 2., 40.])
        """
        from staticgrad.eager import engine

        engine.backward([self], [gradient], retain_graph, create_graph, inputs)

    def detach(self) -> Tensor:
        """Return the same memory as a tensor that does not require gradients."""
        return Tensor._of(self._array, version=self._writes)

    def detach_(self) -> Tensor:
        """Forget the history of this tensor, and return it."""
        if self._base is not None:
            raise TensorError(at_user_line("a view cannot be detached in place; use x = x.detach()"))
        self._edge, self._requires = NOWHERE, False
        return self

    def retain_grad(self) -> None:
        """Keep the gradient of this computed tensor in its `.grad` when backward passes it."""
        if not self.requires_grad:
            raise TensorError(at_user_line("retain_grad() of a tensor that does not require gradients"))
        if self.is_leaf:
            return
        self._retains = True
        self._set_edge(self._gradient_edge())

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Handle:
        """Call `hook(gradient)` when backward has the gradient of this tensor; what it returns, if anything, replaces it.

        Returns
        -------
        Handle
            Its `.remove()` ends this.
        """
        if not self.requires_grad:
            raise TensorError(at_user_line("register_hook() on a tensor that does not require gradients"))
        node, result = self._gradient_edge()
        assert node is not None
        if self.is_leaf:
            if self._hooks is None:
                self._hooks = node.hooks_of(0)
            return self._hooks.add(hook)
        return node.hooks_of(result).add(hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> Handle:
        """Call `hook(tensor)` on this leaf whenever backward has added to its `.grad`, for example to update it at once.

        Returns
        -------
        Handle
            Its `.remove()` ends this.

        Raises
        ------
        TensorError
            For a computed tensor, or one that does not require gradients.

        Examples
        --------
        >>> import staticgrad as sg
        >>> x = sg.tensor([1.0, 2.0], requires_grad=True)
        >>> _ = x.register_post_accumulate_grad_hook(lambda leaf: print(leaf.grad))
        >>> (x * x).sum().backward()
        tensor([2., 4.])
        """
        if not (self.is_leaf and self._requires):
            raise TensorError(
                at_user_line(
                    "register_post_accumulate_grad_hook() is for leaves that require gradients; use retain_grad() or register_hook()"
                )
            )
        if self._after_hooks is None:
            self._after_hooks = Hooks()
        return self._after_hooks.add(hook)

    # ---- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype."""
        return self._array.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._array.ndim

    @property
    def device(self) -> str:
        """Where the memory is."""
        return "cpu"

    @property
    def is_cuda(self) -> bool:
        """Whether the memory is a GPU's: never."""
        return False

    def dim(self) -> int:
        """Return the number of axes."""
        return self._array.ndim

    def size(self, dim: int | None = None) -> Any:
        """Return the lengths of the axes, or that of axis `dim`."""
        return self._array.shape if dim is None else self._array.shape[dim]

    def numel(self) -> int:
        """Return the number of elements."""
        return int(self._array.size)

    def stride(self) -> tuple[int, ...]:
        """Return the steps between neighbours along the axes, in elements."""
        return tuple(step // self._array.itemsize for step in self._array.strides)

    def data_ptr(self) -> int:
        """Return the address of the first element."""
        return int(self._array.ctypes.data)

    def is_contiguous(self) -> bool:
        """Return whether the elements stand in memory one after the other, the last axis fastest."""
        return bool(self._array.flags.c_contiguous)

    def is_floating_point(self) -> bool:
        """Return whether the elements are floats."""
        return is_float(self._array.dtype)

    def __len__(self) -> int:
        if not self._array.ndim:
            raise ArgumentError(at_user_line("len() of a tensor without axes"))
        return len(self._array)

    def __repr__(self) -> str:
        node = self.grad_fn
        return tensor_text(
            self._array,
            default_dtype=get_default_dtype(),
            grad_fn=None if node is None else node.name(),
            requires_grad=self._requires,
        )

    def __format__(self, spec: str) -> str:
        if not self._array.ndim:
            return format(self.item(), spec)
        return repr(self) if not spec else self._no_format(spec)

    def _no_format(self, spec: str) -> NoReturn:
        raise ArgumentError(at_user_line(f"the format {spec!r} is for one number, not for a tensor of shape {self.shape}"))

    # ---- its value for Python and NumPy

    def item(self) -> Any:
        """Return the value of a tensor of one element as a Python number."""
        if self._array.size != 1:
            raise TensorError(at_user_line(f"a tensor of {self._array.size} elements (shape {self.shape}) is no single number"))
        return self._array.item()

    def tolist(self) -> Any:
        """Return the elements as nested lists of Python numbers."""
        return self._array.tolist()

    def numpy(self) -> np.ndarray:
        """Return the array, which shares its memory with the tensor.

        Raises
        ------
        TensorError
            When the tensor requires gradients: what is done with the array would not be recorded.
        """
        if self.requires_grad:
            raise TensorError(
                at_user_line(
                    "a tensor that requires gradients cannot become a NumPy array, whose operations are not recorded: use "
                    "x.detach().numpy()"
                )
            )
        return self._array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if copy is False and dtype is not None and np.dtype(dtype) != array.dtype:
            raise TensorError(at_user_line(f"a tensor of {array.dtype} cannot become an array of {dtype} without a copy"))
        return np.array(array, dtype) if copy else array.astype(array.dtype if dtype is None else dtype, copy=False)

    def __dlpack__(self, **options: Any) -> Any:
        return self.numpy().__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()

    def __bool__(self) -> bool:
        if self._array.size != 1:
            raise TensorError(at_user_line(f"the truth of a tensor of shape {self.shape} is ambiguous; use .any() or .all()"))
        return bool(self._array)

    def __float__(self) -> float:
        return float(self._single())

    def __int__(self) -> int:
        return int(self._single())

    def __complex__(self) -> complex:
        return complex(self._single())

    def _single(self) -> Any:
        if self._array.size != 1:
            raise InvalidValueError(at_user_line(f"a tensor of {self._array.size} elements (shape {self.shape}) is no single number"))
        return self._array.item()

    def __index__(self) -> int:
        if self._array.size != 1 or self._array.dtype.kind not in "biu":
            raise ArgumentError(at_user_line(f"only integer tensors of one element can be indices, not {aval_of(self)}"))
        return int(self._array.item())

    def __hash__(self) -> int:
        return id(self)

    def __contains__(self, element: Any) -> bool:
        if not isinstance(element, (Tensor, bool, int, float, complex, np.ndarray, np.generic)):
            raise TensorError(at_user_line(f"a tensor holds numbers; {type(element).__name__} {element!r} cannot be among them"))
        return bool(np.any(self._array == (element._array if isinstance(element, Tensor) else element)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise TensorError(at_user_line("only leaves can be copied by copy.deepcopy(); use x.detach().clone(), or x.clone()"))
        made = memo[id(self)] = Tensor._of(self._array.copy(), requires=self._requires)
        made._grad = None if self._grad is None else self._grad.detach().clone()
        return made

    def __reduce__(self) -> Any:
        if not self.is_leaf:
            raise TensorError(at_user_line("only leaves can be pickled; use x.detach()"))
        return _remade, (np.array(self._array), self._requires)


_accumulating = threading.RLock()
"""Held while a gradient is added, as several backward passes may arrive at one leaf."""


def check_differentiable(dtype: np.dtype) -> None:
    """Raise unless tensors of this dtype can require gradients."""
    if not is_float(dtype):
        raise TensorError(
            at_user_line(
                f"only floating-point and complex tensors can require gradients, not {dtype}: write the numbers with a point, "
                "sg.tensor([1., 2.], requires_grad=True), or convert, x.float()"
            )
        )


def _remade(array: np.ndarray, requires_grad: bool) -> Tensor:
    return Tensor._of(array, requires=requires_grad)


def aval_of(x: Tensor) -> Aval:
    """Return shape and dtype."""
    return Aval(x._array.shape, x._array.dtype)


def _warn(message: str) -> None:
    warnings.warn(message, StaticgradWarning, stacklevel=user_stack_level())
