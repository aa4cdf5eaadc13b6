"""The bytecode of a function as far as it reads and stores names: the same for every Python version.

w = w - lr * self.rate      ->      local w, global lr, local self, attribute rate, store w
"""

from __future__ import annotations

import dis
import re
import types
from collections.abc import Iterator
from typing import Any

_VERSIONS = {
    "attribute": "LOAD_ATTR LOAD_METHOD",
    "global": "LOAD_GLOBAL",
    "name": "LOAD_NAME LOAD_FROM_DICT_OR_GLOBALS",  # in the body of a class
    "local": "LOAD_FAST LOAD_FAST_CHECK LOAD_DEREF LOAD_CLASSDEREF LOAD_FROM_DICT_OR_DEREF",
    "store": "STORE_FAST STORE_DEREF STORE_NAME DELETE_FAST DELETE_DEREF DELETE_NAME",
    "store outside": "STORE_ATTR DELETE_ATTR STORE_GLOBAL DELETE_GLOBAL",
    "import": "IMPORT_NAME",
    "import from": "IMPORT_FROM",
}
_KINDS = {name: kind for kind, names in _VERSIONS.items() for name in names.split()}


def operations_of(code: types.CodeType) -> list[tuple[str, Any, int]]:
    """Return the instructions of `code` as (kind, name, line), the same for every Python version."""
    operations: list[tuple[str, Any, int]] = []
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        name, value = instruction.opname, instruction.argval
        line = (instruction.positions and instruction.positions.lineno) or line
        if isinstance(value, tuple) and "_FAST_" in name:  # 3.13: LOAD_FAST_LOAD_FAST and its like
            operations += [(_KINDS[verb + "_FAST"], each, line) for verb, each in zip(re.findall("LOAD|STORE", name), value)]
        elif name == "LOAD_FAST" and value in (*code.co_cellvars, *code.co_freevars):  # 3.13: a cell for an inner function
            operations.append(("other", value, line))
        elif name not in ("NOP", "EXTENDED_ARG"):
            operations.append(("copy" if name == "COPY" and instruction.arg == 1 else _KINDS.get(name, "other"), value, line))
    operations.append(("other", "", line))
    # `self.n += 1` copies self, to read and to write
    return [this for this, after in zip(operations, operations[1:] + operations[-1:]) if (this[0], after[0]) != ("copy", "attribute")]


def inner_stores(code: types.CodeType) -> Iterator[str]:
    """Yield the names that functions inside `code` declare `nonlocal` and store."""
    for inner in (constant for constant in code.co_consts if isinstance(constant, types.CodeType)):
        yield from (name for kind, name, _ in operations_of(inner) if kind == "store" and name in inner.co_freevars)
        yield from inner_stores(inner)
