"""The same study at two dates: what changed beyond noise, point by point, on what both measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gguf_eval.analysis.comparison import MARGIN, Comparison
from gguf_eval.analysis.costs import noise_of
from gguf_eval.analysis.date_pairs import Circumstance, PointPair, Unpaired, circumstances, pair_points, pair_tasks
from gguf_eval.analysis.intervals import macro_difference
from gguf_eval.analysis.item_changes import Counted, Counts, ItemsChange, Key, compare_all, items_change
from gguf_eval.analysis.ratios import Ratio, TextChange, Tolerances, memory_ratios, speed_ratios, text_changes
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.errors import StudyError
from gguf_eval.store.records import PointRecord, Status, StudyRecord, TaskRecord


@dataclass(frozen=True)
class PointChange:
    """One point at two dates."""

    name: str
    model: str
    label: str
    old_name: str
    old_status: Status
    new_status: Status
    new_error: str | None
    old_sha256: str | None
    new_sha256: str | None
    old_size_bytes: int
    new_size_bytes: int
    tasks: tuple[ItemsChange, ...]
    overall: ItemsChange
    macro: Estimate | None
    """Mean of the tasks' differences: every task counts once."""
    speed: tuple[Ratio, ...]
    memory: tuple[Ratio, ...]
    texts: tuple[TextChange, ...]
    missing: tuple[Unpaired, ...]
    """Tasks, speed tests and texts that one of the two has no result of."""
    noise: tuple[str, ...]
    """What says that a machine was not quiet while it was timed."""

    @property
    def ratios(self) -> tuple[Ratio, ...]:
        """Every figure that is a ratio."""
        texts = [ratio for text in self.texts for ratio in (text.perplexity, text.divergence) if ratio is not None]
        return (*self.speed, *self.memory, *texts)


@dataclass(frozen=True)
class Finding:
    """One thing that is better or worse beyond noise."""

    point: str
    what: str
    verdict: Literal["better", "worse"]
    comparison: Comparison | None = None
    """Of scores; of the items that can be scored where ``what`` says so."""
    ratio: Ratio | None = None
    error: str | None = None
    """Why a point failed that did not before; None where it is the other way round."""
    noisy: bool = False
    """Of speeds: whether a machine was not quiet while they were timed."""


@dataclass(frozen=True)
class Source:
    """One of the two studies."""

    path: str
    created_at: str
    command: str


@dataclass(frozen=True)
class Changes:
    """What changed between two studies."""

    old: Source
    new: Source
    margin: float
    tolerances: Tolerances
    tests: int
    """Comparisons of items that Holm's correction is over: of all points, tasks and kinds together."""
    circumstances: tuple[Circumstance, ...]
    points: tuple[PointChange, ...]
    unpaired_points: tuple[Unpaired, ...]
    unpaired_tasks: tuple[Unpaired, ...]
    findings: tuple[Finding, ...]
    """What is better or worse beyond noise."""

    @property
    def worse(self) -> tuple[Finding, ...]:
        """The findings that a check has to stop at."""
        return tuple(finding for finding in self.findings if finding.verdict == "worse")


def find_changes(
    old: StudyRecord, new: StudyRecord, *, margin: float = MARGIN, tolerances: Tolerances | None = None
) -> Changes:
    """Compare the points that both studies have, on what both measured.

    Raises `StudyError` where no point is in both.
    """
    allowed = tolerances or Tolerances()
    pairs, unpaired = pair_points(old, new)
    if not pairs:
        names = [", ".join(point.name for point in study.points) or "none" for study in (old, new)]
        raise StudyError(
            f"no point is in both studies ({old.path} has {names[0]}; {new.path} has {names[1]}): "
            "points are the same where model and level are, or file and settings; measure the same ones at both dates"
        )
    tasks, other_tasks = pair_tasks(old, new)
    counted = {
        (i, task.hash): Counted(*pair, task)
        for i, pair in enumerate(pairs)
        for task in tasks
        if pair[0].outcomes.get(task.hash) and pair[1].outcomes.get(task.hash)
    }
    compared = compare_all(counted, len(pairs), margin)
    points = tuple(_point_change(pair, i, tasks, counted, compared, allowed) for i, pair in enumerate(pairs))
    return Changes(
        old=Source(old.path, old.created_at, old.command),
        new=Source(new.path, new.created_at, new.command),
        margin=margin,
        tolerances=allowed,
        tests=len(compared),
        circumstances=tuple(circumstances(pairs, old, new)),
        points=points,
        unpaired_points=tuple(unpaired),
        unpaired_tasks=tuple(other_tasks),
        findings=tuple(finding for point in points for finding in _findings(point)),
    )


def _point_change(
    pair: PointPair,
    place: int,
    tasks: Sequence[TaskRecord],
    counted: Mapping[tuple[int, str], Counted],
    compared: Mapping[Key, Comparison],
    tolerances: Tolerances,
) -> PointChange:
    old, new = pair
    mine = [(task, counted[place, task.hash]) for task in tasks if (place, task.hash) in counted]
    changes = tuple(items_change(task.name, found.counts, place, task.hash, compared) for task, found in mine)
    counts = sum((found.counts for _, found in mine), Counts())
    whole = mine[0][0].hash if len(mine) == 1 else ""
    return PointChange(
        name=new.name,
        model=new.model,
        label=new.settings_label,
        old_name=old.name,
        old_status=old.status,
        new_status=new.status,
        new_error=new.error,
        old_sha256=old.sha256,
        new_sha256=new.sha256,
        old_size_bytes=old.size_bytes,
        new_size_bytes=new.size_bytes,
        tasks=changes,
        overall=items_change("all items", counts, place, whole, compared),
        macro=macro_difference([found.pairs.cluster_counts for _, found in mine]),
        speed=speed_ratios(old, new, tolerances.speed),
        memory=memory_ratios(old, new, tolerances.memory),
        texts=text_changes(old, new, tolerances),
        missing=tuple(_missing(old, new, tasks)),
        noise=tuple(
            f"in the {when} study: {'; '.join(lines)}"
            for when, point in (("old", old), ("new", new))
            if (lines := noise_of(point))
        ),
    )


def _missing(old: PointRecord, new: PointRecord, tasks: Sequence[TaskRecord]) -> Iterator[Unpaired]:
    for task in tasks:
        answered = [len(point.answers_to(task)) for point in (old, new)]
        if bool(answered[0]) != bool(answered[1]):
            yield Unpaired(task.name, "old" if answered[0] else "new", f"{max(answered)} items")
    for what, names in (
        ("speed", [[record.test for record in point.speed] for point in (old, new)]),
        ("text", [[record.conditions["text"] for record in point.texts] for point in (old, new)]),
    ):
        for where, own, others in (("old", *names), ("new", *names[::-1])):
            yield from (Unpaired(name, where, what) for name in own if name not in others)


def _findings(point: PointChange) -> list[Finding]:
    found = []
    if point.new_status == "failed" and point.old_status != "failed":
        found.append(Finding(point.name, "the point itself", "worse", error=point.new_error))
    elif point.old_status == "failed" and point.new_status == "complete":
        found.append(Finding(point.name, "the point itself", "better"))
    for change in (point.overall, *point.tasks) if len(point.tasks) > 1 else point.tasks:
        if change.verdict in ("better", "worse"):
            found.append(Finding(point.name, change.name, change.verdict, comparison=change.comparison))
        if change.scoring is not None and change.scoring.verdict in ("better", "worse"):
            what = f"{change.name}: items that can be scored"
            found.append(Finding(point.name, what, change.scoring.verdict, comparison=change.scoring))
    for ratio in point.ratios:
        if ratio.verdict in ("better", "worse"):
            noisy = bool(point.noise) and ratio.unit == "tokens/s"
            found.append(Finding(point.name, ratio.what, ratio.verdict, ratio=ratio, noisy=noisy))
    return found
