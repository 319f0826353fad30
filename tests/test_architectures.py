"""Models of every kind of memory, decoded together, against one fresh context a request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import architectures
import numpy as np
import pytest
from one_at_a_time import fresh, greedy, log_softmax, token_logprobs
from request_layouts import choice_layouts, written_layouts

from gguf_eval.errors import EngineError
from gguf_eval.llama.log import take_warnings
from gguf_eval.runtime import probe
from gguf_eval.runtime.generation import GenerationRequest, Generator
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.perplexity import decode_windows, negative_log_likelihoods, open_window_context, plan_windows
from gguf_eval.runtime.scoring import Scorer, TokenRequest
from gguf_eval.runtime.settings import ContextSettings, EngineSettings, MemoryKind

F32 = EngineSettings(flash_attention=0, cache_type_k="F32", cache_type_v="F32")
KINDS = {
    "deepseek2": MemoryKind.PLAIN,
    "gemma3": MemoryKind.WINDOWED,
    "gpt-oss": MemoryKind.WINDOWED,
    "cohere2": MemoryKind.WINDOWED,
    "mamba": MemoryKind.RECURRENT,
    "lfm2": MemoryKind.RECURRENT,
    "qwen3next": MemoryKind.RECURRENT,
    "plamo2": MemoryKind.RECURRENT,
}
LARGEST_ERROR = 1e-3
"""Nats of a summed log-likelihood, all in F32. Measured on these: 3e-5 (benchmarks/architectures.py)."""
SAMPLE = 5


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = architectures.make(tmp_path_factory.mktemp("architectures") / "tiny-F32.gguf", request.param)
    with Model(path) as loaded:
        assert loaded.memory is KINDS[request.param]
        yield loaded


@pytest.mark.parametrize("layout", ["many after one header", "passages", "long", "nested"])
def test_choices_are_as_with_a_fresh_context_each(model: Model, layout: str) -> None:
    requests = choice_layouts()[layout]
    requests = requests[: 40 if layout == "many after one header" else len(requests)]
    scores = Scorer(model, threads=1, engine=F32).score(requests)
    for place in range(0, len(requests), -(-len(requests) // SAMPLE)):
        truth = sum(token_logprobs(model, requests[place].context, requests[place].continuation))
        assert scores[place].logprob == pytest.approx(truth, abs=LARGEST_ERROR)


@pytest.mark.parametrize("layout", ["two levels", "three levels"])
def test_answers_are_as_with_a_fresh_context_each(model: Model, layout: str) -> None:
    prompts = written_layouts()[layout]
    answers = Generator(model, threads=1, engine=F32).generate([GenerationRequest(p, max_tokens=8) for p in prompts])
    for answer, prompt in zip(answers, prompts, strict=True):
        tokens, leads = greedy(model, prompt, 8)
        if min(leads) > 1e-3:  # nearer ones are a tie
            assert answer.tokens == tokens


def test_windows_of_a_text_are_as_with_a_fresh_context_each(model: Model) -> None:
    text = " ".join(f"Line {i} of {i * 7 % 31}." for i in range(60))
    windows = plan_windows(model, text, n_ctx=128, chunks=3)
    with open_window_context(model, 128, threads=1, engine=F32) as context:
        ours = np.concatenate([negative_log_likelihoods(rows, 1) for rows in decode_windows(context, windows)])
    truth: list[float] = []
    for tokens, targets in zip(windows.tokens.tolist(), windows.targets.tolist(), strict=True):
        with fresh(model, 128) as context_alone:
            rows = context_alone.decode(tokens, range(windows.first, windows.first + windows.scored))
        truth += [-log_softmax(rows[windows.first + i])[target] for i, target in enumerate(targets)]
    assert ours.mean() == pytest.approx(np.mean(truth), abs=1e-5)


def test_one_sequence_at_a_time_gives_the_same(model: Model) -> None:
    requests = choice_layouts()["nested"]
    together = Scorer(model, threads=1, engine=F32).score(requests)
    alone = Scorer(model, threads=1, engine=F32, max_sequences=1).score(requests)
    assert [s.logprob for s in together] == pytest.approx([s.logprob for s in alone], abs=LARGEST_ERROR)


def test_a_window_takes_less_than_the_whole_context(tmp_path: Path) -> None:
    with Model(architectures.make(tmp_path / "g.gguf", "gemma3")) as windowed:
        short = ContextSettings(n_ctx=2048, batch_size=64, ubatch_size=64, threads=1)
        whole = ContextSettings(n_ctx=2048, batch_size=64, ubatch_size=64, threads=1, swa_full=True)
        assert windowed.context_bytes(short)["KV"] < windowed.context_bytes(whole)["KV"] / 3


def test_a_model_that_answers_otherwise_in_company_is_asked_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [TokenRequest((1, 2, 3, i), (7, 8)) for i in range(4)]
    with Model(architectures.make(tmp_path / "lfm2.gguf", "lfm2")) as model:
        right = probe._together
        monkeypatch.setattr(probe, "_together", lambda *given: np.roll(right(*given), 1, axis=0))
        scorer = Scorer(model, threads=1, engine=F32)
        scores = scorer.score(requests)
        assert model.decodes_together is False
        assert any("one sequence at a time" in warning for warning in take_warnings())
        assert scorer.stats.batches == len(requests)
        assert scores[2].logprob == pytest.approx(sum(token_logprobs(model, (1, 2, 3, 2), (7, 8))), abs=LARGEST_ERROR)


def test_rounding_is_no_reason_to_be_asked_alone() -> None:
    random = np.random.default_rng(0)
    alone = random.standard_normal((5, 300))
    assert probe._alike(alone, alone + 0.01 * random.standard_normal((5, 300)))
    assert probe._alike(alone, alone + 3), "a constant changes no probability"
    assert not probe._alike(alone, alone[::-1])
    assert not probe._alike(alone, 0.4 * alone + 0.6 * alone[::-1]), "a part of another's state is enough"
    assert not probe._alike(alone, np.where(alone > 2, np.nan, alone))
    assert probe._alike(np.full((5, 300), np.nan), alone), "a broken model is told of where it is scored"


def test_a_recurrent_state_is_never_cut(tmp_path: Path) -> None:
    settings = ContextSettings(n_ctx=256, batch_size=16, threads=1)
    with Model(architectures.make(tmp_path / "m.gguf", "mamba")) as model, model.open_context(settings) as context:
        tokens = np.arange(8, dtype=np.int32)
        context.decode(tokens, tokens, [(0,)] * 8, np.zeros(8, np.int8))
        assert not context.cut(4)
        with pytest.raises(EngineError, match="can't drop positions from 4 on"):
            context.keep_only(0, 4)
