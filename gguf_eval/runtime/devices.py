"""Which devices the layers of a model go to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gguf_eval.errors import UsageError, nearest
from gguf_eval.llama.devices import Device, add_rpc_server, devices, use_devices
from gguf_eval.llama.library import library
from gguf_eval.runtime.settings import SPLIT_MODES, Offload

HOW_TO_GET_A_GPU_BUILD = (
    "install llama-cpp-python built for your GPU, for instance "
    'CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall --no-cache-dir llama-cpp-python '
    "(-DGGML_METAL=on, -DGGML_VULKAN=on, -DGGML_RPC=on likewise), or take --gpu-layers 0"
)


def chosen_devices(offload: Offload) -> list[Device]:
    """The devices that layers may go to, in the order asked for; raises `UsageError` for a name that is not there."""
    for endpoint in offload.rpc:
        add_rpc_server(endpoint)
    present = [device for device in devices() if device.takes_layers]
    if not offload.devices:
        return present
    known = {device.name: device for device in present}
    for name in offload.devices:
        if name not in known:
            have = ", ".join(known) or "none"
            raise UsageError(
                f"--device: no device for layers is called '{name}'{nearest(name, known)}; there are: {have}"
            )
    return [known[name] for name in offload.devices]


def check_layers_possible(offload: Offload, chosen: Sequence[Device]) -> None:
    """Refuse layers that were asked for where nothing could take them."""
    if offload.gpu_layers and not chosen:
        wanted = "all" if offload.gpu_layers < 0 else str(offload.gpu_layers)
        raise UsageError(
            f"--gpu-layers {wanted}: a GPU or RPC device is needed and this llama.cpp finds none; "
            + HOW_TO_GET_A_GPU_BUILD
        )


def offload_parameters(params: Any, offload: Offload) -> list[Any]:
    """Write ``offload`` into llama_model_params; return what must stay alive while the parameters are in use."""
    chosen = chosen_devices(offload)
    check_layers_possible(offload, chosen)
    params.n_gpu_layers = -1 if offload.gpu_layers is None else offload.gpu_layers
    params.split_mode = SPLIT_MODES.index(offload.split_mode)
    if not offload.mmap:
        params.load_mode = library().LLAMA_LOAD_MODE_NONE
    return use_devices(params, chosen, offload.tensor_split)
