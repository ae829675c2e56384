"""Metrics: their properties on constructed images, and agreement with the published scores on real
photographs.
"""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import io, ndimage
from skimage import data

from zdce import checkpoints, metrics
from zdce.camera import Camera, expose
from zdce.metrics import METRICS

TOLERANCE = 0.001  # a rounding flip in 8 bits moves the fourth digit
NO_NOISE = Camera(1e9, 0.0)
MODEL = {"mu_prisparam": np.zeros(36), "cov_prisparam": np.eye(36)}


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A colourful photograph with texture, (256, 256, 3) uint8."""
    return data.astronaut()[:256, 128:384]


@pytest.fixture(scope="module")
def dark(photo) -> np.ndarray:
    """The same with two stops less light."""
    return expose(photo, 2, 0, NO_NOISE)


def rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype("u1")


def gray(levels: np.ndarray) -> np.ndarray:
    return np.repeat(rounded(levels)[..., None], 3, axis=2)


def tone(image: np.ndarray, curve) -> np.ndarray:
    return rounded(255 * curve(np.arange(256) / 255))[image]


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return rounded(ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0)))


def test_reference_figures_of_known_errors(photo):
    off = photo // 2 + 20
    assert metrics.mae(off + 3, off) == 3
    assert metrics.psnr(off + 3, off) == pytest.approx(20 * np.log10(255 / 3))
    assert metrics.psnr(photo, photo) == np.inf
    assert metrics.ssim(photo, photo) == 1
    assert metrics.ssim(blurred(photo, 1), photo) > metrics.ssim(blurred(photo, 2), photo) + 0.02


@pytest.mark.parametrize("curve", [lambda v: v, lambda v: v / 3, lambda v: v**0.3])
def test_match_mean_reaches_the_mean_in_spite_of_clipping(photo, curve):
    image = tone(photo, curve)
    matched = metrics.match_mean(image, photo)
    assert matched.mean() == pytest.approx(photo.mean(), abs=0.5)  # half a level: it is rounded
    assert not metrics.match_mean(np.zeros_like(photo), photo).any()


def test_wrong_arrays_are_named(photo):
    for figure, arrays, said in (
        (metrics.psnr, (photo, photo[1:]), r"reference.* \(255, 256, 3\)"),
        (metrics.scores, (photo, photo / 255), "before.* float64"),
        (metrics.ssim, (photo[..., 0], photo[..., 0]), r"image.* \(256, 256\)"),
        (metrics.burst_noise, ([photo],), "1 image"),
    ):
        with pytest.raises(ValueError, match=said):
            figure(*arrays)


def test_bright_areas_count_any_clipped_channel_what_is_new_and_pixels_bright_before():
    before = gray(np.array([[10.0, 152, 153, 200, 255]]))
    image = gray(np.array([[90.0, 200, 163, 230, 255]]))
    image[0, 0, 1], image[0, 1, 1] = 250, 249
    assert metrics.clipped_share(image) == pytest.approx(0.4)
    assert metrics.newly_clipped(image, before) == pytest.approx(0.2)
    assert metrics.bright_gain(image, before) == pytest.approx(40 / 3)
    assert np.isnan(metrics.bright_gain(image[:, :2], before[:, :2]))


def test_burst_noise_is_the_deviation_over_frames(photo):
    rng = np.random.default_rng(0)
    frames = [rounded(rng.normal(60, 4, (48, 48, 3))) for _ in range(40)]
    assert metrics.burst_noise(frames) == pytest.approx(4, rel=0.02)
    assert metrics.burst_noise(frames, relative=True) == pytest.approx(4 / 60, rel=0.02)
    pair = [photo // 2, photo // 2 + 2]
    assert metrics.burst_noise(pair) == pytest.approx(2**0.5)  # of n − 1; structure is no noise
    gains = metrics.burst_scores([frame * 3 for frame in frames], frames)
    assert gains["noise_gain"] == pytest.approx(3)
    assert gains["noise_gain_relative"] == pytest.approx(1)
    assert np.isnan(metrics.burst_scores([photo, photo], [photo, photo])["noise_gain"])


def test_flat_dark_patches_are_dark_flat_and_noisy():
    rng = np.random.default_rng(1)
    levels = np.full((64, 64), 30.0)
    levels[:16, 16:32] = 90  # bright
    levels[16:32, :16] += np.linspace(-12, 12, 16)  # a slope
    levels[16:32, 16:32:8] += 40  # stripes
    levels += rng.normal(0, 2, levels.shape)
    levels[48:, 48:] = 0  # blocked up
    left_out = np.argwhere(~metrics.flat_dark(gray(levels))).tolist()
    assert left_out == [[0, 1], [1, 0], [1, 1], [3, 3]]


def test_dark_noise_gain_of_known_noise():
    noise = np.random.default_rng(2).normal(0, 1, (128, 128))
    before, after = gray(20 + 2 * noise), gray(60 + 8 * noise)
    # Rounding to whole levels adds a variance of 1/12 to each.
    expected = np.sqrt((64 + 1 / 12) / (4 + 1 / 12))
    assert metrics.dark_noise_gain(after, before) == pytest.approx(expected, rel=0.01)
    relative = metrics.dark_noise_gain(after, before, relative=True)
    assert relative == pytest.approx(expected / 3, rel=0.01)
    assert metrics.dark_noise_gain(before, before) == 1
    assert np.isnan(metrics.dark_noise_gain(before + 100, before + 100))
    assert np.isnan(metrics.dark_noise_gain(before[:9, :9], before[:9, :9]))


def detail_kept(image: np.ndarray, before: np.ndarray) -> float:
    return metrics.scores(image, before)["detail_kept"]


def test_detail_survives_brightening_and_is_lost_by_blur_squeezing_and_clipping(photo, dark):
    assert detail_kept(photo, photo) == pytest.approx(1)
    assert detail_kept(photo, dark) > 0.98
    noise = np.random.default_rng(3).normal(0, 6, photo.shape[:2])[..., None]
    noisy = rounded(photo * 0.8 + 20 + noise)
    assert detail_kept(noisy, photo) == pytest.approx(0.8, abs=0.08)  # noise is no detail
    kept = [detail_kept(blurred(photo, sigma), photo) for sigma in (0.5, 1, 2, 4)]
    assert all(a > b + 0.1 for a, b in pairwise([1.0, *kept]))
    squeezed = tone(photo, lambda v: 0.5 + v / 4)
    assert detail_kept(squeezed, photo) == pytest.approx(0.25, abs=0.03)
    for other in (np.full_like(photo, 200), 255 - photo):
        assert detail_kept(other, photo) == pytest.approx(0, abs=1e-9)
    assert np.isnan(detail_kept(photo, np.full_like(photo, 9)))
    image = photo.copy()
    image[100:200, 50:150] = 255
    lost, detail = metrics.detail_lost_map(image, photo)
    assert lost[110:190, 60:140] == pytest.approx(detail[110:190, 60:140])
    assert lost[:80].max() < 1e-6


def test_color_cast_is_blind_to_exposure_and_sees_a_tint(photo, dark):
    brighter = expose(dark, -2, 0, NO_NOISE)
    assert metrics.color_cast(photo, photo) == 0
    assert metrics.color_cast(brighter, dark) < 0.1
    tinted = [(brighter * np.array([1, 1, blue])).astype("u1") for blue in (0.95, 0.85)]
    tints = [metrics.color_cast(image, dark) for image in tinted]
    assert 1 < tints[0] < tints[1] / 2
    faded = rounded(0.5 * brighter + 0.5 * brighter.mean(axis=2, keepdims=True))
    assert metrics.color_cast(faded, dark) > 1


def test_loe_counts_pairs_out_of_order(photo):
    assert metrics.loe(photo // 2 * 2 + 1, photo // 2) == 0
    rng = np.random.default_rng(4)
    before, image = (rng.integers(0, 256, (37, 41, 3), dtype=np.uint8) for _ in range(2))
    widest = (ndimage.maximum_filter(x.max(axis=2), 15, mode="mirror") for x in (before, image))
    old, new = (values.ravel() for values in widest)
    changed = (old[:, None] >= old) != (new[:, None] >= new)
    assert metrics.loe(image, before) == changed.sum() / old.size > 0
    slope = gray(np.arange(100.0 * 120).reshape(100, 120) / 50)  # fifty along the short side
    assert 0.9 * 50 * 60 < metrics.loe(255 - slope, slope) < 50 * 60


def test_niqe_of_a_photograph_and_of_what_is_too_small(photo):
    assert metrics.niqe(photo, MODEL) == pytest.approx(4.9292, abs=1e-4)  # as agrees, see below
    assert metrics.niqe(photo[:100, :192], MODEL) > 0
    assert np.isnan(metrics.niqe(photo[:100, :191], MODEL))  # fewer than two blocks
    assert np.isnan(metrics.niqe(np.zeros_like(photo), MODEL))


def test_table_and_scores_agree(photo, dark):
    row = metrics.scores(photo, dark, photo, MODEL)
    assert list(row) == [name for name in METRICS.index if name in row]
    assert set(METRICS.index) - set(row) == set(METRICS.index[METRICS.needs == "burst"])
    assert all(type(value) is float for value in row.values())
    more = METRICS.index[METRICS.needs.isin(["reference", "model file"])]
    assert set(row) - set(metrics.scores(photo, dark)) == set(more)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [(1, 1), (17, 16), (60, 2)])
def test_small_photographs_have_scores(size):
    rng = np.random.default_rng(6)
    image, before = (rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(2))
    row = metrics.scores(image, before, before, MODEL)
    assert np.isfinite(row["psnr"]) and np.isfinite(row["loe"])
    assert np.isnan(row["ssim"]) == (min(size) < 7)


# --- agreement with published scores --------------------------------------------------------------


def read(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


PUBLISHED = {"zero-dce": "zero-dce-published", "zero-dce-improved": "zero-dce-improved-published"}
PUBLISHED |= {"zero-dce++": "zero-dce++", "zero-dce++ (12x)": "zero-dce++-12x"}
PUBLISHED |= {name: name for name in ("sci-easy", "sci-medium", "sci-difficult")}


@pytest.mark.parametrize("method", ["input", *PUBLISHED])
def test_scores_are_the_published_ones(method, shared):
    expected = pd.read_csv(shared / "expected" / "sice_pairs_published_weights.csv")
    rows = expected[expected.method == method]
    for _, row in (rows.iloc[::25] if method == "input" else rows.iloc[[140]]).iterrows():
        low, reference = (read(shared / "data/train_data" / row[k]) for k in ("low", "reference"))
        if method != "input":
            image = torch.from_numpy(low.copy()).permute(2, 0, 1)[None].float() / 255
            with torch.inference_mode():
                enhanced = checkpoints.load(PUBLISHED[method]).net(image)[0].clamp(0, 1)
            low = (enhanced * 255).round().byte()[0].permute(1, 2, 0).numpy()
        measured, names = metrics.agreement(low, reference), ["psnr", "ssim", "mae", "mean"]
        measured = [measured[name] for name in names]
        assert measured == pytest.approx(row[names].tolist(), abs=TOLERANCE)


def test_niqe_of_photographs(shared):
    model = io.loadmat(shared / "data" / "niqe_modelparameters.mat")
    table = pd.read_csv(shared / "expected" / "niqe_lime.csv")
    assert len(table) == 18
    measured = [metrics.niqe(read(shared / path), model) for path in table.path]
    assert measured == pytest.approx(table.niqe.tolist(), abs=0.01)


@pytest.mark.parametrize("scene", ["101", "744", "761"])
def test_noise_in_patches_agrees_with_noise_on_bursts(scene, shared):
    burst = np.stack([read(shared / "data" / "bursts" / f"{scene}_{k}_.png") for k in range(4)])
    after, patches = tone(burst, lambda v: v**0.5), 16 * np.argwhere(metrics.flat_dark(burst[0]))
    measured = [
        np.mean([metrics.burst_noise(stack[:, r : r + 16, c : c + 16]) for r, c in patches])
        for stack in (after, burst)
    ]
    gain = metrics.dark_noise_gain(after[0], burst[0])
    assert gain == pytest.approx(measured[0] / measured[1], rel=0.05)
