"""Intervals and tests in closed form. Each function is one formula with its source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure with its uncertainty."""

    value: float
    low: float
    high: float
    n: int
    """Items it rests on."""
    unscored: int
    """Items that should have counted and could not be scored, here or at a point beside; they are in no mean."""
    method: str


@lru_cache
def normal_quantile(confidence: float = CONFIDENCE) -> float:
    """The z with P(|Z| < z) = confidence."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


@lru_cache(maxsize=1024)
def t_quantile(freedom: float, confidence: float = CONFIDENCE) -> float:
    """The t with P(|T| < t) = confidence, T of Student's distribution; infinite freedom is the normal's."""
    if math.isinf(freedom):
        return normal_quantile(confidence)
    from scipy.special import stdtrit  # scipy.stats takes a second to load

    return float(stdtrit(freedom, 0.5 + confidence / 2))


def wilson(successes: float, n: int, *, unscored: int = 0, confidence: float = CONFIDENCE) -> Estimate | None:
    """A proportion with Wilson's score interval (Wilson 1927; Brown, Cai and DasGupta 2001, eq. 4). None for n = 0."""
    if n == 0:
        return None
    share = successes / n
    return Estimate(share, *wilson_bounds(share, n, normal_quantile(confidence)), n, unscored, "wilson")


def wilson_bounds(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's interval for a share of ``n`` items, which need not be a whole number."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # The interval holds the share itself, which rounding can put a digit outside when the share is 0 or 1.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def paired_difference(gained: int, lost: int, n: int, *, confidence: float = CONFIDENCE) -> Estimate | None:
    """Difference of two proportions on the same n items, of which ``gained`` turned right and ``lost`` turned wrong.

    The value is (gained - lost) / n; the interval is the adjusted Wald interval for paired data of Bonett and Price
    (2012, J. Educ. Behav. Stat. 37:479), which adds one item to each kind of change. None for n = 0.
    """
    if n == 0:
        return None
    z = normal_quantile(confidence)
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    centre = up - down
    half = z * math.sqrt((up + down - centre * centre) / (n + 2))
    return Estimate(
        (gained - lost) / n, max(-1.0, centre - half), min(1.0, centre + half), n, 0, "paired-adjusted-wald"
    )


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact McNemar test: the binomial probability of so uneven a split of the changed items."""
    from scipy.special import bdtr  # scipy.stats takes a second to load

    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def fair_tosses(n: int) -> npt.NDArray[np.float64]:
    """The probability of 0 to n heads in n tosses of a fair coin."""
    from scipy.special import gammaln

    heads = np.arange(n + 1)
    shares: npt.NDArray[np.float64] = np.exp(
        gammaln(n + 1) - gammaln(heads + 1) - gammaln(n - heads + 1) - n * math.log(2)
    )
    return shares


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979): adjusted p-values in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [1.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = running
    return adjusted


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; the latter is None for fewer than two values."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def ratio_of_means(values: Sequence[float], base: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Ratio of the geometric means of two samples of positive numbers, with its interval.

    The interval is Welch's (1947, Biometrika 34:28) for the difference of the logarithms' means, with degrees of
    freedom by Satterthwaite. Low and high are None where a sample has a single value: it says nothing of its spread.
    """
    logs, base_logs = np.log(values), np.log(base)
    centre = float(logs.mean() - base_logs.mean())
    if len(logs) < 2 or len(base_logs) < 2:
        return math.exp(centre), None, None
    parts = [float(sample.var(ddof=1)) / len(sample) for sample in (logs, base_logs)]
    variance = math.fsum(parts)
    if not variance:
        return math.exp(centre), math.exp(centre), math.exp(centre)
    freedom = variance**2 / sum(
        part**2 / (len(sample) - 1) for part, sample in zip(parts, (logs, base_logs), strict=True)
    )
    half = t_quantile(freedom) * math.sqrt(variance)
    return math.exp(centre), math.exp(centre - half), math.exp(centre + half)
