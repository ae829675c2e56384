"""Each loss, in both forms, against loops over regions and pixels; gradients; the weights of the
design's table.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from zdce.losses import (
    FORMS,
    IMPROVED,
    PAPER,
    RELEASED,
    LossConfig,
    color_constancy,
    exposure_control,
    illumination_smoothness,
    loss_terms,
    spatial_consistency,
)

BOTH = pytest.mark.parametrize("form", FORMS)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def regions(image: np.ndarray, side: int) -> np.ndarray:
    """Means of the whole side × side regions of one photograph (3, H, W) over all channels; cut
    regions drop out.
    """
    rows, columns = image.shape[1] // side, image.shape[2] // side
    whole = image[:, : rows * side, : columns * side]
    return whole.reshape(3, rows, side, columns, side).mean(axis=(0, 2, 4))


def naive_spatial(enhanced: np.ndarray, original: np.ndarray, form: str) -> float:
    per_region = []
    for y, i in zip(enhanced, original, strict=True):
        y, i = (np.pad(regions(each, 4), 1) for each in (y, i))
        for a, b in np.argwhere(np.pad(np.ones(np.subtract(y.shape, 2)), 1)):
            total = 0.0
            for c, d in ((a - 1, b), (a + 1, b), (a, b - 1), (a, b + 1)):
                dy, di = y[a, b] - y[c, d], i[a, b] - i[c, d]
                inside = 0 < c < y.shape[0] - 1 and 0 < d < y.shape[1] - 1
                total += (dy - di) ** 2 if form == "released" else inside * (abs(dy) - abs(di)) ** 2
            per_region.append(total)
    return sum(per_region) / len(per_region)


def naive_exposure(enhanced: np.ndarray, target: float, form: str) -> float:
    distances = [mean - target for image in enhanced for mean in regions(image, 16).flat]
    return sum(abs(d) if form == "paper" else d * d for d in distances) / len(distances)


def naive_color(enhanced: np.ndarray, form: str) -> float:
    values = []
    for r, g, b in enhanced.mean(axis=(2, 3)):
        pairs = (r - g, r - b, g - b)
        paper, released = sum(d**2 for d in pairs), math.sqrt(sum(d**4 for d in pairs))
        values.append(paper if form == "paper" else released)
    return sum(values) / len(values)


def naive_smoothness(curves: np.ndarray, form: str) -> float:
    across, down = np.diff(curves, axis=3), np.diff(curves, axis=2)
    if form == "released":
        sums = ((each**2).sum() / each[0, 0].size for each in (across, down))
        return 2 * sum(sums) / len(curves)
    # one value for each photograph, iteration and pixel: the sum over the three colours
    squares = (abs(across[:, :, :-1]) + abs(down[..., :-1])) ** 2
    return sum(squares[:, k::3] for k in range(3)).mean()


@BOTH
@pytest.mark.parametrize(
    ("size", "grid"),
    [((16, 16), (1, 24, 2, 2)), ((16, 48), (2, 24, 3, 7)), ((35, 20), (2, 3, 6, 4))],
)
def test_losses_equal_loops_over_regions_and_pixels_and_have_their_gradients(form, size, grid):
    cast = torch.tensor([1.0, 0.6, 0.2], dtype=torch.float64).view(1, 3, 1, 1)
    enhanced, original = random(2, 3, *size) * cast, random(2, 3, *size, seed=1) * 0.3
    e, o, curves = enhanced.numpy(), original.numpy(), random(*grid) * 2 - 1
    for loss, at, expected in [
        (lambda x: spatial_consistency(x, original, form), enhanced, naive_spatial(e, o, form)),
        (lambda x: exposure_control(x, 0.6, form), enhanced, naive_exposure(e, 0.6, form)),
        (lambda x: exposure_control(x, 0.4, form), enhanced, naive_exposure(e, 0.4, form)),
        (lambda x: color_constancy(x, form), enhanced, naive_color(e, form)),
        (
            lambda x: illumination_smoothness(x, form),
            curves,
            naive_smoothness(curves.numpy(), form),
        ),
    ]:
        assert loss(at).item() == pytest.approx(expected, rel=1e-12)
        # Random numbers lie away from the kinks of the absolute values.
        inside = at.clone().requires_grad_()
        assert torch.autograd.gradcheck(loss, (inside,), fast_mode=True)


@BOTH
@pytest.mark.parametrize(("level", "cast"), [(0.25, 0.0), (0.25, 1e-6), (0.0, 0.0), (0.0, 1e-20)])
def test_grey_image_has_finite_gradients(form, level, cast):
    image = torch.full((2, 3, 16, 16), level)
    image[0, 0] += cast
    image.requires_grad_()
    color_constancy(image, form).backward()
    assert torch.isfinite(image.grad).all() and image.grad.abs().max() <= 1
    assert cast or not image.grad.any()


@pytest.mark.parametrize(
    ("config", "weights", "form"),
    [
        (PAPER, (1, 1, 0.5, 20), "paper"),
        (RELEASED, (1, 10, 5, 200), "released"),
        (IMPROVED, (1, 10, 5, 300), "released"),
    ],
)
def test_terms_are_the_losses_by_the_publications_weights(config, weights, form):
    enhanced, original = random(2, 3, 32, 16), random(2, 3, 32, 16, seed=1)
    curves = random(2, 24, 32, 16, seed=2)
    losses = (
        spatial_consistency(enhanced, original, form),
        exposure_control(enhanced, 0.5, form),
        color_constancy(enhanced, form),
        illumination_smoothness(curves, form),
    )
    terms = loss_terms(enhanced, original, curves, replace(config, exposure_target=0.5))
    expected = [weight * loss.item() for weight, loss in zip(weights, losses, strict=True)]
    assert list(terms)[:4] == ["spatial", "exposure", "color", "smoothness"]
    assert [term.item() for term in terms.values()][:4] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("left_out", ["spatial", "exposure", "color", "smoothness"])
def test_a_term_of_weight_zero_is_zero_and_not_computed(left_out):
    image, curves = random(1, 3, 16, 16).requires_grad_(), random(1, 24, 16, 16)
    broken = torch.full_like(curves, torch.nan) if left_out == "smoothness" else curves
    config = replace(RELEASED, **{left_out: 0.0})
    terms = loss_terms(image, random(1, 3, 16, 16, seed=1), broken, config)
    published = list(terms.items())[:4]  # a further loss has weight 0 here as well
    assert [name for name, term in published if term.item() == 0] == [left_out]
    sum(terms.values()).backward()
    assert torch.isfinite(image.grad).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"form": "best"}, "form='best'"),
        ({"spatial": -1.0}, "spatial=-1.0"),
        ({"smoothness": float("nan")}, "smoothness=nan"),
        ({"color": float("inf")}, "color=inf"),
        ({"exposure_target": 1.5}, "exposure_target=1.5"),
    ],
)
def test_wrong_configurations_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        LossConfig(**fields)
