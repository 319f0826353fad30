"""Runs one function in a process of its own, because llama.cpp ends the process on a failed assertion.

Its log goes to a file; progress, the result and errors come back. When it dies, or the user interrupts, what it
had half written is removed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from gguf_eval.errors import EngineError, GgufEvalError
from gguf_eval.files.cache import remove_unfinished

R = TypeVar("R")
Report = Callable[[Any], None]


def run_isolated(
    function: Callable[..., R], *arguments: object, log: Path, folder: Path, on_progress: Report | None = None
) -> R:
    """Return ``function(*arguments, report)``, run in a fresh process; what it reports goes to ``on_progress``.

    The function and its arguments must be picklable. Standard error of the process, llama.cpp's log, goes to ``log``.
    Unfinished files in ``folder`` are removed when it does not end well. Raises what the function raised if that is
    one of ours, and `EngineError` when the process died.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    log.parent.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=_serve, args=(theirs, str(log), function, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        while True:
            kind, content = ours.recv()
            if kind == "report":
                if on_progress is not None:
                    on_progress(content)
            elif kind == "result":
                process.join()
                return content  # type: ignore[no-any-return]
            else:
                raise content
    except EOFError:
        process.join()
        raise EngineError(
            f"the process that runs llama.cpp ended ({_exit_reason(process.exitcode)}): {_last_line(log)}"
        ) from None
    finally:
        if process.is_alive():
            process.kill()
            process.join()
        ours.close()
        if process.pid is not None:
            remove_unfinished(folder, process.pid)


def _serve(connection: Connection, log: str, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    with contextlib.suppress(ValueError, OSError):
        # Ctrl-C reaches the whole group: the parent decides, and ends this process in the middle of llama.cpp's work.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 2)
    os.close(file)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)
    try:
        result = function(*arguments, lambda content: connection.send(("report", content)))
        connection.send(("result", result))
    except GgufEvalError as error:
        connection.send(("error", error))


def _exit_reason(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = [
            line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
        failed = [line for line in lines if "GGML_ASSERT" in line or "error" in line.lower()]
        if lines:
            return f"{(failed or lines)[-1]} (log: {log})"
    return f"no log was written (log: {log})"
