"""`run` on datasets: through a local hub with the real client, and on real rows where they are at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from checkpoints import make, tiny
from cli_process import gguf_eval
from hub_server import HubServer
from in_process import gguf_eval_here
from quantize_fixtures import write_model

from gguf_eval.tasks.catalog import suites

SHARED = Path(os.environ.get("GGUF_EVAL_SHARED", Path(__file__).parents[2] / "shared"))

FAST = ("--no-speed", "--threads", "1")
ROWS = [
    {"premise": f"The glass number {i} fell.", "choice1": "It broke.", "choice2": "It sang.", "question": question,
     "idx": i, "label": i % 2}
    for i, question in enumerate(["cause", "effect"] * 6)
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GGUF_EVAL_CACHE", str(tmp_path / "cache"))
    write_model(tmp_path / "tiny.gguf")
    return tmp_path


def test_a_task_from_the_hub(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = place / "files" / "datasets" / "aps" / "super_glue" / "copa" / "validation"
    split.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS[:7]), split / "0000.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS[7:]), split / "0001.parquet")
    arguments = ("run", "tiny.gguf", "-t", "copa", *FAST, "--json")
    with HubServer(place / "files") as hub:
        for name, value in hub.environment(place / "hub-cache").items():
            monkeypatch.setenv(name, value)
        result = gguf_eval(*arguments)
        assert result.returncode == 0, result.stderr
        task = json.loads(result.stdout)["points"][0]["tasks"]["copa"]
        assert (task["n"], task["chance"]) == (12, 0.5)
    gone = gguf_eval(*arguments, "--study", "gone.sqlite")  # the hub is down: what has come down is enough
    assert gone.returncode == 0, gone.stderr
    lost = gguf_eval("run", "tiny.gguf", "-t", "piqa", *FAST)
    assert lost.returncode == 1
    assert "ybisk/piqa" in lost.stderr
    assert len(lost.stderr.strip().splitlines()) == 1


def put_copa(folder: Path) -> None:
    split = folder / "datasets" / "aps" / "super_glue" / "copa" / "validation"
    split.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), split / "0000.parquet")


def test_a_suite_goes_on_without_the_data_sets_that_are_not_there(place: Path) -> None:
    put_copa(place / "mirror")
    arguments = ("run", "tiny.gguf", *FAST, "--mirror", "mirror", "--json")
    others = set(suites()["commonsense"]) - {"copa"}
    planned = gguf_eval_here(*arguments, "-t", "commonsense", "--plan")
    assert planned.returncode == 0, planned.stderr
    document = json.loads(planned.stdout)
    assert {one["name"] for one in document["left_out"]} == others
    assert [task["name"] for task in document["tasks"]] == ["copa"]
    assert "left out  hellaswag: mirror/" in gguf_eval_here(*arguments[:-1], "-t", "commonsense", "--plan").stdout
    done = gguf_eval_here(*arguments, "-t", "commonsense")
    assert done.returncode == 1  # not everything that was asked for is there
    assert "leave out hellaswag, arc_easy" in done.stderr
    for name in others:
        assert f"{name} is left out: mirror/datasets/" in done.stderr.replace("\\", "/"), name
    [point] = json.loads(done.stdout)["points"]
    assert (list(point["tasks"]), point["tasks"]["copa"]["n"], point["status"]) == (["copa"], 12, "complete")


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("copa,piqa", "plain_text/validation: no Parquet files"),  # named by the user: nothing is asked
        ("commonsense,piqa", "plain_text/validation: no Parquet files"),
        ("scale-and-precision", "none of the 25 tasks can be asked; samsum: "),
    ],
)
def test_data_sets_that_a_run_can_not_do_without(place: Path, tasks: str, message: str) -> None:
    put_copa(place / "mirror")
    result = gguf_eval_here("run", "tiny.gguf", "-t", tasks, *FAST, "--mirror", "mirror")
    assert result.returncode == 1
    assert message in result.stderr.replace("\\", "/")
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (place / "tiny.study.sqlite").exists()


def test_a_suite_from_the_hub_goes_on_without_what_the_hub_lacks(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text too, unless the user asked for it himself."""
    split = place / "files" / "datasets" / "truthfulqa" / "truthful_qa" / "multiple_choice" / "validation"
    split.mkdir(parents=True)
    targets = {"choices": ["Bern.", "Rome."], "labels": [1, 0]}
    rows = [{"question": f"What is {n}?", "mc1_targets": targets, "mc2_targets": targets} for n in range(3)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), split / "0000.parquet")
    arguments = ("run", "tiny.gguf", "-t", "unified", *FAST, "--json")
    with HubServer(place / "files") as hub:
        for name, value in hub.environment(place / "hub-cache").items():
            monkeypatch.setenv(name, value)
        done = gguf_eval(*arguments)
        assert done.returncode == 1
        for name in ("gsm8k", "hellaswag", "ifeval", "mmlu", "text wikitext2"):
            assert f"{name} is left out: dataset '" in done.stderr, done.stderr
        assert set(json.loads(done.stdout)["points"][0]["tasks"]) == {"truthfulqa_mc1", "truthfulqa_mc2"}
        asked = gguf_eval(*arguments, "--text", "wikitext2", "--study", "b.sqlite")
        assert asked.returncode == 1
        assert not (place / "b.sqlite").exists()


def test_a_parquet_file_cut_short(place: Path) -> None:
    split = place / "mirror" / "datasets" / "aps" / "super_glue" / "copa" / "validation"
    split.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), split / "0000.parquet")
    whole = (split / "0000.parquet").read_bytes()
    (split / "0000.parquet").write_bytes(whole[: len(whole) // 2])
    result = gguf_eval_here("run", "tiny.gguf", "-t", "copa", *FAST, "--mirror", "mirror")
    assert result.returncode == 1
    assert "not a usable Parquet file" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_checkpoint_is_converted_once_and_evaluated(place: Path) -> None:
    make(place / "Tiny-Llama", tiny())
    arguments = ("run", "Tiny-Llama", "-q", "Q8_0,F32", "-t", "grammar", "-n", "4", *FAST, "--json")
    first = gguf_eval_here(*arguments)
    assert first.returncode == 0, first.stderr
    assert {point["model"] for point in json.loads(first.stdout)["points"]} == {"Tiny-Llama"}
    [converted] = (place / "cache" / "converted").rglob("*.gguf")
    written = converted.stat().st_mtime_ns
    assert gguf_eval_here(*arguments).returncode == 0
    assert converted.stat().st_mtime_ns == written
    made = gguf_eval_here("quantize", "Tiny-Llama", "-q", "Q4_0", "-o", "made")
    assert made.returncode == 0, made.stderr
    assert [path.name for path in (place / "made").glob("*.gguf")] == ["Tiny-Llama-Q4_0.gguf"]


def test_a_damaged_conversion_is_made_anew(place: Path) -> None:
    make(place / "Tiny-Llama", tiny())
    arguments = ("run", "Tiny-Llama", "-t", "grammar", "-n", "4", *FAST)
    assert gguf_eval_here(*arguments).returncode == 0
    [converted] = (place / "cache" / "converted").rglob("*.gguf")
    whole = converted.read_bytes()
    converted.write_bytes(whole[:-40] + bytes(40))
    again = gguf_eval_here(*arguments)
    assert again.returncode == 0, again.stderr
    assert "it is not what was made there" in again.stderr
    assert converted.read_bytes() == whole


@pytest.mark.shared_data
@pytest.mark.skipif(not (SHARED / "hub").is_dir(), reason="no dataset rows at hand (set GGUF_EVAL_SHARED)")
def test_every_hub_task_on_real_rows(place: Path) -> None:
    result = gguf_eval_here(
        "run", "tiny.gguf", "-t", "commonsense", "-n", "3", *FAST, "--mirror", str(SHARED / "hub"), "--json"
    )
    assert result.returncode == 0, result.stderr
    tasks = json.loads(result.stdout)["points"][0]["tasks"]
    assert len(tasks) == 10
    # The tiny model's context is 256 bytes: some endings do not fit, and are counted.
    assert {task["n"] + task["unscored"] for task in tasks.values()} == {3}
