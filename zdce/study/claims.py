"""The claims under test as data, the one place that judges them, and the ledger.

``claims.yaml`` holds the claims: each is a list of tests, each on a table of scores or of another
measurement. :func:`judge` decides all of them by one rule: a difference counts where its whole 95 %
interval over scenes and seeds (:mod:`zdce.study.statistics`) lies beyond the margin, which is half
a per cent of the other method's mean unless a test states its own. :data:`MARGINS` gives the
reasons.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from zdce import metrics
from zdce.study import statistics

VERDICTS = ("supported", "partly supported", "not supported", "not testable here")
UNTESTED = "not tested yet"
SUPPORTED, PARTLY, REFUTED, UNTESTABLE = VERDICTS
REFERENCE = (
    "zero-dce-improved (reference)"  # reference row of the ablations, as long trained as they
)

SLIGHT = 0.005  # share of the other method's mean; smaller differences change no verdict
MARGINS = """
All margins are ours, but for the first; none was lowered when the trainings became longer.

- **As the claim states it**: 97 KB, 312 – 316 KB (N1), 10 – 35 % (N3). Published sizes are rounded
  as the study rounds them; our own files may differ by 5 %, since another format wraps the tensors.
- **0.5 % of the other method's mean** (PSNR about 0.1 dB, SSIM 0.003, noise gain 0.02): a
  difference below that is lost in the rounding to 8 bits and seen in no pair of pictures, however
  certain.
- **1 %** of the bright pixels newly near white (P1), **5 %** of local contrast lost (P3): with
  less, nobody would speak of lost highlights or details.
- **2 %** brighter before a frame is a border (N4): about the least step that is seen along an edge.
- **2 grey levels** between published pictures and ours (R1): two roundings to 8 bits.
- **0.05** in the loss, **0.5 dB** and **0.02** of SSIM for the same training (R1): a little more
  than what two of our own seeds lie apart.
- **L2**: "converges" is less than a tenth of the drop of the epoch means in their last quarter,
  "swings widely" a standard deviation of single batches above the whole drop.
""".strip()


@dataclass(frozen=True)
class Comparison:
    """A part of a claim on a table of scores: ``figure`` of ``method`` against that of ``other``.

    table: under which name :func:`judge` gets it. direction: ``higher``, ``lower``, ``nearer 0``
    (sizes are compared), or ``same`` (the whole interval lies within the margin). margin: in the
    figure's unit; None for :data:`SLIGHT` of the other's mean. sets: data sets; empty for all in
    the table, each a part of its own.
    """

    part: str
    figure: str
    method: str
    other: str
    direction: str
    margin: float | None = None
    table: str = "scores"
    sets: tuple[str, ...] = ()

    def rule(self) -> str:
        unit = metrics.BY_NAME[self.figure].unit
        least = f"{SLIGHT:.1%}" if self.margin is None else f"{self.margin:g} {unit}".rstrip()
        if self.direction == "same":
            return f"{self.figure} of {self.method} within {least} of that of {self.other}"
        return f"{self.figure} of {self.method} {self.direction} than of {self.other}, by {least}"


@dataclass(frozen=True)
class Bound:
    """A part of a claim on another table: ``figure`` of every row of ``method`` lies in [low,
    high].

    Where the table has columns ``FIGURE_low`` and ``FIGURE_high``, the whole interval must. method:
    value of the table's column ``method``; empty for all rows.
    """

    part: str
    table: str
    figure: str
    method: str = ""
    low: float = -np.inf
    high: float = np.inf
    unit: str = ""

    def rule(self) -> str:
        where = f" of {self.method}" if self.method else ""
        if np.isinf(self.low):
            return f"{self.figure}{where} at most {self.high:g} {self.unit}".rstrip()
        if np.isinf(self.high):
            return f"{self.figure}{where} above {self.low:g} {self.unit}".rstrip()
        return f"{self.figure}{where} in {self.low:g} – {self.high:g} {self.unit}".rstrip()


@dataclass(frozen=True)
class Claim:
    """text: the claim. short: the few words that a list has room for. notebook: which judges it.
    tests: its parts.
    """

    text: str
    short: str
    notebook: str
    tests: tuple[Comparison | Bound, ...]


def _read() -> dict[str, Claim]:
    """``claims.yaml``, its lists of figures and methods and its published weights written out."""
    text = Path(__file__).with_suffix(".yaml").read_text("utf-8")
    claims = {}
    for name, entry in yaml.safe_load(text).items():
        published = entry.pop("published", False)
        tests = [test for line in entry.pop("tests") for test in _tests(**line)]
        again = [_published(test) for test in tests if published]
        claims[name] = Claim(**entry, tests=(*tests, *again))
    return claims


def _tests(part: str, figure: str | list, method: str | list = "", **fields) -> Iterator:
    """One test for each figure and method; the part says which where there are several."""
    figures, methods = ([v] if isinstance(v, str) else v for v in (figure, method))
    for name, one in itertools.product(methods, figures):
        words = f"{part}, {name}" if len(methods) > 1 else part
        words = f"{words}: {one}" if len(figures) > 1 else words
        if "other" not in fields:
            yield Bound(words, fields["table"], one, name, **_without(fields, "table"))
            continue
        more = {"direction": metrics.BY_NAME[one].direction} | fields
        yield Comparison(words, one, name, **more | {"sets": tuple(fields.get("sets", ()))})


def _without(fields: dict, key: str) -> dict:
    return {name: value for name, value in fields.items() if name != key}


def _published(test: Comparison) -> Comparison:
    """The same test on published weights."""
    method, other = (
        name if name == "input" else f"{name} (published)" for name in (test.method, test.other)
    )
    return replace(test, part=f"{test.part}, published weights", method=method, other=other)


CLAIMS = _read()

# --- judging --------------------------------------------------------------------------------------

COLUMNS = [
    "claim", "part", "on", "rule", "measured", "low", "high", "unit", "n", "scenes", "seeds",
    "finding", "outcome",
    "budget",
]  # fmt: skip


def judge(
    *claims: str, budgets: Mapping[str, str] | None = None, **tables: pd.DataFrame
) -> pd.DataFrame:
    """Every part of these claims, decided: one row a part and data set.

    tables: by the name that the tests give: ``scores`` of ``evaluation.evaluate``, ``bursts`` of
    ``evaluate_bursts``, and so on; a part whose table, method or figure is missing is not testable
    here. Photographs that a camera took decide; bundled ones only where there are no others.
    budgets: method → how it was trained (``evaluation.budgets``).

    Columns: claim, part, on (data set), rule, measured with its 95 % interval low – high, unit, n
    (photographs or rows), scenes, seeds, budget; outcome: of :data:`VERDICTS`; finding: ``holds``,
    ``opposite`` (as certain, the other way), ``negligible`` (certain, but within the margin), ``no
    difference`` (0 is in the interval), ``differs`` or ``open`` for ``same``, ``outside`` for
    bounds, or what is missing. Raises KeyError for an unknown claim.
    """
    rows = []
    for claim in claims:
        for test in CLAIMS[claim].tests:
            found = (
                _compared(test, tables) if isinstance(test, Comparison) else _bounded(test, tables)
            )
            named = [test.method] + ([test.other] if isinstance(test, Comparison) else [])
            budget = dict.fromkeys((budgets or {}).get(name, "") for name in named)
            about = {"claim": claim, "part": test.part, "rule": test.rule()}
            about["budget"] = "; ".join(text for text in budget if text)
            rows += [about | row for row in found]
    return pd.DataFrame(rows, columns=COLUMNS)


def verdict(outcomes: Iterable[str]) -> str:
    """A claim's verdict from the outcomes of its parts, those left out that could not be tested.

    supported: every part; not supported: none; partly supported: some; not testable here: no part
    could be tested. Raises ValueError for a word outside :data:`VERDICTS`.
    """
    seen = set(outcomes)
    if unknown := seen - set(VERDICTS):
        raise ValueError(f"outcome {unknown.pop()!r}: choose one of {', '.join(VERDICTS)}")
    tested = seen - {UNTESTABLE}
    if not tested:
        return UNTESTABLE
    if len(tested) > 1:
        return PARTLY
    return tested.pop()


def verdicts(parts: pd.DataFrame) -> pd.Series:
    """Verdict by claim, from :func:`judge`."""
    return parts.groupby("claim", sort=False)["outcome"].agg(verdict).rename("verdict")


def headline(parts: pd.DataFrame) -> str:
    """The verdicts in one line of Markdown: ``**N5** (one overlapping pool improves the result):
    **not supported**``.
    """
    return "; ".join(
        f"**{claim}** ({CLAIMS[claim].short}): **{found}**"
        for claim, found in verdicts(parts).items()
    )


def _untestable(why: str, on: str = "") -> dict:
    return {"on": on, "n": 0, "finding": why, "outcome": UNTESTABLE}


def _compared(test: Comparison, tables: Mapping[str, pd.DataFrame]) -> list[dict]:
    table = tables.get(test.table)
    if table is None or table.empty:
        return [_untestable(f"no table {test.table!r}")]
    if absent := {test.method, test.other} - set(table["method"]):
        return [_untestable(f"not scored: {', '.join(sorted(absent))}")]
    if test.figure not in table:
        return [_untestable(f"no figure {test.figure!r}")]
    names = [name for name in table["dataset"].unique() if not test.sets or name in test.sets]
    names = [name for name in names if name != "bundled"] or names
    rows = [_on(test, table[table["dataset"] == name], name) for name in names]
    return [row for row in rows if row] or [_untestable(f"{test.figure} is nowhere defined")]


def _on(test: Comparison, table: pd.DataFrame, name: str) -> dict | None:
    """The test on one data set; None where the figure is not defined there."""
    if test.direction == "nearer 0":
        table = table.assign(**{test.figure: table[test.figure].abs()})
    found = statistics.compare(table, test.figure, test.method, test.other)
    if not found.n:
        return None
    row = {"on": name, "measured": found.mean, "low": found.low, "high": found.high}
    row |= {"unit": metrics.BY_NAME[test.figure].unit, "n": found.n}
    row |= {"scenes": found.scenes, "seeds": found.seeds}
    if found.scenes < statistics.FEWEST:
        return row | {"finding": f"fewer than {statistics.FEWEST} scenes", "outcome": UNTESTABLE}
    margin = test.margin
    if margin is None:
        margin = SLIGHT * abs(table.loc[table["method"] == test.other, test.figure].mean())
    finding = decide(found.low, found.high, test.direction, margin)
    return row | {"finding": finding, "outcome": SUPPORTED if finding == "holds" else REFUTED}


def decide(low: float, high: float, direction: str, margin: float) -> str:
    """What an interval says of a difference: ``holds``, ``opposite``, ``negligible``, ``no
    difference``; of ``same``: ``holds``, ``differs``, ``open``.
    """
    if direction == "same":
        if -margin <= low and high <= margin:
            return "holds"
        return "differs" if low > margin or high < -margin else "open"
    if direction != "higher":
        low, high = -high, -low
    if low <= 0 <= high:
        return "no difference"
    if low >= margin:
        return "holds"
    return "opposite" if high <= -margin else "negligible"


def _bounded(test: Bound, tables: Mapping[str, pd.DataFrame]) -> list[dict]:
    table = tables.get(test.table)
    if table is None or table.empty:
        return [_untestable(f"no table {test.table!r}")]
    rows = table[table["method"] == test.method] if test.method else table
    rows = rows.dropna(subset=[test.figure])
    if rows.empty:
        return [_untestable(f"no {test.method or test.figure} in the table {test.table!r}")]
    values = rows[test.figure]
    low = rows.get(f"{test.figure}_low", values).fillna(values).min()
    high = rows.get(f"{test.figure}_high", values).fillna(values).max()
    inside = test.low < low if np.isinf(test.high) else test.low <= low
    row = {"on": "", "measured": values.mean(), "low": low, "high": high, "unit": test.unit}
    row |= {"n": len(rows), "seeds": rows["seed"].nunique() if "seed" in rows else np.nan}
    finding = "holds" if inside and high <= test.high else "outside"
    return [row | {"finding": finding, "outcome": SUPPORTED if finding == "holds" else REFUTED}]


# --- the ledger -----------------------------------------------------------------------------------


def collect(folder: Path) -> pd.DataFrame:
    """Every part of every claim from the tables ``NN_claims.csv`` in ``folder``, with the
    notebook's number.

    Raises ValueError for a table that lacks a column, and for a claim judged by a notebook that it
    does not belong to.
    """
    tables = []
    for file in sorted(Path(folder).glob("[0-9][0-9]_claims.csv")):
        table = pd.read_csv(file, keep_default_na=False, na_values={"low": "", "high": ""})
        if missing := [column for column in COLUMNS if column not in table]:
            raise ValueError(
                f"{file.name}: has no column {missing[0]!r}; "
                f"a table of claims needs {', '.join(COLUMNS)}; "
                "run that report again"
            )
        number = file.name[:2]
        for claim in table["claim"].unique():
            if claim not in CLAIMS or CLAIMS[claim].notebook != number:
                raise ValueError(f"{file.name}: claim {claim!r} is not judged by notebook {number}")
        tables.append(table.assign(notebook=number))
    return (
        pd.concat(tables, ignore_index=True)
        if tables
        else pd.DataFrame(columns=[*COLUMNS, "notebook"])
    )


def ledger(folder: Path) -> pd.DataFrame:
    """One row a claim: claim, statement, verdict, notebook, measured (part by part), n, budget.

    folder: where the notebooks' tables lie. A claim that no notebook has tested says so.
    """
    found, rows = collect(folder), []
    for name, claim in CLAIMS.items():
        mine = found[found["claim"] == name]
        row = {
            "claim": name,
            "statement": claim.text,
            "verdict": UNTESTED,
            "notebook": claim.notebook,
        }
        if len(mine):
            row["verdict"] = verdict(mine["outcome"])
        row["measured"] = "; ".join(_words(part) for _, part in mine.iterrows())
        row["measured"] = row["measured"] or "no finished report tests it"
        row["n"] = _counted(mine)
        budgets = (text for each in mine["budget"] for text in str(each).split("; "))
        row["budget"] = "; ".join(dict.fromkeys(text for text in budgets if text))
        rows.append(row)
    return pd.DataFrame(rows)


def _words(part: pd.Series) -> str:
    """``details: detail_kept, sice-pairs +0.012 share (0.008 – 0.016) → supported``."""
    name = f"{part['part']}, {part['on']}" if part["on"] else str(part["part"])
    if part["measured"] == "":
        return f"{name}: {part['finding']} → {part['outcome']}"
    interval = (
        "" if pd.isna(part["low"]) else f" ({float(part['low']):.3g} – {float(part['high']):.3g})"
    )
    measured = f"{float(part['measured']):.3g} {part['unit']}".rstrip()
    return f"{name} {measured}{interval}, {part['finding']} → {part['outcome']}"


def _counted(parts: pd.DataFrame) -> str:
    """``250 photographs of sice-pairs, 3 seeds``, each once."""
    told = []
    for part in parts[parts["n"].astype(float) > 0].to_dict("records"):
        what = f" photographs of {part['on']}" if part["on"] else " rows"
        seeds = float(part["seeds"] or 0)
        told.append(f"{part['n']}{what}" + (f", {seeds:.0f} seeds" if seeds > 1 else ""))
    return "; ".join(dict.fromkeys(told))


def glance(table: pd.DataFrame) -> str:
    """The verdicts of :func:`ledger` at a glance, as a Markdown table: a row a verdict."""
    lines = ["| verdict | claims |", "|---|---|"]
    for word in (*VERDICTS, UNTESTED):
        names: Sequence[str] = table.loc[table["verdict"] == word, "claim"]
        mine = [f"**{name}** {CLAIMS[name].short}" for name in names]
        lines += [f"| {word} | {' · '.join(mine)} |"] if mine else []
    return "\n".join(lines)
