"""The curve-estimation network of Zero-DCE and its published variants.

The network looks at a photograph and returns, per pixel, how far to bend the brightness of every colour
channel. The bend is the quadratic curve of :func:`apply_curves`, applied several times in a row.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

POOLINGS = ("none", "overlapping", "stride2")
UPSAMPLINGS = ("bilinear", "transposed")
LUMA = (0.299, 0.587, 0.114)  # BT.601


@dataclass(frozen=True)
class NetConfig:
    """Shape of a :class:`CurveNet`; every default is the paper's network.

    width: channels of the six hidden layers (paper: 32, improved study: 16).
    iterations: how often the curve is applied (paper: 8).
    pooling: ``"none"`` (paper), ``"overlapping"`` (3×3, stride 1: the improved study) or ``"stride2"``
        (2×2, halves the feature map: tried and rejected by the study).
    pools: how many poolings; the first stands between conv3 and conv4, the second between conv2 and conv3,
        the third between conv1 and conv2.
    upsampling: how ``"stride2"`` returns to full size, ``"bilinear"`` or ``"transposed"`` convolution.
    separable: depthwise 3×3 and pointwise 1×1 in place of each convolution (Zero-DCE++).
    shared_curves: one set of three curve channels for all iterations (Zero-DCE++).
    scale: the network sees the photograph reduced by this factor (Zero-DCE++ publishes 1 and 12).
    fixed_size: the network sees the photograph at this many pixels on each side, whatever its size (ours);
        excludes ``scale``.
    statistics: the network also reads six figures of what it looks at, the same at every pixel (ours):
        :func:`statistics`. Its weights then start at the scale that keeps signals alive (He et al. 2015), not at 0.02.
    grey_curves: one curve for the three colours of a pixel, which keeps their order (ours); excludes
        ``shared_curves``.
    light: with ``statistics``, four more figures, which tell a lit night from a dark photograph of a day (ours):
        :func:`light`.
    level: with ``fixed_size``, the mean that a dark photograph of a day is brought to, in [0, 1): :func:`levelled`
        moves all curves of a photograph alike. Training leaves it out; 0 leaves curves as they are estimated (ours).
    one_curve: with ``fixed_size``, the mean of a photograph's curves over its pixels takes the place of each, which
        keeps the order of its brightness. Training leaves it out (ours).
    spared: with ``fixed_size``, curves fade out towards white: :func:`sparing`. Training leaves it out (ours).
    denoise: grey levels of noise that a filter takes out of the photograph, before the curves and only where they
        brighten (ours): :func:`smoothed`. 0 does nothing.
    measured: with ``fixed_size`` and ``denoise``, which is then the most that the filter takes out: how much it does
        follows from the noise that the photograph has, :func:`measured_noise` (ours).
    """

    width: int = 32
    iterations: int = 8
    pooling: str = "none"
    pools: int = 1
    upsampling: str = "bilinear"
    separable: bool = False
    shared_curves: bool = False
    scale: float = 1.0
    fixed_size: int | None = None
    statistics: bool = False
    grey_curves: bool = False
    denoise: float = 0.0
    light: bool = False
    level: float = 0.0
    one_curve: bool = False
    spared: bool = False
    measured: bool = False

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling={self.pooling!r}: choose one of {', '.join(POOLINGS)}")
        if self.upsampling not in UPSAMPLINGS:
            raise ValueError(
                f"upsampling={self.upsampling!r}: choose one of {', '.join(UPSAMPLINGS)}"
            )
        for name in ("width", "iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be 1 or more")
        if self.pools not in (1, 2, 3):
            raise ValueError(f"pools={self.pools}: must be 1, 2 or 3")
        if not 1 <= self.scale < math.inf:
            raise ValueError(f"scale={self.scale}: must be 1 or more (2 halves the photograph)")
        if self.fixed_size is not None and (self.fixed_size < 1 or self.scale != 1):
            raise ValueError(
                f"fixed_size={self.fixed_size}: must be 1 or more, and goes without scale"
            )
        if self.grey_curves and (self.shared_curves or self.iterations == 3):
            raise ValueError(
                "grey_curves goes without shared_curves, and not with iterations=3, which would read alike"
            )
        if self.light and not self.statistics:
            raise ValueError("light goes with statistics=True, whose figures it adds to")
        if not 0 <= self.level < 1:
            raise ValueError(f"level={self.level}: a mean, must lie in [0, 1)")
        if not 0 <= self.denoise < math.inf:
            raise ValueError(f"denoise={self.denoise}: must be 0 or more grey levels")
        for name, needed in (
            ("level", "fixed_size"),
            ("one_curve", "fixed_size"),
            ("spared", "fixed_size"),
            ("measured", "denoise"),
            ("measured", "fixed_size"),
        ):
            if getattr(self, name) and not getattr(self, needed):
                raise ValueError(
                    f"{name}={getattr(self, name)} goes with {needed}, which is {getattr(self, needed)}"
                )

    def header(self) -> dict:
        """Plain values, for files: without the later fields that hold their defaults, so that earlier files stay."""
        return {
            key: value
            for key, value in asdict(self).items()
            if key not in LATER or value != LATER[key]
        }

    @property
    def curve_channels(self) -> int:
        """Channels of the last layer: 3 colours × iterations, 3 when all iterations share them, 1 × iterations when all
        colours do."""
        if self.grey_curves:
            return self.iterations
        return 3 if self.shared_curves else 3 * self.iterations


# Fields that joined after the first trainings, and their defaults; files leave them out where they hold these.
LATER = {"statistics": False, "grey_curves": False, "denoise": 0.0, "light": False, "level": 0.0}
LATER |= {"one_curve": False, "spared": False, "measured": False}

ZERO_DCE = NetConfig()
ZERO_DCE_IMPROVED = NetConfig(width=16, pooling="overlapping")


def apply_curves(image: Tensor, curves: Tensor, iterations: int = 8) -> Tensor:
    """Bend ``image`` by ``curves``: x ← x + r·(x² − x), ``iterations`` times.

    image: (N, 3, H, W) in [0, 1]. curves: (N, 3·iterations, H, W), (N, 3, H, W) for curves shared by all iterations,
    or (N, iterations, H, W) for curves shared by the colours, r in [−1, 1]. Returns (N, 3, H, W) in [0, 1]: the curve
    is monotonic and fixes 0 and 1.

    Source: paper, equations 1 – 3, in the sign of the released code (r = −α).
    """
    channels = curves.shape[1]
    if channels not in (3, iterations, 3 * iterations):
        needed = f"{3 * iterations}, {iterations} or 3"
        raise ValueError(f"curves have {channels} channels; {iterations} iterations need {needed}")
    steps = [curves] * iterations if channels == 3 else curves.split(channels // iterations, dim=1)
    for r in steps:
        image = image + r * (image * image - image)
    return image


def statistics(image: Tensor) -> Tensor:
    """Six figures of a photograph (N, 3, H, W) in [0, 1]: (N, 6) in [0, 1] but for the last hundredth.

    Means of the three channels; the 10 %, 50 % and 95 % quantiles of the brightest channel. Each in stops, since the
    bend that a photograph needs grows with these: 1 + log2(v + 1/64)/6. Source: ours.
    """
    brightest = image.amax(dim=1).flatten(1)
    at = torch.tensor((0.1, 0.5, 0.95), dtype=image.dtype, device=image.device)
    figures = torch.cat([image.mean(dim=(2, 3)), torch.quantile(brightest, at, dim=1).T], dim=1)
    return 1 + torch.log2(figures + 1 / 64) / 6


BLACK, SEEN = (
    1.0,
    4.0,
)  # grey levels of the brightest channel, ours: black says nothing, from SEEN on all is seen


def light(image: Tensor) -> Tensor:
    """Four figures of a photograph (N, 3, H, W) in [0, 1] about where its light is: (N, 4).

    The share of pixels that are not black (a slope from 1 to 4 grey levels), then the 25 %, 75 % and 98 % quantiles of
    the brightest channel, in stops as in :func:`statistics`. Source: ours.
    """
    brightest = image.amax(dim=1).flatten(1)
    at = torch.tensor((0.25, 0.75, 0.98), dtype=image.dtype, device=image.device)
    return torch.cat(
        [
            _seen(image).mean(dim=(1, 2))[:, None],
            1 + torch.log2(torch.quantile(brightest, at, dim=1).T + 1 / 64) / 6,
        ],
        dim=1,
    )


BLOCKS, BLOCK = (
    32,
    16,
)  # ours: a photograph is sampled in 32 × 32 blocks of 16 × 16 pixels, whatever its size
POINTS = (4, 12)  # ours: pixels of a block, along either side, that tell brightness
NOISE_QUANTILE = 0.05  # ours: share of blocks that are taken to hold noise alone


def block_places(size: int) -> Tensor:
    """Where the 32 blocks along a side of ``size`` pixels lie, evenly spaced: (32, 16) int64. Blocks overlap where
    there are fewer pixels, and border pixels are repeated where there are fewer than 16."""
    start = torch.arange(BLOCKS) * (size - BLOCK) // (BLOCKS - 1)
    return (start[:, None] + torch.arange(BLOCK)).clamp(0, size - 1)


@dataclass(frozen=True)
class Sample:
    """What a photograph of any size tells of its brightness and its noise. points: pixels, evenly spaced,
    (N, 3, 64, 64) in [0, 1]; noise: (N,) grey levels, :func:`measured_noise`."""

    points: Tensor
    noise: Tensor

    @classmethod
    def of(cls, image: Tensor) -> Sample:
        """From a photograph (N, 3, H, W) in [0, 1]."""
        rows, columns = (block_places(size).flatten().to(image.device) for size in image.shape[-2:])
        return cls.of_blocks(image.index_select(2, rows).index_select(3, columns))

    @classmethod
    def of_blocks(cls, blocks: Tensor) -> Sample:
        """From the pixels at :func:`block_places` of both sides alone: (N, 3, 512, 512) in [0, 1]."""
        at = torch.tensor(
            [BLOCK * block + point for block in range(BLOCKS) for point in POINTS],
            device=blocks.device,
        )
        return cls(blocks.index_select(2, at).index_select(3, at), measured_noise(blocks))


def measured_noise(blocks: Tensor) -> Tensor:
    """Noise of a photograph, in grey levels, from blocks of 16 × 16 of its pixels (N, 3, 16·h, 16·w) in [0, 1]: (N,).

    The root mean square of the luma's diagonal second differences (Haar's finest band) within each block, of which the
    5 % quantile over blocks is taken: texture is not everywhere, noise is. Blocks of one value, such as clipped ones,
    count as without noise. Source: noise estimation by the most uniform blocks, a usual method; the numbers are ours.
    """
    luma = 255 * (blocks * blocks.new_tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    upper, lower = luma[..., ::2, :], luma[..., 1::2, :]
    diagonal = ((upper[..., ::2] - upper[..., 1::2]) - (lower[..., ::2] - lower[..., 1::2])) / 2
    energy = F.avg_pool2d(diagonal.square(), BLOCK // 2).flatten(1)
    return torch.quantile(energy, NOISE_QUANTILE, dim=1).sqrt()


NIGHT = (
    0.4,
    0.7,
)  # ours: shares of pixels that are not black, between which a photograph passes from night to day
ROOM = 2.0  # ours: as many times its own mean a night may be brought to
DARK = (0.25, 0.33)  # ours: means between which a photograph passes from dark to good as it is
DEEPEST = 0.45  # ours: curves are moved no further than to this mean of −r; beyond, whatever is not black turns white
STEPS = 4  # of the search for the move; the mean is then met to a thousandth or so


def levelled(
    curves: Tensor, points: Tensor, mean: float, iterations: int = 8, spared: bool = False
) -> Tensor:
    """Curves that bring a dark photograph of a day to ``mean``: (N, C, h, w) in [−1, 1], as ``curves``.

    points: pixels of the photograph, evenly spaced, (N, 3, H, W) in [0, 1]. spared: whether curves are applied with
    :func:`sparing`. All curves of a photograph are moved by one number. It is found in a few steps: moving r changes
    the bent y by about (y² − y) for each unit and iteration, so the mean still missing, over the mean of y² − y and the
    iterations, is how far r must go. A night, much of which is black, is brought to no more than twice its own mean. No
    curves are moved beyond a mean of −0.45. A photograph whose mean is 0.33 or more keeps its curves, with a slope from
    0.25 on. Source: ours.
    """
    before = points.mean(dim=(1, 2, 3))
    night = 1 - _ramp(_seen(points).mean(dim=(1, 2)), NIGHT)
    asked = torch.maximum(before, mean * (1 - night) + night * (ROOM * before).clamp_max(mean))
    at_points = F.interpolate(curves, size=points.shape[-2:], mode="bilinear", align_corners=True)
    weight = sparing(points) if spared else 1.0
    move = torch.zeros_like(before)
    for _ in range(STEPS):
        y = apply_curves(
            points, (at_points + move.view(-1, 1, 1, 1)).clamp(-1, 1) * weight, iterations
        )
        slope = (y * y - y) * weight
        move = move + (asked - y.mean(dim=(1, 2, 3))) / (
            iterations * slope.mean(dim=(1, 2, 3)).clamp_max(-0.02)
        )
    move = torch.maximum(move, -DEEPEST - curves.mean(dim=(1, 2, 3)))
    dark = 1 - _ramp(before, DARK)
    return (curves + (dark * move).view(-1, 1, 1, 1)).clamp(-1, 1)


def sparing(image: Tensor) -> Tensor:
    """By what curves are multiplied so that they fade out towards white: 1 − m³, m the largest channel of a pixel.

    image: (N, 3, H, W) in [0, 1], before any curve. Returns (N, 1, H, W) in [0, 1]. What is bright already is hardly
    bent. The largest channel weighs for all three, so that a coloured lamp keeps its colour. Of greys, the order of
    brightness is kept to within four grey levels of 255 by any curves whose mean is −0.45 or above. Source: ours.
    """
    return 1 - image.amax(dim=1, keepdim=True) ** 3


def _seen(image: Tensor) -> Tensor:
    """Which pixels (N, 3, H, W) in [0, 1] are not black: (N, H, W), a slope from 1 to 4 grey levels."""
    return ((255 * image.amax(dim=1) - BLACK) / (SEEN - BLACK)).clamp(0, 1)


def _ramp(x: Tensor, ends: tuple[float, float]) -> Tensor:
    return ((x - ends[0]) / (ends[1] - ends[0])).clamp(0, 1)


FAINTEST, NOISE_FROM, NOISE_GAIN = (
    1.2,
    0.3,
    14.0,
)  # ours: grey levels that are always filtered, and how they grow
SMOOTH_RADIUS = 4  # pixels, of the squares in :func:`smoothed`


def smoothed(
    image: Tensor, noise: Tensor, radius: int = SMOOTH_RADIUS, chroma: float = 6.0
) -> Tensor:
    """``image`` without detail that is fainter than ``noise``; edges stay.

    image: (N, 3, H, W) in [0, 1]. noise: (N, 1, H, W), a standard deviation in the image's units, 0 leaves a pixel as
    it is. A guided filter over squares of 2·radius + 1 pixels, guided by the luma (BT.601), whose regularisation is
    noise² for the luma itself and (chroma · noise)² for R − Y and B − Y, in which eyes see no detail. Source: "Guided
    Image Filtering" (He et al., TPAMI 2013); noise per pixel and the stronger filter for colour are ours.
    """
    luma = (image * image.new_tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    luma_centre = luma.mean(
        dim=(2, 3), keepdim=True
    )  # moments about it: single precision cancels less
    g = luma - luma_centre
    x = torch.cat([g, image[:, 0:1] - luma, image[:, 2:3] - luma], dim=1)
    mean, product = _box(torch.cat([x, g * x], dim=1), radius).split(3, dim=1)
    covariance = product - mean[:, :1] * mean
    level = noise * noise.new_tensor((1.0, chroma, chroma)).view(1, 3, 1, 1)
    slope = covariance / (covariance[:, :1].clamp_min(0) + level * level + 1e-9)
    slope, offset = _box(torch.cat([slope, mean - slope * mean[:, :1]], dim=1), radius).split(
        3, dim=1
    )
    y, red, blue = (slope * g + offset).split(1, dim=1)
    y = y + luma_centre
    red, blue = red + y, blue + y
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    return torch.where(noise > 0, torch.cat([red, green, blue], dim=1), image).clamp(0, 1)


def _box(x: Tensor, radius: int) -> Tensor:
    """Means over squares; at the border, over the pixels that are there."""
    side, near = 2 * radius + 1, {"stride": 1, "count_include_pad": False}
    x = F.avg_pool2d(x, (side, 1), padding=(radius, 0), **near)
    return F.avg_pool2d(x, (1, side), padding=(0, radius), **near)


class Conv3x3(nn.Conv2d):
    """3×3 convolution, stride 1, padding 1: (N, Cin, H, W) → (N, Cout, H, W)."""

    def __init__(self, cin: int, cout: int, groups: int = 1) -> None:
        super().__init__(cin, cout, 3, padding=1, groups=groups)

    def reset_parameters(self) -> None:
        """Start values; none on the device "meta", where asking for them imports a compiler."""
        if not self.weight.is_meta:
            super().reset_parameters()


class SeparableConv2d(nn.Module):
    """Depthwise 3×3 then pointwise 1×1 convolution, (N, Cin, H, W) → (N, Cout, H, W). Source: Zero-DCE++ code."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.depth_conv = Conv3x3(cin, cin, groups=cin)
        self.point_conv = nn.Conv2d(cin, cout, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.point_conv(self.depth_conv(x))


class CurveNet(nn.Module):
    """Seven 3×3 convolutions that estimate the curves of a photograph, and the curves' application.

    ``CurveNet(width=16, pooling="overlapping")`` or ``CurveNet(config=NetConfig(...))``; keywords are the fields
    of :class:`NetConfig`. Tensor names equal those of the published files, which therefore load as they are.
    Convolution weights start at N(0, 0.02), biases at the framework's default (released code).
    """

    def __init__(self, config: NetConfig | None = None, **fields) -> None:
        super().__init__()
        if config is not None and fields:
            raise ValueError(f"give config or its fields, not both (got {', '.join(fields)})")
        self.config = config or NetConfig(**fields)
        c, w = self.config, self.config.width
        conv = SeparableConv2d if c.separable else Conv3x3
        self.e_conv1 = conv(3 + 6 * c.statistics + 4 * c.light, w)
        self.e_conv2 = conv(w, w)
        self.e_conv3 = conv(w, w)
        self.e_conv4 = conv(w, w)
        self.e_conv5 = conv(2 * w, w)
        self.e_conv6 = conv(2 * w, w)
        self.e_conv7 = conv(2 * w, c.curve_channels)
        if c.pooling == "stride2" and c.upsampling == "transposed":
            self.up = nn.ModuleList(nn.ConvTranspose2d(w, w, 2, stride=2) for _ in range(c.pools))
        for name, parameter in self.named_parameters():
            if parameter.is_meta:
                continue
            if name.endswith("weight") and c.statistics and "e_conv7" not in name:
                nn.init.kaiming_normal_(parameter)
            elif name.endswith("weight"):
                nn.init.normal_(parameter, 0.0, 0.02)

    def curves(self, image: Tensor) -> Tensor:
        """Curves of ``image`` (N, 3, H, W) in [0, 1]: (N, 24, H, W), or (N, 3, H, W) when shared, in [−1, 1]."""
        sample = Sample.of(image) if self.samples else None
        return self._enlarged(self._estimate(self._reduced(image), sample=sample), image.shape[-2:])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) in [0, 1] → the enhanced image, same shape and range, and its curves."""
        small = self._reduced(image)
        sample = Sample.of(image) if self.samples else None
        curves = self._estimate(small, sample=sample)
        # Losses see the work of the curves alone.
        levels = None if self.training else self.noise_levels(small, curves, sample)
        if levels is not None:
            image = smoothed(image, self._enlarged(levels, image.shape[-2:]))
        curves = self._enlarged(curves, image.shape[-2:])
        return self._bent(image, curves), curves

    @property
    def samples(self) -> bool:
        """Whether a :class:`Sample` of the photograph is needed beside what the network looks at."""
        return not self.training and bool(self.config.level or self.config.measured)

    def noise_levels(
        self, small: Tensor, curves: Tensor, sample: Sample | None = None
    ) -> Tensor | None:
        """How much noise :func:`smoothed` takes out of a photograph before its curves are applied: (N, 1, h, w) in
        [0, denoise/255], None where the network does not denoise. small: what the network looked at, (N, 3, h, w) in
        [0, 1]; curves: what it found there; sample: of the photograph, for networks that measure."""
        c = self.config
        if not c.denoise:
            return None
        most = small.new_full((len(small),), c.denoise)
        if c.measured:
            growth = NOISE_GAIN * (sample.noise - NOISE_FROM).clamp_min(0)
            most = torch.minimum(FAINTEST + growth, most)
        return most.view(-1, 1, 1, 1) / 255 * self._brightening(small, self._bent(small, curves))

    def _bent(self, image: Tensor, curves: Tensor) -> Tensor:
        if self.config.spared and not self.training:
            curves = curves * sparing(image)
        return apply_curves(image, curves, self.config.iterations)

    @staticmethod
    def _brightening(before: Tensor, after: Tensor) -> Tensor:
        """0 where the curves leave a photograph as it is, 1 where they brighten fourfold or more: (N, 1, H, W)."""
        gain = (after.mean(dim=1, keepdim=True) + 0.01) / (before.mean(dim=1, keepdim=True) + 0.01)
        return ((gain - 1) / 3).clamp(0, 1).sqrt()

    @staticmethod
    def _enlarged(curves: Tensor, size: tuple[int, int]) -> Tensor:
        if curves.shape[-2:] == size:
            return curves
        curves = F.interpolate(curves, size=size, mode="bilinear", align_corners=True)
        return curves.clamp_(-1, 1)  # rounding in between two saturated curves would leave [0, 1]

    def _reduced(self, image: Tensor) -> Tensor:
        """What the network looks at: the image itself, or a copy reduced bilinearly (Zero-DCE++ code)."""
        c = self.config
        if c.fixed_size is not None:
            size = (c.fixed_size, c.fixed_size)
            return F.interpolate(
                image, size=size, mode="bilinear", align_corners=False, antialias=True
            )
        if c.scale == 1:
            return image
        factor = 1 / c.scale
        height, width = (int(side * factor) for side in image.shape[-2:])
        if min(height, width) < 1:  # photographs thinner than one reduced pixel (ours)
            size = (max(1, height), max(1, width))
            return F.interpolate(image, size=size, mode="bilinear", align_corners=False)
        return F.interpolate(image, scale_factor=factor, mode="bilinear", align_corners=False)

    def _estimate(
        self,
        image: Tensor,
        convolve: Callable[[Tensor], Tensor] | None = None,
        sample: Sample | None = None,
    ) -> Tensor:
        """Curves of what the network looks at; convolve: what to use in place of its own convolutions; sample:
        of the photograph, for networks that level."""
        c, curves = self.config, (convolve or self._convolved)(self._features(image))
        if self.training:  # losses see what the network estimates alone
            return curves
        if c.one_curve:
            curves = curves.mean(dim=(2, 3), keepdim=True).expand_as(curves)
        if not c.level:
            return curves
        return levelled(curves, sample.points, c.level, c.iterations, c.spared)

    def _features(self, image: Tensor) -> Tensor:
        """What the first layer sees: the image, or its root and figures of the whole."""
        if not self.config.statistics:
            return image
        figures = (
            torch.cat([statistics(image), light(image)], dim=1)
            if self.config.light
            else statistics(image)
        )
        figures = figures[:, :, None, None].expand(-1, -1, *image.shape[-2:])
        return torch.cat([image.clamp_min(0).sqrt(), figures], dim=1)

    def _convolved(self, x: Tensor) -> Tensor:
        pools = self.config.pools
        x1 = F.relu(self.e_conv1(x))
        x2 = F.relu(self.e_conv2(self._pool(x1) if pools >= 3 else x1))
        x3 = F.relu(self.e_conv3(self._pool(x2) if pools >= 2 else x2))
        x4 = F.relu(self.e_conv4(self._pool(x3)))
        x5 = F.relu(self.e_conv5(self._join(x3, x4, 0)))
        x6 = F.relu(self.e_conv6(self._join(x2, x5, 1)))
        return torch.tanh(
            self.e_conv7(self._join(x1, x6, 2)).float()
        )  # float32 under autocast as well

    def _pool(self, x: Tensor) -> Tensor:
        if self.config.pooling == "overlapping":
            if (
                x.device.type == "cpu" and x.is_contiguous()
            ):  # the same values and gradients, three times as fast
                return F.max_pool2d(
                    x.contiguous(memory_format=torch.channels_last), 3, stride=1, padding=1
                ).contiguous()
            return F.max_pool2d(x, 3, stride=1, padding=1)
        if self.config.pooling == "stride2":
            return F.max_pool2d(x, 2, stride=2, ceil_mode=True)
        return x

    def _join(self, skip: Tensor, x: Tensor, stage: int) -> Tensor:
        """Skip connection; after stride-2 pooling ``x`` is first brought back to the skip's size."""
        size = skip.shape[-2:]
        if x.shape[-2:] != size:
            if self.config.upsampling == "transposed":
                x = self.up[stage](x)[..., : size[0], : size[1]]
            else:
                x = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
        return torch.cat([skip, x], dim=1)


def count_parameters(net: nn.Module) -> int:
    """Trainable parameters of ``net``."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def multiply_adds(net: nn.Module, height: int, width: int) -> int:
    """Multiply-adds of all convolutions of ``net`` for one photograph of height × width pixels.

    Biases, poolings, interpolations and the curve itself are not counted. Nothing is computed: the network runs on
    shapes alone, so that any size costs the same.
    """
    for name, side in (("height", height), ("width", width)):
        if side < 1:
            raise ValueError(f"{name}={side}: must be 1 or more pixels")
    shapes = copy.deepcopy(net).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes(torch.empty(1, 3, height, width, device="meta"))
    return counter.get_total_flops() // 2  # a multiply-add is two operations
