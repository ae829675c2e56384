"""The claims under test as data, the one place that judges them, and the ledger.

``claims.yaml`` holds the claims and the reasons of their margins. A claim is a list of parts, each
on a table of scores or of another measurement. :func:`judge` decides all of them by one rule: a
difference counts where its whole 95 % interval over scenes and seeds
(:mod:`zdce.study.statistics`) lies beyond the margin.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from zdce.metrics import METRICS
from zdce.study import statistics

VERDICTS = ("supported", "partly supported", "not supported", "not testable here")
UNTESTED = "not tested yet"
SUPPORTED, PARTLY, REFUTED, UNTESTABLE = VERDICTS
# Reference row of the ablations, as long trained as they.
REFERENCE = "zero-dce-improved (reference)"
SLIGHT = 0.005  # share of the other method's mean; smaller differences change no verdict


@dataclass(frozen=True)
class Part:
    """A part of a claim, as ``claims.yaml`` words it.

    With ``other``: ``figure`` of ``method`` against that of ``other`` on a table of scores.
    direction: ``higher``, ``lower``, ``nearer 0`` (sizes are compared), or ``same`` (the whole
    interval lies within the margin). margin: in the figure's unit; None for :data:`SLIGHT` of the
    other's mean. sets: data sets; empty for all in the table, each judged by itself.

    Without: ``figure`` lies in [low, high] in every row of ``method``, or in all rows where that is
    empty; where the table has columns ``FIGURE_low`` and ``FIGURE_high``, the whole interval does.

    table: under which name :func:`judge` gets it.
    """

    part: str
    figure: str
    method: str = ""
    other: str = ""
    direction: str = ""
    margin: float | None = None
    table: str = "scores"
    sets: list[str] = field(default_factory=list)
    low: float = -np.inf
    high: float = np.inf
    unit: str = ""

    def rule(self) -> str:
        """What the part asks, in words."""
        of, unit = f"{self.figure} of {self.method}".removesuffix(" of "), self.unit
        if self.other:
            unit = METRICS.unit[self.figure]
            least = f"{SLIGHT:.1%}" if self.margin is None else f"{self.margin:g} {unit}".rstrip()
            if self.direction == "same":
                return f"{of} within {least} of that of {self.other}"
            return f"{of} {self.direction} than of {self.other}, by {least}"
        if np.isinf(self.low):
            return f"{of} at most {self.high:g} {unit}".rstrip()
        if np.isinf(self.high):
            return f"{of} above {self.low:g} {unit}".rstrip()
        return f"{of} in {self.low:g} – {self.high:g} {unit}".rstrip()


@dataclass(frozen=True)
class Claim:
    """text: the claim. short: the few words that a list has room for. notebook: which judges it."""

    text: str
    short: str
    notebook: str
    parts: list[Part]


def _read() -> dict[str, Claim]:
    """``claims.yaml``, its lists of figures and methods and its published weights written out."""
    text = Path(__file__).with_suffix(".yaml").read_text("utf-8")
    claims = {}
    for name, entry in yaml.safe_load(text).items():
        published = entry.pop("published", False)
        parts = [part for line in entry.pop("tests") for part in _parts(**line)]
        again = [_published(part) for part in parts if published]
        claims[name] = Claim(**entry, parts=[*parts, *again])
    return claims


def _parts(part: str, figure: str | list, method: str | list = "", **fields) -> Iterator[Part]:
    """One part for each figure and method; its name says which where there are several."""
    figures, methods = ([v] if isinstance(v, str) else v for v in (figure, method))
    for name, one in itertools.product(methods, figures):
        words = f"{part}, {name}" if len(methods) > 1 else part
        words = f"{words}: {one}" if len(figures) > 1 else words
        better = {"direction": METRICS.direction[one]} if "other" in fields else {}
        yield Part(words, one, name, **better | fields)


def _published(part: Part) -> Part:
    """The same part on published weights."""
    names = (n if n == "input" else f"{n} (published)" for n in (part.method, part.other))
    method, other = names
    return replace(part, part=f"{part.part}, published weights", method=method, other=other)


CLAIMS = _read()

# --- judging --------------------------------------------------------------------------------------

COLUMNS = ["claim", "part", "on", "rule", "measured", "low", "high", "unit", "n", "scenes", "seeds"]
COLUMNS += ["finding", "outcome", "budget"]


def judge(
    *claims: str, budgets: Mapping[str, str] | None = None, **tables: pd.DataFrame
) -> pd.DataFrame:
    """Every part of these claims, decided: one row a part and data set.

    tables: by the name that the parts give: ``scores`` of ``evaluation.evaluate``, ``bursts`` of
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
        for part in CLAIMS[claim].parts:
            table = tables.get(part.table)
            if table is None or table.empty:
                found = [_untestable(f"no table {part.table!r}")]
            else:
                found = _compared(part, table) if part.other else [_bounded(part, table)]
            trained = ((budgets or {}).get(name, "") for name in (part.method, part.other))
            about = {"claim": claim, "part": part.part, "rule": part.rule()}
            about["budget"] = "; ".join(dict.fromkeys(filter(None, trained)))
            rows += [about | row for row in found]
    return pd.DataFrame(rows, columns=COLUMNS)


def verdict(outcomes: Iterable[str]) -> str:
    """A claim's verdict from the outcomes of its parts, those left out that could not be tested.

    supported: every part; not supported: none; partly supported: some; not testable here: no part
    could be tested.
    """
    tested = set(outcomes) - {UNTESTABLE}
    return PARTLY if len(tested) > 1 else tested.pop() if tested else UNTESTABLE


def headline(parts: pd.DataFrame) -> str:
    """The verdicts of :func:`judge` in one line of Markdown: ``**N5** (one overlapping pool
    improves the result): **not supported**``.
    """
    found = parts.groupby("claim", sort=False)["outcome"].agg(verdict)
    return "; ".join(f"**{c}** ({CLAIMS[c].short}): **{word}**" for c, word in found.items())


def _untestable(why: str) -> dict:
    return {"on": "", "n": 0, "finding": why, "outcome": UNTESTABLE}


def _compared(part: Part, table: pd.DataFrame) -> list[dict]:
    if absent := {part.method, part.other} - set(table["method"]):
        return [_untestable(f"not scored: {', '.join(sorted(absent))}")]
    if part.figure not in table:
        return [_untestable(f"no figure {part.figure!r}")]
    sets = {name: on for name, on in table.groupby("dataset", sort=False)}
    names = [name for name in part.sets or sets if name in sets]
    if not names:
        return [_untestable(f"not scored on {' or '.join(part.sets)}")]
    names = [name for name in names if name != "bundled"] or names
    rows = [_on(part, sets[name], name) for name in names]
    return [row for row in rows if row] or [_untestable(f"{part.figure} is nowhere defined")]


def _on(part: Part, table: pd.DataFrame, name: str) -> dict | None:
    """The part on one data set; None where its methods or its figure are not defined there."""
    if part.direction == "nearer 0":
        table = table.assign(**{part.figure: table[part.figure].abs()})
    if {part.method, part.other} - set(table["method"]):
        return None
    found = statistics.compare(table, part.figure, part.method, part.other)
    if not found.n:
        return None
    row = {"on": name, "measured": found.mean, "low": found.low, "high": found.high}
    row |= {"unit": METRICS.unit[part.figure], "n": found.n}
    row |= {"scenes": found.scenes, "seeds": found.seeds}
    if found.scenes < statistics.FEWEST:
        return row | {"finding": f"fewer than {statistics.FEWEST} scenes", "outcome": UNTESTABLE}
    margin = part.margin
    if margin is None:
        margin = SLIGHT * abs(table.loc[table["method"] == part.other, part.figure].mean())
    finding = decide(found.low, found.high, part.direction, margin)
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


def _bounded(part: Part, table: pd.DataFrame) -> dict:
    rows = table[table["method"] == part.method] if part.method else table
    rows = rows.dropna(subset=[part.figure])
    if rows.empty:
        return _untestable(f"no {part.method or part.figure} in the table {part.table!r}")
    values = rows[part.figure]
    low = rows.get(f"{part.figure}_low", values).fillna(values).min()
    high = rows.get(f"{part.figure}_high", values).fillna(values).max()
    inside = part.low < low if np.isinf(part.high) else part.low <= low
    row = {"on": "", "measured": values.mean(), "low": low, "high": high, "unit": part.unit}
    row |= {"n": len(rows), "seeds": rows["seed"].nunique() if "seed" in rows else np.nan}
    finding = "holds" if inside and high <= part.high else "outside"
    return row | {"finding": finding, "outcome": SUPPORTED if finding == "holds" else REFUTED}


# --- the ledger -----------------------------------------------------------------------------------


def collect(folder: Path) -> pd.DataFrame:
    """Every part of every claim from the tables ``NN_claims.csv`` in ``folder``.

    Raises ValueError for a table that lacks a column, and for a claim judged by a notebook that it
    does not belong to.
    """
    tables = [pd.DataFrame(columns=COLUMNS)]
    for file in sorted(Path(folder).glob("[0-9][0-9]_claims.csv")):
        table = pd.read_csv(file, keep_default_na=False, na_values={"low": "", "high": ""})
        if missing := [column for column in COLUMNS if column not in table]:
            raise ValueError(f"{file.name}: has no column {missing[0]!r}; run that report again")
        for claim in table["claim"].unique():
            if claim not in CLAIMS or CLAIMS[claim].notebook != file.name[:2]:
                raise ValueError(
                    f"{file.name}: {claim!r} is not judged by notebook {file.name[:2]}"
                )
        tables.append(table)
    return pd.concat(tables[1:] or tables, ignore_index=True)


def ledger(folder: Path) -> pd.DataFrame:
    """One row a claim: claim, statement, verdict, notebook, measured (part by part), n, budget.

    folder: where the notebooks' tables lie. A claim that no notebook has tested says so.
    """
    found, rows = collect(folder), []
    for name, claim in CLAIMS.items():
        mine = found[found["claim"] == name]
        row = {"claim": name, "statement": claim.text}
        row["verdict"] = verdict(mine["outcome"]) if len(mine) else UNTESTED
        row["notebook"] = claim.notebook
        measured = "; ".join(_words(part) for _, part in mine.iterrows())
        row["measured"] = measured or "no finished report tests it"
        row["n"] = _counted(mine)
        budgets = (text for each in mine["budget"] for text in str(each).split("; "))
        row["budget"] = "; ".join(dict.fromkeys(filter(None, budgets)))
        rows.append(row)
    return pd.DataFrame(rows)


def _words(part: pd.Series) -> str:
    """``details: detail_kept, sice-pairs +0.012 share (0.008 – 0.016) → supported``."""
    name = f"{part['part']}, {part['on']}" if part["on"] else str(part["part"])
    if part["measured"] == "":
        return f"{name}: {part['finding']} → {part['outcome']}"
    measured = f"{float(part['measured']):.3g} {part['unit']}".rstrip()
    if not pd.isna(part["low"]):
        measured += f" ({float(part['low']):.3g} – {float(part['high']):.3g})"
    return f"{name} {measured}, {part['finding']} → {part['outcome']}"


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
        names = table.loc[table["verdict"] == word, "claim"]
        mine = [f"**{name}** {CLAIMS[name].short}" for name in names]
        lines += [f"| {word} | {' · '.join(mine)} |"] if mine else []
    return "\n".join(lines)
