"""Prompt and generation speed as llama-bench defines them: no sampling, no tokenising inside the clock.

ppN decodes a prompt of N random tokens and asks for one row of logits; tgN decodes N random tokens one at a time;
``@ dD`` does so after D tokens. Before the first repetition of a test the same prompt, or one token, is decoded to warm
up; each repetition starts from the same cache. After the last test the first of each kind is done once more: where that
anchor differs, the machine has changed meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gguf_eval.llama.handles import check_decoded
from gguf_eval.llama.library import library
from gguf_eval.runtime.energy import EnergyMeter, spent
from gguf_eval.runtime.model import Context
from gguf_eval.runtime.settings import ANCHOR


@dataclass(frozen=True)
class SpeedSample:
    """One timed repetition."""

    test: str
    """``pp512`` and the like: prompt processing or text generation, and the number of tokens."""
    repetition: int
    tokens: int
    seconds: float
    first_token_seconds: float | None = None
    """Of a prompt: until the most probable next token is known."""
    joules: dict[str, float] = field(default_factory=dict)
    """Energy the machine's counters saw meanwhile, by source."""


@dataclass(frozen=True)
class SpeedTest:
    """What one test decodes."""

    kind: str
    """``pp`` or ``tg``."""
    tokens: int
    depth: int = 0

    @property
    def name(self) -> str:
        """llama-bench's name of the test."""
        return f"{self.kind}{self.tokens}" + (f" @ d{self.depth}" if self.depth else "")


def speed_tests(prompts: Sequence[int], generations: Sequence[int], depths: Sequence[int] = (0,)) -> list[SpeedTest]:
    """Every test of these lengths at every depth; a length of 0 stands for none."""
    tests = []
    for depth in dict.fromkeys(depths or (0,)):
        tests += [SpeedTest("pp", tokens, depth) for tokens in dict.fromkeys(prompts) if tokens]
        tests += [SpeedTest("tg", tokens, depth) for tokens in dict.fromkeys(generations) if tokens]
    return tests


def measure_speed(
    context: Context,
    tests: Sequence[SpeedTest],
    *,
    repetitions: int,
    seed: int = 0,
    meter: EnergyMeter | None = None,
) -> Iterator[SpeedSample]:
    """Time each test ``repetitions`` times, then the anchors; yields every sample as it is taken."""
    bench = _Bench(context, np.random.default_rng(seed), meter)
    for test in tests:
        bench.warm_up(test)
        for repetition in range(repetitions):
            yield bench.run(test, test.name, repetition)
    for index, test in enumerate(tests):
        if test.kind not in (earlier.kind for earlier in tests[:index]):
            yield bench.run(test, ANCHOR + test.name, 0)


class _Bench:
    """Decodes random tokens in one context."""

    def __init__(self, context: Context, random: np.random.Generator, meter: EnergyMeter | None) -> None:
        self._llama = library()
        self._context = context
        self._random = random
        self._meter = meter
        self._depth = 0

    def warm_up(self, test: SpeedTest) -> None:
        self._context.clear()
        self._depth = 0
        self._decode(self._batches(test.tokens if test.kind == "pp" else 1))
        self._context.clear()

    def run(self, test: SpeedTest, name: str, repetition: int) -> SpeedSample:
        self._return_to(test.depth)
        batches = self._batches(test.tokens, 1 if test.kind == "tg" else None)
        energy = self._meter.read() if self._meter else {}
        began = time.perf_counter()
        self._decode(batches, wait_for_each=test.kind == "tg")
        ended = time.perf_counter()
        joules = spent(energy, self._meter.read()) if self._meter else {}
        first = None
        if test.kind == "pp":
            reading = time.perf_counter()
            self._context.last_logits().argmax()
            first = ended - began + time.perf_counter() - reading
        return SpeedSample(name, repetition, test.tokens, ended - began, first, joules)

    def _return_to(self, depth: int) -> None:
        """Leave exactly ``depth`` tokens in the cache."""
        if depth and self._depth == depth and self._context.cut(depth):
            return
        self._context.clear()
        if depth:
            self._decode(self._batches(depth))
        self._depth = depth

    def _batches(self, count: int, step: int | None = None) -> list[tuple[Any, Any]]:
        """Random tokens, ``step`` a batch, and the batches that point to them: made before the clock runs.

        Each batch carries on where the cache ends and asks for the logits of its last token only.
        """
        step = step or self._context.settings.batch_size
        drawn = self._random.integers(0, self._context.model.vocab_size, count, dtype=np.int32)
        parts = (drawn[start : start + step] for start in range(0, count, step))
        batch, pointer = self._llama.llama_batch_get_one, self._llama.llama_token_p
        return [(part, batch(part.ctypes.data_as(pointer), len(part))) for part in parts]

    def _decode(self, batches: Sequence[tuple[Any, Any]], *, wait_for_each: bool = False) -> None:
        """Nothing but calls: this is what is timed."""
        decode, wait, handle = self._llama.llama_decode, self._llama.llama_synchronize, self._context.handle
        for _, batch in batches:
            check_decoded(decode(handle, batch))
            if wait_for_each:
                wait(handle)
        wait(handle)
