"""Photograph files ↔ arrays: upright, at their full bit depth, with transparency, colour profile and EXIF kept.

Pillow reads and writes most files. It turns 16-bit grey white and cuts 16-bit colour to 8 bits without a word, so
16-bit PNG goes through imagecodecs, and grey and RGB TIFF of any depth through tifffile.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
import torch
from PIL import Image, ImageCms, UnidentifiedImageError
from torch import Tensor

from zdce.files import atomic_write, content

SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".avif": "AVIF",
}
READABLE = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "AVIF")
SAME_AS = {"MPO": "JPEG", "DIB": "BMP"}  # phones write MPO: a JPEG with further pictures behind it
SAVE_OPTIONS = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "PNG": {},
    "BMP": {},
    "WEBP": {"quality": 95, "method": 4, "exact": True},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
}
MAX_PIXELS = 2**28  # 268 million; telephones take 200
UNSURE_PIXELS = (
    2 * Image.MAX_IMAGE_PIXELS
)  # Pillow's own limit, 179 million: larger files must hold what they promise
MAX_BYTES = (
    1_800_000_000  # of memory that one photograph may take; the program itself has about 320 MB
)
COPIES = {
    False: 3.0,
    True: 3.4,
}  # of a photograph that are there at a time, measured; True: deep, or not opaque
PIXELS_A_BYTE = (
    50  # of those files, at most; a photograph has about 5 as a JPEG, a bomb 300 and more
)
MAX_PAGES = 1000  # of a TIFF, that are looked at
BAND = 2**22  # pixels that are copied at a time
MAX_JPEG_EXIF = 65_533
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION, EXIF_IFD, WIDTH_IN_EXIF, HEIGHT_IN_EXIF, DNG_VERSION = 274, 34665, 40962, 40963, 50706
# TIFF tags that say how pixels are stored, or hold a second copy (thumbnail, layers, XMP, ICC): never carried over.
STRUCTURE_TAGS = frozenset(
    {
        *range(254, 267),
        *range(273, 282),
        *range(284, 294),
        *range(317, 348),
        *range(512, 533),
        *(301, 700, 34377, 34675, 37724),
    }
) - {274, 285, 318, 319}  # orientation, page name, white point, primaries

logging.getLogger("tifffile").setLevel(
    logging.CRITICAL
)  # damaged files are told by PhotoError, in one line


class PhotoError(ValueError):
    """A photograph that cannot be read or written: one line with the file's name and the reason."""


@dataclass
class Photo:
    """A photograph, upright.

    pixels: (H, W, 3) uint8 or uint16; three equal channels when ``gray``.
    alpha: (H, W) of the same dtype, 0 transparent, not premultiplied; or None.
    gray: the file was grey and is written grey.
    icc: colour profile that fits the pixels (RGB, or grey when ``gray``); None means sRGB.
    exif: EXIF block beginning ``Exif\\0\\0``, orientation 1, without thumbnail; or None.
    format: "JPEG", "PNG", "BMP", "TIFF", "WEBP" or "AVIF".
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    gray: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    format: str = "PNG"

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype not in (np.uint8, np.uint16):
            raise PhotoError(f"pixels are {shape} {dtype}: give (H, W, 3) uint8 or uint16")
        if self.alpha is not None and (self.alpha.shape != shape[:2] or self.alpha.dtype != dtype):
            raise PhotoError(
                f"alpha is {self.alpha.shape} {self.alpha.dtype}: give {shape[:2]} {dtype}"
            )


def read_photo(path: str | os.PathLike) -> Photo:
    """Read a JPEG, PNG, BMP, TIFF, WebP or AVIF file, told by its content and not by its name.

    EXIF orientation is applied to pixels and alpha. 16-bit PNG and TIFF stay 16-bit; TIFF of 9 – 15 bits is
    stretched to 16, float TIFF in [0, 1] is rounded to 16. CMYK turns into sRGB by the file's profile, or by
    Pillow's plain formula where it has none. AVIF of 10 or 12 bits is read at 8.

    Raises PhotoError for anything else: no photograph, a pipe or device, cut short, too large (what takes more than
    2 GiB of memory: 200 megapixels in 8 bits, 88 in 16, 94 as WebP or AVIF; above 179 also files of less than a byte
    for 50 pixels), unreadable, several pictures in one file, raw camera files, integers or floats outside the ranges
    above. Source: ours.
    """
    path = Path(path)
    try:
        data = content(path, MAX_BYTES)
    except OSError as error:
        raise PhotoError(f"{path}: cannot be read: {error.strerror or error}") from error
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # damaged metadata, sizes between Pillow's warning and its limit
        try:
            return _decode(data)
        except PhotoError as error:
            raise PhotoError(f"{path}: {error}") from error
        except Image.DecompressionBombError as error:
            raise PhotoError(
                f"{path}: more than {MAX_PIXELS // 10**6} megapixels, which are not read"
            ) from error
        except UnidentifiedImageError as error:
            reason = (
                "empty"
                if not data
                else "no photograph (JPEG, PNG, BMP, TIFF, WebP, AVIF), or damaged"
            )
            raise PhotoError(f"{path}: {reason}") from error
        except Exception as error:  # decoders raise nearly anything on damaged bytes
            raise PhotoError(f"{path}: damaged or cut short: {_one_line(error)}") from error


def write_photo(photo: Photo, path: str | os.PathLike) -> None:
    """Write ``photo`` in the format that the name's suffix says, or in its own where the suffix says none.

    JPEG quality 95 4:4:4, WebP 95, AVIF 90 4:4:4; PNG and TIFF lossless. EXIF and colour profile are carried
    (BMP holds neither; EXIF above JPEG's 64 KB is left out). The file appears whole or not at all: it is written
    under a temporary name in the same folder, which is created if need be, and then renamed.

    Raises PhotoError for 16-bit pixels in a format other than PNG and TIFF, transparency in JPEG, a suffix of
    another picture format, and when writing fails. Source: ours.
    """
    path = Path(path)
    try:
        data = _encode(photo, _format_of(path, photo))
        with atomic_write(path) as partial:
            partial.write_bytes(data)
    except PhotoError as error:
        raise PhotoError(f"{path}: {error}") from error
    except OSError as error:
        raise PhotoError(
            f"{path}: cannot be written: {error.strerror or _one_line(error)}"
        ) from error
    except (ValueError, struct.error) as error:  # a picture too large for the format
        raise PhotoError(f"{path}: cannot be written: {_one_line(error)}") from error


def from_pil(image: Image.Image) -> Photo:
    """Photo of a Pillow image: its pixels as they lie, EXIF orientation not applied, EXIF not carried.

    Any of Pillow's 8-bit modes, 1-bit, palette, CMYK, and ``I;16`` (16-bit grey); ``I`` when its values lie in
    0 – 65535. Raises PhotoError for the other modes.
    """
    mode, icc = image.mode, image.info.get("icc_profile")
    if mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise PhotoError(
                f"{mode} image with values {values.min()} – {values.max()}: only 0 – 65535 is read"
            )
        array = values.astype(np.uint16)
        key = image.info.get("transparency")
        if isinstance(key, int):
            array = np.dstack([array, np.where(array == key, 0, 65535).astype(np.uint16)])
    elif mode in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"):
        array, icc = _eight_bits(image, icc)
    else:
        raise PhotoError(f"{mode} image: convert it to RGB first")
    pixels, alpha, gray = _split(array)
    return Photo(
        pixels,
        alpha,
        gray,
        _fitting(icc, gray),
        None,
        SAME_AS.get(image.format, image.format or "PNG"),
    )


def to_pil(photo: Photo) -> Image.Image:
    """Pillow image of ``photo``: L, LA, RGB, RGBA or I;16, with its profile and EXIF in ``info``.

    Raises PhotoError for 16-bit colour and 16-bit grey with alpha, which Pillow does not have.
    """
    array = _joined(photo)
    if array.dtype == np.uint16 and array.ndim == 3:
        raise PhotoError("Pillow has no 16-bit colour and no 16-bit alpha: use the photo's arrays")
    image = Image.fromarray(array)
    if photo.icc:
        image.info["icc_profile"] = photo.icc
    if photo.exif:
        image.info["exif"] = photo.exif
    return image


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 or uint16 → (1, 3, H, W) float32 in [0, 1]."""
    scaled = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1))[None])


def to_pixels(tensor: Tensor, dtype: np.typing.DTypeLike = np.uint8) -> np.ndarray:
    """(1, 3, H, W) or (3, H, W) in [0, 1] → (H, W, 3) uint8 or uint16: x·max + 0.5, clamped, truncated.

    Source: released code's way of saving (max = 255).
    """
    top = np.iinfo(dtype).max
    scaled = tensor.detach().reshape(tensor.shape[-3:]).float().mul(top).add_(0.5).clamp_(0, top)
    return np.ascontiguousarray(scaled.permute(1, 2, 0).cpu().numpy().astype(dtype))


# Reading


def _decode(data: bytes) -> Photo:
    if data[:4] in TIFF_MAGIC:
        photo = _decode_tiff(data)
        if photo:
            return photo
    with _opened(data) as image:
        if image.format in ("PNG", "WEBP", "AVIF") and getattr(image, "n_frames", 1) > 1:
            raise PhotoError(
                f"an animation of {image.n_frames} pictures: save one of them as a file of its own"
            )
        image.load()
        photo = from_pil(image)
        if image.format == "PNG" and data[24] == 16:
            pixels, alpha, gray = _split(imagecodecs.png_decode(data))
            photo = replace(photo, pixels=pixels, alpha=alpha, gray=gray)
        try:
            exif = image.getexif()
        except Exception:  # damaged: left behind
            return photo
        image.close()  # its pixels take as much memory as the photograph's
    return _upright(photo, lambda: exif)


_OPENING = threading.Lock()


def _opened(data: bytes) -> Image.Image:
    """Pillow's image of ``data``, pixels not read yet; up to :data:`MAX_PIXELS`, which may be above Pillow's limit."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":  # whose opening takes the memory already
        _check_size(_webp_pixels(data), data, 3, 1, 4 * 4)
    with _OPENING:  # the limit is one for the whole process
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS // 2
        try:
            image = Image.open(io.BytesIO(data), formats=READABLE)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    opaque = (
        image.mode[:1] in "1LRI"
        and "A" not in image.getbands()
        and "transparency" not in image.info
    )
    depth = 2 if image.mode.startswith("I") or (image.format == "PNG" and data[24] == 16) else 1
    # Of a progressive JPEG all coefficients are held, of the others frames as they are coded.
    raw = 4 * 4 if image.format in ("WEBP", "AVIF") else 10 if image.info.get("progressive") else 0
    _check_size(image.width * image.height, data, 3 if opaque else 4, depth, raw)
    return image


def _webp_pixels(data: bytes) -> int:
    """Pixels that a WebP file's header states; 0 where it is none."""
    kind, about = data[12:16], int.from_bytes(data[20:30], "little")
    if kind == b"VP8X":
        return (1 + (about >> 32 & 0xFFFFFF)) * (1 + (about >> 56 & 0xFFFFFF))
    if kind == b"VP8L":
        return (1 + (about >> 8 & 0x3FFF)) * (1 + (about >> 22 & 0x3FFF))
    return (about >> 48 & 0x3FFF) * (about >> 64 & 0x3FFF) if kind == b"VP8 " else 0


def _check_size(pixels: int, data: bytes, samples: int, depth: int, raw: int = 0) -> None:
    """Refuses what is too large, and what promises more than a photograph's file of that length holds.

    samples: of a pixel once read, 3, or 4 where it is not opaque, of ``depth`` bytes each; raw: bytes of a pixel in the
    file's own kind.
    """
    if pixels > MAX_PIXELS:
        raise Image.DecompressionBombError
    held = pixels * samples * depth
    if max(COPIES[samples * depth > 3] * held, len(data) + pixels * raw + held) > MAX_BYTES:
        kind = f"{8 * depth} bits{' and transparency or another colour' if samples > 3 else ''}"
        raise PhotoError(
            f"{pixels // 10**6} megapixels of {kind}: more than 2 GiB of memory would be needed"
        )
    if pixels > max(UNSURE_PIXELS, PIXELS_A_BYTE * len(data)):
        raise PhotoError(
            f"{pixels // 10**6} megapixels in {len(data)} bytes, which no photograph is: not read"
        )


def _decode_tiff(data: bytes) -> Photo | None:
    """Grey or RGB TIFF of any depth; None for what Pillow reads as well (palette, 1-bit, CMYK, YCbCr, ...)."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        if page.is_reduced or DNG_VERSION in page.tags:
            raise PhotoError("a raw camera file: develop it to a plain TIFF or JPEG first")
        full = _full_pages(file)
        if full > 1:
            raise PhotoError(f"a TIFF of {full} pages: save one of them as a file of its own")
        depth = f"{page.bitspersample}-bit {page.dtype}"
        simple = page.photometric in (0, 1, 2)
        if not simple and page.bitspersample > 8:
            name = getattr(page.photometric, "name", page.photometric)
            raise PhotoError(
                f"a {depth} TIFF in {name} colour: convert it to RGB or to 8 bits first"
            )
        if not simple or page.dtype is None or page.dtype.kind == "b":
            return None
        samples, bytes_each = page.samplesperpixel, 1 if page.bitspersample <= 8 else 2
        raw = samples * page.dtype.itemsize
        _check_size(
            page.imagewidth * page.imagelength, data, 3 if samples in (1, 3) else 4, bytes_each, raw
        )
        if not (page.dataoffsets and all(page.dataoffsets) and all(page.databytecounts)):
            raise PhotoError(
                "damaged: parts of the picture are missing"
            )  # tifffile would fill them with black
        values = _moved_last(page.asarray(), page.axes, depth)
        values = _full_range(values, page.bitspersample, depth)
        if page.photometric == 0:  # white is zero
            values[..., 0] = np.iinfo(values.dtype).max - values[..., 0]
        colors = 3 if page.photometric == 2 else 1
        extra = [int(e) for e in page.extrasamples][:1]
        has_alpha = bool(extra) and extra[0] in (1, 2) and values.shape[2] > colors
        pixels, alpha, gray = _split(values[..., : colors + has_alpha])
        if has_alpha and extra[0] == 1:
            pixels = _unpremultiplied(pixels, alpha)
        icc = _fitting(page.iccprofile, gray)

    def exif() -> Image.Exif:
        block = Image.Exif()
        block.load(data)
        return block

    return _upright(Photo(pixels, alpha, gray, icc, None, "TIFF"), exif)


def _full_pages(file: tifffile.TiffFile) -> int:
    """Pages that are pictures of their own, no thumbnails. PhotoError where the chain of pages returns to itself,
    which would never end."""
    offsets, full = set(), 0
    for page in file.pages:
        if page.offset in offsets:
            raise PhotoError("damaged: its chain of pages goes in a circle")
        offsets.add(page.offset)
        full += not page.is_reduced
        if len(offsets) > MAX_PAGES:
            raise PhotoError(
                f"a TIFF of more than {MAX_PAGES} pages: save one of them as a file of its own"
            )
    return full


def _moved_last(values: np.ndarray, axes: str, depth: str) -> np.ndarray:
    """Samples in the last axis: (H, W, S)."""
    if axes == "YX":
        return values[..., None]
    if axes == "SYX":
        return np.moveaxis(values, 0, -1)
    if axes == "YXS":
        return values
    raise PhotoError(f"a {depth} TIFF with axes {axes}: only flat pictures are read")


def _full_range(values: np.ndarray, bits: int, depth: str) -> np.ndarray:
    """uint8 or uint16 that uses its whole range, in native byte order; a copy."""
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # also when there are NaN
            raise PhotoError(
                f"a {depth} TIFF with values {low:g} – {high:g}: floats are read in 0 – 1 alone"
            )
        rounded = np.empty(values.shape, np.uint16)
        rows = max(1, BAND // max(1, values[0].size))
        for top in range(0, len(values), rows):
            rounded[top : top + rows] = np.rint(values[top : top + rows].astype(np.float64) * 65535)
        return rounded
    if values.dtype.kind != "u" or bits > 16:
        raise PhotoError(
            f"a {depth} TIFF: only unsigned integers up to 16 bits and floats are read"
        )
    dtype = np.uint8 if bits <= 8 else np.uint16
    if bits in (8, 16):
        return values.astype(dtype)
    return np.rint(values * (np.iinfo(dtype).max / (2**bits - 1))).astype(dtype)


def _unpremultiplied(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    top = np.iinfo(pixels.dtype).max
    scale = top / np.maximum(alpha, 1).astype(np.float64)
    return np.minimum(np.rint(pixels * scale[..., None]), top).astype(pixels.dtype)


def _eight_bits(image: Image.Image, icc: bytes | None) -> tuple[np.ndarray, bytes | None]:
    """(H, W), (H, W, 2), (H, W, 3) or (H, W, 4) uint8, and the profile that still holds."""
    mode = image.mode
    if mode == "CMYK":
        return np.array(_cmyk_to_rgb(image, icc)), None
    if mode in ("P", "PA"):
        array = np.array(
            image.convert("RGBA" if mode == "PA" or "transparency" in image.info else "RGB")
        )
        gray = bool((array[..., :1] == array[..., 1:3]).all()) and _fitting(icc, False) is None
        return (array[..., [0, *range(3, array.shape[2])]] if gray else array), icc
    if mode == "1":
        key = image.info.get("transparency")
        array = np.array(image.convert("L"))
        return (
            array
            if key is None
            else np.dstack([array, np.where(array == key, 0, 255).astype(np.uint8)])
        ), icc
    if mode in ("La", "RGBa"):
        return np.array(image.convert(mode[:-1] + "A")), icc
    if "transparency" in image.info and mode in ("L", "RGB"):
        array = np.array(image.convert("RGBA"))
        return (array if mode == "RGB" else array[..., [0, 3]]), icc
    return _array(image.convert("RGB") if mode in ("RGBX", "YCbCr") else image), icc


def _array(image: Image.Image) -> np.ndarray:
    """As ``np.array(image)``, which copies large images twice more on the way."""
    width, height = image.size
    if width * height <= BAND or width > BAND:
        return np.array(image)
    rows = BAND // width
    bands = [(top, min(top + rows, height)) for top in range(0, height, rows)]
    first = np.asarray(image.crop((0, 0, width, rows)))
    array = np.empty((height, *first.shape[1:]), first.dtype)
    for top, bottom in bands:
        array[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return array


def _cmyk_to_rgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """sRGB by the embedded profile, or by Pillow's plain formula where there is none or it is no good."""
    if _space(icc) == b"CMYK":
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            return ImageCms.profileToProfile(
                image,
                profile,
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except (ImageCms.PyCMSError, OSError):
            pass
    return image.convert("RGB")


def _split(array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Pixels (H, W, 3), alpha (H, W) or None, gray: from (H, W) or (H, W, 1 – 4)."""
    array = array[..., None] if array.ndim == 2 else array
    samples = array.shape[2]
    alpha = np.ascontiguousarray(array[..., -1]) if samples in (2, 4) else None
    color = array[..., :3] if samples >= 3 else array[..., :1].repeat(3, axis=2)
    return np.ascontiguousarray(color), alpha, samples < 3


def _space(icc: bytes | None) -> bytes:
    return icc[16:20] if icc else b""


def _fitting(icc: bytes | None, gray: bool) -> bytes | None:
    """The profile if it describes pixels of this kind: a CMYK profile on RGB pixels would falsify every colour."""
    return icc if _space(icc) == (b"GRAY" if gray else b"RGB ") else None


def _upright(photo: Photo, read_exif) -> Photo:
    """Apply the EXIF orientation and keep the block without it; damaged EXIF is left behind."""
    try:
        exif = read_exif()
        orientation = exif.get(ORIENTATION, 1)
    except Exception:
        return photo
    pixels = _turned(photo.pixels, orientation)
    alpha = None if photo.alpha is None else _turned(photo.alpha, orientation)
    return replace(photo, pixels=pixels, alpha=alpha, exif=_clean_exif(exif, pixels.shape))


def _turned(array: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in (3, 4, 6, 7):
        array = array[::-1]
    if orientation in (2, 3, 7, 8):
        array = array[:, ::-1]
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    return np.ascontiguousarray(array)


def _clean_exif(exif: Image.Exif, shape: tuple[int, ...]) -> bytes | None:
    try:
        for tag in STRUCTURE_TAGS.intersection(exif):
            del exif[tag]
        if not exif:
            return None
        exif[ORIENTATION] = 1
        inner = exif.get_ifd(EXIF_IFD)
        for tag, side in ((WIDTH_IN_EXIF, shape[1]), (HEIGHT_IN_EXIF, shape[0])):
            if tag in inner:
                inner[tag] = side
        return exif.tobytes()
    except Exception:  # values that do not fit their tag
        return None


# Writing


def _format_of(path: Path, photo: Photo) -> str:
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    Image.init()
    if suffix in Image.EXTENSION or photo.format not in SUFFIXES.values():
        raise PhotoError(f"photographs are written as {', '.join(SUFFIXES)}")
    return photo.format


def _encode(photo: Photo, fmt: str) -> bytes:
    deep = photo.pixels.dtype == np.uint16
    if deep and fmt not in ("PNG", "TIFF"):
        raise PhotoError(
            f"{fmt} holds 8 bits per channel and the photograph has 16: write .png or .tif"
        )
    if fmt == "JPEG" and photo.alpha is not None:
        if (photo.alpha != np.iinfo(photo.alpha.dtype).max).any():
            raise PhotoError(
                "JPEG holds no transparency and the photograph has some: write .png, .tif or .webp"
            )
        photo = replace(photo, alpha=None)
    if fmt == "TIFF":
        return _encode_tiff(photo)
    if deep:
        return _encode_deep_png(photo)
    if fmt == "BMP" and photo.alpha is not None:
        return _encode_transparent_bmp(photo)
    options = dict(SAVE_OPTIONS[fmt])
    as_color = fmt == "WEBP" or (
        fmt == "AVIF" and photo.alpha is not None
    )  # grey, which they store as RGB
    if fmt == "AVIF" and photo.gray and not as_color:
        options["subsampling"] = "4:0:0"
    if fmt == "AVIF" and photo.alpha is not None:  # colours are lossy, transparency is not
        options |= {"codec": "aom", "advanced": {"alpha:lossless": "1"}}
    if photo.exif and fmt != "BMP" and not (fmt == "JPEG" and len(photo.exif) > MAX_JPEG_EXIF):
        options["exif"] = photo.exif
    if photo.icc and not (photo.gray and as_color):
        options["icc_profile"] = photo.icc
    buffer = io.BytesIO()
    to_pil(replace(photo, icc=None, exif=None)).save(buffer, fmt, **options)
    return buffer.getvalue()


def _joined(photo: Photo) -> np.ndarray:
    """(H, W) grey, (H, W, 2) grey and alpha, (H, W, 3) or (H, W, 4)."""
    color = photo.pixels[..., :1] if photo.gray else photo.pixels
    array = color if photo.alpha is None else np.dstack([color, photo.alpha])
    array = array[..., 0] if array.shape[2] == 1 else array
    sizes = np.cumprod((array.itemsize, *array.shape[:0:-1]))[::-1]
    return (
        array if array.strides == tuple(sizes) else array.copy()
    )  # encoders want plain strides, also for one row


def _encode_deep_png(photo: Photo) -> bytes:
    data = imagecodecs.png_encode(_joined(photo))
    chunks = b""
    if photo.icc:
        chunks += _png_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(photo.icc))
    if photo.exif:
        chunks += _png_chunk(b"eXIf", photo.exif.removeprefix(b"Exif\0\0"))
    end_of_header = 33  # signature 8, IHDR 25
    return data[:end_of_header] + chunks + data[end_of_header:]


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def _encode_transparent_bmp(photo: Photo) -> bytes:
    """32-bit BMP with a version 4 header: Pillow's shorter header does not say that the fourth channel is alpha."""
    height, width = photo.alpha.shape
    rows = np.dstack([photo.pixels[..., ::-1], photo.alpha])[::-1].tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(rows), 2835, 2835, 0, 0)
    info += masks + b"BGRs" + bytes(48)
    return (
        struct.pack("<2sIHHI", b"BM", 14 + len(info) + len(rows), 0, 0, 14 + len(info))
        + info
        + rows
    )


def _encode_tiff(photo: Photo) -> bytes:
    exif = Image.Exif()
    if photo.exif:
        exif.load(photo.exif)
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        _joined(photo),
        byteorder=exif.endian or "<",
        photometric="minisblack" if photo.gray else "rgb",
        planarconfig=None if photo.gray and photo.alpha is None else "contig",
        extrasamples=None if photo.alpha is None else ["unassalpha"],
        compression="zlib",
        predictor=True,
        iccprofile=photo.icc,
        metadata=None,
        software=False,
    )
    return _with_exif(buffer.getvalue(), exif) if photo.exif else buffer.getvalue()


def _with_exif(tiff: bytes, exif: Image.Exif) -> bytes:
    """Add EXIF with its sub-directories to a TIFF of the same byte order, by a joint directory at the file's end.

    tifffile writes no sub-directories of EXIF and GPS tags; the pixels stay where they are.
    """
    order = exif.endian
    block = exif.tobytes(len(tiff) + len(tiff) % 2)[len(b"Exif\0\0") + 8 :]
    tiff += bytes(len(tiff) % 2) + block + bytes(len(block) % 2)
    own = _directory(tiff, struct.unpack_from(order + "I", tiff, 4)[0], order)
    entries = own | _directory(block, 0, order)
    table = (
        struct.pack(order + "H", len(entries))
        + b"".join(entries[tag] for tag in sorted(entries))
        + bytes(4)
    )
    return tiff[:4] + struct.pack(order + "I", len(tiff)) + tiff[8:] + table


def _directory(data: bytes, start: int, order: str) -> dict[int, bytes]:
    """Entries of a TIFF directory, 12 bytes each, by tag."""
    (count,) = struct.unpack_from(order + "H", data, start)
    entries = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    return {struct.unpack_from(order + "H", entry)[0]: entry for entry in entries}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
