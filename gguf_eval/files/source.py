"""Resolves what the user calls a model: a GGUF on this machine, or a checkpoint that is converted into the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from gguf_eval.errors import ModelFileError

if TYPE_CHECKING:
    from gguf_eval.files.convert.plan import ConversionPlan
    from gguf_eval.files.convert.write import Progress

    Show = Callable[[str], AbstractContextManager[Progress | None]]
    """Begins to show the progress of a conversion with a title."""


def model_source(reference: str, *, cache: Path, show: Show) -> tuple[Path, tuple[str, ...]]:
    """Return the model file that ``reference`` stands for, and warnings of a conversion made now.

    A path is returned as it is. A checkpoint folder, or ``owner/name`` on the hub where no such path exists, is
    converted in its own 16-bit type, once: the same checkpoint is found in the cache again. Raises `ModelFileError`
    or `UsageError`.
    """
    path = Path(reference)
    if path.is_file() or path.suffix == ".gguf":
        return path, ()
    if not path.is_dir() and reference.count("/") != 1:
        raise ModelFileError(f"{path}: no such file; give a GGUF file, a checkpoint folder or owner/name on the hub")
    from gguf_eval.files.convert.plan import plan_conversion
    from gguf_eval.files.convert.write import output_path, write

    plan = plan_conversion(reference)
    output = output_path(plan, None)
    place = cache / "converted" / _key(plan)
    if (place / output).is_file():
        return place / output, ()
    place.mkdir(parents=True, exist_ok=True)
    with show(f"converting {reference}") as progress:
        made = write(plan, place / output, progress=progress)
    return made.path, made.warnings


def _key(plan: ConversionPlan) -> str:
    """Changes with the metadata and the tensor table, and with size and time of any file of weights."""
    digest = hashlib.sha256(plan.header)
    for file in sorted({source.file.resolve() for tensor in plan.tensors for source in tensor.sources}):
        status = file.stat()
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]
