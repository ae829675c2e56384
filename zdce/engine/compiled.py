"""The arithmetic behind ``Enhancer``: packed networks, tiles, threads, and curves from a reduced copy.

Faithful: the network sees every pixel, tile by tile with exact overlap. Fast: it sees a reduced copy, and its curves
are brought back bilinearly and applied in one pass from 8 bits to 8 bits; with numba (extra ``fast``) that pass is
machine code, without it the same arithmetic runs in torch. Source: ours.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zdce.engine import winograd
from zdce.engine.winograd import Winograd
from zdce.model import (
    BLOCKS,
    LUMA,
    NOISE_QUANTILE,
    POINTS,
    SMOOTH_RADIUS,
    CurveNet,
    NetConfig,
    Sample,
    SciNet,
    apply_curves,
    block_places,
    smoothed,
    sparing,
)
from zdce.photos import to_tensor

try:
    import numba
except ImportError:  # the extra "fast" is not installed
    numba = None

TILE = (
    512,
    320,
)  # rows and columns that the network returns at a time; what it needs stays near the processor
SMALL_SIDE = 80  # pixels of the longer side that the fast path shows the network; ours
REDUCE_FIRST = (
    2**24
)  # pixels above which a network that reduces for itself is given a box mean, to bound memory
ALONE = (
    2**18
)  # pixels up to which one thread bends a photograph: a second one takes longer to begin
BAND = 128  # rows, at most, that are filtered and bent by one thread at a time
SAMPLES = 768  # of a row at a time, so that their curves stay in the nearest memory

Item, Result = TypeVar("Item"), TypeVar("Result")

# --- threads ------------------------------------------------------------------------------------------------------


def parallel(call: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """``call`` on every item, on as many threads as torch would use (``torch.set_num_threads``); results in order.

    Each thread computes alone: with several pieces of work that is faster than several threads on one piece, and
    where other programs keep the processor busy nobody waits for a thread that does not run.
    """
    items, count = list(items), torch.get_num_threads()
    if count == 1 or len(items) == 1:
        return [call(item) for item in items]
    return list(_pool(count, os.getpid()).map(call, items))


@functools.lru_cache
def _pool(count: int, _process: int) -> ThreadPoolExecutor:
    started = threading.Barrier(count + 1)

    def alone() -> None:
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(count, "zdce", alone)
    for _ in range(count):
        pool.submit(int)  # none is idle before all have started, so that each call starts a thread
    started.wait()
    torch.set_num_threads(count)  # what a thread sets is also the start value of threads made later
    return pool


# --- tiles --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tile:
    """A part of a photograph. rows, columns: what is to be computed; seen_rows, seen_columns: what the network needs
    for it, at least ``halo`` pixels more on each side that is no border of the photograph."""

    rows: slice
    columns: slice
    seen_rows: slice
    seen_columns: slice

    @property
    def inside(self) -> tuple[slice, slice]:
        """Where the tile lies in what is seen."""
        top, left = self.seen_rows.start, self.seen_columns.start
        return (
            slice(self.rows.start - top, self.rows.stop - top),
            slice(self.columns.start - left, self.columns.stop - left),
        )


def tiles(
    height: int, width: int, halo: int, size: tuple[int, int] | None = None
) -> Iterator[Tile]:
    """Tiles that cover height × width pixels, none larger than ``size`` (default: :data:`TILE`).

    They depend on the size alone, never on the number of threads, and the network sees every one at the same height
    and width, so that all are computed in the same way.
    """
    most = size or TILE
    across = [
        list(_spans(side, each, halo)) for side, each in zip((height, width), most, strict=True)
    ]
    for rows, seen_rows in across[0]:
        for columns, seen_columns in across[1]:
            yield Tile(rows, columns, seen_rows, seen_columns)


def _spans(side: int, most: int, halo: int) -> Iterator[tuple[slice, slice]]:
    each = math.ceil(side / math.ceil(side / most))
    seen = min(side, each + 2 * halo)
    for start in range(0, side, each):
        first = min(max(0, start - halo), side - seen)
        yield slice(start, min(start + each, side)), slice(first, first + seen)


def halo(net: nn.Module, on_grid: bool = False) -> int | None:
    """How far a pixel's result depends on its neighbours, pixels; None when on the whole photograph. on_grid: once the
    curves of a reduced copy are there."""
    if isinstance(net, SciNet):
        return 3
    if not isinstance(net, CurveNet):
        return None
    c = net.config
    filtered = 2 * SMOOTH_RADIUS if c.denoise else 0
    if on_grid:
        return filtered
    if c.pooling == "stride2" or c.statistics or reduces(net):
        return None
    return filtered + 7 + (c.pools if c.pooling == "overlapping" else 0)


def reduces(net: nn.Module) -> bool:
    """Whether the network itself estimates its curves on a reduced copy."""
    return isinstance(net, CurveNet) and (net.config.scale > 1 or net.config.fixed_size is not None)


# --- the network at full resolution -------------------------------------------------------------------------------


def has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 numbers itself; elsewhere they would cost time."""
    try:
        return torch.backends.mkldnn.is_available() and bool(
            torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )
    except (AttributeError, RuntimeError):
        return False


def can_pack(net: nn.Module) -> bool:
    """Whether :class:`Packed` knows this network, and this build of torch has what it takes."""
    ours = (
        isinstance(net, CurveNet) and not net.config.separable and net.config.pooling != "stride2"
    )
    ours = ours and not net.config.statistics and not net.config.denoise
    known = (
        hasattr(torch.ops.mkldnn, "_convolution_pointwise") and torch.backends.mkldnn.is_available()
    )
    return ours and known and net.e_conv1.weight.device.type == "cpu"


class Packed:
    """The convolutions of a :class:`~zdce.model.CurveNet`, made ready for the processor: weights in its own layout,
    channels last, ReLU within the convolution. ``dtype``: bfloat16 or float32, of weights and features; sums are
    float32 in either case. Values are those of the network, up to rounding.
    """

    def __init__(self, net: CurveNet, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.dtype = net.config, dtype
        self.layers = [self._layer(getattr(net, f"e_conv{n}")) for n in range(1, 8)]

    def _layer(self, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
        weight = conv.weight.detach().to(self.dtype).contiguous(memory_format=torch.channels_last)
        size = [1, conv.in_channels, *TILE]
        ready = torch.ops.mkldnn._reorder_convolution_weight(
            weight, [1, 1], [1, 1], [1, 1], 1, size
        )
        return ready, conv.bias.detach().to(self.dtype)

    def _conv(self, number: int, x: Tensor) -> Tensor:
        kind = "none" if number == 7 else "relu"
        weight, bias = self.layers[number - 1]
        return torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, [1, 1], [1, 1], [1, 1], 1, kind, [], ""
        )

    def raw(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) in [0, 1] → curves before tanh, (1, 24, H, W) or (1, 3, H, W), of the packed dtype."""
        x = image.to(self.dtype).contiguous(memory_format=torch.channels_last)
        pools = self.config.pools if self.config.pooling == "overlapping" else 0
        x1 = self._conv(1, x)
        x2 = self._conv(2, _pooled(x1) if pools >= 3 else x1)
        x3 = self._conv(3, _pooled(x2) if pools >= 2 else x2)
        x4 = self._conv(4, _pooled(x3) if pools >= 1 else x3)
        x5 = self._conv(5, torch.cat([x3, x4], dim=1))
        x6 = self._conv(6, torch.cat([x2, x5], dim=1))
        return self._conv(7, torch.cat([x1, x6], dim=1))


def plain(net: nn.Module) -> bool:
    """Whether a network is its convolutions and curves alone, on every pixel."""
    ours = isinstance(net, CurveNet)
    return ours and not net.config.statistics and not net.config.denoise and not reduces(net)


def ready(net: nn.Module, bf16: bool = False) -> Winograd | Packed | None:
    """The network's convolutions made ready for the processor, the fastest way that there is; None for none.

    bf16: features and weights in bfloat16, see :class:`Packed`; else float32, as machine code where numba is."""
    if not bf16 and winograd.can_run(net):
        return Winograd(net)
    return Packed(net, torch.bfloat16 if bf16 else torch.float32) if can_pack(net) else None


def _pooled(x: Tensor) -> Tensor:
    """Max-pool 3×3, stride 1, of features that are 0 or more; the framework's own finds indices too, for gradients.

    Floats from 0 on stand in the order of their bits, and integers are compared faster: none of them can be NaN.
    """
    kind = x.dtype
    x = x.view(torch.int16 if kind == torch.bfloat16 else torch.int32)
    for across in (3, 2):
        size = x.shape[across] - 1
        low, high = x.narrow(across, 0, size), x.narrow(across, 1, size)
        out = x.clone()
        for here, there in ((0, high), (1, low)):
            part = out.narrow(across, here, size)
            torch.maximum(part, there, out=part)
        x = out
    return x.view(kind)


def bent(image: Tensor, raw: Tensor, iterations: int) -> Tensor:
    """``image`` (1, 3, H, W) bent by curves before tanh; float32 whatever the dtype of ``raw``."""
    return apply_curves(image, raw.float().contiguous().tanh_(), iterations)


# --- curves of a reduced copy -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """Curves on a coarse grid. curves: (h, w, iterations, 3) float32 in [−1, 1]. noise: (h, w) float32, what
    ``model.smoothed`` is to take out before, None for nothing. corners: whether the outer points of
    the grid lie on the photograph's outer pixels (a network that reduces for itself, as its released code has it) or
    each in the middle of the block of ``factor`` × ``factor`` pixels that it was estimated from. repeated: how often
    each of the curves is applied in a row, 1 for a network's own. spared: applied with ``model.sparing``."""

    curves: np.ndarray
    factor: int
    corners: bool
    noise: np.ndarray | None = None
    repeated: int = 1
    spared: bool = False

    @property
    def iterations(self) -> int:
        """How often a curve is applied to a pixel."""
        return self.curves.shape[2] * self.repeated

    def places(self, size: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """For each of ``size`` pixels along an axis: the grid point before (int32), the share of the next (float32)."""
        points = self.curves.shape[axis]
        at = np.arange(size, dtype=np.float64)
        at = (
            at * ((points - 1) / max(1, size - 1))
            if self.corners
            else (at + 0.5) / self.factor - 0.5
        )
        at = at.clip(0, points - 1)
        before = at.astype(np.int32)
        return before, (at - before).astype(np.float32)


def factor_for(height: int, width: int, side: int = SMALL_SIDE) -> int:
    """By how much the fast path reduces a photograph: the longer side becomes ``side`` pixels or fewer."""
    return math.ceil(max(height, width) / side)


def estimated(
    net: CurveNet,
    pixels: np.ndarray,
    packed: Winograd | Packed | None = None,
    fast: bool = True,
    side: int = SMALL_SIDE,
    shared: bool = True,
) -> Grid:
    """Curves of a photograph (H, W, 3) uint8 or uint16, or float32 in [0, 1], from a reduced copy of it.

    A network that reduces for itself is given the photograph as it is, but, above :data:`REDUCE_FIRST` pixels or with
    ``fast``, a box mean of it that is still four times as wide and high as what it looks at, or more. Others are given
    a box mean whose longer side is ``side`` pixels or fewer; ``shared``: the mean of their curves takes the place of
    each, which one pass applies several times as fast.
    """
    height, width = pixels.shape[:2]
    device, c = next(net.parameters()).device, net.config
    if not reduces(net):
        factor = factor_for(height, width, side)
        small = reduced(pixels, factor)
        if isinstance(packed, Winograd):
            curves = net._estimate(small, packed.curves)
        else:
            seen = small.contiguous().to(device)
            curves = _by_halves(packed, small, halo(net)).tanh_() if packed else net._estimate(seen)
        levels = _noise(net, small.to(device), curves.to(device))
        # They follow one differential equation, x' = x² − x, for r each: their sum is what counts.
        return Grid(
            _on_grid(curves, c, shared), factor, False, levels, c.iterations if shared else 1
        )
    size = (
        (c.fixed_size,) * 2
        if c.fixed_size
        else tuple(max(1, int(side / c.scale)) for side in (height, width))
    )
    factor = min(height // (4 * size[0]), width // (4 * size[1]))
    if factor > 1 and (height * width > REDUCE_FIRST or (fast and c.fixed_size)):
        image = reduced(pixels, factor).contiguous()
        small = F.interpolate(
            image, size=size, mode="bilinear", align_corners=False, antialias=bool(c.fixed_size)
        )
    else:
        small = net._reduced(scaled(pixels).contiguous())
    small = small.to(device)
    sample = sampled(pixels, device) if net.samples else None
    if isinstance(packed, Winograd):
        curves = net._estimate(small, packed.curves, sample)
    else:
        curves = _by_tiles(net, small, sample)
    return Grid(_on_grid(curves, c), 1, True, _noise(net, small, curves, sample), spared=c.spared)


def _by_halves(packed: Packed, image: Tensor, reach: int) -> Tensor:
    """Curves before tanh as float32, the upper and the lower half of a small image each on a thread of its own.

    Threads that share one small convolution wait for each other at its end; beside other work that takes a hundred
    times as long as the convolution."""
    height, width = image.shape[-2:]

    @torch.inference_mode()
    def raw(tile: Tile) -> Tensor:
        return packed.raw(image[..., tile.seen_rows, tile.seen_columns])[
            (..., *tile.inside)
        ].float()

    return torch.cat(
        parallel(raw, tiles(height, width, reach, (math.ceil(height / 2), width))), dim=2
    )


def sampled(pixels: np.ndarray, device: torch.device) -> Sample:
    """``model.Sample`` of a photograph (H, W, 3) uint8 or uint16, or float32 in [0, 1]; no more of it is read."""
    rows, columns = (block_places(size).numpy() for size in pixels.shape[:2])
    if not numba:
        return Sample.of_blocks(scaled(pixels[rows.reshape(-1, 1), columns.reshape(-1)]).to(device))
    energy = np.empty(BLOCKS * BLOCKS, np.float32)
    top = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    _energies(pixels, rows, columns, np.array(LUMA, np.float32) * np.float32(255 / top), energy)
    noise = torch.quantile(torch.from_numpy(energy)[None], NOISE_QUANTILE, dim=1).sqrt()
    points = scaled(pixels[rows[:, POINTS].reshape(-1, 1), columns[:, POINTS].reshape(-1)])
    return Sample(points.to(device), noise.to(device))


def _by_tiles(net: CurveNet, image: Tensor, sample: Sample | None = None) -> Tensor:
    """``net._estimate(image)``, in tiles where the reduced copy of a large photograph is large itself."""
    height, width = image.shape[-2:]
    c = net.config
    if (
        height * width <= 2 * TILE[0] * TILE[1]
        or c.statistics
        or c.one_curve
        or c.level
        or c.pooling == "stride2"
    ):
        return net._estimate(image, sample=sample)
    curves = image.new_empty(1, c.curve_channels, height, width)
    reach = 7 + (c.pools if c.pooling == "overlapping" else 0)
    for tile in tiles(height, width, reach, TILE):
        part = net._estimate(image[..., tile.seen_rows, tile.seen_columns])
        curves[..., tile.rows, tile.columns] = part[(..., *tile.inside)]
    return curves


def scaled(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 or uint16, or float32 in [0, 1] → (1, 3, H, W) float32 in [0, 1], channels last; a copy."""
    if pixels.dtype == np.uint16:
        return to_tensor(pixels)
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None]
    return image.float().div_(255) if pixels.dtype == np.uint8 else image


def _on_grid(curves: Tensor, config: NetConfig, shared: bool = False) -> np.ndarray:
    """(1, 3·iterations, h, w), or one curve for all iterations or all colours → (h, w, iterations, 3), contiguous; or
    the mean of the iterations, (h, w, 1, 3), where they are to be shared."""
    curves = curves[0].permute(1, 2, 0).float().cpu()
    height, width, _ = curves.shape
    curves = curves.reshape(height, width, -1, 1 if config.grey_curves else 3)
    if shared:
        mean = sum(curves.unbind(2)) / curves.shape[2]
        return np.ascontiguousarray(mean[:, :, None].expand(height, width, 1, 3).numpy())
    return np.ascontiguousarray(curves.expand(height, width, config.iterations, 3).numpy())


def _noise(
    net: CurveNet, small: Tensor, curves: Tensor, sample: Sample | None = None
) -> np.ndarray | None:
    levels = net.noise_levels(small, curves, sample)
    return None if levels is None else np.ascontiguousarray(levels[0, 0].float().cpu().numpy())


def reduced(pixels: np.ndarray, factor: int) -> Tensor:
    """Box mean over blocks of factor × factor pixels, those at the right and lower border cut short.

    pixels: (H, W, 3) uint8 or uint16, or float32 in [0, 1]. Returns (1, 3, ⌈H/factor⌉, ⌈W/factor⌉) float32 in [0, 1].
    """
    if factor == 1 and pixels.dtype.kind == "f":
        return torch.from_numpy(pixels).permute(2, 0, 1)[None].float().clamp(0, 1)
    height, width = pixels.shape[:2]
    rows = math.ceil(height / factor)
    top = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1.0
    if numba and pixels.dtype == np.uint8 and factor < 4096:
        out = np.empty((rows, math.ceil(width / factor), 3), np.float32)
        lines = pixels.reshape(height, 3 * width)
        parallel(
            lambda part: _reduce(lines, out, factor, part.start, part.stop),
            _shares(rows, height * width),
        )
        return torch.from_numpy(out).permute(2, 0, 1)[None]

    def mean(row: int) -> Tensor:
        block = torch.from_numpy(pixels[row * factor : (row + 1) * factor].astype(np.float32)).mean(
            dim=0
        )
        return F.avg_pool1d(block.T[None], factor, ceil_mode=True, count_include_pad=False)

    return torch.stack(parallel(mean, range(rows)), dim=2).div_(top).clamp_(0, 1)


def upsampled(grid: Grid, tile: Tile, height: int, width: int) -> Tensor:
    """The grid's curves for every pixel of a tile of a photograph of height × width: (1, 3·iterations, h, w)."""
    points = _brought_back(
        torch.from_numpy(grid.curves), grid, (tile.rows, tile.columns), (height, width)
    )
    return points.flatten(2).permute(2, 0, 1)[None].contiguous()


def applied(image: Tensor, grid: Grid, tile: Tile, height: int, width: int) -> Tensor:
    """A tile (1, 3, h, w) float32 in [0, 1] of a photograph of height × width, bent by the grid's curves."""
    curves = upsampled(grid, tile, height, width)
    return apply_curves(image, curves * sparing(image) if grid.spared else curves, grid.iterations)


def denoised(image: Tensor, grid: Grid, tile: Tile, height: int, width: int) -> Tensor:
    """What the tile sees of a photograph, (1, 3, h, w) float32 in [0, 1], without the noise that the grid tells."""
    seen = (tile.seen_rows, tile.seen_columns)
    noise = _brought_back(torch.from_numpy(grid.noise), grid, seen, (height, width))
    return smoothed(image, noise[None, None], SMOOTH_RADIUS)


def _brought_back(
    points: Tensor, grid: Grid, parts: tuple[slice, slice], sizes: tuple[int, int]
) -> Tensor:
    """Values on the grid (h, w, …), bilinearly, at the pixels ``parts`` of a photograph of ``sizes``."""
    for axis, (size, part) in enumerate(zip(sizes, parts, strict=True)):
        before, share = (torch.from_numpy(each[part]) for each in grid.places(size, axis))
        after = (before + 1).clamp_(max=points.shape[axis] - 1)
        share = share.view([-1 if n == axis else 1 for n in range(points.ndim)])
        points = torch.lerp(
            points.index_select(axis, before), points.index_select(axis, after), share
        )
    return points


def bend(pixels: np.ndarray, grid: Grid, table: np.ndarray | None = None) -> np.ndarray:
    """Photograph (H, W, 3) uint8, without the noise that the grid tells, bent by the grid's curves, rounded, then
    through ``table`` (256,) uint8.

    One pass from 8 bits to 8 bits; needs numba. Rounding is the released code's: x·255 + 0.5, truncated.
    """
    height, width = pixels.shape[:2]
    out = np.empty(pixels.shape, np.uint8)
    source, target = pixels.reshape(height, 3 * width), out.reshape(height, 3 * width)
    rows, columns = grid.places(height, 0), grid.places(width, 1)
    table, plain = (table, False) if table is not None else (np.empty(0, np.uint8), True)

    curves = np.repeat(grid.curves, grid.repeated, axis=2)
    plainly = grid.noise is None and not grid.spared
    noise = np.zeros(curves.shape[:2], np.float32) if grid.noise is None else grid.noise
    alike = curves.shape[2] == 8 and bool((curves == curves[0, 0, :, :1]).all())
    centre = np.float32(0 if grid.noise is None else pixels[:: max(1, height // 64)].mean() / 255)

    def share(part: range) -> None:
        places = (*rows, *columns, table, plain, part.start, part.stop)
        if plainly:
            _bend(source, target, grid.curves, grid.repeated, *places)
        else:
            _smooth_and_bend(
                source, target, curves, noise, *places, centre, SMOOTH_RADIUS, grid.spared, alike
            )

    whole = plainly  # running sums round by where they began: that must not depend on the number of threads
    each = math.ceil(
        height / (2 * math.ceil(height / (2 * BAND)))
    )  # an even number of bands, all alike
    bands = [range(start, min(start + each, height)) for start in range(0, height, each)]
    parallel(share, _shares(height, height * width) if whole else bands)
    return out


def _shares(count: int, pixels: float = math.inf) -> Sequence[range]:
    """Rows 0 … count − 1 in as many parts as there are threads; each row's result is its own. pixels: of all rows, few
    of which are done by one thread before another has begun."""
    threads = torch.get_num_threads() if pixels > ALONE else 1
    each = math.ceil(count / min(count, threads))
    return [range(start, min(start + each, count)) for start in range(0, count, each)]


if numba:
    _machine_code = numba.njit(
        nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"}
    )

    @_machine_code
    def _reduce(source, out, factor, first, last):
        height, samples = source.shape
        width = samples // 3
        sums = np.empty(samples, np.uint32)
        for row in range(first, last):
            sums[:] = 0
            stop = min((row + 1) * factor, height)
            for y in range(row * factor, stop):
                line = source[y]
                for i in range(samples):
                    sums[i] += line[i]
            for column in range(out.shape[1]):
                left, right = column * factor, min((column + 1) * factor, width)
                red, green, blue = np.uint32(0), np.uint32(0), np.uint32(0)
                for x in range(left, right):
                    red += sums[3 * x]
                    green += sums[3 * x + 1]
                    blue += sums[3 * x + 2]
                scale = 1.0 / (255.0 * (right - left) * (stop - row * factor))
                out[row, column, 0] = red * scale
                out[row, column, 1] = green * scale
                out[row, column, 2] = blue * scale

    @_machine_code
    def _energies(pixels, rows, columns, weights, out):
        """Of each block, the mean square of its luma's diagonal second differences (``model.measured_noise``)."""
        wide = np.empty((2, columns.shape[1]), np.float32)
        for i in range(rows.shape[0]):
            for j in range(columns.shape[0]):
                total = np.float32(0)
                for k in range(0, rows.shape[1], 2):
                    for half in range(2):
                        line = pixels[rows[i, k + half]]
                        for x in range(columns.shape[1]):
                            at = columns[j, x]
                            wide[half, x] = (
                                weights[0] * line[at, 0]
                                + weights[1] * line[at, 1]
                                + weights[2] * line[at, 2]
                            )
                    for x in range(0, columns.shape[1], 2):
                        d = wide[0, x] - wide[0, x + 1] - wide[1, x] + wide[1, x + 1]
                        total += d * d
                out[i * columns.shape[0] + j] = total / np.float32(rows.shape[1] * columns.shape[1])

    @_machine_code
    def _stretch(points, before, share, out):
        """A row of the grid (w, iterations, 3) for every sample of a row of pixels: (iterations, 3·width)."""
        for k in range(out.shape[0]):
            line = out[k]
            for x in range(before.shape[0]):
                left = before[x]
                right = min(left + 1, points.shape[0] - 1)
                for c in range(3):
                    a = points[left, k, c]
                    line[3 * x + c] = a + share[x] * (points[right, k, c] - a)

    @_machine_code
    def _bend_eight(source, target, above, below, share):
        for i in range(source.shape[0]):
            x = np.float32(source[i]) * np.float32(1 / 255)
            for k in range(8):
                a = above[k, i]
                x += (a + share * (below[k, i] - a)) * (x * x - x)
            target[i] = np.uint8(np.int32(x * np.float32(255) + np.float32(0.5)))

    @_machine_code
    def _bend_shared(source, target, above, below, share):
        for i in range(source.shape[0]):
            x = np.float32(source[i]) * np.float32(1 / 255)
            a = above[i] + share * (below[i] - above[i])
            for _ in range(8):
                x += a * (x * x - x)
            target[i] = np.uint8(np.int32(x * np.float32(255) + np.float32(0.5)))

    @_machine_code
    def _bend_any(source, target, above, below, share, repeated):
        for i in range(source.shape[0]):
            x = np.float32(source[i]) * np.float32(1 / 255)
            for k in range(above.shape[0]):
                a = above[k, i] + share * (below[k, i] - above[k, i])
                for _ in range(repeated):
                    x += a * (x * x - x)
            target[i] = np.uint8(np.int32(x * np.float32(255) + np.float32(0.5)))

    @_machine_code
    def _bend(
        source,
        target,
        curves,
        repeated,
        row,
        row_share,
        column,
        column_share,
        table,
        plain,
        first,
        last,
    ):
        samples, iterations = source.shape[1], curves.shape[2]
        above = np.empty((iterations, samples), np.float32)
        below = np.empty((iterations, samples), np.float32)
        held, y = -1, first
        while y < last:
            point, stop = row[y], y
            while stop < last and row[stop] == point:
                stop += 1
            if held == point:
                above, below = below, above
            else:
                _stretch(curves[point], column, column_share, above)
            held = min(point + 1, curves.shape[0] - 1)
            _stretch(curves[held], column, column_share, below)
            for a in range(0, samples, SAMPLES):
                b = min(a + SAMPLES, samples)
                for r in range(y, stop):
                    pixels, bent, share = source[r, a:b], target[r, a:b], row_share[r]
                    if iterations == 1 and repeated == 8:
                        _bend_shared(pixels, bent, above[0, a:b], below[0, a:b], share)
                    elif iterations == 8 and repeated == 1:
                        _bend_eight(pixels, bent, above[:, a:b], below[:, a:b], share)
                    else:
                        _bend_any(pixels, bent, above[:, a:b], below[:, a:b], share, repeated)
                    if not plain:
                        winograd.through(bent, table)
            y = stop

    @_machine_code
    def _moments(line, centre, out):
        """Of a row of pixels, as planes (6, width): luma about ``centre``, R − Y, B − Y, and the luma times each."""
        third = np.float32(1 / 255)
        for x in range(out.shape[1]):
            red, green, blue = line[3 * x] * third, line[3 * x + 1] * third, line[3 * x + 2] * third
            luma = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
            g = luma - centre
            out[0, x], out[1, x], out[2, x] = g, red - luma, blue - luma
            out[3, x], out[4, x], out[5, x] = g * g, g * (red - luma), g * (blue - luma)

    @_machine_code
    def _across(padded, radius, out):
        """Sums over 2·radius + 1 neighbours in a row, of planes padded by ``radius`` zeros on either side."""
        for k in range(out.shape[0]):
            line, sums = padded[k], out[k]
            if radius == 4:  # the same sums in one pass
                for x in range(sums.shape[0]):
                    near = line[x] + line[x + 1] + line[x + 2] + line[x + 3] + line[x + 4]
                    sums[x] = near + line[x + 5] + line[x + 6] + line[x + 7] + line[x + 8]
                continue
            for x in range(sums.shape[0]):
                sums[x] = line[x]
            for shift in range(1, 2 * radius + 1):
                for x in range(sums.shape[0]):
                    sums[x] += line[x + shift]

    @_machine_code
    def _slopes(sums, per_pixel, rows, level, out):
        """The guided filter's slopes and offsets for luma, R − Y and B − Y, planes (6, width), from sums of moments."""
        for x in range(out.shape[1]):
            share = per_pixel[x] * rows
            g, red, blue = sums[0, x] * share, sums[1, x] * share, sums[2, x] * share
            variance = sums[3, x] * share - g * g
            noise = level[x] * level[x]
            safe = max(variance, np.float32(0)) + np.float32(1e-9)
            luma = variance / (safe + noise)
            colour = np.float32(1) / (safe + np.float32(36) * noise)
            slope_red, slope_blue = (
                (sums[4, x] * share - red * g) * colour,
                (sums[5, x] * share - blue * g) * colour,
            )
            out[0, x], out[1, x], out[2, x] = luma, slope_red, slope_blue
            out[3, x], out[4, x], out[5, x] = (
                g - luma * g,
                red - slope_red * g,
                blue - slope_blue * g,
            )

    @_machine_code
    def _filtered(line, sums, per_pixel, rows, level, centre, out):
        """A row of pixels (3·width) in [0, 1] by slopes and offsets, summed over their neighbourhood."""
        third, zero, one = np.float32(1 / 255), np.float32(0), np.float32(1)
        for x in range(per_pixel.shape[0]):
            share = per_pixel[x] * rows
            red, green, blue = line[3 * x] * third, line[3 * x + 1] * third, line[3 * x + 2] * third
            if level[x] > 0:
                luma = (
                    np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
                )
                g = luma - centre
                luma = (sums[0, x] * g + sums[3, x]) * share + centre
                red = (sums[1, x] * g + sums[4, x]) * share + luma
                blue = (sums[2, x] * g + sums[5, x]) * share + luma
                green = (luma - np.float32(0.299) * red - np.float32(0.114) * blue) * np.float32(
                    1 / 0.587
                )
            out[3 * x] = min(max(red, zero), one)
            out[3 * x + 1] = min(max(green, zero), one)
            out[3 * x + 2] = min(max(blue, zero), one)

    @_machine_code
    def _weights(values, out):
        """1 − m³ of every pixel's largest channel, for its three samples."""
        for x in range(values.shape[0] // 3):
            m = max(max(values[3 * x], values[3 * x + 1]), values[3 * x + 2])
            weight = np.float32(1) - m * m * m
            out[3 * x], out[3 * x + 1], out[3 * x + 2] = weight, weight, weight

    @_machine_code
    def _bend_alike(values, target, curve, weights):
        """As :func:`_bend_line`, where all pixels have the same eight curves."""
        a, b, c, d, e, f, g, h = (
            curve[0],
            curve[1],
            curve[2],
            curve[3],
            curve[4],
            curve[5],
            curve[6],
            curve[7],
        )
        for i in range(values.shape[0]):
            x, w = values[i], weights[i]
            x += w * a * (x * x - x)
            x += w * b * (x * x - x)
            x += w * c * (x * x - x)
            x += w * d * (x * x - x)
            x += w * e * (x * x - x)
            x += w * f * (x * x - x)
            x += w * g * (x * x - x)
            x += w * h * (x * x - x)
            target[i] = np.uint8(np.int32(x * np.float32(255) + np.float32(0.5)))

    @_machine_code
    def _bend_line(values, target, above, below, share, weights):
        for k in range(above.shape[0]):
            one, other = above[k], below[k]
            for i in range(values.shape[0]):
                x = values[i]
                values[i] = x + weights[i] * (one[i] + share * (other[i] - one[i])) * (x * x - x)
        for i in range(values.shape[0]):
            target[i] = np.uint8(np.int32(values[i] * np.float32(255) + np.float32(0.5)))

    @_machine_code
    def _add(planes, padded, radius, sign):
        for k in range(planes.shape[0]):
            line, sums = planes[k], padded[k]
            for x in range(line.shape[0]):
                sums[x + radius] += sign * line[x]

    @_machine_code
    def _levels(noise, before, share, column, column_share, out):
        low, high = noise[before], noise[min(before + 1, noise.shape[0] - 1)]
        for x in range(out.shape[0]):
            left = column[x]
            right = min(left + 1, noise.shape[1] - 1)
            a = low[left] + share * (high[left] - low[left])
            b = low[right] + share * (high[right] - low[right])
            out[x] = a + column_share[x] * (b - a)

    @_machine_code
    def _smooth_and_bend(
        source,
        target,
        curves,
        noise,
        row,
        row_share,
        column,
        column_share,
        table,
        plain,
        first,
        last,
        centre,
        radius,
        spared,
        alike,
    ):
        """Rows ``first`` … ``last`` − 1: :func:`zdce.model.smoothed`, then the curves, in one walk down the rows."""
        height, samples = source.shape
        width, iterations, ring = samples // 3, curves.shape[2], 2 * radius + 2
        moments = np.empty((ring, 6, width), np.float32)
        slopes = np.empty((ring, 6, width), np.float32)
        moment_sums = np.zeros((6, width + 2 * radius), np.float32)
        slope_sums = np.zeros((6, width + 2 * radius), np.float32)
        sums = np.empty((6, width), np.float32)
        levels, values = np.empty((ring, width), np.float32), np.empty(samples, np.float32)
        per_pixel, weights = np.empty(width, np.float32), np.ones(samples, np.float32)
        for x in range(width):
            per_pixel[x] = 1 / (min(x + radius, width - 1) - max(x - radius, 0) + 1)
        above = np.empty((iterations, samples), np.float32)
        below = np.empty((iterations, samples), np.float32)
        held = -1
        lowest_moment, next_moment = max(0, first - 2 * radius), max(0, first - 2 * radius)
        lowest_slope, next_slope = max(0, first - radius), max(0, first - radius)
        for y in range(first, last):
            while next_slope <= min(height - 1, y + radius):
                s = next_slope
                while next_moment <= min(height - 1, s + radius):
                    _moments(source[next_moment], centre, moments[next_moment % ring])
                    _add(moments[next_moment % ring], moment_sums, radius, np.float32(1))
                    next_moment += 1
                while lowest_moment < s - radius:
                    _add(moments[lowest_moment % ring], moment_sums, radius, np.float32(-1))
                    lowest_moment += 1
                _across(moment_sums, radius, sums)
                _levels(noise, row[s], row_share[s], column, column_share, levels[s % ring])
                rows = np.float32(1 / (next_moment - lowest_moment))
                _slopes(sums, per_pixel, rows, levels[s % ring], slopes[s % ring])
                _add(slopes[s % ring], slope_sums, radius, np.float32(1))
                next_slope += 1
            while lowest_slope < y - radius:
                _add(slopes[lowest_slope % ring], slope_sums, radius, np.float32(-1))
                lowest_slope += 1
            _across(slope_sums, radius, sums)
            rows = np.float32(1 / (next_slope - lowest_slope))
            _filtered(source[y], sums, per_pixel, rows, levels[y % ring], centre, values)
            if spared:
                _weights(values, weights)
            if alike:
                _bend_alike(values, target[y], curves[0, 0, :, 0], weights)
            else:
                if held != row[y]:
                    held = row[y]
                    _stretch(curves[held], column, column_share, above)
                    _stretch(
                        curves[min(held + 1, curves.shape[0] - 1)], column, column_share, below
                    )
                _bend_line(values, target[y], above, below, row_share[y], weights)
            if not plain:
                winograd.through(target[y], table)
