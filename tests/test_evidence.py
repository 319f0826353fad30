"""What speaks beside scores: log scores, divergences, baselines, and the advice that weighs them."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from functools import partial

import builders
import numpy as np
import pytest
from builders import point, task
from rich.console import Console

from gguf_eval.analysis.advice import Limits, advise
from gguf_eval.analysis.divergence import Figure
from gguf_eval.analysis.evidence import ANSWERS, LOG_SCORE, Evidence, has_clearly_less, mean_figure, passed_over
from gguf_eval.analysis.recommend import Conclusion, conclude
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.analysis.summary import summarise
from gguf_eval.errors import StudyError
from gguf_eval.report.conclusion import conclusion
from gguf_eval.report.export import to_document
from gguf_eval.report.quality import print_advice
from gguf_eval.store.records import AnswerDivergences, PointRecord, StudyRecord

N = 60
RIGHT = "1" * 40 + "0" * 20


def level(
    number: int,
    name: str,
    bits: float,
    kld: float | None = None,
    *,
    marks: str = RIGHT,
    probability: float = 0.6,
    memory: int | None = None,
) -> PointRecord:
    """A level with this mean divergence on right answers, that gives right answers this probability."""
    made = point(number, name, bits, {"t1": marks}, peak_rss_bytes=memory or int(bits * 1e6))
    rest = (1 - probability) / 3
    outcomes = {
        key: replace(outcome, logprobs=tuple(math.log(p * spread) for p in (probability, rest, rest, rest)))
        for (key, outcome), spread in zip(
            made.outcomes["hash-t1"].items(), np.random.default_rng(3).uniform(0.2, 1, len(marks)), strict=True
        )
    }
    made = replace(made, outcomes={"hash-t1": outcomes}, sha256=f"{number:064d}")
    if kld is None:
        return made
    values = tuple(kld * np.random.default_rng(number).uniform(0.5, 1.5, len(marks)))
    return replace(made, divergences={"hash-t1": (AnswerDivergences(
        f"{1:064d}", {}, tuple(outcomes), (4,) * len(marks), values, (0.0,) * len(marks), (3,) * len(marks),
        (None,) * len(marks),
    ),)})  # fmt: skip


def record(*points: PointRecord, items: int = N) -> StudyRecord:
    return builders.record(*points, tasks=[task("t1", items)])


def concluded(*points: PointRecord) -> Conclusion:
    (found,) = conclude(summarise(record(*points)))
    return found


LADDER = (
    level(1, "F16", 16),
    level(2, "Q8_0", 8, 0.004),
    level(3, "Q4_K_M", 4, 0.058),
    level(4, "Q2_K", 2, 0.446),
)

# The rule


def test_the_smallest_level_is_passed_over_where_divergence_speaks_against_it() -> None:
    found = concluded(*LADDER)
    assert found.choice is not None
    assert found.choice.level == "Q4_K_M"
    assert [entry.level for entry in found.passed_over] == ["Q2_K"]
    first, *others = conclusion(found)
    assert first.startswith("tiny: run Q4_K_M: ")
    assert "divergence on right answers 0.0" in first
    [line] = [line for line in others if line.startswith("Q2_K is passed over")]
    assert "scores can't tell it from F16" in line
    assert "divergence on right answers 0.4" in line
    assert len([line for line in others if line.startswith("The rule: ")]) == 1
    assert not any("Q2_K" in line and "no loss" in line for line in conclusion(found))


def test_without_evidence_the_smallest_undecided_level_is_chosen() -> None:
    found = concluded(level(1, "F16", 16), level(2, "Q8_0", 8), level(4, "Q2_K", 2))
    assert found.choice is not None
    assert found.choice.level == "Q2_K"
    assert found.passed_over == ()


def test_the_log_score_speaks_too() -> None:
    found = concluded(level(1, "F16", 16), level(2, "Q8_0", 8, probability=0.59), level(4, "Q2_K", 2, probability=0.5))
    assert found.choice is not None
    assert found.choice.level == "Q8_0"  # its loss, ln(0.6 / 0.59), is shown and small
    assert [entry.level for entry in found.passed_over] == ["Q2_K"]
    [line] = [line for line in conclusion(found) if line.startswith("Q2_K is passed over")]
    assert "log score −0.182 nats" in line
    assert "log score −0.017 nats" in conclusion(found)[0]


def test_all_levels_with_evidence_leave_the_reference_and_are_named() -> None:
    found = concluded(LADDER[0], LADDER[3])
    assert found.choice is found.reference
    assert conclusion(found)[0] == "tiny: run F16: Q2_K has evidence of loss."
    worse = level(5, "IQ1_S", 1, 2.0, marks="0" * 60)
    found = concluded(LADDER[0], LADDER[3], worse, replace(level(6, "Q3_K", 3), status="failed"))
    assert conclusion(found)[0] == "tiny: run F16: IQ1_S is worse, Q2_K has evidence of loss, Q3_K failed."


def test_scores_that_have_decided_are_not_overruled() -> None:
    alike = "1" * 400 + "0" * 100
    points = (level(1, "F16", 16, marks=alike), level(2, "Q2_K", 2, 0.446, marks=alike))
    (found,) = conclude(summarise(record(*points, items=500)))
    assert found.choice is not None
    assert found.choice.level == "Q2_K"
    assert found.choice.evidence is not None
    assert found.choice.evidence.log_score is None  # not read where it is not needed
    assert "as good" in conclusion(found)[0]
    assert "divergence on right answers 0.4" in conclusion(found)[0]


def evidence(mean: float, half: float = 0.01, log_score: tuple[float, float, float] | None = None) -> Evidence:
    estimate = Estimate(*log_score, 60, 0, "made") if log_score else None
    return Evidence({ANSWERS: Figure(mean, mean - half, mean + half)}, estimate)


@pytest.mark.parametrize(
    ("found", "against"),
    [
        (evidence(0.12, 0.01), (ANSWERS,)),
        (evidence(0.12, 0.03), ()),  # the interval reaches below the limit
        (evidence(0.05, 0.01, (-0.2, -0.3, -0.1)), (LOG_SCORE,)),
        (evidence(0.05, 0.01, (-0.2, -0.5, 0.1)), ()),  # not shown
        (evidence(0.05, 0.01, (-0.05, -0.06, -0.04)), ()),  # shown, and small
        (evidence(0.3, 0.01, (-0.1, -0.15, -0.05)), (ANSWERS, LOG_SCORE)),
        (Evidence({"text": Figure(3.0, None, None)}, None), ()),  # one window: no interval, no evidence
        (Evidence({"text": Figure(0.3, 0.2, 0.4)}, None), ("text",)),
    ],
)
def test_what_is_evidence_of_loss(found: Evidence, against: tuple[str, ...]) -> None:
    assert found.against == against


def test_clearly_less_is_less_in_all_that_speaks_against() -> None:
    large = evidence(0.45, 0.02, (-0.3, -0.4, -0.2))
    assert has_clearly_less(evidence(0.13), large)
    assert not has_clearly_less(evidence(0.43), large)  # intervals overlap
    assert not has_clearly_less(evidence(0.13, 0.01, (-0.3, -0.4, -0.2)), large)
    assert not has_clearly_less(Evidence({}, None), large)  # nothing known is not less
    assert passed_over({1: None, 2: evidence(0.05), 3: large}) == {3}
    assert passed_over({2: evidence(0.13), 3: evidence(0.45), 4: evidence(0.46)}) == {3, 4}
    assert passed_over({3: evidence(0.45), 4: evidence(0.46)}) == set()


# recommend


def test_recommend_passes_over_by_the_same_rule_and_says_it() -> None:
    advice = advise(record(*LADDER), Limits())
    assert advice.choice is not None
    assert advice.choice.tradeoff.name == "tiny Q4_K_M"
    entries = {entry.tradeoff.name: entry for entry in advice.points}
    assert entries["tiny Q2_K"].passed_over
    assert entries["tiny Q2_K"].against == (ANSWERS,)
    assert entries["tiny Q2_K"].first_share == 0
    console = Console(width=200, record=True, file=io.StringIO())
    print_advice(advice, console)
    text = console.export_text()
    assert "passed over: divergence on right answers 0.4" in text
    assert "Evidence is a KL divergence from the reference" in text


def test_recommend_takes_the_least_loss_that_fits() -> None:
    least = advise(record(*LADDER), Limits(memory_bytes=2_500_000))
    assert least.choice is not None
    assert least.choice.tradeoff.name == "tiny Q2_K"  # nothing better fits
    assert not least.choice.passed_over
    assert least.choice.against == (ANSWERS,)
    third = level(5, "Q3_K_M", 3, 0.16)
    between = advise(record(*LADDER, third), Limits(memory_bytes=3_500_000))
    assert between.choice is not None
    assert between.choice.tradeoff.name == "tiny Q3_K_M"  # has evidence of loss, and clearly less than Q2_K


def test_a_level_of_a_larger_model_is_not_passed_over_for_a_smaller_model() -> None:
    better = "1" * 58 + "00"
    small = [replace(entry, model="small", id=entry.id + 10, name=f"small {entry.level}") for entry in LADDER[:2]]
    large = [level(1, "F16", 160, marks=better), level(2, "Q2_K", 20, 0.446, marks=better)]
    advice = advise(record(*small, *large), Limits(memory_bytes=30_000_000))
    assert advice.choice is not None
    assert advice.choice.tradeoff.name == "tiny Q2_K"


# Where nothing can be lost


def test_no_advice_where_every_level_scores_nothing() -> None:
    points = [level(1, "F16", 16, marks="0" * N), level(2, "Q2_K", 2, marks="0" * N)]
    summary = summarise(record(*points))
    (found,) = conclude(summary)
    assert found.choice is None
    assert conclusion(found)[0].startswith("tiny: no advice: no task tells whether a level loses anything. ")
    assert "the reference gets nothing right" in summary.warnings[0].message
    with pytest.raises(StudyError, match="no advice: in no task can a level be shown to lose anything"):
        advise(record(*points), Limits())


two_tasks = partial(builders.record, items=N)


def test_a_task_in_which_nothing_is_scored_dilutes_no_difference() -> None:
    dead = "0" * N
    points = [
        point(1, "F16", 16, {"t1": RIGHT, "t2": dead}, peak_rss_bytes=2),
        point(2, "Q2_K", 2, {"t1": RIGHT[4:] + "0000", "t2": dead}, peak_rss_bytes=1),
    ]
    summary = summarise(two_tasks(*points))
    assert summary.floored == {"tiny": ("t2",)}
    overall = summary.points[1].overall
    assert overall is not None
    assert (overall.difference.n, overall.difference.value) == pytest.approx((N, -4 / N))
    assert summary.points[1].averages["all"].tasks == ("t1", "t2")  # a score of nothing is a score
    (found,) = conclude(summary)
    assert any(line.startswith("Nothing can be lost in t2: ") for line in conclusion(found))
    advice = advise(two_tasks(*points), Limits())
    assert advice.tasks == ("t1",)
    assert "left out, as no point scores anything there: t2" in advice.notes


# Figures and their document


def test_means_of_figures_are_movers() -> None:
    found = mean_figure([Figure(0.2, 0.1, 0.4), Figure(0.4, 0.3, 0.5), Figure(9.0, None, None)])
    assert found is not None
    assert found.value == pytest.approx(0.3)
    assert found.low == pytest.approx(0.3 - math.hypot(0.1, 0.1) / 2)
    assert found.high == pytest.approx(0.3 + math.hypot(0.2, 0.1) / 2)
    assert mean_figure([Figure(0.2, None, None)]) is None


def test_the_document_has_the_evidence() -> None:
    entries = {entry["level"]: entry for entry in to_document(summarise(record(*LADDER)))["points"]}
    assert entries["F16"]["evidence"] is None
    assert entries["Q2_K"]["evidence"]["against"] == [ANSWERS]
    assert entries["Q2_K"]["evidence"]["divergences"][ANSWERS]["low"] > 0.1
    assert entries["Q4_K_M"]["evidence"]["log_score"]["n"] == N
