"""Reads what safetensors files say of their tensors.

The format: eight bytes with the header's length (little-endian), a JSON header, the data. The rules checked here are
the format's own: offsets lie inside the file, follow one another without gaps or overlaps, and fit shape and type.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from gguf_eval.errors import ModelFileError

ELEMENT_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # the limit of the format's own library


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies."""

    name: str
    dtype: str
    """The format's name of the element type, for instance ``BF16``."""
    shape: tuple[int, ...]
    """Sizes in PyTorch's order: the contiguous dimension last."""
    file: Path
    offset: int
    """Bytes from the start of the file."""

    @property
    def elements(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor's data."""
        return self.elements * ELEMENT_BYTES[self.dtype]


def read_table(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of the file at ``path`` by name, sorted by name. Raises `ModelFileError`."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if size < _LENGTH_BYTES or length > min(size - _LENGTH_BYTES, _MAX_HEADER_BYTES):
                raise _damaged(path, f"a header of {length:,} bytes is announced in a file of {size:,}")
            header = file.read(length)
    except FileNotFoundError:
        raise ModelFileError(f"{path}: the file is missing; download the checkpoint again") from None
    except OSError as error:
        raise ModelFileError(f"{path}: can't be read ({error.strerror}); check its permissions") from None
    return parse_table(path, header, size)


def parse_table(path: Path, header: bytes, size: int) -> dict[str, StoredTensor]:
    """Return the tensors that ``header`` (the JSON) describes in the file ``path`` of ``size`` bytes."""
    try:
        entries = json.loads(header.decode(), object_pairs_hook=_no_duplicates)
    except ValueError as error:
        raise _damaged(path, f"its header is not JSON ({error})") from None
    if not isinstance(entries, dict):
        raise _damaged(path, "its header is not a JSON object")
    entries.pop("__metadata__", None)
    data_offset = _LENGTH_BYTES + len(header)
    tensors: dict[str, StoredTensor] = {}
    position = 0
    for name, start, end, tensor in sorted(
        (_entry(path, name, entry, data_offset) for name, entry in entries.items()), key=lambda row: row[1:3]
    ):
        if start != position:
            what = "overlaps the one before it" if start < position else "leaves a gap before it"
            raise _damaged(
                path, f"tensor '{name}' {what} (it begins at {start:,}, the data so far end at {position:,})"
            )
        position = end
        tensors[name] = tensor
    if data_offset + position != size:
        raise _damaged(path, f"{data_offset + position:,} bytes are needed, {size:,} found")
    return dict(sorted(tensors.items()))


def _entry(path: Path, name: str, entry: Any, data_offset: int) -> tuple[str, int, int, StoredTensor]:
    if not name.isprintable():  # names are shown, and such a one could make a line of its own
        raise _damaged(path, f"a tensor's name is {name!r}")
    if not isinstance(entry, dict):
        raise _damaged(path, f"tensor '{name}' has no description")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in ELEMENT_BYTES:
        raise _damaged(path, f"tensor '{name}' has the unknown type {dtype!r}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(path, f"tensor '{name}' has shape {shape!r} and offsets {offsets!r}")
    start, end = offsets
    tensor = StoredTensor(name, dtype, tuple(shape), path, data_offset + start)
    if tensor.size_bytes != end - start:
        raise _damaged(
            path,
            f"tensor '{name}' {dtype}{shape} needs {tensor.size_bytes:,} bytes, its offsets give {end - start:,}",
        )
    return name, start, end, tensor


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice")
    return result


def _damaged(path: Path, found: str) -> ModelFileError:
    return ModelFileError(f"{path}: not a usable safetensors file: {found}; download it again")


def read_shards(folder: Path, index: Mapping[str, Any] | None) -> dict[str, StoredTensor]:
    """Return all tensors of the checkpoint in ``folder``, in the order of file name and tensor name.

    ``index`` is the content of model.safetensors.index.json, or None for a checkpoint in one file; every shard it
    names must be there and hold the tensors it says. Raises `ModelFileError`.
    """
    if index is None:
        return read_table(folder / "model.safetensors")
    weight_map = index.get("weight_map")
    where = folder / "model.safetensors.index.json"
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ModelFileError(f"{where}: a 'weight_map' of tensor to file is needed; download it again")
    for name in set(weight_map.values()):
        if name != Path(name).name or "\\" in name or name in ("", ".", ".."):
            raise ModelFileError(f"{where}: shard {name!r} lies outside the folder; don't use this checkpoint")
    missing = sorted(repr(name) for name in set(weight_map.values()) if not (folder / name).is_file())
    if missing:
        raise ModelFileError(f"{folder}: shard {', '.join(missing)} is missing; download the checkpoint again")
    tensors: dict[str, StoredTensor] = {}
    for name in sorted(set(weight_map.values())):
        table = read_table(folder / name)
        for tensor in table:
            if weight_map.get(tensor) != name:
                raise ModelFileError(
                    f"{folder / name}: tensor '{tensor}' is not the index's ({weight_map.get(tensor, 'not listed')}); "
                    "download the checkpoint again"
                )
        tensors |= table
    absent = sorted(set(weight_map) - set(tensors))
    if absent:
        raise ModelFileError(
            f"{folder / weight_map[absent[0]]}: tensor {absent[0]!r} is listed in the index and not in the file "
            f"({len(absent)} such); download it again"
        )
    return tensors
