"""The loop IR: its text, and what its verifier finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from staticgrad.errors import VerificationError
from staticgrad.ir import loops
from staticgrad.ir.aval import BOOL, FLOAT32, FLOAT64, INT64
from staticgrad.ir.builder import Builder
from staticgrad.ir.loop_text import function_text, literal_text, unit_text
from staticgrad.ir.loop_verify import verify_unit
from staticgrad.ir.loops import Assign, Buffer, Declare, Function, Get, Index, Invoke, Let, Load, Local, Loop, Scalar, Space, Store, Unit

INT32, UINT8, HALF = np.dtype(np.int32), np.dtype(np.uint8), np.dtype(np.float16)
START = Index()
VARIABLE = loops.Variable(1, FLOAT64, 1, "acc")


def parameter(name: str = "x", size: int = 16, dtype: np.dtype = FLOAT64) -> Buffer:
    return Buffer(name, dtype, size, Space.PARAMETER)


def literal(value: object) -> Scalar:
    return Scalar(-1, np.asarray(value).dtype, 1, np.asarray(value)[()])


def scalar(dtype: np.dtype = FLOAT64, lanes: int = 1) -> Scalar:
    return Scalar(1, dtype, lanes)


X, F32, N = parameter(), parameter("y", 16, FLOAT32), Scalar(-2, INT64, hint="n")
ARRAY = Buffer("array", FLOAT64, 4, Space.LOCAL)
ONE = literal(1.0)


def function(b: Builder, *buffers: Buffer, numbers: tuple[Scalar, ...] = (), name: str = "f", title: str = "") -> Function:
    return Function(name, buffers, numbers, b.root, title)


def of(
    *statements: loops.Statement, buffers: tuple[Buffer, ...] = (X, F32), numbers: tuple[Scalar, ...] = (N,), name: str = "f"
) -> Function:
    b = Builder()
    b.root.statements += statements
    return function(b, *buffers, numbers=numbers, name=name)


def verify(*functions: Function) -> None:
    verify_unit(Unit("sg_test", (), (), None, 0, 0, functions), after="testing")


def refused(problem: str, *functions: Function, statement: str = "") -> None:
    """Check that the last function is refused, with its name and the statement in the message."""
    with pytest.raises(VerificationError) as caught:
        verify(*functions)
    message = str(caught.value)
    assert message.startswith(f"after testing: in function {functions[-1].name}")
    assert problem in message
    assert not statement or f"`{statement}" in message


def smooth(title: str = "", names: tuple[str, str] = ("x", "h"), hint: str = "i") -> Function:
    b, x, h = Builder(), parameter(names[0], 1024), parameter(names[1], 1024)
    with b.loop(8, parallel=True, block=16, hint=hint) as i0, b.loop(128, hint=hint) as i1:
        at = i0 * 128 + i1
        value = b.load(x, at)
        b.store(h, at, b.fma(value, value, b.literal(0.5, FLOAT64)))
    return function(b, x, h, name="smooth", title=title)


# ---- text


def test_text_of_a_nest():
    assert function_text(smooth("multiply, add (model.py:3)")).splitlines() == [
        "function smooth(x: f64[1024], h: f64[1024]):  # multiply, add (model.py:3)",
        "  for i0 in 0..8 parallel block 16:",
        "    for i1 in 0..128:",
        "      %1 = load x[i0*128 + i1]",
        "      %2 = fma %1, %1, 0.5",
        "      store h[i0*128 + i1] <- %2",
    ]


def test_text_of_control():
    b, x = Builder(), parameter("x", -1, FLOAT32)
    array = b.local(FLOAT32, 4, "partial")
    total = b.variable(b.literal(0, FLOAT32), "total")
    with b.loop(N, start=2, step=4, lanes=4) as i:
        b.set(total, b.add(b.get(total), b.load(x, i)))
    with b.while_() as parts:
        with parts.test():
            parts.until(b.lt(b.get(total), b.literal(10, FLOAT32)))
        with parts.body():
            b.set(total, b.mul(b.get(total), b.literal(2, FLOAT32)))
    condition = b.eq(b.get(total), b.literal(np.nan, FLOAT32))
    with b.if_(condition) as otherwise:
        b.store(array, 0, b.get(total))
    with b.otherwise(otherwise):
        b.comment("never\nmind")
    b.fail_if(condition, 1, 7, Index.of(N) - 1)
    assert function_text(function(b, x, numbers=(N,))).splitlines() == [
        "function f(x: f32[?]; n):",
        "  local partial0: f32[4]",
        "  var total0: f32 = 0.0f32",
        "  for i0 in 2..n step 4 lanes 4:",
        "    %1 = total0",
        "    %2 = load x[i0]",
        "    %3 = add %1, %2",
        "    total0 = %3",
        "  repeat:",
        "    %4 = total0",
        "    %5 = lt %4, 10.0f32",
        "    while %5:",
        "      %6 = total0",
        "      %7 = mul %6, 2.0f32",
        "      total0 = %7",
        "  %8 = total0",
        "  %9 = eq %8, nanf32",
        "  if %9:",
        "    %10 = total0",
        "    store partial0[0] <- %10",
        "  else:",
        "    # never mind",
        "  fail 1 (an integer raised to a negative integer power) if %9 at node 7, index n - 1",
    ]


def test_text_of_lanes_and_types():
    b = Builder()
    four = b.load(F32, 0, 4)
    b.store(F32, 4, four, b.lt(four, b.literal(1, FLOAT32, 4)))
    b.store(X, 3, b.cast(b.extract(four, 2), FLOAT64))
    with b.loop(3) as i:
        b.store(F32, -(i * 2) + 9, b.cast(b.position(i * 3 + 1), FLOAT32))
    b.root.statements.append(loops.External("dgetrf", "lapack", ((X, Index(2)),), (Index(4), Index(4)), needs_gil=True))
    assert function_text(function(b, X, F32)).splitlines()[1:] == [
        "  %1: f32x4 = load y[0]",
        "  %2: f32x4 = splat 1.0f32",
        "  %3 = lt %1, %2",
        "  store y[4] <- %1 where %3",
        "  %4: f32 = extract %1, 2i32",
        "  %5: f64 = cast %4",
        "  store x[3] <- %5",
        "  for i0 in 0..3:",
        "    %6 = index i0*3 + 1",
        "    %7: f32 = cast %6",
        "    store y[-i0*2 + 9] <- %7",
        "  call lapack:dgetrf(x[2]; 4, 4) (gil, thread-safe)",
    ]


def test_text_of_a_unit():
    unit = two_stages()
    head, body = unit_text(unit).split("\n\n")
    assert head.splitlines() == [
        "unit sg_test: 16448 bytes of workspace, the first 8192 residual",
        "  x: f64[1024] input 0",
        "  out: f64[2048] output 1",
        "  saved: f64[1024] residual at 0",
        "  scratch: f64[1024] workspace at 8192",
        "  forward:",
        "    smooth(x, saved)",
        "    smooth(saved, out[1024])",
        "  backward:",
        "    smooth(saved, scratch)",
    ]
    assert body == function_text(unit.functions[0])
    assert "backward" not in unit_text(replace(unit, backward=None))


LITERALS = [
    (np.float64(0.1), "0.1"),
    (np.float64(-0.0), "-0.0"),
    (np.float64(5e-324), "5e-324"),
    (np.float64(-np.inf), "-inf"),
    (np.float64(np.nan), "nan"),
    (np.float32(0.1), "0.1f32"),
    (np.int64(-3), "-3"),
    (np.int32(-3), "-3i32"),
    (np.uint8(255), "255u8"),
    (np.bool_(True), "True"),
    (np.uint64(0x7FF8000000000001).view(np.float64), "nan:7ff8000000000001"),
]


@pytest.mark.parametrize(("value", "text"), LITERALS, ids=str)
def test_literals(value, text):
    assert literal_text(value) == text


def test_anonymous_texts_are_equal_where_the_code_is():
    named = replace(smooth("a title", ("fma", "load"), "row"), name="g")
    named.body.statements.append(loops.Comment("here"))
    assert function_text(smooth()) == function_text(smooth())
    assert function_text(smooth(), anonymous=True) == function_text(named, anonymous=True)
    assert function_text(named, anonymous=True).startswith("function(p0: f64[1024], p1: f64[1024]):\n")


def arithmetic(opcode: str, name: str) -> Function:
    b, x = Builder(), parameter(name)
    b.store(x, 0, b.instruction(opcode, b.load(x, 0), b.literal(1, FLOAT64)))
    return function(b, x)


def test_anonymous_texts_tell_code_apart():
    same = of(Store(X, START, literal(0.0)))
    others = [
        of(Store(X, START, literal(-0.0))),
        of(Store(X, START, literal(np.float32(0.0)))),
        of(Store(X, Index(1), literal(0.0))),
        of(Store(X, START, literal(0.0), literal(True))),
        of(Store(F32, START, literal(0.0))),
        of(Store(parameter(), START, literal(0.0)), buffers=(parameter(size=17), F32)),
        arithmetic("add", "add"),
        arithmetic("mul", "mul"),
    ]
    texts = {function_text(program, anonymous=True) for program in (same, *others)}
    assert len(texts) == 1 + len(others)


def test_names_never_clash():
    buffers = tuple(map(parameter, ("x", "x", "i0", "params['w']", "")))
    b = Builder()
    with b.loop(3) as i:
        b.store(buffers[2], i, ONE)
    assert function_text(function(b, *buffers)).splitlines() == [
        "function f(x: f64[16], x_1: f64[16], i0: f64[16], params__w__: f64[16], _: f64[16]):",
        "  for i1 in 0..3:",
        "    store i0[i1] <- 1.0",
    ]


# ---- scalars, variables and types


def test_right_programs():
    b, x, y = Builder(), parameter("x", 64), parameter("y", 8)
    with b.loop(4) as i:
        row = b.position(i * 16)
        with b.loop(16) as j:
            value = b.load(x, Index.of(row) + j)
            bits = b.bitcast(b.cast(value, FLOAT32), INT32)
            b.store(x, i * 16 + j, b.select(b.lt(value, ONE), value, b.cast(b.shr(bits, 3), FLOAT64)))
        with b.loop(i + 1) as j:  # a triangle: 0 <= i - j <= 3
            b.store(y, i - j, ONE)
        with b.loop(i * 16 + 16, start=i * 16) as j:
            b.load(x, j)
    with b.loop(N) as i:
        b.load(y, i)  # the bound is known at run time only
    with b.loop(0) as i:
        b.load(y, i + 100)  # never runs
    b.store(x, 60, b.load(x, 0, 8), b.lt(b.load(x, 0, 8), b.literal(0, FLOAT64, 8)))  # the mask guards the last lanes
    with b.loop(64, step=16) as i, b.loop(16, step=4) as j:
        b.load(x, i + j, 4)
    k = b.variable(b.literal(0, INT64))
    with b.while_() as parts:
        with parts.test():
            now = b.get(k)
            parts.until(b.lt(now, b.literal(8, INT64)))
        with parts.body():
            b.load(y, now)  # made by the test
            b.set(k, b.add(now, b.literal(1, INT64)))
    verify(function(b, x, y, numbers=(N,)), smooth())


def escaping(block: str) -> Function:
    """Return a function that uses a scalar outside the block that defines it."""
    b = Builder()
    if block == "loop":
        with b.loop(3) as i:
            inner = b.load(X, i)
    elif block == "counter":
        with b.loop(3) as i:
            inner = i.terms[0][0]
    elif block == "branch":
        with b.if_(b.literal(True, BOOL)) as otherwise:
            inner = b.load(X, 0)
        with b.otherwise(otherwise):
            b.store(X, 1, inner)
    else:
        with b.loop(3):
            variable = b.variable(ONE)
        inner = b.get(variable)
    b.position(Index(1, ((inner, 1),)))
    return function(b, X)


@pytest.mark.parametrize(("block", "name"), [("loop", "%1"), ("counter", "i0"), ("branch", "%1"), ("variable", "acc0")])
def test_scopes(block, name):
    problem = "is used before it is declared, or outside its block" if block == "variable" else "is used outside the block that defines it"
    refused(f"{name} {problem}", escaping(block))


def let(opcode: str, dtypes: tuple[np.dtype, ...], result: np.dtype, lanes: int = 1) -> Function:
    operands = tuple(Scalar(k, dtype, lanes) for k, dtype in enumerate(dtypes))
    buffers = tuple(parameter(f"x{k}", 16, dtype) for k, dtype in enumerate(dtypes))
    loads = (Load(operand, buffer, START) for operand, buffer in zip(operands, buffers))
    return of(*loads, Let(Scalar(9, result, lanes), opcode, operands), buffers=buffers)


RIGHT_TYPES = [
    ("add", (INT64, INT64), INT64),
    ("min", (UINT8, UINT8), UINT8),
    ("ne", (BOOL, BOOL), BOOL),
    ("not", (BOOL,), BOOL),
    ("mulhi", (INT64, INT64), INT64),
    ("cast", (BOOL,), FLOAT32),
    ("bitcast", (FLOAT32,), INT32),
    ("select", (BOOL, BOOL, BOOL), BOOL),
]
WRONG_TYPES = [
    ("add", (FLOAT64, FLOAT32), FLOAT64, "%2 is f32 where f64 is needed"),
    ("add", (FLOAT64, FLOAT64), FLOAT32, "%3 is f32 where f64 is needed"),
    ("add", (BOOL, BOOL), BOOL, "add is not defined for bool, bool"),
    ("add", (FLOAT64,), FLOAT64, "add takes 2 operands"),
    ("frobnicate", (FLOAT64,), FLOAT64, "frobnicate takes no operands"),
    ("div", (INT64, INT64), INT64, "div is not defined for i64, i64"),
    ("fma", (INT64, INT64, INT64), INT64, "fma is not defined"),
    ("sqrt", (INT64,), INT64, "sqrt is not defined for i64"),
    ("rint", (UINT8,), UINT8, "rint is not defined for u8"),
    ("quotient", (FLOAT64, FLOAT64), FLOAT64, "quotient is not defined for f64, f64"),
    ("shl", (FLOAT64, FLOAT64), FLOAT64, "shl is not defined for f64"),
    ("shr", (INT64, INT32), INT64, "%2 is i32 where i64 is needed"),
    ("and", (FLOAT64, FLOAT64), FLOAT64, "and is not defined for f64"),
    ("lt", (FLOAT64, FLOAT64), FLOAT64, "%3 is f64 where bool is needed"),
    ("eq", (FLOAT64, INT64), BOOL, "%2 is i64 where f64 is needed"),
    ("select", (INT64, FLOAT64, FLOAT64), FLOAT64, "%1 is i64 where bool is needed"),
    ("select", (BOOL, FLOAT64, FLOAT32), FLOAT64, "%3 is f32 where f64 is needed"),
    ("select", (BOOL, FLOAT64, FLOAT64), BOOL, "%4 is bool where f64 is needed"),
    ("cast", (FLOAT64,), HALF, "there are no scalars of float16"),
    ("bitcast", (FLOAT64,), INT32, "f64 and i32 are not of the same width"),
    ("bitcast", (UINT8,), BOOL, "not of the same width"),
    ("splat", (FLOAT64,), FLOAT64, "splat makes several lanes of one"),
    ("extract", (FLOAT64, INT32), FLOAT64, "extract takes a known lane of 1"),
]


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize(("opcode", "dtypes", "result"), RIGHT_TYPES)
def test_right_types(opcode, dtypes, result, lanes):
    verify(let(opcode, dtypes, result, lanes))


@pytest.mark.parametrize(("opcode", "dtypes", "result", "problem"), WRONG_TYPES)
def test_wrong_types(opcode, dtypes, result, problem):
    refused(problem, let(opcode, dtypes, result))


def broken() -> dict[str, tuple[str, str, Function]]:
    """Return programs with the statement that is wrong and the problem."""
    a, four, single = scalar(), scalar(lanes=4), scalar(FLOAT32)
    load, loads = Load(a, X, START), (Load(four, X, START), Load(single, F32, START))
    lane, mask = literal(np.int32(4)), Scalar(2, BOOL)
    masked = (Load(four, X, START), Load(a, X, START), Let(mask, "lt", (a, a)), Store(X, START, four, mask))
    truth = Let(Scalar(2, BOOL, 4), "lt", (four, four))
    itself = Loop(scalar(INT64), START, Index(3), 1, Builder().root)
    rows = [
        ("%1 = load x[0]", "its target is a literal, or assigned a second time", of(load, load)),
        ("1.0 = load x[0]", "its target is a literal", of(Load(ONE, X, START))),
        ("store x[0] <- %1", "%1 is used before it is defined", of(Store(X, START, a))),
        ("store x[%1] <- 1.0", "%1 is used before it is defined", of(Store(X, Index.of(scalar(INT64)), ONE))),
        ("%2 = load x[%1]", "an index is made of single integers, %1 is f64", of(load, Load(scalar(), X, Index(0, ((a, 1),))))),
        ("%1: i32 = index 3", "%1 is i32 where i64 is needed", of(loops.Position(scalar(INT32), Index(3)))),
        ("acc0 = 1.0", "acc0 is used before it is declared", of(Assign(VARIABLE, ONE))),
        ("%1 = acc0", "acc0 is used before it is declared", of(Get(a, VARIABLE))),
        ("var acc0: f64 = 1.0", "assigned a second time", of(Declare(VARIABLE, ONE), Declare(VARIABLE, ONE))),
        ("var acc0: f64 = 1.0f32", "1.0f32 is f32 where f64 is needed", of(Declare(VARIABLE, literal(np.float32(1))))),
        ("acc0 = 2", "2 is i64 where f64 is needed", of(Declare(VARIABLE, ONE), Assign(VARIABLE, literal(2)))),
        ("%1: f32 = acc0", "%1 is f32 where f64 is needed", of(Declare(VARIABLE, ONE), Get(single, VARIABLE))),
        ("%1: f32 = load x[0]", "%1 is f32 where f64 is needed", of(Load(single, X, START))),
        ("store x[0] <- 1", "1 is i64 where f64 is needed", of(Store(X, START, literal(1)))),
        ("store x[0] <- 1.0", "the literal 1.0 is declared f64x4", of(Store(X, START, Scalar(-1, FLOAT64, 4, np.float64(1))))),
        ("store x[0] <- %1 where %3", "%3 is bool where boolx4 is needed", of(*masked)),
        ("%3 = add %1, %2", "%2 is f32 where f64x4 is needed", of(*loads, Let(scalar(lanes=4), "add", (four, single)))),
        ("%2: f64 = extract %1, 4i32", "extract takes a known lane of 4", of(loads[0], Let(scalar(), "extract", (four, lane)))),
        ("%2: f64 = extract %1, n", "extract takes a known lane of 4", of(loads[0], Let(scalar(), "extract", (four, N)))),
        ("if %1:", "%1 is f64 where bool is needed", of(load, loops.If(a, Builder().root, Builder().root))),
        ("while 1:", "1 is i64 where bool is needed", of(loops.While(Builder().root, literal(1), Builder().root))),
        ("fail 1", "%2 is boolx4 where bool is needed", of(loads[0], truth, loops.Fail(truth.target, 1, 0, START))),
        ("fail 99", "nothing says what failure 99 means", of(loops.Fail(literal(True), 99, 0, START))),
        ("for i0 in 0..3 step 0:", "positive", of(replace(itself, step=0))),
        ("for i0 in 0..3 step -1:", "positive", of(replace(itself, step=-1))),
        ("for i0 in 0..3 lanes 0:", "positive", of(replace(itself, lanes=0))),
        ("for i0 in 0..3 block -1:", "not negative", of(replace(itself, block=-1))),
        ("for i0 in 0..3:", "i0 is i32 where i64 is needed", of(replace(itself, counter=scalar(INT32)))),
        ("%1 = load x[0]", "'x' is not a parameter of the function", of(load, buffers=())),
        ("%1 = load array[0]", "'array' is not declared before", of(Load(a, ARRAY, START), Local(ARRAY))),
        ("local array: f64[4]", "declared once, with its size", of(Local(ARRAY), Local(ARRAY))),
        ("local z: f64[16]", "declared once, with its size", of(Local(parameter("z")))),
        ("", "occurs twice", of(buffers=(X, X))),
        ("", "a dtype that cannot be", of(buffers=(parameter(dtype=HALF),))),
        ("", "its numbers are distinct int64 scalars", of(numbers=(N, N))),
        ("", "its numbers are distinct int64 scalars", of(numbers=(single,))),
        ("%1 = load x[16]", "'x' has 16 elements, 16 to 16 are accessed", of(Load(a, X, Index(16)))),
        ("%1 = load x[-1]", "'x' has 16 elements, -1 to -1 are accessed", of(Load(a, X, Index(-1)))),
        ("%1: f64x4 = load x[13]", "'x' has 16 elements, 13 to 16 are accessed", of(Load(four, X, Index(13)))),
        ("store array[4] <- 1.0", "'array' has 4 elements, 4 to 4", of(Local(ARRAY), Store(ARRAY, Index(4), ONE))),
    ]
    return {f"{row[0]} ({number})": row for number, row in enumerate(rows)}


@pytest.mark.parametrize("name", broken())
def test_broken_programs(name):
    statement, problem, program = broken()[name]
    refused(problem, program, statement=statement)


def test_shared_variables_of_parallel_loops():
    b = Builder()
    total = b.variable(ONE)
    with b.loop(16, parallel=True) as i:
        own = b.variable(b.get(total))
        b.set(own, b.load(X, i))
        b.store(X, i, b.get(own))
    verify(function(b, X))
    with b.loop(16, parallel=True) as i:
        b.set(total, b.load(X, i))
    refused("iterations of a parallel loop assign to a variable that they share", function(b, X), statement="acc0 = ")


# ---- bounds

WRONG_INDICES = {
    "sum": (lambda b, i, j: i * 4 + j + 1, 1),
    "difference": (lambda b, i, j: i * 4 - j, 1),
    "position": (lambda b, i, j: Index.of(b.position(i * 4 + 2)) + j, 1),
    "lanes": (lambda b, i, j: i * 4 + j, 2),
    "stride": (lambda b, i, j: i * 5 + j, 1),
    "reversed": (lambda b, i, j: -(i * 4) - j + 14, 1),
}


@pytest.mark.parametrize("name", WRONG_INDICES)
def test_indices_of_counters(name):
    index, lanes = WRONG_INDICES[name]
    b = Builder()
    with b.loop(4) as i, b.loop(4) as j:
        b.load(X, i * 4 + j)
        b.load(X, -(i * 4) - j + 15)
    verify(function(b, X))
    with b.loop(4) as i, b.loop(4) as j:
        b.load(X, index(b, i, j), lanes)
    refused("'x' has 16 elements", function(b, X))


def test_steps_and_starts():
    b, x = Builder(), parameter("x", 11)
    with b.loop(12, start=2, step=4) as i:  # 2, 6, 10
        b.load(x, i)
        b.load(x, i - 2)
    verify(function(b, x))
    with b.loop(12, start=2, step=4) as i:
        b.load(x, i + 1)
    refused("3 to 11 are accessed", function(b, x))


def test_triangles():
    b, x = Builder(), parameter("x", 4)
    with b.loop(4, start=1) as i, b.loop(i) as j:
        b.load(x, i - j - 1)
        b.load(x, i - j)
    verify(function(b, x))
    with b.loop(4, start=1) as i, b.loop(i) as j:
        b.load(x, i - j - 2)
    refused("-1 to 1 are accessed", function(b, x))


def guarded(guard: str, offset: int) -> Function:
    b = Builder()
    with b.loop(16) as i:
        if guard == "mask":
            b.store(X, i + offset, ONE, b.literal(True, BOOL))
        elif guard == "branch":
            with b.if_(b.literal(True, BOOL)):
                b.load(X, i + offset)
        elif guard == "while":
            with b.while_() as parts:
                with parts.test():
                    parts.until(b.literal(False, BOOL))
                with parts.body():
                    b.load(X, i + offset)
        else:
            with b.loop(N):
                b.load(X, i + offset)
    return function(b, X, numbers=(N,))


@pytest.mark.parametrize("guard", ["mask", "branch", "while", "loop"])
def test_guarded_indices_are_wrong_only_if_they_always_are(guard):
    for offset in (-15, -8, 8, 15):
        verify(guarded(guard, offset))
    for offset in (-16, 16):
        refused("'x' has 16 elements", guarded(guard, offset))


# ---- calls


def test_calls():
    inner, x, y = smooth(), parameter("x", 2048), parameter("y", 2048, FLOAT32)

    def calling(*buffers: tuple[Buffer, Index], numbers: tuple[Index, ...] = (), callee: Function = inner) -> Function:
        return of(Invoke(callee, buffers, numbers), buffers=(x, y))

    right = calling((x, START), (x, Index(1024)))
    verify(inner, right)
    refused("the unit has no function smooth", right, statement="call smooth(x, x[1024])")
    refused("'x' has 2048 elements, 1025 to 2048 are accessed", inner, calling((x, START), (x, Index(1025))))
    refused("smooth takes 2 buffers and 0 numbers, not 1 and 0", inner, calling((x, START)))
    refused("smooth takes 2 buffers and 0 numbers, not 2 and 1", inner, calling((x, START), (x, START), numbers=(Index(1),)))
    refused("'y' of float32 is handed over as 'x' of float64", inner, calling((y, START), (y, START)))
    counting = of(buffers=(), name="counting")
    verify(counting, calling(numbers=(Index.of(N),), callee=counting))
    refused("%1 is used before it is defined", counting, calling(numbers=(Index.of(scalar(INT64)),), callee=counting))


def test_pointers_into_functions_of_unknown_size():
    a = parameter("a", -1)
    tile = of(Store(a, START, ONE), buffers=(a,), numbers=(), name="tile")
    b = Builder()
    with b.loop(16, step=4) as i:
        b.invoke(tile, ((X, i),))
    verify(tile, function(b, X))
    b.invoke(tile, ((X, Index(16)),))
    refused("16 to 16 are accessed", tile, function(b, X), statement="call tile(x[16])")


def test_functions_of_a_unit():
    b = Builder()
    itself = function(b)
    b.invoke(itself, ())
    with pytest.raises(VerificationError, match="after testing: function f calls itself"):
        verify(itself)
    with pytest.raises(VerificationError, match="two functions have the same name"):
        verify(smooth(), smooth())


# ---- the memory of a unit


def two_stages() -> Unit:
    x = Buffer("x", FLOAT64, 1024, Space.INPUT, position=0)
    out = Buffer("out", FLOAT64, 2048, Space.OUTPUT, position=1)
    saved = Buffer("saved", FLOAT64, 1024, Space.RESIDUAL, offset=0)
    scratch = Buffer("scratch", FLOAT64, 1024, Space.WORKSPACE, offset=8192)
    f = smooth()
    forward = (Invoke(f, ((x, START), (saved, START))), Invoke(f, ((saved, START), (out, Index(1024)))))
    return Unit("sg_test", (x, out), forward, (Invoke(f, ((saved, START), (scratch, START))),), 16448, 8192, (f,))


def second_buffer(buffer: Buffer, index: Index = START) -> dict[str, object]:
    """Return the change that makes the first function write to `buffer`."""
    unit = two_stages()
    call = Invoke(unit.functions[0], (unit.forward[1].buffers[1], (buffer, index)))
    return {"arguments": unit.arguments, "forward": (call,), "backward": None, "functions": unit.functions}


def scratch(size: int = 1024, offset: int = 0, dtype: np.dtype = FLOAT64, space: Space = Space.WORKSPACE) -> Buffer:
    return Buffer("w", dtype, size, space, offset=offset)


WRONG_UNITS = [
    (lambda unit: {"workspace": 16320}, "backward, `smooth(saved, scratch)`: 'scratch' ends at byte 16384 of 16320 in the workspace"),
    (lambda unit: {"residual": 8128}, "forward, `smooth(x, saved)`: 'saved' ends at byte 8192 of 8128 in the residual"),
    (lambda unit: {"residual": 20000}, "20000 residual bytes of a workspace of 16448"),
    (lambda unit: {"functions": ()}, "the unit has no function smooth"),
    (lambda unit: {"arguments": unit.arguments[::-1]}, "argument 0 is 'out', output of 2048 elements at position 1"),
    (lambda unit: {"arguments": unit.arguments[:1]}, "'out' is no argument of the unit"),
    (lambda unit: second_buffer(scratch(offset=32)), "'w' begins at byte 32, not at a multiple of 64"),
    (lambda unit: second_buffer(scratch(offset=-1, space=Space.SLOT)), "'w' begins at byte -1"),
    (lambda unit: second_buffer(scratch(size=1023)), "'w' has 1023 elements, 0 to 1024 are handed over"),
    (lambda unit: second_buffer(scratch(size=-1)), "'w' ends at byte"),
    (lambda unit: second_buffer(scratch(dtype=FLOAT32)), "'w' of float32 is handed over as 'h' of float64"),
    (lambda unit: second_buffer(scratch(space=Space.LOCAL)), "'w' is a local: it belongs to a function"),
    (lambda unit: second_buffer(scratch(), Index(1)), "'w' has 1024 elements, 1 to 1025 are handed over"),
    (lambda unit: second_buffer(scratch(), Index.of(scalar(INT64))), "constant numbers and positions"),
]


def test_right_units():
    verify_unit(two_stages())
    verify_unit(replace(two_stages(), backward=None))
    verify_unit(replace(two_stages(), **second_buffer(scratch())))


@pytest.mark.parametrize(("change", "problem"), WRONG_UNITS, ids=[problem for _, problem in WRONG_UNITS])
def test_wrong_units(change, problem):
    unit = two_stages()
    with pytest.raises(VerificationError) as caught:
        verify_unit(replace(unit, **change(unit)), after="planning")
    assert str(caught.value).startswith("after planning: unit sg_test")
    assert problem in str(caught.value)


def test_inputs_are_not_written_to():
    unit, h = two_stages(), parameter("h", 1024)
    outer = of(Invoke(unit.functions[0], ((h, START), (h, START))), buffers=(h,), numbers=(), name="outer")  # writes through its callee
    call = Invoke(outer, ((unit.arguments[0], START),))
    with pytest.raises(VerificationError, match="the input 'x' is written to"):
        verify_unit(replace(unit, forward=(call,), functions=(*unit.functions, outer)))
