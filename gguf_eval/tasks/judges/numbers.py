"""Numbers: GSM8K's two rules, and any number with a tolerance."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gguf_eval.tasks.judges.judgement import Cut, Judge, Judgement, Place, cut, judged
from gguf_eval.tasks.judges.matching import Matching, find, normalise

_MARKED = re.compile(r"#### (\-?[0-9\.\,]+)")
_ANYWHERE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = tuple(map(re.compile, (",", r"\$", r"(?s)\A.*#### ", r"\.$")))
_GSM8K = Matching(ignore=_IGNORED, ignore_case=True, strip=False)
"""As in lm-evaluation-harness's gsm8k: 1,000 is 1000, $5. is 5; the references still hold their solutions."""
_NUMBER = re.compile(r"[-−+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, kw_only=True)
class Headline(Cut):
    """Which of the two readings is the value."""

    headline: Literal["strict_match", "flexible_extract"] = "strict_match"


def gsm8k(answer: str, references: Sequence[str], options: Headline) -> Judgement:
    """Both readings of an answer to GSM8K; equal to lm-evaluation-harness's filters, character for character.

    ``strict_match``: the number after the first "#### ". ``flexible_extract``: the last number anywhere. Where there
    is none the answer is wrong.
    """
    metrics = {}
    extracted: dict[str, str | None] = {}
    text = cut(answer, options)
    for name, pattern, which in (("strict_match", _MARKED, 0), ("flexible_extract", _ANYWHERE, -1)):
        found = find(pattern, text, which)
        extracted[name] = found
        wanted = {normalise(reference, _GSM8K) for reference in references}
        metrics[name] = float(found is not None and normalise(found, _GSM8K) in wanted)
    return judged(options.headline, extracted[options.headline], **metrics)


def numbers_in(text: str) -> list[float]:
    """Every number of a text, in order: thousands commas, signs, decimals, exponents; a fraction a/b is one number."""
    found = []
    for match in re.finditer(rf"({_NUMBER.pattern})(?:\s*/\s*(\d+))?", text):
        # "10-3" holds 10 and 3: a sign belongs to a number only where no word or number stands before it.
        sign_is_part = match.start() == 0 or not (text[match.start() - 1].isalnum() or text[match.start() - 1] == ")")
        digits = match.group(1).replace(",", "").replace("−", "-")
        value = float(digits if sign_is_part else digits.lstrip("+-"))
        below = float(match.group(2) or 1)
        if below == 0 or not math.isfinite(value):
            continue
        found.append(value / below)
    return found


@dataclass(frozen=True, kw_only=True)
class Nearness(Cut):
    """Which number of an answer is compared, and how far off it may be."""

    which: Place = "last"
    mark: re.Pattern[str] | None = None
    """Where it is found, only the first number after it in its line counts."""
    tolerance: float = 1e-9
    relative_tolerance: float = 1e-9
    """As a share of the reference."""


def number(answer: str, references: Sequence[str], options: Nearness) -> Judgement:
    """Whether a number of the answer equals that of a reference. An answer without a number is wrong."""
    text = cut(answer, options)
    found = _marked(text, options.mark) if options.mark else []
    found = found or numbers_in(text)
    if not found:
        return judged("number_match", None, number_match=0.0)
    value = found[0] if options.which == "first" else found[-1]
    absolute, relative = options.tolerance, options.relative_tolerance
    wanted = [numbers_in(reference) for reference in references]
    right = any(abs(value - values[-1]) <= max(absolute, relative * abs(values[-1])) for values in wanted if values)
    return judged("number_match", f"{value:g}", number_match=float(right))


def _marked(text: str, mark: re.Pattern[str]) -> list[float]:
    """The first number after each match of ``mark``, in the same line."""
    lines = (text[match.end() :].split("\n", 1)[0] for match in mark.finditer(text))
    return [numbers[0] for line in lines if (numbers := numbers_in(line))]


JUDGES = (
    Judge("number", number, ("number_match",), Nearness),
    Judge("gsm8k", gsm8k, ("strict_match", "flexible_extract"), Headline),
)
