"""Runs models over a text without a study: the reference, then every other model against it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gguf_eval.llama.reasons import without_numbers
from gguf_eval.store.records import TextRecord
from gguf_eval.study.events import MemoryTaken, Observer
from gguf_eval.study.job import Job, OnEvent
from gguf_eval.study.process import run_in_worker
from gguf_eval.study.stages.state import TextRequest
from gguf_eval.study.stages.text import TextModel, run_text


def run_texts(
    models: Sequence[TextModel], request: TextRequest, reference: TextModel | None, observer: Observer, log: Path
) -> list[tuple[str, TextRecord]]:
    """The records by name, in that order. Raises `EngineError` where a worker fails."""
    records = []
    if reference is not None:
        records.append((reference.name, _run(reference, request, None, observer, log, store=True)))
    for model in models:
        if reference is None or (model.sha256, model.engine) != (reference.sha256, reference.engine):
            records.append((model.name, _run(model, request, reference, observer, log, store=False)))
    return records


def _run(
    model: TextModel,
    request: TextRequest,
    reference: TextModel | None,
    observer: Observer,
    log: Path,
    *,
    store: bool,
) -> TextRecord:
    told: set[str] = set()

    def note(text: str) -> None:
        if without_numbers(text) not in told:
            told.add(without_numbers(text))
            observer.note(f"{model.name}: llama.cpp warns: {text}")

    def execute(job: Job, on_event: OnEvent) -> None:
        run_in_worker(job, log, on_event, lambda used: observer.tell(MemoryTaken(model.name, used)), note)

    return run_text(model, request, execute, observer, model.name, reference=reference, store=store)
