"""Makes a point's model file where it is not there yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gguf_eval.files.made import throw_away
from gguf_eval.files.model_file import ModelFile, describe
from gguf_eval.files.recipes import Recipe
from gguf_eval.study.cost import make_seconds
from gguf_eval.study.events import StagePlan, Tally, stage
from gguf_eval.study.job import Emit
from gguf_eval.study.points import PlannedPoint
from gguf_eval.study.stages.state import FoundPoint, RunState, run_job


@dataclass(frozen=True)
class MakeJob:
    """Make a model file by a recipe. Events: none; it is there when the job ends well."""

    source: str
    output: str
    recipe: Recipe
    allow_requantize: bool
    threads: int | None


def plan(point: FoundPoint, threads: int | None) -> list[StagePlan]:
    """One stage."""
    seconds = make_seconds(point.planned.level, point.planned.source.parameters, threads)
    return [StagePlan("make", "", 1, 0, Tally(), seconds)]


def run(state: RunState, point: PlannedPoint, log: Path) -> ModelFile:
    """Quantize the point's file unless it exists; return its description."""
    request = state.request
    if point.recipe is not None and not point.is_there:
        for note in throw_away(point.path):
            state.observer.note(note)
        job = MakeJob(str(point.source.path), str(point.path), point.recipe, request.allow_requantize, request.threads)
        with stage(state.observer, point.name, "make", units=1):
            run_job(state, point, log, job, lambda event: None)
    return describe(point.path, cache=request.cache)


def work(job: MakeJob, emit: Emit) -> None:
    """The worker's side."""
    from gguf_eval.files.made import remember_made
    from gguf_eval.files.quantize import quantize
    from gguf_eval.llama.library import library

    library()  # sends llama.cpp's log to standard error
    quantize(Path(job.source), Path(job.output), job.recipe, allow_requantize=job.allow_requantize, threads=job.threads)
    remember_made(Path(job.output), Path(job.output).parent.parent)
