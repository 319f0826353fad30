"""Scatters in characters and in Vega-Lite: axes that fit, labels that are no one else's, the front of each plot."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_study import write_study

from gguf_eval.analysis.marks import find_marks, memory
from gguf_eval.analysis.summary import SpeedSummary, StudySummary, summarise
from gguf_eval.report.charts import charts
from gguf_eval.report.main_table import main_tables
from gguf_eval.report.places import ASLANT_FIRST, LEVEL_FIRST, Axis, Layout, axis_over, label_box, place_labels
from gguf_eval.report.scatter import Dot, best_height, scatter
from gguf_eval.store.read import read_study

CELLS = Layout(60, 11, mark=0.5, line=1, beside=1.5, aslant=0.5, over=0.5, gap=2, clear=1)
PIXELS = Layout(290, 320, mark=6, line=13, beside=10, aslant=6, over=4, gap=3, clear=1)


@given(st.lists(st.tuples(st.integers(0, 59), st.integers(0, 10)), min_size=1, max_size=24), st.data())
def test_labels_meet_nothing(cells: list[tuple[int, int]], data: st.DataObject) -> None:
    marks = [(column + 0.5, row + 0.5) for column, row in cells]
    widths = data.draw(st.lists(st.integers(1, 14), min_size=len(cells), max_size=len(cells)))
    sides = place_labels(marks, widths, CELLS, LEVEL_FIRST)
    boxes = [(i, label_box(marks[i], widths[i], side, CELLS)) for i, side in enumerate(sides) if side is not None]
    for i, box in boxes:
        assert box.left >= 0 and box.right <= CELLS.width and box.top >= 0 and box.bottom <= CELLS.height
        for number, (x, y) in enumerate(marks):
            assert number == i or not (box.left - 2.5 < x < box.right + 2.5 and box.top - 1.5 < y < box.bottom + 1.5)
    for (_, one), (_, other) in itertools.combinations(boxes, 2):
        assert (
            one.right + 2 <= other.left
            or other.right + 2 <= one.left
            or one.bottom <= other.top
            or other.bottom <= one.top
        )


def test_a_mark_alone_gets_the_side_that_is_wanted_most() -> None:
    assert place_labels([(30.5, 5.5)], [4], CELLS, LEVEL_FIRST) == [(1, 0)]
    assert place_labels([(100.0, 100.0)], [40], PIXELS, ASLANT_FIRST) == [(1, -1)]
    assert place_labels([(285.0, 100.0)], [40], PIXELS, ASLANT_FIRST) == [(-1, -1)]
    assert place_labels([(30.5, 5.5)], [70], CELLS, LEVEL_FIRST) == [None]


@given(st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=9))
def test_axes_end_near_the_values_and_name_round_ones(values: list[float]) -> None:
    axis = axis_over(values, may_be_logarithmic=True)
    assert axis.low <= min(values) and axis.high >= max(values)
    assert axis.low >= 0
    if axis.logarithmic:
        assert axis.high / axis.low <= (max(values) / min(values)) ** 1.17
    elif min(values) < max(values):
        assert axis.high - axis.low <= 1.17 * (max(values) - min(values)) + 1e-9
    assert all(axis.low <= tick <= axis.high * (1 + 1e-12) for tick in axis.ticks())


def test_ticks() -> None:
    assert Axis(1.4, 7.4, True).ticks() == [2, 3, 5, 7]
    assert Axis(0.9, 110, True).ticks() == [1, 2, 5, 10, 20, 50, 100]
    assert Axis(30.0, 72.0).ticks() == [30, 40, 50, 60, 70]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudySummary:
    path = tmp_path_factory.mktemp("scatters") / "s.sqlite"
    return summarise(read_study(write_study(path, levels=4, sizes=2, tasks=6, items=200, texts=1)))


def dots() -> list[Dot]:
    found = []
    for mark, name, base in (("◆", "cyan", 1.5), ("●", "magenta", 2.9)):
        for i, level in enumerate(("Q5_K_M", "Q6_K", "Q8_0", "F16")):
            found.append(Dot(base * (1 + i * i / 8), 52 + base * 2 + i / 5, level, name, mark))
    return found


def test_terminal_scatter_of_two_models() -> None:
    text = scatter(dots(), title="score", x_title="memory, GB", width=60, height=best_height([dots()], 60)).plain
    expected = (Path(__file__).parent / "golden" / "scatter.txt").read_text(encoding="utf-8")
    assert "\n".join(line.rstrip() for line in text.splitlines()) + "\n" == expected
    assert all(text.count(dot.label) == 2 for dot in dots())


def test_a_plot_is_taller_where_that_makes_room_for_labels() -> None:
    few, many = dots()[:2], [Dot(1 + i / 50, i, f"level{i}", "") for i in range(14)]
    assert best_height([few], 60) == 11
    assert best_height([few, many], 40) == 15


def layers(study: StudySummary, name: str) -> list[dict[str, Any]]:
    pytest.importorskip("altair")
    chart = next(chart for chart in charts(study) if chart.name == name)
    everyones = chart.spec.get("data")
    found = [{"data": everyones, **layer} for layer in chart.spec["layer"]]
    return [{**layer, "rows": chart.spec["datasets"][layer["data"]["name"]]} for layer in found]


def test_the_dashed_line_joins_what_is_best_for_its_memory(study: StudySummary) -> None:
    fast = {"tg128": SpeedSummary(1000.0, 1.0, 3)}  # on the front for its speed alone
    study = replace(study, points=(replace(study.points[2], speed=fast), *study.points[:2], *study.points[3:]))
    marks = find_marks(study)
    assert marks.front - marks.quality_front == {study.points[0].id}
    [line] = [layer for layer in layers(study, "quality") if layer["mark"]["type"] == "line"]
    steps = sorted((row["memory_gb"], row["score"]) for row in line["rows"])
    assert len(steps) == len(marks.quality_front)
    assert [score for _, score in steps] == sorted({score for _, score in steps})


def test_charts_name_their_points_and_end_where_they_do(study: StudySummary) -> None:
    for name in ("quality", "speed", "divergence"):
        found = layers(study, name)
        texts = [layer for layer in found if layer["mark"]["type"] == "text"]
        labelled = [row["level"] for layer in texts for row in layer["rows"]]
        assert sorted(labelled) == sorted(["Q8_0", "Q6_K", "Q5_K_M", *(["F16"] if name != "divergence" else [])] * 2)
        [points] = [layer for layer in found if layer["mark"]["type"] == "point"]
        field = points["encoding"]["x"]["field"]
        values = [row[field] for row in points["rows"]]
        low, high = points["encoding"]["x"]["scale"]["domain"]
        assert 0.8 * min(values) < low < min(values) < max(values) < high < 1.25 * max(values)


def test_points_that_are_not_complete_have_no_marks_and_memory_is_never_mixed_with_sizes(study: StudySummary) -> None:
    others, first = study.points[:-1], study.points[-1]
    unfinished = replace(first, status="partial", peak_rss_bytes=None, averages=others[0].averages)
    mixed = replace(study, points=(*others, unfinished))
    marks = find_marks(mixed)
    assert first.id in find_marks(study).front
    assert first.id not in marks.front | marks.quality_front
    table = next(table for table in main_tables(mixed) if unfinished in table.rows)
    assert not any(filled.cells[table.rows.index(unfinished)].best for filled in table.columns)
    assert memory(mixed, unfinished) is None
    assert memory(replace(mixed, points=(unfinished,)), unfinished) == first.size_bytes
    assert first.level not in [row["level"] for row in charts(mixed)[0].rows if row["model"] == first.model]
