"""Sums up a model's run over a text: perplexity, bits per byte, and its divergence from a reference.

Tokens of one window are not independent, so that every interval is over windows: Hall's for means, Wilson's with the
effective sample size for shares (`gguf_eval.analysis.intervals`), and Woodruff's for quantiles.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_eval.analysis.intervals import FEW, ClusterSum, effective_items, macro_average, mean_interval, spread_of
from gguf_eval.analysis.statistics import t_quantile, wilson_bounds
from gguf_eval.store.records import TextRecord

Values = npt.NDArray[np.float64]

QUANTILES = {"median": 0.5, "90%": 0.9, "95%": 0.95, "99%": 0.99, "99.9%": 0.999}
CHANGE_QUANTILES = {"1%": 0.01, "5%": 0.05, "10%": 0.1, "median": 0.5, "90%": 0.9, "95%": 0.95, "99%": 0.99}
_BEYOND = 10
"""Tokens that must lie beyond a quantile for an interval."""
CONFIDENCE_BOUNDS = (0.0, 0.3, 0.6, 0.9, 0.99, 1.0)
"""Of the reference's largest probability, between which tokens are told apart."""


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval; without one where there is too little for it (a single window, few items)."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ConfidenceBand:
    """Tokens at which the reference's largest probability is in one range."""

    low: float
    high: float
    tokens: int
    mean: Figure | None
    """Mean KL divergence; None without tokens."""
    same_top: float | None


@dataclass(frozen=True)
class Divergence:
    """A model beside its reference; divergences in nats, probabilities between 0 and 1."""

    reference: str
    exact: bool
    """Whether the whole distributions were compared."""
    mean: Figure
    token_error: float
    """Standard error of the mean, were tokens independent: the figure that llama-perplexity prints."""
    estimator_error: float
    """Standard error of the mean that comes from the drawn tail entries; 0 where exact."""
    quantiles: dict[str, Figure]
    maximum: float
    same_top: Figure
    """Share of tokens at which both find the same token most probable."""
    change_mean: Figure
    """Of the probability of the text's token: candidate less reference."""
    change_rms: Figure
    change_quantiles: dict[str, Figure]
    change_largest: float
    """In absolute value."""
    log_perplexity_ratio: Figure
    """ln(PPL / PPL of the reference)."""
    perplexity_ratio: Figure
    correlation: float
    """Of both models' negative log-likelihoods over tokens."""
    by_confidence: tuple[ConfidenceBand, ...]


@dataclass(frozen=True)
class Noise:
    """A reference against itself, decoded in small batches: what less than this means is rounding."""

    mean: float
    quantile_99: float
    same_top: float
    tokens: int


@dataclass(frozen=True)
class TextSummary:
    """A model on a text."""

    text: str
    text_sha256: str
    n_ctx: int
    stride: int | None
    windows: int
    tokens: int
    perplexity: Figure
    token_error: float
    """Standard error of the perplexity, were tokens independent: what llama-perplexity prints."""
    bits_per_byte: Figure
    divergence: Divergence | None
    noise: Noise | None
    interval_method: str | None = None
    """None where there is a single window, and no interval."""

    def same_windows(self, other: TextSummary) -> bool:
        """Whether both are over the same tokens, so that their means may stand beside each other."""
        return (self.text, self.text_sha256, self.n_ctx, self.stride, self.windows, self.tokens) == (
            other.text, other.text_sha256, other.n_ctx, other.stride, other.windows, other.tokens,
        )  # fmt: skip


def summarise_text(record: TextRecord) -> TextSummary:
    """Every figure of one run."""
    sample = _Windows(record.windows, record.scored)
    nll = _column(record, "nll")
    perplexity = sample.mean(nll, math.exp)
    bytes_of_windows = np.array(record.window_bytes, np.float64)
    bits = sample.ratio(nll.reshape(record.windows, -1).sum(axis=1) / math.log(2), bytes_of_windows)
    conditions = record.conditions
    return TextSummary(
        text=conditions["text"],
        text_sha256=conditions["text_sha256"],
        n_ctx=conditions["n_ctx"],
        stride=conditions["stride"],
        windows=record.windows,
        tokens=len(nll),
        perplexity=perplexity,
        token_error=perplexity.value * _standard_error(nll),
        bits_per_byte=bits,
        divergence=_divergence(record, sample) if "kld" in record.columns else None,
        noise=_noise(record.noise) if record.noise else None,
        interval_method="hall-by-window" if record.windows > 1 else None,
    )


def perplexity_ratio(new: TextRecord, old: TextRecord) -> Figure:
    """PPL of one run over that of another over the same windows, paired by window."""
    change = _column(new, "nll") - _column(old, "nll")
    return _Windows(new.windows, new.scored).mean(change, math.exp)


def divergence_ratio(new: TextRecord, old: TextRecord) -> Figure | None:
    """Mean KL divergence of one run over that of another over the same windows; None where the other's is nothing."""
    above, below = (_column(run, "kld").reshape(run.windows, -1).sum(axis=1) for run in (new, old))
    return _Windows(new.windows, new.scored).ratio(above, below, least=0.0) if (below > 0).all() else None


def _divergence(record: TextRecord, sample: _Windows) -> Divergence:
    kld, nll, base = (_column(record, name) for name in ("kld", "nll", "reference_nll"))
    same = _column(record, "same_top")
    change = np.exp(-nll) - np.exp(-base)
    ratio = nll - base
    spread = float(nll.std() * base.std())
    return Divergence(
        reference=record.conditions["reference"],
        exact=record.conditions["exact"],
        mean=sample.mean(kld, least=0.0),
        token_error=_standard_error(kld),
        estimator_error=math.sqrt(float(_column(record, "kld_variance").sum())) / len(kld),
        quantiles=sample.quantiles(kld, QUANTILES),
        maximum=float(kld.max()),
        same_top=sample.share(same),
        change_mean=sample.mean(change),
        change_rms=sample.mean(change**2, math.sqrt, least=0.0),
        change_quantiles=sample.quantiles(change, CHANGE_QUANTILES),
        change_largest=float(np.abs(change).max()),
        log_perplexity_ratio=sample.mean(ratio),
        perplexity_ratio=sample.mean(ratio, math.exp),
        correlation=float(np.mean((nll - nll.mean()) * (base - base.mean()))) / spread if spread else 1.0,
        by_confidence=_bands(kld, same, _column(record, "confidence"), sample),
    )


def _bands(kld: Values, same: Values, confidence: Values, sample: _Windows) -> tuple[ConfidenceBand, ...]:
    bands = []
    for low, high in itertools.pairwise(CONFIDENCE_BOUNDS):
        inside = (confidence >= low) & ((confidence < high) | (high == CONFIDENCE_BOUNDS[-1]))
        count = int(inside.sum())
        bands.append(
            ConfidenceBand(
                low, high, count,
                sample.mean_where(kld, inside) if count else None,
                float(same[inside].mean()) if count else None,
            )
        )  # fmt: skip
    return tuple(bands)


def _noise(noise: Mapping[str, npt.NDArray[Any]]) -> Noise:
    kld = noise["kld"].astype(np.float64)
    return Noise(float(kld.mean()), float(np.quantile(kld, 0.99)), float(noise["same_top"].mean()), len(kld))


def _column(record: TextRecord, name: str) -> Values:
    values: Values = record.columns[name].astype(np.float64)
    return values


def _standard_error(values: Values) -> float:
    """As llama-perplexity's: population deviation over the square root of n - 1."""
    return float(values.std() / math.sqrt(len(values) - 1)) if len(values) > 1 else 0.0


class _Windows:
    """Figures over the tokens of a run, with intervals over its windows."""

    def __init__(self, windows: int, scored: int) -> None:
        self._windows, self._scored = windows, scored

    def mean(self, values: Values, transform: Callable[[float], float] = float, *, least: float = -math.inf) -> Figure:
        """The transformed mean over tokens; ``least`` is the smallest that a mean can be."""
        return self.ratio(self._sums(values), np.full(self._windows, float(self._scored)), transform, least=least)

    def ratio(
        self, above: Values, below: Values, transform: Callable[[float], float] = float, *, least: float = -math.inf
    ) -> Figure:
        """A ratio of two sums over windows; windows in which there is nothing below are not there."""
        there = below > 0
        value, low, high = mean_interval(above[there], below[there])
        if there.sum() < 2:
            return Figure(transform(value), None, None)
        return Figure(transform(value), transform(max(least, low)), transform(high))

    def mean_where(self, values: Values, inside: npt.NDArray[np.bool_]) -> Figure:
        """The mean over some of the tokens, of values that are not negative; without an interval in few windows."""
        counts = self._sums(inside.astype(np.float64))
        found = self.ratio(self._sums(np.where(inside, values, 0.0)), counts, least=0.0)
        return found if (counts > 0).sum() >= FEW else Figure(found.value, None, None)

    def share(self, values: Values) -> Figure:
        """The share of tokens that are 1, the others being 0."""
        found = macro_average([self._counts(values)])
        assert found is not None
        return Figure(found.value, found.low, found.high) if self._windows > 1 else Figure(found.value, None, None)

    def quantiles(self, values: Values, shares: Mapping[str, float]) -> dict[str, Figure]:
        """Quantiles over tokens, with Woodruff's (1952, J. Am. Stat. Assoc. 47:635) interval.

        It is what the values are at both ends of the interval of the share of tokens below. There is none with fewer
        than `_BEYOND` tokens beyond the quantile.
        """
        ordered = np.sort(values)
        found = {}
        places = np.quantile(ordered, tuple(shares.values())).tolist()
        for (name, share), value in zip(shares.items(), places, strict=True):
            below = spread_of([self._counts((values <= value).astype(np.float64))])
            bounds = wilson_bounds(share, effective_items(below), t_quantile(below.freedom))
            if self._windows < 2 or min(share, 1 - share) * len(values) < _BEYOND:
                found[name] = Figure(value, None, None)
                continue
            ends = math.floor(bounds[0] * len(values)) - 1, math.ceil(bounds[1] * len(values))
            low, high = (float(ordered[min(max(0, place), len(values) - 1)]) for place in ends)
            found[name] = Figure(value, min(value, low), max(value, high))
        return found

    def _counts(self, values: Values) -> Counter[ClusterSum]:
        return Counter((total, self._scored) for total in self._sums(values).tolist())

    def _sums(self, values: Values) -> Values:
        sums: Values = values.reshape(self._windows, self._scored).sum(axis=1)
        return sums
