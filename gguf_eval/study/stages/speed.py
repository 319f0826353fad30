"""Measures a point's speed and memory under the conditions asked for, once."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf_eval.files.model_file import ModelFile
from gguf_eval.files.quantize import library_version
from gguf_eval.machine import machine_state, physical_cores, processor_name
from gguf_eval.runtime.settings import EngineSettings
from gguf_eval.store.database import StudyLookup
from gguf_eval.study.cost import Rates
from gguf_eval.study.events import StagePlan, Tally, stage
from gguf_eval.study.job import Emit
from gguf_eval.study.points import PlannedPoint, RunRequest
from gguf_eval.study.stages.reference import ModelPoints
from gguf_eval.study.stages.state import Asked, FoundPoint, ReadyPoint, RunState, run_job, save_build

if TYPE_CHECKING:
    from gguf_eval.runtime.energy import EnergyMeter
    from gguf_eval.runtime.memory import MemorySampler
    from gguf_eval.runtime.model import Context, Model
    from gguf_eval.runtime.placement import Placement

DEFAULT_CONTEXT = 4096
"""Context of the speed and memory measurement unless given: what a user would open, or the model's own if smaller."""


@dataclass(frozen=True)
class SpeedJob:
    """Measure speed and memory. Events: ``build``, ``sample``, ``memory``, ``details``."""

    model: str
    n_ctx: int
    prompt_tokens: tuple[int, ...]
    generated_tokens: tuple[int, ...]
    repetitions: int
    threads: int | None
    engine: EngineSettings
    depths: tuple[int, ...] = (0,)
    batch_size: int = 2048
    ubatch_size: int = 512
    min_ctx: int | None = None
    """The context may be reduced to so many tokens where that lets more layers fit, or the model at all."""


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
        **{key: value for key, value in asdict(job).items() if key not in ("model",)},
        "threads": job.threads or physical_cores(),
    }


def sample_count(job: SpeedJob) -> int:
    """How many timed repetitions a measurement takes, with the anchor at the end of each kind."""
    kinds = bool(job.prompt_tokens) + bool(job.generated_tokens)
    tests = (len(job.prompt_tokens) + len(job.generated_tokens)) * len(job.depths)
    return tests * job.repetitions + kinds


def plan(asked: Asked, point: FoundPoint, model: ModelPoints[FoundPoint], lookup: StudyLookup) -> list[StagePlan]:
    """One stage, of timed repetitions."""
    request = asked.request
    if not request.speed:
        return []
    job = speed_job(request, point.planned, point.file or point.planned.source)
    done = (
        not request.measure_again and point.id is not None and lookup.has_measurement(point.id, speed_conditions(job))
    )
    units = sample_count(job)
    return [StagePlan("speed", "", units, units if done else 0, Tally(), speed_seconds(job, point.rates))]


def speed_seconds(job: SpeedJob, rates: Rates) -> float:
    """What it is predicted to take: every test's repetitions, its warm-up, and the anchors."""
    runs = job.repetitions + 1
    deep = sum(job.depths) * runs * (len(job.prompt_tokens) + len(job.generated_tokens)) / rates.prompt
    prompts = sum(job.prompt_tokens) * (runs * len(job.depths) + 1) / rates.prompt
    written = sum(job.generated_tokens) * (job.repetitions * len(job.depths) + 1) / rates.alone
    return deep + prompts + written


def run(state: RunState, point: ReadyPoint, model: ModelPoints[ReadyPoint]) -> None:
    """Time the point and record its memory unless the study holds that."""
    if not state.request.speed:
        return
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

        run_job(state, point.planned, point.log, job, on_event)


def work(job: SpeedJob, emit: Emit) -> None:
    """The worker's side."""
    from gguf_eval.llama.library import build_info
    from gguf_eval.runtime.devices import chosen_devices
    from gguf_eval.runtime.energy import EnergyMeter
    from gguf_eval.runtime.memory import MemorySampler, peak_rss_bytes
    from gguf_eval.runtime.placement import open_placed
    from gguf_eval.runtime.settings import ContextSettings

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
    from gguf_eval.runtime.speed import measure_speed, speed_tests

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
