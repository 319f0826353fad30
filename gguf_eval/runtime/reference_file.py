"""The file that keeps what is needed of a reference's distributions: a JSON header, then one record a token.

It is written and read as a stream, window by window: memory does not grow with the text.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_eval.atomic import finish, unfinished_path
from gguf_eval.errors import ModelFileError
from gguf_eval.files.provenance import library_version
from gguf_eval.runtime.divergence import DRAWS, TOP, reference_dtype

_MAGIC = b"ggufeval-reference-1\n"


@dataclass(frozen=True)
class ReferenceKey:
    """What a stored reference is of; all of it must agree for a candidate to be compared with it."""

    model_sha256: str
    windows_sha256: str
    """Of the tokens of all windows."""
    vocabulary: int
    windows: int
    scored: int
    settings: dict[str, Any]
    """What else changes the reference's answers: cache types, flash attention."""
    top: int = TOP
    draws: int = DRAWS
    seed: int = 0
    library: str = field(default_factory=library_version)
    """The build of llama.cpp that made it: another computes otherwise, and its reference is made anew."""

    @property
    def rows(self) -> int:
        """Tokens stored."""
        return self.windows * self.scored

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Of one stored token."""
        return reference_dtype(self.vocabulary, self.top, self.draws)


class ReferenceWriter:
    """Writes a stored reference; the file appears under its name when all rows are there. Use as a context manager."""

    def __init__(self, path: Path, key: ReferenceKey) -> None:
        self._path, self._key = path, key
        self._unfinished = unfinished_path(path)
        self._file = self._unfinished.open("wb")
        header = json.dumps(asdict(key), sort_keys=True).encode()
        self._file.write(_MAGIC + len(header).to_bytes(4, "little") + header)
        self._rows = 0

    def __enter__(self) -> ReferenceWriter:
        return self

    def write(self, rows: npt.NDArray[np.void]) -> None:
        """Append condensed tokens."""
        self._file.write(rows.tobytes())
        self._rows += len(rows)

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._file.close()
        if kind is None and self._rows == self._key.rows:
            finish(self._unfinished, self._path)
        else:
            self._unfinished.unlink()


class ReferenceReader:
    """Reads a stored reference in order. Use as a context manager."""

    def __init__(self, path: Path, key: ReferenceKey) -> None:
        """Raises `ModelFileError` where the file is damaged, or of another model, text or setting than ``key``."""
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise ModelFileError(
                f"{path}: the stored reference can't be read ({error.strerror}); make it again"
            ) from None
        try:
            if self._file.read(len(_MAGIC)) != _MAGIC:
                raise ModelFileError(f"{path}: this is no stored reference; delete it and run again")
            size = int.from_bytes(self._file.read(4), "little")
            found = json.loads(self._file.read(size))
            for name, value in asdict(key).items():
                if found.get(name) != value:
                    raise ModelFileError(
                        f"{path}: the stored reference is of another {name.replace('_', ' ')} ({found.get(name)}, "
                        f"needed {value}); the model and its reference must cut the same text into the same tokens"
                    )
            begin = self._file.tell()
            if path.stat().st_size != begin + key.rows * key.dtype.itemsize:
                raise ModelFileError(f"{path}: the stored reference is cut short; delete it and run again")
        except (ValueError, AttributeError):
            self._file.close()
            raise ModelFileError(f"{path}: the stored reference's header is damaged; delete it and run again") from None
        except BaseException:
            self._file.close()
            raise
        self._path, self._dtype = path, key.dtype

    def __enter__(self) -> ReferenceReader:
        return self

    def read(self, count: int) -> npt.NDArray[np.void]:
        """The next ``count`` tokens."""
        data = self._file.read(count * self._dtype.itemsize)
        if len(data) != count * self._dtype.itemsize:
            raise ModelFileError(f"{self._path}: the stored reference ended early; delete it and run again")
        return np.frombuffer(data, self._dtype)

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def reference_path(folder: Path, key: ReferenceKey) -> Path:
    """Where a stored reference lies: named by model, tokens and everything else in its key."""
    digest = hashlib.sha256(json.dumps(asdict(key), sort_keys=True).encode()).hexdigest()
    return folder / f"{key.model_sha256[:16]}-{digest[:16]}.reference"
