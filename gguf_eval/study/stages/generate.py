"""Has a point write the answers it has no outcome for, and judges them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gguf_eval.errors import TaskError
from gguf_eval.store.records import Outcome
from gguf_eval.study.jobs import GenerateJob, GenerationWork
from gguf_eval.study.stages.ask import store_as_they_come, task_work, unanswered
from gguf_eval.study.stages.state import ReadyPoint, RunState, TaskItems
from gguf_eval.tasks.answers import judge_answer
from gguf_eval.tasks.judges.judgement import cut
from gguf_eval.tasks.spec import Generation, Task

CUT_BEFORE_IT_BEGAN = "a stop string ended the answer before it began"
"""Not a wrong answer: the task's stop strings kept the model from giving one, perhaps after "The answer is:"."""


def generate(state: RunState, point: ReadyPoint) -> None:
    """Have the missing answers of every generation task written; each is stored when it is finished."""
    missing = unanswered(state, point.id, ("generation",))
    if not missing:
        return
    job = GenerateJob(
        model=str(point.file.path),
        tasks=tuple(task_work(task_items) for task_items in missing),
        settings=tuple(_settings(task_items.task) for task_items in missing),
        max_tokens=state.request.ctx,
        batch_size=state.request.batch_size,
        threads=state.request.threads,
        engine=point.planned.engine,
        chat=state.request.chat,
    )
    store_as_they_come(state, point, missing, job, "answers", outcome)


def outcome(task_items: TaskItems, row: Mapping[str, Any]) -> Outcome:
    """Judge one row of a worker's ``answers`` event; a truncated answer is judged and keeps its finish reason.

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
    if row["finish_reason"] == "stop" and not cut(row["text"], task.judge.options).strip():
        return Outcome(item.hash, None, None, {}, (), tokens, 0, CUT_BEFORE_IT_BEGAN, **written)
    judgement = judge_answer(task.judge.name, row["text"], item.references, task.judge.options)
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


def _settings(task: Task) -> GenerationWork:
    how = task.generation or Generation()
    chat_stop = how.stop if how.chat_stop is None else how.chat_stop
    return GenerationWork(how.max_tokens, how.stop, how.temperature, how.top_p, how.seed, chat_stop)
