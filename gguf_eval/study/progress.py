"""What is known of a run while it works: made from its events, with scores, rates and the time that is left.

Time left is what the plan predicts for the rest, corrected by what its stages have taken so far: those of the same kind
count first, the running one most.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from gguf_eval.analysis.statistics import Estimate, wilson
from gguf_eval.study.events import (
    Advanced,
    Event,
    MemoryTaken,
    Planned,
    PointFailed,
    PointPlan,
    StageBegan,
    StageEnded,
    StageKind,
    StagePlan,
    Tally,
)

State = Literal["waiting", "working", "done", "failed"]
_PRIOR_SECONDS = 3.0
"""Of predicted time: so much weight the prediction has beside what is seen."""
_FIRST_SECONDS = 2.0
"""Seen before a rough prediction says anything."""


@dataclass(frozen=True)
class StageView:
    """A stage as it stands."""

    kind: StageKind
    name: str
    done: int
    """Units, those of earlier runs included."""
    units: int
    """0 where it is not known."""
    done_now: int
    """Units of this run."""
    seconds: float
    """That this run has spent on it."""
    accuracy: Estimate | None
    """Mean of the task's headline metric so far, which ``metric`` names."""
    unscored: int
    metric: str = ""


@dataclass(frozen=True)
class PointView:
    """A point as it stands."""

    name: str
    model: str
    label: str
    state: State
    stage: StageView | None
    """The one it is at."""
    fraction: float | None
    """Of its predicted time, what earlier runs did included."""
    answers_per_second: float | None
    """Of this run."""
    accuracy: Estimate | None
    """Mean of the headline metrics over all answers so far, every item counting once."""
    memory_bytes: int | None
    """The most its worker was seen to take."""
    reason: str
    """Why it failed."""


@dataclass(frozen=True)
class RunView:
    """A run as it stands."""

    points: tuple[PointView, ...]
    answers: int
    """Those of earlier runs included."""
    answers_in_all: int
    fraction: float | None
    """Of the predicted time of all points that have not failed."""
    seconds: float
    """Since it began."""
    seconds_left: float | None
    """None where nothing can be said yet."""


@dataclass
class _Stage:
    plan: StagePlan
    done: int = 0
    tally: Tally = field(default_factory=Tally)
    began: float | None = None
    first: tuple[float, int] | None = None
    """When the first units came, and how many."""
    last: float = 0.0
    ended: float | None = None
    failed: bool = False
    """Whether it was broken off, so that its time says nothing."""

    def seconds(self, now: float) -> float:
        return 0.0 if self.began is None else (now if self.ended is None else self.ended) - self.began

    @property
    def missing(self) -> int:
        return self.plan.units - self.plan.done

    @property
    def complete(self) -> bool:
        return self.ended is not None or (self.began is None and self.plan.units > 0 and self.missing <= 0)

    @property
    def fraction(self) -> float:
        """Done of what was missing."""
        return 1.0 if self.complete else min(1.0, self.done / self.missing) if self.missing > 0 else 0.0


@dataclass
class _Point:
    plan: PointPlan
    stages: dict[tuple[StageKind, str], _Stage] = field(default_factory=dict)
    memory_bytes: int | None = None
    reason: str | None = None


class Progress:
    """Takes the events of a run; may be asked for a view from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._points: dict[str, _Point] = {}
        self._rough = True
        self._began = clock()
        self._running: tuple[str, _Stage] | None = None

    def tell(self, event: Event) -> None:
        """Take one event."""
        with self._lock:
            if isinstance(event, Planned):
                self._rough = event.rough
                for plan in event.points:
                    stages = {(s.kind, s.name): _Stage(s, tally=s.tally) for s in plan.stages}
                    self._points[plan.name] = _Point(plan, stages)
            elif isinstance(event, MemoryTaken):
                point = self._point(event.point)
                point.memory_bytes = max(event.resident_bytes, point.memory_bytes or 0)
            elif isinstance(event, PointFailed):
                self._point(event.point).reason = event.reason
                if self._running is not None:
                    self._running[1].failed = True
                self._end(self._running)
            else:
                self._advance(event)

    def _advance(self, event: StageBegan | Advanced | StageEnded) -> None:
        now, stage = self._clock(), self._stage(event)
        if isinstance(event, StageBegan):
            stage.began = now
            self._running = (event.point, stage)
        elif isinstance(event, StageEnded):
            self._end((event.point, stage))
        else:
            stage.done += event.units
            stage.tally += event.tally
            stage.first, stage.last = stage.first or (now, event.units), now

    def _end(self, running: tuple[str, _Stage] | None) -> None:
        if running is not None and running[1].began is not None:
            running[1].ended = self._clock()
        self._running = None

    def _point(self, name: str) -> _Point:
        """A point of this name; one that no plan named is one that nothing is predicted of."""
        return self._points.setdefault(name, _Point(PointPlan(name, "", name, ())))

    def _stage(self, event: StageBegan | Advanced | StageEnded) -> _Stage:
        stages = self._point(event.point).stages
        units = event.units if isinstance(event, StageBegan) else 0
        unplanned = StagePlan(event.kind, event.name, units, 0, Tally(), 0.0)
        return stages.setdefault((event.kind, event.name), _Stage(unplanned))

    def stage(self, point: str, kind: StageKind, name: str) -> StageView:
        """A stage as it stands, or as it ended."""
        with self._lock:
            return _stage_view(self._point(point).stages[kind, name], self._clock())

    def view(self) -> RunView:
        """The run as it stands."""
        with self._lock:
            now = self._clock()
            stages = [stage for point in self._points.values() for stage in point.stages.values()]
            asked = [stage for stage in stages if stage.plan.answers]
            return RunView(
                points=tuple(self._point_view(point, now) for point in self._points.values()),
                answers=sum(_done(stage) for stage in asked),
                answers_in_all=sum(stage.plan.units for stage in asked),
                fraction=_fraction(s for p in self._points.values() if p.reason is None for s in p.stages.values()),
                seconds=now - self._began,
                seconds_left=self._seconds_left(now),
            )

    def _point_view(self, point: _Point, now: float) -> PointView:
        stages = list(point.stages.values())
        running = self._running
        current = running[1] if running is not None and running[0] == point.plan.name else None
        tally = sum((stage.tally for stage in stages), Tally())
        state: State = "waiting"
        if point.reason is not None:
            state = "failed"
        elif current is not None:
            state = "working"
        elif all(stage.complete for stage in stages):
            state = "done"
        return PointView(
            name=point.plan.name,
            model=point.plan.model,
            label=point.plan.label,
            state=state,
            stage=_stage_view(current, now) if current is not None else None,
            fraction=_fraction(stages),
            answers_per_second=_answers_per_second(stages, now),
            accuracy=wilson(tally.value, tally.scored, unscored=tally.unscored),
            memory_bytes=point.memory_bytes,
            reason=point.reason or "",
        )

    def _seconds_left(self, now: float) -> float | None:
        stages = [s for p in self._points.values() if p.reason is None for s in p.stages.values()]
        every = [stage for point in self._points.values() for stage in point.stages.values()]
        begun = [s for s in every if s.began is not None and s.plan.seconds and not s.failed]
        if not any(stage.plan.seconds for stage in stages):
            return None
        seen = sum(stage.seconds(now) for stage in begun if stage.fraction)
        if self._rough and seen < _FIRST_SECONDS:
            return None
        overall = _correction(begun, now, 1.0, 0.0 if self._rough else _PRIOR_SECONDS)
        kinds: dict[StageKind, float] = {}
        for kind in {stage.plan.kind for stage in stages}:
            kinds[kind] = _correction([s for s in begun if s.plan.kind == kind], now, overall, _PRIOR_SECONDS)
        left = 0.0
        for stage in stages:
            correction = kinds[stage.plan.kind]
            if stage.began is not None and not stage.complete:
                correction = _correction([stage], now, correction, _PRIOR_SECONDS)
            left += stage.plan.seconds_left * (1.0 - stage.fraction) * correction
        return left


def _correction(stages: Iterable[_Stage], now: float, before: float, prior_seconds: float) -> float:
    """Seen over predicted, where ``before`` is what it would be with nothing seen."""
    seen = predicted = 0.0
    for stage in stages:
        if stage.fraction:
            seen += stage.seconds(now)
            predicted += stage.plan.seconds_left * stage.fraction
    return (seen + before * prior_seconds) / (predicted + prior_seconds) if predicted + prior_seconds else before


def _done(stage: _Stage) -> int:
    return stage.plan.done + stage.done


def _fraction(stages: Iterable[_Stage]) -> float | None:
    """Share of the predicted time that is done."""
    whole = done = 0.0
    for stage in stages:
        whole += stage.plan.seconds
        done += stage.plan.seconds - stage.plan.seconds_left * (1.0 - stage.fraction)
    return done / whole if whole else None


def _answers_per_second(stages: Iterable[_Stage], now: float) -> float | None:
    """Over all stages that answer; the time before the first answers, when the file is read, counts as theirs."""
    answers, seconds = 0, 0.0
    for stage in stages:
        if stage.plan.answers and stage.first is not None and stage.began is not None:
            began, early = stage.first
            counts = stage.done > early and stage.last > began
            answers += stage.done - early if counts else stage.done
            seconds += (stage.last - began) if counts else stage.seconds(now)
    return answers / seconds if answers and seconds > 0 else None


def _stage_view(stage: _Stage, now: float) -> StageView:
    return StageView(
        kind=stage.plan.kind,
        name=stage.plan.name,
        done=_done(stage),
        units=stage.plan.units,
        done_now=stage.done,
        seconds=stage.seconds(now),
        accuracy=wilson(stage.tally.value, stage.tally.scored, unscored=stage.tally.unscored),
        unscored=stage.tally.unscored,
        metric=stage.plan.metric,
    )
