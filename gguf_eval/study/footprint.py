"""What a model file on this machine will need in memory, by llama.cpp's own account where it gives one."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from gguf_eval.errors import EngineError
from gguf_eval.files.footprint import Footprint
from gguf_eval.runtime.settings import EngineSettings
from gguf_eval.study.jobs import FootprintJob
from gguf_eval.study.process import run_in_worker


def local_footprint(path: Path, context: int | None, engine: EngineSettings, predicted: Footprint) -> Footprint:
    """Ask a worker for llama.cpp's figures; ``predicted``, with a note, where llama.cpp or the file does not load."""
    found = predicted
    warnings: list[str] = []

    def on_event(event: dict[str, Any]) -> None:
        nonlocal found
        fields = event["footprint"]
        found = Footprint(**{**fields, "notes": tuple(fields["notes"])})

    with tempfile.TemporaryDirectory() as folder:
        try:
            job = FootprintJob(str(path), context, engine)
            run_in_worker(job, Path(folder) / "footprint.log", on_event, on_warning=warnings.append)
        except EngineError as error:
            warnings.append(str(error))
    return replace(found, notes=(*found.notes, *dict.fromkeys(warnings)))
