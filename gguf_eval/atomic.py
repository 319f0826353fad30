"""Files that are whole or absent: written under a temporary name in their folder, and renamed when they are done."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gguf_eval.errors import UsageError

_UNFINISHED = ".part"


@contextlib.contextmanager
def written_whole(output: Path) -> Iterator[Path]:
    """Give a temporary name for the file ``output``, which it gets in the end, unless there was an exception.

    The folder is made when it is missing. What is there and no regular file (a device, a pipe) is written to and never
    replaced. Raises `UsageError` when it can't be written to.
    """
    if output.exists() and not output.is_file():
        with _written_to(output) as unfinished:
            yield unfinished
        return
    unfinished = unfinished_path(output)
    try:
        yield unfinished
        finish(unfinished, output)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def _written_to(output: Path) -> Iterator[Path]:
    if output.is_dir():
        raise UsageError(f"{output}: the name of a file is needed, this is a folder")
    with tempfile.TemporaryDirectory() as folder:
        unfinished = Path(folder) / output.name
        unfinished.touch()
        yield unfinished
        with unfinished.open("rb") as source, output.open("wb") as target:
            shutil.copyfileobj(source, target)


def unfinished_path(output: Path) -> Path:
    """Return a free temporary name in the folder of ``output``, which is made when it is missing.

    The empty file exists on return, which proves that the folder is writable. Raises `UsageError` when it is not.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{output.name}.{os.getpid()}-", suffix=_UNFINISHED, dir=output.parent)
    except OSError as error:
        raise UsageError(
            f"{output.parent}: a writable folder is needed ({error.strerror}); choose another with -o"
        ) from None
    os.close(handle)
    return Path(name)


def finish(unfinished: Path, output: Path) -> None:
    """Force a finished file to the disk and give it its name in one step."""
    with unfinished.open("rb+") as file:
        os.fsync(file.fileno())
    if os.name == "posix":
        mask = os.umask(0)
        os.umask(mask)
        unfinished.chmod(0o666 & ~mask)
    unfinished.replace(output)
    if os.name == "posix":
        folder = os.open(output.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_unfinished(folder: Path, pid: int) -> None:
    """Remove what a process that is gone had begun to write in a folder."""
    for path in folder.glob(f".*.{pid}-*{_UNFINISHED}"):
        path.unlink(missing_ok=True)
