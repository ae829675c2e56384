"""Claims as data: one rule from intervals to outcomes, from outcomes to verdicts, from tables to
the ledger.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from zdce import metrics
from zdce.study import claims
from zdce.study.claims import Bound, Claim, Comparison


@pytest.mark.parametrize(
    ("low", "high", "direction", "finding"),
    [
        (0.2, 0.4, "higher", "holds"),
        (0.2, 0.4, "lower", "opposite"),
        (-0.4, -0.2, "lower", "holds"),
        (-0.4, -0.2, "nearer 0", "holds"),
        (0.02, 0.4, "higher", "negligible"),
        (0.02, 0.05, "lower", "negligible"),
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
        (["supported", "supported"], "supported"),
        (["supported", "not supported"], "partly supported"),
        (["supported", "not testable here"], "supported"),
        (["not supported", "not testable here"], "not supported"),
        (["not testable here"], "not testable here"),
        ([], "not testable here"),
    ],
)
def test_a_verdict_follows_from_the_parts(outcomes, verdict):
    assert claims.verdict(outcomes) == verdict


def test_a_word_outside_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="'yes'"):
        claims.verdict(["yes"])


def scores(name: str = "sice-pairs", scenes: int = 20, **methods: float) -> pd.DataFrame:
    """psnr of methods: their number, give or take 0.1."""
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "dataset": name,
            "photograph": f"{k}.jpg",
            "scene": str(k),
            "method": method,
            "psnr": value + random.normal(0, 0.1),
        }
        for method, value in methods.items()
        for k in range(scenes)
    )


@pytest.fixture
def claim(monkeypatch):
    """A claim X of notebook 03 with the given tests."""

    def put(*tests: Comparison | Bound) -> None:
        monkeypatch.setitem(claims.CLAIMS, "X", Claim("a claim", "short", "03", tests))

    return put


def test_every_data_set_is_a_part_and_photographs_decide_over_bundled_ones(claim):
    claim(Comparison("better", "psnr", "b", "a", "higher"))
    table = pd.concat(
        [scores(a=17, b=18), scores("bundled", a=17, b=16), scores("lime", a=17, b=17)]
    )
    found = claims.judge("X", scores=table, budgets={"b": "60 epochs", "a": "60 epochs"})
    assert found.set_index("on")["finding"].to_dict() == {
        "sice-pairs": "holds",
        "lime": "no difference",
    }
    assert found["budget"].unique().tolist() == ["60 epochs"]
    assert claims.verdicts(found)["X"] == "partly supported"
    assert "**X** (short): **partly supported**" in claims.headline(found)
    alone = claims.judge("X", scores=scores("bundled", a=17, b=16))
    assert alone["outcome"].tolist() == ["not supported"]


def test_a_difference_below_the_margin_is_negligible_however_certain(claim):
    claim(Comparison("better", "psnr", "b", "a", "higher", margin=2.0))
    found = claims.judge("X", scores=scores(a=17, b=18))
    assert found["finding"].tolist() == ["negligible"] and found["low"].iloc[0] > 0


def test_half_a_per_cent_is_too_little_where_no_margin_is_stated(claim):
    claim(Comparison("better", "psnr", "b", "a", "higher"))
    slight, enough = (scores(scenes=400, a=17, b=17 + more) for more in (0.05, 0.15))
    assert claims.judge("X", scores=slight)["finding"].tolist() == ["negligible"]
    assert claims.judge("X", scores=enough)["finding"].tolist() == ["holds"]


def test_what_is_missing_is_said(claim):
    claim(
        Comparison("better", "psnr", "b", "a", "higher"), Bound("small", "files", "KB", "a", high=9)
    )
    for tables in ({}, {"scores": scores(a=17)}, {"scores": scores(scenes=4, a=17, b=19)}):
        found = claims.judge("X", **tables)
        assert set(found["outcome"]) == {"not testable here"}
        assert (found["finding"] != "").all()
    assert "b" in claims.judge("X", scores=scores(a=17))["finding"].iloc[0]


def test_bounds_take_every_row_and_the_whole_interval(claim):
    claim(Bound("small", "files", "KB", "a", low=90, high=100))
    table = pd.DataFrame({"method": ["a", "a", "b"], "KB": [94.0, 97.0, 312.0]})
    assert claims.judge("X", files=table)["outcome"].tolist() == ["supported"]
    assert claims.judge("X", files=table.assign(KB_high=table["KB"] + 5))["finding"].tolist() == [
        "outside"
    ]
    claim(Bound("small", "files", "KB", low=90, high=100))
    assert claims.judge("X", files=table)["outcome"].tolist() == ["not supported"]


def test_every_claim_names_figures_that_exist_and_judges_without_tables():
    for name, claim in claims.CLAIMS.items():
        for test in claim.tests:
            if isinstance(test, Comparison):
                assert test.figure in metrics.BY_NAME
        found = claims.judge(name)
        assert len(found) == len(claim.tests)
        assert claims.verdicts(found)[name] == "not testable here"


def test_the_ledger_is_what_the_notebooks_judged(claim, tmp_path):
    claim(
        Comparison("better", "psnr", "b", "a", "higher"), Bound("small", "files", "KB", "a", high=9)
    )
    parts = claims.judge("X", scores=scores(a=17, b=18), budgets={"b": "60 epochs"})
    parts.to_csv(tmp_path / "03_claims.csv", index=False, float_format="%.6g")
    ledger = claims.ledger(tmp_path).set_index("claim")
    assert ledger.loc["X", "verdict"] == "supported"
    assert "20 photographs of sice-pairs" in ledger.loc["X", "n"]
    assert ledger.loc["X", "budget"] == "60 epochs"
    assert ledger.loc["N5", "verdict"] == claims.UNTESTED
    glance = claims.glance(ledger.reset_index())
    assert "| supported | **X** short |" in glance
    (tmp_path / "03_claims.csv").rename(tmp_path / "04_claims.csv")
    with pytest.raises(ValueError, match="'X' is not judged by notebook 04"):
        claims.ledger(tmp_path)
    parts.drop(columns="finding").to_csv(tmp_path / "04_claims.csv", index=False)
    with pytest.raises(ValueError, match="finding"):
        claims.ledger(tmp_path)
