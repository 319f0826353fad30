"""The one place where llama.cpp's ``llama_model_quantize`` is called: parameters in, log and success out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf_eval.files.ggml_types import type_number
from gguf_eval.files.levels import level_ftype
from gguf_eval.files.recipes import Recipe
from gguf_eval.llama.library import library
from gguf_eval.llama.log import captured_log

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TEXT_BYTES = 127
"""llama.cpp keeps this many bytes of a string that is set through an override."""


@dataclass(frozen=True)
class Result:
    """What a call gave."""

    failure: str | None
    """llama.cpp's reason when it failed."""
    log: str


def call_quantize(
    source: Path,
    output: Path | None,
    recipe: Recipe,
    *,
    threads: int,
    importance: Mapping[str, NDArray[np.float32]] | None = None,
    metadata: Mapping[str, int | str] | None = None,
) -> Result:
    """Quantize ``source`` to ``output``, or only say what would be done where ``output`` is None (a dry run).

    ``importance`` gives mean squared activations by tensor name, ``metadata`` keys to set in the file. The log of a
    dry run is kept from standard error, that of a real run goes on to where it went before.
    """
    params, _keep_alive = _params(recipe, threads, importance or {}, metadata or {})
    params.dry_run = output is None
    target = b"" if output is None else os.fsencode(output)
    with captured_log(forward=output is not None) as log:
        failed = library().llama_model_quantize(os.fsencode(source), target, params)
    text = "".join(log)
    return Result(_reason(text) if failed else None, text)


def clipped(text: str) -> str:
    """Return as much of a text as llama.cpp keeps, whole characters only."""
    return text.encode("utf-8", errors="replace")[:TEXT_BYTES].decode("utf-8", errors="ignore")


def _params(
    recipe: Recipe, threads: int, importance: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, int | str]
) -> tuple[Any, list[Any]]:
    """Build the parameters, and the list of what they point to: it must live as long as they are used."""
    llama = library()
    params = llama.llama_model_quantize_default_params()
    params.ftype = level_ftype(recipe.level)
    params.nthread = threads
    params.pure = recipe.pure
    params.allow_requantize = True  # refused or allowed by the caller, before any work
    if recipe.output_type is not None:
        params.output_tensor_type = type_number(recipe.output_type)
    if recipe.embedding_type is not None:
        params.token_embedding_type = type_number(recipe.embedding_type)
    keep: list[Any] = []
    if recipe.tensor_types:
        types = (llama.llama_model_tensor_override * (len(recipe.tensor_types) + 1))()
        for slot, (pattern, kind) in zip(types, recipe.tensor_types, strict=False):
            slot.pattern, slot.type = pattern.encode(), type_number(kind)
        params.tt_overrides = types
        keep.append(types)
    if importance:
        data = (llama.llama_model_imatrix_data * (len(importance) + 1))()
        for slot, (name, values) in zip(data, importance.items(), strict=False):
            slot.name, slot.size = name.encode(), values.size
            slot.data = values.ctypes.data_as(type(slot.data))
            keep.append(values)
        params.imatrix = data
        keep.append(data)
    if metadata:
        overrides = (llama.llama_model_kv_override * (len(metadata) + 1))()
        for slot, (key, value) in zip(overrides, metadata.items(), strict=False):
            slot.key = key.encode()
            if isinstance(value, str):
                slot.tag, slot.value.val_str = llama.LLAMA_KV_OVERRIDE_TYPE_STR, clipped(value).encode()
            else:
                slot.tag, slot.value.val_i64 = llama.LLAMA_KV_OVERRIDE_TYPE_INT, value
        params.kv_overrides = overrides
        keep.append(overrides)
    return params, keep


def _reason(log: str) -> str:
    marker = "failed to quantize: "
    for line in reversed(log.splitlines()):
        if marker in line:
            return line.split(marker, 1)[1].strip()
    return "it gives no reason"
