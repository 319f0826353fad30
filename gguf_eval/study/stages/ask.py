"""What scoring and generating share: which items are unanswered, how a worker is asked, how its rows are stored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf_eval.study.jobs import HeaderWork, Job, PromptWork, TaskWork
from gguf_eval.study.plan import PlannedPoint
from gguf_eval.study.process import run_in_worker
from gguf_eval.study.records import Outcome
from gguf_eval.study.stages.state import RunState, TaskItems, save_build


def unanswered(state: RunState, point_id: int, kinds: Collection[str]) -> list[TaskItems]:
    """Of each task of these kinds the items that the point has no outcome for."""
    missing = []
    for task_items in state.work:
        if task_items.task.kind in kinds:
            answered = state.study.answered(point_id, task_items.task.hash)
            items = {hash_: item for hash_, item in task_items.items.items() if hash_ not in answered}
            if items:
                missing.append(TaskItems(task_items.task, items))
    return missing


def task_work(task_items: TaskItems) -> TaskWork:
    """The items as a worker gets them, each header once."""
    items = task_items.items
    headers = {header: place for place, header in enumerate(dict.fromkeys(item.header for item in items.values()))}
    return TaskWork(
        task_hash=task_items.task.hash,
        item_hashes=tuple(items),
        prompts=tuple(
            PromptWork(headers[item.header], item.contexts, item.choices, item.gold) for item in items.values()
        ),
        headers=tuple(
            HeaderWork(
                header.description,
                tuple((example.question, example.answer) for example in header.examples),
                header.delimiter,
                header.separator,
            )
            for header in headers
        ),
        delimiter=task_items.task.prompt.delimiter,
    )


def store_as_they_come(
    state: RunState,
    point: PlannedPoint,
    point_id: int,
    missing: Sequence[TaskItems],
    job: Job,
    event_name: str,
    judge: Callable[[TaskItems, Mapping[str, Any]], Outcome],
    log: Path,
    *,
    more: int = 0,
    on_event_too: Callable[[dict[str, Any]], int] = lambda event: 0,
) -> None:
    """Run ``job`` and store what ``judge`` says of every row of its events called ``event_name``.

    ``on_event_too`` is given every event after that, and answers how many of ``more`` further units it finished.
    """
    by_hash = {task_items.task.hash: task_items for task_items in missing}
    names = ", ".join(task_items.task.name for task_items in missing) or "right answers"
    with state.observer.step(f"{point.name}: {names}", sum(len(t.items) for t in missing) + more) as advance:

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == event_name:
                task_items = by_hash[event["task"]]
                outcomes = [judge(task_items, row) for row in event["rows"]]
                state.study.save_outcomes(point_id, task_items.task.hash, outcomes)
                advance(len(outcomes))
            elif event["event"] == "build":
                save_build(state, event, point_id)
            if finished := on_event_too(event):
                advance(finished)

        run_in_worker(job, log, on_event)
