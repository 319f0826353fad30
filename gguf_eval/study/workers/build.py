"""Says which llama.cpp this is and what devices it finds."""

from __future__ import annotations

from dataclasses import asdict

from gguf_eval.llama.devices import backends, devices
from gguf_eval.llama.library import build_info
from gguf_eval.runtime.devices import check_layers_possible, chosen_devices
from gguf_eval.study.jobs import BuildJob
from gguf_eval.study.workers.emit import Emit


def run(job: BuildJob, emit: Emit) -> None:
    """Do the job in this process."""
    emit({"event": "build", **build_info()})
    check_layers_possible(job.offload, chosen_devices(job.offload))
    emit({"event": "devices", "devices": [asdict(device) for device in devices()], "backends": backends()})
