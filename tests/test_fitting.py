"""How many layers and how long a context fit: pinned to trying every one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_eval.errors import EngineError, UsageError
from gguf_eval.files.footprint import Footprint, LayerSizes
from gguf_eval.runtime.fitting import Need, Room, choose, layers_that_fit, memory_outside
from gguf_eval.runtime.memory import Resident
from gguf_eval.runtime.placement import open_placed
from gguf_eval.runtime.settings import CPU_ONLY, ContextSettings, EngineSettings
from gguf_eval.sizes import limit_text
from gguf_eval.study.points import RunRequest, plan_points

LAYERS, LAYER, OUTPUT, TOKEN = 6, 1000, 500, 2
"""Bytes: of a layer's weights, of the output, of a token's keys and values in one layer."""


def need(context: int, devices: int = 1, overhead: int = 100) -> Need:
    kv = (TOKEN * context,) * LAYERS
    sizes = LayerSizes((LAYER,) * LAYERS, kv, OUTPUT)
    predicted = Footprint(context, "F16", LAYERS * LAYER + OUTPUT, sum(kv), 0)
    return Need(predicted, sizes, (overhead,) * devices)


def test_the_last_layers_go_first_beside_overhead_and_margin() -> None:
    at = need(100)
    assert layers_that_fit(at, Room(10**9, ())) == 0
    assert (
        layers_that_fit(at, Room(10**9, (665,))) == 0
    )  # a tenth, the overhead's 100 and the output's 500: one too many
    assert layers_that_fit(at, Room(10**9, (666,))) == 1
    assert layers_that_fit(at, Room(10**9, (2000,))) == 2
    assert layers_that_fit(at, Room(10**9, (10**6,))) == LAYERS + 1
    assert memory_outside(at, 2) == at.predicted.resident_bytes - OUTPUT - LAYER - 100 * TOKEN


def test_devices_share_by_their_free_memory_or_as_told() -> None:
    at = need(100, devices=2)
    assert layers_that_fit(at, Room(10**9, (4500, 4500))) == 6  # three each: 3 x 1200 + 100 + 450
    assert layers_that_fit(at, Room(10**9, (4500, 4500), (1.0, 0.0))) == 3  # all on the first: 2 x 1200 + 500
    assert layers_that_fit(at, Room(10**9, (4500, 4500), (0.0, 1.0))) == 3


@given(st.integers(0, 9000), st.integers(256, 4096), st.integers(16, 4096), st.none() | st.integers(0, LAYERS + 1),
       st.integers(0, 40_000_000))  # fmt: skip
def test_the_choice_is_the_best_of_all(free: int, longest: int, shortest: int, wanted: int | None, memory: int) -> None:
    room = Room(memory, (free,))
    shortest = min(shortest, longest)
    found = choose(need, room, wanted, longest, shortest)
    whole = range(256 * (shortest // 256 + 1), longest, 256)

    def layers(context: int) -> int:
        most = layers_that_fit(need(context), room)
        given = most if wanted is None else wanted
        return given if given <= most and memory_outside(need(context), given) <= memory else -1

    best = max((layers(context), context) for context in (shortest, *whole, longest))
    if best[0] >= 0:
        assert found == best
    else:
        assert found[1] == shortest
    assert choose(need, room, wanted, longest, None)[1] == longest


def test_the_context_is_reduced_where_memory_is_too_little_for_the_model(
    tiny_f32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Resident(2**30, None, None, "as told")
    monkeypatch.setattr("gguf_eval.runtime.placement.resident", lambda: program)
    limit = program.total_bytes + 30 * 2**20
    engine = EngineSettings(CPU_ONLY, max_memory_bytes=limit)
    context = ContextSettings(n_ctx=4_000_000, batch_size=64, ubatch_size=64)
    with pytest.raises(EngineError, match=f"at a context of 4000000 .*allows {limit_text(limit)}"):
        open_placed(tiny_f32, engine, context)
    model, placement = open_placed(tiny_f32, engine, context, 256)
    model.close()
    assert 256 < placement.context < 100_000
    assert 29 * 2**20 < placement.predicted.resident_bytes <= 30 * 2**20
    assert placement.reasons[-1].endswith(f"as allowed: with more, {limit_text(limit)} of memory are too little")
    with pytest.raises(EngineError, match="at a context of 3000064 "):
        open_placed(tiny_f32, engine, context, 3_000_000)


def test_a_least_context_above_the_context_is_refused(tiny_f32: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--min-ctx needs a number up to that of --ctx, 512; found 1024"):
        plan_points(RunRequest(models=(tiny_f32,), study=tmp_path / "s.sqlite", ctx=512, min_ctx=1024))
