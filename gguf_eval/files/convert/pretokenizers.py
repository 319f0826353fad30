"""Recognises a BPE pre-tokenizer by what it does, and gives llama.cpp's name for it.

llama.cpp splits text by built-in rules chosen by ``tokenizer.ggml.pre``; a wrong name gives wrong tokens without a
word. So the name is derived from the steps in tokenizer.json, and one that is not in the table is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gguf_eval.errors import ModelFileError

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_KNOWN: Mapping[tuple[tuple[str, ...], ...], str] = {
    (("Split", _LLAMA3), ("ByteLevel", "bytes")): "llama-bpe",
    (("Split", _TEKKEN), ("ByteLevel", "bytes")): "tekken",
    (("Digits", "individual"), ("ByteLevel", "words")): "smollm",
}


def recognise(tokenizer: Mapping[str, Any]) -> str:
    """Return llama.cpp's name of the pre-tokenizer in ``tokenizer``, the content of tokenizer.json.

    Raises `ModelFileError` for one that is not known.
    """
    steps = tuple(_describe(step) for step in _flatten(tokenizer.get("pre_tokenizer")))
    model = tokenizer.get("model", {})
    unusual = [
        name
        for name, is_unusual in (
            ("a normalizer", bool(_flatten(tokenizer.get("normalizer")))),
            ("a prefix for inner subwords", bool(model.get("continuing_subword_prefix"))),
            ("a suffix for last subwords", bool(model.get("end_of_word_suffix"))),
            ("bytes as a fallback", bool(model.get("byte_fallback"))),
        )
        if is_unusual
    ]
    name = _KNOWN.get(steps)
    if name is None or unusual:
        found = " + ".join("/".join(step) for step in steps) or "no steps"
        found += "".join(f" + {what}" for what in unusual)
        raise ModelFileError(
            f"tokenizer.json: its pre-tokenizer is not one of {', '.join(sorted(_KNOWN.values()))}, found {found}; "
            "a guess would give wrong tokens, so this checkpoint can't be converted"
        )
    return name


def _flatten(entry: Any) -> list[Mapping[str, Any]]:
    """Return the steps of a pre-tokenizer or normalizer, sequences opened."""
    if not isinstance(entry, dict):
        return []
    if entry.get("type") == "Sequence":
        inner = entry.get("pretokenizers") or entry.get("normalizers") or []
        return [step for part in inner for step in _flatten(part)]
    return [entry]


def _describe(step: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a step's type and the settings that change where text is split."""
    kind = str(step.get("type"))
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return kind, "words" if step.get("use_regex", True) else "bytes"
    if kind == "Digits" and step.get("individual_digits"):
        return kind, "individual"
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        pattern = step.get("pattern", {})
        if isinstance(pattern, dict) and isinstance(pattern.get("Regex"), str):
            return kind, pattern["Regex"]
    return kind, "other settings"
