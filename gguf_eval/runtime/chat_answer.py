"""Where a chat template puts an answer: what it writes between the assistant's header and the answer's first word.

Templates of models that think aloud write an empty thought there, or the header of a final channel, or begin a thought
that the model is to end. An answer that is scored stands where the template itself would put it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile

from gguf_eval.errors import UsageError
from gguf_eval.runtime.thinking import KNOWN_MARKS

QUESTION, ANSWER = "Zyx?", "Wvu."
"""Stand in a conversation for what no template spells."""


@dataclass(frozen=True)
class AnswerPlace:
    """What becomes of the text up to where the assistant begins to write, for an answer to follow."""

    dropped: str
    """The end of it that stands before no answer: a thought begun."""
    lead: str
    """Follows instead: control tokens, lines."""
    blank: str = ""
    """Spaces directly before the answer, which are made tokens together with it."""


def find_place(header: str, whole: str, control: re.Pattern[str]) -> AnswerPlace:
    """The place of an answer, by what the template makes of `QUESTION` and of `QUESTION` with `ANSWER`.

    header: up to where the assistant begins to write; whole: with the answer; control: matches the spellings of control
    tokens. Raises `UsageError` where the template shows no answer after what it begins.
    """
    before, found, _ = whole.rpartition(ANSWER)
    shared = _shared(header, before, control)
    ending, own = header[shared:], before[shared:]
    if not ending.strip():
        dropped, lead = (ending, own) if own.strip() else ("", "" if ending else own)
    elif _closes(own):  # the template's own form of an answer without a thought
        dropped, lead = ending, own
    elif _closes(ending):
        dropped, lead = "", own
    else:
        raise _no_place(ending)
    written = (header[: len(header) - len(dropped)] + lead).rpartition(QUESTION)[2]
    if not found or _is_open(written):
        raise _no_place(written)
    text = lead.rstrip(" ")
    return AnswerPlace(dropped, text, lead[len(text) :])


def _shared(header: str, before: str, control: re.Pattern[str]) -> int:
    """Length of the common beginning; marks and control tokens are shared as a whole."""
    marks = sorted((mark for pair in KNOWN_MARKS for mark in pair), key=len, reverse=True)
    unit = re.compile("|".join([*map(re.escape, marks), control.pattern, "."]), re.DOTALL)
    pairs = zip(unit.findall(header), unit.findall(before), strict=False)
    return sum(len(one) for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _closes(text: str) -> bool:
    """Whether a thought ends in the text and none is begun after it."""
    return any(end in text for _, end in KNOWN_MARKS) and not _is_open(text)


def _is_open(text: str) -> bool:
    return any(text.rfind(begin) > text.rfind(end) for begin, end in KNOWN_MARKS)


def _no_place(begun: str) -> UsageError:
    return UsageError(
        f"the model's chat template begins what the assistant writes with {begun!r} and shows no answer after it, so "
        "that no choice can be scored in a conversation; take --chat auto, which scores choices as text"
    )
