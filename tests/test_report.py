"""Reports from hand-made studies: exact text at two widths, and every figure in the JSON."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import pytest
from builders import AS_TERMINAL, answers, printed, record, task
from rich.console import Console
from synthetic_study import write_study

from gguf_eval.analysis.summary import StudySummary, summarise
from gguf_eval.errors import UsageError
from gguf_eval.report.export import to_document
from gguf_eval.report.main_table import main_tables
from gguf_eval.report.markdown import to_markdown
from gguf_eval.report.terminal import print_report
from gguf_eval.store.read import read_study
from gguf_eval.store.records import PointRecord, SpeedRecord

GOLDEN = Path(__file__).parent / "golden"


def point(number: int, level: str, bits: float, right: list[bool | None], **changes: Any) -> PointRecord:
    marks = "".join("?" if was_right is None else str(int(was_right)) for was_right in right)
    outcomes = {
        key: answer if answer.value is None else replace(answer, answer=1 - int(answer.value), logprobs=(-1.0, -2.0))
        for key, answer in answers("t", marks).items()
    }
    made = replace(
        builders.point(number, level, bits, {}, model="Llama [7B]"), sha256=f"{number:064d}",
        parameters=7_000_000_000, size_bytes=int(7e9 * bits / 8),
        origin={"source_level": "F16", "requantized": False}, outcomes={"t": outcomes},
        speed=(
            SpeedRecord("pp512", 512, (512 / 100, 512 / 110, 512 / 90)),
            SpeedRecord("tg128", 128, (128 * bits / 100,) * 3),
        ),
        memory={"peak_rss": int(7e9 * bits / 8 + 500_000_000)},
    )  # fmt: skip
    return replace(made, **changes)


@pytest.fixture
def study() -> StudySummary:
    quiz = task(
        "t", 200, hash="t", name="[bold]quiz", title="Quiz", group="understanding", metrics=("acc",),
    )  # fmt: skip
    reference = [i % 5 != 0 for i in range(200)]
    small_loss: list[bool | None] = [right and i % 40 != 1 for i, right in enumerate(reference)]
    small_loss[0] = None
    big_loss = [right and i % 3 != 1 for i, right in enumerate(reference)]
    points = (
        point(1, "Q4_K_M", 4.83, small_loss),
        point(2, "F16", 16.0, list(reference)),
        point(3, "Q2_K", 2.96, list(big_loss)),
        point(4, "Q8_0", 8.5, [], status="failed", error="the worker was ended by SIGKILL", speed=(), memory={}),
    )
    environment = {"machine": {"processor": "A [fast] processor", "physical_cores": 8}}
    return summarise(record(*points, tasks=[quiz], command="gguf-eval run", environment=environment))


@pytest.mark.parametrize("width", [80, 100, 160])
def test_terminal_text(study: StudySummary, width: int) -> None:
    shown = printed(lambda console: print_report(study, console), width, force_terminal=False)
    text = "\n".join(line.rstrip() for line in shown.splitlines()) + "\n"
    assert text == (GOLDEN / f"report-{width}.txt").read_text(encoding="utf-8")


def test_every_line_of_the_tables_fits(study: StudySummary) -> None:
    for width in (60, 80, 100, 200):
        text = printed(lambda console: print_report(study, console), width, **AS_TERMINAL)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text


def test_json_has_every_figure(study: StudySummary) -> None:
    document = json.loads(json.dumps(to_document(study), allow_nan=False))
    assert document["schema"] == 1
    by_level = {entry["level"]: entry for entry in document["points"]}
    assert list(by_level) == ["F16", "Q8_0", "Q4_K_M", "Q2_K"]
    quiz = by_level["Q4_K_M"]["tasks"]["[bold]quiz"]
    assert (quiz["n"], quiz["unscored"], quiz["chance"]) == (199, 1, 0.5)
    comparison = by_level["Q4_K_M"]["comparison"]
    assert (comparison["n"], comparison["lost"], comparison["gained"], comparison["left_out"]) == (199, 5, 0, 1)
    assert comparison["difference"] == pytest.approx(-5 / 199)
    assert by_level["Q2_K"]["comparison"]["verdict"] == "worse"
    assert by_level["Q8_0"]["status"] == "failed"
    assert by_level["Q8_0"]["error"] == "the worker was ended by SIGKILL"
    assert by_level["F16"]["speed"]["pp512"]["tokens_per_second"] == pytest.approx(100)
    assert by_level["F16"]["speed"]["pp512"]["stdev"] == pytest.approx(10)


@pytest.fixture(scope="module")
def with_texts(tmp_path_factory: pytest.TempPathFactory) -> StudySummary:
    path = tmp_path_factory.mktemp("texts") / "s.sqlite"
    return summarise(read_study(write_study(path, levels=3, sizes=2, tasks=4, items=60, texts=2)))


def header_of(study: StudySummary, width: int, **options: Any) -> str:
    text = printed(lambda console: print_report(study, console, **options), width)
    assert "…" not in text
    return next(line for line in text.splitlines() if line.startswith("  level"))


def test_what_is_no_terminal_gets_every_column(with_texts: StudySummary) -> None:
    every = "level bpw file peak RAM pp512 tg128 score PPL text0 KLD text0 PPL text1 KLD text1 against F16"
    assert " ".join(header_of(with_texts, 60, complete=True).split()) == every
    assert " ".join(header_of(with_texts, 60).split()) == "level peak RAM score against F16"
    assert "task_00" in header_of(with_texts, 60, wide=True)


def test_a_wrong_order_prints_nothing(with_texts: StudySummary) -> None:
    output = io.StringIO()
    with pytest.raises(UsageError, match="--sort: 'sise' is unknown"):
        print_report(with_texts, Console(file=output), sort="sise")
    assert output.getvalue() == ""


def test_each_model_has_its_sentences(with_texts: StudySummary) -> None:
    text = printed(lambda console: print_report(with_texts, console))
    first, second = text.rstrip().split("\n\n")[-2:]
    assert first.startswith("Llama-3.2-1B: run")
    assert second.startswith("Llama-3.2-3B: run")


def test_markdown_has_the_columns_of_the_table_and_its_marks(with_texts: StudySummary) -> None:
    table = [line for line in to_markdown(with_texts).splitlines() if line.startswith("|")]
    names = [cell.strip() for cell in table[0].strip("|").split("|")]
    assert names[-5:] == ["PPL text0", "KLD text0", "PPL text1", "KLD text1", "against F16"]
    smallest = [cell.strip() for cell in table[4].strip("|").split("|")]
    assert smallest[names.index("file")] == "1,017 MB\\*"
    assert re.fullmatch(r"0\.\d+ \(0\.\d+–0\.\d+\)", smallest[names.index("KLD text1")])
    stars = sum(cell.best for filled in main_tables(with_texts)[0].columns for cell in filled.cells)
    assert stars > 5
    assert table[2].count("\\*") + table[3].count("\\*") + table[4].count("\\*") == stars
