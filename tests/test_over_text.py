"""A text as a stage of a run: every point over it, the reference of each model first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import write_rows
from in_process import gguf_eval_here
from listening import Listening
from quantize_fixtures import write_model

from gguf_eval.analysis.summary import summarise
from gguf_eval.report.notes import text_notes
from gguf_eval.store.read import read_study
from gguf_eval.store.text_content import pack_text, unpack_text
from gguf_eval.study import data
from gguf_eval.study.events import Planned
from gguf_eval.study.plan import make_plan
from gguf_eval.study.points import RunRequest
from gguf_eval.study.run import run_study


@pytest.fixture
def request_(tmp_path: Path) -> RunRequest:
    rows = [{"question": f"after {i}", "options": ["yes", "no"], "right": i % 2} for i in range(4)]
    write_rows(tmp_path / "few.jsonl", rows)
    task = tmp_path / "few.toml"
    task.write_text(
        'name = "few"\nversion = 1\nkind = "choice"\n[dataset]\nfile = "few.jsonl"\n'
        '[prompt]\ncontext = "{{ question }}:"\nchoices = "options"\ngold = "right"\n',
        encoding="utf-8",
    )
    text = tmp_path / "story.txt"
    text.write_text("The cat sat in the house and looked at the rain. " * 60, encoding="utf-8")
    return RunRequest(
        models=(write_model(tmp_path / "tiny.gguf"),), study=tmp_path / "s.sqlite", levels=("F32", "Q8_0", "Q4_0"),
        tasks=(str(task),), speed=False, threads=1, cache=tmp_path / "cache", text=str(text), text_ctx=32, chunks=3,
    )  # fmt: skip


def test_a_run_over_a_text_is_stored_reported_and_not_repeated(request_: RunRequest) -> None:
    observer = Listening()
    assert run_study(make_plan(request_), observer), observer.failures
    assert [point.split()[-1] for point in observer.texts] == ["F32", "Q8_0", "Q4_0"]
    record = read_study(request_.study)
    texts = {point.level: point.texts[0] for point in record.points}
    assert "kld" not in texts["F32"].columns
    for level in ("Q8_0", "Q4_0"):
        assert texts[level].conditions["reference"] == "F32"
        assert texts[level].columns["kld"].shape == (3 * texts[level].scored,)
    assert texts["Q8_0"].columns["kld"].mean() < texts["Q4_0"].columns["kld"].mean()
    summary = {point.level: point.texts[0] for point in summarise(record).points}
    likelihoods = texts["Q4_0"].columns["nll"].astype(np.float64)
    assert summary["Q4_0"].perplexity.value == pytest.approx(np.exp(likelihoods.mean()))
    assert summary["F32"].divergence is None
    again = Listening()
    assert run_study(make_plan(request_), again)
    assert not again.texts
    [planned] = [event for event in again.events if isinstance(event, Planned)]
    assert all(stage.done == stage.units for point in planned.points for stage in point.stages)


def test_what_is_stored_is_what_was_measured(request_: RunRequest) -> None:
    assert run_study(make_plan(request_), Listening())
    for point in read_study(request_.study).points:
        (text,) = point.texts
        found = unpack_text(pack_text(text), text.conditions)
        assert (found.windows, found.scored, found.window_bytes) == (text.windows, text.scored, text.window_bytes)
        assert found.peak_bytes == text.peak_bytes
        assert {**found.columns, **found.noise}.keys() == {**text.columns, **text.noise}.keys()
        for name, values in text.columns.items():
            np.testing.assert_array_equal(found.columns[name], values)


def test_a_text_that_can_not_be_run_leaves_the_tasks_answers(request_: RunRequest, tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text("Too short.", encoding="utf-8")
    observer = Listening()
    assert not run_study(make_plan(request_), observer)
    assert "a text of more than 32 tokens is needed" in observer.failures[0]
    points = read_study(request_.study).points
    assert all(len(outcomes) == 4 for point in points for outcomes in point.outcomes.values())
    assert not any(point.texts for point in points)


def test_the_report_says_what_the_text_was(request_: RunRequest) -> None:
    assert run_study(make_plan(request_), Listening())
    notes = text_notes(summarise(read_study(request_.study)))
    assert notes[0].startswith("PPL: perplexity on story.txt, 3 windows of 32 tokens; ")
    assert len(notes) == 2


def test_a_suite_brings_its_text(request_: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def find(name: str, **options: object) -> Path:
        found.append(name)
        return Path(name)

    monkeypatch.setattr(data, "find_text", find)
    asked = [
        ("wikitext2", replace(request_, text="", tasks=("everyday", "unified"))),
        ("my.txt", replace(request_, text="my.txt", tasks=("unified",))),
    ]
    for _, request in asked:
        assert data.read_data([], replace(request, mirror=Path()), fetch=False).text is not None
    assert found == [text for text, _ in asked]
    for tasks, text in ((("everyday",), ""), (("unified",), "none")):
        request = replace(request_, text=text, tasks=tasks, mirror=Path())
        assert data.read_data([], request, fetch=False) == data.Data()


def test_perplexity_refuses_cache_types_that_it_would_leave_out() -> None:
    refused = gguf_eval_here("perplexity", "m.gguf", "-ctk", "F16,Q8_0")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "needs one pair of KV cache types; found 2: run it once for each" in refused.stderr
