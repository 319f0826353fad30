"""Layouts of requests that share prefixes in the ways that memories get wrong, over random tokens."""

from __future__ import annotations

import numpy as np
from one_at_a_time import random_tokens

from gguf_eval.runtime.scoring import TokenRequest

Tokens = tuple[int, ...]


def choice_layouts(seed: int = 3) -> dict[str, list[TokenRequest]]:
    """Requests by what they show: every layout is scored in one call."""
    random = np.random.default_rng(seed)

    def draw(count: int) -> Tokens:
        return random_tokens(random, count)

    def choices(context: Tokens, count: int, length: int = 3) -> list[TokenRequest]:
        return [TokenRequest(context, draw(length)) for _ in range(count)]

    header, shots, first = draw(60), draw(100), draw(1)
    nested = [header + draw(20)] * 2 + [header + draw(90)]
    layouts = {
        "one": choices(draw(30), 1),
        "many after one header": [TokenRequest(header + draw(1), draw(1)) for _ in range(300)],
        "few-shot": [r for _ in range(40) for r in choices(shots + draw(60), 2)],
        "passages": [r for _ in range(8) for r in choices(first + draw(300), 2)]
        + [r for _ in range(8) for r in choices(first + draw(12), 1)],
        "long": [r for _ in range(3) for r in choices(first + draw(1400), 2)]
        + [r for _ in range(6) for r in choices(first + draw(25), 2)],
        "nested": [r for start in nested for _ in range(3) for r in choices(start + draw(15), 3)],
        "unlike": [r for length in (5, 40, 700, 9, 130) for r in choices(draw(length), 1, 5)],
    }
    for requests in layouts.values():
        random.shuffle(requests)
    return layouts


def written_layouts(seed: int = 5) -> dict[str, list[Tokens]]:
    """Prompts by what they show: every layout is answered in one call."""
    random = np.random.default_rng(seed)

    def draw(count: int) -> Tokens:
        return random_tokens(random, count)

    a, b, c, d, e = draw(100), (20, *draw(200)), (20, *draw(300)), (30, *draw(150)), (31, *draw(60))
    return {
        "two levels": [a[:40] + b[:40] + draw(5), a[:40] + b[:40] + draw(5), (*a[:40], 35, *draw(30)), draw(50)],
        "three levels": [
            a + b + c + draw(5), a + b + c + draw(5), a + b + d + draw(5), a + b + d + draw(5), a + e + draw(5),
            a + e + draw(5), a + draw(3),
        ],
        "unlike": [draw(20 + 7 * i) for i in range(9)],
    }  # fmt: skip
