"""Loads llama.cpp through llama-cpp-python, and ggml from the libraries it ships, and says which build it is.

Only the low-level functions are used: the high-level ``Llama`` class decodes one sequence at a time.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gguf_eval.errors import EngineError


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


@functools.cache
def function(library_name: str, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """One C function, with its types, of ``ggml``, ``ggml-base`` or ``ggml-rpc``, which llama-cpp-python does not bind.

    Raises `EngineError` where the build has no such library.
    """
    found: Any = getattr(_ggml(library_name), name)
    found.restype, found.argtypes = result, list(arguments)
    return found  # type: ignore[no-any-return]


@functools.cache
def _ggml(name: str) -> Any:
    library()  # has loaded what they depend on
    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    names = (f"lib{name}.so", f"lib{name}.dylib", f"{name}.dll", f"lib{name}.dll")
    for candidate in names:
        if (folder / candidate).exists():
            return ctypes.CDLL(str(folder / candidate))
    raise EngineError(f"{folder}: this build of llama.cpp has no {name} (none of {', '.join(names)} is there)")


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
