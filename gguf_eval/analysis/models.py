"""Points of the same model belong together: they are compared with one reference."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Protocol, TypeVar


class _OfModel(Protocol):
    @property
    def model(self) -> str: ...


OfModel = TypeVar("OfModel", bound=_OfModel)
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def by_model(points: Iterable[OfModel]) -> dict[str, list[OfModel]]:
    """The points of each model, in the order given."""
    return grouped((point.model, point) for point in points)


def grouped(pairs: Iterable[tuple[Key, Value]]) -> dict[Key, list[Value]]:
    """The values of each key, both in the order given."""
    groups: dict[Key, list[Value]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups
