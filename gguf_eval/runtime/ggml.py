"""ggml's own functions that llama-cpp-python does not bind, called through ctypes from the libraries it ships."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

from gguf_eval.errors import EngineError
from gguf_eval.runtime.bindings import library


@functools.cache
def shared_library(name: str) -> Any:
    """Open one of ggml's libraries (``ggml``, ``ggml-base``, ``ggml-rpc``); raises `EngineError` where it is absent."""
    library()  # has loaded what they depend on
    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    names = (f"lib{name}.so", f"lib{name}.dylib", f"{name}.dll", f"lib{name}.dll")
    for candidate in names:
        if (folder / candidate).exists():
            return ctypes.CDLL(str(folder / candidate))
    raise EngineError(f"{folder}: this build of llama.cpp has no {name} (none of {', '.join(names)} is there)")


@functools.cache
def function(library_name: str, name: str, result: Any, *arguments: Any) -> Any:
    """One C function with its types set."""
    found = getattr(shared_library(library_name), name)
    found.restype, found.argtypes = result, list(arguments)
    return found
