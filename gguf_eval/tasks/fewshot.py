"""Chooses the worked examples before an item."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence

from gguf_eval.errors import TaskError
from gguf_eval.tasks.prompts import Example, Row, example_renderer
from gguf_eval.tasks.spec import Fewshot, Task


class ExampleChooser:
    """Gives each row its examples; the same rows give the same examples, whichever of them are asked."""

    def __init__(self, task: Task, pools: Mapping[str, Sequence[Row]]) -> None:
        """``pools``: the rows that examples of a config are taken from."""
        self._task = task
        self._fewshot = task.fewshot or Fewshot(0)
        self._pools = pools
        self._same_split = self._fewshot.split != "" and self._fewshot.split == task.dataset.split
        self._render = example_renderer(task) if self._fewshot.count else None
        self._shown: dict[tuple[str, int], tuple[Example, str]] = {}
        self._draws: dict[tuple[str, str], tuple[random.Random, list[list[int]]]] = {}

    def examples(self, row: Row, subject: str) -> tuple[Example, ...]:
        """The examples for ``row``, whose subject is ``subject``."""
        count = self._fewshot.count
        if count == 0:
            return ()
        pool = self._pools[row.config]
        if self._fewshot.same_subject:
            pool = [candidate for candidate in pool if self._example(candidate)[1] == subject]
        places = range(len(pool)) if self._fewshot.sampler == "first" else self._drawn(row, subject, len(pool))
        fresh = (place for place in places if pool[place].columns != row.columns)
        chosen = list(itertools.islice(fresh, count))
        if len(chosen) < count:
            where = f"{self._task.path}: row {row.number}" + (f" ({subject})" if subject else "")
            raise TaskError(f"{where}: {count} few-shot examples are asked for and there are {len(chosen)}")
        return tuple(self._example(pool[place])[0] for place in chosen)

    def _drawn(self, row: Row, subject: str, size: int) -> Iterator[int]:
        """Places drawn as lm-evaluation-harness does (one more than needed where the item itself may be among them),
        then all others for want of more.
        """
        wanted = min(size, self._fewshot.count + self._same_split)
        generator, draws = self._draws.setdefault(
            (row.config, subject if self._fewshot.same_subject else ""), (random.Random(self._fewshot.seed), [])
        )
        number = row.number if self._fewshot.sampler == "random_per_item" else 0
        while len(draws) <= number:
            draws.append(generator.sample(range(size), wanted))
        drawn = draws[number]
        return itertools.chain(drawn, (place for place in range(size) if place not in drawn))

    def _example(self, row: Row) -> tuple[Example, str]:
        assert self._render is not None
        key = (row.config, row.number)
        if key not in self._shown:
            self._shown[key] = self._render(row)
        return self._shown[key]
