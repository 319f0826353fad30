"""Deduction and induction over short stories, in the manner of bAbI's tasks 15 and 16 (Weston et al. 2015)."""

from __future__ import annotations

import random

from gguf_eval.tasks.generators.problem import Problem

NAMES = (
    "Ada", "Bruno", "Clara", "Dario", "Elsa", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Karla", "Leo", "Mira",
    "Nils", "Olga", "Pavel", "Rosa", "Sami", "Tilda", "Viktor",
)  # fmt: skip
KINDS = {
    "wolf": "wolves", "mouse": "mice", "cat": "cats", "sheep": "sheep", "frog": "frogs", "swan": "swans",
    "lion": "lions", "rabbit": "rabbits", "owl": "owls", "bear": "bears", "crow": "crows", "goat": "goats",
}  # fmt: skip
COLOURS = ("green", "white", "yellow", "gray", "black", "red", "brown", "blue")
SUBKINDS = ("zim", "tov", "lurn", "bax", "pell", "gorm", "vint", "quob")
"""Invented kinds: nothing is known of them but what the story says."""


def make_deduction(draw: random.Random, difficulty: int) -> Problem:
    """Who fears what follows from its kind: over 4, 5 or 6 kinds, and at difficulty 3 from a kind of the kind."""
    kinds = draw.sample(sorted(KINDS), 3 + difficulty)
    fears = dict(zip(kinds, _derangement(draw, kinds), strict=True))
    people = draw.sample(NAMES, len(kinds))
    story = [f"{KINDS[kind].capitalize()} are afraid of {KINDS[feared]}." for kind, feared in fears.items()]
    belongs = dict(zip(people, draw.sample(kinds, len(kinds)), strict=True))
    if difficulty == 3:
        subkinds = dict(zip(kinds, draw.sample(SUBKINDS, len(kinds)), strict=True))
        story += [f"Every {sub} is a {kind}." for kind, sub in subkinds.items()]
        story += [f"{name} is a {subkinds[kind]}." for name, kind in belongs.items()]
    else:
        story += [f"{name} is {_a(kind)}." for name, kind in belongs.items()]
    draw.shuffle(story)
    asked = draw.choice(people)
    answer = fears[belongs[asked]]
    wrong = tuple(KINDS[kind] for kind in kinds if kind != answer)
    return Problem(_told(story, f"What is {asked} afraid of?"), KINDS[answer], wrong)


def make_induction(draw: random.Random, difficulty: int) -> Problem:
    """The colour of one of a kind is that of the others seen: over 4, 5 or 6 kinds, more are seen as it gets harder."""
    kinds = draw.sample(sorted(KINDS), 3 + difficulty)
    colours = dict(zip(kinds, draw.sample(COLOURS, len(kinds)), strict=True))
    people = draw.sample(NAMES, len(kinds) + difficulty)
    seen = kinds + draw.choices(kinds, k=difficulty - 1)
    *shown, asked = people[: len(seen) + 1]
    kind_of = dict(zip(shown, seen, strict=True))
    facts = [f"{name} is {_a(kind)}. {name} is {colours[kind]}." for name, kind in kind_of.items()]
    wanted = draw.choice(kinds)
    facts.append(f"{asked} is {_a(wanted)}.")
    draw.shuffle(facts)
    story = [f"{part}." for fact in facts for part in fact.rstrip(".").split(". ")]
    wrong = tuple(colour for kind, colour in colours.items() if kind != wanted)
    return Problem(_told(story, f"What color is {asked}?"), colours[wanted], wrong)


def _derangement(draw: random.Random, kinds: list[str]) -> list[str]:
    """The kinds in an order in which none stands at its own place."""
    while True:
        order = draw.sample(kinds, len(kinds))
        if all(a != b for a, b in zip(kinds, order, strict=True)):
            return order


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _told(story: list[str], question: str) -> str:
    return "\n".join([*story, f"Question: {question}"])
