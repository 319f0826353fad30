"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

# One thread for small products: on a busy machine the threads of a numpy product wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
import quantize_fixtures
from builders import write_task
from hypothesis import HealthCheck, settings
from tiny_model import add_sentencepiece, write_model

from gguf_eval.runtime.model import Model

# No test is timed: a busy machine is not a fault.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread for tiny models in this process: on a busy machine llama.cpp's threads wait for each other."""
    with ExitStack() as patches:
        for module in ("model", "scoring", "generation"):
            patches.enter_context(mock.patch(f"gguf_eval.runtime.{module}.physical_cores", return_value=1))
        yield


@pytest.fixture(scope="session")
def tiny_f32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with F32 weights and a SentencePiece vocabulary."""
    return write_model(tmp_path_factory.mktemp("tiny") / "tiny-F32.gguf", seed=1, tokenizer=add_sentencepiece)


@pytest.fixture(scope="session")
def tiny_f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights rounded to F16."""
    path = tmp_path_factory.mktemp("tiny") / "tiny-F16.gguf"
    return write_model(path, seed=1, dtype=np.float16, tokenizer=add_sentencepiece)


@pytest.fixture(scope="session")
def tiny_model(tiny_f32: Path) -> Iterator[Model]:
    """The F32 model, loaded."""
    with Model(tiny_f32) as model:
        yield model


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny F32 model whose rows can be quantized to any level."""
    return quantize_fixtures.write_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that no other test sees."""
    monkeypatch.setenv("GGUF_EVAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def place(tmp_path: Path, tiny_gguf: Path, own_cache: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, with a tiny F32 model, a task of its own, and a cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    shutil.copy(tiny_gguf, tmp_path / "tiny.gguf")
    write_task(tmp_path, items=40)
    return tmp_path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of dataset rows that are not part of the repository; the test is skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("GGUF_EVAL_SHARED", default))
    if not folder.is_dir():
        pytest.skip(f"needs the dataset rows in {folder} (set GGUF_EVAL_SHARED)")
    return folder
