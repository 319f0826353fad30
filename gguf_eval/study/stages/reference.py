"""Which point the others of a model are compared with while a run goes on: the same one as in the report.

One that has no answers yet counts as long as this run may get some.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gguf_eval.store.database import StudyLookup
from gguf_eval.store.records import reference_rank, settings_label_of
from gguf_eval.study.stages.state import RunPoint


@dataclass(frozen=True)
class Reference:
    """A point of this run, or one that the study has answers of."""

    name: str
    """Of a point of this run; empty for others."""
    label: str
    id: int | None
    """None where the study does not know it yet."""
    sha256: str
    """Of the model file; empty where it is made first."""
    settings: dict[str, Any]

    def is_point(self, point: RunPoint) -> bool:
        """Whether it is this point."""
        return self.name == point.planned.name


Point = TypeVar("Point", bound=RunPoint)


def by_model(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points of each model, models in the order of their first point."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.planned.model, []).append(point)
    return found


@dataclass(frozen=True)
class ModelPoints(Generic[Point]):
    """The points of one model in this run, and the one that the others are compared with."""

    members: Sequence[Point]
    reference: Reference

    @property
    def others(self) -> list[Point]:
        """All members but the reference, which need not be one."""
        return [member for member in self.members if not self.reference.is_point(member)]

    @property
    def reference_first(self) -> list[Point]:
        """The others are compared with what the reference leaves."""
        return sorted(self.members, key=lambda point: not self.reference.is_point(point))


def points_by_model(lookup: StudyLookup, points: Sequence[Point]) -> dict[str, ModelPoints[Point]]:
    """The points of each model with their reference, by the model's name."""
    return {
        model: ModelPoints(members, find_reference(lookup, model, members))
        for model, members in by_model(points).items()
    }


def find_reference(lookup: StudyLookup, model: str, points: Sequence[RunPoint]) -> Reference:
    """The reference of a model: of its points of this run, and those the study has answers of."""
    ranked: dict[int, tuple[tuple[float, bool], Reference]] = {}
    for id_, sha256, settings, level, bits, origin in lookup.answered_points(model):
        label = settings_label_of(level, settings, origin)
        ranked[id_] = (reference_rank(bits, label, level), Reference("", label, id_, sha256, settings))
    for place, point in enumerate(points):
        sha256 = point.file.sha256 if point.file else ""
        reference = Reference(point.planned.name, point.planned.label, point.id, sha256, point.settings)
        ranked[-place - 1 if point.id is None else point.id] = (point.rank, reference)
    return max(ranked.values(), key=lambda entry: entry[0])[1]
