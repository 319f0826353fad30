"""Makes an importance matrix: which input columns of each weight matrix matter most, seen on a calibration text.

The text is cut and run as llama-imatrix does it: tokenised once with the model's special tokens, cut into chunks of the
context's size, the first token of each replaced by the beginning-of-sequence token where the model uses one.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf_eval.errors import EngineError, ModelFileError, UsageError
from gguf_eval.files.cache import model_sha256
from gguf_eval.files.header import read_header
from gguf_eval.files.imatrix_collect import Collector
from gguf_eval.files.imatrix_file import Imatrix, read_imatrix, write_imatrix
from gguf_eval.files.provenance import PREFIX, package_version
from gguf_eval.files.quantize import physical_cores
from gguf_eval.files.quantize_call import native_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK_TOKENS = 512
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


def make_imatrix(
    model: Path,
    text: str,
    output: Path,
    *,
    dataset: str,
    chunks: int | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
    with_output: bool = False,
    threads: int | None = None,
    gpu_layers: int = 0,
    save_every: int = 10,
    on_progress: Callable[[int, int], None] | None = None,
) -> Imatrix:
    """Run ``text`` through the model and write the importance matrix to ``output``; return it.

    ``chunks`` bounds how much of the text is used, ``dataset`` is the name it goes by in the file. Every ``save_every``
    chunks the sums go to ``<output>.partial``: a run that was interrupted goes on from there, with the same model and
    text. ``on_progress`` is told chunks done and chunks in all. ``gpu_layers`` is -1 for all. Raises `UsageError`,
    `ModelFileError` or `EngineError`.
    """
    read_header(model)
    sha256 = model_sha256(model)
    collector = Collector(with_output=with_output)
    partial = output.with_name(output.name + ".partial")
    with ExitStack() as stack:
        context, tokens, bos = _open(
            stack,
            model,
            text,
            collector,
            chunk_tokens=chunk_tokens,
            threads=threads or physical_cores(),
            gpu_layers=gpu_layers,
        )
        available = len(tokens) // chunk_tokens
        if available < 2:
            raise UsageError(
                f"{dataset}: {2 * chunk_tokens:,} tokens are needed, the text has {len(tokens):,}; give a longer text"
            )
        total = available if chunks is None else min(chunks, available)
        settings = f"{sha256} {chunk_tokens} {with_output} {bos}"

        def written(done: int) -> Imatrix:
            state = _state(settings, tokens[: done * chunk_tokens])
            extra = {_STATE: state, _DONE: str(done), PREFIX + "model_sha256": sha256}
            extra[PREFIX + "version"] = package_version("gguf-eval")
            return Imatrix(collector.entries(), (dataset,), done, chunk_tokens, extra)

        done = _resume(partial, collector, lambda count: _state(settings, tokens[: count * chunk_tokens]), total)
        while done < total:
            chunk = tokens[done * chunk_tokens : (done + 1) * chunk_tokens].copy()
            if bos is not None:
                chunk[0] = bos
            _run_chunk(context, chunk, collector)
            done += 1
            if on_progress is not None:
                on_progress(done, total)
            if save_every and done % save_every == 0 and done < total:
                write_imatrix(partial, written(done))
        imatrix = written(done)
    write_imatrix(output, imatrix)
    partial.unlink(missing_ok=True)
    return imatrix


def unused_experts(imatrix: Imatrix) -> dict[str, int]:
    """Return how many experts of each stack the text never reached; quantizing treats their columns alike."""
    unused = {name: int((entry.counts == 0).sum()) for name, entry in imatrix.entries.items()}
    return {name: count for name, count in unused.items() if count}


def _open(
    stack: ExitStack, model: Path, text: str, collector: Collector, *, chunk_tokens: int, threads: int, gpu_layers: int
) -> tuple[Any, NDArray[np.int32], int | None]:
    """Load the model; return the context, the tokens of the text and the beginning-of-sequence token, if it is used."""
    import llama_cpp

    llama_cpp.llama_backend_init()
    model_params = llama_cpp.llama_model_default_params()
    model_params.n_gpu_layers = gpu_layers
    loaded = llama_cpp.llama_model_load_from_file(native_path(model), model_params)
    if not loaded:
        raise EngineError(f"{model}: llama.cpp could not load it; its log says why")
    stack.callback(llama_cpp.llama_model_free, loaded)
    vocabulary = llama_cpp.llama_model_get_vocab(loaded)
    tokens = _tokenize(vocabulary, text)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = chunk_tokens
    params.n_ubatch = min(_UBATCH_TOKENS, chunk_tokens)
    params.n_seq_max = 1
    params.n_threads = params.n_threads_batch = threads
    params.cb_eval = collector.callback
    context = llama_cpp.llama_init_from_model(loaded, params)
    if not context:
        raise EngineError(f"{model}: llama.cpp could not make a context of {chunk_tokens} tokens; its log says why")
    stack.callback(llama_cpp.llama_free, context)
    bos = llama_cpp.llama_vocab_bos(vocabulary) if llama_cpp.llama_vocab_get_add_bos(vocabulary) else None
    return context, tokens, bos


def _tokenize(vocabulary: Any, text: str) -> NDArray[np.int32]:
    import llama_cpp
    import numpy as np

    raw = text.encode("utf-8")
    room = len(raw) + 16
    buffer = (ctypes.c_int32 * room)()
    count = llama_cpp.llama_tokenize(vocabulary, raw, len(raw), buffer, room, True, False)
    if count < 0:
        raise EngineError(
            f"llama.cpp could not tokenise the text ({len(raw):,} bytes): it wants room for {-count:,} tokens"
        )
    return np.array(buffer[:count], dtype=np.int32)


def _run_chunk(context: Any, chunk: NDArray[np.int32], collector: Collector) -> None:
    import llama_cpp

    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    batch = llama_cpp.llama_batch_init(len(chunk), 0, 1)
    try:
        batch.n_tokens = len(chunk)
        for i, token in enumerate(chunk.tolist()):
            batch.token[i], batch.pos[i] = token, i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            # All outputs are asked for, or the last layer would only see the rows that are.
            batch.logits[i] = 1
        status = llama_cpp.llama_decode(context, batch)
        llama_cpp.llama_synchronize(context)
    finally:
        llama_cpp.llama_batch_free(batch)
    if collector.failure is not None:
        raise collector.failure
    if status:
        raise EngineError(
            f"llama.cpp could not decode a chunk of {len(chunk)} tokens (status {status}); its log says why"
        )
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
