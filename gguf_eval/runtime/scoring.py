"""Log-likelihoods of continuations: many sequences a decode, every shared prefix decoded once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gguf_eval.machine import physical_cores
from gguf_eval.runtime.model import MAX_SEQUENCES, Context, Model
from gguf_eval.runtime.prefix import Batch, build_trie
from gguf_eval.runtime.probe import decodes_together
from gguf_eval.runtime.reads import ConsumedRows, Encoded, Reads, RowConsumer
from gguf_eval.runtime.settings import EngineSettings
from gguf_eval.runtime.shared import batches, decode_batch, open_shared


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
        self.max_sequences = max_sequences
        self.threads = threads or physical_cores()
        self.stats = ScoringStats()

    def score(self, requests: Sequence[Request | TokenRequest]) -> list[Score]:
        """Score ``requests``; the result is in their order."""
        scores: dict[int, Score] = {}
        for done in self.stream(requests):
            scores.update(done)
        return [scores[i] for i in range(len(requests))]

    def stream(
        self, requests: Sequence[Request | TokenRequest], consumer: RowConsumer | None = None
    ) -> Iterator[dict[int, Score]]:
        """Score ``requests``; after each decode yield those it finished, by their place in ``requests``.

        ``consumer`` has been given all rows of a request that is yielded, unless it was refused.
        """
        began = time.perf_counter()
        encoded: dict[int, Encoded] = {}
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
            yield from self._decode_all(encoded, consumer)
        self.stats.total_seconds += time.perf_counter() - began

    def _encode(self, request: Request | TokenRequest) -> Encoded | Score:
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
        return Encoded(whole[truncated:-1], np.array(continuation, np.int32), truncated)

    def _decode_all(self, encoded: dict[int, Encoded], consumer: RowConsumer | None) -> Iterator[dict[int, Score]]:
        indices, entries = list(encoded), list(encoded.values())
        trie, paths = build_trie([entry.inputs for entry in entries])
        reads = Reads(
            paths,
            [entry.targets for entry in entries],
            self.threads,
            ConsumedRows(consumer, encoded) if consumer else None,
        )
        self.stats.unique_tokens += trie.size
        self.stats.total_tokens += sum(len(entry.inputs) for entry in entries)
        together = decodes_together(self.model, self.engine, self.threads)
        with open_shared(
            self.model,
            trie,
            batch_size=self.batch_size,
            max_sequences=self.max_sequences if together else 1,
            threads=self.threads,
            engine=self.engine,
        ) as context:
            for batch in batches(context, trie):
                finished = self._decode(context, batch, reads)
                if finished:
                    yield {
                        indices[place]: Score(*reads.result(place), truncated_tokens=entries[place].truncated)
                        for place in finished
                    }

    def _decode(self, context: Context, batch: Batch, reads: Reads) -> list[int]:
        """Decode one batch and read its rows; return the places of the requests it finished."""
        outputs = reads.outputs(batch)
        began = time.perf_counter()
        decode_batch(context, batch, outputs)
        self.stats.decode_seconds += time.perf_counter() - began
        rows = int(outputs.sum())
        self.stats.output_rows += rows
        self.stats.batches += 1
        return reads.store(batch, context.logits(rows)) if rows else []
