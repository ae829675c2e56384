"""Claims as data: one rule from intervals to outcomes, from outcomes to verdicts, from tables to
the ledger.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from zdce.metrics import METRICS
from zdce.study import claims
from zdce.study.claims import Claim, Part

BETTER = Part("better", "psnr", "b", "a", "higher")


@pytest.mark.parametrize(
    ("low", "high", "direction", "finding"),
    [
        (0.2, 0.4, "higher", "holds"),
        (0.2, 0.4, "lower", "opposite"),
        (-0.4, -0.2, "nearer 0", "holds"),
        (0.02, 0.4, "higher", "negligible"),
        (-0.1, 0.4, "higher", "no difference"),
        (-0.05, 0.09, "same", "holds"),
        (-0.05, 0.4, "same", "open"),
        (0.2, 0.4, "same", "differs"),
    ],
)
def test_what_an_interval_says(low, high, direction, finding):
    assert claims.decide(low, high, direction, 0.1) == finding


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        (["supported", "not supported"], "partly supported"),
        (["supported", "not testable here"], "supported"),
        (["not supported", "not supported"], "not supported"),
        ([], "not testable here"),
    ],
)
def test_a_verdict_follows_from_the_parts(outcomes, verdict):
    assert claims.verdict(outcomes) == verdict


def scores(name: str = "sice-pairs", scenes: int = 20, **methods: float) -> pd.DataFrame:
    """psnr of methods: their number, give or take 0.1."""
    random = np.random.default_rng(0)
    rows = [
        {"photograph": f"{k}.jpg", "scene": str(k), "method": method, "psnr": value + noise}
        for method, value in methods.items()
        for k, noise in enumerate(random.normal(0, 0.1, scenes))
    ]
    return pd.DataFrame(rows).assign(dataset=name)


@pytest.fixture
def claim(monkeypatch):
    """A claim X of notebook 03 with the given parts."""

    def put(*parts: Part) -> None:
        monkeypatch.setitem(claims.CLAIMS, "X", Claim("a claim", "short", "03", parts))

    return put


def test_bounds_are_asked_of_the_sets_that_are_named(claim):
    both = pd.concat([scores(a=17), scores("dicm", a=12)])
    for sets, finding in (["sice-pairs"], "holds"), ([], "outside"):
        claim(Part("good", "psnr", "a", sets=sets, low=16, high=18))
        assert claims.judge("X", scores=both)["finding"].tolist() == [finding]


def test_every_data_set_is_a_part_and_photographs_decide_over_bundled_ones(claim):
    claim(BETTER)
    sets = [scores(a=17, b=18), scores("bundled", a=17, b=16), scores("lime", a=17, b=17)]
    table = pd.concat([*sets, scores("dicm", a=17)])  # on which one method was not scored
    found = claims.judge("X", scores=table, budgets={"b": "60 epochs", "a": "60 epochs"})
    expected = {"sice-pairs": "holds", "lime": "no difference"}
    assert found.set_index("on")["finding"].to_dict() == expected
    assert found["budget"].unique().tolist() == ["60 epochs"]
    assert "**X** (short): **partly supported**" in claims.headline(found)
    alone = claims.judge("X", scores=scores("bundled", a=17, b=16))
    assert alone["outcome"].tolist() == ["not supported"]


def test_a_certain_difference_within_the_margin_is_negligible(claim):
    cases = [(2, 1, "negligible"), (None, 0.05, "negligible"), (None, 0.15, "holds")]
    for margin, more, finding in cases:  # None: half a per cent
        claim(replace(BETTER, margin=margin))
        found = claims.judge("X", scores=scores(scenes=400, a=17, b=17 + more))
        assert found["finding"].tolist() == [finding] and found["low"].iloc[0] > 0


def test_what_is_missing_is_said(claim):
    claim(BETTER, Part("small", "KB", "a", table="files", high=9))
    for tables in ({}, {"scores": scores(a=17)}, {"scores": scores(scenes=4, a=17, b=19)}):
        found = claims.judge("X", **tables)
        assert set(found["outcome"]) == {"not testable here"}
        assert (found["finding"] != "").all()
    assert "b" in claims.judge("X", scores=scores(a=17))["finding"].iloc[0]


def test_bounds_take_every_row_and_the_whole_interval(claim):
    table = pd.DataFrame({"method": ["a", "a", "b"], "KB": [94.0, 97.0, 312.0]})
    wide = table.assign(KB_high=table["KB"] + 5)
    for method, files, finding in (("a", table, "holds"), ("a", wide, "outside")):
        claim(Part("small", "KB", method, table="files", low=90, high=100))
        assert claims.judge("X", files=files)["finding"].tolist() == [finding]
    claim(Part("small", "KB", table="files", low=90, high=100))
    assert claims.judge("X", files=table)["outcome"].tolist() == ["not supported"]


@pytest.mark.parametrize("name", claims.CLAIMS)
def test_every_claim_names_figures_that_exist_and_is_judged_without_tables(name):
    parts = claims.CLAIMS[name].parts
    directions = {"higher", "lower", "nearer 0", "same"}
    compared = [part for part in parts if part.other]
    assert all(p.figure in METRICS.index and p.direction in directions for p in compared)
    found = claims.judge(name)
    assert len(found) == len(parts) and set(found["outcome"]) == {"not testable here"}


def test_the_ledger_is_what_the_notebooks_judged(claim, tmp_path):
    claim(BETTER, Part("small", "KB", "a", table="files", high=9))
    parts = claims.judge("X", scores=scores(a=17, b=18), budgets={"b": "60 epochs"})
    parts.to_csv(tmp_path / "03_claims.csv", index=False, float_format="%.6g")
    ledger = claims.ledger(tmp_path).set_index("claim")
    assert ledger.loc["X", "verdict"] == "supported"
    assert "20 photographs of sice-pairs" in ledger.loc["X", "n"]
    assert ledger.loc["X", "budget"] == "60 epochs"
    assert ledger.loc["N5", "verdict"] == claims.UNTESTED
    assert "| supported | **X** short |" in claims.glance(ledger.reset_index())
