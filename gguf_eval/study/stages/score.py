"""Asks a point the items it has no outcome for, and judges what it says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf_eval.files.model_file import ModelFile
from gguf_eval.study.jobs import ScoreJob, TaskWork
from gguf_eval.study.plan import PlannedPoint
from gguf_eval.study.process import run_in_worker
from gguf_eval.study.records import Outcome
from gguf_eval.study.stages.state import RunState, TaskItems, save_build
from gguf_eval.tasks.metrics import ChoiceScores, is_finite, picks


def score(state: RunState, point: PlannedPoint, point_id: int, file: ModelFile, log: Path) -> None:
    """Score what is missing of every task; outcomes are stored as they come."""
    missing = []
    for task_items in state.work:
        answered = state.study.answered(point_id, task_items.task.hash)
        items = {hash_: item for hash_, item in task_items.items.items() if hash_ not in answered}
        if items:
            missing.append(TaskItems(task_items.task, items))
    if not missing:
        return
    job = ScoreJob(
        model=str(file.path),
        tasks=tuple(_task_work(task_items) for task_items in missing),
        max_tokens=state.request.ctx,
        batch_size=state.request.batch_size,
        threads=state.request.threads,
        engine=point.engine,
    )
    by_hash = {task_items.task.hash: task_items for task_items in missing}
    names = ", ".join(task_items.task.name for task_items in missing)
    with state.observer.step(f"{point.name}: {names}", sum(len(t.items) for t in missing)) as advance:

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "scores":
                task_items = by_hash[event["task"]]
                outcomes = [outcome(task_items, row) for row in event["rows"]]
                state.study.save_outcomes(point_id, task_items.task.hash, outcomes)
                advance(len(outcomes))
            elif event["event"] == "build":
                save_build(state, event)

        run_in_worker(job, log, on_event)


def outcome(task_items: TaskItems, row: Mapping[str, Any]) -> Outcome:
    """Judge one row of a worker's ``scores`` event."""
    item = task_items.items[row["item"]]
    scores = ChoiceScores(
        tuple(row["logprobs"]), tuple(row["token_counts"]), tuple(len(choice) for choice in item.choices)
    )
    reason = row["unscored_reason"]
    if reason is None and not is_finite(scores):
        reason = "a log-likelihood is not a finite number: the model's output is broken"
    if reason is not None:
        return Outcome(item.hash, None, None, {}, (), scores.token_counts, row["truncated_tokens"], reason)
    chosen = {metric: pick for metric, pick in picks(scores).items() if metric in task_items.task.metrics}
    metrics = {metric: float(pick == item.gold) for metric, pick in chosen.items()}
    return Outcome(
        item_hash=item.hash,
        value=metrics[task_items.task.metric],
        answer=chosen[task_items.task.metric],
        metrics=metrics,
        logprobs=scores.logprobs,
        token_counts=scores.token_counts,
        truncated_tokens=row["truncated_tokens"],
    )


def _task_work(task_items: TaskItems) -> TaskWork:
    items = task_items.items
    return TaskWork(
        task_hash=task_items.task.hash,
        item_hashes=tuple(items),
        pairs=tuple(tuple(item.pair(i) for i in range(len(item.choices))) for item in items.values()),
    )
