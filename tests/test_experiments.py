"""The trainings of the study: one change each, one budget a table, and what was kept of them."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from zdce import checkpoints
from zdce.study import experiments
from zdce.study.experiments import EXPERIMENTS, MAIN, REFERENCES
from zdce.training import COLUMNS

PROFILES = [name for name in ("study", "short") if len(experiments.trainings(name))]


@pytest.mark.parametrize("name", [name for name in REFERENCES if name != "paper-losses"])
def test_an_experiment_is_one_change_away_from_its_reference(name):
    both = pd.json_normalize([asdict(EXPERIMENTS[n]) for n in (name, REFERENCES[name])])
    assert (both.astype(str).nunique() == 2).sum() == 2  # its name, and the change
    assert set(REFERENCES) == set(EXPERIMENTS) - set(MAIN)
    assert [EXPERIMENTS[name].steps for name in MAIN] == [200 * 251, 200 * 501]  # as published


@pytest.mark.parametrize("profile", experiments.BUDGETS)
def test_the_rows_of_a_table_end_after_equal_numbers_of_steps(profile):
    budget, configs = experiments.BUDGETS[profile], experiments.plan(profile)
    others = {config.steps for config in configs if config.name not in MAIN}
    reference = budget.compared.get(experiments.REFERENCE, budget.steps[experiments.REFERENCE])
    assert others == {reference}
    assert len({config.run_name() for config in configs}) == len(configs)
    assert all(step in budget.snapshots[name] for name, step in budget.compared.items())


def test_a_plan_can_be_narrowed():
    assert [c.seed for c in experiments.plan("quick", [5, 6], ["tv-100"])] == [5, 6]
    (config,) = experiments.plan("study", [0], ["tv-100"])  # trained where it is named alone
    assert config.steps == 60 * 501


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_kept_is_what_the_profile_plans_with_whole_records(profile):
    kept, compared = experiments.trainings(profile), experiments.BUDGETS[profile].compared
    there = set(zip(kept["experiment"], kept["seed"], kept["steps"], strict=True))
    planned = {(c.name, c.seed, c.steps) for c in experiments.plan(profile)}
    planned |= {(n, seed, compared[n]) for n, seed, _ in planned if n in compared}
    assert planned <= there or profile == "short"  # which new experiments need not join
    for row in kept.itertuples():
        model = checkpoints.read(row.weights)
        known = model.header["train"]
        assert model.net.config == EXPERIMENTS[row.experiment].net
        assert (known["name"], known["seed"]) == (row.experiment, row.seed)
        assert (known["steps"], known["size"]) == (row.steps, row.size)
        if profile == "study":
            listed = pd.read_csv(experiments.training_folder() / "snapshots.csv")
            listed = listed[listed["experiment"] == row.experiment]
            listed = listed[(listed["seed"] == row.seed) & (listed["steps"] == row.steps)]
            assert listed["fingerprint"].tolist() == [checkpoints.fingerprint(row.weights)]
    for name in set(kept["experiment"]):
        record = experiments.records(name, profile)
        mine = kept[kept["experiment"] == name].groupby("seed")["steps"]
        assert record.groupby("seed")["steps"].last().tolist() == mine.max().tolist()
        assert np.isfinite(record.drop(columns="experiment").to_numpy(float)).all()


def test_a_compact_record_has_the_statistics_of_every_epoch():
    record = np.random.default_rng(0).random((11, len(COLUMNS)), np.float32)
    small = experiments.compact_record(record, per_epoch=4, every_step=True)
    assert small["steps"].tolist() == [4, 8, 11]
    table = pd.DataFrame(record).groupby(np.arange(11) // 4)
    np.testing.assert_allclose(small["mean"], table.mean(), rtol=1e-6)
    np.testing.assert_allclose(small["std"], table.std(ddof=0), rtol=1e-5)
    np.testing.assert_array_equal(small["high"], table.max())
    np.testing.assert_allclose(small["loss"], record[:, COLUMNS.index("loss")], rtol=1e-3)


def test_committed_records_are_read_although_there_is_a_further_loss(monkeypatch):
    before = experiments.records("zero-dce")
    monkeypatch.setattr(experiments, "COLUMNS", ["further", *COLUMNS])
    pd.testing.assert_frame_equal(experiments.records("zero-dce"), before)
