"""The worker process: one job from standard input, its results as JSON lines on standard output.

Run as ``python -m gguf_eval.study.worker``. Standard error is llama.cpp's log. The worker ends when its standard input
is closed, so that it never outlives a parent that was killed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any, TextIO

from gguf_eval.errors import GgufEvalError, UsageError
from gguf_eval.llama.log import take_warnings
from gguf_eval.study.job import Emit, Job, decode_job, do


def main() -> None:
    """Run the job; the last event is ``done``, or ``error`` with a message."""
    results = _take_stdout()

    def emit(event: dict[str, Any]) -> None:
        results.write(json.dumps(event) + "\n")
        results.flush()

    job = decode_job(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        run_job(job, emit)
        emit({"event": "done"})
    except GgufEvalError as error:
        emit({"event": "error", "message": str(error), "usage": isinstance(error, UsageError)})
        sys.exit(1)
    except MemoryError:
        emit({"event": "error", "message": "out of memory; free some, or take a smaller model, context or batch"})
        sys.exit(1)


def run_job(job: Job, emit: Emit) -> None:
    """Do one job in this process.

    What llama.cpp has warned of meanwhile goes before each of its events, as a ``warning``.
    """

    def emit_with_warnings(event: dict[str, Any]) -> None:
        for text in take_warnings():
            emit({"event": "warning", "text": text})
        emit(event)

    do(job, emit_with_warnings)


def _take_stdout() -> TextIO:
    """Keep standard output for results: whatever else prints there goes to standard error."""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return results


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(3)


if __name__ == "__main__":
    main()
