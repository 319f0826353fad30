"""Reads what a GGUF says of itself: metadata and tensor table, never the weights.

The layout is that of the GGUF specification, versions 2 and 3, little-endian. Every length is checked against the
bytes that are there, so that a damaged file is refused here and not by an assertion inside llama.cpp.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf_eval.errors import ModelFileError
from gguf_eval.files.ggml_types import block_shape, file_type_name, type_name

MAGIC = b"GGUF"
LONG_ARRAY = 512
"""Arrays longer than this, the most layers that llama.cpp takes, are read as an `ArraySummary` unless asked for."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4
_LENGTH = struct.Struct("<Q")
_TELLING_BYTES = 256
_OLD = "a model in a format before GGUF, which llama.cpp reads no more; get it as GGUF"
_FOREIGN = {
    b"version https://git-lfs": "a git-lfs pointer, not the file it stands for; get the file with 'git lfs pull'",
    b"<!doctype html": "a web page, not the file itself; get the file from its download link (on the hub: /resolve/)",
    b"<html": "a web page, not the file itself; get the file from its download link (on the hub: /resolve/)",
    b"PK\x03\x04": "a PyTorch checkpoint or ZIP archive; unpack it, or convert the checkpoint from its safetensors",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"tjgg": _OLD, b"fmgg": _OLD, b"lmgg": _OLD,
}  # fmt: skip
"""By the bytes that such files begin with; text in lower case."""
_MIN_BYTES_PER_KEY = 8 + 4 + 1  # length of the name, value type, and a value of one byte
_MIN_BYTES_PER_TENSOR = 8 + 4 + 8 + 4 + 8


@dataclass(frozen=True)
class ArraySummary:
    """Stands for a metadata array that was skipped because it is long (tokens, scores, merges)."""

    count: int
    digest: str = field(default="", compare=False)
    """Of an array of texts: hexadecimal, equal for equal texts."""


@dataclass(frozen=True)
class TensorInfo:
    """One row of the tensor table."""

    name: str
    shape: tuple[int, ...]
    """Sizes in ggml's order: the contiguous dimension first."""
    type_name: str
    """ggml's name of the storage type, for instance ``Q4_K``."""
    offset: int
    """Bytes from the start of the data section."""
    size_bytes: int

    @property
    def elements(self) -> int:
        """Number of weights."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class Header:
    """Metadata and tensor table of one GGUF file."""

    version: int
    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    """Bytes from the start of the file to the data section."""

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the model family, for instance ``llama``."""
        return str(self.metadata.get("general.architecture", "unknown"))

    @property
    def parameters(self) -> int:
        """Number of weights in all tensors."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Bits of all tensor data over number of weights: the convention of llama.cpp's own "BPW" line."""
        return 8.0 * sum(tensor.size_bytes for tensor in self.tensors) / max(1, self.parameters)

    @property
    def context_length(self) -> int | None:
        """The context the model was trained for, in tokens, where the file says."""
        value = self.metadata.get(f"{self.architecture}.context_length")
        return int(value) if value is not None else None

    @property
    def split_count(self) -> int:
        """Number of files the model is split into; 1 for a whole file."""
        return max(1, int(self.metadata.get("split.count", 1)))

    @property
    def level(self) -> str:
        """The quantization level by llama.cpp's name, from the file's own ``general.file_type``.

        A file without that key is named for the type that holds most of its weights.
        """
        value = self.metadata.get("general.file_type")
        if value is not None:
            try:
                name = file_type_name(int(value) & ~1024)
            except ValueError:
                return f"type {value}"
            return name.removeprefix("MOSTLY_").removeprefix("ALL_")
        weights: dict[str, int] = {}
        for tensor in self.tensors:
            weights[tensor.type_name] = weights.get(tensor.type_name, 0) + tensor.elements
        return max(weights, key=lambda name: weights[name]) if weights else "empty"

    def type_mix(self) -> dict[str, int]:
        """Number of tensors of each storage type, most frequent first."""
        counts: dict[str, int] = {}
        for tensor in self.tensors:
            counts[tensor.type_name] = counts.get(tensor.type_name, 0) + 1
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


class Truncated(Exception):
    """The bytes end before the header does; more of them may mend it."""


class _Cursor:
    """Reads little-endian values from a buffer and never past its end."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.data = data
        self.position = 0
        self.size = len(data)

    def skip(self, count: int) -> int:
        start = self.position
        if count < 0 or start + count > self.size:
            raise Truncated
        self.position = start + count
        return start

    def take(self, count: int) -> bytes:
        start = self.skip(count)
        return self.data[start : self.position]

    def scalar(self, code: str) -> Any:
        size = struct.calcsize("<" + code)
        return struct.unpack("<" + code, self.take(size))[0]

    def string(self) -> str:
        return self.take(self.scalar("Q")).decode("utf-8", errors="replace")

    def value(self, kind: int, long_arrays: bool) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(long_arrays)
        if kind not in _SCALARS:
            raise ValueError(f"metadata value of unknown type {kind}")
        return self.scalar(_SCALARS[kind])

    def array(self, long_arrays: bool) -> Any:
        kind, count = self.scalar("I"), self.scalar("Q")
        keep = long_arrays or count <= LONG_ARRAY
        if kind in _SCALARS:
            raw = self.skip(count * struct.calcsize("<" + _SCALARS[kind]))
            if not keep:
                return ArraySummary(count)
            return list(struct.unpack_from(f"<{count}{_SCALARS[kind]}", self.data, raw))
        if kind != _STRING:  # the format could nest arrays; llama.cpp reads none of those either
            raise ValueError(f"metadata array of unknown type {kind}")
        if keep:
            if count > self.size:
                raise Truncated
            return [self.string() for _ in range(count)]
        start = self.position
        self.skip_strings(count)
        return ArraySummary(count, hashlib.sha256(self.data[start : self.position]).hexdigest()[:32])

    def skip_strings(self, count: int) -> None:
        """Pass over ``count`` strings: a vocabulary has hundreds of thousands, so without a call for each."""
        position, end, length_at, data = self.position, self.size, _LENGTH.unpack_from, self.data
        try:
            for _ in range(count):
                position += 8 + length_at(data, position)[0]
                if position > end:
                    raise Truncated
        except struct.error:
            raise Truncated from None
        self.position = position


def parse_header(data: bytes | mmap.mmap, *, long_arrays: bool = False) -> Header:
    """Parse the header at the start of ``data``.

    Raises `Truncated` when the bytes end too early and `ValueError` when they are not a header.
    """
    cursor = _Cursor(data)
    if cursor.take(4) != MAGIC:
        raise ValueError("the file does not begin with 'GGUF'")
    version = cursor.scalar("I")
    if version not in (2, 3):
        raise ValueError(_unknown_version(version))
    tensor_count, key_count = cursor.scalar("Q"), cursor.scalar("Q")
    if key_count * _MIN_BYTES_PER_KEY + tensor_count * _MIN_BYTES_PER_TENSOR > cursor.size:
        raise Truncated
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.scalar("I"), long_arrays)
    tensors = tuple(_tensors(cursor, tensor_count))
    _check_numbers(metadata)
    alignment = metadata.get("general.alignment", 32)
    if alignment <= 0:
        raise ValueError(f"general.alignment is {alignment!r}; it must be a positive number of bytes")
    data_offset = -(-cursor.position // alignment) * alignment
    return Header(version, metadata, tensors, data_offset)


def _unknown_version(version: int) -> str:
    if version == 1:
        return "GGUF version 1, of August 2023, which llama.cpp reads no more (versions 2 and 3 are known)"
    if version & 0xFFFF == 0:
        return "it is big-endian, a little-endian one is needed"
    return f"GGUF version {version}; versions 2 and 3 are known"


def _check_numbers(metadata: Mapping[str, Any]) -> None:
    """Refuse text or fractions where `Header` reads whole numbers."""
    architecture = metadata.get("general.architecture", "unknown")
    for key in ("general.alignment", "general.file_type", "split.count", f"{architecture}.context_length"):
        if key in metadata and not isinstance(metadata[key], int):
            raise ValueError(f"{key} is {metadata[key]!r}; a whole number is needed")


def _tensors(cursor: _Cursor, count: int) -> Iterator[TensorInfo]:
    for _ in range(count):
        name = cursor.string()
        dimensions = cursor.scalar("I")
        if not 0 < dimensions <= _MAX_DIMENSIONS:
            raise ValueError(f"tensor '{name}' has {dimensions} dimensions")
        shape = tuple(cursor.scalar("Q") for _ in range(dimensions))
        kind, offset = cursor.scalar("I"), cursor.scalar("Q")
        try:
            storage = type_name(kind)
        except ValueError:
            raise ValueError(f"tensor '{name}' has the unknown storage type {kind}") from None
        block, block_bytes = block_shape(storage)
        if shape[0] % block:
            raise ValueError(f"tensor '{name}' has rows of {shape[0]}, not a multiple of {storage}'s {block}")
        elements = 1
        for size in shape:
            elements *= size
        yield TensorInfo(name, shape, storage, offset, elements // block * block_bytes)


def foreign_file(start: bytes) -> str:
    """Say what a file that begins with these bytes is, and what to do: the end of a sentence on what was needed."""
    if not start:
        return "this one is empty; get it again"
    text = start.lstrip()[:64].lower()
    for mark, found in _FOREIGN.items():
        if (text if mark.isascii() and mark.islower() else start).startswith(mark):
            return f"this is {found}"
    if start[8:9] == b"{":  # behind the length of its header
        return "this is a safetensors file; convert the checkpoint that it belongs to"
    return f"this one begins with {start[:4]!r}; name a .gguf file, or convert a checkpoint first"


def read_header(path: Path, *, long_arrays: bool = False) -> Header:
    """Read and check the header of the GGUF at ``path``; the weights are not read, their extent is checked."""
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise ModelFileError(f"{path}: a GGUF file is needed, this is a folder; name the .gguf file in it")
        with path.open("rb") as file:
            start = file.read(_TELLING_BYTES)
            if not start.startswith(MAGIC):
                raise ModelFileError(f"{path}: a GGUF file is needed, {foreign_file(start)}")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                header = parse_header(data, long_arrays=long_arrays)
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such file; give the path of a GGUF model file") from None
    except OSError as error:
        raise ModelFileError(f"{path}: can't be read ({error.strerror}); check its permissions") from None
    except Truncated:
        raise ModelFileError(
            f"{path}: the header goes on past the end of the file ({size:,} bytes); it is truncated: get it again"
        ) from None
    except ValueError as error:
        raise ModelFileError(f"{path}: not a usable GGUF: {error}; get or convert it again") from None
    needed = header.data_offset + max((t.offset + t.size_bytes for t in header.tensors), default=0)
    if header.tensors and size < needed:
        raise ModelFileError(
            f"{path}: {needed:,} bytes are needed, {size:,} found; the file is truncated: get it again"
        )
    return header
