"""What many tests are made of: photographs, files of them, a small network that brightens."""

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from zdce.model import CurveNet
from zdce.photos import read_photo

SRGB = bytes(imagecodecs.cms_profile("srgb"))


def dark(height=24, width=30, dtype=np.uint8, seed=0):
    """A dark photograph: a ramp with some noise, (height, width, 3) of ``dtype``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    ramp = (x / width + y / height)[..., None] * [0.2, 0.15, 0.1]
    pixels = ramp + rng.random((height, width, 3)) * 0.1
    return np.rint(pixels * np.iinfo(dtype).max).astype(dtype)


def photographs(folder: Path, count: int, suffix: str = "jpg") -> None:
    """Small photographs of rising brightness and some sizes, 0000.jpg and on."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for k, level in enumerate(np.linspace(20, 235, count)):
        small = np.clip(rng.normal(level, 25, (6, 8, 3)), 0, 255).astype(np.uint8)
        size = (60 + k % 7, 45 - k % 7)
        whole = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
        whole.save(folder / f"{k:04}.{suffix}")


def trained(width=4, **fields):
    """A small network whose curves brighten, with different strength per place and colour."""
    torch.manual_seed(0)
    net = CurveNet(width=width, **fields).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.5 / width**0.5)
        last = net.e_conv7.point_conv.bias if net.config.separable else net.e_conv7.bias
        last.copy_(torch.linspace(-0.9, -0.3, len(last)))
    return net


def noise(*shape, dtype=np.uint8, seed=0):
    """Values of the whole range of ``dtype``."""
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def smooth(height=20, width=30):
    """A picture that lossy formats keep well, (height, width, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    return np.dstack([40 + 2 * x, 30 + 2 * y, 90 + x - y // 2]).astype(np.uint8)


# Files, as bytes


def encoded(picture, fmt, **options):
    """A file by Pillow, of an array or an image."""
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def tiff(values, **options):
    """A TIFF by tifffile."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **{"metadata": None} | options)
    return buffer.getvalue()


def heic(picture, **options):
    """A HEIC file of an array or an image."""
    reason = 'pip install "zdce[heif]" brings it back'
    pytest.importorskip("pillow_heif", reason=reason).register_heif_opener()
    return encoded(picture, "HEIF", **{"quality": 95} | options)


def dng(values):
    """A raw file as cameras write it: colours behind a mosaic of red, green, green, blue."""
    pytest.importorskip("rawpy", reason='pip install "zdce[raw]" brings it back')
    to_camera = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)
    matrix = tuple(part for value in to_camera for part in (round(1e4 * value), 10_000))
    tags = [(50706, 1, 4, b"\1\4\0\0", True), (50708, 2, 0, "A camera", True)]
    tags += [(271, 2, 0, "Maker", True), (272, 2, 0, "Model", True)]
    tags += [(33421, 3, 2, (2, 2), True), (33422, 1, 4, b"\0\1\1\2", True)]
    tags += [(50714, 5, 1, (0, 1), True), (50717, 4, 1, 65535, True)]
    tags += [(50721, 10, 9, matrix, True), (50728, 5, 3, (1, 1, 1, 1, 1, 1), True)]
    return tiff(values, photometric=32803, extratags=tags)


def read(folder, data, name="a.jpg"):
    """The photograph of a file with these bytes."""
    (folder / name).write_bytes(data)
    return read_photo(folder / name)
