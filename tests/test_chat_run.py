"""Conversations in a run: what workers ask, and which point the answers belong to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
from tiny_model import add_byte_bpe, write_model

from gguf_eval.cli.options import chat_settings
from gguf_eval.errors import UsageError
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.scoring import Scorer, TokenRequest
from gguf_eval.runtime.settings import ChatSettings, EngineSettings, chat_name
from gguf_eval.study.jobs import GenerateJob, HeaderWork, PromptWork, ScoreJob, TaskWork, from_document, to_document
from gguf_eval.study.workers import asking, score
from gguf_eval.study.workers.generate import GenerationWork, _requests

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
HEADER = HeaderWork("Add.\n\n", (("1+1?", "2"), ("2+2?", "4")), " ", "\n")
WORK = TaskWork("sums", ("a",), (PromptWork(0, ("3+3?",), ("6", "</s>")),), (HEADER,), " ")
WRITTEN = GenerationWork(4, (), 0.0, 1.0, 0)
EVERYTHING = ChatSettings("on", "Be brief.", True)


def _with_template(writer: gguf.GGUFWriter) -> int:
    writer.add_chat_template(TEMPLATE)
    return add_byte_bpe(writer)


@pytest.fixture(scope="module")
def chat_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("chat") / "chat.gguf", layers=1, tokenizer=_with_template)


@pytest.fixture(scope="module")
def chat_model(chat_path: Path) -> Iterator[Model]:
    with Model(chat_path) as model:
        yield model


def score_job(path: Path, chat: ChatSettings) -> ScoreJob:
    return ScoreJob(str(path), (WORK,), 128, 64, 1, EngineSettings(), chat=chat)


def text_of(model: Model, tokens: Any) -> str:
    """One token is a byte here; control tokens as they are spelt."""
    return "".join(model.token_text(token) for token in tokens).replace("Ġ", " ").replace("Ċ", "\n")


def test_what_is_asked(chat_path: Path, chat_model: Model) -> None:
    asked = {}
    for name, chat in {"text": ChatSettings(), "turns": EVERYTHING, "off": ChatSettings("off")}.items():
        job = GenerateJob(str(chat_path), (WORK,), (WRITTEN,), 128, 64, 1, EngineSettings(), chat=chat)
        encoder = asking.chat_encoder(job, chat_model, "generation")
        (request,) = _requests(WORK, WRITTEN, chat, encoder)
        asked[name] = request.prompt if isinstance(request.prompt, str) else text_of(chat_model, request.prompt)
    assert asked == {
        "text": "<s>[system] Add.</s>[user] 1+1? 2\n2+2? 4\n3+3?</s>[assistant] ",
        "turns": "<s>[system] Be brief.\n\nAdd.</s>[user] 1+1?</s>[assistant] 2</s>[user] 2+2?</s>[assistant] 4</s>"
        "[user] 3+3?</s>[assistant] ",
        "off": "Add.\n\n1+1? 2\n2+2? 4\n3+3?",
    }


def test_choices_follow_the_header(chat_path: Path, chat_model: Model) -> None:
    job = score_job(chat_path, EVERYTHING)
    assert from_document(json.loads(json.dumps(to_document(job)))) == job
    events: list[dict[str, Any]] = []
    score.run(job, events.append)
    (row,) = next(event["rows"] for event in events if event["event"] == "scores")
    prompt = chat_model.tokenize(
        "<s>[system] Be brief.\n\nAdd.</s>[user] 1+1?</s>[assistant] 2</s>[user] 2+2?</s>[assistant] 4</s>"
        "[user] 3+3?</s>[assistant] ",
        add_special=False, parse_special=True,
    )  # fmt: skip
    wanted = Scorer(chat_model, max_tokens=128, batch_size=64, threads=1).score(
        [
            TokenRequest(tuple(prompt), tuple(chat_model.tokenize(choice, add_special=False)))
            for choice in WORK.prompts[0].choices
        ]
    )
    assert row["token_counts"] == [1, 4]
    assert row["logprobs"] == [s.logprob for s in wanted]


def test_where_there_is_no_template(tiny_f32: Path, tiny_model: Model) -> None:
    auto = score_job(tiny_f32, ChatSettings())
    assert asking.chat_encoder(auto, tiny_model, "generation") is None
    with pytest.raises(UsageError, match="no chat template; run with --chat off"):
        asking.chat_encoder(replace(auto, chat=ChatSettings("on")), tiny_model, "choice")


@pytest.mark.parametrize(
    ("chat", "kinds", "settings"),
    [
        (ChatSettings(), {"choice", "generation"}, {}),
        (ChatSettings("off"), {"choice"}, {}),
        (ChatSettings("off"), {"choice", "generation"}, {"chat": "off"}),
        (ChatSettings("on"), {"generation"}, {}),
        (ChatSettings("on"), {"choice", "generation"}, {"chat": "on"}),
        (ChatSettings("auto", "x", True), {"choice"}, {}),
        (ChatSettings("auto", "x", True), {"generation"}, {"system": "x", "fewshot_as_turns": True}),
    ],
)
def test_identity(chat: ChatSettings, kinds: set[str], settings: dict[str, Any]) -> None:
    assert chat.answer_settings(kinds) == settings


def test_names_and_options() -> None:
    assert chat_name({}) == ""
    assert chat_name(EVERYTHING.answer_settings({"choice"})).startswith(" chat system ")
    assert chat_name({"chat": "off"}) == " no chat"
    assert chat_settings("on", "Be brief.", True) == EVERYTHING
    with pytest.raises(UsageError, match="needs one of auto, on, off; found 'of'"):
        chat_settings("of", "", False)
    with pytest.raises(UsageError, match="found --chat off"):
        chat_settings("off", "x", False)
