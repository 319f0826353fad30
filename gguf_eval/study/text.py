"""Runs models over a text in worker processes, the reference first."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_eval.llama.reasons import without_numbers
from gguf_eval.runtime.settings import EngineSettings
from gguf_eval.store.records import TextRecord
from gguf_eval.study.events import MemoryTaken, Observer, stage
from gguf_eval.study.jobs import TextJob
from gguf_eval.study.process import run_in_worker
from gguf_eval.tasks.texts import TextFile


@dataclass(frozen=True)
class TextRequest:
    """How models are run over a text."""

    text: TextFile
    references: Path
    """Folder of the stored references."""
    n_ctx: int = 512
    chunks: int | None = None
    stride: int | None = None
    batch_size: int = 512
    threads: int | None = None
    exact: bool = False
    """Run the reference beside each model instead of storing it."""


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


def run_text(
    model: TextModel,
    request: TextRequest,
    log: Path,
    *,
    reference: TextModel | None = None,
    store: bool = False,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
    on_memory: Callable[[int], None] | None = None,
    on_warning: Callable[[str], None] = lambda text: None,
) -> TextRecord:
    """Run one model; with ``reference`` also compare it, with ``store`` keep it as a reference for others.

    ``on_rows`` is told tokens scored and tokens in all, ``on_memory`` the bytes that the worker takes, ``on_warning``
    what llama.cpp warns of. A stored reference must be there before a model is compared with it, unless the request is
    exact. Raises `EngineError` where the worker fails.
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
    done = 0

    def on_event(event: dict[str, Any]) -> None:
        nonlocal done
        if event["event"] == "rows":
            parts.append(_unpacked(event["columns"]))
            done += len(parts[-1]["nll"])
            on_rows(done, plan["windows"] * plan["scored"])
        elif event["event"] == "noise":
            noise.update(_unpacked(event["columns"]))
        elif event["event"] in ("plan", "peak"):
            plan.update(event)

    run_in_worker(job, log, on_event, on_memory, on_warning)
    return TextRecord(
        conditions=text_conditions(request, reference),
        windows=plan["windows"],
        scored=plan["scored"],
        window_bytes=tuple(plan["window_bytes"]),
        columns={name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
        noise=noise,
        peak_bytes=plan["peak_bytes"],
    )


def run_texts(
    models: Sequence[TextModel], request: TextRequest, reference: TextModel | None, observer: Observer, log: Path
) -> list[tuple[str, TextRecord]]:
    """Run the reference, then every other model against it; the result is by name, in that order."""
    records = []
    if reference is not None:
        records.append((reference.name, run_observed(reference, request, None, store=True, observer=observer, log=log)))
    for model in models:
        if reference is None or (model.sha256, model.engine) != (reference.sha256, reference.engine):
            found = run_observed(model, request, reference, store=False, observer=observer, log=log)
            records.append((model.name, found))
    return records


def run_observed(
    model: TextModel,
    request: TextRequest,
    reference: TextModel | None,
    *,
    store: bool,
    observer: Observer,
    log: Path,
    name: str = "",
    on_warning: Callable[[str], None] | None = None,
) -> TextRecord:
    """`run_text`, telling the observer, to whom the model is ``name`` where that is given.

    llama.cpp's warnings are noted unless ``on_warning`` takes them.
    """
    point = name or model.name
    told: set[str] = set()

    def note(text: str) -> None:
        if without_numbers(text) not in told:
            told.add(without_numbers(text))
            observer.note(f"{point}: llama.cpp warns: {text}")

    with stage(observer, point, "text", request.text.name) as advance:
        seen = 0

        def on_rows(done: int, total: int) -> None:
            nonlocal seen
            advance(done - seen)
            seen = done

        def on_memory(used: int) -> None:
            observer.tell(MemoryTaken(point, used))

        return run_text(
            model,
            request,
            log,
            reference=reference,
            store=store,
            on_rows=on_rows,
            on_memory=on_memory,
            on_warning=on_warning or note,
        )


def _unpacked(columns: dict[str, list[str]]) -> dict[str, npt.NDArray[Any]]:
    return {name: np.frombuffer(base64.b64decode(data), np.dtype(kind)) for name, (kind, data) in columns.items()}
