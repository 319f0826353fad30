"""Asks a point the choices of the items it has no outcome for, and judges what it says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf_eval.files.model_file import ModelFile
from gguf_eval.study.jobs import ScoreJob
from gguf_eval.study.plan import PlannedPoint
from gguf_eval.study.records import Outcome
from gguf_eval.study.stages.ask import store_as_they_come, task_work, unanswered
from gguf_eval.study.stages.state import RunState, TaskItems
from gguf_eval.tasks.metrics import ChoiceScores, is_finite, picks, values


def score(state: RunState, point: PlannedPoint, point_id: int, file: ModelFile, log: Path) -> None:
    """Score what is missing of every task of choices or continuations; outcomes are stored as they come."""
    missing = unanswered(state, point_id, ("choice", "continuation"))
    if not missing:
        return
    job = ScoreJob(
        model=str(file.path),
        tasks=tuple(task_work(task_items) for task_items in missing),
        max_tokens=state.request.ctx,
        batch_size=state.request.batch_size,
        threads=state.request.threads,
        engine=point.engine,
        chat=state.request.chat,
    )
    store_as_they_come(state, point, point_id, missing, job, "scores", outcome, log)


def outcome(task_items: TaskItems, row: Mapping[str, Any]) -> Outcome:
    """Judge one row of a worker's ``scores`` event."""
    item, task = task_items.items[row["item"]], task_items.task
    scores = ChoiceScores(
        tuple(row["logprobs"]), tuple(row["token_counts"]), tuple(len(choice) for choice in item.choices)
    )
    reason = row["unscored_reason"]
    if reason is None and not is_finite(scores):
        reason = "a log-likelihood is not a finite number: the model's output is broken"
    if reason is not None:
        return Outcome(item.hash, None, None, {}, (), scores.token_counts, row["truncated_tokens"], reason)
    if task.kind == "continuation":
        answer, found = 0, {"acc": float(row["greedy"][0])}
    else:
        answer, found = picks(scores)[task.metric], values(scores, item.golds)
    return Outcome(
        item_hash=item.hash,
        value=found[task.metric],
        answer=answer,
        metrics={metric: found[metric] for metric in task.metrics},
        logprobs=scores.logprobs,
        token_counts=scores.token_counts,
        truncated_tokens=row["truncated_tokens"],
    )
