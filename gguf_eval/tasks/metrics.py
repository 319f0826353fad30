"""Scores what a model said of an item. Every metric has one name and one definition.

acc             the choice with the highest summed log-likelihood is the right one
acc_norm        the same with each sum divided by the choice's length in characters (lm-evaluation-harness's acc_norm)
acc_token_norm  the same with each sum divided by the choice's number of tokens (llama-perplexity's multiple choice)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ChoiceScores:
    """What a model says of one item's choices."""

    logprobs: tuple[float, ...]
    """Summed log-likelihood of each choice, in nats."""
    token_counts: tuple[int, ...]
    character_counts: tuple[int, ...]


def picks(scores: ChoiceScores) -> dict[str, int]:
    """For each metric the index of the choice the model prefers (the first of equals)."""
    return {
        "acc": _argmax(scores.logprobs),
        "acc_norm": _argmax(_per(scores.logprobs, scores.character_counts)),
        "acc_token_norm": _argmax(_per(scores.logprobs, scores.token_counts)),
    }


def is_finite(scores: ChoiceScores) -> bool:
    """Whether every log-likelihood is a number: a broken quantization can give NaN or infinity."""
    return all(math.isfinite(value) for value in scores.logprobs)


def _per(sums: Sequence[float], lengths: Sequence[int]) -> list[float]:
    return [value / max(1, length) for value, length in zip(sums, lengths, strict=True)]


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: values[i])
