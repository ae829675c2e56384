"""What notebook 08 computes: a network of this study beside every peer, on scenes on which nothing was chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from skimage.exposure import match_histograms

from zdce import checkpoints, datasets, metrics, paths
from zdce.study import evaluation, experiments
from zdce.study import timing as speed

NAME, EARLIER = experiments.LEVEL.name, (experiments.NIGHT.name, experiments.CONTEXT.name)
OURS = evaluation.Method(NAME, NAME)
BEFORE = tuple(
    evaluation.Method(name, name) for name in EARLIER
)  # the same before it was levelled, and asked for the night
PREFIX = f"{NAME.removeprefix('zero-dce-')}-"  # of its rows in the ablation
OTHERS = (*evaluation.OURS, *evaluation.PUBLISHED, *evaluation.PEERS)
PIPELINE = f"{evaluation.OURS[2].model} + gamma"  # the improved study's, gamma included
UNCHANGED = (
    60.0  # ours: dB, what counts as unchanged, so that means of photographs left alone stay finite
)
NIGHT = 60  # ours: grey levels, mean of a photograph of lime or dicm below which it is dark
PAIRS = ("sice-pairs", "bundled")
WILD = ("lime", "dicm")
# The fast path of each of ours, the published networks as they are; both from 8 bits to 8 bits.
VERSIONS = (
    speed.Version(NAME, NAME, path="fast"),
    speed.Version("zero-dce-improved, fast path", "zero-dce-improved", path="fast"),
    *(speed.Version(name, name) for name in ("sci-medium", "zero-dce++-12x")),
)


def seeds() -> list[evaluation.Method]:
    """The network's other seeds, as kept; labelled such as ``zero-dce-level (seed 1)``."""
    return [
        evaluation.Method(f"{NAME} (seed {seed})", str(weights))
        for seed, weights in ((seed, _kept(NAME, seed)) for seed in experiments.BEYOND_SEEDS[1:])
        if weights
    ]


def _kept(arm: str, seed: int = 0) -> object | None:
    file = (
        experiments.training_folder()
        / f"{replace(experiments.BEYOND[arm], seed=seed).run_name()}.safetensors"
    )
    return file if file.is_file() else None


def rows() -> pd.DataFrame:
    """The arms of :data:`zdce.experiments.BEYOND`: arm, what it changes, the command that trains it, weights or None."""
    names = sorted(
        experiments.BEYOND, key=lambda arm: (arm != NAME, not arm.startswith(PREFIX))
    )  # else as they stand
    table = [
        {
            "arm": arm,
            "change": change(arm),
            "command": f"zdce train --arm {arm}",
            "weights": _kept(arm),
        }
        for arm in names
    ]
    return pd.DataFrame(table)


def arms(table: pd.DataFrame, chosen: str) -> list[evaluation.Method]:
    """The trained rows of :func:`rows` but the network's own, as methods.

    chosen: ``all``, or names with commas between them. Raises ValueError for an unknown name.
    """
    named = [name.strip() for name in chosen.split(",") if name.strip()]
    if unknown := set(named) - {"all", *table["arm"]}:
        raise ValueError(
            f"arms: no arm {sorted(unknown)[0]!r}; known: {', '.join(table['arm'])}, or all"
        )
    rows = table[table["arm"] != NAME].dropna(subset="weights")
    return [
        evaluation.Method(r.arm, str(r.weights))
        for r in rows.itertuples()
        if r.arm in named or "all" in named
    ]


def change(arm: str) -> str:
    """What an arm changes in its reference row, such as ``net.denoise 3.0 → 0.0``: an arm called ``context-…`` in
    ``zero-dce-context``, ``night-…`` in ``zero-dce-night``, all others in the network itself; each of these networks is
    told beside the one that follows."""
    chain = (NAME, *EARLIER)
    reference = next(
        (name for name in EARLIER if arm.startswith(name.removeprefix("zero-dce-") + "-")), NAME
    )
    if arm in EARLIER:
        reference = chain[chain.index(arm) - 1]
    own, first = (_flat(experiments.BEYOND[name].header()) for name in (arm, reference))
    keys = [key for key in first | own if own.get(key) != first.get(key) and key != "name"]
    told = [f"{key} {first.get(key, 'default')} → {own.get(key, 'default')}" for key in keys]
    return ", ".join(told) or "reference row"


def tried() -> pd.DataFrame:
    """Shorter trainings and changes by which the network's first form was chosen, a row each: idea, steps, and figures,
    of the choosing half but for the last three. psnr (at a quarter of the size, all pairs), mean_std (spread of the
    output's mean), ssim (every eighth pair), to_itself (at a quarter of the size), relative_noise of bursts,
    bright_gain and LOE of lime. Empty where the record is not there."""
    file = experiments.training_folder() / "level_search.csv"
    return pd.read_csv(file) if file.is_file() else pd.DataFrame()


def weighed() -> pd.DataFrame:
    """What `zero-dce-level` does after the network, and what was weighed against it, a row each, on the choosing half:
    idea, pairs (112 are all), psnr, psnr_matched, ssim; bright_gain and newly_clipped (%) of lime, and of thirteen
    nights of dicm. Empty where the record is not there."""
    file = experiments.training_folder() / "level_choices.csv"
    return pd.read_csv(file) if file.is_file() else pd.DataFrame()


def _flat(header: dict, before: str = "") -> dict:
    flat = {}
    for key, value in header.items():
        flat |= _flat(value, f"{key}.") if isinstance(value, dict) else {before + key: value}
    return flat


def to_itself(
    rows: Iterable[evaluation.Method], on: str, limit: int = 0, part: str = ""
) -> pd.DataFrame:
    """What every method does to well-exposed photographs: the references of ``on`` as input, one row a pair.

    limit, part: as in ``evaluation.evaluate``. Columns: dataset, photograph, scene, method, to_itself (PSNR between input
    and output, dB; 60 at most, which is what a photograph left as it is gets), mean_changed (output less input, grey
    levels).
    """
    rows, table, seen = list(rows), [], set()
    enhancers = {method.label: method.enhancer() for method in rows}
    for sample in datasets.samples(on, limit, part):
        if sample.scene in seen:  # pairs of one scene share their reference
            continue
        seen.add(sample.scene)
        good = sample.reference()
        for label, enhancer in enhancers.items():
            after = enhancer(good)
            about = {
                "dataset": on,
                "photograph": sample.name,
                "scene": sample.scene,
                "method": label,
            }
            moved = 255 * (metrics.mean(after) - metrics.mean(good))
            table.append(
                about
                | {"to_itself": min(metrics.psnr(after, good), UNCHANGED), "mean_changed": moved}
            )
    return pd.DataFrame(table)


def one_table(
    scores: pd.DataFrame, good: pd.DataFrame, noise: pd.DataFrame, times: pd.DataFrame | None = None
) -> pd.DataFrame:
    """All figures of all methods, one row a method: means over photographs or scenes.

    scores: of ``evaluation.evaluate`` over several sets; good: of :func:`to_itself`; noise: of ``evaluation.evaluate_bursts``;
    times: of ``speed.compare`` at one size. A column is a figure and, where it is taken on several sets, the set:
    ``niqe lime``.
    """
    pairs = scores[scores["dataset"].isin(PAIRS)].groupby("method", sort=False)
    table = pairs[["psnr", "ssim", "psnr_matched", "ssim_matched", "mean"]].mean()
    table = table.join(noise.groupby("method")["relative_noise"].mean())
    table = table.join(
        good[good["method"] != evaluation.INPUT.label].groupby("method")["to_itself"].mean()
    )
    for name in (name for name in WILD if (scores["dataset"] == name).any()):
        part = scores[scores["dataset"] == name].groupby("method")
        figures = [f for f in ("clipped_share", "bright_gain", "niqe", "loe") if f in scores]
        table = table.join(part[figures].mean().add_suffix(f" {name}"))
    sizes = {label: _bytes(label) for label in table.index}
    table["KB"] = pd.Series(sizes, dtype=float) / 1024
    if times is not None:
        table["ms"] = table.index.map(times.set_index("version")["pixels_ms"].to_dict())
    return table.reset_index()


def _bytes(label: str) -> float:
    """Size of the weights behind a method's label; NaN for the input."""
    model = next(
        (
            method.model
            for method in (OURS, *BEFORE, *OTHERS)
            if method.label == label.split(" (seed")[0]
        ),
        None,
    )
    if model is None:
        return float("nan")
    file = checkpoints.MODELS[model][1]
    return (
        (datasets.find(file) if file.startswith("weights/") else paths.weights() / file)
        .stat()
        .st_size
    )


@dataclass(frozen=True)
class Goal:
    """figure: a column of :func:`one_table`, its data set left out; wanted: from the peers' column, what is to be
    reached; words: how, for tables; lower: whether less is better."""

    figure: str
    words: str
    wanted: Callable[[pd.Series], float]
    lower: bool = False


def _of(label: str) -> Callable[[pd.Series], float]:
    """The value of a method, by the published weights where they are at hand."""
    return lambda peers: peers.get(f"{label} (published)", peers.get(label, float("nan")))


GOALS = (
    Goal("psnr", "best peer + 5 dB", lambda peers: peers.max() + 5),
    Goal("ssim", "best peer + 0.08", lambda peers: peers.max() + 0.08),
    Goal("psnr_matched", "better than every peer", lambda peers: peers.max()),
    Goal("ssim_matched", "better than every peer", lambda peers: peers.max()),
    Goal(
        "relative_noise",
        "half the improved network's",
        lambda peers: _of("zero-dce-improved")(peers) / 2,
        True,
    ),
    Goal("to_itself", "30 dB", lambda peers: 30.0),
    Goal("clipped_share", "the improved pipeline's", _of(PIPELINE), True),
    Goal("bright_gain", "the improved pipeline's", _of(PIPELINE), True),
    Goal("niqe", "best peer", lambda peers: peers.min(), True),
    Goal("loe", "best peer", lambda peers: peers.min(), True),
    Goal("ms", "SCI", lambda peers: peers.get("sci-medium", float("nan")), True),
    Goal("KB", "97 KB", lambda peers: 97.0, True),
)


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`one_table` against :data:`GOALS`: one row a figure, with the best peer and its value, what is wanted, ours
    (mean over seeds, lowest and highest of them), whether every seed reaches it, and by how much the mean misses it
    (0 where it does not; in the figure's unit)."""
    methods = table.set_index("method")
    own = methods.index.str.startswith(NAME)
    ours, peers = (
        methods[own],
        methods[~own & ~methods.index.isin([evaluation.INPUT.label, *EARLIER])],
    )
    found = []
    for goal in GOALS:
        for figure in (name for name in methods if name.split()[0] == goal.figure):
            values, others = ours[figure].dropna(), peers[figure].dropna()
            if values.empty:
                continue
            best = "" if others.empty else others.idxmin() if goal.lower else others.idxmax()
            wanted = goal.wanted(others)
            worst = values.max() if goal.lower else values.min()
            missing = max(0.0, values.mean() - wanted if goal.lower else wanted - values.mean())
            held = (
                "not testable here"
                if wanted != wanted
                else "yes"
                if _met(worst, wanted, goal.lower)
                else "no"
            )
            row = {
                "figure": figure,
                "best_peer": best,
                "peer": others.get(best, float("nan")),
                "asked": goal.words,
            }
            row |= {
                "wanted": wanted,
                "ours": values.mean(),
                "lowest": values.min(),
                "highest": values.max(),
            }
            found.append(row | {"seeds": len(values), "reached": held, "missing": missing})
    return pd.DataFrame(found)


def _met(value: float, wanted: float, lower: bool) -> bool:
    return value <= wanted if lower else value >= wanted


def night(scores: pd.DataFrame, before: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """The dark photographs of lime and dicm alone, means over them, a row a method: mean, newly clipped share,
    bright_gain, color_cast, n. before: rows of the input, which tell what is dark."""
    dark = before.loc[
        before["dataset"].isin(WILD) & (255 * before["mean"] < NIGHT), ["dataset", "photograph"]
    ]
    part = scores.merge(dark, on=["dataset", "photograph"])
    part = part[part["method"].isin(labels)].groupby("method", sort=False)
    figures = ["mean", "newly_clipped", "bright_gain", "color_cast"]
    return part[figures].mean().assign(n=part.size()).reset_index()


def ceiling(on: str, limit: int = 0, part: str = "") -> pd.DataFrame:
    """What bending tones alone could reach: every dark photograph given exactly the histogram of its reference, channel
    by channel, which no method without references can. One row a photograph: dataset, photograph, scene, psnr, ssim."""
    table = []
    for sample in datasets.samples(on, limit, part):
        reference = sample.reference()
        matched = match_histograms(sample.image(), reference, channel_axis=2)
        about = {"dataset": on, "photograph": sample.name, "scene": sample.scene}
        scores = {
            "psnr": metrics.psnr(matched, reference),
            "ssim": metrics.ssim(matched, reference),
        }
        table.append(about | scores)
    return pd.DataFrame(table)


def headline(goals: pd.DataFrame) -> str:
    """What is reached and what is not, in a line of Markdown, from :func:`judged`."""
    said = []
    for word, name in (("yes", "Reached"), ("no", "Not reached")):
        part = goals[goals["reached"] == word]
        each = [
            f"{row.figure} ({row.ours:.3g}, wanted {row.wanted:.3g})" for row in part.itertuples()
        ]
        said += [f"**{name}:** {', '.join(each)}."] if each else []
    return " ".join(said)


def findings(
    goals: pd.DataFrame, ablated: pd.DataFrame, dark: pd.DataFrame, limit: pd.DataFrame
) -> list[str]:
    """Lines of Markdown: what is missing where a goal is not reached, what each idea is worth, what becomes of the
    night, and what limits SSIM. From :func:`judged`, :func:`ablated`, :func:`night` and :func:`ceiling`."""
    lines = []
    for row in goals[goals["reached"] == "no"].itertuples():
        lines.append(
            f"- **{row.figure}**: {row.ours:.4g} ({row.lowest:.4g} – {row.highest:.4g} over {row.seeds} seeds), wanted "
            f"{row.wanted:.4g} ({row.asked}); the best peer, {row.best_peer}, has {row.peer:.4g}."
        )
    first, told = ablated.iloc[0], []
    for row in ablated.iloc[1:].dropna(subset="psnr").itertuples():
        gains = f"{row.psnr - first['psnr']:+.2f} dB, SSIM {row.ssim - first['ssim']:+.3f}"
        told.append(
            f"`{row.method}` {gains}, noise {row.relative_noise - first['relative_noise']:+.4f}"
        )
    lines += (
        [f"- **One idea changed**, against the reference row: {'; '.join(told)}."] if told else []
    )
    by = dark.set_index("method")
    if NAME in by.index:
        each = [
            f"{label} {row['newly_clipped']:.2%} and {row['bright_gain']:+.0f}"
            for label, row in by.iterrows()
        ]
        lines.append(
            f"- **Night**, newly clipped pixels and grey levels gained by bright areas: {', '.join(each)}."
        )
    lines.append(
        f"- **What limits SSIM**: giving every dark photograph exactly its reference's histogram, which takes the "
        f"reference, reaches {limit['ssim'].mean():.3f} ({limit['psnr'].mean():.1f} dB) on these {len(limit)}."
    )
    return lines


def pictured(limit: int) -> list[datasets.Sample]:
    """The darkest photographs of lime and dicm, where at hand: those of which a night must stay one."""
    samples = [sample for name in evaluation.at_hand(*WILD) for sample in datasets.samples(name)]
    return sorted(samples, key=lambda sample: sample.image().mean())[:limit]


def ablated(scores: pd.DataFrame, good: pd.DataFrame, noise: pd.DataFrame) -> pd.DataFrame:
    """The ablation as one table, reference row first: arm, change, and figures of :func:`one_table`."""
    table = one_table(scores, good, noise).drop(columns="KB")
    about = rows()[["arm", "change"]].rename(columns={"arm": "method"})
    return about.merge(table, on="method", how="left")
