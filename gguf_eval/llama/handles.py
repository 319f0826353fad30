"""Models and contexts as llama.cpp hands them out, each call with its reason where it fails."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf_eval.errors import EngineError
from gguf_eval.llama.library import library
from gguf_eval.llama.log import captured_log, take_reason, watch_log
from gguf_eval.llama.reasons import context_failure, decode_failure, load_failure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def load_model(path: Path, params: Any) -> tuple[Any, list[str]]:
    """A model and the log of its loading. Raises `EngineError`."""
    watch_log()
    take_reason()
    with captured_log() as log:
        model = library().llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise EngineError(f"{path}: llama.cpp can't load this model: {load_failure(take_reason())}")
    return model, log


def open_context(model: Any, params: Any) -> tuple[Any, list[str]]:
    """A context and the log of its opening. Raises `EngineError` where its memory can't be had."""
    take_reason()
    with captured_log() as log:
        context = library().llama_init_from_model(model, params)
    if not context:
        raise EngineError(f"llama.cpp can't open a context of {params.n_ctx} tokens: {context_failure(take_reason())}")
    return context, log


def decode(
    context: Any,
    tokens: NDArray[np.int32],
    positions: NDArray[np.int32],
    sequences: Sequence[Sequence[int]],
    outputs: NDArray[np.int8],
) -> None:
    """Run one llama_decode over ``n`` tokens and wait for it. Raises `EngineError`.

    tokens, positions, outputs: arrays of n; sequences: for each token the sequence ids that hold it, of which
    the first decides what it attends to. Logits of the rows marked in ``outputs`` are computed.
    """
    import numpy as np

    llama = library()
    counts = np.fromiter((len(ids) for ids in sequences), np.int32, len(sequences))
    ids = np.fromiter((i for group in sequences for i in group), np.int32, int(counts.sum()))
    starts = np.zeros(len(sequences), np.uint64)
    starts[1:] = np.cumsum(counts[:-1], dtype=np.uint64) * np.uint64(ids.itemsize)
    pointers = np.ascontiguousarray(starts + np.uint64(ids.ctypes.data), dtype=np.uintp)
    batch = llama.llama_batch()
    batch.n_tokens = len(tokens)
    batch.token = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
    batch.pos = positions.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
    batch.n_seq_id = counts.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
    batch.seq_id = pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))
    batch.logits = outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
    check_decoded(llama.llama_decode(context, batch))
    llama.llama_synchronize(context)


def check_decoded(status: int) -> None:
    """Raise `EngineError` for what llama_decode returns where it fails."""
    if status != 0:
        raise EngineError(f"llama_decode failed with status {status}: {decode_failure(take_reason())}")


def leading_bos(vocab: Any) -> int | None:
    """The beginning-of-sequence token, where the file's metadata asks for it before every text and there is one."""
    token = int(library().llama_vocab_bos(vocab))
    return token if library().llama_vocab_get_add_bos(vocab) and token >= 0 else None


def tokenize(vocab: Any, text: str, *, parse_special: bool = False) -> list[int]:
    """Token ids of ``text`` alone, without the special tokens that some files ask for around it.

    ``parse_special`` reads control tokens spelt out in the text (only for chat templates). Raises `EngineError`.
    """
    data = text.encode("utf-8")
    # A token is at least one byte; a space before the first needs one more place.
    capacity = len(data) + 2
    for _ in range(2):
        buffer = (ctypes.c_int32 * capacity)()
        count = library().llama_tokenize(vocab, data, len(data), buffer, capacity, False, parse_special)
        if count >= 0:
            return buffer[:count]
        capacity = -count  # a tokenizer that adds more (space prefix and normalisation can)
    raise EngineError(f"llama.cpp can't tokenise a text of {len(data)} bytes")


def written_text(write: Callable[[Any, int], int]) -> bytes:
    """What a C function writes into a buffer with room for a number of bytes.

    ``write`` returns how many it wrote; where they do not fit, how many there are, or that as a negative number.
    """
    capacity = 256
    for _ in range(2):
        buffer = ctypes.create_string_buffer(capacity)
        count = write(buffer, capacity)
        if 0 <= count < capacity:
            return buffer.raw[:count]
        capacity = abs(count) + 1
    return b""
