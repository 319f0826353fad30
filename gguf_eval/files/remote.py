"""Reads the header of a GGUF on the hub by range requests, without downloading the weights."""

from __future__ import annotations

from pathlib import Path

from gguf_eval.errors import ModelFileError
from gguf_eval.files.header import Header, Truncated, parse_header, read_header
from gguf_eval.files.hub import endpoint
from gguf_eval.files.plan import read_headers

_FIRST_BYTES = 1 << 20
_MOST_BYTES = 1 << 28
"""No header is this long: long before, something else is wrong."""


def inspect_headers(reference: str) -> tuple[tuple[Header, ...], int]:
    """Return headers of all parts and the size in bytes of a local GGUF or of ``owner/name/path.gguf`` on the hub."""
    path = Path(reference)
    if path.exists() or not is_hub_file(reference):
        headers = read_headers(path) if path.exists() else (read_header(path),)
        return headers, sum(h.data_offset + sum(t.size_bytes for t in h.tensors) for h in headers)
    header, size = _remote_header(reference.removeprefix("hf://"))
    return (header,), size


def is_hub_file(reference: str) -> bool:
    """Return whether a reference has the form ``owner/name/path.gguf``, with or without ``hf://`` before it."""
    if reference.startswith("hf://"):
        return True
    parts = reference.split("/")
    return len(parts) >= 3 and all(parts) and parts[0] not in (".", "..") and reference.lower().endswith(".gguf")


def _remote_header(path: str) -> tuple[Header, int]:
    from huggingface_hub import HfFileSystem

    system = HfFileSystem(endpoint=endpoint())
    try:
        size = int(system.info(path)["size"])
        data, wanted = b"", _FIRST_BYTES
        while True:
            data += system.cat_file(path, start=len(data), end=min(wanted, size))
            try:
                return parse_header(data), size
            except Truncated:
                if len(data) >= min(size, _MOST_BYTES):
                    raise ModelFileError(f"{path}: the header does not end within {len(data):,} bytes") from None
                wanted *= 2
    except FileNotFoundError:
        raise ModelFileError(
            f"{path}: no such local file, and none on {endpoint()}; give owner/name/file.gguf"
        ) from None
    except ValueError as error:
        raise ModelFileError(f"{path}: not a usable GGUF: {error}") from None
    except OSError as error:
        raise ModelFileError(f"{path}: {endpoint()} can't be read ({error}); check the network and HF_TOKEN") from None
