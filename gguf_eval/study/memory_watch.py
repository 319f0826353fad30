"""Ends a worker that takes more memory than it may, before the machine swaps itself to death."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.1, 2.0
"""Between two looks: a look while all cores compute costs speed, so they get rarer while nothing grows."""
_GROWTH = 1.02


class MemoryWatch:
    """Watches a process from a thread while the context is open; `exceeded_bytes` says whether it was ended."""

    def __init__(
        self,
        pid: int,
        limit_bytes: int,
        end: Callable[[], None],
        on_used: Callable[[int], None] | None = None,
    ) -> None:
        """``end`` ends the process; ``on_used`` is told the bytes of every look, from the thread that looks."""
        self._pid, self._limit, self._end_process, self._on_used = pid, limit_bytes, end, on_used
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.exceeded_bytes: int | None = None

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        with contextlib.suppress(psutil.Error):  # the process has ended by itself
            process = psutil.Process(self._pid)
            seconds, before = _SHORTEST_SECONDS, 0
            while not self._stop.wait(seconds):
                used = process.memory_info().rss + _swapped_bytes(self._pid)
                if self._on_used is not None:
                    self._on_used(used)
                if used > self._limit:
                    self.exceeded_bytes = used
                    self._end_process()
                    return
                seconds = _SHORTEST_SECONDS if used > _GROWTH * before else min(2 * seconds, _LONGEST_SECONDS)
                before = used


def _swapped_bytes(pid: int) -> int:
    """What of a process is in swap, where the system tells it cheaply."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
                if line.startswith("VmSwap:"):
                    return int(line.split()[1]) * 1024
    return 0
