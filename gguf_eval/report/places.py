"""Where everything of a scatter goes: its axes and their round values, and the labels, wherever nothing else is."""

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


Side = tuple[int, int]
"""Across: -1 left of the mark, 0 centred, 1 right of it. Down: -1 over it, 0 level with it, 1 under it."""
LEVEL_FIRST: Sequence[Side] = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, -1), (1, 1), (-1, -1), (-1, 1))
"""For marks alone."""
ASLANT_FIRST: Sequence[Side] = ((1, -1), (1, 1), (-1, -1), (-1, 1), (1, 0), (-1, 0), (0, -1), (0, 1))
"""For marks with lines through them, across and down."""


@dataclass(frozen=True)
class Layout:
    """Measures in one unit: cells of a terminal, or pixels."""

    width: float
    height: float
    mark: float
    """Half a mark."""
    line: float
    """Height of a label."""
    beside: float
    """From the middle of a mark to a label level with it."""
    aslant: float
    """The same across to a label over or under it."""
    over: float
    """From the middle of a mark down or up to a label."""
    gap: float
    """Between a label and anything else beside it."""
    clear: float
    """Over and under a label where no other mark may be: it would be anyone's."""


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box, across: float, down: float) -> bool:
        return (
            self.left < other.right + across
            and other.left < self.right + across
            and self.top < other.bottom + down
            and other.top < self.bottom + down
        )


def place_labels(
    marks: Sequence[tuple[float, float]], widths: Sequence[float], layout: Layout, sides: Sequence[Side]
) -> list[Side | None]:
    """A side of each mark, (across, down) of its middle, for a label that wide; None where none is free.

    A label meets no other label or mark and stays inside the plot. Marks that have the fewest free sides choose first,
    those given first before their equals.
    """
    boxes = [_Box(x - layout.mark, y - layout.mark, x + layout.mark, y + layout.mark) for x, y in marks]
    free = []
    for number, (mark, width) in enumerate(zip(marks, widths, strict=True)):
        others = boxes[:number] + boxes[number + 1 :]
        found = []
        for side in sides:
            box = label_box(mark, width, side, layout)
            inside = box.left >= 0 and box.right <= layout.width and box.top >= 0 and box.bottom <= layout.height
            if inside and not any(box.meets(other, layout.gap, layout.clear) for other in others):
                found.append((side, box))
        free.append(found)
    chosen: list[Side | None] = [None] * len(marks)
    taken: list[_Box] = []
    for number in sorted(range(len(marks)), key=lambda i: len(free[i])):
        for side, box in free[number]:
            if not any(box.meets(other, layout.gap, 0) for other in taken):
                chosen[number] = side
                taken.append(box)
                break
    return chosen


def label_box(mark: tuple[float, float], width: float, side: Side, layout: Layout) -> _Box:
    """The place of a label on one side of its mark."""
    (x, y), (across, down) = mark, side
    away = layout.beside if down == 0 else layout.aslant
    left = x - width / 2 if across == 0 else x + away if across > 0 else x - away - width
    top = y - layout.line / 2 if down == 0 else y + layout.over if down > 0 else y - layout.over - layout.line
    return _Box(left, top, left + width, top + layout.line)
