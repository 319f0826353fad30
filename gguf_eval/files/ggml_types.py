"""ggml's tensor types and llama.cpp's file types, by name and number.

The tables are those of the gguf package. Importing all of that package takes a second, most of it for parts that write
tokenizers, so its module of constants, which stands alone, is loaded by itself.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache, lru_cache
from pathlib import Path
from typing import Any


@lru_cache(maxsize=1)
def _constants() -> Any:
    if "gguf" in sys.modules:
        return sys.modules["gguf"]
    package = importlib.util.find_spec("gguf")
    for folder in (package.submodule_search_locations or ()) if package else ():
        spec = importlib.util.spec_from_file_location("_gguf_constants", Path(folder) / "constants.py")
        if spec and spec.loader and Path(folder, "constants.py").is_file():
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    import gguf

    return gguf


def type_names() -> tuple[str, ...]:
    """Names of all tensor types."""
    return tuple(kind.name for kind in _constants().GGMLQuantizationType)


def type_number(name: str) -> int:
    """The ``ggml_type`` of a tensor type's name; raises `KeyError` for an unknown one."""
    return int(_constants().GGMLQuantizationType[name])


@cache
def type_name(number: int) -> str:
    """The name of a ``ggml_type``; raises `ValueError` for an unknown one."""
    return str(_constants().GGMLQuantizationType(number).name)


@cache
def block_shape(name: str) -> tuple[int, int]:
    """Weights in a block of a tensor type, and bytes of that block."""
    constants = _constants()
    weights, size_bytes = constants.GGML_QUANT_SIZES[constants.GGMLQuantizationType[name]]
    return int(weights), int(size_bytes)


def file_type_number(name: str) -> int:
    """The ``llama_ftype`` of a name such as ``MOSTLY_Q4_K_M``; raises `KeyError` for an unknown one."""
    return int(_constants().LlamaFileType[name])


def file_type_name(number: int) -> str:
    """The name of a ``llama_ftype``; raises `ValueError` for an unknown one."""
    return str(_constants().LlamaFileType(number).name)
