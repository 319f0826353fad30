"""The text of an answer as its tokens come: bytes are joined, stop strings are found across tokens."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class AnswerText:
    """Collects the bytes of an answer until one of its stop strings appears."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stops = [text.encode("utf-8") for text in stop if text]
        self._longest = max((len(text) for text in self._stops), default=0)
        self._data = bytearray()

    def add(self, piece: bytes) -> bool:
        """Add a token's bytes; return whether a stop string is complete, which ends the text before it."""
        start = max(0, len(self._data) - self._longest + 1)
        self._data += piece
        places = [place for stop in self._stops if (place := self._data.find(stop, start)) >= 0]
        if places:
            del self._data[min(places) :]
        return bool(places)

    @property
    def text(self) -> str:
        """The text so far; bytes that are no UTF-8 become U+FFFD, an unfinished character at the end is left out."""
        return decoded(bytes(self._data))


def decoded(data: bytes) -> str:
    """Bytes as text; those that are no UTF-8 become U+FFFD, an unfinished character at the end is left out."""
    return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(data)
