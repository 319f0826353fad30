"""Has a point write the answers it has no outcome for, and judges them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf_eval.errors import TaskError
from gguf_eval.llama.bounded import OverLimitError, bounded_call
from gguf_eval.store.database import StudyLookup
from gguf_eval.store.records import Outcome
from gguf_eval.study.events import StagePlan
from gguf_eval.study.job import Emit
from gguf_eval.study.stages.ask import AskJob, TaskWork, ask_fields, plan_asked, store_as_they_come, unanswered
from gguf_eval.study.stages.reference import ModelPoints
from gguf_eval.study.stages.state import Asked, FoundPoint, ReadyPoint, RunState, TaskItems
from gguf_eval.tasks.answers import judge_written
from gguf_eval.tasks.judges.judgement import Judgement, unscored
from gguf_eval.tasks.spec import Generation, Judging

if TYPE_CHECKING:
    from gguf_eval.runtime.generation import GenerationRequest, Written

KINDS = ("generation",)
"""Of tasks whose answers are written."""


@dataclass(frozen=True)
class GenerateJob(AskJob):
    """Have answers written. Events: ``build``, ``start``, ``outcomes``."""

    settings: tuple[Generation, ...] = ()
    """One for each task."""


def plan(asked: Asked, point: FoundPoint, model: ModelPoints[FoundPoint], lookup: StudyLookup) -> list[StagePlan]:
    """A stage for each task."""
    return plan_asked("generate", KINDS, asked, point, lookup)


def run(state: RunState, point: ReadyPoint, model: ModelPoints[ReadyPoint]) -> None:
    """Have the missing answers of every generation task written; each is stored when it is finished."""
    missing = unanswered(state, point.id, KINDS)
    if missing:
        settings = tuple(task_items.task.generation or Generation() for task_items in missing)
        job = GenerateJob(**ask_fields(state, point, missing), settings=settings)
        store_as_they_come(state, point, "generate", missing, job, outcome)


def outcome(task_items: TaskItems, row: Mapping[str, Any]) -> Outcome:
    """Judge one row of a worker's ``outcomes`` event; a truncated answer is judged and keeps its finish reason.

    Only what follows a thought is judged and stored; of an answer that broke off inside it, the thought.
    """
    item, task = task_items.items[row["item"]], task_items.task
    written = {
        "text": row["text"],
        "finish_reason": row["finish_reason"],
        "seconds": row["seconds"],
    }
    tokens = (row["tokens"],)
    if row["unscored_reason"] is not None:
        begun = {**written, "text": row["text"] or row["thought"]} if row["finish_reason"] else {}
        return Outcome(item.hash, None, None, {}, (), tokens, 0, row["unscored_reason"], **begun)
    assert task.judge is not None
    judgement = _judge(task.judge, row["text"], row["finish_reason"] == "stop", item.references)
    if judgement.value is None:
        reason = judgement.unscored_reason or "no answer could be extracted"
        return Outcome(item.hash, None, None, {}, (), tokens, 0, reason, **written)
    absent = [metric for metric in task.metrics if metric not in judgement.metrics]
    if absent:
        known = ", ".join(judgement.metrics)
        raise TaskError(f"{task.path}: the judge '{task.judge.name}' gives no metric '{absent[0]}' (known: {known})")
    return Outcome(
        item_hash=item.hash,
        value=judgement.metrics[task.metric],
        answer=None,
        metrics={metric: judgement.metrics[metric] for metric in task.metrics},
        logprobs=(),
        token_counts=tokens,
        extracted=judgement.extracted,
        **written,
    )


def _judge(judge: Judging, text: str, stopped: bool, references: Sequence[Any]) -> Judgement:
    """What the judge says; where it fails, or takes too much, the answer is unscored."""
    try:
        return bounded_call(judge_written, judge.name, text, stopped, references, judge.options)
    except OverLimitError as error:
        return unscored(f"the judge '{judge.name}' was stopped: {error}")
    except Exception as error:
        return unscored(f"the judge '{judge.name}' failed: {error}")


def work(job: GenerateJob, emit: Emit) -> None:
    """The worker's side."""
    from gguf_eval.llama.library import build_info
    from gguf_eval.runtime.generation import Generator, Written
    from gguf_eval.runtime.placement import DEFAULT_CONTEXT, open_model
    from gguf_eval.runtime.settings import ContextSettings
    from gguf_eval.study.stages.asking import chat_encoder, written_prompts

    wanted = ContextSettings(n_ctx=job.max_tokens or DEFAULT_CONTEXT, batch_size=job.batch_size)
    with open_model(Path(job.model), job.engine, wanted) as model:
        emit({"event": "build", **build_info()})
        generator = Generator(
            model, max_tokens=job.max_tokens, batch_size=job.batch_size, threads=job.threads, engine=job.engine
        )
        encoder = chat_encoder(Path(job.model), job.chat, model, "generation")
        for task, settings in zip(job.tasks, job.settings, strict=True):
            emit({"event": "start", "task": task.task_hash, "items": len(task.prompts)})
            prompts, refused = written_prompts(task, job.chat, encoder)
            if refused:
                unwritten = {place: Written("", unscored_reason=reason) for place, reason in refused.items()}
                _emit_answers(task, unwritten, emit)
            places = list(prompts)
            in_chat = encoder is not None and settings.chat_stop is not None
            stop = settings.chat_stop if in_chat else settings.stop
            requests = [_request(prompts[place], settings, stop or (), task.item_hashes[place]) for place in places]
            for done in generator.stream(requests):
                _emit_answers(task, {places[request]: answer for request, answer in done.items()}, emit)


def _request(
    prompt: str | tuple[int, ...], settings: Generation, stop: tuple[str, ...], item_hash: str
) -> GenerationRequest:
    from gguf_eval.runtime.generation import GenerationRequest

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


def _emit_answers(task: TaskWork, answers: Mapping[int, Written], emit: Emit) -> None:
    rows = [_row(task.item_hashes[place], answer) for place, answer in answers.items()]
    emit({"event": "outcomes", "task": task.task_hash, "rows": rows})


def _row(item_hash: str, answer: Written) -> dict[str, Any]:
    return {
        "item": item_hash,
        "text": answer.text,
        "thought": answer.thought,
        "tokens": len(answer.tokens),
        "finish_reason": answer.finish_reason,
        "seconds": answer.seconds,
        "unscored_reason": answer.unscored_reason,
    }
