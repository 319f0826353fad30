"""What a run tells its observer, as records: the plan first, then what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

StageKind = Literal["make", "score", "again", "generate", "speed", "text"]
"""A stage is one thing that is done for a point: its file made, one task scored or written, right answers of all tasks
asked again for their divergence, its speed, a text."""
RIGHT_ANSWERS = "right answers"
"""Name of the stage in which they are asked again."""


@dataclass(frozen=True)
class Tally:
    """Answers counted: what a running score is made of."""

    scored: int = 0
    value: float = 0.0
    """The headline metric, summed over the scored answers."""
    unscored: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.scored + other.scored, self.value + other.value, self.unscored + other.unscored)


def counted(values: Iterable[float | None]) -> Tally:
    """The tally of answers with these values of the headline metric; None stands for an unscored one."""
    tally = Tally()
    for value in values:
        tally += Tally(unscored=1) if value is None else Tally(scored=1, value=value)
    return tally


@dataclass(frozen=True)
class StagePlan:
    """A stage as it stands when a run begins."""

    kind: StageKind
    name: str
    """Of the task or text; empty for the kinds that a point has once."""
    units: int
    """Items, right answers, timed repetitions or tokens of a text in all; one file to make."""
    done: int
    """Of these, what the study holds already."""
    tally: Tally
    """Of the answers there are."""
    seconds: float
    """What all of it is predicted to take."""
    metric: str = ""
    """What its answers are scored by; empty where it has none."""

    @property
    def left(self) -> int:
        """Units that are to be done."""
        return max(0, self.units - self.done)

    @property
    def seconds_left(self) -> float:
        """What the rest is predicted to take."""
        return self.seconds * self.left / self.units if self.units else self.seconds

    @property
    def answers(self) -> bool:
        """Whether its units are answers to items."""
        return self.kind in ("score", "generate")


@dataclass(frozen=True)
class PointPlan:
    """A point and its stages, in the order they are done."""

    name: str
    model: str
    label: str
    stages: tuple[StagePlan, ...]

    @property
    def answers_left(self) -> int:
        """Answers that are to be got."""
        return sum(stage.left for stage in self.stages if stage.answers)

    @property
    def seconds_left(self) -> float:
        """What is left of it is predicted to take."""
        return sum(stage.seconds_left for stage in self.stages)


@dataclass(frozen=True)
class Planned:
    """The run knows what it has to do."""

    points: tuple[PointPlan, ...]
    rough: bool
    """Whether the predicted seconds are only good for comparing stages with each other."""


@dataclass(frozen=True)
class StageBegan:
    """A point begins a stage; ``units`` are left to do in it, 0 where that is not known."""

    point: str
    kind: StageKind
    name: str
    units: int


@dataclass(frozen=True)
class Advanced:
    """Some units of a stage are done."""

    point: str
    kind: StageKind
    name: str
    units: int
    tally: Tally = Tally()


@dataclass(frozen=True)
class StageEnded:
    """A stage has ended well; one that fails is never said to have ended."""

    point: str
    kind: StageKind
    name: str


@dataclass(frozen=True)
class MemoryTaken:
    """What a point's worker takes just now; told from another thread than everything else."""

    point: str
    resident_bytes: int


@dataclass(frozen=True)
class PointFailed:
    """A point can't be finished; the others go on."""

    point: str
    reason: str


Event = Planned | StageBegan | Advanced | StageEnded | MemoryTaken | PointFailed


class Observer(Protocol):
    """Is told how the run goes."""

    def tell(self, event: Event) -> None:
        """Something has become of the plan."""
        ...

    def note(self, text: str) -> None:
        """Something the user should read."""
        ...


@contextmanager
def stage(
    observer: Observer, point: str, kind: StageKind, name: str = "", units: int = 0
) -> Iterator[Callable[[int], None]]:
    """Tell of a stage of ``units`` units; the value of the context is called with the units done since."""
    observer.tell(StageBegan(point, kind, name, units))
    yield lambda done: observer.tell(Advanced(point, kind, name, done))
    observer.tell(StageEnded(point, kind, name))
