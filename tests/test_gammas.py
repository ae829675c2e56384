"""Gamma before and after a network: figures from counts equal those of pixels, choices never see what they report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from zdce import metrics
from zdce.postprocess import apply_gamma
from zdce.study import evaluation, gammas

NETWORK = evaluation.OURS[1]


def picture(seed: int, top: int = 256) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = np.linspace(0, top - 1, 48)[None, :, None] * rng.uniform(0.6, 1, (40, 1, 3))
    return np.clip(smooth + rng.normal(0, 6, (40, 48, 3)), 0, 255).astype(np.uint8)


@dataclass
class Photograph:
    """A small stand-in for a sample of a data set."""

    name: str
    dataset: str = "sice-pairs"

    @property
    def scene(self) -> str:
        return self.name

    def image(self) -> np.ndarray:
        return picture(int(self.name), 90)

    def reference(self) -> np.ndarray:
        return picture(int(self.name) + 100)


@pytest.mark.parametrize("gamma", [0.4, 1.0, 1.15, 2.5])
def test_counts_tell_the_same_as_pixels(gamma):
    after, before, reference = picture(1), picture(2), picture(3)
    told = gammas.tones(gammas.count(after, before, reference), gamma)
    image = apply_gamma(after, gamma)
    for figure in ("mean", "clipped_share"):
        assert told[figure] == pytest.approx(getattr(metrics, figure)(image))
    for figure in ("newly_clipped", "bright_gain"):
        assert told[figure] == pytest.approx(getattr(metrics, figure)(image, before))
    assert told["psnr"] == pytest.approx(metrics.psnr(image, reference))
    dark = image[metrics.luma(before) < metrics.DARK]
    assert told["dark_spread"] == pytest.approx(np.sqrt(dark.astype(float).var(axis=0).mean()))
    assert told["dark_mean"] == pytest.approx(metrics.luma(dark).mean() / 255)
    assert told["dark_levels"] == pytest.approx(
        np.mean([len(np.unique(dark[:, k])) for k in range(3)])
    )


def test_areas_that_are_not_there_have_no_tones():
    told = gammas.tones(gammas.count(picture(1), np.zeros((40, 48, 3), np.uint8)), 1.15)
    assert all(
        np.isnan(told[name]) for name in ("bright_gain", "bright_spread", "bright_mean", "psnr")
    )
    assert told["dark_spread"] > 0


def test_grids_hold_no_gamma_and_the_study_s():
    assert {1.0, gammas.STUDY, gammas.INVERSE} <= set(gammas.GAMMAS) and set(gammas.GAMMAS) <= set(
        gammas.FINE
    )
    assert set(gammas.PLACED) <= set(gammas.GAMMAS)
    assert (min(gammas.GAMMAS), max(gammas.GAMMAS)) == (0.4, 2.5) and list(gammas.FINE) == sorted(
        set(gammas.FINE)
    )


@pytest.mark.parametrize("gamma", [0.5, gammas.INVERSE, 1.15, 2.0])
def test_slope_is_one_at_the_turning_point(gamma):
    turn = gammas.turning_point(gamma)
    assert gammas.slope(turn, gamma) == pytest.approx(1)
    assert (gammas.slope(turn / 2, gamma) > 1) == (gamma < 1)


def test_losses_of_the_table():
    table = gammas.table_losses((1.0, 1.15, 0.4)).set_index("gamma")
    assert table.loc[1.0].tolist() == [256, 64, 1, 250]
    assert table.loc[1.15, "levels"] < 256 and table.loc[1.15, "clipped_from"] == 251
    assert table.loc[0.4, "widest_step"] > 10 and table.loc[0.4, "dark_levels"] == 64


def test_measure_and_placed_agree_with_the_pixels():
    photographs = [Photograph("1"), Photograph("2")]
    scores, fine = gammas.measure([NETWORK], photographs)
    tried = gammas.placed([NETWORK], photographs[:1])
    assert len(scores) == 2 * len(gammas.GAMMAS) and len(fine) == 2 * len(gammas.FINE)
    network, before = NETWORK.enhancer(), photographs[0].image()
    for place, image in (
        ("after", apply_gamma(network(before), 1.15)),
        ("before", network(apply_gamma(before, 1.15))),
    ):
        (row,) = tried[(tried["place"] == place) & (tried["gamma"] == 1.15)].to_dict("records")
        assert row["psnr"] == pytest.approx(metrics.psnr(image, photographs[0].reference()))
        assert row["ssim"] == pytest.approx(metrics.ssim(image, photographs[0].reference()))
    one = scores[(scores["photograph"] == "1") & (scores["gamma"] == 1.15)].iloc[0]
    later = tried[(tried["place"] == "after") & (tried["gamma"] == 1.15)].iloc[0]
    assert one["psnr_matched"] == pytest.approx(later["psnr_matched"])
    table = gammas.by_place(tried).set_index(["gamma", "place"])
    assert table.loc[(1.0, "before"), "brightness"] == 1
    assert table.loc[(1.15, "after"), "brightness"] == pytest.approx(
        one["mean"] / _plain(scores, "1")["mean"]
    )


def _plain(scores: pd.DataFrame, name: str) -> pd.Series:
    return scores[(scores["photograph"] == name) & (scores["gamma"] == 1)].iloc[0]


def test_rounding_twice_costs_a_level_at_most():
    (row,) = gammas.rounded_twice([NETWORK], [Photograph("1")]).to_dict("records")
    assert 0 < row["differ"] < 1 and row["most"] == 1
    assert row["levels_table"] <= row["levels_float"]


# ---- synthetic scores ----------------------------------------------------------------------------------------------

SCENES = [str(number) for number in range(12)]


def fine_table(peaks: dict[str, float]) -> pd.DataFrame:
    """PSNR of 20 dB at each scene's peak, falling with the square of log gamma; mean 0.5^gamma."""
    rows = [
        {
            "dataset": "sice-pairs",
            "scene": scene,
            "photograph": scene,
            "method": "net",
            "gamma": gamma,
        }
        | {"psnr": 20 - 10 * np.log(gamma / peak) ** 2, "mean": 0.5**gamma}
        for scene, peak in peaks.items()
        for gamma in gammas.FINE
    ]
    return pd.DataFrame(rows)


def coarse(fine: pd.DataFrame) -> pd.DataFrame:
    table = fine[fine["gamma"].isin(gammas.GAMMAS)]
    return table.assign(ssim=table["psnr"] / 100, psnr_matched=table["psnr"] + 1, ssim_matched=0.9)


def test_best_gamma_its_surroundings_and_interval():
    (row,) = gammas.best_gammas(fine_table(dict.fromkeys(SCENES, 1.3225))).to_dict("records")
    assert row["best"] == row["low"] == row["high"] == pytest.approx(1.3225)
    assert row["lost_at_1"] == pytest.approx(10 * np.log(1.3225) ** 2)
    assert row["near_from"] == pytest.approx(1.3225 * np.exp(-0.1), rel=0.02)
    few = gammas.best_gammas(fine_table(dict.fromkeys(SCENES[:4], 1.3225)))
    assert few[["low", "high"]].isna().all(axis=None)


def test_settings_come_from_the_other_half():
    sides = {scene: gammas.half("sice-pairs", scene) for scene in SCENES}
    assert set(sides.values()) == {"choose", "report"}
    fine = fine_table(
        {scene: 1.3225 if side == "choose" else 0.8696 for scene, side in sides.items()}
    )
    chosen = gammas.policies(coarse(fine), fine)
    assert set(chosen["scene"]) == {scene for scene, side in sides.items() if side == "report"}
    table = gammas.policy_table(chosen).set_index("policy")
    assert table.loc["best single", "setting"] == "1.32" and table.loc[
        "oracle", "gamma"
    ] == pytest.approx(0.8696)
    assert table.loc["oracle", "psnr"] == pytest.approx(20) and table.loc["no gamma", "gain"] == 0
    assert (
        table["gain"].max() == table.loc["oracle", "gain"] and table.loc["best single", "gain"] < 0
    )
    assert table.loc["mean to 0.50", "gamma"] == 1  # the mean is 0.5 without gamma
    assert chosen["psnr_matched"].to_numpy() == pytest.approx(
        chosen["psnr"].to_numpy() + 1, abs=1e-3
    )  # the spline


def test_rule_stays_within_its_limits():
    means = np.array(
        [
            [0.5**g for g in gammas.FINE],
            [0.01**g for g in gammas.FINE],
            [0.99**g for g in gammas.FINE],
        ]
    )
    told = gammas.rule(means, 0.25)
    assert told[0] == pytest.approx(2, abs=0.04) and 0.5 <= told[1] < 0.52 and 1.96 < told[2] <= 2


def test_gains_and_thirds():
    rows = [
        {
            "dataset": "sice-pairs",
            "scene": scene,
            "photograph": scene,
            "method": "net",
            "gamma": gamma,
        }
        | {"input_mean": int(scene) / 100, "reference_mean": 0.4, "mean": 0.5, "clipped_share": 0.1}
        | dict.fromkeys(("ssim", "psnr_matched", "ssim_matched"), 0.5)
        | {"psnr": 15 + (int(scene) - 3.5) * (gamma - 1)}
        for scene in SCENES
        for gamma in (1.0, 1.15)
    ]
    gained = gammas.gains(pd.DataFrame(rows))
    assert gained.groupby("third")["photograph"].apply(list).to_dict() == {
        "dark": SCENES[:4],
        "middle": SCENES[4:8],
        "light": SCENES[8:],
    }
    assert gained["brighter"].to_numpy() == pytest.approx(np.full(12, 25.5))
    table = gammas.thirds(gained).set_index("third")
    assert table["n"].tolist() == [4, 4, 4] and table.loc["dark", "gain_psnr"] == pytest.approx(
        -2 * 0.15
    )
    assert table.loc["middle", "won"] == 1 and table.loc["dark", "won"] == 0
    assert gammas.extremes(gained.assign(dataset="bundled"), "net") == [
        ("bundled", "11"),
        ("bundled", "0"),
    ]


def scored(change: float, scenes: list[str] = SCENES, base: float = 10.0) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "dataset": "sice-pairs",
                "scene": scene,
                "photograph": scene,
                "method": "net",
                "gamma": gamma,
            }
            | {"psnr": base + (change + 0.001 * (k % 2)) * (gamma == 1.15)}
            for k, scene in enumerate(scenes)
            for gamma in (1.0, 1.15)
        ]
    )


@pytest.mark.parametrize(
    ("table", "held"),
    [
        (scored(0.5), "yes"),
        (scored(-0.5), "no"),
        (scored(0.02), "no"),  # certain, but less than half a per cent
        (scored(0.5, SCENES[:4]), "not testable here"),
        (scored(0.0, base=0.0).assign(psnr=0.0), "not testable here"),
        (scored(0.5).drop(columns="psnr"), "not testable here"),
    ],
)
def test_a_part_holds_by_its_rule(table, held):
    part = gammas.Part("G2", "PSNR rises", "psnr", 1.15, +1, "dB")
    told = gammas.judge(part, table, "net")
    assert told["held"] == held
    if held == "yes":
        assert told["measured"] == "+0.501 dB" or told["measured"] == "+0.500 dB"
        assert told["n"] == "12 photographs"


def test_ledger_has_its_columns_and_both_claims():
    scores, _ = gammas.measure([NETWORK], [Photograph("1")])
    tried = gammas.placed([NETWORK], [Photograph("1")])
    grain = scores.assign(burst_noise=1.0, relative_noise=1.0).drop(columns="photograph")
    ledger = gammas.claims([NETWORK], scores, tried, grain)
    assert ledger.columns.tolist() == gammas.LEDGER
    assert set(ledger["claim"]) == {"G1", "G2"} and set(ledger["held"]) == {"not testable here"}
    assert gammas.claims([evaluation.OURS[0], NETWORK], scores, tried, grain).equals(ledger)
    assert " steps × " in ledger["budget"].iloc[0]


def test_noise_follows_the_slope_at_each_value():
    table = gammas.noise([NETWORK], ["bundled", "bundled"], 1, 64)
    assert len(table) == len(gammas.GAMMAS)
    near = table[table["gamma"].between(0.8, 1.4)]
    assert near["burst_noise"].to_numpy() == pytest.approx(
        near["burst_noise_by_slope"].to_numpy(), rel=0.03
    )
    assert (near["relative_noise"] * near["mean"] * 255).to_numpy() == pytest.approx(
        near["burst_noise"].to_numpy()
    )


def test_predictions_follow_the_formula():
    row = {"dataset": "bursts", "scene": "1", "method": "net"}
    grain = pd.DataFrame(
        [row | {"gamma": g, "mean": 0.25**g, "burst_noise": 3 * g * 0.25**g} for g in gammas.GAMMAS]
    )
    grain["relative_noise"] = grain["burst_noise"] / grain["mean"]
    scores = grain.assign(
        photograph="1", dark_spread=1.0, dark_mean=0.25, bright_spread=1.0, bright_mean=0.9
    )
    told = gammas.predictions(scores, grain).set_index("what")
    assert told.loc["noise ÷ brightness", ["predicted", "measured"]].tolist() == pytest.approx(
        [1.15, 1.15]
    )
    assert told.loc["brightness", "ratio"] == pytest.approx(1) and told.loc[
        "noise", "ratio"
    ] == pytest.approx(1)
    assert told.loc["contrast of dark tones", "predicted"] == pytest.approx(
        gammas.INVERSE * 0.25 ** (gammas.INVERSE - 1)
    )
