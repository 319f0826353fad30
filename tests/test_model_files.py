"""Batches, isolation, inspection and the commands on tiny models, through real processes and a real local hub."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hub_server import HubServer
from in_process import gguf_eval_here
from quantize_fixtures import write_model

from gguf_eval.errors import ModelFileError, UsageError
from gguf_eval.files.batch import LevelsRequest, Step, make_all, plan_all
from gguf_eval.files.footprint import predict_footprint
from gguf_eval.files.header import read_header
from gguf_eval.files.recipes import find_ladder, find_recipe
from gguf_eval.files.remote import inspect_headers
from gguf_eval.llama.isolated import run_isolated

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny") / "tiny-F32.gguf", feed_forward=256)


def command(*arguments: str | Path, fails: int = 0) -> subprocess.CompletedProcess[str]:
    done = gguf_eval_here(*arguments)
    assert done.returncode == fails, done.stderr
    return done


def test_a_batch_makes_keeps_and_refuses(tiny: Path, tmp_path: Path) -> None:
    request = LevelsRequest(tiny, tmp_path / "out", (find_recipe("Q4_0"), find_recipe("Q8_0"), find_recipe("F32")))
    assert [step.status for step in plan_all(request)] == ["to make", "to make", "source"]
    assert not (tmp_path / "out").exists()
    seen: list[tuple[str, str]] = []
    steps = make_all(request, lambda step: seen.append((step.recipe.name, step.status)))
    assert [step.status for step in steps] == ["made", "made", "source"]
    assert seen == [("Q4_0", "to make"), ("Q4_0", "made"), ("Q8_0", "to make"), ("Q8_0", "made"), ("F32", "source")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["tiny-Q4_0.gguf", "tiny-Q8_0.gguf"]
    assert [step.status for step in make_all(request)] == ["kept", "kept", "source"]
    other = write_model(tmp_path / "tiny-F32.gguf", feed_forward=256, seed=1)
    changed = LevelsRequest(other, tmp_path / "out", (find_recipe("Q4_0"),))
    with pytest.raises(UsageError, match=r"of another origin; move it away, or replace it with --force"):
        make_all(changed)
    assert make_all(LevelsRequest(other, tmp_path / "out", (find_recipe("Q4_0"),), force=True))[0].status == "made"


def test_a_ladder_leaves_out_what_needs_a_matrix(tiny: Path, tmp_path: Path) -> None:
    steps = plan_all(LevelsRequest(tiny, tmp_path, find_ladder("full"), skip_without_imatrix=True))
    skipped = {step.recipe.name for step in steps if step.status == "skipped"}
    assert skipped == {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "Q2_K_S", "IQ3_XXS", "IQ3_XS"}
    with pytest.raises(UsageError, match="IQ2_S needs an importance matrix"):
        plan_all(LevelsRequest(tiny, tmp_path, (find_recipe("IQ2_S"),)))


def test_disk_for_the_whole_batch_is_checked_first(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=17 << 20))
    with pytest.raises(
        UsageError, match=r"MB of disk are needed \(16.8 MB of them to spare\), .* MB are free, for all levels"
    ):
        make_all(LevelsRequest(tiny, tmp_path / "out", (find_recipe("Q4_0"), find_recipe("Q8_0"))))
    assert not (tmp_path / "out").exists()


def test_an_interrupt_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    request = LevelsRequest(tiny, tmp_path / "out", (find_recipe("Q4_0"), find_recipe("Q8_0")))

    def stop(step: Step) -> None:
        if step.recipe.name == "Q8_0":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_isolated(make_all, request, log=tmp_path / "log", folder=request.folder, on_progress=stop)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tiny-Q4_0.gguf"]


def test_the_commands(tiny: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The lamp at the end of the pier is a warm place in the grey. " * 12)
    matrix, out = tmp_path / "m.gguf", tmp_path / "out"
    made = command("imatrix", tiny, "--text", text, "-c", "64", "--chunks", "3", "-o", matrix)
    assert "14 tensors from 3 chunks of 64 tokens of text.txt" in made.stdout
    assert "chunk 3 of 3" in made.stderr
    planned = command("quantize", tiny, "-q", "q2_k_s,q4_k_m", "--imatrix", matrix, "-o", out, "--plan")
    assert "disk needed" in planned.stdout
    assert not out.exists()
    done = command("quantize", tiny, "-q", "q2_k_s,q4_k_m", "--imatrix", matrix, "-o", out, "--json")
    steps = json.loads(done.stdout)["steps"]
    assert [(step["recipe"], step["status"]) for step in steps] == [("Q2_K_S", "made"), ("Q4_K_M", "made")]
    shown = command("inspect", out / "tiny-Q2_K_S.gguf", "-c", "100")
    assert "level            Q2_K_S" in shown.stdout
    assert "recipe Q2_K_S from F32 source" in shown.stdout
    assert "from text.txt" in shown.stdout
    found = json.loads(command("inspect", out / "tiny-Q4_K_M.gguf", "--json").stdout)
    assert found["level"] == "Q4_K_M"
    assert found["provenance"]["gguf_eval.imatrix_dataset"] == "text.txt"
    listed = command("recipes").stdout
    assert "Q4_K_L" in listed
    assert "standard" in listed


def test_mistakes_are_one_line(tiny: Path, tmp_path: Path) -> None:
    for arguments, words, code in (
        (("quantize", tiny), "levels are needed", 2),
        (("quantize", tiny, "-q", "Q4_X"), "no level or recipe is called 'Q4_X'; did you mean", 2),
        (("quantize", tmp_path / "absent.gguf", "-q", "Q4_0"), "no such file", 1),
        (("imatrix", tiny, "--text", "absent.txt"), "no such text file", 2),
        (("imatrix", tiny, "--text", "someone/name:split"), "owner/name:config/split:column", 2),
        (("inspect", tmp_path / "absent.gguf"), "no such file", 1),
        (("inspect", tiny, "-ctk", "Q9"), "no KV cache type is called 'Q9'", 2),
    ):
        done = command(*arguments, fails=code)
        assert words in done.stderr
        assert done.stderr.startswith("gguf-eval: ")
        assert done.stderr.count("\n") == 1


def test_the_memory_predicted_is_counted_as_said(tiny: Path) -> None:
    header = read_header(tiny)
    found = predict_footprint((header,), 100)
    assert found.context == 256
    assert found.weights_bytes == sum(tensor.size_bytes for tensor in header.tensors)
    assert found.kv_bytes == 2 * 2 * 256 * 2 * 64 * 2, "layers x (k, v) x tokens x heads x width x 2 bytes"
    assert predict_footprint((header,), 256, cache_type="q8_0").kv_bytes == found.kv_bytes * 34 // 64
    assert found.total_bytes == found.weights_bytes + found.kv_bytes + found.compute_bytes
    assert predict_footprint((header,)).context == 256


def test_headers_are_read_from_the_hub_by_range(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gguf_eval.files import remote

    folder = tmp_path / "files" / "models" / "someone" / "tiny"
    folder.mkdir(parents=True)
    (folder / "model.gguf").write_bytes(tiny.read_bytes())
    (folder / "broken.gguf").write_bytes(b"GGUF\x09")
    monkeypatch.setattr(remote, "_FIRST_BYTES", 1000)
    with HubServer(tmp_path / "files") as hub:
        for name, value in hub.environment(tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        headers, size = inspect_headers("someone/tiny/model.gguf")
        assert size == tiny.stat().st_size
        assert headers[0].tensors == read_header(tiny).tensors
        asked = [ranges for _, path, ranges in hub.requests if path.endswith("model.gguf") and "resolve" in path]
        assert asked[:3] == ["bytes=0-999", "bytes=1000-1999", "bytes=2000-3999"]
        assert inspect_headers("hf://someone/tiny/model.gguf")[1] == size
        for reference, words in (
            ("someone/tiny/absent.gguf", "has no such file"),
            ("someone/absent/model.gguf", "no such file here; model 'someone/absent': no such repository"),
            ("someone/tiny/broken.gguf", "does not end within 5 bytes"),
        ):
            with pytest.raises(ModelFileError, match=words):
                inspect_headers(reference)


@pytest.mark.parametrize(
    ("fault", "words"),
    [("silent", "timed out"), ("dripping", "bytes came in"), ("empty", "an empty answer"), ("whole", "whole files")],
)
def test_a_hub_that_misbehaves_is_given_up(
    fault: str, words: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gguf_eval.files import remote

    folder = tmp_path / "files" / "models" / "someone" / "tiny"
    folder.mkdir(parents=True)
    (folder / "model.gguf").write_bytes(tiny.read_bytes())
    monkeypatch.setattr(remote, "_FIRST_BYTES", 1000)
    monkeypatch.setattr(remote, "_PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(remote, "_CHUNK_BYTES", 1)
    with HubServer(tmp_path / "files", faults={"model.gguf": fault}) as hub:
        for name, value in hub.environment(tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ModelFileError, match=words):
            inspect_headers("someone/tiny/model.gguf")
