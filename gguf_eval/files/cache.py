"""Where made files are kept, and content hashes that are remembered between runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from pathlib import Path

from gguf_eval.atomic import written_whole
from gguf_eval.errors import ModelFileError, UsageError

CACHE_VARIABLE = "GGUF_EVAL_CACHE"
_BLOCK_BYTES = 1 << 20
_SETTLED_SECONDS = 2.0
"""A file changed more recently than this can change again under the same time stamp (FAT counts in 2 s)."""
PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
"""A part of a split model, by llama.cpp's naming."""


def cache_dir(override: Path | None = None) -> Path:
    """Return the folder for made files: ``override``, else ``GGUF_EVAL_CACHE``, else the user's cache folder.

    The folder is made when it is missing. Raises `UsageError` when that is not possible.
    """
    if override is not None:
        folder = override
    elif os.environ.get(CACHE_VARIABLE):
        folder = Path(os.environ[CACHE_VARIABLE])
    else:
        import platformdirs

        folder = platformdirs.user_cache_path("gguf-eval")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder}: a writable cache folder is needed ({error.strerror}); set {CACHE_VARIABLE} to another one"
        ) from None
    return folder


def model_parts(path: Path) -> tuple[Path, ...]:
    """Return all files of the model that ``path`` belongs to, in order; a whole model is its own only part.

    Split models follow llama.cpp's naming, ``name-00001-of-00003.gguf``. Raises `ModelFileError` when one is missing.
    """
    match = PART.match(path.name)
    if match is None:
        return (path,)
    count = int(match["count"])
    parts = tuple(path.with_name(f"{match['stem']}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1))
    for part in parts:
        if not part.is_file():
            raise ModelFileError(f"{part}: no such file; all {count} parts of the split model must be in one folder")
    return parts or (path,)


def model_bytes(path: Path) -> int:
    """Return the size of the model that ``path`` belongs to, all parts together."""
    return sum(part.stat().st_size for part in model_parts(path))


def file_sha256(path: Path, *, cache: Path | None = None) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal, read as a stream.

    The result is kept in the cache folder under the file's resolved path and used again while size, modification time,
    change time and inode are the same. Raises `ModelFileError` when the file can't be read or changes meanwhile.
    """
    try:
        resolved = path.resolve(strict=True)
        before = _identity(resolved)
        record = cache_dir(cache) / "hashes" / f"{_text_sha256(str(resolved))[:32]}.json"
        known = _remembered(record, str(resolved), before)
        if known is not None:
            return known
        digest = hashlib.sha256()
        with resolved.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        after = _identity(resolved)
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such file") from None
    except OSError as error:
        raise ModelFileError(f"{path}: can't be read ({error.strerror}); check its permissions") from None
    if after != before:
        raise ModelFileError(f"{path}: the file changed while it was read; wait until it is complete, then try again")
    sha256 = digest.hexdigest()
    if time.time() - max(after[1], after[2]) / 1e9 > _SETTLED_SECONDS:
        _remember(record, {"path": str(resolved), "identity": list(after), "sha256": sha256})
    return sha256


def model_sha256(path: Path, *, cache: Path | None = None) -> str:
    """Return the content hash of a model file.

    For a whole model it is the file's SHA-256; for a split one the SHA-256 of its parts' hashes, one a line, in order.
    """
    parts = model_parts(path)
    if len(parts) == 1:
        return file_sha256(parts[0], cache=cache)
    return _text_sha256("".join(file_sha256(part, cache=cache) + "\n" for part in parts))


def identity(path: Path) -> tuple[int, ...]:
    """Return what changes when any part of a model file is written: size, times and inode of each part, in order."""
    return tuple(number for part in model_parts(path) for number in _identity(part))


def _identity(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _remembered(record: Path, resolved: str, identity: tuple[int, int, int, int]) -> str | None:
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["path"] == resolved and known["identity"] == list(identity):
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _remember(record: Path, content: dict[str, object]) -> None:
    # A hash that can't be kept only costs time: a full or read-only cache, or a reader that holds the file on Windows.
    with contextlib.suppress(OSError, UsageError), written_whole(record) as unfinished:
        unfinished.write_text(json.dumps(content), encoding="utf-8")


def _text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()
