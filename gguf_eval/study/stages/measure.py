"""Measures a point's speed and memory under the conditions asked for, once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from gguf_eval.files.model_file import ModelFile
from gguf_eval.files.quantize import library_version
from gguf_eval.machine import physical_cores
from gguf_eval.study.jobs import SpeedJob
from gguf_eval.study.plan import PlannedPoint
from gguf_eval.study.process import run_in_worker
from gguf_eval.study.stages.state import RunState, save_build

DEFAULT_CONTEXT = 4096
"""Context of the speed and memory measurement unless given: what a user would open, or the model's own if smaller."""


def measure(state: RunState, point: PlannedPoint, point_id: int, file: ModelFile, log: Path) -> None:
    """Time the point and record its memory unless the study holds that."""
    request = state.request
    n_ctx = request.ctx or min(DEFAULT_CONTEXT, file.context_length or DEFAULT_CONTEXT)
    conditions = {
        "machine": state.environment["machine"]["processor"],
        "library": library_version(),
        "n_ctx": n_ctx,
        "threads": request.threads or physical_cores(),
        "offload": asdict(point.engine.offload),
        "prompt_tokens": request.prompt_tokens,
        "generated_tokens": request.generated_tokens,
        "repetitions": request.repetitions,
    }
    if state.study.has_measurement(point_id, conditions):
        return
    measurement = state.study.begin_measurement(point_id, conditions)
    job = SpeedJob(
        model=str(file.path),
        n_ctx=n_ctx,
        prompt_tokens=request.prompt_tokens,
        generated_tokens=request.generated_tokens,
        repetitions=request.repetitions,
        threads=request.threads,
        engine=point.engine,
    )
    with state.observer.step(f"{point.name}: speed and memory", 2 * request.repetitions) as advance:

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "sample":
                state.study.save_speed_sample(
                    measurement, event["test"], event["repetition"], event["tokens"], event["seconds"]
                )
                advance(1)
            elif event["event"] == "memory":
                memory = {kind: (int(size), str(method)) for kind, (size, method) in event["memory"].items()}
                state.study.finish_measurement(measurement, memory)
            elif event["event"] == "build":
                save_build(state, event)

        run_in_worker(job, log, on_event)
