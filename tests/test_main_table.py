"""The main table is the same in every renderer: columns, figures, and nothing where nothing is known."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from builders import printed
from synthetic_study import write_study

from gguf_eval.analysis.summary import summarise
from gguf_eval.report.data import columns_of, summary_rows, write_csv, write_parquet
from gguf_eval.report.export import to_document
from gguf_eval.report.html import to_html
from gguf_eval.report.markdown import to_markdown
from gguf_eval.report.terminal import print_report
from gguf_eval.store.read import read_study
from gguf_eval.store.records import MeasurementRecord, StudyRecord

Table = dict[str, dict[str, str]]
"""Cells by level, then by header."""
ON_DEVICES = {
    "context": 4096, "layers": 20, "layer_count": 31, "reasons": ["as asked for"], "devices": [{"name": "CUDA0"}],
    "buffers": [{"place": "CUDA0", "holds": "model", "size_bytes": 120_000_000}], "device_memory": {},
    "predicted": {"context": 4096, "device_bytes": {"CUDA0": 121_000_000}},
}  # fmt: skip


class Tables(HTMLParser):
    """Every table of a page as rows of cells; of a cell, its text and what it sorts by."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[list[list[str]]] = []
        self.orders: list[list[list[str | None]]] = []
        self._in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.found.append([])
            self.orders.append([])
        elif tag == "tr":
            self.found[-1].append([])
            self.orders[-1].append([])
        elif tag in ("th", "td"):
            self._in_cell = True
            self.found[-1][-1].append("")
            self.orders[-1][-1].append(dict(attrs).get("data-order"))

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.found[-1][-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td"):
            self._in_cell = False


def page_tables(record: StudyRecord) -> Tables:
    page = to_html(record, summarise(record))
    return Tables(page[: page.index('<script type="application/json"')])


def as_table(header: list[str], rows: list[list[str]]) -> Table:
    cleaned = [[" ".join(cell.replace("◆", "").replace("\\", "").split()) for cell in row] for row in (header, *rows)]
    return {row[0].split()[0]: dict(zip(cleaned[0], row, strict=True)) for row in cleaned[1:]}


def in_html(record: StudyRecord) -> Table:
    first = page_tables(record).found[0]
    return as_table(first[0], first[1:])


def in_markdown(record: StudyRecord) -> Table:
    lines = [line for line in to_markdown(summarise(record)).splitlines() if line.startswith("|")]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return as_table(rows[0], rows[2:])


def in_terminal(record: StudyRecord) -> Table:
    """Cells of several lines have only their first one."""
    lines = printed(lambda console: print_report(summarise(record), console, wide=True), 300).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("  level"))
    names = re.split(" {2,}", lines[start].strip())
    levels = {point.label for point in record.points}
    rows = [line for line in lines[start + 1 :] if set(line[2:].split()[:1]) & levels]
    return as_table(names, [re.split(r" {2,}", row[2:].strip()) for row in rows[: len(levels)]])


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    """One task, one level with layers on a device, one that could not be made."""
    path = tmp_path_factory.mktemp("table") / "s.sqlite"
    study = read_study(write_study(path, levels=3, sizes=1, tasks=1, items=40))
    first, second, third = study.points
    second = replace(second, measurement=MeasurementRecord({"n_ctx": 4096}, ON_DEVICES, {"peak_rss": "VmHWM"}))
    unmade = replace(
        third, id=99, name="m IQ9", level="IQ9", sha256=None, parameters=0, size_bytes=0, bits_per_weight=0.0,
        status="failed", error="no such level", speed=(), memory={}, measurement=None, outcomes={},
    )  # fmt: skip
    return replace(study, points=(first, second, third, unmade))


COUNTERS = {"RAPL package-0": 128.0, "NVML 0": 64.0}
"""Joules over 128 tokens."""


def with_energy(record: StudyRecord, *spent: tuple[dict[str, float], ...]) -> StudyRecord:
    """The first points with these joules of the repetitions of their generation test."""
    points = list(record.points)
    for i, joules in enumerate(spent):
        speed = tuple(replace(s, joules=joules) if s.test == "tg128" else s for s in points[i].speed)
        points[i] = replace(points[i], speed=speed)
    return replace(record, points=tuple(points))


RENDERERS: list[Callable[[StudyRecord], Table]] = [in_html, in_markdown, in_terminal]
COLUMNS = ["level", "bpw", "file", "peak RAM", "on devices", "pp512", "tg128", "task_00", "against F16"]


@pytest.mark.parametrize("render", RENDERERS)
def test_every_renderer_has_the_same_columns(render: Callable[[StudyRecord], Table], record: StudyRecord) -> None:
    pytest.importorskip("altair")
    table = render(record)
    assert list(table) == ["F16", "Q8_0", "Q6_K", "IQ9"]
    assert {tuple(row) for row in table.values()} == {tuple(COLUMNS)}
    assert [row["on devices"] for row in table.values()] == ["–", "120 MB", "–", "–"]
    assert [row["bpw"] for row in table.values()] == ["16.00", "8.50", "6.56", "–"]
    estimate = summarise(record).points[0].tasks["task_00"].estimate
    assert estimate is not None
    assert table["F16"]["task_00"].startswith(f"{estimate.value * 100:.1f}")
    assert table["F16"]["against F16"] == "reference"
    assert {cell for name, cell in table["IQ9"].items() if name != "level"} == {"–"}


def test_of_a_file_that_could_not_be_made_no_figure_is_known(record: StudyRecord, tmp_path: Path) -> None:
    summary = summarise(record)
    known = {"model", "level", "status", "error", "study", "command"}
    rows = list(summary_rows(summary))
    assert {name for name, value in rows[-1].items() if value is not None} == known
    out = io.StringIO()
    write_csv(columns_of(rows), rows, out)
    last = list(csv.DictReader(io.StringIO(out.getvalue())))[-1]
    assert {name for name, value in last.items() if value} == known
    entry = to_document(summary)["points"][-1]
    assert [entry[name] for name in ("bits_per_weight", "size_bytes", "parameters", "sha256")] == [None] * 4
    parquet = pytest.importorskip("pyarrow.parquet")
    write_parquet(rows, tmp_path / "s.parquet")
    assert {k for k, v in parquet.read_table(tmp_path / "s.parquet").to_pylist()[-1].items() if v is not None} == known


def test_a_page_sorts_by_figures_and_by_nothing_where_none_is_known(record: StudyRecord) -> None:
    pytest.importorskip("altair")
    orders = page_tables(record).orders[0][1:]
    assert [row[COLUMNS.index("bpw")] for row in orders] == ["16.0", "8.5", "6.56", ""]
    assert orders[-1][1:] == [""] * (len(COLUMNS) - 1)


def test_where_no_file_could_be_made_the_number_of_weights_is_unknown(record: StudyRecord) -> None:
    summary = summarise(replace(record, points=record.points[-1:]))
    assert to_markdown(summary).startswith("### Llama-3.2-1B (– parameters)")


def test_a_page_has_several_tasks_in_a_table_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("altair")
    study = read_study(write_study(tmp_path / "s.sqlite", levels=2, sizes=1, tasks=3, items=20))
    tables = page_tables(study).found
    assert tables[0][0] == ["level", "bpw", "file", "peak RAM", "pp512", "tg128", "score", "against F16"]
    assert tables[1][0] == ["task", "F16", "Q8_0"]


def test_points_without_a_size_are_sorted_last(record: StudyRecord) -> None:
    text = printed(lambda console: print_report(summarise(record), console, sort="file"), 300)
    assert re.findall(r"(?m)^. (Q6_K|Q8_0|F16|IQ9) ", text)[:4] == ["Q6_K", "Q8_0", "F16", "IQ9"]


@pytest.mark.parametrize("render", RENDERERS)
def test_energy_is_a_column_where_any_point_has_it(render: Callable[[StudyRecord], Table], record: StudyRecord) -> None:
    pytest.importorskip("altair")
    half = {name: joules / 2 for name, joules in COUNTERS.items()}
    table = render(with_energy(record, (COUNTERS, COUNTERS, COUNTERS), (half, COUNTERS)))
    cells = [row["J/token"] for row in table.values()]
    assert [cell.split()[0].rstrip("*") for cell in cells] == ["1.50", "1.12", "–", "–"]
    assert [name for name, row in table.items() if "*" in row["J/token"]] == ["Q8_0"]
    if render is not in_terminal:
        assert [cell.split()[1].rstrip("*") for cell in cells[:2]] == ["±0.00", "±0.53"]


def test_energy_in_rows_and_in_the_document(record: StudyRecord) -> None:
    summary = summarise(with_energy(record, (COUNTERS,)))
    rows = {row["level"]: row for row in summary_rows(summary)}
    assert {name: value for name, value in rows["F16"].items() if "joules" in name} == {
        "tg128_joules_per_token": 1.5, "tg128_joules_stdev": None, "tg128_joules_repetitions": 1,
        "tg128_joules_sources": "RAPL package-0 + NVML 0",
    }  # fmt: skip
    assert not any("joules" in name for level in ("Q8_0", "Q6_K", "IQ9") for name in rows[level])
    first, *others = to_document(summary)["points"]
    assert {name for name in first if "joules" in name} == {name for name in rows["F16"] if "joules" in name}
    assert first["tg128_joules_per_token"] == 1.5
    assert not any("joules" in name for entry in others for name in entry)


def test_nothing_is_said_of_energy_where_none_was_counted(record: StudyRecord) -> None:
    summary = summarise(record)
    for shown in (to_markdown(summary), str(to_document(summary)), str(list(summary_rows(summary)))):
        assert "J/token" not in shown and "joules" not in shown


def test_joules_of_other_counters_do_not_stand_in_one_column(record: StudyRecord) -> None:
    table = in_markdown(with_energy(record, (COUNTERS,), ({"NVML 0": 64.0},)))
    columns = {name: [row[name] for row in table.values()] for name in table["F16"] if name.startswith("J/token")}
    assert columns == {
        "J/token tg128 RAPL package-0 + NVML 0": ["1.50 n=1", "–", "–", "–"],
        "J/token tg128 NVML 0": ["–", "0.500 n=1", "–", "–"],
    }


def test_a_repetition_that_a_counter_has_not_seen_is_left_out(record: StudyRecord) -> None:
    text = to_markdown(summarise(with_energy(record, (COUNTERS, {"NVML 0": 6400.0}))))
    assert "| 1.50 n=1 |" in text
    assert "- J/token: joules for each token of tg128, mean ± deviation, of all that RAPL package-0 \\+ NVML 0" in text
