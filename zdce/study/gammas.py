"""What a gamma curve before or after the network does: to tones, noise and scores, and what choosing it would gain.

A gamma curve sends a value v in [0, 1] to v^gamma: above 1 it darkens, below 1 it brightens. On 8-bit values it is a
table, so figures that ignore where a pixel lies follow exactly from counts, for any gamma, without running a network
again. "Dark" and "bright" pixels are told by the input's luma, as in :mod:`zdce.metrics`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.interpolate import CubicSpline

from zdce import checkpoints, datasets, metrics
from zdce.postprocess import apply_gamma, gamma_table
from zdce.study import evaluation

STUDY = checkpoints.IMPROVED_GAMMA  # 1.15, the improved study's
INVERSE = round(1 / STUDY, 4)  # 0.8696: as far below 1 as the study's lies above
# The grid (ours): powers of the study's gamma, so that it is one step from 1, wider towards the ends.
GAMMAS = (0.4, *(round(STUDY**k, 4) for k in (-5, -3, -2, -1, 0, 1, 2, 3, 5)), 2.5)
FINE = (
    0.4,
    *(round(STUDY ** (k / 7), 4) for k in range(-45, 46)),
    2.5,
)  # seven steps to one of the grid, 2 % apart
PLACED = tuple(
    round(STUDY**k, 4) for k in (-3, -1, 0, 1, 3)
)  # tried before the network, which runs for each
KEY = ["dataset", "scene", "photograph", "method"]
REAL = ("sice-pairs", "lime", "dicm", "bursts")
LEAST = 0.01  # share of a photograph that must be dark (or bright) for its dark (or bright) tones to count
SLIGHT = 0.005  # a change below this share is too small to matter, however certain (as in the result comparison)
FEWEST = 5  # scenes; with fewer a bootstrap interval says too little (as in the result comparison)
NEAR = 0.1  # dB; gammas that score within this of the best one count as equally good (ours)
LIMITS = (0.5, 2.0)  # gammas that the rule may choose (ours)
MIDDLE = 0.5  # mean to which the untuned rule brings every result (ours)

# ---- the curve itself ----------------------------------------------------------------------------------------------


def slope(value: float | np.ndarray, gamma: float) -> float | np.ndarray:
    """Slope of the gamma curve at a value in (0, 1]: how many times a small difference there grows."""
    return gamma * value ** (gamma - 1)


def slopes(gammas: Sequence[float] = (0.6575, INVERSE, STUDY, 1.5209)) -> pd.DataFrame:
    """Slopes by brightness, to draw: columns ``value`` (grey levels, 8 to 255), ``gamma`` (text), ``slope``."""
    values = np.arange(8, 256)
    rows = [
        pd.DataFrame({"value": values, "gamma": f"{g:.2f}", "slope": slope(values / 255, g)})
        for g in gammas
    ]
    return pd.concat(rows, ignore_index=True)


def turning_point(gamma: float) -> float:
    """The value in (0, 1) at which the curve's slope is 1: one side is stretched, the other squeezed. gamma ≠ 1."""
    return float(gamma ** (1 / (1 - gamma)))


def table_losses(gammas: Sequence[float] = GAMMAS) -> pd.DataFrame:
    """What rounding to 8 bits leaves of each gamma's table; one row a gamma, all columns whole grey levels.

    levels: distinct values of 256 that come out. dark_levels: of the 64 darkest that go in. widest_step: the largest
    distance of two neighbours among these, above 1 a gap that shows as a band. clipped_from: the least value that
    ends at 250 or more, the mark for clipped.
    """
    rows = []
    for gamma in gammas:
        table = gamma_table(gamma).astype(int)
        dark = table[:64]
        row = {"gamma": gamma, "levels": len(set(table)), "dark_levels": len(set(dark))}
        row |= {
            "widest_step": int(np.diff(dark).max()),
            "clipped_from": int(np.argmax(table >= metrics.CLIPPED)),
        }
        rows.append(row)
    return pd.DataFrame(rows)


# ---- photographs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """Values of an enhanced photograph, counted: all that a table can change, and nothing of where pixels lie.

    values: (256,) all channels. peaks: (2, 256) greatest channel of each pixel, where the input is clipped (row 1) and
    where not (row 0). dark, bright: (3, 256) by channel, over the pixels dark and bright in the input, whose mean luma
    is old_dark, old_bright. sums: (2, 256) sums of the reference's values and of their squares, or None.
    """

    values: np.ndarray
    peaks: np.ndarray
    dark: np.ndarray
    bright: np.ndarray
    old_dark: float
    old_bright: float
    sums: np.ndarray | None


def count(after: np.ndarray, before: np.ndarray, reference: np.ndarray | None = None) -> Counts:
    """Count an enhanced photograph; all three are (H, W, 3) uint8 of one size."""
    old, clipped = metrics.luma(before), metrics.clipped_mask(before)
    peak = after.max(axis=-1)
    masks = {"dark": old < metrics.DARK, "bright": old >= metrics.BRIGHT}

    def channels(mask: np.ndarray) -> np.ndarray:
        return np.stack([_histogram(after[..., channel][mask]) for channel in range(3)])

    sums = None
    if reference is not None:
        flat, wanted = after.ravel(), reference.ravel().astype(np.float64)
        sums = np.stack([np.bincount(flat, wanted**power, minlength=256) for power in (1, 2)])
    return Counts(
        values=_histogram(after),
        peaks=np.stack([_histogram(peak[~clipped]), _histogram(peak[clipped])]),
        sums=sums,
        **{name: channels(mask) for name, mask in masks.items()},
        **{
            f"old_{name}": float(old[mask].mean()) if mask.any() else np.nan
            for name, mask in masks.items()
        },
    )


def _histogram(values: np.ndarray) -> np.ndarray:
    return np.bincount(values.ravel(), minlength=256)


def tones(counts: Counts, gamma: float) -> dict[str, float]:
    """Figures of the photograph after a gamma, from its counts; those named in METRICS equal METRICS.

    psnr (dB, with a reference), mean, clipped_share, newly_clipped, bright_gain. dark_mean, bright_mean: mean luma of
    the input's dark and bright pixels, in [0, 1]. dark_spread, bright_spread: standard deviation of their values, in
    grey levels, pooled over channels. dark_levels: distinct values among the dark pixels, mean over channels. NaN
    where less than 1 % of the photograph is dark (or bright), except for bright_gain, which takes any bright pixel.
    """
    table = gamma_table(gamma).astype(np.float64)
    levels = int(np.argmax(table >= metrics.CLIPPED))
    pixels = counts.peaks.sum()
    row = {"psnr": np.nan} if counts.sums is None else {"psnr": _psnr(counts, table)}
    row["mean"] = counts.values @ table / counts.values.sum() / 255
    row["clipped_share"] = counts.peaks[:, levels:].sum() / pixels
    row["newly_clipped"] = counts.peaks[0, levels:].sum() / pixels
    for name, channels in (("dark", counts.dark), ("bright", counts.bright)):
        number = channels[0].sum()
        means = channels @ table / max(number, 1)
        variance = channels @ table**2 / max(number, 1) - means**2
        enough = number >= LEAST * pixels
        row[f"{name}_mean"] = means @ metrics.LUMA / 255 if enough else np.nan
        row[f"{name}_spread"] = np.sqrt(max(variance.mean(), 0)) if enough else np.nan
        if name == "bright":
            row["bright_gain"] = means @ metrics.LUMA - counts.old_bright if number else np.nan
        else:
            row["dark_levels"] = (
                np.mean([len(set(table[one > 0])) for one in channels]) if enough else np.nan
            )
    return row


def _psnr(counts: Counts, table: np.ndarray) -> float:
    errors = counts.values * table**2 - 2 * table * counts.sums[0] + counts.sums[1]
    error = errors.sum() / counts.values.sum()
    return float(10 * np.log10(255**2 / error)) if error > 0 else np.inf


def measure(
    rows: Sequence[evaluation.Method], samples: Iterable[datasets.Sample]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every gamma after every network on every photograph; each network runs once a photograph.

    First table, one row a photograph, method and gamma of GAMMAS: :func:`tones`, input_mean and reference_mean in
    [0, 1], and with a reference ssim, psnr_matched and ssim_matched. Second, the same for FINE: psnr and mean alone.
    """
    networks = {method.label: method.enhancer() for method in rows}
    table, fine = [], []
    for sample in samples:
        before, reference = sample.image(), sample.reference()
        for label, network in networks.items():
            after = network(before)
            counts = count(after, before, reference)
            key = {
                "dataset": sample.dataset,
                "scene": sample.scene,
                "photograph": sample.name,
                "method": label,
            }
            about = key | {"input_mean": metrics.mean(before)}
            about["reference_mean"] = np.nan if reference is None else metrics.mean(reference)
            for gamma in GAMMAS:
                scores = (
                    {} if reference is None else _structure(apply_gamma(after, gamma), reference)
                )
                table.append(about | {"gamma": gamma} | tones(counts, gamma) | scores)
            for gamma in FINE:
                figures = tones(counts, gamma)
                fine.append(
                    key | {"gamma": gamma, "psnr": figures["psnr"], "mean": figures["mean"]}
                )
    return pd.DataFrame(table), pd.DataFrame(fine)


def _structure(image: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    matched = metrics.match_mean(image, reference)
    scores = {
        "ssim": metrics.ssim(image, reference),
        "psnr_matched": metrics.psnr(matched, reference),
    }
    return scores | {"ssim_matched": metrics.ssim(matched, reference)}


def placed(rows: Sequence[evaluation.Method], samples: Iterable[datasets.Sample]) -> pd.DataFrame:
    """A gamma before the network beside the same gamma after it; the network runs for each gamma of PLACED.

    One row a photograph, method, ``place`` (``before``, ``after``) and gamma: :func:`tones`, given (mean of what
    the network sees, in [0, 1]), dark_noise_gain and dark_noise_gain_relative as in METRICS, all against the
    photograph as it was; and with a reference ssim, psnr_matched and ssim_matched.
    """
    networks = {method.label: method.enhancer() for method in rows}
    table = []
    for sample in samples:
        before, reference = sample.image(), sample.reference()
        for label, network in networks.items():
            plain = network(before)
            for gamma in PLACED:
                given = apply_gamma(before, gamma)
                early = plain if gamma == 1 else network(given)
                for place, image in (("before", early), ("after", apply_gamma(plain, gamma))):
                    key = {
                        "dataset": sample.dataset,
                        "scene": sample.scene,
                        "photograph": sample.name,
                    }
                    row = key | {"method": label, "place": place, "gamma": gamma}
                    row["given"] = metrics.mean(given if place == "before" else before)
                    row |= tones(count(image, before, reference), 1.0)
                    row["dark_noise_gain"] = metrics.dark_noise_gain(image, before)
                    row["dark_noise_gain_relative"] = metrics.dark_noise_gain(
                        image, before, relative=True
                    )
                    table.append(row | ({} if reference is None else _structure(image, reference)))
    return pd.DataFrame(table)


def noise(
    rows: Sequence[evaluation.Method], names: Sequence[str], limit: int = 0, side: int = 0
) -> pd.DataFrame:
    """Noise of static scenes after every network and gamma of GAMMAS; one row a scene, method and gamma.

    names: sets; ``bundled`` and ``bursts`` have such scenes. limit: the first so many, 0 takes all. side: middle square
    of the frames that is measured, pixels, 0 takes all. Columns mean (of the frames, in [0, 1]), burst_noise (grey
    levels), relative_noise (that over the mean), as in METRICS; burst_noise_by_slope and relative_noise_by_slope: what
    is expected if the noise of each value, before gamma, grows as the curve's slope at its mean over the frames.
    """
    networks = {method.label: method.enhancer() for method in rows}
    table = []
    for name in dict.fromkeys(name for name in names if name in ("bundled", "bursts")):
        for scene, before in list(datasets.bursts(name).items())[: limit or None]:
            for label, network in networks.items():
                frames = [network(_middle(frame, side)) for frame in before]
                stack = np.stack(frames).astype(np.float32)
                spread, tone = stack.std(axis=0, ddof=1), np.maximum(stack.mean(axis=0), 1) / 255
                for gamma in GAMMAS:
                    after = [apply_gamma(frame, gamma) for frame in frames]
                    level, grain = float(np.mean(after)) / 255, metrics.burst_noise(after)
                    row = {
                        "dataset": name,
                        "scene": scene,
                        "method": label,
                        "gamma": gamma,
                        "mean": level,
                    }
                    row |= {"burst_noise": grain, "relative_noise": grain / (255 * level)}
                    row["burst_noise_by_slope"] = float((spread * slope(tone, gamma)).mean())
                    row["relative_noise_by_slope"] = row["burst_noise_by_slope"] / (255 * level)
                    table.append(row)
    return pd.DataFrame(table)


def _middle(image: np.ndarray, side: int) -> np.ndarray:
    top, left = (max(0, (length - side) // 2) if side else 0 for length in image.shape[:2])
    return image[top : image.shape[0] - top, left : image.shape[1] - left]


def rounded_twice(
    rows: Sequence[evaluation.Method], samples: Iterable[datasets.Sample], gamma: float = STUDY
) -> pd.DataFrame:
    """The 8-bit table after rounding beside the same gamma before it, one row a photograph and method.

    differ: share of values that differ; most: by how many grey levels at most; levels_table, levels_float: distinct
    values of the whole result either way; psnr_table, psnr_float (dB, with a reference).
    """
    table = []
    for sample in samples:
        before, reference = sample.image(), sample.reference()
        for method in rows:
            network = evaluation.Method(method.label, method.model, gamma).enhancer()
            late = network(before)
            once = (
                np.floor(255 * network(before.astype(np.float32) / 255) + 0.5)
                .clip(0, 255)
                .astype(np.uint8)
            )
            apart = np.abs(late.astype(int) - once)
            row = {"dataset": sample.dataset, "photograph": sample.name, "method": method.label}
            row |= {"differ": (apart > 0).mean(), "most": int(apart.max())}
            row |= {
                f"levels_{k}": len(np.unique(image))
                for k, image in (("table", late), ("float", once))
            }
            if reference is not None:
                row |= {
                    f"psnr_{k}": metrics.psnr(image, reference)
                    for k, image in (("table", late), ("float", once))
                }
            table.append(row)
    return pd.DataFrame(table)


# ---- what a gamma changes ------------------------------------------------------------------------------------------


def change(
    scores: pd.DataFrame, figure: str, method: str, gamma: float = STUDY, ratio: bool = False
) -> pd.Series:
    """``figure`` at ``gamma`` minus that at gamma 1 (or over it), by data set, scene and photograph if there is one.

    scores: of :func:`measure`, :func:`placed` (one place) or :func:`noise`. Those without the figure are left out.
    """
    key = [column for column in KEY[:3] if column in scores]
    chosen = scores[(scores["method"] == method) & scores["gamma"].isin((1.0, gamma))]
    values = chosen.pivot(index=key, columns="gamma", values=figure)
    return (values[gamma] / values[1.0] if ratio else values[gamma] - values[1.0]).dropna()


def real(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows of real photographs, or all rows where there are none."""
    chosen = scores[scores["dataset"].isin(REAL)]
    return chosen if len(chosen) else scores


def relative(scores: pd.DataFrame, grain: pd.DataFrame) -> pd.DataFrame:
    """Figures over gamma, each divided by its value without gamma, mean over photographs, to draw.

    scores, grain: of :func:`measure` and :func:`noise`; real ones where there are any. Columns method, gamma, figure,
    ``times``.
    """
    sources = [
        (
            real(scores),
            {
                "mean": "brightness",
                "dark_spread": "dark contrast",
                "bright_spread": "bright contrast",
            },
        )
    ]
    sources += [(real(grain), {"burst_noise": "noise", "relative_noise": "noise ÷ brightness"})]
    rows = []
    for table, figures in sources:
        for figure, name in figures.items():
            for method in table["method"].unique():
                for gamma in GAMMAS:
                    times = (
                        change(table, figure, method, gamma, ratio=True).mean()
                        if gamma != 1
                        else 1.0
                    )
                    rows.append({"method": method, "gamma": gamma, "figure": name, "times": times})
    return pd.DataFrame(rows).dropna()


def predictions(scores: pd.DataFrame, grain: pd.DataFrame) -> pd.DataFrame:
    """What the curve's formula predicts from mean tones, beside what was measured; one row a method and prediction.

    A value v grows v^(gamma − 1)-fold and a small difference gamma·v^(gamma − 1)-fold; so noise over brightness should
    grow gamma-fold. Columns method, what, gamma, tone (v, the mean tone before gamma), predicted (from that one tone),
    by_value (for noise: from the slope at each value), measured, all three ratios to no gamma, means over photographs
    or scenes; ratio (measured over predicted), n.
    """
    photographs, scenes = real(scores), real(grain)
    wanted = (
        ("brightness", photographs, "mean", "mean", STUDY, lambda v, g: v ** (g - 1)),
        ("contrast of dark tones", photographs, "dark_spread", "dark_mean", INVERSE, slope),
        ("contrast of bright tones", photographs, "bright_spread", "bright_mean", STUDY, slope),
        ("noise", scenes, "burst_noise", "mean", STUDY, slope),
        ("noise ÷ brightness", scenes, "relative_noise", "mean", STUDY, lambda v, g: g + 0 * v),
    )
    rows = []
    for method in scores["method"].unique():
        for what, table, figure, tone, gamma, formula in wanted:
            measured = change(table, figure, method, gamma, ratio=True)
            if measured.empty:
                continue
            before = table[(table["method"] == method) & (table["gamma"] == 1)]
            values = before.set_index(measured.index.names)[tone].reindex(measured.index)
            row = {"method": method, "what": what, "gamma": gamma, "tone": values.mean()}
            row["predicted"], row["by_value"] = formula(values, gamma).mean(), np.nan
            if f"{figure}_by_slope" in table:
                row["by_value"] = change(
                    table, f"{figure}_by_slope", method, gamma, ratio=True
                ).mean()
            row |= {
                "measured": measured.mean(),
                "ratio": measured.mean() / row["predicted"],
                "n": len(measured),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def by_place(tried: pd.DataFrame) -> pd.DataFrame:
    """Means of :func:`placed` over photographs, one row a method, gamma and place.

    Columns mean, given, brightness and dark_contrast (of what the network sees, and of the result: ratios to no gamma),
    dark_noise_gain_relative, newly_clipped, psnr, psnr_matched, dark_levels, n. Real photographs where there are any.
    """
    rows = []
    chosen = real(tried)
    for (method, gamma, place), part in chosen.groupby(["method", "gamma", "place"], sort=False):
        there = chosen[chosen["place"] == place]
        row = {"method": method, "gamma": gamma, "place": place, "mean": part["mean"].mean()}
        for name, figure in (
            ("given", "given"),
            ("brightness", "mean"),
            ("dark_contrast", "dark_spread"),
        ):
            row[name] = (
                change(there, figure, method, gamma, ratio=True).mean() if gamma != 1 else 1.0
            )
        for figure in (
            "dark_levels",
            "dark_noise_gain_relative",
            "newly_clipped",
            "psnr",
            "psnr_matched",
        ):
            row[figure] = part[figure].mean()
        rows.append(row | {"n": len(part)})
    return pd.DataFrame(rows)


PICTURED = ("input", "network alone", "1.15 after", "0.66 after", "0.66 before")


def extremes(gained: pd.DataFrame, method: str, panels: str = "bundled") -> list[tuple[str, str]]:
    """Set and name of the photographs whose PSNR gains most and least, from :func:`gains`: two pairs.

    panels: ``bundled`` looks among the bundled photographs, ``datasets`` among those of other sets, if any has
    references.
    """
    known = gained[gained["method"] == method].dropna(subset="gain_psnr")
    others = known[known["dataset"] != "bundled"]
    known = others if panels == "datasets" and len(others) else known[known["dataset"] == "bundled"]
    ends = known.loc[
        [known["gain_psnr"].idxmax(), known["gain_psnr"].idxmin()], ["dataset", "photograph"]
    ]
    return list(ends.itertuples(index=False, name=None))


def pictures(method: evaluation.Method, sample: datasets.Sample) -> list[np.ndarray]:
    """The photograph as PICTURED names it: five (H, W, 3) uint8."""
    before, network = sample.image(), method.enhancer()
    plain, (low, *_) = network(before), PLACED
    return [
        before,
        plain,
        apply_gamma(plain, STUDY),
        apply_gamma(plain, low),
        network(apply_gamma(before, low)),
    ]


# Headings of the notebook's tables, where the saved columns' names are too long.
SHORT = {
    "clipped_share": "clipped",
    "bright_gain": "bright",
    "psnr_matched": "matched",
    "gain_matched": "matched",
}
SHORT |= {
    "dark_contrast": "contrast",
    "dark_levels": "levels",
    "near_from": "from",
    "near_to": "to",
}
SHORT |= {
    "lost_at_1": "lost 1",
    "lost_at_study": "lost 1.15",
    "input_mean": "input",
    "gain_psnr": "gain",
}


# ---- where the best gamma lies -------------------------------------------------------------------------------------


def over_gamma(fine: pd.DataFrame) -> pd.DataFrame:
    """Mean PSNR over gamma on each set with references, less that without gamma, in dB, to draw."""
    means = (
        fine.dropna(subset="psnr")
        .groupby(["dataset", "method", "gamma"], sort=False)["psnr"]
        .mean()
        .reset_index()
    )
    plain = means[means["gamma"] == 1].set_index(["dataset", "method"])["psnr"]
    base = plain.loc[pd.MultiIndex.from_frame(means[["dataset", "method"]])].to_numpy()
    return means.assign(gain=means["psnr"] - base)


def best_gammas(fine: pd.DataFrame, seed: int = 0, draws: int = 2000) -> pd.DataFrame:
    """Where mean PSNR peaks over the single gammas of FINE: one row a set with references and method.

    best, with the 95 % bootstrap interval over scenes (low, high; NaN below five scenes); psnr there; near_from and
    near_to: the gammas around it that score within 0.1 dB of it; lost_at_1 and lost_at_study: dB below it without
    gamma and at 1.15; n photographs.
    """
    rows = []
    for (name, method), part in fine.dropna(subset="psnr").groupby(
        ["dataset", "method"], sort=False
    ):
        values = part.pivot(index=["scene", "photograph"], columns="gamma", values="psnr")
        means, gammas = values.mean(), values.columns.to_numpy()
        sums, counts = (
            values.groupby(level="scene").sum().to_numpy(),
            values.groupby(level="scene").size().to_numpy(),
        )
        number, low, high = len(sums), np.nan, np.nan
        if number >= FEWEST:
            weights = np.random.default_rng(seed).multinomial(
                number, np.full(number, 1 / number), size=draws
            )
            peaks = gammas[np.argmax(weights @ sums / (weights @ counts)[:, None], axis=1)]
            low, high = np.quantile(peaks, (0.025, 0.975))
        near = gammas[means >= means.max() - NEAR]
        row = {"dataset": name, "method": method, "best": means.idxmax(), "low": low, "high": high}
        row |= {"psnr": means.max(), "near_from": near.min(), "near_to": near.max()}
        row |= {"lost_at_1": means.max() - means[1.0], "lost_at_study": means.max() - means[STUDY]}
        rows.append(row | {"n": len(values)})
    return pd.DataFrame(rows)


def gains(scores: pd.DataFrame, gamma: float = STUDY) -> pd.DataFrame:
    """What ``gamma`` after the network changes on each photograph, with its third of the set by input brightness.

    One row a photograph and method: third (dark, middle, light), input_mean, mean (of the result without gamma),
    brighter (mean less that of the reference, in grey levels), and the changes of psnr, ssim, psnr_matched,
    ssim_matched and clipped_share, named gain_…
    """
    figures = ["psnr", "ssim", "psnr_matched", "ssim_matched", "clipped_share"]
    plain = scores[scores["gamma"] == 1].set_index(KEY)
    changed = scores[scores["gamma"] == gamma].set_index(KEY)[figures] - plain[figures]
    table = plain[["input_mean", "mean"]].assign(
        brighter=255 * (plain["mean"] - plain["reference_mean"])
    )
    table = table.join(changed.add_prefix("gain_")).reset_index()
    rank = table.groupby(["dataset", "method"])["input_mean"].rank(method="first", pct=True)
    third = np.array(["dark", "middle", "light"])[
        np.clip(np.ceil(3 * rank - 1e-9).astype(int) - 1, 0, 2)
    ]
    table.insert(4, "third", third)
    return table


def thirds(gained: pd.DataFrame) -> pd.DataFrame:
    """:func:`gains` by set, method and third of the input's brightness: means, the 95 % interval of gain_psnr (low,
    high; NaN below five scenes), won (share of photographs whose PSNR rises) and n."""
    rows = []
    for (name, method), part in gained.groupby(["dataset", "method"], sort=False):
        for third in ("dark", "middle", "light"):
            chosen = part[part["third"] == third].set_index(KEY[:3])
            known = chosen["gain_psnr"].dropna()
            row = {"dataset": name, "method": method, "third": third, "n": len(chosen)}
            row |= chosen.select_dtypes("number").mean().to_dict()
            row |= dict(zip(("low", "high"), _interval(known), strict=True))
            rows.append(row | {"won": (known > 0).mean() if len(known) else np.nan})
    return pd.DataFrame([row for row in rows if row["n"]])


def _interval(values: pd.Series) -> tuple[float, float]:
    """``evaluation.interval``, or (NaN, NaN) below five scenes."""
    return evaluation.interval(values) if _scenes(values) >= FEWEST else (np.nan, np.nan)


def _scenes(values: pd.Series) -> int:
    return values.groupby(level=["dataset", "scene"]).ngroups


# ---- a gamma for every photograph ----------------------------------------------------------------------------------


def half(dataset: str, scene: str) -> str:
    """``choose`` or ``report``: the half in which a scene's photographs serve to choose settings, or to report them.

    The last bit of the CRC-32 of ``"<data set> <scene>"``, 0 for ``choose``: fixed, and nobody's choice.
    """
    return "report" if zlib.crc32(f"{dataset} {scene}".encode()) % 2 else "choose"


def rule(means: np.ndarray, target: float, limits: tuple[float, float] = LIMITS) -> np.ndarray:
    """Gamma that brings each result's mean nearest to ``target``, without a reference: (n,) from FINE within limits.

    means: (n, len(FINE)) mean of each photograph's result, in [0, 1], after each gamma of FINE.
    """
    gammas = np.array(FINE)
    allowed = (gammas >= limits[0]) & (gammas <= limits[1])
    return gammas[allowed][np.argmin(np.abs(means[:, allowed] - target), axis=1)]


def policies(scores: pd.DataFrame, fine: pd.DataFrame) -> pd.DataFrame:
    """Ways to choose gamma, reported on the half of the scenes that chose nothing: one row a photograph and policy.

    Per set with references and method. ``no gamma``; ``1.15``; ``best single``: of FINE, by mean PSNR on the choosing
    half; ``mean to 0.50``: :func:`rule`, nothing chosen; ``mean to best``: the rule with the target that scores best on
    the choosing half; ``oracle``: each photograph's own best, found with its reference, so no method. Columns policy,
    setting, gamma, psnr, gain (dB over no gamma), and interpolated between GAMMAS: ssim, psnr_matched, and
    gain_matched.
    """
    tables = []
    for (name, method), part in fine.dropna(subset="psnr").groupby(
        ["dataset", "method"], sort=False
    ):
        index = ["scene", "photograph"]
        psnr, means = (part.pivot(index=index, columns="gamma", values=v) for v in ("psnr", "mean"))
        halves = np.array([half(name, scene) for scene in psnr.index.get_level_values("scene")])
        if set(halves) != {"choose", "report"}:
            continue
        chosen = _settings(psnr[halves == "choose"], means[halves == "choose"])
        psnr, means = psnr[halves == "report"], means[halves == "report"]
        coarse = scores[(scores["dataset"] == name) & (scores["method"] == method)]
        ssim, matched = (
            _between(coarse, figure, psnr.index) for figure in ("ssim", "psnr_matched")
        )
        plain, plain_matched = psnr[1.0].to_numpy(), matched(np.ones(len(psnr)))
        for policy, setting, gammas in _choices(psnr, means, *chosen):
            reached = _at(psnr, gammas)
            row = {
                "dataset": name,
                "method": method,
                "policy": policy,
                "setting": setting,
                "gamma": gammas,
            }
            row |= {
                "psnr": reached,
                "gain": reached - plain,
                "ssim": ssim(gammas),
                "psnr_matched": matched(gammas),
            }
            row["gain_matched"] = row["psnr_matched"] - plain_matched
            tables.append(psnr.index.to_frame(index=False).assign(**row))
    return (
        pd.concat(tables, ignore_index=True)
        if tables
        else pd.DataFrame(columns=[*KEY, "policy", "gain"])
    )


def _settings(psnr: pd.DataFrame, means: pd.DataFrame) -> tuple[float, float]:
    """The single gamma and the rule's target mean that score best in mean PSNR."""
    targets = np.round(np.arange(0.2, 0.705, 0.01), 2)
    reached = [_at(psnr, rule(means.to_numpy(), target)).mean() for target in targets]
    return float(psnr.mean().idxmax()), float(targets[int(np.argmax(reached))])


def _choices(psnr: pd.DataFrame, means: pd.DataFrame, single: float, target: float) -> list[tuple]:
    """Every policy with its setting and the gamma of each photograph, (n,)."""
    same, oracle = np.ones(len(psnr)), psnr.columns.to_numpy()[np.argmax(psnr.to_numpy(), axis=1)]
    return [
        ("no gamma", "", same),
        (f"{STUDY:g}", "", STUDY * same),
        ("best single", f"{single:.2f}", single * same),
        (f"mean to {MIDDLE:.2f}", "", rule(means.to_numpy(), MIDDLE)),
        ("mean to best", f"{target:.2f}", rule(means.to_numpy(), target)),
        ("oracle", "", oracle),
    ]


def _at(psnr: pd.DataFrame, gammas: np.ndarray) -> np.ndarray:
    return psnr.to_numpy()[np.arange(len(psnr)), psnr.columns.get_indexer(gammas)]


def _between(
    scores: pd.DataFrame, figure: str, index: pd.Index
) -> Callable[[np.ndarray], np.ndarray]:
    """A figure of each photograph of ``index`` at a gamma of its own, by a cubic spline over log gamma."""
    values = scores.pivot(index=["scene", "photograph"], columns="gamma", values=figure).loc[index]
    spline = CubicSpline(np.log(values.columns.to_numpy()), values.to_numpy(), axis=1)
    return lambda gammas: np.diagonal(spline(np.log(gammas))).copy()


def policy_table(chosen: pd.DataFrame) -> pd.DataFrame:
    """:func:`policies` by set, method and policy: setting, mean gamma, and means of psnr, gain, ssim, psnr_matched and
    gain_matched; the 95 % intervals of both gains (low, high, low_matched, high_matched; NaN below five scenes), n."""
    rows = []
    for (name, method, policy), part in chosen.groupby(["dataset", "method", "policy"], sort=False):
        table = part.set_index(KEY[:3])
        row = {
            "dataset": name,
            "method": method,
            "policy": policy,
            "setting": part["setting"].iloc[0],
        }
        row |= (
            table[["gamma", "psnr", "gain", "ssim", "psnr_matched", "gain_matched"]]
            .mean()
            .to_dict()
        )
        for figure, ending in (("gain", ""), ("gain_matched", "_matched")):
            low, high = _interval(table[figure])
            row |= {f"low{ending}": low, f"high{ending}": high}
        rows.append(row | {"n": len(part)})
    return pd.DataFrame(rows)


# ---- claims --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """What is tested for a claim: ``figure`` at ``gamma`` against the same without gamma.

    where: ``after`` or ``before`` the network, or ``noise`` on static scenes; better: +1 higher, −1 lower; unit:
    of the difference, times ``scale``; empty for a ratio.
    """

    claim: str
    about: str
    figure: str
    gamma: float
    better: int
    unit: str = ""
    where: str = "after"
    scale: float = 1.0


PARTS = (
    Part("G1", "gamma 0.87 after the network stretches dark tones", "dark_spread", INVERSE, +1),
    Part(
        "G1",
        "gamma 0.87 before the network stretches dark tones",
        "dark_spread",
        INVERSE,
        +1,
        where="before",
    ),
    Part("G1", "gamma 1.15 lowers bright areas", "bright_gain", STUDY, -1, "grey levels"),
    Part(
        "G1",
        "gamma 1.15 leaves fewer pixels clipped",
        "clipped_share",
        STUDY,
        -1,
        "% of pixels",
        scale=100,
    ),
    Part("G1", "gamma 1.15 gives bright tones contrast", "bright_spread", STUDY, +1),
    Part("G2", "PSNR rises", "psnr", STUDY, +1, "dB"),
    Part("G2", "SSIM rises", "ssim", STUDY, +1, "SSIM"),
    Part("G2", "PSNR with means matched rises", "psnr_matched", STUDY, +1, "dB"),
    Part("G2", "SSIM with means matched rises", "ssim_matched", STUDY, +1, "SSIM"),
    Part("G2", "noise falls", "burst_noise", STUDY, -1, where="noise"),
    Part("G2", "noise for its brightness falls", "relative_noise", STUDY, -1, where="noise"),
)


def judge(part: Part, table: pd.DataFrame, method: str) -> dict[str, object]:
    """A part on one method: rule, measured, interval, n, held, as in the ledger of claims, and the number ``change``.

    It holds where the mean change and its whole 95 % interval lie on the better side and the change is 0.5 % of the
    figure without gamma at least; it is not testable with fewer than five scenes, or where the figure is 0 everywhere.
    """
    values = (
        change(table, part.figure, method, part.gamma, ratio=not part.unit)
        if part.figure in table
        else None
    )
    side = "above" if part.better > 0 else "below"
    row: dict[str, object] = {
        "rule": f"{part.figure} {side} that without gamma: 95 % interval, and by 0.5 % at least"
    }
    plain = table[(table["method"] == method) & (table["gamma"] == 1)]
    if (
        values is None
        or values.empty
        or _scenes(values) < FEWEST
        or not plain[part.figure].abs().max()
    ):
        return row | {
            "measured": "",
            "interval": "",
            "n": "",
            "held": "not testable here",
            "change": np.nan,
        }
    neutral, base = (0.0, abs(plain[part.figure].mean())) if part.unit else (1.0, 1.0)
    mean, (low, high) = values.mean(), evaluation.interval(values)
    beyond = low > neutral if part.better > 0 else high < neutral
    held = "yes" if beyond and abs(mean - neutral) >= SLIGHT * base else "no"
    shown = [_told(value, part) for value in (mean, low, high)]
    row |= {"measured": f"{shown[0]} {part.unit}" if part.unit else f"× {shown[0]}", "change": mean}
    row |= {"interval": f"{shown[1]} – {shown[2]}", "held": held}
    return row | {"n": f"{len(values)} {'scenes' if part.where == 'noise' else 'photographs'}"}


def _told(value: float, part: Part) -> str:
    return f"{part.scale * value:+.3f}" if part.unit else f"{value:.3f}"


PUBLISHED = "published weights"
LEDGER = ["claim", "part", "rule", "measured", "interval", "n", "budget", "held"]


def claims(
    rows: Sequence[evaluation.Method],
    scores: pd.DataFrame,
    tried: pd.DataFrame,
    grain: pd.DataFrame,
) -> pd.DataFrame:
    """The ledger's rows on G1 and G2 for the improved network, for each of ``rows`` that is one: columns LEDGER.

    scores, tried, grain: of :func:`measure`, :func:`placed` and :func:`noise`. Real photographs count where there are
    any, and bundled ones otherwise.
    """
    tables = {
        "after": real(scores),
        "before": real(tried[tried["place"] == "before"]),
        "noise": real(grain),
    }
    table = []
    for method in (row for row in rows if row.model and row.model.startswith("zero-dce-improved")):
        for part in PARTS:
            trained = budget(method)
            whose = trained if trained == PUBLISHED else "our weights"
            row = {"claim": part.claim, "part": f"{part.about}, {whose}", "budget": trained}
            table.append(row | judge(part, tables[part.where], method.label))
    return pd.DataFrame(table)[LEDGER]


def budget(method: evaluation.Method) -> str:
    """How long a method's weights were trained, in words."""
    run = checkpoints.load(method.model).header.get("train")
    if run is None:
        return PUBLISHED
    return f"{run['steps']:,} steps × {run['batch']} at {run['size']} px, seed {run['seed']}"


# ---- words ---------------------------------------------------------------------------------------------------------


def told_clipping(scores: pd.DataFrame) -> str:
    """A sentence on how many of the clipped pixels fall below the mark at 1.15, by set and network."""
    shares = (
        scores.groupby(["dataset", "method", "gamma"], sort=False)["clipped_share"].mean().unstack()
    )
    left = (1 - shares[STUDY] / shares[1.0])[shares[1.0] > 0]
    each = [f"{value:.0%} on {name} by {method}" for (name, method), value in left.items()]
    least = int(table_losses((STUDY,))["clipped_from"].iloc[0])
    text = f"The prediction was that what is clipped stays clipped. Of the pixels at {metrics.CLIPPED} or more, gamma "
    text += f"{STUDY:g} takes below that mark: {', '.join(each) if each else 'none here, since none was clipped'}. "
    text += f"Every one of them had its greatest channel below {least}: the mark decides, and how the network piles up "
    return f"{text}tones just under white. At 255 none can leave."


def findings(
    ledger: pd.DataFrame,
    predicted: pd.DataFrame,
    places: pd.DataFrame,
    best: pd.DataFrame,
    third: pd.DataFrame,
    chosen: pd.DataFrame,
    gained: pd.DataFrame,
) -> list[str]:
    """Paragraphs of Markdown, the first with the verdicts; arguments: the notebook's saved tables of these names."""
    titles = {"G1": "gamma below 1 stretches dark tones, above 1 tames over-exposure"}
    titles["G2"] = "gamma 1.15 after the network improves the result"
    told = [
        f"{title} ({claim}): **{evaluation.verdict(_held(ledger, claim))}**"
        for claim, title in titles.items()
    ]
    first = f"{'; '.join(told)}."
    lines = [first[0].upper() + first[1:]]
    lines += [f"**{claim}.** " + " ".join(_part_lines(ledger, claim)) for claim in titles]
    lines += [
        _told_prediction(predicted),
        _told_places(places),
        _told_best(best),
        _told_thirds(third, gained),
    ]
    return [*lines, _told_policies(chosen)]


def _held(ledger: pd.DataFrame, claim: str) -> list[str]:
    return ledger.loc[ledger["claim"] == claim, "held"].tolist()


def _part_lines(ledger: pd.DataFrame, claim: str) -> list[str]:
    lines = []
    for weights, rows in ledger[ledger["claim"] == claim].groupby("budget", sort=False):
        told = []
        for word, opening in (
            ("yes", "holds"),
            ("no", "does not hold"),
            ("not testable here", "open"),
        ):
            part = rows[rows["held"] == word]
            told_of = "{1}" if word == "not testable here" else "{1} ({0.measured}; {0.interval})"
            each = [told_of.format(row, row.part.rsplit(",", 1)[0]) for row in part.itertuples()]
            told += [f"*{opening}*: {'; '.join(each)}"] if each else []
        lines.append(f"Weights of {weights}: {'. '.join(told)}.")
    return lines


def _told_prediction(predicted: pd.DataFrame) -> str:
    ratios = predicted["ratio"]
    far = predicted.loc[(ratios - 1).abs().idxmax()]
    text = f"**The formula.** Measured over predicted lies between {ratios.min():.2f} and {ratios.max():.2f}; farthest "
    text += f"off is {far['what']}, {far['method']}: predicted × {far['predicted']:.2f}, "
    text += f"measured × {far['measured']:.2f}."
    for row in predicted[predicted["what"] == "noise ÷ brightness"].itertuples():
        text += f" Noise for its brightness, {row.method}, gamma {row.gamma:g}: × {row.predicted:.2f} by one tone, "
        text += f"× {row.by_value:.2f} value by value, × {row.measured:.2f} measured."
    return text


def _told_places(places: pd.DataFrame) -> str:
    """Whether the network undoes a gamma before it, from :func:`by_place` at the smallest gamma tried."""
    text = (
        "**Before the network.** Expected: brightness moves less than by the same gamma after it."
    )
    for method, part in places[places["gamma"] == PLACED[0]].groupby("method", sort=False):
        early, late = (part[part["place"] == place].iloc[0] for place in ("before", "after"))
        text += f" {method}, gamma {PLACED[0]:.2f}: the input gets × {early['given']:.2f} as bright, the result × "
        text += (
            f"{early['brightness']:.2f}, and × {late['brightness']:.2f} by that gamma afterwards"
        )
        less = abs(early["brightness"] - 1) < 0.9 * abs(late["brightness"] - 1)
        text += ": less, as expected." if less else ": not clearly less, so the expectation failed."
    return text


def _told_best(best: pd.DataFrame) -> str:
    text = "**Why 1.15?**"
    for name, part in best.groupby("dataset", sort=False):
        each = [
            f"{row.method} peaks at {row.best:.2f} (as good within {NEAR:g} dB: {row.near_from:.2f} – "
            f"{row.near_to:.2f}; 1.15 lies {row.lost_at_study:.2f} dB below the peak, no gamma {row.lost_at_1:.2f})"
            for row in part.itertuples()
        ]
        text += f" On {name}, {'; '.join(each)}."
    return text


def _told_thirds(third: pd.DataFrame, gained: pd.DataFrame) -> str:
    known = gained.dropna(subset="gain_psnr")
    agree = ((known["brighter"] > 0) == (known["gain_psnr"] > 0)).mean()
    text = "**Who gains.**"
    for name, part in third.dropna(subset="gain_psnr").groupby("dataset", sort=False):
        each = [
            f"{t} third {rows['gain_psnr'].mean():+.2f} dB"
            for t, rows in part.groupby("third", sort=False)
        ]
        text += f" On {name}, mean over the networks: {', '.join(each)}."
    text += " Expected: a result brighter than its reference gains from 1.15, and one that is darker loses."
    return f"{text} That gives the right sign for {agree:.0%} of {len(known)} results."


def _told_policies(chosen: pd.DataFrame) -> str:
    text = "**A gamma for every photograph.**"
    for (name, method), part in chosen.groupby(["dataset", "method"], sort=False):
        rows = part.set_index("policy")
        each = [
            f"{policy}{f' ({row.setting})' if str(row.setting) not in ('', 'nan') else ''} {row.gain:+.2f} dB"
            for policy, row in rows.iterrows()
            if policy != "no gamma"
        ]
        text += f" On {name} with {method}, over no gamma: {', '.join(each)}."
    return text
