"""What a generator makes, and how problems become rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from gguf_eval.errors import TaskError

_ATTEMPTS = 500


@dataclass(frozen=True)
class Problem:
    """A question with one right answer."""

    question: str
    answer: str
    wrong: tuple[str, ...]
    """Other answers, none of them right; more than are shown may be given."""
    details: Mapping[str, str] = field(default_factory=dict)
    """More columns of the row: the parts the question was made of."""


Maker = Callable[[random.Random, int], Problem | None]
"""(source of chance, difficulty from 1 to `DIFFICULTIES`) -> a problem, or None where the draw made no sound one."""

DIFFICULTIES = 3
CHOICES = 4


def rows(name: str, make: Maker, difficulties: Sequence[int], seed: str) -> Iterator[dict[str, Any]]:
    """Endless rows: the first n are the same whatever is taken after them.

    Difficulties take turns. No question comes twice. The right answer stands at each of the `CHOICES` places equally
    often (in each block of that many rows of a difficulty once). Columns: id, difficulty, question, answer, choices,
    gold, and the problem's details. Raises `TaskError` where a difficulty has no more different problems.
    """
    seen: set[str] = set()
    places: dict[int, list[int]] = {difficulty: [] for difficulty in difficulties}
    for number in count():
        difficulty = difficulties[number % len(difficulties)]
        draw = random.Random(f"{name}/{difficulty}/{seed}/{number}")
        problem = _fresh(name, make, difficulty, draw, seen, number)
        if not places[difficulty]:
            places[difficulty] = draw.sample(range(CHOICES), CHOICES)
        gold = places[difficulty].pop()
        choices = draw.sample(problem.wrong, CHOICES - 1)
        choices.insert(gold, problem.answer)
        yield {
            "id": f"{seed}-{number}", "difficulty": difficulty, "question": problem.question,
            "answer": problem.answer, "choices": choices, "gold": gold, **problem.details,
        }  # fmt: skip


def _fresh(name: str, make: Maker, difficulty: int, draw: random.Random, seen: set[str], number: int) -> Problem:
    for _ in range(_ATTEMPTS):
        problem = make(draw, difficulty)
        if problem is not None and problem.question not in seen:
            seen.add(problem.question)
            return problem
    raise TaskError(
        f"generator '{name}' found no further problem of difficulty {difficulty} after {number}; ask for fewer items"
    )
