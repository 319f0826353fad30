"""What scoring and generating share: which items are unanswered, and how they are put to a worker."""

from __future__ import annotations

from collections.abc import Collection

from gguf_eval.study.jobs import HeaderWork, PromptWork, TaskWork
from gguf_eval.study.stages.state import RunState, TaskItems


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
        prompts=tuple(PromptWork(headers[item.header], item.contexts, item.choices) for item in items.values()),
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
