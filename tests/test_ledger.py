"""The ledger: every claim has a row, a verdict follows from the parts, nothing malformed slips in."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from zdce import paths
from zdce.study import claims_old as ledger

PART = {
    "part": "size",
    "rule": "97 KB",
    "measured": "97.0 KB",
    "interval": "",
    "n": "1 file",
    "budget": "published",
}


@pytest.mark.parametrize(
    ("held", "verdict"),
    [
        (["yes", "yes"], "supported"),
        (["yes", "no"], "partly supported"),
        (["yes", "not testable here"], "partly supported"),
        (["partly"], "partly supported"),
        (["partly", "no"], "partly supported"),
        (["no", "not testable here"], "not supported"),
        (["no"], "not supported"),
        (["not testable here"] * 2, "not testable here"),
    ],
)
def test_a_verdict_follows_from_its_parts(held, verdict):
    assert ledger.verdict(held) == verdict
    assert ledger.verdict([ledger.held(verdict)]) == verdict


def test_the_ledger_has_a_row_for_every_claim(tmp_path):
    first = [
        {"claim": "N1", **PART, "held": "yes"},
        {"claim": "N1", **PART, "part": "speed", "held": "no"},
    ]
    ledger.parts(first).to_csv(tmp_path / "01_claims.csv", index=False)
    second = {"claim": "N1", **PART, "interval": "1 – 2", "n": "5 photographs", "held": "yes"}
    ledger.parts([second]).to_csv(tmp_path / "07_claims.csv", index=False)
    table = ledger.claims(tmp_path).set_index("claim")
    assert list(table.index) == list(ledger.CLAIMS)
    assert table.loc["N1"].to_dict() == {
        "statement": "Halving the channels shrinks the file from 312 – 316 KB to 97 KB",
        "verdict": "partly supported",
        "notebook": "01, 07",
        "measured": "size: 97.0 KB → yes; speed: 97.0 KB → no; size: 97.0 KB (1 – 2) → yes",
        "n": "1 file; 5 photographs",
        "budget": "published",
    }
    assert set(table.drop("N1")["verdict"]) == {"not tested yet"}
    assert ledger.glance(table.reset_index()).splitlines()[2] == (
        "| partly supported | **N1** a file of 97 KB instead of 312 |"
    )


@pytest.mark.parametrize(
    ("change", "needle"), [({"claim": "X9"}, "claim='X9'"), ({"held": "maybe"}, "held='maybe'")]
)
def test_unknown_words_are_refused(change, needle):
    with pytest.raises(ValueError, match=needle):
        ledger.parts([{"claim": "N1", **PART, "held": "yes", **change}])


def test_a_table_without_a_column_is_named(tmp_path):
    pd.DataFrame([{"claim": "N1", "held": "yes"}]).to_csv(tmp_path / "03_claims.csv", index=False)
    with pytest.raises(ValueError, match=r"03_claims.csv: has no column 'part'"):
        ledger.collect(tmp_path)


def test_the_committed_ledger_follows_from_the_committed_tables():
    folder = paths.reports("study")
    committed = pd.read_csv(folder / "claims.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(committed, ledger.claims(folder / "tables").astype(str))
    page = (folder / "index.html").read_text("utf-8")
    for claim, row in committed.set_index("claim").iterrows():
        assert re.search(rf"<td>{claim}</td>.*?<td[^>]*>{row['verdict']}</td>", page, re.DOTALL), (
            claim
        )
