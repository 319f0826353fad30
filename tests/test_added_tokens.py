"""Files that ask for EOS or SEP after every text: what is asked is always continued, so neither is ever added."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from tiny_model import AddTokenizer, add_byte_bpe, add_sentencepiece, write_model

from gguf_eval.files.imatrix import ImatrixRequest, make_imatrix
from gguf_eval.llama.library import library
from gguf_eval.lm_eval.model import GgufEvalLM
from gguf_eval.runtime.generation import GenerationRequest, Generator
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.perplexity import plan_windows
from gguf_eval.runtime.scoring import Request, Scorer, encode_pair

TEXTS = ("", "the cat", " the cat ", "\nsat", "Ω é", "the </s> cat", "in  an and")
LONG = "the cat sat in an and er " * 40


def _asking_for_both(tokenizer: AddTokenizer) -> AddTokenizer:
    def add(writer: gguf.GGUFWriter) -> int:
        size = tokenizer(writer)
        writer.add_add_eos_token(True)
        writer.add_add_sep_token(True)
        return size

    return add


@pytest.fixture(scope="module", params=[add_sentencepiece, add_byte_bpe], ids=["sentencepiece", "bpe"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A file as usual, and the same that asks for EOS and SEP."""
    folder = tmp_path_factory.mktemp("added")
    yield (
        write_model(folder / "plain.gguf", seed=3, layers=1, tokenizer=request.param),
        write_model(folder / "asking.gguf", seed=3, layers=1, tokenizer=_asking_for_both(request.param)),
    )


@pytest.fixture(scope="module")
def models(pair: tuple[Path, Path]) -> Iterator[tuple[Model, Model]]:
    with Model(pair[0]) as plain, Model(pair[1]) as asking:
        yield plain, asking


def llama_tokens(model: Model, text: str) -> list[int]:
    """llama.cpp's own, with all that the file asks for."""
    data = text.encode()
    buffer = (ctypes.c_int32 * (len(data) + 4))()
    count = library().llama_tokenize(model.vocab, data, len(data), buffer, len(buffer), True, False)
    return list(buffer[:count])


def test_tokens_are_llamas_without_the_end(models: tuple[Model, Model]) -> None:
    plain, asking = models
    assert llama_tokens(asking, "the")[-1] == asking.eos_token
    for text in TEXTS:
        assert plain.tokenize(text) == llama_tokens(plain, text), text
        assert asking.tokenize(text) == llama_tokens(asking, text)[:-1] == plain.tokenize(text), text


def test_choices_prompts_and_windows_are_the_same(models: tuple[Model, Model]) -> None:
    plain, asking = models
    for text in TEXTS:
        assert encode_pair(asking, text, " sat") == encode_pair(plain, text, " sat")
    requests = [Request("the cat ", choice) for choice in ("sat", "in", "</s>")]
    assert Scorer(asking).score(requests) == Scorer(plain).score(requests)
    prompt = [GenerationRequest("the cat", max_tokens=5)]
    assert Generator(asking).generate(prompt)[0].tokens == Generator(plain).generate(prompt)[0].tokens
    assert plan_windows(asking, LONG, n_ctx=32).sha256 == plan_windows(plain, LONG, n_ctx=32).sha256


def test_importance_matrices_are_the_same(pair: tuple[Path, Path], models: tuple[Model, Model], tmp_path: Path) -> None:
    # An EOS at the end of this text would fill a third chunk.
    text = next(LONG[:end] for end in range(len(LONG)) if len(models[0].tokenize(LONG[:end])) == 3 * 32 - 1)
    made = [
        make_imatrix(ImatrixRequest(path, text, "text", tmp_path / path.name, chunk_tokens=32, threads=1))
        for path in pair
    ]
    assert [one.chunk_count for one in made] == [2, 2]
    for name, entry in made[0].entries.items():
        np.testing.assert_array_equal(entry.sums, made[1].entries[name].sums)


def test_the_harness_gets_the_same(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GGUF_EVAL_CACHE", str(tmp_path))
    plain, asking = (GgufEvalLM(path=str(path), n_ctx=128, threads=1) for path in pair)
    for text in TEXTS:
        for add in (None, True, False):
            assert asking.tok_encode(text, add) == plain.tok_encode(text, add), (text, add)
