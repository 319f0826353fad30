"""Reads a task's rows and chooses which of them are asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gguf_eval.errors import TaskError
from gguf_eval.tasks.prompts import Item, item_renderer
from gguf_eval.tasks.spec import Dataset, Task

Fetch = Callable[[str, str, str], Sequence[Path]]
"""(repo, config, split) -> the split's Parquet files on this machine."""


def load_items(task: Task, *, fetch: Fetch, limit: int | None = None, seed: int = 0) -> list[Item]:
    """The task's items in the dataset's order; with ``limit``, a random subset that depends only on ``seed``.

    A smaller limit asks a subset of what a larger one asks, so that raising it keeps every answer already stored.
    """
    rows = read_rows(task.dataset, fetch=fetch, source=task.path)
    if not rows:
        raise TaskError(f"{task.path}: the dataset has no rows; check repo, config and split")
    render = item_renderer(task)
    items = [render(number, rows[number]) for number in chosen_rows(len(rows), limit, seed)]
    seen: dict[str, str] = {}
    for item in items:
        if item.id in seen:
            raise TaskError(f"{task.path}: two items have the id '{item.id}'; ids must be unique")
        seen[item.id] = item.hash
    return items


def chosen_rows(count: int, limit: int | None, seed: int) -> list[int]:
    """Row numbers to ask, ascending: all of them, or the ``limit`` first of an order shuffled by ``seed``."""
    if limit is None or limit >= count:
        return list(range(count))
    order = sorted(range(count), key=lambda row: hashlib.sha256(f"{seed}:{row}".encode()).digest())
    return sorted(order[:limit])


def read_rows(dataset: Dataset, *, fetch: Fetch, source: Path) -> list[dict[str, Any]]:
    """All rows of a dataset as dictionaries; raises `TaskError` naming the file that can't be read."""
    if dataset.file is None:
        files = fetch(dataset.repo, dataset.config, dataset.split)
        return [row for file in files for row in _read_parquet(file)]
    if not dataset.file.is_file():
        raise TaskError(f"{source}: dataset.file {dataset.file} does not exist")
    return _read_parquet(dataset.file) if dataset.file.suffix == ".parquet" else _read_jsonl(dataset.file)


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise TaskError(f"{path}:{number}: a JSON object is needed on each line; found {line[:40]!r}")
                    rows.append(row)
    except json.JSONDecodeError as error:
        raise TaskError(f"{path}:{number}: not valid JSON: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: can't be read ({error}); JSON Lines in UTF-8 is needed") from None
    return rows


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        # partitioning=None: a folder named like "key=value" must not become a column
        table = pyarrow.parquet.read_table(path, partitioning=None)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise TaskError(
            f"{path}: not a usable Parquet file ({reason}); delete it and run again to get it anew"
        ) from None
    return list(table.to_pylist())


def mirror(folder: Path) -> Fetch:
    """Fetch from a local copy laid out as ``datasets/<org>/<name>/<config>/<split>/*.parquet``."""

    def fetch(repo: str, config: str, split: str) -> Sequence[Path]:
        place = folder / "datasets" / repo / config / split
        files = sorted(place.glob("*.parquet"))
        if not files:
            raise TaskError(f"{place}: no Parquet files; put the split of {repo} there or leave --mirror out")
        return files

    return fetch
