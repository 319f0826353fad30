"""Files that are no model to run, and models of another kind: named from their header, refused before anything runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from in_process import gguf_eval_here
from tiny_model import write_model

from gguf_eval.errors import EngineError, ModelFileError
from gguf_eval.files.header import read_header
from gguf_eval.files.imatrix import ImatrixRequest, make_imatrix
from gguf_eval.files.kinds import check_continues_text, other_kind
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.placement import open_model
from gguf_eval.runtime.settings import CPU_ONLY, ContextSettings, EngineSettings
from gguf_eval.study.points import RunRequest, plan_points

Fill = Callable[[gguf.GGUFWriter], object]


def write(path: Path, family: str, *tensors: str, **metadata: Any) -> Path:
    """A GGUF with these keys (a double underscore is a point) and small tensors of these names."""
    writer = gguf.GGUFWriter(path, family)
    for key, value in metadata.items():
        name = key.replace("__", ".").replace("FAMILY", family)
        kind = {bool: "BOOL", int: "UINT32", str: "STRING"}.get(type(value))
        if kind is None:
            writer.add_array(name, value)
        else:
            writer.add_key_value(name, value, gguf.GGUFValueType[kind])
    for tensor in tensors:
        writer.add_tensor(tensor, np.zeros((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


WEIGHT = "token_embd.weight"
KINDS: dict[str, tuple[tuple[str, ...], dict[str, Any], str]] = {
    "projector": (("clip", WEIGHT), {}, "a projector (mmproj)"),
    "projector by its type": (("llama", WEIGHT), {"general__type": "mmproj"}, "a projector (mmproj)"),
    "adapter": (("llama", WEIGHT), {"general__type": "adapter"}, "a LoRA adapter"),
    "adapter by its tensors": (("llama", "blk.0.attn_q.weight.lora_a"), {}, "a LoRA adapter"),
    "matrix": (("imatrix", "blk.0.attn_q.weight.in_sum2"), {"general__type": "imatrix"}, "an importance matrix"),
    "vocabulary": (("llama",), {"tokenizer__ggml__model": "gpt2"}, "a vocabulary alone"),
    "part": (("llama", WEIGHT), {"split__no": 1, "split__count": 3}, "part 2 of 3 of a split model"),
    "something": (("llama", WEIGHT), {"general__type": "dragon"}, "of the type 'dragon'"),
    "diffusion": (("llada", WEIGHT), {}, "a diffusion model"),
    "diffusion by its keys": (("llama", WEIGHT), {"diffusion__shift_logits": True}, "a diffusion model"),
    "encoder": (("modern-bert", WEIGHT), {}, "an embedding or encoder model"),
    "encoder by its attention": (("qwen3", WEIGHT), {"FAMILY__attention__causal": False}, "an embedding or encoder"),
    "embedding by its pooling": (("qwen3", WEIGHT), {"FAMILY__pooling_type": 3}, "an embedding or encoder model"),
    "ranker": (("qwen3", WEIGHT), {"FAMILY__pooling_type": 4}, "a model that classifies or ranks"),
    "classifier": (("qwen3", WEIGHT), {"FAMILY__classifier__output_labels": ["a", "b"]}, "a model that classifies"),
    "encoder-decoder": (("t5", WEIGHT), {}, "an encoder-decoder model"),
    "draft": (("eagle3", WEIGHT), {}, "a draft model"),
    "speech": (("qwen3tts", WEIGHT), {}, "a model of sound"),
}
NOT_ALONE = {"projector", "projector by its type", "adapter", "adapter by its tensors", "matrix", "vocabulary", "part",
             "something", "draft"}  # fmt: skip
"""Those that are no whole model."""


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str) -> None:
    (family, *tensors), metadata, words = KINDS[name]
    path = write(tmp_path / "odd.gguf", family, *tensors, **metadata)
    kind = other_kind([read_header(path)])
    assert kind is not None
    assert kind.name.startswith(words)
    assert kind.is_model is (name not in NOT_ALONE)
    with pytest.raises(ModelFileError, match="a language model that continues a text is needed, this is "):
        check_continues_text(path)
    with pytest.raises(ModelFileError, match="odd.gguf: a language model that continues a text is needed"):
        plan_points(RunRequest(models=(path,), study=tmp_path / "s.sqlite", cache=tmp_path))
    with pytest.raises(ModelFileError, match="a language model that continues a text is needed"):
        open_model(path, EngineSettings(CPU_ONLY), ContextSettings(n_ctx=64))


@pytest.mark.parametrize(
    ("family", "metadata"),
    [
        ("llama", {}),
        ("llama", {"general__type": "model", "FAMILY__attention__causal": True, "FAMILY__pooling_type": 0}),
        ("mamba", {}),
        ("llama", {"split__no": 0, "split__count": 3}),
        ("unheard-of", {}),
    ],
)
def test_other_models_are_left_to_llama_cpp(tmp_path: Path, family: str, metadata: dict[str, Any]) -> None:
    assert other_kind([read_header(write(tmp_path / "model.gguf", family, WEIGHT, **metadata))]) is None


def test_a_split_whose_first_part_has_no_tensor_is_a_model(tmp_path: Path) -> None:
    first = write(tmp_path / "m-00001-of-00002.gguf", "llama", split__no=0, split__count=2)
    write(tmp_path / "m-00002-of-00002.gguf", "llama", WEIGHT, split__no=1, split__count=2)
    check_continues_text(first)
    with pytest.raises(ModelFileError, match="this is part 2 of 2 of a split model; name its first part, whose name"):
        check_continues_text(tmp_path / "m-00002-of-00002.gguf")


def test_a_file_cut_out_of_a_split_is_named_by_its_header(tmp_path: Path) -> None:
    path = write(tmp_path / "renamed.gguf", "llama", WEIGHT, split__no=2, split__count=3)
    with pytest.raises(ModelFileError, match=r"this is part 3 of 3 .* ends in -00001-of-00003.gguf"):
        check_continues_text(path)


def test_no_matrix_is_made_of_what_is_no_model(tmp_path: Path) -> None:
    path = write(tmp_path / "mmproj.gguf", "clip", WEIGHT)
    request = ImatrixRequest(model=path, text="", dataset="none", output=tmp_path / "out.gguf")
    with pytest.raises(ModelFileError, match="a model is needed, this is a projector"):
        make_imatrix(request)


@pytest.mark.parametrize("command", ["run", "bench", "perplexity"])
def test_commands_refuse_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("GGUF_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "dream.gguf", "dream", WEIGHT)
    (tmp_path / "text.txt").write_text("words", encoding="utf-8")
    more = ("--text", "text.txt") if command == "perplexity" else ()
    done = gguf_eval_here(command, "dream.gguf", *more)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "this is a diffusion model, which fills in a text in any order" in done.stderr
    assert not list(tmp_path.glob("*.sqlite"))


def test_inspect_says_what_a_file_is_for(tmp_path: Path) -> None:
    done = gguf_eval_here("inspect", write(tmp_path / "mmproj.gguf", "clip", WEIGHT))
    assert done.returncode == 0
    assert "  note           can't be asked how a text goes on: this is a projector (mmproj)" in done.stdout


def test_a_model_that_llama_cpp_knows_for_another_kind_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gguf_eval.llama.library import library

    path = write_model(tmp_path / "tiny.gguf")
    monkeypatch.setattr(library(), "llama_model_has_decoder", lambda model: False)
    with pytest.raises(ModelFileError, match="an embedding or encoder model"):
        Model(path)


def test_a_family_that_llama_cpp_does_not_know_is_quoted(tmp_path: Path) -> None:
    path = write(tmp_path / "new.gguf", "unheard-of", WEIGHT)
    with pytest.raises(EngineError, match="can't load this model: unknown model architecture: 'unheard-of'; a newer"):
        Model(path)
    shutil.copy(path, tmp_path / "copy.gguf")
    done = gguf_eval_here("inspect", tmp_path / "copy.gguf")
    assert "unknown model architecture: 'unheard-of'" in done.stdout
