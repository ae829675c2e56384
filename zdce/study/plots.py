"""Figures of the reports: one style, photographs side by side, alt text on every picture.

Figures are made without pyplot's global state, so nothing is drawn twice and nothing stays open.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from zdce.study import pages

STYLE = mpl.rc_params_from_file(pages.TEMPLATES / "figures.mplstyle", use_default_template=False)
WIDTH = 9.6  # of a panel, inches


@dataclass(frozen=True)
class Shown:
    """What a cell shows: ``data`` of a kind (``image/png``, ``text/html``), ``plain`` in words."""

    plain: str
    kind: str
    data: bytes | str
    about: dict = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.plain

    def _repr_mimebundle_(self, include=None, exclude=None):
        raw = isinstance(self.data, bytes)
        data = base64.b64encode(self.data).decode() if raw else self.data
        return {self.kind: data, "text/plain": self.plain}, {self.kind: self.about}


def figure(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (7.2, 3.4), **subplots
) -> tuple:
    """Figure and axes in the reports' style; size in inches, ``subplots`` as Figure.subplots."""
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=size, layout="constrained")
        return fig, fig.subplots(rows, columns, **subplots)


def show(fig: Figure, alt: str, name: str = "") -> Shown:
    """Render ``fig`` for a notebook's last line: JPEG if it holds photographs, else PNG.

    ``alt`` says what it shows, ValueError without; ``name`` files it among the report's figures.
    """
    if not (alt := " ".join(alt.split())):
        raise ValueError("alt: a figure needs a text that says what it shows")
    photographs = any(image.get_array().ndim == 3 for axes in fig.axes for image in axes.images)
    kind, options = ("jpeg", {"quality": 86}) if photographs else ("png", {})
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        for legend in filter(None, [*fig.legends, *(axes.get_legend() for axes in fig.axes)]):
            legend.set_frame_on(False)
        fig.savefig(buffer, format=kind, pil_kwargs={"optimize": True} | options)
    if kind == "png":  # a chart has few colours: a palette makes it a third as large
        chart, buffer = Image.open(buffer).convert("RGB"), io.BytesIO()
        chart = chart.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        chart.save(buffer, "PNG", optimize=True)
    about = {"alt": alt, "width": round(fig.get_figwidth() * 100)}
    about |= {"name": name} if name else {}
    return Shown(f"[figure] {alt}", f"image/{kind}", buffer.getvalue(), about)


def panel(
    images: Sequence,
    titles: Sequence[str],
    labels: Sequence[str] = (),
    box: tuple[int, int, int] | None = None,
) -> Figure:
    """Photographs side by side, in one row or several.

    ``images``: one row, (H, W, 3) or (H, W) uint8 arrays, or a list of rows; (H, W) are shown in
    grey. ``titles``: one a column; ``labels``: one a row. ``box``: a square (left, top, size),
    framed in the first row and shown enlarged, without smoothing, below all others.
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
                place.add_patch(Rectangle(box[:2], size, size, fill=False, ec=color, lw=line))
    return fig
