"""Judges of written answers: each reads the text, finds the answer in it, and compares it with the references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Judgement:
    """What a judge says of one answer."""

    value: float | None
    """The headline, 0 to 1; None where nothing could be extracted."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Every metric by name; the task's ``metrics`` name those that are kept."""
    extracted: str | None = None
    """What was taken for the answer."""
    unscored_reason: str | None = None


Judge = Callable[[str, Sequence[Any], Mapping[str, Any]], Judgement]
"""(answer text, references, options of the task file) -> judgement."""


def exact_match(text: str, references: Sequence[Any], options: Mapping[str, Any]) -> Judgement:
    """Whether the answer is one of the references but for blanks around it."""
    answer = text.strip()
    value = float(any(answer == str(reference).strip() for reference in references))
    return Judgement(value, {"exact_match": value}, answer)


JUDGES: dict[str, Judge] = {"exact_match": exact_match}
