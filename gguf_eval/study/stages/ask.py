"""What scoring and generating share: which items are unanswered, how a worker is asked, how its rows are stored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gguf_eval.runtime.settings import ChatSettings, EngineSettings
from gguf_eval.store.database import StudyLookup
from gguf_eval.store.records import Outcome
from gguf_eval.study.cost import answer_seconds
from gguf_eval.study.events import RIGHT_ANSWERS, Advanced, StageBegan, StageEnded, StageKind, StagePlan, Tally, counted
from gguf_eval.study.stages.state import Asked, FoundPoint, ReadyPoint, RunState, TaskItems, run_job, save_build
from gguf_eval.tasks.prompts import Header


@dataclass(frozen=True)
class PromptWork:
    """What is asked of one item."""

    header: int
    """Place in the headers of the task's work."""
    contexts: tuple[str, ...]
    """One, or one for each choice."""
    choices: tuple[str, ...]
    """The texts to score; none where the model is to write."""
    right: int = 0
    """Place of the (first) right choice."""


@dataclass(frozen=True)
class TaskWork:
    """Items of one task as a worker gets them: each header once, and nothing that only judges need."""

    task_hash: str
    item_hashes: tuple[str, ...]
    prompts: tuple[PromptWork, ...]
    """One for each item."""
    headers: tuple[Header, ...]
    delimiter: str
    """Between context and choice."""


@dataclass(frozen=True)
class AskJob:
    """What every job that asks items says."""

    model: str
    tasks: tuple[TaskWork, ...]
    max_tokens: int | None
    batch_size: int
    threads: int | None
    engine: EngineSettings
    chat: ChatSettings = field(default_factory=ChatSettings)


def ask_fields(state: RunState, point: ReadyPoint, missing: Sequence[TaskItems]) -> dict[str, Any]:
    """The fields of an `AskJob` that asks the ``missing`` items of a point."""
    request = state.request
    return {
        "model": str(point.file.path),
        "tasks": tuple(task_work(task_items) for task_items in missing),
        "max_tokens": request.ctx,
        "batch_size": request.batch_size,
        "threads": request.threads,
        "engine": point.planned.engine,
        "chat": request.chat,
    }


def task_work(task_items: TaskItems) -> TaskWork:
    """The items as a worker gets them."""
    items = task_items.items
    headers = {header: place for place, header in enumerate(dict.fromkeys(item.header for item in items.values()))}
    return TaskWork(
        task_hash=task_items.task.hash,
        item_hashes=tuple(items),
        prompts=tuple(
            PromptWork(headers[item.header], item.contexts, item.choices, item.gold) for item in items.values()
        ),
        headers=tuple(headers),
        delimiter=task_items.task.prompt.delimiter,
    )


def plan_asked(
    kind: StageKind, kinds: Collection[str], asked: Asked, point: FoundPoint, lookup: StudyLookup
) -> list[StagePlan]:
    """A stage for each task of these kinds: how many items it has, and which answers the study holds."""
    stages = []
    for work in asked.work:
        if work.task.kind in kinds:
            stored = lookup.answers(point.id, work.task.hash) if point.id is not None else {}
            tally = counted(value for key, value in stored.items() if key in work.items)
            seconds = answer_seconds(work.task, len(work.items), work.characters, point.rates)
            done = tally.scored + tally.unscored
            stages.append(StagePlan(kind, work.task.name, len(work.items), done, tally, seconds, work.task.metric))
    for unread in asked.unread:
        if unread.task.kind in kinds:
            seconds = answer_seconds(unread.task, unread.items, unread.characters, point.rates)
            units = max(1, unread.items)
            stages.append(StagePlan(kind, unread.task.name, units, 0, Tally(), seconds, unread.task.metric))
    return stages


def unanswered(state: RunState, point_id: int, kinds: Collection[str]) -> list[TaskItems]:
    """Of each task of these kinds the items that the point has no outcome for."""
    missing = []
    for task_items in state.asked.work:
        if task_items.task.kind in kinds:
            answered = state.study.answered(point_id, task_items.task.hash)
            items = {hash_: item for hash_, item in task_items.items.items() if hash_ not in answered}
            if items:
                missing.append(TaskItems(task_items.task, items))
    return missing


def store_as_they_come(
    state: RunState,
    point: ReadyPoint,
    kind: StageKind,
    missing: Sequence[TaskItems],
    job: AskJob,
    judge: Callable[[TaskItems, Mapping[str, Any]], Outcome],
    *,
    more: int = 0,
    on_event_too: Callable[[dict[str, Any]], int] = lambda event: 0,
) -> None:
    """Run ``job`` and store what ``judge`` says of every row of its ``outcomes`` events.

    The worker does one task after the other; each is a stage of its own to the observer. ``on_event_too`` is given
    every event after that, and answers how many of ``more`` right answers it finished that are asked again.
    """
    by_hash = {task_items.task.hash: task_items for task_items in missing}
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
        if event["event"] == "outcomes":
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
    run_job(state, point.planned, point.log, job, on_event)
    if current is not None:
        tell(StageEnded(name, *current))
