"""Log-likelihoods of continuations: many sequences a decode, every shared prefix decoded once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gguf_eval.machine import physical_cores
from gguf_eval.runtime.model import MAX_SEQUENCES, Context, ContextSettings, Model
from gguf_eval.runtime.prefix import Batch, build_trie, plan_batches
from gguf_eval.runtime.rows import Rows, row_statistics
from gguf_eval.runtime.settings import EngineSettings

_ROWS_TAKEN_AT_ONCE = 64
"""Rows copied together for who takes them: 50 MB at a vocabulary of 200,000."""


@dataclass(frozen=True)
class Request:
    """Score ``continuation`` after ``context``; an empty context becomes the model's BOS (or EOS) token."""

    context: str
    continuation: str


@dataclass(frozen=True)
class TokenRequest:
    """The same for tokens: at least one of context."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """What the model says of one request."""

    token_logprobs: tuple[float, ...]
    """Natural-log probability of every token of the continuation."""
    greedy: bool
    """Whether greedy decoding would have produced the continuation."""
    truncated_tokens: int = 0
    """Tokens cut from the left of the context because the request was longer than the model's context."""
    unscored_reason: str | None = None

    @property
    def logprob(self) -> float:
        """Summed log-probability in nats."""
        return float(np.sum(self.token_logprobs))


class RowTaker(Protocol):
    """Is given the logits of the requests it wants, as they are decoded."""

    def begin(self, request: int, inputs: npt.NDArray[np.int32], targets: npt.NDArray[np.int32]) -> bool:
        """Whether the rows of this request, by its place among the requests, are wanted."""
        ...

    def take(self, requests: Sequence[int], places: Sequence[int], rows: Rows) -> None:
        """Finite rows: row i predicts target ``places[i]`` of request ``requests[i]``. Valid until this returns."""
        ...


@dataclass
class ScoringStats:
    """What a scoring run did, for progress and for benchmarks."""

    requests: int = 0
    truncated_requests: int = 0
    unique_tokens: int = 0
    total_tokens: int = 0
    output_rows: int = 0
    batches: int = 0
    decode_seconds: float = 0.0
    total_seconds: float = 0.0


def encode_pair(model: Model, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Tokens of a context and of its continuation, by lm-evaluation-harness's convention.

    Trailing spaces of the context move to the continuation; both are encoded together and split at the length of the
    context's own encoding. An empty context becomes the model's prefix token.
    """
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    if not stripped:
        return [model.prefix_token], model.tokenize(continuation, add_special=False)
    whole = model.tokenize(stripped + continuation)
    split = len(model.tokenize(stripped))
    return whole[:split], whole[split:]


@dataclass(frozen=True)
class _Encoded:
    """One request as it is decoded."""

    inputs: npt.NDArray[np.int32]
    """All tokens but the last, which is only predicted."""
    targets: npt.NDArray[np.int32]
    """The continuation's tokens; the last ``len(targets)`` inputs predict them."""
    truncated: int


class Scorer:
    """Scores requests with one model; a context is opened for the longest request of each call."""

    def __init__(
        self,
        model: Model,
        *,
        max_tokens: int | None = None,
        batch_size: int = 512,
        max_sequences: int = MAX_SEQUENCES,
        threads: int | None = None,
        engine: EngineSettings | None = None,
    ) -> None:
        """``max_tokens``: the longest input that is decoded whole, the model's trained context unless given."""
        self.engine = engine or EngineSettings()
        self.model = model
        self.max_tokens = max_tokens or model.trained_context
        self.batch_size = batch_size
        # llama.cpp reserves a row of logits for every sequence, and a batch can't hold more rows than tokens.
        self.max_sequences = min(max_sequences, batch_size)
        self.threads = threads or physical_cores()
        self.stats = ScoringStats()

    def score(self, requests: Sequence[Request | TokenRequest]) -> list[Score]:
        """Score ``requests``; the result is in their order."""
        scores: dict[int, Score] = {}
        for done in self.stream(requests):
            scores.update(done)
        return [scores[i] for i in range(len(requests))]

    def stream(
        self, requests: Sequence[Request | TokenRequest], taker: RowTaker | None = None
    ) -> Iterator[dict[int, Score]]:
        """Score ``requests``; after each decode yield those it finished, by their place in ``requests``.

        ``taker`` has been given all rows of a request that is yielded, unless it was refused.
        """
        began = time.perf_counter()
        encoded: dict[int, _Encoded] = {}
        refused: dict[int, Score] = {}
        for index, request in enumerate(requests):
            prepared = self._encode(request)
            if isinstance(prepared, Score):
                refused[index] = prepared
            else:
                encoded[index] = prepared
        self.stats.requests += len(requests)
        self.stats.truncated_requests += sum(1 for e in encoded.values() if e.truncated)
        if refused:
            yield refused
        if encoded:
            yield from self._decode_all(encoded, taker)
        self.stats.total_seconds += time.perf_counter() - began

    def _encode(self, request: Request | TokenRequest) -> _Encoded | Score:
        if isinstance(request, TokenRequest):
            context, continuation = list(request.context), list(request.continuation)
        else:
            context, continuation = encode_pair(self.model, request.context, request.continuation)
        if not continuation:
            return Score((), False, unscored_reason="the continuation has no tokens")
        if len(continuation) > self.max_tokens:
            reason = f"the continuation's {len(continuation)} tokens exceed the context of {self.max_tokens}"
            return Score((), False, unscored_reason=reason)
        whole = np.array(context + continuation, np.int32)
        truncated = max(0, len(whole) - 1 - self.max_tokens)
        return _Encoded(whole[truncated:-1], np.array(continuation, np.int32), truncated)

    def _decode_all(self, encoded: dict[int, _Encoded], taker: RowTaker | None) -> Iterator[dict[int, Score]]:
        indices, entries = list(encoded), list(encoded.values())
        trie, paths = build_trie([entry.inputs for entry in entries])
        taken = _Taken(taker, encoded) if taker else None
        reads = _Reads(paths, [entry.targets for entry in entries], self.threads, taken)
        self.stats.unique_tokens += trie.size
        self.stats.total_tokens += sum(len(entry.inputs) for entry in entries)
        cells = max(len(entry.inputs) for entry in entries) + self.batch_size
        settings = ContextSettings(
            n_ctx=-(-cells // 256) * 256,
            batch_size=self.batch_size,
            ubatch_size=self.batch_size,
            max_sequences=self.max_sequences,
            threads=self.threads,
        ).with_engine(self.engine)
        with self.model.open_context(settings) as context:
            trunk = 0
            for batch in plan_batches(trie, self.batch_size, self.max_sequences):
                finished = self._decode(context, batch, trunk, reads)
                trunk = batch.keep[0]
                if finished:
                    yield {
                        indices[place]: Score(*reads.result(place), truncated_tokens=entries[place].truncated)
                        for place in finished
                    }

    def _decode(self, context: Context, batch: Batch, trunk: int, reads: _Reads) -> list[int]:
        """Decode one batch and read its rows; return the places of the requests it finished."""
        for branch in batch.branches:
            if branch.shared_length:
                context.copy_sequence(trunk, branch.sequence, branch.shared_length)
        outputs = reads.outputs(batch)
        began = time.perf_counter()
        context.decode(batch.tokens, batch.positions, batch.sequences, outputs)
        self.stats.decode_seconds += time.perf_counter() - began
        rows = int(outputs.sum())
        finished = reads.store(batch, context.logits(rows)) if rows else []
        context.keep_only(*batch.keep)
        self.stats.output_rows += rows
        self.stats.batches += 1
        return finished


class _Reads:
    """Which logits of which trie node answer which request, and what was read so far."""

    def __init__(
        self,
        paths: Sequence[npt.NDArray[np.int32]],
        targets: Sequence[npt.NDArray[np.int32]],
        threads: int,
        taken: _Taken | None,
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

    def _span(self, batch: Batch) -> slice:
        low, high = np.searchsorted(self._nodes, [batch.first_node, batch.first_node + len(batch.tokens)])
        return slice(int(low), int(high))

    def outputs(self, batch: Batch) -> npt.NDArray[np.int8]:
        """Mark the tokens of the batch whose logits are read."""
        marks = np.zeros(len(batch.tokens), np.int8)
        marks[self._nodes[self._span(batch)] - batch.first_node] = 1
        return marks

    def store(self, batch: Batch, logits: npt.NDArray[np.float32]) -> list[int]:
        """Keep what ``logits`` (rows in batch order) says; return the places of requests that are now complete."""
        span = self._span(batch)
        _, rows = np.unique(self._nodes[span], return_inverse=True)
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


class _Taken:
    """The requests whose rows somebody wants."""

    def __init__(self, taker: RowTaker, encoded: Mapping[int, _Encoded]) -> None:
        self._taker = taker
        self._requests = list(encoded)
        self._wanted = np.array([taker.begin(i, entry.inputs, entry.targets) for i, entry in encoded.items()])

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
            self._taker.take(requests, places[part].tolist(), Rows(0, logits[rows[part]], targets[part]))
