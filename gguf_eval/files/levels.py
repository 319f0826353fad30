"""Quantization levels by llama.cpp's names, smallest first.

A level is what llama.cpp calls a *file type*: a plan that gives every tensor a storage type. The list holds those that
llama.cpp can make and the ``gguf`` package can read back. Left out: types whose support was removed (Q4_2, Q4_3,
Q4_0_4_4, Q4_0_4_8, Q4_0_8_8), Q4_1_SOME_F16, NVFP4 (loaded but never made by llama.cpp), and Q2_0 (made by newer
llama.cpp, not yet known to ``gguf``).
"""

from __future__ import annotations

from gguf_eval.errors import UsageError, nearest
from gguf_eval.files.ggml_types import file_type_number

LEVELS: tuple[str, ...] = (
    "Q1_0",
    "IQ1_S",
    "TQ1_0",
    "IQ1_M",
    "IQ2_XXS",
    "TQ2_0",
    "IQ2_XS",
    "IQ2_S",
    "IQ2_M",
    "Q2_K_S",
    "Q2_K",
    "IQ3_XXS",
    "IQ3_XS",
    "IQ3_S",
    "Q3_K_S",
    "IQ3_M",
    "Q3_K_M",
    "Q3_K_L",
    "IQ4_XS",
    "MXFP4_MOE",
    "Q4_0",
    "IQ4_NL",
    "Q4_K_S",
    "Q4_K_M",
    "Q4_1",
    "Q5_0",
    "Q5_K_S",
    "Q5_K_M",
    "Q5_1",
    "Q6_K",
    "Q8_0",
    "F16",
    "BF16",
    "F32",
)
"""Canonical names, from the fewest bits per weight to the most (on a model whose rows are multiples of 256)."""

ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
"""Short names that llama-quantize takes too."""


def canonical_level(name: str) -> str:
    """Return llama.cpp's spelling of a level: ``q4_k_m`` and ``Q4_K`` are ``Q4_K_M``.

    Raises `UsageError` that names the nearest level when there is no such one.
    """
    level = spelled(name)
    if level not in LEVELS:
        hint = nearest(level, LEVELS) or f"; one of {', '.join(LEVELS)} is needed"
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
