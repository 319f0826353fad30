"""Means stand beside means over the same tasks and items only, in every form of the report."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import builders
import pytest
from builders import answers, point, task
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_eval.analysis.advice import Limits, advise
from gguf_eval.analysis.basis import Lack, find_bases
from gguf_eval.analysis.marks import find_marks
from gguf_eval.analysis.recommend import conclude
from gguf_eval.analysis.summary import StudySummary, summarise
from gguf_eval.report.by_task import by_task_tables, only_task
from gguf_eval.report.charts import charts
from gguf_eval.report.columns import text_columns
from gguf_eval.report.conclusion import conclusion
from gguf_eval.report.data import summary_rows
from gguf_eval.report.export import to_document
from gguf_eval.report.html import to_html
from gguf_eval.report.main_table import main_tables
from gguf_eval.report.markdown import to_markdown
from gguf_eval.report.notes import score_notes
from gguf_eval.report.terminal import print_report
from gguf_eval.store.records import PointRecord, StudyRecord

EASY, HARD = "1" * 18 + "00", "1" * 4 + "0" * 16


record = partial(builders.record, items=20)


def measured(number: int, level: str, bits: float, marks: dict[str, str], model: str = "tiny") -> PointRecord:
    return point(number, level, bits, marks, peak_rss_bytes=int(bits * 1_000_000), model=model)


def planned(made: PointRecord, *names: str) -> PointRecord:
    """The point with tasks that were planned and never begun, as a study file has them."""
    return replace(made, outcomes={**{f"hash-{name}": {} for name in names}, **made.outcomes}, status="partial")


@pytest.fixture
def interrupted() -> StudyRecord:
    """The hard task is missing at Q4_0, in part at Q3_K: means of their own would be above the reference's."""
    return record(
        measured(1, "F16", 16, {"t1": EASY, "t2": HARD}),
        measured(2, "Q8_0", 8, {"t1": EASY, "t2": HARD}),
        planned(measured(3, "Q4_0", 4, {"t1": EASY}), "t2"),
        replace(measured(4, "Q3_K", 3, {"t1": "1" * 19 + "0", "t2": "1" * 3}), status="partial"),
    )


def printed(study: StudySummary, width: int = 120) -> str:
    return builders.printed(lambda console: print_report(study, console, complete=True), width)


def test_an_incomplete_point_has_no_mean_beside_the_others(interrupted: StudyRecord) -> None:
    summary = summarise(interrupted)
    points = {entry.level: entry for entry in summary.points}
    assert {level: bool(entry.averages) for level, entry in points.items()} == {
        "F16": True, "Q8_0": True, "Q4_0": False, "Q3_K": False,
    }  # fmt: skip
    assert points["Q3_K"].tasks["t2"].estimate is None
    assert points["Q3_K"].tasks["t2"].comparison is None
    assert points["Q3_K"].tasks["t1"].estimate is not None  # that task it has whole
    assert points["Q3_K"].lacking == {"t2": Lack(asked=3, scored=3, of=20)}
    assert points["Q4_0"].overall is None
    assert points["Q3_K"].joint_score is None
    assert find_marks(summary).front == {2}
    (table,) = main_tables(summary)
    best = {f.column.key: {p.id for p, c in zip(table.rows, f.cells, strict=True) if c.best} for f in table.columns}
    assert all({3, 4}.isdisjoint(ids) for column, ids in best.items() if column not in ("file", "memory"))


def test_no_form_of_the_report_shows_one(interrupted: StudyRecord) -> None:
    summary = summarise(interrupted)
    for text in (printed(summary), to_markdown(summary)):
        lines = [line for line in text.splitlines() if "Q4_0" in line or "Q3_K" in line]
        assert not any(figure in line for line in lines for figure in ("55.0", "97.5", "average"))
    table = [line for line in printed(summary).splitlines() if line.startswith("… Q") and " MB" in line]
    assert [line.split()[-1] for line in table] == ["–", "–"]  # against the reference
    rows = {(row["level"], row.get("task")): row for row in summary_rows(summary)}
    assert "score" not in rows["Q4_0", "t1"]
    assert rows["F16", "t1"]["score"] == pytest.approx(0.55)
    assert rows["Q3_K", "t2"]["value"] is None
    assert (rows["Q3_K", "t2"]["asked"], rows["Q3_K", "t2"]["asked_of"]) == (3, 20)
    document = json.loads(json.dumps(to_document(summary)))
    q3 = next(entry for entry in document["points"] if entry["level"] == "Q3_K")
    assert (q3["averages"], q3["joint_score"], q3["tasks"]["t2"]["value"]) == ({}, None, None)
    assert q3["tasks"]["t2"]["metrics"] == {}
    assert q3["lacking"] == {"t2": {"asked": 3, "scored": 3, "of": 20}}
    assert "– Q4_0: no mean beside those of other levels, as items are missing: nothing of t2." in printed(summary, 200)
    assert "t2 3 of 20 asked" in to_markdown(summary)


def test_neither_does_the_page_nor_a_chart(interrupted: StudyRecord) -> None:
    pytest.importorskip("altair")
    summary = summarise(interrupted)
    made = {chart.name: chart for chart in charts(summary)}
    assert {row["level"] for row in made["quality"].rows} == {"F16", "Q8_0"}
    assert ("t2", "Q3_K") not in {(row["task"], row["level"]) for row in made["ladder-tiny"].rows}
    assert ("t2", "Q3_K") not in {(row["task"], row["level"]) for row in made["heat-tiny"].rows}
    assert "no mean beside those of other levels" in to_html(interrupted, summary)


def test_no_smaller_level_is_called_worse_where_none_is(interrupted: StudyRecord) -> None:
    first, _, *rest = interrupted.points
    (found,) = conclude(summarise(replace(interrupted, points=(first, *rest))))
    lines = conclusion(found)
    assert found.choice is None
    assert "worse" not in " ".join(lines)
    assert lines[0] == ("tiny: no advice: Q4_0 is incomplete (nothing of t2), Q3_K is incomplete (t2 3 of 20 asked).")


def test_a_task_that_only_some_levels_have_is_in_no_score() -> None:
    """A task that was run later, at the reference only, changes nobody's score."""
    apart = record(measured(1, "F16", 16, {"t1": EASY, "t2": HARD}), measured(2, "Q4_0", 4, {"t1": EASY}))
    summary = summarise(apart)
    assert [entry.averages["all"].estimate.value for entry in summary.points] == [0.9, 0.9]
    assert summary.score_tasks == {"tiny": ("t1",)}
    assert "(t1), each counting once; not in it: t2." in score_notes(summary)[0]
    assert summary.points[0].tasks["t2"].estimate is not None


def test_a_group_with_one_task_of_the_score_shows_that_task_at_every_level() -> None:
    summary = summarise(record(measured(1, "F16", 16, {"t1": EASY, "t2": HARD}), measured(2, "Q4_0", 4, {"t2": HARD})))
    assert [only_task(summary, entry, "group") for entry in summary.points] == ["t2", "t2"]
    partial = summarise(
        record(measured(1, "F16", 16, {"t1": EASY, "t2": HARD}), planned(measured(2, "Q4_0", 4, {"t1": EASY}), "t2"))
    )
    assert [only_task(partial, entry, "group") for entry in partial.points] == [None, None]
    assert by_task_tables(partial, partial.points, 100, with_tasks=True)


def test_what_one_level_could_not_score_counts_at_none() -> None:
    broken = "?" + EASY[1:]
    summary = summarise(record(measured(1, "F16", 16, {"t1": EASY}), measured(2, "Q4_0", 4, {"t1": broken})))
    found = [entry.tasks["t1"].estimate for entry in summary.points]
    assert [(e.value, e.n, e.unscored) for e in found if e] == [(17 / 19, 19, 1)] * 2
    assert [entry.tasks["t1"].unscored for entry in summary.points] == [0, 1]


def test_a_level_that_can_score_little_does_not_take_the_others_items() -> None:
    nothing = "1" * 5 + "?" * 15
    summary = summarise(record(measured(1, "F16", 16, {"t1": EASY}), measured(2, "Q2_K", 2, {"t1": nothing})))
    reference, broken = (entry.tasks["t1"] for entry in summary.points)
    assert reference.estimate is not None
    assert reference.estimate.n == 20
    assert broken.estimate is None
    assert broken.lack == Lack(asked=20, scored=5, of=20)
    assert "t1 5 of 20 scored" in score_notes(summary)[-1]


def test_models_are_compared_over_what_they_share() -> None:
    points = (
        measured(1, "F16", 16, {"t1": EASY, "t2": HARD}, "a"),
        measured(2, "Q4_0", 4, {"t1": EASY, "t2": HARD}, "a"),
        measured(3, "F16", 17, {"t1": "1" * 20}, "b"),
        measured(4, "Q4_0", 5, {"t1": "1" * 20}, "b"),
    )
    summary = summarise(record(*points))
    assert [entry.averages["all"].estimate.value for entry in summary.points] == pytest.approx([0.55, 0.55, 1, 1])
    assert [entry.joint_score.value for entry in summary.points if entry.joint_score] == pytest.approx([0.9, 0.9, 1, 1])
    assert "Scatters and the Pareto front compare the models over t1, which they share." in score_notes(summary)
    advice = advise(record(*points), Limits())
    assert advice.tasks == ("t1",)
    assert "left out, as not every point has them whole: t2" in advice.notes
    other = replace(points[2], outcomes={"hash-t1": answers("t1", "1" * 7)})
    summary = summarise(record(*points[:2], other))  # asked fewer items: over what they share is nothing
    assert [entry.joint_score is None for entry in summary.points] == [False, False, True]
    assert "without b, which was asked otherwise" in " ".join(score_notes(summary))


def test_recommend_leaves_out_an_incomplete_point_instead_of_the_others_items(interrupted: StudyRecord) -> None:
    advice = advise(interrupted, Limits())
    assert advice.items == 40
    assert [entry.tradeoff.name for entry in advice.points] == ["tiny Q8_0", "tiny F16"]
    assert "tiny Q3_K is left out: it has 3 of 20 items of t2" in advice.notes


def test_a_lone_point_shows_what_it_has() -> None:
    alone = summarise(record(planned(measured(1, "F16", 16, {"t1": "110"}), "t2")))
    assert alone.points[0].averages["all"].estimate.value == pytest.approx(2 / 3)
    assert summarise(record(planned(measured(1, "F16", 16, {}), "t1", "t2"))).points[0].averages == {}


marks_of_a_point = st.dictionaries(st.sampled_from(["t1", "t2"]), st.text("01?", max_size=6), max_size=2)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), marks_of_a_point), min_size=1, max_size=5))
def test_all_means_of_a_column_are_over_the_same_items(drawn: list[tuple[str, dict[str, str]]]) -> None:
    """Against the slow definition: every mean is one over items that all points with a mean there have a score of."""
    points = [point(i, f"Q{i}", 9 - i, marks, model=model) for i, (model, marks) in enumerate(drawn)]
    summary = summarise(record(*points, items=6))
    for model in summary.score_tasks:
        members = [(entry, drawn[entry.id][1]) for entry in summary.points if entry.model == model]
        for name in ("t1", "t2"):
            shown = [(entry.tasks[name].estimate, marks[name]) for entry, marks in members
                     if name in entry.tasks and entry.tasks[name].estimate]  # fmt: skip
            if not shown:
                continue
            assert len({len(marks) for _, marks in shown}) == 1  # asked the same items
            common = [i for i in range(len(shown[0][1])) if all(marks[i] != "?" for _, marks in shown)]
            for estimate, marks in shown:
                assert estimate is not None
                assert estimate.n <= len(common)  # other models may take more
                if len(summary.score_tasks) == 1:
                    assert estimate.n == len(common)
                    assert estimate.value == pytest.approx(sum(marks[i] == "1" for i in common) / len(common))
        averages = [entry.averages["all"] for entry, _ in members if "all" in entry.averages]
        assert len({average.tasks for average in averages}) <= 1
        assert len({average.estimate.n for average in averages}) <= 1
    joint = [entry.joint_score.n for entry in summary.points if entry.joint_score]
    assert len(set(joint)) <= 1


def test_bases_of_nothing() -> None:
    assert find_bases([], []).joint == ()
    empty = find_bases([point(1, "F16", 16, {})], [task("t1", 3)])
    assert (empty.models["tiny"].tasks, empty.joint) == ((), ())


def test_figures_over_other_windows_stand_in_no_column(tmp_path_factory: pytest.TempPathFactory) -> None:
    from synthetic_study import write_study

    from gguf_eval.report.notes import text_notes
    from gguf_eval.store.read import read_study

    path = tmp_path_factory.mktemp("windows") / "s.sqlite"
    found = read_study(write_study(path, levels=3, sizes=1, tasks=1, items=20, texts=1))
    first, second, third = found.points
    (text,) = third.texts
    shorter = replace(
        text, windows=4, window_bytes=text.window_bytes[:4], columns={k: v[:128] for k, v in text.columns.items()}
    )
    summary = summarise(replace(found, points=(first, second, replace(third, texts=(shorter,)))))
    perplexity, divergence = text_columns(summary.points)
    assert [perplexity.find(entry) is None for entry in summary.points] == [False, False, True]
    assert [divergence.find(entry) is None for entry in summary.points] == [True, False, True]
    assert any("4 windows of 64 tokens, and so not shown beside" in line for line in text_notes(summary))
