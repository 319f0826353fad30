"""llama.cpp's own reasons for refusing a model or a context, from its log, and what to do about them."""

from __future__ import annotations

import re
from collections.abc import Iterable

_FUNCTION = re.compile(r"^(\w+)(?:\([^)]*\))?: +")
"""Most lines begin with the name of the function that writes them."""
_SAYS_LITTLE = re.compile(r"failed to load model|failed to initialize batch|failed to decode, ret = |^$")
"""Errors that follow one that tells why."""
_UNSAID = "its log names the reason"
_MOST_LINES, _MOST_CHARACTERS = 3, 400


def split_function(line: str) -> tuple[str, str]:
    """The name of the function that wrote a line, empty where it does not say, and the rest."""
    match = _FUNCTION.match(line)
    return (match[1], line[match.end() :].strip()) if match else ("", line.strip())


def without_numbers(line: str) -> str:
    """What lines have in common that say the same of one token, layer or tensor and another."""
    return re.sub(r"\d+", "", line)


def reason_in(errors: Iterable[str]) -> str:
    """The reason that errors of llama.cpp's log give, in one line; empty where they give none."""
    told = (split_function(line)[1].removeprefix("error loading model: ") for line in errors)
    telling = dict.fromkeys(line.lstrip("- ").rstrip(":") for line in told if not _SAYS_LITTLE.search(line))
    return "; ".join(list(telling)[:_MOST_LINES])[:_MOST_CHARACTERS]


def load_failure(reason: str) -> str:
    """The reason why a model could not be loaded, and what to do about it."""
    if "unknown model architecture" in reason:
        return f"{reason}; a newer llama-cpp-python may know it: pip install --upgrade llama-cpp-python"
    if "tensor" in reason or "key not found" in reason:
        return f"{reason}; the file does not suit this llama.cpp: get or convert it again"
    return reason or _UNSAID


def context_failure(reason: str) -> str:
    """The same for a context: only where memory is short, or nothing is said, a smaller one is worth trying."""
    if "requires flash_attn" in reason:
        return f"{reason}; take --flash-attn auto, or F16 with --cache-type-v"
    if "cache type" in reason:
        return f"{reason}; take other types with --cache-type-k and --cache-type-v, or F16"
    if not reason or "alloc" in reason or "memory" in reason:
        return f"{reason or _UNSAID}; try a smaller --ctx or batch"
    return reason


def decode_failure(reason: str) -> str:
    """The same for a decode."""
    return reason or _UNSAID
