"""What a made model file says of its origin, and when two files have the same one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gguf_eval.files.recipes import Recipe

PREFIX = "gguf_eval."
SAME_ORIGIN = tuple(PREFIX + key for key in ("source_sha256", "recipe_sha256", "imatrix_sha256", "library"))
"""Keys that two files made from the same things, with the same library, have in common."""


def origin(
    recipe: Recipe,
    source_sha256: str,
    source_level: str,
    *,
    imatrix_sha256: str | None = None,
    imatrix_dataset: str | None = None,
) -> dict[str, int | str]:
    """Return the metadata that records how a file is made."""
    found: dict[str, int | str] = {
        PREFIX + "version": package_version("gguf-eval"),
        PREFIX + "library": library_version(),
        PREFIX + "recipe": recipe.name,
        PREFIX + "recipe_sha256": recipe.sha256,
        PREFIX + "source_sha256": source_sha256,
        PREFIX + "source_level": source_level,
    }
    if imatrix_sha256 is not None:
        found[PREFIX + "imatrix_sha256"] = imatrix_sha256
    if imatrix_dataset:
        found[PREFIX + "imatrix_dataset"] = imatrix_dataset
    return found


def same_origin(metadata: Mapping[str, Any], wanted: Mapping[str, int | str]) -> bool:
    """Return whether a file with this metadata was made as ``wanted`` says."""
    return all(metadata.get(key) == wanted.get(key) for key in SAME_ORIGIN)


def package_version(name: str) -> str:
    """Return the version of an installed package, without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


@lru_cache(maxsize=1)
def library_version() -> str:
    """Return the version of llama-cpp-python and a hash of its shared libraries, without loading them.

    The version alone does not tell which llama.cpp, or for which processor, a build was made.
    """
    spec = find_spec("llama_cpp")
    folders = [Path(folder) / "lib" for folder in (spec.submodule_search_locations or [])] if spec else []
    digest = hashlib.sha256()
    for folder in folders:
        libraries = {path.resolve() for path in folder.glob("*") if path.suffix in (".so", ".dylib", ".dll")}
        for library in sorted(libraries):
            if "ggml" in library.name or "llama" in library.name:
                digest.update(library.name.encode() + library.read_bytes())
    return f"{package_version('llama-cpp-python')}+{digest.hexdigest()[:12]}"
