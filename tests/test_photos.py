"""Photograph files: what goes in comes out, at full depth, upright, with transparency, profile and
EXIF.
"""

from __future__ import annotations

import io
import os
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps, JpegImagePlugin

from zdce import photos
from zdce.metadata import png_chunk
from zdce.photos import Photo, PhotoError, from_pil, read_photo, to_pil, write_photo

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY_PROFILE = bytes(imagecodecs.cms_profile("gray"))
EXIF_IFD, GPS_IFD = 34665, 34853


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def picture(height, width, dtype=np.uint8, gray=False, alpha=False):
    pixels = noise(height, width, 3, dtype=dtype)
    if gray:
        pixels = pixels[..., :1].repeat(3, axis=2)
    return Photo(pixels, noise(height, width, dtype=dtype, seed=1) if alpha else None, gray)


def smooth(height, width):
    y, x = np.mgrid[:height, :width]
    return np.dstack([40 + 2 * x, 30 + 2 * y, 90 + x - y // 2]).astype(np.uint8)


def save(image, path, **options):
    image.save(path, **options)
    return path


def read_bytes(tmp_path, data, name="a.jpg"):
    (tmp_path / name).write_bytes(data)
    return read_photo(tmp_path / name)


def refusal(path) -> str:
    """What reading says: one line that begins with the file."""
    with pytest.raises(PhotoError) as error:
        read_photo(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{path}: ")


def exif_block(orientation=1):
    exif = Image.Exif()
    exif[271], exif[274], exif[306] = "Maker", orientation, "2020:01:02 03:04:05"
    exif[EXIF_IFD] = {33434: 0.01, 36867: "2020:01:02 03:04:05", 40962: 999, 40963: 998}
    exif[GPS_IFD] = {1: "N", 2: (1.0, 2.0, 3.0)}
    return exif.tobytes()


def loaded(block):
    exif = Image.Exif()
    exif.load(block)
    return exif


# Depth and channels


KINDS = [(s, d, a) for s in (".png", ".tif") for d in (np.uint8, np.uint16) for a in (False, True)]


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize(("suffix", "dtype", "alpha"), [*KINDS, (".bmp", np.uint8, False)])
def test_lossless_formats_return_every_bit(tmp_path, suffix, dtype, gray, alpha):
    for size in ((7, 5), (1, 1), (1, 6), (6, 1), (40, 33)):
        photo, path = picture(*size, dtype=dtype, gray=gray, alpha=alpha), tmp_path / f"a{suffix}"
        write_photo(photo, path)
        back = read_photo(path)
        assert back.pixels.dtype == dtype and np.array_equal(back.pixels, photo.pixels)
        assert np.array_equal(back.alpha, photo.alpha) and back.gray == gray
        if suffix != ".bmp":  # other readers find the same
            stored = np.dstack([photo.pixels[..., : 1 if gray else 3], *[photo.alpha] * alpha])
            deep_png = imagecodecs.png_decode(path.read_bytes()) if suffix == ".png" else None
            other = tifffile.imread(path) if suffix == ".tif" else deep_png
            assert np.array_equal(other.squeeze(), stored.squeeze())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_deep_tiff_of_every_layout(tmp_path, compression, planar, order):
    values = noise(21, 17, 3, dtype=np.uint16)
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    how = {"photometric": "rgb", "planarconfig": planar, "byteorder": order, "rowsperstrip": 5}
    for predictor in (False, compression is not None):
        kind = {"compression": compression, "predictor": predictor}
        tifffile.imwrite(tmp_path / "a.tif", stored, **how, **kind)
        photo = read_photo(tmp_path / "a.tif")
        assert photo.pixels.dtype == np.uint16 and photo.pixels.dtype.isnative
        assert np.array_equal(photo.pixels, values) and photo.format == "TIFF" and not photo.gray


def test_other_kinds_of_tiff(tmp_path):
    deep, path = noise(60, 50, dtype=np.uint16), tmp_path / "a.tif"
    tifffile.imwrite(path, deep, photometric="miniswhite")
    assert np.array_equal(read_photo(path).pixels[..., 1], 65535 - deep) and read_photo(path).gray
    tifffile.imwrite(path, deep, photometric="minisblack", tile=(16, 16))
    assert np.array_equal(read_photo(path).pixels[..., 2], deep)
    extra = {"extrasamples": ["unspecified"] * 2, "planarconfig": "contig"}
    tifffile.imwrite(path, noise(14, 14, 5), photometric="rgb", **extra)
    assert read_photo(path).alpha is None
    twelve = np.array([[0, 4095, 2048, 1]], dtype=np.uint16)
    tifffile.imwrite(path, twelve, photometric="minisblack", bitspersample=12)
    assert read_photo(path).pixels[0, :, 0].tolist() == [0, 65535, round(2048 / 4095 * 65535), 16]
    for kind in (np.float16, np.float32, np.float64):
        values = np.random.default_rng(0).random((5, 4, 3)).astype(kind)
        tifffile.imwrite(path, values, photometric="rgb")
        wanted = np.rint(values.astype(float) * 65535)
        assert np.array_equal(read_photo(path).pixels, wanted.astype(np.uint16))


def test_premultiplied_tiff_is_divided_by_its_alpha(tmp_path):
    photo = picture(8, 8, dtype=np.uint16, alpha=True)
    photo.alpha = np.maximum(photo.alpha, 30000)
    factor = photo.alpha[..., None] / 65535
    stored = np.dstack([np.rint(photo.pixels * factor).astype(np.uint16), photo.alpha])
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
    back = read_photo(tmp_path / "a.tif")
    assert np.array_equal(back.alpha, photo.alpha)
    assert np.abs(back.pixels.astype(int) - photo.pixels).max() <= 2


GREY, RGB = {"photometric": "minisblack"}, {"photometric": "rgb"}


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        (np.full((4, 4, 3), 1.5, np.float32), RGB, "32-bit float32 TIFF with values 1.5 – 1.5"),
        (np.full((4, 4), np.nan, np.float32), GREY, "nan"),
        (np.ones((4, 4), np.int16), GREY, "16-bit int16"),
        (np.ones((4, 4), np.uint32), GREY, "32-bit uint32"),
        (np.ones((4, 4, 4), np.uint16), {"photometric": "separated"}, "SEPARATED colour: convert"),
        (np.ones((3, 4, 4, 3), np.uint8), RGB, "3 pages"),
        (np.ones((4, 4, 3), np.uint8), RGB | {"subfiletype": 1}, "raw camera file"),
        (np.ones((4, 4, 3), np.uint8), {"photometric": "cielab"}, "LAB"),
    ],
)
def test_odd_tiff_is_refused_with_its_kind(tmp_path, values, options, reason):
    tifffile.imwrite(tmp_path / "odd.tif", values, metadata=None, **options)
    assert reason in refusal(tmp_path / "odd.tif")


@pytest.mark.parametrize("channels", [1, 3])
def test_deep_png_with_a_transparent_color(tmp_path, channels):
    values = noise(6, 5, channels, dtype=np.uint16)
    values[2, 3] = values[0, 0]
    data = imagecodecs.png_encode((values if channels == 3 else values[..., 0]).copy())
    key = png_chunk(b"tRNS", values[0, 0].astype(">u2").tobytes())
    photo = read_bytes(tmp_path, data[:33] + key + data[33:])
    assert np.array_equal(photo.pixels[..., :channels], values) and photo.gray == (channels == 1)
    assert (photo.alpha == 0).sum() == 2 and photo.alpha[0, 0] == photo.alpha[2, 3] == 0
    assert photo.alpha.max() == 65535


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_deep_avif_is_read_at_its_depth(tmp_path, bits, channels):
    deep = noise(48, 64, channels, dtype=np.uint16) >> (16 - bits)
    data = imagecodecs.avif_encode(deep.squeeze(), bitspersample=bits, level=100)
    photo = read_bytes(tmp_path, data, "a.avif")
    assert photo.pixels.dtype == np.uint16 and photo.format == "AVIF"
    assert photo.gray == (channels == 1) and (photo.alpha is not None) == (channels == 4)
    wanted = np.rint(deep[..., :3] * (65535 / (2**bits - 1))).astype(np.uint16)
    assert np.array_equal(photo.pixels[..., : min(channels, 3)], wanted)
    photo.alpha = None
    assert write_photo(photo, tmp_path / "b.jpg") == ["more than 8 bits"]


# Modes


def test_palette_one_bit_and_color_keys(tmp_path):
    colors, index = noise(4, 3, seed=2), noise(6, 7) % 4
    palette = Image.fromarray(index).convert("P")
    palette.putdata(index.ravel().tolist())
    palette.putpalette(colors.tobytes())
    plain = read_photo(save(palette, tmp_path / "p.png"))
    assert np.array_equal(plain.pixels, colors[index]) and plain.alpha is None and not plain.gray
    clear = read_photo(save(palette, tmp_path / "t.png", transparency=bytes([255, 0, 128, 255])))
    assert np.array_equal(clear.pixels, colors[index])
    assert np.array_equal(clear.alpha, np.array([255, 0, 128, 255])[index])
    bits = noise(6, 9) > 127
    for name in ("b.png", "b.tif", "b.bmp"):
        photo = read_photo(save(Image.fromarray(bits), tmp_path / name))
        assert photo.gray and np.array_equal(photo.pixels[..., 0], bits * np.uint8(255))
    photo = read_photo(save(Image.fromarray(bits), tmp_path / "k.png", transparency=0))
    assert np.array_equal(photo.alpha, bits * np.uint8(255))
    gray, color = noise(6, 7), noise(6, 7, 3)
    key = int(gray[0, 0])
    photo = read_photo(save(Image.fromarray(gray), tmp_path / "g.png", transparency=key))
    assert photo.gray and np.array_equal(photo.alpha, np.where(gray == key, 0, 255))
    key = tuple(map(int, color[0, 0]))
    photo = read_photo(save(Image.fromarray(color), tmp_path / "c.png", transparency=key))
    assert photo.alpha[0, 0] == 0 and photo.alpha.mean() > 200
    assert np.array_equal(photo.pixels, color)


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


def test_cmyk_goes_through_its_profile(tmp_path):
    lab = np.tile([0, 128, 128], (16, 1))
    lab[0], lab[8] = [255, 128, 128], [140, 100, 90]  # paper white; cyan, first ink of four
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    image.paste((0, 0, 0, 0), (4, 0, 8, 8))
    for name in ("a.jpg", "a.tif"):
        profile = table_profile(b"CMYK", lab)
        photo = read_photo(save(image, tmp_path / name, icc_profile=profile))
        cyan, white = photo.pixels[4, 1].astype(int), photo.pixels[4, 6].astype(int)
        assert photo.icc is None and (white >= 250).all()
        # Not the plain formula's 0, 255, 255.
        assert cyan[0] < 60 and 100 < cyan[1] < 190 and 150 < cyan[2] < 220
        write_photo(photo, tmp_path / f"out-{name}")
        with Image.open(tmp_path / f"out-{name}") as out:
            assert out.mode == "RGB" and "icc_profile" not in out.info
    for profile in (b"", b"no profile", SRGB, table_profile(b"CMYK", np.zeros((16, 3)))[:400]):
        photo = read_photo(save(image, tmp_path / "b.tif", icc_profile=profile))
        assert photo.pixels[0, 0].tolist() == [0, 255, 255] and photo.icc is None


def test_a_profile_that_is_a_table_becomes_srgb(tmp_path):
    corners = [[255 - 85 * (r + g + b), 128, 128] for r in (0, 1) for g in (0, 1) for b in (0, 1)]
    for dtype in (np.uint8, np.uint16):
        values, top = np.zeros((4, 4, 3), dtype), np.iinfo(dtype).max
        values[:, :2] = top
        icc = table_profile(b"RGB ", corners)  # an inverted picture
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", iccprofile=icc)
        photo = read_photo(tmp_path / "a.tif")
        assert photo.icc is None and photo.pixels.dtype == dtype
        assert photo.pixels[0, 0].max() < 0.05 * top < 0.95 * top < photo.pixels[0, 3].min()


def test_profiles_go_where_they_fit(tmp_path):
    color, gray = Image.fromarray(noise(8, 8, 3)), Image.fromarray(noise(8, 8))
    for image, icc, suffixes in (
        (color, SRGB, ("jpg", "png", "tif", "webp", "avif")),
        (gray, GRAY_PROFILE, ("jpg", "png", "tif")),
    ):
        for suffix in suffixes:
            photo = read_photo(save(image, tmp_path / f"c.{suffix}", icc_profile=icc))
            assert photo.icc == icc and photo.gray == (image is gray)
            write_photo(photo, tmp_path / f"d.{suffix}")
            assert read_photo(tmp_path / f"d.{suffix}").icc == icc
    assert read_photo(save(gray, tmp_path / "m.png", icc_profile=SRGB)).icc is None
    assert read_photo(save(color, tmp_path / "m.tif", icc_profile=GRAY_PROFILE)).icc is None
    pixels = picture(4, 4, gray=True).pixels
    write_photo(Photo(pixels, gray=True, icc=GRAY_PROFILE), tmp_path / "g.webp")
    with Image.open(tmp_path / "g.webp") as image:
        assert image.mode == "RGB" and "icc_profile" not in image.info


# Orientation and EXIF


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif", "cmyk.tif", "deep.png"])
def test_orientation_is_applied_once(tmp_path, suffix, orientation):
    alpha, deep, pixels = suffix not in ("jpg", "cmyk.tif"), "deep" in suffix, smooth(20, 36)
    exif = Image.Exif()
    exif[274] = orientation
    upright = np.asarray(ImageOps.exif_transpose(to_pil(Photo(pixels, exif=exif.tobytes()))))
    pixels = pixels * np.uint16(257) if deep else pixels
    path = tmp_path / f"a.{suffix}"
    if suffix == "cmyk.tif":  # Pillow applies it while decoding, and must not be followed again
        save(Image.fromarray(pixels).convert("CMYK"), path, compression="tiff_lzw", exif=exif)
    else:
        write_photo(Photo(pixels, pixels[..., 0] if alpha else None, exif=exif.tobytes()), path)
    photo = read_photo(path)
    got = photo.pixels >> 8 if deep else photo.pixels
    tolerance = 0 if suffix[-3:] in ("png", "tif") else 12
    assert got.shape == upright.shape and np.abs(got.astype(int) - upright).max() <= tolerance
    if alpha:
        assert np.abs(photo.alpha.astype(int) - photo.pixels[..., 0]).max() <= tolerance
    write_photo(photo, tmp_path / f"b.{suffix}")
    assert read_photo(tmp_path / f"b.{suffix}").pixels.shape == photo.pixels.shape


@pytest.mark.parametrize("source", ["jpg", "png", "tif", "webp", "avif", "deep.png", "deep.tif"])
@pytest.mark.parametrize("target", ["jpg", "png", "tif", "webp", "avif"])
def test_exif_is_carried(tmp_path, source, target):
    dtype = np.uint16 if "deep" in source else np.uint8
    write_photo(Photo(noise(8, 12, 3, dtype=dtype), exif=exif_block(6)), tmp_path / f"a.{source}")
    write_photo(read_photo(tmp_path / f"a.{source}"), tmp_path / f"b.{target}")
    with Image.open(tmp_path / f"b.{target}") as image:
        exif = image.getexif()
        assert exif[271] == "Maker" and exif[306] == "2020:01:02 03:04:05" and exif.get(274, 1) == 1
        inner = exif.get_ifd(EXIF_IFD)
        assert inner[36867] == "2020:01:02 03:04:05" and float(inner[33434]) == 0.01
        assert (inner[40962], inner[40963]) == (8, 12)  # width and height after turning
        assert tuple(map(float, exif.get_ifd(GPS_IFD)[2])) == (1, 2, 3)
        assert image.size == (8, 12)


def test_big_endian_exif_reaches_a_tiff(tmp_path):
    photo = picture(5, 4, dtype=np.uint16)
    entry = struct.pack(">HHHII", 1, 271, 2, 6, 26)
    photo.exif = b"Exif\0\0MM\0*\0\0\0\x08" + entry + bytes(4) + b"Maker\0"
    write_photo(photo, tmp_path / "a.tif")
    back = read_photo(tmp_path / "a.tif")
    assert np.array_equal(back.pixels, photo.pixels) and loaded(back.exif)[271] == "Maker"


def test_no_stale_thumbnail(tmp_path):
    thumbnail = b"\xff\xd8THUMBNAIL\xff\xd9"
    first = struct.pack("<H HHII I", 1, 274, 3, 1, 6, 26)
    second = struct.pack("<H HHII HHII I", 2, 513, 4, 1, 56, 514, 4, 1, len(thumbnail), 0)
    block = b"Exif\0\0II*\0\x08\0\0\0" + first + second + thumbnail
    path = save(Image.fromarray(smooth(16, 24)), tmp_path / "a.jpg", exif=block)
    with Image.open(path) as image:  # the source does hold one
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1)[514] == len(thumbnail)
    for name in ("b.jpg", "b.png", "b.tif", "b.webp"):
        write_photo(read_photo(path), tmp_path / name)
        assert b"THUMBNAIL" not in (tmp_path / name).read_bytes()


def test_damaged_exif_does_not_cost_the_photograph(tmp_path):
    pixels = smooth(16, 24)
    for block in (b"Exif\0\0II*\0\xff\xff\xff\0", b"Exif\0\0garbage", b"Exif\0\0"):
        photo = read_photo(save(Image.fromarray(pixels), tmp_path / "a.jpg", exif=block))
        assert photo.pixels.shape == pixels.shape
        write_photo(photo, tmp_path / "b.jpg")
    photo.exif = b"Exif\0\0" + b"II*\0" + bytes(70_000)
    assert write_photo(photo, tmp_path / "long.jpg") == ["EXIF"]  # above 64 KB
    assert read_photo(tmp_path / "long.jpg").exif is None


# Phones and cameras


def heif():
    return pytest.importorskip("pillow_heif", reason='pip install "zdce[heif]" brings it back')


def heic(image, **options):
    heif().register_heif_opener()
    buffer = io.BytesIO()
    image.save(buffer, "HEIF", quality=95, exif=image.info.get("exif"), **options)
    return buffer.getvalue()


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
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, photometric=32803, extratags=tags, metadata=None)
    return buffer.getvalue()


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_heic_is_read_with_what_belongs_to_it(tmp_path, mode, alpha):
    image = Image.fromarray(smooth(48, 64)).convert(mode + "A" * alpha)
    image.info |= {"exif": exif_block(6), "xmp": b"<x:xmpmeta/>", "icc_profile": SRGB}
    photo = read_bytes(tmp_path, heic(image), "a.HEIC")
    assert photo.format == "HEIF" and (photo.alpha is not None) == alpha
    upright = np.rot90(np.asarray(image.convert("RGB")), -1).astype(int)  # turned once
    assert photo.pixels.shape == (64, 48, 3)
    assert np.abs(photo.pixels.astype(int) - upright).mean() < 3
    assert loaded(photo.exif)[271] == "Maker" and photo.carried["XMP"] == b"<x:xmpmeta/>"
    write_photo(photo, tmp_path / "b.png")
    assert loaded(read_photo(tmp_path / "b.png").exif)[271] == "Maker"
    with pytest.raises(PhotoError, match="photographs are written as"):
        write_photo(photo, tmp_path / "b.heic")


def test_other_kinds_of_heic(tmp_path):
    deep = smooth(48, 64) * np.uint16(257)
    heif().from_bytes("RGB;16", (64, 48), deep.tobytes()).save(tmp_path / "a.heic", quality=100)
    photo = read_photo(tmp_path / "a.heic")
    assert photo.pixels.dtype == np.uint16
    assert np.abs(photo.pixels.astype(int) - deep).mean() < 500
    file = heif().from_pillow(Image.fromarray(smooth(48, 64)))
    file.add_from_pillow(Image.fromarray(smooth(32, 32)))
    file.save(tmp_path / "b.heic")
    assert read_photo(tmp_path / "b.heic").notes == ("further pictures",)
    assert read_bytes(tmp_path, heic(Image.fromarray(smooth(8, 8))), "c.jpg").format == "HEIF"


def test_a_raw_file_is_developed_to_sixteen_bits_as_bright_as_it_is(tmp_path):
    light = np.tile(np.linspace(500, 40_000, 160).astype(np.uint16), (120, 1))
    photo = read_bytes(tmp_path, dng(light), "a.DNG")
    assert photo.format == "RAW" and photo.pixels.dtype == np.uint16
    scaled = light[60, 8:-8] / 65535
    tones = np.where(scaled <= 0.0031308, 12.92 * scaled, 1.055 * scaled ** (1 / 2.4) - 0.055)
    assert np.abs(photo.pixels[60, 8:-8] / 65535 - tones[:, None]).max() < 0.01
    exif = loaded(photo.exif)
    assert exif[271] == "Maker" and exif[272] == "Model" and 50706 not in exif
    for name in ("b.tif", "b.png"):
        write_photo(photo, tmp_path / name)
        assert np.array_equal(read_photo(tmp_path / name).pixels, photo.pixels)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.CR2", b"II*\0\x10\0\0\0CR\2\0"),
        ("a.rw2", b"IIU\0\x18\0\0\0"),
        ("a.orf", b"IIRO\x08\0\0\0"),
        ("a.raf", b"FUJIFILMCCD-RAW 0201"),
        ("a.cr3", struct.pack(">I", 24) + b"ftypcrx \0\0\0\1crx isom"),
        ("a.nef", b"MM\0*\0\0\0\x08"),
        ("a.jpg", b"\0MRM"),
    ],
)
def test_raw_files_are_told_as_such(tmp_path, name, data):
    (tmp_path / name).write_bytes(data + bytes(300))
    assert "raw camera file" in refusal(tmp_path / name)


# Files that are no photographs


def saved_bytes(fmt, **options):
    buffer = io.BytesIO()
    Image.fromarray(noise(60, 50, 3)).save(buffer, fmt, **options)
    return buffer.getvalue()


def test_a_tiff_that_lacks_its_pixels_is_not_read_as_black(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(40, 30), **GREY, rowsperstrip=10, metadata=None)
    with tifffile.TiffFile(path) as file:
        place = file.pages.first.tags["StripOffsets"].valueoffset
    data = bytearray(path.read_bytes())
    data[place + 4 : place + 8] = bytes(4)  # the second strip lies nowhere
    path.write_bytes(data)
    assert refusal(path) == "damaged: parts of the picture are missing"


def test_what_is_no_photograph(tmp_path):
    red = Image.new("RGB", (4, 4), "red")
    save(Image.new("RGB", (4, 4)), tmp_path / "loop.png", save_all=True, append_images=[red])
    for name, data, reason in (
        ("text.jpg", b"dear diary", "no photograph"),
        ("empty.png", b"", "empty"),
        ("a.gif", saved_bytes("GIF"), "GIF file, which is not read"),
        ("a.jp2", saved_bytes("JPEG2000"), "JPEG2000 file"),
        ("a.jpg", saved_bytes("PPM"), "PPM file"),
        ("a.jxl", imagecodecs.jpegxl_encode(noise(8, 8, 3)), "JPEG XL file"),
        ("a.psd", b"8BPS\0\1" + bytes(40), "PSD file"),
        ("page.jpg", b"<!DOCTYPE html><html>", "no photograph"),
        ("clip.jpg", struct.pack(">I", 24) + b"ftypmp42" + bytes(40), "a video"),
        ("loop.png", None, "animation of 2"),
        ("missing.jpg", None, "cannot be read: No such file"),
        ("", None, "cannot be read: a folder, not a file"),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        assert reason in refusal(tmp_path / name)


def test_decompression_bombs(tmp_path, monkeypatch):
    data = bytearray(saved_bytes("PNG"))
    for size, reason in (
        ((60_000, 60_000), "more than 268 are not read"),
        # A size that telephones give, in a file that cannot hold it.
        ((16_320, 12_240), "199 megapixels in"),
    ):
        data[8:33] = png_chunk(b"IHDR", struct.pack(">II", *size) + bytes(data[24:29]))
        (tmp_path / "bomb.png").write_bytes(data)
        assert reason in refusal(tmp_path / "bomb.png")
    monkeypatch.setattr(photos, "MAX_PIXELS", 100)
    write_photo(picture(11, 10, dtype=np.uint16), tmp_path / "bomb.tif")
    assert "more than" in refusal(tmp_path / "bomb.tif")


def test_large_photographs_are_read_where_the_file_holds_them(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # above twice as many Pillow refuses
    monkeypatch.setattr(photos, "UNSURE_PIXELS", 80)
    monkeypatch.setattr(photos.color, "BAND", 30)
    for mode in ("RGB", "L", "RGBA"):
        original = noise(31, 17, len(mode)).squeeze()
        Image.fromarray(original).save(tmp_path / "large.png")
        photo = read_photo(tmp_path / "large.png")
        wanted = original[..., :3] if mode != "L" else original[..., None].repeat(3, axis=2)
        assert np.array_equal(photo.pixels, wanted)
        assert photo.alpha is None or np.array_equal(photo.alpha, original[..., 3])
    assert Image.MAX_IMAGE_PIXELS == 40
    Image.new("L", (200, 200)).save(tmp_path / "thin.png")
    assert "which no photograph is" in refusal(tmp_path / "thin.png")


# Writing


def test_lossy_formats_stay_close(tmp_path):
    pixels = smooth(48, 64)
    for suffix in ("jpg", "webp", "avif"):
        write_photo(Photo(pixels), tmp_path / f"a.{suffix}")
        assert np.abs(read_photo(tmp_path / f"a.{suffix}").pixels.astype(int) - pixels).mean() < 1.5
    with Image.open(tmp_path / "a.jpg") as image:
        assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4
        assert sum(image.quantization[0]) < 400  # quality 95; 75 has 1,858
    photo = picture(31, 21, alpha=True)
    for suffix in ("avif", "webp"):
        write_photo(photo, tmp_path / f"a.{suffix}")
        assert np.array_equal(read_photo(tmp_path / f"a.{suffix}").alpha, photo.alpha)


@pytest.mark.parametrize(
    ("name", "photo", "reason"),
    [
        ("a.jpg", picture(4, 4, alpha=True), "holds no transparency"),
        ("a.bmp", picture(4, 4, alpha=True), "holds no transparency"),
        ("a.gif", picture(4, 4), "photographs are written as .jpg"),
        ("a.webp", Photo(np.zeros((1, 17_000, 3), np.uint8)), "cannot be written"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path, name, photo, reason):
    with pytest.raises(PhotoError) as error:
        write_photo(photo, tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: ") and reason in str(error.value)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "webp", "avif"])
def test_sixteen_bits_become_eight_where_no_more_are_held_and_it_is_told(tmp_path, suffix):
    pixels = smooth(16, 24) * np.uint16(257)
    opaque = np.full((16, 24), 65535, np.uint16)  # an opaque alpha may go anywhere
    lost = write_photo(Photo(pixels + np.uint16(100), opaque), tmp_path / f"a.{suffix.upper()}")
    assert lost == ["more than 8 bits"]
    back = read_photo(tmp_path / f"a.{suffix.upper()}").pixels.astype(int)
    assert np.abs(back - (pixels >> 8)).mean() < (0.1 if suffix == "bmp" else 2)
    assert write_photo(Photo(pixels), tmp_path / "a.png") == []


def test_a_name_without_suffix_takes_the_format_of_the_photo(tmp_path):
    write_photo(Photo(smooth(8, 8), format="WEBP"), tmp_path / "new" / "a")
    assert read_photo(tmp_path / "new" / "a").format == "WEBP"


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_photo(picture(4, 4), path)
    before, mask = path.read_bytes(), os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(PhotoError, match=r"a\.png: cannot be written: No space left"):
        write_photo(picture(5, 5), path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.png"]


# Arrays, Pillow images, tensors


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_from_and_to_pillow(mode):
    deep = mode == "I;16"
    image = Image.fromarray(noise(6, 5, dtype=np.uint16) if deep else noise(6, 5, 4))
    image = image if deep else image.convert(mode)
    photo = from_pil(image)
    back = to_pil(photo)
    assert back.size == image.size and photo.gray == (mode in ("1", "L", "LA", "I;16"))
    if mode in ("L", "LA", "RGB", "RGBA", "I;16"):
        assert back.mode == mode and np.array_equal(np.asarray(back), np.asarray(image))
    else:
        assert np.array_equal(photo.pixels, np.asarray(image.convert("RGB")))


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
