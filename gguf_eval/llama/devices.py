"""The devices ggml can compute on, their memory, and how a model is told to use them."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gguf_eval.errors import EngineError, UsageError
from gguf_eval.llama.library import function, library

_KINDS = ("CPU", "GPU", "integrated GPU", "accelerator", "meta")
"""In the order of ggml's enumeration."""
_OFFLOADS = ("GPU", "integrated GPU")


@dataclass(frozen=True)
class Device:
    """One device of this machine, or of an RPC server, with its memory at the time of asking."""

    name: str
    description: str
    kind: str
    free_bytes: int
    total_bytes: int
    handle: int

    @property
    def takes_layers(self) -> bool:
        """Whether a model's layers can be offloaded to it."""
        return self.kind in _OFFLOADS


@functools.cache
def add_rpc_server(endpoint: str) -> None:
    """Add the devices of a llama.cpp RPC server, HOST:PORT; raises `EngineError` where it does not answer."""
    if not library().llama_supports_rpc():
        raise EngineError(
            "--rpc: this build of llama.cpp has no RPC; reinstall it with "
            'CMAKE_ARGS="-DGGML_RPC=on" pip install --force-reinstall --no-cache-dir llama-cpp-python'
        )
    _check_reachable(endpoint)  # ggml ends the process where there is no server
    add = function("ggml-rpc", "ggml_backend_rpc_add_server", ctypes.c_void_p, ctypes.c_char_p)
    registry = add(endpoint.encode())
    if not registry:
        raise EngineError(f"--rpc: {endpoint} does not answer as an RPC server of this llama.cpp; its log says more")
    function("ggml", "ggml_backend_register", None, ctypes.c_void_p)(registry)


def _check_reachable(endpoint: str) -> None:
    import socket

    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"--rpc: HOST:PORT is needed, found '{endpoint}'")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise EngineError(
            f"--rpc: no server answers at {endpoint} ({error.strerror or error}); start llama.cpp's rpc-server there"
        ) from None


def devices() -> list[Device]:
    """Every device ggml knows, the processor too."""
    library()
    count = function("ggml", "ggml_backend_dev_count", ctypes.c_size_t)()
    get = function("ggml", "ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    return [describe_device(get(index)) for index in range(count)]


def backends() -> list[str]:
    """Names of the backends that this build of llama.cpp has, as ggml calls them: CPU, CUDA, RPC ..."""
    library()
    count = function("ggml", "ggml_backend_reg_count", ctypes.c_size_t)()
    get = function("ggml", "ggml_backend_reg_get", ctypes.c_void_p, ctypes.c_size_t)
    name = function("ggml-base", "ggml_backend_reg_name", ctypes.c_char_p, ctypes.c_void_p)
    names = (name(get(index)).decode(errors="replace") for index in range(count))
    return list(dict.fromkeys(name.split("[")[0] for name in names))  # each RPC server is one: RPC[HOST:PORT]


def describe_device(handle: int) -> Device:
    """Name, kind and memory of a device."""
    name = function("ggml-base", "ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
    description = function("ggml-base", "ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)
    kind = function("ggml-base", "ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)(handle)
    free, total = device_memory(handle)
    return Device(
        name(handle).decode(errors="replace"),
        description(handle).decode(errors="replace"),
        _KINDS[kind] if 0 <= kind < len(_KINDS) else f"kind {kind}",
        free,
        total,
        handle,
    )


def device_memory(handle: int) -> tuple[int, int]:
    """Free and total bytes of a device now."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    size = ctypes.POINTER(ctypes.c_size_t)
    function("ggml-base", "ggml_backend_dev_memory", None, ctypes.c_void_p, size, size)(
        handle, ctypes.byref(free), ctypes.byref(total)
    )
    return free.value, total.value


def use_devices(params: Any, chosen: Sequence[Device], tensor_split: Sequence[float]) -> list[Any]:
    """Write devices and their shares of the layers into llama_model_params; none of either leaves the choice to it.

    Returns what must stay alive while the parameters are in use.
    """
    kept: list[Any] = []
    if chosen:
        handles = (ctypes.c_void_p * (len(chosen) + 1))(*(device.handle for device in chosen), None)
        params.devices = ctypes.addressof(handles)
        kept.append(handles)
    if tensor_split:
        most = int(library().llama_max_devices())
        if len(tensor_split) > most:
            raise UsageError(f"--tensor-split: at most {most} shares, found {len(tensor_split)}")
        shares = (ctypes.c_float * most)(*tensor_split)
        params.tensor_split = ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
        kept.append(shares)
    return kept
