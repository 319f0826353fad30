"""The parquet files of a dataset's split on the hub."""

from __future__ import annotations

import glob
from pathlib import Path

from gguf_eval.errors import TaskError, nearest
from gguf_eval.files.hub import PARQUET_REVISION, RemoteFile, Wanted, client, explain, is_offline, snapshot, to_fetch
from gguf_eval.files.hub_cache import cached_snapshot, is_broken_off

UNPUBLISHED = "local/"
"""Owner of data sets that are on no hub."""
_SHOWN = 12  # names listed in a message


def dataset_files(repo: str, config: str, split: str, *, revision: str = PARQUET_REVISION) -> list[Path]:
    """Return the parquet files of one split, in order, downloading what the cache lacks.

    ``repo`` is ``owner/name``. The files are ``<config>/<split>/*.parquet`` at ``revision``, by default the
    branch that the hub converts every dataset to. Raises `TaskError`.
    """
    for what, name in (("config", config), ("split", split)):
        if not name or name != name.strip("/") or ".." in name.split("/"):
            raise TaskError(f"dataset '{repo}': a {what} name is needed, found {name!r}; name one of the dataset's")
    _refuse_unpublished(repo)
    wanted = Wanted(repo, "dataset", revision, TaskError)
    inside = f"{config}/{split}"
    folder = snapshot(wanted, [f"{glob.escape(inside)}/*.parquet"])
    files = sorted((folder / inside).glob("*.parquet"))
    if not files:
        raise TaskError(f"{wanted.label}: no parquet files of split '{inside}'; {_splits_hint(wanted, folder, inside)}")
    return files


def cached_split(repo: str, config: str, split: str, *, revision: str = PARQUET_REVISION) -> list[Path]:
    """Return the parquet files of a split that the cache holds, in order; nothing is asked of the hub.

    None of a repository of which a download was broken off: whether the split is whole is not known then.
    """
    folder = cached_snapshot("dataset", repo, revision)
    if folder is None or is_broken_off("dataset", repo):
        return []
    return sorted((folder / config / split).glob("*.parquet"))


def split_to_fetch(repo: str, config: str, split: str, *, revision: str = PARQUET_REVISION) -> list[RemoteFile]:
    """Return the parquet files of a split that `dataset_files` would download now. Raises `TaskError`."""
    _refuse_unpublished(repo)
    if cached_split(repo, config, split, revision=revision):
        return []
    return to_fetch(Wanted(repo, "dataset", revision, TaskError), f"{config}/{split}", ("*.parquet",))


def _refuse_unpublished(repo: str) -> None:
    """Refuse a data set that nobody has put on the hub, without asking: whoever took its name could answer."""
    if repo.startswith(UNPUBLISHED):
        raise TaskError(
            f"dataset '{repo}': no copy on the hub is known; lay its Parquet files out under a folder as "
            f"datasets/{repo}/<config>/<split>/*.parquet and give that folder as --mirror"
        )


def _splits_hint(wanted: Wanted, folder: Path, inside: str) -> str:
    """Name the splits there are: from the hub, or from the cache when the hub can't be asked."""
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")]
    if not is_offline():
        try:
            paths = client().list_repo_files(wanted.repo, repo_type=wanted.kind, revision=wanted.revision)
        except Exception as error:
            return explain(wanted, error)
    splits = sorted({path.rpartition("/")[0] for path in paths if path.endswith(".parquet")})
    if not splits:
        return "nor of any other; name a revision that holds parquet files, or a local file"
    if inside in splits:
        return f"{wanted.url} lists it, and none of its files came down; run again"
    shown = ", ".join(splits[:_SHOWN]) + (f", ... ({len(splits)} in all)" if len(splits) > _SHOWN else "")
    return f"found {shown}{nearest(inside, splits)}"
