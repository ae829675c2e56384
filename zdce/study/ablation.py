"""The two ablations: what each training changes, how it scores beside its reference row, when a difference counts.

A row is an arm of :data:`zdce.experiments.ARMS`, trained once. Two trainings that differ in nothing but their seed differ in
their scores as well, so a difference between two rows counts only where it is larger than that spread.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.linalg import lsqr

from zdce import datasets, losses, metrics
from zdce.model import CurveNet, count_parameters, multiply_adds
from zdce.step import batches
from zdce.study import claims_old as ledger
from zdce.study import evaluation, experiments

REFERENCE = "zero-dce-improved"
# Rows of the two tables, the reference first: arms whose network differs from it, and arms with its network.
_SAME_NET = {
    arm: config.net == experiments.ARMS[REFERENCE].net for arm, config in experiments.ARMS.items()
}
NETWORK = (REFERENCE, *(arm for arm in experiments.REFERENCES if not _SAME_NET[arm]))
LOSSES = (REFERENCE, *(arm for arm in experiments.REFERENCES if _SAME_NET[arm]))

FEWEST = 5  # scenes; with fewer, a bootstrap interval says too little (ours)
FRAME = 4  # pixels: the outer frame in which a border is looked for (ours)
INSIDE = (
    8,
    16,
)  # pixels from the edge: the strip just inside, to which the frame is compared (ours)
BORDER = 2.0  # per cent by which a frame must be brighter before it is called a border (ours)
PHOTOGRAPHS = 2002  # of sice-train, all of which an epoch shows once
EPOCHS = 200  # of the published training

# --- rows ---------------------------------------------------------------------------------------------------------

_WORDS = {
    "width": "channels",
    "smoothness": "TV weight",
    "color": "weight of color",
    "spatial": "weight of spatial",
    "exposure": "weight of exposure",
    "exposure_target": "exposure target",
    "upsampling": "up-sampling",
}


def change(arm: str) -> str:
    """What ``arm`` changes in its reference row, such as ``channels 16 → 8 (of no-pool)``."""
    if arm not in experiments.REFERENCES:
        return "reference row"
    new, old = (asdict(experiments.ARMS[name]) for name in (arm, experiments.REFERENCES[arm]))
    if new["loss"]["form"] != old["loss"]["form"]:
        return f"losses and weights of the {new['loss']['form']}, for those of the released code"
    pairs = {key: (old[part][key], new[part][key]) for part in ("net", "loss") for key in old[part]}
    pairs |= {key: (old[key], new[key]) for key in ("data", "precision")}
    told = [
        f"{_WORDS.get(key, key)} {_plain(a)} → {_plain(b)}"
        for key, (a, b) in pairs.items()
        if a != b
    ]
    suffix = (
        "" if experiments.REFERENCES[arm] == REFERENCE else f" (of {experiments.REFERENCES[arm]})"
    )
    return ", ".join(told) + suffix


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def rows(arms: Sequence[str], profile: str = "study") -> pd.DataFrame:
    """The table's trainings, one row an arm: arm, reference, change, command, budget, and weights (Path of the kept
    file, None where the training was not finished).

    All of one budget and seed. Raises ValueError for an unknown arm.
    """
    budget, kept = experiments.BUDGETS[profile], experiments.trainings(profile)
    files = {path.name: path for path in kept["weights"]} if len(kept) else {}
    table = []
    for config in experiments.plan(profile, arms=arms):
        if config.steps != budget.steps or config.seed != budget.seeds[0]:
            continue
        row = {
            "arm": config.name,
            "reference": experiments.REFERENCES.get(config.name, ""),
            "change": change(config.name),
        }
        row |= {
            "command": f"zdce sweep --profile {profile} --arms {config.name}",
            "budget": experiments.budget(config),
        }
        table.append(row | {"weights": files.get(f"{config.run_name()}.safetensors")})
    return pd.DataFrame(table).astype({"weights": object})


def chosen(arms: str, known: Sequence[str]) -> list[str]:
    """Arms named in a notebook's parameter, comma-separated, or ``all`` of ``known``; the reference is always first.

    Raises ValueError for a name that is not in ``known``.
    """
    names = (
        known
        if arms.strip() == "all"
        else [name.strip() for name in arms.split(",") if name.strip()]
    )
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"arms: no arm {unknown[0]!r} in this table; known: {', '.join(known)}, or 'all'"
        )
    return list(dict.fromkeys([REFERENCE, *names]))


def missing(table: pd.DataFrame) -> str:
    """One line that names the rows of :func:`rows` that were not trained."""
    names = table.loc[table["weights"].isna(), "arm"]
    return f"not trained yet: {', '.join(names)}" if len(names) else "every row was trained"


def methods(table: pd.DataFrame) -> list[evaluation.Method]:
    """The trained rows of :func:`rows` as methods without gamma, labelled by arm."""
    return [
        evaluation.Method(row.arm, str(row.weights), 1.0)
        for row in table.itertuples()
        if row.weights is not None
    ]


def seeds(arm: str = REFERENCE, profile: str = "study") -> list[evaluation.Method]:
    """The kept trainings that differ from the row of ``arm`` in their seed alone, as methods without gamma."""
    kept, budget = experiments.trainings(profile), experiments.BUDGETS[profile]
    if len(kept):
        kept = kept[
            (kept["arm"] == arm)
            & (kept["steps"] == budget.steps)
            & (kept["seed"] != budget.seeds[0])
        ]
    return [
        evaluation.Method(f"{arm}, seed {row.seed}", str(row.weights), 1.0)
        for row in kept.itertuples()
    ]


def costs(table: pd.DataFrame, side: int = 256) -> pd.DataFrame:
    """What each row of :func:`rows` costs whatever it was trained to: parameters, KB of 32-bit weights (1,024 bytes),
    KB of the kept file (NaN where not trained), multiply-adds in millions at side × side pixels."""
    lines = []
    for row in table.itertuples():
        net = CurveNet(experiments.ARMS[row.arm].net)
        parameters = count_parameters(net)
        line = {
            "arm": row.arm,
            "change": row.change,
            "parameters": parameters,
            "weights_KB": parameters * 4 / 1024,
        }
        line["file_KB"] = (
            row.weights.stat().st_size / 1024 if row.weights is not None else float("nan")
        )
        lines.append(line | {"multiply_adds_M": multiply_adds(net, side, side) / 1e6})
    return pd.DataFrame(lines)


# --- borders ------------------------------------------------------------------------------------------------------


def edge_distance(height: int, width: int) -> np.ndarray:
    """Distance of each pixel from the nearest edge, in pixels: (H, W) int, 0 at the edge."""
    down, across = np.arange(height), np.arange(width)
    return np.minimum.outer(np.minimum(down, down[::-1]), np.minimum(across, across[::-1]))


def frame_excess(values: np.ndarray, relative: bool = False) -> float:
    """Mean of (H, W) values over the outer :data:`FRAME` pixels less that over the strip :data:`INSIDE`.

    relative: in per cent of the latter, which one gain on all values does not change. NaN for a photograph too small to
    have such a strip, and for a relative excess over black.
    """
    distance = edge_distance(*values.shape)
    strip = values[(distance >= INSIDE[0]) & (distance < INSIDE[1])]
    if not strip.size or (relative and not strip.any()):
        return float("nan")
    excess = float(values[distance < FRAME].mean() - strip.mean())
    return 100 * excess / float(strip.mean()) if relative else excess


def borders(
    rows: Iterable[evaluation.Method],
    on: str,
    limit: int = 0,
    *,
    depth: int = 24,
    device: str = "auto",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What every method does at the edges of the photographs of ``on``: scores, and profiles.

    Scores, one row a photograph and method: ``frame_brightness``, luma of the frame less that of the strip inside in
    per cent of the latter, and ``frame_error``, in grey levels the same of the absolute difference to the reference
    photograph (NaN without one).
    Both hold what the photograph itself shows there, so a border is a difference between two methods. Profiles, one
    row a photograph, method and distance below ``depth`` pixels from the edge: ``luma``.
    """
    enhancers = {method.label: method.enhancer(device) for method in rows}
    table, profiles = [], []
    for sample in datasets.samples(on, limit):
        before, reference = sample.image(), sample.reference()
        distance = edge_distance(*before.shape[:2])
        count = np.bincount(distance.ravel())[:depth]
        about = {"dataset": on, "photograph": sample.name, "scene": sample.scene}
        for label, enhancer in enhancers.items():
            y = metrics.luma(enhancer(before))
            error = (
                float("nan")
                if reference is None
                else frame_excess(np.abs(y - metrics.luma(reference)))
            )
            row = about | {
                "method": label,
                "frame_brightness": frame_excess(y, relative=True),
                "frame_error": error,
            }
            table.append(row)
            means = np.bincount(distance.ravel(), weights=y.ravel())[:depth] / count
            profiles += [
                about | {"method": label, "distance": d, "luma": mean}
                for d, mean in enumerate(means)
            ]
    return pd.DataFrame(table), pd.DataFrame(profiles)


def border_profile(profiles: pd.DataFrame, other: str = REFERENCE) -> pd.DataFrame:
    """Luma of every method over the distance from the edge, in per cent of its own mean over the deepest eight pixels,
    less that of ``other``, mean over photographs: dataset, method, distance, excess. From :func:`borders`."""
    wide = profiles.pivot(
        index=["dataset", "photograph", "distance"], columns="method", values="luma"
    )
    deep = wide[wide.index.get_level_values("distance") >= profiles["distance"].max() - 7]
    level = (
        deep.groupby(["dataset", "photograph"])
        .mean()
        .reindex(wide.index.droplevel("distance"))
        .to_numpy()
    )
    share = 100 * (wide / level - 1)
    excess = (
        share.sub(share[other], axis=0)[profiles["method"].unique()]
        .groupby(["dataset", "distance"])
        .mean()
    )
    return excess.reset_index().melt(["dataset", "distance"], value_name="excess")


# --- differences --------------------------------------------------------------------------------------------------


def real(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows of photographs that a camera took; all rows where there are none."""
    photographs = scores[scores["dataset"] != "bundled"]
    return photographs if len(photographs) else scores


def spread(scores: pd.DataFrame, figure: str, labels: Sequence[str]) -> float:
    """Largest less smallest mean of ``figure`` over the methods ``labels``, which differ in their seed alone; NaN for
    fewer than two."""
    mine = scores[scores["method"].isin(labels)]
    means = mine.groupby("method")[figure].mean().dropna()
    return float(means.max() - means.min()) if len(means) > 1 else float("nan")


def compare(
    scores: pd.DataFrame, figure: str, arm: str, other: str, labels: Sequence[str] = ()
) -> dict:
    """``figure`` of ``arm`` less that of ``other`` on the same photographs or scenes.

    labels: methods that differ in their seed alone. Returns both means, the difference with its 95 % interval, n,
    scenes, the seeds' spread, and the outcome: ``higher`` or ``lower`` where the interval leaves out 0 and the
    difference exceeds the spread; ``no difference`` where it does not; ``one seed`` where the interval leaves out 0 but
    no spread is known; ``too few`` for fewer than :data:`FEWEST` scenes; ``not trained`` where a row is missing.
    """
    if not {arm, other} <= set(scores["method"]):
        return {"outcome": "not trained"}
    difference = evaluation.paired(scores, figure, arm, other).dropna()
    scenes = difference.index.to_frame(index=False)[["dataset", "scene"]].drop_duplicates()
    means = scores.groupby("method")[figure].mean()
    low, high = evaluation.interval(difference)
    found = {
        "mean": means[arm],
        "mean_other": means[other],
        "difference": difference.mean(),
        "low": low,
        "high": high,
    }
    found |= {"n": len(difference), "scenes": len(scenes), "spread": spread(scores, figure, labels)}
    if found["scenes"] < FEWEST:
        outcome = "too few"
    elif low <= 0 <= high or abs(found["difference"]) <= found["spread"]:
        outcome = "no difference"
    elif np.isnan(found["spread"]):
        outcome = "one seed"
    else:
        outcome = "higher" if low > 0 else "lower"
    return found | {"outcome": outcome}


def differences(
    scores: pd.DataFrame, arms: Sequence[str], figures: Sequence[str], labels: Sequence[str] = ()
) -> pd.DataFrame:
    """Every arm that was scored against its reference row, by figure, on :func:`real` photographs: columns of
    :func:`compare`."""
    judged, table = real(scores), []
    for arm in arms:
        other = experiments.REFERENCES.get(arm)
        for figure in figures:
            found = (
                compare(judged, figure, arm, other, labels) if other and figure in judged else {}
            )
            if "difference" in found:
                table.append({"arm": arm, "other": other, "figure": figure} | found)
    return pd.DataFrame(table)


def paired_rows(scores: pd.DataFrame, arms: Sequence[str], figures: Sequence[str]) -> pd.DataFrame:
    """Per photograph or scene, every arm's figures less those of its reference row, on :func:`real` photographs: one
    row an arm and photograph, for a figure."""
    judged, tables = real(scores), []
    for arm in arms:
        other = experiments.REFERENCES.get(arm)
        if other and {arm, other} <= set(judged["method"]):
            table = pd.DataFrame(
                {figure: evaluation.paired(judged, figure, arm, other) for figure in figures}
            )
            tables.append(table.reset_index().assign(arm=arm))
    return (
        pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["arm", *figures])
    )


def combined(
    about: pd.DataFrame, tables: Sequence[pd.DataFrame], figures: Sequence[str]
) -> pd.DataFrame:
    """``about``, one row an arm, with the means of ``figures`` over :func:`real` photographs; NaN where an arm was not
    scored. tables: scores; each figure is looked up in the first one that has it."""
    means = []
    for figure in figures:
        table = next((table for table in tables if figure in table), None)
        means += [real(table).groupby("method")[figure].mean()] if table is not None else []
    return about.merge(pd.concat(means, axis=1), how="left", left_on="arm", right_index=True)


def tv_lines(tables: Sequence[pd.DataFrame], figures: Sequence[str]) -> pd.DataFrame:
    """Mean of each of ``figures``, noise gains of METRICS, by TV weight, over the scored arms that differ in it
    alone: columns ``TV weight``, ``noise gain (×)``, ``measured`` (as it is, or for its brightness), ``on``."""
    arms = [REFERENCE, *(arm for arm in experiments.REFERENCES if arm.startswith("tv-"))]
    weights = pd.Series({arm: experiments.ARMS[arm].loss.smoothness for arm in arms}).sort_values()
    lines = []
    for figure in figures:
        table = real(next(table for table in tables if figure in table))
        means = table.groupby("method")[figure].mean()
        where = "flat dark patches" if figure.startswith("dark") else "static scenes"
        about = {
            "measured": "for its brightness" if figure.endswith("relative") else "as it is",
            "on": f"{where}, {', '.join(dict.fromkeys(table['dataset']))}",
        }
        for arm, weight in weights.items():
            if arm in means:
                lines.append({"TV weight": weight, "noise gain (×)": means[arm]} | about)
    return pd.DataFrame(lines)


def brightness_by_target(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean brightness of the results by exposure target, on :func:`real` photographs: as predicted (in proportion to
    the target, from the reference row) and as measured, and the ratio of both."""
    means = real(scores).groupby("method")["mean"].mean()
    arms = [arm for arm in (REFERENCE, "exposure-0.5", "exposure-0.7") if arm in means]
    targets = pd.Series({arm: experiments.ARMS[arm].loss.exposure_target for arm in arms})
    table = pd.DataFrame(
        {"target": targets, "predicted": means[REFERENCE] * targets / targets[REFERENCE]}
    )
    table["measured"] = means[arms]
    table["ratio"] = table["measured"] / table["predicted"]
    return table.rename_axis("arm").sort_values("target").reset_index()


# --- claims -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expectation:
    """A part of a claim, or a prediction: ``figure`` of ``arm`` is ``higher`` or ``lower`` than that of ``other``.

    least: by how much at least, in the figure's unit.
    """

    claim: str
    part: str
    arm: str
    other: str
    figure: str
    direction: str
    least: float = 0.0


def _tests(
    claim: str, arm: str, other: str, direction: str, figures: dict[str, str]
) -> list[Expectation]:
    return [
        Expectation(claim, part, arm, other, figure, direction) for part, figure in figures.items()
    ]


_AGREEMENT = {
    "PSNR": "psnr",
    "SSIM": "ssim",
    "PSNR, means matched": "psnr_matched",
    "SSIM, means matched": "ssim_matched",
}
_NOISE = "noise on bursts for its brightness"
NETWORK_TESTS = (
    *(
        Expectation(
            "N4", f"white border, {arm}", arm, REFERENCE, "frame_brightness", "higher", BORDER
        )
        for arm in ("stride2-bilinear", "stride2-transposed")
    ),
    *(
        Expectation("N4", f"{_NOISE}, {arm}", arm, REFERENCE, "noise_gain_relative", "higher")
        for arm in ("stride2-bilinear", "stride2-transposed")
    ),
    *_tests(
        "N5",
        REFERENCE,
        "no-pool",
        "higher",
        {f"16 channels: {name}": f for name, f in _AGREEMENT.items()},
    ),
    Expectation(
        "N5",
        "8 channels: SSIM, means matched",
        "channels-8",
        "channels-8-no-pool",
        "ssim_matched",
        "higher",
    ),
    Expectation(
        "N5",
        "32 channels: SSIM, means matched",
        "channels-32",
        "channels-32-no-pool",
        "ssim_matched",
        "higher",
    ),
    *(
        Expectation("N6", f"details kept, {arm}", arm, REFERENCE, "detail_kept", "lower")
        for arm in ("pools-2", "pools-3")
    ),
    *(
        Expectation("N6", f"{_NOISE}, {arm}", arm, REFERENCE, "noise_gain_relative", "higher")
        for arm in ("pools-2", "pools-3")
    ),
)
LOSS_TESTS = (
    Expectation(
        "L1", "noise in flat dark patches", REFERENCE, "tv-200", "dark_noise_gain", "lower"
    ),
    Expectation(
        "L1",
        "the same for its brightness",
        REFERENCE,
        "tv-200",
        "dark_noise_gain_relative",
        "lower",
    ),
    Expectation("L1", "noise on bursts", REFERENCE, "tv-200", "noise_gain", "lower"),
    Expectation(
        "L1",
        "the same for its brightness, on bursts",
        REFERENCE,
        "tv-200",
        "noise_gain_relative",
        "lower",
    ),
)
# What the other rows of the loss table should do, said before they were measured; no claims of the source.
LOSS_PREDICTIONS = (
    Expectation(
        "", "differences between regions go", "no-spatial", REFERENCE, "detail_kept", "lower"
    ),
    Expectation("", "nothing asks for light", "no-exposure", REFERENCE, "mean", "lower"),
    Expectation("", "colours drift", "no-color", REFERENCE, "color_cast", "higher"),
    Expectation(
        "", "neighbouring pixels change places", "no-smoothness", REFERENCE, "loe", "higher"
    ),
    Expectation(
        "", "a lower target gives darker results", "exposure-0.5", REFERENCE, "mean", "lower"
    ),
    Expectation(
        "", "a higher target gives brighter results", "exposure-0.7", REFERENCE, "mean", "higher"
    ),
    Expectation(
        "",
        "a much smoother curve map keeps less grain",
        "tv-1600",
        REFERENCE,
        "noise_gain_relative",
        "lower",
    ),
    Expectation(
        "",
        "bright areas never seen are raised more",
        "not-over-exposed",
        REFERENCE,
        "clipped_share",
        "higher",
    ),
    Expectation("", "precision does not show", "float32", REFERENCE, "psnr", "no difference"),
    Expectation(
        "", "precision does not show", "float32", REFERENCE, "noise_gain_relative", "no difference"
    ),
)
_UNITS = {metric.name: metric.unit for metric in metrics.METRICS} | {
    "frame_brightness": "%",
    "frame_error": "grey levels",
}


def judge(
    tests: Iterable[Expectation], tables: Sequence[pd.DataFrame], labels: Sequence[str] = ()
) -> pd.DataFrame:
    """Every test's :func:`compare` on :func:`real` photographs, and whether it ``held``: yes, no, not testable here.

    tables: scores; each figure is looked up in the first one that has it. labels: as in :func:`compare`.
    """
    judged = []
    for test in tests:
        table = next((table for table in tables if test.figure in table), None)
        found = (
            compare(real(table), test.figure, test.arm, test.other, labels)
            if table is not None
            else {}
        )
        outcome = found.get("outcome", "not trained")
        if outcome in ("not trained", "too few", "one seed"):
            held = "not testable here"
        else:
            held = (
                "yes"
                if outcome == test.direction and abs(found["difference"]) >= test.least
                else "no"
            )
        judged.append(asdict(test) | found | {"outcome": outcome, "held": held})
    return pd.DataFrame(judged)


def ledger_rows(judged: pd.DataFrame, table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The ledger's parts from :func:`judge`. table: as :func:`rows`; count: how many seeds the spread rests on."""
    budgets = table.set_index("arm")["budget"]
    parts = []
    for row in judged.itertuples():
        least = f", by {row.least:g} {_UNITS[row.figure]} at least" if row.least else ""
        rule = f"{row.figure} of {row.arm} {row.direction} than of {row.other}{least}, beyond interval and seeds"
        part = {
            "claim": row.claim,
            "part": row.part,
            "rule": rule,
            "held": row.held,
            "budget": budgets[REFERENCE],
        }
        if row.outcome == "not trained":
            parts.append(
                part | {"measured": "not trained or not scored yet", "interval": "", "n": ""}
            )
            continue
        seen = (
            f"spread of {count} seeds {row.spread:.2g}"
            if row.spread == row.spread
            else "spread over seeds unknown"
        )
        means = f"{row.mean:.4g} against {row.mean_other:.4g}"
        measured = (
            f"{row.difference:+.3g} {_UNITS[row.figure]}".strip()
            + f", {row.outcome}: {means}, {seen}"
        )
        interval = f"{row.low:+.3g} – {row.high:+.3g}" if row.low == row.low else ""
        what = "scenes" if row.n == row.scenes else f"photographs of {row.scenes:.0f} scenes"
        parts.append(
            part | {"measured": measured, "interval": interval, "n": f"{row.n:.0f} {what}"}
        )
    return ledger.parts(parts)


def size_parts(files: pd.DataFrame) -> list[dict]:
    """Claim N1 for this project's own files, from the table of ``reproduction.file_sizes``: within 5 % of the stated
    sizes, and 0.3 of the size."""
    ours = files[files["weights"] == "trained here"].set_index("network")["KB"]
    large, small = ours["zero-dce"], ours[REFERENCE]
    about = {"claim": "N1", "interval": "", "n": "1 file", "budget": "any training"}
    return [
        about
        | {
            "part": f"our file with {channels} channels",
            "rule": f"{stated}, 5 % either way",
            "measured": f"{size:.1f} KB",
            "held": "yes" if low * 0.95 <= size <= high * 1.05 else "no",
        }
        for channels, size, stated, low, high in (
            (32, large, "312 – 316 KB", 312, 316),
            (16, small, "97 KB", 97, 97),
        )
    ]


def training_speed(profile: str = "study") -> pd.DataFrame | None:
    """The table of ``benchmarks/training_speed.py``: one row a network and way of training. None where not measured."""
    file = experiments.training_folder(profile) / "speed.csv"
    return pd.read_csv(file) if file.is_file() else None


def training_size(profile: str = "study") -> pd.DataFrame | None:
    """The table of ``benchmarks/training_size.py``: scores of some arms trained at two sizes, one row an arm and size.
    None where not measured."""
    file = experiments.training_folder(profile) / "size.csv"
    return pd.read_csv(file) if file.is_file() else None


def size_ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """Whether the small size ranks the arms as the large one does, from :func:`training_size`: one row a figure.

    rank_correlation: Spearman's, between the arms' scores at one size and at the other (1 is the same order);
    spread_of_arms: largest less smallest score, mean of both sizes; moved_by_size: mean absolute difference that the
    size makes; arms: how many. Scores keep their units.
    """
    about = ["arm", "size", "steps", "batch", "n"]
    figures = scores.columns.drop(about, errors="ignore")
    sizes = sorted(scores["size"].unique())
    small, large = (
        scores[scores["size"] == size].set_index("arm")[figures] for size in (sizes[0], sizes[-1])
    )
    table = pd.DataFrame(
        {
            "rank_correlation": small.corrwith(large, method="spearman").round(6),
            "spread_of_arms": (small.max() - small.min() + large.max() - large.min()) / 2,
            "moved_by_size": (large - small).abs().mean(),
        }
    )
    return table.assign(arms=len(small)).rename_axis("figure").reset_index()


def speed_parts(speed: pd.DataFrame | None) -> list[dict]:
    """Claim N2 from :func:`training_speed`: the improved network sees more photographs a second, in each way of
    training, by more than the rounds scatter."""
    about = {
        "claim": "N2",
        "rule": "slowest round of the improved network above the fastest of the original",
    }
    if speed is None:
        nothing = {
            "part": "photographs a second",
            "measured": "no table of training speed",
            "interval": "",
        }
        return [about | nothing | {"n": "", "budget": "", "held": "not testable here"}]
    parts = []
    for variant, part in speed.groupby("variant", sort=False):
        nets = part.set_index("net")
        if not {"zero-dce", REFERENCE} <= set(nets.index) or nets["rounds"].min() < 2:
            continue
        old, new = nets.loc["zero-dce"], nets.loc[REFERENCE]
        low, high = new["lowest"] / old["highest"], new["highest"] / old["lowest"]
        ratio = new["photographs_per_second"] / old["photographs_per_second"]
        rates = f"{new['photographs_per_second']:.1f} against {old['photographs_per_second']:.1f} photographs a second"
        row = {"part": f"training, {variant}", "measured": f"{ratio:.2f} × ({rates})"}
        row |= {"interval": f"{low:.2f} – {high:.2f}", "n": f"{int(nets['rounds'].min())} rounds"}
        side = 128 if variant.endswith("at 128") else 256
        parts.append(
            about
            | row
            | {"budget": f"{side} px, {new['device']}", "held": "yes" if low > 1 else "no"}
        )
    return parts


# --- the loss over the training -----------------------------------------------------------------------------------


def epoch_table(
    records: pd.DataFrame, batch: int = 4, photographs: int = PHOTOGRAPHS
) -> pd.DataFrame:
    """The loss by epoch, from ``experiments.training_records``: one row a seed and epoch with steps, the mean, and of single
    batches the standard deviation, the lowest, the highest, and the middle 95 % (low, high)."""
    per_epoch = -(-photographs // batch)
    groups = records.groupby(["seed", (records["step"] // per_epoch + 1).rename("epoch")])["loss"]
    table = groups.agg(steps="size", mean="mean", deviation="std", lowest="min", highest="max")
    table[["low", "high"]] = groups.quantile([0.025, 0.975]).unstack().to_numpy()
    return table.reset_index()


def photograph_share(
    loss: np.ndarray, batch: int, seed: int, photographs: int = PHOTOGRAPHS, damping: float = 0.1
) -> float:
    """Share of the last epoch's variance between batches that the photographs in them explain, told in advance.

    loss: of every step, (steps,). A batch's loss is the mean over its photographs. One number a photograph is fitted
    (ridge regression) to all epochs but the first and the last, and predicts the batches of the last epoch, which
    are drawn anew: R², at most 1, below 0 where the prediction is worse than the mean. Few epochs leave the numbers
    uncertain, so it is a lower bound. NaN for fewer than three epochs. Source: ours.
    """
    per_epoch = -(-photographs // batch)
    epoch = np.arange(len(loss)) // per_epoch
    if epoch[-1] < 2:
        return float("nan")
    shown = list(itertools.islice(batches(photographs, batch, seed), len(loss)))
    weights = np.concatenate([np.full(len(numbers), 1 / len(numbers)) for numbers in shown])
    row = np.repeat(np.arange(len(shown)), [len(numbers) for numbers in shown])
    design = sparse.csr_matrix(
        (weights, (row, np.concatenate(shown))), shape=(len(shown), photographs)
    )
    centred = loss - pd.Series(loss).groupby(epoch).transform("mean").to_numpy()
    fitted, last = (epoch > 0) & (epoch < epoch[-1]), epoch == epoch[-1]
    known = lsqr(design[fitted], centred[fitted], damp=damping)[0]
    predicted = design[last] @ known
    left = centred[last] - (predicted - predicted.mean())
    return float(1 - left.var() / centred[last].var())


def swing(records: pd.DataFrame, batch: int = 4, photographs: int = PHOTOGRAPHS) -> pd.DataFrame:
    """How far the loss falls and how far it swings, one row a seed, from ``experiments.training_records``.

    epochs (seen, in part or whole), first and last epoch's mean, their drop, the share of the drop that falls in the
    last quarter of the epochs; of single batches in the last epoch the standard deviation, the lowest and the highest;
    their ``ratio`` (deviation over drop); :func:`photograph_share`.
    """
    table = []
    for seed, part in epoch_table(records, batch, photographs).groupby("seed"):
        means, last = part["mean"].to_numpy(), part.iloc[-1]
        late = len(means) - max(1, len(means) // 4) - 1
        loss = records.loc[records["seed"] == seed].sort_values("step")["loss"].to_numpy()
        row = {
            "seed": seed,
            "epochs": len(means),
            "first": means[0],
            "last": means[-1],
            "drop": means[0] - means[-1],
        }
        row |= {
            "late_share": (means[late] - means[-1]) / (means[0] - means[-1])
            if len(means) > 2
            else float("nan")
        }
        row |= {name: last[name] for name in ("deviation", "lowest", "highest")}
        row |= {"ratio": last["deviation"] / (means[0] - means[-1])}
        table.append(row | {"photographs": photograph_share(loss, batch, int(seed), photographs)})
    return pd.DataFrame(table)


def precision(profile: str = "study") -> pd.DataFrame | None:
    """What the training recorded in the last epoch of the reference row and of the arm ``float32``: mean of each
    weighted term, a row an arm, and their difference. None where one of both was not kept."""
    table, per_epoch = {}, -(-PHOTOGRAPHS // experiments.ARMS[REFERENCE].batch)
    for config in experiments.plan(
        profile, seeds=experiments.BUDGETS[profile].seeds, arms=[REFERENCE, "float32"]
    ):
        file = experiments.training_folder(profile) / f"{config.run_name()}.csv.gz"
        if config.steps == experiments.BUDGETS[profile].steps and file.is_file():
            name = (
                "convolutions in float32"
                if config.name == "float32"
                else f"convolutions in {config.precision}"
            )
            table[name] = pd.read_csv(file)[[*losses.TERMS, "loss"]].tail(per_epoch).mean()
    if len(table) < 2:
        return None
    found = pd.DataFrame(table).T
    found.loc["difference"] = found.iloc[0] - found.iloc[1]
    return found.rename_axis("training").reset_index()


def swing_parts(swings: pd.DataFrame | None, budget: str) -> list[dict]:
    """Claim L2 in parts, from :func:`swing`. budget: of the trainings."""
    about = {"claim": "L2", "interval": "", "n": "", "budget": budget, "held": "not testable here"}
    rules = {
        "the loss falls": "the last epoch's mean lies below the first's on every seed",
        "and levels off": "less than a tenth of the drop falls in the last quarter of the epochs",
        "single batches swing widely": "their standard deviation in the last epoch exceeds the whole drop",
        f"still so after {EPOCHS} epochs": f"the same after {EPOCHS} epochs",
    }
    if swings is None or swings.empty or swings["epochs"].min() < 4:
        return [
            about | {"part": part, "rule": rule, "measured": "no record"}
            for part, rule in rules.items()
        ]
    figures = {"the loss falls": ("drop", "{:.3f}", lambda v: v > 0)}
    figures["and levels off"] = ("late_share", "{:.0%} of the drop", lambda v: v < 0.1)
    figures["single batches swing widely"] = ("ratio", "{:.2f} × the drop", lambda v: v > 1)
    parts, epochs = [], int(swings["epochs"].min())
    about["n"] = f"{len(swings)} seed{'s' * (len(swings) > 1)}"
    for part, (figure, form, holds) in figures.items():
        values = swings[figure]
        row = {"part": part, "rule": rules[part], "measured": form.format(values.mean())}
        row["interval"] = (
            f"seeds {values.min():.3f} – {values.max():.3f}" if len(values) > 1 else ""
        )
        if figure == "ratio" and swings["photographs"].notna().all():
            row["measured"] += (
                f", {swings['photographs'].mean():.0%} of it told by which photographs are in the batch"
            )
        parts.append(about | row | {"held": "yes" if holds(values).all() else "no"})
    late, rule = list(rules.items())[-1]
    held = parts[-1]["held"] if epochs >= EPOCHS else "not testable here"
    parts.append(
        about
        | {"part": late, "rule": rule, "measured": f"trained for {epochs} epochs", "held": held}
    )
    return parts


def against_published(epochs: pd.DataFrame, published: dict[int, float]) -> pd.DataFrame:
    """Epoch means over seeds beside the published curve: epoch, seeds, mean, lowest and highest seed's mean, published
    and the difference (NaN where one of both has no value). epochs: as :func:`epoch_table`."""
    means = epochs.groupby("epoch")["mean"].agg(
        seeds="size", mean="mean", seed_lowest="min", seed_highest="max"
    )
    table = means.reindex(sorted({*means.index, *published})).assign(published=pd.Series(published))
    return (
        table.assign(difference=table["mean"] - table["published"])
        .astype({"seeds": "Int64"})
        .reset_index()
    )


# --- words --------------------------------------------------------------------------------------------------------


def headline(parts: pd.DataFrame) -> str:
    """The verdicts in one line of Markdown, by verdict: which claims, in words. parts: as :func:`ledger_rows`."""
    by_verdict: dict[str, list[str]] = {}
    for claim, part in parts.groupby("claim", sort=False):
        by_verdict.setdefault(ledger.verdict(part["held"]), []).append(
            f"{claim} ({ledger.CLAIMS[claim][1]})"
        )
    return " ".join(
        f"**{verdict.capitalize()}:** {'; '.join(told)}." for verdict, told in by_verdict.items()
    )


def findings(parts: pd.DataFrame) -> list[str]:
    """A line of Markdown a claim: which of its parts hold, with what was measured. parts: as :func:`ledger_rows`."""
    lines = []
    for claim, part in parts.groupby("claim", sort=False):
        said = [f"**{claim}, {ledger.verdict(part['held'])}.**"]
        for held, words in (
            ("yes", "Holds"),
            ("no", "Does not hold"),
            ("not testable here", "Not testable here"),
        ):
            alike = part[part["held"] == held].groupby("measured", sort=False)["part"]
            each = [f"{'; '.join(names)} ({measured})" for measured, names in alike]
            said += [f"{words}: {'; '.join(each)}."] if each else []
        lines.append(" ".join(said))
    return lines


def dark_square(before: np.ndarray, size: int = 48) -> tuple[int, int, int]:
    """The flattest dark square (left, top, size) of an (H, W, 3) uint8 photograph, for a look at its noise.

    On a grid of half the size, of mean luma 8 to 60 where there is one; flat: the means of its 4×4 cells deviate least.
    """
    y, step = metrics.luma(before), size // 2
    found = []
    for top in range(0, y.shape[0] - size + 1, step):
        for left in range(0, y.shape[1] - size + 1, step):
            cells = (
                y[top : top + size, left : left + size]
                .reshape(size // 4, 4, size // 4, 4)
                .mean(axis=(1, 3))
            )
            found.append((not 8 <= cells.mean() <= 60, float(cells.std()), left, top))
    _, _, left, top = min(found, default=(True, 0.0, 0, 0))
    return left, top, size


def outputs(
    rows: Iterable[evaluation.Method], pixels: np.ndarray, device: str = "auto"
) -> dict[str, np.ndarray]:
    """What every method makes of one photograph (H, W, 3) uint8: label → the same size."""
    return {method.label: method.enhancer(device)(pixels) for method in rows}


def on_curve(curve: pd.DataFrame | None) -> str:
    """Words on the table of :func:`against_published`: how far our epoch means lie from the published, as measured."""
    if curve is None:
        return ""
    ours = curve.dropna(subset="mean")
    last, shared = ours.iloc[-1], ours.dropna(subset="published")
    later = curve[curve["epoch"] > last["epoch"]].dropna(subset="published")
    told = [
        f"at epoch {row.epoch} {row.mean:.3f} (published {row.published:.3f})"
        for row in shared.itertuples()
    ]
    text = f"Our epoch means: {', '.join(told)}, at epoch {last.epoch:.0f}, the last, {last['mean']:.3f}."
    if len(ours) < 4 or later.empty:
        return text
    slope = (ours["mean"].iloc[-4] - last["mean"]) / 3
    ahead = later.iloc[0]
    gap = last["mean"] - ahead["published"]
    goal = f"the published {ahead['published']:.2f} of epoch {ahead['epoch']:.0f}"
    if slope <= 0:
        return (
            f"{text} Over the last three epochs they no longer fell; {goal} lies {gap:.3f} lower."
        )
    text += f" Over the last three epochs they fell by {slope:.4f} an epoch; {goal} lies {gap:.3f} lower"
    if last["epoch"] + gap / slope <= ahead["epoch"]:
        return f"{text}, within reach at that rate."
    return (
        f"{text}, {gap / slope:.0f} more epochs away at that rate. It looks like a plateau well above the "
        "published curve; why is an open question."
    )


def on_tv(lines: pd.DataFrame) -> str:
    """Words on the table of :func:`tv_lines`: rank correlation of the noise with the TV weight, by measure."""
    if lines["TV weight"].nunique() < 3:
        return ""
    groups = lines.groupby(["on", "measured"], sort=False)
    told = ", ".join(
        f"{on} {measured} {part['TV weight'].corr(part['noise gain (×)'], 'spearman'):+.2f}"
        for (on, measured), part in groups
    )
    return f"Over {lines['TV weight'].nunique()} TV weights, the rank correlation of noise with the weight: {told}."


def on_predictions(predicted: pd.DataFrame) -> str:
    """Words on the predictions of :func:`judge`: how many held, which failed."""
    known = predicted[predicted["held"] != "not testable here"]
    if known.empty:
        return "None of the predictions for the other rows could be tested yet."
    failed = known[known["held"] == "no"]
    text = f"**Predictions:** {len(known) - len(failed)} of {len(known)} that could be tested held"
    each = [
        f"{row.arm} ({row.figure} {row.mean:.3g} against {row.mean_other:.3g})"
        for row in failed.itertuples()
    ]
    return f"{text}; wrong: {', '.join(each)}." if each else f"{text}."


def on_sizes(sizes: pd.DataFrame, published: dict[int, float], least: float = 0.05) -> str:
    """Words on ``reproduction.training_losses`` at two sizes: how far our loss and the published weights' own lie apart
    on the same photographs, and both from the published curve's end. least: difference in loss that counts (ours)."""
    if sizes.empty:
        return ""
    (epoch, end), size = list(published.items())[-1], sizes["size"].max()
    wide = sizes.pivot(index="size", columns="weights", values="loss")
    ours, theirs = wide[evaluation.OURS[1].label], wide[evaluation.PUBLISHED[1].label]
    each = [f"{theirs[side]:.3f} and {ours[side]:.3f} at {side}×{side}" for side in wide.index]
    text = (
        f"On the same {sizes['n'].iloc[0]} training photographs the loss of the published weights and of ours is "
        f"{', '.join(each)}; the published curve ends at {end:.3f} (epoch {epoch})."
    )
    if theirs[size] - end <= least:
        return f"{text} The published weights do lie where their curve ends."
    gap = (
        "ours are no further from it"
        if ours[size] - theirs[size] <= least
        else "ours are further from it still"
    )
    return f"{text} The published weights do not reach the end of their own curve on these photographs; {gap}."


def on_precision(table: pd.DataFrame | None) -> str:
    """Words on the table of :func:`precision`: which term tells the two trainings apart."""
    if table is None:
        return "The training in float32 is not kept: no comparison of precisions."
    gaps = table.set_index("training").loc["difference"]
    term = gaps[list(losses.TERMS)].abs().idxmax()
    return (
        f"In its last epoch the training with convolutions in bfloat16 recorded a loss {gaps['loss']:+.4f} apart from "
        f"that in float32, the same photographs in the same order; {gaps[term]:+.4f} of it in the term *{term}*."
    )


def on_size(scores: pd.DataFrame | None) -> str:
    """Words on :func:`size_ranks`: which figures keep the order of the arms, and which do not."""
    if scores is None:
        return "Whether the size of the training changes the order of the arms was not measured."
    ranks = size_ranks(scores).set_index("figure")["rank_correlation"]
    sizes = sorted(scores["size"].unique())
    same, rest = ranks[ranks == 1], ranks[ranks < 1]
    words = f"Trained at {sizes[0]} and at {sizes[-1]} px, the arms stand in the same order by {', '.join(same.index)}"
    if not len(same):
        words = f"Trained at {sizes[0]} and at {sizes[-1]} px, the arms stand in no figure in quite the same order"
    others = ", ".join(f"{figure} ({rank:.2f})" for figure, rank in rest.items())
    return f"{words}{f'; rank correlation of the others: {others}' if others else ''}."


def main_budget(arm: str = REFERENCE, profile: str = "study") -> str:
    """Budget of the kept trainings of ``arm`` that lasted longest, with all their seeds."""
    kept = experiments.trainings(profile)
    kept = kept[kept["arm"] == arm] if len(kept) else kept
    if not len(kept):
        return ""
    longest = kept[kept["steps"] == kept["steps"].max()]
    first, seeds = longest.iloc[0], ", ".join(str(seed) for seed in longest["seed"])
    return f"{first.steps:,} steps × {first.batch} at {first['size']} px, seeds {seeds}"
