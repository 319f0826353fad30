"""One tensor of a conversion, planned."""

from __future__ import annotations

from dataclasses import dataclass

from gguf_eval.files.safetensors import StoredTensor


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the model file and where its weights come from."""

    name: str
    shape: tuple[int, ...]
    """In PyTorch's order: the contiguous dimension last."""
    type_name: str
    """ggml's name of the storage type."""
    size_bytes: int
    sources: tuple[StoredTensor, ...]
    """Stacked in this order where there are several; empty where `computed` holds the weights."""
    heads: int = 0
    """Over how many heads the rows are permuted; 0 for none."""
    computed: bytes = b""
