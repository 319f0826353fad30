"""What a model file on this machine will need in memory, by llama.cpp's own account where it gives one."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gguf_eval.errors import EngineError
from gguf_eval.files.footprint import Footprint
from gguf_eval.runtime.settings import EngineSettings
from gguf_eval.study.job import Emit
from gguf_eval.study.process import run_in_worker


@dataclass(frozen=True)
class FootprintJob:
    """Say what llama.cpp would reserve for a model. Events: ``footprint``, by the header, then by llama.cpp."""

    model: str
    n_ctx: int | None
    engine: EngineSettings


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


def work(job: FootprintJob, emit: Emit) -> None:
    """The worker's side: the header's arithmetic first, for where llama.cpp refuses the file. No weights are loaded."""
    from gguf_eval.files.cache import model_parts
    from gguf_eval.files.footprint import cpu_features, predict_footprint
    from gguf_eval.files.plan import read_headers
    from gguf_eval.llama.library import build_info
    from gguf_eval.runtime.reserved import LONGEST_CONTEXT, reserved_footprint
    from gguf_eval.runtime.settings import ContextSettings

    build = build_info()
    path, keys, values = model_parts(Path(job.model))[0], job.engine.cache_type_k, job.engine.cache_type_v
    predicted = predict_footprint(
        read_headers(path),
        job.n_ctx,
        cache_type=keys,
        cache_type_v=values,
        features=cpu_features(build["system_info"]),
    )
    emit({"event": "footprint", "footprint": asdict(predicted)})
    if predicted.context <= LONGEST_CONTEXT:
        wanted = ContextSettings(n_ctx=predicted.context).with_engine(job.engine)
        emit({"event": "footprint", "footprint": asdict(reserved_footprint(path, wanted, predicted))})
