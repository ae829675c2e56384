"""The network of Zero-DCE and its variants: photograph in, the curve of every pixel out."""

import copy
import math
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

CHOICES = {
    "pooling": ("none", "overlapping", "stride2"),
    "pools": (1, 2, 3),
    "upsampling": ("bilinear", "transposed"),
}


@dataclass(frozen=True)
class NetConfig:
    """Shape of a :class:`CurveNet`; every default is the paper's network.

    width: channels of the six hidden layers (paper: 32, improved study: 16).
    iterations: how often the curve is applied (paper: 8).
    pooling: ``"none"`` (paper), ``"overlapping"`` (3×3, stride 1: the improved study) or
        ``"stride2"`` (2×2, halves the feature map: tried and rejected by the study).
    pools: 1 (between conv3 and conv4), 2 (also before conv3) or 3 (also before conv2).
    upsampling: how ``"stride2"`` returns to full size; ``"transposed"`` is a convolution.
    separable: depthwise 3×3 and pointwise 1×1 in place of each convolution (Zero-DCE++).
    shared_curves: one set of three curve channels for all iterations (Zero-DCE++).
    scale: the network sees the photograph reduced by this factor (Zero-DCE++ publishes 1 and 12).
    """

    width: int = 32
    iterations: int = 8
    pooling: str = "none"
    pools: int = 1
    upsampling: str = "bilinear"
    separable: bool = False
    shared_curves: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(str, allowed))}")
        for name in ("width", "iterations", "scale"):
            if not 1 <= (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name}={value}: must be 1 or more")

    @property
    def curve_channels(self) -> int:
        """Channels of the last layer: 3 colours × iterations, or 3 that all iterations share."""
        return 3 if self.shared_curves else 3 * self.iterations


ZERO_DCE = NetConfig()
ZERO_DCE_IMPROVED = NetConfig(width=16, pooling="overlapping")


def apply_curves(image: Tensor, curves: Tensor, iterations: int = 8) -> Tensor:
    """Brighten ``image`` by ``curves``: x ← x + r·(x² − x), ``iterations`` times.

    image: (N, 3, H, W) in [0, 1]. curves: (N, 3·iterations, H, W), or (N, 3, H, W) for curves
    shared by all iterations, r in [−1, 1]. Returns (N, 3, H, W) in [0, 1]: the curve is monotonic
    and fixes 0 and 1. Raises ValueError for another number of channels.

    Source: paper, equations 1 – 3, in the sign of the released code (r = −α).
    """
    channels = curves.shape[1]
    if channels not in (3, 3 * iterations):
        needed = f"{3 * iterations} or 3"
        raise ValueError(f"curves have {channels} channels; {iterations} iterations need {needed}")
    steps = [curves] * iterations if channels == 3 else curves.split(3, dim=1)
    for r in steps:
        image = image + r * (image * image - image)
    return image


class SeparableConv2d(nn.Module):
    """Depthwise 3×3, then pointwise 1×1: (N, Cin, H, W) → (N, Cout, H, W). Zero-DCE++ code."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.depth_conv = nn.Conv2d(cin, cin, 3, padding=1, groups=cin)
        self.point_conv = nn.Conv2d(cin, cout, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.point_conv(self.depth_conv(x))


class CurveNet(nn.Module):
    """Seven 3×3 convolutions that estimate the curves of a photograph, and the curves' application.

    ``CurveNet(width=16, pooling="overlapping")`` or ``CurveNet(NetConfig(...))``. Tensor names
    equal those of the published files. Convolution weights start at N(0, 0.02), biases at the
    framework's default (released code).
    """

    def __init__(self, config: NetConfig | None = None, **fields) -> None:
        super().__init__()
        self.config = replace(config or NetConfig(), **fields)
        c, w = self.config, self.config.width
        conv = SeparableConv2d if c.separable else partial(nn.Conv2d, kernel_size=3, padding=1)
        self.e_conv1 = conv(3, w)
        self.e_conv2 = conv(w, w)
        self.e_conv3 = conv(w, w)
        self.e_conv4 = conv(w, w)
        self.e_conv5 = conv(2 * w, w)
        self.e_conv6 = conv(2 * w, w)
        self.e_conv7 = conv(2 * w, c.curve_channels)
        if c.pooling == "stride2" and c.upsampling == "transposed":
            self.up = nn.ModuleList(nn.ConvTranspose2d(w, w, 2, stride=2) for _ in range(c.pools))
        for name, parameter in self.named_parameters():
            if name.endswith("weight") and not parameter.is_meta:  # there it imports a compiler
                nn.init.normal_(parameter, 0.0, 0.02)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) in [0, 1] → the enhanced image, same shape and range, and its curves."""
        curves = self.curves(image)
        return apply_curves(image, curves, self.config.iterations), curves

    def curves(self, image: Tensor) -> Tensor:
        """Curves of ``image`` (N, 3, H, W) in [0, 1]: (N, curve channels, H, W) in [−1, 1]."""
        curves, size = self.estimate(self.reduce(image)), image.shape[-2:]
        if curves.shape[-2:] == size:
            return curves
        curves = F.interpolate(curves, size=size, mode="bilinear", align_corners=True)
        return curves.clamp_(-1, 1)  # rounding between two saturated curves would leave [−1, 1]

    def reduce(self, image: Tensor) -> Tensor:
        """What the network looks at: the image, or a bilinearly reduced copy (Zero-DCE++ code)."""
        if self.config.scale == 1:
            return image
        factor = 1 / self.config.scale
        sides = [int(side * factor) for side in image.shape[-2:]]
        how = {"scale_factor": factor}
        if min(sides) < 1:  # photographs thinner than one reduced pixel (ours)
            how = {"size": [max(1, side) for side in sides]}
        return F.interpolate(image, mode="bilinear", align_corners=False, **how)

    def estimate(self, x: Tensor) -> Tensor:
        """The seven convolutions: (N, 3, h, w) in [0, 1] → (N, curve channels, h, w) in [−1, 1]."""
        pools = self.config.pools
        x1 = F.relu(self.e_conv1(x))
        x2 = F.relu(self.e_conv2(self._pool(x1) if pools >= 3 else x1))
        x3 = F.relu(self.e_conv3(self._pool(x2) if pools >= 2 else x2))
        x4 = F.relu(self.e_conv4(self._pool(x3)))
        x5 = F.relu(self.e_conv5(self._join(x3, x4, 0)))
        x6 = F.relu(self.e_conv6(self._join(x2, x5, 1)))
        x7 = self.e_conv7(self._join(x1, x6, 2))
        return torch.tanh(x7.float())  # float32 under autocast as well

    def _pool(self, x: Tensor) -> Tensor:
        if self.config.pooling == "stride2":
            return F.max_pool2d(x, 2, stride=2, ceil_mode=True)
        if self.config.pooling == "none":
            return x
        if x.device.type == "cpu" and x.is_contiguous():  # the same values, three times as fast
            last = x.contiguous(memory_format=torch.channels_last)
            return F.max_pool2d(last, 3, stride=1, padding=1).contiguous()
        return F.max_pool2d(x, 3, stride=1, padding=1)

    def _join(self, skip: Tensor, x: Tensor, stage: int) -> Tensor:
        """Skip connection; after stride-2 pooling ``x`` first returns to the skip's size."""
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
    """Multiply-adds of all convolutions of ``net`` for one photograph of height × width pixels;
    biases, poolings, interpolations and the curve itself are not counted.
    """
    shapes = copy.deepcopy(net).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes(torch.empty(1, 3, height, width, device="meta"))
    return counter.get_total_flops() // 2  # a multiply-add is two operations


def device_of(name: str) -> torch.device:
    """``cpu``, ``cuda``, or for ``auto`` the best there is; ValueError for anything else."""
    available = torch.cuda.is_available()
    if name not in ("auto", "cpu", "cuda") or (name == "cuda" and not available):
        raise ValueError(f"device={name!r}: choose auto, cpu, or cuda where there is a GPU")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
