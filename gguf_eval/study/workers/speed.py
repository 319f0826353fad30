"""Measures speed and peak memory."""

from __future__ import annotations

from pathlib import Path

from gguf_eval.runtime.bindings import build_info
from gguf_eval.runtime.memory import peak_rss_bytes
from gguf_eval.runtime.model import ContextSettings, Model
from gguf_eval.runtime.speed import measure_speed
from gguf_eval.study.jobs import SpeedJob
from gguf_eval.study.workers.emit import Emit


def run(job: SpeedJob, emit: Emit) -> None:
    """Do the job in this process."""
    build = build_info()
    before, method = peak_rss_bytes()
    with Model(Path(job.model), gpu_layers=job.gpu_layers) as model:
        emit({"event": "build", **build})
        settings = ContextSettings(n_ctx=min(job.n_ctx, model.trained_context), threads=job.threads)
        with model.open_context(settings) as context:
            for sample in measure_speed(
                context,
                prompt_tokens=min(job.prompt_tokens, settings.n_ctx),
                generated_tokens=min(job.generated_tokens, settings.n_ctx),
                repetitions=job.repetitions,
            ):
                emit({"event": "sample", **sample.__dict__})
            peak, method = peak_rss_bytes()
    memory = {"peak_rss": (peak, method), "rss_before_load": (before, method)}
    emit({"event": "memory", "memory": memory})
