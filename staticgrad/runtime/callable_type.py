"""The type of traced functions: objects that Python calls through a pointer to machine code, kept in each of them.

    0  the head of every object            16  the vectorcall function
    24 the address of the word that holds the first form of call (`fast_call.%State`)

The type is made with CPython's stable interface, so nothing is assumed of the interpreter but the head of objects.
"""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from typing import Any

HEAD, VECTORCALL, FORMS = 16, 16, 24
_SIZE = 32

_DEFAULT, _BASETYPE, _HAVE_VECTORCALL = 1 << 18, 1 << 10, 1 << 11  # Py_TPFLAGS_...
_TP_CALL, _TP_MEMBERS = 50, 72  # Py_tp_...
_READONLY, _PYSSIZET = 1, 19


class _Slot(ctypes.Structure):
    _fields_ = [("slot", ctypes.c_int), ("content", ctypes.c_void_p)]


class _Member(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p), ("type", ctypes.c_int), ("offset", ctypes.c_ssize_t), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p),
    ]  # fmt: skip


class _Spec(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p), ("basicsize", ctypes.c_int), ("itemsize", ctypes.c_int), ("flags", ctypes.c_uint),
        ("slots", ctypes.POINTER(_Slot)),
    ]  # fmt: skip


def is_supported() -> bool:
    """Return whether this interpreter is one that machine code may call into: CPython of 64 bits with a GIL, its main interpreter."""
    if sys.implementation.name != "cpython" or sys.maxsize < 2**63 - 1 or not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return False
    if sysconfig.get_config_var("Py_GIL_DISABLED") or object.__basicsize__ != HEAD:
        return False
    current = ctypes.PYFUNCTYPE(ctypes.c_void_p)(("PyInterpreterState_Get", ctypes.pythonapi))
    number = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(("PyInterpreterState_GetID", ctypes.pythonapi))
    return bool(number(current()) == 0)


def _make(name: str, size: int, *bases: type) -> Any:
    """Return a type whose objects Python calls through the pointer in them."""
    members = (_Member * 2)(_Member(b"__vectorcalloffset__", _PYSSIZET, VECTORCALL, _READONLY, None), _Member())
    call = ctypes.cast(ctypes.pythonapi.PyVectorcall_Call, ctypes.c_void_p)
    slots = (_Slot * 3)(_Slot(_TP_MEMBERS, ctypes.addressof(members)), _Slot(_TP_CALL, call), _Slot())
    spec = _Spec(name.encode(), size, 0, _DEFAULT | _BASETYPE | _HAVE_VECTORCALL, slots)
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object)(("PyType_FromSpecWithBases", ctypes.pythonapi))
    made: Any = make(ctypes.addressof(spec), bases or (object,))
    made._memory = (members, slots, spec)  # CPython keeps pointers into the members
    return made


class _SlowCallable:
    """What stands in for the type where machine code may not call into the interpreter."""


FastCallable: Any = _make(f"{__name__}.FastCallable", _SIZE) if is_supported() else _SlowCallable
"""The base of traced functions. An object without a vectorcall function cannot be called: `enter` gives it one."""


def directly_called(kind: type) -> type:
    """Return the class of entered objects of `kind`: Python 3.11 reaches those of classes written in Python in a roundabout way."""
    is_direct = FastCallable is _SlowCallable or kind.__flags__ & _HAVE_VECTORCALL
    return kind if is_direct else _make(f"{kind.__module__}.{kind.__qualname__}", kind.__basicsize__, kind)


def enter(instance: Any, vectorcall: int, forms: int) -> None:
    """Enter the addresses of the vectorcall function and of the word with the first form into an object of this type."""
    ctypes.c_void_p.from_address(id(instance) + FORMS).value = forms
    ctypes.c_void_p.from_address(id(instance) + VECTORCALL).value = vectorcall
