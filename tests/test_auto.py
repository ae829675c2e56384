"""The curve alone: the search meets its mean, nothing fails, and what is good stays as it is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import dark

from zdce import auto
from zdce.model import apply_curves
from zdce.postprocess import highlight_protection


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def dark_photograph(height: int, width: int, seed: int = 0, mean: float = 0.12) -> np.ndarray:
    """About as bright as ``mean``, float32 in [0, 1]."""
    return (dark(height, width, np.uint16, seed) / 65535 * mean / 0.2).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.05, 0.24))
def test_the_search_meets_the_mean_to_a_hundredth_of_a_grey_level(seed, mean):
    points = tensor(dark_photograph(64, 64, seed, mean))
    r, asked = auto.search(points), 255 * auto.target_mean(points).item()
    curves = (r.view(-1, 1, 1, 1) * highlight_protection(points)).expand_as(points)
    reached = 255 * apply_curves(points, curves).mean().item()
    assert r.item() == pytest.approx(-auto.LIMIT, abs=1e-4) or abs(reached - asked) < 0.01
    assert -auto.LIMIT <= r.item() <= 0 and reached < asked + 0.01


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (17, 3), (64, 50)])
@pytest.mark.parametrize("value", [0.0, 0.004, 0.1, 0.5, 1.0])
def test_constant_and_tiny_photographs(size, value):
    image = torch.full((1, 3, *size), value)
    after = auto.AutoCurve()(image)[0]
    assert after.shape == (1, 3, *size) and after.isfinite().all()
    assert after.min() >= 0 and after.max() <= 1 and (after - after.mean()).abs().max() < 1e-4
    if value in (0.0, 0.5, 1.0):
        assert torch.equal(after, image)
    if value == 0.1:
        assert after.mean().item() == pytest.approx(auto.TARGET_MEAN, abs=1e-3)


def test_depth_does_not_matter():
    pixels = np.round(255 * dark_photograph(90, 130)).astype(np.uint8)
    depths = (pixels, pixels.astype(np.uint16) * 257, np.float32(pixels) / 255)
    found = [auto.curve_of(tensor(each)) for each in depths]
    assert np.ptp([r.item() for r, _ in found]) < 1e-6
    assert np.ptp([noise.item() for _, noise in found]) < 1e-3


def test_a_night_is_not_made_day():
    night = dark_photograph(200, 300)
    night[:140] = 0
    asked, day = (auto.target_mean(tensor(each)).item() for each in (night, night[140:]))
    assert asked < 2.1 * night.mean() < day == pytest.approx(auto.TARGET_MEAN)


def test_photographs_of_a_batch_do_not_see_each_other():
    images = [tensor(dark_photograph(70, 90, n, mean)) for n, mean in ((0, 0.1), (1, 0.2))]
    after, curves = auto.AutoCurve()(torch.cat(images))
    torch.testing.assert_close(after, torch.cat([auto.AutoCurve()(image)[0] for image in images]))
    assert curves.shape == after.shape and curves.max() <= 0
