"""Conversations by the chat template a model file carries: as text, and as tokens.

Control tokens are read in the template's own text only. What people, tasks and data sets wrote stays text, also where
it spells a control token: such places are marked before rendering and are tokenised as plain text after it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gguf_eval.errors import ModelFileError, UsageError, nearest
from gguf_eval.runtime.chat_template import Messages, render_template
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.vocabulary import Vocabulary

_KEY = "tokenizer.chat_template"
_DEFAULT = "default"
_BEGIN, _END = "\ue0f0", "\ue0f1"
"""Private-use characters around what is no control token; dropped where a content has them itself."""
_ANSWER = "answer"


class ChatTemplates:
    """The templates a model file carries."""

    def __init__(self, metadata: Mapping[str, Any], model: Model) -> None:
        """``metadata`` of the file's header; the model spells its special tokens."""
        self._templates = {
            key.removeprefix(_KEY).removeprefix(".") or _DEFAULT: str(value)
            for key, value in metadata.items()
            if key == _KEY or key.startswith(f"{_KEY}.")
        }
        vocabulary = Vocabulary(model)
        self.tokens = {"bos_token": vocabulary.bos, "eos_token": vocabulary.eos}

    @property
    def names(self) -> tuple[str, ...]:
        """What the templates are called; most files have one, ``default``."""
        return tuple(self._templates)

    def select(self, name: str | None) -> str:
        """The template of that name, or the default one; raises `UsageError`."""
        if not self._templates:
            raise UsageError(
                "the model file has no chat template; run with --chat off, or without --apply_chat_template"
            )
        if name is not None and name not in self._templates and set(self._templates) != {_DEFAULT}:
            known = ", ".join(sorted(self._templates))
            raise UsageError(f"the model file has no chat template '{name}'{nearest(name, known)} (it has: {known})")
        return self._templates.get(name or _DEFAULT, next(iter(self._templates.values())))

    def render(self, template: str, messages: Messages, *, add_generation_prompt: bool) -> str:
        """The conversation as text; raises `ModelFileError` where the template refuses it.

        Without the generation prompt the text ends with the last message, for the model to continue it. A template
        that refuses a system message is tried without.
        """
        from jinja2.exceptions import TemplateError

        try:
            text = render_template(template, messages, self.tokens, add_generation_prompt=add_generation_prompt)
        except TemplateError:
            messages = [message for message in messages if message["role"] != "system"]
            text = _rendered(template, messages, self.tokens, add_generation_prompt)
        return text if add_generation_prompt else _open_end(text, str(messages[-1]["content"]))


class ChatEncoder:
    """Makes tokens of conversations, by one template of one model."""

    def __init__(self, model: Model, template: str, tokens: Mapping[str, str]) -> None:
        """``tokens`` as of `ChatTemplates`."""
        self._model = model
        self._template = template
        self._tokens = tokens
        spellings = sorted(Vocabulary(model).control_spellings(), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, spellings)) or "(?!)")
        self._newline = tuple(model.tokenize("\n", add_special=False))
        self._lead: str | None = None

    def prompt(self, messages: Messages) -> tuple[int, ...]:
        """Tokens of the conversation up to where the assistant begins to write.

        BOS stands at the beginning once, whether the template writes it, the model's file asks for it, or both. A
        template that refuses a system message gets it at the beginning of the first user message. Raises
        `ModelFileError` where it refuses the conversation all the same.
        """
        return self._encode(self._render([self._marked(message) for message in messages], add_generation_prompt=True))

    def answer(self, text: str) -> tuple[int, ...]:
        """Tokens of an answer after the assistant's header, with the blank that the template puts before it."""
        return tuple(self._piece(self._answer_lead() + text, control=False))

    def _answer_lead(self) -> str:
        """What the template writes between the header and an answer: nothing, or blanks."""
        if self._lead is None:
            question = {"role": "user", "content": "question"}
            header = self._render([question], add_generation_prompt=True)
            whole = self._render([question, {"role": "assistant", "content": _ANSWER}], add_generation_prompt=False)
            before = whole[len(header) :].partition(_ANSWER)[0]
            self._lead = before if whole.startswith(header) and not before.strip() else ""
        return self._lead

    def _render(self, messages: Messages, *, add_generation_prompt: bool) -> str:
        from jinja2.exceptions import TemplateError

        try:
            return render_template(self._template, messages, self._tokens, add_generation_prompt=add_generation_prompt)
        except TemplateError:
            return _rendered(self._template, _without_system(messages), self._tokens, add_generation_prompt)

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


def _rendered(template: str, messages: Messages, tokens: Mapping[str, str], add_generation_prompt: bool) -> str:
    from jinja2.exceptions import TemplateError

    try:
        return render_template(template, messages, tokens, add_generation_prompt=add_generation_prompt)
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
