"""A photograph with less light, noise included: how dark pictures are made from good ones."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from zdce import color


@dataclass(frozen=True)
class Camera:
    """A linear sensor with shot noise and read noise; electrons per pixel and channel (ours).

    The Poissonian-Gaussian model of Foi et al., IEEE TIP 17(10), 2008. Left out: colour filter
    mosaic, white balance, tone curve, denoising, JPEG. At three stops under, the noise is 1.5 – 2.3
    grey levels; dark parts of the real `bursts` have 1.2 – 2.1 in five of six scenes.
    """

    white: float = 8000.0  # electrons at white: a full well of 32,000 (APS-C) two stops above base
    read_noise: float = 3.0  # electrons; as JPEG XL's photon noise tool assumes, cameras of 2010 on


CAMERA = Camera()


def expose(
    pixels: np.ndarray, stops: float, seed: int | Iterable[int], camera: Camera = CAMERA
) -> np.ndarray:
    """A photograph taken again with ``stops`` less light, or more if negative.

    pixels: (H, W, 3) uint8 sRGB, returned likewise. Same seed, same picture.
    """
    rng = np.random.default_rng(seed)
    electrons = (color.to_light(np.arange(256) / 255) * camera.white * 2.0**-stops)[pixels]
    electrons = rng.poisson(electrons) + rng.normal(0.0, camera.read_noise, pixels.shape)
    light = np.clip(electrons / camera.white, 0, 1)
    return np.round(255 * color.to_tone(light)).astype(np.uint8)
