"""The same study at two dates: what is paired, what counts as changed, and what a check stops at."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builders import AS_TERMINAL, answers, point, printed, record, task
from scipy import stats
from synthetic_study import write_study
from typer.testing import CliRunner

from gguf_eval.analysis.changes import Changes, find_changes
from gguf_eval.analysis.comparison import Pairs
from gguf_eval.analysis.item_changes import compare_all
from gguf_eval.analysis.ratios import Tolerances
from gguf_eval.analysis.statistics import holm, mcnemar_exact, ratio_of_means
from gguf_eval.cli.options import app
from gguf_eval.errors import StudyError
from gguf_eval.report.changes import changes_document, print_changes
from gguf_eval.store.read import read_study
from gguf_eval.store.records import MeasurementRecord, PointRecord, SpeedRecord, TextRecord

GOLDEN = Path(__file__).parent / "golden"
SIZE: dict[str, Any] = {"levels": 3, "sizes": 1, "tasks": 3, "items": 250, "texts": 1}


study = partial(record, items=400)


def timed(*seconds: float, **changes: Any) -> PointRecord:
    return replace(point(1, "Q8_0", 8.5, {"t1": "1"}, speed=(SpeedRecord("tg128", 128, seconds),)), **changes)


def verdict(old: PointRecord, new: PointRecord, **options: float) -> str:
    [found] = find_changes(study(old), study(new), tolerances=Tolerances(**options)).points
    [ratio] = found.ratios
    return ratio.verdict


def text_of(changes: Changes, width: int = 100) -> str:
    text = printed(lambda console: print_changes(changes, console), width)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


# Answers


def test_items_are_paired_and_every_comparison_is_in_one_family() -> None:
    old = [point(1, "F16", 16, {"t1": "1" * 400, "t2": "1" * 400}), point(2, "Q2_K", 3, {"t1": "1" * 400})]
    new = [point(1, "F16", 16, {"t1": "0" * 9 + "1" * 391, "t2": "1" * 400}),
           point(2, "Q2_K", 3, {"t1": "0" * 40 + "1" * 360})]  # fmt: skip
    changes = find_changes(study(*old), study(*new))
    full, small = changes.points
    raw = [mcnemar_exact(0, lost) for lost in (9, 0, 40, 9)]  # both tasks, the one task, all items of the first
    found = [full.tasks[0].comparison, full.tasks[1].comparison, small.tasks[0].comparison, full.overall.comparison]
    assert changes.tests == 4
    assert [entry.p_value for entry in found if entry] == pytest.approx(holm(raw))
    assert found[2] is not None
    assert (found[2].lost, found[2].gained, found[2].difference.value) == (40, 0, -0.1)
    assert small.overall.comparison == small.tasks[0].comparison  # one task is all items: counted once
    assert [(finding.point, finding.what) for finding in changes.worse] == [
        ("tiny F16", "all items"), ("tiny F16", "t1"), ("tiny Q2_K", "t1"),
    ]  # fmt: skip
    assert find_changes(study(*new), study(*old)).worse == ()


def test_equal_builds_are_seldom_called_different() -> None:
    random = np.random.default_rng(1)
    alarms = 0
    for _ in range(200):
        counted: dict[tuple[int, str], Any] = {}
        for place in range(4):
            for number in range(6):
                flips = int(random.binomial(100, 0.1))
                gained = int(random.binomial(flips, 0.5))
                pairs = Pairs(100, gained, flips - gained, 0)
                counted[place, f"t{number}"] = SimpleNamespace(pairs=pairs, scoring=Pairs(100, 0, 0, 0))
        verdicts = {comparison.verdict for comparison in compare_all(counted, 4, 0.01).values()}
        alarms += bool(verdicts & {"better", "worse"})
    assert alarms <= 10  # one study in twenty, whatever the number of points and tasks


def test_answers_that_are_computed_alike_are_called_identical() -> None:
    def said(marks: str, *logprobs: float) -> PointRecord:
        outcomes = {
            key: replace(outcome, logprobs=(-1.0, value))
            for (key, outcome), value in zip(answers("t1", marks).items(), logprobs, strict=True)
        }
        return replace(point(1, "F16", 16, {}), sha256="0", outcomes={"hash-t1": outcomes})

    [alike] = find_changes(study(said("110", -2, -3, -4)), study(said("110", -2, -3, -4))).points
    assert (alike.overall.verdict, alike.overall.counts.identical) == ("identical", 3)
    [near] = find_changes(study(said("110", -2, -3, -4)), study(said("111", -2, -3.000001, -5))).points
    assert (near.overall.verdict, near.overall.counts.identical, near.overall.counts.same_answer) == ("undecided", 1, 3)


def test_what_one_study_lacks_is_named_and_counted() -> None:
    old = study(point(1, "F16", 16, {"t1": "111"}), point(2, "Q8_0", 8.5, {"t1": "11", "t2": "1"}))
    other = replace(task("t1", 5), hash="another", version=2)
    new = study(point(1, "Q8_0", 8.5, {"t1": "11110"}), point(2, "Q2_K", 3, {"t2": "1"}))
    changes = find_changes(old, replace(new, tasks=(*new.tasks, replace(other, name="t3"))))
    [kept] = changes.points
    counts = kept.overall.counts
    assert (counts.common, counts.only_old, counts.only_new) == (2, 0, 3)
    assert [(entry.name, entry.where) for entry in kept.missing] == [("t2", "old")]
    assert [(entry.name, entry.where) for entry in changes.unpaired_points] == [
        ("tiny F16", "old"),
        ("tiny Q2_K", "new"),
    ]
    assert [(entry.name, entry.where) for entry in changes.unpaired_tasks] == [("t3", "new")]
    redefined = find_changes(old, replace(new, tasks=(other, new.tasks[1])))
    assert [entry.reason for entry in redefined.unpaired_tasks] == [
        "defined otherwise there (version 1 here, 2 there); 400 items",
        "defined otherwise there (version 2 here, 1 there); 5 items",
    ]
    assert redefined.points[0].tasks == ()
    text = text_of(changes, 200)
    assert "! point tiny F16 (old study) is not compared: not in the new study" in text
    assert "! task t3 (new study) is not compared" in text
    assert "! tiny Q8_0: t1: 3 items are in the new study only" in text
    assert "! tiny Q8_0: t2 is in the old study only (1 items)" in text


def test_studies_without_a_common_point_are_refused() -> None:
    with pytest.raises(
        StudyError, match=r"no point is in both studies \(s.sqlite has tiny F16; s.sqlite has tiny Q8_0\)"
    ):
        find_changes(study(point(1, "F16", 16, {"t1": "1"})), study(point(1, "Q8_0", 8.5, {"t1": "1"})))


def test_a_renamed_model_is_known_by_its_content_and_a_file_made_anew_by_its_name() -> None:
    old = [
        replace(point(1, "F16", 16, {"t1": "1"}), sha256="a" * 64),
        replace(point(2, "Q8_0", 8, {"t1": "1"}), sha256="b" * 64),
    ]
    renamed = replace(point(1, "F16", 16, {"t1": "1"}, model="other"), sha256="a" * 64)
    first = replace(point(2, "Q8_0", 8, {"t1": "1"}), sha256="c" * 64)
    again = replace(first, id=3, sha256="d" * 64)
    changes = find_changes(study(*old), study(renamed, first, again))
    assert [(p.old_name, p.name, (p.new_sha256 or "")[:1]) for p in changes.points] == [
        ("tiny F16", "other F16", "a"), ("tiny Q8_0", "tiny Q8_0", "d"),
    ]  # fmt: skip
    assert [(entry.name, entry.reason) for entry in changes.unpaired_points] == [
        ("tiny Q8_0", "an earlier file of this name")
    ]
    assert re.search(r"model file +b{12}, 0.00 MB +d{12}, 0.00 MB +tiny Q8_0", text_of(changes))


def test_items_that_can_not_be_scored_any_more_are_worse() -> None:
    old, new = (point(1, "F16", 16, {"t1": marks}) for marks in ("1" * 60, "?" * 20 + "1" * 40))
    changes = find_changes(study(old, items=60), study(new, items=60))
    [finding] = changes.worse
    assert finding.what == "t1: items that can be scored"
    assert finding.comparison is not None
    assert (finding.comparison.lost, finding.comparison.difference.n) == (20, 60)
    assert changes.points[0].overall.verdict == "undecided"  # of the 40 that both scored
    assert "20 scored before can't be scored any more\n" in text_of(changes)


def test_a_point_that_fails_now_is_worse() -> None:
    old = point(1, "F16", 16, {"t1": "1"})
    new = replace(old, status="failed", error="the worker was ended by SIGSEGV", outcomes={})
    changes = find_changes(study(old), study(new))
    assert [finding.error for finding in changes.worse] == ["the worker was ended by SIGSEGV"]
    assert "▼ tiny F16: failed, which it did not before: the worker was ended by SIGSEGV." in text_of(changes, 200)
    assert find_changes(study(new), study(old)).worse == ()


# Speed, memory, texts


def test_the_ratio_of_means_is_welchs() -> None:
    random = np.random.default_rng(0)
    values, base = np.exp(random.normal(0.1, 0.05, 4)), np.exp(random.normal(0.0, 0.02, 3))
    welch = stats.ttest_ind(np.log(values), np.log(base), equal_var=False).confidence_interval(0.95)
    expected = [float(np.exp(np.log(values).mean() - np.log(base).mean())), *map(float, np.exp(welch))]
    assert ratio_of_means(values.tolist(), base.tolist()) == pytest.approx(expected)
    assert ratio_of_means([2.0], [1.0, 1.0]) == (2.0, None, None)
    assert ratio_of_means([2.0, 2.0], [1.0, 1.0]) == pytest.approx((2, 2, 2))


def test_speed_counts_beyond_its_interval_and_its_tolerance() -> None:
    usual = timed(1.0, 1.01, 0.99)
    assert verdict(usual, timed(1.2, 1.21, 1.19)) == "worse"
    assert verdict(usual, timed(0.8, 0.81, 0.79)) == "better"
    assert verdict(usual, timed(1.03, 1.031, 1.029), speed=0.1) == "same"
    assert verdict(usual, timed(1.07, 1.071, 1.069), speed=0.1) == "same"
    assert verdict(usual, timed(1.07, 1.071, 1.069), speed=0.05) == "worse"
    assert verdict(usual, timed(1.04, 1.041, 1.039), speed=0.03) == "worse"
    assert verdict(usual, timed(0.9, 1.2, 1.5)) == "undecided"  # beyond the tolerance, not beyond noise
    assert verdict(usual, timed(1.5)) == "undecided"  # one repetition says nothing of its noise


def test_a_machine_that_drifts_is_noise() -> None:
    usual, slow = timed(1.0, 1.01, 0.99), timed(1.2, 1.21, 1.19)
    quiet, drifting = (replace(slow, speed=(replace(slow.speed[0], anchor_seconds=seconds),)) for seconds in (1.2, 0.8))
    assert [verdict(usual, later) for later in (quiet, drifting)] == ["worse", "undecided"]
    [point] = find_changes(study(usual), study(drifting)).points
    assert point.noise == ("in the new study: tg128: once more at the end it took 33 % less",)
    assert (point.speed[0].n_old, point.speed[0].n_new) == (3, 4)


def test_memory_counts_beyond_its_tolerance() -> None:
    old, more, less = (point(1, "Q8_0", 8.5, {"t1": "1"}, peak_rss_bytes=size) for size in (1000, 1060, 900))
    assert [verdict(old, new) for new in (more, less, old)] == ["worse", "better", "same"]
    assert verdict(old, more, memory=0.1) == "same"


def text_run(nll: np.ndarray, **conditions: Any) -> PointRecord:
    known = {"text": "w.txt", "text_sha256": "0", "n_ctx": 64, "chunks": None, "stride": None, **conditions}
    columns = {"nll": nll}
    if "kld" in conditions:
        columns["kld"] = known.pop("kld")
        known["reference_sha256"] = "0"
    return replace(point(1, "Q8_0", 8.5, {"t1": "1"}), texts=(TextRecord(known, 8, 32, (9,) * 8, columns),))


def test_texts_are_paired_by_window() -> None:
    nll = np.random.default_rng(0).gamma(2.0, 1.2, size=256)
    kld = np.full(256, 0.01)
    old, new = text_run(nll, kld=kld), text_run(nll + 0.02, kld=2 * kld)
    [change] = find_changes(study(old), study(new)).points[0].texts
    assert change.perplexity and change.divergence
    assert change.perplexity.ratio == pytest.approx(np.exp(0.02))
    assert change.perplexity.low == pytest.approx(np.exp(0.02))  # every window changed alike, however they differ
    assert (change.perplexity.verdict, change.perplexity.n_new) == ("worse", 8)
    assert change.divergence.ratio == pytest.approx(2)
    assert change.divergence.verdict == "worse"
    assert (change.tokens, change.identical) == (256, 0)
    assert find_changes(study(old), study(old)).points[0].texts[0].identical == 256


def test_texts_run_otherwise_are_not_compared() -> None:
    nll = np.ones(256)
    changes = find_changes(study(text_run(nll)), study(text_run(nll, n_ctx=128, stride=32)))
    assert changes.points[0].texts[0].refused == "n ctx 64 → 128, stride None → 32"
    assert "text w.txt is not compared: n ctx 64 → 128" in text_of(changes)


# Circumstances


def test_what_differs_between_the_circumstances_is_named() -> None:
    def under(build: str, flags: str, threads: int, settings: dict[str, Any]) -> PointRecord:
        environment = {"machine": {"processor": "A"}, "llama_cpp": {"llama_cpp": build, "system_info": flags}}
        conditions = {"machine": "A", "threads": threads, "engine": {"flash_attention": -1}}
        return timed(1.0, 1.0, environments=(environment,), settings=settings,
                     measurement=MeasurementRecord(conditions, {}, {}))  # fmt: skip

    old = under("b1", "CPU : AVX = 1 | FMA = 1 |", 2, {})
    new = under("b2", "CPU : AVX = 1 | FMA = 0 |", 1, {"flash_attention": 0})
    found = {entry.what: (entry.old, entry.new) for entry in find_changes(study(old), study(new)).circumstances}
    assert found == {
        "llama.cpp": ("b1", "b2"), "llama.cpp's flags": ("FMA = 1", "FMA = 0"),
        "setting flash_attention": ("–", "0"), "speed test's threads": ("2", "1"),
    }  # fmt: skip
    assert find_changes(study(old), study(old)).circumstances == ()


# Reports


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("dates")
    return write_study(folder / "july.sqlite", **SIZE), write_study(folder / "august.sqlite", **SIZE, drift=0.15)


@pytest.fixture(scope="module")
def changed(files: tuple[Path, Path]) -> Changes:
    """August is worse, its build another, one level slower."""
    old, new = map(read_study, files)

    def august(number: int, member: PointRecord) -> PointRecord:
        environment = {**new.environment, "llama_cpp": {"llama_cpp": "b4321"}}
        speed = [replace(record, seconds=tuple(s * 1.3 for s in record.seconds)) for record in member.speed]
        return replace(member, environments=(environment,), speed=tuple(speed) if number == 1 else member.speed)

    july = [replace(p, environments=({**old.environment, "llama_cpp": {"llama_cpp": "b1234"}},)) for p in old.points]
    later = [august(number, member) for number, member in enumerate(new.points)]
    return find_changes(
        replace(old, points=tuple(july), path="july.sqlite", created_at="2026-07-01"),
        replace(new, points=tuple(later[1:]), path="august.sqlite", created_at="2026-08-01"),
    )


@pytest.mark.parametrize("width", [80, 100])
def test_terminal_text(changed: Changes, width: int) -> None:
    assert text_of(changed, width) == (GOLDEN / f"changes-{width}.txt").read_text(encoding="utf-8")


def test_every_line_of_the_tables_fits(changed: Changes) -> None:
    for width in (60, 80, 100, 200):
        text = printed(lambda console: print_changes(changed, console), width, **AS_TERMINAL)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text


def test_every_figure_can_be_traced(changed: Changes) -> None:
    document = json.loads(json.dumps(changes_document(changed, "gguf-eval changes a b"), allow_nan=False))
    assert document["command"] == "gguf-eval changes a b"
    assert document["old"]["command"].startswith("gguf-eval run")
    assert {finding["point"] for finding in document["worse"]} == {"Llama-3.2-1B Q8_0", "Llama-3.2-1B Q6_K"}
    for entry in document["points"]:
        for items in (*entry["tasks"], entry["overall"]):
            difference = items["comparison"]["difference"]
            assert difference["low"] <= difference["value"] <= difference["high"]
            assert difference["n"] and difference["method"]
        for ratio in (*entry["speed"], entry["texts"][0]["perplexity"], entry["texts"][0]["divergence"]):
            assert ratio["low"] <= ratio["ratio"] <= ratio["high"]
            assert ratio["method"] and ratio["n_old"] and ratio["n_new"]


@pytest.mark.parametrize(("pick", "code"), [((0, 1), 1), ((1, 0), 0), ((0, 0), 0)])
def test_the_exit_code_is_for_checks(files: tuple[Path, Path], pick: tuple[int, int], code: int) -> None:
    names = [str(files[i]) for i in pick]

    def run(arguments: list[str]) -> Any:
        return CliRunner().invoke(app, ["changes", *names, *arguments])

    assert run([]).exit_code == 0
    result = run(["--fail-if-worse"])
    assert result.exit_code == code
    assert ("Worse beyond noise: Llama-3.2-1B Q8_0, Llama-3.2-1B Q6_K." in result.stdout) is bool(code)
    assert run(["--fail-if-worse", "--margin", "40"]).exit_code == 0
    document = json.loads(run(["--json", "--fail-if-worse"]).stdout)
    assert bool(document["worse"]) is bool(code)
    if pick[0] == pick[1]:
        assert {entry["overall"]["verdict"] for entry in document["points"]} == {"identical"}
        assert "All of 2,250 answers were computed exactly alike." in run([]).stdout
