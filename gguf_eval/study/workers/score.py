"""Scores the choices of items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gguf_eval.runtime.bindings import build_info
from gguf_eval.runtime.chat import ChatEncoder
from gguf_eval.runtime.model import ContextSettings
from gguf_eval.runtime.placement import DEFAULT_CONTEXT, open_model
from gguf_eval.runtime.scoring import Request, Score, Scorer, TokenRequest
from gguf_eval.runtime.settings import ChatSettings
from gguf_eval.study.jobs import ScoreJob, TaskWork
from gguf_eval.study.workers.asking import chat_encoder, messages
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
            requests = _chat_requests(work, job.chat, encoder) if encoder else _requests(work)
            _score_task(work, requests, scorer, emit)


def _requests(work: TaskWork) -> list[Request]:
    headers = [header.text for header in work.headers]
    return [
        Request(headers[prompt.header] + prompt.contexts[i if len(prompt.contexts) > 1 else 0], work.delimiter + choice)
        for prompt in work.prompts
        for i, choice in enumerate(prompt.choices)
    ]


def _chat_requests(work: TaskWork, chat: ChatSettings, encoder: ChatEncoder) -> list[TokenRequest]:
    """Answers follow the assistant's header, with the template's delimiter in place of the task's."""
    requests = []
    for prompt in work.prompts:
        header = work.headers[prompt.header]
        asked = [encoder.prompt(messages(header, context, chat)) for context in prompt.contexts]
        for i, choice in enumerate(prompt.choices):
            requests.append(TokenRequest(asked[i if len(asked) > 1 else 0], encoder.answer(choice)))
    return requests


def _score_task(work: TaskWork, requests: Sequence[Request | TokenRequest], scorer: Scorer, emit: Emit) -> None:
    owners = [item for item, prompt in enumerate(work.prompts) for _ in prompt.choices]
    waiting: list[dict[int, Score]] = [{} for _ in work.prompts]
    for done in scorer.stream(requests):
        rows = []
        for request, score in done.items():
            item = owners[request]
            waiting[item][request] = score
            if len(waiting[item]) == len(work.prompts[item].choices):
                rows.append(_row(work.item_hashes[item], [waiting[item][r] for r in sorted(waiting[item])]))
                waiting[item] = {}
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
