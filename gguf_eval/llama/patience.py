"""Ends a child process that hangs: one that was stopped, waits for a device or a disk for ever, or for itself."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from gguf_eval.errors import UsageError

PATIENCE = "GGUF_EVAL_PATIENCE"
"""In the environment: the seconds that a process may show no progress; 0 waits for ever."""
_DEFAULT_SECONDS = 600.0
_LOOKS = 20
"""In that time."""
_LONGEST_LOOK_SECONDS = 5.0


def patience_seconds() -> float:
    """What `PATIENCE` says, or ten minutes; raises `UsageError` where it is no number of seconds."""
    text = os.environ.get(PATIENCE, "")
    if not text:
        return _DEFAULT_SECONDS
    with contextlib.suppress(ValueError):
        if 0 <= (seconds := float(text)) < float("inf"):
            return seconds
    raise UsageError(f"{PATIENCE} needs seconds, or 0 to wait for ever; found '{text}'")


class ProgressWatch:
    """Watches a process from a thread while the context is open, and ends it when it shows no progress for too long.

    Progress is an answer, a line of its log, or time of the processor. Only what passes inside `waiting` counts: a
    process whose answers nobody reads has to wait.
    """

    def __init__(self, pid: int, end: Callable[[], None], log: Path | None = None) -> None:
        """``end`` ends the process; what it writes to ``log`` is progress. Raises `UsageError`."""
        self._pid, self._end_process, self._log = pid, end, log
        self._patience = patience_seconds()
        self._awaited = threading.Event()
        self._answers = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._hung = False

    def __enter__(self) -> ProgressWatch:
        if self._patience:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._patience:
            self._thread.join()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While this process waits for an answer of the other."""
        self._answers += 1
        self._awaited.set()
        try:
            yield
        finally:
            self._awaited.clear()

    @property
    def reason(self) -> str:
        """Why the process was ended; empty where it was not."""
        if not self._hung:
            return ""
        return (
            f"showed no progress for {self._patience:g} s (no answer, no line of its log, no processor time) and was "
            f"ended; run again, or wait longer with {PATIENCE}=SECONDS"
        )

    def _watch(self) -> None:
        look = min(self._patience / _LOOKS, _LONGEST_LOOK_SECONDS)
        silent, before, at = 0.0, self._signs(), time.monotonic()
        while not self._stop.wait(look):
            now, signs = time.monotonic(), self._signs()
            # A machine that slept has not waited: no look counts for more than twice what it should take.
            silent = silent + min(now - at, 2 * look) if signs == before and self._awaited.is_set() else 0.0
            before, at = signs, now
            if silent >= self._patience:
                self._hung = True
                self._end_process()
                return

    def _signs(self) -> tuple[object, ...]:
        """What differs from one look to the next where there was progress."""
        import psutil

        seconds, log_bytes = 0.0, 0
        with contextlib.suppress(psutil.Error):  # it has ended by itself
            process = psutil.Process(self._pid)
            # An environment's python.exe only starts the real one.
            family = [process, *process.children(recursive=True)] if sys.platform == "win32" else [process]
            seconds = sum(times.user + times.system for times in (member.cpu_times() for member in family))
        if self._log is not None:
            with contextlib.suppress(OSError):
                log_bytes = self._log.stat().st_size
        return self._answers, seconds, log_bytes
