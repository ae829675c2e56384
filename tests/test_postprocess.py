"""Gamma table and mix: exact values, exact identities, refusals that name the argument."""

import numpy as np
import pytest
import torch

from zdce.postprocess import (
    LUMA,
    apply_gamma,
    blend,
    estimate_noise,
    guided_filter,
    highlight_protection,
)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_gamma_on_pixels(kind):
    top = np.iinfo(kind).max
    pixels = np.arange(top + 1).astype(kind).reshape(64, -1)
    assert np.array_equal(apply_gamma(pixels, 1), pixels)
    for gamma in (0.05, 1.15, 20):
        after, levels = apply_gamma(pixels, gamma), range(0, top + 1, 97)
        assert after.dtype == kind and after.shape == pixels.shape
        assert after.ravel().tolist()[::97] == [round(top * (v / top) ** gamma) for v in levels]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_blend_is_linear_and_leaves_what_it_is_given(dtype):
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max if dtype in (np.uint8, np.uint16) else 1
    original, enhanced = (rng.random((2, 9, 8, 3)) * top).astype(dtype)
    kept = original.copy()
    for strength in (0, 0.25, 0.5, 0.9, 1):
        mixed = blend(original, enhanced, strength)
        exact = (1 - strength) * original.astype(float) + strength * enhanced.astype(float)
        assert mixed.dtype == dtype
        assert np.abs(mixed.astype(float) - exact).max() <= (0.51 if top > 1 else 1e-6)
    assert np.array_equal(original, kept) and np.array_equal(blend(original, enhanced, 0), kept)


def test_highlights_are_protected_and_darks_are_not():
    grey = torch.linspace(0, 1, 256).expand(1, 3, 1, 256)
    assert highlight_protection(grey)[..., 0] == 1 and highlight_protection(grey)[..., -1] == 0
    lamp = torch.tensor([1.0, 0.2, 0.0]).view(1, 3, 1, 1)
    assert highlight_protection(lamp).item() == 0  # the largest channel counts for all


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])  # on a GPU it is a tensor
@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_noise_is_estimated_beside_texture(sigma, kind):
    image = 80 + sigma * np.random.default_rng(0).standard_normal((1, 512, 512, 3), np.float32)
    image[:, :, 100:400:4] += 80
    blocks = kind(image.clip(0, 255).reshape(1, 512, 32, 16, 3))
    of_luma = sigma * sum(weight**2 for weight in LUMA) ** 0.5
    assert estimate_noise(blocks).item() == pytest.approx(of_luma, rel=0.2)
    assert estimate_noise(0 * blocks + 128).item() < 1e-3


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (61, 45)])
def test_the_filter_takes_noise_and_leaves_edges(size):
    generator = torch.Generator().manual_seed(0)
    edge = torch.full((2, 3, *size), 0.2)
    edge[..., size[1] // 2 :] = 0.7
    noisy = edge + 0.01 * torch.randn(edge.shape, generator=generator)
    filtered = guided_filter(noisy, torch.tensor([[0.02], [0.0]]).expand(2, 256))
    assert filtered.shape == edge.shape and torch.equal(filtered[1], noisy[1])
    if min(size) > 40:
        assert (filtered - edge)[0].std() < 0.5 * (noisy - edge)[0].std()
        assert (filtered - edge)[0].abs().max() < 0.05
