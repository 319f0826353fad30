"""Packs the start of a GGUF file: metadata and tensor table (version 3, little-endian)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gguf_eval.errors import ModelFileError

if TYPE_CHECKING:
    from gguf_eval.files.convert.tensor import PlannedTensor

ALIGNMENT_BYTES = 32
_VERSION = 3
_SCALARS = {"UINT32": "<I", "INT32": "<i", "FLOAT32": "<f", "BOOL": "<?", "UINT64": "<Q", "FLOAT64": "<d"}
_ARRAYS = {"INT32": "<i4", "FLOAT32": "<f4"}


def padded(size_bytes: int) -> int:
    """Round a size up to the alignment."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def pack(metadata: Mapping[str, Any], tensors: Sequence[PlannedTensor]) -> bytes:
    """Return the header for ``metadata`` (key -> gguf's value with type) and ``tensors``, padded to the data."""
    import gguf

    parts = [b"GGUF", struct.pack("<IQQ", _VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        try:
            parts += [_string(key), struct.pack("<I", value.type), _value(value.type.name, value.value)]
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError, struct.error):
            raise ModelFileError(
                f"{key}: {value.type.name.lower()} is needed, found {str(value.value)[:40]!r}; mend its config"
            ) from None
    offset = 0
    for tensor in tensors:
        kind = gguf.GGMLQuantizationType[tensor.type_name]
        parts += [_string(tensor.name), struct.pack("<I", len(tensor.shape))]
        parts += [struct.pack("<Q", size) for size in reversed(tensor.shape)]
        parts.append(struct.pack("<IQ", kind, offset))
        offset += padded(tensor.size_bytes)
    packed = b"".join(parts)
    return packed.ljust(padded(len(packed)), b"\0")


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind: str, value: Any) -> bytes:
    if kind == "STRING":
        return _string(value)
    if kind == "ARRAY":
        return _array(value)
    return struct.pack(_SCALARS[kind], value)


def _array(values: Sequence[Any]) -> bytes:
    import gguf

    kind = gguf.GGUFValueType.get_type(values[0])
    start = struct.pack("<IQ", kind, len(values))
    if kind.name == "STRING":
        texts = [text.encode() for text in values]
        sizes = np.array([len(text) for text in texts], "<u8").tobytes()
        return start + b"".join(part for i, text in enumerate(texts) for part in (sizes[8 * i : 8 * i + 8], text))
    return start + np.asarray(values, dtype=_ARRAYS[kind.name]).tobytes()
