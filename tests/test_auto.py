"""The curve alone: the search meets its mean, nothing makes it fail, and what is good stays as it
is.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zdce import auto
from zdce.model import apply_curves
from zdce.postprocess import highlight_protection

KINDS = (np.uint8, np.uint16, np.float32)


def tensor(pixels: np.ndarray) -> torch.Tensor:
    top = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    return torch.from_numpy(np.float32(pixels) / np.float32(top)).permute(2, 0, 1)[None]


def dark_photograph(height: int, width: int, seed: int = 0, mean: float = 0.12) -> np.ndarray:
    """Smooth shapes with a little noise, float32 in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 40
    shapes = np.sin(y + rng.random(3)[:, None, None]) * np.cos(x + rng.random(3)[:, None, None])
    pixels = mean * (1 + 0.8 * shapes) + rng.normal(0, 0.005, (3, height, width))
    return np.ascontiguousarray(pixels.transpose(1, 2, 0).clip(0, 1), np.float32)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.05, 0.24))
def test_the_search_meets_the_mean_to_a_hundredth_of_a_grey_level(seed, mean):
    points = torch.from_numpy(dark_photograph(64, 64, seed, mean)).permute(2, 0, 1)[None]
    r, asked = auto.search(points)
    curves = (r.view(-1, 1, 1, 1) * highlight_protection(points)).expand_as(points)
    reached = 255 * apply_curves(points, curves).mean()
    assert -auto.LIMIT <= r.item() <= 0
    if r.item() > -auto.LIMIT + 1e-4:
        assert reached.item() == pytest.approx(255 * asked.item(), abs=0.01)
    else:
        assert reached < 255 * asked


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 700), (17, 3), (64, 50)])
@pytest.mark.parametrize("value", [0.0, 0.004, 0.1, 0.5, 1.0])
def test_constant_and_tiny_photographs(kind, size, value):
    top = np.iinfo(kind).max if kind != np.float32 else 1
    pixels = np.full((*size, 3), value * top).astype(kind)
    curve = auto.curve_of(pixels)
    assert -auto.LIMIT <= curve.r <= 0 and np.isfinite(curve.noise).all()
    enhanced = auto.apply(tensor(pixels), curve)
    assert enhanced.shape == (1, 3, *size)
    assert enhanced.min() >= 0 and enhanced.max() <= 1 and enhanced.isfinite().all()
    assert (enhanced - enhanced.mean()).abs().max() < 1e-4
    if value in (0.0, 0.5, 1.0):
        assert torch.equal(enhanced, tensor(pixels))
    if value == 0.1:
        assert enhanced.mean().item() == pytest.approx(auto.TARGET_MEAN, abs=1e-3)


def test_depth_does_not_matter():
    pixels = np.round(255 * dark_photograph(90, 130)).astype(np.uint8)
    deep, floats = pixels.astype(np.uint16) * 257, np.float32(pixels) / 255
    curves = [auto.curve_of(each) for each in (pixels, deep, floats)]
    assert max(c.r for c in curves) - min(c.r for c in curves) < 1e-6
    assert np.ptp([c.estimated_noise for c in curves]) < 1e-3


def test_a_night_is_not_made_day():
    night = dark_photograph(200, 300)
    night[:140] = 0
    curve, day = auto.curve_of(night), auto.curve_of(night[140:])
    assert curve.asked < 2.1 * curve.mean < day.asked == pytest.approx(auto.TARGET_MEAN)


def test_the_module_gives_what_the_functions_give():
    photographs = [dark_photograph(70, 90, seed, mean) for seed, mean in ((0, 0.1), (1, 0.2))]
    enhanced, curves = auto.AutoCurve()(torch.cat([tensor(each) for each in photographs]))
    for one, photograph in zip(enhanced, photographs, strict=True):
        expected = auto.apply(tensor(photograph), auto.curve_of(photograph))
        torch.testing.assert_close(one[None], expected)
    assert curves.shape == enhanced.shape and curves.max() <= 0
