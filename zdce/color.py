"""What a photograph's numbers mean as colour: sRGB before, the file's own encoding after.

The networks and the curve expect sRGB. Where a profile or a file's code points say otherwise
(linear light, Display P3, Adobe RGB, ProPhoto), values go through their tone curve and primaries to
sRGB in 16 bits before, and back after; what lies beyond sRGB's gamut is added again in proportion
to the light. LittleCMS reads and makes the profiles.
"""

import io
import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

import imagecodecs
import numpy as np
from PIL import ImageCms

LEVELS = 65536
BAND = 2**18  # pixels that are converted at a time
SAME = 0.5 / 255  # tones nearer to sRGB's than half a level of 8 bits are sRGB's
EXACT = 0x0100  # LittleCMS without its coarse table in between, which is wrong in the dark
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
GRAY = "1LI"  # what the names of Pillow's modes without colour begin with
HDR = {16: "PQ", 18: "HLG"}  # transfer functions whose light the networks have never seen
# ITU-T H.273: primaries as x and y of red, green and blue; 1 (BT.709) is sRGB's, 2 unspecified.
D65 = (0.3127, 0.3290)
PRIMARIES = {
    1: (0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    9: (0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    12: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
ADOBE = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06), 2.19921875  # Adobe RGB (1998): primaries, gamma
# Transfer functions: linear light; those of sRGB and BT.709, which stills show alike.
GAMMAS = {8: 1.0} | dict.fromkeys((1, 2, 6, 13, 14, 15))


class PhotoError(ValueError):
    """A photograph that cannot be read or written: one line with the file's name and the reason."""


def refuse_high_dynamic_range(transfer: int) -> None:
    """PhotoError for the code points of PQ and HLG, whose light goes far beyond sRGB's white."""
    if transfer in HDR:
        kind = f"a picture of high dynamic range (HDR, {HDR[transfer]}), which is not read"
        raise PhotoError(f"{kind}: export it as sRGB or Display P3 first")


def by_code_points(primaries: int, transfer: int, mode: str) -> bytes | None:
    """Profile of H.273 code points for pixels of Pillow's ``mode``; None where they are sRGB's.
    Raises PhotoError.
    """
    refuse_high_dynamic_range(transfer)
    if transfer not in GAMMAS or primaries not in (2, *PRIMARIES):
        stated = f"primaries {primaries} and transfer function {transfer}"
        raise PhotoError(f"colour by {stated}, not read: export it as sRGB")
    return profile(PRIMARIES.get(primaries, PRIMARIES[1]), GAMMAS[transfer], gray=mode[0] in GRAY)


def by_gamma(gamma: float, chromaticity: tuple[float, ...] | None, mode: str) -> bytes | None:
    """As :func:`by_code_points`, of a PNG's ``gAMA`` (0.45455 is taken as sRGB) and ``cHRM``
    (white, red, green, blue).
    """
    power = None if abs(gamma - 1 / 2.2) < 0.01 or not 0.1 < gamma < 10 else 1 / gamma
    white, primaries = D65, PRIMARIES[1]
    if chromaticity and not np.allclose(chromaticity, (*white, *primaries), atol=0.005):
        white, primaries = tuple(chromaticity[:2]), tuple(chromaticity[2:])
    try:
        return profile(primaries, power, white, mode[0] in GRAY)
    except Exception:  # no colours at all
        return None


def profile(
    primaries: tuple[float, ...],
    gamma: float | None = None,
    white: tuple[float, float] = D65,
    gray: bool = False,
) -> bytes | None:
    """ICC profile for RGB or grey with these chromaticities, x and y, and tones: sRGB's without
    ``gamma``; None for sRGB itself.
    """
    if gamma is None and (gray or (white, primaries) == (D65, PRIMARIES[1])):
        return None
    light = np.rint(65535 * to_light(np.linspace(0, 1, 1024))).astype(np.uint16)
    tones = {"transferfunction": light} if gamma is None else {"gamma": gamma}
    colors = {} if gray else {"whitepoint": white, "primaries": primaries}
    made = bytes(imagecodecs.cms_profile("gray" if gray else "rgb", **colors, **tones))
    return made[:24] + bytes(12) + made[36:]  # without the time of its making


def fitting(icc: bytes | None, mode: str) -> bytes | None:
    """A profile, where it is for pixels of Pillow's ``mode``: another would falsify every colour;
    CMYK goes through its own.
    """
    space = b"GRAY" if mode[0] in GRAY else b"RGB "
    return icc if icc and icc[16:20] == space and mode != "CMYK" else None


@lru_cache(16)
def meaning(icc: bytes | None) -> tuple[np.ndarray, np.ndarray] | None:
    """What a profile for RGB or grey says: (3, 65536) the linear light in [0, 1] of each value in
    16 bits, and (3, 3) from that light to sRGB's.

    None where values are sRGB's, to half a level of 8 bits, and where LittleCMS makes nothing of
    the profile. Raises PhotoError for PQ and HLG.
    """
    if not icc:
        return None
    if marked := re.search(rb"cicp\0{4}.(.)", icc, re.DOTALL):
        refuse_high_dynamic_range(marked[1][0])
    try:
        light, matrix = _light(icc), _matrix(icc)
    except Exception:  # damaged, or for other things than pictures
        return None
    if light is None:
        return None
    if np.abs(matrix - np.eye(3)).max() < 0.002:
        matrix = np.eye(3)
        if np.abs(to_tone(light) - np.linspace(0, 1, LEVELS)).max() < SAME:
            return None
    return np.broadcast_to(light.astype(np.float32), (3, LEVELS)), matrix.astype(np.float32)


def _light(icc: bytes) -> np.ndarray | None:
    """(3 or 1, 65536): linear light of a profile's values; None where it does not rise."""
    kind, count = ("gray", 1) if icc[16:20] == b"GRAY" else ("rgb", 3)
    ramp = np.eye(count, dtype=np.uint16)[:, None] * np.arange(LEVELS, dtype=np.uint16)[:, None]
    light = imagecodecs.cms_transform(
        ramp[..., 0] if kind == "gray" else ramp,
        icc,
        imagecodecs.cms_profile("gray", gamma=1.0),
        colorspace=kind,
        outcolorspace="gray",
        outdtype=np.float32,
    )
    light = light.reshape(count, LEVELS).astype(np.float64)
    light = light - light[:, :1]
    if not (light[:, -1] > 0).all() or (np.diff(light) < -1e-6).any():
        return None
    return np.clip(light / light[:, -1:], 0, 1)


def _matrix(icc: bytes) -> np.ndarray:
    """(3, 3): linear light by a profile's primaries → by sRGB's, white on white; unity for grey."""
    if icc[16:20] == b"GRAY":
        return np.eye(3)
    files = (io.BytesIO(icc), ImageCms.createProfile("sRGB"))
    about = [ImageCms.ImageCmsProfile(each).profile for each in files]
    names = ("red_colorant", "green_colorant", "blue_colorant")
    own, srgb = (np.array([getattr(each, name)[0] for name in names]).T for each in about)
    matrix = np.linalg.solve(srgb, own)
    return matrix / matrix.sum(axis=1, keepdims=True)


def to_srgb(pixels: np.ndarray, icc: bytes) -> np.ndarray:
    """(H, W, 3) uint8 or uint16 of a file whose profile has a :func:`meaning` → sRGB, uint16."""
    light, matrix = meaning(icc)
    light = light[:, :: (LEVELS - 1) // np.iinfo(pixels.dtype).max]
    return by_bands(lambda rows: _toned(_looked_up(rows, light) @ matrix.T), np.uint16, pixels)


def from_srgb(pixels: np.ndarray, icc: bytes, original: np.ndarray) -> np.ndarray:
    """Inverse of :func:`to_srgb`: (H, W, 3) uint16 sRGB → values of the profile, as deep as
    ``original``, the file's own; from there come the colours beyond sRGB.
    """
    (light, matrix), depth, tones = meaning(icc), original.dtype, np.linspace(0, 1, LEVELS)
    top = np.iinfo(depth).max
    values = [np.interp(tones, to_tone(channel), tones) for channel in light.astype(np.float64)]
    values = np.rint(top * np.stack(values)).astype(depth)
    light, srgb = light[:, :: (LEVELS - 1) // top], [to_light(tones).astype(np.float32)] * 3
    inverse = np.linalg.inv(matrix)

    def back(rows: np.ndarray, before: np.ndarray) -> np.ndarray:
        linear, before = _looked_up(rows, srgb), _looked_up(before, light) @ matrix.T
        inside = np.clip(before, 0, 1)
        beyond = before - inside
        if beyond.any():
            gain = (linear @ LUMINANCE) / np.maximum(inside @ LUMINANCE, 1e-6)
            linear += beyond * gain[..., None]
        return _looked_up(_toned(linear @ inverse.T), values)

    return by_bands(back, depth, pixels, original)


def by_table(pixels: np.ndarray, icc: bytes) -> np.ndarray | None:
    """(H, W, 3) uint8 or uint16 by a profile that describes colour by a table → sRGB, same depth;
    colours beyond it end at its edge. None where the profile has no table.
    """
    count = min(int.from_bytes(icc[128:132], "big"), 99)
    if b"A2B0" not in (icc[at : at + 4] for at in range(132, 132 + 12 * count, 12)):
        return None
    how = {"colorspace": "rgb", "outcolorspace": "rgb", "flags": EXACT}
    srgb, convert = imagecodecs.cms_profile("srgb"), imagecodecs.cms_transform
    return by_bands(lambda rows: convert(rows, icc, srgb, **how), pixels.dtype, pixels)


def from_cmyk(image, icc: bytes | None):
    """sRGB of a CMYK Pillow image by its profile, or by Pillow's plain formula where that is none
    or no good.
    """
    with suppress(ImageCms.PyCMSError, OSError):
        return ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(icc)),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    return image.convert("RGB")


def by_bands(function: Callable, dtype: np.typing.DTypeLike, *arrays: np.ndarray) -> np.ndarray:
    """``function`` of the arrays' rows, so many at a time that what it computes takes little
    memory; in the shape of the first.
    """
    out = np.empty(arrays[0].shape, dtype)
    height = max(1, BAND // out.shape[1])
    for top in range(0, len(out), height):
        out[top : top + height] = function(*(each[top : top + height] for each in arrays))
    return out


def _toned(linear: np.ndarray) -> np.ndarray:
    return np.rint(65535 * to_tone(np.clip(linear, 0, 1))).astype(np.uint16)


def _looked_up(pixels: np.ndarray, tables: np.ndarray) -> np.ndarray:
    return np.dstack([table.take(pixels[..., k]) for k, table in enumerate(tables)])


def to_light(tones: np.ndarray) -> np.ndarray:
    """sRGB's tones in [0, 1] → linear light."""
    return np.where(tones <= 0.04045, tones / 12.92, ((tones + 0.055) / 1.055) ** 2.4)


def to_tone(light: np.ndarray) -> np.ndarray:
    """Inverse of :func:`to_light`."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
