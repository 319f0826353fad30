"""Where layers go and how the cache is stored: options, points and contexts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from gguf_eval.cli.options import cache_type_pairs, flash_attention_number, gpu_layer_count, offload_settings
from gguf_eval.errors import UsageError
from gguf_eval.files import footprint
from gguf_eval.llama.devices import devices
from gguf_eval.runtime.devices import chosen_devices
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.scoring import Request, Scorer
from gguf_eval.runtime.settings import CACHE_TYPES, ContextSettings, EngineSettings, Offload, engine_from_document
from gguf_eval.study.plan import RunRequest, plan_points


def test_the_options_become_settings() -> None:
    assert [gpu_layer_count(text) for text in ("auto", "all", "ALL", "0", "12")] == [None, -1, -1, 0, 12]
    assert offload_settings("3", "CUDA0, CUDA1", "row", "3/1", "a:1,b:2", True) == Offload(
        3, ("CUDA0", "CUDA1"), "row", (3.0, 1.0), ("a:1", "b:2"), mmap=False
    )
    assert [flash_attention_number(text) for text in ("on", "off", "auto", "1")] == [1, 0, -1, 1]


@pytest.mark.parametrize(
    ("keys", "values", "pairs"),
    [
        ("F16", "F16", (("F16", "F16"),)),
        ("f16,q8_0", "f16,q8_0", (("F16", "F16"), ("Q8_0", "Q8_0"))),
        ("F16,Q8_0", "F16", (("F16", "F16"), ("Q8_0", "F16"))),
        ("Q8_0", "F16,Q4_0", (("Q8_0", "F16"), ("Q8_0", "Q4_0"))),
    ],
)
def test_lists_of_cache_types_pair_up(keys: str, values: str, pairs: tuple[tuple[str, str], ...]) -> None:
    assert cache_type_pairs(keys, values) == pairs


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gpu_layer_count("-3"), "'auto', 'all' or a number"),
        (lambda: offload_settings("all", split_mode="rows"), "one of none, layer, row, tensor"),
        (lambda: offload_settings("all", tensor_split="a,b"), "numbers separated by commas"),
        (lambda: cache_type_pairs("Q8", "F16"), "did you mean 'Q8_0'"),
        (lambda: cache_type_pairs("F16,Q8_0,Q4_0", "F16,Q8_0"), "found 3 and 2"),
        (lambda: flash_attention_number("yes"), "on, off or auto"),
    ],
)
def test_options_that_make_no_sense_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_settings_survive_json() -> None:
    engine = EngineSettings(Offload(5, ("GPU0",), "row", (1.0, 2.0), ("h:1",), False), "Q8_0", "Q4_0", 1)
    assert engine_from_document(json.loads(json.dumps(asdict(engine)))) == engine


def test_every_cache_type_can_be_predicted() -> None:
    assert set(CACHE_TYPES) == set(footprint.CACHE_TYPES)


def test_the_types_of_the_cache_make_points(tiny_f32: Path, tmp_path: Path) -> None:
    request = RunRequest(
        (tiny_f32,), tmp_path / "s.sqlite", cache=tmp_path, cache_types=(("F16", "F16"), ("Q8_0", "F16"))
    )
    points = plan_points(request)
    assert [point.label for point in points] == ["F32", "F32 KV Q8_0/F16"]
    assert [point.engine.answer_settings for point in points] == [{}, {"cache_type_k": "Q8_0", "cache_type_v": "F16"}]


def test_a_quantized_cache_changes_answers_a_little(tiny_model: Model) -> None:
    request = Request("the cat sat in", " and the cat")
    exact, rounded = (
        Scorer(tiny_model, batch_size=64, threads=1, engine=EngineSettings(cache_type_k=kind, cache_type_v=kind))
        .score([request])[0]
        .logprob
        for kind in ("F32", "Q4_0")
    )
    assert exact != rounded
    assert exact == pytest.approx(rounded, abs=0.5)


def test_the_processor_is_a_device_that_takes_no_layers() -> None:
    found = devices()
    assert any(device.kind == "CPU" and device.total_bytes > 0 and not device.takes_layers for device in found)


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="no device for layers is called 'CUDA7'"):
        chosen_devices(Offload(devices=("CUDA7",)))


def test_layers_without_a_device_are_an_error_that_says_how_to_get_one(tiny_f32: Path) -> None:
    if any(device.takes_layers for device in devices()):
        pytest.skip("needs a machine without a GPU")
    with pytest.raises(UsageError, match=r"--gpu-layers 3: a GPU or RPC device is needed.*CMAKE_ARGS"):
        Model(tiny_f32, offload=Offload(3))
    with Model(tiny_f32, offload=Offload()) as model, model.open_context(ContextSettings(n_ctx=256)):
        pass
