"""Half precision from and to other floats, by integer steps that numpy runs many at a time (its own casts do not).

Every function takes flat contiguous arrays and fills ``out``; the bits are those of a cast that rounds to the nearest,
ties to even.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits16 = NDArray[np.uint16]
Bits32 = NDArray[np.uint32]
Floats = NDArray[np.float32]
Halves = NDArray[np.float16]

_GROUP = 8  # flags that are looked at together, as one integer


def widen_half(bits: Bits16, out: Floats) -> None:
    """Turn the bits of finite halves into float32. Infinities and NaNs come out as finite numbers: look first."""
    wide = out.view(np.int32)
    np.copyto(wide, bits.view(np.int16))  # the sign fills the upper half
    np.left_shift(wide, 13, out=wide)
    np.bitwise_and(out.view(np.uint32), np.uint32(0x8FFFFFFF), out=out.view(np.uint32))
    np.multiply(out, np.float32(2.0**112), out=out)  # the difference of the exponents' biases; exact


def narrow_to_half(values: Floats, out: Bits16, spare: tuple[Bits32, Bits32]) -> None:
    """Round float32 to half bits; too large becomes infinite. NaNs come out as something else: look first.

    Adding a power of two that many binary places above a number rounds it where a half ends, subnormal or not:
    the method of Maratyszcza's FP16 library, which ggml uses as well.
    """
    base, bias = (array[: values.size] for array in spare)
    number, weight = base.view(np.float32), bias.view(np.float32)
    bits = values.view(np.uint32)
    np.bitwise_and(bits, np.uint32(0x7FFFFFFF), out=base)
    np.bitwise_and(bits, np.uint32(0x7F800000), out=bias)
    with np.errstate(over="ignore"):
        np.multiply(number, np.float32(2.0**112), out=number)  # what a half can't hold becomes infinite
    np.multiply(number, np.float32(2.0**-110), out=number)
    np.maximum(bias, np.uint32(0x38800000), out=bias)
    np.add(bias, np.uint32(0x07800000), out=bias)
    np.add(number, weight, out=number)
    np.right_shift(base, np.uint32(13), out=bias)
    np.bitwise_and(bias, np.uint32(0x7C00), out=bias)
    np.bitwise_and(base, np.uint32(0x0FFF), out=base)
    np.add(base, bias, out=base)
    np.right_shift(bits, np.uint32(16), out=bias)
    np.bitwise_and(bias, np.uint32(0x8000), out=bias)
    np.bitwise_or(base, bias, out=base)
    np.copyto(out, base, casting="unsafe")


def bfloat16_to_half(bits: Bits16, out: Bits16, spare: Bits16) -> bool:
    """Turn bfloat16 bits into half bits; tells whether any came out infinite or NaN.

    In a half's normal range only the exponent's bias changes: a bfloat16 has fewer places. The others are looked up.
    """
    whole = bits.size // _GROUP * _GROUP
    outside = spare.view(np.bool_)[: bits.size]
    np.bitwise_and(bits, np.uint16(0x7FFF), out=out)
    np.subtract(out, np.uint16(0x3880), out=out)  # from the smallest normal half on
    np.greater_equal(out, np.uint16(0x0F00), out=outside)
    groups = np.flatnonzero(outside[:whole].view(np.uint64) != 0)
    if whole < bits.size or groups.size > bits.size // 64:
        table("BF16", "F16").take(bits, mode="clip", out=out.view(np.float16))
        return bool((out & np.uint16(0x7C00)).max(initial=0) == 0x7C00)
    np.multiply(out, np.uint16(8), out=out)
    np.add(out, np.uint16(0x0400), out=out)
    signs = np.bitwise_and(bits, np.uint16(0x8000), out=spare[: bits.size])
    np.bitwise_or(out, signs, out=out)
    if not groups.size:
        return False
    mended = table("BF16", "F16").take(bits.reshape(-1, _GROUP)[groups], mode="clip").view(np.uint16)
    out.reshape(-1, _GROUP)[groups] = mended
    return bool((mended & np.uint16(0x7C00)).max() == 0x7C00)


@cache
def table(source: str, target: str) -> NDArray[Any]:
    """Return each of the 65,536 values of a 16-bit float (``F16`` or ``BF16``) as ``F16``, ``BF16`` bits or ``F32``."""
    bits = np.arange(1 << 16, dtype=np.uint32)
    if source == "F16":
        wide = bits.astype(np.uint16).view(np.float16).astype(np.float32)
    else:
        wide = (bits << np.uint32(16)).view(np.float32)
    if target == "F32":
        return wide
    if target == "F16":
        with np.errstate(over="ignore"):
            return wide.astype(np.float16)
    rounded = np.empty(bits.shape, np.uint16)
    narrow_to_bfloat16(wide, rounded, np.empty_like(bits))
    return rounded


def narrow_to_bfloat16(values: Floats, out: Bits16, spare: Bits32) -> None:
    """Round float32 to bfloat16 bits; NaNs become quiet."""
    rounded = spare[: values.size]
    bits = values.view(np.uint32)
    np.right_shift(bits, np.uint32(16), out=rounded)
    np.bitwise_and(rounded, np.uint32(1), out=rounded)
    np.add(rounded, np.uint32(0x7FFF), out=rounded)
    np.add(rounded, bits, out=rounded)  # overflows for some NaNs, which are replaced below
    np.right_shift(rounded, np.uint32(16), out=rounded)
    np.copyto(out, rounded, casting="unsafe")
    if has_special(values, "F32"):
        nan = np.isnan(values)
        out[nan] = bits[nan] >> np.uint32(16) | np.uint32(0x40)


def has_special(values: NDArray[Any], source: str) -> bool:
    """Tell whether contiguous ``values`` of the element type ``source`` hold a NaN or an infinity.

    Those are the largest of the numbers when their bits are read as integers, with the sign and without.
    """
    bits = values.view(np.uint32 if source == "F32" else np.uint16)
    infinite = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}[source]
    signed = bits.view(np.int32 if source == "F32" else np.int16)
    sign = 1 << 8 * bits.itemsize - 1
    return bool(signed.max(initial=0) >= infinite or bits.max(initial=0) >= infinite + sign)
