"""What is known of one model file, as stored beside every result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gguf_eval.files.cache import model_bytes, model_parts, model_sha256
from gguf_eval.files.header import read_header
from gguf_eval.files.names import model_name

__all__ = ["ModelFile", "describe", "model_name"]


@dataclass(frozen=True)
class ModelFile:
    """A GGUF on this machine."""

    path: Path
    sha256: str
    architecture: str
    parameters: int
    size_bytes: int
    """All parts of a split model together."""
    level: str
    bits_per_weight: float
    context_length: int | None
    """Tokens the model was trained for, where the file says."""


def describe(path: Path, *, cache: Path | None = None) -> ModelFile:
    """Read the header, size and content hash of a model file; raises `ModelFileError`."""
    headers = [read_header(part) for part in model_parts(path)]
    parameters = sum(header.parameters for header in headers)
    tensor_bytes = sum(tensor.size_bytes for header in headers for tensor in header.tensors)
    return ModelFile(
        path=path,
        sha256=model_sha256(path, cache=cache),
        architecture=headers[0].architecture,
        parameters=parameters,
        size_bytes=model_bytes(path),
        level=headers[0].level,
        bits_per_weight=8.0 * tensor_bytes / max(1, parameters),
        context_length=headers[0].context_length,
    )
