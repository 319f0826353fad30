"""Points of the same model belong together: they are compared with one reference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar


class _OfModel(Protocol):
    @property
    def model(self) -> str: ...


OfModel = TypeVar("OfModel", bound=_OfModel)


def by_model(points: Iterable[OfModel]) -> dict[str, list[OfModel]]:
    """The points of each model, in the order given."""
    groups: dict[str, list[OfModel]] = {}
    for point in points:
        groups.setdefault(point.model, []).append(point)
    return groups
