"""Frames as codecs keep them ↔ pixels: a plane of luma and two of colour differences ↔ (H, W, 3).

libswscale's quick conversion rounds towards black, which a strong curve shows; its accurate one
takes fifteen times as long as these rows. Needs numba. Source: ours, by ITU-R BT.601, 709, 2020.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zdce.engine.vectors import numba

# Matrices by their number in files (ITU-T H.273): weights of red and blue in luma.
MATRICES = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}


@dataclass(frozen=True)
class Form:
    """How a video's pictures are stored.

    depth: bits, 8 to 16. gray: no planes of colour. shift: by how many bits their columns and rows
    are fewer. full: values fill the depth, else 16 … 235 or 240 of 255. matrix: in ``MATRICES``.
    """

    width: int
    height: int
    depth: int = 8
    gray: bool = False
    shift: tuple[int, int] = (1, 1)
    full: bool = False
    matrix: int = 1

    @property
    def dtype(self) -> type:
        """Of samples and pixels: uint8, or uint16 above 8 bits."""
        return np.uint8 if self.depth == 8 else np.uint16

    def numbers(self) -> np.ndarray:
        """For the kernels, float32: offset and span of luma, then of colour; weights of R, G, B in
        luma; what of V goes into R, of U and V into G, of U into B; the pixels' top.
        """
        unit, top = 2.0 ** (self.depth - 8), 2.0**self.depth - 1
        spans = (0.0, top, 128 * unit, top)
        spans = spans if self.full else (16 * unit, 219 * unit, 128 * unit, 224 * unit)
        red, blue = MATRICES[6 if self.gray else self.matrix]  # grey is BT.601 luma, as elsewhere
        green, into_red, into_blue = 1 - red - blue, 2 * (1 - red), 2 * (1 - blue)
        mixes = (into_red, -blue * into_blue / green, -red * into_red / green, into_blue)
        return np.array([*spans, red, green, blue, *mixes, np.iinfo(self.dtype).max], np.float32)


def to_pixels(planes: Sequence[np.ndarray], form: Form) -> np.ndarray:
    """Planes of a frame, lines as long as they are or longer → (H, W, 3), rounded and clipped."""
    pixels = np.empty((form.height, form.width * 3), form.dtype)
    y, u, v = [*planes, *planes, *planes][:3]  # of grey, no colour is read
    _to_pixels(y, u, v, form.width, *form.shift, form.gray, form.numbers(), pixels)
    return pixels.reshape(form.height, form.width, 3)


def from_pixels(pixels: np.ndarray, planes: Sequence[np.ndarray], form: Form) -> None:
    """(H, W, 3) into planes; colour is the mean of the pixels that share it."""
    lines = np.ascontiguousarray(pixels).reshape(form.height, -1)
    y, u, v = [*planes, *planes, *planes][:3]  # of grey, no colour is written
    _from_pixels(lines, y, u, v, form.width, *form.shift, form.gray, form.numbers())


if numba:
    from zdce.engine.vectors import machine_code

    _f = np.float32

    @machine_code
    def _spread(u, v, n, red, green, blue):
        """What a row of colour adds to luma, rounding included."""
        middle, scale, half = n[2], n[11] / n[3], _f(0.5)
        for x in range(red.shape[0]):
            p, q = (_f(u[x]) - middle) * scale, (_f(v[x]) - middle) * scale
            red[x] = n[7] * q + half
            green[x] = n[8] * p + n[9] * q + half
            blue[x] = n[10] * p + half

    @machine_code
    def _put(out, at, luma, red, green, blue, top):
        out[at] = np.int32(min(max(luma + red, _f(0)), top))
        out[at + 1] = np.int32(min(max(luma + green, _f(0)), top))
        out[at + 2] = np.int32(min(max(luma + blue, _f(0)), top))

    @machine_code
    def _joined(y, red, green, blue, across, n, out):
        """A row of luma and what colour adds to it: pixels (3·width)."""
        low, scale, top = n[0], n[11] / n[1], n[11]
        paired = y.shape[0] & ~1 if across == 1 else 0
        for k in range(paired >> 1):  # for vectors: a pair shares its colour
            a, b = (_f(y[2 * k]) - low) * scale, (_f(y[2 * k + 1]) - low) * scale
            _put(out, 6 * k, a, red[k], green[k], blue[k], top)
            _put(out, 6 * k + 3, b, red[k], green[k], blue[k], top)
        for x in range(paired, y.shape[0]):
            k = x >> across
            _put(out, 3 * x, (_f(y[x]) - low) * scale, red[k], green[k], blue[k], top)

    @machine_code
    def _to_pixels(y, u, v, width, across, down, gray, n, out):
        colors = (width + (1 << across) - 1) >> across
        adds = np.full((3, colors), _f(0.5), np.float32)
        for r in range(out.shape[0]):
            if not gray and r & ((1 << down) - 1) == 0:
                _spread(u[r >> down], v[r >> down], n, adds[0], adds[1], adds[2])
            _joined(y[r, :width], adds[0], adds[1], adds[2], across, n, out[r])

    @machine_code
    def _luma(line, n, y, blues, reds):
        """A row of pixels → luma, and what blue and red have more than it, added up over rows."""
        low, span = n[0] + _f(0.5), n[1] / n[11]
        for x in range(y.shape[0]):
            red, green, blue = _f(line[3 * x]), _f(line[3 * x + 1]), _f(line[3 * x + 2])
            luma = n[4] * red + n[5] * green + n[6] * blue
            y[x] = np.int32(luma * span + low)
            blues[x] += blue - luma
            reds[x] += red - luma

    @machine_code
    def _mean(sums, across, scale, middle, top, out):
        """A row of colour from what was added up; scale: of a mean over one pixel."""
        width = sums.shape[0]
        pairs = width >> 1 if across == 1 else 0
        for x in range(pairs):
            value = (sums[2 * x] + sums[2 * x + 1]) * (scale * _f(0.5)) + middle
            out[x] = np.int32(min(value, top))
        for x in range(pairs, (width + (1 << across) - 1) >> across):
            start, stop, total = x << across, min((x + 1) << across, width), _f(0)
            for i in range(start, stop):
                total += sums[i]
            out[x] = np.int32(min(total * scale / _f(stop - start) + middle, top))

    @machine_code
    def _from_pixels(pixels, y, u, v, width, across, down, gray, n):
        blues, reds = np.zeros(width, np.float32), np.zeros(width, np.float32)
        middle, top = n[2] + _f(0.5), _f(2) * n[2] - _f(1)
        for r in range(pixels.shape[0]):
            _luma(pixels[r], n, y[r, :width], blues, reds)
            row = r & ((1 << down) - 1)
            if row == (1 << down) - 1 or r == pixels.shape[0] - 1:
                scale = n[3] / n[11] / _f(row + 1)
                if not gray:
                    _mean(blues, across, scale / n[10], middle, top, u[r >> down])
                    _mean(reds, across, scale / n[7], middle, top, v[r >> down])
                blues[:], reds[:] = 0, 0
