"""What the stages of a run share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gguf_eval.files.cache import model_parts
from gguf_eval.files.header import read_header
from gguf_eval.files.levels import rough_bits
from gguf_eval.files.model_file import ModelFile
from gguf_eval.llama.reasons import without_numbers
from gguf_eval.runtime.chat_template import tells_date
from gguf_eval.store.records import reference_rank
from gguf_eval.store.write import StudyWriter
from gguf_eval.study.cost import Rates, prompt_characters
from gguf_eval.study.events import MemoryTaken, Observer, PointFailed
from gguf_eval.study.job import Job, OnEvent
from gguf_eval.study.points import PlannedPoint, RunRequest
from gguf_eval.study.process import Executor
from gguf_eval.tasks.prompts import Item
from gguf_eval.tasks.spec import Task
from gguf_eval.tasks.texts import TextFile


@dataclass(frozen=True)
class TaskItems:
    """A task and the items of it that this run asks."""

    task: Task
    items: dict[str, Item]
    """By hash, in the dataset's order."""

    @cached_property
    def characters(self) -> int:
        """Of what is decoded for the items."""
        return prompt_characters(self.items.values())


@dataclass(frozen=True)
class UnreadTask:
    """A task whose rows are not on this machine yet."""

    task: Task
    items: int
    """0 where even that is not known."""
    characters: int
    """Of what is asked, about."""


@dataclass(frozen=True)
class TextRequest:
    """How models are run over a text."""

    text: TextFile
    references: Path
    """Folder of the stored references."""
    n_ctx: int = 512
    chunks: int | None = None
    stride: int | None = None
    batch_size: int = 512
    threads: int | None = None
    exact: bool = False
    """Run the reference beside each model instead of storing it."""


@dataclass(frozen=True)
class Asked:
    """What every point of a run is asked."""

    request: RunRequest
    work: Sequence[TaskItems]
    text: TextRequest | None = None
    """Its text, where it is on this machine."""
    unread: Sequence[UnreadTask] = ()
    unread_text: str = ""
    """The name of a text that is not on this machine yet."""


@dataclass(frozen=True)
class RunPoint:
    """A point as a run finds it."""

    planned: PlannedPoint
    settings: dict[str, Any]
    """What can change its answers, as in the study."""
    file: ModelFile | None
    """None where it is made first."""
    id: int | None
    """In the study, where it is known there."""

    @property
    def rank(self) -> tuple[float, bool]:
        """What `gguf_eval.store.records.reference_rank` says of it."""
        bits = self.file.bits_per_weight if self.file else rough_bits(self.planned.level)
        return reference_rank(bits, self.planned.label, self.planned.level)


@dataclass(frozen=True)
class FoundPoint(RunPoint):
    """A point before the run."""

    rates: Rates


@dataclass(frozen=True)
class ReadyPoint(RunPoint):
    """A point whose model file is there, and that the study knows."""

    file: ModelFile
    id: int
    log: Path


@dataclass(frozen=True)
class RunState:
    """One run: what it asks, where it writes, whom it tells."""

    asked: Asked
    study: StudyWriter
    observer: Observer
    run: int
    environment: dict[str, Any]
    """Of this run; completed when the first worker names its llama.cpp build."""
    execute: Executor

    @property
    def request(self) -> RunRequest:
        """What the run was asked for."""
        return self.asked.request


def point_settings(request: RunRequest, point: PlannedPoint) -> dict[str, Any]:
    """What of a point's settings can change answers, beside the model file: its identity in the study."""
    return {"max_tokens": request.ctx, **point.engine.answer_settings, **point.chat}


def fail(state: RunState, point: ReadyPoint, error: Exception) -> None:
    """Store why a point can't be finished, and tell."""
    state.study.set_failure(point.id, str(error), point.log)
    state.observer.tell(PointFailed(point.planned.name, str(error)))


def run_job(state: RunState, point: PlannedPoint, log: Path, job: Job, on_event: OnEvent) -> None:
    """Run a job of a point, telling the observer what memory its worker takes and what llama.cpp warns of."""
    state.execute(
        job,
        log,
        on_event,
        lambda used: state.observer.tell(MemoryTaken(point.name, used)),
        lambda text: _warn(state, point, text),
    )


def _warn(state: RunState, point: PlannedPoint, text: str) -> None:
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
    if not any(chat.applies_to(task_items.task.kind) for task_items in state.asked.work):
        return
    if tells_date(str(read_header(model_parts(file.path)[0]).metadata.get("tokenizer.chat_template", ""))):
        state.environment["templates"] = {"date": chat.day}
        state.study.save_environment(state.run, state.environment)
