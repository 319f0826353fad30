"""A scatter drawn with characters: a mark and a label for each point, where there is room for one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from gguf_eval.report.places import LEVEL_FIRST, Axis, Layout, axis_over, label_box, place_labels

HEIGHTS = (11, 15)
"""Lines of a plot: more where fewer leave a point without its label."""


@dataclass(frozen=True)
class Dot:
    """One point of a scatter."""

    x: float
    y: float
    label: str
    style: str
    mark: str = "●"


Canvas = list[list[tuple[str, str]]]


def scatter(dots: Sequence[Dot], *, title: str, x_title: str, width: int, height: int = HEIGHTS[0]) -> Text:
    """Draw ``dots`` in ``width`` columns; the horizontal axis is logarithmic where values differ four-fold.

    Of dots in one cell the last one is seen.
    """
    plot = _Plot(dots, width, height)
    canvas: Canvas = [[(" ", "")] * plot.columns for _ in range(height)]
    for (column, row), dot in zip(plot.cells, dots, strict=True):
        canvas[row][column] = (dot.mark, dot.style)
    for start, row, dot in plot.labels:
        for i, character in enumerate(dot.label):
            canvas[row][start + i] = (character, dot.style)
    lines = [Text(title, style="bold")]
    for row, cells in enumerate(canvas):
        line = Text(plot.ticks.get(row, "").rjust(plot.margin), style="dim").append(" ┤" if row in plot.ticks else " │")
        for character, style in cells:
            line.append(character, style=f"not dim {style}")
        lines.append(line)
    lines += _bottom(plot.x_axis, plot.columns, plot.margin, x_title)
    return Text("\n").join(lines)


def best_height(plots: Sequence[Sequence[Dot]], width: int) -> int:
    """The least of `HEIGHTS` at which most dots of the plots have their labels."""
    return max(HEIGHTS, key=lambda height: (sum(len(_Plot(dots, width, height).labels) for dots in plots), -height))


class _Plot:
    """Where everything of a plot goes, in cells counted from its upper left corner."""

    def __init__(self, dots: Sequence[Dot], width: int, height: int) -> None:
        y_axis = axis_over([dot.y for dot in dots])
        xs = [dot.x for dot in dots]
        self.x_axis = Axis(min(xs) * 0.95, max(xs) * 1.05, max(xs) > 4 * min(xs) > 0)
        self.ticks = {height - 1 - _cell(y_axis, tick, height): f"{tick:.4g}" for tick in y_axis.ticks()}
        self.margin = max(map(len, self.ticks.values()), default=1)
        self.columns = width - self.margin - 2
        self.cells = [
            (_cell(self.x_axis, dot.x, self.columns), height - 1 - _cell(y_axis, dot.y, height)) for dot in dots
        ]
        layout = Layout(self.columns, height, mark=0.5, line=1, beside=1.5, aslant=0.5, over=0.5, gap=2, clear=1)
        middles = [(column + 0.5, row + 0.5) for column, row in self.cells]
        widths = [len(dot.label) for dot in dots]
        sides = place_labels(middles, widths, layout, LEVEL_FIRST)
        self.labels = []
        for middle, size, side, dot in zip(middles, widths, sides, dots, strict=True):
            if side is not None:
                box = label_box(middle, size, side, layout)
                self.labels.append((math.floor(box.left), math.floor(box.top), dot))


def _cell(axis: Axis, value: float, cells: int) -> int:
    return min(cells - 1, max(0, round(axis.share(value) * (cells - 1))))


def _bottom(axis: Axis, columns: int, margin: int, title: str) -> list[Text]:
    line, labels = ["─"] * columns, [" "] * columns
    for tick in axis.ticks():
        text, column = f"{tick:.4g}", _cell(axis, tick, columns)
        start = min(max(0, column - len(text) // 2), columns - len(text))
        if all(c == " " for c in labels[max(0, start - 1) : start + len(text) + 1]):
            line[column] = "┴"
            labels[start : start + len(text)] = text
    return [
        Text(" " * margin + " └" + "".join(line), style="dim"),
        Text(" " * (margin + 2) + "".join(labels), style="dim"),
        Text(" " * (margin + 2) + title.center(columns), style="dim"),
    ]
