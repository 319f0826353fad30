"""Models that think aloud: what is answer and what is thought, and where scored answers stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from tiny_model import byte_tokens, write_model

from gguf_eval.errors import UsageError
from gguf_eval.lm_eval.model import GgufEvalLM
from gguf_eval.runtime.chat import ChatEncoder, ChatTemplates
from gguf_eval.runtime.generation import GenerationRequest, Generator, Written
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.settings import ChatSettings, EngineSettings
from gguf_eval.runtime.thinking import Thoughts
from gguf_eval.runtime.vocabulary import Vocabulary
from gguf_eval.study.stages import score
from gguf_eval.study.stages.ask import PromptWork, TaskWork
from gguf_eval.study.stages.score import ScoreJob
from gguf_eval.tasks.prompts import Header

CONTROL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|channel|>", "<|message|>", "<|start|>", "<|end|>",
           "[THINK]", "[/THINK]", "<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>")  # fmt: skip
OWN = ("<think>", "</think>")
"""Tokens that are text, as Qwen3's are."""
TURN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
R1 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
PLAIN = TURN + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
HARMONY = (
    "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>"
    "{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


def vocabulary_of(*own: str, template: str = "") -> Callable[[gguf.GGUFWriter], int]:
    """One token a byte, control tokens, and tokens of their own for ``own``."""

    def add(writer: gguf.GGUFWriter) -> int:
        tokens = [*byte_tokens(), *CONTROL, *own]
        kinds = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * len(CONTROL)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(tokens)
        writer.add_token_types(kinds + [gguf.TokenType.USER_DEFINED] * len(own))
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(256)
        writer.add_eos_token_id(257)
        writer.add_add_bos_token(False)
        if template:
            writer.add_chat_template(template)
        return len(tokens)

    return add


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """Has the marks in its vocabulary."""
    path = tmp_path_factory.mktemp("thinking") / "thinker.gguf"
    with Model(write_model(path, layers=1, tokenizer=vocabulary_of(*OWN))) as model:
        yield model


@pytest.fixture(scope="module")
def by_template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """Has ``<think>`` in its template only: written as text, byte by byte."""
    path = tmp_path_factory.mktemp("thinking") / "template.gguf"
    with Model(write_model(path, layers=1, tokenizer=vocabulary_of(template=QWEN3))) as model:
        yield model


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """Knows nothing of ``<think>``."""
    path = tmp_path_factory.mktemp("thinking") / "plain.gguf"
    with Model(write_model(path, layers=1, tokenizer=vocabulary_of(template=PLAIN))) as model:
        yield model


def tokens_of(model: Model, text: str) -> list[int]:
    return model.tokenize(text, add_special=False, parse_special=True)


def written(model: Model, text: str, *, prompt: str = "", stop: Sequence[str] = ()) -> tuple[str, str, str | None]:
    """(thought, answer, why unfinished) of a model that writes ``text`` up to the limit."""
    reader = Thoughts(model, Vocabulary(model)).reader(tokens_of(model, prompt), stop)
    ended = any(reader.add(token) for token in tokens_of(model, text))
    reason = "stop" if ended or reader.close() else "length"
    return reader.thought, reader.text, reader.unfinished(reason, 9)


UNFINISHED = "unfinished: the thought did not end within 9 tokens"


@pytest.mark.parametrize(
    ("text", "prompt", "thought", "answer"),
    [
        ("<think>\nA? No.\n</think>\n\nC", "", "<think>\nA? No.\n</think>\n\n", "C"),
        ("\n<think>A</think>C", "", "\n<think>A</think>", "C"),
        ("A? No.\n</think>\n\nC", "assistant\n<think>\n", "A? No.\n</think>\n\n", "C"),
        ("<think>a</think>\n<think>b</think> C", "", "<think>a</think>\n<think>b</think> ", "C"),
        ("C", "<think>\n\n</think>\n\n", "", "C"),
        ("C, as </think> says", "", "", "C, as </think> says"),
        ("The tag is <think>A</think>.", "", "", "The tag is <think>A</think>."),
        (" \n", "", "", " \n"),
        ("<", "", "", "<"),
        ("<|channel|>analysis<|message|>A?<|end|><|start|>assistant<|channel|>final<|message|>C", "",
         "<|channel|>analysis<|message|>A?<|end|><|start|>assistant<|channel|>final<|message|>", "C"),
        ("<|channel|>final<|message|>C", "", "<|channel|>final<|message|>", "C"),
        ("[THINK]A[/THINK]C", "", "[THINK]A[/THINK]", "C"),
        ("<|START_THINKING|>A<|END_THINKING|><|START_RESPONSE|>C", "", "<|START_THINKING|>A<|END_THINKING|>", "C"),
    ],
)  # fmt: skip
def test_what_follows_the_thought_is_the_answer(
    thinker: Model, text: str, prompt: str, thought: str, answer: str
) -> None:
    assert written(thinker, text, prompt=prompt) == (thought, answer, None)


def test_marks_as_text_count_where_the_template_has_them(by_template: Model, plain: Model) -> None:
    text = "<think>A? No.</think>\n\nC"
    assert written(by_template, text) == ("<think>A? No.</think>\n\n", "C", None)
    assert written(plain, text) == ("", text, None)
    assert written(plain, "A", prompt="<think>\n") == ("", "A", None)


def test_spelt_out_control_tokens_are_text(thinker: Model) -> None:
    reader = Thoughts(thinker, Vocabulary(thinker)).reader((), ())
    for token in thinker.tokenize("[THINK]A[/THINK]C", add_special=False):
        reader.add(token)
    reader.close()
    assert (reader.thought, reader.text) == ("", "[THINK]A[/THINK]C")


@pytest.mark.parametrize(
    "text", ["<think>A", "<|channel|>analysis<|message|>A<|end|>", "[THINK]", "<think>a</think><think>"]
)
def test_a_thought_without_end_is_unfinished(thinker: Model, text: str) -> None:
    thought, answer, reason = written(thinker, text)
    assert (thought, answer, reason) == (text, "", UNFINISHED)


def test_stops_count_in_the_answer_only(thinker: Model) -> None:
    stops = ("\n\n", "A")
    assert written(thinker, "<think>\n\nA\n\n</think>\n\nC\n\nD", stop=stops)[1:] == ("C", None)
    assert written(thinker, "B\n\nD", stop=stops)[1:] == ("B", None)
    assert written(thinker, "A", stop=stops)[1] == ""
    assert written(thinker, "<A", stop=stops)[1] == "<"


MARK = st.sampled_from(["<think>", "</think>", "\n", " ", "<", "th", "C", "[THINK]", "<|channel|>", "é"])


@given(st.lists(MARK, max_size=8), st.data())
def test_nothing_is_lost_and_cuts_change_nothing(by_template: Model, parts: list[str], data: st.DataObject) -> None:
    """Of a text without control tokens thought and answer are the whole, however its bytes are cut into tokens."""
    text = "".join(part for part in parts if part not in CONTROL)
    thought, answer, _ = written(by_template, text)
    assert thought + answer == text
    whole = text.encode()
    cuts = sorted({0, len(whole), *data.draw(st.lists(st.integers(0, len(whole)), max_size=6))})
    thoughts = Thoughts(by_template, Vocabulary(by_template))
    pieces = [whole[a:b] for a, b in pairwise(cuts)]
    thoughts.bytes_of = lambda token: pieces[token]  # type: ignore[method-assign]
    reader = thoughts.reader((), ())
    for place in range(len(pieces)):
        reader.add(place)
    reader.close()
    assert (reader.thought, reader.text) == (thought, answer)


def script_answers(monkeypatch: pytest.MonkeyPatch, script: Sequence[int | None]) -> None:
    """Let every answer be these tokens."""

    class Script:
        def __init__(self, *_: Any) -> None:
            self.left = iter(script)

        def choose(self, _: Any) -> int | None:
            return next(self.left)

    monkeypatch.setattr("gguf_eval.runtime.generation.TokenChooser", Script)


def generated(model: Model, text: str, monkeypatch: pytest.MonkeyPatch, **how: Any) -> Written:
    """What becomes of a model that writes ``text`` and then ends."""
    script_answers(monkeypatch, [*tokens_of(model, text), model.eos_token])
    (answer,) = Generator(model).generate([GenerationRequest("Q", **how)])
    return answer


def test_answers_of_a_model_that_thinks(thinker: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "<think>\n\nA? No.</think>\n\nC\n\nD"
    whole = generated(thinker, text, monkeypatch, stop=("\n\n",))
    assert (whole.text, whole.finish_reason, whole.unscored_reason) == ("C", "stop", None)
    assert whole.thought == "<think>\n\nA? No.</think>\n\n"
    cut = generated(thinker, text, monkeypatch, max_tokens=6)
    assert (cut.text, cut.finish_reason) == ("", "length")
    assert cut.unscored_reason == "unfinished: the thought did not end within 6 tokens"
    assert cut.thought == "<think>\n\nA? "
    after = generated(thinker, text, monkeypatch, max_tokens=len(tokens_of(thinker, text)) - 3)
    assert (after.text, after.finish_reason, after.unscored_reason) == ("C", "length", None)
    silent = generated(thinker, "<think>A", monkeypatch)
    assert (silent.text, silent.finish_reason, silent.unscored_reason) == ("", "eog", None)


def asked(model: Model, template: str) -> str:
    """Where a choice is scored, control tokens marked."""
    templates = ChatTemplates({"tokenizer.chat_template": template}, model)
    encode = ChatEncoder(model, templates.select(None), templates.tokens)
    prompt = encode.answer_prompt([{"role": "user", "content": "Q"}])
    return Vocabulary(model).spelt_out([*prompt, *encode.answer("C")])


NO_SWITCH = PLAIN.replace("assistant\n{% endif %}", "assistant\n<think></think>{% endif %}")
CLOSES = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}</think>{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>{% endif %}"
)
RESPONSE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<|START_RESPONSE|>{% endif %}"
    "{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<|START_THINKING|><|END_THINKING|>{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (PLAIN, "⟦<|im_start|>⟧assistant\nC"),
        (QWEN3, "⟦<|im_start|>⟧assistant\n<think>\n\n</think>\n\nC"),
        (HARMONY, "⟦<|end|>⟧<|start|>assistant<|channel|>final<|message|>C"),  # to llama.cpp these tokens are text
        (NO_SWITCH, "⟦<|im_start|>⟧assistant\n<think></think>C"),  # gemma 4: thought is closed by the prompt only
        (CLOSES, "⟦<|im_start|>⟧assistant\n</think>C"),  # GLM-4.7: the template's own form of an answer
        (RESPONSE, "assistant\n⟦<|START_THINKING|>⟧⟦<|END_THINKING|>⟧⟦<|START_RESPONSE|>⟧C"),  # Command R7B
    ],
)
def test_choices_stand_where_the_template_puts_an_answer(thinker: Model, template: str, end: str) -> None:
    assert asked(thinker, template).endswith(end)


INSIDE = PLAIN.replace("{{ m.role }}\n", "{{ m.role }}\n{% if m.role == 'assistant' %}<think>{% endif %}").replace(
    "assistant\n{% endif %}", "assistant\n<think>{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "begun"), [(R1, "<think>"), (INSIDE, "<think>"), (R1.replace("<think>", "Hm:"), "Hm:")]
)
def test_a_template_without_a_place_for_an_answer_is_refused(thinker: Model, template: str, begun: str) -> None:
    with pytest.raises(UsageError, match=f"begins what the assistant writes with .*{begun}.*take --chat auto"):
        asked(thinker, template)


def test_the_worker_refuses_the_point(tmp_path: Path) -> None:
    path = write_model(tmp_path / "r1.gguf", layers=1, tokenizer=vocabulary_of(*OWN, template=R1))
    work = TaskWork("t", ("a",), (PromptWork(0, ("Q",), ("A", "C")),), (Header("", (), " ", "\n"),), " ")
    job = ScoreJob(str(path), (work,), 128, 64, 1, EngineSettings(), chat=ChatSettings("on"))
    with pytest.raises(UsageError, match="no choice can be scored in a conversation"):
        score.work(job, lambda event: None)


@pytest.mark.parametrize(
    ("template", "said"), [(PLAIN, ""), (QWEN3, "writes '<think>"), (R1, "writes a thought before an answer")]
)
def test_the_harness_user_is_told_where_choices_stand(
    template: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GGUF_EVAL_CACHE", str(tmp_path))
    path = write_model(tmp_path / "chat.gguf", layers=1, tokenizer=vocabulary_of(*OWN, template=template))
    lm = GgufEvalLM(path=str(path), n_ctx=64, threads=1)
    assert lm.chat_template(True) == template
    warnings = [record.getMessage() for record in caplog.records if "chat template" in record.getMessage()]
    assert len(warnings) == bool(said)
    assert all(said in line for line in warnings)


def test_the_harness_gets_the_answer_after_the_thought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GGUF_EVAL_CACHE", str(tmp_path))
    path = write_model(tmp_path / "harness.gguf", layers=1, tokenizer=vocabulary_of(*OWN))
    lm = GgufEvalLM(path=str(path), n_ctx=64, threads=1)
    for text, limit, answer in (("<think>\n\nA</think>\n\nC\n\nD", 20, "C"), ("<think>AAAA", 3, "")):
        script_answers(monkeypatch, [*tokens_of(lm.model, text), lm.model.eos_token])
        asking = [Instance("generate_until", {}, ("Q", {"max_gen_toks": limit, "until": ["\n\n"]}), 0)]
        assert lm.generate_until(asking, disable_tqdm=True) == [answer]
    assert [r.getMessage()[:24] for r in caplog.records if "thought" in r.getMessage()] == ["1 of 1 answers are empty"]
