"""Any point against any other, macro-averages in summaries, warnings, and the Pareto front."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import answers, point, printed, record, task

from gguf_eval.analysis.advice import Limits, advise
from gguf_eval.analysis.pareto import Tradeoff, pareto
from gguf_eval.analysis.recommend import conclude
from gguf_eval.analysis.summary import StudySummary, summarise
from gguf_eval.analysis.versus import find_point, versus
from gguf_eval.errors import StudyError, UsageError
from gguf_eval.report.conclusion import conclusion
from gguf_eval.report.quality import print_comparisons
from gguf_eval.store.records import PointRecord


def study(points: list[PointRecord], items: int = 6) -> StudySummary:
    return summarise(record(*points, items=items))


def test_points_of_different_sizes_are_compared_on_common_items() -> None:
    large = point(1, "Q3_K_M", 3.9, {"t1": "1111?0", "t2": "11"}, model="13b")
    small = point(2, "Q8_0", 8.5, {"t1": "101110", "t2": "0011"}, model="7b")
    [found] = versus(record(large, small), [large], small)
    assert (found.candidate, found.reference) == ("13b Q3_K_M", "7b Q8_0")
    first, second = found.tasks
    assert first.comparison is not None
    assert (first.comparison.difference.n, first.comparison.gained, first.comparison.lost) == (5, 1, 0)
    assert (first.left_out, second.left_out) == (1, 2)
    assert (found.overall.difference.n, found.overall.gained, found.overall.lost) == (7, 3, 0)
    assert found.macro.value == pytest.approx((1 / 5 + 2 / 2) / 2)


def test_a_reference_over_other_items_is_refused_with_the_reason() -> None:
    first = point(1, "F16", 16, {"t1": "111"})
    second = point(2, "Q8_0", 8.5, {"t2": "111"})
    with pytest.raises(StudyError, match=r"no scored item in common \(tiny Q8_0 has 3 of t2; tiny F16 has 3 of t1\)"):
        versus(record(first, second), [second], first)


def test_a_task_that_one_of_the_two_did_not_run_is_named() -> None:
    first = point(1, "F16", 16, {"t1": "111", "t2": "11"})
    second = point(2, "Q8_0", 8.5, {"t1": "110"})
    failed = point(3, "Q2_K", 2.6, {}, status="failed")
    [found] = versus(record(first, second, failed), [second], first)
    assert [entry.refused for entry in found.tasks] == [None, "tiny Q8_0 did not run it"]
    assert found.tasks[1].left_out == 2
    with pytest.raises(StudyError, match="tiny Q2_K has none"):
        versus(record(first, failed), [failed], first)


def test_missing_answers_change_no_comparison_of_the_others() -> None:
    first = point(1, "F16", 16, {"t1": "111000"})
    second = point(2, "Q8_0", 8.5, {"t1": "110001"})
    half = point(3, "Q2_K", 2.6, {"t1": "1"}, status="partial")
    alone = versus(record(first, second), [second], first)[0]
    among = versus(record(first, second, half), [second], first)[0]
    assert alone == among


def test_names_of_points() -> None:
    points = [point(1, "F16", 16, {}, model="a"), point(2, "Q8_0", 8.5, {}, model="a"),
              point(3, "F16", 16, {}, model="b")]  # fmt: skip
    found = record(*points)
    assert find_point(found, "a f16").id == 1
    assert find_point(found, "q8_0").id == 2
    assert find_point(found, "b").id == 3
    with pytest.raises(UsageError, match="fits a F16, b F16"):
        find_point(found, "F16")
    with pytest.raises(UsageError, match=r"no point is called 'a Q8'; did you mean 'a Q8_0'\?; s.sqlite has: a F16"):
        find_point(found, "a Q8")


def test_averages_over_tasks_and_groups() -> None:
    points = [point(1, "F16", 16, {"t1": "1111", "t2": "10"}), point(2, "Q8_0", 8.5, {"t1": "1110", "t2": "10"})]
    reference, candidate = study(points).points
    assert set(reference.averages) == {"all", "group"}
    assert reference.averages["all"].estimate.value == pytest.approx((1 + 0.5) / 2)
    assert reference.averages["all"].difference is None
    difference = candidate.averages["all"].difference
    assert difference is not None
    assert difference.value == pytest.approx((-0.25 + 0) / 2)
    assert difference.low <= difference.value <= difference.high


def test_clusters_reach_the_comparison() -> None:
    first, second = point(1, "F16", 16, {"t1": "111111"}), point(2, "Q8_0", 8.5, {"t1": "000111"})
    clustered = task("t1", 6)
    items = {key: replace(item, cluster="p" if item.id in "012" else "") for key, item in clustered.items.items()}
    found = record(first, second, tasks=[replace(clustered, items=items)])
    comparison = summarise(found).points[1].tasks["t1"].comparison
    assert comparison is not None
    assert comparison.clusters == 4
    assert comparison.difference.method == "hall-by-cluster"
    assert comparison.p_value == 1  # one cluster changed, whichever way its coin falls
    alone = summarise(record(first, second, tasks=[clustered])).points[1].tasks["t1"].comparison
    assert alone != comparison


def test_the_margin_reaches_the_verdict() -> None:
    points = (point(1, "F16", 16, {"t1": "1" * 300}), point(2, "Q8_0", 8.5, {"t1": "1" * 300}))
    found = record(*points, items=300)
    for margin, verdict in ((0.01, "same"), (0.005, "undecided")):
        summary = summarise(found, margin=margin)
        assert summary.margin == margin
        overall = summary.points[1].overall
        assert overall is not None
        assert (overall.verdict, overall.margin) == (verdict, margin)


# Warnings


def test_scores_at_chance_are_no_results() -> None:
    points = [point(1, "F16", 16, {"t1": "0001" * 8}), point(2, "Q2_K", 2.6, {"t1": "0001" * 8})]
    warnings = study(points, items=32).warnings
    assert [(w.point, w.task, w.suspicion) for w in warnings if w.suspicion == "chance"] == [
        ("tiny F16", "t1", "chance")
    ]
    assert "scores 25.0 % where guessing gets 25.0 %" in warnings[0].message
    few = study([point(1, "F16", 16, {"t1": "0001"})]).warnings
    assert few == ()
    good = study([point(1, "F16", 16, {"t1": "1110" * 8})], items=32).warnings
    assert good == ()


def test_comparisons_and_advice_carry_the_warnings_of_what_they_rest_on() -> None:
    marks = {"t1": "1000" * 10, "t2": "1110" * 10}
    reference = point(1, "F16", 16.0, marks, peak_rss_bytes=200)
    level = point(2, "Q4_0", 4.5, marks, peak_rss_bytes=100)
    found = replace(record(reference, level, items=40), tasks=(task("t1", 40), task("t2", 40)))
    (compared,) = versus(found, [level], reference)
    assert len(compared.warnings) == 1
    assert "scores 25.0 % where guessing gets 25.0 %" in compared.warnings[0]
    assert advise(found, Limits(None, None, None)).warnings == compared.warnings
    assert f"! {compared.warnings[0]}" in printed(lambda console: print_comparisons([compared], console), 200)


def test_what_means_the_same_of_several_tasks_is_one_line() -> None:
    marks = {"t1": "1000" * 10, "t2": "0100" * 10}
    reference, level = point(1, "F16", 16.0, marks), point(2, "Q4_0", 4.5, marks)
    found = replace(record(reference, level, items=40), tasks=(task("t1", 40), task("t2", 40)))
    (compared,) = versus(found, [level], reference)
    assert compared.warnings == (
        "tiny F16: the reference can't be told from chance, so a level has nothing to lose: "
        "t1: scores 25.0 % where guessing gets 25.0 %; t2: scores 25.0 % where guessing gets 50.0 %",
    )


def test_without_costs_the_conclusion_sets_file_against_file() -> None:
    marks = {"t1": "10" * 20}
    summary = study([point(1, "F16", 16.0, marks), point(2, "Q4_0", 4.5, marks)], items=40)
    (found,) = conclude(summary)
    assert "tiny: run Q4_0: 0.00 MB on disk instead of 0.00 MB, and " in conclusion(found)[0]
    assert "0 answers turned wrong, 0 right" in conclusion(found)[0]


def test_a_continuation_has_no_chance_level() -> None:
    base = task("t1", 32)
    items = {key: replace(item, choices=("word",), golds=(0,)) for key, item in base.items.items()}
    asked = replace(base, items=items, kind="continuation")
    found = record(point(1, "F16", 16, {"t1": "0001" * 8}), tasks=[asked])
    assert not [warning for warning in summarise(found).warnings if warning.suspicion == "chance"]


def test_one_answer_to_everything_is_no_result() -> None:
    base = task("t1", 32)
    items = {key: replace(item, golds=(int(item.id) % 2,)) for key, item in base.items.items()}
    marks = "1" * 32  # every answer is choice 0
    found = record(point(1, "F16", 16, {"t1": marks}), tasks=[replace(base, items=items)])
    [warning] = summarise(found).warnings
    assert warning.suspicion == "one-answer"
    assert "choice A is the answer to all 32 items" in warning.message


def test_broken_numbers_are_no_results() -> None:
    outcomes = {
        key: replace(outcome, value=None, unscored_reason="a log-likelihood is not a finite number: broken")
        for key, outcome in answers("t1", "11").items()
    }
    broken = replace(point(1, "Q2_K", 2.6, {}), outcomes={"hash-t1": outcomes})
    [warning] = summarise(record(broken)).warnings
    assert (warning.suspicion, warning.point_id) == ("non-finite", 1)
    assert "2 of 2 items" in warning.message


# The Pareto front


def test_the_front_and_what_dominates_the_rest() -> None:
    entries = [
        Tradeoff(1, "F16", 400, 0.80, 60.0),
        Tradeoff(2, "Q8_0", 300, 0.80, 80.0),  # beats F16
        Tradeoff(3, "Q4_K_M", 200, 0.78, 90.0),
        Tradeoff(4, "Q2_K", 210, 0.70, 85.0),  # beaten by Q4_K_M
        Tradeoff(5, "Q4_0", 200, 0.78, 90.0),  # Q4_K_M's equal
    ]
    beaten = {place.tradeoff.name: [other.name for other in place.dominated_by] for place in pareto(entries)}
    assert beaten == {"F16": ["Q8_0"], "Q8_0": [], "Q4_K_M": [], "Q2_K": ["Q4_K_M", "Q4_0"], "Q4_0": []}


def test_a_front_without_speeds() -> None:
    entries = [Tradeoff(1, "F16", 400, 0.80, None), Tradeoff(2, "Q8_0", 300, 0.79, 80.0),
               Tradeoff(3, "Q2_K", 350, 0.6, 99.0)]  # fmt: skip
    assert [len(place.dominated_by) for place in pareto(entries)] == [0, 0, 1]
    assert pareto([]) == []
