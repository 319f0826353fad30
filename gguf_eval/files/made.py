"""Model files in the cache that were made here: believed only while they hold what was made.

Beside each lies its hash, in the form of sha256sum. A file of before, which has none, is believed where its header says
how it was made and all its tensors are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gguf_eval.atomic import written_whole
from gguf_eval.errors import ModelFileError
from gguf_eval.files.cache import file_sha256
from gguf_eval.files.header import read_header
from gguf_eval.files.provenance import PREFIX


def remember_made(path: Path, cache: Path) -> None:
    """Keep the hash of a file in the cache folder that was made just now."""
    with written_whole(_record(path)) as unfinished:
        unfinished.write_text(f"{file_sha256(path, cache=cache)}  {path.name}\n", encoding="utf-8")


def is_whole(path: Path, made_by: Mapping[str, str], cache: Path) -> bool:
    """Whether the file is there and holds what was made; ``made_by``: what the header of one without a hash says."""
    if not path.is_file():
        return False
    try:
        return file_sha256(path, cache=cache) == _record(path).read_text(encoding="utf-8").split()[0]
    except FileNotFoundError:
        pass
    except (OSError, ValueError, IndexError, ModelFileError):
        return False
    try:
        metadata = read_header(path).metadata  # refuses a file that ends before its tensors
    except ModelFileError:
        return False
    if any(metadata.get(PREFIX + key) != value for key, value in made_by.items()):
        return False
    remember_made(path, cache)
    return True


def throw_away(path: Path) -> tuple[str, ...]:
    """Remove what lies in the place of a file that is to be made, and say so; nothing where nothing does."""
    if not path.exists():
        return ()
    path.unlink()
    return (f"{path}: it is not what was made there; it is thrown away and made anew",)


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
