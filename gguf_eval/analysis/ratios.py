"""Speed, memory and perplexity of a point at two dates, as ratios with an interval and a tolerance."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import numpy as np

from gguf_eval.analysis.comparison import Verdict
from gguf_eval.analysis.divergence import Figure, divergence_ratio, perplexity_ratio
from gguf_eval.analysis.statistics import ratio_of_means
from gguf_eval.store.records import PointRecord, SpeedRecord, TextRecord

TOLERANCE = 0.05
"""Of speed and memory: what runs of one build on one machine differ by."""
PERPLEXITY_TOLERANCE = 0.01
DIVERGENCE_TOLERANCE = 0.05
_OF_A_TEXT = ("text_sha256", "n_ctx", "chunks", "stride")


@dataclass(frozen=True)
class Tolerances:
    """Shares within which a ratio is called the same."""

    speed: float = TOLERANCE
    memory: float = TOLERANCE
    perplexity: float = PERPLEXITY_TOLERANCE
    divergence: float = DIVERGENCE_TOLERANCE


@dataclass(frozen=True)
class Ratio:
    """One figure at two dates."""

    what: str
    """A speed test, a kind of memory, or a text."""
    unit: str
    """tokens/s, bytes, PPL, or nats (mean KL divergence)."""
    old: float
    new: float
    ratio: float
    """New over old."""
    low: float | None
    high: float | None
    """None where too little was measured for an interval."""
    n_old: int
    n_new: int
    """Repetitions, windows, or the one measurement."""
    method: str | None
    tolerance: float
    verdict: Verdict


@dataclass(frozen=True)
class TextChange:
    """A text that a point was run over at both dates."""

    text: str
    refused: str | None
    """Why the two runs are not compared."""
    perplexity: Ratio | None = None
    divergence: Ratio | None = None
    """Of the mean KL divergence from the reference, where it was the same file both times."""
    tokens: int = 0
    identical: int = 0
    """Tokens whose log-likelihood is exactly the same."""


def speed_ratios(old: PointRecord, new: PointRecord, tolerance: float) -> tuple[Ratio, ...]:
    """The tests that both measurements have; more is better.

    The test that is timed once more after all others counts as a repetition: it knows how the machine drifts.
    """
    before = {(record.test, record.tokens): record for record in old.speed}
    found = []
    for record in new.speed:
        earlier = before.get((record.test, record.tokens))
        if earlier is not None:
            was, now = _rates(earlier), _rates(record)
            means, counts = (statistics.fmean(was), statistics.fmean(now)), (len(was), len(now))
            figure = Figure(*ratio_of_means(now, was))
            found.append(_ratio(record.test, "tokens/s", means, figure, counts, "welch-log", tolerance))
    return tuple(found)


def _rates(record: SpeedRecord) -> tuple[float, ...]:
    return (*record.rates, record.tokens / record.anchor_seconds) if record.anchor_seconds else record.rates


def memory_ratios(old: PointRecord, new: PointRecord, tolerance: float) -> tuple[Ratio, ...]:
    """Peaks of memory that both measurements have. Each is one figure, so that the tolerance alone decides."""
    return tuple(
        _ratio(kind, "bytes", (before, size), Figure(size / before, None, None), (1, 1), None, tolerance)
        for kind, size in new.memory.items()
        if (before := old.memory.get(kind))
        and size
        and (kind == "peak_rss" or kind.startswith(("device ", "process on ")))
    )


def text_changes(old: PointRecord, new: PointRecord, tolerances: Tolerances) -> tuple[TextChange, ...]:
    """The texts that both points were run over, paired by window."""
    before = {record.conditions["text_sha256"]: record for record in old.texts}
    by_name = {record.conditions["text"]: record for record in old.texts}
    found = []
    for record in new.texts:
        name = record.conditions["text"]
        earlier = before.get(record.conditions["text_sha256"]) or by_name.get(name)
        if earlier is not None:
            refused = _refusal(earlier, record)
            found.append(TextChange(name, refused) if refused else _text_change(earlier, record, tolerances))
    return tuple(found)


def _refusal(old: TextRecord, new: TextRecord) -> str | None:
    parts = [
        f"{key.replace('_', ' ')} {str(old.conditions[key])[:12]} → {str(new.conditions[key])[:12]}"
        for key in _OF_A_TEXT
        if old.conditions[key] != new.conditions[key]
    ]
    if not parts and (old.windows, old.scored) != (new.windows, new.scored):
        parts = [f"windows {old.windows} of {old.scored} tokens → {new.windows} of {new.scored}"]
    return ", ".join(parts) or None


def _text_change(old: TextRecord, new: TextRecord, tolerances: Tolerances) -> TextChange:
    name, windows = new.conditions["text"], (old.windows, new.windows)
    ppl = math.exp(_mean(old, "nll")), math.exp(_mean(new, "nll"))
    figure = perplexity_ratio(new, old)
    perplexity = _ratio(name, "PPL", ppl, figure, windows, "hall-by-window", tolerances.perplexity)
    divergence = None
    same_reference = old.conditions.get("reference_sha256") == new.conditions.get("reference_sha256")
    if "kld" in old.columns and "kld" in new.columns and same_reference:
        klds = _mean(old, "kld"), _mean(new, "kld")
        if (of_klds := divergence_ratio(new, old)) is not None:
            divergence = _ratio(name, "nats", klds, of_klds, windows, "hall-by-window", tolerances.divergence)
    same = new.columns["nll"] == old.columns["nll"]
    return TextChange(name, None, perplexity, divergence, same.size, int(same.sum()))


def _mean(record: TextRecord, column: str) -> float:
    return float(record.columns[column].mean(dtype=np.float64))


def _ratio(
    what: str,
    unit: str,
    values: tuple[float, float],
    found: Figure,
    counts: tuple[int, int],
    method: str | None,
    tolerance: float,
) -> Ratio:
    """values, counts: old and new. method: None of figures that have no interval and are compared as they are."""
    low, high = (found.low, found.high) if method else (found.value, found.value)
    verdict = _verdict(found.value, low, high, tolerance, more_is_better=unit == "tokens/s")
    known = None if found.low is None else method
    return Ratio(what, unit, *values, found.value, found.low, found.high, *counts, known, tolerance, verdict)


def _verdict(value: float, low: float | None, high: float | None, tolerance: float, *, more_is_better: bool) -> Verdict:
    """Better or worse: the interval excludes 1 and the ratio exceeds the tolerance; the same: all of it is inside."""
    if low is None or high is None:
        return "undecided"
    least, most = 1 / (1 + tolerance), 1 + tolerance
    if least <= low and high <= most:
        return "same"
    if low > 1 and value > most:
        return "better" if more_is_better else "worse"
    if high < 1 and value < least:
        return "worse" if more_is_better else "better"
    return "undecided"
