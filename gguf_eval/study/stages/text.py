"""Runs points over a text: the reference of each model first, then the others beside what it left.

The reference is the point of highest rank that this run makes of the model. `perplexity` does the same without a study.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gguf_eval.errors import EngineError, UsageError
from gguf_eval.files.model_file import ModelFile
from gguf_eval.runtime.settings import EngineSettings
from gguf_eval.store.database import StudyLookup
from gguf_eval.store.records import TextRecord
from gguf_eval.study.cost import Rates, text_seconds
from gguf_eval.study.events import Observer, StagePlan, Tally, stage
from gguf_eval.study.job import Job, OnEvent
from gguf_eval.study.points import PlannedPoint
from gguf_eval.study.stages.reference import ModelPoints, Point, by_model
from gguf_eval.study.stages.state import Asked, FoundPoint, ReadyPoint, RunState, TextRequest, fail, run_job
from gguf_eval.tasks.texts import WIKITEXT2_BYTES

Execute = Callable[[Job, OnEvent], None]
"""Runs a job, and passes its events on."""


@dataclass(frozen=True)
class TextJob:
    """Run a model over a text. Events: ``build``, ``plan``, ``rows``, ``peak``."""

    model: str
    text: str
    """Path of the text file."""
    n_ctx: int
    chunks: int | None
    stride: int | None
    batch_size: int
    threads: int | None
    engine: EngineSettings
    model_sha256: str
    write_reference: str = ""
    """Folder to store the model's distributions in, as what candidates are compared with."""
    reference_folder: str = ""
    """Folder with the stored distributions of ``reference_sha256``: the divergence from it is computed too."""
    reference_sha256: str = ""
    reference_settings: dict[str, Any] = field(default_factory=dict)
    """What changes the reference's answers, as in a point's settings."""
    reference_model: str = ""
    """Path of a reference that is run beside the model, window by window: exact, and twice the work."""
    worker: ClassVar[str] = "gguf_eval.study.stages.text_work"


@dataclass(frozen=True)
class TextModel:
    """A model file as it is run over a text."""

    name: str
    path: Path
    sha256: str
    engine: EngineSettings


def text_conditions(request: TextRequest, reference: TextModel | None) -> dict[str, Any]:
    """What the result of running a model over a text depends on, beside the model."""
    conditions: dict[str, Any] = {
        "text": request.text.name,
        "text_sha256": request.text.sha256,
        "n_ctx": request.n_ctx,
        "chunks": request.chunks,
        "stride": request.stride,
    }
    if reference is not None:
        conditions |= {
            "reference": reference.name,
            "reference_sha256": reference.sha256,
            "reference_settings": reference.engine.answer_settings,
            "exact": request.exact,
        }
    return conditions


def plan(asked: Asked, point: FoundPoint, model: ModelPoints[FoundPoint], lookup: StudyLookup) -> list[StagePlan]:
    """One stage, of the tokens that are scored."""
    request, text, rates = asked.request, asked.text, point.rates
    if text is None:
        windows = _windows(WIKITEXT2_BYTES, request.text_ctx, request.chunks, rates)
        return [_stage(asked.unread_text, windows, request.text_ctx, False, rates)] if asked.unread_text else []
    first = _first(model.members)
    base = text_model(first.planned, first.file) if first is not point and first.file else None
    done = point.id is not None and lookup.has_text(point.id, text_conditions(text, base))
    windows = _windows(text.text.path.stat().st_size, text.n_ctx, text.chunks, rates)
    return [_stage(text.text.name, windows, text.n_ctx, done, rates)]


def _windows(size_bytes: int, n_ctx: int, most: int | None, rates: Rates) -> int:
    windows = max(1, int(size_bytes / rates.characters_per_token) // n_ctx)
    return min(windows, most or windows)


def _stage(name: str, windows: int, n_ctx: int, done: bool, rates: Rates) -> StagePlan:
    scored = windows * n_ctx // 2  # a window's second half, as llama-perplexity counts
    return StagePlan("text", name, scored, scored if done else 0, Tally(), text_seconds(windows * n_ctx, rates))


def _first(members: Sequence[Point]) -> Point:
    """The point of a model that the others are compared with."""
    return max(members, key=lambda point: point.rank)


def text_model(point: PlannedPoint, file: ModelFile) -> TextModel:
    """The point as it is run over a text."""
    return TextModel(point.label, file.path, file.sha256, point.engine)


def run(state: RunState, points: Sequence[ReadyPoint], request: TextRequest) -> bool:
    """Run what is missing of every model; return whether nothing is. A point that fails leaves the others to go on."""
    complete = True
    for members in by_model(points).values():
        reference = _first(members)
        others = [point for point in members if point is not reference]
        base = text_model(reference.planned, reference.file)
        missing = [p for p in others if not state.study.has_text(p.id, text_conditions(request, base))]
        if missing or not state.study.has_text(reference.id, text_conditions(request, None)):
            stored = _run(state, reference, request, None, store=bool(others))
            complete &= stored
            for point in missing if stored else ():
                complete &= _run(state, point, request, base, store=False)
    return complete


def _run(state: RunState, point: ReadyPoint, request: TextRequest, base: TextModel | None, *, store: bool) -> bool:
    model, name = text_model(point.planned, point.file), point.planned.name
    try:
        record = run_text(
            model, request, partial(run_job, state, point.planned, point.log), state.observer, name,
            reference=base, store=store,
        )  # fmt: skip
    except (EngineError, UsageError) as error:
        fail(state, point, error)
        return False
    state.study.save_text(point.id, record)
    return True


def run_text(
    model: TextModel,
    request: TextRequest,
    execute: Execute,
    observer: Observer,
    name: str,
    *,
    reference: TextModel | None = None,
    store: bool = False,
) -> TextRecord:
    """Run one model; with ``reference`` also compare it, with ``store`` keep it as a reference for others.

    The observer knows the model by ``name``. A stored reference must be there before a model is compared with it,
    unless the request is exact. Raises `EngineError` where the worker fails.
    """
    job = TextJob(
        model=str(model.path),
        text=str(request.text.path),
        n_ctx=request.n_ctx,
        chunks=request.chunks,
        stride=request.stride,
        batch_size=request.batch_size,
        threads=request.threads,
        engine=model.engine,
        model_sha256=model.sha256,
        write_reference=str(request.references) if store else "",
        reference_folder=str(request.references) if reference and not request.exact else "",
        reference_sha256=reference.sha256 if reference else "",
        reference_settings=reference.engine.answer_settings if reference else {},
        reference_model=str(reference.path) if reference and request.exact else "",
    )
    plan: dict[str, Any] = {}
    parts: list[dict[str, npt.NDArray[Any]]] = []
    noise: dict[str, npt.NDArray[Any]] = {}
    with stage(observer, name, "text", request.text.name) as advance:

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "rows":
                parts.append(_unpacked(event["columns"]))
                advance(len(parts[-1]["nll"]))
            elif event["event"] == "noise":
                noise.update(_unpacked(event["columns"]))
            elif event["event"] in ("plan", "peak"):
                plan.update(event)

        execute(job, on_event)
    return TextRecord(
        conditions=text_conditions(request, reference),
        windows=plan["windows"],
        scored=plan["scored"],
        window_bytes=tuple(plan["window_bytes"]),
        columns={name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
        noise=noise,
        peak_bytes=plan["peak_bytes"],
    )


def _unpacked(columns: dict[str, list[str]]) -> dict[str, npt.NDArray[Any]]:
    return {name: np.frombuffer(base64.b64decode(data), np.dtype(kind)) for name, (kind, data) in columns.items()}
