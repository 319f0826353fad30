"""Where huggingface_hub keeps what it downloads, and what is there; nothing is asked of the hub."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_REVISION = "main"


def cache_folder() -> Path:
    """Return where the client keeps what it downloads."""
    from huggingface_hub import constants

    return Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE)


def cached_snapshot(kind: str, repo: str, revision: str | None = None) -> Path | None:
    """Return the folder of a repository's files at a revision, as far as they are here; None where there is none."""
    place = _place(kind, repo)
    wanted = revision or DEFAULT_REVISION
    reference = place / "refs" / wanted
    folder = place / "snapshots" / (reference.read_text().strip() if reference.is_file() else wanted)
    return folder if folder.is_dir() else None


def is_broken_off(kind: str, repo: str) -> bool:
    """Tell whether a download of a repository was broken off: whether a set of its files is whole is not known then."""
    return any((_place(kind, repo) / "blobs").glob("*.incomplete"))


def cached_file(kind: str, repo: str, revision: str | None, path: str) -> Path | None:
    """Return where one file of a repository lies; None where it does not."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(
        repo, path, cache_dir=cache_folder(), revision=revision or DEFAULT_REVISION, repo_type=kind
    )
    return Path(found) if isinstance(found, str) else None


def repository_of(path: Path) -> str:
    """Return ``owner/name`` of the repository whose file in the cache ``path`` is; empty for any other file."""
    for folder in path.parents:
        kind, _, name = folder.name.partition("--")
        if kind == "models" and name and (folder / "snapshots") in path.parents:
            return name.replace("--", "/", 1)
    return ""


def _place(kind: str, repo: str) -> Path:
    return cache_folder() / f"{kind}s--{repo.replace('/', '--')}"
