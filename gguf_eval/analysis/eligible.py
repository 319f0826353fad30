"""Which points advice can choose among, on which tasks, and what each one's loss is counted from."""

from __future__ import annotations

from collections.abc import Sequence

from gguf_eval.analysis.basis import find_bases
from gguf_eval.analysis.joint import JointTask
from gguf_eval.analysis.models import by_model
from gguf_eval.analysis.summary import choose_reference
from gguf_eval.store.outcomes import scored
from gguf_eval.store.records import PointRecord, StudyRecord, TaskRecord


def answered_points(study: StudyRecord) -> tuple[list[PointRecord], list[TaskRecord], list[str]]:
    """The points that hold every task that all models share, these tasks, and why others are left out."""
    alive = [point for point in study.points if point.status != "failed"]
    bases = find_bases(alive, study.tasks)
    names = {task.hash: task.name for task in study.tasks}
    answered, notes = [], []
    for point in study.points:
        if point not in alive:
            notes.append(f"{point.name} is left out: it failed")
        elif not point.is_answered:
            notes.append(f"{point.name} is left out: it has no answers")
        elif bases.joint_tasks(point):
            answered.append(point)
        else:
            lacking = bases.models[point.model].lacks(point.id)
            parts = [
                f"{min(lack.asked, lack.scored)} of {lack.of} items of {names[hash_]}"
                for hash_, lack in lacking.items()
                if hash_ in bases.joint
            ]
            notes.append(f"{point.name} is left out: {_has(parts)}")
    shared = [task for task in study.tasks if task.hash in bases.joint]
    asked = [task for task in study.tasks if any(point.answers_to(task) for point in answered)]
    if apart := [task.name for task in asked if task not in shared]:
        notes.append(f"left out, as not every point has them whole: {', '.join(apart)}")
    return answered, shared, notes


def _has(parts: Sequence[str]) -> str:
    return f"it has {', '.join(parts)}" if parts else "its model was asked other tasks or items than the rest"


def references_of(study: StudyRecord, answered: Sequence[PointRecord]) -> tuple[dict[int, int], list[str]]:
    """The reference of each point, by id; where a model's own is left out, the best of those that are not."""
    found: dict[int, int] = {}
    notes = []
    of_study = by_model(study.points)
    for model, members in by_model(answered).items():
        usual = choose_reference(of_study[model])
        reference = choose_reference(members)
        assert reference is not None
        found |= {point.id: reference.id for point in members}
        if len(members) == 1:
            notes.append(f"{reference.name} is the only point of its model: what it lost is not known")
        elif usual is not None and usual.id != reference.id:
            notes.append(f"losses of {model} are from {reference.name}, as {usual.name} is left out")
    return found, notes


def item_notes(answered: Sequence[PointRecord], tasks: Sequence[TaskRecord], joint: Sequence[JointTask]) -> list[str]:
    """A line where scores are over fewer items than some point has."""
    common = {task.name: int(task.sizes.sum()) for task in joint}
    fewer = []
    for task in tasks:
        most = max(len(scored(point.answers_to(task))) for point in answered)
        kept = common.get(task.name, 0)
        if kept < most:
            fewer.append(f"{task.name} {kept} of {most}")
    return [f"items that not every point answered are left out; kept of {', '.join(fewer)}"] * bool(fewer)
