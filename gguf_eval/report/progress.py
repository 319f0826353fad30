"""Shows how a run goes, on standard error: a live view in a terminal, elsewhere a line for each finished stage."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from gguf_eval.report.escape import plain
from gguf_eval.report.live import frame
from gguf_eval.report.words import MISSING, interval, percent
from gguf_eval.study.events import Event, Observer, PointFailed, StageBegan, StageEnded
from gguf_eval.study.progress import Progress, StageView

_REDRAWS_PER_SECOND = 4


@contextmanager
def console_observer(console: Console) -> Iterator[Observer]:
    """The observer that suits the console; the terminal is as it was when the context ends, however it does."""
    if not (console.is_terminal and console.file.isatty()) or console.is_dumb_terminal:
        yield PlainObserver(console)
        return
    observer = LiveObserver(console)
    with observer.live:
        try:
            yield observer
        finally:
            observer.live.transient = not observer.worked


@contextmanager
def byte_progress(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on stderr while in use; yields the function to call with bytes done and in all.

    Yields None where stderr is not a terminal, so that logs stay plain.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich import progress

    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.DownloadColumn())
    rest = (progress.TransferSpeedColumn(), progress.TimeRemainingColumn())
    with progress.Progress(*columns, *rest, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class PlainObserver:
    """A line for each stage that has ended, each point that failed and each note; no control characters."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._progress = Progress(clock)

    def tell(self, event: Event) -> None:
        """Take an event."""
        self._progress.tell(event)
        if isinstance(event, StageEnded):
            self.note(f"{event.point}: {_ended(self._progress.stage(event.point, event.kind, event.name))}")
        elif isinstance(event, PointFailed):
            self.note(f"{event.point}: {event.reason}")

    def note(self, text: str) -> None:
        """Print one line."""
        _print(self.console, text)


class LiveObserver:
    """A view that is drawn over itself; notes and failures stand above it. ``live`` is the context it is drawn in."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.progress = Progress(clock)
        self.worked = False
        """Whether any stage was begun."""
        self.live = Live(
            get_renderable=lambda: _Frame(self.progress),
            console=console,
            refresh_per_second=_REDRAWS_PER_SECOND,
            redirect_stdout=False,  # the answer goes where it was sent
        )

    def tell(self, event: Event) -> None:
        """Take an event."""
        self.progress.tell(event)
        self.worked |= isinstance(event, StageBegan)
        if isinstance(event, PointFailed):
            self.note(f"{event.point}: {event.reason}")

    def note(self, text: str) -> None:
        """Print one line above the view."""
        _print(self.live.console, text)


class _Frame:
    """The view as it is when it is drawn, in the size the terminal has then."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        view = self._progress.view()
        if view.points:
            yield from frame(view, options.max_width, console.height, ascii_only=options.ascii_only)


def _print(console: Console, text: str) -> None:
    console.print(Text(plain(text)), soft_wrap=True, style="dim")


def _ended(stage: StageView) -> str:
    if stage.kind == "make":
        return f"making the model file: {stage.seconds:.1f} s"
    name = {"speed": "speed and memory"}.get(stage.kind, stage.name)
    text = f"{name}: {stage.done_now} in {stage.seconds:.1f} s"
    if stage.done_now and stage.seconds > 0:
        text += f", {stage.done_now / stage.seconds:.1f}/s"
    if stage.kind in ("score", "generate"):
        found = stage.accuracy
        score = f"{percent(found.value)} ({interval(found)})" if found else MISSING
        text += f", {plain(stage.metric) or 'score'} {score}"
    return text + (f", {stage.unscored} unscored" if stage.unscored else "")
