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
from dataclasses import dataclass, replace

import numpy as np

from gguf_eval.machine import physical_cores
from gguf_eval.runtime.generation_run import Answer, FinishReason, GenerationStats, Run
from gguf_eval.runtime.generation_sampling import TokenChooser
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.prefix import held_prefixes
from gguf_eval.runtime.probe import decodes_together
from gguf_eval.runtime.rows import NOT_FINITE
from gguf_eval.runtime.settings import ContextSettings, EngineSettings
from gguf_eval.runtime.thinking import Thoughts
from gguf_eval.runtime.vocabulary import Vocabulary

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
class Written:
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

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Written]:
        """Answer ``requests``; the result is in their order."""
        answers: dict[int, Written] = {}
        for done in self.stream(requests):
            answers.update(done)
        return [answers[i] for i in range(len(requests))]

    def stream(self, requests: Sequence[GenerationRequest]) -> Iterator[dict[int, Written]]:
        """Answer ``requests``; after each decode yield the answers it finished, by their place in ``requests``."""
        began = time.perf_counter()
        refused: dict[int, Written] = {}
        waiting: list[Answer] = []
        for index, request in enumerate(requests):
            prepared = self._prepare(index, request)
            if isinstance(prepared, Written):
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

    def _write(self, waiting: list[Answer]) -> Iterator[dict[int, Written]]:
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
            run = Run(
                context,
                deque(zip(waiting, held, strict=True)),
                range(depth, depth + slots),
                parallel=min(self.parallel, slots),
                rows_together=self.rows_together if slots >= self.rows_together else 1,
                vocabulary=self.vocabulary,
                stats=self.stats,
            )
            for finished in run.results():
                yield {answer.index: _finished(answer, reason) for answer, reason in finished}

    def _prepare(self, index: int, request: GenerationRequest) -> Answer | Written:
        prompt = self.model.tokenize(request.prompt) if isinstance(request.prompt, str) else list(request.prompt)
        if not prompt:
            prompt = [self.model.prefix_token]
        left = self.max_tokens - len(prompt)
        if left < 1:
            reason = f"the prompt's {len(prompt)} tokens leave no room in the context of {self.max_tokens}"
            return Written("", prompt_tokens=len(prompt), unscored_reason=reason)
        return Answer(
            index=index,
            prompt=np.array(prompt, np.int32),
            room=min(request.max_tokens, left),
            full="length" if request.max_tokens <= left else "context",
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


def _finished(answer: Answer, reason: FinishReason) -> Written:
    if answer.text.close():
        reason = "stop"
    unscored = NOT_FINITE if reason == "broken" else answer.text.unfinished(reason, answer.room)
    text, thought, tokens = answer.text.text, answer.text.thought, tuple(answer.written)
    return Written(text, tokens, reason, len(answer.prompt), answer.seconds, unscored, thought)
