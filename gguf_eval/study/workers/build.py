"""Says which llama.cpp this is."""

from __future__ import annotations

from gguf_eval.runtime.bindings import build_info
from gguf_eval.study.jobs import BuildJob
from gguf_eval.study.workers.emit import Emit


def run(job: BuildJob, emit: Emit) -> None:
    """Do the job in this process."""
    emit({"event": "build", **build_info()})
