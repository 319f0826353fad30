"""Which point the others of a model are compared with while a run goes on: the same one as in the report.

It is the point of most bits, one with the KV cache in F16 and asked in the usual way where there is a choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gguf_eval.study.records import way
from gguf_eval.study.stages.state import ReadyPoint, RunState


@dataclass(frozen=True)
class Reference:
    """A point of the study, made in this run or before."""

    id: int
    label: str
    sha256: str
    settings: dict[str, Any]


def highest(members: Sequence[ReadyPoint]) -> ReadyPoint:
    """Of a model's points in this run."""
    return max(members, key=lambda point: (point.file.bits_per_weight, point.planned.label == point.planned.level))


def find_references(state: RunState, points: Sequence[ReadyPoint]) -> dict[str, Reference]:
    """The reference of each model, by the model's name: of this run's points and those the study has answers of."""
    found = {}
    for model in dict.fromkeys(point.planned.model for point in points):
        ranked = {
            id_: (bits, way(level, settings) == level, Reference(id_, way(level, settings), sha256, settings))
            for id_, sha256, settings, level, bits in state.study.answered_points(model)
        }
        for point in points:
            if point.planned.model == model:
                label, file = point.planned.label, point.file
                reference = Reference(point.id, label, file.sha256, point.settings)
                ranked[point.id] = (file.bits_per_weight, label == file.level, reference)
        found[model] = max(ranked.values(), key=lambda entry: entry[:2])[2]
    return found


def references_first(points: Sequence[ReadyPoint], references: Mapping[str, Reference]) -> list[ReadyPoint]:
    """The points of one model together, its reference first: the others are compared with what it leaves."""
    models = list(dict.fromkeys(point.planned.model for point in points))
    return sorted(points, key=lambda p: (models.index(p.planned.model), p.id != references[p.planned.model].id))
