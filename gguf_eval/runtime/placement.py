"""Opens a model where it fits: refuses what can't, and chooses the number of layers on devices where left free to.

The choice is made from the header (weights, KV cache and states by layer are exact), corrected by a load that allocates
nothing and names llama.cpp's own compute buffers; when an allocation fails all the same, fewer are tried. Where the
context may be reduced, it is, as far as that lets more layers fit, or the model fit at all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gguf_eval.errors import EngineError
from gguf_eval.files.cache import model_parts
from gguf_eval.files.footprint import Footprint, cpu_features, layer_sizes, predict_footprint
from gguf_eval.files.header import Header, read_header
from gguf_eval.files.kinds import check_continues_text
from gguf_eval.llama.devices import Device
from gguf_eval.llama.library import build_info
from gguf_eval.machine import memory_limit_bytes
from gguf_eval.runtime.devices import check_layers_possible, chosen_devices
from gguf_eval.runtime.fitting import Need, Room, bytes_on_devices, choose, memory_outside
from gguf_eval.runtime.memory import resident
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.reserved import LONGEST_CONTEXT, reserved_footprint
from gguf_eval.runtime.settings import ContextSettings, EngineSettings, Offload
from gguf_eval.sizes import limit_text, size_text

_NEAR = 1.5
"""A need of up to so many times the memory there is may be overestimated for a model of an unknown family."""
DEFAULT_CONTEXT = 4096
"""Context that layers are fitted for where a job names none."""


@dataclass(frozen=True)
class Placement:
    """Where the layers of a model went, how long a context was left, and why."""

    layers: int
    """On devices, the output counted as one."""
    layer_count: int
    context: int
    """Tokens: what was asked for, or what it was reduced to."""
    reasons: tuple[str, ...]
    predicted: Footprint
    predicted_device_bytes: dict[str, int]
    """By the file's header alone: weights, KV cache and compute buffers on each device."""


def open_model(path: Path, engine: EngineSettings, context: ContextSettings) -> Model:
    """Load ``path`` as ``engine`` says; where it leaves the number of layers open, as many as fit with ``context``.

    Raises `EngineError` where the model and the context can't fit in memory, before anything is loaded.
    """
    return open_placed(path, engine, context)[0]


def open_placed(
    path: Path, engine: EngineSettings, context: ContextSettings, shortest: int | None = None
) -> tuple[Model, Placement]:
    """The same, and where the layers went. ``shortest``: tokens that the context may be reduced to."""
    check_continues_text(path)
    context = context.with_engine(engine)
    devices = chosen_devices(engine.offload)
    check_layers_possible(engine.offload, devices)
    if engine.offload.split_mode == "none":
        devices = devices[:1]
    needs = by_header = _needs([read_header(part) for part in model_parts(path)], context, len(devices))
    count = len(needs(context.n_ctx).sizes.weights_bytes) + 1
    wanted = _wanted_layers(engine.offload, count, devices)
    left = _limit(engine) - resident().total_bytes  # the program itself is there already
    room = Room(left, tuple(device.free_bytes for device in devices), engine.offload.tensor_split)
    layers, tokens = choose(needs, room, wanted, context.n_ctx, shortest)
    reasons = ["as asked for" if devices or engine.offload.gpu_layers is not None else "no device takes layers"]
    if devices and wanted is None:
        reasons = [f"{layers} of {count} layers fit into {_free(devices)} by prediction"]
    if layers and (wanted is None or shortest is not None):
        offload = replace(engine.offload, gpu_layers=layers)
        reserved = _compute_buffers(path, offload, replace(context, n_ctx=tokens), devices)
        needs = _corrected(needs, tokens, [reserved.get(device.name, 0) for device in devices])
        layers, tokens = choose(needs, room, wanted, context.n_ctx, shortest)
        named = ", ".join(f"{name} {size_text(size)}" for name, size in reserved.items()) or "none"
        reasons.append(f"{layers} with the compute buffers of a load without allocation ({named})")
    if tokens < context.n_ctx:
        most, _ = choose(needs, room, None, context.n_ctx, None)
        with_more = f"{most} layers fit" if most < layers else f"{limit_text(_limit(engine))} of memory are too little"
        reasons.append(
            f"the context was reduced from {context.n_ctx} to {tokens} tokens, as allowed: with more, {with_more}"
        )
    context = replace(context, n_ctx=tokens)
    model, layers = _load(path, engine, context, needs(tokens), layers, reasons if wanted is None else None)
    on_devices = zip(devices, bytes_on_devices(by_header(tokens), room, layers), strict=True)
    predicted = {device.name: size for device, size in on_devices if size}
    return model, Placement(layers, count, tokens, tuple(reasons), by_header(tokens).predicted, predicted)


def _wanted_layers(offload: Offload, count: int, devices: Sequence[Device]) -> int | None:
    """Layers on devices that are asked for, of ``count``; None where as many as fit are."""
    if not devices:
        return 0
    if offload.gpu_layers is None:
        return None
    return count if offload.gpu_layers < 0 else min(offload.gpu_layers, count)


def _needs(headers: Sequence[Header], context: ContextSettings, devices: int) -> Callable[[int], Need]:
    """What the model needs at a context, by its headers alone."""
    features = cpu_features(build_info()["system_info"])
    keys, values = context.cache_type_k, context.cache_type_v

    @functools.cache
    def needs(tokens: int) -> Need:
        predicted = predict_footprint(
            headers,
            tokens,
            cache_type=keys,
            cache_type_v=values,
            features=features,
            batch=context.ubatch_size,
            flash_attention=context.flash_attention != 0,
        )
        sizes = layer_sizes(headers, tokens, cache_type=keys, cache_type_v=values, batch=context.ubatch_size)
        return Need(predicted, sizes, (predicted.compute_bytes,) * devices)

    return needs


def _corrected(needs: Callable[[int], Need], seen_at: int, seen_bytes: Sequence[int]) -> Callable[[int], Need]:
    """The same with the compute buffers that a load with a context of ``seen_at`` named, by device."""

    def corrected(tokens: int) -> Need:
        need = needs(tokens)
        growth = need.predicted.compute_bytes / needs(seen_at).predicted.compute_bytes
        return replace(need, overhead_bytes=tuple(round(size * growth) for size in seen_bytes))

    return corrected


def _load(
    path: Path, engine: EngineSettings, context: ContextSettings, need: Need, layers: int, reasons: list[str] | None
) -> tuple[Model, int]:
    """Load the model with so many layers on devices; with ``reasons``, which are added to, fewer where that fails."""
    while True:
        _check_fits(path, engine, context, need, layers)
        offload = replace(engine.offload, gpu_layers=layers)
        if reasons is None:
            return Model(path, offload=offload), layers
        try:
            return _tried(path, offload, context), layers
        except EngineError as error:
            if not layers:
                raise
            fewer = max(0, min(layers - 1, int(layers * 0.9)))
            reasons.append(f"{layers} layers could not be allocated, {fewer} tried ({error})")
            layers = fewer


def _check_fits(path: Path, engine: EngineSettings, context: ContextSettings, need: Need, layers: int) -> None:
    """Refuse a model whose part outside of devices needs more memory than there is or was allowed.

    Where that is near and there are no devices, llama.cpp's own figures decide.
    """
    needed = memory_outside(need, layers)
    limit = _limit(engine)
    if limit < needed < _NEAR * limit and not layers and context.n_ctx <= LONGEST_CONTEXT:
        need = replace(need, predicted=reserved_footprint(path, context, need.predicted))
        needed = memory_outside(need, layers)
    if needed > limit:
        have = "--max-memory allows" if engine.max_memory_bytes else "this machine has"
        predicted = need.predicted
        raise EngineError(
            f"{path.name} needs about {size_text(needed)} of memory at a context of {predicted.context} "
            f"(weights {size_text(predicted.weights_bytes)}, KV cache {size_text(predicted.kv_bytes)}), "
            f"{have} {limit_text(limit)}; take a lower level, a smaller --ctx, or more layers on devices"
        )


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


def _limit(engine: EngineSettings) -> int:
    return engine.max_memory_bytes or memory_limit_bytes()


def _free(devices: Sequence[Device]) -> str:
    return ", ".join(f"{size_text(device.free_bytes)} free on {device.name}" for device in devices)
