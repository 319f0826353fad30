"""IFEval's 25 verifiable instructions (arXiv 2311.07911): each a function of the answer and the instruction's settings.

The rules, with their quirks, are those of the authors' checks as lm-evaluation-harness carries them: what a heading, a
highlight or a paragraph is differs from what one would guess. Patterns in settings are used as regular expressions
there, and so here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from gguf_eval.errors import TaskError
from gguf_eval.tasks.judges.sentences import count_capital_words, count_sentences

# Searches below take time in proportion to the text: blanks before a match are left out where they decide nothing, and
# a line is searched up to what the match must end with. What they find is what the authors' patterns find.
Check = Callable[[str, Mapping[str, Any]], bool]
"""(answer, settings) -> followed."""

_CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def _related(count: int, relation: str, wanted: int) -> bool:
    if relation not in ("less than", "at least"):
        raise TaskError(f"IFEval knows the relations 'less than' and 'at least'; found {relation!r}")
    return count < wanted if relation == "less than" else count >= wanted


def _language(answer: str) -> str | None:
    """The ISO 639-1 code of the language, or None where the text has nothing to tell it by."""
    from langdetect import DetectorFactory, LangDetectException, detect

    DetectorFactory.seed = 0  # langdetect draws at random: the same answer must get the same judgement
    try:
        return str(detect(answer))
    except LangDetectException:
        return None


def _is_language(answer: str, code: str) -> bool:
    return _language(answer) in (code, None)  # an answer in no language counts as followed


def _bullets(answer: str, settings: Mapping[str, Any]) -> bool:
    stars = re.findall(r"^[^\S\n]*\*[^\*].*$", answer, flags=re.MULTILINE)
    dashes = re.findall(r"^[^\S\n]*-.*$", answer, flags=re.MULTILINE)
    return len(stars) + len(dashes) == int(settings["num_bullets"])


def _highlights(answer: str, settings: Mapping[str, Any]) -> bool:
    single = [part.strip("*") for part in re.findall(r"\*[^\n\*]*\*", answer)]
    double = [part[2:-2] for part in re.findall(r"\*\*[^\n\*]*\*\*", answer)]
    return sum(bool(part.strip()) for part in single + double) >= int(settings["num_highlights"])


def _sections(answer: str, settings: Mapping[str, Any]) -> bool:
    mark = rf"\s?{settings['section_spliter'].strip()}\s?\d+\s?"
    return len(re.split(mark, answer)) - 1 >= int(settings["num_sections"])


def _between(parts: list[str]) -> list[str] | None:
    """The parts that are not blank; None where one in the middle is."""
    if any(not part.strip() for part in parts[1:-1]):
        return None
    return [part for part in parts if part.strip()]


def _paragraphs(answer: str, settings: Mapping[str, Any]) -> bool:
    parts = _between(re.split(r"\s?\*\*\*\s?", answer))
    return parts is not None and len(parts) == settings["num_paragraphs"]


def _two_responses(answer: str, settings: Mapping[str, Any]) -> bool:
    parts = _between(answer.split("******"))
    return parts is not None and len(parts) == 2 and parts[0].strip() != parts[1].strip()


def _nth_paragraph(answer: str, settings: Mapping[str, Any]) -> bool:
    paragraphs = answer.split("\n\n")
    count = sum(bool(part.strip()) for part in paragraphs)
    place = settings["nth_paragraph"]
    if place > count or not (words := paragraphs[place - 1].split()):
        return False
    first = words[0].lstrip("'").lstrip('"')
    first = re.split(r"[.,?!'\"]", first, maxsplit=1)[0].lower()
    return bool(count == settings["num_paragraphs"] and first == settings["first_word"].lower())


def _postscript(answer: str, settings: Mapping[str, Any]) -> bool:
    marker = settings["postscript_marker"].strip()
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(known.get(marker, marker.lower()), answer.lower(), re.MULTILINE) is not None


def _json(answer: str, settings: Mapping[str, Any]) -> bool:
    text = answer.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _in_lines(pattern: str, answer: str, end: str) -> list[str]:
    """What a pattern that stays in a line and ends in ``end`` finds."""
    parts = (line[: line.rfind(end) + len(end)] if end in line else "" for line in answer.split("\n"))
    return [found for part in parts for found in re.findall(pattern, part)]


def _title(answer: str, settings: Mapping[str, Any]) -> bool:
    return any(title.lstrip("<").rstrip(">").strip() for title in _in_lines(r"<<[^\n]+>>", answer, ">>"))


def _quoted(answer: str, settings: Mapping[str, Any]) -> bool:
    text = answer.strip()
    return len(text) > 1 and text.startswith('"') and text.endswith('"')


def _keyword_frequency(answer: str, settings: Mapping[str, Any]) -> bool:
    found = re.findall(settings["keyword"].strip(), answer, flags=re.IGNORECASE)
    return _related(len(found), settings["relation"], settings["frequency"])


def _forbidden(answer: str, settings: Mapping[str, Any]) -> bool:
    return not any(re.search(rf"\b{word}\b", answer, re.IGNORECASE) for word in settings["forbidden_words"])


CHECKS: Mapping[str, Check] = {
    "keywords:existence": lambda a, s: all(re.search(word, a, re.IGNORECASE) for word in s["keywords"]),
    "keywords:frequency": _keyword_frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": lambda a, s: _related(
        a.lower().count(s["letter"].strip().lower()), s["let_relation"], s["let_frequency"]
    ),
    "language:response_language": lambda a, s: _is_language(a, s["language"]),
    "length_constraints:number_sentences": lambda a, s: _related(count_sentences(a), s["relation"], s["num_sentences"]),
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": lambda a, s: _related(len(re.findall(r"\w+", a)), s["relation"], s["num_words"]),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda a, s: len(_in_lines(r"\[.*?\]", a, "]")) >= s["num_placeholders"],
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda a, s: any(option in a.strip() for option in _CONSTRAINED),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda a, s: a.strip().lower().startswith(s["prompt_to_repeat"].strip().lower()),
    "startend:end_checker": lambda a, s: a.strip().strip('"').lower().endswith(s["end_phrase"].strip().lower()),
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": lambda a, s: _related(
        count_capital_words(a), s["capital_relation"], s["capital_frequency"]
    ),
    "change_case:english_capital": lambda a, s: a.isupper() and _is_language(a, "en"),
    "change_case:english_lowercase": lambda a, s: a.islower() and _is_language(a, "en"),
    "punctuation:no_comma": lambda a, s: "," not in a,
}
"""Every instruction of the data set by its id."""

LANGUAGE_CHECKS = ("language:response_language", "change_case:english_capital", "change_case:english_lowercase")
