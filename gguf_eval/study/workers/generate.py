"""Has answers written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from gguf_eval.runtime.bindings import build_info
from gguf_eval.runtime.chat import ChatEncoder
from gguf_eval.runtime.generation import Generation, GenerationRequest, Generator
from gguf_eval.runtime.model import ContextSettings
from gguf_eval.runtime.placement import DEFAULT_CONTEXT, open_model
from gguf_eval.runtime.settings import ChatSettings
from gguf_eval.study.jobs import GenerateJob, GenerationWork, TaskWork
from gguf_eval.study.workers.asking import chat_encoder, messages
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
            for done in generator.stream(_requests(work, settings, job.chat, encoder)):
                rows = [_row(work.item_hashes[place], answer) for place, answer in done.items()]
                emit({"event": "answers", "task": work.task_hash, "rows": rows})


def _requests(
    work: TaskWork, settings: GenerationWork, chat: ChatSettings, encoder: ChatEncoder | None
) -> list[GenerationRequest]:
    return [
        GenerationRequest(
            prompt=encoder.prompt(messages(work.headers[prompt.header], prompt.contexts[0], chat))
            if encoder
            else work.headers[prompt.header].text + prompt.contexts[0],
            max_tokens=settings.max_tokens,
            stop=settings.stop,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=_item_seed(settings.seed, item_hash),
        )
        for prompt, item_hash in zip(work.prompts, work.item_hashes, strict=True)
    ]


def _item_seed(seed: int, item_hash: str) -> int:
    """A seed of the item's own, so that its answer does not depend on which other items are asked."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{item_hash}".encode()).digest()[:8], "big")


def _row(item_hash: str, answer: Generation) -> dict[str, Any]:
    return {
        "item": item_hash,
        "text": answer.text,
        "tokens": len(answer.tokens),
        "finish_reason": answer.finish_reason,
        "seconds": answer.seconds,
        "unscored_reason": answer.unscored_reason,
    }
