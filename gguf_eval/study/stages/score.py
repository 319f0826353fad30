"""Asks a point the choices of the items it has no outcome for, and judges what it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf_eval.files.cache import cache_dir
from gguf_eval.runtime.answers import NOT_KEPT, AnswerDivergence
from gguf_eval.runtime.rows import NOT_FINITE
from gguf_eval.store.records import Outcome
from gguf_eval.study.jobs import AnswersWork, ScoreJob
from gguf_eval.study.stages.ask import store_as_they_come, task_work, unanswered
from gguf_eval.study.stages.reference import KINDS, Reference, items_kept, uncompared, unkept
from gguf_eval.study.stages.state import ReadyPoint, RunState, TaskItems
from gguf_eval.tasks.metrics import ChoiceScores, is_finite, picks, values


def score(state: RunState, point: ReadyPoint, reference: Reference, all_points: Sequence[ReadyPoint]) -> None:
    """Score what is missing of every task of choices or continuations; outcomes are stored as they come.

    Beside it, what is needed of the reference's distributions over right answers is kept, and the others of its model
    are compared with that.
    """
    missing = unanswered(state, point.id, KINDS)
    folder = cache_dir(state.request.cache) / "references"
    others = [p.id for p in all_points if p.planned.model == point.planned.model and p.id != reference.id]
    keep = point.id == reference.id
    answers = AnswersWork(str(folder), reference.sha256, reference.settings, keep) if others else None
    again = without_divergence(state, point, reference, others, folder) if answers else []
    if not missing and not again:
        return
    job = ScoreJob(
        model=str(point.file.path),
        tasks=tuple(task_work(task_items) for task_items in missing),
        max_tokens=state.request.ctx,
        batch_size=state.request.batch_size,
        threads=state.request.threads,
        engine=point.planned.engine,
        chat=state.request.chat,
        answers=answers,
        again=tuple(task_work(task_items) for task_items in again),
    )
    not_kept: Counter[str] = Counter()

    def on_event_too(event: dict[str, Any]) -> int:
        if event["event"] in ("scores", "answers") and not keep:
            found = {r["item"]: AnswerDivergence(**r["divergence"]) for r in event["rows"] if r["divergence"]}
            known = {item: one for item, one in found.items() if one.reason != NOT_KEPT}
            not_kept[event["task"]] += len(found) - len(known)
            state.study.save_divergences(point.id, reference.id, event["task"], known)
        return len(event["rows"]) if event["event"] == "answers" else 0

    store_as_they_come(
        state, point, missing, job, "scores", outcome,
        more=sum(len(task_items.items) for task_items in again), on_event_too=on_event_too,
    )  # fmt: skip
    names = {task_items.task.hash: task_items.task.name for task_items in state.work}
    for task, count in not_kept.items():
        if count:
            state.observer.note(
                f"{point.planned.name}: no KL divergence from {reference.label} on {count} answers of {names[task]}: "
                f"{NOT_KEPT}"
            )


def without_divergence(
    state: RunState, point: ReadyPoint, reference: Reference, candidates: Sequence[int], folder: Path
) -> list[TaskItems]:
    """Scored items of which the right answer must be asked again for the divergences that are lacking."""
    found = []
    for task_items in state.work:
        task, items = task_items.task, task_items.items
        if task.kind not in KINDS:
            continue
        kept = items_kept(folder, reference.sha256, reference.settings, task.hash)
        if point.id == reference.id:
            wanted = unkept(state.study, reference.id, candidates, task.hash, items, kept)
        else:
            wanted = uncompared(state.study, point.id, reference.id, task.hash, kept)
        left = {hash_: item for hash_, item in items.items() if hash_ in wanted}
        if left:
            found.append(TaskItems(task, left))
    return found


def outcome(task_items: TaskItems, row: Mapping[str, Any]) -> Outcome:
    """Judge one row of a worker's ``scores`` event."""
    item, task = task_items.items[row["item"]], task_items.task
    scores = ChoiceScores(
        tuple(row["logprobs"]), tuple(row["token_counts"]), tuple(len(choice) for choice in item.choices)
    )
    reason = row["unscored_reason"]
    if reason is None and not is_finite(scores):
        reason = NOT_FINITE
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
