"""The one place where llama.cpp's ``llama_model_quantize`` is called: parameters in, log and success out."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf_eval.files.ggml_types import type_number
from gguf_eval.files.levels import level_ftype
from gguf_eval.files.recipes import Recipe

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
    import llama_cpp

    params, _keep_alive = _params(recipe, threads, importance or {}, metadata or {})
    params.dry_run = output is None
    target = b"" if output is None else native_path(output)
    with engine_log(forward=output is not None) as log:
        failed = llama_cpp.llama_model_quantize(native_path(source), target, ctypes.byref(params))
    text = "".join(log)
    return Result(_reason(text) if failed else None, text)


def native_path(path: Path) -> bytes:
    """Encode a path as llama.cpp's ``fopen`` wants it: UTF-8 on Windows, the system's bytes elsewhere."""
    return str(path).encode("utf-8") if os.name == "nt" else os.fsencode(path)


def clipped(text: str) -> str:
    """Return as much of a text as llama.cpp keeps, whole characters only."""
    return text.encode("utf-8", errors="replace")[:TEXT_BYTES].decode("utf-8", errors="ignore")


@contextmanager
def engine_log(*, forward: bool) -> Iterator[list[str]]:
    """Collect what llama.cpp logs inside the block and, with ``forward``, let it go on to where it went before."""
    import llama_cpp

    previous = llama_cpp.llama_log_callback()
    user_data = ctypes.c_void_p()
    llama_cpp.llama_log_get(ctypes.byref(previous), ctypes.byref(user_data))
    log: list[str] = []

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def collect(severity: int, text: bytes, data: object) -> None:
        log.append(text.decode("utf-8", errors="replace"))
        if forward and previous:
            previous(severity, text, data)

    llama_cpp.llama_log_set(collect, user_data)
    try:
        yield log
    finally:
        llama_cpp.llama_log_set(previous, user_data)


def _params(
    recipe: Recipe, threads: int, importance: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, int | str]
) -> tuple[Any, list[Any]]:
    """Build the parameters, and the list of what they point to: it must live as long as they are used."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
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
        types = (llama_cpp.llama_model_tensor_override * (len(recipe.tensor_types) + 1))()
        for slot, (pattern, kind) in zip(types, recipe.tensor_types, strict=False):
            slot.pattern, slot.type = pattern.encode(), type_number(kind)
        params.tt_overrides = types
        keep.append(types)
    if importance:
        data = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()
        for slot, (name, values) in zip(data, importance.items(), strict=False):
            slot.name, slot.size = name.encode(), values.size
            slot.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            keep.append(values)
        params.imatrix = data
        keep.append(data)
    if metadata:
        overrides = (llama_cpp.llama_model_kv_override * (len(metadata) + 1))()
        for slot, (key, value) in zip(overrides, metadata.items(), strict=False):
            slot.key = key.encode()
            if isinstance(value, str):
                slot.tag, slot.value.val_str = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR, clipped(value).encode()
            else:
                slot.tag, slot.value.val_i64 = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT, value
        params.kv_overrides = overrides
        keep.append(overrides)
    return params, keep


def _reason(log: str) -> str:
    marker = "failed to quantize: "
    for line in reversed(log.splitlines()):
        if marker in line:
            return line.split(marker, 1)[1].strip()
    return "it gives no reason"
