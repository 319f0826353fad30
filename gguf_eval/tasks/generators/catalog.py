"""The generators by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from gguf_eval.tasks.generators import arithmetic, letter_strings, spatial, stories, strings
from gguf_eval.tasks.generators.problem import Maker, rows

GENERATORS: Mapping[str, Maker] = {
    "letter_strings": letter_strings.make,
    "deduction": stories.make_deduction,
    "induction": stories.make_induction,
    "spatial": spatial.make,
    "arithmetic": arithmetic.make,
    "strings": strings.make,
}


def generated_rows(name: str, difficulties: Sequence[int], count: int, seed: str) -> list[dict[str, Any]]:
    """The first ``count`` rows of a generator; more rows begin with the same ones."""
    return list(islice(rows(name, GENERATORS[name], difficulties, seed), count))
