"""`gguf-eval run`, `report` and their failures, as a user meets them: a real process, real files, a tiny model."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
from builders import write_task
from cli_process import COMMAND, FAST, gguf_eval
from in_process import gguf_eval_here


def test_run_reports_and_resumes_without_work(place: Path) -> None:
    command = ("run", "tiny.gguf", "-q", "F32,Q8_0", "-t", "count.toml", "-r", "1", "--threads", "1", "-c", "128")
    first = gguf_eval_here(*command, "--json")
    assert first.returncode == 0, first.stderr
    document = json.loads(first.stdout)
    assert document["schema"] == 1
    assert [point["level"] for point in document["points"]] == ["F32", "Q8_0"]
    for point in document["points"]:
        assert point["status"] == "complete"
        assert point["error"] is None
        assert len(point["sha256"]) == 64
        assert point["size_bytes"] > 0
        assert point["memory"]["peak_rss_bytes"] > 10_000_000
        assert {test: speed["repetitions"] for test, speed in point["speed"].items()} == {"pp128": 1, "tg128": 1}
        task = point["tasks"]["count"]
        assert (task["metric"], task["n"], task["unscored"]) == ("acc", 40, 0)
        assert task["low"] <= task["value"] <= task["high"]
        assert set(task["metrics"]) == {"acc", "acc_norm", "acc_token_norm"}
        assert task["chance"] == pytest.approx(1 / 3)
    assert document["points"][0]["is_reference"]
    assert document["points"][0]["comparison"] is None
    assert document["points"][1]["comparison"]["reference"] == "F32"
    second = gguf_eval_here(*command)
    assert second.returncode == 0
    assert "making" not in second.stderr
    assert "count:" not in second.stderr
    assert "speed" not in second.stderr
    assert "Q8_0" in second.stdout
    report = gguf_eval("report", "tiny.study.sqlite")
    assert report.stdout == second.stdout


def test_more_items_keep_the_answers_there_are(place: Path) -> None:
    assert gguf_eval_here("run", "tiny.gguf", *FAST, "-n", "10").returncode == 0
    more = gguf_eval_here("run", "tiny.gguf", *FAST, "-n", "25", "--json")
    assert "15 in" in more.stderr
    assert json.loads(more.stdout)["points"][0]["tasks"]["count"]["n"] == 25


def test_prompts_longer_than_the_context_are_cut_counted_and_reported(place: Path) -> None:
    write_task(place, 5, context="{{ 'long ' * 20 }}{{ question }}:")
    result = gguf_eval_here("run", "tiny.gguf", *FAST, "-c", "16", "--json")
    assert json.loads(result.stdout)["points"][0]["tasks"]["count"]["truncated"] == 5
    assert "up to 5 cut to fit the context" in gguf_eval_here("report", "tiny.study.sqlite").stdout
    write_task(place, 5, context="{{ question }}:", delimiter=" " + "x" * 30)
    result = gguf_eval_here("run", "tiny.gguf", *FAST, "-c", "16", "--json", "--study", "other.sqlite")
    task = json.loads(result.stdout)["points"][0]["tasks"]["count"]
    assert (task["value"], task["n"], task["unscored"]) == (None, 0, 5)
    assert "up to 5 unscored" in gguf_eval_here("report", "other.sqlite").stdout


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("run", "absent.gguf", *FAST), "absent.gguf: no such file", 1),
        (("run", "count.jsonl", *FAST), "a GGUF file is needed, this one begins with", 1),
        (("run", "cut.gguf", *FAST), "the file is truncated", 1),
        (("run", "tiny.gguf", "-q", "q4_km", *FAST), "did you mean 'Q4_K_M'?", 2),
        (("run", "tiny.gguf", "-t", "hellaswga"), "did you mean 'hellaswag'?", 2),
        (("run", "tiny.gguf", "-t", "absent.toml"), "absent.toml: no such task file", 1),
        (("run", "tiny.gguf", *FAST, "--study", "nowhere/x.sqlite"), "no such folder", 1),
        (("run", "tiny.gguf", *FAST, "--study", "count.jsonl"), "the study file can't be used", 1),
        (("run", "tiny.gguf", *FAST, "-ngl", "some"), "'all' or a number", 2),
        (("report", "absent.sqlite"), "no such study", 1),
        (("run", "tiny.gguf", "--limit", "many"), "Invalid value for '--limit'", 2),
    ],
)
def test_bad_input_is_one_line(place: Path, arguments: tuple[str, ...], message: str, code: int) -> None:
    (place / "cut.gguf").write_bytes((place / "tiny.gguf").read_bytes()[:-1000])
    before = sorted(path.name for path in place.iterdir())
    result = gguf_eval_here(*arguments)
    assert result.returncode == code
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""
    left = {path.name for path in place.iterdir()} - set(before) - {"cache"}
    assert not {name for name in left if not name.endswith(".lock")}


def test_bad_tasks_are_one_line(place: Path) -> None:
    write_task(place, 3, gold="right + 3")
    result = gguf_eval_here("run", "tiny.gguf", *FAST)
    assert result.returncode == 1
    assert "row 0 (item 'item-0'): gold index 3 is out of range; 0 to 2 is needed" in result.stderr
    write_task(place, 3, delimeter=" ")
    result = gguf_eval_here("run", "tiny.gguf", *FAST)
    assert "count.toml: unknown key 'prompt.delimeter'; did you mean 'delimiter'?" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_newer_study_is_refused_untouched(place: Path) -> None:
    assert gguf_eval_here("run", "tiny.gguf", *FAST, "-n", "2").returncode == 0
    study = place / "tiny.study.sqlite"
    with sqlite3.connect(study) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = study.read_bytes()
    for command in (("run", "tiny.gguf", *FAST), ("report", str(study))):
        result = gguf_eval_here(*command)
        assert result.returncode == 1
        assert "the study has schema 99" in result.stderr
        assert "update gguf-eval" in result.stderr
    assert study.read_bytes() == before


def test_two_runs_do_not_write_one_study(place: Path) -> None:
    from gguf_eval.store.write import StudyWriter

    with StudyWriter(place / "tiny.study.sqlite"):
        result = gguf_eval("run", "tiny.gguf", *FAST)
    assert result.returncode == 1
    assert "another run is writing to this study" in result.stderr


def test_quantized_source_needs_leave(place: Path) -> None:
    assert gguf_eval_here("run", "tiny.gguf", "-q", "Q8_0", *FAST, "-n", "2").returncode == 0
    [made] = (place / "cache" / "models").glob("*.gguf")
    refused = gguf_eval_here("run", str(made), "-q", "F16", *FAST)
    assert refused.returncode == 2
    assert "--allow-requantize" in refused.stderr
    allowed = gguf_eval_here("run", str(made), "-q", "F16,Q8_0", *FAST, "--allow-requantize", "--study", "again.sqlite")
    assert allowed.returncode == 0, allowed.stderr
    assert "made from a Q8_0 file" in allowed.stdout


def wait_for_outcomes(study: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if study.exists() and outcomes(study) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"{count} outcomes never came")


def outcomes(study: Path) -> int:
    try:
        connection = sqlite3.connect(f"{study.as_uri()}?mode=ro", uri=True)
        try:
            return int(connection.execute("SELECT count(*) FROM outcome").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.OperationalError:
        return 0


def start_long_run(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """A run slow enough to be stopped half-way: many items, small batches."""
    write_task(place, items=1000)
    process = subprocess.Popen(
        [*COMMAND, "run", "tiny.gguf", *FAST, "-b", "64"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    study = place / "tiny.study.sqlite"
    wait_for_outcomes(study, 30)
    return process, study


def workers_of(parent: int) -> list[int]:
    import psutil

    children = psutil.Process(parent).children(recursive=True)
    return [child.pid for child in children if "gguf_eval.study.worker" in child.cmdline()]


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_interrupted_run_keeps_what_it_has(place: Path, signal_name: str) -> None:
    if signal_name == "SIGINT" and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        pytest.skip("a shell's background jobs ignore SIGINT, and so do their children")
    process, study = start_long_run(place)
    process.send_signal(signal.Signals[signal_name])
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; everything so far is saved" in stderr
    kept = outcomes(study)
    assert 30 <= kept < 1000
    resumed = gguf_eval("run", "tiny.gguf", *FAST, "--json")
    assert resumed.returncode == 0
    assert f"{1000 - kept} in" in resumed.stderr
    assert json.loads(resumed.stdout)["points"][0]["tasks"]["count"]["n"] == 1000


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_killed_parent_loses_nothing_and_leaves_no_worker(place: Path) -> None:
    import psutil

    process, study = start_long_run(place)
    [worker] = workers_of(process.pid)
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while psutil.pid_exists(worker) and psutil.Process(worker).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.05)
    kept = outcomes(study)
    assert kept >= 30
    resumed = gguf_eval("run", "tiny.gguf", *FAST)
    assert resumed.returncode == 0
    assert f"{1000 - kept} in" in resumed.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_killed_worker_is_a_failed_point_and_the_others_go_on(place: Path) -> None:
    write_task(place, items=1000)
    process = subprocess.Popen(
        [*COMMAND, "run", "tiny.gguf", "-q", "F32,Q8_0", *FAST, "-b", "64", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    study = place / "tiny.study.sqlite"
    wait_for_outcomes(study, 30)
    [worker] = workers_of(process.pid)
    os.kill(worker, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "ended by SIGKILL" in stderr
    points = {point["level"]: point for point in json.loads(stdout)["points"]}
    assert points["F32"]["status"] == "failed"
    assert "SIGKILL" in points["F32"]["error"]
    assert Path(points["F32"]["log"]).is_file()
    assert points["Q8_0"]["status"] == "complete"
    assert points["Q8_0"]["comparison"]["n"] == points["F32"]["tasks"]["count"]["asked"]
    mended = gguf_eval("run", "tiny.gguf", "-q", "F32,Q8_0", *FAST, "--json")
    assert mended.returncode == 0
    assert {p["status"] for p in json.loads(mended.stdout)["points"]} == {"complete"}


def test_a_level_that_cannot_be_made_is_a_failed_point(place: Path) -> None:
    (place / "cache").mkdir(exist_ok=True)
    (place / "cache" / "models").write_text("a file where a folder is needed")
    result = gguf_eval_here("run", "tiny.gguf", "-q", "F32,Q4_0", *FAST, "-n", "3", "--json")
    assert result.returncode == 1
    points = {point["level"]: point for point in json.loads(result.stdout)["points"]}
    assert points["F32"]["status"] == "complete"
    assert points["Q4_0"]["status"] == "failed"
    assert points["Q4_0"]["sha256"] is None
    assert "writable folder is needed" in points["Q4_0"]["error"]
    (place / "cache" / "models").unlink()
    mended = gguf_eval_here("run", "tiny.gguf", "-q", "F32,Q4_0", *FAST, "-n", "3", "--json")
    assert mended.returncode == 0
    assert len(json.loads(mended.stdout)["points"]) == 2


def test_help_needs_no_llama_cpp(place: Path) -> None:
    (place / "llama_cpp.py").write_text("raise SystemExit('llama_cpp was imported')")
    result = gguf_eval("--help", env={**os.environ, "PYTHONPATH": str(place)})
    assert result.returncode == 0
    assert "demo" in result.stdout
