"""Turns weights of one element type into another, chunk by chunk, with the bits llama.cpp's converter gives."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Bits = NDArray[np.uint16]
Floats = NDArray[np.float32]
_Q8_BLOCK, _Q8_BLOCK_BYTES = 32, 34

SOURCE_TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
"""Element types that can be read, with numpy's type of their bytes (bfloat16 as its bits)."""


def widen(values: Array, source: str) -> Floats:
    """Return ``values`` of the element type ``source`` as float32."""
    if source == "BF16":
        bits: NDArray[np.uint32] = values.astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32)
    return values.astype(np.float32, copy=False)


def encode(values: Array, source: str, target: str) -> Array:
    """Return contiguous ``values`` (element type ``source``) in the storage type ``target``.

    Targets: F32, F16, BF16 (rounded to the nearest, ties to even), Q8_0 (blocks of 32 of the last axis: a half and
    32 signed bytes; ties away from zero, the scale's inverse taken before it is rounded).
    """
    if source == target:
        return quiet(values) if source == "BF16" else values
    with np.errstate(over="ignore", invalid="ignore"):
        if target == "F32":
            return widen(values, source)
        if target == "F16":
            return widen(values, source).astype(np.float16)
        if target == "BF16":
            return to_bfloat16(widen(values, source))
        return to_q8_0(widen(values, source))


def quiet(values: Array) -> Array:
    """Set the quiet bit of every NaN among bfloat16 ``values``, as a pass through float32 does."""
    bits = values.view(np.uint16)
    nan = (bits & 0x7FFF) > 0x7F80
    return np.where(nan, bits | 0x40, bits) if nan.any() else values


def to_bfloat16(values: Floats) -> Bits:
    """Round float32 to bfloat16 bits."""
    bits = values.view(np.uint32)
    rounded: NDArray[np.uint32] = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(
        16
    )
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    if nan.any():
        rounded = np.where(nan, (bits >> np.uint32(16)) | np.uint32(0x40), rounded)
    return rounded.astype(np.uint16)


def to_q8_0(values: Floats) -> NDArray[np.uint8]:
    """Quantize float32 to Q8_0; returns the bytes, 34 for each block of 32."""
    blocks = values.reshape(-1, _Q8_BLOCK)
    magnitude = np.abs(blocks)
    scale = magnitude.max(axis=1, keepdims=True) / np.float32(127)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    np.multiply(magnitude, np.abs(inverse), out=magnitude)
    floor = np.floor(magnitude)
    magnitude -= floor
    floor += magnitude >= np.float32(0.5)
    np.copysign(floor, blocks, out=floor)
    out = np.empty((blocks.shape[0], _Q8_BLOCK_BYTES), np.uint8)
    out[:, :2] = scale.astype("<f2").view(np.uint8)
    out[:, 2:] = floor.astype(np.int8).view(np.uint8)
    return out


def has_special(values: Array, source: str) -> bool:
    """Tell whether contiguous ``values`` of the element type ``source`` hold a NaN or an infinity.

    Looks at exponent bits, which is several times faster than asking for each value.
    """
    if source == "F32":
        return bool((values.view(np.uint32) & np.uint32(0x7F800000)).max(initial=0) == 0x7F800000)
    mask = np.uint16(0x7C00 if source == "F16" else 0x7F80)
    return bool((values.view(np.uint16) & mask).max(initial=0) == mask)
