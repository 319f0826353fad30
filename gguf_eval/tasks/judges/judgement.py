"""What a judge says of an answer, and what judges share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Judgement:
    """What an answer is worth."""

    value: float | None
    """The headline metric, 0 to 1; None where the answer can't be judged."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Every metric of the judge by name; empty where the answer can't be judged."""
    extracted: str | None = None
    """What was compared with the references: a number, a letter, a label."""
    unscored_reason: str | None = None


Place = Literal["first", "last"]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Options that every judge takes: which part of an answer is judged (`cut`). A judge's own are added to them."""

    after: re.Pattern[str] | None = None
    """What follows its last match that anything follows; all of the answer where there is none. "compass. The answer
    is:" has said compass."""
    paragraph: Place | None = None
    """Of those that are not blank."""
    line: Place | None = None
    keep: re.Pattern[str] | None = None
    """What it matches first; all of the answer where that is nothing."""


@dataclass(frozen=True)
class Judge:
    """A judge, as a module of this folder lists it in its ``JUDGES``."""

    name: str
    """In task files."""
    judge: Callable[[str, Sequence[Any], Any], Judgement]
    """(answer, references, options) -> judgement."""
    metrics: tuple[str, ...]
    """What it gives; the first is its headline."""
    options: type[Cut] = Cut
    """What a task file may set, as its table [judge.options]."""
    libraries: tuple[str, ...] = ()
    """What must be installed (the extra ``text``)."""
    compares_texts: bool = True
    """References are texts; else they are what the task's expression gives."""


def judged(headline: str, extracted: str | None = None, **metrics: float) -> Judgement:
    """A judgement whose value is the metric called ``headline``."""
    return Judgement(metrics[headline], metrics, extracted)


def unscored(reason: str) -> Judgement:
    """An answer that says nothing that could be judged: counted, never a zero."""
    return Judgement(None, unscored_reason=reason)


def has_begun(answer: str, options: Cut) -> bool:
    """Whether anything follows what leads up to the answer ("The answer is:")."""
    ends = [match.end() for match in options.after.finditer(answer)] if options.after else []
    return bool(answer[ends[-1] if ends else 0 :].strip())


def cut(answer: str, options: Cut) -> str:
    """The part of an answer that is judged.

    Where a paragraph or line ends in a colon and more follows, it leads up to what follows and is not the first ("Here
    is a summary:").
    """
    if options.after is not None:
        last = len(answer.rstrip())
        ends = [match.end() for match in options.after.finditer(answer) if match.end() < last]
        answer = answer[ends[-1] :] if ends else answer
    for which, parts in ((options.paragraph, re.compile(r"\n\s*\n").split), (options.line, str.splitlines)):
        if which is None:
            continue
        written = [part for part in parts(answer) if part.strip()]
        while which == "first" and len(written) > 1 and written[0].rstrip().endswith(":"):
            del written[0]
        answer = (written[0] if which == "first" else written[-1]) if written else ""
    kept = options.keep.search(answer) if options.keep else None
    return kept.group() if kept else answer
