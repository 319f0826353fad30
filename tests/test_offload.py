"""Where layers go and how the cache is stored: options, points and contexts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from inspect import signature
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from gguf_eval.cli.engine import EngineOptions
from gguf_eval.cli.options import app, gpu_layer_count
from gguf_eval.cli.unfold import unfolded
from gguf_eval.errors import UsageError
from gguf_eval.files import footprint
from gguf_eval.llama.devices import devices
from gguf_eval.runtime.devices import chosen_devices
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.scoring import Request, Scorer
from gguf_eval.runtime.settings import CACHE_TYPES, ContextSettings, EngineSettings, Offload, engine_from_document
from gguf_eval.study.points import RunRequest, plan_points


def test_the_options_become_settings() -> None:
    assert [gpu_layer_count(text) for text in ("auto", "all", "ALL", "0", "12")] == [None, -1, -1, 0, 12]
    assert EngineOptions("3", "CUDA0, CUDA1", "row", "3/1", "a:1,b:2", True).offload == Offload(
        3, ("CUDA0", "CUDA1"), "row", (3.0, 1.0), ("a:1", "b:2"), mmap=False
    )
    assert [EngineOptions(flash_attn=text).flash_attention for text in ("on", "off", "auto", "1")] == [1, 0, -1, 1]


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
    assert EngineOptions(cache_type_k=keys, cache_type_v=values).cache_types == pairs


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gpu_layer_count("-3"), "'auto', 'all' or a number"),
        (lambda: EngineOptions(split_mode="rows").offload, "one of none, layer, row, tensor"),
        (lambda: EngineOptions(tensor_split="a,b").offload, "numbers separated by commas"),
        (lambda: EngineOptions(cache_type_k="Q8", cache_type_v="F16").cache_types, "did you mean 'Q8_0'"),
        (lambda: EngineOptions(cache_type_k="F16,Q8_0,Q4_0", cache_type_v="F16,Q8_0").cache_types, "found 3 and 2"),
        (lambda: EngineOptions(flash_attn="yes").flash_attention, "on, off or auto"),
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


def test_every_command_that_runs_models_takes_the_same_options() -> None:
    taken = {}
    for command in ("run", "perplexity", "bench"):
        group = get_command(app)
        assert isinstance(group, TyperGroup)
        parameters = group.commands[command].params
        known = {field.name for field in fields(EngineOptions)}
        taken[command] = {
            parameter.name: (parameter.opts, getattr(parameter, "help", ""), parameter.default)
            for parameter in parameters
            if parameter.name in known
        }
        assert set(taken[command]) == known
    assert taken["run"] == taken["perplexity"] == taken["bench"]
    assert taken["run"]["cache_type_k"][0] == ["--cache-type-k", "-ctk"]


def test_a_record_of_options_stands_where_the_command_takes_it() -> None:
    seen = []

    @unfolded
    def command(first: int, *, engine: EngineOptions, last: str = "") -> None:
        seen.append((first, engine, last))

    names = list(signature(command).parameters)
    assert (names[0], names[1], names[-1]) == ("first", "gpu_layers", "last")
    defaults = {field.name: field.default for field in fields(EngineOptions)}
    command(first=1, last="x", **{**defaults, "device": "CUDA0"})
    assert seen == [(1, EngineOptions(device="CUDA0"), "x")]
