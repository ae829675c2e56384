"""The four losses of Zero-DCE, none of which needs a reference, in the paper's form and in the released code's.

The two differ (absolute values against squares, sums against means, borders); ``form`` chooses, and each docstring
says what either computes. Images are (N, 3, H, W) in [0, 1]; every loss is a scalar tensor, 0 or more.
Raises ValueError for an unknown form and for tensors smaller than a loss needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FORMS = ("released", "paper")
EXPOSURES = ("regions", "photograph", "light")
TERMS = ("spatial", "exposure", "color", "smoothness")


def _is_released(form: str) -> bool:
    if form not in FORMS:
        raise ValueError(f"form={form!r}: choose one of {', '.join(FORMS)}")
    return form == "released"


def _needs(side: int, **tensors: Tensor) -> None:
    """ValueError naming the tensor that is smaller than side × side."""
    for name, tensor in tensors.items():
        if min(tensor.shape[-2:]) < side:
            height, width = tensor.shape[-2:]
            raise ValueError(
                f"{name} is {height}×{width}: this loss needs at least {side}×{side} pixels"
            )


@dataclass(frozen=True)
class LossConfig:
    """Weights of the four terms, the exposure target, and whose form of the losses is computed.

    exposure_of: ``"regions"`` (paper) or ``"photograph"``: :func:`photograph_exposure` (ours) in place of
        :func:`exposure_control`, with the same weight and target; ``"light"``: :func:`light_exposure` (ours).
    highlights: of ``"photograph"``: the quantile of a photograph's brightest channel that shall not be driven into
        clipping, in (0, 1); 0 asks for no such thing.
    """

    spatial: float = 1.0
    exposure: float = 10.0
    color: float = 5.0
    smoothness: float = 200.0
    exposure_target: float = 0.6  # paper: E, "well-exposedness" of grey in RGB
    form: str = "released"
    exposure_of: str = "regions"
    highlights: float = 0.0

    def __post_init__(self) -> None:
        _is_released(self.form)
        if self.exposure_of not in EXPOSURES:
            raise ValueError(
                f"exposure_of={self.exposure_of!r}: choose one of {', '.join(EXPOSURES)}"
            )
        for name in TERMS:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}: a loss weight must be 0 or more")
        if not 0 <= self.exposure_target <= 1:
            raise ValueError(f"exposure_target={self.exposure_target}: must lie in [0, 1]")
        if not 0 <= self.highlights < 1:
            raise ValueError(f"highlights={self.highlights}: a quantile, must lie in [0, 1)")


PAPER = LossConfig(spatial=1.0, exposure=1.0, color=0.5, smoothness=20.0, form="paper")
RELEASED = LossConfig()
IMPROVED = LossConfig(smoothness=300.0)
PLUS_PLUS = LossConfig(smoothness=1600.0)


def spatial_consistency(enhanced: Tensor, original: Tensor, form: str = "released") -> Tensor:
    """Differences between neighbouring 4×4 regions shall survive the enhancement.

    enhanced, original: (N, 3, H, W) in [0, 1], H and W at least 4. With Y and I the means of 4×4 regions over all
    channels and Δ the difference to each of the four neighbouring regions:

    - ``released``: mean over regions of Σ (ΔY − ΔI)²; beyond the border stand zeros (released code).
    - ``paper``: mean over regions of Σ (|ΔY| − |ΔI|)²; regions have the neighbours that exist (paper, equation 5;
      it is silent on the border, the choice is ours).
    """
    _needs(4, enhanced=enhanced, original=original)
    y, i = (F.avg_pool2d(x.mean(dim=1, keepdim=True), 4) for x in (enhanced, original))
    if _is_released(form):
        # The difference is linear, so (ΔY − ΔI) is the difference of (Y − I).
        d = F.pad(y - i, (1, 1, 1, 1))
        centre = d[..., 1:-1, 1:-1]
        neighbours = (d[..., 1:-1, :-2], d[..., 1:-1, 2:], d[..., :-2, 1:-1], d[..., 2:, 1:-1])
        return sum((centre - n).square() for n in neighbours).mean()
    across = (y.diff(dim=-1).abs() - i.diff(dim=-1).abs()).square().sum()
    down = (y.diff(dim=-2).abs() - i.diff(dim=-2).abs()).square().sum()
    return 2 * (across + down) / y.numel()  # every pair is seen from both of its regions


def exposure_control(enhanced: Tensor, target: float = 0.6, form: str = "released") -> Tensor:
    """The mean of each 16×16 region shall lie near ``target``.

    enhanced: (N, 3, H, W) in [0, 1], H and W at least 16. With Y the regions' means over all channels:
    ``released``: mean (Y − target)² (released code). ``paper``: mean |Y − target| (paper, equation 6).
    """
    _needs(16, enhanced=enhanced)
    distance = F.avg_pool2d(enhanced.mean(dim=1, keepdim=True), 16) - target
    return distance.square().mean() if _is_released(form) else distance.abs().mean()


KEPT = 0.33  # ours: mean from which a photograph counts as exposed well enough to be left as it is
BRIGHTEST = 0.6  # ours: and no photograph is asked for a mean above the paper's target
HIGHLIGHT = 0.9  # ours: where the chosen quantile of the brightest channel may be brought at most
BRIGHT = 0.7  # ours: from which value of the brightest channel on a pixel is bright
BLACK, SEEN = (
    1.0,
    4.0,
)  # grey levels of the brightest channel, ours: black says nothing, from SEEN on all is seen


def photograph_exposure(
    enhanced: Tensor, original: Tensor, target: float = 0.46, highlights: float = 0.0
) -> Tensor:
    """The mean of the whole photograph, not of each region, shall reach what this photograph can be asked for.

    enhanced, original: (N, 3, H, W) in [0, 1]. The photograph's own target is ``target`` times the share of its pixels
    that are not black, so that the black sky of a night is not asked to become day; it is the photograph's own mean
    (at most 0.6) where that is higher, or already 0.33 or more. Added to the mean of (mean Y − target)² are half the
    mean square change of photographs of the latter kind, and a tenth of that of black pixels. Source: ours.
    """
    change = (enhanced - original).square().mean(dim=1)
    before = original.mean(dim=(1, 2, 3))
    seen = ((255 * original.amax(dim=1) - BLACK) / (SEEN - BLACK)).clamp(0, 1)
    good = before > KEPT
    asked = torch.where(
        good, before, torch.maximum(before, target * seen.mean(dim=(1, 2)))
    ).clamp_max(BRIGHTEST)
    bright = torch.zeros_like(seen)
    if highlights:
        brightest = original.amax(dim=1)
        top = torch.quantile(brightest.flatten(1), highlights, dim=1).clamp(1 / 255, HIGHLIGHT)
        room = (
            original.clamp_min(1e-4)
            .pow((math.log(HIGHLIGHT) / top.log()).view(-1, 1, 1, 1))
            .mean(dim=(1, 2, 3))
        )
        asked = torch.minimum(asked, torch.maximum(room, before))
        bright = ((brightest - BRIGHT) / (1 - BRIGHT)).clamp(0, 1)
    reached = (enhanced.mean(dim=(1, 2, 3)) - asked).square()
    return (
        reached
        + good * change.mean(dim=(1, 2)) / 2
        + ((1 - seen + bright) * change).mean(dim=(1, 2)) / 10
    ).mean()


LIT = (
    0.25,
    0.5,
)  # ours: 98 % quantiles of the brightest channel between which a dark photograph comes to count as lit
DAY = (
    0.6,
    0.8,
)  # ours: shares that are not black between which a lit photograph passes from night to day
MOST = 10.0  # ours: as many times its own mean a photograph is asked for at most; beyond, noise is all that is gained
ROOM = 2.0  # ours: as many times its own mean a night may be brought to, however black it is
LAMPS = 0.4  # ours: value of the brightest channel from which on a pixel of a night is a light


def light_exposure(enhanced: Tensor, original: Tensor, target: float = 0.46) -> Tensor:
    """As :func:`photograph_exposure`, but what is asked of a photograph depends on where its light is.

    enhanced, original: (N, 3, H, W) in [0, 1]. A dark photograph of a day has no lights, or few pixels that are black:
    it is asked for the whole ``target``. A night has lights beside black: it is asked for no more than twice its own
    mean, and the mean square change of its lights is added. In between, shares of the two. No photograph is asked for
    more than ten times its own mean. What is good already and what is black are kept as there. Source: ours.
    """
    change = (enhanced - original).square().mean(dim=1)
    before, brightest = original.mean(dim=(1, 2, 3)), original.amax(dim=1)
    seen = ((255 * brightest - BLACK) / (SEEN - BLACK)).clamp(0, 1)
    lit = _ramp(torch.quantile(brightest.flatten(1), 0.98, dim=1), LIT)
    night = lit * (1 - _ramp(seen.mean(dim=(1, 2)), DAY))
    asked = torch.maximum(target * (1 - night), (ROOM * before).clamp_max(target))
    asked = torch.maximum(before, torch.minimum(asked, MOST * before))
    good = before > KEPT
    reached = (
        enhanced.mean(dim=(1, 2, 3)) - torch.where(good, before, asked).clamp_max(BRIGHTEST)
    ).square()
    lamps = _ramp(brightest, (LAMPS, 1.0))
    kept = good * change.mean(dim=(1, 2)) / 2 + ((1 - seen) * change).mean(dim=(1, 2)) / 10
    spared = (
        night * (lamps * change).sum(dim=(1, 2)) / (lamps.sum(dim=(1, 2)) + lamps[0].numel() / 100)
    )
    return (reached + kept + spared).mean()


def _ramp(x: Tensor, ends: tuple[float, float]) -> Tensor:
    return ((x - ends[0]) / (ends[1] - ends[0])).clamp(0, 1)


def color_constancy(enhanced: Tensor, form: str = "released") -> Tensor:
    """The three channel means J of a photograph shall be equal (grey world).

    enhanced: (N, 3, H, W). ``paper``: mean over photographs of Σ (Jp − Jq)² over the pairs RG, RB, GB (paper,
    equation 7). ``released``: mean of √ Σ (Jp − Jq)⁴ (released code).

    The released square root has no gradient where the photograph is grey and turns training into NaN. Here it is a
    vector norm: the same value, and gradient 0 there (ours).
    """
    r, g, b = enhanced.mean(dim=(2, 3)).unbind(dim=1)
    squares = torch.stack([r - g, r - b, g - b], dim=1).square()
    if _is_released(form):
        return torch.linalg.vector_norm(squares, dim=1).mean()
    return squares.sum(dim=1).mean()


def illumination_smoothness(curves: Tensor, form: str = "released") -> Tensor:
    """Total variation of the curves: neighbouring pixels shall be bent alike.

    curves: (N, C, H, W), C = 3 × iterations or 3, H and W at least 2.

    - ``released``: 2·(Σ ∇x² / (H·(W−1)) + Σ ∇y² / ((H−1)·W)) / N, ∇x along a row and ∇y along a column; each sum
      runs over all curve channels and is divided by the number of differences in one of them (released code).
    - ``paper``: mean over photographs, iterations and pixels of Σ over colours (|∇x| + |∇y|)² (paper, equation 8);
      the mean over pixels is ours, the paper states none.
    """
    _needs(2, curves=curves)
    if _is_released(form):
        count, _, height, width = curves.shape
        rows, columns = _SquaredDifferences.apply(curves)
        return 2 * (rows / (height * (width - 1)) + columns / ((height - 1) * width)) / count
    across, down = curves.diff(dim=-1), curves.diff(dim=-2)
    gradient = across[..., :-1, :].abs() + down[..., :, :-1].abs()
    return 3 * gradient.square().mean()


class _SquaredDifferences(torch.autograd.Function):
    """Sums of the squared differences between neighbours, along rows and along columns.

    By hand, because automatic differentiation of the slices fills four tensors of the curves' size with zeros: a
    fifth of a training step.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x)
        return x.diff(dim=-1).square_().sum(), x.diff(dim=-2).square_().sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *slopes: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gradient = torch.zeros_like(x)
        for dim, slope in zip((-1, -2), slopes, strict=True):
            pull = x.diff(dim=dim).mul_(2 * slope)
            gradient.narrow(dim, 1, pull.shape[dim]).add_(pull)
            gradient.narrow(dim, 0, pull.shape[dim]).sub_(pull)
        return gradient


def loss_terms(
    enhanced: Tensor, original: Tensor, curves: Tensor, config: LossConfig = RELEASED
) -> dict[str, Tensor]:
    """The four weighted terms by name, in the order of :data:`TERMS`; their sum is the training loss.

    enhanced, original: (N, 3, H, W) in [0, 1]; curves: (N, C, H, W). A term of weight 0 is not computed (0).
    """
    zero = enhanced.new_zeros(())
    c = config
    return {
        "spatial": c.spatial * spatial_consistency(enhanced, original, c.form)
        if c.spatial
        else zero,
        "exposure": c.exposure * _exposure(enhanced, original, c) if c.exposure else zero,
        "color": c.color * color_constancy(enhanced, c.form) if c.color else zero,
        "smoothness": c.smoothness * illumination_smoothness(curves, c.form)
        if c.smoothness
        else zero,
    }


def _exposure(enhanced: Tensor, original: Tensor, config: LossConfig) -> Tensor:
    if config.exposure_of == "photograph":
        return photograph_exposure(enhanced, original, config.exposure_target, config.highlights)
    if config.exposure_of == "light":
        return light_exposure(enhanced, original, config.exposure_target)
    return exposure_control(enhanced, config.exposure_target, config.form)
