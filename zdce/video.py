"""Video in, brighter video out: sound, times and colour tags kept, curves steadied so that brightness does not flicker.

Frames stay in the form that codecs use (a plane of luma, two of colour differences, 8 to 16 bits): one pass turns a
row into R'G'B', bends it and turns it back, so nothing is converted or rounded on the way. Needs PyAV and numba (extra
``video``). Source: ours; conversions by ITU-R BT.601, BT.709 and BT.2020.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from zdce.engine import Curves, tiling
from zdce.engine import compiled as fast
from zdce.engine.reference import factor_for, reduces
from zdce.files import opened
from zdce.photos import Photo, PhotoError

try:
    import numba
except ImportError:  # the extra "video" is not installed
    numba = None

if TYPE_CHECKING:
    from zdce.enhance import Enhancer

# suffix → the container that is written
SUFFIXES = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".3gp": "3gp",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "avi",
    ".ts": "mpegts",
    ".mts": "mpegts",
    ".m2ts": "mpegts",
}
# Only these are read: a file may call itself a play list and name others, on other machines even.
READABLE = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg"
# codec → encoder and its settings; quick presets at a quality that hides the second encoding: H.264 at
# 1080p leaves two cores time to spare in real time. Other codecs become H.264.
ENCODERS = {
    "h264": ("libx264", {"preset": "veryfast", "crf": "20"}),
    "hevc": ("libx265", {"preset": "superfast", "crf": "21", "x265-params": "log-level=error"}),
    "av1": ("libsvtav1", {"preset": "10", "crf": "28"}),
    "vp9": (
        "libvpx-vp9",
        {"deadline": "realtime", "cpu-used": "7", "row-mt": "1", "crf": "26", "b": "0"},
    ),
    "vp8": ("libvpx", {"deadline": "realtime", "cpu-used": "7", "crf": "10", "b": "8M"}),
    "mpeg4": ("mpeg4", {"qmin": "2", "qmax": "3"}),
    "mjpeg": ("mjpeg", {"qmin": "2", "qmax": "3"}),
    "prores": ("prores_ks", {}),
    "ffv1": ("ffv1", {}),
}
STEADY = 0.5  # seconds, time constant of :class:`Steady`; ours
CUT = 0.5  # change of the reduced picture, see :func:`change`, from which on a frame begins a new scene; ours
MOVED = 0.2  # relative change of the reduced picture at which curves follow at once; ours
FACTORS = (0.8, 1.25)  # of curves, within which brightness is held; ours
MISSING = 0.05  # of a video's stated length (and a second) that may be missing at its end before it is refused
MAX_PIXELS = 2**26  # of a frame: more than 8K, less than what a file of a few bytes may claim
AHEAD = 4  # frames that a stage may be ahead of the next
SAMPLES = 384  # of a row at a time, so that what belongs to them stays in the nearest memory
TONES = 4096  # steps of the gamma curve: finer than any plane that is read by a factor of four, or as fine (12 bits)
INSTALL = 'video files need PyAV and numba: pip install "zdce[video]"'

# Matrices by their number in the files (ITU-T H.273): weights of red and blue in luma.
MATRICES = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
}
MATRICES |= {9: (0.2627, 0.0593)}
UNSAID, FULL_RANGE = (
    2,
    2,
)  # a matrix, primaries or transfer that the file does not state; a range of 0 … top
HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics that the networks have never seen
INTERLACED_ORDERS = (2, 3, 4, 5)  # libavcodec's AVFieldOrder

Item = TypeVar("Item")


class VideoError(PhotoError):
    """A video that cannot be read or written: one line with the file's name and the reason."""


@dataclass(frozen=True)
class Enhanced:
    """What :func:`enhance_video` did. frames: how many. cuts: seconds at which a new scene was taken to begin.
    left_out: streams that the container does not hold or that are no sound, subtitle, picture or attachment."""

    frames: int
    cuts: tuple[float, ...] = ()
    left_out: tuple[str, ...] = ()


# --- pictures as codecs have them -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """How a video's pictures are stored. shift: by how many bits columns and rows of the colour planes are fewer;
    gray: there are none. depth: bits. full: values fill the depth, else luma 16 … 235 and colour 16 … 240 of 255."""

    width: int
    height: int
    depth: int
    gray: bool
    shift: tuple[int, int]
    full: bool
    red: float  # weight in luma
    blue: float

    @property
    def dtype(self) -> type:
        """Of a sample in memory."""
        return np.uint8 if self.depth == 8 else np.uint16

    def numbers(self) -> np.ndarray:
        """What the kernels need, float32: offset and span of luma, offset and span of colour, weights of red, green,
        blue in luma, and what of V goes into red, of U and V into green, of U into blue."""
        unit = 2.0 ** (self.depth - 8)
        top = 2.0**self.depth - 1
        luma = (0.0, top) if self.full else (16 * unit, 219 * unit)
        color = (128 * unit, top) if self.full else (128 * unit, 224 * unit)
        red, blue = (
            (0.299, 0.114) if self.gray else (self.red, self.blue)
        )  # grey is BT.601 luma, as of photographs
        green = 1 - red - blue
        into_red, into_blue = 2 * (1 - red), 2 * (1 - blue)
        mixes = (into_red, -blue * into_blue / green, -red * into_red / green, into_blue)
        return np.array([*luma, *color, red, green, blue, *mixes], np.float32)


def _form(frame: Any, transfer: int) -> Form:
    """How a decoded frame is stored; VideoError for what is not read. transfer: the stream's, if a frame has none."""
    name, parts = frame.format.name, frame.format.components
    depth = parts[0].bits
    planar = (
        name.startswith(("yuv4", "yuvj4", "gray"))
        and len(parts) in (1, 3)
        and not name.endswith("be")
    )
    if not planar or not 8 <= depth <= 16:
        raise VideoError(
            f"pictures stored as {name}, which is not read: convert it to yuv420p first"
        )
    transfer = frame.color_trc if frame.color_trc not in (0, UNSAID) else transfer
    if transfer in HDR:
        raise VideoError(
            f"high dynamic range ({HDR[transfer]}), which is not read: convert it to BT.709 first"
        )
    if frame.interlaced_frame:
        raise VideoError("interlaced pictures, which are not read: deinterlace it first")
    matrix = frame.colorspace
    if matrix == UNSAID:  # as players have it
        matrix = 1 if frame.height >= 720 else 6
    if matrix not in MATRICES and len(parts) == 3:
        raise VideoError(f"colour matrix {matrix}, which is not read: convert it to BT.709 first")
    shift = (0, 0)
    if len(parts) == 3:
        sides = frame.format.chroma_width(4096), frame.format.chroma_height(4096)
        shift = tuple(round(math.log2(4096 / side)) for side in sides)
    full = name.startswith("yuvj") or frame.color_range == FULL_RANGE
    full |= (
        len(parts) == 1 and frame.color_range == 0
    )  # grey without a word on its range, as FFmpeg has it
    weights = MATRICES.get(matrix, MATRICES[6])
    return Form(frame.width, frame.height, depth, len(parts) == 1, shift, full, *weights)


def planes(frame: Any, form: Form) -> list[np.ndarray]:
    """The frame's planes, whole lines with what pads them, sharing its memory: luma, and two of colour."""
    found = []
    for plane in frame.planes[: 1 if form.gray else 3]:
        samples = np.frombuffer(plane, form.dtype)
        found.append(samples.reshape(-1, plane.line_size // samples.itemsize))
    return found if not form.gray else [found[0], *[np.zeros((0, 0), form.dtype)] * 2]


def bend(
    source: Sequence[np.ndarray],
    target: Sequence[np.ndarray],
    form: Form,
    grid: Curves,
    tones: np.ndarray | None = None,
    strength: float = 1.0,
) -> None:
    """Bend a picture by the grid's curves, from planes into planes (:func:`planes`) of the same form.

    A row is turned into R'G'B' with each colour sample repeated over the pixels that share it, clipped to [0, 1],
    bent, put through ``tones`` (:func:`tone_curve`), mixed with the original by ``strength``, and turned back with
    colour averaged over those pixels. Without curves this returns what came in, colours outside R'G'B' apart.
    """
    rows, columns = grid.places(form.height, 0), grid.places(form.width, 1)
    plain = np.empty(0, np.float32)

    def share(part: range) -> None:
        _bend(
            *source, *target, form.width, form.height, *form.shift, form.gray, form.numbers(),
            grid.values, grid.repeated, grid.highlight_protection, *rows, *columns,
            plain if tones is None else tones, np.float32(strength), part.start, part.stop,
        )  # fmt: skip

    tiling.parallel(share, fast.shares(_lines(form)))


def reduced(source: Sequence[np.ndarray], form: Form, factor: int) -> np.ndarray:
    """Box mean over blocks of factor × factor pixels, those at the border cut short: (h, w, 3) float32 in [0, 1].

    Luma and colours are averaged as they are stored, and the means turned into R'G'B'.
    """
    out = np.empty((math.ceil(form.height / factor), math.ceil(form.width / factor), 3), np.float32)

    def share(part: range) -> None:
        _reduce(
            *source, out, factor, form.width, form.height, *form.shift, form.gray, form.numbers(),
            part.start, part.stop,
        )  # fmt: skip

    tiling.parallel(share, fast.shares(len(out)))
    return out


def to_pixels(source: Sequence[np.ndarray], form: Form) -> np.ndarray:
    """R'G'B' of a picture: (H, W, 3) uint8, or uint16 filling 16 bits where it has more than 8."""
    dtype = np.dtype(form.dtype)
    return np.rint(reduced(source, form, 1) * np.iinfo(dtype).max).astype(dtype)


def from_pixels(pixels: np.ndarray, target: Sequence[np.ndarray], form: Form) -> None:
    """R'G'B' (H, W, 3) uint8 or uint16 into planes; colour is averaged over the pixels that share it."""
    top = np.float32(np.iinfo(pixels.dtype).max)
    count = _lines(form)
    _store(
        np.ascontiguousarray(pixels), top, *target, *form.shift, form.gray, form.numbers(), 0, count
    )


def _lines(form: Form) -> int:
    """Rows of the colour planes."""
    return (form.height + (1 << form.shift[1]) - 1) >> form.shift[1]


def tone_curve(gamma: float) -> np.ndarray | None:
    """v^gamma at 4,096 values of v in [0, 1], float32; None where gamma is 1."""
    return None if gamma == 1 else (np.linspace(0, 1, TONES) ** gamma).astype(np.float32)


if numba:
    _machine_code = numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
    _f = np.float32

    @_machine_code
    def _stretch(points, before, share, out):
        """A row of the grid (w, iterations, 3) for every pixel of a row: (3·iterations, width), a colour at a time."""
        iterations = points.shape[1]
        for k in range(iterations):
            for c in range(3):
                line = out[c * iterations + k]
                for x in range(before.shape[0]):
                    left = before[x]
                    right = min(left + 1, points.shape[0] - 1)
                    a = points[left, k, c]
                    line[x] = a + share[x] * (points[right, k, c] - a)

    @_machine_code
    def _spread(u, v, red, green, blue, shift, n):
        """What a row of colour planes adds to luma: to red, green and blue of every pixel."""
        middle, scale = n[2], _f(1) / n[3]
        for x in range(red.shape[0]):
            p = (_f(u[x >> shift]) - middle) * scale
            q = (_f(v[x >> shift]) - middle) * scale
            red[x] = n[7] * q
            green[x] = n[8] * p + n[9] * q
            blue[x] = n[10] * p

    @_machine_code
    def _bent_eight(y, add, above, below, share, low, scale, out):
        for i in range(y.shape[0]):
            x = (_f(y[i]) - low) * scale + add[i]
            x = x if x > _f(0) else _f(0)
            x = x if x < _f(1) else _f(1)
            for k in range(8):
                a = above[k, i]
                x += (a + share * (below[k, i] - a)) * (x * x - x)
            out[i] = x

    @_machine_code
    def _bent_same(y, add, above, below, share, low, scale, repeated, out):
        """One curve, applied ``repeated`` times."""
        if repeated == 8:
            for i in range(y.shape[0]):
                x = (_f(y[i]) - low) * scale + add[i]
                x = x if x > _f(0) else _f(0)
                x = x if x < _f(1) else _f(1)
                a = above[i] + share * (below[i] - above[i])
                for _ in range(8):
                    x += a * (x * x - x)
                out[i] = x
        else:
            for i in range(y.shape[0]):
                x = (_f(y[i]) - low) * scale + add[i]
                x = x if x > _f(0) else _f(0)
                x = x if x < _f(1) else _f(1)
                a = above[i] + share * (below[i] - above[i])
                for _ in range(repeated):
                    x += a * (x * x - x)
                out[i] = x

    @_machine_code
    def _bent_any(y, add, above, below, share, low, scale, out):
        for i in range(y.shape[0]):
            x = (_f(y[i]) - low) * scale + add[i]
            x = x if x > _f(0) else _f(0)
            x = x if x < _f(1) else _f(1)
            for k in range(above.shape[0]):
                a = above[k, i]
                x += (a + share * (below[k, i] - a)) * (x * x - x)
            out[i] = x

    @_machine_code
    def _weights(y, red, green, blue, low, scale, out):
        """1 − m³ of every pixel's largest colour."""
        for i in range(y.shape[0]):
            m = (_f(y[i]) - low) * scale + max(max(red[i], green[i]), blue[i])
            m = m if m > _f(0) else _f(0)
            m = m if m < _f(1) else _f(1)
            out[i] = _f(1) - m * m * m

    @_machine_code
    def _clipped(y, add, low, scale, out):
        for i in range(y.shape[0]):
            x = (_f(y[i]) - low) * scale + add[i]
            x = x if x > _f(0) else _f(0)
            out[i] = x if x < _f(1) else _f(1)

    @_machine_code
    def _step(above, below, share, weights, out):
        """One iteration, by curves times ``weights``."""
        for i in range(above.shape[0]):
            a, x = above[i], out[i]
            out[i] = x + weights[i] * (a + share * (below[i] - a)) * (x * x - x)

    @_machine_code
    def _toned(values, count, table):
        for i in range(count):
            values[i] = table[np.uint32(values[i] * _f(4095) + _f(0.5))]

    @_machine_code
    def _mixed(y, add, strength, low, scale, out):
        for i in range(y.shape[0]):
            x = (_f(y[i]) - low) * scale + add[i]
            x = x if x > _f(0) else _f(0)
            x = x if x < _f(1) else _f(1)
            out[i] = x + strength * (out[i] - x)

    @_machine_code
    def _luma(red, green, blue, out, blues, reds, n):
        """A row back as luma; what blue and red have more than luma is added to what colours are made of."""
        low, span = n[0] + _f(0.5), n[1]
        for i in range(out.shape[0]):
            luma = n[4] * red[i] + n[5] * green[i] + n[6] * blue[i]
            out[i] = np.int32(luma * span + low)
            blues[i] += blue[i] - luma
            reds[i] += red[i] - luma

    @_machine_code
    def _color(sums, out, shift, scale, middle):
        """A row of a colour plane from sums over the rows that share it; scale: of a mean over one pixel."""
        width = sums.shape[0]
        if shift == 1 and width % 2 == 0:
            for x in range(width >> 1):
                out[x] = np.int32((sums[2 * x] + sums[2 * x + 1]) * (scale * _f(0.5)) + middle)
            return
        for x in range((width + (1 << shift) - 1) >> shift):
            start, stop = x << shift, min((x + 1) << shift, width)
            total = _f(0)
            for i in range(start, stop):
                total += sums[i]
            out[x] = np.int32(total * scale / _f(stop - start) + middle)

    @_machine_code
    def _bend(
        y, u, v, to_y, to_u, to_v, width, height, across, down, gray, n, curves,
        repeated, spared, row, row_share, column, column_share, tones, strength, first, last,
    ):  # fmt: skip
        iterations = curves.shape[2]
        low, scale = n[0], _f(1) / n[1]
        above = np.empty((3 * iterations, width), np.float32)
        below = np.empty((3 * iterations, width), np.float32)
        adds = np.zeros((3, width), np.float32)
        rgb = np.empty((3, SAMPLES), np.float32)
        weights = np.empty(SAMPLES, np.float32)
        blues, reds = np.empty(width, np.float32), np.empty(width, np.float32)
        held, point = -1, -1
        for line in range(first, last):
            blues[:] = 0
            reds[:] = 0
            if not gray:
                _spread(u[line], v[line], adds[0], adds[1], adds[2], across, n)
            start, stop = line << down, min((line + 1) << down, height)
            for r in range(start, stop):
                if row[r] != point:
                    point = row[r]
                    if held == point:
                        above, below = below, above
                    else:
                        _stretch(curves[point], column, column_share, above)
                    held = min(point + 1, curves.shape[0] - 1)
                    _stretch(curves[held], column, column_share, below)
                for a in range(0, width, SAMPLES):
                    b = min(a + SAMPLES, width)
                    if spared:
                        _weights(
                            y[r, a:b], adds[0, a:b], adds[1, a:b], adds[2, a:b], low, scale, weights
                        )
                    for c in range(3):
                        one, other = (
                            above[c * iterations : (c + 1) * iterations, a:b],
                            below[c * iterations : (c + 1) * iterations, a:b],
                        )
                        if spared:
                            _clipped(y[r, a:b], adds[c, a:b], low, scale, rgb[c])
                            for k in range(c * iterations, (c + 1) * iterations):
                                _step(above[k, a:b], below[k, a:b], row_share[r], weights, rgb[c])
                        elif (
                            iterations == 1
                        ):  # slices of the whole: of a slice, no code for vectors is made
                            _bent_same(
                                y[r, a:b], adds[c, a:b], above[c, a:b], below[c, a:b], row_share[r], low, scale,
                                repeated, rgb[c],
                            )  # fmt: skip
                        elif iterations == 8:
                            _bent_eight(
                                y[r, a:b],
                                adds[c, a:b],
                                one,
                                other,
                                row_share[r],
                                low,
                                scale,
                                rgb[c],
                            )
                        else:
                            _bent_any(
                                y[r, a:b],
                                adds[c, a:b],
                                one,
                                other,
                                row_share[r],
                                low,
                                scale,
                                rgb[c],
                            )
                        if tones.shape[0]:
                            _toned(rgb[c], b - a, tones)
                        if strength != 1:
                            _mixed(y[r, a:b], adds[c, a:b], strength, low, scale, rgb[c])
                    _luma(rgb[0], rgb[1], rgb[2], to_y[r, a:b], blues[a:b], reds[a:b], n)
            if not gray:
                lines = _f(stop - start)
                _color(blues, to_u[line], across, n[3] / n[10] / lines, n[2] + _f(0.5))
                _color(reds, to_v[line], across, n[3] / n[7] / lines, n[2] + _f(0.5))

    @_machine_code
    def _brighten(small, curves, repeated, spared, factor, out):
        for y in range(out.shape[0]):
            for x in range(out.shape[1]):
                total, strength = _f(0), factor
                if spared:
                    m = max(max(small[y, x, 0], small[y, x, 1]), small[y, x, 2])
                    strength = factor * (_f(1) - m * m * m)
                for c in range(3):
                    value = small[y, x, c]
                    for _ in range(repeated):
                        for k in range(curves.shape[2]):
                            value += strength * curves[y, x, k, c] * (value * value - value)
                    total += value
                out[y, x] = total / _f(3)

    @_machine_code
    def _store(pixels, top, to_y, to_u, to_v, across, down, gray, n, first, last):
        height, width = pixels.shape[:2]
        rgb = np.empty((3, width), np.float32)
        blues, reds = np.empty(width, np.float32), np.empty(width, np.float32)
        for line in range(first, last):
            blues[:] = 0
            reds[:] = 0
            start, stop = line << down, min((line + 1) << down, height)
            for r in range(start, stop):
                for x in range(width):
                    for c in range(3):
                        rgb[c, x] = _f(pixels[r, x, c]) / top
                _luma(rgb[0], rgb[1], rgb[2], to_y[r, 0:width], blues, reds, n)
            if not gray:
                lines = _f(stop - start)
                _color(blues, to_u[line], across, n[3] / n[10] / lines, n[2] + _f(0.5))
                _color(reds, to_v[line], across, n[3] / n[7] / lines, n[2] + _f(0.5))

    @_machine_code
    def _reduce(y, u, v, out, factor, width, height, across, down, gray, n, first, last):
        colors = (width + (1 << across) - 1) >> across
        luma = np.empty(width, np.uint32)
        blue, red = np.empty(colors, np.uint32), np.empty(colors, np.uint32)
        for line in range(first, last):
            luma[:] = 0
            blue[:] = 0
            red[:] = 0
            start, stop = line * factor, min((line + 1) * factor, height)
            for r in range(start, stop):
                row = y[r]
                for x in range(width):
                    luma[x] += row[x]
                if not gray:
                    of_u, of_v = u[r >> down], v[r >> down]
                    for x in range(colors):
                        blue[x] += of_u[x]
                        red[x] += of_v[x]
            for column in range(out.shape[1]):
                left, right = column * factor, min((column + 1) * factor, width)
                a, p, q = np.uint64(0), np.uint64(0), np.uint64(0)
                for x in range(left, right):
                    a += luma[x]
                    if not gray:
                        p += blue[x >> across]
                        q += red[x >> across]
                share = 1.0 / ((right - left) * (stop - start))
                value = (a * share - n[0]) / n[1]
                b, c = (
                    (0.0, 0.0) if gray else ((p * share - n[2]) / n[3], (q * share - n[2]) / n[3])
                )
                out[line, column, 0] = min(max(value + n[7] * c, 0.0), 1.0)
                out[line, column, 1] = min(max(value + n[8] * b + n[9] * c, 0.0), 1.0)
                out[line, column, 2] = min(max(value + n[10] * b, 0.0), 1.0)


# --- curves over time -----------------------------------------------------------------------------------------------


def change(before: np.ndarray, after: np.ndarray) -> float:
    """How much two reduced pictures (h, w, 3) in [0, 1] differ: their mean absolute difference over the mean of both.

    0 for equal ones, 2 at most. Relative, since dark scenes differ little in grey levels.
    """
    mean = (float(before.mean(dtype=np.float64)) + float(after.mean(dtype=np.float64))) / 2
    return float(np.abs(after - before).mean(dtype=np.float64)) / max(mean, 1 / 255)


class Steady:
    """Curves steadied over time, so that neither they nor the camera's exposure make brightness flicker.

    Three rules, each on the reduced picture and its curves, with a time constant of ``seconds``:

    - Curves are their exponential mean: a frame dt seconds after the last one moves it by 1 − exp(−dt/seconds) of the
      way to its own curves. Where the picture itself changed against its own mean by a share of :data:`MOVED`, they
      move all the way, and by the square of the share below that, so that what moves draws no trail behind it.
    - All curves are multiplied by one factor, in :data:`FACTORS`, that holds brightness at its own exponential mean.
      Brightness is followed through the median over the picture of its change in logarithm from frame to frame under
      the same curves, on which something that moves has no say. Without this a mean of curves flickers more than no
      mean where exposure is unsteady: a frame's own curves make up for a part of its exposure.
    - A frame whose reduced picture differs from the last one's by more than :data:`CUT` (see :func:`change`) begins a
      new scene, and everything starts again from it.

    ``seconds`` of 0 leaves every frame its own curves. Raises ValueError for less. Source: ours.
    """

    def __init__(self, seconds: float = STEADY) -> None:
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"seconds={seconds}: the time constant must be 0 (off) or more")
        self.seconds = seconds
        self._seen: np.ndarray | None = None  # the last reduced picture
        self._slow: np.ndarray | None = None  # the mean of reduced pictures
        self._curves: np.ndarray | None = None  # the mean of curves
        self._above = 0.0  # logarithm of brightness, above its mean

    def __call__(self, grid: Curves, small: np.ndarray, passed: float) -> tuple[Curves, bool]:
        """The steadied grid, and whether a new scene begins. small: the reduced picture, (h, w, 3) float32 in [0, 1];
        passed: seconds since the frame before."""
        seen, last = _at_points(small, grid.values.shape[:2]), self._seen
        self._seen = seen
        cut = last is not None and change(last, seen) > CUT
        if not self.seconds:
            return grid, cut
        if last is None or cut:
            self._slow, self._curves, self._above = seen, grid.values, 0.0
            return grid, cut
        least = -math.expm1(-max(0.0, passed) / self.seconds)
        moved = np.abs(seen - self._slow).sum(axis=2) / np.maximum(
            (seen + self._slow).sum(axis=2) / 2, 3 / 255
        )
        weight = np.clip((moved / MOVED) ** 2, least, 1)[..., None].astype(np.float32)
        self._slow = self._slow + weight * (seen - self._slow)
        self._curves = self._curves + weight[..., None] * (grid.values - self._curves)
        now = _brightness(seen, grid, self._curves)
        self._above = (1 - least) * (
            self._above + float(np.median(now - _brightness(last, grid, self._curves)))
        )
        step = 0.02
        gained = float(np.median(_brightness(seen, grid, self._curves, 1 + step) - now)) / step
        factor = np.clip(1 - self._above / gained, *FACTORS) if gained > 1e-3 else 1.0
        return replace(grid, values=(self._curves * np.float32(factor)).clip(-1, 1)), cut


def _at_points(small: np.ndarray, points: tuple[int, int]) -> np.ndarray:
    """A reduced picture (h, w, 3) with as many pixels as a grid has points, by box means."""
    if small.shape[:2] == points:
        return small
    image = torch.from_numpy(small).permute(2, 0, 1)[None]
    return torch.nn.functional.adaptive_avg_pool2d(image, points)[0].permute(1, 2, 0).numpy()


def _brightness(
    small: np.ndarray, grid: Curves, curves: np.ndarray, factor: float = 1.0
) -> np.ndarray:
    """Logarithm of the mean over colours of a reduced picture (h, w, 3), bent by ``factor`` · curves as the grid's own
    would be: (h, w)."""
    out = np.empty(small.shape[:2], np.float32)
    _brighten(
        np.ascontiguousarray(small),
        curves,
        grid.repeated,
        grid.highlight_protection,
        np.float32(factor),
        out,
    )
    return np.log(np.maximum(out, np.float32(1 / 255)))


def flicker(brightness: Sequence[float]) -> float:
    """Flicker of what does not move: mean |m(t) − m(t−1)| over the mean of m, in per cent.

    brightness: m, the mean luma of the same static pixels in each frame (:func:`brightness_of`), one scene.
    Relative, because brightening multiplies every difference: an enhancement that only lifts a scene's brightness by a
    factor leaves this figure as it was. 0 is perfectly steady.
    """
    means = np.asarray(brightness, np.float64)
    if means.ndim != 1 or len(means) < 2 or not means.mean() > 0:
        raise ValueError(
            f"brightness has shape {means.shape}: give the means of two frames or more, above 0"
        )
    return float(100 * np.abs(np.diff(means)).mean() / means.mean())


def brightness_of(
    path: str | os.PathLike, still: np.ndarray | None = None, first: int = 0
) -> np.ndarray:
    """Mean luma of every frame from number ``first`` on, in [0, 1]; of the pixels in ``still`` (H, W) bool, or all."""
    means = []
    with _opened(Path(path)) as video:
        stream = _picture_stream(video)
        for number, frame in enumerate(video.decode(stream)):
            if number < first:
                continue
            form = _form(frame, 0)
            luma = planes(frame, form)[0][: form.height, : form.width]
            mean = (
                luma.mean(dtype=np.float64) if still is None else luma[still].mean(dtype=np.float64)
            )
            low, span = form.numbers()[:2]
            means.append((mean - low) / span)
    return np.array(means)


# --- files ----------------------------------------------------------------------------------------------------------


def is_video(path: str | os.PathLike) -> bool:
    """Whether a file's name says that it is a video."""
    return Path(path).suffix.lower() in SUFFIXES


def enhance_video(
    source: str | os.PathLike,
    target: str | os.PathLike,
    enhancer: Enhancer,
    *,
    steady: float = STEADY,
    progress: bool = False,
) -> Enhanced:
    """Enhance a video file, frame by frame in their order, at their times (variable frame rates too) and size.

    An enhancer of speed "fast", and a network that reduces for itself, give curves on a coarse grid, which are steadied
    with the time constant ``steady`` in seconds (:class:`Steady`; 0 switches it off). A faithful one enhances every
    frame as a photograph, slowly and not steadied. Decoding, enhancing and encoding go on at the same time.

    Written in the container that the target's suffix says, by the source's codec where :data:`ENCODERS` has it and in
    H.264 otherwise, with the source's sampling, depth, colour tags, rotation and shape of pixels. Sound, subtitles,
    attachments and further pictures (covers) are copied without being decoded, as far as the container holds them;
    data streams (telemetry) are left out. Where a container has no times below zero, all streams may begin later by
    the same span. The file appears whole or not at all.

    Raises VideoError, one line, for what is no video, damaged or cut short, without a frame, high dynamic range,
    interlaced or stored in an unusual way (RGB, transparency), and when writing fails; ValueError for ``steady``.
    """
    source, target = Path(source), Path(target)
    curves = Steady(steady)
    if numba is None:
        raise VideoError(f"{source}: {INSTALL}")
    if target.suffix.lower() not in SUFFIXES:
        raise VideoError(f"{target}: videos are written as {', '.join(SUFFIXES)}")
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with _opened(source) as video, _told(source):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                done = _enhanced(
                    video,
                    source,
                    temporary,
                    SUFFIXES[target.suffix.lower()],
                    enhancer,
                    curves,
                    progress,
                )
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise VideoError(f"{target}: cannot be written: {error.strerror or error}") from error
    return done


def _av() -> Any:
    """PyAV; VideoError where it is not installed."""
    try:
        import av
    except ImportError:
        raise VideoError(INSTALL) from None
    logging.getLogger("libav").setLevel(
        logging.CRITICAL
    )  # damaged files are told by VideoError, in one line
    return av


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """What goes wrong inside is told as a VideoError that names the file."""
    av = _av()
    try:
        yield
    except VideoError as error:
        raise VideoError(f"{path}: {error}") from error
    except (av.FFmpegError, EOFError) as error:
        raise VideoError(f"{path}: damaged or cut short: {error.strerror or error}") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, open for demuxing; VideoError for what is no video."""
    try:
        av = _av()
        with opened(path) as file:
            empty = not file.read(1)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror or error}") from error
    except VideoError as error:
        raise VideoError(f"{path}: {error}") from error
    if empty:
        raise VideoError(f"{path}: empty")
    try:
        video = av.open(f"file:{path.absolute()}", container_options={"format_whitelist": READABLE})
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(f"{path}: no video ({', '.join(SUFFIXES)}), or damaged") from error
    with video:
        yield video


def _picture_stream(video: Any) -> Any:
    """The first stream of moving pictures; VideoError where there is none."""
    for stream in video.streams.video:
        if (
            not stream.disposition & type(stream.disposition).attached_pic
            and stream.codec_context is not None
        ):
            return stream
    raise VideoError("holds no moving pictures")


def _enhanced(
    video: Any,
    source: Path,
    temporary: Path,
    container: str,
    enhancer: Enhancer,
    curves: Steady,
    progress: bool,
) -> Enhanced:
    """The work of :func:`enhance_video` with the source open; decoding and bending in threads of their own."""
    av = _av()
    pictures = _picture_stream(video)
    context = pictures.codec_context
    context.thread_type, context.options = "AUTO", {"max_pixels": str(MAX_PIXELS)}
    if context.width * context.height > MAX_PIXELS:
        raise VideoError(
            f"frames of {context.width}×{context.height}: none above {MAX_PIXELS // 10**6} megapixels is read"
        )
    worker = _Worker(enhancer, curves, pictures.average_rate, context.color_trc)
    total = pictures.frames or None
    bar = tqdm(total=total, desc=source.name, unit="frame", disable=not progress, leave=False)
    frames = 0
    with bar, contextlib.ExitStack() as stages:
        decoded = stages.enter_context(_ahead(_decoded(video, pictures)))
        first = next(decoded)
        waiting = []  # packets of other streams before the first frame
        while not hasattr(first, "planes"):
            waiting.append(first)
            first = next(decoded)
        form = _form(first, context.color_trc)
        output = stages.enter_context(av.open(str(temporary.absolute()), "w", format=container))
        written, places, left_out = _streams(video, pictures, output, first, container)

        def write(packets: Callable[[], Iterable[Any]]) -> None:
            try:
                output.mux(packets())
            except (av.FFmpegError, ValueError) as error:
                raise VideoError(
                    f"cannot be written as {container}: {error.strerror or error}"
                ) from error

        def chained() -> Iterator[Any]:
            yield from waiting
            yield first
            yield from decoded

        for item in stages.enter_context(_ahead(worker.done(chained(), form))):
            if hasattr(item, "planes"):
                write(lambda item=item: written.encode(item))
                frames += 1
                bar.update()
            elif place := places.get(item.stream.index):
                item.stream = place
                write(lambda item=item: [item])
        write(lambda: written.encode(None))
        write(lambda: output.close() or [])
    return Enhanced(frames, tuple(worker.cuts), left_out)


def _decoded(video: Any, pictures: Any) -> Iterator[Any]:
    """Packets of streams to copy and decoded frames, as they come; VideoError for a file that is damaged."""
    frames, end = 0, 0.0
    for packet in video.demux():
        ours = packet.stream.index == pictures.index
        if packet.is_corrupt:
            raise VideoError("damaged or cut short")
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if not ours:
            if (
                packet.size or packet.dts is not None
            ):  # else it asks decoders for what they hold back
                yield packet
            continue
        for frame in pictures.decode(packet if packet.size else None):
            if frame.is_corrupt:
                raise VideoError("damaged")
            frame.time_base = pictures.time_base
            frames += 1
            yield frame
    if not frames:
        raise VideoError("holds no frame")
    stated = (video.duration or 0) / 1e6 + max(0.0, (video.start_time or 0) / 1e6)
    if end < stated - max(1.0, MISSING * stated):
        raise VideoError(f"cut short: ends after {end:.1f} s of {stated:.1f} s")


def _streams(
    video: Any, pictures: Any, output: Any, first: Any, container: str
) -> tuple[Any, dict[int, Any], tuple]:
    """Streams of the output in the source's order: the one to encode to, (source's index → output's) for those that
    are copied, and the names of those left out."""
    output.metadata.update(video.metadata)
    output.set_chapters(video.chapters())
    written, places, left_out = None, {}, []
    for stream in video.streams:
        if stream.index == pictures.index:
            written = _encoder(output, pictures, first, container)
            made = written
        else:
            made = None
            if stream.type in ("audio", "subtitle", "video", "attachment"):
                with contextlib.suppress(ValueError, _av().FFmpegError):
                    made = output.add_stream_from_template(
                        stream, opaque=stream.codec_context is not None or None
                    )
                    places[stream.index] = made
            if made is None:
                left_out.append(f"{stream.type} {stream.index}")
                continue
        made.metadata.update(stream.metadata)
        made.disposition = int(stream.disposition)
    return written, places, tuple(left_out)


def _encoder(output: Any, pictures: Any, first: Any, container: str) -> Any:
    """The output's stream of pictures, its encoder open."""
    av = _av()
    source = pictures.codec_context
    codec = source.codec.canonical_name if source.codec.canonical_name in ENCODERS else "h264"
    name, options = ENCODERS[codec]
    try:
        same = av.codec.Codec(source.codec.name, "w").name == name
    except av.codec.codec.UnknownCodecError:
        same = False
    try:
        if (
            same
        ):  # what describes the stream from outside, its rotation among it, comes with the template
            stream = output.add_stream_from_template(pictures, opaque=False)
        elif first.rotation:
            raise VideoError(
                f"turned by {first.rotation}° and in {source.codec.name}: convert it to H.264 first"
            )
        else:
            stream = output.add_stream(name, rate=pictures.average_rate)
    except ValueError as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(
            f"{codec} does not go into {container}: name a file that ends in .mkv"
        ) from error
    encoder = stream.codec_context
    encoder.extradata, encoder.bit_rate = None, 0
    encoder.width, encoder.height = first.width, first.height
    encoder.pix_fmt = first.format.name
    encoder.time_base = pictures.time_base
    if pictures.average_rate:
        encoder.framerate = pictures.average_rate
    if source.sample_aspect_ratio:
        encoder.sample_aspect_ratio = source.sample_aspect_ratio
    for tag in ("color_range", "color_primaries", "color_trc", "colorspace"):
        setattr(encoder, tag, getattr(source, tag))
    if output.format.flags & av.format.Flags.global_header.value:
        encoder.flags |= av.codec.context.Flags.global_header.value
    if codec == "hevc" and container in ("mp4", "mov"):
        encoder.codec_tag = "hvc1"  # Apple's players know no other
    if container == "avi":
        options = {**options, "bf": "0"}  # no room for two times a frame
    encoder.options = dict(options)
    encoder.thread_type, encoder.thread_count = "FRAME" if codec in ("h264", "ffv1") else "AUTO", 0
    try:
        encoder.open()
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(
            f"{name} does not take {first.format.name} of {first.width}×{first.height}"
        ) from error
    return stream


class _Worker:
    """Turns decoded frames into enhanced ones; everything else passes through."""

    def __init__(
        self, enhancer: Enhancer, curves: Steady, rate: Fraction | None, transfer: int
    ) -> None:
        self.enhancer, self.curves, self.transfer = enhancer, curves, transfer
        self.each = float(1 / rate) if rate else 1 / 25  # seconds a frame where times are missing
        self.tones = tone_curve(enhancer.gamma)
        self.cuts: list[float] = []
        net = enhancer.net
        self.by_grid = enhancer.speed == "fast" or reduces(net)
        self.before: float | None = None

    def done(self, items: Iterable[Any], form: Form) -> Iterator[Any]:
        """Items in their order, frames enhanced. VideoError for a frame of another form than the first."""
        for item in items:
            if not hasattr(item, "planes"):
                yield item
                continue
            if (now := _form(item, self.transfer)) != form:
                raise VideoError(
                    f"changes from {_size(form)} to {_size(now)} on the way, which is not read"
                )
            yield self._frame(item, form)

    @torch.inference_mode()
    def _frame(self, frame: Any, form: Form) -> Any:
        if self.enhancer.strength == 0:
            out = frame
            out.pict_type = 0  # the encoder chooses its own key frames
            return out
        out = _like(frame)
        source, target = planes(frame, form), planes(out, form)
        if not self.by_grid:
            pixels = to_pixels(source, form)
            from_pixels(self.enhancer(Photo(pixels, gray=form.gray)).pixels, target, form)
            return out
        factor = _looked_at(self.enhancer.net, form.height, form.width)
        small = reduced(source, form, factor)
        grid = self.enhancer.engine.curves(small).arrays()
        if not grid.corners:
            grid = replace(grid, factor=factor * grid.factor)
        now = frame.time
        passed = self.each if now is None or self.before is None else now - self.before
        self.before = now
        grid, cut = self.curves(grid, small, passed)
        if cut:
            self.cuts.append(now or 0.0)
        bend(source, target, form, grid, self.tones, self.enhancer.strength)
        return out


def _looked_at(net: Any, height: int, width: int) -> int:
    """By how much a picture may be reduced before ``Engine.curves`` sees it: as much as that does by itself."""
    if not reduces(net):
        return factor_for(height, width)
    size = net.config.fixed_size
    return max(1, min(height, width) // (4 * size)) if size else 1


def _size(form: Form) -> str:
    return f"{form.width}×{form.height}, {form.depth} bits"


def _like(frame: Any) -> Any:
    """A new frame of the same form, time and tags."""
    out = _av().VideoFrame(frame.width, frame.height, frame.format.name)
    out.pts, out.time_base = frame.pts, frame.time_base
    for tag in ("duration", "colorspace", "color_range", "color_trc", "color_primaries"):
        with contextlib.suppress(AttributeError, ValueError):
            setattr(out, tag, getattr(frame, tag))
    return out


@contextlib.contextmanager
def _ahead(items: Iterable[Item], most: int = AHEAD) -> Iterator[Iterator[Item]]:
    """``items``, worked out in a thread of their own that is at most ``most`` ahead; its errors are raised here."""
    ready: queue.Queue = queue.Queue(most)
    stop = threading.Event()

    def put(entry: tuple[Item | None, BaseException | None]) -> bool:
        while not stop.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((None, StopIteration()))
        except BaseException as error:
            put((None, error))

    def taken() -> Iterator[Item]:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item

    thread = threading.Thread(target=work, name="zdce video", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        stop.set()
        thread.join()
