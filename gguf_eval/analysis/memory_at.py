"""Memory that a point would take at a context other than the one it was measured with."""

from __future__ import annotations

from pathlib import Path

from gguf_eval.errors import GgufEvalError
from gguf_eval.files.cache import model_bytes, model_parts
from gguf_eval.files.footprint import predict_footprint
from gguf_eval.files.header import read_header
from gguf_eval.store.records import PointRecord


def predict_memory(point: PointRecord, context: int, features: frozenset[str]) -> int | None:
    """Peak resident memory at a context, from the header of the point's file; None where that can't be said.

    What the program took before it loaded the model is added, where it was measured. None: the file is gone or is
    another one, or layers were on devices.
    """
    if why_not_predicted(point):
        return None
    try:
        footprint = predict_footprint(
            [read_header(part) for part in model_parts(Path(point.path))],
            context,
            cache_type=point.settings.get("cache_type_k", "F16"),
            cache_type_v=point.settings.get("cache_type_v", "F16"),
            features=features,
            flash_attention=point.settings.get("flash_attention", -1) != 0,
        )
    except (GgufEvalError, OSError):
        return None
    return footprint.resident_bytes + point.memory.get("rss_before_load", 0)


def why_not_predicted(point: PointRecord) -> str:
    """Why nothing can be predicted; empty where it can."""
    if point.details.get("layers"):
        return "layers were on devices"
    path = Path(point.path)
    try:
        size_bytes = model_bytes(path)
    except (GgufEvalError, OSError):
        return "the file is not there"
    return "" if size_bytes == point.size_bytes else "another file is in its place"
