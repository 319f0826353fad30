"""The texts that perplexity is measured on: a file, or wikitext-2 from the hub."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from gguf_eval.atomic import written_whole
from gguf_eval.errors import UsageError
from gguf_eval.tasks.datasets import Fetch

WIKITEXT2 = "wikitext2"
WIKITEXT2_SPLIT = ("Salesforce/wikitext", "wikitext-2-raw-v1", "test")
"""Its repo, config and split on the hub."""
WIKITEXT2_BYTES = 1_290_590
"""Of the whole text."""


@dataclass(frozen=True)
class TextFile:
    """A text on disk."""

    name: str
    path: Path
    sha256: str


def find_text(name: str, *, fetch: Fetch, folder: Path) -> TextFile:
    """The text a user names: a file, or ``wikitext2``, whose file is put together in ``folder`` from the hub's rows.

    Raises `UsageError` where the file can't be read as UTF-8.
    """
    if name.lower() == WIKITEXT2 and not Path(name).exists():
        path = _wikitext2(fetch, folder)
        return TextFile("wikitext-2 raw test", path, hashlib.sha256(path.read_bytes()).hexdigest())
    path = Path(name)
    try:
        data = path.read_bytes()
        data.decode("utf-8")
    except FileNotFoundError:
        raise UsageError(f"{name}: no such text file; give one, or '{WIKITEXT2}'") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name}: a text file in UTF-8 is needed ({error})") from None
    return TextFile(path.name, path, hashlib.sha256(data).hexdigest())


def _wikitext2(fetch: Fetch, folder: Path) -> Path:
    """The test split as llama.cpp's users have it: the hub holds '' where the file has a line of one space."""
    from pyarrow import parquet

    rows: list[str] = []
    for path in fetch(*WIKITEXT2_SPLIT):
        rows += parquet.read_table(path, columns=["text"]).column("text").to_pylist()
    data = "".join(row or " \n" for row in rows).encode()
    target = folder / f"wikitext-2-raw-test-{hashlib.sha256(data).hexdigest()[:16]}.txt"
    if not target.exists():
        with written_whole(target) as unfinished:
            unfinished.write_bytes(data)
    return target
