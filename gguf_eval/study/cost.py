"""How long things take on this machine: rates of one model file, scaled to others, and the work of each stage.

A prompt's tokens cost arithmetic, which grows with the parameters whatever the level; a token written alone costs
reading the whole file. Both are predictions, good to a factor; a run corrects them by what it sees.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from gguf_eval.machine import physical_cores
from gguf_eval.store.database import MeasuredSpeed
from gguf_eval.tasks.prompts import Item
from gguf_eval.tasks.spec import Generation, Task

Basis = Literal["measured", "calibrated", "guessed"]
"""measured: speeds that the study holds; calibrated: a few seconds' decoding; guessed: from the size and the cores."""

_ARITHMETIC = 4e10
"""Multiplications a second of one core in a matrix product; of a guess."""
_READING = 1.5e10
"""Bytes a second from memory; of a guess."""
_TOGETHER = 3.0
"""How much faster 16 answers are written side by side than one alone; where only the latter was measured."""
_SCORING = 0.75
"""Share of the speed of plain prompts that scoring gets: more rows of logits, batches that are not full."""
_TEXT = 0.7
"""The same over a text, where all rows are read and compared."""
_QUANTIZED = 4e7
"""Parameters a second of one core, to a level of K type."""
_SLOW_LEVELS = 8.0
"""How much longer levels of IQ type take."""
_ANSWER_SHARE = 0.5
"""Of the tokens that an answer may have, those it is taken to have."""
CHARACTERS_PER_TOKEN = 3.3
"""Characters that a token stands for, where no vocabulary was asked."""
_START_SECONDS = 1.5
"""From starting a worker to its first decode, beside reading the file."""
_LOADING = 1e9
"""Bytes a second at which a file is read; of a guess."""


@dataclass(frozen=True)
class Rates:
    """What one model file does on this machine, in tokens a second."""

    parameters: int
    size_bytes: int
    prompt: float
    """Decoding many tokens at once."""
    together: float
    """Writing 16 answers side by side, all of them counted."""
    alone: float
    """Writing one answer."""
    start_seconds: float
    """From starting a worker to its first decode."""
    basis: Basis
    characters_per_token: float = CHARACTERS_PER_TOKEN


def guessed_rates(parameters: int, size_bytes: int, threads: int | None) -> Rates:
    """Rates from sizes alone."""
    prompt = (threads or physical_cores()) * _ARITHMETIC / max(1, parameters)
    alone = _READING / max(1, size_bytes)
    start = _START_SECONDS + size_bytes / _LOADING
    return Rates(parameters, size_bytes, prompt, min(prompt, _TOGETHER * alone), alone, start, "guessed")


def study_rates(speeds: Sequence[MeasuredSpeed], processor: str) -> tuple[Rates, ...]:
    """Rates of what the study has measured on this processor, the newest first."""
    return tuple(
        Rates(
            speed.parameters, speed.size_bytes, speed.prompt, min(speed.prompt, _TOGETHER * speed.generation),
            speed.generation, _START_SECONDS + speed.load_seconds, "measured",
        )
        for speed in reversed(speeds)
        if speed.processor == processor
    )  # fmt: skip


def rates_of(known: Sequence[Rates], parameters: int, size_bytes: int, threads: int | None) -> Rates:
    """The rates of a model file, scaled from the one most like it; guessed where none is known."""
    if not known or not parameters:
        return guessed_rates(parameters, size_bytes, threads)

    def unlike(rates: Rates) -> tuple[float, float]:
        return abs(math.log(rates.parameters / parameters)), abs(math.log(rates.size_bytes / max(1, size_bytes)))

    like = min(known, key=unlike)
    arithmetic, reading = like.parameters / parameters, like.size_bytes / max(1, size_bytes)
    prompt = like.prompt * arithmetic
    return Rates(
        parameters, size_bytes, prompt, min(prompt, like.together * arithmetic), like.alone * reading,
        _START_SECONDS + max(0.0, like.start_seconds - _START_SECONDS) / reading, like.basis,
        like.characters_per_token,
    )  # fmt: skip


def prompt_characters(items: Collection[Item]) -> int:
    """Characters that are decoded for these items of a task: a header once, a context once, and every choice."""
    headers = {item.header.text for item in items}
    own = sum(sum(map(len, item.contexts)) + sum(map(len, item.choices)) for item in items)
    return own + sum(map(len, headers))


def right_characters(items: Iterable[Item]) -> int:
    """The same where only the right choice of each item is asked."""
    headers, own = set(), 0
    for item in items:
        headers.add(item.header.text)
        context = item.contexts[item.gold if len(item.contexts) > 1 else 0]
        own += len(context) + len(item.choices[item.gold])
    return own + sum(map(len, headers))


def answer_seconds(task: Task, count: int, characters: int, rates: Rates) -> float:
    """Scoring, or writing, ``count`` answers to a task whose texts have this many characters together."""
    prompt = characters / rates.characters_per_token / rates.prompt
    if task.kind != "generation":
        return prompt / _SCORING
    longest = (task.generation or Generation()).max_tokens
    return prompt + count * longest * _ANSWER_SHARE / rates.together


def text_seconds(tokens: int, rates: Rates) -> float:
    """Running over this many tokens of a text."""
    return tokens / rates.prompt / _TEXT


def make_seconds(level: str, parameters: int, threads: int | None) -> float:
    """Quantizing a model to a level."""
    slower = _SLOW_LEVELS if level.startswith(("IQ", "TQ")) else 1.0
    return _START_SECONDS + slower * parameters / (_QUANTIZED * (threads or physical_cores()))
