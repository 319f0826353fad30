"""What scoring and generating share: which items are unanswered, how a worker is asked, how its rows are stored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf_eval.study.events import Advanced, StageBegan, StageEnded, StageKind, counted
from gguf_eval.study.jobs import HeaderWork, Job, PromptWork, TaskWork
from gguf_eval.study.plan import PlannedPoint
from gguf_eval.study.records import Outcome
from gguf_eval.study.stages.state import RunState, TaskItems, run_job, save_build

_AGAIN = "right answers"
"""The stage in which right answers are asked again for their divergence."""


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

    The worker does one task after the other; each is a stage of its own to the observer. ``on_event_too`` is given
    every event after that, and answers how many of ``more`` right answers it finished that are asked again.
    """
    by_hash = {task_items.task.hash: task_items for task_items in missing}
    kind: StageKind = "generate" if job.kind == "generate" else "score"
    tell = state.observer.tell
    current = ""

    def begin(name: str, units: int) -> None:
        nonlocal current
        if name != current:
            if current:
                tell(StageEnded(point.name, kind, current))
            current = name
            tell(StageBegan(point.name, kind, name, units))

    def begin_task(task_items: TaskItems) -> None:
        begin(task_items.task.name, len(task_items.items))

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == event_name:
            task_items = by_hash[event["task"]]
            outcomes = [judge(task_items, row) for row in event["rows"]]
            state.study.save_outcomes(point_id, task_items.task.hash, outcomes)
            tally = counted(outcome.value for outcome in outcomes)
            tell(Advanced(point.name, kind, task_items.task.name, len(outcomes), tally))
        elif event["event"] == "start":
            begin_task(by_hash[event["task"]])
        elif event["event"] == "build":
            save_build(state, event, point_id)
        if finished := on_event_too(event):
            begin(_AGAIN, more)
            tell(Advanced(point.name, kind, _AGAIN, finished))

    if missing:
        begin_task(missing[0])
    else:
        begin(_AGAIN, more)
    run_job(state, point, job, log, on_event)
    tell(StageEnded(point.name, kind, current))
