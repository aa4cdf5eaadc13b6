"""What emitted Numba source is written in: each name means the same to Numba's compiler and to plain Python."""

from staticgrad.runtime.vocabulary.kernel import kernel
from staticgrad.runtime.vocabulary.lanes import any_lane, convert, extract, load_lanes, splat, store_lanes
from staticgrad.runtime.vocabulary.memory import argument, call_external, fail, local_array, offset, parallel, scratch
from staticgrad.runtime.vocabulary.scalars import (
    bitcast,
    floor,
    fma,
    maximum,
    minimum,
    mulhi,
    quotient,
    remainder,
    rint,
    select,
    shift_left,
    shift_right,
    sqrt,
    to_integer,
    trunc,
)

__all__ = [
    "any_lane",
    "argument",
    "bitcast",
    "call_external",
    "convert",
    "extract",
    "fail",
    "floor",
    "fma",
    "kernel",
    "load_lanes",
    "local_array",
    "maximum",
    "minimum",
    "mulhi",
    "offset",
    "parallel",
    "quotient",
    "remainder",
    "rint",
    "scratch",
    "select",
    "shift_left",
    "shift_right",
    "splat",
    "sqrt",
    "store_lanes",
    "to_integer",
    "trunc",
]
