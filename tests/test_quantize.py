"""Levels, cache keys and quantizing through the real library, on tiny models."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from quantize_fixtures import tensor_bytes, write_model

from gguf_eval.errors import EngineError, ModelFileError, UsageError
from gguf_eval.files import cache
from gguf_eval.files.cache import cache_dir, file_sha256, model_parts, model_sha256
from gguf_eval.files.header import read_header
from gguf_eval.files.levels import canonical_level, level_ftype, levels
from gguf_eval.files.quantize import is_quantized, level_path, needs_making, plan, quantize
from gguf_eval.files.quantize_call import call_quantize
from gguf_eval.llama.library import library

pytestmark = pytest.mark.usefixtures("own_cache")

NEEDS_IMATRIX = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S"}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny") / "tiny-F32.gguf")


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(".part"))


def test_levels_are_llama_cpps() -> None:
    import llama_cpp

    assert len(set(levels())) == len(levels())
    for level in levels():
        prefix = "ALL_" if level == "F32" else "MOSTLY_"
        assert level_ftype(level) == getattr(llama_cpp, f"LLAMA_FTYPE_{prefix}{level}")


def test_level_names() -> None:
    assert canonical_level("q4_k_m") == canonical_level(" Q4-K-M ") == canonical_level("q4_k") == "Q4_K_M"
    with pytest.raises(UsageError, match=r"'q4_km'; did you mean 'Q4_K_M'?"):
        canonical_level("q4_km")
    with pytest.raises(UsageError, match="IQ1_S"):
        canonical_level("zzzzz")


def test_cache_folder_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGUF_EVAL_CACHE", str(tmp_path / "variable"))
    assert cache_dir(tmp_path / "option") == tmp_path / "option"
    assert cache_dir() == tmp_path / "variable"
    assert (tmp_path / "variable").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="writable cache folder"):
        cache_dir(tmp_path / "file" / "below")


def test_hash_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_SETTLED_SECONDS", -1.0)
    path = tmp_path / "model.gguf"
    path.write_bytes(b"one")
    one = hashlib.sha256(b"one").hexdigest()
    assert file_sha256(path) == one
    records = list((tmp_path / "cache" / "hashes").iterdir())
    assert len(records) == 1
    records[0].write_text(records[0].read_text().replace(one, "0" * 64))
    assert file_sha256(path) == "0" * 64, "the second time must come from the record"
    path.write_bytes(b"two")
    assert file_sha256(path) == hashlib.sha256(b"two").hexdigest()
    records[0].write_text("{ not json")
    assert file_sha256(path) == hashlib.sha256(b"two").hexdigest()


def test_hash_of_a_fresh_file_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"one")
    file_sha256(path)
    assert not (tmp_path / "cache" / "hashes").exists()


def test_hash_is_safe_under_concurrent_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_SETTLED_SECONDS", -1.0)
    path = tmp_path / "model.gguf"
    path.write_bytes(os.urandom(100_000))
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(file_sha256(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [hashlib.sha256(path.read_bytes()).hexdigest()] * 8
    assert not leftovers(tmp_path / "cache" / "hashes")


def test_split_model_hash_covers_every_part(tmp_path: Path) -> None:
    parts = [tmp_path / f"m-{i:05d}-of-00002.gguf" for i in (1, 2)]
    for i, part in enumerate(parts):
        part.write_bytes(bytes([i]))
    assert model_parts(parts[1]) == tuple(parts)
    before = model_sha256(parts[0])
    assert before == model_sha256(parts[1]) != file_sha256(parts[0])
    parts[1].write_bytes(b"changed")
    assert model_sha256(parts[0]) != before
    parts[1].unlink()
    with pytest.raises(ModelFileError, match=r"m-00002-of-00002.gguf: no such file; all 2 parts"):
        model_sha256(parts[0])


def test_level_path_is_keyed_by_content(tmp_path: Path) -> None:
    one = level_path("ab" * 32, "q4_k_m", "tiny", cache=tmp_path)
    assert one == level_path("ab" * 32, "Q4_K_M", "tiny", cache=tmp_path)
    assert one.parent == tmp_path / "models"
    assert one.name.startswith("tiny-Q4_K_M-")
    assert one != level_path("cd" * 32, "Q4_K_M", "tiny", cache=tmp_path)
    assert one != level_path("ab" * 32, "Q4_K_S", "tiny", cache=tmp_path)


@pytest.mark.parametrize("level", [level for level in levels() if level not in NEEDS_IMATRIX])
def test_every_level_has_the_planned_size_and_types(tiny: Path, tmp_path: Path, level: str) -> None:
    output = tmp_path / f"{level}.gguf"
    planned = plan(tiny, level)
    quantize(tiny, output, level)
    header = read_header(output)
    assert header.level == level
    assert output.stat().st_size == planned.file_bytes
    assert {tensor.name: tensor.type_name for tensor in header.tensors} == dict(planned.types)
    assert header.bits_per_weight == pytest.approx(planned.bits_per_weight)
    assert not planned.fallbacks
    assert is_quantized(header) == (level not in ("F32", "F16", "BF16"))
    assert not needs_making(header, level.lower())
    assert needs_making(header, "Q8_0" if level != "Q8_0" else "F16")
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("level", sorted(NEEDS_IMATRIX))
def test_low_levels_refuse_without_an_importance_matrix(tiny: Path, tmp_path: Path, level: str) -> None:
    with pytest.raises(UsageError, match=f"{level} needs an importance matrix"):
        quantize(tiny, tmp_path / "out.gguf", level)
    assert list(tmp_path.glob("out*")) == []


def test_q8_0_is_the_reference_quantization(tiny: Path, tmp_path: Path) -> None:
    quantize(tiny, tmp_path / "out.gguf", "Q8_0", threads=1)
    made, source = tensor_bytes(tmp_path / "out.gguf"), gguf.GGUFReader(tiny)
    for tensor in source.tensors:
        kind, data = made[tensor.name]
        if kind == "Q8_0":
            assert data == gguf.quants.quantize(tensor.data, gguf.GGMLQuantizationType.Q8_0).tobytes()
        else:
            assert data == tensor.data.tobytes()


def test_fallbacks_are_told(tmp_path: Path) -> None:
    source = write_model(tmp_path / "narrow.gguf", width=96, feed_forward=256)
    planned = plan(source, "Q4_K_M")
    assert {(f.columns, f.block, f.wanted, f.used) for f in planned.fallbacks} >= {(96, 256, "Q4_K", "Q5_0")}
    assert "blk.0.attn_q.weight" in {fallback.tensor for fallback in planned.fallbacks}
    quantize(source, tmp_path / "out.gguf", "Q4_K_M")
    assert (tmp_path / "out.gguf").stat().st_size == planned.file_bytes


def test_plan_of_a_split_model_counts_every_part(tiny: Path, tmp_path: Path) -> None:
    whole = plan(tiny, "Q4_0")
    first = split(tiny, tmp_path)
    assert plan(first, "Q4_0").tensor_bytes == whole.tensor_bytes
    quantize(first, tmp_path / "out.gguf", "Q4_0")
    assert (tmp_path / "out.gguf").stat().st_size == plan(first, "Q4_0").file_bytes
    quantize(tiny, tmp_path / "whole.gguf", "Q4_0")
    assert tensor_bytes(tmp_path / "out.gguf") == tensor_bytes(tmp_path / "whole.gguf")


def split(path: Path, folder: Path) -> Path:
    """Write the model again as two parts, as llama-gguf-split does."""
    reader = gguf.GGUFReader(path)
    half = len(reader.tensors) // 2
    for number, tensors in enumerate((reader.tensors[:half], reader.tensors[half:])):
        writer = gguf.GGUFWriter(folder / f"split-{number + 1:05d}-of-00002.gguf", "llama")
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        if number == 0:
            for field in reader.fields.values():
                if field.name.startswith(("GGUF.", "general.architecture")):
                    continue
                kind = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=kind)
        for tensor in tensors:
            writer.add_tensor(tensor.name, tensor.data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return folder / "split-00001-of-00002.gguf"


def test_requantizing_needs_leave(tiny: Path, tmp_path: Path) -> None:
    quantize(tiny, tmp_path / "q8.gguf", "Q8_0")
    with pytest.raises(UsageError, match=r"these are Q8_0.*--allow-requantize"):
        quantize(tmp_path / "q8.gguf", tmp_path / "q4.gguf", "Q4_0")
    assert not (tmp_path / "q4.gguf").exists()
    quantize(tmp_path / "q8.gguf", tmp_path / "q4.gguf", "Q4_0", allow_requantize=True)
    assert read_header(tmp_path / "q4.gguf").level == "Q4_0"


def test_unusable_sources_and_outputs(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        quantize(tmp_path / "absent.gguf", tmp_path / "out.gguf", "Q4_0")
    own = Path(shutil.copy(tiny, tmp_path / "own.gguf"))
    with pytest.raises(UsageError, match="its own source"):
        quantize(own, own, "Q4_0")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="writable folder"):
        quantize(tiny, tmp_path / "file" / "out.gguf", "Q4_0")
    with pytest.raises(UsageError, match="this is a folder"):
        quantize(tiny, tmp_path, "Q4_0")
    truncated = tmp_path / "truncated.gguf"
    truncated.write_bytes(tiny.read_bytes()[:-1000])
    with pytest.raises(ModelFileError, match="truncated"):
        quantize(truncated, tmp_path / "out.gguf", "Q4_0")
    assert not (tmp_path / "out.gguf").exists()
    assert not leftovers(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tiny: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="writable folder"):
        quantize(tiny, tmp_path / "out.gguf", "Q4_0")


def test_nan_weights_are_refused(tmp_path: Path) -> None:
    source = write_model(tmp_path / "nan.gguf", dtype=np.float32, scale=float("nan"))
    with pytest.raises(EngineError, match="could not quantize"):
        quantize(source, tmp_path / "out.gguf", "Q4_0")
    assert not (tmp_path / "out.gguf").exists()
    assert not leftovers(tmp_path)


def test_too_little_disk_is_said_before_starting(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UsageError, match=r"MB of disk are needed \(16.8 MB of them to spare\), 0.0 MB are free"):
        quantize(tiny, tmp_path / "out.gguf", "Q4_0")
    assert list(tmp_path.glob("*out*")) == []


def test_source_that_changes_meanwhile(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gguf_eval.files import quantize as module

    source = Path(shutil.copy(tiny, tmp_path / "source.gguf"))

    def run_and_touch(*arguments: Any, **settings: Any) -> object:
        result = call_quantize(*arguments, **settings)
        os.utime(source, (1, 1))
        return result

    monkeypatch.setattr(module, "call_quantize", run_and_touch)
    with pytest.raises(ModelFileError, match="changed while it was in use"):
        quantize(source, tmp_path / "out.gguf", "Q4_0")
    assert list(tmp_path.glob("*out*")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits on the size of a file are POSIX")
def test_a_disk_that_fills_half_way_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    """A limit on the size of a file stands for the full disk."""
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from gguf_eval.errors import EngineError\n"
        "from gguf_eval.files.quantize import quantize\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))\n"
        "try:\n"
        "    quantize(Path(sys.argv[1]), Path(sys.argv[2]), 'Q8_0')\n"
        "except EngineError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", script, str(tiny), str(tmp_path / "out.gguf")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "is the disk full or a quota reached?" in done.stdout
    assert list(tmp_path.glob("*out*")) == []


def test_the_log_goes_on_to_the_caller(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    llama = library()
    llama.llama_log_set(llama.llama_log_callback(), None)  # standard error, whatever a test before this one has set
    quantize(tiny, tmp_path / "out.gguf", "Q4_0")
    log = capfd.readouterr().err
    assert log.count("quant size") == 1, "the run's log and not the dry run's"
