"""Has answers written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf_eval.llama.library import build_info
from gguf_eval.runtime.generation import Generation, GenerationRequest, Generator
from gguf_eval.runtime.placement import DEFAULT_CONTEXT, open_model
from gguf_eval.runtime.settings import ContextSettings
from gguf_eval.study.jobs import GenerateJob, GenerationWork, TaskWork
from gguf_eval.study.workers.asking import chat_encoder, written_prompts
from gguf_eval.study.workers.emit import Emit


def run(job: GenerateJob, emit: Emit) -> None:
    """Do the job in this process."""
    wanted = ContextSettings(n_ctx=job.max_tokens or DEFAULT_CONTEXT, batch_size=job.batch_size)
    with open_model(Path(job.model), job.engine, wanted) as model:
        emit({"event": "build", **build_info()})
        generator = Generator(
            model, max_tokens=job.max_tokens, batch_size=job.batch_size, threads=job.threads, engine=job.engine
        )
        encoder = chat_encoder(job, model, "generation")
        for work, settings in zip(job.tasks, job.settings, strict=True):
            emit({"event": "start", "task": work.task_hash, "items": len(work.prompts)})
            prompts, refused = written_prompts(work, job.chat, encoder)
            if refused:
                unwritten = {place: Generation("", unscored_reason=reason) for place, reason in refused.items()}
                _emit_answers(work, unwritten, emit)
            places = list(prompts)
            stop = settings.stop if encoder is None else settings.chat_stop
            requests = [_request(prompts[place], settings, stop, work.item_hashes[place]) for place in places]
            for done in generator.stream(requests):
                _emit_answers(work, {places[request]: answer for request, answer in done.items()}, emit)


def _request(
    prompt: str | tuple[int, ...], settings: GenerationWork, stop: tuple[str, ...], item_hash: str
) -> GenerationRequest:
    return GenerationRequest(
        prompt=prompt,
        max_tokens=settings.max_tokens,
        stop=stop,
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=_item_seed(settings.seed, item_hash),
    )


def _item_seed(seed: int, item_hash: str) -> int:
    """A seed of the item's own, so that its answer does not depend on which other items are asked."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{item_hash}".encode()).digest()[:8], "big")


def _emit_answers(work: TaskWork, answers: Mapping[int, Generation], emit: Emit) -> None:
    rows = [_row(work.item_hashes[place], answer) for place, answer in answers.items()]
    emit({"event": "answers", "task": work.task_hash, "rows": rows})


def _row(item_hash: str, answer: Generation) -> dict[str, Any]:
    return {
        "item": item_hash,
        "text": answer.text,
        "thought": answer.thought,
        "tokens": len(answer.tokens),
        "finish_reason": answer.finish_reason,
        "seconds": answer.seconds,
        "unscored_reason": answer.unscored_reason,
    }
