"""Scores what a model says of an item's choices. Every metric has one name and one definition.

acc             the choice with the highest summed log-likelihood is a right one
acc_norm        the same with each sum divided by the choice's length in characters (lm-evaluation-harness's acc_norm)
acc_token_norm  the same with each sum divided by the choice's number of tokens (llama-perplexity's multiple choice)
mc2             share of the choices' probability that the right ones hold (TruthfulQA's MC2)
all_gold        the k most likely choices are the k right ones (TimeDial's 2-best accuracy)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

CHOICE_METRICS = ("acc", "acc_norm", "acc_token_norm", "mc2", "all_gold")
CONTINUATION_METRICS = ("acc",)
"""acc: greedy decoding gives the continuation."""


@dataclass(frozen=True)
class ChoiceScores:
    """What a model says of one item's choices."""

    logprobs: tuple[float, ...]
    """Summed log-likelihood of each choice, in nats."""
    token_counts: tuple[int, ...]
    character_counts: tuple[int, ...]


def picks(scores: ChoiceScores) -> dict[str, int]:
    """For each metric the index of the choice the model prefers (the first of equals)."""
    likeliest = _argmax(scores.logprobs)
    return {
        "acc": likeliest,
        "acc_norm": _argmax(_per(scores.logprobs, scores.character_counts)),
        "acc_token_norm": _argmax(_per(scores.logprobs, scores.token_counts)),
        "mc2": likeliest,
        "all_gold": likeliest,
    }


def values(scores: ChoiceScores, golds: Collection[int]) -> dict[str, float]:
    """Every metric's value, 0 to 1, where the choices ``golds`` are right."""
    result = {name: float(pick in golds) for name, pick in picks(scores).items()}
    highest = max(scores.logprobs)
    weights = [math.exp(logprob - highest) for logprob in scores.logprobs]
    order = sorted(range(len(weights)), key=lambda i: -scores.logprobs[i])
    result["mc2"] = sum(weights[gold] for gold in golds) / sum(weights)
    result["all_gold"] = float(set(order[: len(golds)]) == set(golds))
    return result


def overshadowed(metric: str, choices: Sequence[str]) -> tuple[str, str] | None:
    """A choice and a longer one that begins with it; None where there is none, or the metric divides by length.

    The log-likelihood of the longer one is that of the shorter and more below 0, so that it can never be the higher.
    """
    if metric in ("acc_norm", "acc_token_norm"):
        return None
    ordered = sorted(choices)  # of two neighbours the first begins the second, if any choice begins another
    return next(((one, other) for one, other in pairwise(ordered) if one != other and other.startswith(one)), None)


def chance(metric: str, choices: int, golds: int) -> float:
    """What guessing gets on an item of ``choices`` choices of which ``golds`` are right; 0 where nothing is chosen.

    all_gold: one of the (choices over golds) sets is right. The others: one choice in ``choices``, or, of mc2, the
    share that the right ones hold where all are equally likely.
    """
    if choices < 2:
        return 0.0
    if metric == "all_gold":
        return 1 / math.comb(choices, golds)
    return golds / choices


def is_finite(scores: ChoiceScores) -> bool:
    """Whether every log-likelihood is a number: a broken quantization can give NaN or infinity."""
    return all(math.isfinite(value) for value in scores.logprobs)


def _per(sums: Sequence[float], lengths: Sequence[int]) -> list[float]:
    return [value / max(1, length) for value, length in zip(sums, lengths, strict=True)]


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: values[i])
