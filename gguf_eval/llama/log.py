"""llama.cpp's log: kept where it goes, and read for the sizes of the buffers it names, its reasons and its warnings."""

from __future__ import annotations

import atexit
import ctypes
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_eval.errors import UsageError
from gguf_eval.llama.library import library
from gguf_eval.llama.reasons import reason_in, split_function, without_numbers

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


_warnings: deque[str] = deque(maxlen=_KEPT_LINES)
_errors: deque[str] = deque(maxlen=_KEPT_LINES)
"""Lines of llama.cpp that nobody has asked for yet."""
_listeners: set[int] = set()
"""Addresses of the callbacks that keep them."""
_callbacks: list[Any] = []
"""Those that were set for good: llama.cpp keeps only the address."""


def keep_log(path: Path | None) -> None:
    """Append llama.cpp's log to a file from now on; without one, only its errors are shown, on standard error.

    For processes that are not ours alone. Raises `UsageError` when the file can't be written.
    """
    try:
        file = path.open("ab", buffering=0) if path else None
    except OSError as error:
        raise UsageError(f"{path}: a writable file is needed for llama.cpp's log ({error.strerror})") from None

    def write(level: int, text: bytes, user_data: object) -> None:
        if file:
            file.write(text)
        elif level == _ERROR:
            sys.stderr.write(text.decode(errors="replace"))

    _listen_for_good(library().llama_log_callback(write))


def watch_log() -> None:
    """Keep llama.cpp's warnings and errors from now on, for `take_warnings` and `take_reason`."""
    if _address(_current_callback()[0]) not in _listeners:
        listener = _listener(_keep_notices)
        _listeners.add(_address(listener))
        _listen_for_good(listener)


def _listen_for_good(callback: Any) -> None:
    llama = library()
    if not _callbacks:  # no Python may be called once the interpreter is gone
        atexit.register(llama.llama_log_set, llama.llama_log_callback(), ctypes.c_void_p(0))
    _callbacks.append(callback)
    llama.llama_log_set(callback, ctypes.c_void_p(0))


def _address(callback: Any) -> int:
    return ctypes.cast(callback, ctypes.c_void_p).value or 0


def _keep_notices(level: int, text: str) -> None:
    if level == _ERROR:
        _errors.extend(text.splitlines())
    elif level == _WARNING:  # a model can have more harmless ones than are kept
        _warnings.extend(line for line in text.splitlines() if not _HARMLESS.search(line))


def add_warning(text: str) -> None:
    """Let `take_warnings` tell of what was found out about llama.cpp's answers beside what it says itself."""
    _warnings.append(text)


def take_warnings() -> list[str]:
    """What llama.cpp has warned of since it was last asked, but for the harmless; one for each function.

    Lines that differ in numbers only are told once.
    """
    by_function: dict[str, dict[str, str]] = {}
    while _warnings:
        function, text = split_function(_warnings.popleft())
        if re.search(r"\w", text):
            by_function.setdefault(function, {}).setdefault(without_numbers(text), text)
    return ["; ".join(said.values()) for said in by_function.values()]


def take_reason() -> str:
    """The errors that llama.cpp has written since it was last asked, in one line; empty where it gave no reason."""
    reason = reason_in(_errors)
    _errors.clear()
    return reason


@contextmanager
def captured_log(*, forward: bool = True) -> Iterator[list[str]]:
    """Collect what llama.cpp logs meanwhile but for debugging output, in lines with their ends.

    With ``forward`` it still goes where it went.
    """
    llama = library()
    previous, user_data = _current_callback()
    lines: list[str] = []

    def collect(level: int, text: str) -> None:
        for part in text.splitlines(keepends=True):
            if lines and not lines[-1].endswith("\n"):
                lines[-1] += part
            else:
                lines.append(part)

    callback = _listener(collect, forward=forward)
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


def _listener(listen: Callable[[int, str], None], *, forward: bool = True) -> Any:
    """A callback that gives ``listen`` the level and text of each message, and passes it on to where it went."""
    previous, user_data = _current_callback()
    level = 0

    def hear(given: int, text: bytes, data: object) -> None:
        nonlocal level
        level = level if given == _CONTINUED else given
        if forward and previous:
            previous(given, text, user_data)
        if level != _DEBUG:
            listen(level, text.decode("utf-8", errors="replace"))

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
