"""What llama.cpp itself would reserve for a model and a context: from a load that allocates (nearly) nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gguf_eval.files.footprint import Footprint
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.settings import ContextSettings

LONGEST_CONTEXT = 1 << 20
"""Tokens: the list of a cache's cells is made even so, and takes 100 bytes or so for each."""


def reserved_footprint(path: Path, context: ContextSettings, predicted: Footprint) -> Footprint:
    """Return ``predicted`` with llama.cpp's own figures for cache, states and compute buffer.

    Everything on the processor. Raises as `Model` and its contexts do.
    """
    held: dict[str, int] = {}
    with Model(path, no_alloc=True) as model, model.open_context(context) as opened:
        for buffer in opened.buffers:
            held[buffer.holds] = held.get(buffer.holds, 0) + buffer.size_bytes
    return replace(
        predicted,
        kv_bytes=held.get("KV", 0),
        state_bytes=held.get("RS", 0),
        compute_bytes=held.get("compute", 0) + held.get("output", 0),
        activation_bytes=min(predicted.activation_bytes, held.get("compute", 0)),
        source="llama.cpp",
        notes=(),
    )
