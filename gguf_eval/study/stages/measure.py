"""Measures a point's speed and memory under the conditions asked for, once."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gguf_eval.files.model_file import ModelFile
from gguf_eval.files.quantize import library_version
from gguf_eval.machine import physical_cores, processor_name
from gguf_eval.study.events import stage
from gguf_eval.study.jobs import SpeedJob
from gguf_eval.study.plan import PlannedPoint, RunRequest
from gguf_eval.study.stages.state import ReadyPoint, RunState, run_job, save_build

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


def speed_conditions(job: SpeedJob) -> dict[str, Any]:
    """What a measurement depends on, beside the model file: under the same conditions it is not done again."""
    return {
        "machine": processor_name(),
        "library": library_version(),
        **{key: value for key, value in asdict(job).items() if key not in ("model", "kind")},
        "threads": job.threads or physical_cores(),
    }


def sample_count(job: SpeedJob) -> int:
    """How many timed repetitions a measurement takes, with the anchor at the end of each kind."""
    kinds = bool(job.prompt_tokens) + bool(job.generated_tokens)
    tests = (len(job.prompt_tokens) + len(job.generated_tokens)) * len(job.depths)
    return tests * job.repetitions + kinds


def measure(state: RunState, point: ReadyPoint) -> None:
    """Time the point and record its memory unless the study holds that."""
    job = speed_job(state.request, point.planned, point.file)
    conditions = speed_conditions(job)
    if not state.request.measure_again and state.study.has_measurement(point.id, conditions):
        return
    measurement = state.study.begin_measurement(point.id, conditions)
    with stage(state.observer, point.planned.name, "speed", units=sample_count(job)) as advance:

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
                save_build(state, event, point.id)

        run_job(state, point.planned, job, point.log, on_event)
