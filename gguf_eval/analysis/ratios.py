"""Speed, memory and perplexity of a point at two dates, as ratios with an interval and a tolerance."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gguf_eval.analysis.divergence import Figure, divergence_ratio, perplexity_ratio
from gguf_eval.analysis.statistics import ratio_of_means
from gguf_eval.store.records import PointRecord, SpeedRecord, TextRecord

RatioVerdict = Literal["better", "worse", "same", "undecided"]
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
    verdict: RatioVerdict


@dataclass(frozen=True)
class TextChange:
    """A text that a point was run over at both dates."""

    text: str
    refused: str | None
    """Why the two runs are not compared."""
    perplexity: Ratio | None
    divergence: Ratio | None
    """Of the mean KL divergence from the reference, where it was the same file both times."""
    tokens: int
    identical: int
    """Tokens whose log-likelihood is exactly the same."""


def speed_ratios(old: PointRecord, new: PointRecord, tolerance: float) -> tuple[Ratio, ...]:
    """The tests that both measurements have; more is better.

    The test that is timed once more after all others counts as a repetition: it knows how the machine drifts.
    """
    before = {(record.test, record.tokens): record for record in old.speed}
    found = []
    for record in new.speed:
        earlier = before.get((record.test, record.tokens))
        if earlier is None:
            continue
        rates = [[r.tokens / seconds for seconds in _seconds(r)] for r in (earlier, record)]
        value, low, high = ratio_of_means(rates[1], rates[0])
        found.append(Ratio(
            record.test, "tokens/s", statistics.fmean(rates[0]), statistics.fmean(rates[1]), value, low, high,
            len(rates[0]), len(rates[1]), None if low is None else "welch-log", tolerance,
            _verdict(value, low, high, tolerance, more_is_better=True),
        ))  # fmt: skip
    return tuple(found)


def _seconds(record: SpeedRecord) -> tuple[float, ...]:
    return (*record.seconds, record.anchor_seconds) if record.anchor_seconds else record.seconds


def memory_ratios(old: PointRecord, new: PointRecord, tolerance: float) -> tuple[Ratio, ...]:
    """Peaks of memory that both measurements have. Each is one figure, so that the tolerance alone decides."""
    found = []
    for kind, size in new.memory.items():
        before = old.memory.get(kind)
        if not before or not size or not (kind == "peak_rss" or kind.startswith(("device ", "process on "))):
            continue
        value = size / before
        found.append(Ratio(
            kind, "bytes", before, size, value, None, None, 1, 1, None, tolerance,
            _verdict(value, value, value, tolerance, more_is_better=False),
        ))  # fmt: skip
    return tuple(found)


def text_changes(old: PointRecord, new: PointRecord, tolerances: Tolerances) -> tuple[TextChange, ...]:
    """The texts that both points were run over, paired by window."""
    before = {record.conditions["text_sha256"]: record for record in old.texts}
    by_name = {record.conditions["text"]: record for record in old.texts}
    found = []
    for record in new.texts:
        name = record.conditions["text"]
        earlier = before.get(record.conditions["text_sha256"]) or by_name.get(name)
        if earlier is None:
            continue
        refused = _refusal(earlier, record)
        found.append(
            TextChange(name, refused, None, None, 0, 0) if refused else _text_change(earlier, record, tolerances)
        )
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
    means = [math.exp(float(record.columns["nll"].mean(dtype=np.float64))) for record in (old, new)]
    divergence = None
    same_reference = old.conditions.get("reference_sha256") == new.conditions.get("reference_sha256")
    if "kld" in old.columns and "kld" in new.columns and same_reference:
        figure = divergence_ratio(new, old)
        klds = [float(record.columns["kld"].mean(dtype=np.float64)) for record in (old, new)]
        if figure is not None:
            divergence = _of_windows(new, "nats", klds, figure, tolerances.divergence)
    return TextChange(
        new.conditions["text"],
        None,
        _of_windows(new, "PPL", means, perplexity_ratio(new, old), tolerances.perplexity),
        divergence,
        new.columns["nll"].size,
        int((new.columns["nll"] == old.columns["nll"]).sum()),
    )


def _of_windows(record: TextRecord, unit: str, values: list[float], figure: Figure, tolerance: float) -> Ratio:
    return Ratio(
        record.conditions["text"], unit, values[0], values[1], figure.value, figure.low, figure.high,
        record.windows, record.windows, None if figure.low is None else "hall-by-window", tolerance,
        _verdict(figure.value, figure.low, figure.high, tolerance, more_is_better=False),
    )  # fmt: skip


def _verdict(
    value: float, low: float | None, high: float | None, tolerance: float, *, more_is_better: bool
) -> RatioVerdict:
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
