"""The slow truth: llama.cpp called directly, one fresh context of one sequence for every request.

Nothing is shared, copied or rewound, and nothing of the package's own decoding is used: only the loaded model's handle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_eval.llama.library import library
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.settings import CACHE_TYPES

Row = npt.NDArray[np.float64]
_BATCH = 512


class FreshContext:
    """A context of one sequence, opened with the library's own defaults but for what is said."""

    def __init__(self, model: Model, tokens: int, cache_type: str = "F32", threads: int = 1) -> None:
        self._llama = library()
        self._vocabulary = model.vocab_size
        parameters = self._llama.llama_context_default_params()
        parameters.n_ctx = -(-tokens // 256) * 256
        parameters.n_batch = parameters.n_ubatch = _BATCH
        parameters.n_seq_max = 1
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.type_k = parameters.type_v = CACHE_TYPES[cache_type]
        if cache_type == "F32":
            parameters.flash_attn_type = 0
        self.handle = self._llama.llama_init_from_model(model.handle, parameters)
        assert self.handle, "llama.cpp can't open a context"
        self._position = 0

    def decode(self, tokens: Sequence[int], wanted: Collection[int]) -> dict[int, Row]:
        """Append ``tokens``; the logits after those at the places in ``wanted``."""
        rows: dict[int, Row] = {}
        for start in range(0, len(tokens), _BATCH):
            part = tokens[start : start + _BATCH]
            batch = self._llama.llama_batch_init(len(part), 0, 1)
            batch.n_tokens = len(part)
            for place, token in enumerate(part):
                batch.token[place], batch.pos[place] = token, self._position + place
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
                batch.logits[place] = int(start + place in wanted)
            status = self._llama.llama_decode(self.handle, batch)
            assert status == 0, f"llama_decode: {status}"
            for place in range(len(part)):
                if start + place in wanted:
                    pointer: Any = self._llama.llama_get_logits_ith(self.handle, place)
                    rows[start + place] = np.ctypeslib.as_array(pointer, (self._vocabulary,)).astype(np.float64)
            self._llama.llama_batch_free(batch)
            self._position += len(part)
        return rows


@contextmanager
def fresh(model: Model, tokens: int, cache_type: str = "F32") -> Iterator[FreshContext]:
    context = FreshContext(model, tokens, cache_type)
    try:
        yield context
    finally:
        library().llama_free(context.handle)


def log_softmax(row: Row) -> Row:
    shifted = row - row.max()
    return shifted - np.log(np.exp(shifted).sum())


def token_logprobs(
    model: Model, context: Sequence[int], continuation: Sequence[int], cache_type: str = "F32"
) -> list[float]:
    """Natural-log probability of each token of ``continuation``."""
    inputs = [*context, *continuation][:-1]
    first = len(inputs) - len(continuation)
    with fresh(model, len(inputs), cache_type) as opened:
        rows = opened.decode(inputs, range(first, len(inputs)))
    return [float(log_softmax(rows[first + i])[token]) for i, token in enumerate(continuation)]


def greedy(
    model: Model, prompt: Sequence[int], count: int, cache_type: str = "F32"
) -> tuple[tuple[int, ...], list[float]]:
    """Up to ``count`` most probable tokens after ``prompt``, and how far each led the second in logits."""
    llama = library()
    written: list[int] = []
    leads: list[float] = []
    with fresh(model, len(prompt) + count, cache_type) as opened:
        row = opened.decode(prompt, {len(prompt) - 1})[len(prompt) - 1]
        while True:
            best, second = np.argsort(row)[[-1, -2]]
            leads.append(float(row[best] - row[second]))
            if llama.llama_vocab_is_eog(model.vocab, int(best)):
                break
            written.append(int(best))
            if len(written) == count:
                break
            row = opened.decode([int(best)], {0})[0]
    return tuple(written), leads


def random_tokens(random: np.random.Generator, count: int, vocabulary: int = 256) -> tuple[int, ...]:
    return tuple(int(token) for token in random.integers(0, vocabulary, count))
