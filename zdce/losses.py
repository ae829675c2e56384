"""The losses of Zero-DCE, none of which needs a reference, in the paper's form and in the released
code's.

The two differ (absolute values against squares, sums against means, borders): ``form`` chooses.
Images are (N, 3, H, W) in [0, 1]; every loss is a scalar tensor, 0 or more. Raises ValueError for
an unknown form.

A new loss is a function, a line of :data:`LOSSES` and a weight in :class:`LossConfig`; training,
records and plots then have it.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FORMS = ("released", "paper")


def _is_released(form: str) -> bool:
    if form not in FORMS:
        raise ValueError(f"form={form!r}: choose one of {', '.join(FORMS)}")
    return form == "released"


def spatial_consistency(enhanced: Tensor, original: Tensor, form: str = "released") -> Tensor:
    """Differences between neighbouring 4×4 regions should survive the enhancement.

    enhanced, original: (N, 3, H, W), H and W at least 4. With Y and I the means of 4×4 regions over
    all channels and Δ the difference to each of the four neighbouring regions:

    - ``released``: mean over regions of Σ (ΔY − ΔI)²; beyond the border stand zeros.
    - ``paper``: mean over regions of Σ (|ΔY| − |ΔI|)²; regions have the neighbours that exist
      (equation 5; it is silent on the border, the choice is ours).
    """
    y, i = (F.avg_pool2d(x.mean(dim=1, keepdim=True), 4) for x in (enhanced, original))
    if _is_released(form):
        d = F.pad(y - i, (1, 1, 1, 1))  # differencing is linear: ΔY − ΔI = Δ(Y − I)
        centre = d[..., 1:-1, 1:-1]
        neighbours = (d[..., 1:-1, :-2], d[..., 1:-1, 2:], d[..., :-2, 1:-1], d[..., 2:, 1:-1])
        return sum((centre - n).square() for n in neighbours).mean()
    changes = [(y.diff(dim=d).abs() - i.diff(dim=d).abs()).square().sum() for d in (-1, -2)]
    return 2 * sum(changes) / y.numel()  # every pair is seen from both of its regions


def exposure_control(enhanced: Tensor, target: float = 0.6, form: str = "released") -> Tensor:
    """The mean of each 16×16 region should lie near ``target``.

    enhanced: (N, 3, H, W), H and W at least 16. With Y the regions' means over all channels:
    ``released``: mean (Y − target)². ``paper``: mean |Y − target| (equation 6).
    """
    distance = F.avg_pool2d(enhanced.mean(dim=1, keepdim=True), 16) - target
    return distance.square().mean() if _is_released(form) else distance.abs().mean()


def color_constancy(enhanced: Tensor, form: str = "released") -> Tensor:
    """The three channel means J of a photograph should be equal (grey world).

    enhanced: (N, 3, H, W). ``paper``: mean over photographs of Σ (Jp − Jq)² over the pairs RG, RB,
    GB (equation 7). ``released``: mean of √ Σ (Jp − Jq)⁴.

    The released square root has no gradient where the photograph is grey and turns training into
    NaN. Here it is a vector norm: the same value, and gradient 0 there (ours).
    """
    r, g, b = enhanced.mean(dim=(2, 3)).unbind(dim=1)
    squares = torch.stack([r - g, r - b, g - b], dim=1).square()
    if _is_released(form):
        return torch.linalg.vector_norm(squares, dim=1).mean()
    return squares.sum(dim=1).mean()


def illumination_smoothness(curves: Tensor, form: str = "released") -> Tensor:
    """Total variation of the curves: neighbouring pixels should have similar ones.

    curves: (N, C, H, W), C = 3 × iterations or 3, H and W at least 2.

    - ``released``: 2·(Σ ∇x² / (H·(W−1)) + Σ ∇y² / ((H−1)·W)) / N; each sum runs over all curve
      channels and is divided by the number of differences in one of them.
    - ``paper``: mean over photographs, iterations and pixels of Σ over colours (|∇x| + |∇y|)²
      (equation 8; the mean over pixels is ours, the paper states none).
    """
    if _is_released(form):
        count, _, height, width = curves.shape
        across = F.mse_loss(curves[..., 1:], curves[..., :-1], reduction="sum")
        down = F.mse_loss(curves[..., 1:, :], curves[..., :-1, :], reduction="sum")
        return 2 * (across / (height * (width - 1)) + down / ((height - 1) * width)) / count
    across, down = curves.diff(dim=-1), curves.diff(dim=-2)
    gradient = across[..., :-1, :].abs() + down[..., :, :-1].abs()
    return 3 * gradient.square().mean()


# Each term, of the enhanced and the original images, the curves and a LossConfig.
LOSSES = {
    "spatial": lambda new, old, curves, c: spatial_consistency(new, old, c.form),
    "exposure": lambda new, old, curves, c: exposure_control(new, c.exposure_target, c.form),
    "color": lambda new, old, curves, c: color_constancy(new, c.form),
    "smoothness": lambda new, old, curves, c: illumination_smoothness(curves, c.form),
}
TERMS = tuple(LOSSES)


@dataclass(frozen=True)
class LossConfig:
    """Weight of each term, the exposure target, and whose form of the losses is computed."""

    spatial: float = 1.0
    exposure: float = 10.0
    color: float = 5.0
    smoothness: float = 200.0
    exposure_target: float = 0.6  # paper: E, "well-exposedness" of grey in RGB
    form: str = "released"

    def __post_init__(self) -> None:
        _is_released(self.form)
        for name in TERMS:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}: a loss weight must be 0 or more")
        if not 0 <= self.exposure_target <= 1:
            raise ValueError(f"exposure_target={self.exposure_target}: must lie in [0, 1]")


PAPER = LossConfig(spatial=1.0, exposure=1.0, color=0.5, smoothness=20.0, form="paper")
RELEASED = LossConfig()
IMPROVED = LossConfig(smoothness=300.0)


def loss_terms(
    enhanced: Tensor, original: Tensor, curves: Tensor, config: LossConfig = RELEASED
) -> dict[str, Tensor]:
    """The weighted terms by name, in the order of :data:`TERMS`; their sum is the training loss. A
    term of weight 0 is not computed (0). enhanced, original: (N, 3, H, W) in [0, 1]; curves: (N, C,
    H, W).
    """
    zero = enhanced.new_zeros(())
    return {
        name: w * loss(enhanced, original, curves, config) if (w := getattr(config, name)) else zero
        for name, loss in LOSSES.items()
    }
