"""A scatter drawn with characters: a mark and a label for each point, where there is room for one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text


@dataclass(frozen=True)
class Dot:
    """One point of a scatter."""

    x: float
    y: float
    label: str
    style: str
    mark: str = "●"


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    logarithmic: bool = False

    def place(self, value: float, cells: int) -> int:
        """The cell, counted from 0, that the value falls into."""
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        share = (at - low) / (high - low) if high > low else 0.5
        return min(cells - 1, max(0, round(share * (cells - 1))))

    def ticks(self) -> list[float]:
        """Round values inside the axis."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            return [s * 10.0**p for p in powers for s in (1, 2, 5) if self.low <= s * 10.0**p <= self.high]
        span = self.high - self.low
        step = next((s for s in _steps(span) if span / s <= 5), span)
        first = math.ceil(self.low / step)
        return [step * i for i in range(first, first + 7) if step * i <= self.high]


def _steps(span: float) -> list[float]:
    power = 10.0 ** math.floor(math.log10(span / 10)) if span > 0 else 1.0
    return [power * factor for factor in (1, 2, 5, 10, 20, 50)]


def scatter(dots: Sequence[Dot], *, title: str, x_title: str, width: int, height: int = 11) -> Text:
    """Draw ``dots`` in ``width`` columns; the horizontal axis is logarithmic where values differ four-fold."""
    y_axis = _padded([dot.y for dot in dots], 0.08)
    xs = [dot.x for dot in dots]
    x_axis = _Axis(min(xs) * 0.95, max(xs) * 1.05, max(xs) > 4 * min(xs) > 0)
    y_ticks = {height - 1 - y_axis.place(tick, height): f"{tick:.4g}" for tick in y_axis.ticks()}
    margin = max(map(len, y_ticks.values()), default=1)
    columns = width - margin - 2
    canvas = [[(" ", "")] * columns for _ in range(height)]
    places = [(height - 1 - y_axis.place(dot.y, height), x_axis.place(dot.x, columns), dot) for dot in dots]
    for row, column, dot in places:
        canvas[row][column] = (dot.mark, dot.style)
    for row, column, dot in places:
        _write_label(canvas, row, column, dot)
    lines = [Text(title, style="bold")]
    for row, cells in enumerate(canvas):
        line = Text(y_ticks.get(row, "").rjust(margin), style="dim").append(" ┤" if row in y_ticks else " │")
        for character, style in cells:
            line.append(character, style=f"not dim {style}")
        lines.append(line)
    lines += _bottom(x_axis, columns, margin, x_title)
    return Text("\n").join(lines)


def _padded(values: Sequence[float], share: float) -> _Axis:
    low, high = min(values), max(values)
    pad = (high - low) * share or abs(high) * share or 1.0
    return _Axis(low - pad, high + pad)


def _write_label(canvas: list[list[tuple[str, str]]], row: int, column: int, dot: Dot) -> None:
    """Put the label right of the mark, left of it, under or over it: where nothing stands."""
    size = len(dot.label)
    for at_row, start in (
        (row, column + 2), (row, column - size - 1), (row + 1, column - size // 2), (row - 1, column - size // 2),
    ):  # fmt: skip
        room = range(start - 1, start + size + 1)
        inside = 0 <= at_row < len(canvas) and start >= 0 and start + size <= len(canvas[0])
        if inside and all(
            canvas[at_row][i][0] == " " for i in room if i < len(canvas[0]) and (at_row, i) != (row, column)
        ):
            for i, character in enumerate(dot.label):
                canvas[at_row][start + i] = (character, dot.style)
            return


def _bottom(axis: _Axis, columns: int, margin: int, title: str) -> list[Text]:
    line, labels = ["─"] * columns, [" "] * columns
    for tick in axis.ticks():
        text, column = f"{tick:.4g}", axis.place(tick, columns)
        start = min(max(0, column - len(text) // 2), columns - len(text))
        if all(c == " " for c in labels[max(0, start - 1) : start + len(text) + 1]):
            line[column] = "┴"
            labels[start : start + len(text)] = text
    return [
        Text(" " * margin + " └" + "".join(line), style="dim"),
        Text(" " * (margin + 2) + "".join(labels), style="dim"),
        Text(" " * (margin + 2) + title.center(columns), style="dim"),
    ]
