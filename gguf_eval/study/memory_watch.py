"""Ends a worker that takes more memory than it may, before the machine swaps itself to death."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_INTERVAL_SECONDS = 0.1


class MemoryWatch:
    """Watches a process from a thread while the context is open; `exceeded_bytes` says whether it was ended."""

    def __init__(self, pid: int, limit_bytes: int, end: Callable[[], None]) -> None:
        """``end`` ends the process."""
        self._pid, self._limit, self._end_process = pid, limit_bytes, end
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
            while not self._stop.wait(_INTERVAL_SECONDS):
                used = process.memory_info().rss + _swapped_bytes(self._pid)
                if used > self._limit:
                    self.exceeded_bytes = used
                    self._end_process()
                    return


def _swapped_bytes(pid: int) -> int:
    """What of a process is in swap, where the system tells it cheaply."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
                if line.startswith("VmSwap:"):
                    return int(line.split()[1]) * 1024
    return 0
