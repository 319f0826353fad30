"""Resolves what the user calls a model: a GGUF on this machine, or a checkpoint that is converted into the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gguf_eval.errors import ModelFileError

if TYPE_CHECKING:
    from gguf_eval.files.convert.plan import ConversionPlan
    from gguf_eval.files.convert.write import Progress
    from gguf_eval.files.hub import RemoteFile

    Show = Callable[[str], AbstractContextManager[Progress | None]]
    """Begins to show the progress of a conversion with a title."""


@dataclass(frozen=True)
class Unconverted:
    """A checkpoint that has not been converted yet."""

    reference: str
    path: Path
    """Where the model file will be; only its name, where weights are to be downloaded first."""
    level: str
    parameters: int
    size_bytes: int
    """Of the model file."""
    downloads: tuple[RemoteFile, ...]


def model_source(reference: str, *, cache: Path, show: Show) -> tuple[Path, tuple[str, ...]]:
    """Return the model file that ``reference`` stands for, and warnings of a conversion made now.

    A path is returned as it is. A checkpoint folder, or ``owner/name`` on the hub where no such path exists, is
    converted in its own 16-bit type, once: the same checkpoint is found in the cache again. Raises `ModelFileError`
    or `UsageError`.
    """
    path = Path(reference)
    if _is_model_file(path, reference):
        return path, ()
    from gguf_eval.files.convert.plan import plan_conversion
    from gguf_eval.files.convert.write import write

    plan = plan_conversion(reference)
    output = _place(plan, cache)
    if output.is_file():
        return output, ()
    output.parent.mkdir(parents=True, exist_ok=True)
    with show(f"converting {reference}") as progress:
        made = write(plan, output, progress=progress)
    return made.path, made.warnings


def locate_source(reference: str, *, cache: Path) -> Path | Unconverted:
    """Return what `model_source` would return at once, or what it would have to convert, and to download before.

    Of a repository on the hub only its small files are fetched. Raises as `model_source` does.
    """
    path = Path(reference)
    if _is_model_file(path, reference):
        return path
    from gguf_eval.files.checkpoint import describe
    from gguf_eval.files.convert.plan import plan_conversion
    from gguf_eval.files.convert.write import output_path
    from gguf_eval.files.hub import weights_to_fetch

    source = describe(reference).source
    missing = weights_to_fetch(source) if source is not None else []
    plan = plan_conversion(reference, headers_only=bool(missing))
    output = Path(output_path(plan, None)) if missing else _place(plan, cache)
    if output.is_file() and not missing:
        return output
    return Unconverted(reference, output, plan.out_type, plan.parameters, plan.size_bytes, tuple(missing))


def _is_model_file(path: Path, reference: str) -> bool:
    """Whether it is no checkpoint. Raises `ModelFileError` where it is neither."""
    if path.is_file() or path.suffix == ".gguf":
        return True
    if not path.is_dir() and reference.count("/") != 1:
        raise ModelFileError(f"{path}: no such file; give a GGUF file, a checkpoint folder or owner/name on the hub")
    return False


def _place(plan: ConversionPlan, cache: Path) -> Path:
    from gguf_eval.files.convert.write import output_path

    return cache / "converted" / _key(plan) / output_path(plan, None)


def _key(plan: ConversionPlan) -> str:
    """Changes with the metadata and the tensor table, and with size and time of any file of weights."""
    digest = hashlib.sha256(plan.header)
    for file in sorted({source.file.resolve() for tensor in plan.tensors for source in tensor.sources}):
        status = file.stat()
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]
