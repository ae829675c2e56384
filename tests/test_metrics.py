"""Metrics: their properties on constructed images, and agreement with the published scores on real
photographs.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import ndimage
from skimage import data

from zdce import metrics, niqe
from zdce.metrics import METRICS
from zdce.model import ZERO_DCE, ZERO_DCE_IMPROVED, CurveNet
from zdce.peers import ZERO_DCE_PP, SciNet

TOLERANCE = 0.001  # a rounding flip in 8 bits moves the fourth digit


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A colourful photograph with texture, (256, 256, 3) uint8."""
    return data.astronaut()[:256, 128:384]


@pytest.fixture(scope="module")
def dark(photo) -> np.ndarray:
    """The same with two stops less light."""
    return to_srgb(to_linear(photo) / 4)


def to_linear(image: np.ndarray) -> np.ndarray:
    v = image / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def to_srgb(light: np.ndarray) -> np.ndarray:
    light = light.clip(0, 1)
    return np.rint(
        255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    ).astype("u1")


def gray(levels: np.ndarray) -> np.ndarray:
    return np.repeat(np.rint(levels).clip(0, 255).astype("u1")[..., None], 3, axis=2)


def tone(image: np.ndarray, curve) -> np.ndarray:
    return np.rint(255 * curve(np.arange(256) / 255)).clip(0, 255).astype("u1")[image]


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return np.rint(ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0))).astype("u1")


# -------------------------------------------------------------------------------------------
# against a reference


def test_reference_figures_of_known_errors(photo):
    off = photo // 2 + 20
    assert metrics.mae(off + 3, off) == 3
    assert metrics.psnr(off + 3, off) == pytest.approx(20 * np.log10(255 / 3))
    assert metrics.psnr(photo, photo) == np.inf
    assert metrics.ssim(photo, photo) == 1
    assert metrics.ssim(blurred(photo, 1), photo) > metrics.ssim(blurred(photo, 2), photo) + 0.02
    assert np.isnan(metrics.ssim(photo[:6], photo[:6]))
    assert metrics.mean(np.full((2, 3, 3), 51, np.uint8)) == pytest.approx(0.2)


@pytest.mark.parametrize("curve", [lambda v: v, lambda v: v / 3, lambda v: v**0.3])
def test_match_mean_reaches_the_mean_in_spite_of_clipping(photo, curve):
    image = tone(photo, curve)
    matched = metrics.match_mean(image, photo)
    assert matched.mean() == pytest.approx(
        photo.mean(), abs=0.5
    )  # half a level: the table is rounded
    order = np.argsort(image.ravel(), kind="stable")
    assert (np.diff(matched.ravel()[order].astype(int)) >= 0).all()


def test_match_mean_clips_where_a_plain_ratio_falls_short():
    image = gray(np.array([[10, 200]]))
    reference = gray(np.array([[60, 250]]))
    assert metrics.match_mean(image, reference)[0, :, 0].tolist() == [
        55,
        255,
    ]  # the plain ratio, 1.476, gives 15
    black = np.zeros((4, 4, 3), np.uint8)
    assert (metrics.match_mean(black, black + 9) == 0).all()


def test_wrong_arrays_are_named(photo):
    with pytest.raises(ValueError, match=r"reference \(255, 256, 3\)"):
        metrics.psnr(photo, photo[1:])
    with pytest.raises(ValueError, match="before is float64"):
        metrics.loe(photo, photo / 255)
    with pytest.raises(ValueError, match="image is uint8 \\(256, 256\\)"):
        metrics.clipped_share(photo[..., 0])
    with pytest.raises(ValueError, match="holds 1 image"):
        metrics.burst_noise([photo])


# --------------------------------------------------------------------------------------------------
# bright areas


def test_clipping_counts_any_channel_and_what_is_new():
    before = np.full((10, 10, 3), 100, np.uint8)
    before[0, :3] = 255
    image = before.copy()
    image[5, :7, 1] = 250
    image[6, :, 1] = 249
    assert metrics.clipped_share(before) == pytest.approx(0.03)
    assert metrics.clipped_share(image) == pytest.approx(0.10)
    assert metrics.newly_clipped(image, before) == pytest.approx(0.07)


def test_bright_gain_looks_at_pixels_bright_before():
    before = gray(np.array([[10.0, 152, 153, 200]]))
    image = gray(np.array([[90.0, 200, 163, 230]]))
    assert metrics.bright_gain(image, before) == pytest.approx(20)
    assert np.isnan(metrics.bright_gain(image[:, :2], before[:, :2]))


# --------------------------------------------------------------------------------------------------
# noise


def frames(level: float, sigma: float, n: int = 40) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        np.rint(rng.normal(level, sigma, (48, 48, 3))).clip(0, 255).astype("u1") for _ in range(n)
    ]


def test_burst_noise_is_the_deviation_over_frames(photo):
    noisy = frames(60, 4)
    assert metrics.burst_noise(noisy) == pytest.approx(4, rel=0.02)
    assert metrics.burst_noise(noisy, relative=True) == pytest.approx(4 / 60, rel=0.02)
    assert metrics.burst_noise([photo, photo, photo]) == 0  # structure is no noise
    pair = [photo // 2, photo // 2 + 2]
    assert metrics.burst_noise(pair) == pytest.approx(2**0.5)


def test_noise_gain_of_a_known_gain():
    before = frames(20, 3)
    after = [frame * 3 for frame in before]
    assert metrics.noise_gain(after, before) == pytest.approx(3)
    assert metrics.noise_gain(after, before, relative=True) == pytest.approx(1)
    flat = np.full((8, 8, 3), 7, np.uint8)
    assert np.isnan(metrics.noise_gain([flat, flat], [flat, flat]))


def test_flat_dark_patches_are_dark_flat_and_noisy():
    rng = np.random.default_rng(1)
    levels = np.full((64, 64), 30.0)
    levels[:16, 16:32] = 90  # bright
    levels[16:32, :16] += np.linspace(-12, 12, 16)  # a slope
    levels[16:32, 16:32:8] += 40  # stripes
    levels += rng.normal(0, 2, levels.shape)
    levels[48:, 48:] = 0  # blocked up
    found = {tuple(corner) for corner in metrics.flat_dark_patches(gray(levels)).tolist()}
    left_out = {(0, 16), (16, 0), (16, 16), (48, 48)}
    assert found == {(r, c) for r in range(0, 64, 16) for c in range(0, 64, 16)} - left_out


def test_dark_noise_gain_of_known_noise():
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 1, (128, 128))
    before, after = gray(20 + 2 * noise), gray(60 + 8 * noise)
    # Rounding to whole levels adds a variance of 1/12 to each.
    expected = np.sqrt((64 + 1 / 12) / (4 + 1 / 12))
    assert metrics.dark_noise_gain(after, before) == pytest.approx(expected, rel=0.01)
    assert metrics.dark_noise_gain(after, before, relative=True) == pytest.approx(
        expected / 3, rel=0.01
    )
    assert metrics.dark_noise_gain(before, before) == 1
    assert np.isnan(metrics.dark_noise_gain(before + 100, before + 100))
    assert np.isnan(metrics.dark_noise_gain(before[:9, :9], before[:9, :9]))


# ----------------------------------------------------------------------------------------------
# detail, colour, order


def test_detail_survives_brightening(photo, dark):
    assert metrics.detail_kept(photo, photo) == pytest.approx(1)
    assert metrics.detail_kept(photo, dark) > 0.98
    assert (
        metrics.detail_kept(tone(dark, lambda v: v**0.6), dark) > 0.95
    )  # flatter than 1 from v = 0.28 on
    noise = np.random.default_rng(3).normal(0, 6, photo.shape[:2])[..., None]
    noisy = np.rint(photo * 0.8 + 20 + noise).clip(0, 255).astype("u1")
    assert metrics.detail_kept(noisy, photo) == pytest.approx(
        0.8, abs=0.08
    )  # noise does not pass as detail


def test_detail_is_lost_by_blur_squeezing_and_clipping(photo):
    kept = [metrics.detail_kept(blurred(photo, sigma), photo) for sigma in (0.5, 1, 2, 4)]
    assert all(a > b + 0.1 for a, b in pairwise([1.0, *kept]))
    assert metrics.detail_kept(tone(photo, lambda v: 0.5 + v / 4), photo) == pytest.approx(
        0.25, abs=0.03
    )
    assert metrics.detail_kept(np.full_like(photo, 200), photo) == pytest.approx(0, abs=1e-9)
    assert metrics.detail_kept(255 - photo, photo) == pytest.approx(0, abs=1e-9)
    flat = np.full_like(photo, 9)
    assert np.isnan(metrics.detail_kept(photo, flat))


def test_detail_lost_map_points_at_the_place(photo):
    image = photo.copy()
    image[100:200, 50:150] = 255
    lost, detail = metrics.detail_lost_map(image, photo)
    assert lost[110:190, 60:140] == pytest.approx(detail[110:190, 60:140])
    assert lost[:80].max() < 1e-6
    assert (lost >= 0).all() and (lost <= detail).all()


def test_color_cast_is_blind_to_exposure_and_sees_a_tint(photo, dark):
    brighter = to_srgb(4 * to_linear(dark))
    assert metrics.color_cast(photo, photo) == 0
    assert metrics.color_cast(brighter, dark) < 0.1
    tints = [
        metrics.color_cast((brighter * np.array([1, 1, blue])).astype("u1"), dark)
        for blue in (0.95, 0.85)
    ]
    assert 1 < tints[0] < tints[1] / 2
    faded = np.rint(0.5 * brighter + 0.5 * brighter.mean(axis=2, keepdims=True)).astype("u1")
    assert metrics.color_cast(faded, dark) > 1


def test_loe_counts_pairs_out_of_order(photo):
    assert metrics.loe(photo, photo) == 0
    assert metrics.loe(photo // 2 * 2 + 1, photo // 2) == 0
    rng = np.random.default_rng(4)
    before, image = (rng.integers(0, 256, (37, 41, 3), dtype=np.uint8) for _ in range(2))
    old, new = (
        ndimage.maximum_filter(x.max(axis=2), 15, mode="mirror").ravel() for x in (before, image)
    )
    assert (
        metrics.loe(image, before)
        == ((old[:, None] >= old) != (new[:, None] >= new)).sum() / old.size
        > 0
    )


def test_loe_samples_fifty_along_the_short_side():
    before = gray(np.arange(100.0 * 120).reshape(100, 120) / 50)
    assert metrics.loe(255 - before, before) < 50 * 60
    assert metrics.loe(255 - before, before) > 0.9 * 50 * 60


# --------------------------------------------------------------------------------------------------
# NIQE


def test_halving_reproduces_lines_and_mirrors_edges():
    ramp = np.repeat(np.arange(24.0)[:, None], 2, axis=1)
    half = niqe._halved(ramp)
    assert half.shape == (12, 2)
    assert half[2:-2, 0] == pytest.approx(ramp[4:-4, 0].reshape(-1, 2).mean(axis=1))
    assert niqe._halved(np.full((8, 3), 5.0)) == pytest.approx(5)


@pytest.mark.parametrize(("shape", "draw"), [(2.0, "normal"), (1.0, "laplace")])
def test_fit_recovers_the_distribution(shape, draw):
    values = getattr(np.random.default_rng(5), draw)(0, 1, 200_000)
    fitted, left, right = niqe._fit(values)
    assert fitted == pytest.approx(shape, rel=0.03)
    scale = 2**0.5 if draw == "normal" else 1
    assert left == pytest.approx(scale, rel=0.03) and right == pytest.approx(scale, rel=0.03)


def test_niqe_needs_its_model_and_two_blocks(photo, tmp_path):
    model = metrics.NiqeModel(np.zeros(36), np.eye(36))
    assert np.isnan(metrics.niqe(photo[:100, :191], model))
    assert np.isnan(metrics.niqe(np.zeros_like(photo), model))
    assert metrics.niqe(photo[:100, :192], model) > 0
    other = tmp_path / "other.mat"
    other.write_bytes(b"no model" * 40)
    with pytest.raises(ValueError, match=r"other\.mat: not NIQE's model"):
        metrics.load_niqe_model(other)


# --------------------------------------------------------------------------------------------------
# the table


def test_table_and_scores_agree(photo, dark):
    model = metrics.NiqeModel(np.zeros(36), np.eye(36))
    row = metrics.scores(photo, dark, photo, model)
    names = [m.name for m in METRICS]
    assert list(row) == [name for name in names if name in row]
    assert set(names) - set(row) == {m.name for m in METRICS if m.needs == "burst"}
    assert all(type(value) is float for value in row.values())
    alone = metrics.scores(photo, dark)
    assert set(row) - set(alone) == {
        m.name for m in METRICS if m.needs in ("reference", "model file")
    }
    assert {m.direction for m in METRICS} == {"higher", "lower", "nearer 0", "–"}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (17, 16), (60, 2)])
def test_small_photographs_have_scores(size):
    rng = np.random.default_rng(6)
    image, before = (rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(2))
    row = metrics.scores(image, before, before, metrics.NiqeModel(np.zeros(36), np.eye(36)))
    assert np.isfinite(row["psnr"]) and np.isfinite(row["loe"])


# --------------------------------------------------------------------------------- agreement with
# published scores


def read(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def agree(row, image: np.ndarray, reference: np.ndarray) -> None:
    measured = [
        metrics.psnr(image, reference),
        metrics.ssim(image, reference),
        metrics.mae(image, reference),
    ]
    assert [*measured, metrics.mean(image)] == pytest.approx(
        [row.psnr, row.ssim, row.mae, row["mean"]], abs=TOLERANCE
    )


@pytest.fixture(scope="module")
def expected(shared) -> pd.DataFrame:
    return pd.read_csv(shared / "expected" / "sice_pairs_published_weights.csv")


def test_reference_figures_of_photographs(shared, expected):
    rows = expected[expected.method == "input"].iloc[::25]
    assert len(rows) == 10
    for _, row in rows.iterrows():
        low, reference = (
            read(shared / "data" / "train_data" / name) for name in (row.low, row.reference)
        )
        agree(row, low, reference)


PUBLISHED = {
    "zero-dce": (ZERO_DCE, "zero_dce_Epoch99.pth"),
    "zero-dce-improved": (ZERO_DCE_IMPROVED, "zero_dce_improved_pre-train.pth"),
    "zero-dce++": (ZERO_DCE_PP, "zero_dce_pp_Epoch99.pth"),
    "zero-dce++ (12x)": (replace(ZERO_DCE_PP, scale=12), "zero_dce_pp_Epoch99.pth"),
    "sci-easy": (None, "sci_easy.pt"),
    "sci-medium": (None, "sci_medium.pt"),
    "sci-difficult": (None, "sci_difficult.pt"),
}


@pytest.mark.parametrize("method", PUBLISHED)
def test_published_weights_reach_their_scores(method, shared, expected):
    config, file = PUBLISHED[method]
    weights = torch.load(shared / "weights" / file, weights_only=True, map_location="cpu")
    if config is None:
        net = SciNet()
        weights = {k.removeprefix("enhance."): v for k, v in weights.items()}
        weights = {k: weights[k] for k in net.state_dict()}
    else:
        net = CurveNet(config)
    net.load_state_dict(weights)
    for _, row in expected[expected.method == method].iloc[[140]].iterrows():
        low, reference = (
            read(shared / "data" / "train_data" / name) for name in (row.low, row.reference)
        )
        image = torch.from_numpy(low.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            enhanced = net.eval()(image)[0].clamp(0, 1)
        agree(row, (enhanced * 255).round().byte()[0].permute(1, 2, 0).numpy(), reference)


def test_niqe_of_photographs(shared):
    model = metrics.load_niqe_model(shared / "data" / "niqe_modelparameters.mat")
    table = pd.read_csv(shared / "expected" / "niqe_lime.csv")
    assert len(table) == 18
    measured = [metrics.niqe(read(shared / path), model) for path in table.path]
    assert measured == pytest.approx(table.niqe.tolist(), abs=0.01)


@pytest.mark.parametrize("scene", ["101", "744", "761"])
def test_noise_in_patches_agrees_with_noise_on_bursts(scene, shared):
    burst = np.stack([read(shared / "data" / "bursts" / f"{scene}_{k}_.png") for k in range(4)])
    after = tone(burst, lambda v: v**0.5)
    measured = []
    for stack in (after, burst):
        patches = [stack[:, r : r + 16, c : c + 16] for r, c in metrics.flat_dark_patches(burst[0])]
        measured.append(np.mean([metrics.burst_noise(frames) for frames in patches]))
    assert metrics.dark_noise_gain(after[0], burst[0]) == pytest.approx(
        measured[0] / measured[1], rel=0.05
    )
