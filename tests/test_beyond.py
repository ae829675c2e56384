"""The network beyond the study: its rows, its goals, and what is said about them."""

from __future__ import annotations

import pandas as pd
import pytest

from zdce import metrics
from zdce.study import beyond, evaluation

PEER, OTHER = "zero-dce-improved (published)", "sci-medium"


def table(psnr=26.0, noise=0.04, clipped=0.01) -> pd.DataFrame:
    rows = [
        ("input", 10.0, 0.12, 0.0, 0.0),
        (PEER, 17.0, 0.1, 0.02, 9.0),
        (OTHER, 16.0, 0.2, 0.03, 5.0),
        (f"{beyond.PIPELINE} (published)", 16.5, 0.1, 0.015, 9.0),
        (beyond.NAME, psnr, noise, clipped, 4.0),
        (f"{beyond.NAME} (seed 1)", psnr - 3, noise, clipped, 6.0),
    ]
    return pd.DataFrame(
        rows, columns=["method", "psnr", "relative_noise", "clipped_share dicm", "ms"]
    )


def test_goals_come_from_the_peers_of_the_run_and_take_every_seed():
    goals = beyond.judged(table()).set_index("figure")
    assert goals.loc["psnr", ["best_peer", "wanted", "ours", "lowest", "reached"]].tolist() == [
        PEER,
        22.0,
        24.5,
        23.0,
        "yes",
    ]
    assert (
        goals.loc["relative_noise", "wanted"] == 0.05
        and goals.loc["relative_noise", "reached"] == "yes"
    )
    assert goals.loc["clipped_share dicm", "wanted"] == 0.015
    assert goals.loc["ms", ["wanted", "reached"]].tolist() == [5.0, "no"]  # one seed is slower
    missed = beyond.judged(table(psnr=24.0)).set_index("figure").loc["psnr"]
    assert missed["reached"] == "no" and missed["missing"] == 0  # the mean does, a seed does not
    assert beyond.judged(table(psnr=20.0)).set_index("figure").loc["psnr", "missing"] == 3.5


def test_goals_without_their_peer_are_open():
    alone = table()
    alone = alone[alone["method"] != OTHER]
    assert beyond.judged(alone).set_index("figure").loc["ms", "reached"] == "not testable here"


def test_what_is_said_follows_from_the_goals():
    goals = beyond.judged(table(psnr=20.0))
    said = beyond.headline(goals)
    assert (
        said.startswith("**Reached:** relative_noise (0.04, wanted 0.05)")
        and "**Not reached:** psnr" in said
    )
    ablated = pd.DataFrame({"method": [beyond.NAME, "a"], "psnr": [20.0, 18.5], "ssim": [0.7, 0.6]})
    ablated["relative_noise"] = [0.04, 0.05]
    dark = pd.DataFrame({"method": [beyond.NAME], "newly_clipped": [0.02], "bright_gain": [30.0]})
    lines = beyond.findings(goals, ablated, dark, pd.DataFrame({"ssim": [0.8], "psnr": [30.0]}))
    assert any("**psnr**: 18.5 (17 – 20 over 2 seeds), wanted 22" in line for line in lines)
    assert any("`a` -1.50 dB, SSIM -0.100, noise +0.0100" in line for line in lines)
    assert any("2.00% and +30" in line for line in lines) and "0.800 (30.0 dB)" in lines[-1]


def test_rows_say_what_they_change_and_where_their_weights_are():
    rows = beyond.rows().set_index("arm")
    assert rows.loc[beyond.NAME, "change"] == "reference row" and rows.index[0] == beyond.NAME
    assert "net.level 0.44 → default" in rows.loc["zero-dce-night", "change"]
    assert "loss.exposure_of light → photograph" in rows.loc["zero-dce-context", "change"]
    assert rows.loc["night-target-46", "change"] == "loss.exposure_target 0.45 → 0.46"
    assert rows.loc["context-not-darkened", "change"] == "darkened 0.5 → default"
    assert rows["weights"].notna().sum() >= 8
    assert [method.label for method in beyond.arms(beyond.rows(), "context-three-curves")] == [
        "context-three-curves"
    ]
    with pytest.raises(ValueError, match="no arm 'context-nothing'"):
        beyond.arms(beyond.rows(), "context-nothing")


def test_a_good_photograph_is_compared_with_itself_once_a_scene():
    same = beyond.to_itself(
        [evaluation.INPUT, evaluation.Method("zero-dce", "zero-dce")], "bundled", 10
    )
    assert same.groupby("method")["scene"].nunique().eq(same.groupby("method").size()).all()
    values = same.groupby("method")["to_itself"].mean()
    assert values["input"] == beyond.UNCHANGED and 5 < values["zero-dce"] < 30
    assert (same.loc[same["method"] == "zero-dce", "mean_changed"] > 0).all()


def test_night_is_what_was_dark():
    rows = [
        ("lime", "1", "input", 0.1),
        ("lime", "2", "input", 0.5),
        ("lime", "1", "a", 0.3),
        ("lime", "2", "a", 0.9),
    ]
    scores = pd.DataFrame(rows, columns=["dataset", "photograph", "method", "mean"])
    scores = scores.assign(newly_clipped=scores["mean"], bright_gain=1.0, color_cast=1.0)
    told = beyond.night(scores, scores[scores["method"] == "input"], ["a"])
    assert told[["method", "mean", "n"]].to_numpy().tolist() == [["a", 0.3, 1]]


def test_the_histogram_of_the_reference_is_a_ceiling_for_tones():
    limit = beyond.ceiling("bundled", 2)
    assert len(limit) == 2 and (limit["psnr"] > 20).all() and (limit["ssim"] < 1).all()


def test_one_table_joins_sets_and_times():
    scores = evaluation.evaluate([evaluation.INPUT, beyond.OURS], "bundled", 1)
    wild = scores.assign(dataset="dicm")
    good = beyond.to_itself([evaluation.INPUT, beyond.OURS], "bundled", 1)
    noise = evaluation.evaluate_bursts([evaluation.INPUT, beyond.OURS], "bundled", 1)
    times = pd.DataFrame({"version": [beyond.NAME], "pixels_ms": [5.0]})
    one = beyond.one_table(pd.concat([scores, wild]), good, noise, times).set_index("method")
    assert list(one.index) == ["input", beyond.NAME]
    assert one.loc[beyond.NAME, "ms"] == 5 and 70 < one.loc[beyond.NAME, "KB"] < 97
    assert one.loc[beyond.NAME, "clipped_share dicm"] == pytest.approx(
        scores["clipped_share"].iloc[1]
    )
    assert one.loc["input", "psnr"] == pytest.approx(scores["psnr"].iloc[0])
    assert metrics.METRICS  # the figures' definitions
