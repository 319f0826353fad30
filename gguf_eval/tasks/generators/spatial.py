"""Spatial steps, in the manner of StepGame (Shi et al. 2022) and bAbI's task 17: where is one thing from another?"""

from __future__ import annotations

import random
from itertools import pairwise

from gguf_eval.tasks.generators.problem import Problem

DIRECTIONS = {
    "left": (-1, 0), "right": (1, 0), "above": (0, 1), "below": (0, -1),
    "upper-left": (-1, 1), "upper-right": (1, 1), "lower-left": (-1, -1), "lower-right": (1, -1),
}  # fmt: skip
_PHRASES = {
    "left": ("{a} is to the left of {b}.", "{a} is directly left of {b}."),
    "right": ("{a} is to the right of {b}.", "{a} is directly right of {b}."),
    "above": ("{a} is above {b}.", "{a} is directly above {b}."),
    "below": ("{a} is below {b}.", "{a} is directly below {b}."),
    "upper-left": ("{a} is to the upper left of {b}.", "{a} is diagonally above and left of {b}."),
    "upper-right": ("{a} is to the upper right of {b}.", "{a} is diagonally above and right of {b}."),
    "lower-left": ("{a} is to the lower left of {b}.", "{a} is diagonally below and left of {b}."),
    "lower-right": ("{a} is to the lower right of {b}.", "{a} is diagonally below and right of {b}."),
}
_HOPS = {1: (1, 2), 2: (3, 4), 3: (5, 6)}


def make(draw: random.Random, difficulty: int) -> Problem | None:
    """A chain of things one step apart, told out of order, at difficulty 3 with things that lead nowhere.

    Every step has length one, so that steps add up; chains that end where they began are left out.
    """
    hops = draw.choice(_HOPS[difficulty])
    aside = 2 if difficulty == 3 else 0
    things = draw.sample("ABCDEFGHIJKLMNOPQRSTUVWXYZ", hops + 1 + aside)
    chain, loose = things[: hops + 1], things[hops + 1 :]
    x = y = 0
    story = []
    for nearer, further in pairwise(chain):
        name = draw.choice(list(DIRECTIONS))
        x, y = x + DIRECTIONS[name][0], y + DIRECTIONS[name][1]
        story.append(_fact(draw, further, nearer, name))
    story += [_fact(draw, thing, draw.choice(chain), draw.choice(list(DIRECTIONS))) for thing in loose]
    if (x, y) == (0, 0):
        return None
    draw.shuffle(story)
    signs = ((x > 0) - (x < 0), (y > 0) - (y < 0))
    answer = next(name for name, place in DIRECTIONS.items() if place == signs)
    question = f"Where is {chain[-1]} from {chain[0]}?"
    text = "\n".join(["Steps are of equal length.", *story, f"Question: {question}"])
    return Problem(text, answer, tuple(name for name in DIRECTIONS if name != answer))


def _fact(draw: random.Random, thing: str, other: str, name: str) -> str:
    """That ``thing`` lies one step in a direction from ``other``, said from either end."""
    if draw.random() < 0.5:
        opposite = tuple(-part for part in DIRECTIONS[name])
        thing, other = other, thing
        name = next(key for key, place in DIRECTIONS.items() if place == opposite)
    return draw.choice(_PHRASES[name]).format(a=thing, b=other)
