"""The Jinja environment of chat templates, as transformers' apply_chat_template sets it up.

Templates come with model files, from anyone: they run in Jinja's immutable sandbox, in a process that can be ended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from gguf_eval.errors import EngineError
from gguf_eval.llama.bounded import OverLimitError, bounded_call

if TYPE_CHECKING:
    from jinja2 import Template

Messages = Sequence[Mapping[str, Any]]


_CLOCK = "strftime_now"
"""The function by which templates ask for the date."""


def tells_date(source: str) -> bool:
    """Whether what the template writes depends on the day."""
    return _CLOCK in source


def render_template(
    source: str, messages: Messages, tokens: Mapping[str, str], *, add_generation_prompt: bool, day: date | None = None
) -> str:
    """The conversation as text; raises Jinja's ``TemplateError`` where the template refuses it or is wrong.

    tokens: ``bos_token`` and ``eos_token`` as the vocabulary spells them. Templates get no tools and no documents;
    those that ask for the date get ``day``, today unless given. Raises `EngineError` where it takes too long or too
    much memory.
    """
    from jinja2.exceptions import TemplateError

    asked = {"messages": [dict(message) for message in messages], "add_generation_prompt": add_generation_prompt}
    try:
        text, refusal = bounded_call(_rendered, source, day or date.today(), {**asked, **tokens})
    except OverLimitError as error:
        raise EngineError(f"the model file's chat template was stopped: {error}; run with --chat off") from None
    if refusal is not None:
        raise TemplateError(refusal)
    return text


def _rendered(source: str, day: date, variables: Mapping[str, Any]) -> tuple[str, str | None]:
    """The text, or why there is none."""
    from jinja2.exceptions import TemplateError

    try:
        return _compile(source, day).render(tools=None, documents=None, **variables), None
    except TemplateError as error:
        return "", str(error)
    except MemoryError:
        raise
    except Exception as error:  # a template runs what its author wrote
        return "", f"{type(error).__name__}: {error}"


@lru_cache(maxsize=16)
def _compile(source: str, day: date) -> Template:
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class GenerationTag(Extension):
        """``{% generation %}`` marks what the model wrote, for training; the text is the same without."""

        tags = {"generation"}  # noqa: RUF012 - Jinja's own way

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Any) -> Any:
            return caller()

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals[_CLOCK] = datetime.combine(day, time()).strftime
    return environment.from_string(source)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes what HTML would read."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    from jinja2.exceptions import TemplateError

    raise TemplateError(message)
