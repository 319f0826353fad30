"""What the stages of a run share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_eval.files.cache import model_parts
from gguf_eval.files.header import read_header
from gguf_eval.files.model_file import ModelFile
from gguf_eval.llama.reasons import without_numbers
from gguf_eval.runtime.chat_template import tells_date
from gguf_eval.store.write import StudyWriter
from gguf_eval.study.events import MemoryTaken, Observer
from gguf_eval.study.jobs import Job
from gguf_eval.study.plan import PlannedPoint, RunRequest
from gguf_eval.study.process import run_in_worker
from gguf_eval.tasks.prompts import Item
from gguf_eval.tasks.spec import Task


@dataclass(frozen=True)
class TaskItems:
    """A task and the items of it that this run asks."""

    task: Task
    items: dict[str, Item]
    """By hash, in the dataset's order."""


@dataclass(frozen=True)
class RunState:
    """One run: what it was asked, where it writes, whom it tells."""

    request: RunRequest
    study: StudyWriter
    observer: Observer
    work: list[TaskItems]
    run: int
    environment: dict[str, Any]
    """Of this run; completed when the first worker names its llama.cpp build."""


@dataclass(frozen=True)
class ReadyPoint:
    """A point whose model file is there."""

    planned: PlannedPoint
    id: int
    file: ModelFile
    settings: dict[str, Any]
    """What can change its answers, as in the study."""
    log: Path


def run_job(
    state: RunState, point: PlannedPoint, job: Job, log: Path, on_event: Callable[[dict[str, Any]], None]
) -> None:
    """Run a job of a point in a worker, telling the observer what memory it takes and what llama.cpp warns of."""
    run_in_worker(
        job,
        log,
        on_event,
        lambda used: state.observer.tell(MemoryTaken(point.name, used)),
        lambda text: warn(state, point, text),
    )


def warn(state: RunState, point: PlannedPoint, text: str) -> None:
    """Tell of llama.cpp's warning about a point, once in a run, and keep it in the run's environment."""
    told = state.environment.setdefault("warnings", {}).setdefault(point.name, [])
    if all(without_numbers(text) != without_numbers(other) for other in told):
        told.append(text)
        state.observer.note(f"{point.name}: llama.cpp warns: {text}")
        state.study.save_environment(state.run, state.environment)


def save_build(state: RunState, event: Mapping[str, Any], point_id: int | None = None) -> None:
    """Store the llama.cpp build that a worker's ``build`` event names, and that it worked for a point."""
    if point_id is not None:
        state.study.save_point_run(point_id, state.run)
    build = {key: value for key, value in event.items() if key != "event"}
    if state.environment.get("llama_cpp") != build:
        state.environment["llama_cpp"] = build
        state.study.save_environment(state.run, state.environment)


def save_template_date(state: RunState, file: ModelFile) -> None:
    """Store the date that the file's chat template is told, where it tells one to the model in this run."""
    chat = state.request.chat
    if not any(chat.applies_to(task_items.task.kind) for task_items in state.work):
        return
    if tells_date(str(read_header(model_parts(file.path)[0]).metadata.get("tokenizer.chat_template", ""))):
        state.environment["templates"] = {"date": chat.day}
        state.study.save_environment(state.run, state.environment)
