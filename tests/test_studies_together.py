"""Several studies in one report: what is compared, what stays apart, and what is said of the difference."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import printed
from synthetic_study import write_study
from typer.testing import CliRunner

from gguf_eval.analysis.summary import summarise
from gguf_eval.cli.options import app
from gguf_eval.errors import UsageError
from gguf_eval.report.markdown import to_markdown
from gguf_eval.report.terminal import print_report
from gguf_eval.store.read import read_study
from gguf_eval.store.records import StudyRecord
from gguf_eval.store.together import merge_studies, study_names

SIZE: dict[str, Any] = {"levels": 2, "sizes": 1, "tasks": 2, "items": 120}


@pytest.fixture(scope="module")
def july(tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    return read_study(write_study(tmp_path_factory.mktemp("july") / "july.study.sqlite", **SIZE))


@pytest.fixture(scope="module")
def august(tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    return read_study(write_study(tmp_path_factory.mktemp("august") / "august.study.sqlite", **SIZE, drift=0.6))


def changed(study: StudyRecord, change: Callable[[Any], Any]) -> StudyRecord:
    return replace(study, points=tuple(change(point) for point in study.points))


def text_of(study: StudyRecord, width: int = 100) -> str:
    return printed(lambda console: print_report(summarise(study), console), width)


def test_a_single_study_is_left_as_it_is(july: StudyRecord) -> None:
    assert merge_studies([july]) is july


def test_the_same_model_of_two_studies_is_compared_with_one_reference(july: StudyRecord, august: StudyRecord) -> None:
    summary = summarise(merge_studies([july, august]))
    assert [point.label for point in summary.points] == ["F16 @july", "F16 @august", "Q8_0 @july", "Q8_0 @august"]
    assert [point.is_reference for point in summary.points] == [True, False, False, False]
    assert len({point.id for point in summary.points}) == 4
    verdicts = {point.label: point.overall.verdict for point in summary.points if point.overall}
    assert verdicts["Q8_0 @august"] == "worse"
    assert summary.points[0].tasks["task_00"].estimate == summarise(july).points[0].tasks["task_00"].estimate
    assert not summary.cautions


def test_other_weights_are_another_model(july: StudyRecord, august: StudyRecord) -> None:
    other = changed(august, lambda point: replace(point, parameters=point.parameters * 2))
    summary = summarise(merge_studies([july, other]))
    assert sorted({point.model for point in summary.points}) == ["Llama-3.2-1B @august", "Llama-3.2-1B @july"]
    assert {point.label for point in summary.points} == {"F16", "Q8_0"}


def test_models_that_one_study_has_keep_their_names(july: StudyRecord, august: StudyRecord) -> None:
    other = changed(august, lambda point: replace(point, model="Another"))
    assert {point.label for point in summarise(merge_studies([july, other])).points} == {"F16", "Q8_0"}


def test_other_machines_and_builds_are_named(july: StudyRecord, august: StudyRecord) -> None:
    machine = {**august.environment, "machine": {"processor": "Other processor", "physical_cores": 8}}
    moved = changed(replace(august, environment=machine), lambda point: replace(point, environments=(machine,)))
    text = text_of(merge_studies([july, moved]), width=400)
    assert "! these studies were not measured alike (processor): july: Example processor; august: Other proc" in text
    assert "on Example processor, 8 cores (@july); Other processor, 8 cores (@august)." in text
    assert "not measured alike (cores)" not in text


def test_tasks_defined_otherwise_stay_apart(july: StudyRecord, august: StudyRecord) -> None:
    task = replace(august.tasks[0], hash="another")
    other = replace(
        changed(
            august, lambda p: replace(p, outcomes={"another" if h == "0" * 64 else h: o for h, o in p.outcomes.items()})
        ),
        tasks=(task, *august.tasks[1:]),
    )
    summary = summarise(merge_studies([july, other]))
    assert summary.task_names == ("task_00 @july", "task_01", "task_00 @august")
    assert summary.cautions == ("these studies define task_00 otherwise: its answers are not compared between them",)
    august_q8 = next(point for point in summary.points if point.label == "Q8_0 @august")
    assert august_q8.tasks["task_00 @august"].comparison is None
    assert august_q8.overall and 115 < august_q8.overall.difference.n <= 120


def test_no_file_twice_and_no_name_twice(july: StudyRecord) -> None:
    with pytest.raises(UsageError, match="the same file twice"):
        merge_studies([july, july])
    assert study_names(["a/x.study.sqlite", "b/x.study.sqlite", "y.sqlite"]) == [
        "a/x.study.sqlite", "b/x.study.sqlite", "y",
    ]  # fmt: skip
    assert study_names(["x.sqlite", "x.sqlite"]) == ["x.sqlite", "x.sqlite (2)"]


def test_every_form_takes_several(july: StudyRecord, august: StudyRecord, tmp_path: Path) -> None:
    run = CliRunner()
    files = [july.path, august.path]
    found = json.loads(run.invoke(app, ["report", *files, "--json"], catch_exceptions=False).stdout)
    assert [study["name"] for study in found["studies"]] == ["july", "august"]
    assert [point["study"] for point in found["points"]] == ["july", "august", "july", "august"]
    rows = run.invoke(app, ["report", *files, "-f", "csv"], catch_exceptions=False).stdout.splitlines()
    assert [sum(path in row for row in rows) for path in files] == [4, 4]
    items = run.invoke(app, ["report", *files, "-f", "jsonl", "--items"], catch_exceptions=False).stdout.splitlines()
    assert {json.loads(row)["level"] for row in items} == {"F16 @july", "F16 @august", "Q8_0 @july", "Q8_0 @august"}
    assert "| Q8\\_0 @august |" in to_markdown(summarise(merge_studies([july, august])))
    for ending in ("html", "svg"):
        pytest.importorskip("altair")
        path = tmp_path / f"report.{ending}"
        run.invoke(app, ["report", *files, "-o", str(path)], catch_exceptions=False)
        assert "Q8_0 @august" in path.read_text(encoding="utf-8")


def test_nothing_is_wider_than_the_terminal(july: StudyRecord, august: StudyRecord) -> None:
    for width in (80, 120):
        tables = text_of(merge_studies([july, august]), width).split("@july: ")[0]
        assert max(map(len, tables.splitlines())) <= width
        assert "…" not in tables


def test_names_of_files_are_harmless(tmp_path: Path, july: StudyRecord) -> None:
    hostile = tmp_path / "[red]x|\x1b[31m.study.sqlite"
    write_study(hostile, **SIZE)
    study = merge_studies([july, read_study(hostile)])
    assert "\x1b" not in text_of(study)
    assert "Q8_0 @[red]x|\u241b[31m" in text_of(study, 200)
    assert "\\[red\\]x\\|" in to_markdown(summarise(study))
