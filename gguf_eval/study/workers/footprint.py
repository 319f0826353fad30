"""Says what llama.cpp would reserve for a model. No weights are loaded."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from gguf_eval.files.cache import model_parts
from gguf_eval.files.footprint import cpu_features, predict_footprint
from gguf_eval.files.plan import read_headers
from gguf_eval.llama.library import build_info
from gguf_eval.runtime.reserved import LONGEST_CONTEXT, reserved_footprint
from gguf_eval.runtime.settings import ContextSettings
from gguf_eval.study.jobs import FootprintJob
from gguf_eval.study.workers.emit import Emit


def run(job: FootprintJob, emit: Emit) -> None:
    """Do the job in this process: the header's arithmetic first, for where llama.cpp refuses the file."""
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
