"""What the committed study derives from its scores follows from them: each derived table, made anew from the committed
tables of scores, comes out the same."""

from __future__ import annotations

import pandas as pd
import pytest

from zdce import paths
from zdce.study import ablation, comparison, evaluation, gammas

TABLES = paths.reports("study") / "tables"


def read(name: str) -> pd.DataFrame:
    return pd.read_csv(next(TABLES.glob(f"{name}.csv*")))


def summary(number: str) -> pd.DataFrame:
    return evaluation.summary(read(f"{number}_scores")).reset_index()


def differences(number: str, arms: tuple[str, ...]) -> pd.DataFrame:
    parts = [read(f"{number}_scores"), read(f"{number}_noise")]
    told = read(f"{number}_differences")
    seeds = [
        label for label in parts[0]["method"].unique() if label.startswith(f"{ablation.REFERENCE},")
    ]
    names = told["figure"].unique()
    figures = [[name for name in names if name != "noise_gain_relative"], ["noise_gain_relative"]]
    found = [
        ablation.differences(part, arms, each, [ablation.REFERENCE, *seeds])
        for part, each in zip(parts, figures, strict=True)
    ]
    return pd.concat(found, ignore_index=True)


def compared() -> pd.DataFrame:
    seeds = read("06_seeds")
    parts = {
        "06_scores": seeds[seeds["burst_noise"].isna()],
        "06_noise": seeds[seeds["burst_noise"].notna()],
    }
    both = [
        pd.concat([read(name), part.dropna(axis="columns", how="all")])
        for name, part in parts.items()
    ]
    return pd.concat([comparison.differences(part) for part in both], ignore_index=True)


MADE = {
    "03_summary": lambda: summary("03"),
    "03_differences": lambda: differences("03", ablation.NETWORK),
    "03_size": lambda: ablation.size_ranks(ablation.training_size()),
    "04_summary": lambda: summary("04"),
    "04_differences": lambda: differences("04", ablation.LOSSES),
    "04_targets": lambda: ablation.brightness_by_target(read("04_scores")).reset_index(),
    "05_gains": lambda: gammas.gains(read("05_scores")),
    "05_relative": lambda: gammas.relative(read("05_scores"), read("05_noise")),
    "05_best": lambda: gammas.best_gammas(read("05_fine"), 0),
    "05_by_place": lambda: gammas.by_place(read("05_placed")),
    "05_policy": lambda: gammas.policy_table(read("05_policies")),
    "06_differences": compared,
    "06_verdicts": lambda: comparison.answers(read("06_differences")),
    "06_claims": lambda: comparison.claims(read("06_differences")),
    "06_spread": lambda: comparison.over_seeds(
        pd.concat([read("06_scores"), read("06_seeds")]), read("06_spread")["figure"].unique()
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_a_derived_table_follows_from_the_committed_scores(name, tmp_path):
    made = MADE[name]()
    made.to_csv(tmp_path / "made.csv", index=False, float_format="%.6g")
    made, kept = pd.read_csv(tmp_path / "made.csv"), read(name)
    made = made.drop(columns=[column for column in made if column not in kept])
    pd.testing.assert_frame_equal(made, kept[made.columns], rtol=2e-3, atol=2e-4, check_dtype=False)
    assert set(kept) == set(made)
