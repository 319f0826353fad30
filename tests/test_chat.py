"""Chat templates: the text transformers gives, and content that never becomes a control token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import TemplateError
from tiny_model import add_byte_bpe, write_model

from gguf_eval.errors import ModelFileError, UsageError, nearest
from gguf_eval.runtime.chat import ChatEncoder, ChatTemplates, conversation
from gguf_eval.runtime.chat_template import render_template
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.vocabulary import Vocabulary

KNOWN: dict[str, Any] = json.loads((Path(__file__).parent / "data/chat_templates.json").read_text(encoding="utf-8"))
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
BOS, EOS = 256, 257


@pytest.mark.parametrize("name", KNOWN["models"])
def test_texts_are_those_of_transformers(name: str) -> None:
    model = KNOWN["models"][name]
    tokens = {"bos_token": model["bos_token"], "eos_token": model["eos_token"]}
    for case, wanted in model["texts"].items():
        messages = KNOWN["cases"][case.removesuffix("+")]
        if wanted is None:
            with pytest.raises(TemplateError):
                render_template(model["template"], messages, tokens, add_generation_prompt=case.endswith("+"))
        else:
            found = render_template(model["template"], messages, tokens, add_generation_prompt=case.endswith("+"))
            assert found == wanted


def test_a_template_stays_in_the_sandbox() -> None:
    with pytest.raises(TemplateError, match="access to attribute '__class__' of 'str' object is unsafe"):
        render_template("{{ ''.__class__.__mro__ }}", [], {}, add_generation_prompt=False)
    with pytest.raises(TemplateError, match="is not safely callable|unsafe"):
        render_template("{{ messages.append(1) }}", [], {}, add_generation_prompt=False)


@pytest.fixture(scope="module")
def byte_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """One token a byte, BOS added."""
    path = write_model(tmp_path_factory.mktemp("chat") / "bytes.gguf", layers=1, tokenizer=add_byte_bpe)
    with Model(path) as model:
        yield model


def encoder(model: Model, template: str = TEMPLATE) -> ChatEncoder:
    templates = ChatTemplates({"tokenizer.chat_template": template}, model)
    return ChatEncoder(model, templates.select(None), templates.tokens)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_misspelt_template_is_refused_with_the_nearest(byte_model: Model) -> None:
    keys = {"tokenizer.chat_template": TEMPLATE, "tokenizer.chat_template.tool_use": TEMPLATE}
    with pytest.raises(UsageError, match=r"'tool_us'; did you mean 'tool_use'\? \(it has: default, tool_use\)"):
        ChatTemplates(keys, byte_model).select("tool_us")
    with pytest.raises(TypeError, match="letters of a string"):
        nearest("tool_us", "default, tool_use")
    assert nearest("default/test", ["default/test", "default/train"]) == ""


def test_content_never_becomes_a_control_token(byte_model: Model) -> None:
    encode = encoder(byte_model)
    plain = encode.prompt(user("Hi"))
    assert (plain.count(BOS), plain.count(EOS)) == (1, 1)
    for text in ("</s>", "a</s>", "<s></s>b", "</s></s>", "</<s>s>", "\ue0f0</s>\ue0f1", "</\ue0f1s>", " </s> "):
        tokens = encode.prompt(user(text))
        assert (tokens.count(BOS), tokens.count(EOS)) == (1, 1), text
        clean = text.replace("\ue0f0", "").replace("\ue0f1", "").strip()
        spelt = byte_model.tokenize(f"[user] {clean}", add_special=False)
        assert tokens == (BOS, *spelt, EOS, *byte_model.tokenize("[assistant] ", add_special=False))


def test_content_of_a_sentencepiece_model(tiny_model: Model) -> None:
    encode = encoder(tiny_model, "{{ bos_token }}the {{ messages[0].content }}{{ eos_token }}")
    bos, eos = tiny_model.prefix_token, tiny_model.eos_token
    assert encode.prompt(user("cat sat")) == (bos, *tiny_model.tokenize("the cat sat", add_special=False), eos)
    hostile = encode.prompt(user("cat</s>sat"))
    assert (hostile.count(bos), hostile.count(eos)) == (1, 1)
    spelt = b"".join(Vocabulary(tiny_model).piece(token) for token in hostile)
    assert spelt.decode() == " the cat</s>sat"


def test_one_bos(byte_model: Model) -> None:
    assert byte_model.adds_bos
    for template in (TEMPLATE, TEMPLATE.replace("{{ bos_token }}", "")):
        tokens = encoder(byte_model, template).prompt(user("Hi"))
        assert (tokens[0], tokens.count(BOS)) == (BOS, 1)


def test_an_answer_has_the_blank_of_the_template(byte_model: Model) -> None:
    models = KNOWN["models"]
    leads = {"Llama-2-7b-chat": " ", "Mistral-7B-Instruct-v0.1": "", "Mistral-7B-Instruct-v0.3": " ",
             "Meta-Llama-3-8B-Instruct": "", "SmolLM2-135M-Instruct": ""}  # fmt: skip
    for name, lead in leads.items():
        answer = encoder(byte_model, models[name]["template"]).answer("</s>")
        assert answer == tuple(byte_model.tokenize(f"{lead}</s>", add_special=False)), name


def test_a_system_message_that_is_refused_goes_into_the_question(byte_model: Model) -> None:
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE
    encode = encoder(byte_model, strict)
    messages = conversation("Be kind.", (("1?", "2"),), "Why?")
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert encode.prompt(messages) == encode.prompt(conversation("", (("Be kind.\n\n1?", "2"),), "Why?"))
    with pytest.raises(ModelFileError, match="refuses the conversation: never"):
        encoder(byte_model, "{{ raise_exception('never') }}").prompt(user("Hi"))
