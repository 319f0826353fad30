"""The live view of a run: its frames from fed events and a fake clock, and the real one in a terminal of its own."""

from __future__ import annotations

import os
import re
import signal
from io import StringIO
from pathlib import Path

import pytest
from builders import write_task
from cli_process import FAST, gguf_eval
from pseudo_terminal import run_in_terminal
from rich.console import Console

from gguf_eval.analysis.statistics import wilson
from gguf_eval.report.progress import PlainObserver, frame
from gguf_eval.study.events import (
    Advanced,
    Event,
    MemoryTaken,
    Planned,
    PointFailed,
    PointPlan,
    StageBegan,
    StageEnded,
    StagePlan,
    Tally,
)
from gguf_eval.study.plan import make_plan
from gguf_eval.study.points import RunRequest
from gguf_eval.study.progress import Progress
from gguf_eval.study.run import run_study

GOLDEN = Path(__file__).parent / "golden"


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def planned_point(label: str, *, model: str = "Llama-7B", answered: int = 0, made: bool = True) -> PointPlan:
    stages = [
        StagePlan("make", "", 1, 0, Tally(), 10.0),
        StagePlan("score", "hellaswag", 200, answered, Tally(answered, answered * 0.5), 100.0),
        StagePlan("generate", "gsm8k", 50, 0, Tally(), 80.0),
        StagePlan("speed", "", 8, 0, Tally(), 20.0),
    ]
    return PointPlan(f"{model} {label}", model, label, tuple(stages if made else stages[1:]))


def complete_point(label: str, *, model: str = "Llama-7B") -> PointPlan:
    return PointPlan(
        f"{model} {label}", model, label, (StagePlan("score", "hellaswag", 200, 200, Tally(198, 150.0, 2), 100.0),)
    )


def fed(clock: Clock, *timed: tuple[float, Event]) -> Progress:
    progress = Progress(clock)
    for seconds, event in timed:
        clock.now = seconds
        progress.tell(event)
    return progress


def a_run_in_its_middle(clock: Clock, *, rough: bool = False) -> Progress:
    """F16 was done before, Q8_0 fails, Q4_K_M is at its second task, Q2_K waits."""
    q8, q4 = "Llama-7B Q8_0", "Llama-7B Q4_K_M"
    points = (complete_point("F16"), planned_point("Q8_0"), planned_point("Q4_K_M", answered=40), planned_point("Q2_K"))
    return fed(
        clock,
        (0.0, Planned(points, rough=rough)),
        (0.0, StageBegan(q8, "make", "", 1)),
        (12.0, PointFailed(q8, "the worker was ended by SIGKILL (out of memory, perhaps); its log: logs/Q8_0.log")),
        (12.0, StageBegan(q4, "make", "", 1)),
        (32.0, StageEnded(q4, "make", "")),
        (32.0, StageBegan(q4, "score", "hellaswag", 160)),
        (33.0, MemoryTaken(q4, 4_100_000_000)),
        (42.0, Advanced(q4, "score", "hellaswag", 10, Tally(10, 6.0))),
        (192.0, Advanced(q4, "score", "hellaswag", 150, Tally(145, 100.0, 5))),
        (192.0, StageEnded(q4, "score", "hellaswag")),
        (192.0, StageBegan(q4, "generate", "gsm8k", 50)),
        (212.0, Advanced(q4, "generate", "gsm8k", 5, Tally(5, 1.0))),
        (232.0, Advanced(q4, "generate", "gsm8k", 5, Tally(5, 0.0))),
    )


def text_of(progress: Progress, width: int, height: int = 24) -> str:
    return "\n".join(line.plain for line in frame(progress.view(), width, height)) + "\n"


@pytest.mark.parametrize("width", [80, 120])
def test_the_frame_is_as_it_was(width: int) -> None:
    found = text_of(a_run_in_its_middle(Clock()), width)
    assert max(map(len, found.split("\n"))) <= width
    assert found == (GOLDEN / f"live-{width}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [30, 40, 60, 70, 80, 100, 200])
def test_a_frame_fits_its_terminal(width: int) -> None:
    clock = Clock()
    progress = a_run_in_its_middle(clock)
    progress.tell(StageBegan("Another-Model-With-A-Long-Name Q4_K_M KV Q8_0/F16", "score", "a_long_name " * 5, 9))
    lines = text_of(progress, width).splitlines()
    assert max(map(len, lines)) <= width
    assert any("0/9" in line for line in lines)


def test_more_points_than_rows_are_a_window_around_the_one_at_work() -> None:
    points = tuple(planned_point(f"L{number:02}") for number in range(40))
    progress = fed(
        Clock(), (0.0, Planned(points, rough=False)), (0.0, StageBegan("Llama-7B L20", "score", "hellaswag", 200))
    )
    lines = text_of(progress, 100, height=14).splitlines()
    assert len(lines) <= 13
    assert "… 17 more above" in lines
    assert "… 16 more" in lines
    assert any(line.startswith("L20") and "hellaswag   0/200" in line for line in lines)


def test_the_time_left_stays_where_there_is_little_room() -> None:
    name = "A-Model-With-A-Name-Of-30-Char Q4_K_M"
    plan = PointPlan(name, "A", name, planned_point("x").stages)
    other = PointPlan("B Q2_K", "B", "Q2_K", planned_point("x").stages)
    progress = fed(Clock(), (0.0, Planned((plan, other), rough=False)), (0.0, StageBegan(name, "make", "", 1)))
    for width in (50, 64, 72, 80, 90):
        assert text_of(progress, width).splitlines()[-1].endswith("about 7 min left")


def test_a_run_without_a_plan_shows_what_it_is_told() -> None:
    clock = Clock()
    progress = fed(clock, (0.0, StageBegan("tiny Q8_0", "text", "wiki.txt", 0)))
    progress.tell(Advanced("tiny Q8_0", "text", "wiki.txt", 930))
    assert "tiny Q8_0  wiki.txt 930" in text_of(progress, 80)
    progress.tell(StageEnded("tiny Q8_0", "text", "wiki.txt"))
    assert "tiny Q8_0  done" in text_of(progress, 80)
    assert "1/1 points" in text_of(progress, 80)


def test_accuracy_is_wilsons_over_what_is_answered_and_resumed_answers_count() -> None:
    clock = Clock()
    points = {point.label: point for point in a_run_in_its_middle(clock).view().points}
    assert points["F16"].accuracy == wilson(150.0, 198, unscored=2)
    assert points["F16"].state == "done"
    assert points["F16"].fraction == 1.0
    assert points["Q4_K_M"].accuracy == wilson(20.0 + 6.0 + 100.0 + 1.0, 40 + 10 + 145 + 10, unscored=5)
    assert points["Q4_K_M"].memory_bytes == 4_100_000_000
    assert points["Q8_0"].state == "failed"
    assert points["Q2_K"].state == "waiting"
    assert points["Q4_K_M"].answers_per_second == pytest.approx((150 + 5) / (150 + 20))


def test_time_left_is_what_is_predicted_corrected_by_what_is_seen() -> None:
    """Making took 20 s for 10 predicted, scoring 160 for 80, writing so far 40 for 16; 3 s of prediction weigh in.

    What failed says nothing and costs nothing.
    """
    clock = Clock()
    progress = a_run_in_its_middle(clock)
    left = progress.view().seconds_left
    assert left is not None
    overall = (20 + 160 + 40 + 3) / (10 + 80 + 16 + 3)
    make, score, write = ((seen + 3 * overall) / (said + 3) for seen, said in ((20, 10), (160, 80), (40, 16)))
    running = (40 + 3 * write) / (16 + 3)
    assert left == pytest.approx(running * 64 + overall * 20 + make * 10 + score * 100 + write * 80 + overall * 20)
    clock.now += 100.0  # nothing comes: the running stage is slower than was thought
    later = progress.view().seconds_left
    assert later is not None
    assert later > left


def test_a_rough_plan_says_nothing_before_something_is_seen_and_then_follows_it() -> None:
    clock = Clock()
    name = "Llama-7B Q4_K_M"
    progress = fed(
        clock, (0.0, Planned((planned_point("Q4_K_M", made=False),), rough=True)),
        (0.0, StageBegan(name, "score", "hellaswag", 200)),
    )  # fmt: skip
    clock.now = 1.0
    assert progress.view().seconds_left is None
    clock.now = 1000.0
    progress.tell(Advanced(name, "score", "hellaswag", 100, Tally(100, 50.0)))
    left = progress.view().seconds_left
    assert left == pytest.approx(20.0 * (50 + 80 + 20), rel=0.05)


def test_plain_lines_have_scores_and_no_control_codes() -> None:
    clock = Clock()
    out = StringIO()
    observer = PlainObserver(Console(file=out, width=60), clock)
    name = "Llama-7B\x1b[31m Q4_K_M"
    for seconds, event in (
        (0.0, StageBegan(name, "make", "", 1)),
        (2.0, StageEnded(name, "make", "")),
        (2.0, StageBegan(name, "score", "hellaswag", 200)),
        (3.0, MemoryTaken(name, 10)),
        (22.0, Advanced(name, "score", "hellaswag", 200, Tally(198, 99.0, 2))),
        (22.0, StageEnded(name, "score", "hellaswag")),
        (23.0, PointFailed(name, "out of memory")),
    ):
        clock.now = seconds
        observer.tell(event)
    shown = "Llama-7B␛[31m Q4_K_M"
    assert out.getvalue().splitlines() == [
        f"{shown}: making the model file: 2.0 s",
        f"{shown}: hellaswag: 200 in 20.0 s, 10.0/s, score 50.0 (43–57), 2 unscored",
        f"{shown}: out of memory",
    ]


def test_everything_planned_is_done_in_the_end(place: Path) -> None:
    """Points that share a file make it once; what was planned is what happens, and again there is nothing to do."""

    class Following:
        def __init__(self) -> None:
            self.progress = Progress()
            self.tell, self.note = self.progress.tell, print

    request = RunRequest(
        models=(place / "tiny.gguf",), study=place / "s.sqlite", levels=("F32", "Q4_0"), threads=1,
        tasks=("count.toml",), cache_types=(("F16", "F16"), ("Q8_0", "Q8_0")), repetitions=1, ctx=128,
    )  # fmt: skip
    for began in (True, False):
        observer = Following()
        assert run_study(make_plan(request), observer)
        view = observer.progress.view()
        assert [point.state for point in view.points] == ["done"] * 4
        assert [point.fraction for point in view.points] == [1.0] * 4
        assert (view.answers, view.answers_in_all, view.fraction) == (160, 160, 1.0)
        assert all(point.accuracy is not None and point.accuracy.n == 40 for point in view.points)
        assert any(point.memory_bytes for point in view.points) == began


def test_a_piped_run_writes_no_control_codes(place: Path) -> None:
    result = gguf_eval("run", "tiny.gguf", *FAST, env={**os.environ, "FORCE_COLOR": "1"})
    assert result.returncode == 0
    assert "tiny F32: count: 40 in" in result.stderr
    assert "\x1b" not in result.stderr.replace("\x1b[2m", "").replace("\x1b[0m", "")  # FORCE_COLOR's own wish
    plain = gguf_eval("run", "tiny.gguf", *FAST, "--study", "b.sqlite")
    assert "\x1b" not in plain.stderr + plain.stdout


posix = pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals are POSIX's")


@posix
def test_the_view_runs_in_a_terminal_and_leaves_it_as_it_was(place: Path) -> None:
    code, shown = run_in_terminal(("run", "tiny.gguf", "-q", "F32,Q8_0", *FAST))
    assert code == 0, shown
    assert "\x1b[?25l" in shown  # the cursor is hidden, and shown again
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown[shown.rindex("point ") :])
    assert re.search(r"F32 +done +━+ 100 %", last)
    assert re.search(r"Q8_0 +done +━+ 100 %", last)
    assert "2/2 points, 80/80" in last
    assert "against F32" in last  # the report comes after it
    code, again = run_in_terminal(("run", "tiny.gguf", "-q", "F32,Q8_0", *FAST))
    assert code == 0
    assert "plan:" not in again
    assert "against F32" in again


@posix
@pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="a shell's background jobs ignore SIGINT, as do children"
)
def test_ctrl_c_restores_the_terminal_and_says_that_all_is_saved(place: Path) -> None:
    write_task(place, items=2000)
    code, shown = run_in_terminal(("run", "tiny.gguf", *FAST, "-b", "64"), interrupt=b"MB")
    assert code == 130, shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    end = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown[shown.rindex("\x1b[?25h") :])
    assert "interrupted; everything so far is saved" in end
