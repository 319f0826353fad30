"""How items are put to a model: as text, or as a conversation by its chat template."""

from __future__ import annotations

from pathlib import Path

from gguf_eval.files.cache import model_parts
from gguf_eval.files.header import read_header
from gguf_eval.runtime.chat import ChatEncoder, ChatTemplates, conversation
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.settings import ChatSettings
from gguf_eval.study.jobs import GenerateJob, HeaderWork, ScoreJob


def chat_encoder(job: ScoreJob | GenerateJob, model: Model, kind: str) -> ChatEncoder | None:
    """The encoder of conversations, or None where tasks of this kind are asked as text.

    Raises `UsageError` where chat is asked for and the model has no template.
    """
    if not job.chat.applies_to(kind):
        return None
    templates = ChatTemplates(read_header(model_parts(Path(job.model))[0]).metadata, model)
    if job.chat.mode == "auto" and not templates.names:
        return None
    return ChatEncoder(model, templates.select(None), templates.tokens)


def messages(header: HeaderWork, context: str, chat: ChatSettings) -> list[dict[str, str]]:
    """The conversation that asks ``context``: the task's description belongs to the system message."""
    system = "\n\n".join(text for text in (chat.system.strip(), header.description.strip()) if text)
    if chat.fewshot_as_turns:
        return conversation(system, header.examples, context)
    return conversation(system, (), header.shown + context)
