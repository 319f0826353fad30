"""What tests of quantizing and of importance matrices share."""

from __future__ import annotations

from pathlib import Path

import gguf
from tiny_model import byte_tokens, write_model

__all__ = ["byte_tokens", "tensor_bytes", "write_model"]


def tensor_bytes(path: Path) -> dict[str, tuple[str, bytes]]:
    """Storage type and raw bytes of every tensor, by name."""
    reader = gguf.GGUFReader(path)
    return {tensor.name: (tensor.tensor_type.name, tensor.data.tobytes()) for tensor in reader.tensors}
