"""Random programs: folding instructions into expressions never changes the order of reads and writes.

Each program runs as printed source and by an interpreter of the loop IR that does one statement after the other.
"""

import random

import numpy as np
import pytest

from staticgrad.codegen.numba_printer import print_unit
from staticgrad.ir.aval import INT64
from staticgrad.ir.builder import Builder
from staticgrad.ir.floats import OnFloats
from staticgrad.ir.loops import Assign, Declare, Function, Get, If, Let, Load, Loop, Position, Store, While
from staticgrad.runtime.compile import run_python
from tests.codegen.units import aligned, parameter, unit_of

SIZE = 4
METHODS = {"and": "and_", "or": "or_", "not": "not_"}


class Interpreter:
    def __init__(self, memory):
        self.memory, self.values, self.variables, self.on_floats = memory, {}, {}, OnFloats()

    def value(self, scalar):
        return self.values[scalar] if scalar.literal is None else scalar.literal

    def index(self, index):
        return index.constant + sum(int(self.value(scalar)) * factor for scalar, factor in index.terms)

    def run(self, block):
        for statement in block.statements:
            self.step(statement)

    def step(self, statement):
        match statement:
            case Let(target=target, opcode=opcode, operands=operands):
                method = getattr(self.on_floats, METHODS.get(opcode, opcode))
                self.values[target] = method(*map(self.value, operands))
            case Position(target=target, index=index):
                self.values[target] = np.int64(self.index(index))
            case Load(target=target, buffer=buffer, index=index):
                self.values[target] = self.memory[buffer.name][self.index(index)]
            case Store(buffer=buffer, index=index, value=value):
                self.memory[buffer.name][self.index(index)] = self.value(value)
            case Declare(variable=variable, value=value) | Assign(variable=variable, value=value):
                self.variables[variable] = self.value(value)
            case Get(target=target, variable=variable):
                self.values[target] = self.variables[variable]
            case Loop(counter=counter, start=start, stop=stop, step=step, body=body):
                for count in range(self.index(start), self.index(stop), step):
                    self.values[counter] = np.int64(count)
                    self.run(body)
            case If(condition=condition, then=then, otherwise=otherwise):
                self.run(then if self.value(condition) else otherwise)
            case While(test=test, condition=condition, body=body):
                self.run(test)
                while self.value(condition):
                    self.run(body)
                    self.run(test)
            case _:
                raise AssertionError(statement)


class Writer:
    """Writes a random function over two int64 buffers and some variables."""

    def __init__(self, seed, buffers):
        self.random, self.builder, self.buffers = random.Random(seed), Builder(), buffers
        self.variables = [self.builder.variable(self.builder.literal(k, INT64), f"v{k}") for k in range(3)]
        self.scalars = [self.builder.literal(k, INT64) for k in (0, 1, 5)]
        self.fresh = []  # to be used once: these fold

    def pick(self):
        if self.fresh and self.random.random() < 0.3:
            return self.fresh.pop(self.random.randrange(len(self.fresh)))
        return self.random.choice(self.scalars[-8:])

    def made(self, scalar):
        (self.fresh if self.random.random() < 0.9 and scalar.literal is None else self.scalars).append(scalar)

    def place(self):
        return self.random.randrange(2)

    def statement(self, depth):
        b, kind = self.builder, self.random.randrange(16 if depth < 3 else 12)
        if kind < 3:
            self.made(getattr(b, self.random.choice(["add", "sub", "mul", "min", "xor"]))(self.pick(), self.pick()))
        elif kind == 3:
            self.made(b.select(b.lt(self.pick(), self.pick()), self.pick(), b.neg(self.pick())))
        elif kind < 6:
            value = b.load(self.random.choice(self.buffers), self.place())
            self.made(b.add(value, self.pick()) if self.random.random() < 0.7 else value)
        elif kind < 9:
            value = b.get(self.random.choice(self.variables))
            self.made(b.mul(value, self.pick()) if self.random.random() < 0.7 else value)
        elif kind == 9:
            b.store(self.random.choice(self.buffers), self.place(), self.pick())
        elif kind < 12:
            b.set(self.random.choice(self.variables), self.pick())
        elif kind < 14:
            stop = b.and_(self.pick(), b.literal(3, INT64)) if self.random.random() < 0.5 else self.random.randrange(4)
            with b.loop(stop) as i:
                self.inside(depth, [b.position(i * 2 + 1), b.load(self.buffers[1], i)])
        elif kind == 14:
            with b.if_(b.lt(self.pick(), self.pick())) as other:
                self.inside(depth)
            if self.random.random() < 0.7:
                with b.otherwise(other):
                    self.inside(depth)
        else:
            count = b.variable(b.literal(self.random.randrange(4), INT64), "count")
            with b.while_() as parts:
                with parts.test():
                    if self.random.random() < 0.3:
                        b.store(self.buffers[0], self.place(), b.get(count))
                    parts.until(b.lt(b.literal(0, INT64), b.get(count)))
                with parts.body():
                    b.set(count, b.sub(b.get(count), b.literal(1, INT64)))
                    self.inside(depth)

    def inside(self, depth, scalars=()):
        known, outer = len(self.scalars), list(self.fresh)
        self.scalars += scalars
        for _ in range(self.random.randrange(1, 6)):
            self.statement(depth + 1)
        del self.scalars[known:]
        self.fresh = [scalar for scalar in outer if scalar in self.fresh]


@pytest.mark.parametrize("start", range(0, 300, 60))
def test_random_programs(start):
    for seed in range(start, start + 60):
        buffers = [parameter("x", "i8", SIZE), parameter("y", "i8", SIZE)]
        writer = Writer(seed, buffers)
        for _ in range(40):
            writer.statement(0)
        for k, variable in enumerate(writer.variables):
            writer.builder.store(buffers[1], k, writer.builder.get(variable))
        f = Function("f", tuple(buffers), (), writer.builder.root)
        arrays = [np.arange(SIZE), -np.arange(SIZE)]
        expected = {"x": arrays[0].copy(), "y": arrays[1].copy()}
        with np.errstate(all="ignore"):
            Interpreter(expected).run(f.body)
        source = print_unit(unit_of(f"random_{seed}", f))
        run_python(source, arrays, aligned(64), np.zeros(8, np.int64))
        assert np.array_equal(arrays[0], expected["x"]) and np.array_equal(arrays[1], expected["y"]), (seed, source)
