"""Quantization levels by llama.cpp's names.

A level is what llama.cpp calls a *file type*: a plan that gives every tensor a storage type. The list is
``quant_recipes/levels.toml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from gguf_eval.errors import UsageError, nearest
from gguf_eval.files.ggml_types import file_type_number
from gguf_eval.files.shipped import LEVELS_FILE, read_toml, recipes_folder

ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
"""Short names that llama-quantize takes too."""


@lru_cache(maxsize=1)
def levels() -> Mapping[str, str]:
    """Return what to know of each level, by canonical name, from the fewest bits per weight to the most."""
    return read_toml(recipes_folder() / LEVELS_FILE)


def canonical_level(name: str) -> str:
    """Return llama.cpp's spelling of a level: ``q4_k_m`` and ``Q4_K`` are ``Q4_K_M``.

    Raises `UsageError` that names the nearest level when there is no such one.
    """
    level = spelled(name)
    if level not in levels():
        hint = nearest(level, levels()) or f"; one of {', '.join(levels())} is needed"
        raise UsageError(f"no quantization level is called '{name}'{hint}")
    return level


def spelled(name: str) -> str:
    """Return a name as llama.cpp would spell it if it were a level's."""
    wanted = name.strip().upper().replace("-", "_")
    return ALIASES.get(wanted, wanted)


def level_ftype(name: str) -> int:
    """Return the number of a level in llama.cpp's ``llama_ftype`` (the value of ``general.file_type``)."""
    level = canonical_level(name)
    prefix = "ALL_" if level == "F32" else "MOSTLY_"
    return file_type_number(prefix + level)


def rough_bits(name: str) -> float:
    """About how many bits per weight a level has, its scales counted; `gguf_eval.files.plan` says it exactly."""
    level = canonical_level(name)
    if level.endswith(("F32", "F16")):
        return 32.0 if level == "F32" else 16.0
    digits = [int(character) for character in level if character.isdigit()]
    return digits[0] + 0.75
