"""The arms of the study: each one change away from its reference, the budget the same for all of a table."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from zdce.losses import IMPROVED, RELEASED
from zdce.model import ZERO_DCE, ZERO_DCE_IMPROVED
from zdce.study import experiments


def differences(a: dict, b: dict) -> dict:
    """Leaves in which two nested dictionaries differ: dotted key → the two values."""
    found = {}
    for key in a:
        if isinstance(a[key], dict):
            found |= {f"{key}.{inner}": pair for inner, pair in differences(a[key], b[key]).items()}
        elif a[key] != b[key]:
            found[key] = (a[key], b[key])
    return found


CHANGES = {
    "channels-8": {"net.width": (16, 8)},
    "channels-32": {"net.width": (16, 32)},
    "no-pool": {"net.pooling": ("overlapping", "none")},
    "channels-8-no-pool": {"net.width": (16, 8)},
    "channels-32-no-pool": {"net.width": (16, 32)},
    "stride2-bilinear": {"net.pooling": ("overlapping", "stride2")},
    "stride2-transposed": {"net.upsampling": ("bilinear", "transposed")},
    "pools-2": {"net.pools": (1, 2)},
    "pools-3": {"net.pools": (1, 3)},
    "tv-100": {"loss.smoothness": (300, 100)},
    "tv-200": {"loss.smoothness": (300, 200)},
    "tv-600": {"loss.smoothness": (300, 600)},
    "tv-1600": {"loss.smoothness": (300, 1600)},
    "no-spatial": {"loss.spatial": (1, 0)},
    "no-exposure": {"loss.exposure": (10, 0)},
    "no-color": {"loss.color": (5, 0)},
    "no-smoothness": {"loss.smoothness": (300, 0)},
    "exposure-0.5": {"loss.exposure_target": (0.6, 0.5)},
    "exposure-0.7": {"loss.exposure_target": (0.6, 0.7)},
    "not-over-exposed": {"data": ("sice-train", "sice-train-not-over")},
    "float32": {"precision": ("bfloat16", "float32")},
}


@pytest.mark.parametrize("arm", CHANGES)
def test_an_arm_is_one_change_away_from_its_reference(arm):
    changed = differences(
        asdict(experiments.ARMS[experiments.REFERENCES[arm]]), asdict(experiments.ARMS[arm])
    )
    assert changed.pop("name") == (experiments.REFERENCES[arm], arm)
    assert changed == CHANGES[arm]


def test_the_paper_s_losses_change_as_a_whole():
    changed = differences(
        asdict(experiments.ARMS["zero-dce-improved"]), asdict(experiments.ARMS["paper-losses"])
    )
    assert {key.split(".")[0] for key in changed} == {"name", "loss"}
    loss = experiments.ARMS["paper-losses"].loss
    assert (loss.form, loss.spatial, loss.exposure, loss.color, loss.smoothness) == (
        "paper",
        1,
        1,
        0.5,
        30,
    )


def test_every_arm_is_named_by_a_test_and_by_itself():
    assert set(experiments.ARMS) == {*CHANGES, "paper-losses", *experiments.MAIN}
    assert all(name == arm.name for name, arm in experiments.ARMS.items())
    assert set(experiments.REFERENCES) == set(experiments.ARMS) - set(experiments.MAIN)


def test_the_main_arms_are_the_paper_s_and_the_study_s():
    paper, improved = (experiments.ARMS[name] for name in ("zero-dce", "zero-dce-improved"))
    assert (paper.net, paper.loss, paper.batch, paper.gamma, paper.steps) == (
        ZERO_DCE,
        RELEASED,
        8,
        1.0,
        200 * 251,
    )
    assert (improved.net, improved.loss, improved.batch, improved.gamma) == (
        ZERO_DCE_IMPROVED,
        IMPROVED,
        4,
        1.15,
    )
    assert improved.steps == 200 * 501


BEYOND = {
    "no-context": {"net.fixed_size": (32, None), "net.statistics": (True, False)},
    "no-statistics": {"net.statistics": (True, False)},
    "three-curves": {"net.grey_curves": (True, False)},
    "no-denoising": {"net.denoise": (experiments.CONTEXT.net.denoise, 0)},
    "exposure-of-regions": {"loss.exposure_of": ("photograph", "regions")},
    "not-darkened": {"darkened": (0.5, 0)},
    "target-50": {"loss.exposure_target": (0.46, 0.5)},
    "highlights-95": {"loss.highlights": (0.0, 0.95)},
    "highlights-98": {"loss.highlights": (0.0, 0.98)},
}


BEYOND_NIGHT = {
    "no-figures": {"net.light": (True, False)},
    "exposure-of-photograph": {"loss.exposure_of": ("light", "photograph")},
    "target-46": {"loss.exposure_target": (0.45, 0.46)},
}

BEYOND_LEVEL = {
    "not-levelled": {"net.level": (experiments.LEVEL.net.level, 0)},
    "mean-46": {"net.level": (experiments.LEVEL.net.level, 0.46)},
    "many-curves": {"net.one_curve": (True, False)},
    "not-spared": {"net.spared": (True, False)},
    "denoise-4": {
        "net.denoise": (experiments.LEVEL.net.denoise, 4.0),
        "net.measured": (True, False),
    },
    "denoise-1": {
        "net.denoise": (experiments.LEVEL.net.denoise, 1.0),
        "net.measured": (True, False),
    },
}


def test_beyond_the_study_a_row_changes_one_idea():
    names = ["zero-dce-context", *(f"context-{name}" for name in BEYOND)]
    names += ["zero-dce-night", *(f"night-{name}" for name in BEYOND_NIGHT)]
    assert list(experiments.BEYOND) == [
        *names,
        "zero-dce-level",
        *(f"level-{name}" for name in BEYOND_LEVEL),
    ]
    for reference, rows in (
        (experiments.CONTEXT, BEYOND),
        (experiments.NIGHT, BEYOND_NIGHT),
        (experiments.LEVEL, BEYOND_LEVEL),
    ):
        for name, expected in rows.items():
            arm = f"{reference.name.removeprefix('zero-dce-')}-{name}"
            changed = differences(asdict(reference), asdict(experiments.BEYOND[arm]))
            assert changed.pop("name") and changed == expected
    assert not set(experiments.BEYOND) & set(experiments.ARMS)


def test_one_budget_for_all_rows_of_a_table():
    plan = experiments.plan("study")
    assert len({config.run_name() for config in plan}) == len(plan)
    main = [config for config in plan if config.steps == experiments.BUDGETS["study"].main_steps]
    assert sorted((c.name, c.seed) for c in main) == sorted(
        (arm, seed) for arm in experiments.MAIN for seed in (0, 1, 2)
    )
    others = [config for config in plan if config not in main]
    assert {(c.steps, c.size, c.batch) for c in others} == {(2000, 128, 4)}
    # One seed a row; the reference row has those that the main trainings pass on their way.
    assert {(c.name, c.seed) for c in others if c.seed} == {
        ("zero-dce-improved", 1),
        ("zero-dce-improved", 2),
    }
    assert {c.name for c in others} == set(experiments.ARMS) - {"zero-dce"}


def test_a_plan_can_be_narrowed():
    assert [c.seed for c in experiments.plan("study", [5, 6], ["tv-100"])] == [5, 6]
    assert {c.data for c in experiments.plan("quick")} == {"bundled", "bundled-not-over"}
