"""What a run would do: downloads, conversions, files to make, answers, disk, time; the record and how it adds up."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gguf_eval.errors import UsageError
from gguf_eval.files.cache import cache_dir
from gguf_eval.files.hub import RemoteFile
from gguf_eval.files.hub_cache import cache_folder
from gguf_eval.files.source import Unfetched
from gguf_eval.sizes import short_of_room
from gguf_eval.study.cost import CHARACTERS_PER_TOKEN, Basis, Rates
from gguf_eval.study.data import Data, LeftOut
from gguf_eval.study.events import PointPlan, StageKind
from gguf_eval.study.outline import rough_size
from gguf_eval.study.points import PlannedPoint, RunRequest
from gguf_eval.study.stages.state import Asked, TaskItems

HEAVY_SECONDS, HEAVY_BYTES = 600.0, 5e9
"""A run that takes more time or disk than this is worth asking about, and so is any download."""
_SPARE_BYTES = 64 << 20
"""Disk left free beside everything."""

_OUTCOME_BYTES = 700
"""Of an answer in the study, about."""
_REFERENCE_BYTES = 2300
"""Of a token in a stored reference."""
_RIGHT_ANSWER_BYTES = 1300
"""Of a token of a right answer, of which a reference leaves less."""
_CONVERTED_BYTES_PER_SECOND = 1e8


@dataclass(frozen=True)
class Download:
    """Files of one repository on the hub that are not here yet."""

    repo: str
    kind: str
    """``model`` or ``dataset``."""
    files: int
    size_bytes: int


@dataclass(frozen=True)
class NewFile:
    """A model file that will be written."""

    name: str
    """Of the point, or of the checkpoint that is converted."""
    level: str
    size_bytes: int
    exact: bool
    """Whether the size is exact and not taken from the level's usual bits."""
    problem: str = ""
    """Why it can't be made, where that is known."""


@dataclass(frozen=True)
class TaskCount:
    """A task's answers, over all points."""

    name: str
    written: bool
    """Whether answers are written; scored otherwise."""
    items: int | None
    """None where it is not known before they are downloaded."""
    left: int
    there: int


@dataclass(frozen=True)
class DiskNeed:
    """What is written on one file system."""

    folder: Path
    needed_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Forecast:
    """What a run would do."""

    study: Path
    downloads: tuple[Download, ...]
    conversions: tuple[NewFile, ...]
    makings: tuple[NewFile, ...]
    tasks: tuple[TaskCount, ...]
    points: tuple[PointPlan, ...]
    disk: tuple[DiskNeed, ...]
    seconds: Mapping[str, float]
    """By what is done: convert, make, score, again, generate, speed, text. Downloads are not in it."""
    rates: tuple[Rates, ...] = ()
    """What the seconds rest on; empty for a guess."""
    planning_seconds: float = 0.0
    remarks: tuple[str, ...] = ()
    """Where models were told apart, or put together, otherwise than the user may expect."""
    left_out: tuple[LeftOut, ...] = ()
    """Tasks and texts of a suite that can't be had."""

    @property
    def basis(self) -> Basis:
        """What the seconds rest on, in a word."""
        return self.rates[0].basis if self.rates else "guessed"

    @property
    def total_seconds(self) -> float:
        """Of everything but downloads."""
        return sum(self.seconds.values())

    @property
    def heavy(self) -> bool:
        """Whether it is worth asking before."""
        needed = sum(need.needed_bytes for need in self.disk)
        return bool(self.downloads) or needed > HEAVY_BYTES or self.total_seconds > HEAVY_SECONDS

    @property
    def answers_there(self) -> int:
        """Those the study holds."""
        return sum(task.there for task in self.tasks)

    @property
    def answers_left(self) -> int:
        """Those the run would get."""
        return sum(task.left for task in self.tasks)

    @property
    def bytes_made(self) -> int:
        """Of all files that will be made."""
        return sum(new.size_bytes for new in self.makings if not new.problem)

    @property
    def bytes_fetched(self) -> int:
        """Of all downloads."""
        return sum(download.size_bytes for download in self.downloads)

    @property
    def right_answers(self) -> int:
        """Those that are asked again for their divergence."""
        return sum(stage.left for point in self.points for stage in point.stages if stage.kind == "again")

    def waiting(self, kind: StageKind) -> int:
        """How many points have a stage of this kind to do."""
        return sum(any(stage.kind == kind and stage.left for stage in point.stages) for point in self.points)


def check_disk(found: Forecast) -> None:
    """Raise `UsageError` where there is not enough room for what a run would write."""
    for need in found.disk:
        if need.needed_bytes and (short := short_of_room(need.needed_bytes, _SPARE_BYTES, need.free_bytes)):
            raise UsageError(
                f"{need.folder}: {short}; free some, choose fewer levels, or another folder with --cache-dir"
            )


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
