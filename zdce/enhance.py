"""Photograph in, brighter photograph out, in memory; :mod:`zdce.folders` has files and folders."""

import os
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zdce import checkpoints, engine
from zdce.model import device_of
from zdce.peers import SciNet
from zdce.photos import Photo, from_pil, to_pil
from zdce.postprocess import check_gamma

SPEEDS = ("faithful", "fast")


class Enhancer:
    """Brightens photographs.

    model: a name of ``zdce.checkpoints.MODELS``. weights: a weight file (``.safetensors``,
    ``.pth``, ``.pt``) in its place. gamma: post-processing on the rounded image; None takes the
    model's own (1.15 for the improved network, else 1, which does nothing). strength in [0, 1]: mix
    with the original, applied last. device: "cpu", "cuda", or "auto" for a GPU where there is one.
    speed: "faithful" shows a network every pixel, "fast" a copy reduced to 80 pixels.

    ``engine`` is what computes (:func:`zdce.engine.choose`), in bounded memory; results do not
    depend on the number of threads. Raises ValueError naming the argument, FileNotFoundError for
    published weights that were not fetched.
    """

    def __init__(
        self,
        model: str = checkpoints.DEFAULT,
        *,
        weights: str | os.PathLike | None = None,
        gamma: float | None = None,
        strength: float = 1.0,
        device: str = "auto",
        speed: str = "faithful",
    ) -> None:
        if speed not in SPEEDS:
            raise ValueError(f"speed={speed!r}: choose {' or '.join(SPEEDS)}")
        if gamma is not None:
            check_gamma(gamma)
        if not 0 <= strength <= 1:
            raise ValueError(f"strength={strength}: must lie between 0 (the original) and 1")
        self.options = {"model": model, "weights": weights and os.fspath(weights), "gamma": gamma}
        self.options |= {"strength": strength, "device": device, "speed": speed}
        self.device = device_of(device)
        self.model = checkpoints.load(model if weights is None else weights)
        self.net = self.model.net
        if speed == "fast" and isinstance(self.net, SciNet):
            raise ValueError("speed='fast': SCI has no curves to estimate on a reduced copy")
        self.engine = engine.choose(self.net, self.device, reduced=speed == "fast")
        self.gamma = self.model.gamma if gamma is None else gamma
        self.strength, self.speed = strength, speed

    def __call__(self, photo):
        """The enhanced photograph, of the kind, size and depth of ``photo``.

        photo: a Pillow image; a :class:`Photo`; an array (H, W, 3) uint8, uint16, or float in
        [0, 1]; a float tensor (3, H, W) or (N, 3, H, W) in [0, 1]. Floats are not rounded. Alpha is
        untouched and grey stays grey (BT.601 luma of the enhanced colours). Palette, 1-bit and CMYK
        images become RGB, L or LA/RGBA. Raises TypeError or ValueError for anything else,
        PhotoError for a Pillow mode that is not read.
        """
        if isinstance(photo, Image.Image):
            return self._image(photo)
        if isinstance(photo, Photo):
            return replace(photo, pixels=self._rendered(photo.pixels, photo.gray))
        if isinstance(photo, np.ndarray):
            return self._array(photo)
        if isinstance(photo, Tensor):
            return self._tensor(photo)
        kind = type(photo).__name__
        raise TypeError(f"photo is a {kind}: give a Pillow image, an array or a tensor")

    def _image(self, image: Image.Image) -> Image.Image:
        enhanced = to_pil(self(from_pil(image)))
        if image.mode in ("I", "La", "RGBa", "RGBX", "YCbCr"):
            enhanced = enhanced.convert(image.mode)
        changed = image.mode != enhanced.mode or "A" in enhanced.getbands()
        dropped = ["transparency"] * changed + ["icc_profile"] * (image.mode == "CMYK")
        enhanced.info |= {key: value for key, value in image.info.items() if key not in dropped}
        return enhanced

    def _array(self, array: np.ndarray) -> np.ndarray:
        if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise ValueError(f"photo has shape {array.shape}: give (H, W, 3), or a Pillow image")
        if array.dtype.kind == "f":
            _check_range(array.min(), array.max())
        elif array.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"photo is {array.dtype}: give uint8, uint16, or float in [0, 1]")
        return self._rendered(array)

    def _tensor(self, tensor: Tensor) -> Tensor:
        if tensor.ndim not in (3, 4) or tensor.shape[-3] != 3 or 0 in tensor.shape:
            shape = tuple(tensor.shape)
            raise ValueError(f"photo has shape {shape}: give (3, H, W) or (N, 3, H, W)")
        if not tensor.is_floating_point():
            raise ValueError(f"photo is {tensor.dtype}: give floats in [0, 1]")
        _check_range(tensor.min(), tensor.max())
        if self.strength == 0:
            return tensor.clone()
        photos = tensor.detach().reshape(-1, *tensor.shape[-3:]).float().permute(0, 2, 3, 1)
        render, options = self.engine.render, {"gamma": self.gamma, "strength": self.strength}
        done = torch.stack([render(self.engine.put(each), **options) for each in photos])
        return done.permute(0, 3, 1, 2).reshape(tensor.shape).to(tensor.device, tensor.dtype)

    def _rendered(self, pixels: np.ndarray, gray: bool = False) -> np.ndarray:
        """(H, W, 3) pixels, enhanced; with strength 0 they stay as they are to the last bit."""
        if self.strength == 0:
            return pixels.copy()
        given = pixels.astype(np.float32) if pixels.dtype.kind == "f" else pixels
        options = {"gamma": self.gamma, "strength": self.strength, "gray": gray}
        return self.engine.render(given, **options).astype(pixels.dtype, copy=False)


def _check_range(low: float, high: float) -> None:
    if not (low >= 0 and high <= 1):
        raise ValueError(f"photo has values {low:g} – {high:g}: floats must lie in [0, 1]")
