"""The file that keeps what is needed of a reference's distributions over the right answers of one task.

SQLite, one row an item: it is added to as items are answered, loses nothing when the process is killed, and is read by
item. It lies in the cache folder and can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_eval.errors import ModelFileError
from gguf_eval.files.provenance import library_version
from gguf_eval.runtime.divergence import reference_dtype

TOP, DRAWS = 128, 32
"""Fewer than for a text: 1 KB a token, with an error of 7 % of the mean on a single token."""
_BUSY_SECONDS = 60.0
_TABLE = "CREATE TABLE IF NOT EXISTS answer (item TEXT PRIMARY KEY, tokens_sha256 BLOB NOT NULL, rows BLOB NOT NULL)"


@dataclass(frozen=True)
class AnswerKey:
    """What a file is of."""

    model_sha256: str
    settings: dict[str, Any]
    """What else changes the reference's answers, as in a point's settings."""
    task_hash: str
    top: int = TOP
    draws: int = DRAWS
    library: str = field(default_factory=library_version)
    """The build of llama.cpp that answered: under another nothing is kept yet, and the reference is asked again."""

    def dtype(self, vocabulary: int) -> np.dtype[np.void]:
        """Of one stored token."""
        return reference_dtype(vocabulary, self.top, self.draws)


def answer_path(folder: Path, key: AnswerKey) -> Path:
    """Where the file lies: named by everything in its key."""
    digest = hashlib.sha256(json.dumps(asdict(key), sort_keys=True).encode()).hexdigest()
    return folder / f"{key.model_sha256[:16]}-{digest[:16]}.answers"


def held_items(path: Path) -> set[str]:
    """Hashes of the items that the file holds; none where it is missing or damaged."""
    if not path.is_file():
        return set()
    try:
        with closing(sqlite3.connect(path.absolute(), timeout=_BUSY_SECONDS)) as connection:
            return {row[0] for row in connection.execute("SELECT item FROM answer")}
    except sqlite3.DatabaseError:
        return set()


class AnswerFile:
    """An open file. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open or make ``path``; what is no such file is replaced, for it is only a cache."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._one_line():
            try:
                self._connection = _open(path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
                    path.with_name(name).unlink(missing_ok=True)
                self._connection = _open(path)

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def add(self, item: str, tokens_sha256: bytes, rows: npt.NDArray[np.void]) -> None:
        """Keep the condensed rows of an item's answer; what was kept of it before is replaced."""
        with self._one_line():
            self._connection.execute(
                "INSERT OR REPLACE INTO answer VALUES (?, ?, ?)", (item, tokens_sha256, rows.tobytes())
            )

    def tokens_sha256(self, item: str) -> bytes | None:
        """What the item was asked in (`tokens_digest`); None where nothing is kept of it."""
        with self._one_line():
            row = self._connection.execute("SELECT tokens_sha256 FROM answer WHERE item = ?", (item,)).fetchone()
        return row[0] if row else None

    def rows(self, item: str, dtype: np.dtype[np.void], count: int) -> npt.NDArray[np.void]:
        """What is kept of an item that is there."""
        with self._one_line():
            data = self._connection.execute("SELECT rows FROM answer WHERE item = ?", (item,)).fetchone()[0]
        if len(data) != count * dtype.itemsize:
            raise ModelFileError(f"{self.path}: what is kept of a reference is damaged; delete the file and run again")
        return np.frombuffer(data, dtype)

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise ModelFileError(
                f"{self.path}: a usable cache file is needed ({error}); make room or delete it, and run again"
            ) from None


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path.absolute(), isolation_level=None, timeout=_BUSY_SECONDS)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(_TABLE)
    except BaseException:
        connection.close()
        raise
    return connection


def tokens_digest(vocabulary: int, inputs: npt.NDArray[np.int32], targets: npt.NDArray[np.int32]) -> bytes:
    """Of everything a model sees and predicts: distributions are comparable where it is equal."""
    digest = hashlib.sha256(f"{vocabulary} {len(inputs)} {len(targets)} ".encode())
    digest.update(np.ascontiguousarray(inputs, "<i4").tobytes())
    digest.update(np.ascontiguousarray(targets, "<i4").tobytes())
    return digest.digest()
