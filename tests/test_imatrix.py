"""Importance matrices: collected from a model against their definition, written, read, resumed, refused."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantize_fixtures import write_model

from gguf_eval.errors import ModelFileError, UsageError
from gguf_eval.files.header import read_header
from gguf_eval.files.imatrix import ImatrixRequest, make_imatrix, read_text, unused_experts
from gguf_eval.files.imatrix_file import Imatrix, Importance, read_imatrix, write_imatrix
from gguf_eval.files.quantize import is_made, make, open_source, plan, quantize

pytestmark = pytest.mark.usefixtures("own_cache")

TEXT = "The tide table hangs by the door; nobody reads it, since everybody hears the sea. " * 6
CHUNK = 64


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny") / "tiny-F32.gguf", feed_forward=256)


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("experts") / "experts-F32.gguf", experts=6, feed_forward=256)


def request_for(model: Path, output: Path) -> ImatrixRequest:
    return ImatrixRequest(model, TEXT, "tide.txt", output, chunk_tokens=CHUNK, threads=1)


def small(columns: int = 8, count: int = 3) -> Imatrix:
    sums = np.arange(columns, dtype=np.float32)[None, :] + 1
    return Imatrix({"blk.0.attn_q.weight": Importance(sums, np.array([count]))}, ("t",), 1, 16)


def legacy_bytes(entries: dict[str, tuple[int, list[float]]], tail: bytes = b"") -> bytes:
    data = struct.pack("<i", len(entries))
    for name, (calls, values) in entries.items():
        raw = name.encode()
        data += struct.pack("<i", len(raw)) + raw + struct.pack("<ii", calls, len(values))
        data += np.array(values, dtype="<f4").tobytes()
    return data + tail


def test_the_first_layers_input_is_summed_as_defined(tiny: Path, tmp_path: Path) -> None:
    """What goes into query, key and value is the normed embedding of every token, with BOS first in every chunk."""
    imatrix = make_imatrix(request_for(tiny, tmp_path / "out.gguf"))
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tiny).tensors}
    tokens = np.frombuffer(TEXT.encode(), dtype=np.uint8).astype(int)
    # Byte tokens stand in the order of the bytes; the model puts its BOS, 256, in front of the text.
    tokens = np.concatenate([[256], tokens])
    chunks = len(tokens) // CHUNK
    tokens = tokens[: chunks * CHUNK].reshape(chunks, CHUNK)
    tokens[:, 0] = 256
    rows = tensors["token_embd.weight"][tokens.ravel()].astype(np.float64)
    normed = rows / np.sqrt((rows**2).mean(axis=1, keepdims=True) + 1e-5) * tensors["blk.0.attn_norm.weight"]
    expected = (normed**2).sum(axis=0)
    for name in ("attn_q", "attn_k", "attn_v"):
        entry = imatrix.entries[f"blk.0.{name}.weight"]
        np.testing.assert_allclose(entry.sums[0], expected, rtol=1e-5)
        assert entry.counts.tolist() == [chunks * CHUNK]
    assert (imatrix.chunk_count, imatrix.chunk_size, imatrix.datasets) == (chunks, CHUNK, ("tide.txt",))
    assert len(imatrix.entries) == 2 * 7
    assert all(entry.counts.tolist() == [chunks * CHUNK] for entry in imatrix.entries.values())


def test_the_output_matrix_only_when_asked(tiny: Path, tmp_path: Path) -> None:
    request = replace(request_for(tiny, tmp_path / "out.gguf"), chunks=1, with_output=True)
    imatrix = make_imatrix(request)
    assert len(imatrix.entries) == 2 * 7 + 1
    assert imatrix.entries["output.weight"].counts.tolist() == [CHUNK]


def test_experts_are_summed_by_the_rows_they_were_sent(experts: Path, tmp_path: Path) -> None:
    imatrix = make_imatrix(request_for(experts, tmp_path / "out.gguf"))
    tokens = imatrix.chunk_count * CHUNK
    for layer in range(2):
        router = imatrix.entries[f"blk.{layer}.ffn_gate_inp.weight"]
        assert router.counts.tolist() == [tokens]
        for name in ("gate", "up", "down"):
            stack = imatrix.entries[f"blk.{layer}.ffn_{name}_exps.weight"]
            assert stack.sums.shape == (6, 256)
            assert stack.counts.sum() == 2 * tokens, "each token goes to two experts"
            if name != "down":
                # The router sees every row once, the experts together see it twice.
                np.testing.assert_allclose(stack.sums.sum(axis=0), 2 * router.sums[0], rtol=1e-5)
    assert unused_experts(imatrix) == {
        name: int((entry.counts == 0).sum()) for name, entry in imatrix.entries.items() if (entry.counts == 0).any()
    }


def test_an_interrupted_run_goes_on_where_it_was(tiny: Path, tmp_path: Path) -> None:
    whole = make_imatrix(request_for(tiny, tmp_path / "whole.gguf"))
    request = replace(request_for(tiny, tmp_path / "out.gguf"), save_every=2)

    def stop(progress: tuple[int, int]) -> None:
        if progress[0] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_imatrix(request, stop)
    assert not request.output.exists()
    assert (tmp_path / "out.gguf.partial").exists()
    seen: list[int] = []
    resumed = make_imatrix(request, lambda progress: seen.append(progress[0]))
    assert seen == list(range(5, whole.chunk_count + 1)), "chunks 1 to 4 were saved"
    assert not (tmp_path / "out.gguf.partial").exists()
    for name, entry in whole.entries.items():
        np.testing.assert_allclose(resumed.entries[name].sums, entry.sums, rtol=1e-6)
        assert (resumed.entries[name].counts == entry.counts).all()


def test_what_another_text_left_is_not_used(tiny: Path, tmp_path: Path) -> None:
    request = replace(request_for(tiny, tmp_path / "out.gguf"), save_every=1)

    def stop(progress: tuple[int, int]) -> None:
        if progress[0] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_imatrix(request, stop)
    seen: list[int] = []
    make_imatrix(replace(request, text=TEXT.upper(), chunks=3), lambda progress: seen.append(progress[0]))
    assert seen == [1, 2, 3]


def test_a_text_that_is_too_short(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"128 tokens are needed, the text has 6"):
        make_imatrix(replace(request_for(tiny, tmp_path / "out.gguf"), text="short"))
    assert list(tmp_path.glob("*out*")) == []


def test_texts_lose_one_newline_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes("grüße\n\n".encode())
    assert read_text(tmp_path / "t") == "grüße\n"
    (tmp_path / "t").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="UTF-8"):
        read_text(tmp_path / "t")
    with pytest.raises(UsageError, match="no such text file"):
        read_text(tmp_path / "absent")


def test_files_are_read_back_as_written(tmp_path: Path) -> None:
    entries = {
        "blk.0.ffn_up_exps.weight": Importance(np.array([[1, 2], [0, 0]], dtype=np.float32), np.array([4, 0])),
        "blk.0.attn_q.weight": Importance(np.array([[1, 2, 3]], dtype=np.float32), np.array([2])),
    }
    write_imatrix(tmp_path / "out.gguf", Imatrix(entries, ("a", "b"), 7, 512, {"gguf_eval.version": "1"}))
    found = read_imatrix(tmp_path / "out.gguf")
    assert (found.datasets, found.chunk_count, found.chunk_size) == (("a", "b"), 7, 512)
    assert found.extra == {"gguf_eval.version": "1"}
    for name, entry in entries.items():
        assert found.entries[name].sums.tolist() == entry.sums.tolist()
        assert found.entries[name].counts.tolist() == entry.counts.tolist()
    assert found.entries["blk.0.ffn_up_exps.weight"].means().tolist() == [0.25, 0.5, 1.0, 1.0]
    header = read_header(tmp_path / "out.gguf")
    assert header.metadata["general.type"] == "imatrix"
    assert {tensor.name: tensor.shape for tensor in header.tensors} == {
        "blk.0.attn_q.weight.in_sum2": (3, 1),
        "blk.0.attn_q.weight.counts": (1, 1),
        "blk.0.ffn_up_exps.weight.in_sum2": (2, 2),
        "blk.0.ffn_up_exps.weight.counts": (1, 2),
    }


def test_the_older_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.dat"
    tail = struct.pack("<ii", 5, 4) + b"wiki"
    path.write_bytes(legacy_bytes({"blk.0.attn_q.weight": (4, [2.0, 8.0]), "b": (0, [3.0])}, tail))
    found = read_imatrix(path)
    assert found.entries["blk.0.attn_q.weight"].means().tolist() == [0.5, 2.0]
    assert found.entries["b"].means().tolist() == [3.0]
    assert (found.chunk_count, found.datasets) == (5, ("wiki",))
    path.write_bytes(legacy_bytes({"b": (1, [3.0])}))
    assert read_imatrix(path).datasets == ()


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.dat"
    path.write_bytes(data)
    try:
        read_imatrix(path)
    except ModelFileError as error:
        assert str(path) in str(error)


def test_damaged_and_foreign_files_are_refused(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_imatrix(path, small())
    good = path.read_bytes()
    path.write_bytes(good[:-40])
    with pytest.raises(ModelFileError, match="truncated"):
        read_imatrix(path)
    with pytest.raises(ModelFileError, match=r"this GGUF has no imatrix.datasets"):
        read_imatrix(tiny)
    with pytest.raises(ModelFileError, match="no such importance matrix"):
        read_imatrix(tmp_path / "absent")
    for value, words in ((np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (-1.0, "negative")):
        broken = small()
        broken.entries["blk.0.attn_q.weight"].sums[0, 3] = value
        write_imatrix(path, broken)
        with pytest.raises(ModelFileError, match=words):
            quantize(tiny, tmp_path / "out.gguf", "Q4_0", imatrix=path)
    assert not (tmp_path / "out.gguf").exists()


def test_a_matrix_of_another_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_imatrix(path, small(columns=8))
    with pytest.raises(ModelFileError, match=r"blk.0.attn_q.weight has 8 values, the model needs 256"):
        open_source(tiny, imatrix=path)
    other = Imatrix({"layers.0.q": small().entries["blk.0.attn_q.weight"]}, ("t",), 1, 16)
    write_imatrix(path, other)
    with pytest.raises(ModelFileError, match=r"none of its 1 tensors is in the model"):
        open_source(tiny, imatrix=path)


def test_a_matrix_that_lacks_a_tensor_is_refused_before_the_work(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_imatrix(path, small(columns=256))
    with pytest.raises(UsageError, match=r"IQ2_XXS needs an importance matrix for blk\.\d.*has none"):
        quantize(tiny, tmp_path / "out.gguf", "IQ2_XXS", imatrix=path)
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize(("kind", "level"), [("dense", "Q2_K_S"), ("experts", "IQ2_XXS")])
def test_low_levels_are_made_with_a_matrix(tiny: Path, experts: Path, tmp_path: Path, level: str, kind: str) -> None:
    model = tiny if kind == "dense" else experts
    matrix = tmp_path / "m.gguf"
    make_imatrix(replace(request_for(model, matrix), chunks=2))
    source = open_source(model, imatrix=matrix)
    output = tmp_path / "out.gguf"
    make(source, output, level)
    header = read_header(output)
    assert header.level == level
    assert output.stat().st_size == plan(source, level).file_bytes
    assert header.metadata["quantize.imatrix.entries_count"] == len(source.importance)
    assert header.metadata["gguf_eval.imatrix_dataset"] == "tide.txt"
    assert is_made(source, output, level)
    assert not is_made(open_source(model), output, level)


def test_the_matrix_changes_what_is_made(tiny: Path, tmp_path: Path) -> None:
    matrix = tmp_path / "m.gguf"
    make_imatrix(replace(request_for(tiny, matrix), chunks=2))
    files: list[bytes] = []
    for chosen in (None, matrix):
        quantize(tiny, tmp_path / "out.gguf", "Q4_K_M", imatrix=chosen)
        files.append((tmp_path / "out.gguf").read_bytes()[-4096:])
    assert files[0] != files[1]
