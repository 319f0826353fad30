"""Decodes a trie in one context, sharing what the model's memory lets sequences share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from gguf_eval.errors import EngineError
from gguf_eval.runtime.branches import plan_branches
from gguf_eval.runtime.model import Context, Model
from gguf_eval.runtime.prefix import Batch, Trie, plan_batches
from gguf_eval.runtime.settings import ContextSettings, EngineSettings, MemoryKind

_STATE_BYTES = 1 << 30
"""Most memory of recurrent states, unless two sequences need more."""
_CELL_STEP = 256
"""llama.cpp rounds contexts up to a multiple of this."""


def open_shared(
    model: Model, trie: Trie, *, batch_size: int, max_sequences: int, threads: int, engine: EngineSettings
) -> Context:
    """A context for decoding the trie, with no more sequences than are of use. With one nothing is shared.

    Layers with a sliding window get cells for the whole context: those that two sequences hold are not used again.
    """
    longest = int(trie.leaf_length.max())
    # llama.cpp reserves a row of logits for every sequence, and a batch can't hold more rows than tokens.
    sequences = min(max_sequences, batch_size, len(trie.leaf_length))
    room = batch_size
    if model.memory is not MemoryKind.PLAIN and sequences > 1:
        sequences = min(sequences, _useful_sequences(trie, batch_size))
        room = 2 * batch_size  # for what is held beside a batch
    if model.memory is MemoryKind.RECURRENT and sequences > 1:
        one = ContextSettings(n_ctx=_CELL_STEP, batch_size=1, threads=threads).with_engine(engine)
        state_bytes = model.context_bytes(one).get("RS", 0)
        sequences = min(sequences, max(2, _STATE_BYTES // max(1, state_bytes)))
    while True:
        settings = ContextSettings(
            n_ctx=-(-(longest + room) // _CELL_STEP) * _CELL_STEP,
            batch_size=batch_size,
            ubatch_size=batch_size,
            max_sequences=sequences,
            threads=threads,
            swa_full=True,
        ).with_engine(engine)
        try:
            return model.open_context(settings)
        except EngineError:
            if model.memory is not MemoryKind.RECURRENT or sequences == 1:
                raise
            sequences //= 2  # states that did not fit


def _useful_sequences(trie: Trie, batch_size: int) -> int:
    """Enough for two batches of stretches of the usual length, and for some held at branches."""
    stretches = 2 * len(trie.leaf_length)
    return 8 + 2 * -(-batch_size * stretches // trie.size)


def batches(context: Context, trie: Trie) -> Iterator[Batch]:
    """The batches that decode the trie, in the way that this context's memory allows."""
    settings = context.settings
    if context.model.memory is MemoryKind.PLAIN and settings.max_sequences > 1:
        return plan_batches(trie, settings.batch_size, settings.max_sequences)
    return plan_branches(trie, settings.batch_size, settings.max_sequences, settings.n_ctx)


def decode_batch(context: Context, batch: Batch, outputs: npt.NDArray[np.int8]) -> None:
    """Decode one batch; afterwards the memory is ready for the next one, and the rows in ``outputs`` can be read."""
    for copy in batch.copies:
        if context.model.memory is MemoryKind.PLAIN and batch.keep is not None:
            context.copy_prefix(copy.source, copy.target, copy.length)
        else:
            context.copy_whole(copy.source, copy.target, copy.length)
    context.decode(batch.tokens, batch.positions, batch.sequences, outputs)
    if batch.keep is not None:
        context.keep_only(*batch.keep)
    for sequence in batch.drop:
        context.drop(sequence)
