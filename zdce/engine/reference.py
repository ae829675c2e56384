"""From pixels to brighter pixels in torch, on any device: the meaning of every other engine.

A photograph goes to the device once as it is stored, and its result comes back once; everything
between, from the reduced copy to rounding and gamma, is computed there. Source: ours.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zdce import auto, postprocess
from zdce.engine.tiling import TILE, TILE_CUDA, Tile, parallel, tiles
from zdce.model import CurveNet, apply_curves
from zdce.peers import SciNet

SMALL_SIDE = 80  # pixels of the longer side of the copy that a network sees when reduced; ours
CAPTURED = 2**25  # values of a photograph up to which its rendering is captured (4K has 2^24.6)
GRAPHS = 4  # captured renderings that are kept
REDUCE_FIRST = 2**24  # pixels above which a network with a scale is given a box mean, for memory


@dataclass(frozen=True)
class Curves:
    """Curves of one photograph, on a grid or one for all pixels, and what is done beside them.

    values: (h, w, iterations, 3) float32 in [−1, 1], an array or a tensor; (1, 1, 1, 3) is one
    curve for all pixels. factor: of how many pixels a side each point of the grid is the middle;
    or, with ``corners``, the outer points lie on the photograph's outer pixels (as the released
    code of Zero-DCE++ enlarges). noise: (256,) float32 in [0, 1], what the guided filter takes out
    before, by the brightness of the surroundings; None for no filter. repeated: how often each
    curve is applied in a row. highlight_protection: whether curves fade towards white.
    """

    values: np.ndarray | Tensor
    factor: int = 1
    corners: bool = True
    noise: np.ndarray | Tensor | None = None
    repeated: int = 1
    highlight_protection: bool = False

    @property
    def iterations(self) -> int:
        """How often a curve is applied to a pixel."""
        return self.values.shape[2] * self.repeated

    def arrays(self) -> Curves:
        """The same with NumPy arrays, whatever device they were on."""
        values, noise = (
            x.numpy(force=True) if isinstance(x, Tensor) else x for x in (self.values, self.noise)
        )
        return replace(self, values=values, noise=noise)

    def places(self, size: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Of ``size`` pixels along an axis: the point before (int32), share of the next
        (float32).
        """
        at = self.at_points(np.arange(size, dtype=np.float64), size, self.values.shape[axis])
        before = at.astype(np.int32)
        return before, (at - before).astype(np.float32)

    def at_points(self, pixels, size: int, points: int):
        """Where ``pixels``, of ``size`` along an axis, lie between its ``points``; doubles."""
        spread = (points - 1) / max(1, size - 1)
        at = pixels * spread if self.corners else (pixels + 0.5) / self.factor - 0.5
        return at.clip(0, points - 1)


class Reference:
    """Renders photographs with a network, in torch on one device.

    net: a :class:`~zdce.model.CurveNet`, :class:`~zdce.auto.AutoCurve` or
    :class:`~zdce.peers.SciNet` in evaluation mode. reduced: show a network of curves a copy reduced
    to 80 pixels, in place of every pixel. precision: of the convolutions;
    float32, or bfloat16 or float16 where the device has units for them. reason: why it was chosen.
    """

    name = "reference"

    def __init__(
        self,
        net: nn.Module,
        device: torch.device | str = "cpu",
        *,
        reduced: bool = False,
        precision: torch.dtype = torch.float32,
        reason: str = "",
    ) -> None:
        self.device, self.reduced, self.precision = torch.device(device), reduced, precision
        self.net, self.reason = net.to(self.device).eval(), reason
        if precision != torch.float32:
            self.name += f" in {precision}".replace("torch.", "")
        self.seen: set = set()
        self.graphs: dict[tuple, Captured] = {}
        self.convolving = self.net
        if precision != torch.float32:
            low = copy.deepcopy(self.net).to(precision)
            self.convolving = low.to(memory_format=torch.channels_last)

    def put(self, pixels: np.ndarray | Tensor) -> Tensor:
        """Pixels (H, W, 3) on the engine's device, of the type that they have; shared if there."""
        if isinstance(pixels, np.ndarray):
            pixels = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
        return pixels.to(self.device)

    @torch.inference_mode()
    def curves(self, pixels: np.ndarray | Tensor) -> Curves | None:
        """Curves of a photograph (H, W, 3) uint8, uint16, or float32 in [0, 1].

        None where the network is to see every pixel: :meth:`render` then finds them tile by tile.
        """
        if isinstance(self.net, auto.AutoCurve):
            return self.one_curve(self.put(pixels))
        if not isinstance(self.net, CurveNet) or not (self.reduced or self.net.config.scale > 1):
            return None
        pixels = self.put(pixels)
        if self.net.config.scale == 1:
            return self.curves_of_copy(pixels)
        values = on_grid(self.estimate(self.look(pixels)))
        return Curves(values, repeated=self.net.config.iterations // values.shape[2])

    def one_curve(self, pixels: Tensor) -> Curves:
        """The curve that :mod:`zdce.auto` finds for a photograph (H, W, 3) on the device."""
        rows, columns = (
            auto.block_places(side, self.device).flatten() for side in pixels.shape[:2]
        )
        blocks = scaled(taken(taken(pixels, rows, 0), columns, 1))
        r, _ = auto.search(auto.brightness_points(blocks))
        noise = auto.noise_table(r, postprocess.estimate_noise(blocks))[0]
        return protected(r.view(1, 1, 1, 1).expand(1, 1, 1, 3), noise)

    def curves_of_copy(self, pixels: Tensor) -> Curves:
        """Curves of a box mean whose longer side is 80 pixels or fewer, the mean of all in place of
        each: several times as fast, since they follow one differential equation, x' = x² − x, for
        r each, so that their sum counts.
        """
        factor = factor_for(*pixels.shape[:2])
        every = on_grid(self.estimate(self.box_mean(pixels, factor))).unbind(2)
        values = (sum(every) / len(every))[:, :, None].contiguous()
        return Curves(values, factor, False, repeated=self.net.config.iterations)

    @torch.inference_mode()
    def render(
        self,
        pixels: np.ndarray | Tensor,
        curves: Curves | None = None,
        *,
        gamma: float = 1.0,
        strength: float = 1.0,
        gray: bool = False,
        out: np.ndarray | None = None,
    ) -> np.ndarray | Tensor:
        """The enhanced photograph: filter, curves, rounding, gamma, then a mix with the original.

        pixels: (H, W, 3) uint8, uint16, or float32 in [0, 1]; the result is its like, and where it
        was a tensor of the device remains there. curves: from :meth:`curves`, of this photograph or
        of another one; None finds them. gamma: a table for integers, a power for floats. strength:
        of the enhanced in the mix. gray: the result is the enhanced colours' luma (BT.601), three
        times. out: an array to write into.
        """
        source = self.put(pixels)
        values, noise = (None, None) if curves is None else self._placed(curves)

        def call(source: Tensor, values: Tensor | None, noise: Tensor | None) -> Tensor:
            found = curves and replace(curves, values=values, noise=noise)
            return self._rendered(source, found, gamma=gamma, strength=strength, gray=gray)

        if self.device.type == "cuda":
            about = curves and replace(curves, values=None, noise=None)
            result = self._replayed((about, gamma, strength, gray), call, (source, values, noise))
        else:
            result = call(source, values, noise)
        if isinstance(pixels, Tensor):
            return result
        found = result.numpy(force=True)
        if out is None:
            return found
        out[...] = found
        return out

    def _rendered(
        self, source: Tensor, curves: Curves | None, *, gamma: float, strength: float, gray: bool
    ) -> Tensor:
        """As :meth:`render`, from tensor to tensor of the device."""
        curves = self.curves(source) if curves is None else curves
        result = torch.empty_like(source)

        @torch.inference_mode()
        def fill(tile: Tile) -> None:
            image, part = self.enhanced(source, curves, tile), source[tile.rows, tile.columns]
            pixels = finished(image, part, gamma=gamma, strength=strength, gray=gray)
            result[tile.rows, tile.columns] = pixels

        if self.device.type == "cpu":
            parallel(fill, self._tiles(source, curves))
        else:
            for tile in self._tiles(source, curves):
                fill(tile)
        return result

    def _replayed(self, about: tuple, call: Callable[..., Tensor], inputs: tuple) -> Tensor:
        """``call(*inputs)``; from a size's second photograph on, captured once and replayed."""
        shapes = tuple(None if x is None else (x.shape, x.dtype) for x in inputs)
        key = (about, shapes)
        if inputs[0].numel() > CAPTURED or key not in self.seen:
            self.seen.add(key)
            return call(*inputs)
        if key not in self.graphs:
            while len(self.graphs) >= GRAPHS:
                del self.graphs[next(iter(self.graphs))]
            self.graphs[key] = Captured(call, inputs)
        return self.graphs[key](inputs)

    def enhanced(self, source: Tensor, curves: Curves | None, tile: Tile) -> Tensor:
        """A tile of a photograph (H, W, 3) after the curves: (1, 3, h, w) float32 in [0, 1]."""
        image = scaled(source[tile.seen_rows, tile.seen_columns])
        inside = (..., *tile.inside)
        if isinstance(self.net, SciNet):
            return self.net(image)[0][inside]
        if curves is None:
            part = self.estimate(image, low=source.dtype == torch.uint8)[inside].contiguous()
            return apply_curves(image[inside].contiguous(), part, self.net.config.iterations)
        height, width = source.shape[:2]
        if curves.noise is not None:
            image = postprocess.guided_filter(image, curves.noise[None])
        image = image[inside].contiguous()
        full = enlarged(curves, (tile.rows, tile.columns), (height, width))
        full = full.flatten(2).permute(2, 0, 1)[None].contiguous()
        if curves.highlight_protection:
            full = full * postprocess.highlight_protection(image)
        return apply_curves(image, full, curves.iterations)

    def estimate(self, image: Tensor, low: bool = False) -> Tensor:
        """Curves of what the network looks at, (1, 3, h, w) → (1, channels, h, w) in [−1, 1].

        low: in the engine's own precision, which is enough for 8 bits, and not in float32.
        """
        if not low or self.precision == torch.float32:
            return self.net.estimate(image)
        image = image.to(self.precision, memory_format=torch.channels_last)
        return self.convolving.estimate(image)

    def look(self, pixels: Tensor) -> Tensor:
        """What a network with a scale looks at, (1, 3, h, w) float32 in [0, 1]."""
        height, width = pixels.shape[:2]
        size = tuple(max(1, int(side / self.net.config.scale)) for side in (height, width))
        factor = min(height // (4 * size[0]), width // (4 * size[1]))
        if factor > 1 and height * width > REDUCE_FIRST:
            image = self.box_mean(pixels, factor).contiguous()
            return F.interpolate(image, size=size, mode="bilinear", align_corners=False)
        return self.net.reduce(scaled(pixels))

    def box_mean(self, pixels: Tensor, factor: int) -> Tensor:
        """Means over blocks of factor × factor pixels, those at the right and lower border cut
        short.

        pixels: (H, W, 3). Returns (1, 3, ⌈H/factor⌉, ⌈W/factor⌉) float32 in [0, 1].
        """
        if factor == 1 and pixels.is_floating_point():
            return pixels.permute(2, 0, 1)[None].clamp(0, 1).contiguous()

        if self.device.type == "cuda":
            return F.avg_pool2d(scaled(pixels), factor, ceil_mode=True, count_include_pad=False)

        def mean(start: int) -> Tensor:
            rows = pixels[start : start + factor].to(torch.float32).mean(dim=0)
            return F.avg_pool1d(rows.T[None], factor, ceil_mode=True, count_include_pad=False)

        means = [mean(start) for start in range(0, pixels.shape[0], factor)]
        return torch.stack(means, dim=2).div_(top_of(pixels.dtype)).clamp_(0, 1)

    def _placed(self, curves: Curves) -> tuple[Tensor | None, ...]:
        """Values and noise on the device."""
        both = (curves.values, curves.noise)
        return tuple(None if x is None else torch.as_tensor(x, device=self.device) for x in both)

    def _tiles(self, source: Tensor | np.ndarray, curves: Curves | None) -> list[Tile]:
        height, width = source.shape[:2]
        most = TILE if self.device.type == "cpu" else TILE_CUDA
        if curves is not None:
            block = postprocess.FILTER_BLOCK if curves.noise is not None else 1
            return list(tiles(height, width, 3 * block if block > 1 else 0, most, block))
        reach = halo(self.net)
        if reach is None:
            return list(tiles(height, width, 0, (height, width)))
        return list(tiles(height, width, reach, most))


class Captured:
    """One rendering as a CUDA graph, replayed for photographs of one size and type.

    The processor then starts one piece of work a photograph, not some hundreds.
    """

    def __init__(self, call: Callable[..., Tensor], inputs: tuple[Tensor | None, ...]) -> None:
        self.inputs = tuple(None if x is None else x.clone() for x in inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries choose and allocate before the capture
            call(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.result = call(*self.inputs)

    def __call__(self, inputs: tuple[Tensor | None, ...]) -> Tensor:
        for kept, given in zip(self.inputs, inputs, strict=True):
            if kept is not None:
                kept.copy_(given)
        self.graph.replay()
        return self.result.clone()


def finished(image: Tensor, part: Tensor, *, gamma: float, strength: float, gray: bool) -> Tensor:
    """An enhanced tile (1, 3, h, w) as pixels (h, w, 3) of the type of ``part``, mixed with it."""
    if gray:
        image = postprocess.luma(image).expand(-1, 3, -1, -1)
    image = image[0].permute(1, 2, 0)
    if part.is_floating_point():
        return torch.lerp(part, image.clamp(0, 1).pow(gamma), float(strength))
    top = top_of(part.dtype)
    found = image.mul(top).add_(0.5).clamp_(0, top).to(torch.int32)
    if gamma != 1:
        found = _table(gamma, part.dtype, part.device)[found.long()]
    if strength == 1:
        return found.to(part.dtype)
    before = part.to(torch.float32)
    return (before + strength * (found.to(torch.float32) - before)).round_().to(part.dtype)


@functools.lru_cache(maxsize=8)
def _table(gamma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The gamma table on a device, as int32."""
    kind = np.uint8 if dtype == torch.uint8 else np.uint16
    return torch.from_numpy(postprocess._table(gamma, kind).astype(np.int32)).to(device)


def top_of(dtype: torch.dtype) -> float:
    """The value that stands for 1: 255, 65535, or 1 for floats."""
    return 1.0 if dtype.is_floating_point else float(torch.iinfo(dtype).max)


def scaled(pixels: Tensor) -> Tensor:
    """(H, W, 3) uint8 or uint16, or float32 in [0, 1] → (1, 3, H, W) float32 in [0, 1]; a copy."""
    image = pixels.to(torch.float32, copy=True).permute(2, 0, 1)[None].contiguous()
    return image if pixels.is_floating_point() else image.div_(top_of(pixels.dtype))


def taken(pixels: Tensor, at: Tensor, axis: int) -> Tensor:
    """``index_select``, which torch lacks for 16 bits without a sign."""
    if pixels.dtype != torch.uint16:
        return pixels.index_select(axis, at)
    return pixels.view(torch.int16).index_select(axis, at).view(torch.uint16)


def protected(values: Tensor | np.ndarray, noise: Tensor | np.ndarray) -> Curves:
    """One curve as :mod:`zdce.auto` means it: filter, highlight protection, eight times."""
    return Curves(values, noise=noise, repeated=auto.ITERATIONS, highlight_protection=True)


def halo(net: nn.Module) -> int | None:
    """How far a pixel's result depends on its neighbours, pixels; None when on the whole
    photograph.
    """
    if isinstance(net, SciNet):
        return 3
    if not isinstance(net, CurveNet) or net.config.pooling == "stride2" or net.config.scale > 1:
        return None
    return 7 + (net.config.pools if net.config.pooling == "overlapping" else 0)


def factor_for(height: int, width: int) -> int:
    """By how much a photograph is reduced so that its longer side is :data:`SMALL_SIDE` or less."""
    return math.ceil(max(height, width) / SMALL_SIDE)


def on_grid(curves: Tensor) -> Tensor:
    """(1, 3·iterations, h, w) → (h, w, iterations, 3), contiguous."""
    height, width = curves.shape[-2:]
    return curves[0].float().permute(1, 2, 0).reshape(height, width, -1, 3).contiguous()


def enlarged(curves: Curves, parts: tuple[slice, slice], sizes: tuple[int, int]) -> Tensor:
    """Curves bilinearly at the pixels ``parts`` of a photograph of ``sizes``: (h, w, iterations,
    3).
    """
    points = curves.values
    if points.shape[:2] == (1, 1):
        return points
    for axis, (size, part) in enumerate(zip(sizes, parts, strict=True)):
        at = torch.arange(part.start, part.stop, dtype=torch.float64, device=points.device)
        at = curves.at_points(at, size, points.shape[axis])
        before, share = at.int(), (at - at.int()).float()
        after = (before + 1).clamp_(max=points.shape[axis] - 1)
        share = share.view([-1 if n == axis else 1 for n in range(points.ndim)])
        points = torch.lerp(
            points.index_select(axis, before), points.index_select(axis, after), share
        )
    return points
