"""Sums a study up: every figure a report shows is computed here, from stored outcomes and raw times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gguf_eval.analysis.averages import Average, averages, metric_estimates, pairs_on
from gguf_eval.analysis.comparison import MARGIN, Comparison, Pairs, add_pairs, compare
from gguf_eval.analysis.costs import Placing, context_warnings, noise_warnings, placing
from gguf_eval.analysis.divergence import TextSummary, summarise_text
from gguf_eval.analysis.environments import environment_warnings
from gguf_eval.analysis.sanity import ScoreWarning, find_warnings
from gguf_eval.analysis.statistics import Estimate, mean_and_deviation
from gguf_eval.analysis.task_divergence import TaskDivergence, task_divergence
from gguf_eval.analysis.whole_task import WholeTask, whole_task
from gguf_eval.study.outcomes import scores, truncated, unscored_reasons
from gguf_eval.study.records import (
    Outcome,
    PointRecord,
    SpeedRecord,
    Status,
    StudyRecord,
    StudySource,
    TaskRecord,
)


@dataclass(frozen=True)
class TaskSummary:
    """One point on one task."""

    name: str
    metric: str
    estimate: Estimate | None
    """The headline metric; None when no item could be scored."""
    unscored: int
    metrics: dict[str, Estimate]
    """Every metric by name, the headline too."""
    chance: float
    """What guessing gets on these items."""
    truncated: int
    """Items whose prompt was cut to fit the context."""
    comparison: Comparison | None
    group: str = ""
    title: str = ""
    unscored_reasons: dict[str, int] = field(default_factory=dict)
    """How many items have each reason."""
    whole: WholeTask = field(default_factory=WholeTask)
    divergence: TaskDivergence | None = None
    """From the reference, on the tokens of right answers."""


@dataclass(frozen=True)
class SpeedSummary:
    """Mean and sample deviation of the repetitions' rates."""

    tokens_per_second: float
    stdev: float | None
    repetitions: int


@dataclass(frozen=True)
class PointSummary:
    """One row of the report."""

    id: int
    name: str
    model: str
    level: str
    sha256: str | None
    parameters: int
    size_bytes: int
    bits_per_weight: float
    status: Status
    error: str | None
    log_path: str | None
    origin: dict[str, Any]
    is_reference: bool
    peak_rss_bytes: int | None
    speed: dict[str, SpeedSummary]
    tasks: dict[str, TaskSummary]
    overall: Comparison | None
    """Against the reference over the items of all tasks together."""
    label: str = ""
    """What tells points of one model apart: the level, and the KV cache's type where it is not F16."""
    averages: dict[str, Average] = field(default_factory=dict)
    """Macro-averages: over ``all`` tasks, and over each group of tasks."""
    harness: dict[str, dict[str, float]] = field(default_factory=dict)
    """lm-evaluation-harness's own figures: by task, then by metric."""
    texts: tuple[TextSummary, ...] = ()
    """Perplexity, and divergence from the reference, on each text."""
    commands: tuple[str, ...] = ()
    """What was run to measure the point, the first command first."""
    memory_methods: dict[str, str] = field(default_factory=dict)
    """How each kind of memory was read off."""
    placing: Placing | None = None
    """Where its layers were while speed and memory were measured."""
    study: str = ""
    """The study it comes from, where several stand in one report."""


@dataclass(frozen=True)
class StudySummary:
    """What a report shows."""

    path: str
    created_at: str
    command: str
    environment: dict[str, Any]
    task_names: tuple[str, ...]
    points: tuple[PointSummary, ...]
    """Grouped by model, the reference first, then from most bits to fewest."""
    margin: float = MARGIN
    """Differences within this are called the same."""
    warnings: tuple[ScoreWarning, ...] = ()
    """Scores that must not be read as results without a second look."""
    cautions: tuple[str, ...] = ()
    """Why points should not be compared: measured on different machines or builds, a busy one, or asked otherwise."""
    sources: tuple[StudySource, ...] = ()
    """The studies in this report; empty where there is one."""


def summarise(study: StudyRecord, *, margin: float = MARGIN) -> StudySummary:
    """Compute every figure of the report; differences within ``margin`` are called the same."""
    points: list[PointSummary] = []
    for model in dict.fromkeys(point.model for point in study.points):
        members = [point for point in study.points if point.model == model]
        points.extend(_summarise_model(members, study.tasks, margin))
    references = {point.id for point in points if point.is_reference}
    return StudySummary(
        study.path,
        study.created_at,
        study.command,
        study.environment,
        tuple(t.name for t in study.tasks),
        tuple(points),
        margin,
        tuple(find_warnings(study.points, study.tasks, references)),
        (
            *environment_warnings(study.points),
            *context_warnings(study.points),
            *noise_warnings(study.points),
            *study.cautions,
        ),
        study.sources,
    )


def choose_reference(points: list[PointRecord]) -> PointRecord | None:
    """The point the others of the same model are compared with: the one of most bits that has answers."""
    answered = [point for point in points if any(point.outcomes.values())]
    return max(answered, key=lambda point: (point.bits_per_weight, point.way == point.level), default=None)


def _summarise_model(points: list[PointRecord], tasks: tuple[TaskRecord, ...], margin: float) -> list[PointSummary]:
    reference = choose_reference(points)
    others = [point for point in points if reference is not None and point.id != reference.id]
    by_task: dict[str, dict[int, Comparison]] = {}
    overall: dict[int, Comparison] = {}
    pairs: dict[str, dict[int, Pairs]] = {}
    if reference is not None:
        pairs = {task.hash: {p.id: pairs_on(p, reference, task) for p in others} for task in tasks}
        by_task = {hash_: compare(reference.label, counted, margin=margin) for hash_, counted in pairs.items()}
        totals = {point.id: add_pairs(counted[point.id] for counted in pairs.values()) for point in others}
        overall = compare(reference.label, totals, margin=margin)
    ordered = sorted(points, key=lambda p: (p is not reference, -p.bits_per_weight, -p.size_bytes))
    paired = {p.id: {hash_: counted[p.id] for hash_, counted in pairs.items()} for p in others}
    return [
        _summarise_point(p, reference, tasks, by_task, overall, averages(p, tasks, paired.get(p.id))) for p in ordered
    ]


def _summarise_point(
    point: PointRecord,
    reference: PointRecord | None,
    tasks: tuple[TaskRecord, ...],
    by_task: Mapping[str, Mapping[int, Comparison]],
    overall: Mapping[int, Comparison],
    means: dict[str, Average],
) -> PointSummary:
    summaries = {}
    for task in tasks:
        comparison = by_task.get(task.hash, {}).get(point.id)
        summary = _summarise_task(task, point.outcomes.get(task.hash, {}), comparison)
        if summary is not None and reference is not None and point is not reference:
            summary = replace(summary, divergence=task_divergence(point, reference, task))
        if summary is not None:
            summaries[task.name] = summary
    return PointSummary(
        id=point.id,
        name=point.name,
        model=point.model,
        level=point.level,
        sha256=point.sha256,
        parameters=point.parameters,
        size_bytes=point.size_bytes,
        bits_per_weight=point.bits_per_weight,
        status=point.status,
        error=point.error,
        log_path=point.log_path,
        harness=point.harness,
        origin=point.origin,
        is_reference=point is reference,
        peak_rss_bytes=point.memory.get("peak_rss"),
        speed={record.test: _summarise_speed(record) for record in point.speed},
        tasks=summaries,
        overall=overall.get(point.id),
        label=point.label,
        averages=means,
        texts=tuple(summarise_text(record) for record in point.texts),
        commands=point.commands,
        memory_methods=point.measurement.memory_methods if point.measurement else {},
        placing=placing(point),
        study=point.study,
    )


def _summarise_task(
    task: TaskRecord, outcomes: Mapping[str, Outcome], comparison: Comparison | None
) -> TaskSummary | None:
    values = scores(outcomes)
    unscored = sum(value is None for value in values.values())
    metrics = metric_estimates(task, outcomes)
    if not outcomes:
        return None
    chances = list(task.chances.values())
    if len(values) != len(chances):
        chances = [task.chances[key] for key in values if key in task.chances]
    return TaskSummary(
        name=task.name,
        metric=task.metric,
        estimate=metrics.get(task.metric),
        unscored=unscored,
        metrics=metrics,
        chance=sum(chances) / len(chances),
        truncated=truncated(outcomes),
        comparison=comparison,
        group=task.group,
        title=task.title,
        unscored_reasons=dict(unscored_reasons(outcomes)),
        whole=whole_task(task, outcomes),
    )


def _summarise_speed(record: SpeedRecord) -> SpeedSummary:
    rates = [record.tokens / seconds for seconds in record.seconds]
    mean, deviation = mean_and_deviation(rates)
    return SpeedSummary(mean, deviation, len(rates))
