"""Scores the choices of items."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf_eval.runtime.bindings import build_info
from gguf_eval.runtime.model import ContextSettings
from gguf_eval.runtime.placement import DEFAULT_CONTEXT, open_model
from gguf_eval.runtime.scoring import Score, Scorer
from gguf_eval.study.jobs import ScoreJob, TaskWork
from gguf_eval.study.workers.asking import ChoiceRequests, chat_encoder, choice_requests
from gguf_eval.study.workers.emit import Emit


def run(job: ScoreJob, emit: Emit) -> None:
    """Do the job in this process."""
    wanted = ContextSettings(n_ctx=job.max_tokens or DEFAULT_CONTEXT, batch_size=job.batch_size)
    with open_model(Path(job.model), job.engine, wanted) as model:
        emit({"event": "build", **build_info()})
        scorer = Scorer(
            model, max_tokens=job.max_tokens, batch_size=job.batch_size, threads=job.threads, engine=job.engine
        )
        encoder = chat_encoder(job, model, "choice")
        for work in job.tasks:
            emit({"event": "start", "task": work.task_hash, "items": len(work.prompts)})
            asked, refused = choice_requests(work, job.chat, encoder)
            if refused:
                rows = [_refused_row(work.item_hashes[place], reason) for place, reason in refused.items()]
                emit({"event": "scores", "task": work.task_hash, "rows": rows})
            _score_task(work, asked, scorer, emit)


def _score_task(work: TaskWork, asked: Mapping[int, ChoiceRequests], scorer: Scorer, emit: Emit) -> None:
    owners = [place for place, requests in asked.items() for _ in requests]
    waiting: dict[int, dict[int, Score]] = {place: {} for place in asked}
    for done in scorer.stream([request for requests in asked.values() for request in requests]):
        rows = []
        for request, score in done.items():
            place = owners[request]
            waiting[place][request] = score
            if len(waiting[place]) == len(asked[place]):
                parts = waiting.pop(place)
                rows.append(_row(work.item_hashes[place], [parts[r] for r in sorted(parts)]))
        if rows:
            emit({"event": "scores", "task": work.task_hash, "rows": rows})


def _row(item_hash: str, parts: list[Score]) -> dict[str, Any]:
    reasons = [part.unscored_reason for part in parts if part.unscored_reason]
    return {
        "item": item_hash,
        "logprobs": [part.logprob for part in parts],
        "greedy": [part.greedy for part in parts],
        "token_counts": [len(part.token_logprobs) for part in parts],
        "truncated_tokens": max(part.truncated_tokens for part in parts),
        "unscored_reason": reasons[0] if reasons else None,
    }


def _refused_row(item_hash: str, reason: str) -> dict[str, Any]:
    return {
        "item": item_hash,
        "logprobs": [],
        "greedy": [],
        "token_counts": [],
        "truncated_tokens": 0,
        "unscored_reason": reason,
    }
