"""The importance matrix as a file: llama.cpp's GGUF format, and its older ``.dat`` format to read.

For every weight matrix the file holds the sum of squared activations of each input column, and how many rows were
summed; stacked experts have one row of sums and one count each. Format: ``common/imatrix-loader.cpp`` and
``tools/imatrix/imatrix.cpp`` of llama.cpp.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf_eval.atomic import written_whole
from gguf_eval.errors import ModelFileError, UsageError
from gguf_eval.files.header import MAGIC, TensorInfo, read_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUMS, COUNTS = ".in_sum2", ".counts"
_NAME_BYTES = 64 - 1 - len(SUMS)
"""ggml keeps 64 bytes of a tensor's name."""
_MANY = 1 << 20


@dataclass(frozen=True)
class Importance:
    """What was seen by one weight matrix, or by one stack of experts."""

    sums: NDArray[np.float32]
    """Sums of squared activations, shaped (experts or 1, columns)."""
    counts: NDArray[np.int64]
    """Rows summed, shaped (experts or 1)."""

    def means(self) -> NDArray[np.float32]:
        """Return mean squared activations, flat; an expert that was never used gets 1, as in llama-quantize."""
        import numpy as np

        counts = self.counts.astype(np.float32)[:, None]
        means = np.ones_like(self.sums)
        np.divide(self.sums, counts, out=means, where=counts > 0)
        return means.ravel()


@dataclass(frozen=True)
class Imatrix:
    """An importance matrix and where it comes from."""

    entries: Mapping[str, Importance]
    """By the name of the weight, for instance ``blk.0.attn_q.weight``."""
    datasets: tuple[str, ...] = ()
    chunk_count: int = 0
    chunk_size: int = 0
    """Tokens a chunk; 0 in a ``.dat`` file, which does not say."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Further string keys of the GGUF header."""


def read_imatrix(path: Path) -> Imatrix:
    """Read an importance matrix in either format. Raises `ModelFileError` when it is missing, damaged or not finite."""
    try:
        with path.open("rb") as file:
            is_gguf = file.read(4) == MAGIC
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such importance matrix; make one with gguf-eval imatrix") from None
    except OSError as error:
        raise ModelFileError(f"{path}: can't be read ({error.strerror}); check its permissions") from None
    imatrix = _read_gguf(path) if is_gguf else _read_legacy(path)
    for name, entry in imatrix.entries.items():
        _check_entry(path, name, entry)
    return imatrix


def write_imatrix(path: Path, imatrix: Imatrix) -> None:
    """Write an importance matrix in GGUF, in one step: the file is complete or absent."""
    import gguf
    import numpy as np

    try:
        with written_whole(path) as unfinished:
            writer = gguf.GGUFWriter(unfinished, "imatrix")
            writer.add_string("general.type", "imatrix")
            writer.add_array("imatrix.datasets", list(imatrix.datasets))
            writer.add_uint32("imatrix.chunk_count", imatrix.chunk_count)
            writer.add_uint32("imatrix.chunk_size", imatrix.chunk_size)
            for key, value in imatrix.extra.items():
                writer.add_string(key, value)
            for name in sorted(imatrix.entries):
                entry = imatrix.entries[name]
                if len(name.encode()) > _NAME_BYTES:
                    raise ModelFileError(f"{path}: the tensor name '{name}' is too long for llama.cpp's format")
                writer.add_tensor(name + SUMS, np.ascontiguousarray(entry.sums, dtype=np.float32))
                writer.add_tensor(name + COUNTS, entry.counts.astype(np.float32)[:, None])
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
    except OSError as error:
        raise UsageError(f"{path}: can't be written ({error.strerror}); free disk, or choose another with -o") from None


def check_fits(path: Path, imatrix: Imatrix, tensors: Sequence[TensorInfo]) -> None:
    """Raise `ModelFileError` when an importance matrix was not made for a model with these tensors."""
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    known = [name for name in imatrix.entries if name in shapes]
    if not known:
        example = next(iter(imatrix.entries))
        raise ModelFileError(
            f"{path}: none of its {len(imatrix.entries)} tensors is in the model (for instance {example}); "
            "it was made for another model: make one for this with gguf-eval imatrix"
        )
    for name in known:
        if name == "token_embd.weight":
            continue  # llama.cpp leaves it out as well: embeddings are looked up, not multiplied
        shape = shapes[name]
        needed = shape[0] * (shape[2] if len(shape) > 2 else 1)
        found = imatrix.entries[name].sums.size
        if found != needed:
            raise ModelFileError(
                f"{path}: {name} has {found} values, the model needs {needed}; it was made for another model: "
                "make one for this with gguf-eval imatrix"
            )


def _check_entry(path: Path, name: str, entry: Importance) -> None:
    import numpy as np

    if not np.isfinite(entry.sums).all():
        raise ModelFileError(f"{path}: {name} holds NaN or infinite values; the matrix is unusable, make it again")
    if (entry.sums < 0).any() or (entry.counts < 0).any():
        raise ModelFileError(f"{path}: {name} holds negative sums of squares; the file is damaged, get it again")


def _read_gguf(path: Path) -> Imatrix:
    import numpy as np

    header = read_header(path, long_arrays=True)
    metadata = header.metadata
    missing = [k for k in ("datasets", "chunk_count", "chunk_size") if f"imatrix.{k}" not in metadata]
    if missing:
        raise ModelFileError(
            f"{path}: an importance matrix is needed, this GGUF has no imatrix.{missing[0]}; name another file"
        )
    tensors = {tensor.name: tensor for tensor in header.tensors}
    names = [name.removesuffix(SUMS) for name in tensors if name.endswith(SUMS)]
    orphans = [name for name in tensors if name.endswith(COUNTS) and name.removesuffix(COUNTS) + SUMS not in tensors]
    if not names or orphans:
        raise ModelFileError(f"{path}: sums are missing{f' for {orphans[0]}' if orphans else ''}; get the file again")
    entries = {}
    data = np.memmap(path, dtype=np.uint8, mode="r")

    def values(tensor: TensorInfo) -> Any:
        if tensor.type_name != "F32":
            raise ModelFileError(f"{path}: {tensor.name} is {tensor.type_name}, F32 is needed; get the file again")
        start = header.data_offset + tensor.offset
        return data[start : start + tensor.size_bytes].view("<f4").astype(np.float32)

    for name in names:
        counts_tensor = tensors.get(name + COUNTS)
        if counts_tensor is None:
            raise ModelFileError(f"{path}: {name} has sums and no counts; the file is damaged, get it again")
        sums, counts = values(tensors[name + SUMS]), values(counts_tensor)
        if not counts.size or sums.size % counts.size or not np.isfinite(counts).all():
            raise ModelFileError(f"{path}: {name} has {sums.size} sums and {counts.size} counts; get the file again")
        entries[name] = Importance(sums.reshape(counts.size, -1), np.rint(counts).astype(np.int64))
    return Imatrix(
        entries,
        tuple(str(name) for name in metadata["imatrix.datasets"]),
        int(metadata["imatrix.chunk_count"]),
        int(metadata["imatrix.chunk_size"]),
        {k: v for k, v in metadata.items() if isinstance(v, str) and not k.startswith(("imatrix.", "general."))},
    )


def _read_legacy(path: Path) -> Imatrix:
    """Read the ``.dat`` format: entries of name, calls and means times calls; then chunks and data set, if there."""
    import numpy as np

    data = path.read_bytes()
    position = 0
    damaged = ModelFileError(f"{path}: an importance matrix is needed, this is none or a damaged one; get it again")

    def take(count: int) -> bytes:
        nonlocal position
        if count < 0 or position + count > len(data):
            raise damaged
        position += count
        return data[position - count : position]

    def integer() -> int:
        return int(struct.unpack("<i", take(4))[0])

    entries = {}
    count = integer()
    if not 0 < count <= _MANY:
        raise damaged
    for _ in range(count):
        try:
            name = take(integer()).decode("utf-8")
        except UnicodeDecodeError:
            raise damaged from None
        calls, values = integer(), integer()
        if values < 1 or calls < 0:
            raise damaged
        sums = np.frombuffer(take(4 * values), dtype="<f4").astype(np.float32)
        # Without calls the values are means already: one call gives them back unchanged.
        entries[name] = Importance(sums.reshape(1, -1), np.array([max(1, calls)], dtype=np.int64))
    chunk_count = 0
    datasets: tuple[str, ...] = ()
    if position < len(data):
        chunk_count = integer()
        if position < len(data):
            datasets = (take(integer()).decode("utf-8", errors="replace"),)
    return Imatrix(entries, datasets, max(0, chunk_count))
