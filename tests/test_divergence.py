"""Perplexity and divergence: slow definitions on tiny models, the stored reference, and figures of a text."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import add_sentencepiece, write_model

from gguf_eval.analysis.divergence import summarise_text
from gguf_eval.errors import ModelFileError, UsageError
from gguf_eval.runtime.divergence import compare_exactly, compare_with_stored, condense, reference_dtype
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.perplexity import (
    Windows,
    decode_windows,
    negative_log_likelihoods,
    open_window_context,
    plan_windows,
    target_bytes,
)
from gguf_eval.runtime.reference_file import ReferenceKey, ReferenceReader, ReferenceWriter, reference_path
from gguf_eval.runtime.rows import Rows
from gguf_eval.runtime.settings import EngineSettings
from gguf_eval.store.records import TextRecord

TEXT = "the cat sat in the sand and the ant ran. " * 30 + "\n"


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def likelihoods(model: Model, windows: Windows, batch_size: int) -> np.ndarray:
    whole = EngineSettings(cache_type_k="F32", cache_type_v="F32", flash_attention=0)  # no rounding in the cache
    n_ctx = windows.tokens.shape[1]
    with open_window_context(model, n_ctx, batch_size=batch_size, threads=1, engine=whole) as context:
        return np.concatenate([negative_log_likelihoods(rows, 1) for rows in decode_windows(context, windows)])


# Windows


def test_windows_are_llama_perplexitys(tiny_model: Model) -> None:
    tokens = tiny_model.tokenize(TEXT.removesuffix("\n"))
    windows = plan_windows(tiny_model, TEXT, n_ctx=32)
    assert windows.tokens.shape == (len(tokens) // 32, 32)
    assert (windows.first, windows.scored) == (16, 15)
    for number, (window, targets) in enumerate(zip(windows.tokens, windows.targets, strict=True)):
        cut = tokens[32 * number : 32 * number + 32]
        assert window.tolist() == [tiny_model.prefix_token, *cut[1:]]
        assert targets.tolist() == cut[17:]
    assert plan_windows(tiny_model, TEXT, n_ctx=32, chunks=2).tokens.shape == (2, 32)


def test_strided_windows(tiny_model: Model) -> None:
    tokens = tiny_model.tokenize(TEXT.removesuffix("\n"))
    windows = plan_windows(tiny_model, TEXT, n_ctx=32, stride=8)
    assert len(windows.tokens) == -(-(len(tokens) - 32) // 8)
    assert windows.tokens[3].tolist() == tokens[24:56]
    assert windows.targets[3].tolist() == tokens[48:56]
    assert (windows.first, windows.scored) == (23, 8)


def test_windows_that_can_not_be(tiny_model: Model) -> None:
    with pytest.raises(UsageError, match="a text of more than 32 tokens is needed, found"):
        plan_windows(tiny_model, "the cat", n_ctx=32)
    with pytest.raises(UsageError, match="don't fit the model's context of 256"):
        plan_windows(tiny_model, TEXT, n_ctx=512)
    with pytest.raises(UsageError, match="a stride below them"):
        plan_windows(tiny_model, TEXT, n_ctx=32, stride=32)


def test_batches_change_nothing(tiny_model: Model) -> None:
    """Several windows a decode, one, or several decodes a window."""
    windows = plan_windows(tiny_model, TEXT, n_ctx=32, chunks=5)
    together, alone, halves = (likelihoods(tiny_model, windows, size) for size in (96, 32, 16))
    assert together == pytest.approx(alone, abs=2e-4)
    assert halves == pytest.approx(alone, abs=2e-4)
    assert len(alone) == 5 * 15


def test_likelihoods_are_their_definition(tiny_model: Model) -> None:
    windows = plan_windows(tiny_model, TEXT, n_ctx=32, chunks=2)
    with open_window_context(tiny_model, 32, batch_size=32, threads=1) as context:
        for rows in decode_windows(context, windows):
            slow = -log_softmax(rows.logits)[np.arange(15), rows.targets]
            assert negative_log_likelihoods(rows, 2) == pytest.approx(slow, abs=1e-5)


def test_bytes_of_the_scored_tokens(tiny_model: Model) -> None:
    windows = plan_windows(tiny_model, TEXT, n_ctx=32, stride=31, chunks=20)
    covered = target_bytes(tiny_model, windows).sum()
    assert 0 < covered <= len(TEXT.encode())
    # All but the first token and the rest after the last window is scored, once.
    tokens = tiny_model.tokenize(TEXT.removesuffix("\n"))
    scored = tokens[1 : 1 + windows.targets.size]
    assert windows.targets.ravel().tolist() == scored


# Divergence


def made_up(seed: int, rows: int = 60, vocabulary: int = 3000, noise: float = 0.3) -> tuple[Rows, Rows]:
    random = np.random.default_rng(seed)
    base = (random.standard_normal((rows, vocabulary)) * 3).astype(np.float32)
    other = base + (random.standard_normal(base.shape) * noise).astype(np.float32)
    targets = random.integers(0, vocabulary, rows).astype(np.int32)
    return Rows(0, base, targets), Rows(0, other, targets)


def test_the_whole_sum_is_its_definition() -> None:
    base, other = made_up(1)
    found = compare_exactly(other, base, 2)
    p, q = log_softmax(base.logits), log_softmax(other.logits)
    numbers = np.arange(len(p))
    assert found.kld == pytest.approx((np.exp(p) * (p - q)).sum(axis=1), rel=1e-3, abs=1e-5)
    assert found.nll == pytest.approx(-q[numbers, other.targets], abs=1e-4)
    assert found.reference_nll == pytest.approx(-p[numbers, base.targets], abs=1e-4)
    assert found.same_top.tolist() == (p.argmax(axis=1) == q.argmax(axis=1)).tolist()
    assert found.confidence == pytest.approx(np.exp(p.max(axis=1)), rel=1e-4)


def test_what_is_kept_of_the_reference() -> None:
    base, _ = made_up(2, rows=9)
    dtype = reference_dtype(3000, 64, 16)
    kept = condense(base, dtype, seed=0, threads=2)
    p = log_softmax(base.logits)
    order = np.argsort(-p, axis=1)[:, :64]
    assert kept["top_ids"].tolist() == order.tolist()
    assert kept["top_logprobs"] == pytest.approx(np.take_along_axis(p, order, 1), abs=1e-4)
    assert kept["tail"] == pytest.approx(1 - np.exp(np.take_along_axis(p, order, 1)).sum(axis=1), rel=1e-3)
    for row, ids in enumerate(kept["draw_ids"].astype(int)):
        assert not set(ids.tolist()) & set(order[row].tolist())
        assert kept["draw_logprobs"][row] == pytest.approx(p[row, ids], abs=1e-4)


def test_leading_entries_of_a_large_vocabulary() -> None:
    base, _ = made_up(3, rows=4, vocabulary=20_001)
    kept = condense(base, reference_dtype(20_001), seed=0, threads=1)
    assert kept["top_ids"].tolist() == np.argsort(-base.logits, axis=1, kind="stable")[:, :256].tolist()


@pytest.mark.parametrize("noise", [0.02, 0.3, 1.0])
def test_the_estimate_is_unbiased_and_knows_its_error(noise: float) -> None:
    """Over many draws: the mean error is within three of its standard errors, which are the size the estimate says."""
    base, other = made_up(4, noise=noise)
    exact = compare_exactly(other, base, 1).kld.astype(float)
    dtype = reference_dtype(3000, 64, 64)
    estimates, variances = [], []
    for seed in range(40):
        found = compare_with_stored(other, condense(base, dtype, seed=seed, threads=1), 1)
        estimates.append(found.kld.astype(float).mean())
        variances.append(found.kld_variance.astype(float).sum() / len(exact) ** 2)
    spread = np.std(estimates, ddof=1)
    assert abs(np.mean(estimates) - exact.mean()) < 3 * spread / math.sqrt(40) + 1e-3 * exact.mean()
    assert math.sqrt(np.mean(variances)) == pytest.approx(spread, rel=0.5)
    assert found.same_top.tolist() == compare_exactly(other, base, 1).same_top.tolist()


def test_a_model_beside_itself() -> None:
    base, _ = made_up(5)
    found = compare_with_stored(base, condense(base, reference_dtype(3000), seed=0, threads=1), 1)
    assert np.abs(found.kld).max() < 1e-5
    assert found.same_top.all()


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(-50, 50))
def test_adding_a_constant_to_the_logits_changes_nothing(seed: int, shift: float) -> None:
    base, other = made_up(seed, rows=3, vocabulary=700)
    kept = condense(base, reference_dtype(700, 32, 8), seed=1, threads=1)
    moved = replace(other, logits=other.logits + np.float32(shift))
    assert compare_with_stored(moved, kept, 1).kld == pytest.approx(compare_with_stored(other, kept, 1).kld, abs=2e-3)


def test_a_token_takes_less_than_three_kilobytes() -> None:
    assert reference_dtype(49_152).itemsize < 3_000
    assert reference_dtype(128_256).itemsize < 3_000


# The stored reference


def key(**changes: Any) -> ReferenceKey:
    return replace(ReferenceKey("a" * 64, "b" * 64, 3000, 3, 20, {}), **changes)


def test_a_stored_reference_is_read_back(tmp_path: Path) -> None:
    base, _ = made_up(6)
    kept = condense(base, key().dtype, seed=0, threads=1)
    path = reference_path(tmp_path, key())
    with ReferenceWriter(path, key()) as writer:
        writer.write(kept[:25])
        writer.write(kept[25:])
    with ReferenceReader(path, key()) as reader:
        assert np.array_equal(np.concatenate([reader.read(40), reader.read(20)]), kept)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert reference_path(tmp_path, key(settings={"cache_type_k": "Q8_0"})) != path


def test_an_unfinished_reference_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.reference"
    base, _ = made_up(6)
    with ReferenceWriter(path, key()) as writer:
        writer.write(condense(base, key().dtype, seed=0, threads=1)[:10])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ModelFileError, match="can't be read"):
        ReferenceReader(path, key())


def test_damaged_and_foreign_references(tmp_path: Path) -> None:
    path = tmp_path / "r.reference"
    base, _ = made_up(6)
    with ReferenceWriter(path, key()) as writer:
        writer.write(condense(base, key().dtype, seed=0, threads=1))
    with pytest.raises(ModelFileError, match="is of another windows sha256"):
        ReferenceReader(path, key(windows_sha256="c" * 64))
    data = path.read_bytes()
    for damage, message in ((data[:-1], "cut short"), (b"GGUF" + data, "no stored reference"), (data[:60], "damaged")):
        path.write_bytes(damage)
        with pytest.raises(ModelFileError, match=message):
            ReferenceReader(path, key())


# Figures of a text


def record(windows: int = 12, scored: int = 50, seed: int = 0) -> TextRecord:
    random = np.random.default_rng(seed)
    base = random.gamma(2, 1.5, windows * scored).astype(np.float32)
    return TextRecord(
        conditions={"text": "t", "text_sha256": "0", "n_ctx": 102, "stride": None, "reference": "F16", "exact": False},
        windows=windows,
        scored=scored,
        window_bytes=(200,) * windows,
        columns={
            "nll": base + random.normal(0.05, 0.2, len(base)).astype(np.float32),
            "reference_nll": base,
            "kld": random.gamma(0.5, 0.1, len(base)).astype(np.float32),
            "kld_variance": np.full(len(base), 1e-6, np.float32),
            "same_top": (random.random(len(base)) < 0.9).astype(np.uint8),
            "confidence": random.random(len(base)).astype(np.float32),
        },
    )


def test_figures_are_llama_perplexitys() -> None:
    """Its formulas, on the tokens as if they were independent; intervals are ours."""
    sample = record()
    found = summarise_text(sample)
    nll, base, kld = (sample.columns[name].astype(float) for name in ("nll", "reference_nll", "kld"))
    n = len(nll)
    assert found.perplexity.value == pytest.approx(math.exp(nll.mean()))
    assert found.token_error == pytest.approx(math.exp(nll.mean()) * math.sqrt(nll.var() / (n - 1)))
    assert found.bits_per_byte.value == pytest.approx(nll.sum() / math.log(2) / 2400)
    divergence = found.divergence
    assert divergence is not None
    assert divergence.mean.value == pytest.approx(kld.mean())
    assert divergence.token_error == pytest.approx(math.sqrt(kld.var() / (n - 1)))
    assert divergence.estimator_error == pytest.approx(1e-3 / math.sqrt(n), rel=1e-4)
    assert divergence.quantiles["99%"].value == pytest.approx(np.quantile(kld, 0.99))
    assert divergence.perplexity_ratio.value == pytest.approx(math.exp((nll - base).mean()))
    assert divergence.correlation == pytest.approx(np.corrcoef(nll, base)[0, 1])
    change = np.exp(-nll) - np.exp(-base)
    assert divergence.change_rms.value == pytest.approx(math.sqrt((change**2).mean()))
    assert sum(band.tokens for band in divergence.by_confidence) == n
    for name in ("99%", "99.9%"):  # 6 of 600 tokens lie beyond, and none
        extreme = divergence.quantiles.pop(name)
        assert (extreme.low, extreme.high) == (None, None)
    for band in divergence.by_confidence:  # 12 windows are few for values as skewed as those of few tokens
        assert band.mean is None or band.mean.low is None
    for figure in (found.perplexity, divergence.mean, divergence.same_top, *divergence.quantiles.values()):
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value <= figure.high


def test_intervals_over_windows_cover_the_truth() -> None:
    """Windows differ from each other: the mean's interval holds the truth in 93-97 % of 400 texts."""
    random = np.random.default_rng(9)
    covered = 0
    for _ in range(400):
        values = 3 + random.normal(0, 0.5, (40, 1)) + random.normal(0, 1, (40, 20))
        sample = replace(record(40, 20), columns={"nll": values.ravel()})
        figure = summarise_text(sample).perplexity
        assert figure.low is not None
        assert figure.high is not None
        covered += math.log(figure.low) <= 3 <= math.log(figure.high)
    assert 0.93 <= covered / 400 <= 0.97


def test_intervals_of_quantiles_and_shares_cover_the_truth() -> None:
    """Tokens of a window go together; the interval of few windows is wide enough too."""
    random = np.random.default_rng(10)
    truth = {"median": 0.0, "90%": 1.2816}
    covered = dict.fromkeys([*truth, "same_top"], 0)
    for _ in range(400):
        shared = random.normal(0, 0.3, (12, 1))
        values = (shared + random.normal(0, math.sqrt(1 - 0.3**2), (12, 50))).ravel()
        sample = record(12)
        columns = sample.columns | {"kld": values, "same_top": (values < 1.2816).astype(np.uint8)}
        divergence = summarise_text(replace(sample, columns=columns)).divergence
        assert divergence is not None
        for name, value in truth.items():
            figure = divergence.quantiles[name]
            assert figure.low is not None
            assert figure.high is not None
            covered[name] += figure.low <= value <= figure.high
        assert divergence.same_top.low is not None
        assert divergence.same_top.high is not None
        covered["same_top"] += divergence.same_top.low <= 0.9 <= divergence.same_top.high
    assert all(0.93 <= count / 400 <= 0.97 for count in covered.values()), covered


def test_one_window_has_no_interval() -> None:
    found = summarise_text(record(1))
    assert (found.perplexity.low, found.perplexity.high) == (None, None)


def test_a_reference_of_another_tokenizer_is_refused(tmp_path: Path, tiny_model: Model) -> None:
    other = write_model(tmp_path / "bytes.gguf", seed=3)
    with Model(other) as bytewise:
        first, second = (plan_windows(model, TEXT, n_ctx=32, chunks=2) for model in (tiny_model, bytewise))
    assert first.sha256 != second.sha256
    same = write_model(tmp_path / "same.gguf", seed=4, tokenizer=add_sentencepiece)
    with Model(same) as alike:
        assert plan_windows(alike, TEXT, n_ctx=32, chunks=2).sha256 == first.sha256
