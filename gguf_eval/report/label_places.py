"""Where the labels of a scatter go: beside, over or under their mark, wherever nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
