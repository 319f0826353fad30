"""Quantizes to Q8_0: blocks of 32 weights, each a half (the scale) and 32 signed bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BLOCK = 32
BLOCK_BYTES = 34
_BLOCK_TYPE = np.dtype([("scale", "<f2"), ("weights", f"V{BLOCK}")])
_LANE_BYTES = 16


def quantize(
    values: NDArray[np.float32],
    maxima: NDArray[np.float32],
    out: NDArray[np.uint8],
    spare: tuple[NDArray[np.float32], NDArray[np.uint32], NDArray[np.int8]],
) -> None:
    """Quantize flat ``values`` to the bytes ``out``, given the largest magnitude of each block.

    A weight is rounded to the nearest, ties away from zero, the scale's inverse taken before the scale is rounded.
    """
    scaled, bits, bytes_ = (array[: values.size] for array in spare)
    blocks = out.view(_BLOCK_TYPE)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scale = maxima / np.float32(127)
        inverse = np.float32(1) / scale
        if not scale.all():
            inverse[scale == 0] = 0
        blocks["scale"] = scale
        np.multiply(values.reshape(-1, BLOCK), inverse[:, None], out=scaled.reshape(-1, BLOCK))
        # The float below a half, with the number's sign, then cutting, rounds ties away (and 0.49999997 to 0).
        np.bitwise_and(scaled.view(np.uint32), np.uint32(0x80000000), out=bits)
        np.bitwise_or(bits, np.uint32(0x3EFFFFFF), out=bits)
        np.add(scaled, bits.view(np.float32), out=scaled)
        np.copyto(bytes_, scaled, casting="unsafe")
    blocks["weights"] = bytes_.view(_BLOCK_TYPE["weights"])


def block_maxima(magnitudes: Array, spare: Array) -> Array:
    """Return the largest of each block of the flat unsigned ``magnitudes``; overwrites both arrays.

    The array is compared with itself moved by half a block, by a quarter and so on: contiguous, and so several times
    faster than a maximum along an axis. What is left of each block is moved together once it fits 16 bytes.
    """
    current, other = magnitudes, spare[: magnitudes.size]
    size, distance = current.itemsize, BLOCK // 2
    copier = _LANE_BYTES // size
    while distance:
        np.maximum(current[:-distance], current[distance:], out=other[:-distance])
        current, other = other, current
        if distance == copier:
            kept = current.view(np.complex128)[:: BLOCK // copier]  # the widest plain type
            current = other[: kept.size * copier]
            other = other[current.size :][: current.size]
            np.copyto(current.view(np.complex128), kept)
        distance //= 2
    return current[::copier]
