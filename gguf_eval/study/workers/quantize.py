"""Makes a model file by a recipe."""

from __future__ import annotations

from pathlib import Path

from gguf_eval.files.quantize import quantize
from gguf_eval.runtime.bindings import library
from gguf_eval.study.jobs import QuantizeJob
from gguf_eval.study.workers.emit import Emit


def run(job: QuantizeJob, emit: Emit) -> None:
    """Do the job in this process."""
    library()  # sends llama.cpp's log to standard error
    quantize(Path(job.source), Path(job.output), job.recipe, allow_requantize=job.allow_requantize, threads=job.threads)
