"""Each encoding against its slow definition: gguf's own quantizers, numpy's casts."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gguf_eval.files.convert.encode import BLOCK_ELEMENTS, CastFlags, encode
from gguf_eval.files.convert.families import read_hyperparameters
from gguf_eval.files.convert.half import has_special
from gguf_eval.files.convert.rope import rope_factors

_BITS = hnp.arrays(np.uint32, (4, 32), elements=st.integers(0, 2**32 - 1))
_NORMAL = st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False) | st.sampled_from(
    [0.0, -0.0, 0.5, -1.5, 2.5, 127.0]
)
_HALVES = np.arange(1 << 16, dtype=np.uint16)
_SOURCES = {
    "F16": _HALVES.view(np.float16),
    "BF16": _HALVES,
    "F32": (_HALVES.astype(np.uint32) << np.uint32(16)).view(np.float32),
}


def as_float32(values: np.ndarray, source: str) -> np.ndarray:
    """The slow definition."""
    with np.errstate(invalid="ignore"):
        wide = (values.astype(np.uint32) << np.uint32(16)).view(np.float32) if source == "BF16" else values
        return wide.astype(np.float32)


def expect(values: np.ndarray, source: str, target: str) -> np.ndarray:
    """The bytes of ``values`` by numpy's casts and gguf's quantizers."""
    if source == target != "BF16":
        return values.reshape(-1).view(np.uint8)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        encoded: np.ndarray = quants.quantize(as_float32(values, source), GGMLQuantizationType[target])
        return encoded.reshape(-1).view(np.uint8)


@pytest.mark.parametrize("target", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("source", list(_SOURCES))
@pytest.mark.parametrize("kind", ["every", "common", "finite", "normal"])
def test_all_values_of_16_bits(source: str, target: str, kind: str) -> None:
    """All 65,536, in their order, then parts of them that take the quicker ways."""
    values = _SOURCES[source]
    with np.errstate(invalid="ignore"):
        wide = np.abs(as_float32(values, source))
    if kind == "common":  # few that a half holds as subnormal
        chosen = values[(wide >= 2.0**-14) & (wide < 60000)]
        values = np.concatenate([np.tile(chosen, 8), values[(wide > 0) & (wide < 2.0**-14)][::40], chosen, chosen])
        values = values[: values.size // 8 * 8]
    elif kind != "every":
        values = values[wide < (np.inf if kind == "finite" else 65536)]
    result, noticed = encode(values, source, target)
    assert np.array_equal(result, expect(values, source, target))
    with np.errstate(invalid="ignore"):
        wide = as_float32(values, source)
    assert noticed.not_finite == (not np.isfinite(wide).all())
    too_large = np.isfinite(wide).all() and (np.abs(wide) >= 65520).any()
    assert noticed.overflowed or not (too_large and target == "F16")
    assert not noticed.overflowed or (target == "F16" and (np.abs(wide) >= 65520).any())


@settings(deadline=None)
@given(_BITS, st.sampled_from(["F16", "BF16"]), st.booleans())
def test_float32_is_rounded_as_by_the_definition(bits: np.ndarray, target: str, finite: bool) -> None:
    values = bits.view(np.float32)
    if finite:
        values = np.where(np.isfinite(values), values, np.float32(1))
    result, noticed = encode(values, "F32", target)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = expect(values, "F32", target).view(np.uint16)
    assert np.array_equal(result.view(np.uint16), expected)
    assert noticed.not_finite == (not np.isfinite(values).all())


def test_float32_to_half_at_every_border() -> None:
    """Each half, each point midway between two, and the floats next to it: ties, subnormals, overflow."""
    halves = _HALVES[:0x7C00].view(np.float16).astype(np.float64)
    middles = np.append((halves[:-1] + halves[1:]) / 2, 65520.0).astype(np.float32)
    for direction in (-np.inf, np.inf):
        around = [halves.astype(np.float32), middles, np.nextafter(middles, np.float32(direction))]
        values = np.concatenate([*around, *(-part for part in around)])
        assert np.array_equal(encode(values, "F32", "F16")[0], expect(values, "F32", "F16"))


@settings(deadline=None)
@given(hnp.arrays(np.float32, (3, 64), elements=_NORMAL), st.sampled_from(["F32", "BF16", "F16"]))
def test_q8_0(values: np.ndarray, source: str) -> None:
    if source == "BF16":
        values = (values.view(np.uint32) >> 16).astype(np.uint16)
    elif source == "F16":
        values = np.clip(values, -65504, 65504).astype(np.float16)
    result, noticed = encode(values, source, "Q8_0")
    assert np.array_equal(result, expect(values, source, "Q8_0"))
    assert noticed == CastFlags()


@pytest.mark.parametrize("source", list(_SOURCES))
def test_q8_0_of_many_blocks(source: str) -> None:
    """More than is encoded at a time; the largest weight stands everywhere in its block, one block is zero."""
    values = np.random.default_rng(5).standard_normal(3 * BLOCK_ELEMENTS + 96).astype(np.float32)
    values[np.arange(0, values.size, 33)] *= 9
    values[64:96] = 0
    if source != "F32":
        values = (values.view(np.uint32) >> 16).astype(np.uint16) if source == "BF16" else values.astype(np.float16)
    assert np.array_equal(encode(values, source, "Q8_0")[0], expect(values, source, "Q8_0"))


@pytest.mark.parametrize("position", [0, 31, 32, 64 * 32 - 1])
@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("source", list(_SOURCES))
def test_q8_0_sees_nan_and_infinity(source: str, special: float, position: int) -> None:
    values = np.ones(64 * 32, np.float32)
    values[position] = special
    if source != "F32":
        values = (values.view(np.uint32) >> 16).astype(np.uint16) if source == "BF16" else values.astype(np.float16)
    result, noticed = encode(values, source, "Q8_0")
    assert noticed == CastFlags(not_finite=True)
    untouched = np.arange(64) != position // 32
    expected = expect(values, source, "Q8_0").reshape(-1, 34)
    assert np.array_equal(result.reshape(-1, 34)[untouched], expected[untouched])


def test_q8_0_rounds_ties_away_from_zero() -> None:
    row = np.zeros(32, np.float32)
    row[:7] = [127, 0.5, -0.5, 1.5, -2.5, np.nextafter(np.float32(0.5), np.float32(0)), -126.5]
    assert encode(row, "F32", "Q8_0")[0][2:9].view(np.int8).tolist() == [127, 1, -1, 2, -3, 0, -127]


def test_q8_0_rounds_next_to_every_tie() -> None:
    """The floats below, at and above each half between 0 and 127, where the scale is one."""
    ties = np.arange(0.5, 127, dtype=np.float32)
    near = np.concatenate([np.nextafter(ties, np.float32(0)), ties, np.nextafter(ties, np.float32(128))])
    rows = np.concatenate([near, -near, np.zeros(-2 * near.size % 31, np.float32)]).reshape(-1, 31)
    rows = np.concatenate([np.full((rows.shape[0], 1), 127, np.float32), rows], axis=1)
    assert np.array_equal(encode(rows, "F32", "Q8_0")[0], expect(rows, "F32", "Q8_0"))


@settings(deadline=None)
@given(_BITS)
def test_nan_and_infinity_are_seen_in_every_type(bits: np.ndarray) -> None:
    values = bits.view(np.float32)
    assert encode(values, "F32", "BF16")[1].not_finite == has_special(values, "F32")
    assert has_special(values, "F32") == (not np.isfinite(values).all())
    short = (bits >> 16).astype(np.uint16)
    assert has_special(short.view(np.float16), "F16") == (not np.isfinite(short.view(np.float16)).all())
    assert has_special(short, "BF16") == (not np.isfinite(as_float32(short, "BF16")).all())


@pytest.mark.parametrize("theta", [10000.0, 500000.0, 1000000.0])
@pytest.mark.parametrize("dimension", [32, 64, 128])
def test_rope_factors_follow_the_rule(theta: float, dimension: int) -> None:
    """In double precision the rule gives the same to single precision's last places."""
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = {
        "architectures": ["LlamaForCausalLM"], "head_dim": dimension, "rope_theta": theta,
        "rope_scaling": scaling | {"original_max_position_embeddings": 8192},
    }  # fmt: skip
    wavelengths = 2 * np.pi * theta ** (np.arange(0, dimension, 2) / dimension)
    smooth = np.clip((8192 / wavelengths - 1) / (4 - 1), 0, 1)
    expected = 1 / ((1 - smooth) / 8 + smooth)
    factors = rope_factors(read_hyperparameters(config))
    assert factors.dtype == np.float32
    assert np.allclose(factors, expected, rtol=1e-5)


def test_type_names_are_gguf_s() -> None:
    assert gguf.GGML_QUANT_SIZES[GGMLQuantizationType.Q8_0] == (32, 34)
