"""Which choice or label a free answer names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gguf_eval.tasks.judges.judgement import Cut, Judge, Judgement, cut, judged, unscored
from gguf_eval.tasks.judges.matching import Matching, normalise

_NAMED = (
    r"(?:answer|choice|option)(?:\s+(?:is|would be|should be)|\s*[:=])+"
    r"\s*[\*_\"'(\[]*\s*(?:option\s+|choice\s+)?[\(\[]?"
)
_WRITING = Matching(ignore_case=True, ignore_punctuation=True, ignore_blanks=True)


def extract_letter(answer: str, letters: str, choices: Sequence[str] = ()) -> str | None:
    """The one letter an answer settles on, or None where it names none, or several.

    The first rule that finds a letter wins: the answer is a letter and nothing else; it says "the answer is X" (the
    last such, since reasoning comes first); it begins "X." or "(X)"; it is the text of one of ``choices``; exactly one
    letter stands in brackets; exactly one choice's text occurs in it.
    """
    text = answer.strip()
    one = f"([{re.escape(letters)}])"
    # "A" is also a word: where a letter is not alone it needs a mark that makes it a choice.
    alone = re.fullmatch(rf"[\*\"'_\s]*[\(\[]?{one}[\)\]]?[\.:,]?[\*\"'_\s]*", text, re.IGNORECASE)
    if alone:
        return alone.group(1).upper()
    named = re.findall(rf"(?i:{_NAMED}){one}(?![\w'])(?!\s+[a-z])", text)
    if named:
        return str(named[-1])
    first = re.match(rf"[\*\"'_]*(?:[\(\[]{one}[\)\]]|{one}(?:[\.\):,]|\s*[\n\r]))", text)
    if first:
        return first.group(1) or first.group(2)
    plain = normalise(text, _WRITING)
    texts = [normalise(choice, _WRITING) for choice in choices]
    same = [letter for letter, choice in zip(letters, texts, strict=False) if choice and choice == plain]
    if len(same) == 1:
        return same[0]
    bracketed = set(re.findall(rf"[\(\[]{one}[\)\]]", text))
    if len(bracketed) == 1:
        return str(bracketed.pop())
    inside = [
        letter
        for letter, choice in zip(letters, texts, strict=False)
        if choice and re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", plain)
    ]
    return inside[0] if len(inside) == 1 and not bracketed else None


@dataclass(frozen=True, kw_only=True)
class Choices(Cut):
    """What an answer chooses from."""

    letters: str = "ABCD"
    choices: tuple[str | int | float | bool, ...] = ()
    """Their texts, where they may be named instead."""


def choice_letter(answer: str, references: Sequence[str], options: Choices) -> Judgement:
    """Whether the letter that an answer settles on is the right one; unscored where it settles on none."""
    found = extract_letter(cut(answer, options), options.letters, [str(choice) for choice in options.choices])
    if found is None:
        return unscored("the answer names no choice, or several")
    return judged("acc", found, acc=float(found in {reference.strip().strip("()").upper() for reference in references}))


@dataclass(frozen=True, kw_only=True)
class Labels(Cut):
    """What an answer may name."""

    labels: tuple[str | int | float | bool, ...]
    first: bool = False
    """The first that is named is taken where there are several."""


def label(answer: str, references: Sequence[str], options: Labels) -> Judgement:
    """Which of ``labels`` an answer names, as a whole word in any case; unscored where it names none, or several.

    Macro-F1 over items is an aggregate of this judge.
    """
    labels = [str(name) for name in options.labels]
    text = cut(answer, options)
    places = {}
    for name in labels:
        match = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)
        if match:
            places[name] = (match.start(), -len(name))
    if not places or (len(places) > 1 and not options.first):
        return unscored("the answer names none of the labels" if not places else "the answer names several labels")
    found = min(places, key=lambda name: places[name])
    return judged("acc", found, acc=float(found.lower() in {reference.strip().lower() for reference in references}))


JUDGES = (
    Judge("choice_letter", choice_letter, ("acc",), Choices),
    Judge("label", label, ("acc",), Labels),
)
