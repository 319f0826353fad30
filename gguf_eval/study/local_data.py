"""Which of a run's data are on this machine, and what is known of those that are not."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gguf_eval.errors import TaskError
from gguf_eval.files import hub_datasets
from gguf_eval.files.hub import RemoteFile
from gguf_eval.files.remote import read_tail
from gguf_eval.study.loading import LeftOut, check_any, leave_out, leave_out_text, load_text, load_work
from gguf_eval.study.outline import UnreadTask
from gguf_eval.study.plan import RunRequest
from gguf_eval.study.stages.over_text import requested_text
from gguf_eval.study.stages.state import TaskItems
from gguf_eval.study.text import TextRequest
from gguf_eval.tasks.datasets import Fetch, mirror, parquet_extent
from gguf_eval.tasks.spec import Task
from gguf_eval.tasks.texts import WIKITEXT2, WIKITEXT2_SPLIT

_FOOTER_BYTES = 1 << 18
"""Of a Parquet file's end, more than its footer takes."""
_CONNECTIONS = 8


@dataclass(frozen=True)
class TasksHere:
    """What is known of a run's tasks before anything is downloaded."""

    missing: list[RemoteFile]
    """To be downloaded."""
    work: list[TaskItems]
    """Tasks whose rows are here."""
    unread: list[UnreadTask]
    left_out: list[LeftOut]


def tasks_here(tasks: Sequence[Task], request: RunRequest) -> TasksHere:
    """Look for every task's rows. Raises `TaskError` as `gguf_eval.study.loading.load_work` does."""
    splits = [] if request.mirror else sorted({split for task in tasks for split in _splits(task)})
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        found = dict(zip(splits, pool.map(_to_fetch, splits), strict=True))
    missing = {split: files for split, files in found.items() if not isinstance(files, TaskError)}
    here, unread, left_out = [], [], []
    for task in tasks:
        refused = next((one for split in _splits(task) if isinstance(one := found.get(split), TaskError)), None)
        if refused is not None:
            left_out.append(leave_out(task.name, request, refused))
        elif any(missing.get(split) for split in _splits(task)):
            unread.append(_unread(task, [f for split in _asked_splits(task) for f in missing[split]], request))
        else:
            here.append(task)
    work, unsound = load_work(here, request, local_fetch(request))
    left_out += unsound
    check_any(len(work) + len(unread), left_out)
    return TasksHere([file for files in missing.values() for file in files], work, unread, left_out)


def _to_fetch(split: tuple[str, str, str]) -> list[RemoteFile] | TaskError:
    try:
        return hub_datasets.split_to_fetch(*split)
    except TaskError as error:
        return error


def local_fetch(request: RunRequest) -> Fetch:
    """Fetches rows from the mirror or the hub's cache; what neither has from the hub."""
    return mirror(request.mirror) if request.mirror else _cached


def _cached(repo: str, config: str, split: str) -> Sequence[Path]:
    return hub_datasets.cached_split(repo, config, split) or hub_datasets.dataset_files(repo, config, split)


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


def text_here(request: RunRequest) -> tuple[TextRequest | None, list[RemoteFile], list[LeftOut]]:
    """The text that is asked for where it is here, or what is to be downloaded for it, or that it is left out."""
    name = requested_text(request)
    if name.lower() == WIKITEXT2 and not Path(name).exists() and not request.mirror:
        missing = _to_fetch(WIKITEXT2_SPLIT)
        if isinstance(missing, TaskError):
            return None, [], [leave_out_text(request, missing)]
        if missing:
            return None, missing, []
    text, left_out = load_text(request, local_fetch(request))
    return text, [], left_out
