"""The worker's side of asking: how items are put to a model, as text or as a conversation by its chat template."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from gguf_eval.errors import ModelFileError
from gguf_eval.files.cache import model_parts
from gguf_eval.files.header import read_header
from gguf_eval.runtime.chat import ChatEncoder, ChatTemplates, conversation
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.scoring import Request, TokenRequest
from gguf_eval.runtime.settings import ChatSettings
from gguf_eval.study.stages.ask import PromptWork, TaskWork
from gguf_eval.tasks.prompts import Header

ChoiceRequests = list[Request] | list[TokenRequest]
"""One for each choice of an item."""


def chat_encoder(path: Path, chat: ChatSettings, model: Model, kind: str) -> ChatEncoder | None:
    """The encoder of conversations, or None where tasks of this kind are asked as text.

    Raises `UsageError` where chat is asked for and the model has no template.
    """
    if not chat.applies_to(kind):
        return None
    day = date.fromisoformat(chat.day) if chat.day else None
    templates = ChatTemplates(read_header(model_parts(path)[0]).metadata, model, day)
    if chat.mode == "auto" and not templates.names:
        return None
    return ChatEncoder(model, templates.select(None), templates.tokens, day)


def messages(header: Header, context: str, chat: ChatSettings) -> list[dict[str, str]]:
    """The conversation that asks ``context``: the task's description belongs to the system message."""
    system = "\n\n".join(text for text in (chat.system.strip(), header.description.strip()) if text)
    if chat.fewshot_as_turns:
        return conversation(system, tuple((e.question, e.answer) for e in header.examples), context)
    return conversation(system, (), header.shown + context)


def choice_requests(
    work: TaskWork, chat: ChatSettings, encoder: ChatEncoder | None
) -> tuple[dict[int, ChoiceRequests], dict[int, str]]:
    """The requests of each item by its place, and of the items that the template refuses the reason.

    In a conversation answers stand where the template puts them, with its delimiter in place of the task's. Raises
    `UsageError` where it has no place for them.
    """
    asked: dict[int, ChoiceRequests] = {}
    refused: dict[int, str] = {}
    for place, prompt in enumerate(work.prompts):
        try:
            asked[place] = _choices(work, prompt, chat, encoder)
        except ModelFileError as error:
            refused[place] = str(error)
    return asked, refused


def _choices(work: TaskWork, prompt: PromptWork, chat: ChatSettings, encoder: ChatEncoder | None) -> ChoiceRequests:
    header = work.headers[prompt.header]
    own = len(prompt.contexts) > 1
    if encoder is None:
        return [
            Request(header.text + prompt.contexts[i if own else 0], work.delimiter + choice)
            for i, choice in enumerate(prompt.choices)
        ]
    prompts = [encoder.answer_prompt(messages(header, context, chat)) for context in prompt.contexts]
    return [TokenRequest(prompts[i if own else 0], encoder.answer(choice)) for i, choice in enumerate(prompt.choices)]


def written_prompts(
    work: TaskWork, chat: ChatSettings, encoder: ChatEncoder | None
) -> tuple[dict[int, str | tuple[int, ...]], dict[int, str]]:
    """The same for items whose answers are written: text, or tokens."""
    asked: dict[int, str | tuple[int, ...]] = {}
    refused: dict[int, str] = {}
    for place, prompt in enumerate(work.prompts):
        header, context = work.headers[prompt.header], prompt.contexts[0]
        try:
            asked[place] = encoder.prompt(messages(header, context, chat)) if encoder else header.text + context
        except ModelFileError as error:
            refused[place] = str(error)
    return asked, refused
