"""What a task says beyond its headline: aggregates, subjects and groups of subjects."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import builders
import pytest

from gguf_eval.analysis.summary import summarise
from gguf_eval.analysis.whole_task import whole_task
from gguf_eval.report.by_task import whole_rows
from gguf_eval.report.export import to_document
from gguf_eval.report.notes import aggregate_notes
from gguf_eval.report.terminal import print_report
from gguf_eval.store.records import Outcome, TaskRecord


def task(**changes: Any) -> TaskRecord:
    """Two items of algebra and three of law, of which the second, the fourth and so on have the second choice right."""
    asked = {
        key: replace(item, golds=(n % 2,), subject="algebra" if n < 2 else "law")
        for n, (key, item) in enumerate(builders.items("i", 5).items())
    }
    groups = {"STEM": ("algebra",), "humanities": ("law", "absent"), "nobody": ("absent",)}
    exam = builders.task("t", 0, hash="t", name="exam", title="Exam", group="", metrics=("acc",), items=asked)
    return replace(exam, **{"groups": groups, "aggregates": ("macro_f1",), **changes})


def outcome(number: int, pick: int | None) -> Outcome:
    key = f"i-{number}"
    if pick is None:
        return builders.outcome(key, None)
    return builders.outcome(key, float(pick == number % 2), pick, logprobs=(-1.0 - pick, -2.0 + pick))


OUTCOMES = {f"i-{n}": outcome(n, pick) for n, pick in enumerate((0, 0, 0, 1, None))}


def test_subjects_and_their_groups() -> None:
    found = whole_task(task(), OUTCOMES)
    shown = {name: (e.value, e.n, e.unscored) for name, e in {**found.subjects, **found.groups}.items()}
    assert shown == {"algebra": (0.5, 2, 0), "law": (1.0, 2, 1), "STEM": (0.5, 2, 0), "humanities": (1.0, 2, 1)}


def test_macro_f1_of_the_scored_items() -> None:
    # gold 0 1 0 1, picked 0 0 0 1: F1 of class 0 is 2*2/(3+2), of class 1 2*1/(1+2)
    assert whole_task(task(), OUTCOMES).aggregates == {"macro_f1": pytest.approx((4 / 5 + 2 / 3) / 2)}


def test_perplexity_of_continuations() -> None:
    found = whole_task(task(aggregates=("perplexity",)), OUTCOMES).aggregates
    assert found == {"perplexity": pytest.approx(math.exp((1 + 1 + 1 + 2) / 4))}


def test_nothing_of_a_point_without_answers() -> None:
    found = whole_task(task(), {})
    assert not found.aggregates
    assert not found.groups
    nothing_scored = whole_task(task(), {"i-0": outcome(0, None)})
    assert not nothing_scored.aggregates
    assert not nothing_scored.subjects


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"logprobs": (-5000.0, -1.0)}, "OverflowError"), ({"logprobs": ()}, "IndexError"),
     ({"logprobs": (math.nan,)}, "not a finite number")],
)  # fmt: skip
def test_an_aggregate_without_a_figure_is_said_and_the_rest_is_reported(changed: dict[str, Any], reason: str) -> None:
    exam = task(aggregates=("perplexity", "macro_f1"))
    outcomes = {key: replace(found, **changed) if found.value is not None else found for key, found in OUTCOMES.items()}
    found = whole_task(exam, outcomes)
    assert "perplexity" not in found.aggregates
    assert reason in found.without_figure["perplexity"]
    assert found.subjects
    study = summarise(
        builders.record(replace(builders.point(1, "F16", 16.0, {}), outcomes={"t": outcomes}), tasks=[exam])
    )
    assert aggregate_notes(study)[0].startswith("F16: exam has no perplexity (")
    assert reason in to_document(study)["points"][0]["tasks"]["exam"]["aggregates_without_figure"]["perplexity"]


def test_they_are_reported() -> None:
    point = replace(builders.point(1, "F16", 16.0, {}), outcomes={"t": OUTCOMES})
    study = summarise(builders.record(point, tasks=[task()]))
    text = builders.printed(lambda console: print_report(study, console), 80)
    lines = {line.split()[0] + line.split()[1]: line.split()[2:] for line in text.splitlines()
             if line.startswith("exam: ")}  # fmt: skip
    assert lines["exam:macro_f1"] == ["73.3"]
    assert lines["exam:humanities"] == ["100.0"]
    figures = [(row.name, row.cells[0].number) for row in whole_rows(study.points)]
    assert figures[:2] == [("exam: macro_f1", 73.3), ("exam: STEM", 50.0)]
    exported = to_document(study)["points"][0]["tasks"]["exam"]
    assert exported["subjects"]["law"]["n"] == 2
    assert exported["aggregates"]["macro_f1"] == pytest.approx(0.7333, abs=1e-4)
