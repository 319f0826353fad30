"""Reads the vocabulary of a SentencePiece model (tokenizer.model), a protocol buffer.

Only what a converter needs is read: message ModelProto, its field 1 (pieces) with text, score and type. The wire
format is protobuf's: a key of field number and wire type, then a varint, a fixed number of bytes, or a length and
that many bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; its id is its place."""

    text: str
    score: float
    kind: int


def read_pieces(data: bytes) -> list[Piece]:
    """Return the pieces of the model ``data``. Raises `ValueError` when it is not one."""
    pieces = [_piece(value) for field, value in _fields(data) if field == 1 and isinstance(value, bytes)]
    if not pieces:
        raise ValueError("it holds no pieces")
    return pieces


def _piece(data: bytes) -> Piece:
    text, score, kind = "", 0.0, NORMAL
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            text = value.decode()
        elif field == 2 and isinstance(value, float):
            score = value
        elif field == 3 and isinstance(value, int):
            kind = value
    if not NORMAL <= kind <= BYTE:
        raise ValueError(f"a piece has the unknown type {kind}")
    return Piece(text, score, kind)


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int | float]]:
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _varint(data, position)
            yield field, value
            continue
        if wire == _BYTES:
            size, position = _varint(data, position)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"field {field} has the unknown wire type {wire}")
        raw = data[position : position + size]
        if len(raw) != size:
            raise ValueError("it ends within a field")
        position += size
        if wire == _BYTES:
            yield field, raw
        else:
            yield field, struct.unpack("<f" if wire == _FIXED32 else "<d", raw)[0]


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(data[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, position + place + 1
    raise ValueError("it ends within a number")
