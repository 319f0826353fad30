"""Shows how a run goes, on standard error: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    """Units a second since the step began."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="dim")


class ConsoleObserver:
    """Tells the user what the run does, step by step."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def step(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show one step; ``total`` 0 means that its length is not known."""
        began = time.monotonic()
        done = 0
        if self.console.is_terminal:
            columns = [
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                _Rate(),
                TimeRemainingColumn(),
            ]
            with Progress(*(columns if total else columns[:2]), console=self.console, transient=True) as progress:
                task = progress.add_task(label, total=total or None)
                yield lambda count: progress.advance(task, count)
                done = int(progress.tasks[0].completed)
        else:

            def count_only(count: int) -> None:
                nonlocal done
                done += count

            yield count_only
        seconds = time.monotonic() - began
        rate = f", {done / seconds:.1f}/s" if done and seconds > 0 else ""
        self.note(f"{label}: {f'{done} in ' if done else ''}{seconds:.1f} s{rate}")

    def note(self, text: str) -> None:
        """Print one line."""
        self.console.print(Text(text), soft_wrap=True, style="dim")
