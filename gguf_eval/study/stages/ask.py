"""What scoring and generating share: which items are unanswered, how a worker is asked, how its rows are stored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from gguf_eval.store.records import Outcome
from gguf_eval.study.events import RIGHT_ANSWERS, Advanced, StageBegan, StageEnded, StageKind, counted
from gguf_eval.study.jobs import HeaderWork, Job, PromptWork, TaskWork
from gguf_eval.study.stages.state import ReadyPoint, RunState, TaskItems, run_job, save_build


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
    point: ReadyPoint,
    missing: Sequence[TaskItems],
    job: Job,
    event_name: str,
    judge: Callable[[TaskItems, Mapping[str, Any]], Outcome],
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
    tell, name = state.observer.tell, point.planned.name
    current: tuple[StageKind, str] | None = None

    def begin(stage: tuple[StageKind, str], units: int) -> None:
        nonlocal current
        if stage != current:
            if current is not None:
                tell(StageEnded(name, *current))
            current = stage
            tell(StageBegan(name, *stage, units))

    def begin_task(task_items: TaskItems) -> None:
        begin((kind, task_items.task.name), len(task_items.items))

    def begin_again() -> None:
        begin(("again", RIGHT_ANSWERS), more)

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == event_name:
            task_items = by_hash[event["task"]]
            outcomes = [judge(task_items, row) for row in event["rows"]]
            state.study.save_outcomes(point.id, task_items.task.hash, outcomes)
            tally = counted(outcome.value for outcome in outcomes)
            tell(Advanced(name, kind, task_items.task.name, len(outcomes), tally))
        elif event["event"] == "start":
            begin_task(by_hash[event["task"]])
        elif event["event"] == "again":
            begin_again()
        elif event["event"] == "build":
            save_build(state, event, point.id)
        if finished := on_event_too(event):
            tell(Advanced(name, "again", RIGHT_ANSWERS, finished))

    if missing:
        begin_task(missing[0])
    else:
        begin_again()
    run_job(state, point.planned, job, point.log, on_event)
    if current is not None:
        tell(StageEnded(name, *current))
