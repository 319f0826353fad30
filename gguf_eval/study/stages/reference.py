"""Which point the others of a model are compared with while a run goes on: the same one as in the report.

It is the point of most bits, one with the KV cache in F16 and asked in the usual way where there is a choice. One that
has no answers yet counts as long as this run may get some.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_eval.runtime.answer_file import AnswerKey, answer_path, held_items
from gguf_eval.store.database import StudyLookup
from gguf_eval.store.records import way_of
from gguf_eval.study.stages.state import ReadyPoint, RunState

KINDS = ("choice", "continuation")
"""Of tasks whose right answers are compared."""


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


def answered(lookup: StudyLookup, model: str) -> dict[int, tuple[float, bool, Reference]]:
    """The model's points that the study has answers of, by id, each with what ranks it."""
    return {
        id_: (bits, label == level, Reference(id_, label, sha256, settings))
        for id_, sha256, settings, level, bits, origin in lookup.answered_points(model)
        for label in [way_of(level, settings, origin)]
    }


def find_references(state: RunState, points: Sequence[ReadyPoint]) -> dict[str, Reference]:
    """The reference of each model, by the model's name: of these of the run and those the study has answers of."""
    found = {}
    for model in dict.fromkeys(point.planned.model for point in points):
        ranked = answered(state.study, model)
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


def items_kept(folder: Path, sha256: str, settings: dict[str, Any], task_hash: str) -> set[str]:
    """Hashes of the items that something is kept of in ``folder`` of a reference's distributions over right answers."""
    return held_items(answer_path(folder, AnswerKey(sha256, settings, task_hash)))


def unkept(
    lookup: StudyLookup, reference: int, candidates: Sequence[int | None], task_hash: str, items: Collection[str],
    kept: Collection[str],
) -> set[str]:  # fmt: skip
    """Items that the reference has a score for, nothing is ``kept`` of, and a candidate has no divergence on.

    None stands for a candidate that the study does not know yet.
    """
    known = [set() if one is None else lookup.divergent(one, reference, task_hash) for one in candidates]
    wanted = {item for item in items if item not in kept and not all(item in one for one in known)}
    return wanted & lookup.scored(reference, task_hash)


def uncompared(
    lookup: StudyLookup, point: int, reference: int | None, task_hash: str, kept: Collection[str]
) -> set[str]:
    """Items that the point has a score for and no divergence, of those of the reference that are ``kept``."""
    known = set() if reference is None else lookup.divergent(point, reference, task_hash)
    return (set(kept) - known) & lookup.scored(point, task_hash)
