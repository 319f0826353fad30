"""Figures over all answers of a task that are no mean over items."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gguf_eval.tasks.judges import overlap
from gguf_eval.tasks.judges.ifeval import instruction_level


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


Aggregate = Callable[[Sequence[Answered]], float]
"""Takes one item or more."""


def perplexity(answers: Sequence[Answered]) -> float:
    """exp of minus the mean log-likelihood of the items' continuations (lm-evaluation-harness's for LAMBADA)."""
    return math.exp(-sum(answer.logprobs[0] for answer in answers) / len(answers))


def macro_f1(answers: Sequence[Answered]) -> float:
    """Mean of the F1 of each class (scikit-learn's macro average).

    kind choice: a class is a choice's index, and one that never occurs has F1 0. kind generation: the classes are the
    labels among the references and the answers.
    """
    pairs: list[tuple[Any, Any]]
    if answers[0].pick is None:
        pairs = [(str(answer.extracted).lower(), str(answer.references[0]).lower()) for answer in answers]
        classes: list[Any] = sorted({label for pair in pairs for label in pair})
    else:
        pairs = [(answer.pick, answer.gold) for answer in answers]
        classes = list(range(max(len(answer.logprobs) for answer in answers)))
    scores = []
    for label in classes:
        both = sum(found == label == wanted for found, wanted in pairs)
        either = sum((found == label) + (wanted == label) for found, wanted in pairs)
        scores.append(2 * both / either if either else 0.0)
    return sum(scores) / len(classes)


def _corpus_bleu(answers: Sequence[Answered]) -> float:
    return overlap.corpus_bleu(_written(answers), [[str(text) for text in answer.references] for answer in answers])


def _corpus_chrf(answers: Sequence[Answered]) -> float:
    return overlap.corpus_chrf(_written(answers), [[str(text) for text in answer.references] for answer in answers])


def _written(answers: Sequence[Answered]) -> list[str]:
    """What the judge took for each answer."""
    return [answer.extracted or "" for answer in answers]


AGGREGATES: dict[str, Aggregate] = {
    "perplexity": perplexity,
    "macro_f1": macro_f1,
    "corpus_bleu": _corpus_bleu,
    "corpus_chrf++": _corpus_chrf,
    "instruction_strict": lambda answers: instruction_level(_written(answers), loose=False),
    "instruction_loose": lambda answers: instruction_level(_written(answers), loose=True),
}
