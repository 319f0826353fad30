"""The worker process: one job from standard input, its results as JSON lines on standard output.

Run as ``python -m gguf_eval.study.worker``. Standard error is llama.cpp's log. The worker ends when its standard input
is closed, so that it never outlives a parent that was killed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from gguf_eval.errors import GgufEvalError
from gguf_eval.study.jobs import Job, QuantizeJob, ScoreJob, SpeedJob, TaskWork, from_document

Emit = Callable[[dict[str, Any]], None]


def main() -> None:
    """Run the job; the last event is ``done``, or ``error`` with a message."""
    results = _take_stdout()

    def emit(event: dict[str, Any]) -> None:
        results.write(json.dumps(event) + "\n")
        results.flush()

    job = from_document(json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        run_job(job, emit)
        emit({"event": "done"})
    except GgufEvalError as error:
        emit({"event": "error", "message": str(error)})
        sys.exit(1)
    except MemoryError:
        emit({"event": "error", "message": "out of memory; free some, or take a smaller model, context or batch"})
        sys.exit(1)


def run_job(job: Job, emit: Emit) -> None:
    """Do one job in this process."""
    if isinstance(job, ScoreJob):
        _score(job, emit)
    elif isinstance(job, SpeedJob):
        _speed(job, emit)
    elif isinstance(job, QuantizeJob):
        _quantize(job)
    else:
        from gguf_eval.runtime.bindings import build_info

        emit({"event": "build", **build_info()})


def _take_stdout() -> TextIO:
    """Keep standard output for results: whatever else prints there goes to standard error."""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return results


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(3)


def _score(job: ScoreJob, emit: Emit) -> None:
    from gguf_eval.runtime.bindings import build_info
    from gguf_eval.runtime.model import Model
    from gguf_eval.runtime.scoring import Scorer

    with Model(Path(job.model), gpu_layers=job.gpu_layers) as model:
        emit({"event": "build", **build_info()})
        scorer = Scorer(model, max_tokens=job.max_tokens, batch_size=job.batch_size, threads=job.threads)
        for work in job.tasks:
            emit({"event": "start", "task": work.task_hash, "items": len(work.pairs)})
            _score_task(work, scorer, emit)


def _score_task(work: TaskWork, scorer: Any, emit: Emit) -> None:
    from gguf_eval.runtime.scoring import Request, Score

    requests = [Request(*pair) for pairs in work.pairs for pair in pairs]
    owners = [item for item, pairs in enumerate(work.pairs) for _ in pairs]
    waiting: list[dict[int, Score]] = [{} for _ in work.pairs]
    for done in scorer.stream(requests):
        rows = []
        for request, score in done.items():
            item = owners[request]
            waiting[item][request] = score
            if len(waiting[item]) == len(work.pairs[item]):
                rows.append(_row(work.item_hashes[item], [waiting[item][r] for r in sorted(waiting[item])]))
                waiting[item] = {}
        if rows:
            emit({"event": "scores", "task": work.task_hash, "rows": rows})


def _row(item_hash: str, parts: list[Any]) -> dict[str, Any]:
    reasons = [part.unscored_reason for part in parts if part.unscored_reason]
    return {
        "item": item_hash,
        "logprobs": [part.logprob for part in parts],
        "token_counts": [len(part.token_logprobs) for part in parts],
        "truncated_tokens": max(part.truncated_tokens for part in parts),
        "unscored_reason": reasons[0] if reasons else None,
    }


def _speed(job: SpeedJob, emit: Emit) -> None:
    from gguf_eval.runtime.bindings import build_info
    from gguf_eval.runtime.memory import peak_rss_bytes
    from gguf_eval.runtime.model import ContextSettings, Model
    from gguf_eval.runtime.speed import measure_speed

    build = build_info()
    before, method = peak_rss_bytes()
    with Model(Path(job.model), gpu_layers=job.gpu_layers) as model:
        emit({"event": "build", **build})
        settings = ContextSettings(n_ctx=min(job.n_ctx, model.trained_context), threads=job.threads)
        with model.open_context(settings) as context:
            for sample in measure_speed(
                context,
                prompt_tokens=min(job.prompt_tokens, settings.n_ctx),
                generated_tokens=min(job.generated_tokens, settings.n_ctx),
                repetitions=job.repetitions,
            ):
                emit({"event": "sample", **sample.__dict__})
            peak, method = peak_rss_bytes()
    memory = {"peak_rss": (peak, method), "rss_before_load": (before, method)}
    emit({"event": "memory", "memory": memory})


def _quantize(job: QuantizeJob) -> None:
    from gguf_eval.files.quantize import quantize
    from gguf_eval.runtime.bindings import library

    library()  # sends llama.cpp's log to standard error
    quantize(Path(job.source), Path(job.output), job.level, allow_requantize=job.allow_requantize, threads=job.threads)


if __name__ == "__main__":
    main()
