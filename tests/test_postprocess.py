"""Gamma table and mix: exact values, exact identities, refusals that name the argument."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zdce.postprocess import apply_gamma, blend, gamma_table


def test_table_of_the_improved_study():
    table = gamma_table(1.15)
    assert table.dtype == np.uint8 and table.shape == (256,)
    assert table.tolist() == [round(255 * (v / 255) ** 1.15) for v in range(256)]
    assert (table[[0, 1, 64, 128, 200, 255]] == [0, 0, 52, 115, 193, 255]).all()


@given(st.floats(0.05, 20))
def test_tables_rise_and_hold_black_and_white(gamma):
    table = gamma_table(gamma)
    assert table[0] == 0 and table[255] == 255 and (np.diff(table.astype(int)) >= 0).all()
    levels = np.arange(256)
    assert (table <= levels).all() if gamma >= 1 else (table >= levels).all()


def test_gamma_on_pixels():
    pixels = np.arange(256, dtype=np.uint8).reshape(4, 64)
    assert np.array_equal(apply_gamma(pixels, 1.15), gamma_table(1.15)[pixels])
    assert np.array_equal(apply_gamma(pixels, 1), pixels)
    deep = np.arange(65536).astype(np.uint16)
    assert np.array_equal(apply_gamma(deep, 1), deep)
    result = apply_gamma(deep, 1.15)
    assert result.dtype == np.uint16
    assert result.tolist()[::997] == [
        round(65535 * (v / 65535) ** 1.15) for v in range(0, 65536, 997)
    ]
    eight = apply_gamma(deep[::257].astype(np.uint16), 1.15) / 257
    assert np.abs(eight - gamma_table(1.15)).max() <= 0.5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_blend_ends_are_bit_identical_and_the_middle_is_linear(dtype):
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max if dtype in (np.uint8, np.uint16) else 1
    original, enhanced = (rng.random((2, 9, 8, 3)) * top).astype(dtype)
    kept = original.copy()
    assert np.array_equal(blend(original, enhanced, 0), original)
    assert np.array_equal(blend(original, enhanced, 1), enhanced)
    for strength in (0.25, 0.5, 0.9):
        mixed = blend(original, enhanced, strength)
        exact = (1 - strength) * original.astype(float) + strength * enhanced.astype(float)
        assert mixed.dtype == dtype
        assert np.abs(mixed.astype(float) - exact).max() <= (0.51 if top > 1 else 1e-6)
    assert np.array_equal(original, kept)
    blend(original, enhanced, 0)[:] = 0
    assert np.array_equal(original, kept)  # the result is a copy


@pytest.mark.parametrize("gamma", [0, -1, float("nan"), float("inf")])
def test_wrong_gamma(gamma):
    with pytest.raises(ValueError, match=f"gamma={gamma}"):
        gamma_table(gamma)


def test_wrong_pixels_and_strength():
    pixels = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(ValueError, match="float32"):
        apply_gamma(pixels.astype(np.float32), 1.15)
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"strength={strength}"):
            blend(pixels, pixels, strength)
    with pytest.raises(ValueError, match="uint16"):
        blend(pixels, pixels.astype(np.uint16), 0.5)
    with pytest.raises(ValueError, match=r"\(2, 1, 3\)"):
        blend(pixels, pixels[:, :1], 0.5)
