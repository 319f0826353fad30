"""Writes many answers side by side: finished ones leave, waiting ones enter, a shared prompt is decoded once.

Prompts are sorted, so that what a prompt shares with those after it is known: some sequences hold the prefixes that
coming prompts share, and every answer starts from a copy of the longest. Sequences are copied and dropped as a whole,
never cut, which every kind of memory can do.

An answer does not depend on what is written beside it, nor on how many are. With weights that are multiplied in
eight bits, a difference in the last bit of a sum grows to tenths of a logit and changes many texts; so every answer's
sums are added in the same order. Sequences have cells of their own, prompts are decoded one at a time, and tokens of
answers in multiples of four: llama.cpp's products with repacked weights take four rows together and the rest by another
kernel, and its attention over a single sequence is split in another way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from gguf_eval.machine import physical_cores
from gguf_eval.runtime.generation_sampling import TokenChooser
from gguf_eval.runtime.model import Context, Model
from gguf_eval.runtime.prefix import held_prefixes
from gguf_eval.runtime.probe import decodes_together
from gguf_eval.runtime.rows import NOT_FINITE
from gguf_eval.runtime.settings import ContextSettings, EngineSettings
from gguf_eval.runtime.thinking import Thoughts, Written
from gguf_eval.runtime.vocabulary import Vocabulary

FinishReason = Literal["stop", "eog", "length", "context", "broken"]
"""stop: a stop string; eog: the model ended its answer; length: the token limit; context: no room for more tokens;
broken: a logit was not a finite number."""

_WORTH_SHARING_TOKENS = 16
"""A shorter common prefix is decoded with each prompt: a decode of its own costs more."""
_MOST_HELD = 4
"""Nested prefixes that are held at a time: each takes as much memory as an answer."""
_ROWS_TOGETHER = 4
"""Rows that llama.cpp's kernels for repacked weights take together."""
_CACHE_BYTES = 2 << 30
"""Most memory of the key-value cache, unless one answer needs more."""


@dataclass(frozen=True)
class GenerationRequest:
    """Continue ``prompt`` until a stop string of the answer, an end-of-generation token or ``max_tokens``."""

    prompt: str | tuple[int, ...]
    """Text (BOS is added where the model's file asks for it), or tokens as they are decoded."""
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Generation:
    """What the model wrote."""

    text: str
    """The answer, without the stop string and what follows it, without control tokens, and without the thought."""
    tokens: tuple[int, ...] = ()
    """All tokens that were written, also those of the stop string; an end-of-generation token is left out."""
    finish_reason: FinishReason | None = None
    prompt_tokens: int = 0
    seconds: float = 0.0
    """From the first decode of the prompt's own tokens to the end; other answers were written meanwhile."""
    unscored_reason: str | None = None
    """Why there is no answer, or none that counts."""
    thought: str = ""
    """What stands before the answer of a model that thinks aloud, with its marks and the blanks after them."""


@dataclass
class GenerationStats:
    """What a generation run did, for progress and for benchmarks."""

    answers: int = 0
    generated_tokens: int = 0
    decoded_prompt_tokens: int = 0
    total_prompt_tokens: int = 0
    decodes: int = 0
    total_seconds: float = 0.0


@dataclass
class _Answer:
    """One answer on its way."""

    index: int
    request: GenerationRequest
    prompt: npt.NDArray[np.int32]
    room: int
    """Tokens it may write: the request's limit or what the context leaves."""
    text: Written
    chooser: TokenChooser
    position: int = 0
    """Tokens of it in the cache."""
    written: list[int] = field(default_factory=list)
    began: float = 0.0


class Generator:
    """Writes answers with one model; a context is opened for each call of `stream`."""

    def __init__(
        self,
        model: Model,
        *,
        max_tokens: int | None = None,
        parallel: int = 16,
        cache_bytes: int = _CACHE_BYTES,
        rows_together: int = _ROWS_TOGETHER,
        batch_size: int = 512,
        threads: int | None = None,
        engine: EngineSettings | None = None,
    ) -> None:
        """``max_tokens``: the longest prompt and answer together, the model's trained context unless given.

        ``parallel``: answers written side by side, fewer where the key-value cache would take more than
        ``cache_bytes``. ``rows_together``: decodes are filled to a multiple of this; 1 saves the filling and lets
        answers differ with ``parallel``.
        """
        self.model = model
        self.engine = engine or EngineSettings()
        self.max_tokens = max_tokens or model.trained_context
        self.parallel = parallel
        self.cache_bytes = cache_bytes
        self.rows_together = rows_together
        self.batch_size = max(batch_size, parallel + rows_together)
        self.threads = threads or physical_cores()
        self.vocabulary = Vocabulary(model)
        self.thoughts = Thoughts(model, self.vocabulary)
        self.stats = GenerationStats()

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Answer ``requests``; the result is in their order."""
        answers: dict[int, Generation] = {}
        for done in self.stream(requests):
            answers.update(done)
        return [answers[i] for i in range(len(requests))]

    def stream(self, requests: Sequence[GenerationRequest]) -> Iterator[dict[int, Generation]]:
        """Answer ``requests``; after each decode yield the answers it finished, by their place in ``requests``."""
        began = time.perf_counter()
        refused: dict[int, Generation] = {}
        waiting: list[_Answer] = []
        for index, request in enumerate(requests):
            prepared = self._prepare(index, request)
            if isinstance(prepared, Generation):
                refused[index] = prepared
            else:
                waiting.append(prepared)
        if refused:
            yield refused
        if waiting:
            waiting.sort(key=lambda answer: answer.prompt.astype(">i4").tobytes())
            self.stats.total_prompt_tokens += sum(len(answer.prompt) for answer in waiting)
            yield from self._write(waiting)
        self.stats.total_seconds += time.perf_counter() - began

    def _write(self, waiting: list[_Answer]) -> Iterator[dict[int, Generation]]:
        """Open a context for sorted answers, and write them."""
        together = decodes_together(self.model, self.engine, self.threads)
        most = _MOST_HELD if together else 0
        held = held_prefixes([answer.prompt for answer in waiting], worth=_WORTH_SHARING_TOKENS, most=most)
        cells = max(len(answer.prompt) + answer.room for answer in waiting)
        one = ContextSettings(
            n_ctx=-(-cells // 256) * 256,
            batch_size=self.batch_size,
            ubatch_size=self.batch_size,
            threads=self.threads,
            unified=False,
        ).with_engine(self.engine)
        depth = max(map(len, held))
        slots = self._slots(len(waiting), one, depth) if together else 1
        settings = replace(one, n_ctx=one.n_ctx * (depth + slots), max_sequences=depth + slots)
        with self.model.open_context(settings) as context:
            yield from _Run(self, context, deque(zip(waiting, held, strict=True)), depth, slots).results()

    def _prepare(self, index: int, request: GenerationRequest) -> _Answer | Generation:
        prompt = self.model.tokenize(request.prompt) if isinstance(request.prompt, str) else list(request.prompt)
        if not prompt:
            prompt = [self.model.prefix_token]
        left = self.max_tokens - len(prompt)
        if left < 1:
            reason = f"the prompt's {len(prompt)} tokens leave no room in the context of {self.max_tokens}"
            return Generation("", prompt_tokens=len(prompt), unscored_reason=reason)
        return _Answer(
            index=index,
            request=request,
            prompt=np.array(prompt, np.int32),
            room=min(request.max_tokens, left),
            text=self.thoughts.reader(prompt, request.stop),
            chooser=TokenChooser(request.temperature, request.top_p, request.seed),
        )

    def _slots(self, waiting: int, one: ContextSettings, depth: int) -> int:
        """How many sequences answers can be written in beside ``depth`` that are held; ``one`` opens a single one."""
        together = self.rows_together
        wanted = -(-min(self.parallel, waiting) // together) * together
        taken = self.model.context_bytes(one)
        affordable = self.cache_bytes // max(1, taken.get("KV", 0) + taken.get("RS", 0)) - depth
        if affordable >= together:
            affordable -= affordable % together
        return max(1, min(wanted, affordable))


class _Run:
    """One call of `Generator.stream`: which answers are in which sequences, and what the memory holds."""

    def __init__(
        self,
        generator: Generator,
        context: Context,
        waiting: deque[tuple[_Answer, tuple[int, ...]]],
        depth: int,
        slots: int,
    ) -> None:
        """``waiting``: answers with the lengths of the prefixes that are held for each. The first ``depth`` sequences
        hold prefixes, the others answers.
        """
        self._generator = generator
        self._context = context
        self._waiting = waiting
        self._active: dict[int, _Answer] = {}
        self._free = list(range(depth + slots - 1, depth - 1, -1))
        self._held: tuple[int, ...] = ()
        self._parallel = min(generator.parallel, slots)
        self._rows_together = generator.rows_together if slots >= generator.rows_together else 1

    def results(self) -> Iterator[dict[int, Generation]]:
        """Decode until every answer is finished."""
        while self._waiting or self._active:
            finished: dict[int, Generation] = {}
            while self._waiting and len(self._active) < self._parallel:
                finished |= self._enter(*self._waiting.popleft())
            if self._active:
                finished |= self._step()
            if finished:
                self._generator.stats.answers += len(finished)
                yield finished

    def _enter(self, answer: _Answer, held: tuple[int, ...]) -> dict[int, Generation]:
        """Decode a prompt after what is held of it, and write the answer's first token."""
        self._hold(answer.prompt, held)
        answer.began = time.perf_counter()
        sequence = self._free.pop()
        self._active[sequence] = answer
        start = held[-1] if held else 0
        if held:
            self._context.copy_whole(len(held) - 1, sequence, start)
        self._decode_prompt(sequence, answer.prompt, start, read=True)
        answer.position = len(answer.prompt)
        return self._continue_all([sequence])

    def _hold(self, prompt: npt.NDArray[np.int32], lengths: tuple[int, ...]) -> None:
        """Let the first sequences hold the prefixes of ``prompt`` with these lengths, each a copy of the one before."""
        while self._held != lengths[: len(self._held)]:
            self._held = self._held[:-1]
            self._context.drop(len(self._held))
        for level in range(len(self._held), len(lengths)):
            start = lengths[level - 1] if level else 0
            if level:
                self._context.copy_whole(level - 1, level, start)
            self._decode_prompt(level, prompt[: lengths[level]], start, read=False)
        self._held = lengths

    def _decode_prompt(self, sequence: int, prompt: npt.NDArray[np.int32], start: int, *, read: bool) -> None:
        """Decode ``prompt`` from ``start`` on, and have the logits of its last token computed if they are read."""
        for begin in range(start, len(prompt), self._generator.batch_size):
            part = np.ascontiguousarray(prompt[begin : begin + self._generator.batch_size])
            positions = np.arange(begin, begin + len(part), dtype=np.int32)
            outputs = np.zeros(len(part), np.int8)
            outputs[-1] = read and begin + len(part) == len(prompt)
            self._context.decode(part, positions, [(sequence,)] * len(part), outputs)
            self._generator.stats.decodes += 1
        self._generator.stats.decoded_prompt_tokens += len(prompt) - start

    def _step(self) -> dict[int, Generation]:
        """Write the next token of every answer."""
        sequences = sorted(self._active)
        idle = self._idle_beside(sequences)
        # llama.cpp computes a batch at once only where each sequence is the number after the one before it.
        rows = sorted(sequences + idle)
        answers = [self._active.get(sequence) for sequence in rows]
        self._context.decode(
            np.array([answer.written[-1] if answer else 0 for answer in answers], np.int32),
            np.array([answer.position if answer else 0 for answer in answers], np.int32),
            [(sequence,) for sequence in rows],
            np.array([answer is not None for answer in answers], np.int8),
        )
        self._generator.stats.decodes += 1
        for sequence in idle:
            self._context.drop(sequence)
        for sequence in sequences:
            self._active[sequence].position += 1
        return self._continue_all(sequences)

    def _idle_beside(self, sequences: Sequence[int]) -> list[int]:
        """Free sequences that fill a decode to a multiple of rows, those first that stand between ``sequences``."""
        low, high = sequences[0], sequences[-1]
        nearest = sorted(self._free, key=lambda free: (max(low - free, free - high, 0), free))
        return nearest[: -len(sequences) % self._rows_together]

    def _continue_all(self, sequences: Sequence[int]) -> dict[int, Generation]:
        """Choose the next token of each of ``sequences`` from the last decode's logits; return what is finished."""
        finished = {}
        for sequence, row in zip(sequences, self._context.logits(len(sequences)), strict=True):
            answer = self._active[sequence]
            reason = self._continue(answer, row)
            if reason is not None:
                del self._active[sequence]
                self._context.drop(sequence)
                self._free.append(sequence)
                finished[answer.index] = _finished(answer, reason)
        return finished

    def _continue(self, answer: _Answer, logits: npt.NDArray[np.float32]) -> FinishReason | None:
        """Write the next token of an answer; say why it ends, if it does."""
        token = answer.chooser.choose(logits)
        if token is None:
            return "broken"
        if self._generator.vocabulary.ends_answer(token):
            return "eog"
        answer.written.append(token)
        self._generator.stats.generated_tokens += 1
        if answer.text.add(token):
            return "stop"
        if len(answer.written) == answer.room:
            return "length" if answer.room == answer.request.max_tokens else "context"
        return None


def _finished(answer: _Answer, reason: FinishReason) -> Generation:
    if answer.text.close():
        reason = "stop"
    unscored = NOT_FINITE if reason == "broken" else answer.text.unfinished(reason, answer.room)
    seconds = time.perf_counter() - answer.began
    text, thought, tokens = answer.text.text, answer.text.thought, tuple(answer.written)
    return Generation(text, tokens, reason, len(answer.prompt), seconds, unscored, thought)
