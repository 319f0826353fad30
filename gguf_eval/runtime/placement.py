"""Opens a model where it fits: refuses what can't, and chooses the number of layers on devices where left free to.

The choice is made from the header (weights and KV cache by layer are exact), corrected by a load that allocates nothing
and names llama.cpp's own compute buffers; when an allocation fails all the same, fewer layers are tried.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gguf_eval.errors import EngineError
from gguf_eval.files.cache import model_parts
from gguf_eval.files.footprint import Footprint, LayerSizes, cpu_features, layer_sizes, predict_footprint
from gguf_eval.files.header import Header, read_header
from gguf_eval.machine import memory_limit_bytes
from gguf_eval.runtime.bindings import build_info
from gguf_eval.runtime.devices import Device, chosen_devices
from gguf_eval.runtime.model import ContextSettings, Model
from gguf_eval.runtime.settings import EngineSettings, Offload

DEFAULT_CONTEXT = 4096
"""Context that layers are fitted for where a job names none."""
_LARGEST_MARGIN_BYTES = 1 << 30
"""Kept free on each device, or a tenth of what is free where that is less: drivers and screens need some."""


@dataclass(frozen=True)
class Placement:
    """Where the layers of a model went, and why."""

    layers: int
    """On devices, the output counted as one."""
    layer_count: int
    reasons: tuple[str, ...]
    predicted: Footprint


def open_model(path: Path, engine: EngineSettings, context: ContextSettings) -> Model:
    """Load ``path`` as ``engine`` says; where it leaves the number of layers open, as many as fit with ``context``.

    Raises `EngineError` where the model and the context can't fit in memory, before anything is loaded.
    """
    return open_placed(path, engine, context)[0]


def open_placed(path: Path, engine: EngineSettings, context: ContextSettings) -> tuple[Model, Placement]:
    """The same, and where the layers went."""
    context = context.with_engine(engine)
    headers = [read_header(part) for part in model_parts(path)]
    predicted = predict_footprint(
        headers,
        context.n_ctx,
        cache_type=context.cache_type_k,
        cache_type_v=context.cache_type_v,
        features=cpu_features(build_info()["system_info"]),
        batch=context.ubatch_size,
    )
    sizes = layer_sizes(headers, context.n_ctx, cache_type=context.cache_type_k, cache_type_v=context.cache_type_v)
    offload = engine.offload
    devices = chosen_devices(offload)
    count = len(sizes.weights_bytes) + 1
    if offload.gpu_layers is not None or not devices:
        wanted = offload.gpu_layers if devices and offload.gpu_layers is not None else 0
        layers = count if wanted < 0 else min(wanted, count)
        check_fits(path, engine, predicted, sizes, layers)
        model = Model(path, offload=offload if devices else replace(offload, gpu_layers=offload.gpu_layers or 0))
        reason = "as asked for" if offload.gpu_layers is not None else "no device takes layers"
        return model, Placement(layers, count, (reason,), predicted)
    return _open_fitted(path, headers, engine, context, devices, sizes, predicted)


def check_fits(path: Path, engine: EngineSettings, predicted: Footprint, sizes: LayerSizes, layers: int) -> None:
    """Refuse a model whose part outside of devices needs more memory than there is or was allowed."""
    away = _on_devices(sizes, layers)
    needed = predicted.resident_bytes - away
    limit = engine.max_memory_bytes or memory_limit_bytes()
    if needed > limit:
        have = "--max-memory allows" if engine.max_memory_bytes else "this machine has"
        raise EngineError(
            f"{path.name} needs about {_size(needed)} of memory at a context of {predicted.context} (weights "
            f"{_size(predicted.weights_bytes)}, KV cache {_size(predicted.kv_bytes)}), {have} {_size(limit)}; "
            "take a lower level, a smaller --ctx, or more layers on devices"
        )


def layers_that_fit(
    sizes: LayerSizes,
    free_bytes: Sequence[int],
    overhead_bytes: Sequence[int],
    shares: Sequence[float] = (),
) -> int:
    """The most layers that devices with so much free memory take, beside their overhead, shared out as llama.cpp does.

    free_bytes, overhead_bytes: by device; shares: each device's part, by default its free memory's.
    """
    weights = [*sizes.weights_bytes, sizes.output_bytes]
    kv = [*sizes.kv_bytes, 0]
    for layers in range(len(weights), 0, -1):
        used = [0] * len(free_bytes)
        for index, device in enumerate(_device_of_layers(layers, shares or [float(free) for free in free_bytes])):
            layer = len(weights) - layers + index
            used[device] += weights[layer] + kv[layer]
        if all(
            not used[i] or used[i] + overhead_bytes[i] + min(_LARGEST_MARGIN_BYTES, free // 10) <= free
            for i, free in enumerate(free_bytes)
        ):
            return layers
    return 0


def _device_of_layers(layers: int, shares: Sequence[float]) -> list[int]:
    """The device of each offloaded layer, by llama.cpp's rule: contiguous runs in proportion to the shares."""
    total = sum(shares) or 1.0
    ends, running = [], 0.0
    for share in shares:
        running += share
        ends.append(running / total)
    return [min(bisect_right(ends, index / layers), len(shares) - 1) for index in range(layers)]


def _open_fitted(
    path: Path,
    headers: Sequence[Header],
    engine: EngineSettings,
    context: ContextSettings,
    devices: Sequence[Device],
    sizes: LayerSizes,
    predicted: Footprint,
) -> tuple[Model, Placement]:
    count = len(sizes.weights_bytes) + 1
    free = [device.free_bytes for device in devices]
    shares = engine.offload.tensor_split
    guess = layers_that_fit(sizes, free, [predicted.compute_bytes] * len(devices), shares)
    reasons = [f"{guess} of {count} layers fit into {_free(devices)} by prediction"]
    layers = guess
    if guess:
        overhead = _compute_buffers(path, replace(engine.offload, gpu_layers=guess), context, devices)
        layers = layers_that_fit(sizes, free, [overhead.get(device.name, 0) for device in devices], shares)
        reserved = ", ".join(f"{name} {_size(size)}" for name, size in overhead.items()) or "none"
        reasons.append(f"{layers} with the compute buffers of a load without allocation ({reserved})")
    while True:
        check_fits(path, engine, predicted, sizes, layers)
        offload = replace(engine.offload, gpu_layers=layers)
        try:
            return _tried(path, offload, context), Placement(layers, count, tuple(reasons), predicted)
        except EngineError as error:
            if not layers:
                raise
            fewer = max(0, min(layers - 1, int(layers * 0.9)))
            reasons.append(f"{layers} layers could not be allocated, {fewer} tried ({error})")
            layers = fewer


def _tried(path: Path, offload: Offload, context: ContextSettings) -> Model:
    """Load a model and see that the context opens too."""
    model = Model(path, offload=offload)
    try:
        model.open_context(context).close()
    except BaseException:
        model.close()
        raise
    return model


def _compute_buffers(
    path: Path, offload: Offload, context: ContextSettings, devices: Sequence[Device]
) -> Mapping[str, int]:
    """llama.cpp's own compute and output buffers by device, from a load that allocates nothing."""
    found: dict[str, int] = {}
    with Model(path, offload=offload, no_alloc=True) as model, model.open_context(context) as opened:
        for buffer in opened.buffers:
            for device in devices:
                if buffer.place.split("[")[0] == device.name and buffer.holds in ("compute", "output"):
                    found[device.name] = found.get(device.name, 0) + buffer.size_bytes
    return found


def _on_devices(sizes: LayerSizes, layers: int) -> int:
    weights = [*sizes.weights_bytes, sizes.output_bytes]
    kv = [*sizes.kv_bytes, 0]
    first = len(weights) - layers
    return sum(weights[first:]) + sum(kv[first:])


def _free(devices: Sequence[Device]) -> str:
    return ", ".join(f"{_size(device.free_bytes)} free on {device.name}" for device in devices)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"
