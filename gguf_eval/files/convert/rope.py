"""The frequency factors of Llama 3's rotary embedding."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gguf_eval.files.convert.families import Hyperparameters


def rope_factors(hyper: Hyperparameters) -> NDArray[np.float32]:
    """Return the factor by which each frequency is divided, float32, shape (head dimension / 2,).

    The rule is Llama 3.1's: short wavelengths stay, long ones are stretched by ``factor``, those between are
    interpolated. Every step is rounded to float32 as in llama.cpp's converter, so that the bits are the same.
    """
    values = hyper.rope.parameters
    factor = np.float32(values.get("factor", 8.0))
    low, high = float(values.get("low_freq_factor", 1.0)), float(values.get("high_freq_factor", 4.0))
    original = float(values["original_max_position_embeddings"])
    exponents = np.arange(0, hyper.head_dimension, 2, dtype=np.float32) / np.float32(hyper.head_dimension)
    frequencies = np.float32(1) / np.float32(hyper.rope.theta) ** exponents
    factors = np.empty(exponents.shape, np.float32)
    for place, frequency in enumerate(frequencies):
        wavelength = np.float32(2 * math.pi) / frequency
        if wavelength < original / high:
            factors[place] = 1
        elif wavelength > original / low:
            factors[place] = factor
        else:
            smooth = (np.float32(original) / wavelength - np.float32(low)) / np.float32(high - low)
            factors[place] = np.float32(1) / ((np.float32(1) - smooth) / factor + smooth)
    return factors
