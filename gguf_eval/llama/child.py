"""Child processes that run llama.cpp: how they are started, and why they ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

_LOG_TAIL_BYTES = 1 << 18
"""Enough to reach over the stack trace that follows a failed assertion."""
_TELLING = ("Remote RPC server", "GGML_ASSERT", "what():", "error loading model", "Error:", "error:", "failed")
"""Marks of a line that tells why, the most telling first."""


def spawn(arguments: Sequence[str], log: IO[bytes] | None) -> subprocess.Popen[bytes]:
    """Start Python with ``arguments``, pipes to and from it; its standard error goes to ``log``."""
    # A group of its own, so that Ctrl-C reaches this process alone, which then ends the child in order.
    group: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    # A debugger that prints a stack trace takes seconds and says nothing that the assertion does not.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "GGML_NO_BACKTRACE": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *arguments], stdin=pipe, stdout=pipe, stderr=log, env=environment, **group)


def how_it_ended(code: int) -> str:
    """An exit status in words: a signal's name, or the code."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def telling_line(log: Path, start: int = 0) -> str:
    """The line of a log that tells most of why a process ended, of what was written from ``start`` on; or nothing."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - _LOG_TAIL_BYTES))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
        for mark in _TELLING:
            telling = [line.strip() for line in lines if mark in line]
            if telling:
                return telling[-1][-200:]
    return ""
