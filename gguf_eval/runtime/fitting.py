"""How many layers fit on devices and how long a context does: arithmetic over what headers say. Loads nothing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from gguf_eval.files.footprint import Footprint, LayerSizes

_CONTEXT_STEP = 256
"""llama.cpp rounds contexts up to a multiple of this."""
_LARGEST_MARGIN_BYTES = 1 << 30
"""Kept free on each device, or a tenth of what is free where that is less: drivers and screens need some."""


@dataclass(frozen=True)
class Room:
    """The memory that a model may take."""

    memory_bytes: int
    """Outside of devices."""
    device_bytes: tuple[int, ...]
    """Free on each device that takes layers."""
    shares: tuple[float, ...] = ()
    """Each device's part of the layers, by default its free memory's."""


@dataclass(frozen=True)
class Need:
    """The memory that a model takes at one context."""

    predicted: Footprint
    sizes: LayerSizes
    overhead_bytes: tuple[int, ...]
    """Compute buffers on each device that has layers."""


def layers_that_fit(need: Need, room: Room) -> int:
    """The most layers that the devices take beside their overhead, the output counted as one.

    They are shared out as llama.cpp does it.
    """
    most = len(need.sizes.weights_bytes) + 1
    for layers in range(most if room.device_bytes else 0, 0, -1):
        if all(
            not used or used + min(_LARGEST_MARGIN_BYTES, free // 10) <= free
            for used, free in zip(bytes_on_devices(need, room, layers), room.device_bytes, strict=True)
        ):
            return layers
    return 0


def bytes_on_devices(need: Need, room: Room, layers: int) -> list[int]:
    """What each device needs for its part of the last ``layers`` layers: weights, KV cache and compute buffers."""
    used = [0] * len(room.device_bytes)
    if layers:
        for size, device in zip(_layer_bytes(need.sizes)[-layers:], _device_of_layers(layers, room), strict=True):
            used[device] += size
    return [size + over if size else 0 for size, over in zip(used, need.overhead_bytes, strict=True)]


def memory_outside(need: Need, layers: int) -> int:
    """Bytes needed outside of devices when they have the last ``layers`` layers."""
    away = sum(_layer_bytes(need.sizes)[-layers:]) if layers else 0
    return need.predicted.resident_bytes - away


def choose(
    need_at: Callable[[int], Need], room: Room, wanted: int | None, longest: int, shortest: int | None
) -> tuple[int, int]:
    """(layers on devices, tokens of context): the most layers, then the longest context that leaves them.

    wanted: layers asked for, or None for as many as fit; shortest: how far the context may be reduced from
    ``longest``, or None where it may not. Where nothing fits the shortest context is the answer all the same: loading
    it says what is missing.
    """

    def layers_at(context: int) -> int:
        """Layers on devices; -1 where those wanted, or what is left for the memory outside, do not fit."""
        need = need_at(context)
        most = layers_that_fit(need, room)
        layers = most if wanted is None else wanted
        return layers if layers <= most and memory_outside(need, layers) <= room.memory_bytes else -1

    context = longest if shortest is None else _longest_with(layers_at, longest, min(longest, shortest))
    return layers_that_fit(need_at(context), room) if wanted is None else wanted, context


def _longest_with(layers_at: Callable[[int], int], longest: int, shortest: int) -> int:
    """The longest context that has as many layers as the shortest one; their number falls as the context grows."""
    best = layers_at(shortest)
    if layers_at(longest) == best and best >= 0:
        return longest
    if best < 0:
        return shortest
    steps = range(shortest // _CONTEXT_STEP + 1, -(-longest // _CONTEXT_STEP))
    fewer = bisect_right(steps, 0, key=lambda step: layers_at(step * _CONTEXT_STEP) != best)
    return steps[fewer - 1] * _CONTEXT_STEP if fewer else shortest


def _layer_bytes(sizes: LayerSizes) -> list[int]:
    """Weights and KV cache of each layer, the output last."""
    return [w + kv for w, kv in zip((*sizes.weights_bytes, sizes.output_bytes), (*sizes.kv_bytes, 0), strict=True)]


def _device_of_layers(layers: int, room: Room) -> list[int]:
    """The device of each offloaded layer, by llama.cpp's rule: contiguous runs in proportion to the shares."""
    shares = room.shares or tuple(float(free) for free in room.device_bytes)
    total = sum(shares) or 1.0
    ends, running = [], 0.0
    for share in shares:
        running += share
        ends.append(running / total)
    return [min(bisect_right(ends, index / layers), len(shares) - 1) for index in range(layers)]
