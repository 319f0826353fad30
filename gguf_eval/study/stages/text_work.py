"""The worker's side of a text: negative log-likelihoods, and the divergence from a reference where one is named."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_eval.atomic import written_whole
from gguf_eval.errors import EngineError, UsageError
from gguf_eval.llama.library import build_info
from gguf_eval.machine import physical_cores
from gguf_eval.runtime.divergence import Compared, compare_exactly, compare_with_stored, condense
from gguf_eval.runtime.memory import peak_rss_bytes
from gguf_eval.runtime.model import Context, Model
from gguf_eval.runtime.perplexity import (
    Windows,
    decode_windows,
    negative_log_likelihoods,
    open_window_context,
    plan_windows,
    target_bytes,
)
from gguf_eval.runtime.placement import open_model
from gguf_eval.runtime.reference_file import ReferenceKey, ReferenceReader, ReferenceWriter, reference_path
from gguf_eval.runtime.rows import NOT_FINITE
from gguf_eval.runtime.settings import ContextSettings
from gguf_eval.study.job import Emit
from gguf_eval.study.stages.text import TextJob

NOISE_WINDOWS = 4
"""Windows that the noise floor is measured on."""
NOISE_BATCH = 32
"""Tokens of a batch there. Halves of a window give the same bits on a CPU; below 64 tokens attention is computed in
another order, as it is when a model writes."""
Columns = dict[str, npt.NDArray[Any]]


def work(job: TextJob, emit: Emit) -> None:
    """The worker's side."""
    text = Path(job.text).read_text(encoding="utf-8")
    with ExitStack() as stack:
        model = _open(job, job.model, stack)
        emit({"event": "build", **build_info()})
        windows = plan_windows(model, text, n_ctx=job.n_ctx, chunks=job.chunks, stride=job.stride)
        emit({
            "event": "plan",
            "windows": len(windows.tokens),
            "scored": windows.scored,
            "window_bytes": target_bytes(model, windows).tolist(),
            "windows_sha256": windows.sha256,
        })  # fmt: skip
        context = stack.enter_context(_context(job, model))
        waiting: list[Columns] = []
        ready = 0
        for columns in _columns(job, model, context, windows, stack):
            _check_finite(columns, job)
            waiting.append(columns)
            ready += len(columns["nll"])
            if ready % windows.scored == 0:  # whole windows
                emit({"event": "rows", "columns": _packed(waiting)})
                waiting, ready = [], 0
        if job.write_reference:
            emit({"event": "noise", "columns": _packed([_noise(job, model, windows, stack)])})
        emit({"event": "peak", "peak_bytes": peak_rss_bytes()[0]})


def _check_finite(columns: Columns, job: TextJob) -> None:
    """Raise `EngineError` where there is no likelihood or divergence: a mean over the text would be none either."""
    for name in ("nll", "reference_nll", "kld"):
        if name in columns and not np.isfinite(columns[name]).all():
            raise EngineError(f"{job.reference_model if name == 'reference_nll' else job.model}: {NOT_FINITE}")


def _open(job: TextJob, path: str, stack: ExitStack) -> Model:
    wanted = ContextSettings(n_ctx=job.n_ctx, batch_size=job.batch_size)
    return stack.enter_context(open_model(Path(path), job.engine, wanted))


def _context(job: TextJob, model: Model, *, batch_size: int | None = None) -> Context:
    return open_window_context(
        model, job.n_ctx, batch_size=batch_size or job.batch_size, threads=job.threads, engine=job.engine
    )


def _threads(job: TextJob) -> int:
    return job.threads or physical_cores()


def _columns(job: TextJob, model: Model, context: Context, windows: Windows, stack: ExitStack) -> Iterator[Columns]:
    if job.reference_model:
        yield from _beside(job, context, windows, stack)
    elif job.reference_folder:
        key = _key(model, windows, job.reference_sha256, job.reference_settings)
        reader = stack.enter_context(ReferenceReader(reference_path(Path(job.reference_folder), key), key))
        for rows in decode_windows(context, windows):
            yield _as_columns(compare_with_stored(rows, reader.read(len(rows.targets)), _threads(job)))
    elif job.write_reference:
        yield from _stored(job, model, context, windows)
    else:
        for rows in decode_windows(context, windows):
            yield {"nll": negative_log_likelihoods(rows, _threads(job))}


def _beside(job: TextJob, context: Context, windows: Windows, stack: ExitStack) -> Iterator[Columns]:
    reference = _open(job, job.reference_model, stack)
    text = Path(job.text).read_text(encoding="utf-8")
    theirs = plan_windows(reference, text, n_ctx=job.n_ctx, chunks=job.chunks, stride=job.stride)
    if theirs.sha256 != windows.sha256 or reference.vocab_size != context.model.vocab_size:
        raise UsageError(
            f"{job.model} and its reference {job.reference_model} cut the text into different tokens, so that there is "
            "no divergence between them; compare bits per byte"
        )
    beside = stack.enter_context(_context(job, reference))
    for rows, base in zip(decode_windows(context, windows), decode_windows(beside, windows), strict=True):
        yield _as_columns(compare_exactly(rows, base, _threads(job)))


def _stored(job: TextJob, model: Model, context: Context, windows: Windows) -> Iterator[Columns]:
    """Store the model's distributions unless they are; its likelihoods are in them."""
    key = _key(model, windows, job.model_sha256, job.engine.answer_settings)
    path = reference_path(Path(job.write_reference), key)
    if path.exists():
        with ReferenceReader(path, key) as reader:
            for _ in range(key.windows):
                yield {"nll": reader.read(key.scored)["nll"]}
        return
    with ReferenceWriter(path, key) as writer:
        for rows in decode_windows(context, windows):
            kept = condense(rows, key.dtype, seed=key.seed, threads=_threads(job))
            writer.write(kept)
            yield {"nll": kept["nll"]}


def _noise(job: TextJob, model: Model, windows: Windows, stack: ExitStack) -> Columns:
    """The model against itself, decoded in small batches: what differs is rounding. Kept beside the reference."""
    key = _key(model, windows, job.model_sha256, job.engine.answer_settings)
    path = reference_path(Path(job.write_reference), key)
    kept = path.with_suffix(f".noise-{NOISE_BATCH}x{NOISE_WINDOWS}.npz")
    if kept.exists() and kept.stat().st_mtime_ns >= path.stat().st_mtime_ns:
        with np.load(kept, allow_pickle=False) as arrays:
            return dict(arrays.items())
    some = Windows(windows.tokens[:NOISE_WINDOWS], windows.targets[:NOISE_WINDOWS], windows.first)
    reader = stack.enter_context(ReferenceReader(path, key))
    small = stack.enter_context(_context(job, model, batch_size=min(NOISE_BATCH, job.n_ctx // 2)))
    parts: list[Columns] = []
    for rows in decode_windows(small, some):
        compared = compare_with_stored(rows, reader.read(len(rows.targets)), _threads(job))
        parts.append({"kld": compared.kld, "same_top": compared.same_top})
        _check_finite(parts[-1], job)
    columns: Columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    with written_whole(kept) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **columns)  # type: ignore[arg-type]  # names are not those of its options
    return columns


def _key(model: Model, windows: Windows, sha256: str, settings: dict[str, Any]) -> ReferenceKey:
    return ReferenceKey(
        model_sha256=sha256,
        windows_sha256=windows.sha256,
        vocabulary=model.vocab_size,
        windows=len(windows.tokens),
        scored=windows.scored,
        settings=settings,
    )


def _as_columns(compared: Compared) -> Columns:
    columns: Columns = asdict(compared)
    return columns


def _packed(parts: list[Columns]) -> dict[str, list[str]]:
    """Each column as [dtype, base64 of its bytes]."""
    packed = {}
    for name in parts[0]:
        values = np.concatenate([part[name] for part in parts])
        packed[name] = [values.dtype.str, base64.b64encode(values.tobytes()).decode()]
    return packed
