"""Figures of the reports: one style, photographs side by side, alt text on every picture.

Figures are made without pyplot's global state, so nothing is drawn twice and nothing stays open.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

# Okabe and Ito's colours, told apart by colour-blind readers; line styles tell them apart in grey
# print.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#000000", "#e69f00")
STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.labelcolor": "#222222",
    "axes.labelsize": 9.5,
    "axes.prop_cycle": mpl.cycler(color=COLORS)
    + mpl.cycler(linestyle=("-", "--", "-.", ":", "-", "--", "-.")),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.facecolor": "white",
    "font.size": 9.5,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}
DPI = 150
WIDTH = 9.6  # of a panel, inches


@dataclass(frozen=True)
class Picture:
    """A rendered figure, ``width`` CSS pixels wide; a report files it as ``name``."""

    data: bytes
    mime: str
    alt: str
    width: int
    name: str | None = None

    def __repr__(self) -> str:
        return f"[figure] {self.alt}"

    def _repr_mimebundle_(self, include=None, exclude=None):
        about = {"alt": self.alt, "width": self.width} | ({"name": self.name} if self.name else {})
        bundle = {self.mime: base64.b64encode(self.data).decode("ascii"), "text/plain": repr(self)}
        return bundle, {self.mime: about}


def figure(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (7.2, 3.4), **subplots
) -> tuple:
    """Figure and axes in the reports' style; ``size`` in inches, ``subplots`` as in
    ``Figure.subplots``.
    """
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=size, layout="constrained")
        return fig, fig.subplots(rows, columns, **subplots)


def show(fig: Figure, alt: str, name: str | None = None) -> Picture:
    """Render ``fig`` for a notebook's last line: JPEG if it holds photographs, else PNG.

    ``alt`` says in words what the figure shows; ``name`` (such as ``06_panels``) files it among the
    report's figures. Raises ValueError without an alt text.
    """
    if not alt.strip():
        raise ValueError("alt: a figure needs a text that says what it shows")
    photographs = any(image.get_array().ndim == 3 for axes in fig.axes for image in axes.images)
    kind, options = ("jpeg", {"quality": 86}) if photographs else ("png", {})
    for legend in filter(None, [*fig.legends, *(axes.get_legend() for axes in fig.axes)]):
        legend.set_frame_on(False)
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        fig.savefig(buffer, format=kind, dpi=DPI, pil_kwargs={"optimize": True} | options)
    if kind == "png":  # a chart has few colours: a palette makes it a third as large
        chart, buffer = Image.open(buffer).convert("RGB"), io.BytesIO()
        chart = chart.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        chart.save(buffer, "PNG", optimize=True)
    width, alt = round(fig.get_figwidth() * 100), " ".join(alt.split())
    return Picture(buffer.getvalue(), f"image/{kind}", alt, width, name)


def differing(images: Sequence[np.ndarray], share: float = 0.25) -> tuple[int, int, int]:
    """The square (left, top, size) in which the images, (H, W, 3) uint8 of one size, differ most.

    Difference: range over the images, summed over channels and the square. ``share``: size by the
    shorter side.
    """
    spread = np.ptp(np.stack(images).astype(np.int16), axis=0).sum(axis=-1).astype(np.float64)
    size = max(1, round(share * min(spread.shape)))
    table = np.pad(spread.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = table[size:, size:] - table[:-size, size:] - table[size:, :-size] + table[:-size, :-size]
    top, left = np.unravel_index(sums.argmax(), sums.shape)
    return int(left), int(top), size


def panel(
    images: Sequence,
    titles: Sequence[str],
    labels: Sequence[str] = (),
    box: tuple[int, int, int] | None = None,
) -> Figure:
    """Photographs side by side, in one row or several.

    ``images``: one row, (H, W, 3) or (H, W) uint8 arrays, or a list of rows; (H, W) arrays are maps
    from 0 (dark) to 255 (light). ``titles``: one a column; ``labels``: one a row. ``box``: a square
    (left, top, size) inside the photographs, framed in the first row and shown enlarged, without
    smoothing, in a row below all others.
    """
    rows = [list(row) for row in (images if isinstance(images[0], list | tuple) else [images])]
    labels = list(labels or [""] * len(rows))
    if box:
        left, top, size = box
        rows.append([image[top : top + size, left : left + size] for image in rows[0]])
        labels.append("crop")
    shapes = [max(image.shape[0] / image.shape[1] for image in row) for row in rows]
    cell = (WIDTH - 0.3 * any(labels)) / len(titles)
    height = sum(cell * shape + 0.06 for shape in shapes) + 0.32
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        fig = Figure(figsize=(WIDTH, height), layout="constrained")
        fig.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
        grid = fig.subplots(len(rows), len(titles), squeeze=False, height_ratios=shapes)
        for places, row, label in zip(grid, rows, labels, strict=True):
            places[0].set_ylabel(label)
            for place, image in zip(places, row, strict=True):
                shown = "nearest" if label == "crop" else "auto"
                place.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation=shown)
                place.set(xticks=[], yticks=[])
                place.spines[:].set_visible(False)
        for place, title in zip(grid[0], titles, strict=True):
            place.set_title(title, loc="center")
            for color, line in (("black", 2.6), ("white", 1.2)) if box else ():
                frame = Rectangle(box[:2], size, size, fill=False, ec=color, lw=line)
                place.add_patch(frame)
    return fig


OVER = "position:absolute;inset:0;width:100%;height:100%;margin:0"
SLIDER = (
    '<div class="slider" style="position:relative;max-width:{width}px;'
    'aspect-ratio:{width}/{height};--at:50%">'
    f'<img src="{{second}}" alt="After: {{alt}}" style="{OVER}">'
    f'<img src="{{first}}" alt="Before: {{alt}}" style="{OVER};'
    'clip-path:inset(0 calc(100% - var(--at)) 0 0)">'
    '<span style="position:absolute;top:0;bottom:0;left:var(--at);width:2px;margin-left:-1px;'
    'background:#fff;box-shadow:0 0 4px #000;pointer-events:none">'
    '<span style="position:absolute;top:50%;left:-15px;width:32px;height:32px;margin-top:-16px;'
    "border-radius:50%;background:#fff;color:#222;box-shadow:0 0 5px #000;"
    'font:15px/32px sans-serif;text-align:center">⇔</span></span>'
    '<input type="range" min="0" max="100" value="50" aria-label="Before and after: {alt}" '
    "oninput=\"this.parentNode.style.setProperty('--at',this.value+'%')\" "
    f'style="{OVER};opacity:0;cursor:ew-resize;touch-action:pan-y"></div>'
)


@dataclass(frozen=True)
class Slider:
    """Two photographs one over the other with a divider to move by mouse, finger or arrow keys;
    needs no network.
    """

    alt: str
    page: str

    def __repr__(self) -> str:
        return f"[before and after] {self.alt}"

    def _repr_html_(self) -> str:
        return self.page


def slider(before: np.ndarray, after: np.ndarray, alt: str, width: int = 960) -> Slider:
    """Before and after, (H, W, 3) uint8 of one size, shown at most ``width`` pixels wide as JPEG.

    Raises ValueError when the sizes differ.
    """
    if before.shape != after.shape:
        raise ValueError(f"after: shape {after.shape} differs from before's {before.shape}")
    size = min(width, before.shape[1]), round(before.shape[0] * min(1, width / before.shape[1]))
    files = []
    for pixels in (before, after):
        buffer, image = io.BytesIO(), Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
        image.save(buffer, "JPEG", quality=86, optimize=True)
        files.append("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode())
    # The range input lies invisibly over the pictures: handle, touch target and focus in one.
    shown = {"first": files[0], "second": files[1], "alt": html.escape(alt, quote=True)}
    return Slider(alt, SLIDER.format(**shown, width=size[0], height=size[1]))
