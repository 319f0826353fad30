"""Reads a task's rows and chooses which of them are asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gguf_eval.errors import TaskError
from gguf_eval.llama.bounded import OverLimitError, bounded_map
from gguf_eval.tasks.fewshot import ExampleChooser
from gguf_eval.tasks.prompts import Item, Row, item_renderer, plain_rows, row_place
from gguf_eval.tasks.spec import Task
from gguf_eval.tasks.templates import Templates

R = TypeVar("R")
Fetch = Callable[[str, str, str], Sequence[Path]]
"""(repo, config, split) -> the split's Parquet files on this machine."""


def load_items(
    task: Task, *, fetch: Fetch, limit: int | None = None, seed: int = 0, ids: Sequence[str] = ()
) -> list[Item]:
    """The task's items in the dataset's order; with ``limit``, a random subset that depends only on ``seed``.

    A smaller limit asks a subset of what a larger one asks, so that raising it keeps every answer already stored.
    With ``ids`` only the items of these ids, none of which need be there.
    """
    if task.dataset.generator:
        rows = plain_rows(_generated(task, limit, seed))
        limit = None
    else:
        rows = task_rows(task, fetch=fetch)
    chosen = [rows[number] for number in chosen_rows(len(rows), limit, seed)]
    pools = {config: example_pool(task, config, fetch) for config in {row.config for row in chosen}}
    rendered = over_rows(task, _asking, (task, pools), chosen)
    items = [sound(task, row, item) for row, item in zip(chosen, rendered, strict=True)]
    seen: dict[str, str] = {}
    for item in items:
        if item.id in seen:
            raise TaskError(f"{task.path}: two items have the id '{item.id}'; ids must be unique")
        seen[item.id] = item.hash
    return [item for item in items if item.id in ids] if ids else items


def _asking(task: Task, pools: Mapping[str, Sequence[Row]]) -> Callable[[Row], Item]:
    """Renders a row with its examples, which come from its config's pool."""
    chooser, render = ExampleChooser(task, pools), item_renderer(task)
    templates = Templates(task.path)
    subject = templates.text(task.prompt.subject)

    def ask(row: Row) -> Item:
        with templates.rendering(row_place(task, row), row.columns):
            of = subject(row.columns)
        return render(row, chooser.examples(row, of))

    return ask


def over_rows(
    task: Task, make: Callable[..., Callable[[Row], R]], settings: tuple[Any, ...], rows: Sequence[Row]
) -> list[R | Exception]:
    """What a task's templates give for each row, or why nothing (`bounded_map`)."""
    try:
        return bounded_map(make, settings, rows)
    except OverLimitError as error:
        raise TaskError(f"{task.path}: compiling a template was stopped: {error}; simplify it") from None


def sound(task: Task, row: Row, found: R | Exception) -> R:
    """What a row gave; raises `TaskError` where it gave none."""
    if isinstance(found, OverLimitError):
        raise TaskError(f"{row_place(task, row)}: the template was stopped: {found}; simplify it")
    if isinstance(found, TaskError):
        raise found
    if isinstance(found, Exception):
        raise TaskError(f"{row_place(task, row)}: its templates give no item: {found}")
    return found


def _generated(task: Task, limit: int | None, seed: int) -> list[dict[str, Any]]:
    """As many rows as asked for; another seed makes other rows."""
    from gguf_eval.tasks.generators.catalog import generated_rows

    dataset = task.dataset
    count = dataset.count if limit is None else limit
    return generated_rows(dataset.generator, dataset.difficulties, count, f"{dataset.seed}.{seed}")


def task_rows(task: Task, *, fetch: Fetch) -> list[Row]:
    """All rows that are asked, config after config."""
    dataset = task.dataset
    if dataset.file is not None:
        rows = plain_rows(read_file(dataset.file, task.path, "dataset.file"))
    else:
        rows = [
            row
            for config in dataset.configs
            for row in plain_rows(hub_rows(dataset.repo, config, dataset.split, fetch), config)
        ]
    if not rows:
        raise TaskError(f"{task.path}: the dataset has no rows; check repo, config and split")
    if not dataset.where:
        return rows
    flags = over_rows(task, _keeping, (task,), rows)
    kept = [row for row, keep in zip(rows, flags, strict=True) if sound(task, row, keep)]
    if not kept:
        raise TaskError(f"{task.path}: dataset.where leaves none of {len(rows)} rows; check it against the columns")
    return kept


def _keeping(task: Task) -> Callable[[Row], bool]:
    """Whether a row is asked, by ``dataset.where``."""
    templates = Templates(task.path)
    keep = templates.expression(task.dataset.where)

    def decide(row: Row) -> bool:
        with templates.rendering(f"{task.path}: row {row.number}: dataset.where", row.columns):
            return bool(keep(row.columns))

    return decide


def example_pool(task: Task, config: str, fetch: Fetch) -> Sequence[Row]:
    """Where few-shot examples of a config come from."""
    fewshot = task.fewshot
    if fewshot is None or not fewshot.count:
        return []
    if fewshot.split:
        return plain_rows(hub_rows(task.dataset.repo, config, fewshot.split, fetch), config)
    if fewshot.file is not None:
        return plain_rows(read_file(fewshot.file, task.path, "fewshot.file"), config)
    return plain_rows(fewshot.examples, config)


def hub_rows(repo: str, config: str, split: str, fetch: Fetch) -> list[dict[str, Any]]:
    """All rows of a split of a hub dataset as dictionaries."""
    return [row for file in fetch(repo, config, split) for row in _read_parquet(file)]


def chosen_rows(count: int, limit: int | None, seed: int) -> list[int]:
    """Row numbers to ask, ascending: all of them, or the ``limit`` first of an order shuffled by ``seed``."""
    if limit is None or limit >= count:
        return list(range(count))
    order = sorted(range(count), key=lambda row: hashlib.sha256(f"{seed}:{row}".encode()).digest())
    return sorted(order[:limit])


def read_file(path: Path, source: Path, key: str) -> list[dict[str, Any]]:
    """All rows of a file as dictionaries, read by its ending; raises `TaskError` naming the file and the line."""
    readers = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}
    if not path.is_file():
        raise TaskError(f"{source}: {key} {path} does not exist")
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise TaskError(f"{source}: {key} {path.name} must end in {', '.join(readers)}")
    return reader(path)


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


def _read_json(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise TaskError(f"{path}:{error.lineno}: not valid JSON: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: can't be read ({error}); JSON in UTF-8 is needed") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TaskError(f"{path}: a JSON list of objects is needed; found {str(rows)[:40]!r}")
    return rows


def _read_csv(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV file whose first line names the columns; every value is a string."""
    import csv

    rows: list[dict[str, Any]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                if None in row or None in row.values():
                    raise TaskError(f"{path}:{reader.line_num}: {len(reader.fieldnames or ())} columns are needed")
                rows.append(dict(row))
    except csv.Error as error:
        raise TaskError(f"{path}:{reader.line_num}: not valid CSV: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: can't be read ({error}); CSV in UTF-8 is needed") from None
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


def parquet_extent(tail: bytes) -> tuple[int, int]:
    """Rows of a Parquet file and bytes of their columns, from the file's last bytes; (0, 0) where they are too few."""
    import pyarrow
    import pyarrow.parquet

    try:
        footer = pyarrow.parquet.read_metadata(pyarrow.BufferReader(tail))
    except (pyarrow.ArrowException, OSError):
        return 0, 0
    return footer.num_rows, sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))


def mirror(folder: Path) -> Fetch:
    """Fetch from a local copy laid out as ``datasets/<org>/<name>/<config>/<split>/*.parquet``."""

    def fetch(repo: str, config: str, split: str) -> Sequence[Path]:
        place = folder / "datasets" / repo / config / split
        files = sorted(place.glob("*.parquet"))
        if not files:
            raise TaskError(f"{place}: no Parquet files; put the split of {repo} there or leave --mirror out")
        return files

    return fetch
