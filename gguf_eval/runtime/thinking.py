"""What a model that thinks aloud writes: first a thought between marks, then the answer.

The marks are those that the model's own chat template or vocabulary has. A thought stands at the beginning of what is
written, or was opened by the prompt; elsewhere a mark is text like any other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gguf_eval.runtime.generation_text import AnswerText, decoded
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.vocabulary import Vocabulary

KNOWN_MARKS = (
    ("<think>", "</think>"),  # Qwen3, QwQ, DeepSeek, GLM, Kimi K2, MiniMax M2, Nemotron, SmolLM3, ...
    ("<|channel|>", "<|channel|>final<|message|>"),  # gpt-oss: analysis and commentary, then the final channel
    ("[THINK]", "[/THINK]"),  # Magistral, Ministral
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("<mm:think>", "</mm:think>"),  # MiniMax M3
    ("<think:opensource>", "</think:opensource>"),  # Hunyuan 3
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A, Command R7B
    ("<|channel>", "<channel|>"),  # Gemma 4
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ("<|think|>", "<|content|>"),  # Solar Open
    ("<|open|>think<|sep|>", "<|open|>response<|sep|>"),  # Kimi K3
    ("◁think▷", "◁/think▷"),  # Kimi VL
    ("<thought>", "</thought>"),  # EXAONE Deep
    ("<reasoning>", "</reasoning>"),  # Reka Flash
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker
)
"""(begin, end) as chat templates spell them."""
_TAIL_TOKENS = 64
"""Of a prompt, enough to hold any mark that begins a thought and the blanks after it."""
_EDGE = b"\xff"
"""Stands on both sides of a control token; no UTF-8 text has this byte, so that text is never taken for one."""
_CONTROL = re.compile(rb"\xff[^\xff]*\xff")


@dataclass(frozen=True)
class Marks:
    """What begins and ends a thought: bytes, with control tokens between `_EDGE`."""

    begin: bytes
    end: bytes


class Thoughts:
    """How one model marks its thoughts."""

    def __init__(self, model: Model, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        template = model.chat_template
        self.marks = tuple(
            Marks(self._spelt(model, begin), self._spelt(model, end))
            for begin, end in KNOWN_MARKS
            if end in template or (self._is_token(model, begin) and self._is_token(model, end))
        )

    def reader(self, prompt: Sequence[int], stop: Sequence[str]) -> Written:
        """Collects what is written after ``prompt``, which may have opened a thought."""
        tail = b"".join(self.bytes_of(token) for token in prompt[-_TAIL_TOKENS:]).rstrip()
        opened = next((marks for marks in self.marks if tail.endswith(marks.begin)), None)
        return Written(self, stop, opened)

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a token; a control token's spelling between `_EDGE`."""
        if self._vocabulary.is_control(token):
            return _EDGE + self._vocabulary.spelling(token).encode() + _EDGE
        return self._vocabulary.piece(token)

    def _is_token(self, model: Model, mark: str) -> bool:
        """Whether the vocabulary has the mark, or the token of no word that it begins with."""
        tokens = model.tokenize(mark, add_special=False, parse_special=True)
        spelling = self._vocabulary.spelling(tokens[0])
        return spelling == mark or (self._vocabulary.is_mark(tokens[0]) and mark.startswith(spelling))

    def _spelt(self, model: Model, mark: str) -> bytes:
        tokens = model.tokenize(mark, add_special=False, parse_special=True)
        if not any(self._vocabulary.is_control(token) for token in tokens):
            return mark.encode()
        return b"".join(self.bytes_of(token) for token in tokens).lstrip(b" ")  # SentencePiece begins with a blank


class Written:
    """Thought and answer as their tokens come. Stop strings count in the answer only."""

    def __init__(self, thoughts: Thoughts, stop: Sequence[str], opened: Marks | None) -> None:
        self._thoughts = thoughts
        self._answer = AnswerText(stop)
        self._thought = b""
        self._pending = b""
        """Undecided at the beginning; later the thought so far."""
        self._searched = 0
        """So much of it holds no end of the thought."""
        self._inside = opened
        self._answering = not thoughts.marks

    def add(self, token: int) -> bool:
        """Add a token; return whether a stop string is complete, which ends the answer before it."""
        data = self._thoughts.bytes_of(token)
        if self._answering:
            return self._answer.add(_without_control(data))
        self._pending += data
        while self._turns():
            pass
        return self._inside is None and not self._may_begin() and self.close()

    def close(self) -> bool:
        """No more tokens come: what was taken for a possible thought and is none belongs to the answer."""
        if self._answering or self._inside is not None:
            return False
        self._answering = True
        kept = self._pending.lstrip() if self._thought else self._pending
        self._thought += self._pending[: len(self._pending) - len(kept)]
        return self._answer.add(_without_control(kept))

    @property
    def text(self) -> str:
        """The answer, without control tokens."""
        return self._answer.text

    @property
    def thought(self) -> str:
        """What stands before the answer, marks and blanks included; empty where the model did not think."""
        return decoded((self._thought + (self._pending if self._inside else b"")).replace(_EDGE, b""))

    def unfinished(self, finish_reason: str, room: int) -> str | None:
        """Why a limit kept the model from any answer, where one did; ``room``: tokens it might write.

        A model that ends inside its thought by itself has given an empty answer.
        """
        if self._inside is None or finish_reason not in ("length", "context"):
            return None
        limit = "the context" if finish_reason == "context" else f"{room} tokens"
        return f"unfinished: the thought did not end within {limit}"

    def _may_begin(self) -> bool:
        start = self._pending.lstrip()
        return any(marks.begin.startswith(start) for marks in self._thoughts.marks)

    def _turns(self) -> bool:
        """Whether what is pending begins a thought, or ends the one that is open; its state is changed so."""
        if self._inside is None:
            start = self._pending.lstrip()
            self._inside = next((marks for marks in self._thoughts.marks if start.startswith(marks.begin)), None)
            return self._inside is not None
        place = self._pending.find(self._inside.end, max(0, self._searched - len(self._inside.end)))
        self._searched = len(self._pending)
        if place < 0:
            return False
        end = place + len(self._inside.end)
        self._thought += self._pending[:end]
        self._pending, self._searched, self._inside = self._pending[end:], 0, None
        return True


def _without_control(data: bytes) -> bytes:
    return _CONTROL.sub(b"", data)
