"""Reads the header of a GGUF on the hub by range requests, without downloading the weights."""

from __future__ import annotations

from pathlib import Path

from gguf_eval.errors import ModelFileError
from gguf_eval.files.header import Header, Truncated, parse_header, read_header
from gguf_eval.files.hub import RemoteFile, endpoint
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


def _remote_header(reference: str) -> tuple[Header, int]:
    owner, name, *inside = reference.split("/")
    repo, file = f"{owner}/{name}", "/".join(inside)
    try:
        data, size = _read_range(repo, file, 0, _FIRST_BYTES)
        while True:
            try:
                return parse_header(data), size
            except Truncated:
                if len(data) >= min(size, _MOST_BYTES):
                    raise ModelFileError(f"{reference}: the header does not end within {len(data):,} bytes") from None
            data += _read_range(repo, file, len(data), 2 * len(data))[0]
    except ValueError as error:
        raise ModelFileError(f"{reference}: not a usable GGUF: {error}") from None


def read_tail(file: RemoteFile, size: int) -> bytes:
    """Return the last ``size`` bytes of a file on the hub, or all of a shorter one. Raises `ModelFileError`."""
    start = max(0, file.size_bytes - size)
    return _read_range(file.repo, file.path, start, file.size_bytes, kind=file.kind, revision=file.revision)[0]


def _read_range(
    repo: str, file: str, start: int, end: int, *, kind: str = "model", revision: str | None = None
) -> tuple[bytes, int]:
    """Return bytes ``start`` to ``end`` of a file on the hub, and the file's size."""
    from huggingface_hub import errors, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

    url = hf_hub_url(repo, file, endpoint=endpoint(), repo_type=kind, revision=revision)
    label = f"{repo}/{file}"
    try:
        response = get_session().get(url, headers={**build_hf_headers(), "Range": f"bytes={start}-{end - 1}"})
        hf_raise_for_status(response)
    except errors.GatedRepoError:
        raise ModelFileError(f"{label}: its licence must be accepted on its page first, and HF_TOKEN set") from None
    except errors.EntryNotFoundError:
        raise ModelFileError(f"{label}: {repo} has no such file; see its file list at {endpoint()}/{repo}") from None
    except errors.RepositoryNotFoundError:
        raise ModelFileError(
            f"{label}: no such local file, and no repository {repo} at {endpoint()}, or a private one; "
            "check the spelling, or set HF_TOKEN"
        ) from None
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise ModelFileError(
            f"{label}: {endpoint()} can't be read ({reason}); check the network and HF_TOKEN"
        ) from None
    size = response.headers.get("Content-Range", "").rpartition("/")[2]
    return response.content[: end - start], int(size) if size.isdigit() else len(response.content)
