"""Measures speed and memory."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gguf_eval.llama.library import build_info
from gguf_eval.machine import machine_state
from gguf_eval.runtime.devices import chosen_devices
from gguf_eval.runtime.energy import EnergyMeter
from gguf_eval.runtime.memory import MemorySampler, peak_rss_bytes
from gguf_eval.runtime.model import Context, Model
from gguf_eval.runtime.placement import Placement, open_placed
from gguf_eval.runtime.settings import ContextSettings
from gguf_eval.runtime.speed import measure_speed, speed_tests
from gguf_eval.study.jobs import SpeedJob
from gguf_eval.study.workers.emit import Emit


def run(job: SpeedJob, emit: Emit) -> None:
    """Do the job in this process."""
    build = build_info()
    devices = chosen_devices(job.engine.offload)
    before, method = peak_rss_bytes()
    settings = ContextSettings(
        n_ctx=job.n_ctx, batch_size=job.batch_size, ubatch_size=job.ubatch_size, threads=job.threads
    ).with_engine(job.engine)
    meter = EnergyMeter()
    try:
        with MemorySampler(devices) as sampler:
            began = time.perf_counter()
            model, placement = open_placed(Path(job.model), job.engine, settings, job.min_ctx)
            settings = replace(settings, n_ctx=placement.context)
            loaded = time.perf_counter()
            with model, model.open_context(settings) as context:
                opened = time.perf_counter()
                emit({"event": "build", **build})
                states = [machine_state()]
                _time(job, context, meter, sampler, emit)
                states.append(machine_state())
                details = {
                    "load_seconds": loaded - began,
                    "open_seconds": opened - loaded,
                    "states": states,
                    "energy_sources": meter.sources,
                    "devices": [{**asdict(device), "handle": None} for device in devices],
                    **_memory_details(model, context, placement),
                }
    finally:
        meter.close()
    emit({"event": "details", "details": {**details, "device_memory": sampler.device_memory()}})
    emit({"event": "memory", "memory": {**sampler.peaks(), "rss_before_load": (before, method)}})


def _time(job: SpeedJob, context: Context, meter: EnergyMeter, sampler: MemorySampler, emit: Emit) -> None:
    """Run the tests that fit the context, shortened where they don't."""
    room = context.settings.n_ctx - max(job.depths, default=0)
    tests = speed_tests(
        [min(tokens, room) for tokens in job.prompt_tokens],
        [min(tokens, room) for tokens in job.generated_tokens],
        job.depths,
    )
    for sample in measure_speed(context, tests, repetitions=job.repetitions, meter=meter):
        sampler.sample()
        emit({"event": "sample", **asdict(sample)})


def _memory_details(model: Model, context: Context, placement: Placement) -> dict[str, Any]:
    """llama.cpp's own figures, and beside them what was predicted from the header alone."""
    predicted = placement.predicted
    return {
        "buffers": [asdict(buffer) for buffer in (*model.buffers, *context.buffers)],
        "predicted": {**asdict(predicted), "total_bytes": predicted.total_bytes,
                      "resident_bytes": predicted.resident_bytes, "device_bytes": placement.predicted_device_bytes},
        "context": placement.context,
        "context_settings": asdict(context.settings),
        "layers": placement.layers,
        "layer_count": placement.layer_count,
        "reasons": placement.reasons,
    }  # fmt: skip
