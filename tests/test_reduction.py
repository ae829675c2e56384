"""What the fast path gives away: choices, where halos would stand, sums. No test asserts a time."""

from __future__ import annotations

import numpy as np
import pytest

from zdce.engine import compiled
from zdce.enhance import Enhancer
from zdce.study import reduction
from zdce.study.reduction import CHOICES, TAKEN, Choice

pytestmark = pytest.mark.skipif(not compiled.numba, reason="numba is not installed")


def photograph() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.integers(0, 30, (60, 90, 3)) + np.linspace(0, 90, 90)[None, :, None]).astype(
        np.uint8
    )


def test_the_choice_taken_is_what_the_enhancer_does():
    pixels = photograph()
    taken = next(choice for choice in CHOICES if choice.label == TAKEN)
    result = reduction.enhanced(Enhancer("zero-dce-improved", device="cpu"), pixels, taken)
    assert np.array_equal(result, Enhancer("zero-dce-improved", device="cpu", speed="fast")(pixels))


def test_at_full_size_nothing_is_lost_and_nearest_is_not_bilinear():
    pixels, enhancer = photograph(), Enhancer("zero-dce-improved", device="cpu")
    whole = reduction.enhanced(enhancer, pixels, Choice("whole", side=90, curves="all"))
    assert np.abs(whole.astype(int) - enhancer(pixels)).max() <= 2
    near, far = (
        reduction.enhanced(enhancer, pixels, Choice("c", side=10, nearest=each))
        for each in (True, False)
    )
    assert np.abs(near.astype(int) - far).max() > 2


def test_halos_are_looked_for_around_steep_brightness():
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, 30:] = 200
    near = reduction.near_edges(pixels)
    assert near[:, 28:32].all() and not near[:, :20].any() and not near[:, 40:].any()


def test_words_follow_the_table():
    lost = reduction.losses("zero-dce-improved", "bundled", 1, CHOICES[2:4])
    table = reduction.summary(lost, reduction.times("zero-dce-improved", 1, CHOICES[2:4]))
    assert table["choice"].tolist() == [choice.label for choice in CHOICES[2:4]]
    assert (table.filter(like=" ms") > 0).all(axis=None) and (table["apart"] > 0).all()
    for loss, word in ((0.1, "within"), (0.3, "outside")):
        assert (
            f", {word} the 0.2 dB"
            in reduction.words(table.assign(psnr_loss=loss, ssim_loss=0.0))[0]
        )
