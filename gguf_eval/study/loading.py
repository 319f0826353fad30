"""Reads what a run asks. What only a suite names and can't be had is left out with its reason, and the rest goes on.

What the user names is another matter: the run stops before anything is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gguf_eval.errors import TaskError
from gguf_eval.files.cache import cache_dir
from gguf_eval.study.plan import RunRequest
from gguf_eval.study.stages.state import TaskItems
from gguf_eval.study.stages.text import TextRequest
from gguf_eval.tasks.catalog import only_in_suites, suite_texts
from gguf_eval.tasks.datasets import Fetch, load_items
from gguf_eval.tasks.spec import Task
from gguf_eval.tasks.texts import find_text

NO_TEXT = "none"
"""Asks for the tasks of a suite without its text."""


@dataclass(frozen=True)
class LeftOut:
    """A task or text of a suite whose data can't be had, or are not what they should be."""

    name: str
    reason: str


def leave_out(name: str, request: RunRequest, error: TaskError) -> LeftOut:
    """The task as one that is left out; raises ``error`` where the user named it himself."""
    if name not in only_in_suites(request.tasks):
        raise error
    return LeftOut(name, str(error))


def load_work(tasks: Sequence[Task], request: RunRequest, fetch: Fetch) -> tuple[list[TaskItems], list[LeftOut]]:
    """The items of every task, and the tasks that are left out."""
    work, left_out = [], []
    for task in tasks:
        try:
            items = load_items(task, fetch=fetch, limit=request.limit, seed=request.seed, ids=request.items)
        except TaskError as error:
            left_out.append(leave_out(task.name, request, error))
        else:
            work.append(TaskItems(task, {item.hash: item for item in items}))
    return work, left_out


def check_any(left: int, left_out: Sequence[LeftOut]) -> None:
    """Raise `TaskError` where no task is left."""
    if left_out and not left:
        first = left_out[0]
        raise TaskError(f"none of the {len(left_out)} tasks can be asked; {first.name}: {first.reason}")


def requested_text(request: RunRequest) -> str:
    """The text the run was asked for, by name or with a suite; empty where for none."""
    text = request.text or next((text for suite, text in suite_texts().items() if suite in request.tasks), NO_TEXT)
    return "" if text == NO_TEXT else text


def _text_request(request: RunRequest, fetch: Fetch) -> TextRequest | None:
    """How the text that the run was asked for is run over, fetched; None where for none. Raises `UsageError`."""
    text = requested_text(request)
    if not text:
        return None
    folder = cache_dir(request.cache)
    return TextRequest(
        text=find_text(text, fetch=fetch, folder=folder / "texts"),
        references=folder / "references",
        n_ctx=request.text_ctx,
        chunks=request.chunks,
        batch_size=request.batch_size,
        threads=request.threads,
    )


def load_text(request: RunRequest, fetch: Fetch) -> tuple[TextRequest | None, list[LeftOut]]:
    """The text to run over, fetched, or that of a suite as left out."""
    try:
        return _text_request(request, fetch), []
    except TaskError as error:
        return None, [leave_out_text(request, error)]


def leave_out_text(request: RunRequest, error: TaskError) -> LeftOut:
    """The text as one that is left out; raises ``error`` where the user named it himself."""
    if request.text:
        raise error
    return LeftOut(f"text {requested_text(request)}", str(error))
