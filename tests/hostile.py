"""Odd and hostile photograph files, made by a script so that none has to be stored:
``make(folder)``.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from pictures import SRGB, dark, dng, encoded, heic, tiff
from PIL import Image

from zdce.metadata import png_chunk

FORMATS = {"jpg": "JPEG", "png": "PNG", "bmp": "BMP", "tif": "TIFF", "webp": "WEBP", "avif": "AVIF"}
FINE, REFUSED, EITHER = "enhanced", "refused", "either"  # what must become of a file


def picture(height: int = 24, width: int = 32, mode: str = "RGB", seed: int = 0) -> Image.Image:
    return Image.fromarray(dark(height, width, seed=seed)).convert(mode)


def png(width: int, height: int, data: bytes = b"", depth: int = 8, color: int = 2) -> bytes:
    """A PNG whose header states any size."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", data or zlib.compress(b"\0")), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def packed(rows: int, row: int) -> bytes:
    """As many black rows of ``row`` bytes for a PNG, deflated to a thousandth: one piece, again and
    again.
    """
    size, squeeze = rows * (1 + row), zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = squeeze.compress(bytes(2**20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    last = squeeze.compress(bytes(size % 2**20)) + squeeze.flush()
    return b"\x78\xda" + piece * (size // 2**20) + last + struct.pack(">HH", size % 65_521, 1)


def stated(data: bytes, side: int) -> bytes:
    """A TIFF that states another width and height."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        order, tags = file.byteorder, file.pages.first.tags
        entries = [(tags[number].offset, number) for number in (256, 257)]
    out = bytearray(data)
    for offset, number in entries:
        out[offset : offset + 12] = struct.pack(order + "HHII", number, 4, 1, side)
    return bytes(out)


def without_a_strip(values: np.ndarray) -> bytes:
    """A TIFF of which the second strip lies nowhere; it must not be read as black."""
    out = bytearray(tiff(values, rowsperstrip=8))
    with tifffile.TiffFile(io.BytesIO(out)) as file:
        place = file.pages.first.tags["StripOffsets"].valueoffset
    out[place + 4 : place + 8] = bytes(4)
    return bytes(out)


def directory(entries: list[tuple[int, int, int, int]], after: int = 0) -> bytes:
    """A TIFF's directory: number, kind, count and value of each entry."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + table + struct.pack("<I", after)


def float_bomb(side: int) -> bytes:
    """A TIFF of side² double-precision RGB pixels, of which all strips are one and the same."""
    rows = 100
    strip, count = zlib.compress(bytes(rows * side * 24)), side // rows
    start = 8 + 2 + 12 * 11 + 4
    numbers = struct.pack("<6H", 64, 64, 64, 3, 3, 3)
    table = start + len(numbers)
    offsets = struct.pack(f"<{count}I", *[table + 8 * count] * count)
    lengths = struct.pack(f"<{count}I", *[len(strip)] * count)
    entries = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 3, start), (259, 3, 1, 8)]
    entries += [(262, 3, 1, 2), (273, 4, count, table), (277, 3, 1, 3), (278, 4, 1, rows)]
    entries += [(279, 4, count, table + 4 * count), (284, 3, 1, 1), (339, 3, 3, start + 6)]
    head = b"II*\0" + struct.pack("<I", 8) + directory(entries)
    return head + numbers + offsets + lengths + strip


def pages(count: int) -> bytes:
    """A TIFF of many directories, each a thumbnail of one pixel but the first."""
    out, size = b"II*\0" + struct.pack("<I", 8), 2 + 12 * 8 + 4
    for k in range(count):
        values = {254: bool(k), 256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 0, 279: 1}
        after = 8 + size * (k + 1) if k < count - 1 else 0
        out += directory([(number, 4, 1, value) for number, value in values.items()], after)
    return out


def exif(tag: int, value: int | bytes) -> bytes:
    block = Image.Exif()
    block[tag] = value
    return block.tobytes()


def files() -> Iterator[tuple[str, bytes, str]]:
    """Name, content and what must become of it (:data:`FINE`, :data:`REFUSED`, :data:`EITHER`)."""
    yield from _damaged()
    yield from _odd()
    yield from _tagged()
    yield from _named()


def _damaged() -> Iterator[tuple[str, bytes, str]]:
    others = [*list(FORMATS)[1:], "jpg"]
    for (suffix, fmt), other in zip(FORMATS.items(), others, strict=True):
        whole = encoded(picture(), fmt)
        yield f"empty.{suffix}", b"", REFUSED
        yield f"text.{suffix}", b"This is no photograph.\n" * 20, REFUSED
        yield f"zeros.{suffix}", bytes(2000), REFUSED
        yield f"really-{suffix}.{other}", whole, FINE
        yield from _spoilt(f"plain.{suffix}", whole, range(1, 11))
    for name, whole in _kinds().items():  # which go through other decoders than the plain ones
        yield from _spoilt(name, whole, range(2, 12, 2))


def _spoilt(name: str, whole: bytes, flips: range) -> Iterator[tuple[str, bytes, str]]:
    """A file as it is, cut at each tenth, and with some bits turned."""
    (stem, suffix), rng = name.split("."), np.random.default_rng(7)
    yield f"whole-{name}", whole, FINE
    for tenth in range(1, 10):
        # A picture's last bytes may be padding or metadata: then nothing is missing.
        cut = whole[: len(whole) * tenth // 10]
        yield f"{stem}-cut-{tenth}.{suffix}", cut, EITHER if tenth == 9 else REFUSED
    for count in flips:
        broken = bytearray(whole)
        for place in rng.integers(0, len(broken), count):
            broken[place] ^= 1 << int(rng.integers(8))
        yield f"{stem}-flipped-{count}.{suffix}", bytes(broken), EITHER


def _kinds() -> dict[str, bytes]:
    deep = np.asarray(picture()).astype(np.uint16) * 257 + 3
    wide = bytes(imagecodecs.cms_profile("adobergb"))
    return _of_extras() | {
        "ten.png": imagecodecs.avif_encode(deep >> 6, bitspersample=10, level=95),
        "wide.jpeg": encoded(picture(), "JPEG", icc_profile=wide),
        "deep.png": imagecodecs.png_encode(deep),
        "zip.tif": tiff(deep, photometric="rgb", compression="zlib", predictor=True),
        "lzw.tif": tiff(deep, photometric="rgb", compression="lzw"),
        "tiled.tif": tiff(deep, photometric="rgb", tile=(16, 16)),
        "cmyk.jpeg": encoded(picture(mode="CMYK"), "JPEG"),
        "progressive.jpe": encoded(picture(), "JPEG", progressive=True),
    }


def _of_extras() -> dict[str, bytes]:
    """Formats that are read with an extra, under names that are written."""
    sensor = np.asarray(picture(48, 64, "L")).astype(np.uint16) * 257
    makers = {
        "heic.jpg": ("pillow_heif", lambda: heic(picture(), quality=90)),
        "raw.tif": ("rawpy", lambda: dng(sensor)),
    }
    return {name: make() for name, (library, make) in makers.items() if find_spec(library)}


def _odd() -> Iterator[tuple[str, bytes, str]]:
    for suffix, fmt in FORMATS.items():
        yield f"single-pixel.{suffix}", encoded(picture(1, 1), fmt), FINE
        yield f"gray.{suffix}", encoded(picture(mode="L"), fmt), FINE
    for suffix in ("png", "tif", "bmp", "jpg"):
        yield f"wide.{suffix}", encoded(picture(1, 20_000), FORMATS[suffix]), FINE
        yield f"tall.{suffix}", encoded(picture(20_000, 1), FORMATS[suffix]), FINE
    yield "wide.webp", encoded(picture(1, 16_383), "WEBP"), FINE  # the format's own largest
    yield "wide.avif", encoded(picture(1, 20_000), "AVIF"), FINE
    deep = (np.asarray(picture()).astype(np.uint16) * 257) + 3
    yield "deep.png", imagecodecs.png_encode(deep), FINE
    yield "deep-alpha.png", imagecodecs.png_encode(np.dstack([deep, deep[..., :1]])), FINE
    yield "deep.tif", tiff(deep, photometric="rgb"), FINE
    yield "deep-gray.tif", tiff(deep[..., 0], photometric="minisblack"), FINE
    yield "deep-gray.png", encoded(Image.fromarray(deep[..., 0]), "PNG"), FINE
    light = deep.astype(np.float32) / 65535
    yield "float.tif", tiff(light, photometric="rgb"), FINE
    yield "double.tif", tiff(light.astype(np.float64), photometric="rgb"), FINE
    yield "half.tif", tiff(light.astype(np.float16), photometric="rgb"), FINE
    yield "float-beyond.tif", tiff(light * 900, photometric="rgb"), REFUSED
    yield "float-nan.tif", tiff(np.where(light > 0.1, np.nan, light), photometric="rgb"), REFUSED
    yield "pages.tif", tiff(np.stack([deep, deep]), photometric="rgb"), REFUSED
    for suffix in ("jpg", "tif"):
        yield f"cmyk.{suffix}", encoded(picture(mode="CMYK"), FORMATS[suffix]), FINE
    palette = picture().convert("P", palette=Image.Palette.ADAPTIVE)
    yield "palette.png", encoded(palette, "PNG"), FINE
    yield "palette-transparent.png", encoded(palette, "PNG", transparency=3), FINE
    yield "palette-alphas.png", encoded(palette, "PNG", transparency=bytes(range(256))), FINE
    yield "palette.tif", encoded(palette, "TIFF"), FINE
    yield "palette.bmp", encoded(palette, "BMP"), FINE
    yield "bits.png", encoded(picture(mode="1"), "PNG"), FINE
    for suffix in ("png", "webp", "avif", "tif"):
        yield f"alpha.{suffix}", encoded(picture(mode="RGBA"), FORMATS[suffix]), FINE
    frames = [picture(seed=seed) for seed in range(3)]
    for suffix in ("png", "webp", "avif"):
        animation = encoded(frames[0], FORMATS[suffix], save_all=True, append_images=frames[1:])
        yield f"animated.{suffix}", animation, REFUSED
    animation = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    yield "animated-gif.png", animation, REFUSED
    yield "xl.png", imagecodecs.jpegxl_encode(np.asarray(picture())), REFUSED
    yield "strip-nowhere.tif", without_a_strip(deep), REFUSED
    yield "signed.tif", tiff(deep.astype(np.int16), photometric="rgb"), REFUSED
    for name, data in _bombs(deep, palette):
        yield name, data, REFUSED


def _bombs(deep: np.ndarray, palette: Image.Image) -> Iterator[tuple[str, bytes]]:
    """Headers that promise far more than the file holds, or than is to be taken."""
    yield "bomb.png", png(60_000, 60_000)
    yield "bomb-of-a-size-that-is-read.png", png(16_320, 12_240)
    yield "bomb-wide.png", png(2**31 - 1, 1)
    yield "bomb-deep.png", png(40_000, 40_000, depth=16)
    yield "short.png", png(8000, 8000)
    plain = tiff(deep, photometric="rgb")
    yield "bomb.tif", stated(plain, 60_000)
    yield "bomb-short.tif", stated(plain, 9000)
    yield "bomb-palette.tif", stated(encoded(palette, "TIFF"), 60_000)

    def patched(data: bytes, place: int, new: bytes) -> bytes:
        return data[:place] + new + data[place + len(new) :]

    webp, lossless = encoded(picture(), "WEBP"), encoded(picture(), "WEBP", lossless=True)
    yield "bomb.webp", patched(webp, 26, struct.pack("<HH", 16_383, 16_383))
    sides = (16_382 | 16_382 << 14).to_bytes(4, "little")
    yield "bomb-lossless.webp", patched(lossless, 21, sides)
    clear = encoded(picture(mode="RGBA"), "WEBP")
    yield "bomb-large.webp", patched(clear, 24, (16_382).to_bytes(3, "little") * 2)
    for name, options, start, sides in (
        ("bomb-progressive", {"progressive": True}, b"\xff\xc2", (13_000, 13_000)),
        ("bomb", {}, b"\xff\xc0", (65_500, 65_500)),
        ("no-size", {}, b"\xff\xc0", (0, 0)),
    ):
        jpeg = encoded(picture(), "JPEG", **options)
        yield f"{name}.jpg", patched(jpeg, jpeg.index(start) + 5, struct.pack(">HH", *sides))
    sides, avif = struct.pack(">II", 60_000, 60_000), encoded(picture(), "AVIF")
    yield "bomb.avif", patched(avif, avif.index(b"ispe") + 8, sides)
    for name, whole in _of_extras().items():
        heic = "heic" in name
        bomb = patched(whole, whole.find(b"ispe") + 8, sides) if heic else stated(whole, 60_000)
        yield f"bomb-{name}", bomb
    bitmap = encoded(picture(), "BMP")
    yield "bomb.bmp", patched(bitmap, 18, struct.pack("<ii", 50_000, 50_000))
    yield "negative.bmp", patched(bitmap, 18, struct.pack("<ii", -5, 40))
    # Sizes that are read, in files that hold them well packed: what they take is known before it is
    # taken.
    yield "bomb-alpha.png", png(13_000, 13_000, packed(13_000, 13_000 * 4), color=6)
    yield "bomb-deep-packed.png", png(10_000, 10_000, packed(10_000, 10_000 * 6), depth=16)
    gray = packed(13_000, 13_000 * 2)
    yield "bomb-deep-gray.png", png(13_000, 13_000, gray, depth=16, color=0)
    yield "bomb-float.tif", float_bomb(9000)
    yield "pages-many.tif", pages(2500)
    yield "loop.tif", b"II*\0" + struct.pack("<IHHHIII", 8, 1, 256, 4, 1, 32, 8)
    yield "tags.tif", b"II*\0" + struct.pack("<IH", 8, 65_535) + bytes(100)


def _tagged() -> Iterator[tuple[str, bytes, str]]:
    for suffix in ("jpg", "png", "webp", "avif", "tif"):
        fmt = FORMATS[suffix]
        for orientation in (*range(1, 9), 99):
            turned = encoded(picture(), fmt, exif=exif(274, orientation))
            yield f"orientation-{orientation}.{suffix}", turned, FINE
        if suffix not in ("avif", "tif"):  # Pillow does not write it there
            garbage = encoded(picture(), fmt, exif=b"Exif\0\0" + bytes(range(200)))
            yield f"exif-garbage.{suffix}", garbage, FINE
            cut = exif(270, b"x" * 500)[:60]
            yield f"exif-cut.{suffix}", encoded(picture(), fmt, exif=cut), FINE
        for name, icc in (("garbage", b"no profile" * 9), ("cut", SRGB[:200]), ("bare", b"\0")):
            yield f"icc-{name}.{suffix}", encoded(picture(), fmt, icc_profile=icc), FINE
        yield f"icc-other.{suffix}", encoded(picture(mode="L"), fmt, icc_profile=SRGB), FINE
    for name, tag in {
        "nowhere": (34665, 4, 1, 2**31, True),
        "itself": (34665, 4, 1, 8, True),
        "long": (270, 2, 0, "x" * 70_000, True),
    }.items():
        tagged = tiff(np.asarray(picture()), photometric="rgb", extratags=[tag])
        yield f"exif-{name}.tif", tagged, FINE


def _named() -> Iterator[tuple[str, bytes, str]]:
    whole = encoded(picture(), "PNG")
    shell = ["-o", "--help", "'quoted\"", "%s%n{0}", "$(touch x);`y`", "back\\slash"]
    for stem in ("with space", "ünïcödé 夜景 🌃", "new\nline", "tab\t", "dots.", "a" * 240, *shell):
        yield f"{stem}.png", whole, FINE
    yield "UPPER.PNG", whole, FINE
    for stem in ("new\nline-refused", "-refused", "\x1b[2Jescape", "spoilt 夜景", "raw\udcff"):
        yield f"{stem}.png", whole[:90], REFUSED


def make(folder: Path) -> dict[str, str]:
    """Write every file into ``folder``; returns what must become of each, by name."""
    folder.mkdir(parents=True)
    wanted = {}
    for name, data, outcome in files():
        if name in wanted:
            raise ValueError(f"{name!r} twice")
        (folder / name).write_bytes(data)
        wanted[name] = outcome
    return wanted
