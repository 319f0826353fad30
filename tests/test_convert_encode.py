"""Each encoding against its slow definition: gguf's own quantizers, numpy's casts."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gguf_eval.files.convert.encode import encode, has_special, to_bfloat16, to_q8_0, widen
from gguf_eval.files.convert.families import read_hyperparameters
from gguf_eval.files.convert.rope import rope_factors

_BITS = hnp.arrays(np.uint32, (4, 32), elements=st.integers(0, 2**32 - 1))
_NORMAL = st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False) | st.sampled_from(
    [0.0, -0.0, 0.5, -1.5, 2.5, 127.0]
)


@settings(deadline=None)
@given(_BITS)
def test_bfloat16_of_any_bits(bits: np.ndarray) -> None:
    values = bits.view(np.float32)
    expected = quants.quantize(values, GGMLQuantizationType.BF16).view(np.uint16)
    assert np.array_equal(to_bfloat16(values), expected)


@settings(deadline=None)
@given(hnp.arrays(np.float32, (3, 64), elements=_NORMAL))
def test_q8_0(values: np.ndarray) -> None:
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        expected = quants.quantize(values, GGMLQuantizationType.Q8_0)
        result = to_q8_0(values)
    assert np.array_equal(result.ravel(), expected.ravel())


def test_q8_0_rounds_ties_away_from_zero() -> None:
    row = np.zeros((1, 32), np.float32)
    row[0, :5] = [127, 0.5, -0.5, 1.5, -2.5]
    assert to_q8_0(row)[0, 2:7].view(np.int8).tolist() == [127, 1, -1, 2, -3]


@settings(deadline=None)
@given(hnp.arrays(np.uint16, (2, 32), elements=st.integers(0, 2**16 - 1)))
def test_half_and_bfloat16_are_widened_exactly_and_kept_as_they_are(bits: np.ndarray) -> None:
    half = bits.view(np.float16)
    with np.errstate(invalid="ignore"):
        assert np.array_equal(encode(half, "F16", "F32")[0], half.ravel().astype(np.float32), equal_nan=True)
    assert np.array_equal(encode(half, "F16", "F16")[0].view(np.uint16), bits.ravel())
    wide = (bits.astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(widen(bits, "BF16"), wide, equal_nan=True)
    expected = quants.quantize(wide, GGMLQuantizationType.BF16).view(np.uint16)
    assert np.array_equal(encode(bits, "BF16", "BF16")[0], expected.ravel())


@settings(deadline=None)
@given(_BITS)
def test_nan_and_infinity_are_seen_in_every_type(bits: np.ndarray) -> None:
    values = bits.view(np.float32)
    assert encode(values, "F32", "BF16")[1] == has_special(values, "F32") == (not np.isfinite(values).all())
    short = (bits >> 16).astype(np.uint16)
    assert has_special(short.view(np.float16), "F16") == (not np.isfinite(short.view(np.float16)).all())
    assert has_special(short, "BF16") == (not np.isfinite(widen(short, "BF16")).all())


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
