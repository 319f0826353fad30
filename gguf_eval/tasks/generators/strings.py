"""Exact work on words: what tokens hide is the letters."""

from __future__ import annotations

import random
from collections.abc import Callable

from gguf_eval.tasks.generators.problem import Problem

_ONSETS = (
    "b", "br", "c", "cl", "d", "dr", "f", "fl", "g", "gr", "h", "k", "l", "m", "n", "p", "pl", "r", "s", "st", "t",
    "tr", "v", "w", "z",
)  # fmt: skip
_VOWELS = "aeiou"
_CODAS = ["l", "m", "n", "r", "s", "t", "x", "ck", "nd", "rt"]


def word_of(draw: random.Random, syllables: int) -> str:
    """A pronounceable word that is in no dictionary, or by chance in one."""
    open_syllables = (draw.choice(_ONSETS) + draw.choice(_VOWELS) for _ in range(syllables))
    return "".join(open_syllables) + draw.choice(_CODAS)


def _without_vowels(text: str) -> str:
    return "".join(letter for letter in text if letter not in "aeiou")


def _rotated(text: str) -> str:
    return text[1:] + text[0]


_SIMPLE: dict[str, Callable[[str], str]] = {
    "the last letter of": lambda text: text[-1],
    "the first two letters of": lambda text: text[:2],
    "in capital letters:": str.upper,
    "with its first letter left out:": lambda text: text[1:],
}
_WHOLE: dict[str, Callable[[str], str]] = {
    "backwards:": lambda text: text[::-1],
    "without its vowels (a, e, i, o, u):": _without_vowels,
    "with its letters in alphabetical order:": lambda text: "".join(sorted(text)),
    "with its first letter moved to the end:": _rotated,
}


def make(draw: random.Random, difficulty: int) -> Problem | None:
    """One easy step, one step over all letters, or two such steps one after the other."""
    word = word_of(draw, 2 if difficulty == 1 else draw.choice((2, 3)))
    if difficulty == 1:
        name, change = draw.choice(list(_SIMPLE.items()))
        answer, question = change(word), f"Write {name} {word}"
    elif difficulty == 2:
        name, change = draw.choice(list(_WHOLE.items()))
        answer, question = change(word), f"Write this word {name} {word}"
    else:
        (first, one), (second, two) = draw.sample(list(_WHOLE.items()), 2)
        answer = two(one(word))
        question = (
            f"Write this word {first} {word}. Then write the result {second.rstrip(':')}. What is the final result?"
        )
    wrong = _wrong(draw, word, answer)
    return Problem(question, answer, tuple(sorted(wrong))) if len(wrong) >= 3 else None


def _wrong(draw: random.Random, word: str, answer: str) -> set[str]:
    """What other steps make of the word, in capitals where the answer is, and the answer with two letters changed."""
    if len(answer) <= 2:
        pieces = {word[i : i + len(answer)] for i in range(len(word) - len(answer) + 1)}
        return pieces - {answer}
    made = {word, *(change(word) for change in _WHOLE.values())}
    for _ in range(4):
        first, second = sorted(draw.sample(range(len(answer)), 2))
        letters = list(answer)
        letters[first], letters[second] = letters[second], letters[first]
        made.add("".join(letters))
    return ({text.upper() for text in made} if answer.isupper() else made) - {answer}
