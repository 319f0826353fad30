"""Sees whether a model answers the same when sequences are decoded together as when each is decoded alone.

llama.cpp's graphs of some architectures are wrong for several sequences (PLaMo-2's are, in the version this was made
with), and nothing says so. A few short sequences that share prefixes are decoded in both ways. What differs by rounding
is small beside what the model says of different texts; a state of another sequence is not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gguf_eval.llama.log import add_warning
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.prefix import Tokens, build_trie
from gguf_eval.runtime.settings import ContextSettings, EngineSettings
from gguf_eval.runtime.shared import batches, decode_batch, open_shared

_TEXT = (
    "In the year 1850 a small ship left the harbour of Lisbon with twelve people on board, two of them children. "
    "def area(width, height): return width * height. How many birds sat on the roof before the rain began? "
)
_BATCH = 24
_LARGEST_CHANGE = 0.4
"""Of the logits, beside their usual distance between the sequences. By benchmarks/probe.py (SmolLM2 135M and Gemma 3
270M, five levels each): rounding changes them by 0.001 to 0.18, the answer to another sequence by 0.78 or more. Smaller
faults than that are not seen here."""

_KNOWN_ALONE = ("plamo2",)
"""Architectures whose graph of several sequences ends the process: the state of sequence k is written at k * n_seqs
(llama.cpp 0c1e57098, src/models/plamo2.cpp)."""

Logits = npt.NDArray[np.float64]


def decodes_together(model: Model, engine: EngineSettings, threads: int) -> bool:
    """Whether sequences may share a decode; found out once for a loaded model, and warned of where they may not."""
    if model.decodes_together is None:
        model.decodes_together = model.architecture not in _KNOWN_ALONE and _alike(*both_ways(model, engine, threads))
        if not model.decodes_together:
            add_warning(
                "answers of this model change where several sequences share a decode; "
                "it is asked one sequence at a time, which is slower"
            )
    return model.decodes_together


def both_ways(model: Model, engine: EngineSettings, threads: int) -> tuple[Logits, Logits]:
    """The (sequences, vocabulary) logits after a few sequences: of each alone, and of all together.

    The cache is in F16 whatever ``engine`` says: with one of four bits rounding alone reaches the size of a fault.
    """
    engine = replace(engine, cache_type_k="F16", cache_type_v="F16")
    sequences = _sequences(model)
    alone = np.stack([_alone(model, tokens, engine, threads) for tokens in sequences])
    return alone, _together(model, sequences, engine, threads)


def _alike(alone: Logits, together: Logits) -> bool:
    """Whether rows differ by rounding only. A model whose own logits are not finite can't be judged here."""
    if not np.isfinite(alone).all():
        return True
    return bool(relative_changes(alone, together).max() <= _LARGEST_CHANGE)


def relative_changes(alone: Logits, together: Logits) -> Logits:
    """How far each sequence's logits are from those alone, beside the median distance between sequences alone."""
    between = [_distance(first, second) for i, first in enumerate(alone) for second in alone[i + 1 :]]
    changes = [_distance(first, second) for first, second in zip(alone, together, strict=True)]
    relative: Logits = np.array(changes) / max(float(np.median(between)), 1e-12)
    return relative


def _distance(first: Logits, second: Logits) -> float:
    """Root mean square of the difference, but for a constant; infinite where it is not a number."""
    change = first - second
    spread = float(np.std(change))
    return spread if np.isfinite(spread) else float("inf")


def _sequences(model: Model) -> list[Tokens]:
    """Five sequences: three share a prefix, two of these a longer one; their lengths differ."""
    tokens = np.array(model.tokenize(_TEXT, add_special=False), np.int32)
    text = np.tile(tokens, -(-64 // len(tokens)))
    start, one, other = text[:18], text[18:34], text[34:64]
    parts = [
        [start, one[:7]], [start, one[:3], other[:9]], [start, other[:5]], [other[5:15]], [one[9:12], other[20:]],
    ]  # fmt: skip
    return [np.concatenate(part) for part in parts]


def _alone(model: Model, tokens: Tokens, engine: EngineSettings, threads: int) -> Logits:
    settings = ContextSettings(n_ctx=256, batch_size=64, threads=threads, swa_full=True).with_engine(engine)
    with model.open_context(settings) as context:
        outputs = np.zeros(len(tokens), np.int8)
        outputs[-1] = 1
        context.decode(tokens, np.arange(len(tokens), dtype=np.int32), [(0,)] * len(tokens), outputs)
        row: Logits = context.logits(1)[0].astype(np.float64)
        return row


def _together(model: Model, sequences: list[Tokens], engine: EngineSettings, threads: int) -> Logits:
    trie, paths = build_trie(sequences)
    wanted = {int(path[-1]): place for place, path in enumerate(paths)}
    found = np.full((len(sequences), model.vocab_size), np.nan)
    with open_shared(model, trie, batch_size=_BATCH, max_sequences=16, threads=threads, engine=engine) as context:
        for batch in batches(context, trie):
            read = [wanted[node] for node in batch.nodes.tolist() if node in wanted]
            outputs = np.array([node in wanted for node in batch.nodes.tolist()], np.int8)
            decode_batch(context, batch, outputs)
            if read:
                found[read] = context.logits(len(read))
    return found
