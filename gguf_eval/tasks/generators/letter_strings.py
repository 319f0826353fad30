"""Letter-string analogies in the manner of Copycat (Hofstadter and Mitchell): abc is to abd as ijk is to what?

Rules are plain functions of a string. An analogy is kept only if every rule that explains its first pair and can be
applied to the second gives the right answer or one that is not on offer, so that no other answer can be defended.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from itertools import pairwise

from gguf_eval.tasks.generators.problem import Problem

LETTERS = "abcdefghijklmnopqrstuvwxyz"

Rule = Callable[[str], str | None]
"""The changed string, or None where the rule can't be applied."""


def step(letter: str, by: int) -> str | None:
    """The letter ``by`` places on in the alphabet, which does not wrap around."""
    place = LETTERS.index(letter) + by
    return LETTERS[place] if 0 <= place < len(LETTERS) else None


def _at(text: str, place: int, by: int) -> str | None:
    changed = step(text[place], by)
    if changed is None:
        return None
    letters = list(text)
    letters[place] = changed
    return "".join(letters)


def _last_group(text: str) -> str | None:
    """The last letter's whole run replaced by its successor: iijjkk to iijjll."""
    run = len(text) - len(text.rstrip(text[-1]))
    changed = step(text[-1], 1)
    return None if changed is None or run < 2 else text[:-run] + changed * run


def _without_repeat(text: str) -> str | None:
    """One of two equal neighbours left out; None unless there is one such pair."""
    pairs = [i for i in range(len(text) - 1) if text[i] == text[i + 1]]
    return text[: pairs[0]] + text[pairs[0] + 1 :] if len(pairs) == 1 else None


def _extended(text: str) -> str | None:
    """The next letter of an evenly spaced sequence added."""
    gaps = {LETTERS.index(b) - LETTERS.index(a) for a, b in pairwise(text)}
    following = step(text[-1], gaps.pop()) if len(gaps) == 1 else None
    return None if following is None else text + following


def _sorted(text: str) -> str | None:
    ordered = "".join(sorted(text))
    return ordered if ordered != text else None


RULES: Mapping[str, Rule] = {
    "successor of the last": lambda text: _at(text, -1, 1),
    "predecessor of the first": lambda text: _at(text, 0, -1),
    "reversal": lambda text: text[::-1],
    "last doubled": lambda text: text + text[-1],
    "second successor of the last": lambda text: _at(text, -1, 2),
    "extended": _extended,
    "ends swapped": lambda text: text[-1] + text[1:-1] + text[0],
    "repeat left out": _without_repeat,
    "sorted": _sorted,
    "last group's successor": _last_group,
    "reversal, then successor of the last": lambda text: _at(text[::-1], -1, 1),
    "every letter doubled": lambda text: "".join(letter * 2 for letter in text),
    "first left out": lambda text: text[1:],
}
_BY_DIFFICULTY = {
    1: ("successor of the last", "predecessor of the first", "last doubled", "extended"),
    2: ("reversal", "second successor of the last", "ends swapped", "first left out", "repeat left out"),
    3: ("sorted", "last group's successor", "reversal, then successor of the last", "every letter doubled"),
}


def make(draw: random.Random, difficulty: int) -> Problem | None:
    """An analogy; from difficulty 2 on the second string is longer than the first."""
    name = draw.choice(_BY_DIFFICULTY[difficulty])
    lengths = draw.sample((3, 4, 5), 2) if difficulty > 1 else [draw.choice((3, 4, 5))] * 2
    source, query = (_string(draw, name, length) for length in sorted(lengths))
    target, answer = RULES[name](source), RULES[name](query)
    if target is None or answer is None or source == query:
        return None
    defended = {changed for rule in RULES.values() if rule(source) == target and (changed := rule(query)) is not None}
    wrong = _wrong(draw, query, answer) - defended
    if len(wrong) < 3:
        return None
    shown = {"source": source, "target": target, "query": query}
    details = {key: spaced(text) for key, text in shown.items()} | {"rule": name}
    question = f"[{details['source']}] [{details['target']}]\n[{details['query']}] ["
    return Problem(question, spaced(answer), tuple(spaced(text) for text in sorted(wrong)), details)


def spaced(text: str) -> str:
    """Letters with blanks between them: one token each in most vocabularies."""
    return " ".join(text)


def _string(draw: random.Random, rule: str, length: int) -> str:
    start = draw.randrange(1, len(LETTERS) - length - 2)
    text = LETTERS[start : start + length]
    if rule == "repeat left out":
        place = draw.randrange(length)
        return text[: place + 1] + text[place:]
    if rule == "sorted":
        first, second = sorted(draw.sample(range(length), 2))
        letters = list(text)
        letters[first], letters[second] = letters[second], letters[first]
        return "".join(letters)
    return "".join(letter * 2 for letter in text) if rule == "last group's successor" else text


def _wrong(draw: random.Random, query: str, answer: str) -> set[str]:
    """What other rules make of the string, the answer with one letter off, and the string itself."""
    made = {changed for rule in RULES.values() if (changed := rule(query))}
    near = {changed for place in range(len(answer)) for by in (-1, 1) if (changed := _at(answer, place, by))}
    close = set(draw.sample(sorted(near - {answer}), 2)) if len(near) > 2 else near
    return (made | close | {query}) - {answer}
