"""What the analysis of problems computes: checked on curves, pictures and tables made for it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from zdce import datasets, metrics
from zdce.model import apply_curves
from zdce.study import problems


class Constant(torch.nn.Module):
    """A network that gives every pixel the same r in all eight steps."""

    def __init__(self, r: float) -> None:
        super().__init__()
        self.r = r

    def forward(self, image):
        curves = torch.full((1, 24, *image.shape[-2:]), self.r)
        return apply_curves(image, curves), curves


def constant(r: float) -> SimpleNamespace:
    return SimpleNamespace(net=Constant(r), device=torch.device("cpu"))


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return datasets.Sample("bundled", "coffee", "coffee").reference()[100:228, 100:260]


def test_slope_is_the_derivative_of_the_applied_curve():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    for channels in (24, 3):
        curves = 2 * torch.rand(1, channels, 4, 5, generator=generator, dtype=torch.float64) - 1
        (gradient,) = torch.autograd.grad(apply_curves(image, curves).sum(), image)
        torch.testing.assert_close(problems.curve_slope(image.detach(), curves), gradient)


def test_constant_curve_follows_the_paper():
    assert problems.constant_curve(0.8, -1.0)[:3] == pytest.approx([0.8, 0.96, 0.9984])
    assert problems.constant_curve(0.3, 0.0) == [0.3] * 9
    assert problems.curve_slopes((0.0,), (-0.25,)).iloc[0, 1] == pytest.approx(1.25**8, abs=0.005)


def test_bend_returns_the_curves_mean(photo):
    after, slope, mean_r = problems.bend(constant(-0.2), photo)
    level = problems.constant_curve(photo[3, 4, 1] / 255, -0.2)[-1]
    assert abs(int(after[3, 4, 1]) - 255 * level) <= 0.51
    assert slope.shape == photo.shape and mean_r == pytest.approx(-0.2)


def test_mixed_light_keeps_the_lit_side_and_darkens_the_other(photo):
    mixed = problems.mixed_light(photo, lit=0.5)
    assert np.array_equal(mixed, problems.mixed_light(photo, lit=0.5))
    error = np.abs(mixed.astype(int) - photo).mean(axis=(0, 2))
    assert error[:80].max() < 5
    assert mixed[:, -1].mean() < 0.45 * photo[:, -1].mean()
    assert mixed.shape == photo.shape


def test_nothing_happens_to_a_photograph_that_is_left_alone(photo):
    after, slope, mean_r = problems.bend(constant(0.0), photo)
    row = problems.figures(photo, after, slope, mean_r)
    table = problems.bands(photo, after, slope)
    assert row["bright_gain"] == row["bright_raised"] == row["bright_clipped"] == 0
    assert row["bright_predicted"] == pytest.approx(0, abs=1e-9)
    assert table.lost.sum() == pytest.approx(
        0, abs=1e-6
    ) and table.predicted.sum() == pytest.approx(0, abs=1e-6)
    assert table.pixels.sum() == photo.shape[0] * photo.shape[1]


def test_raised_bright_pixels_are_counted(photo):
    after, slope, mean_r = problems.bend(constant(-0.3), photo)
    row = problems.figures(photo, after, slope, mean_r)
    bright = metrics.luma(photo) >= 153
    assert row["bright_share"] == pytest.approx(bright.mean()) and bright.any()
    assert row["bright_gain"] > 30 and row["bright_raised"] > 0.9
    assert row["bright_predicted"] == pytest.approx(row["bright_gain"], rel=0.15)


def test_loss_of_small_contrast_follows_the_slope():
    ramp = np.repeat(
        np.tile(np.array([196, 204, 212, 204], np.uint8), 16)[None, :, None], 64, axis=0
    ).repeat(3, axis=2)
    after, slope, _ = problems.bend(constant(-0.15), ramp)
    table = problems.bands(ramp, after, slope).sum()
    assert table.lost / table.detail > 0.3
    assert table.lost == pytest.approx(table.predicted, rel=0.1)


def test_one_curve_changes_nothing_where_the_curve_is_one_already(photo):
    after, slope, _ = problems.bend(constant(-0.15), photo)
    assert np.array_equal(problems.one_curve(photo, after), after)
    table = problems.bands(photo, after, slope)
    assert table.one_curve.sum() == pytest.approx(table.lost.sum()) and table.lost.sum() > 0


def test_one_curve_takes_the_mean_of_what_differs():
    before = np.full((2, 4, 3), 100, np.uint8)
    after = before.copy()
    after[:, :2], after[:, 2:] = 120, 140
    assert (problems.one_curve(before, after) == 130).all()


def test_noise_gain_of_a_constant_curve_is_its_slope():
    rng = np.random.default_rng(0)
    frames = [
        np.clip(rng.normal(30, 2, (64, 64, 3)).round(), 0, 255).astype(np.uint8) for _ in range(4)
    ]
    row = problems._burst(constant(-0.2), frames)
    assert row["predicted"] == pytest.approx(row["noise_gain"], rel=0.02)
    assert row["held"] == pytest.approx(row["noise_gain"])
    assert row["noise_gain_relative"] == pytest.approx(row["noise_gain"] / row["brightness_gain"])
    assert row["dark_share"] == 1


def test_worst_box_is_the_square_with_the_greatest_sum():
    values = np.zeros((30, 40))
    values[12:16, 25:29] = 1
    assert problems.worst_box(values, 4) == (25, 12, 4)
    assert problems.worst_box(np.ones((5, 9)), 80) == (0, 0, 5)


def test_problem_maps_show_their_problem(photo):
    after = problems.bend(constant(-0.3), photo)[0]
    rise = problems.problem_map("bright", photo, after)
    assert (rise > 0).any() and not rise[metrics.luma(photo) < 153].any()
    assert not problems.problem_map("detail", photo, photo).any()
    with pytest.raises(ValueError, match="kind='haze'"):
        problems.problem_map("haze", photo, after)


def tables(gain: float, relative: float, moving: float = 9.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    scores = pd.DataFrame(
        {
            "method": "m",
            "scene": [f"s{k // 2}" for k in range(6)],
            "bright_gain": [1, 3, 2, 2, 4, 0],
        }
    )
    scores[["bright_clipped", "lost", "lost_bright"]] = 0.0, 0.01, np.nan
    noise = pd.DataFrame({"dataset": "d", "scene": list("abcd"), "method": "m", "noise_gain": gain})
    noise = noise.assign(noise_gain_relative=relative, static=[True, True, True, False])
    noise.loc[3, "noise_gain"] = moving
    return scores, noise


def test_parts_count_scenes_and_leave_moving_ones_out():
    parts = problems.parts(*tables(2.0, 0.9)).set_index("figure")
    assert parts.scenes.to_dict() == {
        "bright_gain": 3,
        "bright_clipped": 3,
        "noise_gain": 3,
        "noise_gain_relative": 3,
        "lost": 3,
        "lost_bright": 0,
    }
    assert parts.loc["noise_gain", "mean"] == 2.0  # 9 of the moving scene does not count
    assert parts.holds.tolist() == ["yes", "no", "yes", "no", "no", "not testable here"]


@pytest.mark.parametrize(
    ("gain", "relative", "expected"),
    [(2.0, 1.2, "supported"), (2.0, 0.9, "partly supported"), (0.9, 0.8, "not supported")],
)
def test_verdict_follows_from_the_parts(gain, relative, expected):
    assert problems.verdicts(problems.parts(*tables(gain, relative)))["P2", "m"] == expected


def test_worst_looks_where_it_is_told():
    scores = pd.DataFrame(
        {
            "dataset": ["bundled", "lime"],
            "method": "m",
            "bright_share": [0.5, 0.005],
            "bright_gain": [1.0, 9.0],
        }
    )
    scores["lost"] = scores.bright_gain
    assert problems.worst(scores, "lost", "datasets").dataset.item() == "lime"
    assert problems.worst(scores, "lost").dataset.item() == "bundled"
    assert (
        problems.worst(scores, "bright_gain", "datasets").dataset.item() == "bundled"
    )  # too few bright pixels in lime
    with pytest.raises(ValueError, match="panels='all'"):
        problems.worst(scores, "lost", "all")


def test_worst_first_keeps_all_methods_of_the_worst_photographs():
    table = pd.DataFrame(
        {
            "dataset": "d",
            "photograph": list("aabbcc"),
            "method": ["m", "n"] * 3,
            "lost": [1, 2, 5, 0, np.nan, np.nan],
        }
    )
    first = problems.worst_first(table, {"lost": "share lost"}, count=1)
    assert first.photograph.tolist() == ["b", "b"] and first["share lost"].tolist() == [5, 0]
    assert problems.worst_first(table, {"lost": "lost"}).photograph.tolist() == ["b", "b", "a", "a"]


def test_findings_say_what_the_parts_show():
    scores, noise = tables(2.0, 0.9)
    for name in (
        "bright_predicted",
        "bright_raised",
        "lost_rest",
        "lost_rest_predicted",
        "lost_bright_predicted",
    ):
        scores[name] = 0.5
    scores = scores.assign(
        dataset="mixed light",
        lost_bright=[0.2, 0.3, 0.2, 0.3, 0.2, 0.3],
        lost_bright_one_curve=0.25,
    )
    noise = noise.assign(predicted=2.0, held=2.0, brightness_gain=2.2)
    parts = problems.parts(scores.assign(lost_rest_one_curve=0.1), noise)
    lines = problems.findings(
        scores.assign(lost_rest_one_curve=0.1), noise, parts, parts[parts.claim == "P1"]
    )
    assert "(P1): **partly supported**" in lines[0] and len(lines) == 5
    assert "grows 2.00-fold" in lines[2] and "0.90-fold" in lines[2] and "is not shown" in lines[2]
    assert "25.0% (" in lines[3] and lines[4].endswith(
        "by the real photographs alone it is not testable here."
    )
