"""Chat templates of a model file, rendered as transformers renders them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from gguf_eval.errors import ModelFileError, UsageError, nearest
from gguf_eval.runtime.model import Model

_KEY = "tokenizer.chat_template"
_DEFAULT = "default"

Messages = Sequence[Mapping[str, Any]]


class ChatTemplates:
    """The templates a model file carries."""

    def __init__(self, metadata: Mapping[str, Any], model: Model) -> None:
        """``metadata`` of the file's header; the model spells its special tokens."""
        self._templates = {
            key.removeprefix(_KEY).removeprefix(".") or _DEFAULT: str(value)
            for key, value in metadata.items()
            if key == _KEY or key.startswith(f"{_KEY}.")
        }
        eos = model.eos_token
        self._tokens = {
            "bos_token": model.token_text(model.prefix_token),
            "eos_token": "" if eos is None else model.token_text(eos),
        }

    def select(self, name: str | None) -> str:
        """The template of that name, or the default one; raises `UsageError`."""
        if not self._templates:
            raise UsageError("the model file has no chat template; run without --apply_chat_template")
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
            text = self._render(template, messages, add_generation_prompt)
        except TemplateError:
            messages = [message for message in messages if message["role"] != "system"]
            try:
                text = self._render(template, messages, add_generation_prompt)
            except TemplateError as error:
                raise ModelFileError(f"the model file's chat template refuses the conversation: {error}") from None
        return text if add_generation_prompt else _open_end(text, str(messages[-1]["content"]))

    def _render(self, template: str, messages: Messages, add_generation_prompt: bool) -> str:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        compiled = environment.from_string(template)
        return compiled.render(messages=messages, add_generation_prompt=add_generation_prompt, **self._tokens)


def _open_end(text: str, last: str) -> str:
    """The text up to the end of the last message; blanks after it stay where the template kept them."""
    start = text.rindex(last.strip())
    whole = start + len(last.lstrip())
    return text[:whole] if text[start:whole] == last.lstrip() else text[: start + len(last.strip())]


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    from jinja2.exceptions import TemplateError

    raise TemplateError(message)
