"""What a run would do, as a record: downloads, conversions, files to make, answers, disk and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gguf_eval.errors import UsageError
from gguf_eval.study.cost import Basis, Rates
from gguf_eval.study.data import LeftOut
from gguf_eval.study.events import PointPlan, StageKind

HEAVY_SECONDS, HEAVY_BYTES = 600.0, 5e9
"""A run that takes more time or disk than this is worth asking about, and so is any download."""
_SPARE_BYTES = 64 << 20
"""Disk left free beside everything."""


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
        if need.needed_bytes and need.free_bytes < need.needed_bytes + _SPARE_BYTES:
            raise UsageError(
                f"{need.folder}: {need.needed_bytes / 1e9:.2f} GB of disk are needed, {need.free_bytes / 1e9:.2f} GB "
                "are free; free some, choose fewer levels, or another folder with --cache-dir"
            )
