"""Figures of a point on a task beside its mean over items: aggregates, subjects, groups of subjects."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from gguf_eval.analysis.intervals import cluster_counts, macro_average
from gguf_eval.analysis.models import grouped
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.store.outcomes import read_whole, scored, scores
from gguf_eval.store.records import Outcome, TaskRecord
from gguf_eval.tasks.aggregates import AGGREGATES, Answered
from gguf_eval.tasks.prompts import ItemRecord


@dataclass(frozen=True)
class WholeTask:
    """What a task says beyond its headline; empty where it has nothing of the kind."""

    aggregates: dict[str, float] = field(default_factory=dict)
    """By name (`gguf_eval.tasks.aggregates`), over the scored items; no interval."""
    without_figure: dict[str, str] = field(default_factory=dict)
    """Why an aggregate that the task names is not among them, by its name."""
    subjects: dict[str, Estimate] = field(default_factory=dict)
    """The headline metric on the items of each subject."""
    groups: dict[str, Estimate] = field(default_factory=dict)
    """The same for each named group of subjects, every item counting once, as lm-evaluation-harness weighs MMLU's."""


def whole_task(task: TaskRecord, outcomes: Mapping[str, Outcome], only: Collection[str] | None = None) -> WholeTask:
    """Compute every figure that the task names; over the items of ``only``, where given."""
    if not outcomes:
        return WholeTask()
    of_subject: dict[str, list[tuple[str, float | None]]] = {}
    if task.groups or task.has_subjects:
        of_subject = grouped(
            (item.subject, (key, value))
            for key, value in scores(outcomes).items()
            if (item := task.items.get(key)) and item.subject and (only is None or value is None or key in only)
        )
    subjects = {name: _mean(task, of_subject[name]) for name in sorted(of_subject)}
    groups = {
        group: _mean(task, [entry for name in members for entry in of_subject.get(name, ())])
        for group, members in task.groups.items()
    }
    figures, reasons = _aggregates(task, outcomes, only)
    return WholeTask(figures, reasons, *map(_known, (subjects, groups)))


def _known(figures: Mapping[str, Estimate | None]) -> dict[str, Estimate]:
    return {name: figure for name, figure in figures.items() if figure is not None}


def _aggregates(
    task: TaskRecord, outcomes: Mapping[str, Outcome], only: Collection[str] | None
) -> tuple[dict[str, float], dict[str, str]]:
    """Figures by name, and why there is none: one that can't be computed is no reason to show nothing else."""
    figures: dict[str, float] = {}
    reasons: dict[str, str] = {}
    if not task.aggregates:
        return figures, reasons
    values = scored(outcomes, only)
    whole = read_whole(outcomes)
    answered = [_answered(whole[key], item) for key, item in task.items.items() if key in values]
    for name in task.aggregates if answered else ():
        try:
            value = AGGREGATES[name](answered)
        except Exception as error:  # answers, references and the libraries that read them are others'
            reasons[name] = f"{type(error).__name__}: {error}"
            continue
        if math.isfinite(value):
            figures[name] = value
        else:
            reasons[name] = "it is not a finite number"
    return figures, reasons


def _answered(outcome: Outcome, item: ItemRecord) -> Answered:
    return Answered(
        text=outcome.text,
        extracted=outcome.extracted,
        references=item.references,
        pick=outcome.answer if outcome.text is None else None,
        gold=item.gold,
        logprobs=outcome.logprobs,
    )


def _mean(task: TaskRecord, values: Sequence[tuple[str, float | None]]) -> Estimate | None:
    known = {key: value for key, value in values if value is not None}
    return macro_average([cluster_counts(known, task.clusters)], unscored=len(values) - len(known))
