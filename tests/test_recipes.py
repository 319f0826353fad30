"""Recipes and ladders: data that ships, files of the user's, and what they do to a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from in_process import gguf_eval_here
from quantize_fixtures import write_model

from gguf_eval.errors import UsageError
from gguf_eval.files.header import read_header
from gguf_eval.files.levels import levels
from gguf_eval.files.quantize import is_made, level_path, open_source, plan, quantize
from gguf_eval.files.recipes import (
    Recipe,
    calibration_text,
    find_ladder,
    find_recipe,
    ladders,
    plain_recipe,
    read_recipe,
    shipped_recipes,
)
from gguf_eval.report.model_files import recipe_toml

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny") / "tiny-F32.gguf")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_every_level_has_a_plain_recipe() -> None:
    recipes = shipped_recipes()
    assert [name for name in recipes if name in levels()] == list(levels())
    for name, recipe in recipes.items():
        assert recipe.note, name
        assert recipe.is_plain == (name in levels())
        if name in levels():
            assert recipe.level == name
            assert recipe.sha256 == plain_recipe(name).sha256


def test_a_recipe_is_shown_as_the_file_that_makes_it(tmp_path: Path) -> None:
    for name, recipe in shipped_recipes().items():
        shown = gguf_eval_here("recipes", "show", name.lower()).stdout
        path = write(tmp_path / f"{name}.toml", shown)
        assert read_recipe(path) == recipe
    odd = Recipe("odd", "Q4_0", (('blk\\.\\d"', "Q8_0"),), imatrix="/a\\b", pure=True, note="“x”\x7f\n")
    assert read_recipe(write(tmp_path / "odd.toml", recipe_toml(odd))) == odd
    assert gguf_eval_here("recipes").stdout == gguf_eval_here("recipes", "list").stdout
    assert "did you mean 'Q4_K_" in gguf_eval_here("recipes", "show", "Q4_K_X").stderr


def test_ladders_name_recipes() -> None:
    assert set(ladders()) == {"quick", "standard", "paper", "full"}
    for name in ladders():
        assert len(find_ladder(name)) == len(ladders()[name])
    assert [recipe.name for recipe in find_ladder("STANDARD")][-1] == "F16"
    with pytest.raises(UsageError, match=r"no ladder is called 'standart'; did you mean 'standard'\?"):
        find_ladder("standart")


def test_recipes_are_found_by_name_alias_and_path(tmp_path: Path) -> None:
    assert find_recipe("q4_k").name == "Q4_K_M"
    assert find_recipe("q4_k_l").embedding_type == "Q8_0"
    own = write(tmp_path / "own.toml", 'level = "q5_k_s"\nimatrix = "own.imatrix"\n')
    assert find_recipe(str(own)) == Recipe("own", "Q5_K_S", imatrix=str(tmp_path / "own.imatrix"))
    with pytest.raises(UsageError, match=r"no level or recipe is called 'q4_k_x'; did you mean"):
        find_recipe("q4_k_x")
    assert calibration_text().stat().st_size > 50_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('level = "Q4_K_M"\noutput_typ = "Q8_0"', r"unknown key 'output_typ'; did you mean 'output_type'\?"),
        ("", "the key 'level' is needed"),
        ('level = "Q9"', "level: no quantization level is called 'Q9'"),
        ("level = 4", "level: a string is needed, found 4"),
        ('level = "Q4_0"\npure = "yes"', "pure: true or false is needed, found 'yes'"),
        ('level = "Q4_0"\noutput_type = "Q8_K"', "output_type: no storage type is called 'Q8_K'; did you mean"),
        ('level = "Q4_0"\ntensor_types = "attn=Q8_0"', "tensor_types: tables are needed"),
        ('level = "Q4_0"\n[[tensor_types]]\npattern = "a"', "tensor_types 1: both 'pattern' and 'type' are needed"),
        ('level = "Q4_0"\n[[tensor_types]]\npatern = "a"', "tensor_types 1: unknown key 'patern'; did you mean"),
        ('level = "Q4_0"\n[[tensor_types]]\npattern = "("\ntype = "Q8_0"', "is not a regular expression"),
        ("level = ", "not a TOML file"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "own.toml", text)
    with pytest.raises(UsageError, match=message) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value).split("not a TOML file")[0]


def test_missing_recipe_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such recipe file"):
        find_recipe(str(tmp_path / "absent.toml"))


def test_a_mix_gives_the_types_it_names(tiny: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        "mix", "Q4_K_M", (("attn_(q|k)", "Q8_0"), (r"blk\.1\.ffn_up", "Q6_K")), output_type="F16", embedding_type="Q5_0"
    )
    planned = plan(tiny, recipe)
    quantize(tiny, tmp_path / "out.gguf", recipe)
    types = {tensor.name: tensor.type_name for tensor in read_header(tmp_path / "out.gguf").tensors}
    assert types == dict(planned.types)
    assert (types["output.weight"], types["token_embd.weight"]) == ("F16", "Q5_0")
    assert (types["blk.0.attn_q.weight"], types["blk.1.attn_k.weight"]) == ("Q8_0", "Q8_0")
    assert (types["blk.1.ffn_up.weight"], types["blk.0.ffn_up.weight"]) == ("Q6_K", "Q4_K")


def test_pure_has_one_type(tiny: Path) -> None:
    matrices = {kind for name, kind in plan(tiny, find_recipe("q4_0_pure")).types.items() if "norm" not in name}
    assert matrices == {"Q4_0"}


def test_a_recipe_that_does_nothing_is_refused(tiny: Path) -> None:
    with pytest.raises(UsageError, match=r"recipe r: no tensor of tiny-F32.gguf matches 'atn_q'"):
        plan(tiny, Recipe("r", "Q4_0", (("atn_q", "Q8_0"),)))
    some = Recipe("r", "Q4_0", (("atn_q", "Q8_0"), ("attn_q", "Q8_0")))
    assert some.unmatched_patterns(plan(tiny, some).types) == ("atn_q",)


def test_types_that_would_abort_llama_cpp_are_refused(tmp_path: Path) -> None:
    source = write_model(tmp_path / "narrow.gguf", width=96, feed_forward=256)
    with pytest.raises(UsageError, match=r"token_embd.weight can't be Q4_K: its rows of 96 are no multiple of 256"):
        plan(source, Recipe("r", "Q4_0", embedding_type="Q4_K"))
    wide = write_model(tmp_path / "wide.gguf")
    with pytest.raises(UsageError, match="needs an importance matrix"):
        quantize(wide, tmp_path / "out.gguf", Recipe("r", "Q4_0", embedding_type="IQ2_XS"))


def test_provenance_tells_whether_a_file_can_be_used_again(tiny: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.gguf"
    quantize(tiny, output, "Q4_0")
    source = open_source(tiny)
    metadata = read_header(output).metadata
    assert metadata["gguf_eval.source_sha256"] == source.sha256
    assert metadata["gguf_eval.recipe"] == "Q4_0"
    assert metadata["gguf_eval.library"].split("+")[0]
    assert is_made(source, output, "q4_0")
    assert not is_made(source, output, "Q4_1")
    assert not is_made(source, output, Recipe("Q4_0", "Q4_0", pure=True))
    assert not is_made(open_source(write_model(tmp_path / "other.gguf", seed=1)), output, "Q4_0")
    assert not is_made(source, tmp_path / "absent.gguf", "Q4_0")
    output.write_bytes(output.read_bytes()[:-1])
    assert not is_made(source, output, "Q4_0")


def test_level_path_covers_the_recipe(tmp_path: Path) -> None:
    plain = level_path("ab", "Q4_0", "m", cache=tmp_path)
    assert plain == level_path("ab", Recipe("Q4_0", "Q4_0", note="said otherwise"), "m", cache=tmp_path)
    assert plain != level_path("ab", Recipe("Q4_0", "Q4_0", pure=True), "m", cache=tmp_path)
    assert plain != level_path("ab", "Q4_0", "m", cache=tmp_path, imatrix_sha256="cd")
