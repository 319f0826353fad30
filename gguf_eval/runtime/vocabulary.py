"""What a model's tokens are: the bytes they stand for, which end an answer, which are control tokens."""

from __future__ import annotations

from collections.abc import Iterable

from gguf_eval.llama.handles import written_text
from gguf_eval.llama.library import library
from gguf_eval.runtime.model import Model


class Vocabulary:
    """Looks tokens of one model up, each once."""

    def __init__(self, model: Model) -> None:
        self._llama = library()
        self._vocab = model.vocab
        self._size = model.vocab_size
        self._pieces: dict[int, bytes] = {}

    def piece(self, token: int) -> bytes:
        """The bytes of ``token`` in a text, blanks before words included; none for control tokens.

        A character of several bytes may be spread over several tokens.
        """
        if token not in self._pieces:
            self._pieces[token] = self._look_up(token, special=False)
        return self._pieces[token]

    def spelling(self, token: int) -> str:
        """How ``token`` is written in a chat template; control tokens too."""
        return self._look_up(token, special=True).decode("utf-8", errors="replace")

    def spelt_out(self, tokens: Iterable[int]) -> str:
        """The text of ``tokens`` for people to read: control tokens stand between ⟦ and ⟧."""
        data = b""
        for token in tokens:
            data += f"⟦{self.spelling(token)}⟧".encode() if self.is_control(token) else self.piece(token)
        return data.decode("utf-8", errors="replace")

    def is_control(self, token: int) -> bool:
        """Whether ``token`` is a control token, which is no text."""
        marks = self._llama.LLAMA_TOKEN_ATTR_CONTROL | self._llama.LLAMA_TOKEN_ATTR_UNKNOWN
        return bool(self._llama.llama_vocab_get_attr(self._vocab, token) & marks)

    def is_mark(self, token: int) -> bool:
        """Whether ``token`` is a control token, or text that the vocabulary keeps whole beside its words."""
        marks = self._llama.LLAMA_TOKEN_ATTR_CONTROL | self._llama.LLAMA_TOKEN_ATTR_USER_DEFINED
        return bool(self._llama.llama_vocab_get_attr(self._vocab, token) & marks)

    def ends_answer(self, token: int) -> bool:
        """Whether ``token`` ends what the model writes: end of sequence, of turn, of message."""
        return bool(self._llama.llama_vocab_is_eog(self._vocab, token))

    @property
    def bos(self) -> str:
        """The spelling of the beginning-of-sequence token, empty where there is none."""
        return self._spelling_of(self._llama.llama_vocab_bos(self._vocab))

    @property
    def eos(self) -> str:
        """The spelling of the end-of-sequence token, empty where there is none."""
        return self._spelling_of(self._llama.llama_vocab_eos(self._vocab))

    def control_spellings(self) -> frozenset[str]:
        """Spellings of all tokens that a text read with ``parse_special`` turns into control tokens."""
        found = (self.spelling(token) for token in range(self._size) if self.is_control(token))
        return frozenset(text for text in found if text)

    def _spelling_of(self, token: int) -> str:
        return self.spelling(token) if token >= 0 else ""

    def _look_up(self, token: int, *, special: bool) -> bytes:
        convert = self._llama.llama_token_to_piece
        return written_text(lambda buffer, size: convert(self._vocab, token, buffer, size, 0, special))
