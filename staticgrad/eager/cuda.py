"""Devices: eager tensors live on the CPU; traced functions run on GPUs (`backend="cuda"`)."""

from __future__ import annotations

from staticgrad.errors import InvalidValueError
from staticgrad.ir.source import at_user_line


class device(str):
    """The name of a device, such as `device("cpu")`.

    Examples
    --------
    >>> device("cpu").type
    'cpu'
    """

    __slots__ = ()

    def __new__(cls, name: str = "cpu", index: int | None = None) -> device:
        """Return the device of that name."""
        kind = str(name).partition(":")[0]
        if kind not in ("cpu", "cuda"):
            raise InvalidValueError(at_user_line(f"device({name!r}): expected 'cpu' or 'cuda'"))
        return super().__new__(cls, name if index is None else f"{name}:{index}")

    @property
    def type(self) -> str:
        """What kind of device it is."""
        return str(self.partition(":")[0])  # which may be this very object

    @property
    def index(self) -> int | None:  # type: ignore[override]
        """Its number, if it has one."""
        number = self.partition(":")[2]
        return int(number) if number else None

    def __repr__(self) -> str:
        return f"device(type={self.type!r})" if self.index is None else f"device(type={self.type!r}, index={self.index})"


def is_available() -> bool:
    """Return whether tensors can be on a GPU: never."""
    return False


def device_count() -> int:
    """Return how many GPUs tensors can be on: none."""
    return 0


def manual_seed_all(seed: int) -> None:
    """Do nothing: there is no generator on a GPU."""
