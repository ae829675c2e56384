"""The result comparison: which methods are compared for which claim, their paired differences, and what follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from zdce import checkpoints, datasets, metrics, paths
from zdce.study import claims_old as ledger
from zdce.study import evaluation, experiments

FEWEST = 5  # scenes; with fewer, a bootstrap interval says too little and a difference is left open (ours)
SLIGHT = 0.005  # a difference below this share of the other's mean is too small to matter, however certain (ours)
# Of weights, and what a method's label ends in.
ORIGINS = {"trained here": ""}
ORIGINS |= {
    f"trained here, seed {seed}": f" (seed {seed})"
    for seed in experiments.BUDGETS["study"].seeds[1:]
}
ORIGINS["published"] = " (published)"
OUTCOMES = {
    "better": "yes",
    "worse": "no",
    "no difference": "no",
    "negligible": "no",
}  # and whether a claim holds
OPEN = ("nothing to see", "too few")


@dataclass(frozen=True)
class Comparison:
    """What is compared for a claim: ``method`` against ``other``, labels of methods, on these figures of METRICS."""

    claim: str
    about: str
    method: str
    other: str
    figures: tuple[str, ...]


METRICS = {metric.name: metric for metric in metrics.METRICS}
_PLAIN, _NETWORK, _PIPELINE = (method.label for method in evaluation.OURS)
_NOISE = ("dark_noise_gain", "noise_gain", "dark_noise_gain_relative", "noise_gain_relative")
COMPARISONS = (
    Comparison("E1", "over-exposure", _PIPELINE, _PLAIN, ("newly_clipped", "bright_gain")),
    Comparison("E2", "noise", _PIPELINE, _PLAIN, _NOISE),
    Comparison("E3", "details", _PIPELINE, _PLAIN, ("detail_kept", "ssim_matched")),
    Comparison(
        "G2",
        "gamma",
        _PIPELINE,
        _NETWORK,
        (
            "newly_clipped",
            "bright_gain",
            "dark_noise_gain",
            "detail_kept",
            "psnr",
            "ssim",
            "psnr_matched",
            "niqe",
        ),
    ),
    Comparison(
        "–",
        "network alone",
        _NETWORK,
        _PLAIN,
        (
            "newly_clipped",
            "bright_gain",
            *_NOISE,
            "detail_kept",
            "psnr",
            "ssim",
            "psnr_matched",
            "ssim_matched",
        ),
    ),
)


def differences(scores: pd.DataFrame) -> pd.DataFrame:
    """Every comparison of :data:`COMPARISONS` that a table of ``evaluation.evaluate`` or ``evaluation.evaluate_bursts`` allows.

    One row a comparison, data set, figure and origin of the weights: both means, their paired difference with its
    95 % interval, n photographs or scenes that have the figure, and the outcome for ``method``: ``better``, ``worse``,
    ``no difference`` (the interval holds 0), ``negligible`` (it does not, but the difference is below :data:`SLIGHT` of
    the other's mean), ``nothing to see`` (the figure is 0 everywhere, or undefined) or ``too few`` (fewer than
    :data:`FEWEST` scenes). Figures that are better ``nearer 0`` are compared by their size.
    """
    rows = []
    for origin, suffix in ORIGINS.items():
        for each in COMPARISONS:
            pair = (each.method + suffix, each.other + suffix)
            for name, part in scores[scores["method"].isin(pair)].groupby("dataset", sort=False):
                for figure in (
                    figure for figure in each.figures if figure in part and _measured(part, figure)
                ):
                    about = {
                        "claim": each.claim,
                        "about": each.about,
                        "weights": origin,
                        "dataset": name,
                    }
                    rows.append(
                        about
                        | {"figure": figure}
                        | _compared(part, figure, pair, METRICS[figure].direction)
                    )
    return pd.DataFrame(rows)


def _measured(part: pd.DataFrame, figure: str) -> bool:
    """False for a figure that needs a reference, on a set without one."""
    return METRICS[figure].needs != "reference" or bool(part[figure].notna().any())


def _compared(part: pd.DataFrame, figure: str, pair: tuple[str, str], direction: str) -> dict:
    part = part.assign(**{figure: part[figure].abs()}) if direction == "nearer 0" else part
    means = part.groupby("method")[figure].mean()
    difference = evaluation.paired(part, figure, *pair).dropna()
    low, high = evaluation.interval(difference)
    if difference.empty or not part[figure].abs().max():
        outcome = "nothing to see"
    elif difference.index.get_level_values("scene").nunique() < FEWEST:
        outcome = "too few"
    elif low <= 0 <= high:
        outcome = "no difference"
    elif abs(difference.mean()) < SLIGHT * abs(means[pair[1]]):
        outcome = "negligible"
    else:
        outcome = "better" if (low > 0) == (direction == "higher") else "worse"
    row = {
        "method": pair[0],
        "mean": means[pair[0]],
        "other": pair[1],
        "mean_other": means[pair[1]],
    }
    row |= {
        "difference": difference.mean(),
        "low": low,
        "high": high,
        "n": len(difference),
        "outcome": outcome,
    }
    return row


def answers(found: pd.DataFrame) -> pd.DataFrame:
    """Verdict on each claim from :func:`differences`: one row a claim and origin of the weights, outcomes counted.

    A comparison counts as yes when better, as not testable when left open, and else as no; the verdict is that of
    ``ledger.verdict`` over all data sets and figures.
    """
    rows = []
    for (claim, about, origin), part in found.groupby(["claim", "about", "weights"], sort=False):
        held = [OUTCOMES.get(outcome, "not testable here") for outcome in part["outcome"]]
        counted = {word: int((part["outcome"] == word).sum()) for word in OUTCOMES}
        counted["open"] = len(part) - sum(counted.values())
        rows.append(
            {"claim": claim, "about": about, "weights": origin, "verdict": ledger.verdict(held)}
            | counted
        )
    return pd.DataFrame(rows)


def claims(found: pd.DataFrame) -> pd.DataFrame:
    """Claims E1, E2, E3 and G2 as :func:`zdce.study.claims.parts`, from :func:`differences`: one row a claim, figure and
    origin of the weights, over all data sets."""
    rows = []
    judged = found[found["claim"] != "–"]
    for (claim, figure, origin), part in judged.groupby(["claim", "figure", "weights"], sort=False):
        each = [f"{row.dataset} {row.difference:+.3g} ({row.outcome})" for row in part.itertuples()]
        ranges = [
            f"{row.dataset} {row.low:+.2g} – {row.high:+.2g}"
            for row in part.itertuples()
            if row.low == row.low
        ]
        counts = [f"{row.n} on {row.dataset}" for row in part.itertuples()]
        told = [OUTCOMES.get(outcome, "not testable here") for outcome in part["outcome"]]
        rows.append(
            {
                "claim": claim,
                "part": f"{figure}, weights {origin}",
                "rule": f"better ({METRICS[figure].direction}) on every set, by more than the 95 % interval",
                "measured": ", ".join(each),
                "interval": ", ".join(ranges),
                "n": ", ".join(counts),
                "budget": _budget(origin),
                "held": ledger.held(ledger.verdict(told)),
            }
        )
    return ledger.parts(rows)


def _budget(origin: str) -> str:
    if origin == "published":
        return "published weights"
    runs = {
        method.model: checkpoints.load(method.model).header["train"] for method in evaluation.OURS
    }
    if origin != "trained here":
        runs = {name: run | {"seed": int(origin.split()[-1])} for name, run in runs.items()}
    return "; ".join(f"{name}: {experiments.budget(run)}" for name, run in runs.items())


def over_seeds(scores: pd.DataFrame, figures: Sequence[str]) -> pd.DataFrame:
    """How far trainings that differ in their seed alone lie apart: one row a data set, method and figure, with seeds,
    the lowest and highest of the seeds' means over photographs, and their range. Empty for a single seed."""
    label = scores["method"].str.extract(r"^(?P<method>.*?)(?: \(seed (?P<seed>\d+)\))?$")
    repeated = label.loc[label["seed"].notna(), "method"].unique()
    mine = scores.assign(seed=label["seed"].fillna("0"), method=label["method"])
    mine = mine[mine["method"].isin(repeated)]
    means = mine.melt(
        ["dataset", "method", "seed"], [f for f in figures if f in mine], "figure"
    ).dropna(subset="value")
    means = means.groupby(["dataset", "figure", "method", "seed"], sort=False)["value"].mean()
    table = means.groupby(["dataset", "figure", "method"], sort=False).agg(
        seeds="size", lowest="min", highest="max"
    )
    return table.assign(range=table["highest"] - table["lowest"]).reset_index()


def extremes(
    scores: pd.DataFrame, on: Iterable[str], figures: Sequence[str], method: str, other: str
) -> list[datasets.Sample]:
    """Of each set in ``on``, the photographs where ``method`` gains most and least over ``other``, by the first of
    ``figures`` (higher is better) that the set has."""
    found = []
    for name in on:
        part = scores[scores["dataset"] == name]
        figure = next(figure for figure in figures if figure in part and part[figure].notna().any())
        difference = evaluation.paired(part, figure, method, other).droplevel(["dataset", "scene"])
        samples = {sample.name: sample for sample in datasets.samples(name)}
        found += [samples[photograph] for photograph in (difference.idxmax(), difference.idxmin())]
    return found


def restless(noise: pd.DataFrame) -> list[str]:
    """Scenes of ``evaluation.evaluate_bursts`` whose input is more than twice as noisy as its set's middle one: something
    there probably moves or flickers."""
    before = noise[noise["method"] == evaluation.INPUT.label]
    middle = before.groupby("dataset")["burst_noise"].transform("median")
    return before.loc[before["burst_noise"] > 2 * middle, "scene"].astype(str).tolist()


_EXPECTED = {"zero-dce++-12x": "zero-dce++ (12x)", f"{_PIPELINE} (published)": f"{_PIPELINE} 1.15"}


def calibration(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores of published weights on sice-pairs beside those that lie with the shared data: one row a method.

    n photographs, and the largest difference on any of them in psnr (dB), ssim, mae (grey levels) and mean. Empty
    where the mirror has no such file, or ``scores`` no such method.
    """
    file = Path(paths.mirror() or ".") / "expected" / "sice_pairs_published_weights.csv"
    if not file.is_file():
        return pd.DataFrame()
    figures = ["psnr", "ssim", "mae", "mean"]
    known = pd.read_csv(file).set_index(["method", "low"])[figures]
    ours = scores[
        (scores["dataset"] == "sice-pairs")
        & ~scores["method"].isin([m.label for m in evaluation.OURS])
    ]
    labels = ours["method"].replace(_EXPECTED).str.removesuffix(" (published)")
    away = (
        ours[figures]
        - known.reindex(pd.MultiIndex.from_arrays([labels, ours["photograph"]])).to_numpy()
    )
    groups = away.abs().assign(method=ours["method"]).dropna().groupby("method", sort=False)
    return groups.max().assign(n=groups.size()).reset_index()


def outcomes(found: pd.DataFrame) -> pd.DataFrame:
    """The outcomes of :func:`differences` at a glance: a row a claim and figure, a column a data set; the word where
    all weights agree, else each word with how many of them say it. Empty cells: not measured there."""
    judged = found[found["claim"] != "–"]

    def told(words: pd.Series) -> str:
        counts = words.value_counts(sort=False)
        return (
            words.iloc[0]
            if len(counts) == 1
            else ", ".join(f"{word} {count}" for word, count in counts.items())
        )

    cells = judged.groupby(["claim", "figure", "dataset"], sort=False)["outcome"].agg(told)
    return (
        cells.unstack("dataset")
        .reindex(columns=judged["dataset"].unique())
        .fillna("")
        .reset_index()
    )


def headline(verdicts: pd.DataFrame) -> str:
    """The verdicts of :func:`answers` in a sentence for each set of weights; weights that agree share one."""
    said: dict[str, list[str]] = {}
    for origin, part in verdicts[verdicts["claim"] != "–"].groupby("weights", sort=False):
        each = ", ".join(
            f"{row.claim} ({row.about}) **{row.verdict}**" for row in part.itertuples()
        )
        said.setdefault(each, []).append(origin)
    return " ".join(f"With weights {_listed(origins)}: {each}." for each, origins in said.items())


def _listed(origins: Sequence[str]) -> str:
    own = [origin for origin in origins if origin.startswith("trained here")]
    several = f"trained here ({len(own)} seeds)" if len(own) > 1 else "".join(own)
    return " and ".join([several] * bool(own) + [origin for origin in origins if origin not in own])


def reasons(found: pd.DataFrame) -> list[str]:
    """For each claim and origin of the weights a line of Markdown that lists its comparisons by outcome, from
    :func:`differences`; ``figure (set +0.1)`` is a paired difference on that set. Of further seeds only what comes
    out otherwise than with the first is told, in a line each."""
    lines = []
    for (claim, about, origin), part in found[~_repeated(found)].groupby(
        ["claim", "about", "weights"], sort=False
    ):
        told = []
        for outcome in OUTCOMES:
            rows = part[part["outcome"] == outcome]
            shown = []
            for figure, same in rows.groupby("figure", sort=False):
                each = [f"{row.dataset} {row.difference:+.2g}" for row in same.itertuples()]
                shown.append(f"`{figure}` ({', '.join(each)})")
            told += [f"*{outcome}*: {', '.join(shown)}"] if shown else []
        unseen = int(part["outcome"].isin(OPEN).sum())
        told += [f"left open: {unseen}"] if unseen else []
        name = about if claim == "–" else f"{claim} {about}"
        lines.append(f"- **{name}**, weights {origin}. {'; '.join(told)}.")
    key = ["claim", "about", "dataset", "figure"]
    first = found[found["weights"] == "trained here"].set_index(key)["outcome"]
    for origin, part in found[_repeated(found)].groupby("weights", sort=False):
        mine = part.set_index(key)["outcome"]
        other = mine[mine != first.reindex(mine.index)]
        each = [
            f"`{figure}` on {on} {word}"
            for (_, _, on, figure), word in other.groupby(level=key, sort=False).first().items()
        ]
        lines.append(
            f"- **Weights {origin}**: {len(other)} of {len(mine)} comparisons come out otherwise"
            f"{': ' if each else ''}{', '.join(dict.fromkeys(each))}."
        )
    return lines


def _repeated(found: pd.DataFrame) -> pd.Series:
    """Rows of weights that differ from others in their seed alone."""
    return found["weights"].str.startswith("trained here, seed")


def brightness(summary: pd.DataFrame) -> list[str]:
    """Lines of Markdown on what brightness explains, from the means of ``evaluation.summary``: how bright the
    improved pipeline renders beside the original (first seed and published), and which method leads in PSNR, as it is
    and after matching."""
    lines = []
    for name, part in summary.groupby("dataset", sort=False):
        rows = part.set_index("method")
        for origin, suffix in ORIGINS.items():
            if "seed" not in origin and {_PLAIN + suffix, _PIPELINE + suffix} <= set(rows.index):
                ours, other = rows.loc[_PIPELINE + suffix], rows.loc[_PLAIN + suffix]
                pairs = {
                    f: f"{ours[f]:.2f} × against {other[f]:.2f} ×" for f in _NOISE if f in rows
                }
                lines.append(
                    f"- **Brightness on {name}**, weights {origin}: the improved pipeline renders {ours['mean']:.3f}, "
                    f"the original {other['mean']:.3f} (ratio {ours['mean'] / other['mean']:.2f}). Noise in dark areas "
                    f"grew {pairs['dark_noise_gain']}; for its brightness {pairs['dark_noise_gain_relative']}."
                )
        if "psnr" in rows and rows["psnr"].notna().any():
            best = [
                f"{rows[figure].idxmax()} ({rows[figure].max():.2f} dB)"
                for figure in ("psnr", "psnr_matched")
            ]
            lines.append(
                f"- **Best on {name}**: PSNR as it is, {best[0]}; with equal means, {best[1]}."
            )
    return lines
