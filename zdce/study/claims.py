"""The claims of ``claims.yaml``, the one place that judges them, and the ledger.

One rule decides all: a difference counts where its whole 95 % interval over scenes and seeds
(:mod:`zdce.study.statistics`) lies beyond the margin.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from zdce.metrics import METRICS
from zdce.study import statistics

VERDICTS = ("supported", "partly supported", "not supported", "not testable here")
SUPPORTED, PARTLY, REFUTED, UNTESTABLE = VERDICTS
UNTESTED = "not tested yet"
# Reference row of the ablations, as long trained as they.
REFERENCE = "zero-dce-improved (reference)"
SLIGHT = 0.005  # share of the other method's mean; smaller differences change no verdict


@dataclass(frozen=True)
class Part:
    """A test of ``claims.yaml``, which says what its fields mean: ``method`` against ``other``, or,
    without that, bounds for every row of ``method`` (empty: of the table); where there are columns
    ``FIGURE_low`` and ``FIGURE_high``, for the whole interval.
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
        bounds = f"in {self.low:g} – {self.high:g}"
        bounds = f"at most {self.high:g}" if np.isinf(self.low) else bounds
        bounds = f"above {self.low:g}" if np.isinf(self.high) else bounds
        return f"{of} {bounds} {unit}".rstrip()


@dataclass(frozen=True)
class Claim:
    text: str
    short: str
    notebook: str
    parts: list[Part]


def _read() -> dict[str, Claim]:
    """``claims.yaml``, its lists and published weights written out as parts."""
    claims = {}
    text = Path(__file__).with_suffix(".yaml").read_text("utf-8")
    for name, entry in yaml.safe_load(text).items():
        parts = []
        for test in entry.pop("tests"):
            lists = (np.atleast_1d(test.get(k, "")).tolist() for k in ("figure", "method", "other"))
            figures, methods, others = lists
            for method, other, figure in product(methods, others, figures):
                words = test["part"] + f", {method}" * (len(methods) > 1)
                words += f" {other}" * (len(others) > 1) + f": {figure}" * (len(figures) > 1)
                better = {"direction": METRICS.direction[figure]} if other else {}
                one = {"part": words, "figure": figure, "method": method, "other": other}
                parts.append(Part(**better | test | one))
        for part in [*parts] if entry.pop("published", False) else []:
            names = {"method": f"{part.method} (published)", "other": part.other}
            if part.other != "input":
                names["other"] += " (published)"
            parts.append(replace(part, part=f"{part.part}, published weights", **names))
        claims[name] = Claim(**entry, parts=parts)
    return claims


CLAIMS = _read()

# --- judging --------------------------------------------------------------------------------------

COLUMNS = ["claim", "part", "on", "rule", "measured", "low", "high", "unit", "n", "scenes", "seeds"]
COLUMNS += ["finding", "outcome", "budget"]


def judge(
    *claims: str, budgets: Mapping[str, str] | None = None, **tables: pd.DataFrame
) -> pd.DataFrame:
    """Every part of these claims, decided: one row a part and data set.

    tables: by the name that the parts give: ``scores`` of ``evaluation.evaluate``, ``bursts`` of
    ``evaluate_bursts``, and so on. Photographs that a camera took decide; bundled ones only where
    there are no others. budgets: of ``evaluation.budgets``.

    Columns: claim, part, on (data set), rule, measured with its 95 % interval low – high (of
    bounds: the smallest and largest row), unit, n (photographs or rows), scenes, seeds, budget;
    outcome: of :data:`VERDICTS`; finding: of :func:`decide`, ``outside`` for bounds, or what is
    missing.
    """
    rows, budgets = [], budgets or {}
    for claim in claims:
        for part in CLAIMS[claim].parts:
            table = tables.get(part.table, pd.DataFrame())
            if part.sets and "dataset" in table:
                table = table[table["dataset"].isin(part.sets)]
            if part.figure not in table:
                found = [{"finding": f"no figure {part.figure!r} in a table {part.table!r}"}]
            else:
                found = _compared(part, table) if part.other else [_bounded(part, table)]
            trained = [budgets.get(name, "") for name in (part.method, part.other)]
            about = {"claim": claim, "part": part.part, "rule": part.rule(), "on": "", "n": 0}
            about["budget"] = "; ".join(dict.fromkeys(filter(None, trained)))
            for row in found:
                outcome = SUPPORTED if row["finding"] == "holds" else REFUTED
                tested = "measured" in row and row.get("scenes", np.inf) >= statistics.FEWEST
                rows.append(about | {"outcome": outcome if tested else UNTESTABLE} | row)
    return pd.DataFrame(rows, columns=COLUMNS)


def verdict(outcomes: Iterable[str]) -> str:
    """A claim's verdict from the outcomes of its parts, as far as they could be tested."""
    tested = set(outcomes) - {UNTESTABLE}
    return PARTLY if len(tested) > 1 else tested.pop() if tested else UNTESTABLE


def headline(parts: pd.DataFrame) -> str:
    """The verdicts of :func:`judge` in one line of Markdown."""
    found = parts.groupby("claim", sort=False)["outcome"].agg(verdict)
    return "; ".join(f"**{c}** ({CLAIMS[c].short}): **{word}**" for c, word in found.items())


def _compared(part: Part, table: pd.DataFrame) -> list[dict]:
    if part.direction == "nearer 0":
        table = table.assign(**{part.figure: table[part.figure].abs()})
    found = statistics.differences(table, [part.figure], [(part.method, part.other)])
    bases = table[table["method"] == part.other].groupby("dataset")[part.figure].mean()
    rows = found.rename(columns={"dataset": "on", "mean": "measured"}).to_dict("records")
    for row in rows:
        margin = SLIGHT * abs(bases[row["on"]]) if part.margin is None else part.margin
        row["unit"] = METRICS.unit[part.figure]
        row["finding"] = decide(row["low"], row["high"], part.direction, margin)
        if row["scenes"] < statistics.FEWEST:
            row["finding"] = f"fewer than {statistics.FEWEST} scenes: score more (limit = 0)"
    missing = {"finding": f"not scored: {', '.join(sorted([part.method, part.other]))}"}
    return [row for row in rows if row["on"] != "bundled"] or rows or [missing]


def decide(low: float, high: float, direction: str, margin: float) -> str:
    """What an interval says of a difference: ``holds``, ``opposite`` (as certain), ``negligible``
    (certain, but not wholly beyond the margin), ``no difference`` (0 is in it); of ``same``:
    ``holds``, ``differs``, ``open``.
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
        return {"finding": f"no {part.method or part.figure} in the table {part.table!r}"}
    values = rows[part.figure]
    low = rows.get(f"{part.figure}_low", values).fillna(values).min()
    high = rows.get(f"{part.figure}_high", values).fillna(values).max()
    inside = part.low < low if np.isinf(part.high) else part.low <= low
    row = {"measured": values.mean(), "low": low, "high": high, "unit": part.unit, "n": len(rows)}
    row |= {"seeds": rows["seed"].nunique()} if "seed" in rows else {}
    return row | {"finding": "holds" if inside and high <= part.high else "outside"}


# --- the ledger -----------------------------------------------------------------------------------


def ledger(folder: Path) -> pd.DataFrame:
    """One row a claim: claim, statement, verdict, notebook, measured (part by part), n, budget;
    from the notebooks' tables ``NN_claims.csv`` in ``folder``, as far as they are there.
    """
    rows = []
    for name, claim in CLAIMS.items():
        file, parts = Path(folder) / f"{claim.notebook}_claims.csv", []
        if file.is_file():
            table = pd.read_csv(file, keep_default_na=False)
            parts = table[table["claim"] == name].to_dict("records")
        row = {"claim": name, "statement": claim.text}
        row["verdict"] = verdict(part["outcome"] for part in parts) if parts else UNTESTED
        row["notebook"] = claim.notebook
        row["measured"] = "; ".join(map(_words, parts)) or "no finished report tests it"
        row["n"] = "; ".join(dict.fromkeys(_counted(part) for part in parts if part["n"]))
        budgets = [text for part in parts for text in part["budget"].split("; ")]
        row["budget"] = "; ".join(dict.fromkeys(filter(None, budgets)))
        rows.append(row)
    return pd.DataFrame(rows)


def _words(part: dict) -> str:
    name = f"{part['part']}, {part['on']}" if part["on"] else part["part"]
    if part["measured"] == "":
        return f"{name}: {part['finding']} → {part['outcome']}"
    measured = f"{float(part['measured']):.3g} {part['unit']}".rstrip()
    rows = "" if part["on"] else "rows "  # no interval, but the smallest and largest row
    measured += f" ({rows}{float(part['low']):.3g} – {float(part['high']):.3g})"
    return f"{name} {measured}, {part['finding']} → {part['outcome']}"


def _counted(part: dict) -> str:
    what = f"photographs of {part['on']}" if part["on"] else "row" + "s" * (part["n"] != 1)
    seeds = float(part["seeds"] or 0)
    return f"{part['n']} {what}" + (f", {seeds:.0f} seeds" if seeds > 1 else "")


def glance(table: pd.DataFrame) -> str:
    """The verdicts of :func:`ledger` at a glance, as a Markdown table: a row a verdict."""
    lines = ["| verdict | claims |", "|---|---|"]
    for word in (*VERDICTS, UNTESTED):
        names = table.loc[table["verdict"] == word, "claim"]
        mine = [f"**{name}** {CLAIMS[name].short}" for name in names]
        lines += [f"| {word} | {' · '.join(mine)} |"] if mine else []
    return "\n".join(lines)
