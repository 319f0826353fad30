"""Judges take time in proportion to the answer: none needs its bound for 100,000 characters of one kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gguf_eval.llama.bounded import bounded_call
from gguf_eval.tasks.answers import judge_answer, judge_options
from gguf_eval.tasks.judges.ifeval_checks import CHECKS

CHARACTERS = 100_000
JUDGES: Mapping[str, tuple[str, ...]] = {
    "number": (" ", "1 ", "1,", "-", "1/"),
    "gsm8k": ("1", " ", "####", "$"),
    "math": (" ", "$", "1", "\\text{", "\\boxed{", "answer is ", "\n"),
    "choice_letter": (" ", "A ", "(", "answer ", "*"),
    "exact_match": (" ", "a"),
    "squad": (" ", "a "),
}
INSTRUCTIONS: Mapping[str, tuple[Mapping[str, Any], tuple[str, ...]]] = {
    "length_constraints:number_sentences": ({"relation": "at least", "num_sentences": 2}, ("1 ", ". ", "? ", ".")),
    "detectable_content:number_placeholders": ({"num_placeholders": 2}, ("[", "[a")),
    "detectable_content:postscript": ({"postscript_marker": "P.S."}, (" ", "\n", "p. ")),
    "detectable_format:number_bullet_lists": ({"num_bullets": 2}, ("\n", " \n", "*", "- ")),
    "detectable_format:title": ({}, ("<<", "<", ">")),
    "detectable_format:number_highlighted_sections": ({"num_highlights": 2}, ("*", "*a", "* ")),
}


@pytest.mark.parametrize("name", JUDGES)
def test_answers_of_one_kind(name: str) -> None:
    for unit in JUDGES[name]:
        for end in ("", "!x"):
            answer = unit * (CHARACTERS // len(unit)) + end
            bounded_call(judge_answer, name, answer, ["A"], judge_options(name, {}))  # raises where it takes 10 s


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_instructions_over_answers_of_one_kind(name: str) -> None:
    settings, units = INSTRUCTIONS[name]
    for unit in units:
        for end in ("", "!x"):
            bounded_call(_followed, name, unit * (CHARACTERS // len(unit)) + end, settings)


def _followed(name: str, answer: str, settings: Mapping[str, Any]) -> bool:
    return CHECKS[name](answer, settings)
