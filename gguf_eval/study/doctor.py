"""Looks at what this machine offers."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_eval.errors import EngineError
from gguf_eval.files.cache import cache_dir
from gguf_eval.machine import describe_machine
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


def examine() -> Examination:
    """Ask the system, and a worker process for llama.cpp's build."""
    build: dict[str, Any] = {}
    error = None
    with tempfile.TemporaryDirectory() as folder:
        try:
            run_in_worker(BuildJob(), Path(folder) / "build.log", build.update)
        except EngineError as failure:
            error = str(failure)
    build.pop("event", None)
    return Examination(describe_machine(), build, error, cache_dir())
