"""Photograph in, brighter photograph out, in memory; files and folders are in :mod:`zdce.folders`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zdce import checkpoints
from zdce.engine import compiled as fast
from zdce.engine import winograd
from zdce.model import LUMA, CurveNet, apply_curves
from zdce.photos import (
    Photo,
    from_pil,
    to_pil,
    to_pixels,
)
from zdce.postprocess import apply_gamma, blend, check_gamma, check_strength, gamma_table

SPEEDS = ("faithful", "fast")


class Enhancer:
    """Brightens photographs with one network.

    model: a name of ``zdce.checkpoints.MODELS``. weights: a weight file (``.safetensors``, ``.pth``, ``.pt``) in its
    place. gamma: post-processing on the rounded image; None takes the model's own (1.15 for the improved network,
    else 1, which does nothing). strength in [0, 1]: mix with the original, applied last. device: "cpu", "cuda", or
    "auto" for a GPU where there is one.

    speed: "faithful" shows the network every pixel, in tiles that overlap exactly; "fast" shows it a copy reduced to
    80 pixels, brings its curves back bilinearly and bends 8-bit pixels in one pass (fastest with the extra ``fast``).
    Either way memory beyond the photograph and its result is bounded. bf16: whether the network computes 8-bit
    photographs in bfloat16 (results within one grey level, but for one pixel in a hundred); None where that is
    faster: where the processor has it, and the extra ``fast`` is not installed.
    Results do not depend on the number of threads. Raises ValueError naming the argument.
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
        bf16: bool | None = None,
    ) -> None:
        if speed not in SPEEDS:
            raise ValueError(f"speed={speed!r}: choose {' or '.join(SPEEDS)}")
        if gamma is not None:
            check_gamma(gamma)
        check_strength(strength)
        self.options = {"model": model, "weights": weights and os.fspath(weights), "gamma": gamma}
        self.options |= {"strength": strength, "device": device, "speed": speed, "bf16": bf16}
        self.device = _device(device)
        self.model = checkpoints.load(model if weights is None else weights)
        self.net = self.model.net.to(self.device).eval()
        self.gamma = self.model.gamma if gamma is None else gamma
        self.strength = strength
        self.speed = speed
        if speed == "fast" and not isinstance(self.net, CurveNet):
            raise ValueError(
                f"speed='fast': {self.net.__class__.__name__} has no curves to estimate on a reduced copy"
            )
        slow = self.device.type == "cpu" and not winograd.can_run(self.net)
        self.bf16 = slow and fast.has_bf16() if bf16 is None else bf16
        self._packed: dict[bool, winograd.Winograd | fast.Packed | None] = {}

    def __call__(self, photo):
        """The enhanced photograph, of the kind, size and depth of ``photo``.

        photo: a Pillow image; a :class:`Photo`; an array (H, W, 3) uint8, uint16, or float in [0, 1]; a float
        tensor (3, H, W) or (N, 3, H, W) in [0, 1]. Floats are not rounded before gamma. Alpha is untouched and
        grey stays grey (BT.601 luma of the enhanced colours). A Pillow image comes back in its own mode, except
        that palette, 1-bit and CMYK, which cannot hold the new colours, become RGB, L or LA/RGBA. Raises TypeError
        or ValueError for anything else, PhotoError for a Pillow mode that is not read.
        """
        if isinstance(photo, Image.Image):
            return self._image(photo)
        if isinstance(photo, Photo):
            return replace(photo, pixels=self._levels(photo.pixels, photo.gray))
        if isinstance(photo, np.ndarray):
            return self._array(photo)
        if isinstance(photo, Tensor):
            return self._tensor(photo)
        raise TypeError(
            f"photo is a {type(photo).__name__}: give a Pillow image, an array or a tensor"
        )

    def _image(self, image: Image.Image) -> Image.Image:
        enhanced = to_pil(self(from_pil(image)))
        if image.mode in ("I", "La", "RGBa", "RGBX", "YCbCr"):
            enhanced = enhanced.convert(image.mode)
        dropped = (
            {"transparency"} if image.mode != enhanced.mode or "A" in enhanced.getbands() else set()
        )
        dropped |= {"icc_profile"} if image.mode == "CMYK" else set()
        enhanced.info |= {key: value for key, value in image.info.items() if key not in dropped}
        return enhanced

    def _array(self, array: np.ndarray) -> np.ndarray:
        if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise ValueError(f"photo has shape {array.shape}: give (H, W, 3), or a Pillow image")
        if array.dtype in (np.uint8, np.uint16):
            return self._levels(array)
        if array.dtype.kind != "f":
            raise ValueError(f"photo is {array.dtype}: give uint8, uint16, or float in [0, 1]")
        tensor = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1), dtype=np.float32))
        enhanced = self._tensor(tensor).numpy().transpose(1, 2, 0).astype(array.dtype)
        return blend(array, array, 0) if self.strength == 0 else np.ascontiguousarray(enhanced)

    def _tensor(self, tensor: Tensor) -> Tensor:
        if tensor.ndim not in (3, 4) or tensor.shape[-3] != 3 or 0 in tensor.shape:
            raise ValueError(
                f"photo has shape {tuple(tensor.shape)}: give (3, H, W) or (N, 3, H, W)"
            )
        if not tensor.is_floating_point():
            raise ValueError(f"photo is {tensor.dtype}: give floats in [0, 1]")
        if not (tensor.min() >= 0 and tensor.max() <= 1):
            raise ValueError(
                f"photo has values {tensor.min():g} – {tensor.max():g}: floats must lie in [0, 1]"
            )
        if self.strength == 0:
            return tensor.clone()
        original = tensor.detach().reshape(-1, *tensor.shape[-3:])
        enhanced = torch.cat([self._enhanced(one[None].float()) for one in original])
        enhanced = enhanced.to(tensor.device).clamp_(0, 1).pow_(self.gamma)
        mixed = torch.lerp(original.float(), enhanced, float(self.strength))
        return mixed.reshape(tensor.shape).to(tensor.dtype)

    def _levels(self, pixels: np.ndarray, gray: bool = False) -> np.ndarray:
        """(H, W, 3) uint8 or uint16, enhanced: network, rounding, gamma, mix."""
        if self.strength == 0:
            return pixels.copy()
        pixels = np.require(pixels, requirements=["C", "W"])
        grid = self._grid(pixels)
        eight_bits = pixels.dtype == np.uint8 and not gray
        if eight_bits and fast.numba and (grid is not None or self._in_one_pass()):
            table = None if self.gamma == 1 else gamma_table(self.gamma)
            out = fast.bend(pixels, grid, table) if grid else self._finished(pixels, table)
            if self.strength == 1:
                return out

            def finished(tile: fast.Tile) -> np.ndarray:
                return blend(
                    pixels[tile.rows, tile.columns], out[tile.rows, tile.columns], self.strength
                )
        else:
            enhanced, out = self._by_tile(pixels, grid), np.empty_like(pixels)

            def finished(tile: fast.Tile) -> np.ndarray:
                image = enhanced(tile)
                if gray:
                    image = (image * image.new_tensor(LUMA).view(3, 1, 1)).sum(dim=1, keepdim=True)
                    image = image.expand(-1, 3, -1, -1)
                part = apply_gamma(to_pixels(image, pixels.dtype), self.gamma)
                return blend(pixels[tile.rows, tile.columns], part, self.strength)

        def fill(tile: fast.Tile) -> None:
            out[tile.rows, tile.columns] = finished(tile)

        fast.parallel(fill, self._tiles(*pixels.shape[:2]))
        return out

    def _in_one_pass(self) -> bool:
        """Whether the network goes from 8 bits to 8 bits by itself."""
        ready = self._ready(np.dtype(np.uint8))
        return fast.plain(self.net) and isinstance(ready, winograd.Winograd) and ready.in_one_pass

    def _finished(self, pixels: np.ndarray, table: np.ndarray | None) -> np.ndarray:
        """The network as machine code on (H, W, 3) uint8, tile by tile; rounded, and through the table."""
        ready, out = self._ready(pixels.dtype), np.empty_like(pixels)
        parts = self._tiles(*pixels.shape[:2])
        fast.parallel(lambda tile: ready.finish(pixels, out, tile.rows, tile.columns, table), parts)
        return out

    def _enhanced(self, image: Tensor) -> Tensor:
        """Network on (1, 3, H, W) float32 in [0, 1]; same shape, on the CPU."""
        pixels = image[0].permute(1, 2, 0).cpu().numpy()
        enhanced = self._by_tile(pixels, self._grid(pixels))
        out = torch.empty(image.shape)

        def fill(tile: fast.Tile) -> None:
            out[..., tile.rows, tile.columns] = enhanced(tile)

        fast.parallel(fill, self._tiles(*pixels.shape[:2]))
        return out

    def _tiles(self, height: int, width: int) -> list[fast.Tile]:
        halo = fast.halo(self.net, self.speed == "fast" or fast.reduces(self.net))
        if halo is None:
            return list(
                fast.tiles(height, width, 0, (height, width))
            )  # a network that wants the whole photograph
        return list(
            fast.tiles(
                height, width, halo, fast.TILE if self.device.type == "cpu" else (1024, 1024)
            )
        )

    @torch.inference_mode()
    def _grid(self, pixels: np.ndarray) -> fast.Grid | None:
        """Curves on a coarse grid; None when the network is to see every pixel."""
        if self.speed == "faithful" and not fast.reduces(self.net):
            return None
        return fast.estimated(self.net, pixels, self._ready(pixels.dtype), self.speed == "fast")

    def _by_tile(self, pixels: np.ndarray, grid: fast.Grid | None) -> Callable[[fast.Tile], Tensor]:
        """What enhances one tile of ``pixels``: (1, 3, h, w) float32 in [0, 1], on the CPU."""
        height, width = pixels.shape[:2]
        packed = self._ready(pixels.dtype) if fast.plain(self.net) and not grid else None

        @torch.inference_mode()
        def enhanced(tile: fast.Tile) -> Tensor:
            if grid:
                if grid.noise is None:
                    image = fast.scaled(pixels[tile.rows, tile.columns]).contiguous()
                else:
                    image = fast.scaled(pixels[tile.seen_rows, tile.seen_columns]).contiguous()
                    image = fast.denoised(image, grid, tile, height, width)[
                        (..., *tile.inside)
                    ].contiguous()
                return fast.applied(image, grid, tile, height, width)
            machine_code = isinstance(packed, winograd.Winograd)
            if machine_code:
                tile = replace(tile, **packed.window(tile.rows, tile.columns, height, width))
            image = fast.scaled(pixels[tile.seen_rows, tile.seen_columns])
            inside = (..., *tile.inside)
            if machine_code:
                curves = packed.curves(image)[inside].contiguous()
                return apply_curves(image[inside].contiguous(), curves, self.net.config.iterations)
            if packed:
                return fast.bent(
                    image[inside].contiguous(),
                    packed.raw(image)[inside],
                    self.net.config.iterations,
                )
            return self.net(image.contiguous().to(self.device))[0][inside].cpu()

        return enhanced

    def _ready(self, dtype: np.dtype) -> winograd.Winograd | fast.Packed | None:
        """The network made ready for photographs of this kind; None where it is used as it is."""
        half = self.bf16 and dtype == np.uint8
        if half not in self._packed:
            self._packed[half] = fast.ready(self.net, half)
        return self._packed[half]


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={name!r}: choose auto, cpu or cuda")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError("device='cuda': no CUDA GPU is available here; choose cpu or auto")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
