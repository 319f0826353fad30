"""An observer of runs that keeps what it is told."""

from __future__ import annotations

from gguf_eval.study.events import Event, Planned, PointFailed, StageBegan


class Listening:
    """Keeps events and notes."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.notes: list[str] = []

    def tell(self, event: Event) -> None:
        self.events.append(event)

    def note(self, text: str) -> None:
        self.notes.append(text)

    @property
    def texts(self) -> list[str]:
        """Points that began to read a text."""
        return [event.point for event in self.events if isinstance(event, StageBegan) and event.kind == "text"]

    @property
    def asked(self) -> list[tuple[str, int]]:
        """(point and what was asked of it, items) of the stages that asked anything."""
        began = [event for event in self.events if isinstance(event, StageBegan)]
        return [
            (f"{event.point}: {event.name}", event.units)
            for event in began
            if event.kind in ("score", "again", "generate")
        ]

    @property
    def planned(self) -> list[tuple[str, int]]:
        """What of that the plan said before."""
        plans = [point for event in self.events if isinstance(event, Planned) for point in event.points]
        stages = [(point, stage) for point in plans for stage in point.stages if stage.left]
        return [
            (f"{point.name}: {stage.name}", stage.left)
            for point, stage in stages
            if stage.kind in ("score", "again", "generate")
        ]

    @property
    def failures(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, PointFailed)]
