"""Figures over all answers of a task that are no mean over items."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answered:
    """One scored item, as an aggregate sees it."""

    text: str | None = None
    """What the model wrote (kind generation)."""
    extracted: str | None = None
    """What the judge took for the answer."""
    references: tuple[Any, ...] = ()
    pick: int | None = None
    """The choice the headline metric picks (kind choice)."""
    gold: int = 0
    logprobs: tuple[float, ...] = ()
    """Summed log-likelihood of each choice, or of the continuation, in nats."""
    token_counts: tuple[int, ...] = ()


Aggregate = Callable[[Sequence[Answered]], float]
"""Takes one item or more."""


def perplexity(answers: Sequence[Answered]) -> float:
    """exp of minus the mean log-likelihood of the items' continuations (lm-evaluation-harness's for LAMBADA)."""
    return math.exp(-sum(answer.logprobs[0] for answer in answers) / len(answers))


def macro_f1(answers: Sequence[Answered]) -> float:
    """Mean of the F1 of each class, a class being a choice's index; a class that never occurs has F1 0."""
    classes = max(len(answer.logprobs) for answer in answers)
    scores = []
    for label in range(classes):
        both = sum(answer.pick == label == answer.gold for answer in answers)
        either = sum((answer.pick == label) + (answer.gold == label) for answer in answers)
        scores.append(2 * both / either if either else 0.0)
    return sum(scores) / classes


AGGREGATES: dict[str, Aggregate] = {"perplexity": perplexity, "macro_f1": macro_f1}
