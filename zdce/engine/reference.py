"""From pixels to brighter pixels in torch, on any device: the meaning of every other engine.

A photograph goes to the device once as it is stored, its result comes back once. Source: ours.
"""

import contextlib
import copy
import functools
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zdce import auto, postprocess
from zdce.engine.tiling import Tile, parallel, tiles
from zdce.model import CurveNet, apply_curves
from zdce.peers import SciNet

TILE = (512, 320)  # rows and columns: what a network needs for them stays near the processor
TILE_CUDA = (2048, 2048)  # memory for one network's features, and enough work for a GPU
SMALL_SIDE = 80  # pixels of the longer side of the copy that a network sees when reduced; ours
REDUCE_FIRST = 2**24  # pixels above which a network with a scale is given a box mean, for memory
ONE_CURVE = {"repeated": auto.ITERATIONS, "highlight_protection": True}  # what zdce.auto does


@dataclass(frozen=True)
class Curves:
    """Curves of one photograph, on a grid or one for all pixels, and what is done beside them.

    values: (h, w, iterations, 3) float32 in [−1, 1], an array or a tensor; (1, 1, 1, 3) is one
    curve for all pixels. factor: of how many pixels a side each point of the grid is the middle;
    or, with ``corners``, the outer points lie on the outer pixels (as Zero-DCE++ enlarges). noise:
    (256,) float32, what :func:`zdce.postprocess.guided_filter` takes out before; None for no
    filter. repeated: how often each curve is applied in a row. highlight_protection: whether curves
    fade towards white.
    """

    values: np.ndarray | Tensor
    factor: int = 1
    corners: bool = True
    noise: np.ndarray | Tensor | None = None
    repeated: int = 1
    highlight_protection: bool = False

    def each(self, function: Callable) -> "Curves":
        """The same with ``function`` of values and noise."""
        noise = None if self.noise is None else function(self.noise)
        return replace(self, values=function(self.values), noise=noise)

    def arrays(self) -> "Curves":
        """The same with NumPy arrays, whatever device they were on."""
        return self.each(lambda x: torch.as_tensor(x).numpy(force=True))

    def places(
        self, part: slice, size: int, axis: int, device: torch.device | None = None
    ) -> tuple[Tensor, Tensor]:
        """Of pixels ``part`` of ``size`` along an axis: the point before, the share of the next."""
        points = self.values.shape[axis]
        at = torch.arange(part.start, part.stop, dtype=torch.float64, device=device)
        spread = (points - 1) / max(1, size - 1)
        at = at * spread if self.corners else (at + 0.5) / self.factor - 0.5
        at = at.clip(0, points - 1)
        return at.int(), (at - at.int()).float()


class Reference:
    """Renders photographs with a network, in torch on one device.

    net: a :class:`~zdce.model.CurveNet`, :class:`~zdce.auto.AutoCurve` or
    :class:`~zdce.peers.SciNet`. reduced: show it a copy reduced to 80 pixels, in place of every
    pixel. precision: of the convolutions on 8 bits. reason: why it was chosen.
    """

    name = "reference"
    search = staticmethod(auto.search)

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
        self.convolving, self.own = self.net, threading.local()  # a thread's stream
        if precision != torch.float32:
            self.name = f"reference in {precision}".replace("torch.", "")
            low = copy.deepcopy(self.net)
            self.convolving = low.to(precision, memory_format=torch.channels_last)

    def put(self, pixels: np.ndarray | Tensor) -> Tensor:
        """Pixels (H, W, 3) on the engine's device, of their own type; shared if they are there."""
        if isinstance(pixels, np.ndarray):
            pixels = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
            pixels = pixels.pin_memory() if self.device.type == "cuda" else pixels
        return pixels.to(self.device, non_blocking=True)

    @contextlib.contextmanager
    def stream(self, pixels: np.ndarray | Tensor) -> Iterator[None]:
        """On a GPU, a stream of each thread's own: transfers overlap with the work of others."""
        if self.device.type != "cuda" or isinstance(pixels, Tensor):
            yield
            return
        if not hasattr(self.own, "stream"):
            self.own.stream = torch.cuda.Stream(self.device)
        with torch.cuda.stream(self.own.stream):
            yield
            self.own.stream.synchronize()

    @torch.inference_mode()
    def curves(self, pixels: np.ndarray | Tensor) -> Curves | None:
        """Curves of a photograph (H, W, 3); None where the network is to see every pixel."""
        with self.stream(pixels):
            return self.found(self.put(pixels))

    def found(self, pixels: Tensor) -> Curves | None:
        """As :meth:`curves`, on the device."""
        if isinstance(self.net, auto.AutoCurve):
            return self.one_curve(pixels)
        if not isinstance(self.net, CurveNet) or not (self.reduced or self.net.config.scale > 1):
            return None
        if self.net.config.scale > 1:
            values = on_grid(self.estimate(self.look(pixels)))
            return Curves(values, repeated=self.net.config.iterations // values.shape[2])
        # The mean of all curves in place of each is several times as fast; all follow
        # x' = x² − x, each for its r, so that their sum counts.
        factor = math.ceil(max(pixels.shape[:2]) / SMALL_SIDE)
        every = on_grid(self.estimate(self.box_mean(pixels, factor))).unbind(2)
        values = (sum(every) / len(every))[:, :, None].contiguous()
        return Curves(values, factor, False, repeated=self.net.config.iterations)

    def one_curve(self, pixels: Tensor) -> Curves:
        """The curve that :mod:`zdce.auto` finds for a photograph (H, W, 3) on the device."""
        r, noise = auto.curve_of(pixels.permute(2, 0, 1)[None], self.search)
        noise = auto.noise_table(r, noise)[0]
        return Curves(r.view(1, 1, 1, 1).expand(1, 1, 1, 3), noise=noise, **ONE_CURVE)

    @torch.inference_mode()
    def render(
        self,
        pixels: np.ndarray | Tensor,
        curves: Curves | None = None,
        *,
        gamma: float = 1.0,
        strength: float = 1.0,
        gray: bool = False,
    ) -> np.ndarray | Tensor:
        """The enhanced photograph: filter, curves, rounding, gamma, then a mix with the original.

        pixels: (H, W, 3) uint8, uint16, or float32 in [0, 1]; the result is its like. curves: from
        :meth:`curves`, of this photograph or another; None finds them. gamma: a table for integers,
        a power for floats. strength: of the enhanced in the mix. gray: the three channels of the
        photograph are equal, and those of the result are made so.
        """
        with self.stream(pixels):
            curves = curves and curves.each(lambda x: torch.as_tensor(x, device=self.device))
            result = self.rendered(self.put(pixels), curves, gamma, strength, gray)
            if isinstance(pixels, Tensor):
                return result
            if result.is_cuda:
                kept = torch.empty_like(result, device="cpu", pin_memory=True)
                result = kept.copy_(result, non_blocking=True)
            return result.numpy()

    def rendered(
        self, source: Tensor, curves: Curves | None, gamma: float, strength: float, gray: bool
    ) -> Tensor:
        """As :meth:`render`, from tensor to tensor of the device."""
        curves, result = curves or self.found(source), torch.empty_like(source)

        @torch.inference_mode()
        def fill(tile: Tile) -> None:
            image = self.enhanced(source, curves, tile)
            result[tile.part] = finished(image, source[tile.part], gamma, strength, gray)

        parts = self.tiles(source, curves)
        parallel(fill, parts) if self.device.type == "cpu" else list(map(fill, parts))
        return result

    def enhanced(self, source: Tensor, curves: Curves | None, tile: Tile) -> Tensor:
        """A tile of a photograph (H, W, 3) after the curves: (1, 3, h, w) float32 in [0, 1]."""
        image = scaled(source[tile.seen])
        inside = (..., *tile.inside)
        if isinstance(self.net, SciNet):
            return self.net(image)[0][inside]
        if curves is None:
            part = self.estimate(image, low=source.dtype == torch.uint8)[inside].contiguous()
            return apply_curves(image[inside].contiguous(), part, self.net.config.iterations)
        if curves.noise is not None:
            image = postprocess.guided_filter(image, curves.noise[None])
        image = image[inside].contiguous()
        full = enlarged(curves, tile.part, source.shape[:2])
        full = full.flatten(2).permute(2, 0, 1)[None].contiguous()
        if curves.highlight_protection:
            full = full * postprocess.highlight_protection(image)
        return apply_curves(image, full, curves.values.shape[2] * curves.repeated)

    def estimate(self, image: Tensor, low: bool = False) -> Tensor:
        """Image (1, 3, h, w) → curves (1, channels, h, w); low: in the engine's own precision."""
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
        """(H, W, 3) → means over squares, (1, 3, ⌈H/factor⌉, ⌈W/factor⌉) float32 in [0, 1]."""
        options = {"ceil_mode": True, "count_include_pad": False}
        if self.device.type == "cuda":
            return F.avg_pool2d(scaled(pixels), factor, **options)

        def mean(start: int) -> Tensor:
            rows = pixels[start : start + factor].to(torch.float32).mean(dim=0)
            return F.avg_pool1d(rows.T[None], factor, **options)

        means = [mean(start) for start in range(0, pixels.shape[0], factor)]
        return torch.stack(means, dim=2).div_(top_of(pixels.dtype)).clamp_(0, 1)

    def tiles(self, source: Tensor, curves: Curves | None) -> list[Tile]:
        """Parts of a photograph that are computed one by one."""
        shape, reach = source.shape[:2], halo(self.net)
        most = TILE if self.device.type == "cpu" else TILE_CUDA
        if curves is not None:
            block = postprocess.FILTER_BLOCK if curves.noise is not None else 1
            return tiles(*shape, 3 * block if block > 1 else 0, most, block)
        return tiles(*shape, reach or 0, shape if reach is None else most)


def finished(image: Tensor, part: Tensor, gamma: float, strength: float, gray: bool) -> Tensor:
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
    return torch.from_numpy(postprocess.gamma_table(gamma, kind).astype(np.int32)).to(device)


def top_of(dtype: torch.dtype) -> float:
    """The value that stands for 1: 255, 65535, or 1 for floats."""
    return 1.0 if dtype.is_floating_point else float(torch.iinfo(dtype).max)


def scaled(pixels: Tensor) -> Tensor:
    """(H, W, 3) uint8 or uint16, or float32 in [0, 1] → (1, 3, H, W) float32 in [0, 1]; a copy."""
    image = pixels.to(torch.float32, copy=True).permute(2, 0, 1)[None].contiguous()
    return image if pixels.is_floating_point() else image.div_(top_of(pixels.dtype))


def halo(net: nn.Module) -> int | None:
    """How many pixels around it a result depends on; None when on the whole photograph."""
    if isinstance(net, SciNet):
        return 3
    if not isinstance(net, CurveNet) or net.config.pooling == "stride2" or net.config.scale > 1:
        return None
    return 7 + (net.config.pools if net.config.pooling == "overlapping" else 0)


def on_grid(curves: Tensor) -> Tensor:
    """(1, 3·iterations, h, w) → (h, w, iterations, 3), contiguous."""
    height, width = curves.shape[-2:]
    return curves[0].float().permute(1, 2, 0).reshape(height, width, -1, 3).contiguous()


def enlarged(curves: Curves, parts: tuple[slice, slice], sizes: tuple[int, int]) -> Tensor:
    """Curves at the pixels ``parts`` of a photograph of ``sizes``: (h, w, iterations, 3)."""
    points = curves.values
    if points.shape[:2] == (1, 1):
        return points
    for axis, (size, part) in enumerate(zip(sizes, parts, strict=True)):
        before, share = curves.places(part, size, axis, points.device)
        after = (before + 1).clamp_(max=points.shape[axis] - 1)
        share = share.view([-1 if n == axis else 1 for n in range(points.ndim)])
        points = torch.lerp(*(points.index_select(axis, at) for at in (before, after)), share)
    return points
