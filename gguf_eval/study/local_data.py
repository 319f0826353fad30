"""Which of a run's data are on this machine, and what is known of those that are not."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gguf_eval.files import hub
from gguf_eval.files.hub import RemoteFile
from gguf_eval.files.remote import read_tail
from gguf_eval.study.outline import UnreadTask
from gguf_eval.study.plan import RunRequest
from gguf_eval.study.stages.over_text import requested_text, text_request
from gguf_eval.study.stages.state import TaskItems
from gguf_eval.study.text import TextRequest
from gguf_eval.tasks.datasets import Fetch, load_items, mirror, parquet_extent
from gguf_eval.tasks.spec import Task
from gguf_eval.tasks.texts import WIKITEXT2, WIKITEXT2_SPLIT

_FOOTER_BYTES = 1 << 18
"""Of a Parquet file's end, more than its footer takes."""
_CONNECTIONS = 8


def tasks_here(
    tasks: Sequence[Task], request: RunRequest
) -> tuple[list[RemoteFile], list[TaskItems], list[UnreadTask]]:
    """What is to be downloaded, the items of tasks whose rows are here, and what is known of the others."""
    splits = [] if request.mirror else sorted({split for task in tasks for split in _splits(task)})
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        missing = dict(zip(splits, pool.map(lambda split: hub.split_to_fetch(*split), splits), strict=True))
    work, unread = [], []
    fetch = local_fetch(request)
    for task in tasks:
        if any(missing.get(split) for split in _splits(task)):
            unread.append(_unread(task, [f for split in _asked_splits(task) for f in missing[split]], request))
            continue
        items = load_items(task, fetch=fetch, limit=request.limit, seed=request.seed, ids=request.items)
        work.append(TaskItems(task, {item.hash: item for item in items}))
    return [file for files in missing.values() for file in files], work, unread


def local_fetch(request: RunRequest) -> Fetch:
    """Fetches rows from the mirror or the hub's cache; what neither has from the hub."""
    return mirror(request.mirror) if request.mirror else _cached


def _cached(repo: str, config: str, split: str) -> Sequence[Path]:
    return hub.cached_split(repo, config, split) or hub.dataset_files(repo, config, split)


def _asked_splits(task: Task) -> list[tuple[str, str, str]]:
    dataset = task.dataset
    return [(dataset.repo, config, dataset.split) for config in dataset.configs] if dataset.repo else []


def _splits(task: Task) -> list[tuple[str, str, str]]:
    """Every split a task reads: its items', and its examples'."""
    splits = _asked_splits(task)
    if task.fewshot and task.fewshot.split:
        splits += [(repo, config, task.fewshot.split) for repo, config, _ in splits]
    return splits


def _unread(task: Task, files: Sequence[RemoteFile], request: RunRequest) -> UnreadTask:
    """How many items a task will have, from the ends of its files; rows are taken to be asked as long as they are."""
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        extents = list(pool.map(lambda file: parquet_extent(read_tail(file, _FOOTER_BYTES)), files))
    rows, size_bytes = sum(rows for rows, _ in extents), sum(size for _, size in extents)
    items = min(request.limit or rows, rows)
    return UnreadTask(task, items, items * size_bytes // max(1, rows))


def text_here(request: RunRequest) -> tuple[TextRequest | None, list[RemoteFile]]:
    """The text that is asked for where it is here, or what is to be downloaded for it."""
    name = requested_text(request)
    if name.lower() == WIKITEXT2 and not Path(name).exists() and not request.mirror:
        missing = hub.split_to_fetch(*WIKITEXT2_SPLIT)
        if missing:
            return None, missing
    return text_request(request, local_fetch(request)), []
