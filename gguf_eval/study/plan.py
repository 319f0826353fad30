"""Makes the plan of a run, before it does anything: from the models' headers, the data and the study."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gguf_eval.errors import EngineError, UsageError
from gguf_eval.files.cache import cache_dir, model_bytes
from gguf_eval.files.model_file import ModelFile, model_name
from gguf_eval.files.quantize import planned_sizes
from gguf_eval.files.references import split_name
from gguf_eval.files.source import Unfetched, locate_source
from gguf_eval.llama.isolated import run_isolated
from gguf_eval.machine import processor_name
from gguf_eval.store.database import open_lookup
from gguf_eval.study.calibrate import calibrated_rates
from gguf_eval.study.cost import Rates, study_rates
from gguf_eval.study.data import Data, read_data
from gguf_eval.study.forecast import Forecast, forecast
from gguf_eval.study.grouping import group_points
from gguf_eval.study.outline import found_points, outline
from gguf_eval.study.points import (
    PlannedPoint,
    RunRequest,
    asked_levels,
    check_requantize,
    foreseen_points,
    plan_points,
)
from gguf_eval.study.stages.state import Asked, TaskItems
from gguf_eval.tasks.catalog import find_tasks
from gguf_eval.tasks.spec import Task, with_shots

_TINY_SECONDS = 60.0
"""A run that is guessed to take less is not worth calibrating for."""
_SAMPLE_ITEMS, _SAMPLE_CHARACTERS = 6, 600


@dataclass(frozen=True)
class Plan:
    """A run before it begins: what it asks of which points, and what that comes to."""

    asked: Asked
    points: tuple[PlannedPoint, ...]
    pending: tuple[Unfetched, ...]
    """Models that are not on this machine yet, or not converted."""
    forecast: Forecast

    @property
    def is_ready(self) -> bool:
        """Whether everything that it needs is on this machine."""
        return not (self.pending or self.asked.unread or self.asked.unread_text)


def make_plan(
    request: RunRequest,
    *,
    fetch: bool = False,
    thorough: bool = False,
    calibrate: bool = False,
    known: Sequence[Rates] = (),
) -> Plan:
    """Read what ``request`` asks for, and say what running it would do; nothing is made, and the study not written.

    ``fetch`` downloads data that are not here; else they are counted, and the plan is not ready. ``thorough`` has
    llama.cpp say the exact size of files to be made, which takes a second. ``calibrate`` allows a few seconds of
    decoding where no speeds of this machine are ``known``, or in the study, and the run is not tiny. Of checkpoints on
    the hub their small files are fetched, nothing else. Raises for what would stop the whole run: wrong options, an
    unreadable task, a study file that is none.
    """
    began = time.monotonic()
    request, pending = _located(request)
    tasks = requested_tasks(request)
    planned = plan_points(request) if request.models else []
    planned += foreseen_points([_unfetched_file(source) for source in pending], request)
    chat = request.chat.answer_settings({task.kind for task in tasks})
    planned = [replace(point, chat=chat) for point in planned]
    with open_lookup(request.study) as lookup:
        points, remarks = group_points(planned, lookup.stored_models())
    data = read_data(tasks, request, fetch=fetch)
    asked = _asked(request, data)
    sizes, problems = _exact_sizes(points, request) if thorough else ({}, {})
    with open_lookup(request.study) as lookup:
        known = tuple(known) or study_rates(lookup.measured_speeds(), processor_name())
        able = [point for point in points if point.name not in problems]
        stages = outline(asked, found_points(request, able, lookup, known, sizes), lookup)
        if calibrate and not known and sum(point.seconds_left for point in stages) > _TINY_SECONDS:
            known = _calibrated(able, asked.work, request)
            stages = outline(asked, found_points(request, able, lookup, known, sizes), lookup)
    found = forecast(asked, points, pending, stages, data, sizes, problems)
    found = replace(found, rates=known, remarks=remarks, planning_seconds=time.monotonic() - began)
    return Plan(asked, tuple(points), tuple(pending), found)


def _located(request: RunRequest) -> tuple[RunRequest, list[Unfetched]]:
    """The request with the models that are here as paths, its study named, and the models that are not here."""
    folder = cache_dir(request.cache)
    named = [split_name(model) if isinstance(model, str) else ("", model) for model in request.models]
    located = [locate_source(model, cache=folder) if isinstance(model, str) else model for _, model in named]
    paths = [source if isinstance(source, Path) else source.path for source in located]
    names = {**request.names, **{path: name for path, (name, _) in zip(paths, named, strict=True) if name}}
    study = request.study
    if study == Path():
        study = Path(f"{names.get(paths[0]) or model_name(paths[0])}.study.sqlite")
    models = tuple(source for source in located if isinstance(source, Path))
    request = replace(request, models=models, names=names, study=study)
    pending = [source for source in located if isinstance(source, Unfetched)]
    for source in pending:
        if source.header is not None:
            check_requantize(source.reference, source.header, asked_levels(request), request.allow_requantize)
    return request, pending


def requested_tasks(request: RunRequest) -> list[Task]:
    """The tasks, with as many examples as the request says; raises `UsageError` where none of them has examples."""
    tasks = find_tasks(list(request.tasks))
    if request.fewshot is None:
        return tasks
    if not any(task.fewshot for task in tasks):
        raise UsageError(
            f"--fewshot needs a task that has examples; none of {', '.join(t.name for t in tasks)} has any"
        )
    return [with_shots(task, request.fewshot) if task.fewshot else task for task in tasks]


def _asked(request: RunRequest, data: Data) -> Asked:
    if request.items and not data.unread and not any(work.items for work in data.work):
        raise UsageError(f"no task has an item called {', '.join(request.items)}; 'gguf-eval tasks show' gives ids")
    return Asked(request, data.work, data.text, data.unread, data.unread_text)


def _unfetched_file(source: Unfetched) -> ModelFile:
    bits = 8.0 * source.size_bytes / max(1, source.parameters)
    return ModelFile(source.path, "", "", source.parameters, source.size_bytes, source.level, bits, None)


def _exact_sizes(points: Sequence[PlannedPoint], request: RunRequest) -> tuple[dict[str, int], dict[str, str]]:
    """Exact sizes of the files to be made from files that are here, and why some can't be made, by point."""
    sizes: dict[str, int] = {}
    problems: dict[str, str] = {}
    wanted = [point for point in points if not point.is_there and point.source.sha256]
    with tempfile.TemporaryDirectory() as folder:
        for source in dict.fromkeys(point.source.path for point in wanted):
            members = [point for point in wanted if point.source.path == source]
            recipes = list(dict.fromkeys(point.recipe for point in members if point.recipe))
            log = Path(folder) / "plan.log"
            found = run_isolated(planned_sizes, source, recipes, request.cache, log=log, folder=Path(folder))
            for point, size in ((point, found[point.recipe]) for point in members if point.recipe):
                if isinstance(size, int):
                    sizes[point.name] = size
                else:
                    problems[point.name] = size
    return sizes, problems


def _calibrated(points: Sequence[PlannedPoint], work: Sequence[TaskItems], request: RunRequest) -> tuple[Rates, ...]:
    """Rates of the smallest model file there is; none where there is none, or where it can't be run."""
    there = [point for point in points if point.is_there and point.source.sha256]
    if not there:
        return ()
    smallest = min(there, key=lambda point: model_bytes(point.path))
    size = model_bytes(smallest.path)
    file = smallest.source if not smallest.made else replace(smallest.source, path=smallest.path, size_bytes=size)
    with tempfile.TemporaryDirectory() as folder:
        try:
            log = Path(folder) / "calibrate.log"
            return (calibrated_rates(file, request.threads, smallest.engine, _sample(work), log),)
        except EngineError:
            return ()


def _sample(work: Sequence[TaskItems]) -> str:
    """Some of what is asked."""
    parts = []
    for task_items in work:
        for item in list(task_items.items.values())[:_SAMPLE_ITEMS]:
            parts.append("".join((item.header.text[:_SAMPLE_CHARACTERS], *item.contexts, *item.choices)))
    return "\n".join(parts)
