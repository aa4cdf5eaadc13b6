"""The LLVM printer: what the text looks like, and that it means what the Numba printer's source means."""

import importlib
import re
from dataclasses import replace

import numpy as np
import pytest

from staticgrad.codegen.llvm_facts import pointer_facts
from staticgrad.codegen.llvm_opcodes import OPCODES as PRINTED
from staticgrad.codegen.llvm_printer import named_text, print_llvm
from staticgrad.codegen.llvm_values import LocalNames, literal_text
from staticgrad.errors import VerificationError
from staticgrad.ir.aval import BOOL, FLOAT32, FLOAT64, INT64
from staticgrad.ir.loops import OPCODES, Buffer, Index, Invoke, Let, Scalar, Space, Store, Unit
from tests.codegen.llvm_units import run_text
from tests.codegen.units import LANES, assert_same, doubling, function, parameter, run, unit_of, whole

numba_tests = importlib.import_module("tests.codegen.test_numba_printer")
table_tests = importlib.import_module("tests.runtime.test_compile")


def lines_of(f, *others):
    """Return the instructions of a function, as printed."""
    text = print_llvm(replace(unit_of("text", f), functions=(*others, f)), "text")
    start = text.index(f"@{f.name}(")
    return [line.strip() for line in text[start : text.index("\n}", start)].splitlines()[1:]]


# ---- the Numba printer's own tests, under this printer

SAME_MEANING = (
    "test_loads_stay_before_the_stores_that_follow_them", "test_broadcast_and_reduction_with_local_array", "test_control_flow",
    "test_values_of_variables_are_taken_before_they_change", "test_calls_with_offsets_numbers_and_failures",
    "test_variables_of_lanes_are_values", "test_masked_stores_and_positions", "test_index_from_memory_wraps_nowhere",
    "test_counters_and_indices", "test_long_stages_become_several_functions", "test_long_headers_are_broken",
    "test_long_lines_are_broken_at_operands",
)  # fmt: skip


@pytest.mark.parametrize("name", SAME_MEANING)
def test_the_same_meaning(name, monkeypatch):
    monkeypatch.setattr(numba_tests, "run", run_text)
    getattr(numba_tests, name)()


@pytest.mark.parametrize("lanes", [1, LANES])
@pytest.mark.parametrize("group", ["floats", "signed", "unsigned"])
def test_every_instruction(group, lanes, monkeypatch):
    names = {"floats": ("bool", *table_tests.FLOATS), "signed": table_tests.INTEGERS[:4], "unsigned": table_tests.INTEGERS[4:]}
    monkeypatch.setattr(table_tests, "run", run_text)
    table_tests.test_every_instruction(names[group], lanes)


@pytest.mark.parametrize("lanes", [1, LANES])
def test_every_cast(lanes, monkeypatch):
    monkeypatch.setattr(table_tests, "run", run_text)
    table_tests.test_every_cast(lanes)


def test_literals_and_a_register_tiled_product(monkeypatch):
    monkeypatch.setattr(table_tests, "run", run_text)
    table_tests.test_literals_keep_their_bits()
    table_tests.test_register_tiled_matmul()


def test_every_opcode_is_printed():
    assert set(PRINTED) == set(OPCODES)


def test_both_printers_write_the_same_bits():
    """One unit with kernels, lanes and a reduction, under Numba, LLVM and Python."""
    f = table_tests.tabulate("float32", table_tests.instructions("float32"), LANES)
    arrays = table_tests.operands_and_outputs("float32", table_tests.instructions("float32"))
    unit = unit_of("both", f)
    for x, y in zip(run(unit, arrays).compiled, run_text(unit, arrays).compiled):
        assert_same(x, y, "Numba and LLVM")


def test_whether_any_lane_holds():
    x, out, flags = parameter("x", "f4", 64), parameter("out", "f4", 4), parameter("flags", "bool", 4)

    def make(b):
        with b.loop(4) as i:
            v = b.load(x, i * LANES, LANES)
            some = b.any(b.lt(v, b.like(0, v)))
            b.store(flags, i, some)
            b.store(out, i, b.select(some, b.literal(1, FLOAT32), b.literal(-1, FLOAT32)))

    values = np.ones(64, "f4")
    values[[5, 16, 63]] = -1
    unit = unit_of("any", function("any", [x, out, flags], make))
    for way in (run, run_text):
        ran = way(unit, [values, np.zeros(4, "f4"), np.zeros(4, bool)])
        assert ran.compiled[1].tolist() == [1, 1, -1, 1] and ran.compiled[2].tolist() == [True, True, False, True]


# ---- text


def sums():
    """Return a unit of two functions, the second one with a local array, a variable and a failure."""
    x, y, out = (parameter(name, "f4", 128) for name in ("x", "y", "out"))

    def make(b):
        b.comment("multiply, add")
        with b.loop(128) as i:
            t = b.load(x, i)
            b.store(out, i, b.fma(t, b.load(y, i), b.like(0.1, t)))

    values, total = parameter("values", "f4", 128), parameter("total", "f4", 1)

    def add_up(b):
        acc = b.local(FLOAT32, LANES, "acc")
        b.store(acc, 0, b.literal(0, FLOAT32, LANES))
        with b.loop(128, step=LANES) as i:
            b.store(acc, 0, b.add(b.load(acc, 0, LANES), b.load(values, i, LANES)))
        s = b.variable(b.literal(0, FLOAT32), "s")
        with b.loop(LANES) as j:
            b.set(s, b.add(b.get(s), b.load(acc, j)))
        b.fail_if(b.is_nan(b.get(s)), 1, 12)
        b.store(total, 0, b.get(s))

    nest = function("nest_0", [x, y, out], make, title="fma of `h` (model.py:12)")
    reduce = function("reduce_0", [values, total], add_up, title="sum of `h` (model.py:13)")
    X, Y = (Buffer(name, FLOAT32, 128, Space.INPUT, position=k) for k, name in enumerate("xy"))
    S = Buffer("sum", FLOAT32, 1, Space.OUTPUT, position=2)
    H = Buffer("h", FLOAT32, 128, Space.RESIDUAL, offset=64)
    forward, backward = (Invoke(nest, whole(X, Y, H)), Invoke(reduce, whole(H, S))), (Invoke(nest, whole(H, H, X)),)
    return Unit("sg_1a2b3c", (X, Y, S), forward, backward, 576, 576, (nest, reduce))


def test_a_whole_unit(golden):
    golden("llvm_unit.ll.txt", print_llvm(sums(), "1a2b3c"))


def test_a_loop():
    x, out = parameter("x", "f8", 8), parameter("out", "f8", 8)

    def make(b):
        with b.loop(8) as i:
            b.store(out, i, b.mul(b.load(x, i), b.literal(0.5, FLOAT64)))

    assert lines_of(function("f", [x, out], make)) == [
        "entry:",
        "br label %loop_i",
        "loop_i:",
        "%i = phi i64 [ 0, %entry ], [ %i_next, %loop_i ]",
        "%x_at0 = getelementptr inbounds double, ptr %x, i64 %i",
        "%x0 = load double, ptr %x_at0, align 8",
        "%out0 = fmul double %x0, 0x3FE0000000000000",
        "%out_at0 = getelementptr inbounds double, ptr %out, i64 %i",
        "store double %out0, ptr %out_at0, align 8",
        "%i_next = add nuw nsw i64 %i, 1",
        "%i_more = icmp slt i64 %i_next, 8",
        "br i1 %i_more, label %loop_i, label %done_i",
        "done_i:",
        "ret void",
    ]


@pytest.mark.parametrize(
    ("start", "stop", "step", "flags"),
    [(0, 8, 1, " nuw nsw"), (-4, 8, 3, " nsw"), (0, 2**63 - 1, 5, ""), (5, 5, 1, None), (9, 2, 1, None)],
)
def test_what_is_certain_of_a_counter(start, stop, step, flags):
    def make(b):
        with b.loop(stop, start, step):
            pass

    steps = [line for line in lines_of(function("f", [], make)) if "_next = add" in line]
    assert steps == ([] if flags is None else [f"%i_next = add{flags} i64 %i, {step}"])


def test_a_loop_to_a_number_of_run_time_may_be_empty():
    out, n = parameter("out", "i8", 10), Scalar(-1, INT64, hint="n")

    def make(b):
        with b.loop(n, start=2, step=3) as i, b.loop(i + 1, start=i - 1, hint="j") as j:
            b.store(out, j, b.add(b.load(out, j), b.position(i)))

    f = function("f", [out], make, [n])
    assert sum("icmp slt" in line for line in lines_of(f)) == 3  # the inner loop runs twice for certain
    for stop in (-(2**63), 0, 2, 3, 9):
        unit = unit_of("until", f)
        unit = replace(unit, forward=(Invoke(f, unit.forward[0].buffers, (Index(stop),)),))
        run_text(unit, [np.zeros(10, "i8")])


def test_nothing_is_undefined_and_no_bit_is_traded_for_speed():
    tables = [table_tests.instructions(name) for name in ("float32", "int64", "uint8")]
    functions = [table_tests.tabulate(name, table, lanes) for name, table in zip(("float32", "int64", "uint8"), tables) for lanes in (1, 4)]
    text = print_llvm(unit_of("flags", *functions), "flags")
    assert not re.search(r"\b(fast|nnan|ninf|nsz|arcp|contract|afn|reassoc|exact|disjoint|undef)\b", text)
    flagged = [line for line in text.splitlines() if re.search(r"\b(nuw|nsw)\b", line)]
    assert flagged and all(re.match(r"  %i\d*_next = add nuw nsw i64 %i\d*, [14]$", line) for line in flagged)
    accessed = set(re.findall(r"(?:load|store) .*ptr (%[\w.]+), align", text))
    assert set(re.findall(r"(%[\w.]+) = getelementptr inbounds (?!ptr)", text)) <= accessed


def test_a_masked_store_claims_no_bounds():
    x = parameter("x", "f4", 20)
    mask = lambda b, v: b.lt(v, b.like(0, v))  # noqa: E731

    def make(b):
        v = b.load(x, 0, LANES)
        b.store(x, 16, v, mask(b, v))

    f = function("f", [x], make)
    assert "%x_at0 = getelementptr float, ptr %x, i64 16" in lines_of(f)
    values = np.arange(20, dtype="f4")
    values[:4] *= -1
    values[1:3] -= 1
    run_text(unit_of("masked_end", f), [values])


def test_names():
    names = LocalNames()
    wishes = ["x", "x", "x1", "x1", "a.b c", "lambda", "2x", ""]
    assert [names.unique(wish) for wish in wishes] == ["x", "x0", "x1", "x1.0", "a_b_c", "lambda", "v2x", "value"]
    assert [names.numbered("x"), names.numbered("y"), names.numbered("x")] == ["x2", "y0", "x3"]
    entry, weird = parameter("entry", "f8", 1), parameter("größe %1", "f8", 1)
    f = function("fail", [entry, weird], lambda b: b.store(entry, 0, b.load(weird, 0)), title="a\nb")
    run_text(unit_of("names", f), [np.zeros(1), np.ones(1)])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float64(0.1), "0x3FB999999999999A"),
        (np.float32(0.1), "0x3FB99999A0000000"),
        (np.float32(-0.0), "0x8000000000000000"),
        (np.float32(1e-45), "0x36A0000000000000"),
        (np.float64(np.inf), "0x7FF0000000000000"),
        (np.uint32(0x7FA00001).view(np.float32), "0x7FF4000020000000"),
        (np.uint32(0xFFC00000).view(np.float32), "0xFFF8000000000000"),
        (np.int64(-(2**63)), "-9223372036854775808"),
        (np.uint64(2**64 - 1), "18446744073709551615"),
        (np.bool_(True), "true"),
    ],
)
def test_literals(value, text):
    assert literal_text(value) == text


def test_literals_keep_the_payload_of_a_nan():
    out = parameter("out", "f4", 3)
    nans = np.array([0x7FA00001, 0xFFC00123, 0x7F800001], np.uint32)

    def make(b):
        for k, value in enumerate(nans.view(np.float32)):
            b.root.statements.append(Store(out, Index(k), Scalar(-1, FLOAT32, 1, value)))

    ran = run_text(unit_of("payload", function("payload", [out], make)), [np.zeros(3, "f4")])
    assert ran.compiled[0].view(np.uint32).tolist() == nans.tolist()


def test_a_name_holds_a_hash_of_the_code():
    plain, titled, other = (
        named_text(unit_of("h", f)) for f in (doubling("f"), doubling("f", title="here.py:7"), doubling("f", factor=3.0))
    )
    assert plain[0] == titled[0] != other[0]
    assert plain[1] != titled[1] and named_text(unit_of("h", doubling("f"))) == plain
    assert f"define i64 @{plain[0]}_forward(ptr %arguments, ptr %workspace, ptr %context)" in plain[1]
    assert "@sg_x_forward(" in print_llvm(unit_of("h", doubling("f")), "sg_x")


# ---- what is known of pointers


def header(text, name):
    return re.search(rf"^define internal void @{name}\((.*)\) #", text, re.M).group(1).split(", ")


def test_pointers_are_disjoint_where_every_call_keeps_them_apart():
    f = doubling("f")
    x = Buffer("x", FLOAT64, 8, Space.INPUT, position=0)
    at = lambda offset: Buffer("h", FLOAT64, 8, Space.WORKSPACE, offset=offset)  # noqa: E731

    def parameters(first, second):
        return header(print_llvm(Unit("sg_o", (x,), (Invoke(f, whole(first, second)),), None, 256, 0, (f,)), "o"), "f")

    assert parameters(x, at(64)) == [
        "ptr noalias nocapture readonly align 8 dereferenceable(64) %x_f",
        "ptr noalias nocapture writeonly align 64 dereferenceable(64) %out_f",
    ]
    assert not any("noalias" in each for each in (*parameters(x, x), *parameters(at(64), at(96))))
    assert "align 32" in parameters(at(64), at(96))[1]


def test_facts_of_pointers_follow_the_calls():
    a, b_, n = parameter("a", "f4", -1), parameter("b", "f4", -1), Scalar(-1, INT64, hint="n")

    def copy(b):
        with b.loop(n) as i:
            b.store(b_, i, b.load(a, i))

    inner = function("inner", [a, b_], copy, [n])
    x, y, unused = parameter("x", "f4", 64), parameter("y", "f4", 64), parameter("unused", "f4", 0)

    def make(b):
        local = b.local(FLOAT32, 8)
        with b.loop(4) as i:
            b.invoke(inner, ((x, i * 16), (local, Index())), (8,))
            b.invoke(inner, ((local, Index()), (y, i * 16 + 2)), (8,))

    outer = function("outer", [x, y, unused], make)
    X, Y = (Buffer(name, FLOAT32, 64, Space.WORKSPACE, offset=256 * k) for k, name in enumerate("xy"))
    unit = Unit("sg_facts", (), (Invoke(outer, whole(X, Y, X)),), None, 512, 0, (inner, outer))
    facts = pointer_facts(unit)
    assert [(f.reads, f.writes, f.alignment, f.elements) for f in facts[inner]] == [(True, False, 64, 0), (False, True, 8, 0)]
    assert [(f.reads, f.writes, f.alignment, f.elements) for f in facts[outer]] == [
        (True, False, 64, 64),
        (False, True, 64, 64),
        (False, False, 64, 0),
    ]
    assert "readnone" in header(print_llvm(unit, "facts"), "outer")[2]


def test_what_a_stage_calls_once_becomes_a_part_of_it():
    f, g = doubling("f", n=5), doubling("g", n=40)
    arguments = [Buffer(f"x{k}", FLOAT64, 40, Space.INPUT, position=k) for k in range(4)]
    calls = (Invoke(f, whole(*arguments[:2])), Invoke(f, whole(*arguments[1:3])), Invoke(g, whole(*arguments[2:])))
    unit = Unit("sg_parts", tuple(arguments), calls, None, 0, 0, (f, g))
    assert re.findall(r"@(\w)\(.*\) (#\d) \{", print_llvm(unit, "parts")) == [("f", "#0"), ("g", "#3")]
    run_text(unit, [np.ones(40), np.zeros(40), np.zeros(40), np.zeros(40)])


def test_plain_loops_are_left_to_the_vectoriser():
    def plain(make, trip=100):
        x = parameter("x", "f8", 400)

        def inside(b):
            with b.loop(trip) as i:
                make(b, x, i)

        return "!staticgrad.plain_loops" in print_llvm(unit_of("plain", function("f", [x], inside)), "plain")

    assert plain(lambda b, x, i: b.store(x, i, b.neg(b.load(x, i))))
    assert not plain(lambda b, x, i: b.store(x, i, b.neg(b.load(x, i))), trip=7)
    assert not plain(lambda b, x, i: b.store(x, i * 4, b.neg(b.load(x, i * 4, 4))))
    assert not plain(lambda b, x, i: b.load(x, i))
    assert not plain(lambda b, x, i: (b.fail_if(b.literal(True, BOOL), 1, 2), b.store(x, i, b.load(x, 0))))


# ---- what cannot be printed


def test_what_cannot_be_printed():
    x = parameter("x", "f8", 1)

    def refused(what, make, *buffers):
        with pytest.raises(VerificationError, match=what):
            print_llvm(unit_of("refused", function("f", buffers, make)), "refused")

    refused("was not handed to", lambda b: b.load(x, 0))
    refused("used before it is made", lambda b: b.store(x, 0, Scalar(5, FLOAT64)), x)
    refused("does not know .* 'frobnicate'", lambda b: b.root.statements.append(Let(Scalar(1, FLOAT64), "frobnicate", (b.load(x, 0),))), x)
    masked = Store(x, Index(), Scalar(-1, FLOAT64, 1, np.float64(1)), Scalar(-1, BOOL, 1, np.bool_(True)))
    refused("masked store of a single value", lambda b: b.root.statements.append(masked), x)
    f = function("f", [x], lambda b: None)
    with pytest.raises(VerificationError, match="cannot be handed"):
        print_llvm(Unit("sg_local", (), (Invoke(f, whole(Buffer("y", FLOAT64, 1, Space.LOCAL))),), None, 0, 0, (f,)), "local")
