"""Sums up a model's run over a text: perplexity, bits per byte, and its divergence from a reference.

Tokens of one window are not independent, so that every interval is a bootstrap over windows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_eval.analysis.statistics import CONFIDENCE
from gguf_eval.study.records import TextRecord

Values = npt.NDArray[np.float64]

QUANTILES = {"median": 0.5, "90%": 0.9, "95%": 0.95, "99%": 0.99, "99.9%": 0.999}
CHANGE_QUANTILES = {"1%": 0.01, "5%": 0.05, "10%": 0.1, "median": 0.5, "90%": 0.9, "95%": 0.95, "99%": 0.99}
CONFIDENCE_BOUNDS = (0.0, 0.3, 0.6, 0.9, 0.99, 1.0)
"""Of the reference's largest probability, between which tokens are told apart."""
RESAMPLES = 2_000
_QUANTILE_RESAMPLES = 400


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval over windows; without one where there is a single window."""

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
    sample = _Sample(record.windows, record.scored)
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
        interval_method="bootstrap-by-window" if record.windows > 1 else None,
    )


def perplexity_ratio(new: TextRecord, old: TextRecord) -> Figure:
    """PPL of one run over that of another over the same windows, paired by window."""
    change = _column(new, "nll") - _column(old, "nll")
    return _Sample(new.windows, new.scored).mean(change, math.exp)


def divergence_ratio(new: TextRecord, old: TextRecord) -> Figure | None:
    """Mean KL divergence of one run over that of another over the same windows; None where the other's is nothing."""
    above, below = (_column(run, "kld").reshape(run.windows, -1).sum(axis=1) for run in (new, old))
    return _Sample(new.windows, new.scored).ratio(above, below) if (below > 0).all() else None


def _divergence(record: TextRecord, sample: _Sample) -> Divergence:
    kld, nll, base = (_column(record, name) for name in ("kld", "nll", "reference_nll"))
    same = _column(record, "same_top")
    change = np.exp(-nll) - np.exp(-base)
    ratio = nll - base
    spread = float(nll.std() * base.std())
    return Divergence(
        reference=record.conditions["reference"],
        exact=record.conditions["exact"],
        mean=sample.mean(kld),
        token_error=_standard_error(kld),
        estimator_error=math.sqrt(float(_column(record, "kld_variance").sum())) / len(kld),
        quantiles=dict(zip(QUANTILES, sample.quantiles(kld, tuple(QUANTILES.values())), strict=True)),
        maximum=float(kld.max()),
        same_top=sample.mean(same),
        change_mean=sample.mean(change),
        change_rms=sample.mean(change**2, math.sqrt),
        change_quantiles=dict(
            zip(CHANGE_QUANTILES, sample.quantiles(change, tuple(CHANGE_QUANTILES.values())), strict=True)
        ),
        change_largest=float(np.abs(change).max()),
        log_perplexity_ratio=sample.mean(ratio),
        perplexity_ratio=sample.mean(ratio, math.exp),
        correlation=float(np.mean((nll - nll.mean()) * (base - base.mean()))) / spread if spread else 1.0,
        by_confidence=_bands(kld, same, _column(record, "confidence"), sample),
    )


def _bands(kld: Values, same: Values, confidence: Values, sample: _Sample) -> tuple[ConfidenceBand, ...]:
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


class _Sample:
    """Bootstrap resamples of windows, drawn once, so that figures of one run go together."""

    def __init__(self, windows: int, scored: int, seed: int = 0) -> None:
        self._windows, self._scored = windows, scored
        random = np.random.default_rng(seed)
        self._weights = random.multinomial(windows, np.full(windows, 1 / windows), RESAMPLES).astype(np.float64)
        self._stretch = math.sqrt(windows / (windows - 1)) if windows > 1 else 0.0

    def mean(self, values: Values, transform: Callable[[float], float] = float) -> Figure:
        """The transformed mean over tokens."""
        sums = values.reshape(self._windows, self._scored).sum(axis=1)
        return self._figure(float(values.mean()), self._weights @ sums / len(values), transform)

    def ratio(self, above: Values, below: Values) -> Figure:
        """A ratio of two sums over windows."""
        return self._figure(float(above.sum() / below.sum()), self._weights @ above / (self._weights @ below), float)

    def mean_where(self, values: Values, inside: npt.NDArray[np.bool_]) -> Figure:
        """The mean over some of the tokens."""
        sums = np.where(inside, values, 0).reshape(self._windows, self._scored).sum(axis=1)
        counts = inside.reshape(self._windows, self._scored).sum(axis=1)
        drawn = self._weights @ counts
        means = (self._weights @ sums)[drawn > 0] / drawn[drawn > 0]
        return self._figure(float(values[inside].mean()), means, float)

    def quantiles(self, values: Values, shares: tuple[float, ...]) -> list[Figure]:
        """Quantiles over tokens; a resample's are those of the tokens in its windows."""
        order = np.argsort(values, kind="stable")
        ordered, window = values[order], order // self._scored
        drawn = []
        for weights in self._weights[:_QUANTILE_RESAMPLES]:
            reached = np.cumsum(weights[window])
            places = np.searchsorted(reached, np.array(shares) * reached[-1])
            drawn.append(ordered[places.clip(max=len(values) - 1)])
        table = np.array(drawn)
        exact = np.quantile(values, shares)
        return [self._figure(float(value), table[:, i], float) for i, value in enumerate(exact)]

    def _figure(self, value: float, drawn: Values, transform: Callable[[float], float]) -> Figure:
        """Percentile interval, stretched as in `resampling.resampled_means`."""
        if self._windows < 2:
            return Figure(transform(value), None, None)
        tails = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        low, high = (value + (float(tail) - value) * self._stretch for tail in tails)
        if transform is math.sqrt:
            low = max(0.0, low)
        return Figure(transform(value), transform(min(value, low)), transform(max(value, high)))
