"""What a judge says of an answer, and what judges share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gguf_eval.errors import TaskError


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


Judge = Callable[[str, Sequence[str], Mapping[str, Any]], Judgement]
"""(answer, references, options) -> judgement."""


def judged(headline: str, extracted: str | None = None, **metrics: float) -> Judgement:
    """A judgement whose value is the metric called ``headline``."""
    return Judgement(metrics[headline], metrics, extracted)


def unscored(reason: str) -> Judgement:
    """An answer that says nothing that could be judged: counted, never a zero."""
    return Judgement(None, unscored_reason=reason)


def cut(answer: str, options: Mapping[str, Any]) -> str:
    """The part of an answer that is judged.

    ``after``: a regular expression; what follows its last match that anything follows, all of the answer where there is
    none: "compass. The answer is:", cut there, has said compass.
    ``paragraph``, ``line``: "first" or "last", of those that are not blank; where one ends in a colon and more follows,
    it leads up to what follows and is not the first ("Here is a summary:").
    ``keep``: a regular expression; what it matches first, all of the answer where that is nothing.
    """
    after = options.get("after")
    if after is not None:
        ends = [match.end() for match in compiled(str(after)).finditer(answer) if answer[match.end() :].strip()]
        answer = answer[ends[-1] :] if ends else answer
    for name, parts in (("paragraph", lambda text: re.split(r"\n\s*\n", text)), ("line", str.splitlines)):
        which = options.get(name)
        if which is None:
            continue
        if which not in ("first", "last"):
            raise TaskError(f'option \'{name}\' must be "first" or "last"; found {which!r}')
        written = [part for part in parts(answer) if part.strip()]
        while which == "first" and len(written) > 1 and written[0].rstrip().endswith(":"):
            del written[0]
        answer = (written[0] if which == "first" else written[-1]) if written else ""
    kept = compiled(str(options["keep"])).search(answer) if "keep" in options else None
    return kept.group() if kept else answer


def compiled(pattern: str) -> re.Pattern[str]:
    """A regular expression of a task file; raises `TaskError` where it is none."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise TaskError(f"{pattern!r} is not a regular expression: {error}") from None
