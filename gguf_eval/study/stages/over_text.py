"""Runs the points over a text: the reference of each model first, then the others beside what it left.

The reference is the point of most bits that this run makes of the model, with the KV cache in F16, as in the report.
"""

from __future__ import annotations

from collections.abc import Sequence

from gguf_eval.errors import EngineError, UsageError
from gguf_eval.files.cache import cache_dir
from gguf_eval.study.events import PointFailed
from gguf_eval.study.plan import RunRequest
from gguf_eval.study.stages.reference import highest
from gguf_eval.study.stages.state import ReadyPoint, RunState, warn
from gguf_eval.study.text import TextModel, TextRequest, run_observed, text_conditions
from gguf_eval.tasks.catalog import suite_texts
from gguf_eval.tasks.datasets import Fetch
from gguf_eval.tasks.texts import find_text

NO_TEXT = "none"
"""Asks for the tasks of a suite without its text."""


def text_model(point: ReadyPoint) -> TextModel:
    """The point as it is run over a text."""
    return TextModel(point.planned.label, point.file.path, point.file.sha256, point.planned.engine)


def requested_text(request: RunRequest) -> str:
    """The text the run was asked for, by name or with a suite; empty where for none."""
    text = request.text or next((text for suite, text in suite_texts().items() if suite in request.tasks), NO_TEXT)
    return "" if text == NO_TEXT else text


def text_request(request: RunRequest, fetch: Fetch) -> TextRequest | None:
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


def over_text(state: RunState, points: Sequence[ReadyPoint], request: TextRequest) -> bool:
    """Run what is missing of every model; return whether nothing is. A point that fails leaves the others to go on."""
    complete = True
    for model in dict.fromkeys(point.planned.model for point in points):
        members = [point for point in points if point.planned.model == model]
        reference = highest(members)
        others = [point for point in members if point.id != reference.id]
        base = text_model(reference)
        missing = [p for p in others if not state.study.has_text(p.id, text_conditions(request, base))]
        if missing or not state.study.has_text(reference.id, text_conditions(request, None)):
            stored = _run(state, reference, request, None, store=bool(others))
            complete &= stored
            for point in missing if stored else ():
                complete &= _run(state, point, request, base, store=False)
    return complete


def _run(state: RunState, point: ReadyPoint, request: TextRequest, base: TextModel | None, *, store: bool) -> bool:
    try:
        name = point.planned.name
        record = run_observed(
            text_model(point),
            request,
            base,
            name=name,
            store=store,
            observer=state.observer,
            log=point.log,
            on_warning=lambda text: warn(state, point.planned, text),
        )
    except (EngineError, UsageError) as error:
        state.study.set_failure(point.id, str(error), point.log)
        state.observer.tell(PointFailed(point.planned.name, str(error)))
        return False
    state.study.save_text(point.id, record)
    return True
