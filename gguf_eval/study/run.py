"""Runs a study: makes what is missing, asks what is unanswered, times what is untimed, and stores it as it comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from gguf_eval.errors import EngineError, GgufEvalError, StudyError
from gguf_eval.files.hub import dataset_files
from gguf_eval.files.model_file import ModelFile, describe
from gguf_eval.files.quantize import library_version
from gguf_eval.machine import describe_machine, physical_cores
from gguf_eval.study.jobs import QuantizeJob, ScoreJob, SpeedJob, TaskWork
from gguf_eval.study.plan import PlannedPoint, RunRequest, plan_points
from gguf_eval.study.process import run_in_worker
from gguf_eval.study.records import Outcome
from gguf_eval.study.store import StudyWriter
from gguf_eval.tasks.catalog import find_tasks
from gguf_eval.tasks.datasets import load_items, mirror
from gguf_eval.tasks.metrics import ChoiceScores, is_finite, picks
from gguf_eval.tasks.prompts import Item
from gguf_eval.tasks.spec import Task

DEFAULT_CONTEXT = 4096
"""Context of the speed and memory measurement unless given: what a user would open, or the model's own if smaller."""


class Observer(Protocol):
    """Is told how the run goes."""

    def step(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """A step of ``total`` units begins; the value of the context is called with the units done since."""
        ...

    def note(self, text: str) -> None:
        """Something the user should read."""
        ...


@dataclass(frozen=True)
class TaskItems:
    """A task and the items of it that this run asks."""

    task: Task
    items: dict[str, Item]
    """By hash, in the dataset's order."""


def run_study(request: RunRequest, observer: Observer) -> bool:
    """Run everything that is missing; return whether every point is complete.

    A point that fails is stored with its reason and the others go on. Raises for what stops the whole run: wrong
    options, an unreadable task, a study file that can't be written.
    """
    fetch = mirror(request.mirror) if request.mirror else dataset_files
    tasks = find_tasks(list(request.tasks))
    points = plan_points(request)
    with StudyWriter(request.study) as study:
        work = []
        for task in tasks:
            items = load_items(task, fetch=fetch, limit=request.limit, seed=request.seed)
            work.append(TaskItems(task, {item.hash: item for item in items}))
        environment = {"machine": describe_machine(), "packages": _packages()}
        run = study.begin_run(request.command, environment)
        for task_items in work:
            study.save_task(task_items.task, list(task_items.items.values()), run)
        runner = _Runner(request, study, observer, work, run, environment)
        complete = [runner.run_point(point) for point in points]
    return all(complete)


class _Runner:
    """One run: what it was asked, where it writes, whom it tells."""

    def __init__(
        self,
        request: RunRequest,
        study: StudyWriter,
        observer: Observer,
        work: list[TaskItems],
        run: int,
        environment: dict[str, Any],
    ) -> None:
        self.request = request
        self.study = study
        self.observer = observer
        self.work = work
        self.run = run
        self.environment = environment

    def run_point(self, point: PlannedPoint) -> bool:
        """Make, score and time one point; return whether nothing is missing."""
        log = _log_path(self.request.study, point)
        try:
            file = self._model_file(point, log)
        except GgufEvalError as error:
            if isinstance(error, StudyError):
                raise
            self.observer.note(f"{point.name}: {error}")
            self.study.save_unmade(point.name, point.model, point.level, point.source.sha256, str(error), log)
            return False
        self.study.forget_unmade(point.level, point.source.sha256)
        settings = {"max_tokens": self.request.ctx}
        point_id = self.study.save_point(point.name, point.model, settings, file, point.origin)
        self.study.plan_point(point_id, [w.task.hash for w in self.work], speed=self.request.speed)
        try:
            self._score(point, point_id, file, log)
            if self.request.speed:
                self._measure(point, point_id, file, log)
        except EngineError as error:
            self.study.set_failure(point_id, str(error), log)
            self.observer.note(f"{point.name}: {error}")
            return False
        self.study.set_failure(point_id, None, None)
        return True

    def _model_file(self, point: PlannedPoint, log: Path) -> ModelFile:
        if point.made and not point.path.exists():
            job = QuantizeJob(
                str(point.source.path),
                str(point.path),
                point.level,
                self.request.allow_requantize,
                self.request.threads,
            )
            with self.observer.step(f"{point.name}: making the model file", 0):
                run_in_worker(job, log, lambda event: None)
        return describe(point.path, cache=self.request.cache)

    def _score(self, point: PlannedPoint, point_id: int, file: ModelFile, log: Path) -> None:
        missing = []
        for task_items in self.work:
            answered = self.study.answered(point_id, task_items.task.hash)
            items = {hash_: item for hash_, item in task_items.items.items() if hash_ not in answered}
            if items:
                missing.append(TaskItems(task_items.task, items))
        if not missing:
            return
        job = ScoreJob(
            model=str(file.path),
            tasks=tuple(_task_work(task_items) for task_items in missing),
            max_tokens=self.request.ctx,
            batch_size=self.request.batch_size,
            threads=self.request.threads,
            gpu_layers=self.request.gpu_layers,
        )
        by_hash = {task_items.task.hash: task_items for task_items in missing}
        names = ", ".join(task_items.task.name for task_items in missing)
        with self.observer.step(f"{point.name}: {names}", sum(len(t.items) for t in missing)) as advance:

            def on_event(event: dict[str, Any]) -> None:
                if event["event"] == "scores":
                    task_items = by_hash[event["task"]]
                    outcomes = [outcome(task_items, row) for row in event["rows"]]
                    self.study.save_outcomes(point_id, task_items.task.hash, outcomes)
                    advance(len(outcomes))
                elif event["event"] == "build":
                    self._save_build(event)

            run_in_worker(job, log, on_event)

    def _measure(self, point: PlannedPoint, point_id: int, file: ModelFile, log: Path) -> None:
        request = self.request
        n_ctx = request.ctx or min(DEFAULT_CONTEXT, file.context_length or DEFAULT_CONTEXT)
        conditions = {
            "machine": self.environment["machine"]["processor"],
            "library": library_version(),
            "n_ctx": n_ctx,
            "threads": request.threads or physical_cores(),
            "gpu_layers": request.gpu_layers,
            "prompt_tokens": request.prompt_tokens,
            "generated_tokens": request.generated_tokens,
            "repetitions": request.repetitions,
        }
        if self.study.has_measurement(point_id, conditions):
            return
        measurement = self.study.begin_measurement(point_id, conditions)
        job = SpeedJob(
            model=str(file.path),
            n_ctx=n_ctx,
            prompt_tokens=request.prompt_tokens,
            generated_tokens=request.generated_tokens,
            repetitions=request.repetitions,
            threads=request.threads,
            gpu_layers=request.gpu_layers,
        )
        with self.observer.step(f"{point.name}: speed and memory", 2 * request.repetitions) as advance:

            def on_event(event: dict[str, Any]) -> None:
                if event["event"] == "sample":
                    self.study.save_speed_sample(
                        measurement, event["test"], event["repetition"], event["tokens"], event["seconds"]
                    )
                    advance(1)
                elif event["event"] == "memory":
                    memory = {kind: (int(size), str(method)) for kind, (size, method) in event["memory"].items()}
                    self.study.finish_measurement(measurement, memory)
                elif event["event"] == "build":
                    self._save_build(event)

            run_in_worker(job, log, on_event)

    def _save_build(self, event: Mapping[str, Any]) -> None:
        build = {key: value for key, value in event.items() if key != "event"}
        if self.environment.get("llama_cpp") != build:
            self.environment["llama_cpp"] = build
            self.study.save_environment(self.run, self.environment)


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


def _log_path(study: Path, point: PlannedPoint) -> Path:
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in point.name)
    return study.with_name(f"{study.stem}.logs") / f"{safe}.log"


def _packages() -> dict[str, str]:
    return {name: version(name) for name in ("gguf-eval", "llama-cpp-python", "numpy", "gguf")}
