"""Writes many answers side by side: finished ones leave, waiting ones enter, a shared prompt is decoded once.

Prompts are sorted, so that what a prompt shares with the one before it is in the cache: one sequence, the trunk, holds
the longest prefix that the coming prompts share, and every answer starts from a copy of its cells (no data is moved).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from gguf_eval.machine import physical_cores
from gguf_eval.runtime.generation_sampling import TokenChooser
from gguf_eval.runtime.generation_text import AnswerText
from gguf_eval.runtime.model import Context, ContextSettings, Model
from gguf_eval.runtime.prefix import shared_length
from gguf_eval.runtime.settings import EngineSettings
from gguf_eval.runtime.vocabulary import Vocabulary

FinishReason = Literal["stop", "eog", "length", "context"]
"""stop: a stop string; eog: the model ended its answer; length: the token limit; context: no room for more tokens."""

_TRUNK = 0
_WORTH_SHARING_TOKENS = 32
"""A shorter common prefix is decoded with each prompt: a decode of its own costs more."""


@dataclass(frozen=True)
class GenerationRequest:
    """Continue ``prompt`` until a stop string, an end-of-generation token or ``max_tokens``."""

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
    """Without the stop string and what follows it, and without control tokens."""
    tokens: tuple[int, ...] = ()
    """All tokens that were written, also those of the stop string; an end-of-generation token is left out."""
    finish_reason: FinishReason | None = None
    prompt_tokens: int = 0
    seconds: float = 0.0
    """From the first decode of the prompt's own tokens to the end; other answers were written meanwhile."""
    unscored_reason: str | None = None
    """Why there is no text."""


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
    text: AnswerText
    chooser: TokenChooser
    position: int = 0
    """Tokens of it in the cache."""
    shared: int = 0
    """Of these, the ones it took from the trunk."""
    written: list[int] = field(default_factory=list)
    began: float = 0.0

    @property
    def cells(self) -> int:
        """Cells of the cache it may come to need beside the shared ones."""
        return len(self.prompt) + self.room - self.shared

    def due(self, most: int) -> npt.NDArray[np.int32]:
        """The next tokens to decode."""
        if self.position < len(self.prompt):
            return self.prompt[self.position : self.position + most]
        return np.array(self.written[-1:], np.int32)


class Generator:
    """Writes answers with one model; a context is opened for each call of `stream`."""

    def __init__(
        self,
        model: Model,
        *,
        max_tokens: int | None = None,
        parallel: int = 16,
        max_cells: int = 8192,
        batch_size: int = 512,
        threads: int | None = None,
        engine: EngineSettings | None = None,
    ) -> None:
        """``max_tokens``: the longest prompt and answer together, the model's trained context unless given.

        ``parallel``: answers written side by side, fewer where their prompts and limits together need more than
        ``max_cells`` of the key-value cache (one answer always gets what it needs).
        """
        self.model = model
        self.engine = engine or EngineSettings()
        self.max_tokens = max_tokens or model.trained_context
        self.parallel = parallel
        self.max_cells = max_cells
        self.batch_size = max(batch_size, parallel + 1)
        self.threads = threads or physical_cores()
        self.vocabulary = Vocabulary(model)
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
            cells = self._cells(waiting)
            settings = ContextSettings(
                n_ctx=cells,
                batch_size=self.batch_size,
                ubatch_size=self.batch_size,
                max_sequences=min(self.parallel, len(waiting)) + 1,
                threads=self.threads,
            ).with_engine(self.engine)
            with self.model.open_context(settings) as context:
                yield from _Run(self, context, deque(waiting), cells).results()
        self.stats.total_seconds += time.perf_counter() - began

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
            text=AnswerText(request.stop),
            chooser=TokenChooser(request.temperature, request.top_p, request.seed),
        )

    def _cells(self, waiting: Sequence[_Answer]) -> int:
        """Cells of the cache: for all answers side by side, within ``max_cells``, and for any one of them."""
        needs = sorted((answer.cells for answer in waiting), reverse=True)
        wanted = max(min(sum(needs[: self.parallel]), self.max_cells), needs[0])
        return -(-wanted // 256) * 256


class _Run:
    """One call of `Generator.stream`: which answers are in which sequences, and what the cache holds."""

    def __init__(self, generator: Generator, context: Context, waiting: deque[_Answer], cells: int) -> None:
        self._generator = generator
        self._context = context
        self._waiting = waiting
        self._cells = cells
        self._active: dict[int, _Answer] = {}
        self._free = list(range(min(generator.parallel, len(waiting)), 0, -1))
        self._trunk = np.empty(0, np.int32)
        self._orphans: list[tuple[int, set[int]]] = []
        """Cells the trunk gave up, and the answers that still hold them."""

    def results(self) -> Iterator[dict[int, Generation]]:
        """Decode until every answer is finished."""
        while self._waiting or self._active:
            while self._waiting and self._free and self._fits(self._waiting[0]):
                self._enter(self._waiting.popleft())
            finished = self._step()
            if finished:
                self._generator.stats.answers += len(finished)
                yield finished

    def _fits(self, answer: _Answer) -> bool:
        if not self._active:
            return True  # the cache holds any one answer
        shared = self._shared(answer)
        held = len(self._trunk) + sum(cells for cells, _ in self._orphans)
        promised = sum(other.cells for other in self._active.values())
        return held + promised + answer.cells - shared <= self._cells

    def _shared(self, answer: _Answer) -> int:
        """Tokens of the prompt that the trunk holds, but for the last, whose logits are read."""
        return min(shared_length(self._trunk, answer.prompt), len(answer.prompt) - 1)

    def _enter(self, answer: _Answer) -> None:
        """Give an answer a sequence that starts with what it shares with the trunk."""
        shared = self._shared(answer)
        if shared < len(self._trunk):  # sorted order: no later prompt shares more
            self._context.drop(_TRUNK, shared)
            if self._active:
                self._orphans.append((len(self._trunk) - shared, set(self._active)))
            self._trunk = self._trunk[:shared]
        if self._waiting:
            following = self._waiting[0].prompt
            common = min(shared_length(answer.prompt, following), len(answer.prompt) - 1, len(following) - 1)
            if common - shared >= _WORTH_SHARING_TOKENS:
                self._grow_trunk(answer.prompt[:common])
                shared = common
        sequence = self._free.pop()
        if shared:
            self._context.copy_sequence(_TRUNK, sequence, shared)
        answer.shared = answer.position = shared
        answer.began = time.perf_counter()
        self._active[sequence] = answer

    def _grow_trunk(self, prefix: npt.NDArray[np.int32]) -> None:
        size = self._generator.batch_size
        for start in range(len(self._trunk), len(prefix), size):
            part = np.ascontiguousarray(prefix[start : start + size])
            positions = np.arange(start, start + len(part), dtype=np.int32)
            self._context.decode(part, positions, [(_TRUNK,)] * len(part), np.zeros(len(part), np.int8))
            self._generator.stats.decodes += 1
        self._generator.stats.decoded_prompt_tokens += len(prefix) - len(self._trunk)
        self._trunk = prefix

    def _step(self) -> dict[int, Generation]:
        """One decode: a token of every answer being written, then as many prompt tokens as there is room for."""
        room = self._generator.batch_size
        writing_first = sorted(self._active, key=lambda s: self._active[s].position < len(self._active[s].prompt))
        tokens: list[npt.NDArray[np.int32]] = []
        positions: list[npt.NDArray[np.int32]] = []
        owners: list[tuple[int]] = []
        outputs: list[int] = []
        reading: list[int] = []
        for sequence in writing_first:
            answer = self._active[sequence]
            due = answer.due(room)
            if len(due) == 0:
                continue
            tokens.append(due)
            positions.append(np.arange(answer.position, answer.position + len(due), dtype=np.int32))
            owners += [(sequence,)] * len(due)
            self._generator.stats.decoded_prompt_tokens += len(due) if not answer.written else 0
            answer.position += len(due)
            room -= len(due)
            complete = answer.position >= len(answer.prompt)
            outputs += [0] * (len(due) - 1) + [int(complete)]
            if complete:
                reading.append(sequence)
        self._context.decode(np.concatenate(tokens), np.concatenate(positions), owners, np.array(outputs, np.int8))
        self._generator.stats.decodes += 1
        finished = {}
        if reading:
            for sequence, row in zip(reading, self._context.logits(len(reading)), strict=True):
                reason = self._continue(self._active[sequence], row)
                if reason is not None:
                    answer = self._leave(sequence)
                    finished[answer.index] = _finished(answer, reason)
        return finished

    def _continue(self, answer: _Answer, logits: npt.NDArray[np.float32]) -> FinishReason | None:
        """Write the next token of an answer; say why it ends, if it does."""
        token = answer.chooser.choose(logits)
        vocabulary = self._generator.vocabulary
        if vocabulary.ends_answer(token):
            return "eog"
        answer.written.append(token)
        self._generator.stats.generated_tokens += 1
        if answer.text.add(vocabulary.piece(token)):
            return "stop"
        if len(answer.written) == answer.room:
            return "length" if answer.room == answer.request.max_tokens else "context"
        return None

    def _leave(self, sequence: int) -> _Answer:
        answer = self._active.pop(sequence)
        self._context.drop(sequence)
        self._free.append(sequence)
        remaining = ((cells, holders - {sequence}) for cells, holders in self._orphans)
        self._orphans = [(cells, holders) for cells, holders in remaining if holders]
        return answer


def _finished(answer: _Answer, reason: FinishReason) -> Generation:
    return Generation(
        text=answer.text.text,
        tokens=tuple(answer.written),
        finish_reason=reason,
        prompt_tokens=len(answer.prompt),
        seconds=time.perf_counter() - answer.began,
    )
