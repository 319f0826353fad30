"""Makes a point's model file where it is not there yet."""

from __future__ import annotations

from pathlib import Path

from gguf_eval.files.model_file import ModelFile, describe
from gguf_eval.study.events import stage
from gguf_eval.study.jobs import QuantizeJob
from gguf_eval.study.plan import PlannedPoint
from gguf_eval.study.stages.state import RunState, run_job


def make_model_file(state: RunState, point: PlannedPoint, log: Path) -> ModelFile:
    """Quantize the point's file unless it exists; return its description."""
    if point.recipe is not None and not point.path.exists():
        job = QuantizeJob(
            str(point.source.path),
            str(point.path),
            point.recipe,
            state.request.allow_requantize,
            state.request.threads,
        )
        with stage(state.observer, point.name, "make", units=1):
            run_job(state, point, job, log, lambda event: None)
    return describe(point.path, cache=state.request.cache)
