"""Writes answers in the sequences of one context: finished ones leave, waiting ones enter after the prefix held."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from gguf_eval.runtime.generation_sampling import TokenChooser
from gguf_eval.runtime.model import Context
from gguf_eval.runtime.thinking import Written
from gguf_eval.runtime.vocabulary import Vocabulary

FinishReason = Literal["stop", "eog", "length", "context", "broken"]
"""stop: a stop string; eog: the model ended its answer; length: the token limit; context: no room for more tokens;
broken: a logit was not a finite number."""


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
class Answer:
    """One answer on its way."""

    index: int
    prompt: npt.NDArray[np.int32]
    room: int
    """Tokens it may write: the request's limit or what the context leaves."""
    full: FinishReason
    """Why it ends where it has no more."""
    text: Written
    chooser: TokenChooser
    position: int = 0
    """Tokens of it in the cache."""
    written: list[int] = field(default_factory=list)
    began: float = 0.0
    seconds: float = 0.0
    """From the first decode of the prompt's own tokens to the end."""


Finished = tuple[Answer, FinishReason]


class Run:
    """Which answers are in which sequences of a context, and what its memory holds."""

    def __init__(
        self,
        context: Context,
        waiting: deque[tuple[Answer, tuple[int, ...]]],
        slots: range,
        *,
        parallel: int,
        rows_together: int,
        vocabulary: Vocabulary,
        stats: GenerationStats,
    ) -> None:
        """``waiting``: answers with the lengths of the prefixes that are held for each. The sequences ``slots`` hold
        answers, those before them prefixes. Decodes of answers are filled to a multiple of ``rows_together``.
        """
        self._context = context
        self._waiting = waiting
        self._active: dict[int, Answer] = {}
        self._free = list(reversed(slots))
        self._held: tuple[int, ...] = ()
        self._parallel = parallel
        self._rows_together = rows_together
        self._vocabulary = vocabulary
        self._stats = stats

    def results(self) -> Iterator[list[Finished]]:
        """Decode until every answer is finished."""
        while self._waiting or self._active:
            finished: list[Finished] = []
            while self._waiting and len(self._active) < self._parallel:
                finished += self._enter(*self._waiting.popleft())
            if self._active:
                finished += self._step()
            if finished:
                self._stats.answers += len(finished)
                yield finished

    def _enter(self, answer: Answer, held: tuple[int, ...]) -> list[Finished]:
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
        for begin in range(start, len(prompt), self._context.settings.batch_size):
            part = np.ascontiguousarray(prompt[begin : begin + self._context.settings.batch_size])
            positions = np.arange(begin, begin + len(part), dtype=np.int32)
            outputs = np.zeros(len(part), np.int8)
            outputs[-1] = read and begin + len(part) == len(prompt)
            self._context.decode(part, positions, [(sequence,)] * len(part), outputs)
            self._stats.decodes += 1
        self._stats.decoded_prompt_tokens += len(prompt) - start

    def _step(self) -> list[Finished]:
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
        self._stats.decodes += 1
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

    def _continue_all(self, sequences: Sequence[int]) -> list[Finished]:
        """Choose the next token of each of ``sequences`` from the last decode's logits; return what is finished."""
        finished: list[Finished] = []
        for sequence, row in zip(sequences, self._context.logits(len(sequences)), strict=True):
            answer = self._active[sequence]
            reason = self._continue(answer, row)
            if reason is not None:
                del self._active[sequence]
                self._context.drop(sequence)
                self._free.append(sequence)
                answer.seconds = time.perf_counter() - answer.began
                finished.append((answer, reason))
        return finished

    def _continue(self, answer: Answer, logits: npt.NDArray[np.float32]) -> FinishReason | None:
        """Write the next token of an answer; say why it ends, if it does."""
        token = answer.chooser.choose(logits)
        if token is None:
            return "broken"
        if self._vocabulary.ends_answer(token):
            return "eog"
        answer.written.append(token)
        self._stats.generated_tokens += 1
        if answer.text.add(token):
            return "stop"
        if len(answer.written) == answer.room:
            return answer.full
        return None
