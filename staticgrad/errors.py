"""Every exception that staticgrad raises.

Each is a `StaticgradError` and also the built-in exception that NumPy or PyTorch raise for the same mistake, so code that
catches `ValueError` for a bad shape keeps working when it is traced.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class StaticgradError(Exception):
    """Base class of every error that staticgrad raises on purpose."""


class ShapeError(StaticgradError, ValueError):
    """Operands whose shapes do not fit the operation."""


class DTypeError(StaticgradError, TypeError):
    """Operands whose dtypes the operation does not take."""


class AxisError(StaticgradError, np.exceptions.AxisError):
    """An axis that the operand does not have (a `ValueError` and an `IndexError`, as in NumPy)."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class IndexingError(StaticgradError, IndexError):
    """An index that is out of range or of a kind that cannot be traced."""


class ArgumentError(StaticgradError, TypeError):
    """An argument of the wrong kind, a missing one or one too many."""


class InvalidValueError(StaticgradError, ValueError):
    """An argument of the right kind with a value that makes no sense."""


class TraceError(StaticgradError, TypeError):
    """Python code that needs the value of an array while only its shape and dtype are known."""


class LeakedTracerError(TraceError):
    """A tracer that outlived the trace it belongs to."""


class ReadOnlyError(StaticgradError, ValueError):
    """A write into an array that must not change: an argument, or an array of an enclosing trace."""


class UnsupportedError(StaticgradError, TypeError):
    """A NumPy function, a method or a keyword that staticgrad does not have."""


class MissingAttributeError(StaticgradError, AttributeError):
    """An attribute that neither NumPy nor staticgrad has."""


class UnsupportedAttributeError(UnsupportedError, AttributeError):
    """An attribute that NumPy's arrays or its namespace have and staticgrad does not; `hasattr` answers False."""


class DependencyError(StaticgradError, ImportError):
    """An optional package is missing; the message names the extra that installs it."""


class ExecutionError(StaticgradError, RuntimeError):
    """A compiled function reported a failure while it ran."""


class MissingDerivativeError(StaticgradError, NotImplementedError):
    """A function without a derivative in the mode asked for (a `RuntimeError`, as in PyTorch)."""


class TensorError(StaticgradError, RuntimeError):
    """A tensor used as it cannot be: an in-place change of a leaf, gradients of integers, the value of many elements as one."""


class BackwardError(StaticgradError, RuntimeError):
    """A backward pass that cannot be taken: from something that is no scalar, or through a graph whose saved values are freed."""


class StaleValueError(BackwardError):
    """A value that the backward pass needs was changed in place after it was recorded."""


class IntegerPowerError(StaticgradError, ValueError):
    """An integer raised to a negative integer power (NumPy's `ValueError`)."""


class OverflowedError(StaticgradError, OverflowError):
    """A Python integer that does not fit the dtype it meets."""


class RecursionTraceError(TraceError, RecursionError):
    """The traced function calls itself without end."""


class NonFiniteLossError(StaticgradError, FloatingPointError):
    """The loss of a training is infinite or not a number.

    Attributes
    ----------
    state
        The state before the update that led there.
    history
        The epochs until then.
    epoch, batch : int
        Where it happened, both counted from 1.
    """

    def __init__(self, message: str, state: Any, history: Any, epoch: int, batch: int) -> None:
        super().__init__(message)
        self.state, self.history, self.epoch, self.batch = state, history, epoch, batch


class VerificationError(StaticgradError, RuntimeError):
    """A graph or a loop program that breaks its own rules: a defect of staticgrad; the message names the guilty pass."""


class GradientCheckError(StaticgradError, AssertionError, RuntimeError):
    """`check_grads` or `gradcheck` found a derivative that differs from its numerical estimate (in PyTorch a `RuntimeError`)."""


class ExpressionError(StaticgradError, SyntaxError, ValueError):
    """An expression of an `ExpressionGraph` that cannot be read or makes no sense; the message shows it with a caret."""


class StepOrderError(StaticgradError, RuntimeError):
    """A step that needs the result of another one, which has not been taken yet."""


class StaticgradWarning(UserWarning):
    """Something that works, but probably not as meant."""
