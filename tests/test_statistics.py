"""The one paired test: what it pairs and what its interval covers."""

import numpy as np
import pandas as pd
import pytest

from zdce.study import statistics


def scores(effects: list[float], noise: float = 0.05, scenes: int = 30, spread: float = 1.0):
    """Two methods over seeds: seeds lie ``spread`` apart, "b" lies effects[seed] above "a"."""
    random, rows = np.random.default_rng(0), []
    for seed, effect in enumerate(effects):
        level = random.normal(0, spread)
        for scene in range(scenes):
            base = 17 + 3 * np.sin(scene) + level
            for method, more in (("a", 0.0), ("b", effect + random.normal(0, noise))):
                row = {"dataset": "d", "scene": str(scene), "photograph": f"{scene}.jpg"}
                rows.append(row | {"method": method, "seed": seed, "psnr": base + more})
    return pd.DataFrame(rows)


def test_a_difference_within_seeds_counts_though_seeds_lie_further_apart():
    found = statistics.compare(scores([0.1, 0.12, 0.08]), "psnr", "b", "a")
    assert found.mean == pytest.approx(0.1, abs=0.01)
    assert 0.05 < found.low < found.mean < found.high < 0.15
    assert (found.n, found.scenes, found.seeds) == (30, 30, 3)


def test_seeds_that_disagree_leave_zero_in_the_interval():
    found = statistics.compare(scores([0.3, 0.3, -0.2]), "psnr", "b", "a")
    assert found.low < 0 < found.high


def test_photographs_of_one_scene_are_one_witness():
    table = scores([0.0], noise=1.0, scenes=12)
    copies = [table.assign(photograph=f"{k}-" + table["photograph"]) for k in range(20)]
    alone = statistics.compare(table, "psnr", "b", "a")
    many = statistics.compare(pd.concat(copies), "psnr", "b", "a")
    assert many.n == 20 * alone.n and many.scenes == alone.scenes
    assert many.high - many.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    random, covered = np.random.default_rng(1), 0
    for _ in range(200):
        index = pd.Index(range(40), name="scene")
        found = statistics.interval(pd.Series(random.normal(1, 2, 40), index))
        covered += found.low <= 1 <= found.high
    assert 180 <= covered <= 199


def test_a_method_without_seeds_meets_every_seed():
    table = scores([0.5, 0.7])
    fixed = table[(table["method"] == "a") & (table["seed"] == 0)]
    fixed = fixed.assign(method="published", seed=pd.NA)
    both = pd.concat([table.astype({"seed": "Int64"}), fixed.astype({"seed": "Int64"})])
    found = statistics.compare(both, "psnr", "b", "published")
    back = statistics.compare(both, "psnr", "published", "b")
    assert found.seeds == back.seeds == 2
    assert found.mean == pytest.approx(-back.mean)


def test_undefined_pairs_are_left_out_and_what_is_missing_is_named():
    table = scores([0.2])
    table.loc[table["scene"].isin(["3", "4"]) & (table["method"] == "a"), "psnr"] = np.nan
    assert statistics.compare(table, "psnr", "b", "a").n == 28
    with pytest.raises(ValueError, match="method='c'"):
        statistics.compare(table, "psnr", "b", "c")
    with pytest.raises(ValueError, match="figure='ssim'"):
        statistics.compare(table, "ssim", "b", "a")
    empty = statistics.compare(table.assign(psnr=np.nan), "psnr", "b", "a")
    assert empty.n == 0 and np.isnan(empty.mean)


def test_differences_of_every_set_and_pair():
    table = pd.concat([scores([0.2]), scores([0.4]).assign(dataset="e")])
    found = statistics.differences(table, ["psnr", "ssim"], [("b", "a"), ("b", "unknown")])
    assert found[["dataset", "figure"]].to_numpy().tolist() == [["d", "psnr"], ["e", "psnr"]]
    assert found["mean"].tolist() == pytest.approx([0.2, 0.4], abs=0.05)
