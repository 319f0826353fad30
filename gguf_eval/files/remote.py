"""Reads the header of a GGUF on the hub by range requests, without downloading the weights."""

from __future__ import annotations

from gguf_eval.errors import ModelFileError
from gguf_eval.files.header import Header, Truncated, parse_header
from gguf_eval.files.hub import RemoteFile, Wanted, endpoint, explain
from gguf_eval.files.plan import read_headers
from gguf_eval.files.references import HubModel, resolve

_FIRST_BYTES = 1 << 20
_MOST_BYTES = 1 << 28
"""No header is this long: long before, something else is wrong."""


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
    """Return bytes ``start`` to ``end`` of a file on the hub, and the file's size."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

    url = hf_hub_url(file.repo, file.path, endpoint=endpoint(), repo_type=file.kind, revision=file.revision)
    try:
        response = get_session().get(url, headers={**build_hf_headers(), "Range": f"bytes={start}-{end - 1}"})
        hf_raise_for_status(response)
    except Exception as error:
        wanted = Wanted(file.repo, file.kind, file.revision, ModelFileError)
        raise ModelFileError(f"{file.repo}/{file.path}: {explain(wanted, error)}") from error
    size = response.headers.get("Content-Range", "").rpartition("/")[2]
    return response.content[: end - start], int(size) if size.isdigit() else len(response.content)
