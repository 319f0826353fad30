"""llama.cpp's log: kept where it goes, and read for the sizes of the buffers it names."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from gguf_eval.runtime.bindings import library

_DEBUG, _CONTINUED = 1, 5
"""ggml's log levels; a continued line has the level of the one before."""
_BUFFER = re.compile(r"(?:^|: )\s*(\S+)\s+(model|KV|RS|output|compute) buffer size\s*=\s*([0-9.]+) MiB")
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers")


@dataclass(frozen=True)
class Buffer:
    """One allocation of llama.cpp."""

    place: str
    """ggml's name of the buffer type: ``CPU``, ``CPU_Mapped``, ``CPU_REPACK``, ``CUDA0``, ``RPC0[host:port]`` ..."""
    holds: str
    """``model`` (weights), ``KV``, ``RS`` (recurrent state), ``output`` (logits) or ``compute``."""
    size_bytes: int


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """Collect what llama.cpp logs meanwhile, line by line; it still goes where it went, but for debugging output."""
    llama = library()
    previous, user_data = llama.llama_log_callback(), ctypes.c_void_p()
    llama.llama_log_get(ctypes.byref(previous), ctypes.byref(user_data))
    lines: list[str] = []
    level = 0

    def keep(given: int, text: bytes, data: object) -> None:
        nonlocal level
        level = level if given == _CONTINUED else given
        if level != _DEBUG:
            if previous:
                previous(given, text, user_data)
            lines.extend(text.decode("utf-8", errors="replace").splitlines())

    callback = llama.llama_log_callback(keep)
    llama.llama_log_set(callback, ctypes.c_void_p(0))
    try:
        yield lines
    finally:
        llama.llama_log_set(previous, user_data)


def buffers_in(lines: Sequence[str]) -> tuple[Buffer, ...]:
    """The buffers that log lines name, in their order; those of no size are left out."""
    found = []
    for line in lines:
        match = _BUFFER.search(line)
        if match:
            size = round(float(match[3]) * 2**20)
            if size:
                found.append(Buffer(match[1], match[2], size))
    return tuple(found)


def offloaded_layers(lines: Sequence[str]) -> tuple[int, int] | None:
    """(layers on devices, layers in all, the output counted as one), where the log of a load says so."""
    for line in lines:
        match = _OFFLOADED.search(line)
        if match:
            return int(match[1]), int(match[2])
    return None
