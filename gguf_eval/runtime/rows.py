"""Work on rows of logits over threads, in groups of rows that stay in the processor's cache."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
_ROWS_AT_ONCE = 8


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
