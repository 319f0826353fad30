"""Overlap with reference texts: ROUGE (rouge-score), BLEU and chrF++ (sacrebleu), as those libraries define them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from gguf_eval.tasks.judges.judgement import Cut, Judge, Judgement, cut, judged, unscored


@dataclass(frozen=True, kw_only=True)
class Stemming(Cut):
    """Whether words are compared by their stems."""

    stemmer: bool = True
    """Porter's."""


def rouge(answer: str, references: Sequence[str], options: Stemming) -> Judgement:
    """``rouge1``, ``rouge2``, ``rougeL``: F-measures 0 to 1, the best over the references; the value is rougeL.

    rouge-score keeps a-z and 0-9 only: a reference in another script is unscored.
    """
    scorer = _rouge_scorer(options.stemmer)
    usable = [reference for reference in references if any(c.isascii() and c.isalnum() for c in reference)]
    if not usable:
        return unscored("ROUGE reads letters a to z and digits only, and the reference has none")
    scores = scorer.score_multi(usable, cut(answer, options))
    return judged("rougeL", None, **{name: float(score.fmeasure) for name, score in scores.items()})


def bleu(answer: str, references: Sequence[str], options: Cut) -> Judgement:
    """Sentence BLEU (sacrebleu, tokenizer 13a, effective order), 0 to 1."""
    text = cut(answer, options).strip()
    score = _bleu(effective_order=True).sentence_score(text, list(references))
    return judged("bleu", text, bleu=float(score.score) / 100)


def chrf(answer: str, references: Sequence[str], options: Cut) -> Judgement:
    """Sentence chrF++ (sacrebleu, word order 2), 0 to 1."""
    text = cut(answer, options).strip()
    return judged("chrf++", text, **{"chrf++": float(_chrf().sentence_score(text, list(references)).score) / 100})


def translation(answer: str, references: Sequence[str], options: Cut) -> Judgement:
    """``chrf++`` (the value) and ``bleu`` of one translation; what the corpus values count is in ``extracted``."""
    first = chrf(answer, references, options)
    return judged("chrf++", first.extracted, **first.metrics, **bleu(answer, references, options).metrics)


def corpus_bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU of all texts together, 0 to 1: what papers report, and no mean of sentence values."""
    return float(_bleu(effective_order=False).corpus_score(list(texts), _by_rank(references)).score) / 100


def corpus_chrf(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """chrF++ of all texts together, 0 to 1."""
    return float(_chrf().corpus_score(list(texts), _by_rank(references)).score) / 100


def _by_rank(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """References turned from one list an item into one list a rank, as sacrebleu wants them."""
    most = max(len(row) for row in references)
    return [[row[rank] if rank < len(row) else None for row in references] for rank in range(most)]


@cache
def _rouge_scorer(stemmer: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stemmer)


@cache
def _bleu(*, effective_order: bool) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize="13a", effective_order=effective_order)


@cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF(word_order=2)


JUDGES = (
    Judge("rouge", rouge, ("rouge1", "rouge2", "rougeL"), Stemming, libraries=("rouge_score",)),
    Judge("bleu", bleu, ("bleu",), libraries=("sacrebleu",)),
    Judge("chrf", chrf, ("chrf++",), libraries=("sacrebleu",)),
    Judge("translation", translation, ("chrf++", "bleu"), libraries=("sacrebleu",)),
)
