"""Turns weights of one element type into another, chunk by chunk, with the bits llama.cpp's converter gives."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Bits = NDArray[np.uint16]
Floats = NDArray[np.float32]
_Q8_BLOCK, _Q8_BLOCK_BYTES = 32, 34
_CACHED_ELEMENTS = (
    1 << 15
)  # temporary arrays of this size stay in the cache and off the system's allocator: 5 times faster

SOURCE_TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
"""Element types that can be read, with numpy's type of their bytes (bfloat16 as its bits)."""


def widen(values: Array, source: str) -> Floats:
    """Return contiguous ``values`` of the element type ``source`` as float32."""
    if source == "BF16":
        bits: NDArray[np.uint32] = values.astype(np.uint32)
        bits <<= np.uint32(16)
        return bits.view(np.float32)
    return _table(source, "F32").take(values.view(np.uint16), mode="clip") if source == "F16" else values


def encode(values: Array, source: str, target: str) -> tuple[Array, bool]:
    """Return contiguous ``values`` (element type ``source``) in the storage type ``target``, flat.

    The second result tells whether a NaN or an infinity was among them. Targets: F32, F16, BF16 (rounded to the
    nearest, ties to even), Q8_0 (blocks of 32 of the last axis: a half and 32 signed bytes; ties away from zero, the
    scale's inverse taken before it is rounded).
    """
    flat: Array = values.reshape(-1)
    blocks = [flat[start : start + _CACHED_ELEMENTS] for start in range(0, flat.size, _CACHED_ELEMENTS)]
    special = [has_special(block, source) for block in blocks]
    if source == target:
        return (quiet(flat) if source == "BF16" and any(special) else flat), any(special)
    parts = [_encode_block(block, source, target) for block in blocks]
    return (np.concatenate(parts) if parts else flat[:0]), any(special)


def _encode_block(values: Array, source: str, target: str) -> Array:
    encoded: Array
    if target == "Q8_0":
        encoded = to_q8_0(widen(values, source)).reshape(-1)
    elif target == "F32":
        encoded = widen(values, source)
    elif source != "F32":
        encoded = _table(source, target).take(values.view(np.uint16), mode="clip")
    else:
        encoded = to_bfloat16(values) if target == "BF16" else _to_half(values)
    return encoded


@cache
def _table(source: str, target: str) -> Array:
    """Return each of the 65,536 values of a 16-bit type in another type: looking up is faster than computing."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    wide = bits.view(np.float16).astype(np.float32) if source == "F16" else widen(bits, source)
    if target == "F32":
        return wide
    return _to_half(wide) if target == "F16" else to_bfloat16(wide)


def _to_half(values: Floats) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):  # the caller looks for new infinities
        return values.astype(np.float16)


def quiet(values: Array) -> Array:
    """Set the quiet bit of every NaN among bfloat16 ``values``, as a pass through float32 does."""
    bits = values.view(np.uint16)
    nan = (bits & 0x7FFF) > 0x7F80
    return np.where(nan, bits | 0x40, bits) if nan.any() else values


def to_bfloat16(values: Floats) -> Bits:
    """Round float32 to bfloat16 bits."""
    bits = values.view(np.uint32)
    rounded: NDArray[np.uint32] = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits  # overflows for some NaNs, which are replaced below
    rounded >>= np.uint32(16)
    if has_special(values, "F32"):
        nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
        rounded = np.where(nan, (bits >> np.uint32(16)) | np.uint32(0x40), rounded)
    return rounded.astype(np.uint16)


def to_q8_0(values: Floats) -> NDArray[np.uint8]:
    """Quantize float32 to Q8_0; returns the bytes, 34 for each block of 32."""
    blocks = values.reshape(-1, _Q8_BLOCK)
    magnitudes = blocks.view(np.uint32) & np.uint32(0x7FFFFFFF)  # ordered as the floats are, and faster to compare
    scale = magnitudes.max(axis=1, keepdims=True).view(np.float32) / np.float32(127)
    out = np.empty((blocks.shape[0], _Q8_BLOCK_BYTES), np.uint8)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        out[:, :2] = scale.astype("<f2").view(np.uint8)
        inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
        scaled = blocks * inverse
        scaled += scaled
        halves = scaled.astype(np.int16)  # twice the value, cut: halves tell which way to round
    halves += halves > 0
    halves >>= 1
    out[:, 2:] = halves.astype(np.int8).view(np.uint8)
    return out


def has_special(values: Array, source: str) -> bool:
    """Tell whether contiguous ``values`` of the element type ``source`` hold a NaN or an infinity.

    Looks at exponent bits, which is several times faster than asking for each value.
    """
    if source == "F32":
        return bool((values.view(np.uint32) & np.uint32(0x7F800000)).max(initial=0) == 0x7F800000)
    mask = np.uint16(0x7C00 if source == "F16" else 0x7F80)
    return bool((values.view(np.uint16) & mask).max(initial=0) == mask)
