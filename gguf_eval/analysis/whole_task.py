"""Figures of a point on a task beside its mean over items: aggregates, subjects, groups of subjects."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from gguf_eval.analysis.intervals import cluster_counts, macro_average
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.store.outcomes import scored, scores
from gguf_eval.store.records import Outcome, TaskRecord
from gguf_eval.tasks.aggregates import AGGREGATES, Answered
from gguf_eval.tasks.prompts import ItemRecord


@dataclass(frozen=True)
class WholeTask:
    """What a task says beyond its headline; empty where it has nothing of the kind."""

    aggregates: dict[str, float] = field(default_factory=dict)
    """By name (`gguf_eval.tasks.aggregates`), over the scored items; no interval."""
    subjects: dict[str, Estimate] = field(default_factory=dict)
    """The headline metric on the items of each subject."""
    groups: dict[str, Estimate] = field(default_factory=dict)
    """The same for each named group of subjects, every item counting once, as lm-evaluation-harness weighs MMLU's."""


def whole_task(task: TaskRecord, outcomes: Mapping[str, Outcome], only: Collection[str] | None = None) -> WholeTask:
    """Compute every figure that the task names; over the items of ``only``, where given."""
    if not outcomes:
        return WholeTask()
    of_subject = _by_subject(task, outcomes, only) if task.groups or task.has_subjects else {}
    subjects = {name: found for name, values in of_subject.items() if (found := _mean(task, values))}
    groups = {}
    for group, members in task.groups.items():
        found = _mean(task, {key: value for name in members for key, value in of_subject.get(name, {}).items()})
        if found is not None:
            groups[group] = found
    return WholeTask(_aggregates(task, outcomes, only), subjects, groups)


def _aggregates(task: TaskRecord, outcomes: Mapping[str, Outcome], only: Collection[str] | None) -> dict[str, float]:
    if not task.aggregates:
        return {}
    values = scored(outcomes, only)
    answered = [_answered(outcomes[key], item) for key, item in task.items.items() if key in values]
    return {name: AGGREGATES[name](answered) for name in task.aggregates} if answered else {}


def _answered(outcome: Outcome, item: ItemRecord) -> Answered:
    return Answered(
        text=outcome.text,
        extracted=outcome.extracted,
        references=item.references,
        pick=outcome.answer if outcome.text is None else None,
        gold=item.gold,
        logprobs=outcome.logprobs,
    )


def _by_subject(
    task: TaskRecord, outcomes: Mapping[str, Outcome], only: Collection[str] | None
) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for key, value in scores(outcomes).items():
        item = task.items.get(key)
        if item is not None and item.subject and (only is None or value is None or key in only):
            found.setdefault(item.subject, {})[key] = value
    return dict(sorted(found.items()))


def _mean(task: TaskRecord, values: Mapping[str, float | None]) -> Estimate | None:
    scored = {key: value for key, value in values.items() if value is not None}
    return macro_average([cluster_counts(scored, task.clusters)], unscored=len(values) - len(scored))
