"""Loads llama.cpp through llama-cpp-python, and says which build it is.

Only the low-level functions are used: the high-level ``Llama`` class decodes one sequence at a time.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import sys
from pathlib import Path
from typing import Any

from gguf_eval.errors import EngineError, UsageError


@functools.cache
def library() -> Any:
    """Import llama_cpp, initialise its backends, and send its log to the process's standard error.

    llama-cpp-python installs a Python callback that drops most of the log; the log is evidence here (buffer sizes,
    reasons of a failure), so llama.cpp's own writer to standard error is put back.
    """
    try:
        import llama_cpp.llama_cpp as llama
    except ImportError as error:
        raise EngineError(f"llama-cpp-python is needed and is not installed ({error}); pip install it") from None
    except (OSError, RuntimeError) as error:
        raise EngineError(
            f"llama.cpp's library does not load on this machine ({error}); "
            "reinstall llama-cpp-python for it: see the README's section on wheels"
        ) from None
    llama.llama_log_set(llama.llama_log_callback(), ctypes.c_void_p(0))
    llama.llama_backend_init()
    return llama


def keep_log(path: Path | None) -> None:
    """Append llama.cpp's log to a file from now on; without one, only its errors are shown, on standard error.

    For processes that are not ours alone. Raises `UsageError` when the file can't be written.
    """
    llama = library()
    try:
        file = path.open("ab", buffering=0) if path else None
    except OSError as error:
        raise UsageError(f"{path}: a writable file is needed for llama.cpp's log ({error.strerror})") from None

    def write(level: int, text: bytes, user_data: Any) -> None:
        if file:
            file.write(text)
        elif level == _LOG_ERROR:
            sys.stderr.write(text.decode(errors="replace"))

    callback = llama.llama_log_callback(write)
    _log_callbacks.append(callback)
    llama.llama_log_set(callback, ctypes.c_void_p(0))
    # No Python may be called once the interpreter is gone.
    atexit.register(llama.llama_log_set, llama.llama_log_callback(), ctypes.c_void_p(0))


_LOG_ERROR = 4
"""ggml's number of the level (GGML_LOG_LEVEL_ERROR)."""
_log_callbacks: list[Any] = []
"""llama.cpp keeps only the address."""


def build_info() -> dict[str, Any]:
    """Version and abilities of the loaded llama.cpp build, as stored with every result."""
    import llama_cpp

    llama = library()
    return {
        "llama_cpp_python": llama_cpp.__version__,
        "llama_cpp": llama.llama_version().decode(),
        "system_info": llama.llama_print_system_info().decode().strip(),
        "gpu_offload": bool(llama.llama_supports_gpu_offload()),
        "rpc": bool(llama.llama_supports_rpc()),
    }
