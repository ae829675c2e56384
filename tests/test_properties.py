"""Properties of the enhancer that hold for whatever goes in: size, kind, range, identity, tiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zdce import fast
from zdce.enhance import Enhancer


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    kind=st.sampled_from(["RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "deep", "float"]),
    strength=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_whatever_goes_in_comes_out_in_kind_and_in_range(height, width, kind, strength, seed):
    enhancer = Enhancer(strength=strength)
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    if kind in ("deep", "float"):
        photo = values.astype(np.uint16) * 257 if kind == "deep" else values.astype(np.float32) / 255
        after = enhancer(photo)
        assert after.shape == photo.shape and after.dtype == photo.dtype
        assert after.min() >= 0 and after.max() <= (1 if kind == "float" else 65_535)
        assert strength or np.array_equal(after, photo)
        return
    photo = Image.fromarray(values).convert(kind)
    after = enhancer(photo)
    assert after.size == photo.size
    assert after.mode == {"P": "RGB", "1": "L", "CMYK": "RGB"}.get(kind, kind)
    assert strength or kind == "CMYK" or np.array_equal(np.asarray(after), np.asarray(photo.convert(after.mode)))


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    tile=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    speed=st.sampled_from(["faithful", "fast"]),
    seed=st.integers(0, 99),
)
def test_tiles_of_any_size_change_nothing(height, width, tile, speed, seed):
    photo = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    enhancer = Enhancer(speed=speed)
    whole = enhancer(photo)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "TILE", tile)
        tiled = enhancer(photo)
    assert np.abs(tiled.astype(int) - whole).max() <= 1  # the last bits of floating-point sums
