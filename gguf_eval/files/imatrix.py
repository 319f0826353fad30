"""Makes an importance matrix: which input columns of each weight matrix matter most, seen on a calibration text.

The text is cut and run as llama-imatrix does it: tokenised once with the model's special tokens, cut into chunks of the
context's size, the first token of each replaced by the beginning-of-sequence token where the model uses one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf_eval.errors import ModelFileError, UsageError
from gguf_eval.files.cache import model_sha256
from gguf_eval.files.imatrix_collect import Collector
from gguf_eval.files.imatrix_file import Imatrix, read_imatrix, write_imatrix
from gguf_eval.files.kinds import check_is_model
from gguf_eval.files.provenance import PREFIX, package_version
from gguf_eval.llama.handles import decode, leading_bos, load_model, open_context, tokenize
from gguf_eval.llama.library import library
from gguf_eval.machine import physical_cores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_UBATCH_TOKENS = 512
_STATE, _DONE = PREFIX + "tokens_sha256", PREFIX + "chunks_done"


def read_text(path: Path) -> str:
    """Read a calibration text; one newline at its end is dropped, as llama.cpp's tools do."""
    try:
        return path.read_bytes().decode("utf-8").removesuffix("\n")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such text file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: a text file in UTF-8 is needed ({error})") from None


@dataclass(frozen=True)
class ImatrixRequest:
    """What importance matrix to make."""

    model: Path
    text: str
    dataset: str
    """The name that the text goes by in the file."""
    output: Path
    chunks: int | None = None
    """Chunks to use at most; None for all of the text."""
    chunk_tokens: int = 512
    with_output: bool = False
    """Collect for ``output.weight`` too."""
    threads: int | None = None
    """None for the physical cores."""
    gpu_layers: int = 0
    """-1 for all."""
    save_every: int = 10
    """Chunks between two savings of what there is so far; 0 for none."""


def make_imatrix(request: ImatrixRequest, on_progress: Callable[[tuple[int, int]], None] | None = None) -> Imatrix:
    """Run a text through a model, write its importance matrix and return it.

    Every few chunks the sums go to ``<output>.partial``: a run that was interrupted goes on from there, with the same
    model, text and settings. ``on_progress`` is told chunks done and chunks in all. Raises `UsageError`,
    `ModelFileError` or `EngineError`.
    """
    check_is_model(request.model)
    sha256 = model_sha256(request.model)
    collector = Collector(with_output=request.with_output)
    partial = request.output.with_name(request.output.name + ".partial")
    size = request.chunk_tokens
    with ExitStack() as stack:
        context, tokens, bos = _open(stack, request, collector)
        available = len(tokens) // size
        if available < 2:
            raise UsageError(
                f"{request.dataset}: {2 * size:,} tokens are needed, the text has {len(tokens):,}; give a longer text"
            )
        total = available if request.chunks is None else min(request.chunks, available)
        settings = f"{sha256} {size} {request.with_output} {bos}"

        def so_far(done: int) -> Imatrix:
            extra = {
                _STATE: _state(settings, tokens[: done * size]),
                _DONE: str(done),
                PREFIX + "model_sha256": sha256,
                PREFIX + "version": package_version("gguf-eval"),
            }
            return Imatrix(collector.entries(), (request.dataset,), done, size, extra)

        done = _resume(partial, collector, lambda count: _state(settings, tokens[: count * size]), total)
        while done < total:
            chunk = tokens[done * size : (done + 1) * size].copy()
            if bos is not None:
                chunk[0] = bos
            _run_chunk(context, chunk, collector)
            done += 1
            if on_progress is not None:
                on_progress((done, total))
            if request.save_every and done % request.save_every == 0 and done < total:
                write_imatrix(partial, so_far(done))
        imatrix = so_far(done)
    write_imatrix(request.output, imatrix)
    partial.unlink(missing_ok=True)
    return imatrix


def unused_experts(imatrix: Imatrix) -> dict[str, int]:
    """Return how many experts of each stack the text never reached; quantizing treats their columns alike."""
    unused = {name: int((entry.counts == 0).sum()) for name, entry in imatrix.entries.items()}
    return {name: count for name, count in unused.items() if count}


def _open(stack: ExitStack, request: ImatrixRequest, collector: Collector) -> tuple[Any, NDArray[np.int32], int | None]:
    """Load the model; return the context, the tokens of the text and the beginning-of-sequence token, if it is used."""
    import numpy as np

    llama = library()
    model_params = llama.llama_model_default_params()
    model_params.n_gpu_layers = request.gpu_layers
    model, _ = load_model(request.model, model_params)
    stack.callback(llama.llama_model_free, model)
    vocabulary = llama.llama_model_get_vocab(model)
    bos = leading_bos(vocabulary)
    tokens = tokenize(vocabulary, request.text)
    params = llama.llama_context_default_params()
    params.n_ctx = params.n_batch = request.chunk_tokens
    params.n_ubatch = min(_UBATCH_TOKENS, request.chunk_tokens)
    params.n_seq_max = 1
    params.n_threads = params.n_threads_batch = request.threads or physical_cores()
    params.cb_eval = collector.callback
    context, _ = open_context(model, params)
    stack.callback(llama.llama_free, context)
    return context, np.array(tokens if bos is None else [bos, *tokens], np.int32), bos


def _run_chunk(context: Any, chunk: NDArray[np.int32], collector: Collector) -> None:
    import numpy as np

    llama = library()
    llama.llama_memory_clear(llama.llama_get_memory(context), True)
    count = len(chunk)
    try:
        # All outputs are asked for, or the last layer would only see the rows that are.
        decode(context, chunk, np.arange(count, dtype=np.int32), [(0,)] * count, np.ones(count, np.int8))
    finally:
        if collector.failure is not None:
            raise collector.failure
    collector.next_batch()
    collector.check_finite()


def _state(settings: str, tokens: NDArray[np.int32]) -> str:
    return hashlib.sha256(settings.encode() + tokens.astype("<i4").tobytes()).hexdigest()


def _resume(partial: Path, collector: Collector, state: Callable[[int], str], total: int) -> int:
    """Load what an interrupted run left, when it is of the same model, text and settings; return its chunks."""
    if not partial.is_file():
        return 0
    try:
        earlier = read_imatrix(partial)
        done = int(earlier.extra.get(_DONE, "0"))
    except (ModelFileError, ValueError):
        return 0
    if not 0 < done <= total or earlier.extra.get(_STATE) != state(done):
        return 0
    for name, entry in earlier.entries.items():
        collector.load(name, entry)
    return done
