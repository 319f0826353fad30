"""Exact match, regular expressions and sets of answers."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from gguf_eval.tasks.judges.judgement import Cut, Judge, Judgement, cut, judged

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_DIGITS = str.maketrans("", "", string.digits)


@dataclass(frozen=True, kw_only=True)
class Matching(Cut):
    """How texts are compared; what is done to both of them, in this order."""

    ignore: tuple[re.Pattern[str], ...] = ()
    """Their matches are removed. This and the next three are lm-evaluation-harness's exact_match."""
    ignore_case: bool = False
    ignore_punctuation: bool = False
    """ASCII's."""
    ignore_numbers: bool = False
    strip: bool = True
    """Blanks at both ends are removed."""
    ignore_blanks: bool = False
    """Runs of blanks are made one."""


def normalise(text: str, options: Matching) -> str:
    """The text as it is compared."""
    for pattern in options.ignore:
        text = pattern.sub("", text)
    if options.ignore_case:
        text = text.lower()
    if options.ignore_punctuation:
        text = text.translate(_PUNCTUATION)
    if options.ignore_numbers:
        text = text.translate(_DIGITS)
    if options.strip:
        text = text.strip()
    if options.ignore_blanks:
        text = re.sub(r"\s+", " ", text)
    return text


def exact_match(answer: str, references: Sequence[str], options: Matching) -> Judgement:
    """Whether the answer, normalised, equals any of the references, normalised alike."""
    found = normalise(cut(answer, options), options)
    right = any(found == normalise(reference, options) for reference in references)
    return judged("exact_match", found, exact_match=float(right))


def find(pattern: re.Pattern[str], answer: str, which: int) -> str | None:
    """One match of a pattern: its first group that is not empty, or all of it where it has no group.

    ``which`` counts from 0, or from -1 backwards; the rule is that of lm-evaluation-harness's regex filter.
    """
    matches = pattern.findall(answer)
    if not -len(matches) <= which < len(matches):
        return None
    match = matches[which]
    if isinstance(match, tuple):
        match = next((group for group in match if group), None)
        if match is None:
            return None
    return str(match).strip()


@dataclass(frozen=True, kw_only=True)
class Finding(Matching):
    """What is looked for before it is compared."""

    pattern: re.Pattern[str]
    which: int = 0
    """Which of its matches, -1 for the last."""


def regex(answer: str, references: Sequence[str], options: Finding) -> Judgement:
    """Exact match of what ``pattern`` finds in the answer.

    An answer without a match is wrong: it did not say what was asked for in the form asked for.
    """
    found = find(options.pattern, cut(answer, options), options.which)
    if found is None:
        return judged("exact_match", None, exact_match=0.0)
    found = normalise(found, options)
    right = any(found == normalise(reference, options) for reference in references)
    return judged("exact_match", found, exact_match=float(right))


def contains(answer: str, references: Sequence[str], options: Matching) -> Judgement:
    """Whether the answer, normalised, contains any of the references as whole words."""
    text = normalise(cut(answer, options), options)
    for reference in references:
        wanted = normalise(reference, options)
        if wanted and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", text):
            return judged("contains", wanted, contains=1.0)
    return judged("contains", None, contains=0.0)


@dataclass(frozen=True, kw_only=True)
class Listing(Matching):
    """How a list of answers is taken apart."""

    separator: re.Pattern[str] = re.compile(r"[,;\n]")


def answer_set(answer: str, references: Sequence[str], options: Listing) -> Judgement:
    """A list of answers against the set of references, in any order; repeats count once.

    ``set_match`` is 1 where the sets are equal; ``set_f1`` is the harmonic mean of precision and recall.
    """
    parts = options.separator.split(cut(answer, options))
    found = {normalise(part, options) for part in parts} - {""}
    wanted = {normalise(reference, options) for reference in references} - {""}
    shared = len(found & wanted)
    f1 = 2 * shared / (len(found) + len(wanted)) if found or wanted else 1.0
    return judged("set_match", ", ".join(sorted(found)), set_match=float(found == wanted), set_f1=f1)


JUDGES = (
    Judge("exact_match", exact_match, ("exact_match",), Matching),
    Judge("regex", regex, ("exact_match",), Finding),
    Judge("contains", contains, ("contains",), Matching),
    Judge("answer_set", answer_set, ("set_match", "set_f1"), Listing),
)
