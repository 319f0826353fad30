"""What every point answered, item by item, in a form small enough to go into a page: the flips first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gguf_eval.analysis.summary import StudySummary
from gguf_eval.store.outcomes import answers, read_whole, scored, scores
from gguf_eval.store.records import Outcome, PointRecord, StudyRecord, TaskRecord
from gguf_eval.tasks.prompts import ItemRecord

UNSCORED, MISSING = "?", "."


@dataclass(frozen=True)
class TaskAnswers:
    """One task: its items, those first that most points answer otherwise than their reference."""

    task: str
    items: tuple[ItemRecord, ...]
    flips: tuple[int, ...]
    """For each item, the points whose score differs from their reference's."""
    marks: Mapping[int, str]
    """By point id, one character an item: 1 right, 0 wrong, - in part; `UNSCORED`, `MISSING`."""
    picks: Mapping[int, str]
    """By point id, one character an item: the choice's letter, `MISSING` where none was picked."""
    texts: Mapping[int, tuple[str, ...]]
    """By point id, what was taken for the answer; only where the model wrote it."""


def answers_by_task(study: StudyRecord, summary: StudySummary) -> Iterator[TaskAnswers]:
    """The answers of every point to every task of the study, a task at a time."""
    references = {point.model: point.id for point in summary.points if point.is_reference}
    return (_task(study, task, references) for task in study.tasks if task.items)


def _task(study: StudyRecord, task: TaskRecord, references: Mapping[str, int]) -> TaskAnswers:
    points = [point for point in study.points if point.outcomes.get(task.hash)]
    values = {point.id: scores(point.outcomes[task.hash]) for point in points}
    known = {point.id: scored(point.outcomes[task.hash], task.items) for point in points}
    flips = dict.fromkeys(task.items, 0)
    for point in points:
        reference = known.get(references.get(point.model, -1), {})
        for key, value in known[point.id].items():
            flips[key] += value != reference.get(key, value)
    order = sorted(flips, key=lambda key: -flips[key])
    return TaskAnswers(
        task=task.name,
        items=tuple(task.items[key] for key in order),
        flips=tuple(flips[key] for key in order),
        marks={id_: "".join(_mark(found, key) for key in order) for id_, found in values.items()},
        picks={point.id: _picks(point.outcomes[task.hash], order) for point in points},
        texts={point.id: _texts(point, task, order) for point in points} if task.kind == "generation" else {},
    )


def _mark(values: Mapping[str, float | None], key: str) -> str:
    if key not in values:
        return MISSING
    value = values[key]
    if value is None:
        return UNSCORED
    return "1" if value == 1 else "0" if value == 0 else "-"


def _picks(outcomes: Mapping[str, Outcome], order: list[str]) -> str:
    picked = answers(outcomes)
    return "".join(MISSING if (pick := picked.get(key)) is None or pick > 25 else chr(65 + pick) for key in order)


def _texts(point: PointRecord, task: TaskRecord, order: list[str]) -> tuple[str, ...]:
    outcomes = read_whole(point.outcomes[task.hash])
    return tuple((outcomes[key].extracted or outcomes[key].text or "") if key in outcomes else "" for key in order)
