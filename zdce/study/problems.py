"""What the second notebook computes: what enhancement does to bright areas, to noise and to details, and where.

Each is predicted from the curve and measured beside it. "Luma" is BT.601 brightness in grey levels, as in
:mod:`zdce.metrics`; bright pixels have a luma of 153 (0.6·255) or more in the input, dark ones below 50.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from zdce import camera, checkpoints, datasets, metrics
from zdce.enhance import Enhancer
from zdce.model import apply_curves
from zdce.photos import to_pixels, to_tensor
from zdce.study import claims_old as ledger
from zdce.study import evaluation, experiments, plots

BAND = (
    17  # grey levels; 15 bands of input brightness, the upper six are the bright ones (153 = 9·17)
)
RAISED = 2  # grey levels; a pixel that rises by more counts as raised
LIT = 0.33  # share of a photograph in mixed light, from its left edge, that stays as it is
FALLOFF = 4  # stops between the well lit and the dark side of a photograph in mixed light
STATIC = 3  # a burst whose input noise exceeds so many times the median of its set has something moving in it
# What the claims must exceed (ours): column, threshold, and what the part says. Intervals decide, see `parts`.
CLAIMS = {
    "P1": (
        ("bright_gain", 0.0, "bright pixels are raised"),
        ("bright_clipped", 0.01, "more than 1 % of them are pushed to 250 or above"),
    ),
    "P2": (
        ("noise_gain", 1.0, "noise of dark areas grows in grey levels"),
        ("noise_gain_relative", 1.0, "it grows more than their brightness"),
    ),
    "P3": (
        ("lost", 0.05, "more than 5 % of all local contrast is lost"),
        ("lost_bright", 0.05, "more than 5 % of it is lost in bright areas"),
    ),
}

# ---- what is looked at ---------------------------------------------------------------------------------------------


def mixed_light(
    pixels: np.ndarray, stops: float = FALLOFF, seed: int = 0, lit: float = LIT
) -> np.ndarray:
    """A photograph lit from its left: its share ``lit`` as it is, then column by column less light, to ``stops`` less.

    pixels: (H, W, 3) uint8, returned likewise; light and noise by the camera of :func:`zdce.camera.expose`. Same
    seed, same picture. Source: ours.
    """
    width = pixels.shape[1]
    light = np.interp(np.arange(width), (lit * width, width - 1), (0, stops))
    columns = [camera.expose(pixels[:, k : k + 1], light[k], (seed, k)) for k in range(width)]
    return np.concatenate(columns, axis=1)


@dataclass(frozen=True)
class MixedLight(datasets.Sample):
    """A bundled photograph in :func:`mixed_light`: bright and dark areas in one picture."""

    lit: float = LIT

    def image(self) -> np.ndarray:
        """The photograph."""
        clean = datasets.Sample("bundled", self.name, self.scene).reference()
        return mixed_light(clean, seed=zlib.crc32(self.scene.encode()), lit=self.lit)


def photographs(names: Sequence[str], limit: int = 0, lit: float = LIT) -> list[datasets.Sample]:
    """Photographs of the named sets, and after ``bundled`` the same scenes in mixed light, as set ``mixed light``.

    limit: so many a set, evenly spaced; 0 takes all. lit: as in :func:`mixed_light`. ``bursts`` is left out:
    its frames serve :func:`bursts`.
    """
    chosen = []
    for name in names:
        if name != "bursts":
            chosen += datasets.samples(name, limit)
        if name == "bundled":
            chosen += [
                MixedLight("mixed light", f"{s}-mixed", s, lit=lit)
                for s in datasets.BUNDLED[: limit or None]
            ]
    return chosen


def networks(published: bool = True) -> dict[str, Enhancer]:
    """The paper's network by label: as trained here and, if ``published`` and at hand, with the published weights."""
    rows = (evaluation.OURS[0], evaluation.PUBLISHED[0]) if published else (evaluation.OURS[0],)
    return {row.label: row.enhancer() for row in rows if row.at_hand()}


# ---- the curve -----------------------------------------------------------------------------------------------------


def constant_curve(x: float, r: float, iterations: int = 8) -> list[float]:
    """Where a value x in [0, 1] stands after 0, 1, … iterations with one r in [−1, 1]. Source: paper, equation 1."""
    values = [x]
    for _ in range(iterations):
        values.append(values[-1] + r * (values[-1] ** 2 - values[-1]))
    return values


def curve_steps(x: float, rs: Sequence[float] = (0.25, 0, -0.1, -0.25, -0.5, -1)) -> pd.DataFrame:
    """A value x in [0, 1] under constant curves: one row an r, grey levels after 0, 1, 2, 4, 8 iterations."""
    return pd.DataFrame(
        [
            {"r": r}
            | {f"after {k}": round(255 * constant_curve(x, r)[k], 1) for k in (0, 1, 2, 4, 8)}
            for r in rs
        ]
    )


def curve_slopes(
    xs: Sequence[float] = (0.0, 0.05, 0.2, 0.6, 0.8, 0.95),
    rs: Sequence[float] = (0, -0.1, -0.25, -0.5),
) -> pd.DataFrame:
    """Slope of the eightfold constant curve: one row an input x in [0, 1], one column an r."""
    table = {"input": [f"{x:g}" for x in xs]}
    for r in rs:
        image = torch.tensor(xs, dtype=torch.float64).reshape(1, 1, 1, -1).expand(1, 3, 1, -1)
        table[f"r = {r:g}"] = (
            curve_slope(image, torch.full_like(image, r))[0, 0, 0].round(decimals=2).tolist()
        )
    return pd.DataFrame(table)


def curve_slope(image: Tensor, curves: Tensor, iterations: int = 8) -> Tensor:
    """Slope of the whole curve at each value: how many times a small difference grows if the curves stay as they are.

    image: (N, 3, H, W) in [0, 1]; curves: (N, 3·iterations, H, W) or (N, 3, H, W), r in (−1, 1). Returns (N, 3, H, W),
    0 or more: the product over the iterations of 1 + r·(2x − 1). Source: derivative of the paper's equation 1.
    """
    steps = [curves] * iterations if curves.shape[1] == 3 else curves.split(3, dim=1)
    slope = torch.ones_like(image)
    for r in steps:
        slope = slope * (1 + r * (2 * image - 1))
        image = image + r * (image * image - image)
    return slope


def bend(enhancer: Enhancer, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photograph (H, W, 3) uint8 enhanced (H, W, 3) uint8, the curve's slope (H, W, 3), the mean r (H, W, 3)."""
    after, slope, curves = _bend(enhancer, pixels)
    return after, slope, curves[0].unflatten(0, (-1, 3)).mean(dim=0).permute(1, 2, 0).cpu().numpy()


@torch.inference_mode()
def _bend(enhancer: Enhancer, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """Enhanced photograph, slope, and the curves themselves, (1, 3·iterations, H, W)."""
    image = to_tensor(pixels).to(enhancer.device)
    enhanced, curves = enhancer.net(image)
    slope = curve_slope(image, curves)[0].permute(1, 2, 0).cpu().numpy()
    return to_pixels(enhanced.cpu()), slope, curves


# ---- photograph by photograph --------------------------------------------------------------------------------------


def measure(
    enhancers: Mapping[str, Enhancer], samples: Iterable[datasets.Sample]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Figures of every network on every photograph, and the same by the input's brightness.

    First table, one row a pair: :func:`figures`. Second, fifteen rows a pair: :func:`bands`. ``scene`` is the same
    for all photographs of one scene.
    """
    rows, tables = [], []
    for sample in samples:
        before = sample.image()
        home = "bundled" if isinstance(sample, MixedLight) else sample.dataset
        for method, enhancer in enhancers.items():
            after, slope, mean_r = bend(enhancer, before)
            key = {
                "dataset": sample.dataset,
                "photograph": sample.name,
                "scene": f"{home} {sample.scene}",
            }
            key |= {"method": method}
            by_band = bands(before, after, slope)
            rows.append(key | figures(before, after, slope, mean_r) | _losses(by_band))
            tables.append(by_band.assign(**key))
    return pd.DataFrame(rows), pd.concat(tables, ignore_index=True)


def figures(
    before: np.ndarray, after: np.ndarray, slope: np.ndarray, mean_r: np.ndarray
) -> dict[str, float]:
    """Bright areas and flat dark patches of one photograph; see :func:`bend` for the arguments.

    input_mean, mean: grey levels. bright_share of all pixels; of the bright pixels: bright_gain (mean rise, grey
    levels), bright_raised (share that rises by more than 2 grey levels), bright_clipped (share newly at 250 or more),
    bright_r (mean r; negative raises), bright_predicted (rise of their mean if all had that r). dark_noise_gain and
    dark_noise_gain_relative as in METRICS, dark_slope the mean slope in the same patches. NaN where
    the input has no such pixels.
    """
    old, new = metrics.luma(before), metrics.luma(after)
    bright = old >= metrics.BRIGHT
    clipped = metrics.clipped_mask(after) & ~metrics.clipped_mask(before)
    level, r = _mean(old[bright]), _mean(mean_r[bright])
    return {
        "input_mean": before.mean(),
        "mean": after.mean(),
        "bright_share": bright.mean(),
        "bright_gain": metrics.bright_gain(after, before),
        "bright_raised": _mean((new - old > RAISED)[bright]),
        "bright_clipped": _mean(clipped[bright]),
        "bright_r": r,
        "bright_predicted": 255 * constant_curve(level / 255, r)[-1] - level,
        "dark_noise_gain": metrics.dark_noise_gain(after, before),
        "dark_noise_gain_relative": metrics.dark_noise_gain(after, before, relative=True),
        "dark_slope": _mean(metrics.luma(slope)[_dark_patches(before)]),
    }


def bands(before: np.ndarray, after: np.ndarray, slope: np.ndarray) -> pd.DataFrame:
    """One photograph by the input's brightness, fifteen bands of 17 grey levels; see :func:`bend` for the arguments.

    level: the band's middle. pixels: how many. input, output: their mean luma before and after. slope: mean slope of
    the curve. detail, lost: sums of local contrast and of what is lost of it (``metrics.detail_lost_map``); predicted:
    the loss expected from the slope, detail·(1 − slope) where the slope is below 1; one_curve: the loss in
    :func:`one_curve`. Bands without pixels have zeros and NaN.
    """
    old, steepness = metrics.luma(before), metrics.luma(slope)
    lost, detail = metrics.detail_lost_map(after, before)
    band = np.minimum(old // BAND, 14).astype(int).ravel()
    maps = {
        "input": old,
        "output": metrics.luma(after),
        "slope": steepness,
        "detail": detail,
        "lost": lost,
    }
    maps["predicted"] = detail * (1 - np.clip(steepness, 0, 1))
    maps["one_curve"] = metrics.detail_lost_map(one_curve(before, after), before)[0]
    sums = {name: np.bincount(band, values.ravel(), minlength=15) for name, values in maps.items()}
    table = pd.DataFrame(
        {"level": BAND * (np.arange(15) + 0.5), "pixels": np.bincount(band, minlength=15)} | sums
    )
    for name in ("input", "output", "slope"):
        table[name] /= table.pixels.where(table.pixels > 0)
    return table


def one_curve(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The photograph with the tones of ``after`` but one curve for all its pixels: (H, W, 3) uint8, as both arguments.

    Every value of a channel becomes the mean of what ``after`` made of that value. So contrast that differs from
    ``after``'s tells what curves that vary from place to place do; what noise and edges do to a slope is in both.
    """
    result = np.empty_like(before)
    for channel in range(3):
        old = before[..., channel].ravel()
        count = np.maximum(np.bincount(old, minlength=256), 1)
        table = np.bincount(old, after[..., channel].ravel(), minlength=256) / count
        result[..., channel] = np.rint(table).astype(np.uint8)[before[..., channel]]
    return result


def _losses(by_band: pd.DataFrame) -> dict[str, float]:
    """Share of local contrast lost in all, in bright areas and in the rest: measured, predicted, in one_curve."""
    bright = by_band[by_band.level >= metrics.BRIGHT]
    rest = by_band[by_band.level < metrics.BRIGHT]
    parts = {"lost": by_band, "lost_bright": bright, "lost_rest": rest}
    kinds = {"": "lost", "_predicted": "predicted", "_one_curve": "one_curve"}
    return {
        f"{name}{ending}": _share(part[column].sum(), part.detail.sum())
        for ending, column in kinds.items()
        for name, part in parts.items()
    }


def lit_set(scores: pd.DataFrame, panels: str = "bundled") -> str:
    """The set whose tones are shown: ``mixed light``, or for panels ``datasets`` the one with most bright pixels."""
    shares = scores.groupby("dataset").bright_share.mean()
    return (
        "mixed light" if panels == "bundled" and "mixed light" in shares else str(shares.idxmax())
    )


TONE_LABELS = ("luma of the input (grey levels)", "luma afterwards (grey levels)")


def tone_lines(by_band: pd.DataFrame, dataset: str, least: float = 0.001) -> pd.DataFrame:
    """Measured tone curves of a set, to draw: columns TONE_LABELS, photograph, method; ``unchanged`` is the diagonal.

    Bands with less than the share ``least`` of a photograph's pixels are left out.
    """
    chosen = by_band[by_band.dataset == dataset]
    total = chosen.groupby(["photograph", "method"]).pixels.transform("sum")
    chosen = chosen[chosen.pixels >= least * total]
    ends = (
        chosen[["method"]]
        .drop_duplicates()
        .merge(pd.DataFrame({"input": [0, 255], "output": [0, 255]}), how="cross")
    )
    table = pd.concat([chosen, ends.assign(photograph="unchanged")], ignore_index=True)
    return table.rename(columns={"input": TONE_LABELS[0], "output": TONE_LABELS[1]})


def loss_lines(by_band: pd.DataFrame) -> pd.DataFrame:
    """Share of local contrast lost by the input's brightness, all photographs together, measured and predicted.

    Columns: level, method, kind (measured, predicted by the slope, one curve for all pixels), share in [0, 1]; bands
    without pixels left out.
    """
    sums = (
        by_band.groupby(["method", "level"], sort=False)[
            ["detail", "lost", "predicted", "one_curve"]
        ]
        .sum()
        .reset_index()
    )
    sums = sums[sums.detail > 0]
    kinds = {"measured": "lost", "predicted by the slope": "predicted"}
    kinds["one curve for all pixels"] = "one_curve"
    tables = [
        sums.assign(kind=kind, share=sums[column] / sums.detail) for kind, column in kinds.items()
    ]
    return pd.concat(tables, ignore_index=True)[["method", "level", "kind", "share"]]


# ---- noise ---------------------------------------------------------------------------------------------------------


def bursts(enhancers: Mapping[str, Enhancer], names: Sequence[str], side: int = 0) -> pd.DataFrame:
    """Noise in the dark areas of static scenes before and after, one row a scene and network.

    names: sets, those with bursts are taken. side: middle square of the frames that is measured, pixels; 0 takes all.
    Noise is the standard deviation over the frames, grey levels, over pixels whose mean luma is below 50: noise_before,
    noise_after, noise_gain their ratio; brightness_gain the growth of the same pixels' mean; noise_gain_relative =
    noise_gain / brightness_gain; predicted: noise_gain expected from the slope; held: noise_gain if all frames get the
    curves of the first; static: False where something moves (noise_before over 3 times the set's median).
    """
    rows = []
    for name in (name for name in names if name in ("bundled", "bursts")):
        for scene, frames in datasets.bursts(name).items():
            cut = [_middle(frame, side) for frame in frames]
            for method, enhancer in enhancers.items():
                rows.append(
                    {"dataset": name, "scene": scene, "method": method} | _burst(enhancer, cut)
                )
    table = pd.DataFrame(rows)
    median = table.groupby("dataset").noise_before.transform("median")
    return table.assign(static=table.noise_before <= STATIC * median)


@torch.inference_mode()
def _burst(enhancer: Enhancer, frames: Sequence[np.ndarray]) -> dict[str, float]:
    stack = np.stack(frames)
    dark = metrics.luma(stack).mean(axis=0) < metrics.DARK
    bent = [_bend(enhancer, frame) for frame in frames]
    held = [
        to_pixels(apply_curves(to_tensor(f).to(enhancer.device), bent[0][2]).cpu()) for f in frames
    ]
    after, slope = np.stack([b[0] for b in bent]), np.mean([b[1] for b in bent], axis=0)
    noise = stack.std(axis=0, ddof=1)
    before, later, fixed = (
        _mean(s.std(axis=0, ddof=1)[dark]) for s in (stack, after, np.stack(held))
    )
    gain, brighter = _share(later, before), _share(_mean(after[:, dark]), _mean(stack[:, dark]))
    return {
        "dark_share": dark.mean(),
        "noise_before": before,
        "noise_after": later,
        "noise_gain": gain,
        "predicted": _share(_mean((noise * slope)[dark]), before),
        "held": _share(fixed, before),
        "brightness_gain": brighter,
        "noise_gain_relative": _share(gain, brighter),
    }


def _middle(image: np.ndarray, side: int) -> np.ndarray:
    height, width = image.shape[:2]
    top, left = (max(0, (length - side) // 2) if side else 0 for length in (height, width))
    return image[top : height - top, left : width - left]


# ---- worst cases ---------------------------------------------------------------------------------------------------


def problem_map(kind: str, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where a problem lies, (H, W) in grey levels, 0 where there is none; photographs (H, W, 3) uint8.

    kind: ``bright``, what bright pixels rise; ``noise``, how far the enhanced photograph departs from the mean of its
    4×4 cell in flat dark patches; ``detail``, the local contrast lost.
    """
    old, new = metrics.luma(before), metrics.luma(after)
    if kind == "bright":
        return np.where(old >= metrics.BRIGHT, np.maximum(new - old, 0), 0)
    if kind == "detail":
        return metrics.detail_lost_map(after, before)[0]
    if kind != "noise":
        raise ValueError(f"kind={kind!r}: use 'bright', 'noise' or 'detail'")
    height, width = (side // 4 for side in new.shape)
    cells = new[: 4 * height, : 4 * width].reshape(height, 4, width, 4).mean(axis=(1, 3))
    noise = np.zeros(new.shape)
    noise[: 4 * height, : 4 * width] = np.abs(
        new[: 4 * height, : 4 * width] - cells.repeat(4, 0).repeat(4, 1)
    )
    return np.where(_dark_patches(before), noise, 0)


def worst_box(values: np.ndarray, size: int = 80) -> tuple[int, int, int]:
    """The square (left, top, size) of a map (H, W) with the greatest sum; shrunk to fit a small map."""
    size = min(size, *values.shape)
    sums = np.pad(values, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    totals = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    top, left = np.unravel_index(totals.argmax(), totals.shape)
    return int(left), int(top), size


def worst(scores: pd.DataFrame, figure: str, panels: str = "bundled") -> pd.DataFrame:
    """The row of each method with the greatest ``figure``, for crops.

    panels: ``bundled`` looks among the bundled photographs, mixed light included; ``datasets`` among all. For figures
    of bright areas, photographs with less than 1 % of bright pixels are passed over.
    """
    if panels not in ("bundled", "datasets"):
        raise ValueError(f"panels={panels!r}: use 'bundled' or 'datasets'")
    chosen = (
        scores[scores.dataset.isin(("bundled", "mixed light"))] if panels == "bundled" else scores
    )
    chosen = chosen[chosen.bright_share >= 0.01] if "bright" in figure else chosen
    chosen = chosen.dropna(subset=figure)
    return chosen.loc[chosen.groupby("method", sort=False)[figure].idxmax()]


def worst_first(table: pd.DataFrame, columns: Mapping[str, str], count: int = 12) -> pd.DataFrame:
    """The ``count`` photographs with the greatest first figure of ``columns``, worst first, with all their methods.

    columns: figures to show and their headings. Photographs without the first figure are left out.
    """
    key, figure = ["dataset", "photograph"], next(iter(columns))
    known = table.dropna(subset=figure)
    ranked = known.assign(greatest=known.groupby(key)[figure].transform("max"))
    ranked = ranked.sort_values(["greatest", *key], ascending=[False, True, True], kind="stable")
    kept = ranked[key].drop_duplicates().head(count)
    return ranked.merge(kept, on=key)[[*key, "method", *columns]].rename(columns=columns)


def worst_panel(
    rows: pd.DataFrame,
    kind: str,
    enhancers: Mapping[str, Enhancer],
    samples: Iterable[datasets.Sample],
) -> plots.Picture:
    """Input, enhanced photograph and :func:`problem_map` of the given rows, with crops where the map is greatest."""
    by_name = {(sample.dataset, sample.name): sample for sample in samples}
    images, boxes, labels = [], [], []
    for row in rows.itertuples():
        before = by_name[row.dataset, row.photograph].image()
        after = bend(enhancers[row.method], before)[0]
        values = problem_map(kind, before, after)
        scaled = np.uint8(np.clip(255 * values / max(np.quantile(values, 0.998), 1), 0, 255))
        images.append([before, after, scaled])
        boxes.append(worst_box(values))
        labels.append(f"{row.method}\n{row.photograph}")
    fig = plots.panel(images, ("input", "enhanced", MAPS[kind]), labels, boxes, width=7.2)
    shown = ", ".join(f"{row.photograph} by {row.method}" for row in rows.itertuples())
    return plots.show(
        fig,
        f"Worst cases, {shown}: input, enhanced, and a map of the {MAPS[kind]}, with crops beneath",
    )


MAPS = {
    "bright": "rise of bright pixels",
    "noise": "noise in flat dark patches",
    "detail": "local contrast lost",
}


def agreement(table: pd.DataFrame, x: str, y: str, labels: tuple[str, str]) -> plots.Picture:
    """Measured ``y`` against predicted ``x``, one mark a row, one colour and shape a method; equality as a line."""
    fig, axes = plots.figure(size=(5.4, 4.2))
    for (method, part), color, mark in zip(
        table.groupby("method", sort=False), plots.COLORS, "osD^v", strict=False
    ):
        axes.scatter(part[x], part[y], color=color, marker=mark, s=30, alpha=0.8, label=method)
    ends = [table[[x, y]].min().min(), table[[x, y]].max().max()]
    axes.plot(ends, ends, color="#777777", linewidth=1, linestyle=":", label="equal")
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.legend()
    return plots.show(
        fig, f"Scatter plot: {labels[1]} against {labels[0]}, beside the line of equality"
    )


# ---- the claims ----------------------------------------------------------------------------------------------------


def parts(scores: pd.DataFrame, noise: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The parts of P1, P2, P3 per method: mean, 95 % interval over scenes, threshold, and whether the part holds.

    scores: of :func:`measure`; noise: of :func:`bursts`, whose moving scenes are left out. A part holds when the whole
    interval lies above its threshold; below two scenes it is not testable here. Photographs of one scene are averaged
    first: they are not independent.
    """
    rows = []
    for method in scores.method.unique():
        for claim, its_parts in CLAIMS.items():
            for column, threshold, says in its_parts:
                table = noise[noise.static] if claim == "P2" else scores
                scenes = table[table.method == method].groupby(
                    ["dataset", "scene"] if claim == "P2" else "scene"
                )
                values = scenes[column].mean().dropna()
                low, high = evaluation.interval(values, seed)
                held = (
                    "not testable here" if len(values) < 2 else "yes" if low > threshold else "no"
                )
                row = {
                    "claim": claim,
                    "method": method,
                    "part": says,
                    "figure": column,
                    "scenes": len(values),
                }
                row |= {
                    "mean": values.mean(),
                    "low": low,
                    "high": high,
                    "above": threshold,
                    "holds": held,
                }
                rows.append(row)
    return pd.DataFrame(rows)


def unlit(
    enhancers: Mapping[str, Enhancer], noise: pd.DataFrame, limit: int = 0, seed: int = 0
) -> pd.DataFrame:
    """The parts of P1 on photographs in mixed light alone, light falling from the left edge on (``lit`` of 0).

    Fewer pixels near white are then in the picture, so this tells how far P1 rests on that choice. Columns of `parts`.
    """
    samples = [
        MixedLight("mixed light", f"{s}-mixed", s, lit=0.0)
        for s in datasets.BUNDLED[: limit or None]
    ]
    table = parts(measure(enhancers, samples)[0], noise, seed)
    return table[table.claim == "P1"]


def verdicts(parts: pd.DataFrame) -> pd.Series:
    """Verdict of every claim and method, indexed by both: see :func:`zdce.study.claims.verdict`."""
    return (
        parts.groupby(["claim", "method"], sort=False).holds.agg(ledger.verdict).rename("verdict")
    )


def claims(parts: pd.DataFrame) -> pd.DataFrame:
    """Claims P1, P2, P3 in parts, as :func:`zdce.study.claims.parts`, from :func:`parts`."""
    rows = []
    for row in parts.itertuples():
        digits = 1 if row.above == 0 else 2 if row.above == 1 else 4
        rows.append(
            {
                "claim": row.claim,
                "part": f"{row.part}, by {row.method}",
                "rule": f"the 95 % interval of {row.figure} lies above {row.above:g}",
                "measured": f"{row.figure} {row.mean:.{digits}f}",
                "interval": f"{row.low:.{digits}f} – {row.high:.{digits}f}",
                "n": f"{row.scenes} scenes",
                "budget": _budget(row.method),
                "held": row.holds,
            }
        )
    return ledger.parts(rows)


def _budget(method: str) -> str:
    weights = {m.label: m.model for m in (*evaluation.OURS, *evaluation.PUBLISHED)}.get(method)
    run = checkpoints.load(weights).header.get("train") if weights else None
    return experiments.budget(run) if run else "published weights"


# Sentences by whether each part holds. A part that does not hold was not shown here, which is all they may say.
FINDINGS = {
    "P1": {
        ("yes", "yes"): "Tones that needed nothing are raised, and part of them ends near white.",
        (
            "yes",
            "no",
        ): "Tones that needed nothing are raised. That more than 1 % of them end near white is not shown.",
        (
            "no",
            "yes",
        ): "That bright areas rise on the whole is not shown, yet part of them ends near white.",
        ("no", "no"): "Neither a rise of bright areas nor their loss to white is shown.",
    },
    "P2": {
        ("yes", "yes"): "Noise becomes more visible, and by more than brightening explains.",
        (
            "yes",
            "no",
        ): "Noise becomes more visible. That it grows more than brightness is not shown: multiplying the "
        "dark areas to the same brightness would bring out about as much.",
        (
            "no",
            "yes",
        ): "Noise grows more than brightness; that it grows in grey levels is not shown.",
        ("no", "no"): "No growth of noise is shown.",
    },
    "P3": {
        ("yes", "yes"): "Details fade, in bright areas and over whole photographs.",
        (
            "yes",
            "no",
        ): "Details fade over whole photographs; that bright areas lose more than 5 % is not shown.",
        (
            "no",
            "yes",
        ): "Details fade where the photograph was bright; over whole photographs a loss of more than 5 % is not shown.",
        (
            "no",
            "no",
        ): "A loss of more than 5 % is not shown, in bright areas or over whole photographs.",
    },
}
SHORT = {
    "P1": "bright areas become too bright",
    "P2": "noise comes out of dark areas",
    "P3": "details are lost",
}


def findings(
    scores: pd.DataFrame, noise: pd.DataFrame, table: pd.DataFrame, unlit: pd.DataFrame
) -> list[str]:
    """Paragraphs that answer the claims, numbers and wording from the tables of :func:`measure`, :func:`bursts`,
    :func:`parts` and :func:`unlit`; the first line gives the verdicts, then a paragraph a method and claim."""
    verdict = verdicts(table)
    methods = list(dict.fromkeys(table.method))
    answers = [", ".join(f"{SHORT[c]} ({c}): **{verdict[c, m]}**" for c in CLAIMS) for m in methods]
    lines = [" ".join(f"By {m}, {answer}." for m, answer in zip(methods, answers, strict=True))]
    for method in methods:
        held = table[table.method == method].set_index("figure")
        mine, still = (
            scores[scores.method == method],
            noise[(noise.method == method) & noise.static],
        )
        measured = {
            "P1": _on_bright(held, mine),
            "P2": _on_noise(held, still),
            "P3": _on_detail(held, mine),
        }
        for claim, its_parts in CLAIMS.items():
            wording = FINDINGS[claim].get(
                tuple(held.holds[column] for column, _, _ in its_parts), ""
            )
            lines.append(
                f"**{claim}, {method}: {verdict[claim, method]}.** {measured[claim]} {wording}".rstrip()
            )
        lines.append(_on_choice(mine, noise, unlit[unlit.method == method]))
    return lines


def _on_choice(scores: pd.DataFrame, noise: pd.DataFrame, unlit: pd.DataFrame) -> str:
    """How far P1 rests on the photographs in mixed light; tables of one method."""
    method, clipped = unlit.method.iloc[0], unlit.set_index("figure").loc["bright_clipped"]
    real = scores[~scores.dataset.isin(("bundled", "mixed light"))]
    alone = verdicts(parts(real, noise))["P1", method] if len(real) else "not testable here"
    return (
        f"How far P1 rests on the photographs, {method}: in mixed light that falls from the left edge on (lit = 0) "
        f"{clipped['mean']:.1%} of the bright pixels newly reach {metrics.CLIPPED} ({_range(clipped, '.1%')}), and by "
        f"these photographs alone P1 is {verdicts(unlit)['P1', method]}; by the real photographs alone it is {alone}."
    )


def _on_bright(held: pd.DataFrame, scores: pd.DataFrame) -> str:
    rise, clipped = held.loc["bright_gain"], held.loc["bright_clipped"]
    if rise.scenes < 2:
        return "Fewer than two scenes have bright pixels."
    means = (
        scores.dropna(subset="bright_gain")
        .groupby("scene")[["bright_predicted", "bright_raised"]]
        .mean()
        .mean()
    )
    return (
        f"Bright pixels change by {rise['mean']:+.1f} grey levels ({_range(rise, '+.1f')}, n = {rise.scenes} scenes; "
        f"eight steps with their mean r predict {means.bright_predicted:+.1f}). {means.bright_raised:.0%} of them rise "
        f"by more than {RAISED} levels, {clipped['mean']:.1%} newly reach {metrics.CLIPPED} ({_range(clipped, '.1%')})."
    )


def _on_noise(held: pd.DataFrame, noise: pd.DataFrame) -> str:
    gain, relative = held.loc["noise_gain"], held.loc["noise_gain_relative"]
    reaction = noise.noise_gain.mean() / noise.held.mean()
    follows = (
        "adds noise of its own"
        if reaction > 1.02
        else "smooths some of it"
        if reaction < 0.98
        else "hardly reacts"
    )
    return (
        f"The noise of dark areas grows {gain['mean']:.2f}-fold in grey levels ({_range(gain, '.2f')}, n = "
        f"{gain.scenes} scenes). The slope of the curve predicts {noise.predicted.mean():.2f}. With one frame's curves "
        f"for all it is {noise.held.mean():.2f}: to noise, the network {follows}. Brightness grows "
        f"{noise.brightness_gain.mean():.2f}-fold, so relative to it noise changes {relative['mean']:.2f}-fold "
        f"({_range(relative, '.2f')})."
    )


def _on_detail(held: pd.DataFrame, scores: pd.DataFrame) -> str:
    lost, bright = held.loc["lost"], held.loc["lost_bright"]
    means = scores.groupby("scene")[[c for c in scores if c.startswith("lost_")]].mean().mean()
    text = f"{lost['mean']:.1%} of all local contrast is lost ({_range(lost, '.1%')}, n = {lost.scenes} scenes). "
    if bright.scenes < 2:
        return text + "Fewer than two scenes have bright pixels."
    local = bright["mean"] / means.lost_bright_one_curve
    effect = (
        "cost contrast" if local > 1.05 else "keep contrast" if local < 0.95 else "change little"
    )
    return text + (
        f"In bright areas it is {bright['mean']:.1%} ({_range(bright, '.1%')}, n = {bright.scenes}), elsewhere "
        f"{means.lost_rest:.1%}. The slope of the curve predicts {means.lost_bright_predicted:.1%} and "
        f"{means.lost_rest_predicted:.1%}; the same tones by one curve for all pixels lose "
        f"{means.lost_bright_one_curve:.1%} and {means.lost_rest_one_curve:.1%}: in bright areas, curves that differ "
        f"from place to place {effect}."
    )


def _range(part: pd.Series, form: str) -> str:
    return f"{part.low:{form}} to {part.high:{form}}"


def _dark_patches(before: np.ndarray) -> np.ndarray:
    """Pixels of ``metrics.flat_dark_patches``: (H, W) bool."""
    inside = np.zeros(before.shape[:2], bool)
    for row, column in metrics.flat_dark_patches(before):
        inside[row : row + metrics.PATCH, column : column + metrics.PATCH] = True
    return inside


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _share(a: float, b: float) -> float:
    return float(a / b) if b else float("nan")
