"""Reads names of model files: what names the model, and what names the level, its variant and its maker's method.

Only for people and for finding a file of a repository: what level a file has is read from the file itself.
"""

from __future__ import annotations

import re
from pathlib import Path

from gguf_eval.files.levels import ALIASES

_PART = re.compile(r"-\d{5}-of-\d{5}$")
_LEVEL = (
    r"(?:I?Q|TQ)[1-9](?:_[01])?(?:_[48]_[48])?(?:_K(?:SS|S|T|V)?)?(?:_(?:XXS|XS|S|M|L|XL|XXL|NL|P))*(?:_R[48])?"
    r"|(?:B?F|FP)(?:16|32)|MXFP4(?:_MOE)?|NVFP4"
)
"""Levels as llama.cpp and its forks name them, and the mixes that quantizers add: Q4_K_L, UD-Q2_K_XL, Q4_0_4_4."""
_SUFFIX = re.compile(
    rf"[-._ ](?P<all>(?:(?P<before>UD|i1)[-._])?(?P<level>{_LEVEL})(?:[-._](?P<after>imat(?:rix)?|i1))?)$",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(r"[-._ ](?:GGUF|imat(?:rix)?)$", re.IGNORECASE)
_SPELLINGS = {**ALIASES, "FP16": "F16", "FP32": "F32", "MXFP4": "MXFP4_MOE", "Q8": "Q8_0", "Q6": "Q6_K"}


def split_stem(stem: str) -> tuple[str, str]:
    """Return what of a file's name names the model, and what its level: ``("Qwen3-8B", "UD-Q4_K_XL")``.

    Either is the whole or empty where nothing else is there.
    """
    text = _PART.sub("", stem)
    found = _SUFFIX.search(text)
    suffix = found["all"] if found else ""
    name = text[: found.start()] if found else text
    while (shorter := _NO_MODEL.sub("", name)) != name and shorter:
        name = shorter
    return (name, suffix) if name else (text, "")


def model_name(path: Path) -> str:
    """The model's name for people: the file's without its part number, level, and what quantizers add to that."""
    return split_stem(path.stem)[0]


def named_level(suffix: str) -> str:
    """The level in a suffix by llama.cpp's spelling where it has one: ``i1-q4_k_m`` is Q4_K_M, ``fp16`` F16."""
    found = _SUFFIX.search(f"-{suffix}")
    level = found["level"].upper() if found else ""
    return _SPELLINGS.get(level, level)


def variant_name(path: Path, level: str, recipe: str = "") -> str:
    """What a file's name adds to the level that the file says it has; empty where nothing.

    ``UD-Q4_K_XL`` of a file of level Q4_K_M, ``i1`` where the name has the level too; the recipe it was made by, where
    the file names one that is no plain level.
    """
    if recipe and recipe != level:
        return recipe
    suffix = split_stem(path.stem)[1]
    if named_level(suffix) != level:
        return suffix
    found = _SUFFIX.search(f"-{suffix}")
    return (found["before"] or found["after"] or "") if found else ""
