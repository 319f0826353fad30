"""Makes model files of lower precision from one of higher precision, through llama.cpp.

llama.cpp's log goes where the process has sent it: a caller that wants it elsewhere redirects standard error. It aborts
the process on a failed assertion, so that callers with more than one thing to do run this in a worker process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from gguf_eval.atomic import written_whole
from gguf_eval.errors import EngineError, GgufEvalError, ModelFileError
from gguf_eval.files.cache import file_sha256, identity, model_sha256
from gguf_eval.files.header import Header, read_header
from gguf_eval.files.imatrix_file import check_fits, read_imatrix
from gguf_eval.files.plan import Plan, is_quantized, planned_metadata_bytes, read_headers, read_plan
from gguf_eval.files.provenance import library_version, origin, same_origin
from gguf_eval.files.quantize_call import call_quantize, clipped
from gguf_eval.files.quantize_checks import (
    QuantizeSource,
    check_disk,
    check_importance,
    check_recipe,
    check_request,
    check_result,
    explained,
)
from gguf_eval.files.recipes import Recipe, as_recipe
from gguf_eval.machine import physical_cores

__all__ = [
    "QuantizeSource",
    "is_made",
    "is_quantized",
    "level_path",
    "library_version",
    "make",
    "needs_making",
    "open_source",
    "plan",
    "planned_sizes",
    "quantize",
]

_KEY_FORMAT = 1
"""Part of every cache key: raise it when the same inputs begin to give other bytes."""


def needs_making(header: Header, level: str | Recipe) -> bool:
    """Return whether a file with this header has to be quantized to be what ``level`` asks for."""
    return not as_recipe(level).is_level(header.level)


def level_path(
    source_sha256: str, level: str | Recipe, stem: str, *, cache: Path, imatrix_sha256: str | None = None
) -> Path:
    """Return where the model file of ``level`` made from the source with this content is kept in the cache folder.

    The key covers the source, the recipe, the importance matrix and the build of llama.cpp; ``stem`` is for the eye.
    """
    recipe = as_recipe(level)
    key = {
        "format": _KEY_FORMAT,
        "source": source_sha256,
        "recipe": recipe.sha256,
        "imatrix": imatrix_sha256,
        "library": library_version(),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache / "models" / f"{stem}-{recipe.name}-{digest[:16]}.gguf"


def open_source(path: Path, *, imatrix: Path | None = None, cache: Path | None = None) -> QuantizeSource:
    """Read and hash a GGUF (any part of a split one) and the importance matrix that is to be used with it.

    Raises `ModelFileError` when either can't be used, or when they don't belong together.
    """
    before = _identity(path)
    headers = read_headers(path)
    sha256 = model_sha256(path, cache=cache)
    if imatrix is None:
        return QuantizeSource(path, headers, sha256, before)
    content = read_imatrix(imatrix)
    check_fits(imatrix, content, [tensor for header in headers for tensor in header.tensors])
    means = {name: entry.means() for name, entry in content.entries.items()}
    return QuantizeSource(path, headers, sha256, before, content, imatrix, file_sha256(imatrix, cache=cache), means)


def plan(source: Path | QuantizeSource, level: str | Recipe) -> Plan:
    """Return tensor types, fallbacks and exact size of the file that `quantize` would make; nothing is written."""
    opened = source if isinstance(source, QuantizeSource) else open_source(source)
    recipe = as_recipe(level)
    check_recipe(opened, recipe)
    result = call_quantize(opened.path, None, recipe, threads=1, importance=opened.importance)
    if result.failure is not None:
        raise EngineError(f"{opened.path}: llama.cpp can't quantize it: {result.failure}")
    added = [
        (key, clipped(value) if isinstance(value, str) else value) for key, value in _metadata(opened, recipe).items()
    ]
    return read_plan(result.log, opened.headers, planned_metadata_bytes(opened.path, opened.headers[0], added))


def planned_sizes(
    path: Path, recipes: Sequence[Recipe], cache: Path | None, report: Callable[[object], None]
) -> dict[Recipe, int | str]:
    """Return the exact size of the file that each recipe makes from ``path``, or why it can't be made.

    To be run in a process of its own (`gguf_eval.llama.isolated`); nothing is reported on the way.
    """
    plain = open_source(path, cache=cache)
    found: dict[Recipe, int | str] = {}
    for recipe in recipes:
        try:
            source = open_source(path, imatrix=recipe.imatrix_path, cache=cache) if recipe.imatrix else plain
            planned = plan(source, recipe)
            check_importance(source, recipe, planned)
            found[recipe] = planned.file_bytes
        except GgufEvalError as error:
            found[recipe] = str(error)
    return found


def quantize(
    source: Path,
    output: Path,
    level: str | Recipe,
    *,
    allow_requantize: bool = False,
    threads: int | None = None,
    imatrix: Path | None = None,
) -> None:
    """Make the model file ``output`` of a level or recipe from the GGUF ``source`` (any part of a split one).

    It is written under a temporary name in the same folder, checked, forced to the disk and renamed, so that
    ``output`` is complete or absent. ``threads`` defaults to the physical cores; ``imatrix`` goes before the recipe's
    own importance matrix. Raises `UsageError`, `ModelFileError` or `EngineError`.
    """
    recipe = as_recipe(level)
    make(
        open_source(source, imatrix=imatrix or recipe.imatrix_path),
        output,
        recipe,
        allow_requantize=allow_requantize,
        threads=threads,
    )


def make(
    source: QuantizeSource,
    output: Path,
    level: str | Recipe,
    *,
    allow_requantize: bool = False,
    threads: int | None = None,
    planned: Plan | None = None,
) -> Plan:
    """Do what `quantize` says from a source, and by a plan, made before; return the plan that was followed."""
    recipe = as_recipe(level)
    check_request(source, output, allow_requantize)
    planned = planned or plan(source, recipe)
    check_importance(source, recipe, planned)
    with written_whole(output) as unfinished:
        check_disk(output, planned)
        result = call_quantize(
            source.path,
            unfinished,
            recipe,
            threads=threads or physical_cores(),
            importance=source.importance,
            metadata=_metadata(source, recipe),
        )
        if _identity(source.path) != source.identity:
            raise ModelFileError(
                f"{source.path}: the file changed while it was in use; let it be finished, then try again"
            )
        if result.failure is not None:
            raise EngineError(explained(result.failure, source.path, unfinished, output, planned))
        check_result(unfinished, output, planned)
    return planned


def is_made(source: QuantizeSource, output: Path, level: str | Recipe) -> bool:
    """Return whether ``output`` is a finished file made from this source, recipe, importance matrix and library."""
    if not output.is_file():
        return False
    try:
        metadata = read_header(output).metadata
    except ModelFileError:
        return False
    return same_origin(metadata, _metadata(source, as_recipe(level)))


def _metadata(source: QuantizeSource, recipe: Recipe) -> dict[str, int | str]:
    """Return the keys to set: our own, and those that llama-quantize writes for an importance matrix."""
    if source.imatrix is None:
        return origin(recipe, source.sha256, source.headers[0].level)
    dataset = ", ".join(source.imatrix.datasets)
    found = origin(
        recipe, source.sha256, source.headers[0].level, imatrix_sha256=source.imatrix_sha256, imatrix_dataset=dataset
    )
    found["quantize.imatrix.file"] = source.imatrix_path.name if source.imatrix_path else ""
    if source.imatrix.datasets:
        found["quantize.imatrix.dataset"] = source.imatrix.datasets[0]
    found["quantize.imatrix.entries_count"] = len(source.imatrix.entries)
    if source.imatrix.chunk_count > 0:
        found["quantize.imatrix.chunks_count"] = source.imatrix.chunk_count
    return found


def _identity(path: Path) -> tuple[int, ...]:
    try:
        return identity(path)
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such file; give the path of a GGUF model file") from None
