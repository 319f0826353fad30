"""Sums a study up: every figure a report shows is computed here, from stored outcomes and raw times."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from gguf_eval.analysis.baselines import floored_tasks, majority
from gguf_eval.analysis.basis import Average, Bases, Basis, Lack, averages, find_bases, joint_score, metric_estimates
from gguf_eval.analysis.comparison import MARGIN, Comparison, Pairs, add_pairs, compare, pairs_on
from gguf_eval.analysis.costs import Placing, context_warnings, noise_warnings, placing
from gguf_eval.analysis.divergence import TextSummary, summarise_text
from gguf_eval.analysis.environments import environment_warnings, library_warnings
from gguf_eval.analysis.evidence import Evidence, LogScores, find_evidence
from gguf_eval.analysis.models import by_model
from gguf_eval.analysis.sanity import ScoreWarning, find_warnings
from gguf_eval.analysis.statistics import Estimate, mean_and_deviation
from gguf_eval.analysis.task_divergence import TaskDivergence, task_divergence
from gguf_eval.analysis.whole_task import WholeTask, whole_task
from gguf_eval.store.outcomes import cut_off, scores, truncated, unscored_reasons
from gguf_eval.store.records import (
    Point,
    PointRecord,
    SpeedRecord,
    StudyHead,
    StudyRecord,
    StudySource,
    TaskRecord,
    reference_rank,
)


@dataclass(frozen=True)
class TaskSummary:
    """One point on one task."""

    name: str
    metric: str
    estimate: Estimate | None
    """The headline metric, over the items that every point holding the task has a score of; None where no item could be
    scored, or where the point lacks items."""
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
    cut_off: int = 0
    """Written answers that a limit of tokens ended, unfinished thoughts among them."""
    lack: Lack | None = None
    """What of the task's items it has, where others of its model have more: no mean of it can stand beside theirs."""
    majority: float | None = None
    """What the best single answer to all items of the task gets, where they have the same choices."""
    asked: int = 0


@dataclass(frozen=True)
class Energy:
    """Mean and sample deviation of the repetitions' joules for each token, all counters together."""

    joules_per_token: float
    stdev: float | None
    repetitions: int
    """Those that every counter has seen."""
    sources: tuple[str, ...]
    """Names of the counters (`gguf_eval.runtime.energy`)."""


@dataclass(frozen=True)
class SpeedSummary:
    """Mean and sample deviation of the repetitions' rates."""

    tokens_per_second: float
    stdev: float | None
    repetitions: int
    energy: Energy | None = None


@dataclass(frozen=True, kw_only=True)
class PointSummary(Point):
    """One row of the report."""

    is_reference: bool
    peak_rss_bytes: int | None
    speed: dict[str, SpeedSummary]
    tasks: dict[str, TaskSummary]
    overall: Comparison | None
    """Against the reference over the items of all tasks together."""
    averages: dict[str, Average] = field(default_factory=dict)
    """Macro-averages: over ``all`` tasks that the model's points share, and over each group of them."""
    joint_score: Estimate | None = None
    """The mean over the tasks that all models share: what points of different models are compared by."""
    lacking: dict[str, Lack] = field(default_factory=dict)
    """What it lacks, by task; it has no mean over these, and no average that they are in."""
    evidence: Evidence | None = None
    """What is finer than scores; None for the reference, and where it is not compared."""
    texts: tuple[TextSummary, ...] = ()
    """Perplexity, and divergence from the reference, on each text."""
    memory_methods: dict[str, str] = field(default_factory=dict)
    """How each kind of memory was read off."""
    placing: Placing | None = None
    """Where its layers were while speed and memory were measured."""


@dataclass(frozen=True)
class StudySummary(StudyHead):
    """What a report shows."""

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
    score_tasks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By model, the tasks that its points' scores and differences are over."""
    joint_tasks: tuple[str, ...] = ()
    """Those that points of different models are compared over."""
    floored: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By model, the tasks in which no point scores more than the margin: nothing can be lost there, and differences
    over all tasks leave them out."""


def summarise(study: StudyRecord, *, margin: float = MARGIN) -> StudySummary:
    """Compute every figure of the report; differences within ``margin`` are called the same."""
    bases = find_bases(study.points, study.tasks)
    names = {task.hash: task.name for task in study.tasks}
    points: list[PointSummary] = []
    floored: dict[str, tuple[str, ...]] = {}
    for model, members in by_model(study.points).items():
        low = floored_tasks(members, study.tasks, margin)
        floored |= {model: tuple(names[hash_] for hash_ in low)} if low else {}
        points.extend(_summarise_model(members, study.tasks, bases, low, margin))
    references = {point.id for point in points if point.is_reference}
    return StudySummary(
        study.path,
        study.created_at,
        study.command,
        study.environment,
        tuple(names.values()),
        tuple(points),
        margin,
        tuple(find_warnings(study.points, study.tasks, references)),
        (
            *library_warnings(study.points),
            *environment_warnings(study.points),
            *context_warnings(study.points),
            *noise_warnings(study.points),
            *study.cautions,
        ),
        study.sources,
        {model: tuple(names[hash_] for hash_ in basis.tasks) for model, basis in bases.models.items()},
        tuple(names[hash_] for hash_ in bases.joint),
        floored,
    )


def choose_reference(points: list[PointRecord]) -> PointRecord | None:
    """The point the others of the same model are compared with: of highest `reference_rank`, of those with answers."""
    answered = [point for point in points if point.is_answered]
    return max(answered, key=lambda p: reference_rank(p.bits_per_weight, p.settings_label, p.level), default=None)


def _summarise_model(
    points: list[PointRecord], tasks: tuple[TaskRecord, ...], bases: Bases, floored: tuple[str, ...], margin: float
) -> list[PointSummary]:
    reference = choose_reference(points)
    basis = bases.models[points[0].model]
    pairs: dict[str, dict[int, Pairs]] = {}
    by_task: dict[str, dict[int, Comparison]] = {}
    overall: dict[int, Comparison] = {}
    if reference is not None:
        others = [point for point in points if point is not reference]
        pairs = {task.hash: {p.id: pairs_on(p, reference, task) for p in others} for task in tasks}
        for hash_, counted in pairs.items():
            held = {id_: pair for id_, pair in counted.items() if hash_ not in basis.lacks(id_)}
            by_task[hash_] = compare(reference.label, held, margin=margin)
        telling = [hash_ for hash_ in basis.tasks if hash_ not in floored] or basis.tasks
        whole = [point.id for point in others if basis.lacks(point.id).keys().isdisjoint(basis.tasks)]
        totals = {id_: add_pairs(pairs[hash_][id_] for hash_ in telling) for id_ in whole}
        overall = compare(reference.label, totals, margin=margin)
    log_scores = LogScores([task for task in tasks if task.hash in basis.tasks])
    made = []
    for point in sorted(points, key=lambda p: (p is not reference, -p.bits_per_weight, -p.size_bytes)):
        base = None if point is reference else reference
        summaries = {
            task.name: _summarise_task(task, point, base, basis, by_task.get(task.hash, {}).get(point.id))
            for task in tasks
            if point.answers_to(task)
        }
        compared = overall.get(point.id)
        texts = tuple(map(summarise_text, point.texts))
        evidence = None
        if base is not None and compared is not None:
            on_answers = [task.divergence.mean for task in summaries.values() if task.divergence]
            asked = log_scores if compared.verdict == "undecided" else None
            evidence = find_evidence(point, base, on_answers, texts, asked)
        made.append(PointSummary(
            **{entry.name: getattr(point, entry.name) for entry in fields(Point)},
            is_reference=point is reference,
            peak_rss_bytes=point.memory.get("peak_rss"),
            speed={record.test: _summarise_speed(record) for record in point.speed},
            tasks=summaries,
            overall=compared,
            averages=averages(point, tasks, basis, None if base is None else pairs),
            joint_score=joint_score(point, tasks, bases),
            lacking={task.name: lack for task in tasks if (lack := basis.lacks(point.id).get(task.hash))},
            evidence=evidence,
            texts=texts,
            memory_methods=point.memory_methods,
            placing=placing(point),
        ))  # fmt: skip
    return made


def _summarise_task(
    task: TaskRecord, point: PointRecord, reference: PointRecord | None, basis: Basis, comparison: Comparison | None
) -> TaskSummary:
    """What a point did on a task that it has answers to; reference: the one it is compared with."""
    outcomes, common, lack = point.answers_to(task), basis.common(task.hash), basis.lacks(point.id).get(task.hash)
    metrics = metric_estimates(task, outcomes, common) if lack is None else {}
    values = scores(outcomes)
    chances = [chance for key, chance in task.chances.items() if key in values]
    baseline = majority(task)
    return TaskSummary(
        name=task.name,
        metric=task.metric,
        estimate=metrics.get(task.metric),
        unscored=sum(value is None for value in values.values()),
        metrics=metrics,
        chance=sum(chances) / len(chances),
        truncated=truncated(outcomes),
        comparison=comparison,
        group=task.group,
        title=task.title,
        unscored_reasons=dict(unscored_reasons(outcomes)),
        whole=whole_task(task, outcomes, common) if lack is None else WholeTask(),
        divergence=task_divergence(point, reference, task) if lack is None and reference is not None else None,
        cut_off=cut_off(outcomes),
        lack=lack,
        majority=baseline.share if baseline else None,
        asked=len(outcomes),
    )


def _summarise_speed(record: SpeedRecord) -> SpeedSummary:
    return SpeedSummary(*mean_and_deviation(record.rates), len(record.seconds), _summarise_energy(record))


def _summarise_energy(record: SpeedRecord) -> Energy | None:
    sources = tuple(dict.fromkeys(source for repetition in record.joules for source in repetition))
    spent = [sum(seen.values()) / record.tokens for seen in record.joules if sources and len(seen) == len(sources)]
    return Energy(*mean_and_deviation(spent), len(spent), sources) if spent else None
