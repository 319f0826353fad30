"""Runs a job in a worker process of its own, and says why when it ends badly."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gguf_eval.errors import EngineError, GgufEvalError, UsageError
from gguf_eval.llama.child import how_it_ended, spawn, telling_line
from gguf_eval.llama.patience import ProgressWatch
from gguf_eval.machine import memory_limit_bytes
from gguf_eval.sizes import limit_text
from gguf_eval.study.job import Job, OnEvent, encode_job
from gguf_eval.study.memory_watch import MemoryWatch

Executor = Callable[[Job, Path, OnEvent, Callable[[int], None] | None, Callable[[str], None]], None]
"""Takes a job and gives back its events, as `run_in_worker` does; another may run it elsewhere."""


def run_in_worker(
    job: Job,
    log_path: Path,
    on_event: OnEvent,
    on_memory: Callable[[int], None] | None = None,
    on_warning: Callable[[str], None] = lambda text: None,
) -> None:
    """Run ``job`` to its end; ``on_event`` gets every event but warnings and the last.

    ``on_memory`` is told the bytes the worker takes, now and then, from another thread; ``on_warning`` what llama.cpp
    warns of, which may be told again by the next job.

    llama.cpp's log is appended to ``log_path``. Raises `EngineError` with the reason when the worker fails, crashes,
    hangs (`ProgressWatch`) or is killed, `UsageError` when it was asked for what can't be had. An exception in
    ``on_event``, KeyboardInterrupt included, ends the worker before it goes on.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        size_before = log.tell()
        worker = spawn(["-m", "gguf_eval.study.worker"], log)
        try:
            with (
                MemoryWatch(worker.pid, _memory_limit(job), worker.kill, on_memory) as watch,
                ProgressWatch(worker.pid, worker.kill, log_path) as progress,
            ):
                finished = _converse(worker, job, on_event, on_warning, progress)
                with progress.waiting():
                    status = worker.wait()
        except BaseException:
            worker.kill()
            worker.wait()
            raise
        finally:
            for pipe in (worker.stdin, worker.stdout):
                with contextlib.suppress(OSError):  # what was not sent can't be sent any more
                    if pipe is not None:
                        pipe.close()
    if watch.exceeded_bytes and not finished:
        raise EngineError(_too_much_memory(job, watch.exceeded_bytes))
    if progress.reason and not finished:
        raise EngineError(f"the worker {progress.reason}; its log: {log_path}")
    if not finished:
        raise EngineError(_reason(status, log_path, size_before))


def _converse(
    worker: subprocess.Popen[bytes],
    job: Job,
    on_event: OnEvent,
    on_warning: Callable[[str], None],
    progress: ProgressWatch,
) -> bool:
    """Send the job and pass its events on; return whether the worker said that it is done. Raises what it reports."""
    assert worker.stdin is not None and worker.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # it died at once: its exit status says more
        worker.stdin.write(encode_job(job) + b"\n")
        worker.stdin.flush()
    finished = False
    failure: GgufEvalError | None = None
    while True:
        with progress.waiting():
            line = worker.stdout.readline()
        if not line:
            break
        event = _parsed(line)
        if event is None:
            break  # killed while writing
        if event["event"] == "error":
            failure = (UsageError if event.get("usage") else EngineError)(event["message"])
        elif event["event"] == "done":
            finished = True
        elif event["event"] == "warning":
            on_warning(event["text"])
        else:
            on_event(event)
    if failure:
        raise failure
    with contextlib.suppress(OSError):
        worker.stdin.close()
    return finished


def _memory_limit(job: Job) -> int:
    engine = getattr(job, "engine", None)
    return (engine.max_memory_bytes if engine else None) or memory_limit_bytes()


def _too_much_memory(job: Job, used_bytes: int) -> str:
    engine = getattr(job, "engine", None)
    allowed = "--max-memory" if engine and engine.max_memory_bytes else "this machine's memory"
    return (
        f"the worker was ended when it took {used_bytes / 1e6:.0f} MB, more than {allowed} of "
        f"{limit_text(_memory_limit(job))}; take a lower level, a smaller --ctx or batch, or allow more"
    )


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return event


def _reason(status: int, log_path: Path, start: int) -> str:
    """One line: how the worker ended, and the line of its log that tells most."""
    ended = how_it_ended(status)
    how = f"the worker was ended by {ended}" if status < 0 else f"the worker ended with {ended}"
    if ended == "SIGKILL":
        how += " (out of memory, perhaps)"
    line = telling_line(log_path, start)
    return f"{how}; its log: {log_path}" + (f" ({line})" if line else "")
