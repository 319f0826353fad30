"""What is read of the logits of planned batches, and who else wants to see the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gguf_eval.runtime.prefix import Batch
from gguf_eval.runtime.rows import Rows, row_statistics

_ROWS_TAKEN_AT_ONCE = 64
"""Rows copied together for who takes them: 50 MB at a vocabulary of 200,000."""


@dataclass(frozen=True)
class Encoded:
    """One request as it is decoded."""

    inputs: npt.NDArray[np.int32]
    """All tokens but the last, which is only predicted."""
    targets: npt.NDArray[np.int32]
    """The continuation's tokens; the last ``len(targets)`` inputs predict them."""
    truncated: int


class RowConsumer(Protocol):
    """Is given the logits of the requests it wants, as they are decoded."""

    def begin(self, request: int, inputs: npt.NDArray[np.int32], targets: npt.NDArray[np.int32]) -> bool:
        """Whether the rows of this request, by its place among the requests, are wanted."""
        ...

    def take(self, requests: Sequence[int], places: Sequence[int], rows: Rows) -> None:
        """Finite rows: row i predicts target ``places[i]`` of request ``requests[i]``. Valid until this returns."""
        ...


class Reads:
    """Which logits of which trie node answer which request, and what was read so far."""

    def __init__(
        self,
        paths: Sequence[npt.NDArray[np.int32]],
        targets: Sequence[npt.NDArray[np.int32]],
        threads: int,
        taken: ConsumedRows | None,
    ) -> None:
        """``paths``: the trie node of each input position of a request; the last ones predict its targets."""
        counts = np.array([len(wanted) for wanted in targets])
        nodes = np.concatenate([path[-len(t) :] for path, t in zip(paths, targets, strict=True)])
        order = np.argsort(nodes, kind="stable")
        self._threads = threads
        self._taken = taken
        self._ends = np.cumsum(counts)
        self._begins = self._ends - counts
        self._nodes = nodes[order]
        self._targets = np.concatenate(targets)[order]
        self._owners = np.repeat(np.arange(len(targets)), counts)[order]
        self._slots = order
        self._missing = counts
        self._logprobs = np.empty(len(nodes), np.float32)
        self._greedy = np.zeros(len(nodes), bool)

    def outputs(self, batch: Batch) -> npt.NDArray[np.int8]:
        """Mark the tokens of the batch whose logits are read."""
        first, end = self._spans(batch)
        return (end > first).astype(np.int8)

    def _spans(self, batch: Batch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """For each token of the batch the first of its reads, in the order of nodes, and the one after the last."""
        return np.searchsorted(self._nodes, batch.nodes, "left"), np.searchsorted(self._nodes, batch.nodes, "right")

    def store(self, batch: Batch, logits: npt.NDArray[np.float32]) -> list[int]:
        """Keep what ``logits`` (rows in batch order) says; return the places of requests that are now complete."""
        first, end = self._spans(batch)
        read = end > first
        counts = (end - first)[read]
        rows = np.repeat(np.arange(len(counts)), counts)
        span = np.arange(len(rows)) + np.repeat(first[read] - (np.cumsum(counts) - counts), counts)
        maximum, log_total = row_statistics(logits, self._threads)
        chosen = logits[rows, self._targets[span]]
        slots, owners = self._slots[span], self._owners[span]
        self._logprobs[slots] = (chosen - maximum[rows]) - log_total[rows]
        self._greedy[slots] = chosen >= maximum[rows]
        if self._taken is not None:
            finite = np.isfinite(self._logprobs[slots])
            self._taken.give(owners, slots - self._begins[owners], logits, rows, self._targets[span], finite)
        touched, counts = np.unique(owners, return_counts=True)
        self._missing[touched] -= counts
        return [int(place) for place in touched[self._missing[touched] == 0]]

    def result(self, place: int) -> tuple[tuple[float, ...], bool]:
        """Log-probabilities of a complete request's targets, and whether all were the most probable token."""
        low, high = int(self._begins[place]), int(self._ends[place])
        return tuple(self._logprobs[low:high].tolist()), bool(self._greedy[low:high].all())


class ConsumedRows:
    """The requests whose rows somebody wants."""

    def __init__(self, consumer: RowConsumer, encoded: Mapping[int, Encoded]) -> None:
        self._consumer = consumer
        self._requests = list(encoded)
        self._wanted = np.array([consumer.begin(i, entry.inputs, entry.targets) for i, entry in encoded.items()])

    def give(
        self,
        owners: npt.NDArray[np.int64],
        places: npt.NDArray[np.int64],
        logits: npt.NDArray[np.float32],
        rows: npt.NDArray[np.int64],
        targets: npt.NDArray[np.int32],
        finite: npt.NDArray[np.bool_],
    ) -> None:
        """Hand over what is wanted: for each target read its request, its place there and its row of ``logits``."""
        inside = np.flatnonzero(self._wanted[owners] & finite)
        for start in range(0, len(inside), _ROWS_TAKEN_AT_ONCE):
            part = inside[start : start + _ROWS_TAKEN_AT_ONCE]
            requests = [self._requests[owner] for owner in owners[part]]
            self._consumer.take(requests, places[part].tolist(), Rows(0, logits[rows[part]], targets[part]))
