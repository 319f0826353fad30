"""Cuts the tensors of a plan into pieces, and carries a piece from the checkpoint to the model file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gguf_eval.errors import ModelFileError
from gguf_eval.files.convert import header
from gguf_eval.files.convert.encode import BLOCK_ELEMENTS, SOURCE_TYPES, CastFlags, Spare, encode_into, encoded_bytes
from gguf_eval.files.convert.tensor import PlannedTensor
from gguf_eval.files.safetensors import StoredTensor

Bytes = NDArray[np.uint8]
PIECE_ELEMENTS = BLOCK_ELEMENTS
"""One block, which is still in the core's cache when it is written."""
_READ_AHEAD_BYTES = 16 << 20


@dataclass(frozen=True)
class Piece:
    """Weights that are read, encoded and written at once."""

    tensor: PlannedTensor
    source: StoredTensor
    start: int
    """First weight, counted from the source's first."""
    elements: int
    place: int
    """Where the encoded bytes go in the model file."""

    @property
    def source_bytes(self) -> int:
        """Bytes to read."""
        return self.elements * SOURCE_TYPES[self.source.dtype].itemsize

    @property
    def size_bytes(self) -> int:
        """Bytes to write."""
        return encoded_bytes(self.elements, self.tensor.type_name)


def place_tensors(tensors: Sequence[PlannedTensor], start: int) -> Iterator[tuple[PlannedTensor, int]]:
    """Yield each tensor with its place in the model file, the first at ``start``."""
    for tensor in tensors:
        yield tensor, start
        start += header.padded(tensor.size_bytes)


def cut(tensor: PlannedTensor, place: int) -> Iterator[Piece]:
    """Cut the tensor at ``place`` into pieces; where rows are permuted, a piece holds whole heads."""
    for source in tensor.sources:
        head = source.elements // tensor.heads if tensor.heads else 1
        step = max(1, PIECE_ELEMENTS // head) * head
        for start in range(0, source.elements, step):
            piece = Piece(tensor, source, start, min(step, source.elements - start), place)
            place += piece.size_bytes
            yield piece


class PieceCopier:
    """File handles and memory of one process that moves pieces.

    Reading into the same memory again costs less than mapping the file: fresh pages are dear, and a file that another
    program cuts short gives an error, not the end of the process.
    """

    def __init__(self, output: Path) -> None:
        self._output = output.open("r+b", buffering=0)
        self._source: FileIO | None = None
        self._path: Path | None = None
        self._spare = Spare()
        self._read = self._permuted = self._encoded = np.empty(0, np.uint8)

    def close(self) -> None:
        """Close the files."""
        self._output.close()
        if self._source is not None:
            self._source.close()

    def move(self, pieces: Sequence[Piece]) -> list[CastFlags]:
        """Read, encode and write ``pieces``; returns what was seen in each.

        Raises `ModelFileError` where one can't be read, OSError for the output.
        """
        return [self._move(piece) for piece in pieces]

    def _move(self, piece: Piece) -> CastFlags:
        data = self._weights(piece)
        kind, target = piece.source.dtype, piece.tensor.type_name
        out = data
        if kind != target:
            self._encoded = _at_least(self._encoded, piece.size_bytes)
            out = self._encoded[: piece.size_bytes]
        noticed = encode_into(data.view(SOURCE_TYPES[kind]), kind, target, out, self._spare)
        self._output.seek(piece.place)
        view = out.data
        while view:  # an unbuffered file may take less than it is given
            view = view[self._output.write(view) :]
        return noticed

    def _weights(self, piece: Piece) -> Bytes:
        """Read the bytes of ``piece``, the rows of each head in llama.cpp's order.

        There the two halves of a head, which rotary embedding pairs, are interleaved.
        """
        size, heads = piece.source_bytes, piece.tensor.heads
        self._read = _at_least(self._read, size)
        data = self._read[:size]
        self._fill(piece, data)
        if not heads:
            return data
        row = size // piece.elements * (piece.source.shape[-1] if len(piece.source.shape) > 1 else 1)
        half = piece.source.shape[0] // heads // 2
        self._permuted = _at_least(self._permuted, size)
        permuted = self._permuted[:size]
        np.copyto(permuted.reshape(-1, half, 2, row), data.reshape(-1, 2, half, row).swapaxes(1, 2))
        return permuted

    def _fill(self, piece: Piece, data: Bytes) -> None:
        path = piece.source.file
        offset = piece.source.offset + piece.start * (data.size // piece.elements)
        try:
            if self._source is None or self._path != path:
                if self._source is not None:
                    self._source.close()
                self._source, self._path = path.open("rb", buffering=0), path
            _ask_ahead(self._source, offset, data.size)
            self._source.seek(offset)
            view = data.data
            while view:
                count = self._source.readinto(view)
                if not count:
                    raise ModelFileError(
                        f"{path}: the file ended while it was read, tensor '{piece.source.name}' is cut off; "
                        "leave it alone while it is converted"
                    )
                view = view[count:]
        except OSError as error:
            raise ModelFileError(f"{path}: can't be read ({error.strerror}); check the disk") from error


def _ask_ahead(file: FileIO, offset: int, size: int) -> None:
    """Ask the system, where it can be asked, for as many bytes further on: it can't see that processes take turns."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(file.fileno(), offset + _READ_AHEAD_BYTES, size, os.POSIX_FADV_WILLNEED)


def _at_least(memory: Bytes, size: int) -> Bytes:
    return memory if memory.size >= size else np.empty(size, np.uint8)
