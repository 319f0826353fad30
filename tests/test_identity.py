"""Which model a file holds: levels are paired whatever they are called, other models are not, and both are said."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_process import FAST
from in_process import gguf_eval_here
from quantize_fixtures import write_model
from split_files import edit_metadata, split_model

from gguf_eval.files.identity import _without_owner, contradictions, identify
from gguf_eval.files.model_file import model_name
from gguf_eval.files.names import variant_name
from gguf_eval.store.read import read_study
from gguf_eval.store.together import merge_studies

SMALL: dict[str, Any] = {"feed_forward": 256, "layers": 1}


def ran(*arguments: str | Path, code: int = 0) -> tuple[list[dict[str, Any]], str]:
    """Points of a run's JSON document, and what was said beside it."""
    done = gguf_eval_here("run", *arguments, *FAST, "-n", "5", "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)["points"], done.stderr


def models(points: list[dict[str, Any]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for point in points:
        found.setdefault(point["model"], set()).add(point["name"].removeprefix(point["model"]).strip())
    return found


@pytest.mark.parametrize(
    ("name", "model", "level", "variant"),
    [
        ("Qwen3-8B-Q8_0", "Qwen3-8B", "Q8_0", ""),
        ("Qwen3-8B-UD-Q4_K_XL", "Qwen3-8B", "Q4_K_M", "UD-Q4_K_XL"),
        ("Qwen3-8B-UD-IQ1_S", "Qwen3-8B", "IQ1_S", "UD"),
        ("Qwen3-8B-Q4_K_L", "Qwen3-8B", "Q4_K_M", "Q4_K_L"),
        ("Qwen3-8B.i1-Q4_K_M", "Qwen3-8B", "Q4_K_M", "i1"),
        ("Qwen3-8B-Q4_K_M-imat", "Qwen3-8B", "Q4_K_M", "imat"),
        ("Qwen3-8B-IQ4_XS_L", "Qwen3-8B", "IQ4_XS", "IQ4_XS_L"),
        ("Qwen3-8B-BF16-00001-of-00002", "Qwen3-8B", "BF16", ""),
        ("Qwen3-8B-Q4_0_4_4", "Qwen3-8B", "Q4_0", "Q4_0_4_4"),
        ("Qwen3-8B_Q3_K_XL", "Qwen3-8B", "Q3_K_L", "Q3_K_XL"),
        ("Qwen3-8B-fp16", "Qwen3-8B", "F16", ""),
        ("Qwen3-8B-GGUF-q8", "Qwen3-8B", "Q8_0", ""),
        ("qwen3-8b-q3_k", "qwen3-8b", "Q3_K_M", ""),
        ("gpt-oss-20b-mxfp4", "gpt-oss-20b", "MXFP4_MOE", ""),
        ("gemma-3-270m-it-qat-Q4_0", "gemma-3-270m-it-qat", "Q4_0", ""),
        ("mistral-7b-v0.1", "mistral-7b-v0.1", "Q4_0", ""),
        ("Q4_0", "Q4_0", "Q4_0", ""),
        ("mine-Q8_0", "mine", "Q4_0", "Q8_0"),
    ],
)
def test_what_a_file_name_says(name: str, model: str, level: str, variant: str) -> None:
    path = Path(f"{name}.gguf")
    assert model_name(path) == model
    assert variant_name(path, level) == variant


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without a name in its header, to be copied with one."""
    folder = tmp_path_factory.mktemp("plain")
    return edit_metadata(write_model(folder / "x.gguf", **SMALL), folder / "plain.gguf", {"general.name": None})


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        (("Qwen3-8B-Q8_0", {"name": "Qwen3 8B", "basename": "Qwen3"}),
         ("Qwen3-8B-UD-Q2_K_XL", {"name": "Qwen3-8B", "basename": "Qwen3-8B"}), True),
        (("mistral-7b-instruct-v0.2.Q4_K_M", {"name": "mistralai_mistral-7b-instruct-v0.2"}),
         ("other", {"name": "Mistral 7B Instruct v0.2", "basename": "Mistral", "finetune": "Instruct"}), True),
        (("llama-2-7b.Q4_0", {"name": "LLaMA v2"}), ("Llama-2-7B-F16", {"name": "Llama 2 7B"}), True),
        (("llama-2-7b.Q4_0", {"name": "LLaMA v2"}), ("vicuna-7b.Q4_0", {"name": "LLaMA v2"}), False),
        (("q4", {"name": "Tiny Stories"}), ("big", {"name": "tiny-stories"}), True),
        (("a/model-Q4_0", {"name": "Tiny Chat"}), ("b/model-Q8_0", {"name": "Tiny Instruct"}), False),
        (("ggml-model-q4_0", {"name": "models"}), ("ggml-model-f16", {}), True),
        (("x", {"name": "Tiny", "finetune": "Chat"}), ("y", {"name": "Tiny", "finetune": "Instruct"}), False),
        (("x", {"name": "Tiny", "size_label": "8B"}), ("y", {"name": "tiny", "size_label": "8.2B"}), True),
    ],
)  # fmt: skip
def test_names_that_quantizers_give(
    plain: Path, tmp_path: Path, first: tuple[str, dict[str, str]], second: tuple[str, dict[str, str]], is_one: bool
) -> None:
    identities = []
    for name, header in (first, second):
        path = tmp_path / f"{name}.gguf"
        path.parent.mkdir(exist_ok=True)
        identities.append(
            identify(edit_metadata(plain, path, {f"general.{key}": value for key, value in header.items()}))
        )
    assert (contradictions(*identities) == []) == is_one


def test_what_files_hold_goes_before_what_they_are_called(tmp_path: Path) -> None:
    base = identify(write_model(tmp_path / "tiny-F32.gguf", **SMALL))
    half = write_model(tmp_path / "tiny-F16.gguf", **SMALL, dtype=np.float16)
    assert contradictions(base, identify(half)) == []
    parts = split_model(half, tmp_path / "tiny-again", 3, bare_first=True)
    assert identify(parts[0]) == identify(parts[2])
    assert contradictions(base, identify(parts[0])) == []
    trained = identify(write_model(tmp_path / "tiny-Q8_0.gguf", **SMALL, seed=1))
    assert contradictions(base, trained) == ["their norms or biases have other values, which no level changes"]
    wider = identify(write_model(tmp_path / "tiny-Q4_0.gguf", feed_forward=512, layers=1))
    assert contradictions(base, wider) == ["their weights have other names or shapes"]


@pytest.fixture
def levels(place: Path) -> Path:
    """Two levels of one model under names that only their makers understand."""
    write_model(place / "Tiny-UD-Q4_K_XL.gguf", **SMALL)
    write_model(place / "tiny.i1-F16.gguf", **SMALL, dtype=np.float16)
    return place


def test_levels_of_one_model_are_compared(levels: Path) -> None:
    points, said = ran("Tiny-UD-Q4_K_XL.gguf", "tiny.i1-F16.gguf", "--study", "s.sqlite")
    assert models(points) == {"Tiny": {"F32 (UD-Q4_K_XL)", "F16 (i1)"}}
    assert [point["is_reference"] for point in points] == [True, False]
    assert "taken for" not in said
    later, _ = ran("tiny.i1-F16.gguf", "--study", "s.sqlite")  # alone it would be called tiny
    assert models(later) == models(points)
    compared = gguf_eval_here("compare", "s.sqlite", "f32 (ud-q4_k_xl)", "F16 (i1)")
    assert compared.returncode == 0, compared.stderr
    shown = gguf_eval_here("report", "s.sqlite").stdout
    assert "F32 (UD-Q4_K_XL)" in shown
    assert "against" in shown


def test_finetunes_are_parted_and_that_is_said(levels: Path) -> None:
    write_model(levels / "Tiny-Chat-F16.gguf", **SMALL, seed=3)
    edit_metadata(levels / "Tiny-UD-Q4_K_XL.gguf", levels / "Tiny-Merged-F32.gguf", {"general.name": "Tiny Merged"})
    files = ("Tiny-UD-Q4_K_XL.gguf", "Tiny-Chat-F16.gguf", "Tiny-Merged-F32.gguf")
    points, said = ran(*files)
    assert models(points).keys() == {"Tiny", "Tiny-Chat", "Tiny-Merged"}
    assert "Tiny and Tiny-Chat are taken for two models" in said
    assert "norms or biases have other values" in said
    assert "they are named 'tiny' and 'Tiny Merged'" in said
    planned = gguf_eval_here("run", *files, *FAST, "--plan", "--json")
    assert len(json.loads(planned.stdout)["notes"]) == 3
    together, said = ran("x=Tiny-UD-Q4_K_XL.gguf", "x=Tiny-Merged-F32.gguf", "--study", "hand.sqlite")
    assert models(together) == {"x": {"F32 (UD-Q4_K_XL)", "F32"}}
    assert "taken for" not in said
    again, _ = ran("Tiny-Merged-F32.gguf", "--study", "hand.sqlite")  # what was said once is kept
    assert models(again) == models(together)


def test_a_name_by_hand_parts_files_too(levels: Path) -> None:
    points, said = ran("a=Tiny-UD-Q4_K_XL.gguf", "b=tiny.i1-F16.gguf")
    assert models(points).keys() == {"a", "b"}
    assert "taken for" not in said
    (levels / "odd=name.gguf").write_bytes((levels / "tiny.gguf").read_bytes())
    assert models(ran("odd=name.gguf", "--study", "odd.sqlite")[0]).keys() == {"odd=name"}


def test_files_that_are_called_otherwise_are_said_to_be_one(levels: Path) -> None:
    shutil.copy("tiny.i1-F16.gguf", "download.gguf")
    points, said = ran("Tiny-UD-Q4_K_XL.gguf", "download.gguf")
    assert models(points) == {"Tiny": {"F32 (UD-Q4_K_XL)", "F16"}}
    assert "Tiny-UD-Q4_K_XL.gguf and download.gguf are taken for levels of one model, Tiny" in said


def test_files_of_one_content_are_evaluated_once(place: Path) -> None:
    (place / "other").mkdir()
    shutil.copy("tiny.gguf", "other/copy.gguf")
    points, said = ran("tiny.gguf", "other/copy.gguf")
    assert models(points) == {"tiny": {"F32"}}
    assert "other/copy.gguf holds the same as tiny.gguf: it is evaluated once" in said.replace("\\", "/")
    ran("tiny.gguf", "-q", "Q8_0", "--study", "made.sqlite")
    [made] = (place / "cache" / "models").glob("*.gguf")
    shutil.copy(made, "mine.gguf")
    points, said = ran("tiny.gguf", "mine.gguf", "-q", "Q8_0", "--study", "twice.sqlite")
    assert [point["level"] for point in points] == ["Q8_0"]
    assert "has the same content as tiny Q8_0" in said


def test_two_files_of_one_level_have_labels_of_their_own(place: Path) -> None:
    for folder, seed in (("a", 0), ("b", 1)):
        (place / folder).mkdir()
        write_model(place / folder / "tiny-F32.gguf", **SMALL, seed=seed)
    edit_metadata(place / "a" / "tiny-F32.gguf", place / "tiny-F32.gguf", {"general.author": "someone"})
    points, _ = ran("a/tiny-F32.gguf", "tiny-F32.gguf", "b/tiny-F32.gguf")
    assert models(points) == {"a/tiny": {"F32 (a)", f"F32 ({place.name})"}, "b/tiny": {"F32"}}


def without_identity(study: Path) -> None:
    """The study as it was written before files were identified."""
    with sqlite3.connect(study) as connection:
        for sha256, origin in connection.execute("SELECT sha256, origin FROM model_file").fetchall():
            older = {key: value for key, value in json.loads(origin).items() if key not in ("identity", "variant")}
            connection.execute("UPDATE model_file SET origin = ? WHERE sha256 = ?", (json.dumps(older), sha256))
    connection.close()


def test_a_study_written_before_goes_on(levels: Path) -> None:
    study = levels / "old.sqlite"
    ran("tiny.gguf", "-q", "F32,Q8_0", "--study", study)
    without_identity(study)
    assert models(ran("tiny.gguf", "-q", "Q4_0", "--study", study)[0]) == {"tiny": {"F32", "Q8_0", "Q4_0"}}
    without_identity(study)
    assert {point.model for point in read_study(study).points} == {"tiny"}
    done = gguf_eval_here("run", "tiny.gguf", "-q", "F32,Q8_0,Q4_0", *FAST, "-n", "5", "--study", study)
    assert "answers" not in done.stderr  # everything is there


def test_studies_are_put_together_by_what_their_files_hold(levels: Path) -> None:
    write_model(levels / "b.gguf", **SMALL, seed=5)
    ran("Tiny-UD-Q4_K_XL.gguf", "--study", "one.sqlite")
    ran("tiny.i1-F16.gguf", "Tiny=b.gguf", "--study", "two.sqlite")
    merged = merge_studies([read_study(levels / "one.sqlite"), read_study(levels / "two.sqlite")])
    assert [point.model for point in merged.points] == ["Tiny", "Tiny", "Tiny @two"]


def test_a_name_of_a_million_letters_is_read_at_once() -> None:
    """A regular expression took minutes for five thousand."""
    assert _without_owner("a" * 10**6) == "a" * 10**6
    assert [_without_owner(name) for name in ("TheBloke_x", "a/b/c", "7_x", "a_", "x y_z", "plain")] == [
        "x", "a/c", "7_x", "a_", "x z", "plain",
    ]  # fmt: skip
