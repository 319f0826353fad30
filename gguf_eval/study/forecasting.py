"""Adds up what a run would download, convert, make, ask, write and take."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from gguf_eval.files.cache import cache_dir
from gguf_eval.files.hub import RemoteFile
from gguf_eval.files.hub_cache import cache_folder
from gguf_eval.files.source import Unfetched
from gguf_eval.study.cost import CHARACTERS_PER_TOKEN
from gguf_eval.study.data import Data
from gguf_eval.study.events import PointPlan, StageKind
from gguf_eval.study.forecast import DiskNeed, Download, Forecast, NewFile, TaskCount
from gguf_eval.study.outline import rough_size
from gguf_eval.study.plan import PlannedPoint, RunRequest
from gguf_eval.study.stages.state import Asked, TaskItems

_OUTCOME_BYTES = 700
"""Of an answer in the study, about."""
_REFERENCE_BYTES = 2300
"""Of a token in a stored reference."""
_RIGHT_ANSWER_BYTES = 1300
"""Of a token of a right answer, of which a reference leaves less."""
_CONVERTED_BYTES_PER_SECOND = 1e8


def forecast(
    asked: Asked,
    points: Sequence[PlannedPoint],
    pending: Sequence[Unfetched],
    stages: Sequence[PointPlan],
    data: Data,
    sizes: Mapping[str, int],
    problems: Mapping[str, str],
) -> Forecast:
    """Everything but rates, remarks and planning_seconds.

    sizes: exact ones of files to be made; problems: why some can't be made; both by the point's name.
    """
    makings = _makings(points, sizes, problems)
    conversions = tuple(NewFile(s.reference, s.level, s.size_bytes, True) for s in pending if s.header is None)
    fetched = [*(file for source in pending for file in source.downloads), *data.missing]
    new = [*conversions, *(new for new in makings if not new.problem)]
    return Forecast(
        study=asked.request.study,
        downloads=_by_repository(fetched),
        conversions=conversions,
        makings=makings,
        tasks=_counts(stages, {task.task.name for task in asked.unread if not task.items}),
        points=tuple(stages),
        disk=_disk(asked.request, stages, asked.work, fetched, new),
        seconds=_by_kind(stages, conversions),
        left_out=tuple(data.left_out),
    )


def _makings(
    points: Sequence[PlannedPoint], sizes: Mapping[str, int], problems: Mapping[str, str]
) -> tuple[NewFile, ...]:
    """The files to make; points that share one (other KV caches) make it once."""
    made = {point.path: point for point in reversed(points) if point.made and not point.is_there}
    return tuple(
        NewFile(
            point.name,
            point.level,
            sizes.get(point.name) or rough_size(point.source.parameters, point.level),
            point.name in sizes,
            problems.get(point.name, ""),
        )
        for point in reversed(made.values())
    )


def _counts(points: Sequence[PointPlan], unknown: Collection[str]) -> tuple[TaskCount, ...]:
    stages = [stage for point in points for stage in point.stages if stage.answers]
    counts = []
    for name in dict.fromkeys(stage.name for stage in stages):
        alike = [stage for stage in stages if stage.name == name]
        known = name not in unknown
        left = sum(stage.left for stage in alike) if known else 0
        there = sum(stage.done for stage in alike)
        counts.append(TaskCount(name, alike[0].kind == "generate", alike[0].units if known else None, left, there))
    return tuple(counts)


def _seconds(points: Sequence[PointPlan], kinds: Sequence[StageKind]) -> float:
    """What is left of stages of these kinds, or of all."""
    return sum(s.seconds_left for point in points for s in point.stages if not kinds or s.kind in kinds)


def _by_kind(points: Sequence[PointPlan], conversions: Sequence[NewFile]) -> dict[str, float]:
    kinds: tuple[StageKind, ...] = ("make", "score", "again", "generate", "speed", "text")
    seconds = {"convert": sum(new.size_bytes for new in conversions) / _CONVERTED_BYTES_PER_SECOND}
    seconds |= {kind: _seconds(points, (kind,)) for kind in kinds}
    return {kind: value for kind, value in seconds.items() if value}


def _by_repository(files: Sequence[RemoteFile]) -> tuple[Download, ...]:
    grouped: dict[tuple[str, str], dict[str, int]] = {}
    for file in files:
        grouped.setdefault((file.repo, file.kind), {})[file.path] = file.size_bytes
    return tuple(Download(repo, kind, len(paths), sum(paths.values())) for (repo, kind), paths in grouped.items())


def _right_answer_bytes(points: Sequence[PointPlan], work: Sequence[TaskItems]) -> int:
    """What the references leave of the right answers that they will be asked; the first point of a model is one."""
    items = [item for task_items in work for item in task_items.items.values() if item.choices]
    tokens = sum(len(item.choices[item.gold]) for item in items) / CHARACTERS_PER_TOKEN
    asked = 0
    for model in dict.fromkeys(point.model for point in points):
        first, *others = [point for point in points if point.model == model]
        if others:
            asked += sum(stage.left for stage in first.stages if stage.kind in ("score", "again"))
    return int(asked * tokens / max(1, len(items)) * _RIGHT_ANSWER_BYTES)


def _disk(
    request: RunRequest,
    points: Sequence[PointPlan],
    work: Sequence[TaskItems],
    fetched: Sequence[RemoteFile],
    new: Sequence[NewFile],
) -> tuple[DiskNeed, ...]:
    """What each file system must hold beside what is there."""
    stages = [stage for point in points for stage in point.stages]
    answers = sum(point.answers_left for point in points)
    tokens = max((stage.left for stage in stages if stage.kind == "text"), default=0)
    kept = len({point.model for point in points}) * tokens * _REFERENCE_BYTES + _right_answer_bytes(points, work)
    cache = cache_dir(request.cache)
    wanted = (
        (cache_folder(), sum(file.size_bytes for file in fetched)),
        (cache, sum(file.size_bytes for file in new) + kept),
        (request.study.parent, answers * _OUTCOME_BYTES),
    )
    needs: dict[int, DiskNeed] = {}
    for folder, size_bytes in wanted:
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        device = there.stat().st_dev
        before = needs.get(device, DiskNeed(folder, 0, shutil.disk_usage(there).free))
        larger = before.folder if before.needed_bytes >= size_bytes else folder
        needs[device] = replace(before, folder=larger, needed_bytes=before.needed_bytes + size_bytes)
    return tuple(need for need in needs.values() if need.needed_bytes)
