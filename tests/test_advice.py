"""Advice under limits: the choice, its reasons, and how sure it is."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

import builders
import numpy as np
import pytest
from builders import point, task
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gguf_eval.analysis.advice import Advice, Limits, advise, choices
from gguf_eval.analysis.joint import common_items, joint_difference, joint_means, resampled_joint_means
from gguf_eval.analysis.memory_at import predict_memory
from gguf_eval.errors import StudyError
from gguf_eval.report.quality import print_advice
from gguf_eval.store.records import PointRecord, SpeedRecord

N = 200


def marks(right: int, items: int = N) -> str:
    return "1" * right + "0" * (items - right)


def measured(
    number: int, level: str, bits: float, right: int, memory: int | None, rate: float | None, model: str = "7b"
) -> PointRecord:
    speed = (SpeedRecord("tg16", 16, (16 / rate,)),) if rate else ()
    return point(number, level, bits, {"t1": marks(right)}, model=model, speed=speed, peak_rss_bytes=memory)


record = partial(builders.record, tasks=[task("t1", N)])


FAMILY = (
    measured(1, "F16", 16, 120, 14_000, 5.0),
    measured(2, "Q8_0", 8, 120, 7_500, 10.0),
    measured(3, "Q4_K_M", 4.8, 119, 4_500, 18.0),
    measured(4, "Q2_K", 2.6, 100, 3_000, 25.0),
    measured(5, "Q8_0", 8, 150, 13_800, 6.0, model="13b"),
    measured(6, "Q3_K_M", 3.9, 148, 6_500, 12.0, model="13b"),
)


def chosen(advice: Advice) -> str | None:
    return advice.choice.tradeoff.name if advice.choice else None


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(), "13b Q3_K_M"),  # within a point of the best, with less memory
        (Limits(memory_bytes=6_000), "7b Q4_K_M"),
        (Limits(memory_bytes=6_000, tokens_per_second=20.0), "7b Q2_K"),
        (Limits(memory_bytes=6_000, tokens_per_second=20.0, loss=0.01), None),
        (Limits(loss=0.005), "13b Q8_0"),
        (Limits(loss=0.01), "13b Q3_K_M"),  # exactly the limit
    ],
)
def test_the_choice_under_limits(limits: Limits, name: str | None) -> None:
    assert chosen(advise(record(*FAMILY), limits)) == name


def test_reasons_against_the_others() -> None:
    advice = advise(record(*FAMILY), Limits(memory_bytes=8_000, tokens_per_second=12.0, loss=0.02))
    points = {entry.tradeoff.name: entry for entry in advice.points}
    assert points["7b F16"].missed == ("memory", "speed")
    assert points["7b Q2_K"].missed == ("loss",)
    assert points["7b F16"].loss is None and points["7b F16"].reference == "7b F16"
    assert points["7b Q8_0"].dominated_by == ("13b Q3_K_M",)
    assert points["7b Q2_K"].dominated_by == ()
    assert [entry.tradeoff.memory_bytes for entry in advice.points] == sorted(p.memory["peak_rss"] for p in FAMILY)
    assert sum(entry.first_share for entry in advice.points) + advice.none_share == pytest.approx(1)
    assert points["13b Q3_K_M"].undecided  # one point lost, on 200 items
    assert not points["7b Q2_K"].undecided


def test_what_was_not_measured_is_left_out_with_a_note() -> None:
    study = record(*FAMILY[:3], measured(7, "Q6_K", 6.6, 200, None, 9.0), measured(8, "Q5_K_M", 5.7, 200, 5_000, None))
    advice = advise(study, Limits(tokens_per_second=1.0))
    assert chosen(advice) == "7b Q4_K_M"
    assert any("7b Q6_K is left out: its memory" in note for note in advice.notes)
    assert any("7b Q5_K_M is left out: its generation speed" in note for note in advice.notes)
    assert chosen(advise(study, Limits())) == "7b Q5_K_M"  # speed is not asked for
    failed = replace(FAMILY[2], status="failed")
    assert "7b Q4_K_M is left out: it failed" in advise(record(*FAMILY[:2], failed), Limits()).notes
    with pytest.raises(StudyError, match="no point has scores and costs"):
        advise(record(measured(1, "F16", 16, 9, None, None)), Limits())


def test_a_lost_reference_is_said() -> None:
    study = record(replace(FAMILY[0], status="failed"), *FAMILY[1:4])
    advice = advise(study, Limits(loss=0.01))
    assert chosen(advice) == "7b Q4_K_M"
    assert "losses of 7b are from 7b Q8_0, as 7b F16 is left out" in advice.notes
    alone = advise(record(FAMILY[5]), Limits(loss=0.0))
    assert chosen(alone) == "13b Q3_K_M" and "only point of its model" in alone.notes[0]


def test_memory_predicted_for_a_context(tiny_f16: Path) -> None:
    there = replace(FAMILY[0], path=str(tiny_f16), size_bytes=tiny_f16.stat().st_size, memory={"rss_before_load": 1000})
    short, long = (predict_memory(there, context, frozenset()) for context in (256, 4096))
    assert short is not None and long is not None and long > short
    assert predict_memory(replace(there, size_bytes=1), 256, frozenset()) is None
    advice = advise(record(*FAMILY[:2]), Limits(), context=4096, predicted_bytes={1: 2_000})
    assert [(e.tradeoff.memory_bytes, e.memory_predicted) for e in advice.points] == [(2_000, True), (7_500, False)]
    assert any("not for a context of 4096, as the file is not there: 7b Q8_0" in n for n in advice.notes)


columns = st.lists(st.tuples(*[st.booleans()] * 3), min_size=2, max_size=30)


@given(rows=columns)
def test_joint_figures_are_their_definitions(rows: list[tuple[bool, bool, bool]]) -> None:
    texts = ["".join("01"[row[place]] for row in rows) for place in range(3)]
    points = [point(i, f"Q{i}", 9.0 - i, {"t1": text}) for i, text in enumerate(texts)]
    tasks = common_items(points, [task("t1", len(rows))])
    table = np.array(rows, float)
    assert joint_means(tasks) == pytest.approx(table.mean(axis=0))
    forward, backward = joint_difference(tasks, 0, 1), joint_difference(tasks, 1, 0)
    assert forward is not None and backward is not None
    assert (forward.value, forward.low, forward.high) == pytest.approx((-backward.value, -backward.high, -backward.low))
    drawn = resampled_joint_means(tasks, resamples=500)
    same = (table[:, 0] == table[:, 1]).all()
    assert (np.abs(drawn[:, 0] - drawn[:, 1]) < 1e-9).all() == same  # alike on every item: alike in every resample


def test_resamples_spread_as_the_mean_does() -> None:
    values = np.random.default_rng(5).random((300, 2)) < (0.6, 0.5)
    texts = ["".join("01"[int(v)] for v in values[:, i]) for i in (0, 1)]
    tasks = common_items([point(i, f"Q{i}", 8, {"t1": t}) for i, t in enumerate(texts)], [task("t1", 300)])
    drawn = resampled_joint_means(tasks)
    assert drawn.mean(axis=0) == pytest.approx(values.mean(axis=0), abs=2e-3)
    assert drawn.std(axis=0) == pytest.approx(values.std(axis=0, ddof=1) / 300**0.5, rel=0.05)
    spread = (values[:, 0] * 1.0 - values[:, 1]).std(ddof=1) / 300**0.5
    assert (drawn[:, 0] - drawn[:, 1]).std() == pytest.approx(spread, rel=0.05)


def slow_choice(scores: list[float], base: list[float], kept: list[bool], loss: float, margin: float) -> int:
    allowed = [i for i in range(len(scores)) if kept[i] and base[i] - scores[i] <= loss + 1e-9]
    best = max((scores[i] for i in allowed), default=0.0)
    return next((i for i in allowed if scores[i] >= best - margin - 1e-9), -1)


@given(
    samples=st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=3), min_size=1),
    kept=st.lists(st.booleans(), min_size=3, max_size=3),
    loss=st.integers(0, 5),
    margin=st.integers(0, 5),
)
def test_choices_are_their_definition(
    samples: list[list[tuple[int, int]]], kept: list[bool], loss: int, margin: int
) -> None:
    table = np.array(samples, float) / 10
    found = choices(table[:, :, 0], table[:, :, 1], np.array(kept), loss / 10, margin / 10)
    expected = [slow_choice(s[:, 0].tolist(), s[:, 1].tolist(), kept, loss / 10, margin / 10) for s in table]
    assert found.tolist() == expected


def test_the_words() -> None:
    console = Console(width=200, record=True, file=StringIO())
    print_advice(advise(record(*FAMILY), Limits(memory_bytes=6_000, loss=0.01)), console)
    text = console.export_text()
    assert "7b Q4_K_M: 0.00 MB, 18.0 tokens/s, score 59.5, +0.5 points lost from 7b F16" in text
    assert "dominated by 13b Q3_K_M" in text and "too much memory" in text and "recommended" in text
    assert "loss undecided: its interval reaches to both sides of the limit" in text
