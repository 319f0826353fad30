"""Exact match and F1 of short answers, as SQuAD's and HotpotQA's own scripts define them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from gguf_eval.tasks.judges.judgement import Cut, Judge, Judgement, cut, judged

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLOSED = ("yes", "no", "noanswer")


def plain(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and extra blanks: SQuAD's normalisation."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over words, counted with repeats.

    Where either has no words left, 1 if both have none, else 0 (SQuAD 2.0's rule for unanswerable questions).
    """
    found, wanted = plain(answer).split(), plain(reference).split()
    if not found or not wanted:
        return float(found == wanted)
    shared = sum((Counter(found) & Counter(wanted)).values())
    # 2PR / (P + R), in the order the scripts compute it, so that figures agree to the last digit
    precision, recall = shared / len(found), shared / len(wanted)
    return 2 * precision * recall / (precision + recall) if shared else 0.0


def squad(answer: str, references: Sequence[str], options: Cut) -> Judgement:
    """``f1`` and ``exact_match``, each the best over the references (SQuAD)."""
    text = cut(answer, options)
    return judged(
        "f1",
        plain(text),
        f1=max(token_f1(text, reference) for reference in references),
        exact_match=float(plain(text) in {plain(reference) for reference in references}),
    )


def hotpot(answer: str, references: Sequence[str], options: Cut) -> Judgement:
    """As `squad`, but an answer or reference that is yes, no or noanswer earns no part of F1 unless it is equal."""
    text = cut(answer, options)
    found = plain(text)

    def f1(reference: str) -> float:
        wanted = plain(reference)
        if found != wanted and (found in _CLOSED or wanted in _CLOSED):
            return 0.0
        return token_f1(text, reference)

    return judged(
        "f1",
        found,
        f1=max(f1(reference) for reference in references),
        exact_match=float(found in {plain(reference) for reference in references}),
    )


JUDGES = (Judge("squad", squad, ("f1", "exact_match")), Judge("hotpot", hotpot, ("f1", "exact_match")))
