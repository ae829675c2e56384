"""Photograph files: what goes in comes out, at full depth, upright, with transparency, profile and
EXIF.
"""

import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from pictures import SRGB, dng, encoded, heic, noise, read, smooth, tiff
from PIL import ExifTags, Image, ImageOps, JpegImagePlugin

from zdce import photos
from zdce.metadata import png_chunk
from zdce.photos import Photo, PhotoError, from_pil, read_photo, to_pil, write_photo

GRAY_PROFILE = bytes(imagecodecs.cms_profile("gray"))
EXIF_IFD, GPS_IFD = 34665, 34853
GRAY, RGB = {"photometric": "minisblack"}, {"photometric": "rgb"}


def picture(height, width, dtype=np.uint8, gray=False, alpha=False):
    pixels = noise(height, width, 3, dtype=dtype)
    if gray:
        pixels = pixels[..., :1].repeat(3, axis=2)
    return Photo(pixels, noise(height, width, dtype=dtype, seed=1) if alpha else None, gray)


def through(tmp_path, photo, name):
    """What is read of ``photo`` after it was written under that name."""
    write_photo(photo, tmp_path / name)
    return read_photo(tmp_path / name)


def away(one, other):
    return np.abs(one.astype(int) - other)


# Depth and channels: that all kinds come back as they were, at any size, stands in test_properties


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_other_readers_find_every_bit_that_was_written(tmp_path, suffix, dtype, gray, alpha):
    photo, path = picture(7, 5, dtype=dtype, gray=gray, alpha=alpha), tmp_path / f"a.{suffix}"
    write_photo(photo, path)
    stored = np.dstack([photo.pixels[..., : 1 if gray else 3], *[photo.alpha] * alpha])
    other = tifffile.imread if suffix == "tif" else lambda path: imagecodecs.imread(path)
    assert other(path).dtype == dtype and np.array_equal(other(path).squeeze(), stored.squeeze())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_deep_tiff_of_every_layout(tmp_path, compression, planar, order):
    values = noise(21, 17, 3, dtype=np.uint16)
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    how = RGB | {"planarconfig": planar, "byteorder": order, "rowsperstrip": 5}
    for predictor in (False, compression is not None):
        data = tiff(stored, compression=compression, predictor=predictor, **how)
        photo = read(tmp_path, data)
        assert photo.pixels.dtype == np.uint16 and photo.pixels.dtype.isnative
        assert np.array_equal(photo.pixels, values) and photo.format == "TIFF" and not photo.gray


def test_other_kinds_of_tiff(tmp_path):
    deep, twelve = noise(60, 50, dtype=np.uint16), np.array([[0, 4095, 2048, 1]], np.uint16)
    white = read(tmp_path, tiff(deep, photometric="miniswhite"))
    assert np.array_equal(white.pixels[..., 1], 65535 - deep) and white.gray
    assert np.array_equal(read(tmp_path, tiff(deep, tile=(16, 16), **GRAY)).pixels[..., 2], deep)
    extra = {"extrasamples": ["unspecified"] * 2, "planarconfig": "contig"}
    assert read(tmp_path, tiff(noise(14, 14, 5), **RGB, **extra)).alpha is None
    stretched = read(tmp_path, tiff(twelve, bitspersample=12, **GRAY)).pixels[0, :, 0].tolist()
    assert stretched == [0, 65535, round(2048 / 4095 * 65535), 16]
    for kind in (np.float16, np.float32, np.float64):
        values = np.random.default_rng(0).random((5, 4, 3)).astype(kind)
        wanted = np.rint(values.astype(float) * 65535)
        assert np.array_equal(read(tmp_path, tiff(values, **RGB)).pixels, wanted)
    photo = picture(8, 8, dtype=np.uint16, alpha=True)
    photo.alpha = np.maximum(photo.alpha, 30000)
    premultiplied = np.rint(photo.pixels * (photo.alpha[..., None] / 65535)).astype(np.uint16)
    stored = np.dstack([premultiplied, photo.alpha])
    back = read(tmp_path, tiff(stored, extrasamples=["assocalpha"], **RGB))
    assert np.array_equal(back.alpha, photo.alpha) and away(back.pixels, photo.pixels).max() <= 2


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_deep_avif_is_read_at_its_depth(tmp_path, bits, channels):
    deep = noise(48, 64, channels, dtype=np.uint16) >> (16 - bits)
    photo = read(tmp_path, imagecodecs.avif_encode(deep.squeeze(), bitspersample=bits, level=100))
    assert photo.pixels.dtype == np.uint16 and photo.format == "AVIF"
    assert photo.gray == (channels == 1) and (photo.alpha is not None) == (channels == 4)
    wanted = np.rint(deep[..., :3] * (65535 / (2**bits - 1)))
    assert np.array_equal(photo.pixels[..., : min(channels, 3)], wanted)


def indexed(colors, index):
    image = Image.new("P", index.shape[::-1])
    image.putdata(index.ravel().tolist())
    image.putpalette(colors.tobytes())
    return image


def deep_with_key(values):
    """A 16-bit PNG of which the colour of the first pixel is transparent."""
    data = imagecodecs.png_encode(values)
    return data[:33] + png_chunk(b"tRNS", np.asarray(values[0, 0], ">u2").tobytes()) + data[33:]


def clear_where(values):
    same = (values == values[0, 0]) if values.ndim == 2 else (values == values[0, 0]).all(axis=2)
    return np.where(same, 0, np.iinfo(values.dtype).max)


COLORS, INDEX, BITS = noise(4, 3, seed=2), noise(6, 7) % 4, noise(6, 9) > 127
PLAIN, COLOR, DEEP = noise(6, 7), noise(6, 7, 3), noise(6, 7, 3, dtype=np.uint16)
DEEP[2, 3] = DEEP[0, 0]
PALETTE, ALPHAS = indexed(COLORS, INDEX), np.array([255, 0, 128, 255], np.uint8)
KEY = {"transparency": int(PLAIN[0, 0])}, {"transparency": tuple(map(int, COLOR[0, 0]))}
MODES = {  # file, its pixels, its transparency
    "palette": (encoded(PALETTE, "PNG"), COLORS[INDEX], None),
    "alphas": (
        encoded(PALETTE, "PNG", transparency=ALPHAS.tobytes()),
        COLORS[INDEX],
        ALPHAS[INDEX],
    ),
    "1-bit PNG": (encoded(BITS, "PNG"), BITS * np.uint8(255), None),
    "1-bit TIFF": (encoded(BITS, "TIFF"), BITS * np.uint8(255), None),
    "1-bit BMP": (encoded(BITS, "BMP"), BITS * np.uint8(255), None),
    "1-bit key": (encoded(BITS, "PNG", transparency=0), BITS * np.uint8(255), BITS * np.uint8(255)),
    "gray key": (encoded(PLAIN, "PNG", **KEY[0]), PLAIN, clear_where(PLAIN)),
    "color key": (encoded(COLOR, "PNG", **KEY[1]), COLOR, clear_where(COLOR)),
    "deep gray key": (deep_with_key(DEEP[..., 0].copy()), DEEP[..., 0], clear_where(DEEP[..., 0])),
    "deep color key": (deep_with_key(DEEP), DEEP, clear_where(DEEP)),
}


@pytest.mark.parametrize("kind", MODES)
def test_palettes_one_bit_and_transparent_colors(tmp_path, kind):
    data, pixels, alpha = MODES[kind]
    photo = read(tmp_path, data)
    assert photo.gray == (pixels.ndim == 2) and photo.pixels.dtype == pixels.dtype
    assert np.array_equal(photo.pixels, np.dstack([pixels] * 3) if photo.gray else pixels)
    assert np.array_equal(photo.alpha, alpha)


# Profiles: what they mean stands in test_color


def table_profile(space, lab):
    """A small ICC profile: ``lab`` holds the 8-bit Lab colour of each corner of ``space``."""
    ramp, count = bytes(range(256)), len(space.strip())
    table = b"mft1" + bytes(4) + bytes([count, 3, 2, 0])
    table += struct.pack(">9i", *(65536 * v for v in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    table += ramp * count + np.asarray(lab).astype(np.uint8).tobytes() + ramp * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(83)
    text = b"text" + bytes(4) + b"none\0\0\0\0"
    contents = {b"desc": name, b"cprt": text, b"wtpt": white, b"A2B0": table}
    tags, body = b"", b""
    for tag, content in contents.items():
        tags += tag + struct.pack(">II", 180 + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    kind = b"prtr" if space == b"CMYK" else b"scnr"
    size = 180 + len(body)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02400000, kind, space, b"Lab ")
    head = (head + bytes(12) + b"acsp").ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", 4) + tags + body


@pytest.mark.parametrize("fmt", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_profile(tmp_path, fmt):
    lab = np.tile([0, 128, 128], (16, 1))
    lab[0], lab[8] = [255, 128, 128], [140, 100, 90]  # paper white; cyan, first ink of four
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    image.paste((0, 0, 0, 0), (4, 0, 8, 8))
    photo = read(tmp_path, encoded(image, fmt, icc_profile=table_profile(b"CMYK", lab)))
    cyan, white = photo.pixels[4, 1].astype(int), photo.pixels[4, 6].astype(int)
    assert photo.icc is None and (white >= 250).all()
    assert cyan[0] < 60 and 100 < cyan[1] < 190 and 150 < cyan[2] < 220  # not 0, 255, 255
    for icc in (b"", b"no profile", SRGB, table_profile(b"CMYK", np.zeros((16, 3)))[:400]):
        photo = read(tmp_path, encoded(image, fmt, icc_profile=icc))
        assert photo.icc is None and away(photo.pixels[0, 0], [0, 255, 255]).max() <= 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_profile_that_is_a_table_becomes_srgb(tmp_path, dtype):
    corners = [[255 - 85 * (r + g + b), 128, 128] for r in (0, 1) for g in (0, 1) for b in (0, 1)]
    values, top = np.zeros((4, 4, 3), dtype), np.iinfo(dtype).max
    values[:, :2] = top
    inverted = tiff(values, iccprofile=table_profile(b"RGB ", corners), **RGB)
    photo = read(tmp_path, inverted)
    assert photo.icc is None and photo.pixels.dtype == dtype
    assert photo.pixels[0, 0].max() < 0.05 * top < 0.95 * top < photo.pixels[0, 3].min()


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_profiles_stay_where_they_fit(tmp_path, fmt):
    color, gray, name = noise(8, 8, 3), noise(8, 8), f"b.{fmt.lower()}"
    photo = read(tmp_path, encoded(color, fmt, icc_profile=SRGB))
    assert photo.icc == SRGB == through(tmp_path, photo, name).icc
    photo = read(tmp_path, encoded(gray, "PNG", icc_profile=GRAY_PROFILE))
    assert photo.icc == GRAY_PROFILE and photo.gray
    kept = fmt != "WEBP"  # which has no grey
    assert through(tmp_path, photo, name).icc == (GRAY_PROFILE if kept else None)
    for image, icc in ((gray, SRGB), (color, GRAY_PROFILE)):
        other = read(tmp_path, encoded(image, fmt, icc_profile=icc))
        assert other.icc is None or (image is gray and not kept)


# Orientation and EXIF


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif", "cmyk.tif", "deep.png"])
def test_orientation_is_applied_once(tmp_path, suffix, orientation):
    alpha, deep, pixels = suffix not in ("jpg", "cmyk.tif"), "deep" in suffix, smooth(20, 36)
    exif = Image.Exif()
    exif[274] = orientation
    upright = np.asarray(ImageOps.exif_transpose(to_pil(Photo(pixels, exif=exif.tobytes()))))
    pixels = pixels * np.uint16(257) if deep else pixels
    if suffix == "cmyk.tif":  # Pillow applies it while decoding, and must not be followed again
        image = Image.fromarray(pixels).convert("CMYK")
        photo = read(tmp_path, encoded(image, "TIFF", compression="tiff_lzw", exif=exif))
    else:
        lying = Photo(pixels, pixels[..., 0] if alpha else None, exif=exif.tobytes())
        photo = through(tmp_path, lying, f"a.{suffix}")
    got = photo.pixels >> 8 if deep else photo.pixels
    tolerance = 0 if suffix[-3:] in ("png", "tif") else 12
    assert got.shape == upright.shape and away(got, upright).max() <= tolerance
    if alpha:
        assert away(photo.alpha, photo.pixels[..., 0]).max() <= tolerance
    assert through(tmp_path, photo, f"b.{suffix}").pixels.shape == photo.pixels.shape


def exif_block(orientation):
    exif = Image.Exif()
    exif[271], exif[274], exif[306] = "Maker", orientation, "2020:01:02 03:04:05"
    exif[EXIF_IFD] = {33434: 0.01, 36867: "2020:01:02 03:04:05", 40962: 999, 40963: 998}
    exif[GPS_IFD] = {1: "N", 2: (1.0, 2.0, 3.0)}
    return exif.tobytes()


def loaded(block):
    exif = Image.Exif()
    exif.load(block)
    return exif


@pytest.mark.parametrize("source", ["jpg", "png", "tif", "webp", "avif", "deep.png", "deep.tif"])
@pytest.mark.parametrize("target", ["jpg", "png", "tif", "webp", "avif"])
def test_exif_is_carried(tmp_path, source, target):
    pixels = noise(8, 12, 3, dtype=np.uint16 if "deep" in source else np.uint8)
    photo = through(tmp_path, Photo(pixels, exif=exif_block(6)), f"a.{source}")
    write_photo(photo, tmp_path / f"b.{target}")
    with Image.open(tmp_path / f"b.{target}") as image:
        exif = image.getexif()
        assert exif[271] == "Maker" and exif[306] == "2020:01:02 03:04:05" and exif.get(274, 1) == 1
        inner = exif.get_ifd(EXIF_IFD)
        assert inner[36867] == "2020:01:02 03:04:05" and float(inner[33434]) == 0.01
        assert tuple(map(float, exif.get_ifd(GPS_IFD)[2])) == (1, 2, 3)
        assert image.size == (8, 12)


def test_no_stale_thumbnail(tmp_path):
    thumbnail = b"\xff\xd8THUMBNAIL\xff\xd9"
    first = struct.pack("<H HHI4s I", 1, 271, 2, 4, b"Mak\0", 26)
    second = struct.pack("<H HHII HHII I", 2, 513, 4, 1, 56, 514, 4, 1, len(thumbnail), 0)
    block = b"Exif\0\0II*\0\x08\0\0\0" + first + second + thumbnail + b"more"
    data = encoded(smooth(), "JPEG", exif=block)
    with Image.open(io.BytesIO(data)) as image:  # the source does hold one
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1)[514] == len(thumbnail)
    for name in ("b.jpg", "b.png", "b.tif", "b.webp"):
        write_photo(read(tmp_path, data), tmp_path / name)
        assert b"THUMBNAIL" not in (tmp_path / name).read_bytes()


# Phones and cameras


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_heic_is_read_with_what_belongs_to_it(tmp_path, mode, alpha):
    image = Image.fromarray(smooth(48, 64)).convert(mode + "A" * alpha)
    image.info |= {"exif": exif_block(6), "xmp": b"<x:xmpmeta/>", "icc_profile": SRGB}
    photo = read(tmp_path, heic(image, exif=image.info["exif"]))
    assert photo.format == "HEIF" and (photo.alpha is not None) == alpha
    upright = np.rot90(np.asarray(image.convert("RGB")), -1)  # turned once
    assert photo.pixels.shape == (64, 48, 3) and away(photo.pixels, upright).mean() < 3
    assert loaded(photo.exif)[271] == "Maker" and photo.carried["XMP"] == b"<x:xmpmeta/>"
    assert loaded(through(tmp_path, photo, "b.png").exif)[271] == "Maker"


def test_other_kinds_of_heic(tmp_path):
    heif, deep = pytest.importorskip("pillow_heif"), smooth(48, 64) * np.uint16(257)
    heif.from_bytes("RGB;16", (64, 48), deep.tobytes()).save(tmp_path / "a.heic", quality=100)
    photo = read_photo(tmp_path / "a.heic")
    assert photo.pixels.dtype == np.uint16 and away(photo.pixels, deep).mean() < 500
    file = heif.from_pillow(Image.fromarray(smooth(48, 64)))
    file.add_from_pillow(Image.fromarray(smooth(32, 32)))
    file.save(tmp_path / "b.heic")
    assert read_photo(tmp_path / "b.heic").notes == ("further pictures",)


def test_a_raw_file_is_developed_to_sixteen_bits_as_bright_as_it_is(tmp_path):
    light = np.tile(np.linspace(500, 40_000, 160).astype(np.uint16), (120, 1))
    photo = read(tmp_path, dng(light), "a.DNG")
    assert photo.format == "RAW" and photo.pixels.dtype == np.uint16
    scaled = light[60, 8:-8] / 65535
    tones = np.where(scaled <= 0.0031308, 12.92 * scaled, 1.055 * scaled ** (1 / 2.4) - 0.055)
    assert np.abs(photo.pixels[60, 8:-8] / 65535 - tones[:, None]).max() < 0.01
    exif = loaded(photo.exif)
    assert exif[271] == "Maker" and exif[272] == "Model" and 50706 not in exif
    for name in ("b.tif", "b.png"):
        assert np.array_equal(through(tmp_path, photo, name).pixels, photo.pixels)


# Files that are not read


def ftyp(brand):
    return struct.pack(">I", 24) + b"ftyp" + brand + b"\0\0\0\1    isom"


RED, WIDE = Image.new("RGB", (4, 4), "red"), np.ones((4, 4, 4), np.uint16)
RAW = {  # how raw files of cameras begin
    "a.CR2": b"II*\0\x10\0\0\0CR\2\0",
    "a.rw2": b"IIU\0\x18\0\0\0",
    "a.orf": b"IIRO\x08\0\0\0",
    "a.raf": b"FUJIFILMCCD-RAW 0201",
    "a.cr3": ftyp(b"crx "),
    "a.nef": b"MM\0*\0\0\0\x08",
    "mrw.jpg": b"\0MRM",
}
UNREAD = {  # file, what is said of it
    "text.jpg": (b"dear diary", "no photograph"),
    "empty.png": (b"", "empty"),
    "a.gif": (encoded(RED, "GIF"), "no photograph"),
    "a.jp2": (encoded(RED, "JPEG2000"), "no photograph"),
    "ppm.jpg": (encoded(RED, "PPM"), "no photograph"),
    "a.jxl": (imagecodecs.jpegxl_encode(noise(8, 8, 3)), "no photograph"),
    "a.psd": (b"8BPS\0\1" + bytes(40), "no photograph"),
    "clip.jpg": (ftyp(b"mp42"), "a video"),
    "loop.png": (encoded(RED, "PNG", save_all=True, append_images=[PALETTE]), "animation of 2"),
    "beyond.tif": (
        tiff(np.full((4, 4, 3), 1.5, np.float32), **RGB),
        "float32 TIFF with values 1.5",
    ),
    "nan.tif": (tiff(np.full((4, 4), np.nan, np.float32), **GRAY), "nan"),
    "signed.tif": (tiff(np.ones((4, 4), np.int16), **GRAY), "16-bit int16"),
    "long.tif": (tiff(np.ones((4, 4), np.uint32), **GRAY), "32-bit uint32"),
    "inks.tif": (tiff(WIDE, photometric="separated"), "SEPARATED colour: convert"),
    "pages.tif": (tiff(np.ones((3, 4, 4, 3), np.uint8), **RGB), "3 pages"),
    "preview.tif": (tiff(np.ones((4, 4, 3), np.uint8), subfiletype=1, **RGB), "raw camera file"),
    "lab.tif": (tiff(np.ones((4, 4, 3), np.uint8), photometric="cielab"), "LAB"),
} | {name: (data + bytes(300), "raw camera file") for name, data in RAW.items()}


@pytest.mark.parametrize("name", [*UNREAD, "missing.jpg", "."])
def test_what_is_not_read_is_refused_in_a_line_with_its_kind(tmp_path, name):
    data, reason = UNREAD.get(name, (None, "cannot be read: "))
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(PhotoError) as error:
        read_photo(tmp_path / name)
    said = str(error.value)
    assert said.startswith(f"{tmp_path / name}: ") and reason in said and "\n" not in said


def test_large_photographs_are_read_where_the_file_holds_them(tmp_path, monkeypatch):
    for mode in ("RGB", "L", "RGBA"):
        original = noise(701, 1000, len(mode)).squeeze()
        photo = read(tmp_path, encoded(original, "PNG", compress_level=0))
        wanted = original[..., :3] if mode != "L" else original[..., None].repeat(3, axis=2)
        assert np.array_equal(photo.pixels, wanted)
        assert photo.alpha is None or np.array_equal(photo.alpha, original[..., 3])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # above twice as many Pillow refuses
    monkeypatch.setattr(photos, "UNSURE_PIXELS", 80)
    held = noise(31, 17, 3)
    assert np.array_equal(read(tmp_path, encoded(held, "PNG")).pixels, held)
    assert Image.MAX_IMAGE_PIXELS == 40
    with pytest.raises(PhotoError, match="which no photograph is"):
        read(tmp_path, encoded(np.zeros((200, 200), np.uint8), "PNG"))


# Writing


@pytest.mark.parametrize("suffix", ["jpg", "webp", "avif"])
def test_lossy_formats_stay_close(tmp_path, suffix):
    pixels = smooth(48, 64)
    assert away(through(tmp_path, Photo(pixels), f"a.{suffix}").pixels, pixels).mean() < 1.5
    if suffix == "jpg":
        with Image.open(tmp_path / "a.jpg") as image:
            assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4
            assert sum(image.quantization[0]) < 400  # quality 95; 75 has 1,858
    else:
        photo = picture(31, 21, alpha=True)
        assert np.array_equal(through(tmp_path, photo, f"a.{suffix}").alpha, photo.alpha)


@pytest.mark.parametrize(
    ("name", "photo", "reason"),
    [
        ("a.jpg", picture(4, 4, alpha=True), "holds no transparency"),
        ("a.bmp", picture(4, 4, alpha=True), "holds no transparency"),
        ("a.gif", picture(4, 4), "photographs are written as .jpg"),
        ("a.heic", picture(4, 4), "photographs are written as .jpg"),
        ("a.webp", Photo(np.zeros((1, 17_000, 3), np.uint8)), "cannot be written"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path, name, photo, reason):
    with pytest.raises(PhotoError) as error:
        write_photo(photo, tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: ") and reason in str(error.value)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "webp", "avif", "png"])
def test_sixteen_bits_become_eight_where_no_more_are_held_and_it_is_told(tmp_path, suffix):
    pixels = smooth(16, 24) * np.uint16(257)
    opaque = np.full((16, 24), 65535, np.uint16)  # an opaque alpha may go anywhere
    lost = write_photo(Photo(pixels + np.uint16(100), opaque), tmp_path / f"a.{suffix.upper()}")
    assert lost == ([] if suffix == "png" else ["more than 8 bits"])
    back = read_photo(tmp_path / f"a.{suffix.upper()}").pixels
    if suffix != "png":
        assert away(back, pixels >> 8).mean() < (0.1 if suffix == "bmp" else 2)


def test_a_name_without_suffix_takes_the_format_of_the_photo(tmp_path):
    (tmp_path / "new").mkdir()
    assert through(tmp_path, Photo(smooth(8, 8), format="WEBP"), "new/a").format == "WEBP"


# Arrays, Pillow images, tensors


def test_pillow_has_no_deep_color_and_some_modes_are_refused():
    with pytest.raises(PhotoError, match="no 16-bit colour"):
        to_pil(picture(3, 3, dtype=np.uint16))
    for image in (Image.new("F", (2, 2)), Image.new("HSV", (2, 2)), Image.new("I", (2, 2), 70_000)):
        with pytest.raises(PhotoError, match=image.mode):
            from_pil(image)
    assert from_pil(Image.new("I", (2, 2), 60_000)).pixels.max() == 60_000
    with pytest.raises(PhotoError, match="float64"):
        Photo(np.zeros((2, 2, 3)))
    with pytest.raises(PhotoError, match="alpha"):
        Photo(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tensors_keep_every_level_and_round_by_half(dtype):
    top = np.iinfo(dtype).max
    pixels = np.arange(top + 1).astype(dtype).reshape(-1, 32, 1).repeat(3, axis=2)
    tensor = photos.to_tensor(pixels)
    assert tensor.shape == (1, 3, (top + 1) // 32, 32) and tensor.dtype == torch.float32
    assert tensor.min() == 0 and tensor.max() == 1
    assert np.array_equal(photos.to_pixels(tensor, dtype), pixels)
    values = torch.tensor([-0.3, 0.4999 / 255, 0.5 / 255, 1.4 / 255, 1.6 / 255, 1.7])
    rounded = photos.to_pixels(values.view(1, 1, 6).expand(3, 1, 6))
    assert rounded[0, :, 0].tolist() == [0, 0, 1, 1, 2, 255]
