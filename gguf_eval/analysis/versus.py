"""Compares any two points of a study, of one model or of different sizes, on the items both answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gguf_eval.analysis.comparison import MARGIN, Comparison, Pairs, add_pairs, compare, pairs_on
from gguf_eval.analysis.intervals import macro_difference
from gguf_eval.analysis.models import by_model
from gguf_eval.analysis.sanity import find_warnings, warning_lines
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.analysis.summary import choose_reference
from gguf_eval.analysis.task_divergence import TaskDivergence, task_divergence
from gguf_eval.errors import StudyError, UsageError, nearest
from gguf_eval.store.outcomes import scored
from gguf_eval.store.records import PointRecord, StudyRecord, TaskRecord


@dataclass(frozen=True)
class TaskVersus:
    """Two points on one task."""

    task: str
    comparison: Comparison | None
    left_out: int
    """Items that only one of the two has a scored answer to."""
    refused: str | None
    """Why there is no comparison."""
    divergence: TaskDivergence | None = None
    """On the tokens of right answers; None where the study has none of these two."""


@dataclass(frozen=True)
class Versus:
    """One point against another: positive differences are in the candidate's favour."""

    candidate: str
    reference: str
    tasks: tuple[TaskVersus, ...]
    overall: Comparison
    """Over the items of all tasks together."""
    macro: Estimate
    """Mean of the tasks' differences: every task counts once."""
    warnings: tuple[str, ...] = ()
    """Scores of the two that must not be read as results without a second look."""


def versus(
    study: StudyRecord, candidates: Sequence[PointRecord], reference: PointRecord, *, margin: float = MARGIN
) -> list[Versus]:
    """Compare each of ``candidates`` with ``reference`` on common items; Holm's correction is over the candidates.

    Raises `StudyError` when a candidate and the reference have no scored item in common.
    """
    pairs = {task.hash: {c.id: pairs_on(c, reference, task) for c in candidates} for task in study.tasks}
    by_task = {task.hash: compare(reference.name, pairs[task.hash], margin=margin) for task in study.tasks}
    totals = {c.id: add_pairs(pairs[task.hash][c.id] for task in study.tasks) for c in candidates}
    overall = compare(reference.name, totals, margin=margin)
    results = []
    for candidate in candidates:
        macro = macro_difference([pairs[task.hash][candidate.id].cluster_counts for task in study.tasks])
        if macro is None:
            raise StudyError(
                f"{candidate.name} and {reference.name} have no scored item in common "
                f"({_answered(candidate, study.tasks)}; {_answered(reference, study.tasks)}); "
                "run both on the same tasks into one study"
            )
        tasks = tuple(
            _task(task, candidate, reference, pairs[task.hash][candidate.id], by_task[task.hash].get(candidate.id))
            for task in study.tasks
            if candidate.answers_to(task) or reference.answers_to(task)
        )
        warnings = warning_lines(find_warnings((candidate, reference), study.tasks, {reference.id}))
        results.append(Versus(candidate.name, reference.name, tasks, overall[candidate.id], macro, tuple(warnings)))
    return results


def _task(
    task: TaskRecord, candidate: PointRecord, reference: PointRecord, pairs: Pairs, comparison: Comparison | None
) -> TaskVersus:
    refused = None
    if comparison is None:
        missing = [point.name for point in (candidate, reference) if not point.answers_to(task)]
        refused = f"{' and '.join(missing)} did not run it" if missing else "the two have no scored item in common"
    return TaskVersus(task.name, comparison, pairs.left_out, refused, task_divergence(candidate, reference, task))


def _answered(point: PointRecord, tasks: Sequence[TaskRecord]) -> str:
    counts = {task.name: len(scored(point.answers_to(task))) for task in tasks}
    return f"{point.name} has {', '.join(f'{n} of {name}' for name, n in counts.items() if n) or 'none'}"


def find_point(study: StudyRecord, name: str) -> PointRecord:
    """The point a user names: by its whole name, or by its level or label where only one point has it; any case.

    Raises `UsageError` when none or several fit.
    """
    wanted = name.casefold()
    exact = [point for point in study.points if point.name.casefold() == wanted]
    fitting = exact or [
        point for point in study.points if wanted in map(str.casefold, (point.level, point.settings_label, point.model))
    ]
    if len(fitting) == 1:
        return fitting[0]
    names = [point.name for point in study.points]
    if not fitting:
        raise UsageError(f"no point is called '{name}'{nearest(name, names)}; {study.path} has: {', '.join(names)}")
    raise UsageError(f"'{name}' fits {', '.join(point.name for point in fitting)}; give the whole name of one")


def versus_references(study: StudyRecord, only: Sequence[PointRecord] = (), *, margin: float = MARGIN) -> list[Versus]:
    """Every point with answers (of ``only``, where given) against the reference of its model.

    Raises `StudyError` where there is nothing to compare.
    """
    wanted = {point.id for point in only or study.points}
    found: list[Versus] = []
    for members in by_model(study.points).values():
        reference = choose_reference(members)
        others = [p for p in members if p is not reference and p.is_answered and p.id in wanted]
        if reference is not None and others:
            found.extend(versus(study, others, reference, margin=margin))
    if not found:
        raise StudyError(f"{study.path}: two points with answers are needed to compare; run another level or model")
    return found
