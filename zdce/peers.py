"""Published networks of others, for scoring beside the study's own.

Zero-DCE++ is a :class:`~zdce.model.CurveNet` of another configuration; SCI has its own network.
"""

from torch import Tensor, nn

from zdce.model import NetConfig

ZERO_DCE_PP = NetConfig(separable=True, shared_curves=True)


class SciNet(nn.Module):
    """SCI's enhancement block: estimates the illumination and divides the photograph by it.

    Source: released code of "Toward Fast, Flexible, and Robust Low-Light Image Enhancement" (CVPR
    2022), one stage, three channels. Published weights only; this project does not train it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.in_conv = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())
        self.conv = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())
        self.out_conv = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) in [0, 1] → the enhanced, likewise, and its illumination in (0, 1]."""
        features = self.in_conv(image)
        illumination = (self.out_conv(features + self.conv(features)) + image).clamp(1e-4, 1.0)
        return (image / illumination).clamp(0.0, 1.0), illumination
