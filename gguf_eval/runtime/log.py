"""llama.cpp's log: kept where it goes, and read for the sizes of the buffers it names, its reasons and its warnings."""

from __future__ import annotations

import atexit
import ctypes
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gguf_eval.files.engine_reasons import reason_in, split_function, without_numbers
from gguf_eval.runtime.bindings import library

_DEBUG, _WARNING, _ERROR, _CONTINUED = 1, 3, 4, 5
"""ggml's log levels; a continued line has the level of the one before."""
_BUFFER = re.compile(r"(?:^|: )\s*(\S+)\s+(model|KV|RS|output|compute) buffer size\s*=\s*([0-9.]+) MiB")
_CACHE = re.compile(r"^llama_kv_cache: size =\s*([0-9.]+) MiB")
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers")
_KEPT_LINES = 200

_HARMLESS = re.compile(
    r"full-size SWA cache|n_ctx_(per_)?seq|n_ctx is not divisible|control-looking token|attribute to USER_DEFINED|"
    r"from EOG list|add_bos_token' to 'true' for Gemma|special_pad_id instead|unused tensor|mmap|madvise|fadvise|mlock|"
    r"munlock|VirtualLock|WorkingSetSize|[Bb]uffered IO?|Prefetch|munmap|Unmap|CloseHandle|graph reuse|"
    r"yarn_attn_factor|does not match expectation|is assigned to device|pipeline parallelism|sharing with layer|"
    r"padding V cache|find a memory slot|removing memory module entries"
)
"""Warnings that say nothing of answers: how files are read, how memory is laid out, what llama.cpp has put right."""


@dataclass(frozen=True)
class Buffer:
    """One allocation of llama.cpp."""

    place: str
    """ggml's name of the buffer type: ``CPU``, ``CPU_Mapped``, ``CPU_REPACK``, ``CUDA0``, ``RPC0[host:port]`` ..."""
    holds: str
    """``model`` (weights), ``KV``, ``RS`` (recurrent state), ``output`` (logits) or ``compute``."""
    size_bytes: int


@dataclass(frozen=True)
class _Watch:
    """Lines of llama.cpp that nobody has asked for yet."""

    warnings: deque[str]
    errors: deque[str]
    callbacks: list[Any]
    """llama.cpp keeps only the address."""


_watch = _Watch(deque(maxlen=_KEPT_LINES), deque(maxlen=_KEPT_LINES), [])


def watch_log() -> None:
    """Keep llama.cpp's warnings and errors from now on, for `take_warnings` and `take_reason`."""
    llama = library()
    current = ctypes.cast(_current_callback()[0], ctypes.c_void_p).value
    if _watch.callbacks and current == ctypes.cast(_watch.callbacks[-1], ctypes.c_void_p).value:
        return
    if not _watch.callbacks:  # no Python may be called once the interpreter is gone
        atexit.register(llama.llama_log_set, llama.llama_log_callback(), ctypes.c_void_p(0))
    _watch.callbacks.append(_listener(_keep_notices))
    llama.llama_log_set(_watch.callbacks[-1], ctypes.c_void_p(0))


def _keep_notices(level: int, lines: Sequence[str]) -> None:
    if level == _ERROR:
        _watch.errors.extend(lines)
    elif level == _WARNING:  # a model can have more harmless ones than are kept
        _watch.warnings.extend(line for line in lines if not _HARMLESS.search(line))


def add_warning(text: str) -> None:
    """Let `take_warnings` tell of what was found out about llama.cpp's answers beside what it says itself."""
    _watch.warnings.append(text)


def take_warnings() -> list[str]:
    """What llama.cpp has warned of since it was last asked, but for the harmless; one for each function.

    Lines that differ in numbers only are told once.
    """
    by_function: dict[str, dict[str, str]] = {}
    while _watch.warnings:
        function, text = split_function(_watch.warnings.popleft())
        if re.search(r"\w", text):
            by_function.setdefault(function, {}).setdefault(without_numbers(text), text)
    return ["; ".join(said.values()) for said in by_function.values()]


def take_reason() -> str:
    """The errors that llama.cpp has written since it was last asked, in one line; empty where it gave no reason."""
    reason = reason_in(_watch.errors)
    _watch.errors.clear()
    return reason


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """Collect what llama.cpp logs meanwhile but for debugging output, line by line; it still goes where it went."""
    llama = library()
    previous, user_data = _current_callback()
    lines: list[str] = []
    callback = _listener(lambda level, more: lines.extend(more))
    llama.llama_log_set(callback, ctypes.c_void_p(0))
    try:
        yield lines
    finally:
        llama.llama_log_set(previous, user_data)


def _current_callback() -> tuple[Any, ctypes.c_void_p]:
    llama = library()
    callback, user_data = llama.llama_log_callback(), ctypes.c_void_p()
    llama.llama_log_get(ctypes.byref(callback), ctypes.byref(user_data))
    return callback, user_data


def _listener(listen: Callable[[int, list[str]], None]) -> Any:
    """A callback that gives ``listen`` the level and the lines of each message, and passes it on to where it went."""
    previous, user_data = _current_callback()
    level = 0

    def hear(given: int, text: bytes, data: object) -> None:
        nonlocal level
        level = level if given == _CONTINUED else given
        if previous:
            previous(given, text, user_data)
        if level != _DEBUG:
            listen(level, text.decode("utf-8", errors="replace").splitlines())

    return library().llama_log_callback(hear)


def buffers_in(lines: Sequence[str]) -> tuple[Buffer, ...]:
    """The buffers that log lines name, in their order; those of no size are left out.

    A load that allocates nothing gives the size of a cache in another line: it is all put where its first buffer is.
    """
    found = []
    unallocated = ""
    for line in lines:
        match, cache = _BUFFER.search(line), _CACHE.search(line)
        if match:
            size = round(float(match[3]) * 2**20)
            if size:
                found.append(Buffer(match[1], match[2], size))
            elif match[2] == "KV":
                unallocated = unallocated or match[1]
        elif cache and unallocated:
            found.append(Buffer(unallocated, "KV", round(float(cache[1]) * 2**20)))
            unallocated = ""
    return tuple(found)


def offloaded_layers(lines: Sequence[str]) -> tuple[int, int] | None:
    """(layers on devices, layers in all, the output counted as one), where the log of a load says so."""
    for line in lines:
        match = _OFFLOADED.search(line)
        if match:
            return int(match[1]), int(match[2])
    return None
