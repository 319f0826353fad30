"""Log-likelihoods against the forward pass written out in numpy, and batches against one request at a time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_reference import LlamaReference
from scipy.special import log_softmax, logsumexp
from tiny_model import BOS, CONTEXT_LENGTH, FIRST_BYTE, PIECES

from gguf_eval.errors import EngineError
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.rows import row_statistics
from gguf_eval.runtime.scoring import Request, Score, Scorer, encode_pair
from gguf_eval.runtime.settings import ContextSettings

LARGEST_ERROR = 0.015
"""Nats a token. llama.cpp keeps keys and values in F16, and its flash attention for small batches sums in F16 too.
Measured with four seeds of the tiny model and 60 requests of up to 106 tokens each against float64: median 0.0007 and
maximum 0.0055 in batches of 16 and 64 tokens, 0.0002 and 0.0011 in batches of 512. A wrong mask shifts the
log-probability of short requests by tenths.
"""
LARGEST_MEDIAN_ERROR = 0.002

HEADER = "the cat sat in an and er. " * 6
WORDS = ("the", "cat", "sat", "in", "an", "and", "é", "a", "?")
Expect = Callable[[Request], tuple[float, ...]]


def piece(text: str) -> int:
    """Id of a piece of the tiny vocabulary."""
    return FIRST_BYTE + 256 + PIECES.index(text)


def scorer(model: Model, **options: Any) -> Scorer:
    return Scorer(model, threads=1, **options)


def whole_tokens(model: Model, request: Request) -> list[int]:
    context, continuation = encode_pair(model, request.context, request.continuation)
    return context + continuation


@pytest.fixture(scope="module")
def reference(tiny_f32: Path) -> LlamaReference:
    return LlamaReference(tiny_f32)


@pytest.fixture(scope="module")
def expect(tiny_model: Model, reference: LlamaReference) -> Expect:
    """Token log-probabilities of a request by the reference, for requests that fit the context."""

    @cache
    def log_probabilities(request: Request) -> tuple[float, ...]:
        context, continuation = encode_pair(tiny_model, request.context, request.continuation)
        rows = reference.log_probabilities((context + continuation)[:-1])[len(context) - 1 :]
        return tuple(rows[range(len(continuation)), continuation].tolist())

    return log_probabilities


def assert_close(scores: Sequence[Score], expected: Sequence[Sequence[float]]) -> None:
    errors = []
    for score, wanted in zip(scores, expected, strict=True):
        assert score.unscored_reason is None
        assert len(score.token_logprobs) == len(wanted)
        errors += np.abs(np.subtract(score.token_logprobs, wanted)).tolist()
        assert score.logprob == pytest.approx(sum(score.token_logprobs), abs=1e-9)
    assert max(errors) < LARGEST_ERROR
    assert np.median(errors) < LARGEST_MEDIAN_ERROR or len(errors) < 20


def random_requests(count: int, seed: int, longest_context: int = 30) -> list[Request]:
    choose = random.Random(seed)
    return [
        Request(
            " ".join(choose.choices(WORDS, k=choose.randint(0, longest_context))),
            " " + " ".join(choose.choices(WORDS, k=choose.randint(1, 8))),
        )
        for _ in range(count)
    ]


# Encoding


@pytest.mark.parametrize(
    ("context", "continuation", "encoded_context", "encoded_continuation"),
    [
        ("the cat", " sat", ["▁the", "▁cat"], ["▁sat"]),
        ("the cat ", "sat", ["▁the", "▁cat"], ["▁sat"]),  # the trailing space moves to the continuation
        ("the cat  ", "sat", ["▁the", "▁cat"], ["▁", "▁sat"]),
        ("the\n", "cat", ["▁the"], ["\n", "c", "at"]),
        ("the", "an", ["▁the"], ["an"]),
        ("in", "an", ["▁in"], ["an"]),
    ],
)
def test_context_and_continuation_are_encoded_together(
    tiny_model: Model, context: str, continuation: str, encoded_context: list[str], encoded_continuation: list[str]
) -> None:
    first, second = encode_pair(tiny_model, context, continuation)
    assert first == [BOS, *map(piece, encoded_context)]
    assert second == [piece(text) for text in encoded_continuation]


def test_a_merge_across_the_border_follows_the_split_by_count(tiny_model: Model) -> None:
    # "▁ca" is a piece, and "▁cat" is one too: the pair splits after as many tokens as the context has alone, as
    # lm-evaluation-harness does, which leaves nothing to score here.
    assert encode_pair(tiny_model, "the ca", "t") == ([BOS, piece("▁the"), piece("▁cat")], [])
    (score,) = scorer(tiny_model).score([Request("the ca", "t")])
    assert score.unscored_reason == "the continuation has no tokens"
    assert score.token_logprobs == ()


@pytest.mark.parametrize("context", ["", "  ", "\n"])
def test_an_empty_context_is_the_prefix_token(tiny_model: Model, context: str) -> None:
    assert tiny_model.prefix_token == BOS
    first, second = encode_pair(tiny_model, context, "cat")
    assert first == [BOS]
    assert second == tiny_model.tokenize(context + "cat", add_special=False)


def test_bytes_and_control_tokens_in_texts(tiny_model: Model) -> None:
    assert tiny_model.tokenize("Ω", add_special=False) == [piece("▁"), FIRST_BYTE + 0xCE, FIRST_BYTE + 0xA9]
    assert BOS not in tiny_model.tokenize("<s>", add_special=False)
    assert tiny_model.tokenize("<s>", add_special=False, parse_special=True) == [BOS]
    assert tiny_model.tokenize("") == [BOS]
    assert tiny_model.tokenize("", add_special=False) == []
    assert tiny_model.adds_bos


# Against the definition


@pytest.mark.parametrize(
    ("batch_size", "max_sequences"), [(512, 256), (64, 256), (32, 3), (8, 2), (8, 256), (3, 3), (1, 256), (40, 1)]
)
def test_scores_are_those_of_the_definition(
    tiny_model: Model, expect: Expect, batch_size: int, max_sequences: int
) -> None:
    requests = random_requests(12 if batch_size < 32 else 40, seed=batch_size)
    scores = scorer(tiny_model, batch_size=batch_size, max_sequences=max_sequences).score(requests)
    assert_close(scores, [expect(request) for request in requests])


def test_f16_weights(tiny_f16: Path, expect: Expect) -> None:
    requests = random_requests(20, seed=5)
    with Model(tiny_f16) as model:
        scores = scorer(model).score(requests)
    differences = [
        abs(a - b)
        for score, request in zip(scores, requests, strict=True)
        for a, b in zip(score.token_logprobs, expect(request), strict=True)
    ]
    assert max(differences) < 2 * LARGEST_ERROR  # the rounding of the weights comes on top
    assert max(differences) > 0


def test_greedy_is_what_the_most_probable_tokens_spell(tiny_model: Model, reference: LlamaReference) -> None:
    found = []  # contexts whose most probable next token, by the definition, can be written as text
    for first in WORDS:
        for second in (*WORDS, *"bcdefghij"):
            context = f"{first} {second}"
            tokens = tiny_model.tokenize(context)
            logits = reference.logits(tokens)[-1]
            best = int(logits.argmax())
            if best >= FIRST_BYTE + 256 and np.sort(logits)[-2] < logits[best] - LARGEST_ERROR:
                text = PIECES[best - FIRST_BYTE - 256].replace("▁", " ")
                if encode_pair(tiny_model, context, text) == (tokens, [best]):
                    found.append(Request(context, text))
    assert found
    assert all(score.greedy for score in scorer(tiny_model).score(found))
    # The first token is the most probable one, a later one is not.
    longer = [Request(request.context, request.continuation + rest) for request in found for rest in (" cat", " é?")]
    for request, score in zip(longer, scorer(tiny_model).score(longer), strict=True):
        tokens, continuation = encode_pair(tiny_model, request.context, request.continuation)
        probable = reference.logits((tokens + continuation)[:-1])[len(tokens) - 1 :].argmax(axis=1).tolist()
        assert score.greedy == (probable == continuation)
    assert not all(score.greedy for score in scorer(tiny_model).score(longer))


# Batched equals one by one

fragments = st.sampled_from(["the", " cat", " sat", "an", "é", " ", "?", "\n", " in the cat"])
texts = st.lists(fragments, max_size=6).map("".join)
headers = st.sampled_from(["", "", HEADER])
pairs = st.builds(lambda header, context, rest: Request(header + context, rest), headers, texts, texts)


@settings(max_examples=60)
@given(
    requests=st.lists(pairs, min_size=1, max_size=24),
    batch_size=st.sampled_from([1, 5, 8, 16, 64, 512]),
    max_sequences=st.sampled_from([1, 2, 3, 256]),
    data=st.data(),
)
def test_batches_give_what_single_requests_give(
    tiny_model: Model,
    alone: Callable[[Request], Score],
    requests: list[Request],
    batch_size: int,
    max_sequences: int,
    data: st.DataObject,
) -> None:
    requests = requests + data.draw(st.lists(st.sampled_from(requests), max_size=5), label="duplicates")
    scores = scorer(tiny_model, batch_size=batch_size, max_sequences=max_sequences).score(requests)
    for request, score in zip(requests, scores, strict=True):
        single = alone(request)
        assert score.unscored_reason == single.unscored_reason
        assert score.token_logprobs == pytest.approx(single.token_logprobs, abs=LARGEST_ERROR)


@pytest.fixture(scope="module")
def alone(tiny_model: Model) -> Callable[[Request], Score]:
    return cache(lambda request: scorer(tiny_model).score([request])[0])


def test_one_request_is_a_prefix_of_another(tiny_model: Model, expect: Expect) -> None:
    words = ["the", "cat", "sat", "in", "an", "and", "the", "cat", "sat"]
    requests = [Request("the", " " + " ".join(words[:n])) for n in range(1, len(words) + 1)]
    requests += [Request(" ".join(words[:n]), " the") for n in range(1, len(words) + 1)]
    for batch_size in (8, 512):
        assert_close(
            scorer(tiny_model, batch_size=batch_size, max_sequences=3).score(requests), [expect(r) for r in requests]
        )


def test_a_long_header_is_decoded_once(tiny_model: Model, expect: Expect) -> None:
    # The header alone needs several batches; what follows differs late, early and in a single token.
    requests = [Request(HEADER + question, f" {answer}") for question in WORDS for answer in ("the cat", "an", "an in")]
    run = scorer(tiny_model, batch_size=16, max_sequences=4)
    assert_close(run.score(requests), [expect(request) for request in requests])
    inputs = {tuple(whole_tokens(tiny_model, r)[:-1]) for r in requests}
    prefixes = {tokens[:n] for tokens in inputs for n in range(1, len(tokens) + 1)}
    assert run.stats.unique_tokens == len(prefixes)
    assert run.stats.total_tokens > 5 * run.stats.unique_tokens
    assert run.stats.batches >= run.stats.unique_tokens / 16
    assert run.stats.requests == len(requests)


def test_the_order_of_requests_changes_nothing(tiny_model: Model) -> None:
    requests = random_requests(30, seed=3)
    straight = scorer(tiny_model, batch_size=32).score(requests)
    order = random.Random(4).sample(range(len(requests)), len(requests))
    shuffled = scorer(tiny_model, batch_size=32).score([requests[i] for i in order])
    assert [straight[i] for i in order] == shuffled


def test_the_number_of_threads_changes_nothing(tiny_model: Model) -> None:
    requests = random_requests(6, seed=9)
    assert Scorer(tiny_model, threads=2).score(requests) == scorer(tiny_model).score(requests)


def test_stream_yields_every_request_once(tiny_model: Model) -> None:
    requests = [*random_requests(20, seed=8), Request("the", "")]
    run = scorer(tiny_model, batch_size=16)
    parts = list(run.stream(requests))
    assert len(parts) > 2
    assert sorted(index for part in parts for index in part) == list(range(len(requests)))
    merged = {index: score for part in parts for index, score in part.items()}
    assert [merged[i] for i in range(len(requests))] == scorer(tiny_model, batch_size=16).score(requests)


def test_no_requests(tiny_model: Model) -> None:
    assert scorer(tiny_model).score([]) == []


# Requests that do not fit


def test_contexts_are_cut_from_the_left_and_counted(tiny_model: Model, reference: LlamaReference) -> None:
    request = Request("the cat sat in an and the cat sat in", " the cat")
    context, continuation = encode_pair(tiny_model, request.context, request.continuation)
    whole = context + continuation
    for max_tokens in range(len(continuation), len(whole) + 1):
        run = scorer(tiny_model, max_tokens=max_tokens)
        (score,) = run.score([request])
        cut = max(0, len(whole) - 1 - max_tokens)
        assert score.truncated_tokens == cut
        assert run.stats.truncated_requests == (cut > 0)
        rows = reference.log_probabilities(whole[cut:-1])[-len(continuation) :]
        assert_close([score], [rows[range(len(continuation)), continuation].tolist()])


def test_the_trained_context_is_the_limit(tiny_model: Model, reference: LlamaReference) -> None:
    assert tiny_model.trained_context == CONTEXT_LENGTH
    requests = [Request("the cat " * CONTEXT_LENGTH, end) for end in ("sat in", "an in", "the in")]
    for batch_size in (16, 512):
        for request, score in zip(requests, scorer(tiny_model, batch_size=batch_size).score(requests), strict=True):
            context, continuation = encode_pair(tiny_model, request.context, request.continuation)
            whole = context + continuation
            assert score.truncated_tokens == len(whole) - 1 - CONTEXT_LENGTH
            rows = reference.log_probabilities(whole[-CONTEXT_LENGTH - 1 : -1])[-len(continuation) :]
            assert_close([score], [rows[range(len(continuation)), continuation].tolist()])


def test_a_continuation_longer_than_the_context_is_unscored(tiny_model: Model) -> None:
    requests = [Request("the", " cat" * 9), Request("the", " cat" * 8), Request("the", " an")]
    too_long, fits, short = scorer(tiny_model, max_tokens=8).score(requests)
    assert too_long.unscored_reason == "the continuation's 9 tokens exceed the context of 8"
    assert too_long.token_logprobs == ()
    assert fits.unscored_reason is None
    assert len(fits.token_logprobs) == 8
    assert fits.truncated_tokens == 1
    assert short.truncated_tokens == 0


# Numbers


@pytest.mark.parametrize("threads", [1, 2, 7, 64])
def test_row_statistics_are_those_of_a_log_softmax(threads: int) -> None:
    random_rows = np.random.default_rng(0).normal(0, 5, (37, 1000))
    extremes = np.array(
        [
            [0.0] * 1000,
            [1e30] + [0.0] * 999,
            [-1e30] * 999 + [-1e30],
            [3e38] + [0.0] * 999,
            [88.0] * 1000,
            [-1000.0] * 500 + [-1001.0] * 500,
            [np.finfo(np.float32).tiny] * 1000,
            [-np.inf] * 999 + [2.0],
        ]
    )
    logits = np.concatenate([random_rows, extremes]).astype(np.float32)
    maximum, log_total = row_statistics(logits, threads)
    assert maximum.dtype == log_total.dtype == np.float32
    wide = logits.astype(np.float64)
    assert np.array_equal(maximum, logits.max(axis=1))
    np.testing.assert_allclose(log_total, logsumexp(wide - wide.max(axis=1, keepdims=True), axis=1), atol=2e-6)
    ours = logits[:37] - maximum[:37, None] - log_total[:37, None]
    np.testing.assert_allclose(ours, log_softmax(wide[:37], axis=1), atol=1e-5)


@pytest.mark.parametrize("threads", [1, 3])
def test_no_rows(threads: int) -> None:
    maximum, log_total = row_statistics(np.empty((0, 5), np.float32), threads)
    assert len(maximum) == len(log_total) == 0


def test_nan_logits_stay_nan() -> None:
    maximum, log_total = row_statistics(np.array([[0.0, np.nan], [0.0, 0.0]], np.float32))
    assert np.isnan(maximum[0])
    assert np.isnan(log_total[0])
    assert log_total[1] == pytest.approx(np.log(2))


# The context


def test_a_damaged_model_is_refused(tiny_f32: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny_f32.read_bytes()[:5000])
    with pytest.raises(EngineError, match="llama.cpp can't load this model"):
        Model(broken)


def test_a_decode_that_llama_cpp_refuses_is_an_error(tiny_model: Model) -> None:
    with tiny_model.open_context(ContextSettings(n_ctx=256, batch_size=8, threads=1)) as context:
        tokens, positions = np.array([BOS], np.int32), np.array([0], np.int32)
        with pytest.raises(EngineError, match="llama_decode failed"):
            context.decode(tokens, positions, [(7,)], np.ones(1, np.int8))  # one sequence only is allowed


def test_closing_twice_is_harmless(tiny_f32: Path) -> None:
    model = Model(tiny_f32)
    context = model.open_context(ContextSettings(n_ctx=256, batch_size=8, threads=1))
    context.close()
    context.close()
    model.close()
    model.close()
