"""Reads the header of a GGUF on the hub by range requests, without downloading the weights."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gguf_eval.errors import ModelFileError
from gguf_eval.files.header import Header, Truncated, parse_header
from gguf_eval.files.hub import RemoteFile, Wanted, endpoint, explain
from gguf_eval.files.plan import read_headers
from gguf_eval.files.references import HubModel, resolve

_FIRST_BYTES = 1 << 20
_MOST_BYTES = 1 << 28
"""No header is this long: long before, something else is wrong."""
_CHUNK_BYTES = 1 << 16
_PATIENCE_SECONDS = 20.0
"""Of silence, and before what has come is held against the slowest line."""
_SLOWEST_BYTES_PER_SECOND = 4096


def inspect_headers(reference: str) -> tuple[tuple[Header, ...], int]:
    """Return the headers of all parts, and the size in bytes, of a GGUF here or on the hub.

    Raises `ModelFileError`, also for a checkpoint.
    """
    found = resolve(reference)
    if found is None:
        raise ModelFileError(
            f"{reference}: a GGUF is needed, this is a checkpoint; 'convert --plan' shows what it holds"
        )
    if isinstance(found, HubModel):
        path = found.here()
        if path is None:
            return remote_headers(found), sum(file.size_bytes for file in found.files)
    else:
        path = found
    headers = read_headers(path)
    return headers, sum(h.data_offset + sum(t.size_bytes for t in h.tensors) for h in headers)


def remote_headers(model: HubModel) -> tuple[Header, ...]:
    """Return the headers of all parts of a GGUF on the hub. Raises `ModelFileError`."""
    return tuple(_remote_header(file) for file in model.files)


def _remote_header(file: RemoteFile) -> Header:
    label = f"{file.repo}/{file.path}"
    try:
        data, size = _read(file, 0, _FIRST_BYTES)
        while True:
            try:
                return parse_header(data)
            except Truncated:
                if len(data) >= min(size, _MOST_BYTES):
                    raise ModelFileError(f"{label}: the header does not end within {len(data):,} bytes") from None
            data += _read(file, len(data), 2 * len(data))[0]
    except ValueError as error:
        raise ModelFileError(f"{label}: not a usable GGUF: {error}") from None


def read_tail(file: RemoteFile, size: int) -> bytes:
    """Return the last ``size`` bytes of a file on the hub, or all of a shorter one. Raises `ModelFileError`."""
    start = max(0, file.size_bytes - size)
    return _read(file, start, file.size_bytes)[0]


def _read(file: RemoteFile, start: int, end: int) -> tuple[bytes, int]:
    """Return bytes ``start`` to ``end`` of a file on the hub, fewer where it ends before, and the file's size.

    Never more is kept than was asked for, whatever the server sends, and one that keeps silent or drips is given up.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    url = hf_hub_url(file.repo, file.path, endpoint=endpoint(), repo_type=file.kind, revision=file.revision)
    headers = {**build_hf_headers(), "Range": f"bytes={start}-{end - 1}"}
    data, began = bytearray(), time.monotonic()
    try:
        with _answer(url, headers) as (response, chunks):
            if response.status_code >= 400:
                next(chunks, b"")  # what is raised quotes the answer
            hf_raise_for_status(response)
            if start and response.status_code != 206:
                raise OSError("the server sends whole files where a part is asked for")
            size = response.headers.get("Content-Range", "").rpartition("/")[2]
            for chunk in chunks:
                data += chunk
                if len(data) >= end - start:
                    break
                if time.monotonic() - began > _PATIENCE_SECONDS + len(data) / _SLOWEST_BYTES_PER_SECOND:
                    raise TimeoutError(f"{len(data):,} bytes came in {time.monotonic() - began:.0f} s")
            if not data and end > start:
                raise OSError("an empty answer")
    except Exception as error:
        wanted = Wanted(file.repo, file.kind, file.revision, ModelFileError)
        raise ModelFileError(f"{file.repo}/{file.path}: {explain(wanted, error)}") from error
    return bytes(data[: end - start]), int(size) if size.isdigit() else file.size_bytes


@contextmanager
def _answer(url: str, headers: dict[str, str]) -> Iterator[tuple[Any, Iterator[bytes]]]:
    """The answer to a request and its content as it comes, by the HTTP client that huggingface_hub has."""
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    session: Any = get_session()
    if callable(getattr(session, "stream", None)):  # httpx, from huggingface_hub 1.0 on
        with session.stream("GET", url, headers=headers, timeout=_PATIENCE_SECONDS) as response:
            yield response, response.iter_bytes(_CHUNK_BYTES)
    else:
        with session.get(url, headers=headers, timeout=_PATIENCE_SECONDS, stream=True) as response:
            yield response, response.iter_content(_CHUNK_BYTES)
