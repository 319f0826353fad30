"""Writes the model file of a plan: tensor by tensor, chunk by chunk, under a temporary name until it is whole."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gguf_eval.errors import ModelFileError, UsageError
from gguf_eval.files.convert import header
from gguf_eval.files.convert.encode import SOURCE_TYPES, Array, encode, has_special
from gguf_eval.files.convert.plan import ConversionPlan, plan_conversion
from gguf_eval.files.convert.tensor import PlannedTensor
from gguf_eval.files.safetensors import MappedFiles, StoredTensor

Progress = Callable[[int, int], None]
"""Called with the bytes written so far and in all."""

_CHUNK_ELEMENTS = 1 << 20
_WORKERS = 2
_AHEAD = 2 * _WORKERS  # chunks that may wait to be written
_SHOWN = 8


@dataclass(frozen=True)
class Conversion:
    """What was written."""

    path: Path
    size_bytes: int
    out_type: str
    tensors: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Chunk:
    """Encoded bytes and what was noticed on the way."""

    data: Array
    not_finite: bool
    overflowed: bool
    """Finite weights became infinite in the new type."""


def convert(
    reference: str,
    output: Path,
    out_type: str = "auto",
    *,
    strict: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a checkpoint folder or hub repository to the model file ``output``.

    NaN and infinite weights are warned of, or with ``strict`` refused. ``output`` appears whole or not at all.
    Raises `ModelFileError` for a checkpoint that can't be converted, `UsageError` for wrong arguments.
    """
    return write(plan_conversion(reference, out_type), output, strict=strict, progress=progress)


def output_path(plan: ConversionPlan, output: Path | None) -> Path:
    """Return where the model file of ``plan`` goes: ``output``, or ``NAME-TYPE.gguf`` in that or the current folder."""
    name = f"{plan.name}-{plan.out_type}.gguf"
    if output is None:
        return Path(name)
    return output / name if output.is_dir() else output


def write(plan: ConversionPlan, output: Path, *, strict: bool = False, progress: Progress | None = None) -> Conversion:
    """Write the model file of ``plan`` to ``output``."""
    _check_room(output, plan.size_bytes)
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb", buffering=0) as file:
            found = _write_all(plan, file, progress)
        if strict and found:
            raise ModelFileError(f"{'; '.join(found)}; get the checkpoint again, or convert without strictness")
        partial.replace(output)
    except OSError as error:
        raise ModelFileError(f"{output}: can't be written ({error.strerror}); check folder and disk") from error
    finally:
        partial.unlink(missing_ok=True)
    return Conversion(output, plan.size_bytes, plan.out_type, len(plan.tensors), (*plan.warnings, *found))


def _check_room(output: Path, needed: int) -> None:
    folder = output.parent
    if not folder.is_dir():
        raise UsageError(f"{output}: there is no folder {folder}; make it first")
    if output.is_dir():
        raise UsageError(f"{output}: a file name is needed, this is a folder; add a name")
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelFileError(f"{output}: {needed:,} bytes are needed, {free:,} are free in {folder}; make room")


def _write_all(plan: ConversionPlan, file: Any, progress: Progress | None) -> list[str]:
    """Write header and tensors; returns warnings."""
    total, done = plan.size_bytes, len(plan.header)
    not_finite: list[str] = []
    overflowed: list[str] = []
    _write_bytes(file, plan.header)
    with MappedFiles() as maps, ThreadPoolExecutor(_WORKERS) as pool:
        for tensor in plan.tensors:
            noticed = [False, False]
            for chunk in _in_order(pool, _jobs(tensor, maps)):
                _write_bytes(file, chunk.data)
                noticed = [noticed[0] or chunk.not_finite, noticed[1] or chunk.overflowed]
                done += chunk.data.nbytes
                if progress is not None:
                    progress(done, total)
            padding = header.padded(tensor.size_bytes) - tensor.size_bytes
            _write_bytes(file, bytes(padding))
            done += padding
            not_finite += [tensor.name] * noticed[0]
            overflowed += [tensor.name] * noticed[1]
            for source in tensor.sources:
                maps.release(source)
    if progress is not None:
        progress(total, total)
    return [
        *_name("NaN or infinite weights in", not_finite),
        *_name(f"weights too large for {plan.out_type}, now infinite, in", overflowed),
    ]


def _name(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{what} {', '.join(names[:_SHOWN])}{more}"]


def _write_bytes(file: Any, data: bytes | Array) -> None:
    """Write all of ``data``; an unbuffered file may take less than it is given."""
    view = memoryview(data) if isinstance(data, bytes) else data.view(np.uint8).data
    while view:
        view = view[file.write(view) :]


def _in_order(pool: ThreadPoolExecutor, jobs: Iterator[Callable[[], _Chunk]]) -> Iterator[_Chunk]:
    """Run ``jobs`` a few ahead of their use and yield their results in order."""
    waiting: deque[Future[_Chunk]] = deque()
    for job in jobs:
        waiting.append(pool.submit(job))
        if len(waiting) >= _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _jobs(tensor: PlannedTensor, maps: MappedFiles) -> Iterator[Callable[[], _Chunk]]:
    """Cut a tensor into pieces of work."""
    if not tensor.sources:
        data = np.frombuffer(tensor.computed, np.uint8)
        yield lambda: _Chunk(data, False, False)
    for source in tensor.sources:
        values = _view(source, maps, tensor.heads)
        step = max(1, _CHUNK_ELEMENTS // max(1, values[0].size))
        for start in range(0, values.shape[0], step):
            part, kind = values[start : start + step], source.dtype
            yield lambda part=part, kind=kind: _encode_chunk(part, kind, tensor.type_name)  # type: ignore[misc]


def _view(source: StoredTensor, maps: MappedFiles, heads: int) -> Array:
    """Return the mapped weights, rows first; with ``heads`` the rows of each head are put in llama.cpp's order.

    There the two halves of a head, which rotary embedding pairs, are interleaved.
    """
    flat: Array = np.frombuffer(maps.of(source.file), SOURCE_TYPES[source.dtype], source.elements, source.offset)
    values: Array = flat.reshape(source.shape if len(source.shape) > 1 else (1, -1))
    if heads:
        values = flat.reshape(heads, 2, source.shape[0] // heads // 2, *source.shape[1:]).swapaxes(1, 2)
    return values


def _encode_chunk(part: Array, source: str, target: str) -> _Chunk:
    data, not_finite = encode(np.ascontiguousarray(part), source, target)
    overflowed = target == "F16" != source and not not_finite and has_special(data, "F16")
    return _Chunk(data, not_finite, overflowed)
