"""Guards notice that something a traced function reads from outside is no longer what it was when it was traced.

`Guards.collect` reads the bytecode of the function and of the user's functions it calls; each global, closure variable and attribute
that they load becomes a guard. `changed` runs at every call, so guards are flattened into probes: a reader and the object that it has
to return, compared by `is`. Only where a probe fails are values compared, so running `lr = 0.1` once more changes nothing.

    lr = 0.1; hyper = {"l2": 0.5}                     globals.get("lr")    is 0.1
    def step(w, g): return w - lr * hyper["l2"] * g   globals.get("hyper") is hyper;  hyper holds the same keys and values

No user code runs: attributes are looked up in `__dict__` and slots, a property is followed into its getter. Values are held strongly,
so that no id is used twice, but not the function itself nor the object that it is bound to: guards may be kept in a registry that
is keyed by them weakly. Notebooks reload functions in place, so the `__code__` of each function is guarded, too.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from operator import call, is_
from typing import Any

from staticgrad.errors import StaticgradWarning
from staticgrad.tracing.reading import Reading
from staticgrad.tracing.snapshots import UNREADABLE, Guard, Read

_Probes = tuple[tuple[Read, ...], tuple[object, ...], tuple[Guard, ...]]


class Guards:
    """What a function reads from outside, as it was when the guards were collected.

    Attributes
    ----------
    random_uses : tuple of str
        The random numbers that the function draws from outside, such as `"np.random.normal, model.py:12"`.
    side_effects : frozenset of str
        What the function itself changes, known once `warn_about_side_effects` has run.

    Examples
    --------
    >>> lr = 0.1
    >>> guards = Guards.collect(lambda w, g: w - lr * g)
    >>> guards.changed()
    >>> lr = 0.2
    >>> guards.changed()
    "global 'lr' of module staticgrad.tracing.guards changed from 0.1 to 0.2"
    """

    def __init__(self, guards: list[Guard], stored: set[str], random_uses: tuple[str, ...]) -> None:
        self.random_uses = random_uses
        self.side_effects: frozenset[str] = frozenset()
        self._stored = frozenset(stored)
        self._set(guards)

    def _set(self, guards: list[Guard]) -> None:
        self._guards = tuple(guards)
        columns: Any = tuple(zip(*(probe for guard in guards for probe in guard.probes))) or ((), (), ())
        self._probes: _Probes = columns  # one assignment: other threads see the old ones or the new ones
        self._pairs = tuple(zip(*columns[:2]))

    @classmethod
    def collect(cls, function: object) -> Guards:
        """Return the guards of `function` for what the names it reads stand for now.

        Parameters
        ----------
        function : callable
            A function, a method, a `functools.partial`, an object with `__call__` or `py_func`.

        Returns
        -------
        Guards
            Without any guard when `function` is not written in Python or reads nothing.
        """
        reading = Reading(function)
        return cls(list(dict.fromkeys(reading.guards.values())), reading.stored, tuple(reading.random))

    def changed(self) -> str | None:
        """Return a sentence on the first thing that changed, None when nothing did."""
        reads, expected, guards = self._probes
        if not reads:
            return None
        try:
            if all(map(is_, map(call, reads), expected)):
                return None
        except (*UNREADABLE, ReferenceError):
            pass
        for read, value, guard in zip(reads, expected, guards):
            try:
                is_same = read() is value
            except (*UNREADABLE, ReferenceError):
                is_same = False
            if not is_same and (sentence := guard.sentence()):
                return sentence
        with suppress(RuntimeError):  # a dict that another thread resizes: the next call looks again
            before = self._guards
            now = [guard.again() for guard in before]
            if all(map(Guard.is_like, before, now)):  # another thread may have changed something since the values were compared
                self._set(now)  # equal values, other objects: known by identity from now on
        return None

    def probes(self) -> tuple[tuple[Read, object], ...]:
        """Return the readers and the objects that they have to return; the same tuple as long as nothing is guarded anew."""
        return self._pairs

    def warn_about_side_effects(self, stacklevel: int = 2) -> None:
        """Warn of each list, dict, set and variable that the function changed since `collect`; they are in `side_effects` then.

        These are guarded no more, here and (by `forget`) for the function's other signatures: every trace changes them.
        What was `None` or missing is let be: a value that is made at first use is an ordinary change, which retraces once.
        """
        for guard in self._guards:
            now = guard.again()
            path, old, _ = guard.difference(now) or ("", "None", "")
            is_mutated = path.endswith("]") or old.endswith(" items")
            is_stored = old not in ("None", "nothing") and (path.rpartition(".")[2] or guard.name) in self._stored
            if guard.leaves != now.leaves and (is_mutated or is_stored):
                self.side_effects |= {guard.label}
                place = guard.label + (path and ": " + path)
                message = f"{place} was changed by the function being traced: Python side effects happen once, at tracing"
                warnings.warn(message, StaticgradWarning, stacklevel=stacklevel)
        self.forget(self.side_effects)

    def forget(self, labels: frozenset[str]) -> None:
        """Guard what is called `labels` no more."""
        if labels:
            self._set([guard for guard in self._guards if guard.label not in labels])

    def warn_about_random(self, stacklevel: int = 2) -> None:
        """Warn when the function draws random numbers with NumPy: every call would see those of the tracing."""
        if self.random_uses:
            uses = "; ".join(self.random_uses)
            message = f"random numbers drawn once, at tracing, stay the same at every call ({uses}): pass them in or use sg.random"
            warnings.warn(message, StaticgradWarning, stacklevel=stacklevel)
