"""What quantizing will give, known before a byte is written: tensor types, fallbacks and exact file size.

llama.cpp decides the types; it tells them only in the log of a dry run, which is read here. Sizes follow from the
types and shapes, so they are exact and not the log's rounded ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gguf_eval.errors import EngineError, ModelFileError
from gguf_eval.files.cache import model_parts
from gguf_eval.files.ggml_types import block_shape
from gguf_eval.files.header import Header, TensorInfo, read_header

ALIGNMENT = 32
"""llama.cpp pads every tensor it writes to this many bytes (GGUF_DEFAULT_ALIGNMENT)."""

_TENSOR = re.compile(
    r"^\[ *\d+/ *\d+\] (?P<name>\S+) +- \[.*\], type = +(?P<old>\w+), size = .*?(?:\((?P<new>\w+)\))?$"
)
_FALLBACK = re.compile(
    r"^warning: (?P<name>\S+) +- ncols +(?P<columns>\d+) not divisible by +(?P<block>\d+) "
    r"\(required for type +(?P<wanted>\w+)\).*-> falling back to +(?P<used>\w+)"
)
_NEEDS_IMATRIX = "will require an imatrix"


@dataclass(frozen=True)
class Fallback:
    """A tensor that can't have the type its level asks for, because its rows are no multiple of the type's block."""

    tensor: str
    columns: int
    block: int
    wanted: str
    used: str


@dataclass(frozen=True)
class Plan:
    """The outcome of a dry run."""

    types: Mapping[str, str]
    """Storage type of every tensor, by tensor name."""
    fallbacks: tuple[Fallback, ...]
    needs_imatrix: bool
    """Whether llama.cpp will refuse to do it without an importance matrix."""
    tensor_bytes: int
    """Bytes of all tensors without padding: what bits per weight are counted from."""
    file_bytes: int
    """Size of the finished file."""
    bits_per_weight: float

    def type_counts(self) -> dict[str, int]:
        """Return the number of tensors of each storage type, most frequent first."""
        counts: dict[str, int] = {}
        for kind in self.types.values():
            counts[kind] = counts.get(kind, 0) + 1
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def read_plan(log: str, headers: tuple[Header, ...], metadata_bytes: int) -> Plan:
    """Read the log of a dry run over the model with these headers (one for each part).

    ``metadata_bytes`` is the size of the key-value section that the file will have, with its leading 24 bytes.
    Raises `EngineError` when the log does not name every tensor.
    """
    types: dict[str, str] = {}
    fallbacks = []
    for line in log.splitlines():
        if tensor := _TENSOR.match(line.rstrip()):
            types[tensor["name"]] = (tensor["new"] or tensor["old"]).upper()
        elif fallback := _FALLBACK.match(line):
            fallbacks.append(
                Fallback(
                    fallback["name"],
                    int(fallback["columns"]),
                    int(fallback["block"]),
                    fallback["wanted"].upper(),
                    fallback["used"].upper(),
                )
            )
    tensors = [tensor for header in headers for tensor in header.tensors]
    missing = [tensor.name for tensor in tensors if tensor.name not in types]
    if missing or not tensors:
        raise EngineError(
            f"llama.cpp's dry run names {len(types)} of {len(tensors)} tensors"
            f"{f', not {missing[0]}' if missing else ''}; this llama-cpp-python is too new or too old"
        )
    sizes = [stored_bytes(tensor.shape, types[tensor.name]) for tensor in tensors]
    infos = sum(_info_bytes(tensor) for tensor in tensors)
    file_bytes = _padded(metadata_bytes + infos) + sum(_padded(size) for size in sizes)
    elements = sum(tensor.elements for tensor in tensors)
    return Plan(
        types,
        tuple(fallbacks),
        _NEEDS_IMATRIX in log,
        sum(sizes),
        file_bytes,
        8.0 * sum(sizes) / max(1, elements),
    )


def stored_bytes(shape: tuple[int, ...], type_name: str) -> int:
    """Return the bytes of a tensor of this shape (contiguous dimension first) in a storage type."""
    block, block_bytes = block_shape(type_name)
    rows = 1
    for size in shape[1:]:
        rows *= size
    return rows * (shape[0] // block) * block_bytes


def read_headers(path: Path) -> tuple[Header, ...]:
    """Read the headers of all parts of the model that ``path`` belongs to. Raises `ModelFileError`."""
    headers = tuple(read_header(part) for part in model_parts(path))
    if headers[0].split_count != len(headers):
        raise ModelFileError(
            f"{path}: the header says it is one of {headers[0].split_count} parts, its name makes it one of "
            f"{len(headers)}; name the parts NAME-00001-of-{headers[0].split_count:05d}.gguf and so on, in one folder"
        )
    return headers


def is_quantized(header: Header) -> bool:
    """Return whether any tensor is stored in blocks that share a scale, so that precision is already lost."""
    return any(block_shape(t.type_name)[0] > 1 for t in header.tensors)


def planned_metadata_bytes(path: Path, header: Header, added: Iterable[tuple[str, int | str]]) -> int:
    """Return the size of the key-value section of the file that llama.cpp makes from the (first part at) ``path``.

    llama.cpp keeps all keys, sets ``general.quantization_version`` and ``general.file_type``, drops ``split.*`` and
    appends ``added`` (integers as 32 bits).
    """
    size = _key_values_end(path, header)
    for key, width in (("split.no", 2), ("split.count", 2), ("split.tensors.count", 4)):
        if key in header.metadata:
            size -= 8 + len(key) + 4 + width
    fixed: list[tuple[str, int | str]] = [("general.quantization_version", 0), ("general.file_type", 0)]
    present = set(header.metadata)
    for key, value in [*fixed, *added]:
        if isinstance(value, str):
            if key in present:
                size -= 8 + len(key) + 4 + 8 + len(str(header.metadata[key]).encode())
            size += 8 + len(key) + 4 + 8 + len(value.encode())
        elif key not in present:
            size += 8 + len(key) + 4 + 4
    return size


def _key_values_end(path: Path, header: Header) -> int:
    """Find where the key-value section ends: the tensor table fills the rest of the header, up to zero padding."""
    if not header.tensors:
        return header.data_offset
    last = header.tensors[-1]
    tail_bytes = min(header.data_offset, 4096 + len(last.name.encode()))
    with path.open("rb") as file:
        file.seek(header.data_offset - tail_bytes)
        tail = file.read(tail_bytes)
    name = last.name.encode()
    at = tail.rfind(len(name).to_bytes(8, "little") + name)
    own = 8 + len(name) + 4 + 8 * len(last.shape) + 4 + 8
    table_end = header.data_offset - tail_bytes + at + own
    return table_end - sum(8 + len(t.name.encode()) + 4 + 8 * len(t.shape) + 4 + 8 for t in header.tensors)


def _info_bytes(tensor: TensorInfo) -> int:
    """Return the size of a tensor's row in the table; llama.cpp drops trailing dimensions of one."""
    dimensions = max([i for i, size in enumerate(tensor.shape, start=1) if size > 1], default=1)
    return 8 + len(tensor.name.encode()) + 4 + 8 * dimensions + 4 + 8


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
