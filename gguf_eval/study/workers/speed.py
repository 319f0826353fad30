"""Measures speed and peak memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gguf_eval.runtime.bindings import build_info
from gguf_eval.runtime.memory import peak_rss_bytes
from gguf_eval.runtime.model import ContextSettings
from gguf_eval.runtime.placement import open_model
from gguf_eval.runtime.speed import measure_speed
from gguf_eval.study.jobs import SpeedJob
from gguf_eval.study.workers.emit import Emit


def run(job: SpeedJob, emit: Emit) -> None:
    """Do the job in this process."""
    build = build_info()
    before, method = peak_rss_bytes()
    wanted = ContextSettings(n_ctx=job.n_ctx, threads=job.threads).with_engine(job.engine)
    with open_model(Path(job.model), job.engine, wanted) as model:
        emit({"event": "build", **build})
        settings = replace(wanted, n_ctx=min(job.n_ctx, model.trained_context))
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
