"""What a model would be asked, before a run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_eval.runtime.settings import ChatSettings
from gguf_eval.study.jobs import ShowJob
from gguf_eval.study.process import run_in_worker
from gguf_eval.study.stages.ask import task_work
from gguf_eval.study.stages.state import TaskItems
from gguf_eval.tasks.prompts import Item
from gguf_eval.tasks.spec import Task


@dataclass(frozen=True)
class Shown:
    """A text as a model's vocabulary spells it."""

    text: str
    """Control tokens stand between ⟦ and ⟧."""
    tokens: int


@dataclass(frozen=True)
class AskedItem:
    """One item as a model would get it."""

    prompts: tuple[Shown, ...]
    """One, or one for each choice where they differ."""
    answers: tuple[Shown, ...]
    """The choices as they are scored."""
    unscored_reason: str | None
    """Why the item can't be asked."""


def preview(
    task: Task,
    items: Sequence[Item],
    model: Path,
    chat: ChatSettings,
    on_warning: Callable[[str], None] = lambda text: None,
) -> list[AskedItem]:
    """Have a worker put ``items`` to ``model`` without computing anything; raises as `run_in_worker` does.

    ``on_warning`` is told what llama.cpp warns of.
    """
    work = task_work(TaskItems(task, {item.hash: item for item in items}))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        job = ShowJob(str(model), work, task.kind, chat)
        run_in_worker(job, Path(folder) / "show.log", lambda event: rows.extend(event["rows"]), None, on_warning)
    return [
        AskedItem(
            tuple(Shown(**prompt) for prompt in row["prompts"]),
            tuple(Shown(**answer) for answer in row["answers"]),
            row["unscored_reason"],
        )
        for row in rows
    ]
