"""What scores are compared with beside the reference: guessing, one answer to everything; running ones."""

from __future__ import annotations

import io
from dataclasses import replace

from builders import point, record, task
from rich.console import Console

from gguf_eval.analysis.baselines import Majority, majority
from gguf_eval.analysis.summary import summarise
from gguf_eval.report.export import to_document
from gguf_eval.report.notes import items_note
from gguf_eval.report.progress import PlainObserver
from gguf_eval.store.records import TaskRecord
from gguf_eval.study.events import Advanced, Planned, PointPlan, StageBegan, StageEnded, StagePlan, Tally


def labelled(golds: list[int], labels: tuple[str, ...] = ("no", "yes"), metric: str = "acc") -> TaskRecord:
    made = task("t1", len(golds))
    items = {key: replace(item, choices=labels, golds=(gold,)) for (key, item), gold in
             zip(made.items.items(), golds, strict=True)}  # fmt: skip
    return replace(made, items=items, metric=metric)


def test_the_majority_is_the_most_frequent_label() -> None:
    assert majority(labelled([0] * 18 + [1] * 2)) == Majority("no", 0.9)
    assert majority(labelled([0] * 18 + [1] * 2, metric="mc2")) is None
    assert majority(labelled([0] * 20)) is None  # nothing is told apart
    shuffled = labelled([0, 1, 1, 0])
    items = list(shuffled.items.items())
    turned = {key: replace(item, choices=item.choices[::-1]) if i == 1 else item for i, (key, item) in enumerate(items)}
    assert majority(replace(shuffled, items=turned)) == Majority("no", 0.75)
    other = {**shuffled.items, items[0][0]: replace(items[0][1], choices=("no", "maybe"))}
    assert majority(replace(shuffled, items=other)) is None  # no labels that all share


def test_a_score_not_above_the_majoritys_share_says_so() -> None:
    quiz = labelled([0] * 90 + [1] * 10)
    marks = "1" * 88 + "0" * 12
    summary = summarise(record(point(1, "F16", 16, {"t1": marks}), tasks=[quiz]))
    found = [warning for warning in summary.warnings if warning.suspicion == "majority"]
    assert len(found) == 1
    assert "scores 88.0 % where 'no' to everything gets 90.0 %" in found[0].message
    assert items_note(summary) == ["t1: acc, 100 items, chance 50, 90 with the most frequent answer to all"]
    assert to_document(summary)["points"][0]["tasks"]["t1"]["majority"] == 0.9
    better = summarise(record(point(1, "F16", 16, {"t1": "1" * 99 + "0"}), tasks=[quiz]))
    assert not [warning for warning in better.warnings if warning.suspicion == "majority"]


def test_the_live_line_names_the_metric() -> None:
    out = io.StringIO()
    observer = PlainObserver(Console(file=out, width=80), lambda: 0.0)
    stage = StagePlan("generate", "flores", 10, 0, Tally(), 1.0, "chrf++")
    for event in (
        Planned((PointPlan("p", "m", "F16", (stage,)),), rough=True),
        StageBegan("p", "generate", "flores", 10),
        Advanced("p", "generate", "flores", 10, Tally(10, 4.0)),
        StageEnded("p", "generate", "flores"),
    ):
        observer.tell(event)
    assert ", chrf++ 40.0 (" in out.getvalue()
    assert "accuracy" not in out.getvalue()
