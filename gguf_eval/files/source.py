"""Brings what the user calls a model onto this machine: a GGUF as it is, a checkpoint converted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gguf_eval.files.made import is_whole, remember_made, throw_away
from gguf_eval.files.references import HubModel, fetch, resolve

if TYPE_CHECKING:
    from gguf_eval.files.convert.plan import ConversionPlan
    from gguf_eval.files.convert.write import Progress
    from gguf_eval.files.header import Header
    from gguf_eval.files.hub import RemoteFile

    Show = Callable[[str], AbstractContextManager[Progress | None]]
    """Begins to show the progress of a conversion with a title."""


@dataclass(frozen=True)
class Unfetched:
    """A model file that is not on this machine yet: a checkpoint to convert, or a GGUF on the hub."""

    reference: str
    path: Path
    """Where the model file will be; where something is to be downloaded first, a name after its place on the hub."""
    level: str
    parameters: int
    size_bytes: int
    """Of the model file."""
    downloads: tuple[RemoteFile, ...]
    header: Header | None = None
    """Of a GGUF; None for a checkpoint, which is converted."""


def model_source(reference: str, *, cache: Path, show: Show) -> tuple[Path, tuple[str, ...]]:
    """Return the model file that ``reference`` stands for, and warnings of a conversion made now.

    What a reference may be, `gguf_eval.files.references` says. Of a split model it is the first part. A GGUF on the hub
    is downloaded with all its parts. A checkpoint is converted in its own 16-bit type, once: the same checkpoint is
    found in the cache again. Raises `ModelFileError` or `UsageError`.
    """
    found = resolve(reference)
    if found is not None:
        return (fetch(found) if isinstance(found, HubModel) else found), ()
    from gguf_eval.files.convert.plan import plan_conversion
    from gguf_eval.files.convert.write import write

    plan = plan_conversion(reference)
    output = _place(plan, cache)
    if is_whole(output, {}, cache):
        return output, ()
    thrown_away = throw_away(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with show(f"converting {reference}") as progress:
        made = write(plan, output, progress=progress)
    remember_made(made.path, cache)
    return made.path, (*thrown_away, *made.warnings)


def locate_source(reference: str, *, cache: Path) -> Path | Unfetched:
    """Return what `model_source` would return at once, or what it would have to convert, and to download before.

    Of a repository on the hub only small files, and the headers of a GGUF, are fetched. Raises as `model_source` does.
    """
    found = resolve(reference)
    if isinstance(found, Path):
        return found
    if found is not None:
        return found.here() or _on_the_hub(reference, found)
    from gguf_eval.files.checkpoint import describe
    from gguf_eval.files.convert.plan import plan_conversion
    from gguf_eval.files.convert.write import output_path
    from gguf_eval.files.hub_models import weights_to_fetch

    source = describe(reference).source
    missing = weights_to_fetch(source) if source is not None else []
    plan = plan_conversion(reference, headers_only=bool(missing))
    output = Path(reference) / output_path(plan, None) if missing else _place(plan, cache)
    if is_whole(output, {}, cache) and not missing:
        return output
    return Unfetched(reference, output, plan.out_type, plan.parameters, plan.size_bytes, tuple(missing))


def _on_the_hub(reference: str, model: HubModel) -> Unfetched:
    from gguf_eval.files.remote import remote_headers

    headers = remote_headers(model)
    return Unfetched(
        reference,
        Path(model.name),
        headers[0].level,
        sum(header.parameters for header in headers),
        sum(file.size_bytes for file in model.files),
        model.missing,
        headers[0],
    )


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
