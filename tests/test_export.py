"""JSON and flat rows carry every figure of a report with what it rests on."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from in_process import gguf_eval_here
from synthetic_study import write_study
from typer.testing import CliRunner

from gguf_eval.analysis.summary import StudySummary, summarise
from gguf_eval.cli.options import app
from gguf_eval.report.data import columns_of, item_columns, item_rows, summary_rows, write_csv, write_parquet
from gguf_eval.report.export import to_document
from gguf_eval.store.read import read_study

ESTIMATE = {"value", "low", "high", "n", "unscored", "method"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudySummary:
    path = tmp_path_factory.mktemp("export") / "s.sqlite"
    return summarise(read_study(write_study(path, levels=3, sizes=2, tasks=5, items=30, texts=2)))


def test_every_estimate_has_its_interval_its_items_and_its_method(study: StudySummary) -> None:
    document = json.loads(json.dumps(to_document(study), allow_nan=False))
    for point in document["points"]:
        assert point["commands"] == [study.command]
        assert point["memory"]["method"] == "VmHWM"
        for task in point["tasks"].values():
            for estimate in (task, *task["metrics"].values()):
                assert estimate.keys() >= ESTIMATE
                assert estimate["low"] <= estimate["value"] <= estimate["high"]
                assert estimate["n"] + estimate["unscored"] == 30
        assert point["averages"]["all"].keys() >= ESTIMATE
        assert point["averages"]["all"]["tasks"] == list(point["tasks"])
        assert (point["averages"]["all"]["difference"] is None) is point["is_reference"]
        if not point["is_reference"]:
            compared = point["comparison"]
            assert compared["margin"] == study.margin
            assert compared["method"]
            assert (compared["items_to_settle"] is not None) <= (compared["verdict"] == "undecided")


def test_texts_are_in_the_document(study: StudySummary) -> None:
    for point, summary in zip(to_document(study)["points"], study.points, strict=True):
        assert [text["text"] for text in point["texts"]] == ["text0", "text1"]
        for found, text in zip(point["texts"], summary.texts, strict=True):
            assert found["perplexity"]["value"] == text.perplexity.value
            assert found["interval_method"] == "hall-by-window"
            assert (found["windows"], found["tokens"]) == (8, 256)
            assert (found["divergence"] is None) is summary.is_reference
            if text.divergence is not None:
                assert found["divergence"]["mean"]["low"] <= text.divergence.mean.value


def test_rows_have_the_same_figures(study: StudySummary, tmp_path: Path) -> None:
    rows = list(summary_rows(study))
    out = io.StringIO()
    write_csv(columns_of(rows), rows, out)
    read = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert len(read) == 6 * 5
    by_id = {point.sha256: point for point in study.points}
    for row in read:
        point = by_id[row["sha256"]]
        text = point.texts[1]
        assert float(row["text1_perplexity"]) == text.perplexity.value
        assert int(row["text1_tokens"]) == text.tokens
        assert float(row["score"]) == point.averages["all"].estimate.value
        assert int(row["tg128_repetitions"]) == 3
        assert row["command"] == study.command
        if text.divergence is None:
            assert row["text1_mean_kld"] == ""
        else:
            assert float(row["text1_mean_kld_high"]) == text.divergence.mean.high
            assert row["text1_kld_reference"] == "F16"
    parquet = pytest.importorskip("pyarrow.parquet")
    write_parquet(rows, tmp_path / "s.parquet")
    table = parquet.read_table(tmp_path / "s.parquet").to_pylist()
    assert np.isclose(table[-1]["text0_perplexity_ratio"], rows[-1]["text0_perplexity_ratio"])


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_items_are_the_same_in_every_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("gguf_eval.report.data._ROWS_TOGETHER", 50)  # several parts, the last of them short
    path = write_study(tmp_path / "s.sqlite", levels=2, sizes=2, tasks=2, items=30)
    rows = list(item_rows(read_study(path)))
    output = tmp_path / f"items.{format_}"
    assert CliRunner().invoke(app, ["report", str(path), "--items", "-o", str(output)]).exit_code == 0
    assert len(rows) == 2 * 2 * 2 * 30
    if format_ == "jsonl":
        assert [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()] == rows
    elif format_ == "csv":
        read = list(csv.DictReader(output.read_text(encoding="utf-8").splitlines()))
        assert [row["item_hash"] for row in read] == [row["item_hash"] for row in rows]
        assert [json.loads(row["logprobs"]) for row in read] == [row["logprobs"] for row in rows]
        assert [row["value"] for row in read] == ["" if row["value"] is None else str(row["value"]) for row in rows]
    else:
        file = parquet.ParquetFile(output)
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [50, 50, 50, 50, 40]
        found = [row | {"metrics": json.loads(row["metrics"])} for row in file.read().to_pylist()]
        assert found == rows


def test_the_memory_of_an_export_does_not_grow_with_the_study(tmp_path: Path) -> None:
    peaks = []
    for tasks in (2, 8):
        record = read_study(write_study(tmp_path / f"{tasks}.sqlite", levels=2, sizes=1, tasks=tasks, items=400))
        with (tmp_path / "items.csv").open("w", encoding="utf-8", newline="") as out:
            tracemalloc.start()
            write_csv(item_columns(record), item_rows(record), out)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0], peaks


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is full")
@pytest.mark.parametrize("options", [
    ["--format", "text"], ["--format", "json"], ["--format", "csv"], ["--format", "parquet"], ["--format", "html"],
    ["--items", "--format", "csv"], ["--items", "--format", "jsonl"], ["--items", "--format", "parquet"],
])  # fmt: skip
def test_a_full_disk_is_one_line_that_names_the_file(tmp_path: Path, options: list[str]) -> None:
    path = write_study(tmp_path / "s.sqlite", levels=2, sizes=1, tasks=2, items=30)
    done = gguf_eval_here("report", path, *options, "-o", "/dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "gguf-eval: /dev/full: can't be written (No space left on device); make room, or name another file with -o"
    ]
    assert Path("/dev/full").is_char_device()
