"""Templates that tell the date: one day per study, whatever day a run is of."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import gguf
import pytest
from listening import Listening
from tiny_model import add_byte_bpe, write_model

from gguf_eval.analysis.summary import summarise
from gguf_eval.errors import UsageError
from gguf_eval.lm_eval.arguments import parse_arguments
from gguf_eval.lm_eval.model import GgufEvalLM
from gguf_eval.report.notes import date_notes, how_to_read
from gguf_eval.runtime.chat_template import render_template, tells_date
from gguf_eval.store.database import open_lookup
from gguf_eval.store.read import read_study
from gguf_eval.store.together import merge_studies
from gguf_eval.study import run
from gguf_eval.study.plan import make_plan
from gguf_eval.study.points import RunRequest
from gguf_eval.study.process import run_in_worker

DATED = (
    "{{ bos_token }}Today: {{ strftime_now('%d %b %Y') }}\n{% for m in messages %}{{ m.role }}: {{ m.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
TASK = """
name = "sums"
version = 1
kind = "generation"
metric = "exact_match"
[dataset]
file = "rows.jsonl"
[prompt]
context = "{{ q }}?"
references = "a"
[generation]
max_tokens = 3
[judge]
name = "exact_match"
"""


def _dated(writer: gguf.GGUFWriter) -> int:
    writer.add_chat_template(DATED)
    return add_byte_bpe(writer)


@pytest.fixture(scope="module")
def dated_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("dated") / "dated-F32.gguf", layers=1, tokenizer=_dated)


@pytest.fixture
def request_(dated_path: Path, tmp_path: Path) -> RunRequest:
    (tmp_path / "rows.jsonl").write_text('{"q": "1+1", "a": "2"}\n{"q": "2+2", "a": "4"}\n', encoding="utf-8")
    (tmp_path / "sums.toml").write_text(TASK, encoding="utf-8")
    return RunRequest(
        models=(dated_path,), study=tmp_path / "s.sqlite", speed=False, threads=1, cache=tmp_path / "cache",
        tasks=(str(tmp_path / "sums.toml"),),
    )  # fmt: skip


def set_first_day(study: Path, started_at: str) -> None:
    """As if the study had been begun then."""
    with sqlite3.connect(study) as connection:
        connection.execute("UPDATE run SET started_at = ? WHERE id = 1", (started_at,))
        rows = connection.execute("SELECT id, environment FROM run").fetchall()
        for number, text in rows:
            environment = {key: value for key, value in json.loads(text).items() if key != "templates"}
            connection.execute("UPDATE run SET environment = ? WHERE id = ?", (json.dumps(environment), number))
    connection.close()


def test_a_template_is_told_the_day() -> None:
    assert tells_date(DATED)
    assert not tells_date("{{ messages }}")
    for day, spelt in ((date(2027, 1, 2), "02 Jan 2027"), (None, date.today().strftime("%d %b %Y"))):
        assert render_template(DATED, [], {}, add_generation_prompt=False, day=day).startswith(f"Today: {spelt}\n")


def test_every_run_of_a_study_tells_the_day_of_its_first(request_: RunRequest) -> None:
    told: list[str] = []

    def listen(job: Any, *others: Any) -> None:
        told.append(job.chat.day)
        run_in_worker(job, *others)

    assert run.run_study(make_plan(request_), Listening(), listen)
    today = read_study(request_.study).created_at[:10]
    set_first_day(request_.study, "2027-01-02T23:59:00+00:00")  # a study of before, that says no day
    again = replace(request_, cache_types=(("Q8_0", "Q8_0"),))
    assert run.run_study(make_plan(again), Listening(), listen)
    assert told == [today, "2027-01-02"]
    record = read_study(request_.study)
    assert record.environment["templates"] == {"date": "2027-01-02"}
    (note,) = date_notes(summarise(record))
    assert note == "Chat templates that ask for the date were told 2027-01-02."
    with open_lookup(request_.study) as lookup:
        assert lookup.day() == "2027-01-02"


def test_a_study_says_the_day_only_where_a_template_asks(request_: RunRequest, tiny_f32: Path) -> None:
    for other in (replace(request_, models=(tiny_f32,)), replace(request_, chat=replace(request_.chat, mode="off"))):
        assert run.run_study(make_plan(other), Listening())
        assert "templates" not in read_study(request_.study).environment
        request_.study.unlink()


def test_studies_of_two_days_are_not_measured_alike(request_: RunRequest, tmp_path: Path) -> None:
    assert run.run_study(make_plan(request_), Listening())
    first = read_study(request_.study)
    told = {**first.environment, "templates": {"date": "2027-01-02"}}
    other = replace(
        first, path=str(tmp_path / "t.sqlite"), environment=told,
        points=tuple(replace(point, environments=(told,)) for point in first.points),
    )  # fmt: skip
    cautions = summarise(merge_studies([first, other])).cautions
    assert any("not measured alike (date told by chat templates)" in line for line in cautions)
    untold = {key: value for key, value in told.items() if key != "templates"}
    silent = replace(other, points=tuple(replace(point, environments=(untold,)) for point in other.points))
    assert not any("date told" in line for line in summarise(merge_studies([first, silent])).cautions)


def test_the_harness_model_is_told_a_day(
    dated_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_f32: Path
) -> None:
    monkeypatch.setenv("GGUF_EVAL_CACHE", str(tmp_path))
    lm = GgufEvalLM(path=str(dated_path), n_ctx=64, threads=1, date="2027-01-02")
    assert "Today: 02 Jan 2027\n" in lm.apply_chat_template([{"role": "user", "content": "Q"}])
    assert lm.get_model_info()["chat_template_date"] == "2027-01-02"
    today = GgufEvalLM(path=str(dated_path), n_ctx=64, threads=1)
    assert today.get_model_info()["chat_template_date"] == date.today().isoformat()
    assert today.tokenizer_name != lm.tokenizer_name  # the harness keeps rendered prompts by this name
    assert "chat_template_date" not in GgufEvalLM(path=str(tiny_f32), n_ctx=64, threads=1).get_model_info()
    with pytest.raises(UsageError, match="'date' needs a day as YYYY-MM-DD; found 'monday'"):
        parse_arguments({"path": "x", "date": "monday"})


def test_answers_that_a_limit_cut_off_are_counted(request_: RunRequest) -> None:
    assert run.run_study(make_plan(request_), Listening())
    record = read_study(request_.study)
    ((task, outcomes),) = record.points[0].outcomes.items()
    cut = sum(outcome.finish_reason == "length" for outcome in outcomes.values())
    assert cut > 0
    summary = summarise(record)
    assert summary.points[0].tasks["sums"].cut_off == cut, task
    assert any(
        f"up to {cut} answers cut off by the limit of tokens" in line
        for line in how_to_read(summary, [], starred=False, front=False)
    )
