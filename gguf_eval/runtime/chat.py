"""Conversations by the chat template a model file carries: as text, and as tokens.

Control tokens are read in the template's own text only. What people, tasks and data sets wrote stays text, also where
it spells a control token: such places are marked before rendering and are tokenised as plain text after it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from gguf_eval.errors import ModelFileError, UsageError, nearest
from gguf_eval.runtime.chat_answer import ANSWER, QUESTION, AnswerPlace, find_place
from gguf_eval.runtime.chat_template import Messages, render_template, tells_date
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.vocabulary import Vocabulary

_KEY = "tokenizer.chat_template"
_DEFAULT = "default"
_BEGIN, _END = "\ue0f0", "\ue0f1"
"""Private-use characters around what is no control token; dropped where a content has them itself."""


class ChatTemplates:
    """The templates a model file carries."""

    def __init__(self, metadata: Mapping[str, Any], model: Model, day: date | None = None) -> None:
        """``metadata`` of the file's header; the model spells its special tokens. ``day``: as of `render_template`."""
        self._templates = {
            key.removeprefix(_KEY).removeprefix(".") or _DEFAULT: str(value)
            for key, value in metadata.items()
            if key == _KEY or key.startswith(f"{_KEY}.")
        }
        self.day = day
        vocabulary = Vocabulary(model)
        self.tokens = {"bos_token": vocabulary.bos, "eos_token": vocabulary.eos}

    @property
    def names(self) -> tuple[str, ...]:
        """What the templates are called; most files have one, ``default``."""
        return tuple(self._templates)

    @property
    def tell_date(self) -> bool:
        """Whether any of them depends on the day."""
        return any(tells_date(source) for source in self._templates.values())

    def select(self, name: str | None) -> str:
        """The template of that name, or the default one; raises `UsageError`."""
        if not self._templates:
            raise UsageError(
                "the model file has no chat template; run with --chat off, or without --apply_chat_template"
            )
        if name is not None and name not in self._templates and set(self._templates) != {_DEFAULT}:
            known = sorted(self._templates)
            raise UsageError(
                f"the model file has no chat template '{name}'{nearest(name, known)} (it has: {', '.join(known)})"
            )
        return self._templates.get(name or _DEFAULT, next(iter(self._templates.values())))

    def render(self, template: str, messages: Messages, *, add_generation_prompt: bool) -> str:
        """The conversation as text; raises `ModelFileError` where the template refuses it.

        Without the generation prompt the text ends with the last message, for the model to continue it. A template
        that refuses a system message is tried without.
        """
        from jinja2.exceptions import TemplateError

        how: dict[str, Any] = {"add_generation_prompt": add_generation_prompt, "day": self.day}
        try:
            text = render_template(template, messages, self.tokens, **how)
        except TemplateError:
            messages = [message for message in messages if message["role"] != "system"]
            text = _rendered(template, messages, self.tokens, how)
        return text if add_generation_prompt else _open_end(text, str(messages[-1]["content"]))


class ChatEncoder:
    """Makes tokens of conversations, by one template of one model."""

    def __init__(self, model: Model, template: str, tokens: Mapping[str, str], day: date | None = None) -> None:
        """``tokens`` and ``day`` as of `ChatTemplates`."""
        self._model = model
        self._template = template
        self._tokens = tokens
        self._day = day
        spellings = sorted(Vocabulary(model).control_spellings(), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, spellings)) or "(?!)")
        self._newline = tuple(model.tokenize("\n", add_special=False))
        self._place: AnswerPlace | None = None

    def prompt(self, messages: Messages) -> tuple[int, ...]:
        """Tokens of the conversation up to where the assistant begins to write.

        BOS stands at the beginning once, whether the template writes it, the model's file asks for it, or both. A
        template that refuses a system message gets it at the beginning of the first user message. Raises
        `ModelFileError` where it refuses the conversation all the same.
        """
        return self._encode(self._begun(messages))

    def answer_prompt(self, messages: Messages) -> tuple[int, ...]:
        """The same up to where an answer stands that `answer` gives: after a closed thought, in the final channel.

        Raises `UsageError` where the template has no such place.
        """
        place, text = self.answer_place(), self._begun(messages)
        if not text.endswith(place.dropped):
            raise ModelFileError("the model file's chat template begins an answer to this conversation in another way")
        return self._encode(text[: len(text) - len(place.dropped)] + place.lead)

    def answer(self, text: str) -> tuple[int, ...]:
        """Tokens of an answer at its place, with the blank that the template puts before it."""
        return tuple(self._piece(self.answer_place().blank + text, control=False))

    def answer_place(self) -> AnswerPlace:
        """Where an answer stands; raises `UsageError` where the template has no place for one."""
        if self._place is None:
            question = {"role": "user", "content": QUESTION}
            header = self._render([question], add_generation_prompt=True)
            whole = self._render([question, {"role": "assistant", "content": ANSWER}], add_generation_prompt=False)
            self._place = find_place(header, whole, self._control)
        return self._place

    def _begun(self, messages: Messages) -> str:
        return self._render([self._marked(message) for message in messages], add_generation_prompt=True)

    def _render(self, messages: Messages, *, add_generation_prompt: bool) -> str:
        from jinja2.exceptions import TemplateError

        how: dict[str, Any] = {"add_generation_prompt": add_generation_prompt, "day": self._day}
        try:
            return render_template(self._template, messages, self._tokens, **how)
        except TemplateError:
            return _rendered(self._template, _without_system(messages), self._tokens, how)

    def _marked(self, message: Mapping[str, Any]) -> dict[str, Any]:
        content = str(message["content"]).replace(_BEGIN, "").replace(_END, "")
        return {**message, "content": self._control.sub(f"{_BEGIN}\\g<0>{_END}", content)}

    def _encode(self, text: str) -> tuple[int, ...]:
        # Splitting at the marks gives template and content in turn; a template that cuts content may leave a lone mark.
        pieces = re.split(f"{_BEGIN}([^{_BEGIN}{_END}]*){_END}", text)
        tokens: list[int] = []
        for place, piece in enumerate(pieces):
            control = place % 2 == 0
            for part in re.split(f"[{_BEGIN}{_END}]", piece):
                if not tokens:
                    tokens = self._model.tokenize(part, add_special=False, parse_special=control) if part else []
                elif part:
                    tokens += self._piece(part, control=control)
        if self._model.adds_bos and tokens[:1] != [self._model.prefix_token]:
            tokens = [self._model.prefix_token, *tokens]
        return tuple(tokens)

    def _piece(self, text: str, *, control: bool) -> list[int]:
        """Tokens of a text that others stand before, without the blank a SentencePiece vocabulary begins texts with."""
        tokens = self._model.tokenize("\n" + text, add_special=False, parse_special=control)
        if tuple(tokens[: len(self._newline)]) == self._newline:
            return tokens[len(self._newline) :]
        return self._model.tokenize(text, add_special=False, parse_special=control)


def conversation(system: str, turns: tuple[tuple[str, str], ...], question: str) -> list[dict[str, str]]:
    """Messages: a system message unless it is empty, (user, assistant) turns, and the question."""
    messages = [{"role": "system", "content": system}] if system.strip() else []
    for asked, answered in turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return [*messages, {"role": "user", "content": question}]


def _rendered(template: str, messages: Messages, tokens: Mapping[str, str], how: Mapping[str, Any]) -> str:
    from jinja2.exceptions import TemplateError

    try:
        return render_template(template, messages, tokens, **how)
    except TemplateError as error:
        raise ModelFileError(f"the model file's chat template refuses the conversation: {error}") from None


def _without_system(messages: Messages) -> Messages:
    """The same with the system message at the beginning of the first user message."""
    if len(messages) < 2 or messages[0]["role"] != "system":
        return messages
    first = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
    return [first, *messages[2:]]


def _open_end(text: str, last: str) -> str:
    """The text up to the end of the last message; blanks after it stay where the template kept them."""
    start = text.rindex(last.strip())
    whole = start + len(last.lstrip())
    return text[:whole] if text[start:whole] == last.lstrip() else text[: start + len(last.strip())]
