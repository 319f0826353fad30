"""Conversations in a run: what workers ask, and which point the answers belong to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import gguf
import pytest
from tiny_model import add_byte_bpe, write_model

from gguf_eval.cli.engine import ChatOptions
from gguf_eval.errors import UsageError
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.scoring import Scorer, TokenRequest
from gguf_eval.runtime.settings import ChatSettings, EngineSettings, chat_name
from gguf_eval.study.job import decode_job, encode_job
from gguf_eval.study.stages import asking, generate, score, show
from gguf_eval.study.stages.ask import PromptWork, TaskWork
from gguf_eval.study.stages.generate import GenerateJob
from gguf_eval.study.stages.score import ScoreJob
from gguf_eval.study.stages.show import ShowJob
from gguf_eval.tasks.prompts import Example, Header
from gguf_eval.tasks.spec import Generation

TEMPLATE = (
    "{% if 'forbidden' in messages[-1].content %}{{ raise_exception('not that') }}{% endif %}"
    "{% if 'broken' in messages[-1].content %}{{ 1 + messages[-1].content }}{% endif %}"
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
HEADER = Header("Add.\n\n", (Example("1+1?", "2"), Example("2+2?", "4")), " ", "\n")
WORK = TaskWork("sums", ("a",), (PromptWork(0, ("3+3?",), ("6", "</s>")),), (HEADER,), " ")
WRITTEN = Generation(4, chat_stop=())
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
        encoder = asking.chat_encoder(chat_path, chat, chat_model, "generation")
        prompts, refused = asking.written_prompts(WORK, chat, encoder)
        asked[name] = prompts[0] if isinstance(prompts[0], str) else text_of(chat_model, prompts[0])
        assert not refused
    assert asked == {
        "text": "<s>[system] Add.</s>[user] 1+1? 2\n2+2? 4\n3+3?</s>[assistant] ",
        "turns": "<s>[system] Be brief.\n\nAdd.</s>[user] 1+1?</s>[assistant] 2</s>[user] 2+2?</s>[assistant] 4</s>"
        "[user] 3+3?</s>[assistant] ",
        "off": "Add.\n\n1+1? 2\n2+2? 4\n3+3?",
    }


@pytest.mark.parametrize("mode", ["on", "off"])
def test_stop_strings_of_a_conversation_are_its_own(chat_path: Path, mode: Literal["on", "off"]) -> None:
    def written(settings: Generation) -> tuple[str, str]:
        job = GenerateJob(str(chat_path), (WORK,), 128, 64, 1, EngineSettings(), ChatSettings(mode), (settings,))
        assert decode_job(encode_job(job)) == job
        events: list[dict[str, Any]] = []
        generate.work(job, events.append)
        [row] = next(event["rows"] for event in events if event["event"] == "outcomes")
        return row["text"], row["finish_reason"]

    longer = replace(WRITTEN, max_tokens=16)
    whole, reason = written(longer)
    mark = next(character for character in whole if character.isascii())
    in_text, in_chat = replace(longer, stop=(mark,)), replace(longer, chat_stop=(mark,))
    cut, uncut = (in_chat, in_text) if mode == "on" else (in_text, in_chat)
    assert written(uncut) == (whole, reason)
    text, reason = written(cut)
    assert reason == "stop"
    assert mark not in text


def test_choices_follow_the_header(chat_path: Path, chat_model: Model) -> None:
    job = score_job(chat_path, EVERYTHING)
    assert decode_job(encode_job(job)) == job
    events: list[dict[str, Any]] = []
    score.work(job, events.append)
    (row,) = next(event["rows"] for event in events if event["event"] == "outcomes")
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


REFUSED = TaskWork(
    "mixed",
    ("a", "b", "c"),
    tuple(PromptWork(0, (question,), ("6", "7")) for question in ("forbidden?", "3+3?", "broken?")),
    (HEADER,),
    " ",
)
REASONS = {
    "a": "the model file's chat template refuses the conversation: not that",
    "b": None,
    "c": "the model file's chat template refuses the conversation: TypeError: unsupported operand type(s) for +: "
    "'int' and 'str'",
}


def test_a_refused_conversation_is_an_unscored_item(chat_path: Path) -> None:
    events: list[dict[str, Any]] = []
    score.work(replace(score_job(chat_path, EVERYTHING), tasks=(REFUSED,)), events.append)
    writing = tuple(replace(prompt, choices=()) for prompt in REFUSED.prompts)
    job = GenerateJob(
        str(chat_path), (replace(REFUSED, prompts=writing),), 128, 64, 1, EngineSettings(), EVERYTHING, (WRITTEN,)
    )
    wrote: list[dict[str, Any]] = []
    generate.work(job, wrote.append)
    for told in (events, wrote):
        rows = {row["item"]: row for event in told if event["event"] == "outcomes" for row in event["rows"]}
        assert {item: row["unscored_reason"] for item, row in rows.items()} == REASONS
    assert [
        len(row["logprobs"]) for e in events if e["event"] == "outcomes" for row in e["rows"] if row["item"] == "b"
    ] == [2]


def shown(path: Path, work: TaskWork, kind: str, chat: ChatSettings) -> list[dict[str, Any]]:
    job = ShowJob(str(path), work, kind, chat)
    assert decode_job(encode_job(job)) == job
    events: list[dict[str, Any]] = []
    show.work(job, events.append)
    rows: list[dict[str, Any]] = events[0]["rows"]
    return rows


def test_what_would_be_asked(chat_path: Path) -> None:
    (text,) = shown(chat_path, WORK, "choice", ChatSettings())
    assert text == {
        "item": "a",
        "prompts": [{"text": "⟦<s>⟧Add.\n\n1+1? 2\n2+2? 4\n3+3?", "tokens": 25}],
        "answers": [{"text": " 6", "tokens": 2}, {"text": " </s>", "tokens": 5}],
        "unscored_reason": None,
    }
    first, second, _ = shown(chat_path, REFUSED, "choice", EVERYTHING)
    assert first["unscored_reason"] == REASONS["a"]
    assert second["prompts"][0]["text"].startswith(
        "⟦<s>⟧[system] Be brief.\n\nAdd.⟦</s>⟧[user] 1+1?⟦</s>⟧[assistant] 2"
    )
    assert second["answers"] == [{"text": "6", "tokens": 1}, {"text": "7", "tokens": 1}]
    own = replace(WORK, prompts=(PromptWork(0, ("3+3", "4+4"), ("=6", "=6")),))
    (partial,) = shown(chat_path, own, "choice", ChatSettings("off"))
    assert [prompt["text"][-3:] for prompt in partial["prompts"]] == ["3+3", "4+4"]
    writing = replace(WORK, prompts=(replace(WORK.prompts[0], choices=()),))
    (written,) = shown(chat_path, writing, "generation", ChatSettings("off"))
    assert (written["prompts"][0]["tokens"], written["answers"]) == (25, [])


def test_where_there_is_no_template(tiny_f32: Path, tiny_model: Model) -> None:
    assert asking.chat_encoder(tiny_f32, ChatSettings(), tiny_model, "generation") is None
    with pytest.raises(UsageError, match="no chat template; run with --chat off"):
        asking.chat_encoder(tiny_f32, ChatSettings("on"), tiny_model, "choice")


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
    assert ChatOptions("on", "Be brief.", True).settings == EVERYTHING
    with pytest.raises(UsageError, match="needs one of auto, on, off; found 'of'"):
        _ = ChatOptions("of", "", False).settings
    with pytest.raises(UsageError, match="found --chat off"):
        _ = ChatOptions("off", "x", False).settings
