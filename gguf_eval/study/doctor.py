"""Looks at what this machine offers."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_eval.errors import EngineError
from gguf_eval.files.cache import cache_dir
from gguf_eval.machine import describe_machine
from gguf_eval.runtime.settings import Offload
from gguf_eval.study.jobs import BuildJob
from gguf_eval.study.process import run_in_worker


@dataclass(frozen=True)
class Examination:
    """What was found."""

    machine: dict[str, Any]
    build: dict[str, Any]
    """llama.cpp's build; empty when it does not load."""
    build_error: str | None
    cache: Path
    devices: tuple[dict[str, Any], ...] = ()
    """Those llama.cpp can compute on: name, description, kind, free_bytes, total_bytes."""


def examine(offload: Offload | None = None) -> Examination:
    """Ask the system, and a worker process for llama.cpp's build and devices."""
    error = None
    found: dict[str, dict[str, Any]] = {}
    try:
        found = _ask(offload or Offload())
    except EngineError as failure:
        error = str(failure)
    build = {key: value for key, value in found.get("build", {}).items() if key != "event"}
    devices = tuple(found.get("devices", {}).get("devices", ()))
    return Examination(describe_machine(), build, error, cache_dir(), devices)


def check_offload(offload: Offload) -> None:
    """Refuse layers, devices or servers that this machine does not have, before anything is loaded."""
    if offload.gpu_layers or offload.devices or offload.rpc:
        _ask(offload)


def _ask(offload: Offload) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        run_in_worker(
            BuildJob(offload), Path(folder) / "build.log", lambda event: found.update({event["event"]: event})
        )
    return found
