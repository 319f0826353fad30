"""Measures a point's speed and memory under the conditions asked for, once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from gguf_eval.files.model_file import ModelFile
from gguf_eval.files.quantize import library_version
from gguf_eval.machine import physical_cores
from gguf_eval.study.jobs import SpeedJob
from gguf_eval.study.plan import PlannedPoint, RunRequest
from gguf_eval.study.process import run_in_worker
from gguf_eval.study.stages.state import RunState, save_build

DEFAULT_CONTEXT = 4096
"""Context of the speed and memory measurement unless given: what a user would open, or the model's own if smaller."""


def speed_job(request: RunRequest, point: PlannedPoint, file: ModelFile) -> SpeedJob:
    """What a worker is asked to measure of a point."""
    needed = max(*request.prompt_tokens, *request.generated_tokens, 0) + max(request.depths)
    usual = min(max(DEFAULT_CONTEXT, needed), file.context_length or DEFAULT_CONTEXT)
    return SpeedJob(
        model=str(file.path),
        n_ctx=request.ctx or usual,
        prompt_tokens=request.prompt_tokens,
        generated_tokens=request.generated_tokens,
        repetitions=request.repetitions,
        threads=request.threads,
        engine=point.engine,
        depths=request.depths,
        batch_size=request.speed_batch_size,
        ubatch_size=request.speed_ubatch_size,
        min_ctx=None if request.min_ctx is None else max(request.min_ctx, needed),
    )


def measure(state: RunState, point: PlannedPoint, point_id: int, file: ModelFile, log: Path) -> None:
    """Time the point and record its memory unless the study holds that."""
    job = speed_job(state.request, point, file)
    conditions = {
        "machine": state.environment["machine"]["processor"],
        "library": library_version(),
        **{key: value for key, value in asdict(job).items() if key not in ("model", "kind")},
        "threads": job.threads or physical_cores(),
    }
    if not state.request.measure_again and state.study.has_measurement(point_id, conditions):
        return
    measurement = state.study.begin_measurement(point_id, conditions)
    tests = (len(job.prompt_tokens) + len(job.generated_tokens)) * len(job.depths)
    with state.observer.step(f"{point.name}: speed and memory", tests * job.repetitions) as advance:

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "sample":
                state.study.save_speed_sample(measurement, **{k: v for k, v in event.items() if k != "event"})
                advance(1)
            elif event["event"] == "details":
                state.study.save_details(measurement, event["details"])
            elif event["event"] == "memory":
                memory = {kind: (int(size), str(method)) for kind, (size, method) in event["memory"].items()}
                state.study.finish_measurement(measurement, memory)
            elif event["event"] == "build":
                save_build(state, event, point_id)

        run_in_worker(job, log, on_event)
