"""Work on rows of logits over threads, in groups of rows that stay in the processor's cache."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
NOT_FINITE = "a log-likelihood is not a finite number: the model's output is broken"
"""Why nothing can be said of an item, an answer or a text."""
_ROWS_AT_ONCE = 8


@dataclass(frozen=True)
class Rows:
    """Logits of tokens whose probability is read; valid until the next are asked for."""

    start: int
    """Number of the first row, counted through all that are read."""
    logits: Floats
    """(rows, vocabulary)."""
    targets: npt.NDArray[np.int32]


def in_blocks(logits: Floats, threads: int, work: Callable[[slice, Floats, Floats], None]) -> None:
    """Call ``work(rows, block, scratch)`` for every few rows: their slice, their logits, and room of the same shape.

    Threads take turns of whole row ranges; numpy works outside the interpreter's lock.
    """

    def run(rows: range) -> None:
        scratch = np.empty((_ROWS_AT_ONCE, logits.shape[1]), np.float32)
        for start in range(rows.start, rows.stop, _ROWS_AT_ONCE):
            part = slice(start, min(start + _ROWS_AT_ONCE, rows.stop))
            block = logits[part]
            work(part, block, scratch[: len(block)])

    bounds = np.linspace(0, len(logits), threads + 1).astype(int).tolist()
    shares = [range(low, high) for low, high in itertools.pairwise(bounds)]
    if threads == 1:
        run(shares[0])
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, shares))


def row_statistics(logits: Floats, threads: int = 1) -> tuple[Floats, Floats]:
    """For each row its maximum m and log(sum(exp(x - m))), in float32; log-softmax is x - m - that."""
    maximum, total = np.empty(len(logits), np.float32), np.empty(len(logits), np.float32)

    def reduce(part: slice, block: Floats, scratch: Floats) -> None:
        maximum[part] = block.max(axis=1)
        np.subtract(block, maximum[part, None], out=scratch)
        total[part] = np.exp(scratch, out=scratch).sum(axis=1)

    in_blocks(logits, threads, reduce)
    return maximum, np.log(total)
