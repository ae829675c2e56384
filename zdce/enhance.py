"""Photograph in, brighter photograph out: in memory, and for files and folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from zdce import checkpoints
from zdce.model import CurveNet, SciNet
from zdce.photos import (
    SUFFIXES,
    Photo,
    PhotoError,
    from_pil,
    read_photo,
    to_pil,
    to_pixels,
    to_tensor,
    write_photo,
)
from zdce.postprocess import apply_gamma, blend, check_gamma, check_strength

STRIP_PIXELS = 2**20  # 2.0 GB at 32 channels on a CPU, 3.4 GB for twice as many
HALO = 16  # pixels above and below a strip; the deepest of the local networks sees 10
LUMA = (0.299, 0.587, 0.114)  # BT.601, as Pillow turns colour grey


class Enhancer:
    """Brightens photographs with one network.

    model: a name of ``zdce.checkpoints.MODELS``. weights: a weight file (``.safetensors``, ``.pth``, ``.pt``) in its
    place. gamma: post-processing on the rounded image; None takes the model's own (1.15 for the improved network,
    else 1, which does nothing). strength in [0, 1]: mix with the original, applied last. device: "cpu", "cuda", or
    "auto" for a GPU where there is one. Raises ValueError naming the argument.
    """

    def __init__(
        self,
        model: str = "zero-dce-improved",
        *,
        weights: str | os.PathLike | None = None,
        gamma: float | None = None,
        strength: float = 1.0,
        device: str = "auto",
    ) -> None:
        if gamma is not None:
            check_gamma(gamma)
        check_strength(strength)
        self.device = _device(device)
        self.model = checkpoints.load(model if weights is None else weights)
        self.net = self.model.net.to(self.device).eval()
        self.gamma = self.model.gamma if gamma is None else gamma
        self.strength = strength

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
        raise TypeError(f"photo is a {type(photo).__name__}: give a Pillow image, an array or a tensor")

    def _image(self, image: Image.Image) -> Image.Image:
        enhanced = to_pil(self(from_pil(image)))
        if image.mode in ("I", "La", "RGBa", "RGBX", "YCbCr"):
            enhanced = enhanced.convert(image.mode)
        dropped = {"transparency"} if image.mode != enhanced.mode or "A" in enhanced.getbands() else set()
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
            raise ValueError(f"photo has shape {tuple(tensor.shape)}: give (3, H, W) or (N, 3, H, W)")
        if not tensor.is_floating_point():
            raise ValueError(f"photo is {tensor.dtype}: give floats in [0, 1]")
        if not (tensor.min() >= 0 and tensor.max() <= 1):
            raise ValueError(f"photo has values {tensor.min():g} – {tensor.max():g}: floats must lie in [0, 1]")
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
        enhanced = self._enhanced(to_tensor(pixels))
        if gray:
            luma = (enhanced * enhanced.new_tensor(LUMA).view(3, 1, 1)).sum(dim=1, keepdim=True)
            enhanced = luma.expand(-1, 3, -1, -1)
        return blend(pixels, apply_gamma(to_pixels(enhanced, pixels.dtype), self.gamma), self.strength)

    @torch.inference_mode()
    def _enhanced(self, image: Tensor) -> Tensor:
        """Network on (1, 3, H, W) float32 in [0, 1]; same shape, on the CPU.

        A large photograph goes through a local network in strips with a halo, so that memory does not grow with
        its size. The result is that of the whole, but for the last bits of floating-point sums.
        """
        height, width = image.shape[-2:]
        rows = max(1, STRIP_PIXELS // width)
        if height <= rows or not _is_local(self.net):
            return self.net(image.to(self.device))[0].cpu()
        out = torch.empty_like(image)
        for top in range(0, height, rows):
            bottom, first = min(top + rows, height), max(0, top - HALO)
            strip = self.net(image[..., first : bottom + HALO, :].to(self.device))[0]
            out[..., top:bottom, :] = strip[..., top - first : bottom - first, :].cpu()
        return out


def _is_local(net: nn.Module) -> bool:
    """Whether a pixel's result depends on its near neighbours alone."""
    if isinstance(net, CurveNet):
        return net.config.scale == 1 and net.config.fixed_size is None and net.config.pooling != "stride2"
    return isinstance(net, SciNet)


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={name!r}: choose auto, cpu or cuda")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError("device='cuda': no CUDA GPU is available here; choose cpu or auto")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


@dataclass
class Outcome:
    """What became of :func:`enhance_files`: the files written, and (source, reason) of those that failed."""

    written: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)


def enhance_files(
    sources: Iterable[str | os.PathLike], out: str | os.PathLike, enhancer: Enhancer, *, progress: bool = True
) -> Outcome:
    """Enhance files, and folders with all that lies below them, into ``out``; format, name and place are kept.

    sources: files are taken whatever their name; in folders, those with a photo suffix, hidden ones left out.
    out: a folder, created if need be; or a file name when the one source is a file and ``out`` has a photo suffix.
    A photograph that fails gives one line on stderr, the rest is still done, and the outcome lists it. An output
    of an earlier run is replaced, an input never: ValueError, before anything is written, when an output would
    fall on an input, when two sources would share an output, and when there is no source. Source: ours.
    """
    sources, out = [Path(source) for source in sources], Path(out)
    outcome = Outcome()
    jobs = _plan(sources, out, outcome)
    bar = tqdm(jobs, desc="enhance", unit="photo", disable=not progress)
    for _, reason in outcome.failed:
        tqdm.write(reason, file=sys.stderr)
    for source, target in bar:
        try:
            write_photo(enhancer(read_photo(source)), target)
            outcome.written.append(target)
        except (PhotoError, MemoryError, RuntimeError) as error:  # RuntimeError: out of memory, in torch
            reason = str(error) if isinstance(error, PhotoError) else f"{source}: {_first_line(error)}"
            outcome.failed.append((source, reason))
            tqdm.write(reason, file=sys.stderr)
    return outcome


def _plan(sources: list[Path], out: Path, outcome: Outcome) -> list[tuple[Path, Path]]:
    """(source, target) of all there is to do; folders without a photograph go to ``outcome.failed``."""
    to_file = out.suffix.lower() in SUFFIXES and not out.is_dir()
    if not sources:
        raise ValueError("sources: name at least one photograph or folder")
    if to_file and (len(sources) > 1 or sources[0].is_dir()):
        raise ValueError(f"out={out}: a file name goes with a single photograph; name a folder for more")
    if out.exists() and not out.is_dir() and not to_file:
        raise ValueError(f"out={out}: is a file without a photo suffix; name a folder or a photo file")
    jobs: dict[Path, Path] = {}  # by target
    for source in sources:
        pairs = [(source, out)] if to_file else list(_targets(source, out))
        if not pairs:
            outcome.failed.append((source, f"{source}: holds no photographs ({', '.join(SUFFIXES)})"))
        for path, target in pairs:
            owner = jobs.setdefault(target, path)
            if not _same(owner, path):
                raise ValueError(f"{owner} and {path} would both be written to {target}: enhance them apart")
    inputs = {_identity(path): path for path in jobs.values()}
    for target in jobs:
        if _identity(target) in inputs:
            raise ValueError(f"out={out}: would overwrite the input {inputs[_identity(target)]}; name another folder")
    return [(path, target) for target, path in jobs.items()]


def _targets(source: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """(file, its place below ``out``) for a file or a folder; results of an earlier run inside it are left out."""
    if not source.is_dir():
        yield source, out / source.name
        return
    for folder, folders, names in os.walk(source):
        here = Path(folder)
        folders[:] = sorted(n for n in folders if not n.startswith(".") and not _same(here / n, out))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield here / name, out / (here / name).relative_to(source)


def _same(one: Path, other: Path) -> bool:
    return _identity(one) == _identity(other)


def _identity(path: Path) -> tuple[int, int] | Path:
    """Equal for two names of one file."""
    try:
        stat = path.stat()
    except OSError:
        return path.absolute()
    return stat.st_dev, stat.st_ino


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
