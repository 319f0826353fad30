"""Prompt and generation speed as llama-bench defines them: no sampling, no tokenising inside the clock.

ppN decodes a prompt of N random tokens and asks for one row of logits; tgN decodes N random tokens one at a time. Each
repetition starts with an empty cache, after one warm-up run of each kind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gguf_eval.runtime.model import Context


@dataclass(frozen=True)
class SpeedSample:
    """One timed repetition."""

    test: str
    """``pp512`` and the like: prompt processing or text generation, and the number of tokens."""
    repetition: int
    tokens: int
    seconds: float


def measure_speed(
    context: Context, *, prompt_tokens: int, generated_tokens: int, repetitions: int, seed: int = 0
) -> Iterator[SpeedSample]:
    """Time both tests ``repetitions`` times each, in turn; yields every sample as it is taken."""
    random = np.random.default_rng(seed)
    vocabulary = context.model.vocab_size

    def prompt(count: int) -> npt.NDArray[np.int32]:
        return random.integers(0, vocabulary, count, dtype=np.int32)

    def process() -> None:
        tokens = prompt(prompt_tokens)
        for start in range(0, prompt_tokens, context.settings.batch_size):
            _decode(context, tokens[start : start + context.settings.batch_size], start)

    def generate() -> None:
        for position, token in enumerate(prompt(generated_tokens)):
            _decode(context, np.array([token], np.int32), position)

    tests: list[tuple[str, int, Callable[[], None]]] = [
        (f"pp{prompt_tokens}", prompt_tokens, process),
        (f"tg{generated_tokens}", generated_tokens, generate),
    ]
    process()
    context.clear()
    _decode(context, prompt(1), 0)
    for test, tokens, run in tests:
        for repetition in range(repetitions):
            context.clear()
            began = time.perf_counter()
            run()
            yield SpeedSample(test, repetition, tokens, time.perf_counter() - began)


def _decode(context: Context, tokens: npt.NDArray[np.int32], start: int) -> None:
    outputs = np.zeros(len(tokens), np.int8)
    outputs[-1] = 1
    positions = np.arange(start, start + len(tokens), dtype=np.int32)
    context.decode(tokens, positions, [(0,)] * len(tokens), outputs)
