"""Recipes as points of a study: named by the recipe, known by what it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_process import FAST
from in_process import gguf_eval_here

from gguf_eval.files.header import read_header
from gguf_eval.files.imatrix_file import Imatrix, Importance, write_imatrix
from gguf_eval.files.model_file import ModelFile
from gguf_eval.store.read import read_study
from gguf_eval.study.points import RunRequest, foreseen_points

MINE = 'level = "Q4_0"\noutput_type = "Q8_0"\n[[tensor_types]]\npattern = "attn_(q|k)"\ntype = "Q5_0"\n'


def run(*arguments: str | Path, code: int = 0) -> tuple[dict[str, dict[str, Any]], str]:
    """Points of a run by label, and what was said beside it."""
    done = gguf_eval_here("run", "tiny.gguf", *arguments, *FAST, "-n", "5", "--json")
    assert done.returncode == code, done.stderr
    points = json.loads(done.stdout)["points"]
    return {point["name"].removeprefix("tiny "): point for point in points}, done.stderr


@pytest.fixture
def mine(place: Path) -> Path:
    path = place / "mine.toml"
    path.write_text(MINE, encoding="utf-8")
    return path


def made_file(place: Path, name: str) -> Path:
    [found] = (place / "cache" / "models").glob(f"tiny-{name}-*.gguf")
    return found


def test_recipes_are_points_named_by_them_and_are_not_run_again(place: Path, mine: Path) -> None:
    asked = ("-q", "F32,Q4_K_M,q4_k_l,mine.toml")
    points, _ = run(*asked)
    assert list(points) == ["F32", "Q4_K_L", "Q4_K_M", "mine"]
    assert {label: point["level"] for label, point in points.items()} == {
        "F32": "F32", "Q4_K_L": "Q4_K_M", "Q4_K_M": "Q4_K_M", "mine": "Q4_0",
    }  # fmt: skip
    assert points["Q4_K_L"]["bits_per_weight"] != points["Q4_K_M"]["bits_per_weight"]
    assert len({point["sha256"] for point in points.values()}) == 4
    origins = {point.label: point.origin for point in read_study(place / "tiny.study.sqlite").points}
    assert (origins["mine"]["recipe"], "recipe" in origins["Q4_K_M"]) == ("mine", False)
    again, said = run(*asked)
    assert again == points
    assert "get " not in said and "make " not in said


def test_what_run_and_quantize_make_is_the_same_file_and_the_same_point(place: Path, mine: Path) -> None:
    points, _ = run("-q", "F32,Q4_K_L,mine.toml")
    assert gguf_eval_here("quantize", "tiny.gguf", "-q", "Q4_K_L,mine.toml", "-o", "out").returncode == 0
    for name in ("Q4_K_L", "mine"):
        assert (place / "out" / f"tiny-{name}.gguf").read_bytes() == made_file(place, name).read_bytes()
    types = {tensor.name: tensor.type_name for tensor in read_header(made_file(place, "mine")).tensors}
    assert (types["output.weight"], types["blk.0.attn_q.weight"]) == ("Q8_0", "Q5_0")
    given, said = run("out/tiny-mine.gguf", "--study", "tiny.study.sqlite")
    assert given.keys() == points.keys()
    assert "get " not in said


def test_an_edited_recipe_is_another_point(place: Path, mine: Path) -> None:
    before, _ = run("-q", "F32,mine.toml")
    mine.write_text(MINE.replace("Q5_0", "Q8_0"), encoding="utf-8")
    points, said = run("-q", "F32,mine.toml")
    assert "get 5 answers" in said
    [edited] = points.keys() - before.keys()
    assert edited.startswith("mine (") and len(points) == 3
    assert points["mine"]["sha256"] == before["mine"]["sha256"] != points[edited]["sha256"]
    mine.write_text(MINE, encoding="utf-8")
    points, said = run("-q", "F32,mine.toml")
    assert "get " not in said
    assert len(points) == 3 and edited in points
    mine.write_text("# said otherwise\n" + MINE, encoding="utf-8")
    assert run("-q", "F32,mine.toml")[0] == points


def test_recipes_of_one_name_are_told_apart(place: Path, mine: Path) -> None:
    (place / "other").mkdir()
    (place / "other" / "mine.toml").write_text('level = "Q8_0"\nembedding_type = "F16"\n', encoding="utf-8")
    points, _ = run("-q", "mine.toml,other/mine.toml")
    assert len(points) == 2
    assert all(label.startswith("mine (") for label in points)


def test_a_plan_shows_recipes_with_exact_sizes(place: Path, mine: Path) -> None:
    command = ("run", "tiny.gguf", "-q", "F32,Q4_K_L,mine.toml", *FAST)
    planned = json.loads(gguf_eval_here(*command, "--plan", "--json").stdout)
    assert [(new["name"], new["level"], new["exact"]) for new in planned["makings"]] == [
        ("tiny Q4_K_L", "Q4_K_M", True), ("tiny mine", "Q4_0", True),
    ]  # fmt: skip
    assert [point["name"] for point in planned["points"]] == ["tiny F32", "tiny Q4_K_L", "tiny mine"]
    shown = gguf_eval_here(*command, "--plan").stdout
    assert "tiny mine" in shown
    assert gguf_eval_here(*command).returncode == 0
    sizes = [made_file(place, name).stat().st_size for name in ("Q4_K_L", "mine")]
    assert sizes == [new["size_bytes"] for new in planned["makings"]]


def test_a_recipe_that_can_not_be_made_is_a_point_with_its_reason(place: Path, mine: Path) -> None:
    mine.write_text(MINE.replace("attn_(q|k)", "atn"), encoding="utf-8")
    points, said = run("-q", "F32,Q4_0,mine.toml", code=1)
    assert "no tensor of tiny.gguf matches 'atn'" in said
    assert (points["mine"]["status"], points["mine"]["level"], points["Q4_0"]["status"]) == (
        "failed", "Q4_0", "complete",
    )  # fmt: skip
    mine.write_text(MINE, encoding="utf-8")
    points, _ = run("-q", "F32,Q4_0,mine.toml")
    assert points["mine"]["status"] == "complete"
    assert len(points) == 3


def test_the_importance_matrix_that_a_recipe_names_is_used(place: Path) -> None:
    source = read_header(place / "tiny.gguf")
    weights = [tensor for tensor in source.tensors if len(tensor.shape) == 2]
    entries = {
        tensor.name: Importance(np.ones((1, tensor.shape[0]), np.float32), np.ones(1, np.int64)) for tensor in weights
    }
    (place / "low.toml").write_text('level = "IQ2_XXS"\nimatrix = "low.imatrix.gguf"\n', encoding="utf-8")
    absent = gguf_eval_here("run", "tiny.gguf", "-q", "F32,low.toml", *FAST)
    assert absent.returncode == 2
    assert "recipe low: no importance matrix at low.imatrix.gguf; make one with gguf-eval imatrix" in absent.stderr
    write_imatrix(place / "low.imatrix.gguf", Imatrix(entries, ("ones",), 1, 16))
    planned = json.loads(gguf_eval_here("run", "tiny.gguf", "-q", "low.toml", *FAST, "--plan", "--json").stdout)
    points, _ = run("-q", "F32,low.toml")
    assert points["low"]["level"] == "IQ2_XXS"
    assert made_file(place, "low").stat().st_size == planned["makings"][0]["size_bytes"]
    entries["blk.0.attn_q.weight"] = Importance(np.full((1, 256), 2, np.float32), np.ones(1, np.int64))
    write_imatrix(place / "low.imatrix.gguf", Imatrix(entries, ("other",), 1, 16))
    points, _ = run("-q", "F32,low.toml")
    assert len(points) == 3
    _, said = run("-q", "IQ2_XXS", code=1)
    assert "IQ2_XXS needs an importance matrix" in said and "imatrix = " in said


def test_a_recipe_can_not_pass_for_a_level(place: Path) -> None:
    (place / "q8-0.toml").write_text('level = "Q4_0"\n', encoding="utf-8")
    refused = gguf_eval_here("run", "tiny.gguf", "-q", "q8-0.toml", *FAST)
    assert refused.returncode == 2
    assert "would pass for llama.cpp's own Q8_0, which it is not; give its file another name" in refused.stderr
    (place / "q8-0.toml").write_text('level = "Q8_0"\n', encoding="utf-8")
    assert list(run("-q", "q8-0.toml,Q8_0")[0]) == ["Q8_0"]


def test_unknown_names_are_refused_with_the_nearest(place: Path) -> None:
    refused = gguf_eval_here("run", "tiny.gguf", "-q", "Q4_K_X", *FAST)
    assert refused.returncode == 2
    assert "no level or recipe is called 'Q4_K_X'; did you mean" in refused.stderr
    refused = gguf_eval_here("run", "tiny.gguf", "-q", "absent.toml", *FAST)
    assert (refused.returncode, "absent.toml: no such recipe file" in refused.stderr) == (2, True)


def test_recipes_of_a_model_that_is_not_here_yet_are_foreseen(place: Path, mine: Path) -> None:
    source = ModelFile(Path("hub/tiny.gguf"), "", "", 1000, 4000, "F32", 32.0, None)
    (place / "own.toml").write_text('level = "F32"\n', encoding="utf-8")
    request = RunRequest(
        models=(), study=place / "s.sqlite", levels=("F32", "Q4_0", "Q4_0_pure", "mine.toml", "own.toml")
    )
    points = foreseen_points([source], request)
    assert [point.label for point in points] == ["F32", "Q4_0", "Q4_0_pure", "mine", "F32"]
    assert [point.made for point in points] == [False, True, True, True, False]
    assert len({point.path for point in points}) == 4


@pytest.mark.parametrize("damage", ["another level's bytes", "a byte flipped", "cut short", "emptied", "its hash lost"])
def test_a_made_file_is_believed_only_while_it_holds_what_was_made(place: Path, damage: str) -> None:
    points, _ = run("-q", "Q8_0,Q4_0")
    path, content = made_file(place, "Q4_0"), made_file(place, "Q4_0").read_bytes()
    flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    other = made_file(place, "Q8_0").read_bytes()
    held = {"another level's bytes": other, "a byte flipped": flipped, "cut short": content[:-1], "emptied": b""}
    path.write_bytes(held.get(damage, content))
    if damage == "its hash lost":
        path.with_name(f"{path.name}.sha256").unlink()
    (place / "tiny.study.sqlite").unlink()
    again, said = run("-q", "Q8_0,Q4_0")
    assert path.read_bytes() == content
    assert {label: point["sha256"] for label, point in again.items()} == {
        label: point["sha256"] for label, point in points.items()
    }
    assert ("it is not what was made there; it is thrown away and made anew" in said) == (damage != "its hash lost")
    assert ("make 1 model file" in said) == (damage != "its hash lost")
