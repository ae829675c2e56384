"""The ablations' rules: rows and what they change, borders, when a difference counts, how far the loss swings."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from zdce import checkpoints, losses, metrics
from zdce.model import CurveNet
from zdce.step import batches
from zdce.study import ablation, evaluation, experiments
from zdce.study import claims_old as ledger

SEEDS = ("seed 0", "seed 1")


def scores(figure: str, dataset: str = "sice-pairs", **methods: list[float]) -> pd.DataFrame:
    """A table as evaluation.evaluate makes it: a scene a photograph."""
    rows = [
        {
            "dataset": dataset,
            "photograph": f"{k}.jpg",
            "scene": str(k),
            "method": name.replace("_", "-"),
            figure: value,
        }
        for name, values in methods.items()
        for k, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Keep untrained networks for the named arms, seeds and steps, as if their trainings had finished."""
    monkeypatch.setattr(evaluation.paths, "reports", lambda profile="": tmp_path)

    def keep(*wanted: tuple[str, int, int]) -> None:
        home = experiments.training_folder()
        home.mkdir(exist_ok=True)
        for config in experiments.plan("study"):
            if (config.name, config.seed, config.steps) in wanted:
                stem = home / config.run_name()
                checkpoints.save(
                    f"{stem}.safetensors",
                    CurveNet(config.net),
                    config.name,
                    config.gamma,
                    train=config.header(),
                )
                pd.DataFrame({"step": [0, 1], "loss": [1.0, 0.9]}).to_csv(
                    f"{stem}.csv.gz", index=False
                )
                facts = '{"seconds": 1.0, "device": "cpu", "threads": 1, "torch": "2"}'
                Path(f"{stem}.json").write_text(facts)

    return keep


# --- rows ---------------------------------------------------------------------------------------------------------


def test_every_arm_but_the_paper_s_stands_in_one_table_or_in_both():
    assert set(ablation.NETWORK) | set(ablation.LOSSES) == set(experiments.ARMS) - {"zero-dce"}
    assert set(ablation.NETWORK) & set(ablation.LOSSES) == {ablation.REFERENCE}
    assert ablation.NETWORK[0] == ablation.LOSSES[0] == ablation.REFERENCE


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ("zero-dce-improved", "reference row"),
        ("channels-8", "channels 16 → 8"),
        ("channels-32-no-pool", "channels 16 → 32 (of no-pool)"),
        ("tv-600", "TV weight 300 → 600"),
        ("no-color", "weight of color 5 → 0"),
        ("exposure-0.5", "exposure target 0.6 → 0.5"),
        ("not-over-exposed", "data sice-train → sice-train-not-over"),
        ("float32", "precision bfloat16 → float32"),
    ],
)
def test_what_an_arm_changes(arm, words):
    assert ablation.change(arm) == words


def test_rows_are_those_trained_with_the_tables_budget(kept):
    main, budget = experiments.BUDGETS["study"].main_steps, experiments.BUDGETS["study"].steps
    kept(
        *(
            (ablation.REFERENCE, seed, steps)
            for seed, steps in ((0, budget), (1, budget), (0, main), (1, main))
        )
    )
    table = ablation.rows((ablation.REFERENCE, "no-pool", "pools-2"))
    assert list(table["arm"]) == [ablation.REFERENCE, "no-pool", "pools-2"]
    assert ablation.missing(table) == "not trained yet: no-pool, pools-2"
    assert table["budget"].unique().tolist() == ["2,000 steps × 4 at 128 px, seed 0"]
    assert f"--steps {budget} --seed 0" in table["command"][0]
    (method,) = ablation.methods(table)
    assert (method.label, method.gamma) == (ablation.REFERENCE, 1.0)
    assert [method.label for method in ablation.seeds()] == [f"{ablation.REFERENCE}, seed 1"]
    assert ablation.main_budget() == "5,000 steps × 4 at 128 px, seeds 0, 1"


def test_nothing_kept_is_said_not_raised(kept):
    table = ablation.rows(ablation.NETWORK)
    assert not ablation.methods(table) and not ablation.seeds() and ablation.main_budget() == ""
    assert "pools-3" in ablation.missing(table)


def test_precision_compares_the_last_epoch_of_two_trainings(kept):
    budget = experiments.BUDGETS["study"].steps
    assert ablation.precision() is None and "not kept" in ablation.on_precision(None)
    kept((ablation.REFERENCE, 0, budget), ("float32", 0, budget))
    for config in experiments.plan("study", seeds=[0], arms=[ablation.REFERENCE, "float32"]):
        terms = dict.fromkeys(losses.TERMS, 0.2) | {
            "smoothness": 0.15 if config.name == "float32" else 0.25
        }
        early, late = dict.fromkeys(losses.TERMS, 9.0), 501  # steps of an epoch
        record = pd.DataFrame([early] * 10 + [terms] * late)
        record["loss"] = record.sum(axis=1)
        record.to_csv(
            experiments.training_folder() / f"{config.run_name()}.csv.gz", index_label="step"
        )
    table = ablation.precision().set_index("training")
    assert table.index.tolist() == [
        "convolutions in bfloat16",
        "convolutions in float32",
        "difference",
    ]
    assert table.loc["difference", ["loss", "smoothness", "color"]].tolist() == pytest.approx(
        [0.1, 0.1, 0]
    )
    assert "+0.1000 of it in the term *smoothness*" in ablation.on_precision(ablation.precision())


def test_costs(kept):
    kept((ablation.REFERENCE, 0, experiments.BUDGETS["study"].steps))
    costs = ablation.costs(ablation.rows((ablation.REFERENCE, "channels-32-no-pool"))).set_index(
        "arm"
    )
    assert costs["parameters"].tolist() == [23592, 79416]
    assert costs["multiply_adds_M"].round(-1).tolist() == [1540, 5190]  # design: 1.54 G and 5.19 G
    assert costs.loc[ablation.REFERENCE, "file_KB"] == pytest.approx(94, abs=1)
    assert np.isnan(costs.loc["channels-32-no-pool", "file_KB"])


def test_arms_are_chosen_by_name():
    assert ablation.chosen("pools-2, no-pool", ablation.NETWORK) == [
        ablation.REFERENCE,
        "pools-2",
        "no-pool",
    ]
    assert ablation.chosen("all", ablation.LOSSES) == list(ablation.LOSSES)
    with pytest.raises(ValueError, match="no arm 'tv-200' in this table"):
        ablation.chosen("tv-200", ablation.NETWORK)


# --- borders ------------------------------------------------------------------------------------------------------


def test_a_white_frame_is_found_and_a_bright_photograph_is_none():
    values = np.full((80, 100), 90.0)
    assert ablation.frame_excess(values) == 0
    framed = values.copy()
    framed[:4] = framed[-4:] = framed[:, :4] = framed[:, -4:] = 120
    assert ablation.frame_excess(framed) == pytest.approx(30)
    middle = np.pad(np.full((20, 40), 60.0), 32)
    assert ablation.frame_excess(90 + middle) == 0  # a bright middle is no border
    assert ablation.frame_excess(framed, relative=True) == pytest.approx(100 / 3)
    assert ablation.frame_excess(framed / 2, relative=True) == pytest.approx(
        100 / 3
    )  # a darker row gains nothing
    assert np.isnan(ablation.frame_excess(np.zeros((12, 200))))
    assert np.isnan(ablation.frame_excess(np.zeros((90, 90)), relative=True))


def test_borders_of_methods_differ_by_their_frames_alone(monkeypatch):
    class Framed(evaluation.Method):
        def enhancer(self, device="auto"):
            def run(photograph):
                out = photograph / 2 + 60
                frame = ablation.edge_distance(*photograph.shape[:2]) < 4
                out[frame] = out[frame] * (1 + int(self.model) / 100)
                return out.round().astype(np.uint8)

            return run

    rows = [Framed(ablation.REFERENCE, "0"), Framed("framed", "20")]
    table, profiles = ablation.borders(rows, "bundled", 2)
    pair = evaluation.paired(table, "frame_brightness", "framed", ablation.REFERENCE)
    assert pair.to_numpy() == pytest.approx(
        20, abs=4
    )  # per cent of the strip, beside which the frame may be darker
    profile = ablation.border_profile(profiles)
    framed = profile[profile["method"] == "framed"].set_index("distance")["excess"]
    assert framed[:4].to_numpy() == pytest.approx(20, abs=4) and framed[4:].abs().max() < 0.01
    assert set(profile.loc[profile["method"] == ablation.REFERENCE, "excess"]) == {0}


# --- when a difference counts -------------------------------------------------------------------------------------

BASE = [20.0, 21, 22, 23, 24, 25]


def compared(gain: list[float], seeds: float | None, count: int = 6) -> str:
    methods = {"new": [x + g for x, g in zip(BASE, gain, strict=True)][:count], "old": BASE[:count]}
    table = scores("psnr", **methods)
    if seeds is not None:
        runs = [scores("psnr", first=BASE), scores("psnr", second=[x + seeds for x in BASE])]
        runs = [run.assign(method=label) for run, label in zip(runs, SEEDS, strict=True)]
        table = pd.concat([table, *runs])
    return ablation.compare(table, "psnr", "new", "old", SEEDS)["outcome"]


@pytest.mark.parametrize(
    ("gain", "seeds", "count", "outcome"),
    [
        ([1.0] * 6, 0.2, 6, "higher"),
        ([-1.0] * 6, 0.2, 6, "lower"),
        ([1.0] * 6, 1.5, 6, "no difference"),  # inside the spread over seeds
        ([1.0, -1, 1, -1, 1, -1], 0.2, 6, "no difference"),  # inside the interval over scenes
        ([1.0] * 6, None, 6, "one seed"),
        ([1.0, -1, 1, -1, 1, -1], None, 6, "no difference"),
        ([1.0] * 6, 0.2, 4, "too few"),
    ],
)
def test_a_difference_counts_beyond_interval_and_seeds(gain, seeds, count, outcome):
    assert compared(gain, seeds, count) == outcome


def test_a_row_that_is_missing_is_not_trained():
    assert ablation.compare(scores("psnr", old=BASE), "psnr", "new", "old") == {
        "outcome": "not trained"
    }


def test_real_photographs_decide_where_there_are_any():
    darkened = scores("psnr", "bundled", new=[0.0] * 6, old=BASE)
    both = pd.concat([darkened, scores("psnr", new=[x + 1 for x in BASE], old=BASE)])
    assert ablation.compare(ablation.real(both), "psnr", "new", "old")["difference"] == 1
    assert ablation.real(darkened) is not None and len(ablation.real(darkened)) == 12


def expectation(direction: str, least: float = 0.0) -> ablation.Expectation:
    return ablation.Expectation(
        "N5", "PSNR", ablation.REFERENCE, "no-pool", "psnr", direction, least
    )


@pytest.mark.parametrize(
    ("direction", "least", "held"),
    [("higher", 0.0, "yes"), ("lower", 0.0, "no"), ("higher", 2.0, "no")],
)
def test_the_ledger_s_word_follows_from_the_numbers(direction, least, held):
    table = scores("psnr", zero_dce_improved=[x + 1 for x in BASE], no_pool=BASE)
    runs = [table[table["method"] == "no-pool"].assign(method=label) for label in SEEDS]
    table = pd.concat([table, *runs])
    judged = ablation.judge([expectation(direction, least)], [table], SEEDS)
    parts = ablation.ledger_rows(judged, ablation.rows((ablation.REFERENCE, "no-pool")), 2)
    assert list(parts.columns) == ledger.COLUMNS
    (part,) = parts.to_dict("records")
    assert (part["held"], part["n"]) == (held, "6 scenes")
    assert part["measured"] == "+1 dB, higher: 23.5 against 22.5, spread of 2 seeds 0"
    assert part["interval"] == "+1 – +1" and part["budget"] == "2,000 steps × 4 at 128 px, seed 0"


def test_an_untrained_row_is_not_testable():
    judged = ablation.judge(ablation.NETWORK_TESTS, [scores("psnr", zero_dce_improved=BASE)])
    parts = ablation.ledger_rows(judged, ablation.rows(ablation.NETWORK), 0)
    assert set(parts["held"]) == {"not testable here"}
    assert ablation.headline(parts).count("**") == 2 and "Not testable here:" in ablation.headline(
        parts
    )


@pytest.mark.parametrize(
    "tests", [ablation.NETWORK_TESTS, ablation.LOSS_TESTS, ablation.LOSS_PREDICTIONS]
)
def test_expectations_name_arms_and_figures_that_exist(tests):
    known = {metric.name for metric in metrics.METRICS} | {"frame_brightness"}
    for test in tests:
        assert {test.arm, test.other} <= set(experiments.ARMS) and test.figure in known
        assert test.direction in ("higher", "lower", "no difference") and (
            not test.claim or test.claim in ledger.CLAIMS
        )


# --- sizes and speed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kb", "held"), [((312.1, 94.0), ["yes", "yes"]), ((312.1, 80.0), ["yes", "no"])]
)
def test_file_sizes(kb, held):
    files = pd.DataFrame(
        {"weights": "trained here", "network": ["zero-dce", ablation.REFERENCE], "KB": kb}
    )
    assert [part["held"] for part in ablation.size_parts(files)] == held


def test_training_speed_must_exceed_the_scatter_of_its_rounds():
    rows = [("zero-dce", 10.0, 9.0, 11.0), (ablation.REFERENCE, 20.0, 12.0, 22.0)]
    table = pd.DataFrame(rows, columns=["net", "photographs_per_second", "lowest", "highest"])
    table = table.assign(variant="one training", rounds=3, device="2 cores")
    (part,) = ablation.speed_parts(table)
    assert (
        part["held"] == "yes"
        and part["measured"].startswith("2.00 ×")
        and part["interval"] == "1.09 – 2.44"
    )
    table.loc[1, "lowest"] = 10.5
    assert ablation.speed_parts(table)[0]["held"] == "no"
    assert ablation.speed_parts(None)[0]["held"] == "not testable here"


def test_training_at_128_ranks_the_arms_as_training_at_256():
    kept = ablation.training_size()
    assert sorted(kept["size"].unique()) == [128, 256] and kept["arm"].nunique() >= 5
    ranks = ablation.size_ranks(kept).set_index("figure")
    assert (ranks.loc[["psnr", "ssim", "mean", "relative_noise"], "rank_correlation"] >= 0.9).all()
    assert (ranks["spread_of_arms"] > 3 * ranks["moved_by_size"]).all()


def test_an_order_that_the_size_turns_around_is_seen():
    rows = [
        ("one", 128, 1.0, 1.0),
        ("two", 128, 2.0, 2.0),
        ("one", 256, 2.5, 1.5),
        ("two", 256, 1.5, 2.5),
    ]
    scores = pd.DataFrame(rows, columns=["arm", "size", "psnr", "ssim"])
    ranks = ablation.size_ranks(scores).set_index("figure")
    assert ranks["rank_correlation"].tolist() == [-1, 1] and ranks["moved_by_size"].tolist() == [
        1,
        0.5,
    ]
    assert ranks.loc["psnr", "spread_of_arms"] == 1
    assert ablation.on_size(scores).startswith(
        "Trained at 128 and at 256 px, the arms stand in the same order by ssim;"
    )
    assert "psnr (-1.00)" in ablation.on_size(scores) and "not measured" in ablation.on_size(None)


# --- the loss over the training -----------------------------------------------------------------------------------


def record(
    seed: int, epochs: int, learned: float, photographs: int = 60, noise: float = 0.01
) -> pd.DataFrame:
    """Losses of batches of four, each the mean of what its photographs cost, falling by epoch to ``learned``."""
    rng = np.random.default_rng(9)
    cost, per_epoch = rng.normal(1, 0.4, photographs), photographs // 4
    shown = itertools.islice(batches(photographs, 4, seed), epochs * per_epoch)
    loss = [
        cost[numbers].mean() + learned * 0.3 ** (k // per_epoch) for k, numbers in enumerate(shown)
    ]
    steps = range(epochs * per_epoch)
    return pd.DataFrame(
        {"seed": seed, "step": steps, "loss": np.array(loss) + rng.normal(0, noise, len(loss))}
    )


def test_photographs_that_cost_the_same_each_time_tell_the_swing():
    loss = record(0, 12, 0.2)["loss"].to_numpy()
    assert ablation.photograph_share(loss, 4, 0, 60) > 0.9
    assert ablation.photograph_share(loss, 4, 1, 60) < 0.3  # told by batches that were not shown
    assert ablation.photograph_share(np.random.default_rng(0).normal(size=180), 4, 0, 60) < 0.3
    assert np.isnan(ablation.photograph_share(loss[:30], 4, 0, 60))


def test_swing_and_its_claims():
    records = pd.concat([record(seed, 8, 0.1) for seed in (0, 1)])
    swings = ablation.swing(records, 4, 60)
    assert swings["epochs"].tolist() == [8, 8]
    assert swings["drop"].to_numpy() == pytest.approx(0.1, abs=0.02)
    assert (swings["ratio"] > 1).all() and (swings["late_share"].abs() < 0.1).all()
    parts = ledger.parts(ablation.swing_parts(swings, "a budget"))
    assert parts["held"].tolist() == ["yes", "yes", "yes", "not testable here"]
    assert parts["measured"].iloc[-1] == "trained for 8 epochs"
    falling = ablation.swing(pd.concat([record(seed, 8, -0.1) for seed in (0, 1)]), 4, 60)
    assert ablation.swing_parts(falling, "")[0]["held"] == "no"
    assert {part["held"] for part in ablation.swing_parts(None, "")} == {"not testable here"}


def test_epochs_beside_the_published_curve():
    epochs = ablation.epoch_table(pd.concat([record(seed, 8, 0.1) for seed in (0, 1)]), 4, 60)
    assert epochs["steps"].unique().tolist() == [15] and len(epochs) == 16
    curve = ablation.against_published(epochs, {1: 1.0, 20: 0.5}).set_index("epoch")
    assert list(curve.index) == [*range(1, 9), 20]
    assert curve.loc[1, "difference"] == pytest.approx(curve.loc[1, "mean"] - 1.0)
    assert np.isnan(curve.loc[20, "mean"]) and curve.loc[1, "seeds"] == 2
    words = ablation.on_curve(curve.reset_index())
    assert "at epoch 8, the last" in words and "published 0.50 of epoch 20" in words
    assert ablation.on_curve(None) == ""


def test_brightness_is_predicted_in_proportion_to_the_target():
    table = scores("mean", zero_dce_improved=[0.3, 0.3], exposure_0=[0.2, 0.2]).replace(
        "exposure-0", "exposure-0.5"
    )
    told = ablation.brightness_by_target(table).set_index("arm")
    assert told.loc[
        "exposure-0.5", ["target", "predicted", "measured", "ratio"]
    ].tolist() == pytest.approx([0.5, 0.25, 0.2, 0.8])


def test_tv_lines_are_ordered_by_weight():
    table = scores("noise_gain", tv_1600=[1.0], zero_dce_improved=[2.0], tv_100=[3.0])
    lines = ablation.tv_lines([table], ["noise_gain"])
    assert lines["TV weight"].tolist() == [100, 300, 1600] and lines["noise gain (×)"].tolist() == [
        3,
        2,
        1,
    ]
    assert "static scenes, sice-pairs as it is -1.00" in ablation.on_tv(
        lines
    ) and not ablation.on_tv(lines[:2])


def test_combined_keeps_rows_that_were_not_scored():
    about = pd.DataFrame({"arm": [ablation.REFERENCE, "pools-2"]})
    table = ablation.combined(
        about, [scores("psnr", zero_dce_improved=BASE)], ["psnr", "noise_gain"]
    )
    assert table["psnr"].iloc[0] == 22.5 and np.isnan(table["psnr"].iloc[1])


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [(0.70, 0.9, "do lie where"), (0.9, 0.92, "no further"), (0.9, 1.0, "further from it still")],
)
def test_words_on_the_published_curve_s_end(theirs, ours, words):
    labels = [evaluation.PUBLISHED[1].label, evaluation.OURS[1].label]
    pairs = list(zip(labels, (theirs, ours), strict=True))
    rows = [
        {"weights": w, "size": size, "loss": x, "n": 9} for size in (128, 256) for w, x in pairs
    ]
    assert words in ablation.on_sizes(pd.DataFrame(rows), {1: 1.06, 200: 0.675})
    assert ablation.on_sizes(pd.DataFrame(), {200: 0.675}) == ""


def test_dark_square_is_dark_and_flat():
    photograph = np.full((120, 160, 3), 200, np.uint8)
    photograph[48:96, 72:120] = 30
    assert ablation.dark_square(photograph, 48) == (72, 48, 48)
