"""Turns weights of one element type into another with the bits llama.cpp's converter gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_eval.files.convert import q8_0
from gguf_eval.files.convert.half import (
    bfloat16_to_half,
    has_special,
    narrow_to_bfloat16,
    narrow_to_half,
    table,
    widen_half,
)

Array = NDArray[Any]
Floats = NDArray[np.float32]

BLOCK_ELEMENTS = 1 << 17
"""Weights encoded at a time: so many that a call's own cost is small, so few that they stay in a core's own cache."""

SOURCE_TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
"""Element types that can be read, with numpy's type of their bytes (bfloat16 as its bits)."""


@dataclass(frozen=True)
class CastFlags:
    """What was seen among weights."""

    not_finite: bool = False
    """A NaN or an infinity was there already."""
    overflowed: bool = False
    """Finite weights became infinite in the new type."""

    def __or__(self, other: CastFlags) -> CastFlags:
        return CastFlags(self.not_finite or other.not_finite, self.overflowed or other.overflowed)


@dataclass(frozen=True)
class Spare:
    """Arrays for intermediate results, used again for every block: fresh memory costs more than the arithmetic."""

    wide: Floats = field(default_factory=lambda: np.empty(BLOCK_ELEMENTS, np.float32))
    first: NDArray[np.uint32] = field(default_factory=lambda: np.empty(BLOCK_ELEMENTS, np.uint32))
    second: NDArray[np.uint32] = field(default_factory=lambda: np.empty(BLOCK_ELEMENTS, np.uint32))


def encoded_bytes(elements: int, target: str) -> int:
    """Bytes of that many weights in a storage type."""
    if target == "Q8_0":
        return elements // q8_0.BLOCK * q8_0.BLOCK_BYTES
    return elements * SOURCE_TYPES[target].itemsize


def encode(values: Array, source: str, target: str) -> tuple[NDArray[np.uint8], CastFlags]:
    """Return the bytes of contiguous ``values`` (element type ``source``) in the storage type ``target``."""
    out = np.empty(encoded_bytes(values.size, target), np.uint8)
    return out, encode_into(values.reshape(-1), source, target, out, Spare())


def encode_into(values: Array, source: str, target: str, out: NDArray[np.uint8], spare: Spare) -> CastFlags:
    """Encode flat contiguous ``values`` (element type ``source``) as ``target`` into the bytes ``out``.

    Targets: F32, F16, BF16 (rounded to the nearest, ties to even), Q8_0 (values a multiple of 32). ``out`` may be the
    memory of ``values`` itself where the type stays.
    """
    noticed = CastFlags()
    for start in range(0, values.size, BLOCK_ELEMENTS):
        block = values[start : start + BLOCK_ELEMENTS]
        place = out[encoded_bytes(start, target) : encoded_bytes(start + block.size, target)]
        noticed |= _encode_block(block, source, target, place, spare)
    return noticed


def _encode_block(values: Array, source: str, target: str, out: NDArray[np.uint8], spare: Spare) -> CastFlags:
    if target == "Q8_0":
        return CastFlags(_to_q8_0(values, source, out, spare))
    if source == "BF16" and target == "F16":
        if not bfloat16_to_half(values, out.view(np.uint16), spare.first.view(np.uint16)):
            return CastFlags()
        special = has_special(values, source)
        return CastFlags(special, not special)
    special = has_special(values, source)
    if source == target:
        _keep(values, out, quiet=special and source == "BF16")
    elif target == "F32":
        widen(values, source, special, out.view(np.float32))
    elif source == "F32" and target == "BF16":
        narrow_to_bfloat16(values, out.view(np.uint16), spare.first)
    elif source == "F32":
        return CastFlags(special, _to_half(values, special, out, spare))
    else:
        table(source, target).take(values.view(np.uint16), mode="clip", out=out.view(np.uint16))
    return CastFlags(special)


def _keep(values: Array, out: NDArray[np.uint8], *, quiet: bool) -> None:
    """Copy; ``quiet`` sets the quiet bit of every NaN among bfloat16, as a pass through float32 does."""
    if out.ctypes.data != values.ctypes.data:
        np.copyto(out, values.view(np.uint8))
    if quiet:
        bits = out.view(np.uint16)
        bits[(bits & np.uint16(0x7FFF)) > 0x7F80] |= np.uint16(0x40)


def _to_half(values: Floats, special: bool, out: NDArray[np.uint8], spare: Spare) -> bool:
    """Round float32 to halves; tells whether finite weights became infinite."""
    if special:
        with np.errstate(over="ignore"):
            np.copyto(out.view(np.float16), values, casting="same_kind")
        return False
    narrow_to_half(values, out.view(np.uint16), (spare.first, spare.second))
    return has_special(out, "F16")


def widen(values: Array, source: str, special: bool, out: Floats) -> Floats:
    """Turn flat ``values`` of the element type ``source`` into float32; ``special``: infinities or NaNs are there."""
    if source == "BF16":
        bits = out.view(np.uint32)
        np.copyto(bits, values)
        np.left_shift(bits, np.uint32(16), out=bits)
    elif special:
        table(source, "F32").take(values.view(np.uint16), mode="clip", out=out)
    else:
        widen_half(values.view(np.uint16), out)
    return out


def _to_q8_0(values: Array, source: str, out: NDArray[np.uint8], spare: Spare) -> bool:
    """Quantize; tells whether a NaN or an infinity was there, which a block's largest magnitude shows."""
    wide, first, second = spare.wide[: values.size], spare.first[: values.size], spare.second[: values.size]
    if source == "F32":
        wide = values
        magnitudes = np.bitwise_and(values.view(np.uint32), np.uint32(0x7FFFFFFF), out=first)
        maxima = q8_0.block_maxima(magnitudes, second).view(np.float32)
        infinite = np.float32(np.inf)
        special = not bool((maxima < infinite).all())
    else:
        bits = values.view(np.uint16)
        magnitudes = np.bitwise_and(bits, np.uint16(0x7FFF), out=first.view(np.uint16)[: values.size])
        short = q8_0.block_maxima(magnitudes, second.view(np.uint16)).copy()
        special = has_special(short, source)
        widen(values, source, special, wide)
        maxima = widen(short, source, special, np.empty(short.size, np.float32))
    q8_0.quantize(values=wide, maxima=maxima, out=out, spare=(spare.wide, first, second.view(np.int8)))
    return special
