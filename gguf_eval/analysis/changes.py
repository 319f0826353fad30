"""The same study at two dates: what changed beyond noise, point by point, on what both measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from gguf_eval.analysis.comparison import MARGIN, Comparison
from gguf_eval.analysis.costs import noise_of
from gguf_eval.analysis.environments import TITLES
from gguf_eval.analysis.intervals import macro_difference
from gguf_eval.analysis.item_changes import Counted, Counts, ItemsChange, Key, compare_all, items_change
from gguf_eval.analysis.models import grouped
from gguf_eval.analysis.ratios import Ratio, TextChange, Tolerances, memory_ratios, speed_ratios, text_changes
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.errors import StudyError
from gguf_eval.store.records import PointRecord, Status, StudyHead, StudyRecord, TaskRecord, settings_label_of


@dataclass(frozen=True)
class Unpaired:
    """A point or task that is in one of the studies only."""

    name: str
    where: str
    """old or new."""
    reason: str


@dataclass(frozen=True)
class Circumstance:
    """Something of the machine, the build, the packages or the settings that is not the same any more."""

    what: str
    old: str
    new: str
    points: tuple[str, ...]
    """The points it holds for; empty where it holds for all that are in both studies."""


PointPair = tuple[PointRecord, PointRecord]


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
class Changes:
    """What changed between two studies."""

    old: StudyHead
    new: StudyHead
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
        old=StudyHead(old.path, old.created_at, old.command),
        new=StudyHead(new.path, new.created_at, new.command),
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


def _findings(point: PointChange) -> Iterator[Finding]:
    if point.new_status == "failed" and point.old_status != "failed":
        yield Finding(point.name, "the point itself", "worse", error=point.new_error)
    elif point.old_status == "failed" and point.new_status == "complete":
        yield Finding(point.name, "the point itself", "better")
    for change in (point.overall, *point.tasks) if len(point.tasks) > 1 else point.tasks:
        if change.verdict in ("better", "worse"):
            yield Finding(point.name, change.name, change.verdict, comparison=change.comparison)
        if change.scoring is not None and change.scoring.verdict in ("better", "worse"):
            what = f"{change.name}: items that can be scored"
            yield Finding(point.name, what, change.scoring.verdict, comparison=change.scoring)
    for ratio in point.ratios:
        if ratio.verdict in ("better", "worse"):
            noisy = bool(point.noise) and ratio.unit == "tokens/s"
            yield Finding(point.name, ratio.what, ratio.verdict, ratio=ratio, noisy=noisy)


def pair_points(old: StudyRecord, new: StudyRecord) -> tuple[list[PointPair], list[Unpaired]]:
    """Points of the same model and label, then those of the same file and label whose model is called otherwise.

    Where a study has several of one name, because the file was made anew, its newest counts.
    """
    newest = [{_by_name(p): p for p in sorted(study.points, key=lambda p: p.id)}.values() for study in (old, new)]
    pairs: dict[int, PointPair] = {}
    for identity in (_by_name, _by_content):
        taken = {before.id for before, _ in pairs.values()}
        known = {identity(point): point for point in newest[0] if point.id not in taken}
        for point in newest[1]:
            if point.id not in pairs and (before := known.pop(identity(point), None)) is not None:
                pairs[point.id] = (before, point)
    unpaired = []
    taken = {before.id for before, _ in pairs.values()}
    for where, other, study, current, paired in (
        ("old", "new", old, newest[0], taken), ("new", "old", new, newest[1], pairs.keys()),
    ):  # fmt: skip
        ids = {point.id for point in current}
        for point in study.points:
            if point.id not in paired:
                reason = f"not in the {other} study" if point.id in ids else "an earlier file of this name"
                unpaired.append(Unpaired(point.name, where, reason))
    return [pairs[point.id] for point in new.points if point.id in pairs], unpaired


def _by_name(point: PointRecord) -> tuple[str, ...]:
    return (point.model, point.settings_label)


def _by_content(point: PointRecord) -> tuple[str, ...]:
    # what names add to a level is no matter where the content is the same
    return (point.sha256 or f"{point.model} unmade", settings_label_of(point.level, point.settings, {}))


def pair_tasks(old: StudyRecord, new: StudyRecord) -> tuple[list[TaskRecord], list[Unpaired]]:
    """Tasks of the same definition, with the items that either study planned; and the others."""
    before = {task.hash: task for task in old.tasks}
    after = {task.hash: task for task in new.tasks}
    both = [replace(task, items={**before[key].items, **task.items}) for key, task in after.items() if key in before]
    unpaired = []
    for where, own, others in (("old", old, after), ("new", new, before)):
        versions = {task.name: task.version for task in others.values()}
        for task in own.tasks:
            if task.hash in others:
                continue
            reason = f"not in the {'new' if where == 'old' else 'old'} study"
            if task.name in versions:
                reason = f"defined otherwise there (version {task.version} here, {versions[task.name]} there)"
            unpaired.append(Unpaired(task.name, where, f"{reason}; {len(task.items)} items"))
    return both, unpaired


def circumstances(pairs: Sequence[PointPair], old: StudyRecord, new: StudyRecord) -> list[Circumstance]:
    """Every known circumstance that differs, with the points it differs for; file hashes are left to the points."""
    known = [(after.name, _known(before, old), _known(after, new)) for before, after in pairs]
    found = grouped(
        ((key, *_what_differs(was, now)), name)
        for name, earlier, later in known
        for key in dict.fromkeys([*earlier, *later])
        if (was := earlier.get(key, "–")) != (now := later.get(key, "–"))
    )
    return [Circumstance(*key, () if len(names) == len(pairs) else tuple(names)) for key, names in found.items()]


def _known(point: PointRecord, study: StudyRecord) -> dict[str, str]:
    """What is stored of how a point was run, as text by name; of several runs, all that was the case."""
    conditions = point.measurement.conditions if point.measurement else {}
    found = grouped([
        *((TITLES.get((key[0], key[-1]), " ".join(key[1:])), value)
          for environment in point.environments or (study.environment,) for key, value in _flat(environment)),
        *((f"setting {' '.join(key)}", value) for key, value in _flat(point.settings)),
        *((f"speed test's {key[-1].replace('_', ' ')}", value)
          for key, value in _flat(conditions) if key[0] not in ("machine", "library")),  # these are known otherwise
    ])  # fmt: skip
    return {name: " and ".join(dict.fromkeys(values)) for name, values in found.items()}


def _flat(value: Any, key: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    if isinstance(value, Mapping):
        return [pair for name, part in value.items() for pair in _flat(part, (*key, str(name)))]
    return [(key, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))]


def _what_differs(old: str, new: str) -> tuple[str, str]:
    """Of lists that bars separate, as llama.cpp's flags are, only what the other lacks."""
    if "|" not in old + new:
        return old, new
    parts = [[part.strip() for part in text.split("|") if part.strip()] for text in (old, new)]
    left = [[part for part in own if part not in other] for own, other in (parts, parts[::-1])]
    return " | ".join(left[0]) or "–", " | ".join(left[1]) or "–"
