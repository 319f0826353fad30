"""Keeps the answers of two models apart in the harness's response cache, whose keys name no model."""

from __future__ import annotations

import hashlib
from collections.abc import MutableMapping
from typing import Any

from gguf_eval.errors import UsageError
from gguf_eval.lm_eval.arguments import ModelArguments
from gguf_eval.store.rows import canonical_json

OWNER = "gguf-eval: model and settings"
"""The entry that names whose answers a cache holds; all others are hexadecimal hashes of requests."""


def answer_identity(model_sha256: str, arguments: ModelArguments) -> str:
    """Changes with the content of the model file and with every setting that can change an answer."""
    content = canonical_json({"model": model_sha256, **arguments.answer_settings})
    return hashlib.sha256(content.encode()).hexdigest()


def claim(cache: MutableMapping[str, Any] | None, identity: str) -> None:
    """Mark a cache as this model's; raises `UsageError` where it holds another's answers."""
    if cache is None:
        return
    owner = cache.get(OWNER)
    if owner is None and not len(cache):
        cache[OWNER] = identity
    elif owner != identity:
        raise UsageError(
            "the cache named by --use_cache holds answers of another model file, model or setting "
            f"({str(owner)[:12] if owner else 'unknown'}, this is {identity[:12]}); name another file"
        )
