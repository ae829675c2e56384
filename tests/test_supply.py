"""The bill of materials names all that is installed; an audit that could not look is no pass."""

from __future__ import annotations

import re
from importlib.metadata import distributions

import pytest
import supply
from test_pins import normal, pins

FINE = {"name": "a", "version": "1", "vulns": []}
UNKNOWN = {"name": "b", "skip_reason": "could not be audited"}
BAD = {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
OURS = {"name": "zdce", "skip_reason": "distribution marked as editable"}


@pytest.fixture(scope="module")
def bill(tmp_path_factory):
    file = tmp_path_factory.mktemp("sbom") / "sbom.cdx.json"
    return supply.sbom(file, validate=False), file.read_text("utf-8")


def test_the_bill_of_materials_is_complete(bill):
    document, _ = bill
    named = {
        normal(part["name"]).replace(".", "-"): part["version"] for part in document["components"]
    }
    there = {
        normal(each.name).replace(".", "-"): each.version
        for each in distributions()
        if each.name != "zdce"
    }
    assert {name: named.get(name) for name in there} == there
    for name, pin in pins().items():
        assert named[name].split("+")[0] == pin
    assert (
        document["bomFormat"] == "CycloneDX" and document["metadata"]["component"]["name"] == "zdce"
    )


def test_the_bill_of_materials_tells_nothing_of_the_machine_nor_of_the_hour(bill):
    _, text = bill
    assert str(supply.ROOT) not in text and not re.search(
        r"file:|/home/|/root/|timestamp|serialNumber", text
    )


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([FINE, OURS], 0, "1 packages looked up"),
        (
            [FINE, UNKNOWN],
            2,
            "NOT AUDITED: no database of vulnerabilities could be asked about 1 of 2",
        ),
        ([], 2, "NOT AUDITED"),
        ([FINE, BAD, UNKNOWN], 1, "c 2: PYSEC-1, mended in 3"),
    ],
)
def test_an_audit_passes_only_when_everything_was_looked_up(packages, code, said):
    assert supply.judged(packages)[0] == code and said in supply.judged(packages)[1]


def test_an_explained_finding_is_told_and_passes(monkeypatch):
    monkeypatch.setitem(supply.EXPLAINED, "PYSEC-1", "not called")
    code, said = supply.judged([BAD])
    assert code == 0 and "explained: not called" in said


def test_explanations_name_what_they_explain():
    assert all(
        re.match(r"(PYSEC|CVE|GHSA)-", name) and why for name, why in supply.EXPLAINED.items()
    )
