"""Whether two answers to a mathematics problem are the same, after the normalisation published with MATH.

`hendrycks_form` is the string normalisation of Hendrycks et al. 2021 (arXiv 2103.03874), `minerva_form` that of
Lewkowycz et al. 2022, appendix D (arXiv 2206.14858). Both compare strings: no algebra is done, so that 2x+2 and
2(x+1) differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gguf_eval.tasks.judges.judgement import Cut, Judge, Judgement, judged
from gguf_eval.tasks.judges.numbers import numbers_in

_UNITS_TEXT = """
square ways integers dollars mph inches ft hours km units sue points feet minutes digits cents degrees cm gm
pounds meters meals edges students childrentickets multiples
"""
_UNITS = tuple(_UNITS_TEXT.split())
_REMOVED = (
    "\\ldots", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}", "\\text{}",
    r"\mathrm{th}", r"^\circ", r"^{\circ}", r"\;", r",\!", "{,}", '"', "\\dots",
)  # fmt: skip
_REPLACED = (
    ("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), (r"\ ", ""), (" ", ""), ("mbox", "text"),
    (",\\text{and}", ","), ("\\text{and}", ","), ("\\text{m}", "\\text{}"),
)  # fmt: skip
_FORMULA = re.compile(r"(?<!\$)\$+([^$]+)\$+|(?<!\\)\\\((.+?)\\\)|(?<!\\)\\\[(.+?)\\\]", re.S)
"""What stands between dollar signs, \\( and \\), or \\[ and \\]."""
_SENTENCE = re.compile(r"(?<![\\{])\b[a-zA-Z]{2,}[,:]?\s+[a-zA-Z]{2,}\b")
"""Two words after one another, which a bare answer does not hold; its units are in LaTeX or one word."""
_NAMED = re.compile(r"(?:answer is|answer:)\s*:?|^[^\w\n]*(?:final )?answer[^\w\n]*$", re.I | re.M)
_STOP = re.compile(r"(?<=[^\\\s])[.,;]\s*$")
"""A stop at the end of a formula that ends a sentence."""
_REST = re.compile(
    r"(?<!\s)\s*I hope it is correct.*|\.\s+(?=[A-Z]).*|(?:,|(?<!\s))\s+(?:since|because|as|which|where|when|so)\b.*",
    re.S,
)
"""What follows an answer in its line and is no part of it: another sentence, the reason."""


def last_boxed(text: str) -> str | None:
    r"""What stands in the last \boxed{...} or \fbox{...} of a text, braces counted; None where there is none.

    "\boxed 5" without braces gives what follows up to a dollar sign. A box that is never closed is none.
    """
    if "\\boxed " in text:
        return text.rsplit("\\boxed ", 1)[1].split("$", maxsplit=1)[0]
    start = text.rfind("\\boxed")
    start = text.rfind("\\fbox") if start < 0 else start
    opening = text.find("{", start) if start >= 0 else -1
    depth = 0
    for place in range(opening, len(text)) if opening >= 0 else ():
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[opening + 1 : place]
    return None


def final_answer(text: str) -> str | None:
    """What an answer settles on: its last box, else what it calls its answer, else all of it where it says no more.

    Signs of formulas and of bold type around what is found are taken off, and of what it calls its answer the first
    formula is taken. A box that the limit of tokens cut does not count beside one before it. None for running text: a
    formula in it is a step on the way, the last one too.
    """
    boxed, before = last_boxed(text), text
    while boxed is None and "\\boxed" in before:
        before = before[: before.rfind("\\boxed")]
        boxed = last_boxed(before)
    if boxed is not None:
        return boxed
    text = text.replace("**", "")
    written = len(text.rstrip())
    ends = [match.end() for match in _NAMED.finditer(text) if match.end() < written]
    if ends:
        named = text[ends[-1] :].strip()
        display = _FORMULA.match(named)
        line = _REST.sub("", named.splitlines()[0])
        return _formula(display or _FORMULA.search(line)) or line.strip().rstrip(".")
    whole = text.strip()
    alone = _FORMULA.fullmatch(whole.rstrip("."))
    if alone:
        return _formula(alone)
    return None if "\n" in whole or "$" in whole or _SENTENCE.search(whole) else whole


def _formula(found: re.Match[str] | None) -> str | None:
    return next(group.strip() for group in found.groups() if group) if found else None


def between_dollars(text: str) -> str:
    """What stands between the first and the last dollar sign, or all of it: lm-evaluation-harness's hendrycks_math."""
    first, last = text.find("$"), text.rfind("$")
    return text[first + 1 : last] if first != last else text


def hendrycks_form(text: str) -> str:
    """The text in the form that Hendrycks' is_equiv compares."""
    for old, new in (
        ("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""),
        ("\\right", ""), ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", ""),
    ):  # fmt: skip
        text = text.replace(old, new)
    if "\\text{ " in text:  # a unit
        parts = text.split("\\text{ ")
        if len(parts) != 2:
            raise ValueError("several units")
        text = parts[0]
    text = text.replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if text.startswith("."):
        text = "0" + text
    sides = text.split("=")
    if len(sides) == 2 and len(sides[0]) <= 2:  # "k = 5"
        text = sides[1]
    text = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", text).replace(" ", "")
    text = _braced_fractions(text)
    if text == "0.5":
        text = "\\frac{1}{2}"
    slash = re.fullmatch(r"(-?(?:0|[1-9]\d*))/(-?(?:0|[1-9]\d*))", text)
    return f"\\frac{{{slash[1]}}}{{{slash[2]}}}" if slash and "-0" not in slash.groups() else text


def _braced_fractions(text: str) -> str:
    r"""\frac12 and \frac1{72} with their braces; the text as it is where a fraction is not whole."""
    first, *rest = text.split("\\frac")
    parts = [first]
    for part in rest:
        if not part:
            raise ValueError("an empty fraction")
        if part[0] == "{":
            parts.append(part)
        elif len(part) < 2:
            return text
        elif part[1] == "{":
            parts.append(f"{{{part[0]}}}{part[1:]}")
        else:
            parts.append(f"{{{part[0]}}}{{{part[1]}}}{part[2:]}")
    return "\\frac".join(parts)


def hendrycks_equal(first: str, second: str) -> bool:
    """Whether two answers have the same Hendrycks form; texts that can't be brought to it must be the same."""
    try:
        return hendrycks_form(first) == hendrycks_form(second)
    except ValueError:
        return first == second


def minerva_form(text: str) -> str:
    """The text in Minerva's form: without units, text marks, shorthand TeX, thousands commas."""
    text = text.rsplit("=", maxsplit=1)[-1]
    for unit in _UNITS:
        text = re.sub(rf"(?<!\\)\b{unit}\b", "", text)
    for old, new in _REPLACED:
        text = text.replace(old, new)
    # Units that stood against something are found only now; LaTeX commands are left alone ("ft" is in \left).
    pieces = re.split(r"(\\[a-zA-Z]+)", text)
    for unit in _UNITS:
        pieces[::2] = [piece.replace(unit, "") for piece in pieces[::2]]
    text = "".join(pieces)
    for removed in _REMOVED:
        text = text.replace(removed, "")
    if text.count("$") > 1:  # without, the search would take the square of the length
        text = re.sub(r"(.*?)(\$)(.*?)(\$)(.*)", r"$\3$", text)
    for command in ("text", "textbf", "overline"):
        text = _unwrapped(rf"(\\{command}\{{)(.*?)(\}})", text)
    text = _unwrapped(r"(\\boxed\{)(.*)(\})", text)
    text = re.sub(r"(frac)([^{])(.)", r"frac{\2}{\3}", text)
    text = re.sub(r"(sqrt)(\[[^\]]*\])(\w)", r"\1\2{\3}", text)
    text = re.sub(r"(sqrt)(?!\[)([^{])", r"sqrt{\2}", text).replace("$", "")
    return text.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+", text) else text


def _unwrapped(pattern: str, text: str) -> str:
    """Second groups in place of what a pattern finds that stays in a line and ends in a brace.

    What follows the last brace of a line is not searched, which would take the square of its length.
    """
    lines = (line.rpartition("}") for line in text.split("\n"))
    return "\n".join(re.sub(pattern, r"\2", before + brace) + after for before, brace, after in lines)


def _same_number(first: str, second: str) -> bool:
    """Whether both are plain numbers or fractions of the same value: 0.25 and \\frac{1}{4}, 3.0 and 3."""
    values = []
    for text in (first, second):
        plain = re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"\1/\2", text)
        if not re.fullmatch(r"-?[\d.]+(/\d+)?", plain) or plain.count(".") > 1 or not (numbers := numbers_in(plain)):
            return False
        values.append(numbers[0])
    return abs(values[0] - values[1]) <= 1e-9 * max(1.0, abs(values[1]))


@dataclass(frozen=True, kw_only=True)
class Extraction(Cut):
    """What is taken for the answer."""

    extract: Literal["final", "dollars"] = "final"
    """`final_answer`, or `between_dollars`, with which ``hendrycks_match`` is lm-evaluation-harness's exact_match of
    hendrycks_math."""


def _settled(answer: str) -> str | None:
    """The final answer, without the stop that ends a sentence inside the signs of a formula."""
    found = final_answer(answer)
    return None if found is None else _STOP.sub("", found)


def math_answer(answer: str, references: Sequence[str], options: Extraction) -> Judgement:
    """``math_equal`` (the value) and ``hendrycks_match``, for references that are solutions or bare answers.

    ``hendrycks_match``: what is extracted equals the reference in Hendrycks' form. ``math_equal``: in Hendrycks' form,
    in Minerva's form, or as a number.
    """
    found = _settled(answer) if options.extract == "final" else between_dollars(answer)
    if found is None:
        return judged("math_equal", None, math_equal=0.0, hendrycks_match=0.0)
    wanted = [reference if (box := last_boxed(reference)) is None else box for reference in references]
    hendrycks = any(hendrycks_equal(found, reference) for reference in wanted)
    equal = hendrycks or any(_equal_in_a_form(found, reference) for reference in wanted)
    return judged("math_equal", found, math_equal=float(equal), hendrycks_match=float(hendrycks))


def _equal_in_a_form(found: str, wanted: str) -> bool:
    first, second = (re.sub(r"^\(([A-Z])\)$", r"\1", minerva_form(text)) for text in (found, wanted))  # choice (C) is C
    return bool(first) and (first == second or _same_number(first, second))


JUDGES = (Judge("math", math_answer, ("math_equal", "hendrycks_match"), Extraction),)
