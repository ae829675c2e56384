"""The result comparison's rules: what counts as better, worse, no difference, too few; verdicts and their words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from zdce.study import comparison, evaluation, plots

PLAIN, NETWORK, PIPELINE = (method.label for method in evaluation.OURS)


def scores(figure: str, plain: list, pipeline: list, scenes: list | None = None) -> pd.DataFrame:
    """A table as evaluation.evaluate makes it, of one figure; the network alone scores as the original does."""
    rows = []
    for method, values in ((PLAIN, plain), (NETWORK, plain), (PIPELINE, pipeline)):
        for number, value in enumerate(values):
            scene = str(scenes[number] if scenes else number)
            row = {
                "dataset": "lime",
                "photograph": f"{number}.bmp",
                "scene": scene,
                "method": method,
                figure: value,
            }
            rows.append(row)
    return pd.DataFrame(rows)


def outcome(claim: str, table: pd.DataFrame) -> str:
    found = comparison.differences(table)
    return found.loc[found["claim"] == claim, "outcome"].item()


BASE = [0.90, 0.80, 0.85, 0.70, 0.95]


@pytest.mark.parametrize(
    ("pipeline", "word"),
    [
        ([x + 0.02 for x in BASE], "better"),
        ([x - 0.02 for x in BASE], "worse"),
        ([0.95, 0.75, 0.90, 0.65, 0.95], "no difference"),
        ([x + 0.0004 for x in BASE], "negligible"),
        ([np.nan] * 5, "nothing to see"),
    ],
)
def test_outcome_follows_the_interval(pipeline, word):
    assert outcome("E3", scores("detail_kept", BASE, pipeline)) == word


def test_lower_is_better_where_the_table_of_metrics_says_so():
    assert outcome("E1", scores("newly_clipped", BASE, [x / 2 for x in BASE])) == "better"
    assert outcome("E1", scores("newly_clipped", [0.0] * 5, [0.0] * 5)) == "nothing to see"


def test_nearer_zero_compares_sizes():
    assert (
        outcome("E1", scores("bright_gain", [30.0, 31, 29, 33, 30], [-5.0, -4, -6, -5, -5]))
        == "better"
    )


def test_four_scenes_are_too_few_however_many_photographs():
    base, scenes = BASE + BASE, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert outcome("E3", scores("detail_kept", base, [x + 0.02 for x in base], scenes)) == "too few"


def test_photographs_of_one_scene_are_drawn_together():
    table = scores("psnr", [20.0] * 8, [21.0] * 4 + [19.0] * 4, [0, 0, 0, 0, 1, 1, 1, 1])
    mean, low, high = evaluation.paired_difference(table, "psnr", PIPELINE, PLAIN)
    assert (mean, low, high) == (0, -1, 1)  # eight independent photographs would give about ±0.7


def test_answers_count_outcomes_and_judge():
    better = comparison.differences(scores("detail_kept", BASE, [x + 0.02 for x in BASE]))
    mixed = pd.concat([better, comparison.differences(scores("ssim_matched", BASE, BASE))])
    told = comparison.answers(mixed).set_index("claim")
    assert told.loc["E3", ["verdict", "better", "no difference", "open"]].tolist() == [
        "partly supported",
        1,
        1,
        0,
    ]
    assert comparison.answers(better).set_index("claim").loc["E3", "verdict"] == "supported"
    (line,) = [line for line in comparison.reasons(mixed) if "E3" in line]
    assert (
        "*better*: `detail_kept` (lime +0.02)" in line
        and "*no difference*: `ssim_matched` (lime +0)" in line
    )


def test_outcomes_at_a_glance_tell_where_weights_disagree():
    better = comparison.differences(scores("detail_kept", BASE, [x + 0.02 for x in BASE])).query(
        "claim == 'E3'"
    )
    again = better.assign(weights="trained here, seed 1")
    glance = comparison.outcomes(pd.concat([better, again])).set_index(["claim", "figure"])
    assert glance.loc[("E3", "detail_kept"), "lime"] == "better"
    other = again.assign(outcome="no difference")
    glance = comparison.outcomes(pd.concat([better, other])).set_index(["claim", "figure"])
    assert glance.loc[("E3", "detail_kept"), "lime"] == "better 1, no difference 1"
    first, last = comparison.reasons(pd.concat([better, other]))
    assert first.startswith("- **E3 details**, weights trained here.")
    assert (
        "seed 1**: 1 of 1 comparisons come out otherwise: `detail_kept` on lime no difference."
        in last
    )


def test_headline_says_once_what_weights_agree_on():
    better = comparison.differences(scores("detail_kept", BASE, [x + 0.02 for x in BASE])).query(
        "claim == 'E3'"
    )
    rest = [
        better.assign(weights="trained here, seed 1"),
        better.assign(weights="published", outcome="worse"),
    ]
    told = comparison.headline(comparison.answers(pd.concat([better, *rest])))
    assert told == (
        "With weights trained here (2 seeds): E3 (details) **supported**. "
        "With weights published: E3 (details) **not supported**."
    )


def test_extremes_are_the_largest_gain_and_loss():
    table = scores("ssim", BASE, [0.9, 0.9, 0.8, 0.7, 0.95]).assign(dataset="bundled")
    table["photograph"] = table["photograph"].map(
        lambda name: f"astronaut-{int(name[0]) % 3 + 2}ev"
    )
    table = table[table["scene"].isin(["0", "1", "2"])]
    chosen = comparison.extremes(table, ["bundled"], ("ssim_matched", "ssim"), PIPELINE, PLAIN)
    assert [sample.name for sample in chosen] == ["astronaut-3ev", "astronaut-4ev"]


def test_restless_scenes():
    rows = [("a", "input", 1.0), ("b", "input", 1.1), ("c", "input", 5.0), ("a", "other", 9.0)]
    noise = pd.DataFrame(rows, columns=["scene", "method", "burst_noise"]).assign(dataset="bursts")
    assert comparison.restless(noise) == ["c"]


def test_calibration_finds_the_scores_beside_the_data(shared):
    expected = pd.read_csv(shared / "expected" / "sice_pairs_published_weights.csv")
    rows = (
        expected[expected["method"].isin(["zero-dce", "zero-dce-improved + gamma 1.15"])]
        .groupby("method")
        .head(2)
    )
    labels = {"zero-dce": "zero-dce (published)"}
    labels["zero-dce-improved + gamma 1.15"] = "zero-dce-improved + gamma (published)"
    table = (
        rows.replace({"method": labels})
        .rename(columns={"low": "photograph"})
        .assign(dataset="sice-pairs")
    )
    table.loc[table["method"] == "zero-dce (published)", "psnr"] += 0.25
    told = comparison.calibration(table).set_index("method")
    assert told["n"].tolist() == [2, 2]
    assert told["psnr"].tolist() == pytest.approx([0.25, 0])


def test_square_in_which_images_differ_most():
    first = np.zeros((100, 120, 3), np.uint8)
    second = first.copy()
    second[60:85, 30:55] = 200
    assert plots.differing([first, second]) == (30, 60, 25)


# --- another seed -------------------------------------------------------------------------------------------------


def test_spread_over_seeds_is_the_range_of_their_means():
    rows = [
        {
            "dataset": "lime",
            "photograph": str(k),
            "scene": str(k),
            "method": method,
            "psnr": value + k,
        }
        for method, value in (("a", 10.0), ("a (seed 1)", 12.0), ("a (seed 2)", 11.0), ("b", 5.0))
        for k in (0, 1)
    ]
    (row,) = comparison.over_seeds(pd.DataFrame(rows), ["psnr", "ssim"]).to_dict("records")
    assert row == {
        "dataset": "lime",
        "figure": "psnr",
        "method": "a",
        "seeds": 3,
        "lowest": 10.5,
        "highest": 12.5,
        "range": 2.0,
    }
    alone = pd.DataFrame(rows).query("method == 'b'")
    assert comparison.over_seeds(alone, ["psnr"]).empty


def test_every_other_seed_is_judged_like_the_first():
    shipped, again = comparison.ORIGINS["trained here"], comparison.ORIGINS["trained here, seed 1"]
    plain, network, pipeline = (method.label for method in evaluation.OURS)
    rows = [
        {
            "dataset": "lime",
            "photograph": str(k),
            "scene": str(k),
            "method": label + suffix,
            "detail_kept": value,
        }
        for suffix, gain in ((shipped, 0.1), (again, -0.1))
        for label, value in ((pipeline, 0.5 + gain), (network, 0.5), (plain, 0.5))
        for k in range(6)
    ]
    found = comparison.differences(pd.DataFrame(rows)).query("claim == 'E3'")
    assert dict(zip(found["weights"], found["outcome"], strict=True)) == {
        "trained here": "better",
        "trained here, seed 1": "worse",
    }
    budgets = comparison.claims(found).set_index("part")["budget"]
    assert "seed 1" in budgets["detail_kept, weights trained here, seed 1"]
