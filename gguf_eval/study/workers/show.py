"""Says what a model would be asked, token by token as it would get it. No weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gguf_eval.runtime.model import Model
from gguf_eval.runtime.scoring import TokenRequest, encode_pair
from gguf_eval.runtime.vocabulary import Vocabulary
from gguf_eval.study.jobs import ShowJob
from gguf_eval.study.workers.asking import ChoiceRequests, chat_encoder, choice_requests, written_prompts
from gguf_eval.study.workers.emit import Emit


def run(job: ShowJob, emit: Emit) -> None:
    """Do the job in this process."""
    with Model(Path(job.model), no_alloc=True) as model:
        vocabulary = Vocabulary(model)
        encoder = chat_encoder(job, model, job.task_kind)
        rows = {}
        if job.task_kind == "generation":
            prompts, refused = written_prompts(job.work, job.chat, encoder)
            for place, prompt in prompts.items():
                tokens = model.tokenize(prompt) if isinstance(prompt, str) else prompt
                rows[place] = _row([_shown(vocabulary, tokens)], [])
        else:
            asked, refused = choice_requests(job.work, job.chat, encoder)
            for place, requests in asked.items():
                rows[place] = _choices_row(model, vocabulary, requests)
        for place, reason in refused.items():
            rows[place] = _row([], [], reason)
        emit(
            {
                "event": "prompts",
                "rows": [{"item": job.work.item_hashes[place], **rows[place]} for place in sorted(rows)],
            }
        )


def _choices_row(model: Model, vocabulary: Vocabulary, requests: ChoiceRequests) -> dict[str, Any]:
    """A prompt that all choices have is listed once."""
    pairs = [
        (list(request.context), list(request.continuation))
        if isinstance(request, TokenRequest)
        else encode_pair(model, request.context, request.continuation)
        for request in requests
    ]
    contexts = [context for context, _ in pairs]
    if all(context == contexts[0] for context in contexts):
        contexts = contexts[:1]
    return _row(
        [_shown(vocabulary, context) for context in contexts],
        [_shown(vocabulary, continuation) for _, continuation in pairs],
    )


def _shown(vocabulary: Vocabulary, tokens: Sequence[int]) -> dict[str, Any]:
    return {"text": vocabulary.spelt_out(tokens), "tokens": len(tokens)}


def _row(
    prompts: list[dict[str, Any]], answers: list[dict[str, Any]], unscored_reason: str | None = None
) -> dict[str, Any]:
    return {"prompts": prompts, "answers": answers, "unscored_reason": unscored_reason}
