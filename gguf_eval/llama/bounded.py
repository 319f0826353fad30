"""Calls what runs strangers' templates and patterns in a process that is ended where it takes too long or too much.

A template can loop for days and build texts of gigabytes, a pattern can search for ever; neither can be stopped from
within. One process is kept for all calls, and started anew after it had to be ended.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from gguf_eval.errors import GgufEvalError
from gguf_eval.llama.isolated import Channel, Child, Gone

R = TypeVar("R")
SECONDS = 10.0
"""What one call may take."""
MEMORY_BYTES = 512 << 20
"""What the process may take beyond what it has when it starts; it is looked at 20 times a second."""
_FIRST_SECONDS = 3 * SECONDS
"""The first one imports what it needs."""
_LOOK_SECONDS = 0.05
_MOST_STOPPED = 3
"""Inputs of one call that go over a limit before the rest is given up."""
_GONE = "gone"


class OverLimitError(GgufEvalError):
    """A call took more time or memory than it may; the message says which."""


def bounded_call(function: Callable[..., R], *arguments: Any) -> R:
    """``function(*arguments)``; all of them, the result and what it raises must be picklable.

    Raises what the function raises, and `OverLimitError`.
    """
    (found,) = bounded_map(_calling, (function,), [arguments])
    if isinstance(found, Exception):
        raise found
    return cast(R, found)


def _calling(function: Callable[..., R]) -> Callable[[tuple[Any, ...]], R]:
    return lambda arguments: function(*arguments)


def bounded_map(
    make: Callable[..., Callable[[Any], R]], settings: tuple[Any, ...], inputs: Sequence[Any]
) -> list[R | Exception]:
    """What ``make(*settings)`` gives for each input, or the exception that it raised there.

    ``make`` is called once; what it raises is raised, `OverLimitError` too. An input that goes over a limit gives such
    an error, and the next ones are done by a new process; after a few of them the rest is not tried.
    """
    found: list[R | Exception] = []
    stopped = 0
    with _LOCK:
        while len(found) < len(inputs) and stopped < _MOST_STOPPED:
            made = False
            try:
                helper = _helper()
                helper.ask((make, settings, inputs[len(found) :]))
                helper.answer()
                made = True
                while len(found) < len(inputs):
                    found.append(helper.answer())
            except OverLimitError as error:
                _end()
                if not made:
                    raise
                found.append(error)
                stopped += 1
            except BaseException:  # what it still answers is no answer to the next question
                _end()
                raise
    left = len(inputs) - len(found)
    return found + [OverLimitError(f"it was not tried after {stopped} that were ended")] * left


class _Helper:
    """The process, and a thread that reads what it answers."""

    def __init__(self) -> None:
        import psutil

        self._child = Child(_serve)
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(self._child.channel,), daemon=True)
        self._reader.start()
        pid = self._answers.get()  # another where an environment's python.exe starts the real one
        self._process = psutil.Process(pid if isinstance(pid, int) else self._child.process.pid)
        self._limit_bytes = self._used_bytes() + MEMORY_BYTES
        self._seconds = _FIRST_SECONDS

    def _read(self, channel: Channel) -> None:
        try:
            while True:
                self._answers.put(channel.receive())
        except Gone:
            self._answers.put((_GONE, None))

    def _used_bytes(self) -> int:
        import psutil

        try:
            return int(self._process.memory_info().rss)
        except psutil.Error:
            return 0

    def ask(self, content: object) -> None:
        """Have it begin; where it has ended, `answer` says so."""
        with contextlib.suppress(Gone):
            self._child.channel.send(content)

    def answer(self) -> Any:
        """Its next answer: a value or an exception. Raises what ``make`` raised, and `OverLimitError`."""
        began = time.monotonic()
        while True:
            try:
                kind, content = self._answers.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if time.monotonic() - began > self._seconds:
                    raise OverLimitError(f"it took more than {self._seconds:g} s and was ended") from None
                if self._used_bytes() > self._limit_bytes:
                    raise OverLimitError(f"it took more than {MEMORY_BYTES >> 20} MiB and was ended") from None
                continue
            self._seconds = SECONDS
            if kind == _GONE:
                raise OverLimitError("the process that ran it has ended; it took too much memory, perhaps")
            if kind == "refused":
                raise content
            return content

    def close(self) -> None:
        """End the process."""
        self._child.process.kill()
        self._reader.join()  # it reads until the process has ended
        self._child.close()


_LOCK = threading.RLock()
_kept: dict[int, _Helper] = {}
"""By process id: a forked process has none."""


def _helper() -> _Helper:
    if os.getpid() not in _kept:
        _kept[os.getpid()] = _Helper()
        atexit.register(_end)
    return _kept[os.getpid()]


def _end() -> None:
    helper = _kept.pop(os.getpid(), None)
    if helper is not None:
        atexit.unregister(_end)
        helper.close()


def _serve(channel: Channel) -> None:
    """What the process does: answers until its parent has ended."""
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(channel, requests), daemon=True).start()
    channel.send(os.getpid())
    while True:
        make, settings, inputs = requests.get()
        try:
            apply = make(*settings)
        except Exception as error:
            channel.send(("refused", _sendable(error)))
            continue
        channel.send(("made", None))
        for value in inputs:
            try:
                found = apply(value)
            except Exception as error:
                found = _sendable(error)
            channel.send(("value", found))


def _receive(channel: Channel, requests: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            requests.put(channel.receive())
    except Gone:
        os._exit(3)  # the parent has ended, and what is being computed is for nobody


def _sendable(error: Exception) -> Exception:
    """The exception, without what it hangs on; one of others' may not be picklable."""
    if isinstance(error, GgufEvalError):
        return error.with_traceback(None)
    if isinstance(error, MemoryError):
        return OverLimitError("there was not enough memory for it")
    return RuntimeError(f"{type(error).__name__}: {error}")
