"""Finds out what a run would do, before it does anything: from the models' headers, the data and the study."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gguf_eval.errors import EngineError
from gguf_eval.files.cache import cache_dir, model_bytes
from gguf_eval.files.hub import RemoteFile
from gguf_eval.files.hub_cache import cache_folder
from gguf_eval.files.isolated import run_isolated
from gguf_eval.files.model_file import ModelFile, model_name
from gguf_eval.files.quantize import planned_sizes
from gguf_eval.files.references import split_name
from gguf_eval.files.source import Unfetched, locate_source
from gguf_eval.machine import processor_name
from gguf_eval.store.database import open_lookup
from gguf_eval.study.cost import CHARACTERS_PER_TOKEN, Rates, calibrated_rates, study_rates
from gguf_eval.study.events import PointPlan, StageKind
from gguf_eval.study.forecast import DiskNeed, Download, Forecast, NewFile, TaskCount
from gguf_eval.study.grouping import group_points
from gguf_eval.study.local_data import tasks_here, text_here
from gguf_eval.study.outline import OutlineRequest, is_there, outline, rough_size
from gguf_eval.study.plan import PlannedPoint, RunRequest, asked_levels, check_requantize, foreseen_points, plan_points
from gguf_eval.study.run import asked_alike, requested_tasks
from gguf_eval.study.stages.state import TaskItems
from gguf_eval.tasks.texts import WIKITEXT2

_TINY_SECONDS = 60.0
"""A run that is guessed to take less is not worth calibrating for."""
_OUTCOME_BYTES = 700
"""Of an answer in the study, about."""
_REFERENCE_BYTES = 2300
"""Of a token in a stored reference."""
_RIGHT_ANSWER_BYTES = 1300
"""Of a token of a right answer, of which a reference leaves less."""
_SAMPLE_ITEMS, _SAMPLE_CHARACTERS = 6, 600
_CONVERTED_BYTES_PER_SECOND = 1e8


def forecast(request: RunRequest, references: Sequence[str], *, thorough: bool, calibrate: bool) -> Forecast:
    """Say what running ``request`` on the models called ``references`` would do; its own ``models`` are not looked at.

    ``thorough`` has llama.cpp say the exact size of files to be made, which takes a second. ``calibrate`` allows a few
    seconds of decoding where the study holds no speeds of this machine and the run is not tiny. Of checkpoints on the
    hub their small files are fetched, nothing else. Raises as `gguf_eval.study.run.run_study` does.
    """
    began = time.monotonic()
    folder = cache_dir(request.cache)
    named = [split_name(reference) for reference in references]
    located = [locate_source(reference, cache=folder) for _, reference in named]
    pending = [source for source in located if isinstance(source, Unfetched)]
    models = tuple(source for source in located if isinstance(source, Path))
    if request.study == Path():
        first = located[0] if isinstance(located[0], Path) else located[0].path
        request = replace(request, study=Path(f"{named[0][0] or model_name(first)}.study.sqlite"))
    paths = [source if isinstance(source, Path) else source.path for source in located]
    names = {path: name for path, (name, _) in zip(paths, named, strict=True) if name}
    request = replace(request, models=models, names=names)
    tasks = requested_tasks(request)
    for source in pending:
        if source.header is not None:
            check_requantize(source.reference, source.header, asked_levels(request), request.allow_requantize)
    planned_here = plan_points(request) if request.models else []
    planned_here += foreseen_points([_unfetched_file(source) for source in pending], request)
    with open_lookup(request.study) as lookup:
        points, remarks = group_points(asked_alike(planned_here, tasks, request), lookup.stored_models())
    here = tasks_here(tasks, request)
    work, unread = here.work, here.unread
    text, text_missing, no_text = text_here(request)
    sizes, problems = _exact_sizes(points, request) if thorough else ({}, {})
    makings = _makings(points, sizes, problems)
    points = [point for point in points if point.name not in problems]
    with open_lookup(request.study) as lookup:
        known = study_rates(lookup.measured_speeds(), processor_name())
        what = OutlineRequest(request, work, known, text, unread, WIKITEXT2 if text_missing else "", sizes)
        planned = outline(what, points, lookup)
        if calibrate and not known and _seconds(planned, ()) > _TINY_SECONDS:
            known = _calibrated(points, work, request)
            planned = outline(replace(what, known=known), points, lookup)
    fetched = [*(file for source in pending for file in source.downloads), *here.missing, *text_missing]
    conversions = tuple(NewFile(s.reference, s.level, s.size_bytes, True) for s in pending if s.header is None)
    return Forecast(
        study=request.study,
        downloads=_by_repository(fetched),
        conversions=conversions,
        makings=makings,
        tasks=_counts(planned, {task.task.name for task in unread if not task.items}),
        points=planned,
        disk=_disk(request, planned, work, fetched, [*conversions, *(new for new in makings if not new.problem)]),
        seconds=_by_kind(planned, conversions),
        basis=known[0].basis if known else "guessed",
        rates=tuple(known),
        left_out=(*here.left_out, *no_text),
        planning_seconds=time.monotonic() - began,
        remarks=remarks,
    )


def _unfetched_file(source: Unfetched) -> ModelFile:
    bits = 8.0 * source.size_bytes / max(1, source.parameters)
    return ModelFile(source.path, "", "", source.parameters, source.size_bytes, source.level, bits, None)


def _exact_sizes(points: Sequence[PlannedPoint], request: RunRequest) -> tuple[dict[str, int], dict[str, str]]:
    """Exact sizes of the files to be made from files that are here, and why some can't be made, by point."""
    sizes: dict[str, int] = {}
    problems: dict[str, str] = {}
    wanted = [point for point in points if not is_there(point) and point.source.sha256]
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


def _makings(
    points: Sequence[PlannedPoint], sizes: Mapping[str, int], problems: Mapping[str, str]
) -> tuple[NewFile, ...]:
    """The files to make; points that share one (other KV caches) make it once."""
    made = {point.path: point for point in reversed(points) if point.made and not is_there(point)}
    return tuple(
        NewFile(
            point.name,
            point.level,
            sizes.get(point.name) or rough_size(point.source.parameters, point.level),
            point.name in sizes,
            problems.get(point.name, ""),
        )
        for point in reversed(made.values())
    )


def _calibrated(points: Sequence[PlannedPoint], work: Sequence[TaskItems], request: RunRequest) -> tuple[Rates, ...]:
    """Rates of the smallest model file there is; none where there is none, or where it can't be run."""
    there = [point for point in points if is_there(point) and point.source.sha256]
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


def _counts(points: Sequence[PointPlan], unknown: Collection[str]) -> tuple[TaskCount, ...]:
    stages = [stage for point in points for stage in point.stages if stage.answers]
    counts = []
    for name in dict.fromkeys(stage.name for stage in stages):
        alike = [stage for stage in stages if stage.name == name]
        known = name not in unknown
        left = sum(stage.left for stage in alike) if known else 0
        there = sum(stage.done for stage in alike)
        counts.append(TaskCount(name, alike[0].kind == "generate", alike[0].units if known else None, left, there))
    return tuple(counts)


def _seconds(points: Sequence[PointPlan], kinds: Sequence[StageKind]) -> float:
    """What is left of stages of these kinds, or of all."""
    return sum(s.seconds_left for point in points for s in point.stages if not kinds or s.kind in kinds)


def _by_kind(points: Sequence[PointPlan], conversions: Sequence[NewFile]) -> dict[str, float]:
    kinds: tuple[StageKind, ...] = ("make", "score", "again", "generate", "speed", "text")
    seconds = {"convert": sum(new.size_bytes for new in conversions) / _CONVERTED_BYTES_PER_SECOND}
    seconds |= {kind: _seconds(points, (kind,)) for kind in kinds}
    return {kind: value for kind, value in seconds.items() if value}


def _by_repository(files: Sequence[RemoteFile]) -> tuple[Download, ...]:
    grouped: dict[tuple[str, str], dict[str, int]] = {}
    for file in files:
        grouped.setdefault((file.repo, file.kind), {})[file.path] = file.size_bytes
    return tuple(Download(repo, kind, len(paths), sum(paths.values())) for (repo, kind), paths in grouped.items())


def _right_answer_bytes(points: Sequence[PointPlan], work: Sequence[TaskItems]) -> int:
    """What the references leave of the right answers that they will be asked; the first point of a model is one."""
    items = [item for task_items in work for item in task_items.items.values() if item.choices]
    tokens = sum(len(item.choices[item.gold]) for item in items) / CHARACTERS_PER_TOKEN
    asked = 0
    for model in dict.fromkeys(point.model for point in points):
        first, *others = [point for point in points if point.model == model]
        if others:
            asked += sum(stage.left for stage in first.stages if stage.kind in ("score", "again"))
    return int(asked * tokens / max(1, len(items)) * _RIGHT_ANSWER_BYTES)


def _disk(
    request: RunRequest,
    points: Sequence[PointPlan],
    work: Sequence[TaskItems],
    fetched: Sequence[RemoteFile],
    new: Sequence[NewFile],
) -> tuple[DiskNeed, ...]:
    """What each file system must hold beside what is there."""
    stages = [stage for point in points for stage in point.stages]
    answers = sum(point.answers_left for point in points)
    tokens = max((stage.left for stage in stages if stage.kind == "text"), default=0)
    kept = len({point.model for point in points}) * tokens * _REFERENCE_BYTES + _right_answer_bytes(points, work)
    cache = cache_dir(request.cache)
    wanted = (
        (cache_folder(), sum(file.size_bytes for file in fetched)),
        (cache, sum(file.size_bytes for file in new) + kept),
        (request.study.parent, answers * _OUTCOME_BYTES),
    )
    needs: dict[int, DiskNeed] = {}
    for folder, size_bytes in wanted:
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        device = there.stat().st_dev
        before = needs.get(device, DiskNeed(folder, 0, shutil.disk_usage(there).free))
        larger = before.folder if before.needed_bytes >= size_bytes else folder
        needs[device] = replace(before, folder=larger, needed_bytes=before.needed_bytes + size_bytes)
    return tuple(need for need in needs.values() if need.needed_bytes)
