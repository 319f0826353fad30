"""Shows how a run goes, on standard error: a live view in a terminal, elsewhere a line for each finished stage."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from gguf_eval.report.escape import plain
from gguf_eval.report.words import MISSING, clock_time, duration, interval, percent, rate, size
from gguf_eval.study.events import Event, Observer, PointFailed, StageBegan, StageEnded
from gguf_eval.study.progress import PointView, Progress, RunView, StageView

_GAP = "  "
_LONGEST_NAME = 30
_DOING, _LEAST_DOING = 28, 20
_BAR, _LEAST_BAR = 24, 8
_PERCENT = 6
_HEADS = {"answers": ("answers/s", 9), "accuracy": ("score so far", 12), "memory": ("memory", 8)}
"""What stands at the right, with its width; where there is little room the first goes first."""
_LEAST_ROWS = 3


@dataclass(frozen=True)
class Layout:
    """Widths of the columns, in characters."""

    name: int
    doing: int
    bar: int
    right: tuple[str, ...]
    """Of `_HEADS`, those there is room for."""


def frame(view: RunView, width: int, height: int, *, ascii_only: bool = False) -> list[Text]:
    """The lines of the view in a terminal of this size; more points than fit are a window around the one at work."""
    models = {point.model for point in view.points}
    title = next(iter(models)) if len(models) == 1 else ""
    names = [plain(point.label if title else point.name) for point in view.points]
    right = [column for column in _HEADS if view.answers_in_all or column == "memory"]
    layout = _layout(names, right, width)
    first, last = _window(view.points, max(_LEAST_ROWS, height - 4 - bool(title)))
    lines = [Text(plain(title), style="bold")] if title else []
    lines.append(_head(layout))
    if first:
        lines.append(Text(f"… {first} more above", style="dim"))
    lines += [_row(names[i], view.points[i], layout, ascii_only) for i in range(first, last)]
    if last < len(view.points):
        lines.append(Text(f"… {len(view.points) - last} more", style="dim"))
    lines.append(_total(view, layout, width, ascii_only))
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return lines


def stage_text(stage: StageView, room: int) -> str:
    """What a point is at, within ``room`` characters: the task's name gives way, its count does not."""
    if stage.kind == "make":
        return "making the file"
    name = plain(stage.name) or "speed"
    if stage.kind == "text":
        count = f" {min(99, 100 * stage.done // stage.units)} %" if stage.units else f" {stage.done:,}"
    else:
        count = f" {stage.done:{len(str(stage.units))}}/{stage.units}"  # as wide from beginning to end
    return _cut(name, room - len(count)) + count


def _layout(names: Sequence[str], right: list[str], width: int) -> Layout:
    name = min(max(map(len, [*names, "total"])), _LONGEST_NAME, width // 3)
    while True:
        taken = name + len(_GAP) + sum(len(_GAP) + _HEADS[column][1] for column in right)
        room = width - taken - len(_GAP) - _PERCENT
        if room >= _LEAST_DOING + _LEAST_BAR or not right:
            break
        right.pop(0)
    doing = max(8, min(_DOING, room - _LEAST_BAR))
    return Layout(name, doing, max(0, min(_BAR, room - doing)), tuple(right))


def _window(points: Sequence[PointView], rows: int) -> tuple[int, int]:
    """First and last + 1 of the points to show; lines that say what is left out count among the rows."""
    if len(points) <= rows:
        return 0, len(points)
    current = next((i for i, point in enumerate(points) if point.state == "working"), None)
    if current is None:
        current = next((i for i, point in enumerate(points) if point.state == "waiting"), len(points) - 1)
    shown = max(1, rows - 2)
    first = min(max(0, current - shown // 2), len(points) - shown)
    return first, first + shown


def _head(layout: Layout) -> Text:
    cells = ["point".ljust(layout.name), "doing".ljust(layout.doing), " " * (layout.bar + _PERCENT)]
    cells += [_HEADS[column][0].rjust(_HEADS[column][1]) for column in layout.right]
    return Text(_GAP.join(cells).rstrip(), style="dim")


def _row(name: str, point: PointView, layout: Layout, ascii_only: bool) -> Text:
    line = Text(_cut(name, layout.name).ljust(layout.name), style="bold" if point.state == "working" else "")
    line.append(_GAP)
    if point.state == "failed":
        return line.append(f"failed: {plain(point.reason)}", style="red")  # its end is cut, not its middle
    if point.state == "working" and point.stage is not None:
        line.append(stage_text(point.stage, layout.doing).ljust(layout.doing), style="cyan")
    else:
        line.append(point.state.ljust(layout.doing), style="green" if point.state == "done" else "dim")
    line.append(_GAP)
    line.append_text(_bar(point.fraction, layout.bar, ascii_only))
    for column in layout.right:
        line.append(_GAP)
        line.append_text(_figure(column, point))
    line.rstrip()
    return line


def _figure(column: str, point: PointView) -> Text:
    _, width = _HEADS[column]
    figure = Text()
    if column == "accuracy" and point.accuracy is not None:
        figure.append(percent(point.accuracy.value)).append(f" {interval(point.accuracy)}", style="dim")
    elif column == "answers" and point.answers_per_second:
        figure.append(rate(point.answers_per_second))
    elif column == "memory" and point.memory_bytes:
        figure.append(size(point.memory_bytes))
    elif point.state == "working" or point.fraction:
        figure.append(MISSING, style="dim")
    figure.pad_left(max(0, width - len(figure)))
    return figure


def _bar(fraction: float | None, width: int, ascii_only: bool) -> Text:
    """A bar that can be read without colour, and the share in per cent."""
    if fraction is None:
        return Text(" " * (width + _PERCENT))
    done, rest = ("=", "-") if ascii_only else ("━", "─")
    filled = width if fraction >= 1.0 else min(width - 1, int(width * fraction))
    share = 100 if fraction >= 1.0 else min(99, int(100 * fraction))
    return Text.assemble((done * filled, "green"), (rest * (width - filled), "dim"), f"{share} %".rjust(_PERCENT))


def _total(view: RunView, layout: Layout, width: int, ascii_only: bool) -> Text:
    """What is done of everything and the time that is left; where there is little room, that stays longest."""
    counts = [f"{sum(point.state == 'done' for point in view.points)}/{len(view.points)} points"]
    if view.answers_in_all:
        counts.append(f"{view.answers:,}/{view.answers_in_all:,}")
    doing = _cut(", ".join(counts), layout.doing).ljust(layout.doing) + _GAP
    bar = _bar(view.fraction, layout.bar, ascii_only).append(_GAP)
    passed = clock_time(view.seconds)
    left = ""
    if view.seconds_left is not None and any(point.state in ("waiting", "working") for point in view.points):
        left = f"{duration(view.seconds_left)} left"
    most = (f"{passed}, " if left else passed, (left, "bold"))
    least = (left or passed, "bold" if left else "")
    name = "total".ljust(layout.name) + _GAP
    whole = Text.assemble(name, doing, bar, *most)
    for shorter in ((name, doing, bar, least), (name, doing, least), (name, least)):
        if len(whole) > width:
            whole = Text.assemble(*shorter)
    return whole


def _cut(text: str, width: int) -> str:
    """Text within a width: its middle goes, as names mostly differ at their ends."""
    if len(text) <= width:
        return text
    if width < 4:
        return text[: max(0, width)]
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


_REDRAWS_PER_SECOND = 4


@contextmanager
def console_observer() -> Iterator[Observer]:
    """The observer that suits standard error; a terminal is as it was when the context ends, however it does."""
    console = Console(stderr=True)
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
