"""What a run would do: said before it does anything, from what is here, with estimates that are said to be some."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest
from checkpoints import make, tiny
from cli_process import FAST, gguf_eval
from hub_server import HubServer
from in_process import gguf_eval_here
from pseudo_terminal import run_in_terminal

from gguf_eval.errors import UsageError
from gguf_eval.report.forecast import forecast_line, forecast_text
from gguf_eval.runtime.settings import EngineSettings
from gguf_eval.study.calibrate import calibrated_rates
from gguf_eval.study.cost import Rates, guessed_rates, rates_of
from gguf_eval.study.events import PointPlan, StagePlan, Tally
from gguf_eval.study.forecast import DiskNeed, Download, Forecast, NewFile, TaskCount, check_disk
from gguf_eval.study.plan import make_plan
from gguf_eval.study.points import RunRequest, plan_points
from gguf_eval.study.stages.speed import SpeedJob, speed_seconds

GOLDEN = Path(__file__).parent / "golden"
RATES = Rates(7_000_000_000, 4_100_000_000, 50.0, 30.0, 8.0, 3.0, "calibrated")


def a_forecast() -> Forecast:
    done = (
        StagePlan("score", "hellaswag", 200, 200, Tally(200, 150.0), 400.0),
        StagePlan("generate", "gsm8k", 50, 50, Tally(50, 20.0), 900.0),
        StagePlan("speed", "", 8, 8, Tally(), 60.0),
    )
    todo = (
        StagePlan("make", "", 1, 0, Tally(), 130.0),
        StagePlan("score", "hellaswag", 200, 80, Tally(80, 50.0), 400.0),
        StagePlan("generate", "gsm8k", 50, 0, Tally(), 900.0),
        StagePlan("speed", "", 8, 0, Tally(), 60.0),
        StagePlan("text", "wikitext2", 10_000, 0, Tally(), 500.0),
    )
    return Forecast(
        study=Path("llama.study.sqlite"),
        downloads=(Download("Rowan/hellaswag", "dataset", 2, 12_300_000),),
        conversions=(NewFile("owner/llama-7b", "BF16", 13_500_000_000, True),),
        makings=(
            NewFile("llama-7b Q4_K_M", "Q4_K_M", 4_100_000_000, False),
            NewFile("llama-7b IQ1_S", "IQ1_S", 0, False, "IQ1_S needs an importance matrix"),
        ),
        tasks=(TaskCount("hellaswag", False, 200, 120, 280), TaskCount("gsm8k", True, 50, 50, 50)),
        points=(
            PointPlan("llama-7b Q8_0", "llama-7b", "Q8_0", done),
            PointPlan("llama-7b Q4_K_M", "llama-7b", "Q4_K_M", todo),
        ),
        disk=(DiskNeed(Path("cache"), 17_600_000_000, 90_000_000_000),),
        seconds={"convert": 135.0, "make": 130.0, "score": 240.0, "generate": 900.0, "speed": 60.0, "text": 500.0},
        rates=(RATES,),
        planning_seconds=1.0,
    )


def test_the_text_of_a_plan_is_as_it_was() -> None:
    found = a_forecast()
    assert forecast_text(found) + "\n" == (GOLDEN / "plan.txt").read_text(encoding="utf-8")
    assert forecast_line(found) == (
        "plan: download 12 MB, convert owner/llama-7b, make 1 model file of 4,100 MB, "
        "get 170 answers (330 there already), time 1 point, run 1 point over the text; about 33 min beside the download"
    )
    assert found.heavy
    assert replace(found, downloads=(), disk=()).heavy  # for its time
    assert not replace(found, downloads=(), disk=(), seconds={"score": 500.0}).heavy


def test_a_plan_without_anything_to_do_is_no_line() -> None:
    found = replace(
        a_forecast(),
        downloads=(),
        conversions=(),
        makings=(),
        points=a_forecast().points[:1],
        tasks=(TaskCount("hellaswag", False, 200, 0, 200),),
        seconds={},
        disk=(),
    )
    assert forecast_line(found) == ""
    assert "none: everything is there" in forecast_text(found)


def test_a_plan_does_nothing_and_its_sizes_are_exact(place: Path) -> None:
    command = ("run", "tiny.gguf", "-q", "F32,Q8_0,IQ1_S", *FAST)
    before = sorted(place.rglob("*.gguf"))
    planned = gguf_eval_here(*command, "--plan", "--json")
    assert planned.returncode == 0, planned.stderr
    assert sorted(place.rglob("*.gguf")) == before
    assert not (place / "tiny.study.sqlite").exists()
    document = json.loads(planned.stdout)
    makings = {new["level"]: new for new in document["makings"]}
    assert makings["Q8_0"]["exact"]
    assert "needs an importance matrix" in makings["IQ1_S"]["problem"]
    assert document["answers"] == {"left": 80, "there": 0}
    assert document["basis"] == "guessed"  # so small a run is not calibrated for
    done = gguf_eval_here("run", "tiny.gguf", "-q", "F32,Q8_0", *FAST, "-n", "30")
    assert done.returncode == 0
    assert done.stderr.startswith("plan: make 1 model file of ")
    assert "get 60 answers" in done.stderr
    [made] = (place / "cache" / "models").glob("*Q8_0*.gguf")
    assert made.stat().st_size == makings["Q8_0"]["size_bytes"]
    again = gguf_eval_here("run", "tiny.gguf", "-q", "F32,Q8_0", *FAST, "--plan")
    assert again.returncode == 0
    assert [line.split()[-4:] for line in again.stdout.splitlines() if " count " in line] == [
        ["scored", "40", "20", "60"]
    ]
    assert "make " not in again.stdout


def test_a_damaged_file_in_the_cache_is_planned_to_be_made_anew(place: Path) -> None:
    command = ("run", "tiny.gguf", "-q", "F32,Q8_0", *FAST)
    assert gguf_eval_here(*command).returncode == 0
    [made] = (place / "cache" / "models").glob("*Q8_0*.gguf")
    made.write_bytes(made.read_bytes()[:-64])
    planned = json.loads(gguf_eval_here(*command, "--plan", "--json").stdout)
    assert [new["level"] for new in planned["makings"]] == ["Q8_0"]
    again = gguf_eval_here(*command, "--study", "b.sqlite", "--json")
    assert again.returncode == 0, again.stderr
    assert "it is thrown away and made anew" in again.stderr
    assert {point["status"] for point in json.loads(again.stdout)["points"]} == {"complete"}


def test_right_answers_that_are_asked_again_are_planned_and_a_reference_leaves_bytes(place: Path) -> None:
    command = ("run", "tiny.gguf", *FAST)
    assert gguf_eval_here(*command).returncode == 0
    planned = gguf_eval_here(*command, "-q", "F32,Q8_0", "--plan", "--json")
    document = json.loads(planned.stdout)
    again = [(p["name"], s["units"]) for p in document["points"] for s in p["stages"] if s["kind"] == "again"]
    assert again == [("tiny F32", 40)]
    assert document["answers"] == {"left": 40, "there": 40}
    assert document["seconds"]["again"] > 0
    text = gguf_eval_here(*command, "-q", "F32,Q8_0", "--plan").stdout
    assert "40 right answers again" in text
    done = gguf_eval_here(*command, "-q", "F32,Q8_0")
    assert "ask 40 right answers again" in done.stderr
    assert "tiny F32: right answers: 40 in " in done.stderr


def test_too_little_disk_is_an_error_before_anything_starts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_000_000))
    models = ("tiny.gguf",)
    request = RunRequest(models, study=Path("s.sqlite"), levels=("Q8_0",), tasks=("count.toml",), threads=1)
    found = make_plan(request).forecast
    with pytest.raises(UsageError, match=r"MB of disk are needed \(67.1 MB of them to spare\), 1.0 MB are free"):
        check_disk(found)


def hub_files(place: Path) -> tuple[int, int]:
    """A checkpoint and a dataset on the hub; bytes of the weights and of the rows."""
    weights = make(place / "files" / "models" / "someone" / "Tiny-Llama", tiny()) / "model.safetensors"
    split = place / "files" / "datasets" / "aps" / "super_glue" / "copa" / "validation"
    split.mkdir(parents=True)
    rows = [
        {"premise": f"The glass number {i} fell.", "choice1": "It broke.", "choice2": "It sang.", "question": "effect",
         "idx": i, "label": i % 2}
        for i in range(90)
    ]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), split / "0000.parquet", compression="none")
    return weights.stat().st_size, (split / "0000.parquet").stat().st_size


def test_a_plan_downloads_neither_weights_nor_rows(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, rows = hub_files(place)
    command = ("run", "someone/Tiny-Llama", "-t", "copa", "--no-speed", "--threads", "1")
    with HubServer(place / "files") as hub:
        for name, value in hub.environment(place / "hub-cache").items():
            monkeypatch.setenv(name, value)
        planned = gguf_eval(*command, "-q", "F16,Q8_0", "--plan", "--json")
        assert planned.returncode == 0, planned.stderr
        document = json.loads(planned.stdout)
        sizes = {download["repo"]: download["size_bytes"] for download in document["downloads"]}
        assert sizes == {"someone/Tiny-Llama": weights, "aps/super_glue": rows}
        assert document["answers"] == {"left": 180, "there": 0}  # the rows are counted from the file's end
        assert [new["name"] for new in document["conversions"]] == ["someone/Tiny-Llama"]
        assert document["study"] == "Tiny-Llama.study.sqlite"
        assert [(new["level"], new["exact"]) for new in document["makings"]] == [("Q8_0", False)]
        names = {path.name for path in (place / "hub-cache").rglob("*")}
        assert not {"model.safetensors", "0000.parquet"} & names
        assert not list((place / "cache").rglob("*.gguf"))
        done = gguf_eval(*command, "--json")
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith("plan: download ")
        [converted] = (place / "cache" / "converted").rglob("*.gguf")
        assert converted.stat().st_size == document["conversions"][0]["size_bytes"]
        later = json.loads(gguf_eval(*command, "--plan", "--json").stdout)
    assert (later["downloads"], later["conversions"], later["makings"]) == ([], [], [])
    assert later["answers"] == {"left": 0, "there": 90}


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals are POSIX's")
def test_a_heavy_run_asks_in_a_terminal_only_and_not_with_yes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_files(place)
    command = ("run", "tiny.gguf", "-t", "copa", "--no-speed", "--threads", "1")
    with HubServer(place / "files") as hub:
        for name, value in hub.environment(place / "hub-cache").items():
            monkeypatch.setenv(name, value)
        code, shown = run_in_terminal(command, answer=b"n\n")
        assert code == 1
        assert "Go on? [Y/n]" in shown
        assert "nothing was done" in shown
        assert not (place / "tiny.study.sqlite").exists()
        code, shown = run_in_terminal((*command, "-y"))
        assert code == 0, shown
        assert "Go on?" not in shown


SPEED = SpeedJob("m", 4096, (512,), (128,), 3, 2, EngineSettings())


def test_rates_are_scaled_from_the_file_most_like() -> None:
    other = Rates(70_000_000_000, 40_000_000_000, 5.0, 3.0, 0.8, 30.0, "measured")
    half = rates_of([other, RATES], 3_500_000_000, 2_050_000_000, None)
    assert (half.prompt, half.alone, half.basis) == (100.0, 16.0, "calibrated")
    same_weights = rates_of([RATES], 7_000_000_000, 8_200_000_000, None)
    assert (same_weights.prompt, same_weights.alone) == (50.0, 4.0)
    assert rates_of([], 7_000_000_000, 4_100_000_000, 2) == guessed_rates(7_000_000_000, 4_100_000_000, 2)
    assert speed_seconds(SPEED, RATES) == pytest.approx(512 * 5 / 50.0 + 128 * 4 / 8.0)


def test_a_trial_of_a_file_gives_rates(tiny_f32: Path, tmp_path: Path) -> None:
    [point] = plan_points(RunRequest(models=(tiny_f32,), study=tmp_path / "s.sqlite"))
    rates = calibrated_rates(point.source, 1, point.engine, "The cat sat in the house. " * 20, tmp_path / "log")
    assert rates.basis == "calibrated"
    assert rates.prompt > 0
    assert rates.alone > 0
    assert 0 < rates.start_seconds < 60
    assert 1.0 <= rates.characters_per_token < 10.0


def test_speeds_that_the_study_holds_are_what_time_is_told_from(place: Path) -> None:
    command = ("run", "tiny.gguf", "-t", "count.toml", "--threads", "1", "-r", "1", "-c", "64")
    assert gguf_eval_here(*command, "-n", "5").returncode == 0
    document = json.loads(gguf_eval_here(*command, "--plan", "--json").stdout)
    assert document["basis"] == "measured"
    assert document["seconds"].keys() == {"score", "total"}  # nothing is timed again
