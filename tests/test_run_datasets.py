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
