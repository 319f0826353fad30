"""Which points no other beats in memory, speed and quality at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tradeoff:
    """What a point costs and what it gives."""

    point_id: int
    name: str
    memory_bytes: int
    quality: float
    """Mean over tasks of the headline scores, on items that all points answered."""
    tokens_per_second: float | None
    """Of generation; None where no speed was measured."""


@dataclass(frozen=True)
class Place:
    """A point's place among the others."""

    tradeoff: Tradeoff
    dominated_by: tuple[Tradeoff, ...]
    """Points that are at least as good in every respect and better in one; none: it is on the Pareto front."""


def pareto(tradeoffs: Sequence[Tradeoff]) -> list[Place]:
    """The place of every point, in the order given; speed counts only where every point has one."""
    timed = all(entry.tokens_per_second is not None for entry in tradeoffs)
    scores = [_score(entry, timed) for entry in tradeoffs]
    places = []
    for entry, own in zip(tradeoffs, scores, strict=True):
        better = [
            other
            for other, theirs in zip(tradeoffs, scores, strict=True)
            if theirs != own and all(a >= b for a, b in zip(theirs, own, strict=True))
        ]
        places.append(Place(entry, tuple(better)))
    return places


def _score(entry: Tradeoff, timed: bool) -> tuple[float, ...]:
    """More is better in every place."""
    speed = (entry.tokens_per_second or 0.0,) if timed else ()
    return (-float(entry.memory_bytes), entry.quality, *speed)
