"""Runs a study: makes what is missing, asks what is unanswered, times what is untimed, and stores it as it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from gguf_eval.errors import EngineError, GgufEvalError, StudyError, UsageError
from gguf_eval.machine import describe_machine
from gguf_eval.store.write import StudyWriter
from gguf_eval.study.doctor import check_offload
from gguf_eval.study.events import Observer, Planned, PointFailed
from gguf_eval.study.plan import Plan, make_plan
from gguf_eval.study.points import PlannedPoint
from gguf_eval.study.process import Executor, run_in_worker
from gguf_eval.study.stages import make, text
from gguf_eval.study.stages.order import STAGES
from gguf_eval.study.stages.reference import ModelPoints, points_by_model
from gguf_eval.study.stages.state import ReadyPoint, RunState, fail, point_settings, save_template_date


def run_study(plan: Plan, observer: Observer, execute: Executor = run_in_worker) -> bool:
    """Run everything of the plan that is missing; return whether every point is complete.

    ``execute`` runs the jobs. Data that are not on this machine are downloaded first. A point that fails is stored with
    its reason and the others go on; what only a suite names and can't be had is left out, and nothing is complete then.
    Raises for what stops the whole run, as `make_plan` does.
    """
    if plan.pending:
        raise UsageError(f"{plan.pending[0].reference}: a model file is needed, this one is not on this machine yet")
    check_offload(plan.asked.request.offload)
    if not plan.is_ready:
        plan = make_plan(plan.asked.request, fetch=True, known=plan.forecast.rates)
    asked, found = plan.asked, plan.forecast
    with StudyWriter(asked.request.study) as study:
        for remark in found.remarks:
            observer.note(remark)
        environment = {"machine": describe_machine(), "packages": _packages()}
        run = study.begin_run(asked.request.command, environment)
        chat = replace(asked.request.chat, day=study.day() or "")
        asked = replace(asked, request=replace(asked.request, chat=chat))
        for work in asked.work:
            study.save_task(work.task, list(work.items.values()), run)
        for left_out in found.left_out:
            observer.note(f"{left_out.name} is left out: {left_out.reason}")
        observer.tell(Planned(found.points, rough=not found.rates))
        state = RunState(asked, study, observer, run, environment, execute)
        ready, failed = _prepared(state, plan.points)
        done = run_points(state, ready)
        read = asked.text is None or text.run(state, done, asked.text)
    return read and not failed and len(done) == len(ready) and not found.left_out


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
        file = make.run(state, point, log)
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
    state.study.plan_point(point_id, [w.task.hash for w in state.asked.work], speed=state.request.speed)
    save_template_date(state, file)
    return ReadyPoint(point, settings, file, point_id, log)


def run_points(state: RunState, points: Sequence[ReadyPoint]) -> list[ReadyPoint]:
    """Run every point, the reference of a model before the others; return those that went well.

    A reference that fails before it has answered anything is none to the report either: the next one takes its place.
    """
    done, able, waiting = [], list(points), list(points)
    while waiting:
        model = points_by_model(state.study, able)[waiting[0].planned.model]
        point = next(point for point in model.reference_first if point in waiting)
        waiting.remove(point)
        if run_point(state, point, model):
            done.append(point)
        else:
            able.remove(point)
    return done


def run_point(state: RunState, point: ReadyPoint, model: ModelPoints[ReadyPoint]) -> bool:
    """Score and time one point; return whether that went well."""
    try:
        for stage in STAGES:
            stage.run(state, point, model)
    except (EngineError, UsageError) as error:
        fail(state, point, error)
        return False
    state.study.set_failure(point.id, None, None)
    return True


def _log_path(study: Path, point: PlannedPoint) -> Path:
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in point.name)
    return study.with_name(f"{study.stem}.logs") / f"{safe}.log"


def _packages() -> dict[str, str]:
    return {name: version(name) for name in ("gguf-eval", "llama-cpp-python", "numpy", "gguf")}
