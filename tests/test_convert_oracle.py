"""Every family and out type against what llama.cpp's own converter wrote (benchmarks/convert_oracle.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import SPECS, make
from model_digest import digest

from gguf_eval.files.convert.write import convert

_FILE = Path(__file__).parent / "data" / "convert_oracle.json"
ORACLE: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))["checkpoints"]


OUT_TYPES = ("f32", "f16", "bf16", "q8_0", "auto")
SLOW = ("mistral-nemo",)  # its tokenizer takes seconds; the weights are like any Mistral's
CASES = [(name, out_type) for name in SPECS for out_type in (OUT_TYPES[-1:] if name in SLOW else OUT_TYPES)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    scratch = tmp_path_factory.mktemp("checkpoints")

    def checkpoint(name: str) -> Path:
        if not SPECS[name].available:
            pytest.skip(f"its tokenizer comes from the package {SPECS[name].package}")
        return scratch / name if (scratch / name).is_dir() else make(scratch / name, SPECS[name])

    return checkpoint


@pytest.mark.parametrize(("name", "out_type"), CASES)
def test_bit_for_bit(made: Callable[[str], Path], name: str, out_type: str, tmp_path: Path) -> None:
    checkpoint = made(name)
    result = digest(convert(str(checkpoint), tmp_path / "out.gguf", out_type).path)
    oracle = ORACLE[name]
    expected = oracle[out_type]
    templates = "tokenizer.chat_templates"  # the upstream converter writes a set, in no order
    keys = {**oracle["keys"], **expected["keys"]}
    assert sorted(result["keys"].pop(templates, [])) == sorted(keys.pop(templates, []))
    assert result["keys"] == keys
    assert result["tensors"] == expected["tensors"]
    assert list(result["tensors"]) == list(expected["tensors"])
    assert result["sha256"] == expected["sha256"]
