"""Sums with whole numbers: one operation, two, and short word problems of three steps."""

from __future__ import annotations

import random

from gguf_eval.tasks.generators.problem import Problem

_STORIES = (
    "{name} has {a} boxes with {b} {thing} each. {name} gives away {c} {thing} and finds {d} more. "
    "How many {thing} does {name} have now?",
    "A shop sells {a} bags of {b} {thing} in the morning. {c} {thing} are brought back and {d} more are sold in the "
    "evening. How many {thing} do the buyers have in the end?",
    "{name} picks {b} {thing} on each of {a} days. {c} {thing} go bad, and a friend brings {d}. "
    "How many good {thing} are there?",
)
_THINGS = ("apples", "marbles", "stamps", "coins", "pencils", "shells", "buttons", "cards")
_NAMES = ("Ada", "Bruno", "Clara", "Dario", "Elsa", "Felix", "Greta", "Hugo")


def make(draw: random.Random, difficulty: int) -> Problem:
    """A question whose answer is a whole number above 0."""
    question, value = (_one, _two, _story)[difficulty - 1](draw)
    near = {value + by for by in (-100, -20, -10, -2, -1, 1, 2, 10, 20, 100)}
    return Problem(question, str(value), tuple(str(other) for other in sorted(near) if other > 0))


def _one(draw: random.Random) -> tuple[str, int]:
    sign = draw.choice("+-*")
    if sign == "*":
        a, b = draw.randint(3, 19), draw.randint(3, 12)
        return f"{a} * {b}", a * b
    a, b = draw.randint(20, 499), draw.randint(11, 499)
    if sign == "-":
        a, b = max(a, b) + 1, min(a, b)
        return f"{a} - {b}", a - b
    return f"{a} + {b}", a + b


def _two(draw: random.Random) -> tuple[str, int]:
    a, b, c = draw.randint(3, 30), draw.randint(3, 30), draw.randint(3, 12)
    form = draw.randrange(3)
    if form == 0:
        return f"({a} + {b}) * {c}", (a + b) * c
    if form == 1:
        return f"{a} * {c} + {b}", a * c + b
    return f"{a} * {c} - {min(b, a * c - 1)}", a * c - min(b, a * c - 1)


def _story(draw: random.Random) -> tuple[str, int]:
    a, b, d = draw.randint(3, 12), draw.randint(4, 25), draw.randint(2, 40)
    c = draw.randint(1, a * b - 1)
    text = draw.choice(_STORIES).format(a=a, b=b, c=c, d=d, thing=draw.choice(_THINGS), name=draw.choice(_NAMES))
    return text, a * b - c + d
