"""Scores the choices of items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gguf_eval.llama.library import build_info
from gguf_eval.machine import physical_cores
from gguf_eval.runtime.answer_file import AnswerFile, AnswerKey, answer_path
from gguf_eval.runtime.answers import ComparedAnswers, KeptAnswers
from gguf_eval.runtime.placement import DEFAULT_CONTEXT, open_model
from gguf_eval.runtime.scoring import Score, Scorer
from gguf_eval.runtime.settings import ContextSettings
from gguf_eval.study.jobs import ScoreJob, TaskWork
from gguf_eval.study.workers.asking import ChoiceRequests, chat_encoder, choice_requests
from gguf_eval.study.workers.emit import Emit

Taker = KeptAnswers | ComparedAnswers


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
            with _taker(job, work, _right_requests(work, asked), model.vocab_size) as taker:
                _score_task(work, asked, scorer, taker, emit)
        if job.again:
            emit({"event": "again"})
        for work in job.again:
            asked, _ = choice_requests(work, job.chat, encoder)
            with _taker(job, work, dict(enumerate(work.item_hashes[place] for place in asked)), model.vocab_size) as t:
                _ask_again(work, asked, scorer, t, emit)


@contextmanager
def _taker(job: ScoreJob, work: TaskWork, wanted: dict[int, str], vocabulary: int) -> Iterator[Taker | None]:
    """Takes the rows of the requests that are ``wanted``; None where the job has no use for them."""
    if job.answers is None:
        yield None
        return
    key = AnswerKey(job.answers.reference_sha256, job.answers.reference_settings, work.task_hash)
    kind = KeptAnswers if job.answers.keep else ComparedAnswers
    with AnswerFile(answer_path(Path(job.answers.folder), key)) as file:
        yield kind(file, key, wanted, vocabulary, job.threads or physical_cores())


def _right_requests(work: TaskWork, asked: Mapping[int, ChoiceRequests]) -> dict[int, str]:
    """The item hash of each request that is a right choice, by its number among the requests of all items."""
    found, number = {}, 0
    for place, requests in asked.items():
        found[number + work.prompts[place].right] = work.item_hashes[place]
        number += len(requests)
    return found


def _score_task(
    work: TaskWork, asked: Mapping[int, ChoiceRequests], scorer: Scorer, taker: Taker | None, emit: Emit
) -> None:
    owners = [place for place, requests in asked.items() for _ in requests]
    waiting: dict[int, dict[int, Score]] = {place: {} for place in asked}
    divergences: dict[int, dict[str, Any] | None] = {}
    for done in scorer.stream([request for requests in asked.values() for request in requests], taker):
        rows = []
        for request, score in done.items():
            place = owners[request]
            waiting[place][request] = score
            if taker is not None and request in taker.wanted:
                divergences[place] = _divergence(taker, request)
            if len(waiting[place]) == len(asked[place]):
                parts = waiting.pop(place)
                row = _row(work.item_hashes[place], [parts[r] for r in sorted(parts)])
                rows.append({**row, "divergence": divergences.pop(place, None)})
        if rows:
            emit({"event": "scores", "task": work.task_hash, "rows": rows})


def _ask_again(
    work: TaskWork, asked: Mapping[int, ChoiceRequests], scorer: Scorer, taker: Taker | None, emit: Emit
) -> None:
    """Only the right choice of each item, for what the taker makes of it."""
    places = list(asked)
    requests = [asked[place][work.prompts[place].right] for place in places]
    for done in scorer.stream(requests, taker):
        rows = [
            {"item": work.item_hashes[places[request]], "divergence": _divergence(taker, request) if taker else None}
            for request in done
        ]
        emit({"event": "answers", "task": work.task_hash, "rows": rows})


def _divergence(taker: Taker, request: int) -> dict[str, Any] | None:
    found = taker.finish(request)
    return None if found is None else asdict(found)


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
        "divergence": None,
    }
