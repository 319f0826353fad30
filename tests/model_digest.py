"""A model file as small JSON: every key with its type and value, every tensor with shape, type and hash."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from gguf_eval.files.header import read_header

_LONG = 16  # arrays and texts longer than this are hashed


def digest(path: Path) -> dict[str, Any]:
    """Return the whole file's hash, its keys, and its tensors in order."""
    header = read_header(path, long_arrays=True)
    data = path.read_bytes()
    tensors = {}
    for tensor in header.tensors:
        start = header.data_offset + tensor.offset
        sha256 = hashlib.sha256(data[start : start + tensor.size_bytes]).hexdigest()[:16]
        tensors[tensor.name] = [list(tensor.shape), tensor.type_name, sha256]
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "keys": {key: _short(value) for key, value in header.metadata.items()},
        "tensors": tensors,
    }


def _short(value: Any) -> Any:
    if isinstance(value, (list, str)) and len(value) > _LONG:
        kind = type(value[0]).__name__ if isinstance(value, list) else "str"
        return f"{len(value)} {kind} {hashlib.sha256(repr(value).encode()).hexdigest()[:16]}"
    return value
