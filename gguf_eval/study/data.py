"""Reads what a run asks: the items of its tasks, and its text.

What is not on this machine is downloaded, or, for a plan, looked up. What only a suite names and can't be had is left
out with its reason, and the rest goes on; what the user names himself is another matter: the run stops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from gguf_eval.errors import TaskError
from gguf_eval.files.cache import cache_dir
from gguf_eval.files.hub import RemoteFile
from gguf_eval.files.hub_datasets import cached_split, dataset_files, split_to_fetch
from gguf_eval.files.remote import read_tail
from gguf_eval.study.points import RunRequest
from gguf_eval.study.stages.state import TaskItems, TextRequest, UnreadTask
from gguf_eval.tasks.catalog import only_in_suites, suite_texts
from gguf_eval.tasks.datasets import Fetch, load_items, mirror, parquet_extent
from gguf_eval.tasks.spec import Task
from gguf_eval.tasks.texts import WIKITEXT2, WIKITEXT2_SPLIT, find_text

_NO_TEXT = "none"
"""Asks for the tasks of a suite without its text."""
_FOOTER_BYTES = 1 << 18
"""Of a Parquet file's end, more than its footer takes."""
_CONNECTIONS = 8

Split = tuple[str, str, str]
"""(repository, config, split) of a dataset."""
ToFetch = Mapping[Split, Sequence[RemoteFile] | TaskError]
"""What is to be downloaded of splits that were looked up: nothing of one that is here; why, of one that can't be."""


@dataclass(frozen=True)
class LeftOut:
    """A task or text of a suite whose data can't be had, or are not what they should be."""

    name: str
    reason: str


@dataclass
class Data:
    """What is known of a run's data; what is on this machine is read."""

    work: list[TaskItems] = field(default_factory=list)
    """Tasks whose rows are here."""
    text: TextRequest | None = None
    """The text where it is here."""
    unread: list[UnreadTask] = field(default_factory=list)
    unread_text: str = ""
    """The name of a text that is not here."""
    missing: list[RemoteFile] = field(default_factory=list)
    """To be downloaded."""
    left_out: list[LeftOut] = field(default_factory=list)


def read_data(tasks: Sequence[Task], request: RunRequest, *, fetch: bool) -> Data:
    """Read every task's rows and the text; what is not here is downloaded with ``fetch``, else looked up.

    Raises `TaskError` for what the user named himself, and where no task is left.
    """
    data = Data()
    to_fetch: ToFetch = {} if fetch or request.mirror else _look_up(tasks, request)
    get = mirror(request.mirror) if request.mirror else dataset_files if fetch else _cached
    for task in tasks:
        try:
            _read_task(data, task, request, to_fetch, get)
        except TaskError as error:
            if task.name not in only_in_suites(request.tasks):
                raise
            data.left_out.append(LeftOut(task.name, str(error)))
    if data.left_out and not (data.work or data.unread):
        first = data.left_out[0]
        raise TaskError(f"none of the {len(data.left_out)} tasks can be asked; {first.name}: {first.reason}")
    try:
        _read_text(data, request, to_fetch, get)
    except TaskError as error:
        if request.text:
            raise
        data.left_out.append(LeftOut(f"text {_requested_text(request)}", str(error)))
    data.missing += [file for files in to_fetch.values() if not isinstance(files, TaskError) for file in files]
    return data


def _read_task(data: Data, task: Task, request: RunRequest, to_fetch: ToFetch, get: Fetch) -> None:
    missing = _missing(_splits(task), to_fetch)
    if missing:
        data.unread.append(_unread(task, _missing(_asked_splits(task), to_fetch), request))
    else:
        items = load_items(task, fetch=get, limit=request.limit, seed=request.seed, ids=request.items)
        data.work.append(TaskItems(task, {item.hash: item for item in items}))


def _missing(splits: Sequence[Split], to_fetch: ToFetch) -> list[RemoteFile]:
    """Files of the splits that are not here; raises where one can't be had."""
    found: list[RemoteFile] = []
    for split in splits:
        files = to_fetch.get(split, [])
        if isinstance(files, TaskError):
            raise files
        found += files
    return found


def _unread(task: Task, files: Sequence[RemoteFile], request: RunRequest) -> UnreadTask:
    """How many items a task will have, from the ends of its files; rows are taken to be asked as long as they are."""
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        extents = list(pool.map(lambda file: parquet_extent(read_tail(file, _FOOTER_BYTES)), files))
    rows, size_bytes = sum(rows for rows, _ in extents), sum(size for _, size in extents)
    items = min(request.limit or rows, rows)
    return UnreadTask(task, items, items * size_bytes // max(1, rows))


def _read_text(data: Data, request: RunRequest, to_fetch: ToFetch, get: Fetch) -> None:
    name = _requested_text(request)
    if _on_the_hub(name) and _missing([WIKITEXT2_SPLIT], to_fetch):
        data.unread_text = WIKITEXT2
    elif name:
        folder = cache_dir(request.cache)
        data.text = TextRequest(
            text=find_text(name, fetch=get, folder=folder / "texts"),
            references=folder / "references",
            n_ctx=request.text_ctx,
            chunks=request.chunks,
            batch_size=request.batch_size,
            threads=request.threads,
        )


def _requested_text(request: RunRequest) -> str:
    """The text the run was asked for, by name or with a suite; empty where for none."""
    text = request.text or next((text for suite, text in suite_texts().items() if suite in request.tasks), _NO_TEXT)
    return "" if text == _NO_TEXT else text


def _on_the_hub(text: str) -> bool:
    return text.lower() == WIKITEXT2 and not Path(text).exists()


def _look_up(tasks: Sequence[Task], request: RunRequest) -> ToFetch:
    splits = {split for task in tasks for split in _splits(task)}
    splits |= {WIKITEXT2_SPLIT} if _on_the_hub(_requested_text(request)) else set()
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        return dict(zip(sorted(splits), pool.map(_to_fetch, sorted(splits)), strict=True))


def _to_fetch(split: Split) -> list[RemoteFile] | TaskError:
    try:
        return split_to_fetch(*split)
    except TaskError as error:
        return error


def _cached(repo: str, config: str, split: str) -> Sequence[Path]:
    """Rows from the hub's cache; what it lacks from the hub."""
    return cached_split(repo, config, split) or dataset_files(repo, config, split)


def _asked_splits(task: Task) -> list[Split]:
    dataset = task.dataset
    return [(dataset.repo, config, dataset.split) for config in dataset.configs] if dataset.repo else []


def _splits(task: Task) -> list[Split]:
    """Every split a task reads: its items', and its examples'."""
    splits = _asked_splits(task)
    if task.fewshot and task.fewshot.split:
        splits += [(repo, config, task.fewshot.split) for repo, config, _ in splits]
    return splits
