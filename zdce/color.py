"""What a photograph's numbers mean as colour: sRGB before, the file's own encoding after.

The networks and the curve expect sRGB. Where a profile or a file's code points say otherwise
(linear light, Adobe RGB, ProPhoto), values go through their tone curve and primaries to sRGB in 16
bits before, and back after; what lies beyond sRGB's gamut is kept beside and put back in proportion
to the light. Display P3, whose tones are sRGB's and whose primaries are near, is used as it is.
LittleCMS reads and makes the profiles.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import lru_cache

import imagecodecs
import numpy as np
from PIL import ImageCms

LEVELS = 65536
BAND = 2**20  # pixels that are converted at a time
SAME = 0.5 / 255  # tones nearer to sRGB's than half a level of 8 bits are sRGB's
NEAR = 0.3  # difference from unity of the matrix of primaries that are near; Display P3: 0.22
EXACT = 0x0100  # LittleCMS without its coarse table in between, which is wrong in the dark
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
HDR = {16: "PQ", 18: "HLG"}
# ITU-T H.273: primaries as x and y of white, red, green and blue; 1 (BT.709) is sRGB's, 2
# unspecified.
D65 = (0.3127, 0.3290)
PRIMARIES = {
    4: ((0.310, 0.316), (0.67, 0.33, 0.21, 0.71, 0.14, 0.08)),
    5: (D65, (0.64, 0.33, 0.29, 0.60, 0.15, 0.06)),
    6: (D65, (0.63, 0.34, 0.31, 0.595, 0.155, 0.07)),
    7: (D65, (0.63, 0.34, 0.31, 0.595, 0.155, 0.07)),
    9: (D65, (0.708, 0.292, 0.17, 0.797, 0.131, 0.046)),
    11: ((0.314, 0.351), (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)),
    12: (D65, (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)),
}
SRGB_CHROMATICITY = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}  # transfer functions that are plain powers
SRGB_LIKE = (1, 2, 6, 13, 14, 15)  # sRGB, unspecified, and BT.709's: stills are shown as sRGB


class ColorError(ValueError):
    """An encoding of colour that is not read: one line with what it is and what to do."""


@dataclass(frozen=True)
class Encoding:
    """How the values of a file differ from the pixels, which are sRGB in 16 bits.

    depth: dtype of the file's values. curve: (3, 65536) float, the sRGB tone in [0, 1] of each of
    the file's values, in 16 bits; None where the file is to be written in sRGB tones. matrix: (3,
    3), the file's linear light to sRGB's; None where its primaries are used as they are. beyond:
    flat places of pixels whose colour lies beyond sRGB, and how far, (n, 3) in linear light over
    luminance.
    """

    depth: np.dtype
    curve: np.ndarray | None = None
    matrix: np.ndarray | None = None
    beyond: tuple[np.ndarray, np.ndarray] | None = None


def refuse_high_dynamic_range(transfer: int) -> None:
    """ColorError for the code points of PQ and HLG, whose light goes far beyond sRGB's white."""
    if transfer in HDR:
        raise ColorError(
            f"a picture of high dynamic range (HDR, {HDR[transfer]}), which is not read: "
            "export it as sRGB or Display P3 first"
        )


def by_code_points(primaries: int, transfer: int) -> tuple[float, bytes | None]:
    """Gamma (0 where the tones are sRGB's) and profile (None where it is sRGB's) of H.273 code
    points.

    The profile has sRGB's tones, so it fits once gamma is undone by :func:`power`. Raises
    ColorError.
    """
    refuse_high_dynamic_range(transfer)
    if transfer not in SRGB_LIKE and transfer not in GAMMAS:
        raise ColorError(
            f"colour by transfer function {transfer}, which is not read: export as sRGB"
        )
    if primaries in (1, 2):
        return GAMMAS.get(transfer, 0.0), None
    if primaries not in PRIMARIES:
        raise ColorError(f"colour by primaries {primaries}, which are not read: export as sRGB")
    return GAMMAS.get(transfer, 0.0), profile(*PRIMARIES[primaries])


def by_gamma(gamma: float, chromaticity: tuple[float, ...] | None) -> tuple[float, bytes | None]:
    """As :func:`by_code_points`, of a PNG's ``gAMA`` (0.45455 is taken as sRGB) and ``cHRM``
    (white, red, green, blue).
    """
    undone = 0.0 if abs(gamma - 1 / 2.2) < 0.01 or not 0.1 < gamma < 10 else 1 / gamma
    if not chromaticity or np.allclose(chromaticity, SRGB_CHROMATICITY, atol=0.005):
        return undone, None
    try:
        return undone, profile(tuple(chromaticity[:2]), tuple(chromaticity[2:]))
    except Exception:  # no colours at all
        return undone, None


@lru_cache(16)
def profile(white: tuple[float, float], primaries: tuple[float, ...]) -> bytes:
    """ICC profile with sRGB's tone curve and these chromaticities, x and y."""
    linear = np.rint(65535 * _to_light(np.linspace(0, 1, 1024))).astype(np.uint16)
    made = bytes(
        imagecodecs.cms_profile(
            "rgb", whitepoint=white, primaries=primaries, transferfunction=linear
        )
    )
    return made[:24] + bytes(12) + made[36:]  # without the time of its making


def space(icc: bytes | None) -> bytes:
    """What a profile is for: ``RGB ``, ``GRAY``, ``CMYK``, ...; empty where there is none."""
    return icc[16:20] if icc else b""


def has_tables(icc: bytes) -> bool:
    """Whether a profile describes colour by a table, not by primaries and a tone curve."""
    count = int.from_bytes(icc[128:132], "big")
    return any(
        icc[place : place + 4] == b"A2B0" for place in range(132, 132 + 12 * min(count, 99), 12)
    )


@lru_cache(16)
def meaning(icc: bytes | None) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Curve and matrix of :class:`Encoding` by a profile for RGB or grey.

    None where values are used as they are: tones are sRGB's to half a level of 8 bits and primaries
    near; also where LittleCMS makes nothing of the profile. Raises ColorError for PQ and HLG.
    """
    if not icc:
        return None
    marked = re.search(rb"cicp\0{4}.(.)", icc, re.DOTALL)
    if marked:
        refuse_high_dynamic_range(marked[1][0])
    try:
        tones, matrix = _tones(icc), _matrix(icc)
    except Exception:  # damaged, or for other things than pictures
        return None
    if tones is None:
        return None
    same = np.abs(tones - np.linspace(0, 1, LEVELS)).max() < SAME
    if same and np.abs(matrix - np.eye(3)).max() < NEAR:
        return None
    near = np.abs(matrix - np.eye(3)).max() < 0.002
    return np.broadcast_to(tones.astype(np.float32), (3, LEVELS)), None if near else matrix


def _tones(icc: bytes) -> np.ndarray | None:
    """(3 or 1, 65536): sRGB tones of a profile's values; None where they do not rise."""
    gray = space(icc) == b"GRAY"
    ramp = np.zeros((1 if gray else 3, LEVELS, 1 if gray else 3), np.uint16)
    for channel in range(len(ramp)):
        ramp[channel, :, channel] = np.arange(LEVELS)
    light = imagecodecs.cms_transform(
        ramp[..., 0] if gray else ramp,
        icc,
        imagecodecs.cms_profile("gray", gamma=1.0),
        colorspace="gray" if gray else "rgb",
        outcolorspace="gray",
        outdtype=np.float32,
    )
    light = light.reshape(len(ramp), LEVELS).astype(np.float64)
    light = light - light[:, :1]
    if not (light[:, -1] > 0).all() or (np.diff(light) < -1e-6).any():
        return None
    return _to_tone(np.clip(light / light[:, -1:], 0, 1))


def _matrix(icc: bytes) -> np.ndarray:
    """(3, 3): linear light by a profile's primaries → by sRGB's, white on white; unity for grey."""
    if space(icc) == b"GRAY":
        return np.eye(3)
    found = []
    for opened in (ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")):
        about = getattr(opened, "profile", opened)
        colorants = (about.red_colorant, about.green_colorant, about.blue_colorant)
        found.append(np.array([colorant[0] for colorant in colorants]).T)
    matrix = np.linalg.solve(found[1], found[0])
    return matrix / matrix.sum(axis=1, keepdims=True)


def power(gamma: float) -> np.ndarray:
    """Curve of values that are light to the power 1/gamma."""
    tones = _to_tone(np.linspace(0, 1, LEVELS) ** gamma)
    return np.broadcast_to(tones.astype(np.float32), (3, LEVELS))


def to_srgb_tones(pixels: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 or uint16 of a file → sRGB tones by its own primaries, uint16."""
    return _looked_up(pixels, np.rint(65535 * _picked(curve, pixels.dtype)).astype(np.uint16))


def to_srgb(pixels: np.ndarray, icc: bytes) -> tuple[np.ndarray, Encoding]:
    """(H, W, 3) uint8 or uint16 of a file whose profile has a :func:`meaning` → sRGB, uint16, and
    the way back.
    """
    curve, matrix = meaning(icc)
    if matrix is None:
        return to_srgb_tones(pixels, curve), Encoding(pixels.dtype, curve)
    light = _to_light(_picked(curve, pixels.dtype)).astype(np.float32)
    out, places, distances = np.empty(pixels.shape, np.uint16), [], []
    for rows in _bands(pixels):
        linear = _looked_up(pixels[rows], light) @ matrix.T.astype(np.float32)
        inside = np.clip(linear, 0, 1)
        out[rows] = np.rint(65535 * _to_tone(inside))
        outside = (linear - inside).reshape(-1, 3)
        there = np.flatnonzero(np.abs(outside).max(axis=1) > 1e-6)
        luminance = inside.reshape(-1, 3)[there] @ LUMINANCE
        places.append(there + rows.start * pixels.shape[1])
        distances.append(outside[there] / np.maximum(luminance, 1e-6)[:, None])
    beyond = np.concatenate(places), np.concatenate(distances).astype(np.float32)
    return out, Encoding(pixels.dtype, curve, matrix, beyond)


def from_srgb(pixels: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Inverse of :func:`to_srgb`: (H, W, 3) uint16 sRGB → the file's values."""
    top, tones = np.iinfo(encoding.depth).max, np.linspace(0, 1, LEVELS)
    values = tones
    if encoding.curve is not None:
        values = np.stack([np.interp(tones, channel, tones) for channel in encoding.curve])
    table = np.broadcast_to(np.rint(top * values).astype(encoding.depth), (3, LEVELS))
    if encoding.matrix is None:
        return _looked_up(pixels, table)
    light = np.broadcast_to(_to_light(tones).astype(np.float32), (3, LEVELS))
    back, out = (
        np.linalg.inv(encoding.matrix).T.astype(np.float32),
        np.empty(pixels.shape, encoding.depth),
    )
    places, distances = encoding.beyond
    for rows in _bands(pixels):
        linear = _looked_up(pixels[rows], light)
        flat, start = linear.reshape(-1, 3), rows.start * pixels.shape[1]
        first, last = np.searchsorted(places, (start, start + len(flat)))
        here = places[first:last] - start
        flat[here] += distances[first:last] * (flat[here] @ LUMINANCE)[:, None]
        toned = np.rint(65535 * _to_tone(np.clip(linear @ back, 0, 1))).astype(np.uint16)
        out[rows] = _looked_up(toned, table)
    return out


def by_table(pixels: np.ndarray, icc: bytes) -> np.ndarray:
    """(H, W, 3) uint8 or uint16 by any profile for RGB → sRGB, same depth; colours beyond it end at
    its edge.
    """
    out, srgb = np.empty_like(pixels), bytes(imagecodecs.cms_profile("srgb"))
    for rows in _bands(pixels):
        out[rows] = imagecodecs.cms_transform(
            pixels[rows], icc, srgb, colorspace="rgb", outcolorspace="rgb", flags=EXACT
        )
    return out


def from_cmyk(image, icc: bytes | None):
    """sRGB of a CMYK Pillow image by its profile, or by Pillow's plain formula where that is none
    or no good.
    """
    if space(icc) == b"CMYK":
        try:
            return ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(icc)),
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except (ImageCms.PyCMSError, OSError):
            pass
    return image.convert("RGB")


def _picked(table: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Of a table for 16 bits, what values of this depth find in it."""
    return table[:, :: (LEVELS - 1) // np.iinfo(dtype).max]


def _looked_up(pixels: np.ndarray, tables: np.ndarray) -> np.ndarray:
    out = np.empty(pixels.shape, tables.dtype)
    for rows in _bands(pixels):
        for channel, table in enumerate(tables):
            np.take(table, pixels[rows, :, channel], out=out[rows, :, channel])
    return out


def _bands(pixels: np.ndarray) -> list[slice]:
    rows = max(1, BAND // pixels.shape[1])
    return [slice(top, top + rows) for top in range(0, len(pixels), rows)]


def _to_light(tones: np.ndarray) -> np.ndarray:
    return np.where(tones <= 0.04045, tones / 12.92, ((tones + 0.055) / 1.055) ** 2.4)


def _to_tone(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
