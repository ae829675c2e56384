"""What the fast path gives away for its speed: the reduced copy's size, how curves come back, how many there are.

Every choice runs through the machine code of ``zdce.engine.compiled``, so that its time is the time that it would take.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import ndimage

from zdce import datasets, metrics
from zdce.engine import Curves
from zdce.engine.reference import SMALL_SIDE
from zdce.enhance import Enhancer
from zdce.study import plots
from zdce.study.timing import FRAMES, framed_photographs

EDGE_SHARE = 0.02  # of a photograph's pixels, those of the steepest brightness, count as edges
EDGE_REACH = 4  # pixels around them in which a halo would stand
LOSSES = {"psnr_loss": 0.2, "ssim_loss": 0.005}  # dB and 1: what the fast path may lose at most


@dataclass(frozen=True)
class Choice:
    """One way to be fast. label: its name in tables; side: longer side of what the network sees, pixels; nearest: each
    pixel takes the nearest curves, not those in between; curves: "shared" is their mean, eight times, "all" is all
    eight, "fewer" the mean, four times at double strength, as far as a curve may bend."""

    label: str
    side: int = SMALL_SIDE
    nearest: bool = False
    curves: str = "shared"


CHOICES = (
    *(Choice(f"{side} pixels", side) for side in (20, 40, 80, 160, 320, 640)),
    Choice("80, nearest", nearest=True),
    Choice("80, all eight curves", curves="all"),
    Choice("80, 4 iterations", curves="fewer"),
)
TAKEN = next(choice.label for choice in CHOICES if choice == Choice(choice.label))


class _Nearest(Curves):
    """A grid whose curves are not mixed."""

    def places(self, size: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
        before, share = super().places(size, axis)
        return np.minimum(before + (share >= 0.5), self.values.shape[axis] - 1).astype(
            np.int32
        ), np.zeros_like(share)


def enhanced(enhancer: Enhancer, pixels: np.ndarray, choice: Choice) -> np.ndarray:
    """(H, W, 3) uint8 → the same, enhanced by the choice; needs numba."""
    grid = enhancer.engine.curves_of_copy(pixels, choice.side, choice.curves != "all").arrays()
    if choice.curves == "fewer":
        grid = replace(grid, values=(2 * grid.values).clip(-1, 1), repeated=grid.repeated // 2)
    if choice.nearest:
        grid = _Nearest(grid.values, grid.factor, grid.corners, repeated=grid.repeated)
    return enhancer.engine.render(pixels, grid, gamma=enhancer.gamma)


def near_edges(pixels: np.ndarray) -> np.ndarray:
    """Where a halo would stand: (H, W) bool, within :data:`EDGE_REACH` pixels of the steepest brightness."""
    steep = ndimage.gaussian_gradient_magnitude(metrics.luma(pixels), 1.0)
    return ndimage.binary_dilation(
        (steep >= np.quantile(steep, 1 - EDGE_SHARE)) & (steep > 0), iterations=EDGE_REACH
    )


def losses(
    model: str, on: str, limit: int = 0, choices: Sequence[Choice] = CHOICES
) -> pd.DataFrame:
    """What each choice loses against the faithful path: one row a photograph of the set ``on`` and choice.

    psnr_loss (dB) and ssim_loss: the faithful path's score on the reference less the choice's; apart: mean difference
    of the two results, grey levels; at_edges, elsewhere: the same near strong edges, where halos stand, and apart from
    them.
    """
    enhancer, rows = Enhancer(model, device="cpu"), []
    for sample in datasets.samples(on, limit):
        pixels, reference = sample.image(), sample.reference()
        faithful, edges = enhancer(pixels), near_edges(pixels)
        best = metrics.psnr(faithful, reference), metrics.ssim(faithful, reference)
        for choice in choices:
            result = enhanced(enhancer, pixels, choice)
            apart = np.abs(result.astype(np.int16) - faithful).mean(axis=2)
            row = {
                "dataset": on,
                "photograph": sample.name,
                "choice": choice.label,
                "apart": apart.mean(),
            }
            row |= {"psnr_loss": best[0] - metrics.psnr(result, reference)}
            row |= {"ssim_loss": best[1] - metrics.ssim(result, reference)}
            rows.append(row | {"at_edges": apart[edges].mean(), "elsewhere": apart[~edges].mean()})
    return pd.DataFrame(rows)


def times(model: str, repeats: int, choices: Sequence[Choice] = CHOICES) -> pd.DataFrame:
    """Median milliseconds of each choice from 8 bits to 8 bits, in turn in this process: a row a choice, a column a
    size of ``speed.FRAMES``."""
    enhancer, rows = Enhancer(model, device="cpu"), []
    for name, pixels in framed_photographs().items():
        for repeat in range(repeats + 1):
            for choice in choices:
                started = time.perf_counter()
                enhanced(enhancer, pixels, choice)
                if repeat:
                    rows.append((choice.label, name, 1000 * (time.perf_counter() - started)))
    frame = pd.DataFrame(rows, columns=["choice", "size", "ms"])
    return frame.pivot_table("ms", "choice", "size", "median", sort=False)[list(FRAMES)].add_suffix(
        " ms"
    )


def summary(lost: pd.DataFrame, taken: pd.DataFrame) -> pd.DataFrame:
    """Quality against time, one row a choice: means of :func:`losses` over photographs beside :func:`times`."""
    columns = ["psnr_loss", "ssim_loss", "apart", "at_edges", "elsewhere"]
    means = lost.groupby("choice", sort=False)[columns].mean()
    return means.assign(n=lost.groupby("choice").size()).join(taken).reset_index()


def words(table: pd.DataFrame) -> list[str]:
    """What the table of :func:`summary` says for the choice taken, in lines of Markdown."""
    row = table.set_index("choice").loc[TAKEN]
    inside = all(row[name] < most for name, most in LOSSES.items())
    halo = row["at_edges"] / row["elsewhere"] if row["elsewhere"] else math.nan
    kept = "within" if inside else "outside"
    return [
        f"The fast path shows the network {TAKEN}. Against the faithful path it loses {row['psnr_loss']:.3f} dB and "
        f"{row['ssim_loss']:.4f} SSIM on {row['n']:.0f} photographs, {kept} the {LOSSES['psnr_loss']} dB and "
        f"{LOSSES['ssim_loss']} that it may lose at most. The two results lie {row['apart']:.2f} grey levels apart on "
        f"average: {row['at_edges']:.2f} within {EDGE_REACH} pixels of strong edges, {row['elsewhere']:.2f} elsewhere, "
        f"{halo:.1f} times as much.",
    ]


def chart(table: pd.DataFrame) -> Figure:
    """PSNR lost against the time of a 4K frame, a dot a choice; how far results lie apart, at edges and elsewhere."""
    fig, (left, right) = plots.figure(1, 2, (9.6, 3.8))
    frame = f"{list(FRAMES)[-1]} ms"
    for at, lost, name in zip(table[frame], table["psnr_loss"], table["choice"], strict=True):
        taken = name == TAKEN
        left.plot(at, lost, "o", color=plots.COLORS[0 if taken else 1])
        aside = -6 if taken else 6  # the chosen one to the left, where its neighbours leave room
        away = (aside, -14 if "nearest" in name or name.startswith("20 ") else -3)
        how = {
            "weight": "bold" if taken else None,
            "ha": "right" if taken else "left",
            "fontsize": 8,
        }
        left.annotate(name, (at, lost), away, textcoords="offset points", **how)
    left.axhspan(
        LOSSES["psnr_loss"],
        max(LOSSES["psnr_loss"] * 1.5, 1.1 * table["psnr_loss"].max()),
        alpha=0.15,
    )
    left.set(
        xscale="log",
        xlabel="a 4K frame, ms",
        ylabel="PSNR lost, dB (shaded: more than it may lose)",
    )
    left.xaxis.set_major_formatter("{x:g}")
    left.xaxis.set_minor_formatter("{x:g}")
    left.margins(x=0.25, y=0.12)
    places = np.arange(len(table))
    right.barh(
        places - 0.2, table["at_edges"], 0.4, label="near strong edges", color=plots.COLORS[0]
    )
    right.barh(places + 0.2, table["elsewhere"], 0.4, label="elsewhere", color=plots.COLORS[1])
    right.set_yticks(places, table["choice"])
    right.invert_yaxis()
    right.set_xlabel("apart from the faithful path, grey levels")
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return fig


def halo_panel(model: str = "zero-dce-improved", count: int = 2) -> Figure:
    """Bundled photographs, faithful and fast, with the square enlarged in which the two differ most."""
    faithful, quick = (Enhancer(model, device="cpu", speed=each) for each in ("faithful", "fast"))
    rows, boxes = [], []
    for sample in datasets.samples("bundled", count):
        pixels = sample.image()
        rows.append([pixels, faithful(pixels), quick(pixels)])
        boxes.append(plots.differing(rows[-1][1:], 0.3))
    return plots.panel(rows, ("input", "faithful", "fast"), boxes=boxes, width=7.2)
