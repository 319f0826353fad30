"""Made-up populations whose means benchmarks/coverage.py looks for with the intervals of reports."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gguf_eval.analysis.log_score import LEAST
from gguf_eval.store.records import TextRecord

Values = npt.NDArray[np.float64]


def graded_scores() -> dict[str, Values]:
    random, n = np.random.default_rng(1), 100_000
    part = random.random(n)
    return {
        "chrF-like": random.beta(3, 4, n),
        "ROUGE-like": np.where(part < 0.3, 0.0, random.beta(1.5, 6, n)),
        "F1-like": np.where(part < 0.4, 0.0, np.where(part < 0.6, 1.0, random.beta(2, 2, n))),
        "mc2-like": random.beta(1, 1.2, n),
        "four in five 0": np.where(part < 0.8, 0.0, random.beta(2, 5, n)),
        "nearly all near 0": random.beta(0.2, 2, n),
    }


def graded_differences() -> dict[str, Values]:
    random, n = np.random.default_rng(2), 100_000
    part = random.random(n)
    return {
        "small, every item": random.normal(-0.01, 0.03, n),
        "large, every item": random.beta(2, 3, n) - random.beta(2, 3, n),
        "heavy tails": random.standard_t(3, n) * 0.03 - 0.01,
        "skewed": 0.01 - random.gamma(0.5, 0.05, n),
        "a third of the items": np.where(part < 0.3, random.normal(-0.02, 0.1, n), 0.0),
        "F1-like": np.where(part < 0.3, random.choice([-1, -0.5, -0.33, 0.33, 0.5, 1], n), 0.0),
        "one item in 20": np.where(part < 0.05, random.normal(-0.05, 0.2, n), 0.0),
        "one in ten, losses only": np.where(part < 0.1, -random.beta(1, 2, n), 0.0),
    }


def divergences() -> dict[str, Values]:
    random, n = np.random.default_rng(3), 400_000
    return {
        "gamma, shape 2": random.gamma(2, 1, n), "gamma, shape 0.7": random.gamma(0.7, 1, n),
        "gamma, shape 0.3": random.gamma(0.3, 1, n), "log-normal, 0.5": random.lognormal(0, 0.5, n),
        "log-normal, 1": random.lognormal(0, 1, n), "log-normal, 1.3": random.lognormal(0, 1.3, n),
    }  # fmt: skip


def log_score_pairs() -> dict[str, Values]:
    """(n x 2) log scores of a point and of its reference: right choices' probabilities, those below LEAST being LEAST."""
    random, n = np.random.default_rng(5), 400_000

    def table(base: Values, change: Values) -> Values:
        odds = np.column_stack([base + change, base])
        return np.maximum(math.log(LEAST), -np.logaddexp(0, -odds))

    rare = np.where(random.random(n) < 0.03, random.normal(-4, 2, n), random.normal(0, 0.1, n))
    certain = np.where(random.random(n) < 0.9, random.normal(5, 1.5, n), random.normal(-2, 3, n))
    return {
        "a near level": table(random.normal(0, 2, n), random.normal(-0.01, 0.1, n)),
        "a far level": table(random.normal(0, 2, n), random.normal(-0.4, 1, n)),
        "skewed": table(random.normal(0, 3, n), 0.05 - random.gamma(0.4, 1, n)),
        "heavy tails": table(random.normal(0, 3, n), random.standard_t(2, n) * 0.3 - 0.05),
        "one item in 33": table(random.normal(0, 2, n), rare),
        "nearly all certain": table(certain, random.normal(-0.2, 0.7, n)),
        "a third at the least": table(random.normal(-5, 4, n), random.normal(-0.2, 1, n)),
        "sums over long choices": table(random.normal(0, 12, n), random.normal(-0.3, 2, n)),
    }


def made_up_text() -> TextRecord:
    """Tokens of a window go together a little, as those of a real text do."""
    random, windows, scored = np.random.default_rng(4), 4_000, 64
    shift = random.normal(0, 0.2, (windows, 1))
    base = (random.gamma(1.2, 2.0, (windows, scored)) * np.exp(shift)).ravel()
    kld = (random.lognormal(-3, 1.3, (windows, scored)) * np.exp(2 * shift)).ravel()
    columns = {
        "nll": np.maximum(0, base + random.normal(0.03, 1, len(base)) * np.sqrt(kld)), "reference_nll": base, "kld": kld,
        "kld_variance": np.zeros(len(base)), "same_top": (random.random(len(base)) < 0.88).astype(float),
        "confidence": random.beta(0.8, 0.6, len(base)),
    }  # fmt: skip
    conditions = {"text": "t", "text_sha256": "0", "n_ctx": 2, "stride": None, "reference": "F16", "exact": True}
    return TextRecord(conditions, windows, scored, (4 * scored,) * windows, columns)
