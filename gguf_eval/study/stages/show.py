"""What a model would be asked, token by token as it would get it, before a run. No weights are loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf_eval.runtime.settings import ChatSettings
from gguf_eval.study.job import Emit
from gguf_eval.study.process import run_in_worker
from gguf_eval.study.stages.ask import TaskWork, task_work
from gguf_eval.study.stages.state import TaskItems
from gguf_eval.tasks.prompts import Item
from gguf_eval.tasks.spec import Task

if TYPE_CHECKING:
    from gguf_eval.runtime.model import Model
    from gguf_eval.runtime.vocabulary import Vocabulary
    from gguf_eval.study.stages.asking import ChoiceRequests


@dataclass(frozen=True)
class Shown:
    """A text as a model's vocabulary spells it."""

    text: str
    """Control tokens stand between ⟦ and ⟧."""
    tokens: int


@dataclass(frozen=True)
class AskedItem:
    """One item as a model would get it."""

    prompts: tuple[Shown, ...]
    """One, or one for each choice where they differ."""
    answers: tuple[Shown, ...]
    """The choices as they are scored."""
    unscored_reason: str | None
    """Why the item can't be asked."""


@dataclass(frozen=True)
class ShowJob:
    """Say what a model would be asked; nothing is computed. Events: ``prompts``."""

    model: str
    work: TaskWork
    task_kind: str
    chat: ChatSettings


def preview(
    task: Task,
    items: Sequence[Item],
    model: Path,
    chat: ChatSettings,
    on_warning: Callable[[str], None] = lambda text: None,
) -> list[AskedItem]:
    """Have a worker put ``items`` to ``model`` without computing anything; raises as `run_in_worker` does.

    ``on_warning`` is told what llama.cpp warns of.
    """
    work = task_work(TaskItems(task, {item.hash: item for item in items}))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        job = ShowJob(str(model), work, task.kind, chat)
        run_in_worker(job, Path(folder) / "show.log", lambda event: rows.extend(event["rows"]), None, on_warning)
    return [
        AskedItem(
            tuple(Shown(**prompt) for prompt in row["prompts"]),
            tuple(Shown(**answer) for answer in row["answers"]),
            row["unscored_reason"],
        )
        for row in rows
    ]


def work(job: ShowJob, emit: Emit) -> None:
    """The worker's side."""
    from gguf_eval.runtime.model import Model
    from gguf_eval.runtime.vocabulary import Vocabulary
    from gguf_eval.study.stages.asking import chat_encoder, choice_requests, written_prompts

    with Model(Path(job.model), no_alloc=True) as model:
        vocabulary = Vocabulary(model)
        encoder = chat_encoder(Path(job.model), job.chat, model, job.task_kind)
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
    from gguf_eval.runtime.scoring import TokenRequest, encode_pair

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
