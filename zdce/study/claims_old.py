"""The ledger: every claim under test, what was measured for it, and the verdict that a rule takes from the numbers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

# id → the claim, and the few words that a list has room for. R1 and P1 – P3 are the improved study's as well.
CLAIMS = {
    "R1": (
        "The paper's network is reproduced: published weights give the published pictures, and training from scratch "
        "reaches the same losses and scores",
        "the network is reproduced",
    ),
    "P1": ("Enhancement makes bright areas too bright", "bright areas become too bright"),
    "P2": ("Enhancement brings noise out of dark areas", "noise comes out of dark areas"),
    "P3": ("Enhancement loses details", "details are lost"),
    "N1": (
        "Halving the channels shrinks the file from 312 – 316 KB to 97 KB",
        "a file of 97 KB instead of 312",
    ),
    "N2": ("Halving the channels speeds up training", "half the channels train faster"),
    "N3": (
        "It speeds up inference by 10 – 35 % on the nine LIME photographs",
        "and run 10 – 35 % faster",
    ),
    "N4": (
        "Shrinking the feature maps causes white borders and noise",
        "shrunk feature maps: white borders, noise",
    ),
    "N5": (
        "One overlapping max-pool improves the result",
        "one overlapping pool improves the result",
    ),
    "N6": (
        "Several overlapping max-pools lose detail and add noise",
        "several lose detail and add noise",
    ),
    "L1": (
        "Raising the TV weight from 200 to 300 reduces noise in dark areas",
        "TV weight 300 reduces noise",
    ),
    "L2": (
        "The loss converges on the whole, but swings widely even at 200 epochs",
        "the loss converges, but swings widely",
    ),
    "G1": (
        "Gamma below 1 stretches dark tones, gamma above 1 tames over-exposure",
        "gamma < 1 stretches darks, > 1 tames highlights",
    ),
    "G2": ("Gamma 1.15 after the network improves the result", "gamma 1.15 improves the result"),
    "E1": (
        "The improved pipeline beats the original on over-exposure",
        "improved: less over-exposure",
    ),
    "E2": ("The improved pipeline beats the original on noise", "improved: less noise"),
    "E3": ("The improved pipeline beats the original on details", "improved: more detail"),
}
# Of a notebook's table NN_claims, one row a part of a claim. held: yes, no, partly or not testable here.
COLUMNS = ["claim", "part", "rule", "measured", "interval", "n", "budget", "held"]
VERDICTS = ("supported", "partly supported", "not supported", "not testable here", "not tested yet")
_VERDICT_OF = {
    "yes": VERDICTS[0],
    "partly": VERDICTS[1],
    "no": VERDICTS[2],
    "not testable here": VERDICTS[3],
}


def verdict(held: Iterable[str]) -> str:
    """A claim's verdict from its parts' ``yes``, ``no``, ``partly`` and ``not testable here``.

    supported: every part holds; not supported: none that could be tested holds; not testable here: none could be
    tested; partly supported: anything else.
    """
    held = set(held)
    if held == {"not testable here"}:
        return "not testable here"
    if held == {"yes"}:
        return "supported"
    return "partly supported" if held & {"yes", "partly"} else "not supported"


def held(verdict: str) -> str:
    """The word for a part whose own parts came to ``verdict``."""
    return next(word for word, name in _VERDICT_OF.items() if name == verdict)


def parts(rows: Iterable[dict]) -> pd.DataFrame:
    """Rows of a notebook's ``NN_claims``, checked: columns :data:`COLUMNS`, known claims, known words in ``held``."""
    table = pd.DataFrame(rows, columns=COLUMNS).fillna("").astype(str)
    for column, known in (("claim", CLAIMS), ("held", _VERDICT_OF)):
        if unknown := sorted(set(table[column]) - set(known)):
            raise ValueError(f"{column}={unknown[0]!r}: choose one of {', '.join(known)}")
    return table


def collect(folder: Path) -> pd.DataFrame:
    """Every part of every claim from the tables ``NN_claims.csv`` in ``folder``, with the notebook's number first."""
    tables = []
    for file in sorted(Path(folder).glob("[0-9][0-9]_claims.csv")):
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
        if missing := [column for column in COLUMNS if column not in table]:
            raise ValueError(
                f"{file.name}: has no column {missing[0]!r}; a ledger's table needs {', '.join(COLUMNS)}; "
                "run that report again"
            )
        tables.append(parts(table.to_dict("records")).assign(notebook=file.name[:2]))
    return (
        pd.concat(tables, ignore_index=True)
        if tables
        else pd.DataFrame(columns=[*COLUMNS, "notebook"])
    )


def claims(folder: Path) -> pd.DataFrame:
    """The ledger: one row a claim with its verdict and notebooks, and what was measured, part by part.

    folder: where the notebooks' tables lie. A claim that no notebook has tested says so.
    """
    found, rows = collect(folder), []
    for claim, (text, _) in CLAIMS.items():
        mine = found[found["claim"] == claim]
        told = [
            f"{row.part}: {row.measured}"
            + (f" ({row.interval})" if row.interval else "")
            + f" → {row.held}"
            for row in mine.itertuples()
        ]
        rows.append(
            {
                "claim": claim,
                "statement": text,
                "verdict": verdict(mine["held"]) if len(mine) else VERDICTS[-1],
                "notebook": ", ".join(dict.fromkeys(mine["notebook"])),
                "measured": "; ".join(told) or "no finished report tests it",
                "n": "; ".join(dict.fromkeys(n for n in mine["n"] if n)),
                "budget": "; ".join(dict.fromkeys(b for b in mine["budget"] if b)),
            }
        )
    return pd.DataFrame(rows)


def glance(table: pd.DataFrame) -> str:
    """The verdicts of :func:`claims` at a glance, as a Markdown table: a row a verdict."""
    lines = ["| verdict | claims |", "|---|---|"]
    for word in VERDICTS:
        mine = [
            f"**{claim}** {CLAIMS[claim][1]}"
            for claim in table.loc[table["verdict"] == word, "claim"]
        ]
        lines += [f"| {word} | {' · '.join(mine)} |"] if mine else []
    return "\n".join(lines)
