"""Exact match, regular expressions and sets of answers."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from gguf_eval.tasks.judges.judgement import Judgement, compiled, cut, judged

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_DIGITS = str.maketrans("", "", string.digits)


def normalise(text: str, options: Mapping[str, Any]) -> str:
    """The text as it is compared.

    In this order: matches of the expressions in ``ignore`` removed; ``ignore_case``; ``ignore_punctuation`` (ASCII);
    ``ignore_numbers``; blanks at both ends removed unless ``strip = false``; runs of blanks made one where
    ``ignore_blanks``. The first four are lm-evaluation-harness's exact_match.
    """
    for pattern in options.get("ignore", ()):
        text = compiled(pattern).sub("", text)
    if options.get("ignore_case", False):
        text = text.lower()
    if options.get("ignore_punctuation", False):
        text = text.translate(_PUNCTUATION)
    if options.get("ignore_numbers", False):
        text = text.translate(_DIGITS)
    if options.get("strip", True):
        text = text.strip()
    if options.get("ignore_blanks", False):
        text = re.sub(r"\s+", " ", text)
    return text


def exact_match(answer: str, references: Sequence[str], options: Mapping[str, Any]) -> Judgement:
    """Whether the answer, normalised, equals any of the references, normalised alike."""
    found = normalise(cut(answer, options), options)
    right = any(found == normalise(reference, options) for reference in references)
    return judged("exact_match", found, exact_match=float(right))


def find(pattern: str, answer: str, which: int) -> str | None:
    """One match of a pattern: its first group that is not empty, or all of it where it has no group.

    ``which`` counts from 0, or from -1 backwards; the rule is that of lm-evaluation-harness's regex filter.
    """
    matches = compiled(pattern).findall(answer)
    if not -len(matches) <= which < len(matches):
        return None
    match = matches[which]
    if isinstance(match, tuple):
        match = next((group for group in match if group), None)
        if match is None:
            return None
    return str(match).strip()


def regex(answer: str, references: Sequence[str], options: Mapping[str, Any]) -> Judgement:
    """Exact match of what ``pattern`` finds in the answer (its match number ``which``, -1 for the last).

    An answer without a match is wrong: it did not say what was asked for in the form asked for.
    """
    found = find(str(options["pattern"]), cut(answer, options), int(options.get("which", 0)))
    if found is None:
        return judged("exact_match", None, exact_match=0.0)
    found = normalise(found, options)
    right = any(found == normalise(reference, options) for reference in references)
    return judged("exact_match", found, exact_match=float(right))


def contains(answer: str, references: Sequence[str], options: Mapping[str, Any]) -> Judgement:
    """Whether the answer, normalised, contains any of the references as whole words."""
    text = normalise(cut(answer, options), options)
    for reference in references:
        wanted = normalise(reference, options)
        if wanted and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", text):
            return judged("contains", wanted, contains=1.0)
    return judged("contains", None, contains=0.0)


def answer_set(answer: str, references: Sequence[str], options: Mapping[str, Any]) -> Judgement:
    """A list of answers against the set of references, in any order; repeats count once.

    The answer is taken apart at ``separator`` (a regular expression; commas, semicolons and line ends unless given).
    ``set_match`` is 1 where the sets are equal; ``set_f1`` is the harmonic mean of precision and recall.
    """
    parts = compiled(str(options.get("separator", r"[,;\n]"))).split(cut(answer, options))
    found = {normalise(part, options) for part in parts} - {""}
    wanted = {normalise(reference, options) for reference in references} - {""}
    shared = len(found & wanted)
    f1 = 2 * shared / (len(found) + len(wanted)) if found or wanted else 1.0
    return judged("set_match", ", ".join(sorted(found)), set_match=float(found == wanted), set_f1=f1)
