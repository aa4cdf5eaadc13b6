"""Expressions over the real numbers, put in order as they are made: x + x is 2*x, x*x is x**2, (1 - x)*(1 + x) is 1 - x**2.

Nodes are frozen and interned, so equal expressions are one object. What is done is what a reader expects and what holds wherever an
expression is defined; nothing is expanded, so an expression never grows.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import threading
import weakref
from collections.abc import Iterable, Iterator
from fractions import Fraction

Number = Fraction | float

SHORT_FRACTION, LONG_FRACTION = 12, 10_000
"""Numbers are written as fractions up to the first denominator, and up to the second where the decimal would be longer."""

LABEL = 40
LARGEST_POWER = 64
"""Numbers are raised to powers up to this one."""


class Expression:
    """A node of a formula.

    Its kind is `number`, `symbol`, `element` (of an array: its parts are the indices), `call` of a function, `tuple`, `sum`,
    `product` (the coefficient is its head), `power` or `operator` (its head says which).
    """

    __slots__ = ("__weakref__", "degree", "digest", "head", "kind", "label", "parts", "size")

    kind: str
    head: str | Number
    parts: tuple[Expression, ...]
    size: int
    """The length it has when it is written out, counted in nodes."""
    degree: int
    """The degree as a polynomial of the symbols, other functions of them not counted; it decides the order of terms."""
    label: str
    """The beginning of a readable form, for a stable order."""
    digest: bytes

    def __init__(self, kind: str, head: str | Number, parts: tuple[Expression, ...]) -> None:
        self.kind, self.head, self.parts = kind, head, parts
        self.size = 1 + sum(part.size for part in parts)
        self.degree = _degree(kind, parts)
        self.label = " ".join([f"{head}", *(part.label for part in parts)]).strip()[:LABEL]
        self.digest = hashlib.sha256(f"{kind} {head!r}".encode() + b"".join(part.digest for part in parts)).digest()

    def __add__(self, other: Expression | int) -> Expression:
        return add(self, other if isinstance(other, Expression) else number(other))

    def __mul__(self, other: Expression | int) -> Expression:
        return multiply(self, other if isinstance(other, Expression) else number(other))

    def __neg__(self) -> Expression:
        return _times(Fraction(-1), self)

    def __repr__(self) -> str:
        from staticgrad.formulas.text import written

        return written(self)


def _degree(kind: str, parts: tuple[Expression, ...]) -> int:
    if kind in ("symbol", "element"):
        return 1
    if kind == "product":
        return sum(part.degree for part in parts)
    if kind == "sum":
        return max(part.degree for part in parts)
    if kind == "power" and isinstance(parts[1].head, Fraction) and parts[1].head.denominator == 1:
        return parts[0].degree * int(parts[1].head)
    return 0


_interned: weakref.WeakValueDictionary[tuple[object, ...], Expression] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def make(kind: str, head: str | Number, *parts: Expression) -> Expression:
    """Return the node, the existing one if there is one, as it is."""
    key = (kind, type(head), head if head == head else "nan", *parts)  # a key holds its parts only as long as its node lives
    with _lock:
        found = _interned.get(key)
        if found is None:
            found = _interned[key] = Expression(kind, head, parts)
    return found


def walk(roots: Iterable[Expression]) -> Iterator[Expression]:
    """Yield every node below `roots` once, parts first; depth is no limit."""
    done: set[Expression] = set()
    stack = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, expanded = stack.pop()
        if node in done:
            continue
        if expanded:
            done.add(node)
            yield node
            continue
        stack.append((node, True))
        stack.extend((part, False) for part in reversed(node.parts))


# ---- leaves ------------------------------------------------------------------------------------------------------------------


def number(value: Number | int) -> Expression:
    """Return a number: as a fraction where that is exactly meant and short, otherwise as a decimal."""
    if isinstance(value, float) and math.isfinite(value):
        for longest in (SHORT_FRACTION, LONG_FRACTION):
            simple = Fraction(value).limit_denominator(longest)
            if float(simple) == value and (longest == SHORT_FRACTION or len(str(simple)) < len(repr(value))):
                value = simple
                break
        else:
            value = Fraction(int(value)) if value == int(value) and abs(value) < 1e15 else value
    return make("number", Fraction(value) if isinstance(value, int) else value)


ZERO, ONE = number(0), number(1)
TRUE, FALSE = make("symbol", "True"), make("symbol", "False")
PI, INFINITY = make("symbol", "pi"), make("symbol", "oo")
CONSTANTS = frozenset({TRUE, FALSE, PI, INFINITY, make("symbol", "nan")})


def symbol(name: str) -> Expression:
    """Return a variable."""
    return make("symbol", name)


def constant(value: float) -> Expression:
    """Return a number that stands in a program: one that is a simple multiple of a well-known constant is written as that."""
    if not math.isfinite(value):
        return make("symbol", "nan") if math.isnan(value) else multiply(number(1 if value > 0 else -1), INFINITY)
    plain = number(value)
    if isinstance(plain.head, Fraction):
        return plain
    for known, exact in _known():
        ratio = Fraction(value / known).limit_denominator(SHORT_FRACTION)
        if ratio and abs(ratio.numerator) <= 8 * SHORT_FRACTION and math.isclose(float(ratio) * known, value, rel_tol=3e-16):
            return multiply(number(ratio), exact)
    return plain


def _known() -> list[tuple[float, Expression]]:
    root, inverse = number(Fraction(1, 2)), number(-1)
    two = power(number(2), root)
    logs = [(math.log(n), call("log", number(n))) for n in (2, 10)]
    return [
        (math.pi, PI),
        (math.sqrt(math.pi), power(PI, root)),
        (1 / math.sqrt(math.pi), power(power(PI, root), inverse)),
        (math.sqrt(2), two),
        (math.sqrt(2 / math.pi), multiply(two, power(power(PI, root), inverse))),
        (1 / math.pi, power(PI, inverse)),
        *logs,
        *((1 / value, power(exact, inverse)) for value, exact in logs),
    ]


# ---- sums ----------------------------------------------------------------------------------------------------------------------


def _split(x: Expression) -> tuple[Number, Expression]:
    """Return the coefficient of a term, and the rest."""
    if x.kind == "number":
        return x.head, ONE  # type: ignore[return-value]
    if x.kind == "product":
        return x.head, x.parts[0] if len(x.parts) == 1 else make("product", Fraction(1), *x.parts)  # type: ignore[return-value]
    return Fraction(1), x


def _scaled(coefficient: Number, rest: Expression) -> Expression:
    """Return a coefficient times an expression that has none, without putting its parts in order again."""
    if rest is ONE or coefficient == 0:
        return number(coefficient)
    if coefficient == 1:
        return rest
    if rest.kind == "product":
        return make("product", number(coefficient).head, *rest.parts)
    if rest.kind == "sum" and coefficient == -1:
        return make("sum", "", *sorted((_scaled(-c, r) for c, r in map(_split, rest.parts)), key=_term_order))
    if _is_choice(rest):
        pairs = [(_times(coefficient, pair.parts[0]), pair.parts[1]) for pair in rest.parts]
        return make("call", "Piecewise", *(make("tuple", "", *pair) for pair in pairs))
    return make("product", number(coefficient).head, rest)


def _times(factor: Number, x: Expression) -> Expression:
    coefficient, rest = _split(x)
    return _scaled(factor * coefficient, rest)


def add(*terms: Expression) -> Expression:
    """Return the sum: x + 1 + x -> 2*x + 1."""
    found: dict[Expression, Number] = {}
    choices: dict[tuple[Expression, ...], list[Expression]] = {}
    for term in terms:
        for each in term.parts if term.kind == "sum" else (term,):
            if _is_choice(each):
                choices.setdefault(_conditions(each), []).append(each)
                continue
            coefficient, rest = _split(each)
            found[rest] = found.get(rest, Fraction(0)) + coefficient
    for conditions, alike in choices.items():
        rows = zip(*([pair.parts[0] for pair in each.parts] for each in alike))
        whole = alike[0] if len(alike) == 1 else piecewise([(add(*row), c) for row, c in zip(rows, conditions)])
        for each in whole.parts if whole.kind == "sum" else (whole,):
            coefficient, rest = _split(each)
            found[rest] = found.get(rest, Fraction(0)) + coefficient
    made = [_scaled(coefficient, rest) for rest, coefficient in found.items() if coefficient != 0]
    if len(made) < 2:
        return made[0] if made else ZERO
    return make("sum", "", *sorted(made, key=_term_order))


def _term_order(term: Expression) -> tuple[object, ...]:
    coefficient, rest = _split(term)
    return rest is ONE, -term.degree, rest.label, rest.digest, coefficient < 0


# ---- products ------------------------------------------------------------------------------------------------------------------


def multiply(*factors: Expression) -> Expression:
    """Return the product: 2*x*3*x -> 6*x**2."""
    if len(factors) == 2 and factors[0].kind == "number":
        return _times(factors[0].head, factors[1])  # type: ignore[arg-type]
    coefficient: Number = Fraction(1)
    exponents: dict[Expression, Expression] = {}
    stack = list(reversed(factors))
    while stack:
        factor = stack.pop()
        if factor.kind == "number":
            coefficient = coefficient * factor.head  # type: ignore[operator]
        elif factor.kind == "product":
            coefficient = coefficient * factor.head  # type: ignore[operator]
            stack.extend(reversed(factor.parts))
        else:
            base, exponent = (factor.parts[0], factor.parts[1]) if factor.kind == "power" else (factor, ONE)
            exponents[base] = add(exponents.get(base, ZERO), exponent)
    if coefficient == 0:
        return ZERO
    powers = [power(base, exponent) for base, exponent in _difference_of_squares(exponents).items()]
    if any(each.kind in ("number", "product") for each in powers):  # sqrt(2)*sqrt(2), or a difference of squares that is a product
        return multiply(number(coefficient), *powers)
    if not powers:
        return number(coefficient)
    if len(powers) == 1:
        return _scaled(coefficient, powers[0])
    for each in powers:  # a factor goes to the one value that is not 0
        if _is_choice(each) and sum(pair.parts[0] is not ZERO for pair in each.parts) == 1:
            others = [number(coefficient), *(other for other in powers if other is not each)]
            return piecewise([(multiply(pair.parts[0], *others), pair.parts[1]) for pair in each.parts])
    return make("product", number(coefficient).head, *sorted(powers, key=_factor_order))


def _factor_order(factor: Expression) -> tuple[object, ...]:
    base = factor.parts[0] if factor.kind == "power" else factor
    rank = 0 if base.kind == "number" or base in CONSTANTS else {"symbol": 1, "element": 1, "sum": 3}.get(base.kind, 2)
    return rank, _is_choice(base), base.label, base.digest


def _difference_of_squares(exponents: dict[Expression, Expression]) -> dict[Expression, Expression]:
    """Return the factors with (a - b)*(a + b) as a**2 - b**2."""
    pairs = {base: dict(_split(term)[::-1] for term in base.parts) for base in exponents if base.kind == "sum" and len(base.parts) == 2}
    found = dict(exponents)
    for base, other in itertools.combinations(pairs, 2):
        if base not in found or other not in found or found[base] is not found[other] or pairs[base].keys() != pairs[other].keys():
            continue
        ratios = [pairs[other][rest] / pairs[base][rest] for rest in pairs[base]]
        if sorted(ratios) == [-1, 1]:
            exponent = found.pop(base)
            del found[other]
            kept, turned = sorted(base.parts, key=lambda term: ratios[base.parts.index(term)], reverse=True)
            squares = add(power(kept, number(2)), -power(turned, number(2)))
            found[squares] = add(found.get(squares, ZERO), exponent)
    return found


def _is_choice(x: Expression) -> bool:
    return x.kind == "call" and x.head == "Piecewise"


def _conditions(choice: Expression) -> tuple[Expression, ...]:
    return tuple(pair.parts[1] for pair in choice.parts)


def power(base: Expression, exponent: Expression) -> Expression:
    """Return the power: (2*x**3)**2 -> 4*x**6."""
    if exponent is ZERO or base is ONE:
        return ONE
    if exponent is ONE:
        return base
    if isinstance(exponent.head, Fraction) and exponent.kind == "number" and exponent.head.denominator == 1:
        n = int(exponent.head)
        if base.kind == "number" and abs(n) <= LARGEST_POWER and (base.head != 0 or n > 0):
            return number(base.head**n)  # type: ignore[operator]
        if base.kind == "power":
            return power(base.parts[0], multiply(base.parts[1], exponent))
        if base.kind == "product":
            return multiply(power(number(base.head), exponent), *(power(part, exponent) for part in base.parts))  # type: ignore[arg-type]
    return make("power", "", base, exponent)


# ---- functions, logic, choices ---------------------------------------------------------------------------------------------------


def call(name: str, *arguments: Expression) -> Expression:
    """Return a function of arguments."""
    if name == "sqrt":
        return power(arguments[0], number(Fraction(1, 2)))
    if name == "Piecewise":
        return piecewise([(pair.parts[0], pair.parts[1]) for pair in arguments])
    if name in ("Eq", "Ne") and arguments[0].kind == "number":  # 0 == x -> x == 0
        arguments = arguments[::-1]
    return make("call", name, *arguments)


def logic(sign: str, *operands: Expression) -> Expression:
    """Return a comparison, or a combination of conditions: c & True -> c."""
    if sign == "~":
        (x,) = operands
        return FALSE if x is TRUE else TRUE if x is FALSE else x.parts[0] if x.head == "~" else make("operator", "~", x)
    if sign in "&|":
        neutral, absorbing = (TRUE, FALSE) if sign == "&" else (FALSE, TRUE)
        left = [x for x in dict.fromkeys(operands) if x is not neutral]
        if absorbing in left:
            return absorbing
        if len(left) < 2:
            return left[0] if left else neutral
        return make("operator", sign, *left)
    if sign in _TURNED and operands[0].kind == "number":  # 0 < x -> x > 0
        return make("operator", _TURNED[sign], operands[1], operands[0])
    return make("operator", sign, *operands)


_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def piecewise(pairs: Iterable[tuple[Expression, Expression]]) -> Expression:
    """Return the first value whose condition holds; what a condition decides is decided in the values below it, too."""
    pairs = list(pairs)
    if len(pairs) == 2 and pairs[0][1].head == "~" and pairs[1][1] is TRUE:  # (a, ~c), (b, True) -> (b, c), (a, True)
        pairs = [(pairs[1][0], pairs[0][1].parts[0]), (pairs[0][0], TRUE)]
    found: list[tuple[Expression, Expression]] = []
    for value, condition in pairs:
        for _, earlier in found:
            value = _decided(value, earlier, False)
        value = _decided(value, condition, True)
        if condition is FALSE:
            continue
        if condition is TRUE and value.kind == "call" and value.head == "Piecewise":
            found += [(pair.parts[0], pair.parts[1]) for pair in value.parts]
            break
        found.append((value, condition))
        if condition is TRUE:
            break
    while len(found) > 1 and found[-1][1] is TRUE and found[-2][0] is found[-1][0]:
        del found[-2]
    if found and found[0][1] is TRUE:
        return found[0][0]
    return make("call", "Piecewise", *(make("tuple", "", *pair) for pair in found))


def _decided(x: Expression, condition: Expression, holds: bool) -> Expression:
    """Return x where it is known whether a condition holds."""
    if condition in (TRUE, FALSE) or all(part is not condition for part in walk([x])):
        return x
    image: dict[Expression, Expression] = {condition: TRUE if holds else FALSE}
    for node in walk([x]):
        if node not in image:
            image[node] = rebuilt(node, tuple(image[part] for part in node.parts))
    return image[x]


def rebuilt(node: Expression, parts: tuple[Expression, ...]) -> Expression:
    """Return the node with other parts, in order again."""
    if parts == node.parts:
        return node
    match node.kind:
        case "sum":
            return add(*parts)
        case "product":
            return multiply(number(node.head), *parts)  # type: ignore[arg-type]
        case "power":
            return power(*parts)
        case "call":
            return call(str(node.head), *parts)
        case "operator":
            return logic(str(node.head), *parts)
    return make(node.kind, node.head, *parts)
