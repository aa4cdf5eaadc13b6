"""Expressions as text: one line in the language of SymPy, with no parentheses that are not needed."""

from __future__ import annotations

import itertools
from collections import ChainMap, Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction

from staticgrad.formulas.algebra import ONE, Expression, number, walk

COMPARISON, OR, XOR, AND, SUM, PRODUCT, SIGN, POWER, ATOM = range(9)
"""How tightly a text holds together, as in Python; a part that holds less tightly than its place asks for gets parentheses."""

_LOGIC = {"&": AND, "|": OR, "^": XOR, "~": SIGN}

Texts = Mapping[Expression, tuple[str, int]]


def written(x: Expression) -> str:
    """Return an expression written out."""
    return texts([x], {})[x][0]


def texts(roots: Sequence[Expression], names: Mapping[Expression, str]) -> Texts:
    """Return the text of every expression below `roots`; those of `names` stand by their names in larger ones."""
    made: dict[Expression, tuple[str, int]] = {}
    known = ChainMap({part: (name, ATOM) for part, name in names.items()}, made)
    for node in walk(roots):
        made[node] = _text(node, known)
    return made


def shared_parts(x: Expression, least: int, longest: int) -> list[Expression]:
    """Return the parts that get names where x is longer than `longest` written out: those used more than once, operands first."""
    if x.size <= longest:
        return []
    uses = Counter(part for node in walk([x]) for part in node.parts)
    return [node for node in walk([x]) if uses[node] > 1 and node.size >= least and _may_have_a_name(node)]


def _may_have_a_name(x: Expression) -> bool:
    """Return whether x is a value, and not just the inverse of one."""
    return x.kind not in ("tuple", "operator") and not (x.kind == "power" and x.parts[1].head == -1)


def names_of(parts: Sequence[Expression], x: Expression, taken: set[str]) -> dict[Expression, str]:
    """Return names for parts of x: t1, t2 ...; one that depends on indices of sums around it has them: t3[i]."""
    bound = {node.parts[0] for node in walk([x]) if _is_range(node)}
    free: dict[Expression, frozenset[Expression]] = {}
    for node in walk([x]):
        inside = frozenset[Expression]().union(*(free[part] for part in node.parts), {node} & bound)
        free[node] = inside - {part.parts[0] for part in node.parts if _is_range(part)}
    fresh = (name for k in itertools.count(1) if (name := f"t{k}") not in taken)
    letters = {part: sorted(str(letter.head) for letter in free[part]) for part in parts}
    return {part: next(fresh) + (f"[{', '.join(letters[part])}]" if letters[part] else "") for part in parts}


def _is_range(x: Expression) -> bool:
    """Return whether x is the range of an index: (i, 0, 2)."""
    return x.kind == "tuple" and len(x.parts) == 3


def _in(text: tuple[str, int], level: int) -> str:
    return text[0] if text[1] >= level else f"({text[0]})"


def _text(x: Expression, parts: Texts) -> tuple[str, int]:
    match x.kind:
        case "number":
            return _number(x.head)  # type: ignore[arg-type]
        case "symbol":
            return str(x.head), ATOM
        case "element":
            return f"{x.head}[{', '.join(parts[p][0] for p in x.parts)}]", ATOM
        case "call":
            return f"{x.head}({', '.join(parts[p][0] for p in x.parts)})", ATOM
        case "tuple":
            return f"({', '.join(parts[p][0] for p in x.parts)})", ATOM
        case "sum":
            return _sum(x, parts), SUM
        case "product":
            return _product(x, parts)
        case "power":
            return _product(x, parts) if _is_divisor(x) else _power(x.parts[0], x.parts[1], parts)
    sign, level = str(x.head), _LOGIC.get(str(x.head), COMPARISON)
    if sign == "~":
        return f"~{_in(parts[x.parts[0]], ATOM)}", level
    inner = [_in(parts[p], level if sign in "&|" else level + 1) for p in x.parts]
    return f" {sign} ".join(inner), level


def _number(value: Fraction | float) -> tuple[str, int]:
    text = str(value) if isinstance(value, Fraction) else repr(value)
    return text, PRODUCT if text.startswith("-") or "/" in text else ATOM


def _sum(x: Expression, parts: Texts) -> str:
    """Return the terms, a positive one first where there is one: 1 - x, not -x + 1."""
    terms = [_in(parts[p], PRODUCT) for p in x.parts]
    positive = [k for k, term in enumerate(terms) if not term.startswith("-")]
    if positive:
        terms.insert(0, terms.pop(positive[0]))
    return terms[0] + "".join(f" - {term[1:]}" if term.startswith("-") else f" + {term}" for term in terms[1:])


def _is_divisor(x: Expression) -> bool:
    exponent = x.parts[1]
    return exponent.kind == "number" and exponent.head < 0  # type: ignore[operator]


def _power(base: Expression, exponent: Expression, parts: Texts) -> tuple[str, int]:
    if exponent.head == Fraction(1, 2):
        return f"sqrt({parts[base][0]})", ATOM
    inner = parts[exponent] if exponent in parts else _number(exponent.head)  # type: ignore[arg-type]
    return f"{_in(parts[base], ATOM)}**{_in(inner, ATOM)}", POWER


def _product(x: Expression, parts: Texts) -> tuple[str, int]:
    """Return a quotient of products: 2*x/(3*y)."""
    coefficient = x.head if x.kind == "product" else Fraction(1)
    factors = x.parts if x.kind == "product" else (x,)
    above: list[str] = []
    below: list[str] = []
    level = PRODUCT
    for factor in factors:
        if factor.kind == "power" and _is_divisor(factor) and (x.kind == "power" or parts[factor][1] < ATOM):
            below.append(_in(_inverse(factor, parts), POWER))
        else:
            above.append(_in(parts[factor], POWER))
    if isinstance(coefficient, Fraction):
        sign, top, bottom = "-" if coefficient < 0 else "", abs(coefficient.numerator), coefficient.denominator
        if top != 1 or not above:
            above.insert(0, str(top))
        if bottom != 1:
            below.insert(0, str(bottom))
    else:
        sign = "-" if str(coefficient).startswith("-") else ""
        above.insert(0, repr(abs(coefficient)))  # type: ignore[arg-type]
    text = sign + "*".join(above)
    if not below:
        return text, level
    return f"{text}/{below[0] if len(below) == 1 else '(' + '*'.join(below) + ')'}", level


def _inverse(factor: Expression, parts: Texts) -> tuple[str, int]:
    """Return the text of 1/factor for a power with a negative exponent."""
    base, exponent = factor.parts
    opposite = number(-exponent.head)  # type: ignore[operator]
    if opposite is ONE:
        return parts[base]
    return _power(base, opposite, parts)
