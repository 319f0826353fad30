"""Runs a study: makes what is missing, asks what is unanswered, times what is untimed, and stores it as it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from gguf_eval.errors import EngineError, GgufEvalError, StudyError, UsageError
from gguf_eval.files.hub import dataset_files
from gguf_eval.machine import describe_machine
from gguf_eval.store.write import StudyWriter
from gguf_eval.study.cost import Rates, study_rates
from gguf_eval.study.doctor import check_offload
from gguf_eval.study.events import Observer, Planned, PointFailed
from gguf_eval.study.grouping import group_points
from gguf_eval.study.loading import check_any, load_text, load_work
from gguf_eval.study.outline import OutlineRequest, outline, point_settings
from gguf_eval.study.plan import PlannedPoint, RunRequest, plan_points
from gguf_eval.study.stages.generate import generate
from gguf_eval.study.stages.make import make_model_file
from gguf_eval.study.stages.measure import measure
from gguf_eval.study.stages.over_text import over_text
from gguf_eval.study.stages.reference import Reference, find_references, references_first
from gguf_eval.study.stages.score import score
from gguf_eval.study.stages.state import ReadyPoint, RunState, save_template_date
from gguf_eval.tasks.catalog import find_tasks
from gguf_eval.tasks.datasets import mirror
from gguf_eval.tasks.spec import Task, with_shots


def run_study(request: RunRequest, observer: Observer, known: Sequence[Rates] = ()) -> bool:
    """Run everything that is missing; return whether every point is complete.

    ``known``: rates of model files on this machine, for what the observer is told of the time it will take.

    A point that fails is stored with its reason and the others go on; what only a suite names and can't be had is left
    out, and nothing is complete then. Raises for what stops the whole run: wrong
    options, an unreadable task, a study file that can't be written.
    """
    fetch = mirror(request.mirror) if request.mirror else dataset_files
    tasks = requested_tasks(request)
    asked = asked_alike(plan_points(request), tasks, request)
    check_offload(request.offload)
    text, no_text = load_text(request, fetch)
    with StudyWriter(request.study) as study:
        points, remarks = group_points(asked, study.stored_models())
        for remark in remarks:
            observer.note(remark)
        work, no_tasks = load_work(tasks, request, fetch)
        check_any(len(work), no_tasks)
        if request.items and not any(task_items.items for task_items in work):
            raise UsageError(f"no task has an item called {', '.join(request.items)}; 'gguf-eval tasks show' gives ids")
        environment = {"machine": describe_machine(), "packages": _packages()}
        run = study.begin_run(request.command, environment)
        request = replace(request, chat=replace(request.chat, day=study.day() or ""))
        for task_items in work:
            study.save_task(task_items.task, list(task_items.items.values()), run)
        state = RunState(request, study, observer, work, run, environment)
        known = known or study_rates(study.measured_speeds(), environment["machine"]["processor"])
        for left_out in (*no_tasks, *no_text):
            observer.note(f"{left_out.name} is left out: {left_out.reason}")
        planned = outline(OutlineRequest(request, work, known, text), points, study)
        observer.tell(Planned(planned, rough=not known))
        ready, failed = _prepared(state, points)
        done = run_points(state, ready)
        read = text is None or over_text(state, done, text)
    return read and not failed and len(done) == len(ready) and not no_tasks and not no_text


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


def asked_alike(points: Sequence[PlannedPoint], tasks: Sequence[Task], request: RunRequest) -> list[PlannedPoint]:
    """The points with what of the chat settings changes answers to these tasks."""
    chat = request.chat.answer_settings({task.kind for task in tasks})
    return [replace(point, chat=chat) for point in points]


def _prepared(state: RunState, points: Sequence[PlannedPoint]) -> tuple[list[ReadyPoint], int]:
    """The points whose files are there, each content once, and how many could not be made."""
    ready: dict[int, ReadyPoint] = {}
    failed = 0
    for point in points:
        prepared = prepare_point(state, point, ready)
        failed += prepared is None
        if prepared is not None:
            ready[prepared.id] = prepared
    return list(ready.values()), failed


def prepare_point(state: RunState, point: PlannedPoint, ready: Mapping[int, ReadyPoint]) -> ReadyPoint | None:
    """Make one point's file and plan what is to be asked; None where that fails.

    Where one of the ``ready`` points has the same content and settings, it is returned.
    """
    log = _log_path(state.request.study, point)
    try:
        file = make_model_file(state, point, log)
    except GgufEvalError as error:
        if isinstance(error, StudyError):
            raise
        state.observer.tell(PointFailed(point.name, str(error)))
        state.study.save_unmade(
            point.name, point.model, point.level, point.origin, point.source.sha256, str(error), log
        )
        return None
    state.study.forget_unmade(point.level, point.origin, point.source.sha256)
    settings = point_settings(state.request, point)
    same = ready.get(state.study.find_point(file.sha256, settings) or 0)
    if same is not None:
        state.observer.note(f"{point.name} has the same content as {same.planned.name}: it is evaluated once")
        return same
    point_id = state.study.save_point(point.name, point.model, settings, file, point.origin)
    state.study.plan_point(point_id, [w.task.hash for w in state.work], speed=state.request.speed)
    save_template_date(state, file)
    return ReadyPoint(point, point_id, file, settings, log)


def run_points(state: RunState, points: Sequence[ReadyPoint]) -> list[ReadyPoint]:
    """Run every point, the reference of a model before the others; return those that went well.

    A reference that fails before it has answered anything is none to the report either: the next one takes its place.
    """
    done, able, waiting = [], list(points), list(points)
    while waiting:
        references = find_references(state, able)
        point = references_first(waiting, references)[0]
        waiting.remove(point)
        if run_point(state, point, references[point.planned.model], able):
            done.append(point)
        else:
            able.remove(point)
    return done


def run_point(state: RunState, point: ReadyPoint, reference: Reference, all_points: Sequence[ReadyPoint]) -> bool:
    """Score and time one point; return whether that went well."""
    try:
        score(state, point, reference, all_points)
        generate(state, point)
        if state.request.speed:
            measure(state, point)
    except (EngineError, UsageError) as error:
        state.study.set_failure(point.id, str(error), point.log)
        state.observer.tell(PointFailed(point.planned.name, str(error)))
        return False
    state.study.set_failure(point.id, None, None)
    return True


def _log_path(study: Path, point: PlannedPoint) -> Path:
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in point.name)
    return study.with_name(f"{study.stem}.logs") / f"{safe}.log"


def _packages() -> dict[str, str]:
    return {name: version(name) for name in ("gguf-eval", "llama-cpp-python", "numpy", "gguf")}
