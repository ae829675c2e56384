"""Photograph files ↔ arrays: upright, in sRGB tones, at full bit depth; what belongs to them
travels along.

Pillow reads and writes most files. It turns 16-bit grey white and cuts deeper colour to 8 bits
without a word, so deep PNG and AVIF go through imagecodecs, and grey and RGB TIFF of any depth
through tifffile. HEIC goes through pillow-heif (extra ``heif``), raw camera files through rawpy
(extra ``raw``).
"""

import importlib
import importlib.util
import io
import itertools
import logging
import os
import re
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from zdce import color, metadata
from zdce.color import PhotoError
from zdce.files import atomic_write, content

EXIF, XMP, IPTC, TEXT = "EXIF", "XMP", "IPTC", "the PNG's texts"
COMMENT, TAIL = "the JPEG's comment", "the motion photo's video"
GAIN_MAP, CREDENTIALS = "a gain map (its HDR part)", "content credentials (C2PA)"
FURTHER = "further pictures"

# What is written: suffixes, what a file holds beside its pixels and profile, Pillow's options.
FORMATS = {
    "JPEG": (
        (".jpg", ".jpeg", ".jpe", ".jfif"),
        {EXIF, XMP, IPTC, COMMENT, TAIL},
        {"quality": 95, "subsampling": "4:4:4"},
    ),
    "PNG": ((".png",), {EXIF, XMP, TEXT}, {}),
    "BMP": ((".bmp",), set(), {}),
    "TIFF": ((".tif", ".tiff"), {EXIF, XMP, IPTC}, {}),
    "WEBP": ((".webp",), {EXIF, XMP}, {"quality": 95, "method": 4, "exact": True}),
    "AVIF": ((".avif",), {EXIF, XMP}, {"quality": 90, "subsampling": "4:4:4"}),
}
SUFFIXES = {suffix: name for name, each in FORMATS.items() for suffix in each[0]}
SAME_AS = {"MPO": "JPEG", "DIB": "BMP"}  # phones write MPO: a JPEG with further pictures behind it
# Read, not written: their developed or decoded pixels go into a file of another format.
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
_RAW = ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .kdc .mef .mos .mrw .nef .nrw "
RAW_SUFFIXES = tuple((_RAW + ".orf .pef .raf .rw2 .rwl .sr2 .srf .srw .x3f").split())
EXTRAS = {  # name, extra, library, suffixes
    "HEIF": ("a HEIC/HEIF file", "heif", "pillow_heif", HEIF_SUFFIXES),
    "RAW": ("a raw camera file", "raw", "rawpy", RAW_SUFFIXES),
}
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
DNG_VERSION, RAW_PHOTOMETRIC = 50706, (32803, 34892)  # of a sensor's values
MAGIC = {  # of kinds that need an extra or are not read, beside those that Pillow knows
    rb"FUJIFILMCCD-RAW|IIU\0|IIRO|IIRS|MMOR|\0MRM|FOVb|IIII": "RAW",
    rb".{8}CR\x02|.{6}HEAPCCDR|.{4}ftypcrx ": "RAW",
    rb".{4}ftyp(.{4}){,62}avi[fs]": "",  # brands: one of them is enough
    rb".{4}ftyp(.{4}){,62}(hei[cxms]|hev[cxms]|mif1|msf1)": "HEIF",
    rb".{4}ftyp": "a video",
}
MAX_BYTES = 1_800_000_000  # of memory that one photograph may take; the program has about 320 MB
COPIES = 3.0, 3.4, 4.4  # at a time, measured: plain; deep or not opaque; not in sRGB
# Files of more pixels must hold what they promise: a photograph has about 5 a byte as a JPEG, a
# bomb 300 and more.
UNSURE_PIXELS, PIXELS_A_BYTE = 2 * Image.MAX_IMAGE_PIXELS, 50
MAX_PAGES = 1000  # of a TIFF, thumbnails among them
MAX_SEGMENT = 65_000  # bytes of EXIF, XMP or IPTC that a JPEG holds

# PhotoError tells of damaged files, in one line.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


@dataclass
class Photo:
    """A photograph, upright, in sRGB.

    pixels: (H, W, 3) uint8 or uint16; three equal channels when ``gray``.
    alpha: (H, W) of the same dtype, 0 transparent, not premultiplied; or None.
    gray: the file was grey and is written grey.
    icc: colour profile of the file (RGB, or grey when ``gray``); None means sRGB.
    exif: EXIF block beginning ``Exif\\0\\0``, without orientation and thumbnail; or None.
    format: "JPEG", "PNG", "BMP", "TIFF", "WEBP", "AVIF", or what is read alone: "HEIF", "RAW".
    dpi: resolution in pixels an inch, across and down; or None.
    carried: what else belongs to it (XMP, IPTC, ...), by the names that :data:`FORMATS` lists.
    original: the file's own values, where its profile makes them differ from the pixels; writing
    returns to their tones, colours and depth.
    notes: what the file holds and reading left out, to be told.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    gray: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    format: str = "PNG"
    dpi: tuple[float, float] | None = None
    carried: dict[str, bytes] = field(default_factory=dict)
    original: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype not in (np.uint8, np.uint16):
            raise PhotoError(f"pixels are {shape} {dtype}: give (H, W, 3) uint8 or uint16")
        if self.alpha is not None and (self.alpha.shape, self.alpha.dtype) != (shape[:2], dtype):
            raise PhotoError(f"alpha: give {shape[:2]} {dtype}, as the pixels have it")


def read_photo(path: str | os.PathLike) -> Photo:
    """Read a JPEG, PNG, BMP, TIFF, WebP, AVIF, HEIC or raw camera file, told by its content and not
    by its name.

    EXIF orientation is applied. 16 bits stay 16; 9 – 15 bits are stretched to 16, float TIFF in
    [0, 1] is rounded to 16. Other encodings of colour, by the profile or the file's code points,
    become sRGB in 16 bits (:mod:`zdce.color`); CMYK, and RGB whose profile is a table, turn into
    sRGB. Raw files are developed to 16 bits with the camera's white balance, not brightened.

    Raises PhotoError for anything else: no photograph, a pipe or device, cut short, too large (what
    takes more than 2 GiB of memory: 200 megapixels in 8 bits, 88 in 16, 94 as WebP or AVIF, 55 to
    68 with another profile than sRGB's, fewer with transparency, as HEIC or progressive JPEG; above
    179 also files of less than a byte for 50 pixels), several pictures in one file, high dynamic
    range (PQ, HLG), an extra that is not installed, other integers or floats. Source: ours.
    """
    path = Path(path)
    try:
        data = content(path, MAX_BYTES)
    except OSError as error:
        raise PhotoError(f"{path}: cannot be read: {error.strerror or error}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata
        try:
            return _decode(data, path.suffix.lower())
        except PhotoError as error:
            raise PhotoError(f"{path}: {error}") from error
        except Exception as error:  # decoders raise nearly anything on damaged bytes
            raise PhotoError(f"{path}: damaged or cut short: {_one_line(error)}") from error


def write_photo(
    photo: Photo,
    path: str | os.PathLike,
    *,
    quality: int | None = None,
    settings: str | None = None,
) -> list[str]:
    """Write ``photo`` in the format that the name's suffix says, or in its own where the suffix
    says none.

    quality: 1 – 100, of JPEG (default 95, always 4:4:4), WebP (95) and AVIF (90, 4:4:4); PNG, TIFF
    and BMP are lossless. settings: a line that is recorded in the EXIF as ProcessingSoftware.
    Returns what the format could not hold, such as "XMP", "more than 8 bits". The file appears
    whole or not at all (:func:`zdce.files.atomic_write`).

    Raises PhotoError for transparency in JPEG and BMP, a suffix of another picture format, and when
    writing fails. Source: ours.
    """
    path = Path(path)
    fmt = SUFFIXES.get(path.suffix.lower())
    try:
        if fmt is None:
            Image.init()
            known = path.suffix.lower() in (*Image.EXTENSION, *HEIF_SUFFIXES, *RAW_SUFFIXES)
            if known or photo.format not in FORMATS:
                raise PhotoError(f"photographs are written as {', '.join(SUFFIXES)}")
        data, lost = _encode(photo, fmt or photo.format, quality, settings)
        with atomic_write(path) as partial:
            partial.write_bytes(data)
    except PhotoError as error:
        raise PhotoError(f"{path}: {error}") from error
    except (OSError, ValueError, struct.error) as error:  # also a picture too large for the format
        reason = getattr(error, "strerror", None) or _one_line(error)
        raise PhotoError(f"{path}: cannot be written: {reason}") from error
    return lost


def needed_extra(path: str | os.PathLike) -> str | None:
    """Extra of this package that reading ``path`` needs, by its suffix, where it is not installed;
    else None.
    """
    for _, extra, library, suffixes in EXTRAS.values():
        if Path(path).suffix.lower() in suffixes and not importlib.util.find_spec(library):
            return extra
    return None


def from_pil(image: Image.Image) -> Photo:
    """Photo of a Pillow image: its pixels as they lie, EXIF orientation not applied, EXIF not
    carried.

    Any of Pillow's 8-bit modes, 1-bit, palette, CMYK, and ``I;16`` (16-bit grey); ``I`` when its
    values lie in 0 – 65535. Tones as in :func:`read_photo`. Raises PhotoError for the other modes.
    """
    icc = color.fitting(image.info.get("icc_profile"), image.mode)
    return _toned(replace(_plain(image), icc=icc))


def to_pil(photo: Photo) -> Image.Image:
    """Pillow image of ``photo``: L, LA, RGB, RGBA or I;16, with its profile and EXIF in ``info``.

    Raises PhotoError for 16-bit colour and 16-bit grey with alpha, which Pillow does not have.
    """
    photo = _as_stored(photo)
    array = _joined(photo)
    if array.dtype == np.uint16 and array.ndim == 3:
        raise PhotoError("Pillow has no 16-bit colour and no 16-bit alpha: use the photo's arrays")
    image = Image.fromarray(array)
    about = {"icc_profile": photo.icc, "exif": photo.exif}
    image.info |= {name: value for name, value in about.items() if value}
    return image


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 or uint16 → (1, 3, H, W) float32 in [0, 1]."""
    scaled = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1))[None])


def to_pixels(tensor: Tensor, dtype: np.typing.DTypeLike = np.uint8) -> np.ndarray:
    """(1, 3, H, W) or (3, H, W) in [0, 1] → (H, W, 3) uint8 or uint16: x·max + 0.5, clamped,
    truncated.

    Source: released code's way of saving (max = 255).
    """
    top = np.iinfo(dtype).max
    scaled = tensor.detach().reshape(tensor.shape[-3:]).float().mul(top).add_(0.5).clamp_(0, top)
    return np.ascontiguousarray(scaled.permute(1, 2, 0).cpu().numpy().astype(dtype))


# Reading: each decoder gives the picture as it lies, its EXIF block and its orientation

Decoded = tuple[Photo, bytes | None, int]


def _decode(data: bytes, suffix: str) -> Photo:
    kinds = (kind for magic, kind in MAGIC.items() if re.match(magic, data, re.DOTALL))
    by_name = "RAW" if suffix in RAW_SUFFIXES and data[:3] != b"\xff\xd8\xff" else ""
    kind = next(kinds, by_name)
    if kind in EXTRAS:
        photo, exif, orientation = _by_extra(data, kind)
    elif kind:
        raise PhotoError(f"{kind}, which is not read: export it as PNG, TIFF or JPEG first")
    else:
        decoded = _by_tifffile(data) if data[:4] in TIFF_MAGIC else None
        photo, exif, orientation = decoded or _by_pillow(data)
    carried = {name: v for name, v in photo.carried.items() if isinstance(v, bytes) and v}
    if xmp := carried.get(XMP):
        photo.notes += ("the extended XMP",) * (b"HasExtendedXMP" in xmp)
        carried[XMP] = metadata.clean_xmp(xmp)
    photo.carried = carried
    photo.notes += (CREDENTIALS,) * (b"c2pa" in data and b"jumb" in data)
    return _toned(_upright(photo, exif, orientation))


def _check_size(
    pixels: int, data: bytes, samples: int, bits: int, icc: bytes | None, raw: int
) -> None:
    """Refuses what is too large, or no photograph by its bytes; raw: those of a coded pixel."""
    other, size = color.meaning(icc) is not None, f"{pixels // 10**6} megapixels"
    held = pixels * samples * (1 + (bits > 8 or other))
    most = COPIES[2 if other else bits > 8 or samples > 3] * held + other * len(data)
    if max(most, len(data) + pixels * raw + held) > MAX_BYTES:
        raise PhotoError(f"{size} of this kind: more than 2 GiB of memory would be needed")
    if pixels > max(UNSURE_PIXELS, PIXELS_A_BYTE * len(data)):
        raise PhotoError(f"{size} in {len(data)} bytes, which no photograph is")


def _by_extra(data: bytes, kind: str) -> Decoded:
    name, extra, library, _ = EXTRAS[kind]
    try:
        library = importlib.import_module(library)
    except ImportError:
        raise PhotoError(f'{name}, which needs an extra: pip install "zdce[{extra}]"') from None
    try:
        return (_by_heif if kind == "HEIF" else _by_rawpy)(data, library)
    except PhotoError:
        raise
    except Exception as error:
        raise PhotoError(f"{name} that cannot be decoded: {_one_line(error)}") from error


def _by_heif(data: bytes, library) -> Decoded:
    file = library.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    image = file[file.primary_index]
    (width, height), info = image.size, image.info
    points = info.get("nclx_profile") or {}
    stated = points.get("color_primaries", 2), points.get("transfer_characteristics", 2)
    color.refuse_high_dynamic_range(stated[1])
    icc = color.fitting(info.get("icc_profile"), image.mode)
    icc = icc if info.get("icc_profile") else color.by_code_points(*stated, image.mode)
    _check_size(width * height, data, 3 + image.has_alpha, info["bit_depth"], icc, 12)
    photo = _split(np.array(image), image.premultiplied_alpha, icc=icc, format="HEIF")
    gain_map = "gainmap" in str(info.get("aux")).lower() or b"tmap" in data[:4096]
    further = len(file) > 1 or info.get("depth_images") or b"mpvd" in data  # also a video
    photo.notes = (GAIN_MAP,) * gain_map + (FURTHER,) * bool(further)
    photo.carried = {XMP: info.get("xmp")}
    return photo, info.get("exif"), 1


def _by_rawpy(data: bytes, library) -> Decoded:
    with library.imread(io.BytesIO(data)) as raw:
        _check_size(raw.sizes.width * raw.sizes.height, data, 3, 16, None, 10)
        pixels = raw.postprocess(
            output_bps=16,
            use_camera_wb=True,
            no_auto_bright=True,
            gamma=(2.4, 12.92),  # sRGB's
            output_color=library.ColorSpace.sRGB,
        )
        try:  # its own EXIF where it is a TIFF, else that of its preview
            source = data
            if data[:4] not in TIFF_MAGIC:
                source = Image.open(io.BytesIO(raw.extract_thumb().data)).info["exif"]
            block = metadata.exif_of_tiff(source, raw=True)[0]
        except Exception:  # none
            block = None
    notes = ("maker notes",) * bool(block)
    return Photo(np.ascontiguousarray(pixels), format="RAW", notes=notes), block, 1


_OPENING = threading.Lock()
# Of a WebP's kinds: bits of width and height, where they lie, and what is added.
WEBP_SIZES = {b"VP8X": (24, 32, 56, 1), b"VP8L": (14, 8, 22, 1), b"VP8 ": (14, 48, 64, 0)}


def _by_pillow(data: bytes) -> Decoded:
    if data[:4] == b"RIFF" and data[12:16] in WEBP_SIZES:  # its opening takes the memory already
        bits, across, down, more = WEBP_SIZES[data[12:16]]
        head = int.from_bytes(data[20:30], "little")
        width, height = (more + (head >> at & 2**bits - 1) for at in (across, down))
        _check_size(width * height, data, 3, 8, None, 16)
    try:
        with _OPENING:  # Pillow's limit is one for the whole process; ours follow
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(io.BytesIO(data), formats=[*FORMATS, "DIB"])
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except UnidentifiedImageError:
        what = "JPEG, PNG, BMP, TIFF, WebP, AVIF, HEIC, raw" if data else "empty"
        raise PhotoError(f"no photograph ({what}), or damaged") from None
    with image:  # its pixels take as much memory as the photograph's
        fmt = SAME_AS.get(image.format, image.format)
        if fmt in ("PNG", "WEBP", "AVIF") and getattr(image, "n_frames", 1) > 1:
            frames = f"an animation of {image.n_frames} pictures"
            raise PhotoError(f"{frames}: save one of them as a file of its own")
        (icc, notes, carried), info, depth = _about(data, image, fmt), image.info, 8
        if fmt == "AVIF":
            depth = metadata.bits_of_avif(data)
        elif image.mode[0] == "I" or (fmt == "PNG" and data[24] == 16):
            depth = 16
        clear = "A" in image.getbands() or "transparency" in info or image.mode[0] not in "1LRI"
        # Of a progressive JPEG all coefficients are held, of the others frames as they are coded.
        raw = 16 if fmt in ("WEBP", "AVIF") else 10 if info.get("progressive") else 0
        _check_size(image.width * image.height, data, 3 + clear, depth, icc, raw)
        if fmt == "AVIF" and depth > 8:
            photo = _split(_full_range(imagecodecs.avif_decode(data), depth, "AVIF"))
        else:
            image.load()
            deep_png = fmt == "PNG" and depth == 16
            photo = _split(imagecodecs.png_decode(data)) if deep_png else _plain(image)
        about = {"icc": icc, "dpi": info.get("dpi"), "notes": notes, "carried": carried}
        photo = replace(photo, format=fmt, **about)
        if fmt == "TIFF":  # which Pillow turns
            return photo, metadata.exif_of_tiff(data)[0], 1
        try:
            found = image.getexif()  # also what XMP says of the orientation
            block = info.get("exif") or (found.tobytes() if found else None)
            return photo, block, found.get(metadata.ORIENTATION, 1)
        except Exception:  # damaged
            return photo, None, 1


def _about(
    data: bytes, image: Image.Image, fmt: str
) -> tuple[bytes | None, tuple[str, ...], dict[str, bytes]]:
    """Of a file that Pillow opened: its profile, what is left out, what travels besides EXIF."""
    info, mode, notes = image.info, image.mode, []
    icc, carried = info.get("icc_profile"), {XMP: info.get("xmp")}
    gain_map = any(mark in data for mark in metadata.GAIN_MAPS) or b"tmap" in data[:4096]
    if fmt == "PNG":
        points = dict(metadata.png_chunks(data)).get(b"cICP", b"")
        if len(points) == 4:
            icc = color.by_code_points(points[0], points[1], mode)
        elif not icc and info.get("gamma") and "srgb" not in info:
            icc = color.by_gamma(info["gamma"], info.get("chromaticity"), mode)
        carried[TEXT] = metadata.png_texts(data)
        notes += [IPTC] if "Raw profile type iptc" in info else []
    elif fmt == "AVIF":
        if not icc and (points := metadata.code_points(data)):
            icc = color.by_code_points(*points, mode)
        notes += [GAIN_MAP] if gain_map else []
    elif fmt == "JPEG":
        if not icc and mode == "RGB" and metadata.states_adobe_rgb(info.get("exif")):
            icc = color.profile(*color.ADOBE)
        tail, further = metadata.behind_jpeg(data)
        if further:
            notes.append(GAIN_MAP if gain_map else FURTHER)
        if b"ftyp" in tail or b"SEFT" in tail:  # a video, or what Samsung's phones put behind
            carried[TAIL] = tail
        blocks = info.get("photoshop")
        carried[IPTC] = blocks.get(0x404) if isinstance(blocks, dict) else None
        carried[COMMENT] = info.get("comment")
    return color.fitting(icc, mode), tuple(notes), carried


def _plain(image: Image.Image) -> Photo:
    """Photo of a Pillow image as its values lie, without its profile."""
    mode = image.mode
    if mode in ("F", "HSV", "LAB"):
        raise PhotoError(f"{mode} image: convert it to RGB first")
    if mode.startswith("I"):
        values = np.asarray(image)
        low, high = values.min(), values.max()
        if low < 0 or high > 65535:
            raise PhotoError(f"{mode} image with values {low} – {high}: only 0 – 65535 is read")
        return _split(values.astype(np.uint16))
    plain = "L" if mode in ("1", "L", "LA", "La") else "RGB"
    plain += "A" * (mode[-1] in "Aa" or "transparency" in image.info)
    if mode == "CMYK":
        image = color.from_cmyk(image, image.info.get("icc_profile"))
    image = image if image.mode == plain else image.convert(plain)
    # As np.array(image), which copies large images twice more on the way.
    (width, height), rows = image.size, max(1, color.BAND // image.width)
    array = np.empty((height, width, len(plain)), np.uint8)
    for top in range(0, height, rows):
        part = image.crop((0, top, width, min(top + rows, height)))
        array[top : top + rows] = np.asarray(part).reshape(-1, width, len(plain))
    return _split(array)


def _by_tifffile(data: bytes) -> Decoded | None:
    """Grey, RGB or raw TIFF of any depth; None for the kinds that Pillow reads as well."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        if page.is_reduced or DNG_VERSION in page.tags or page.photometric in RAW_PHOTOMETRIC:
            return _by_extra(data, "RAW")
        # Their chain may be endless.
        thumbnails = [each.is_reduced for each in itertools.islice(file.pages, MAX_PAGES + 1)]
        pages = MAX_PAGES if len(thumbnails) > MAX_PAGES else thumbnails.count(False)
        if pages > 1:
            raise PhotoError(f"a TIFF of {pages} pages: save one of them as a file of its own")
        simple, depth = page.photometric in (0, 1, 2), f"a {page.bitspersample}-bit {page.dtype}"
        if not simple and page.bitspersample > 8:
            name = getattr(page.photometric, "name", page.photometric)
            raise PhotoError(f"{depth} TIFF in {name} colour: convert it to RGB or to 8 bits first")
        if not simple or page.dtype is None or page.dtype.kind == "b":
            return None
        size, samples = page.imagewidth * page.imagelength, page.samplesperpixel
        how = 3 + (samples not in (1, 3)), page.bitspersample, page.iccprofile
        _check_size(size, data, *how, samples * page.dtype.itemsize)
        if not (page.dataoffsets and all(page.dataoffsets) and all(page.databytecounts)):
            # tifffile would fill them with black.
            raise PhotoError("damaged: parts of the picture are missing")
        photo, value = _pixels_of(page, f"{depth} TIFF"), page.tags.valueof
        photo.carried = {XMP: value(700), IPTC: value(33723)}
        photo.dpi = metadata.density(None, data)
        photo.notes = ("Photoshop's layers",) * bool(value(37724))
    return photo, *metadata.exif_of_tiff(data)


def _pixels_of(page: tifffile.TiffPage, kind: str) -> Photo:
    if page.axes not in ("YX", "SYX", "YXS"):
        raise PhotoError(f"{kind} with axes {page.axes}: only flat pictures are read")
    values = page.asarray()
    values = np.moveaxis(values, 0, -1) if page.axes == "SYX" else values
    values = values if values.ndim == 3 else values[..., None]
    values = _full_range(values, page.bitspersample, kind)
    if page.photometric == 0:  # white is zero
        values[..., 0] = np.iinfo(values.dtype).max - values[..., 0]
    colors, extra = 3 if page.photometric == 2 else 1, [int(e) for e in page.extrasamples][:1]
    has_alpha = extra in ([1], [2]) and values.shape[2] > colors
    associated = has_alpha and extra == [1]
    photo = _split(values[..., : colors + has_alpha], associated, format="TIFF")
    photo.icc = color.fitting(page.iccprofile, "L" if photo.gray else "RGB")
    return photo


def _full_range(values: np.ndarray, bits: int, kind: str) -> np.ndarray:
    """uint8 or uint16 that uses its whole range, in native byte order."""
    floats, dtype = values.dtype.kind == "f", np.dtype(np.uint8 if bits <= 8 else np.uint16)
    if floats:
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # also when there are NaN
            found = f"{kind} with values {low:g} – {high:g}"
            raise PhotoError(f"{found}: floats are read in 0 – 1 alone")
    elif values.dtype.kind != "u" or bits > 16:
        raise PhotoError(f"{kind}: only unsigned integers up to 16 bits and floats are read")
    elif bits in (8, 16):
        return values.astype(dtype, copy=False)
    scale = np.iinfo(dtype).max / (1 if floats else 2**bits - 1)
    return color.by_bands(lambda rows: np.rint(rows.astype(np.float64) * scale), dtype, values)


def _split(array: np.ndarray, premultiplied: bool = False, **about) -> Photo:
    """Photo of (H, W) or (H, W, 1 – 4): grey, grey and alpha, RGB, RGB and alpha."""
    array = array[..., None] if array.ndim == 2 else array
    samples, top = array.shape[2], np.iinfo(array.dtype).max
    alpha = np.ascontiguousarray(array[..., -1]) if samples in (2, 4) else None
    pixels = array[..., :3] if samples >= 3 else array[..., :1].repeat(3, axis=2)

    def divided(rows: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        scale = top / np.maximum(alpha, 1).astype(np.float64)
        return np.minimum(np.rint(rows * scale[..., None]), top)

    if premultiplied:
        pixels = color.by_bands(divided, pixels.dtype, pixels, alpha)
    return Photo(np.ascontiguousarray(pixels), alpha, samples < 3, **about)


def _upright(photo: Photo, exif: bytes | None, orientation: int) -> Photo:
    """Apply the EXIF orientation and keep the block without it; damaged EXIF is left behind."""

    def turned(array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        array = array[::-1] if orientation in (3, 4, 6, 7) else array
        array = array[:, ::-1] if orientation in (2, 3, 7, 8) else array
        return np.ascontiguousarray(array.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else array)

    pixels, dpi = turned(photo.pixels), metadata.density(photo.dpi, exif)
    dpi = dpi[::-1] if dpi and orientation in (5, 6, 7, 8) else dpi
    exif = metadata.clean_exif(exif) if exif else None
    return replace(photo, pixels=pixels, alpha=turned(photo.alpha), dpi=dpi, exif=exif)


def _toned(photo: Photo) -> Photo:
    """In sRGB, by the profile; a damaged one changes nothing."""
    icc, alpha = photo.icc, photo.alpha
    try:
        table = color.by_table(photo.pixels, icc) if icc and not photo.gray else None
    except RuntimeError:
        return photo
    if table is not None:
        return replace(photo, pixels=table, icc=None)
    if color.meaning(icc) is None:
        return photo
    if alpha is not None and alpha.dtype == np.uint8:
        alpha = alpha.astype(np.uint16) * 257
    pixels = color.to_srgb(photo.pixels, icc)
    return replace(photo, pixels=pixels, alpha=alpha, original=photo.pixels)


# Writing


def _encode(
    photo: Photo, fmt: str, quality: int | None, settings: str | None
) -> tuple[bytes, list[str]]:
    """The file's content, and what it could not hold."""
    photo, lost = _as_held(photo, fmt)
    if fmt != "BMP" and settings:
        photo = replace(photo, exif=metadata.with_settings(photo.exif, settings))
    if fmt == "TIFF":
        return _encode_tiff(photo), lost
    options, carried, array = dict(FORMATS[fmt][2]), photo.carried, _joined(photo)
    if quality and "quality" in options:
        options["quality"] = quality
    if fmt == "AVIF" and photo.gray and photo.alpha is None:
        options["subsampling"] = "4:0:0"
    if fmt == "AVIF" and photo.alpha is not None:  # colours are lossy, transparency is not
        options |= {"codec": "aom", "advanced": {"alpha:lossless": "1"}}
    if fmt != "PNG":
        more = {"exif": photo.exif, "icc_profile": photo.icc, "dpi": photo.dpi}
        more |= {"xmp": carried.get(XMP), "comment": carried.get(COMMENT)}
        more["extra"] = metadata.iptc_segment(carried[IPTC]) if IPTC in carried else None
        options |= {name: value for name, value in more.items() if value}
    buffer = io.BytesIO()
    if array.dtype == np.uint16:
        buffer.write(imagecodecs.png_encode(array))
    else:
        Image.fromarray(array).save(buffer, fmt, **options)
    data = buffer.getvalue()
    if fmt == "PNG":
        end_of_header = 33  # signature 8, IHDR 25
        data = data[:end_of_header] + _png_chunks(photo) + data[end_of_header:]
    return data + carried.get(TAIL, b""), lost


def _as_held(photo: Photo, fmt: str) -> tuple[Photo, list[str]]:
    """The photograph as a file of this format holds it, and what is left out for that."""
    if fmt in ("JPEG", "BMP") and photo.alpha is not None:
        if (photo.alpha != np.iinfo(photo.alpha.dtype).max).any():
            none = f"{fmt} holds no transparency and the photograph has some"
            raise PhotoError(f"{none}: write .png, .tif or .webp")
        photo = replace(photo, alpha=None)
    colored = fmt == "WEBP" or (fmt == "AVIF" and photo.alpha is not None)  # no grey there
    photo = _as_stored(photo, in_srgb=fmt == "BMP" or (photo.gray and colored))
    lost = []
    if photo.pixels.dtype == np.uint16 and fmt not in ("PNG", "TIFF"):
        lost.append("more than 8 bits")
        photo = replace(photo, pixels=to_8_bits(photo.pixels), alpha=to_8_bits(photo.alpha))
    sizes = {name: len(value) for name, value in photo.carried.items()}
    sizes |= {EXIF: len(photo.exif)} if photo.exif else {}
    most = MAX_SEGMENT if fmt == "JPEG" else MAX_BYTES
    holds = FORMATS[fmt][1]
    out = {n for n, size in sizes.items() if n not in holds or (size > most and n != TAIL)}
    carried = {name: value for name, value in photo.carried.items() if name not in out}
    exif = None if EXIF in out else photo.exif
    return replace(photo, carried=carried, exif=exif), lost + sorted(out)


def _as_stored(photo: Photo, in_srgb: bool = False) -> Photo:
    """As the file has it, in its own tones and depth; or in sRGB, without a profile."""
    icc, pixels, alpha, original = photo.icc, photo.pixels, photo.alpha, photo.original
    if original is not None:
        pixels = pixels if in_srgb else color.from_srgb(pixels, icc, original)
        if original.dtype == np.uint8:
            pixels, alpha = to_8_bits(pixels), to_8_bits(alpha)
    icc = None if in_srgb else icc
    return replace(photo, pixels=pixels, alpha=alpha, icc=icc, original=None)


def to_8_bits(values: np.ndarray | None) -> np.ndarray | None:
    """uint16 of any shape → uint8, rounded; uint8, and None, as they are."""
    if values is None or values.dtype == np.uint8:
        return values
    return color.by_bands(lambda rows: (rows.astype(np.uint32) + 128) // 257, np.uint8, values)


def _joined(photo: Photo) -> np.ndarray:
    """(H, W) grey, (H, W, 2) grey and alpha, (H, W, 3) or (H, W, 4)."""
    color = photo.pixels[..., :1] if photo.gray else photo.pixels
    array = color if photo.alpha is None else np.dstack([color, photo.alpha])
    array = array[..., 0] if array.shape[2] == 1 else array
    # Encoders want plain strides, also for one row.
    return np.ascontiguousarray(array).reshape(-1).reshape(array.shape)


def _png_chunks(photo: Photo) -> bytes:
    """What a PNG holds beside its pixels."""
    chunks, chunk = b"", metadata.png_chunk
    if photo.icc:
        chunks += chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(photo.icc))
    if photo.dpi:
        meters = [round(value / 0.0254) for value in photo.dpi]
        chunks += chunk(b"pHYs", struct.pack(">IIB", *meters, 1))
    if photo.exif:
        chunks += chunk(b"eXIf", photo.exif.removeprefix(metadata.PREFIX))
    if XMP in photo.carried:
        chunks += chunk(b"iTXt", metadata.XMP_KEYWORD + bytes(5) + photo.carried[XMP])
    return chunks + photo.carried.get(TEXT, b"")


def _encode_tiff(photo: Photo) -> bytes:
    carried = ((700, 1, photo.carried.get(XMP)), (33723, 7, photo.carried.get(IPTC)))
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        _joined(photo),
        byteorder=">" if photo.exif and photo.exif[len(metadata.PREFIX) :][:2] == b"MM" else "<",
        photometric="minisblack" if photo.gray else "rgb",
        planarconfig=None if photo.gray and photo.alpha is None else "contig",
        extrasamples=None if photo.alpha is None else ["unassalpha"],
        compression="zlib",
        predictor=True,
        iccprofile=photo.icc,
        resolution=photo.dpi,
        resolutionunit="inch" if photo.dpi else None,
        extratags=[(tag, kind, len(value), value, True) for tag, kind, value in carried if value],
        metadata=None,
        software=False,
    )
    if photo.exif:
        metadata.exif_into_tiff(buffer, photo.exif)
    return buffer.getvalue()


def _one_line(error: Exception) -> str:
    text = error.args[0] if error.args and isinstance(error.args[0], bytes) else str(error).encode()
    return " ".join(text.decode("utf-8", "replace").split()) or type(error).__name__
