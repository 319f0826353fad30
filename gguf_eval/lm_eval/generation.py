"""The harness's ``gen_kwargs`` of a request, as settings of the generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gguf_eval.errors import UsageError, nearest

_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""The harness's names of one thing; the first that is given counts."""
_ONLY_SAMPLING = ("top_p", "top_k", "min_p", "typical_p", "seed")
"""Mean nothing for greedy decoding."""
_SUPPORTED = ("until", *_LIMITS, "do_sample", "temperature", "top_p")
_NO_CHANGE: Mapping[str, tuple[Any, ...]] = {
    "num_beams": (1,), "repetition_penalty": (1, 1.0), "num_return_sequences": (1,), "top_k": (0, -1, None),
    "min_p": (0, 0.0, None), "typical_p": (1, 1.0, None), "use_cache": (True, False),
}  # fmt: skip
"""Values of other arguments that ask for nothing beyond what is done anyway."""


@dataclass(frozen=True)
class GenerationArguments:
    """How one answer is written."""

    max_tokens: int
    stop: tuple[str, ...]
    temperature: float
    """0 is greedy."""
    top_p: float


def parse_generation(given: Mapping[str, Any], default_max_tokens: int) -> GenerationArguments:
    """Read ``gen_kwargs`` as the harness does; raises `UsageError` for what would be ignored and change answers.

    Decoding is greedy unless ``do_sample`` is true, or is not given and the temperature is above 0.
    """
    temperature = float(given.get("temperature") or 0.0)
    sample = given.get("do_sample")
    if sample is None:
        sample = temperature > 0
    elif sample and "temperature" not in given:
        temperature = 1.0  # transformers' own
    for name, value in given.items():
        ignored = (not sample and name in _ONLY_SAMPLING) or value in _NO_CHANGE.get(name, ())
        if name not in _SUPPORTED and not ignored:
            raise UsageError(
                f"generation argument '{name}={value}' is not supported{nearest(name, _SUPPORTED)}; "
                f"supported: {', '.join(_SUPPORTED)}"
            )
    limits = (given[name] for name in _LIMITS if given.get(name) is not None)
    return GenerationArguments(
        max_tokens=int(next(limits, default_max_tokens)),
        stop=_stop_strings(given.get("until")),
        temperature=temperature if sample else 0.0,
        top_p=float(given.get("top_p") or 1.0),
    )


def _stop_strings(until: Any) -> tuple[str, ...]:
    if until is None:
        return ()
    strings = [until] if isinstance(until, str) else until
    if not isinstance(strings, list | tuple) or not all(isinstance(text, str) for text in strings):
        raise UsageError(f"generation argument 'until' must be a string or a list of strings; found {until!r}")
    return tuple(text for text in strings if text)
