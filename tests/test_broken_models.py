"""Models whose output is NaN: no answer, no perplexity and no figure, but a reason everywhere."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import write_rows
from in_process import gguf_eval_here
from listening import Listening
from tiny_model import add_byte_bpe, write_model

from gguf_eval.analysis.summary import summarise
from gguf_eval.errors import EngineError
from gguf_eval.lm_eval.model import GgufEvalLM
from gguf_eval.report.notes import items_note
from gguf_eval.runtime.generation import GenerationRequest, Generator
from gguf_eval.runtime.generation_sampling import TokenChooser
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.rows import NOT_FINITE
from gguf_eval.store.read import read_study
from gguf_eval.store.text_content import pack_text
from gguf_eval.study.plan import make_plan
from gguf_eval.study.points import RunRequest
from gguf_eval.study.run import run_study

TASK = """
name = "{kind}"
version = 1
kind = "{kind}"
metric = "{metric}"
[dataset]
file = "rows.jsonl"
[prompt]
context = "Q: {{{{ q }}}} A:"
"""
WRITTEN = 'references = "a"\n[generation]\nmax_tokens = 4\n[judge]\nname = "exact_match"\n'
CHOSEN = 'choices = "options"\ngold = "right"\n'


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("broken") / "broken-F32.gguf"
    return write_model(path, layers=1, scale=float("nan"), tokenizer=add_byte_bpe)


@pytest.fixture
def request_(broken: Path, tmp_path: Path) -> RunRequest:
    rows = [{"q": str(i), "a": "!", "options": ["!", "?"], "right": 0} for i in range(3)]
    write_rows(tmp_path / "rows.jsonl", rows)
    for kind, metric, rest in (("choice", "acc", CHOSEN), ("generation", "exact_match", WRITTEN)):
        (tmp_path / f"{kind}.toml").write_text(TASK.format(kind=kind, metric=metric) + rest, encoding="utf-8")
    (tmp_path / "story.txt").write_text("The cat sat in the house. " * 20, encoding="utf-8")
    return RunRequest(
        models=(broken,), study=tmp_path / "s.sqlite", speed=False, threads=1, cache=tmp_path / "cache",
        tasks=tuple(str(tmp_path / f"{kind}.toml") for kind in ("choice", "generation")),
    )  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_no_token_is_chosen_from_broken_logits(temperature: float, broken: float) -> None:
    logits = np.array([0.0, 3.0, -np.inf, 1.0], np.float32)  # some tokens may be impossible
    assert TokenChooser(temperature).choose(logits) in (0, 1, 3)
    for place in range(4):
        spoilt = logits.copy()
        spoilt[place] = broken
        assert TokenChooser(temperature).choose(spoilt) is None
    assert TokenChooser(temperature).choose(np.full(4, -np.inf, np.float32)) is None


def test_a_broken_answer_ends_without_a_text(broken: Path) -> None:
    with Model(broken) as model:
        (answer,) = Generator(model, threads=1).generate([GenerationRequest("Q")])
    assert (answer.text, answer.tokens, answer.finish_reason) == ("", (), "broken")
    assert answer.unscored_reason == NOT_FINITE


def test_every_item_is_unscored_with_the_reason(request_: RunRequest) -> None:
    assert run_study(make_plan(request_), Listening())
    record = read_study(request_.study)
    (point,) = record.points
    for outcomes in point.outcomes.values():
        assert {(o.value, o.unscored_reason) for o in outcomes.values()} == {(None, NOT_FINITE)}
    for name, summary in summarise(record).points[0].tasks.items():
        assert (summary.estimate, summary.unscored_reasons) == (None, {NOT_FINITE: 3}), name
    notes = items_note(summarise(record))  # a line for each metric
    assert [f"up to 3 unscored (3: {NOT_FINITE})" in line for line in notes] == [True, True]


def test_a_text_fails_with_the_reason(request_: RunRequest, broken: Path, tmp_path: Path) -> None:
    text = tmp_path / "story.txt"
    observer = Listening()
    assert not run_study(make_plan(replace(request_, tasks=request_.tasks[:1], text=str(text), text_ctx=32)), observer)
    assert observer.failures == [f"{broken}: {NOT_FINITE}"]
    (point,) = read_study(request_.study).points
    assert (point.status, point.error, point.texts) == ("failed", f"{broken}: {NOT_FINITE}", ())
    shown = gguf_eval_here("report", request_.study, "--json")
    assert "NaN" not in shown.stdout
    alone = gguf_eval_here(
        "perplexity", broken, "--text", text, "-c", "32", "--cache-dir", tmp_path / "c", "--json", "--threads", "1"
    )
    assert (alone.returncode, alone.stdout) == (1, "")
    assert alone.stderr.splitlines()[-1].endswith(f"{broken}: {NOT_FINITE}")


def test_a_broken_text_of_before_has_no_figure(request_: RunRequest, tiny_f32: Path, tmp_path: Path) -> None:
    text = tmp_path / "story.txt"
    sound = replace(request_, models=(tiny_f32,), tasks=request_.tasks[:1], text=str(text), text_ctx=32, chunks=2)
    assert run_study(make_plan(sound), Listening())
    (record,) = read_study(sound.study).points[0].texts
    spoilt = replace(record, columns={"nll": np.full_like(record.columns["nll"], np.nan)})
    with sqlite3.connect(sound.study) as study:
        study.execute("UPDATE text_run SET content = ?", (pack_text(spoilt),))
    study.close()
    assert read_study(sound.study).points[0].texts == ()


def test_the_harness_is_told(broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.api.instance import Instance

    monkeypatch.setenv("GGUF_EVAL_CACHE", str(tmp_path))
    lm = GgufEvalLM(path=str(broken), n_ctx=64, threads=1)
    rolling = [Instance("loglikelihood_rolling", {}, ("a text",), 0)]
    with pytest.raises(EngineError, match=NOT_FINITE):
        lm.loglikelihood_rolling(rolling, disable_tqdm=True)
    choosing = [Instance("loglikelihood", {}, ("Q", " !"), 0)]
    with pytest.raises(EngineError, match=NOT_FINITE):
        lm.loglikelihood(choosing, disable_tqdm=True)
    writing = [Instance("generate_until", {}, ("Q", {"max_gen_toks": 4, "until": []}), 0)]
    with pytest.raises(EngineError, match=NOT_FINITE):
        lm.generate_until(writing, disable_tqdm=True)
