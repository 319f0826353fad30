"""Makes a point's model file where it is not there yet."""

from __future__ import annotations

from pathlib import Path

from gguf_eval.files.model_file import ModelFile, describe
from gguf_eval.study.jobs import QuantizeJob
from gguf_eval.study.plan import PlannedPoint
from gguf_eval.study.process import run_in_worker
from gguf_eval.study.stages.state import RunState


def make_model_file(state: RunState, point: PlannedPoint, log: Path) -> ModelFile:
    """Quantize the point's file unless it exists; return its description."""
    if point.made and not point.path.exists():
        job = QuantizeJob(
            str(point.source.path),
            str(point.path),
            point.level,
            state.request.allow_requantize,
            state.request.threads,
        )
        with state.observer.step(f"{point.name}: making the model file", 0):
            run_in_worker(job, log, lambda event: None)
    return describe(point.path, cache=state.request.cache)
