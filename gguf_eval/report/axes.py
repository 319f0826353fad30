"""Axes of a scatter: where they begin and end, where a value lies on them, and which round values they name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_FEW_TICKS = 4
_MANTISSAS = ((1, 2, 5), (1, 2, 3, 5, 7), (1, 2, 3, 4, 5, 6, 7, 8, 9))
"""Of the values that a logarithmic axis names: the first ones that give a few."""


@dataclass(frozen=True)
class Axis:
    """From ``low`` to ``high``."""

    low: float
    high: float
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where the value lies: 0 at the beginning, 1 at the end."""
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low) if high > low else 0.5

    def ticks(self, most: int = 5) -> list[float]:
        """Round values inside the axis, about as many as ``most``."""
        if self.logarithmic:
            found = [self._mantissas(mantissas) for mantissas in _MANTISSAS]
            return next((values for values in found if len(values) >= _FEW_TICKS), found[-1])
        span = self.high - self.low
        step = next((s for s in _steps(span) if span / s <= most), span)
        first = math.ceil(self.low / step)
        return [step * i for i in range(first, first + most + 2) if step * i <= self.high]

    def _mantissas(self, mantissas: Sequence[int]) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        return [m * 10.0**p for p in powers for m in mantissas if self.low <= m * 10.0**p <= self.high]


def axis_over(values: Sequence[float], margin: float = 0.08, *, may_be_logarithmic: bool = False) -> Axis:
    """An axis that has the values and a margin, a share of their span, on both sides.

    It is logarithmic, where it may be, when values differ four-fold; where no value is negative, neither is its end.
    """
    low, high = min(values), max(values)
    if may_be_logarithmic and high > 4 * low > 0:
        factor = (high / low) ** margin
        return Axis(low / factor, high * factor, True)
    pad = (high - low) * margin or abs(high) * margin or 1.0
    return Axis(max(0.0, low - pad) if low >= 0 else low - pad, high + pad)


def _steps(span: float) -> list[float]:
    power = 10.0 ** math.floor(math.log10(span / 10)) if span > 0 else 1.0
    return [power * factor for factor in (1, 2, 5, 10, 20, 50)]
