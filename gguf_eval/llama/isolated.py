"""Runs a function in a process of its own: llama.cpp ends the process on a failed assertion.

Parent and child send each other whatever can be pickled. The child is a plain ``python -c``, which, unlike
multiprocessing's, does not run the caller's main module.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

from gguf_eval.atomic import remove_unfinished
from gguf_eval.errors import EngineError, GgufEvalError
from gguf_eval.llama.child import how_it_ended, spawn, telling_line
from gguf_eval.llama.patience import ProgressWatch

R = TypeVar("R")
Report = Callable[[Any], None]


class Gone(Exception):
    """The other process has ended."""


class Channel:
    """Two pipes to another process, which raise `Gone` where it has ended."""

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        self._incoming, self._outgoing = incoming, outgoing

    def send(self, content: object) -> int:
        """Send what can be pickled; returns its bytes."""
        data = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
        try:
            self._outgoing.write(data)
            self._outgoing.flush()
        except OSError:
            raise Gone from None
        return len(data)

    def receive(self) -> Any:
        """What the other process sent next."""
        try:
            return pickle.load(self._incoming)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise Gone from None

    def close(self) -> None:
        """Close both pipes."""
        for pipe in (self._incoming, self._outgoing):
            with contextlib.suppress(OSError):  # what was not sent can't be sent any more
                pipe.close()


class Child:
    """A process that calls ``function(*arguments, channel)``; ``channel`` here and there are the ends of one."""

    def __init__(self, function: Callable[..., None], *arguments: object, log: IO[bytes] | None = None) -> None:
        """The function and its arguments must be picklable. What the child prints goes to ``log``."""
        self.process = spawn(["-c", "from gguf_eval.llama.isolated import serve; serve()"], log)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.channel = Channel(self.process.stdout, self.process.stdin)
        with contextlib.suppress(Gone):  # whoever waits for an answer learns of it
            self.channel.send(sys.path)
            self.channel.send((function, arguments))

    def close(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.wait()
        self.channel.close()


def serve() -> None:
    """What the child does."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints would disturb the answers
    channel = Channel(sys.stdin.buffer, answers)
    with contextlib.suppress(Gone):
        sys.path[:] = channel.receive()
        function, arguments = channel.receive()
        function(*arguments, channel)


def run_isolated(
    function: Callable[..., R], *arguments: object, log: Path, folder: Path, on_progress: Report | None = None
) -> R:
    """Return ``function(*arguments, report)``, run in a fresh process; what it reports goes to ``on_progress``.

    The function and its arguments must be picklable. Standard error of the process, llama.cpp's log, goes to ``log``.
    Unfinished files in ``folder`` are removed when it does not end well. Raises what the function raised if that is
    one of ours, and `EngineError` when the process died or hung (`ProgressWatch`).
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        child = Child(_report_all, function, arguments, log=file)
    pid = child.process.pid
    try:
        progress = ProgressWatch(pid, child.process.kill, log)
        with progress:
            with progress.waiting():
                pid = child.channel.receive()  # another where an environment's python.exe starts the real one
            while True:
                with progress.waiting():
                    kind, content = child.channel.receive()
                    if kind == "result":
                        child.process.wait()
                        return content  # type: ignore[no-any-return]
                if kind == "error":
                    raise content
                if on_progress is not None:
                    on_progress(content)
    except Gone:
        how = how_it_ended(child.process.wait())
        if progress.reason:
            raise EngineError(f"the process that runs llama.cpp {progress.reason} (log: {log})") from None
        told = telling_line(log) or "it says no reason"
        raise EngineError(f"the process that runs llama.cpp ended ({how}): {told} (log: {log})") from None
    finally:
        child.close()
        remove_unfinished(folder, pid)


def _report_all(function: Callable[..., Any], arguments: tuple[object, ...], channel: Channel) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    channel.send(os.getpid())
    try:
        channel.send(("result", function(*arguments, lambda content: channel.send(("report", content)))))
    except GgufEvalError as error:
        channel.send(("error", error))


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing more is sent: this returns when the parent was killed
    os._exit(3)
