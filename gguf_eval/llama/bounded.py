"""Calls what runs strangers' templates and patterns in a process that is ended where it takes too long or too much.

A template can loop for days and build texts of gigabytes, a pattern can search for ever; neither can be stopped from
within. One process is kept for all calls, and started anew after it had to be ended. It ends by itself too, for its
parent may be killed while a search holds the interpreter's lock, and none of its threads learns of that.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import functools
import os
import queue
import signal
import sys
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
"""What the process may take beyond what it has when it starts, looked at 20 times a second; and what all results of a
call may take together."""
_FIRST_SECONDS = 3 * SECONDS
"""The first one imports what it needs."""
_LOOK_SECONDS = 0.05
_GRACE_SECONDS = 2.0
"""The process ends by itself so long after it should have been ended."""
_ADDRESSES = 4
"""The system gives the process this many times the memory that it may take: libraries reserve what they never use."""
_MOST_STOPPED = 3
"""Inputs of one call that go over a limit before the rest is given up."""
_GONE, _NOTHING = "gone", "nothing"


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

        self._child = Child(_serve, SECONDS, MEMORY_BYTES)
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
            kind: str = _NOTHING
            content: Any = None
            with contextlib.suppress(queue.Empty):
                kind, content = self._answers.get(timeout=_LOOK_SECONDS)
            if kind in (_NOTHING, _GONE) and time.monotonic() - began > self._seconds:
                raise OverLimitError(f"it took more than {self._seconds:g} s and was ended")
            if kind == _NOTHING:
                if self._used_bytes() > self._limit_bytes:
                    raise OverLimitError(f"it took more than {MEMORY_BYTES >> 20} MiB and was ended")
                continue
            self._seconds = SECONDS
            if kind == _GONE:
                raise OverLimitError("the process that ran it has ended; it took too much memory, perhaps")
            if kind == "refused":
                raise content
            return content

    @property
    def has_ended(self) -> bool:
        """Whether it is there no more."""
        return self._child.process.poll() is not None

    def close(self) -> None:
        """End the process."""
        self._child.process.kill()
        self._reader.join()  # it reads until the process has ended
        self._child.close()


_LOCK = threading.RLock()
_kept: dict[int, _Helper] = {}
"""By process id: a forked process has none."""


def _helper() -> _Helper:
    if os.getpid() in _kept and _kept[os.getpid()].has_ended:  # killed by others: no fault of what is asked next
        _end()
    if os.getpid() not in _kept:
        _kept[os.getpid()] = _Helper()
        atexit.register(_end)
    return _kept[os.getpid()]


def _end() -> None:
    helper = _kept.pop(os.getpid(), None)
    if helper is not None:
        atexit.unregister(_end)
        helper.close()


def _serve(seconds: float, memory_bytes: int, channel: Channel) -> None:
    """What the process does: answers until its parent has ended."""
    _prepare(_ADDRESSES * memory_bytes)
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(channel, requests), daemon=True).start()
    channel.send(os.getpid())
    now_seconds = _FIRST_SECONDS
    while True:
        make, settings, inputs = requests.get()
        apply = _tried(now_seconds, memory_bytes, make, settings)
        if isinstance(apply, Exception):
            channel.send(("refused", apply))
            continue
        channel.send(("made", None))
        sent_bytes = 0
        for value in inputs:
            if sent_bytes <= memory_bytes:
                found = _tried(now_seconds, memory_bytes, apply, (value,))
            else:
                found = OverLimitError(f"what came before it takes more than {memory_bytes >> 20} MiB together")
            try:
                sent_bytes += channel.send(("value", found))
            except Gone:
                raise
            except Exception as error:  # what can't be sent is no result
                channel.send(("value", _sendable(error, memory_bytes)))
            now_seconds = seconds


def _tried(seconds: float, memory_bytes: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """What the call gives, or an exception that says why it gives nothing."""
    _end_after(seconds + _GRACE_SECONDS)
    try:
        return function(*arguments)
    except Exception as error:
        return _sendable(error, memory_bytes)
    finally:
        _end_after(0)


def _end_after(seconds: float) -> None:
    """Have this process ended in so many seconds, whatever it does; 0 takes that back."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, seconds)  # SIGALRM, which nothing handles
    elif seconds:
        faulthandler.dump_traceback_later(seconds, exit=True, file=_nowhere())
    else:
        faulthandler.cancel_dump_traceback_later()


@functools.cache
def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def _prepare(size_bytes: int) -> None:
    """Have the system refuse more memory, where it can: nobody looks at a process whose parent was killed."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each of its threads reserves more than a judge needs
    if sys.platform != "win32":
        import resource

        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        with contextlib.suppress(OSError, ValueError):  # less was allowed already, or the system has no such limit
            resource.setrlimit(resource.RLIMIT_AS, (size_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _receive(channel: Channel, requests: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            requests.put(channel.receive())
    except Gone:
        os._exit(3)  # the parent has ended, and what is being computed is for nobody


def _sendable(error: Exception, memory_bytes: int) -> Exception:
    """The exception, without what it hangs on; one of others' may not be picklable."""
    if isinstance(error, GgufEvalError):
        return error.with_traceback(None)
    if isinstance(error, MemoryError):
        return OverLimitError(f"it asked for more than {memory_bytes >> 20} MiB")
    return RuntimeError(f"{type(error).__name__}: {error}")
