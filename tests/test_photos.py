"""Photograph files: what goes in comes out, at full depth, upright, with transparency, profile and
EXIF.
"""

from __future__ import annotations

import io
import os
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps, JpegImagePlugin

from zdce import photos
from zdce.photos import (
    Photo,
    PhotoError,
    from_pil,
    read_photo,
    to_pil,
    to_pixels,
    to_tensor,
    write_photo,
)

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


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (1, 6), (6, 1), (40, 33)])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [
        (".png", np.uint8),
        (".png", np.uint16),
        (".tif", np.uint8),
        (".tif", np.uint16),
        (".bmp", np.uint8),
    ],
)
def test_lossless_formats_return_every_bit(tmp_path, suffix, dtype, gray, alpha, size):
    photo = picture(*size, dtype=dtype, gray=gray, alpha=alpha)
    write_photo(photo, tmp_path / f"a{suffix}")
    back = read_photo(tmp_path / f"a{suffix}")
    assert back.pixels.dtype == dtype and np.array_equal(back.pixels, photo.pixels)
    assert (back.alpha is None) is not alpha
    assert not alpha or np.array_equal(back.alpha, photo.alpha)
    assert back.gray == (gray and not (suffix == ".bmp" and alpha))  # BMP has no grey with alpha


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_other_readers_understand_what_is_written(tmp_path, dtype):
    photo = picture(9, 8, dtype=dtype, alpha=True)
    photo.exif, photo.icc = exif_block(), SRGB
    write_photo(photo, tmp_path / "a.tif")
    write_photo(photo, tmp_path / "a.png")
    expected = np.dstack([photo.pixels, photo.alpha])
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), expected)
    assert np.array_equal(imagecodecs.png_decode((tmp_path / "a.png").read_bytes()), expected)
    for name in ("a.tif", "a.png"):
        with Image.open(tmp_path / name) as image:
            image.load()
            assert image.mode == "RGBA"
            eight = expected if dtype == np.uint8 else expected >> 8
            assert np.array_equal(np.asarray(image), eight)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_deep_tiff_of_every_layout(tmp_path, compression, predictor, planar, order):
    values = noise(21, 17, 3, dtype=np.uint16)
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    tifffile.imwrite(
        tmp_path / "a.tif",
        stored,
        photometric="rgb",
        planarconfig=planar,
        compression=compression,
        predictor=predictor and compression is not None,
        byteorder=order,
        rowsperstrip=5,
    )
    photo = read_photo(tmp_path / "a.tif")
    assert photo.pixels.dtype == np.uint16 and photo.pixels.dtype.isnative
    assert np.array_equal(photo.pixels, values) and photo.format == "TIFF" and not photo.gray


def test_gray_tiff_kinds(tmp_path):
    values = noise(6, 5, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "white.tif", values, photometric="miniswhite")
    white = read_photo(tmp_path / "white.tif")
    assert white.gray and np.array_equal(white.pixels[..., 1], 65535 - values)

    tifffile.imwrite(
        tmp_path / "tiles.tif", np.tile(values, (10, 10)), photometric="minisblack", tile=(16, 16)
    )
    assert np.array_equal(
        read_photo(tmp_path / "tiles.tif").pixels[..., 2], np.tile(values, (10, 10))
    )


def test_twelve_bits_are_stretched_to_sixteen(tmp_path):
    values = np.array([[0, 4095, 2048, 1]], dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", bitspersample=12)
    assert read_photo(tmp_path / "a.tif").pixels[0, :, 0].tolist() == [
        0,
        65535,
        round(2048 / 4095 * 65535),
        16,
    ]


def test_premultiplied_tiff_is_divided_by_its_alpha(tmp_path):
    photo = picture(8, 8, dtype=np.uint16, alpha=True)
    photo.alpha = np.maximum(photo.alpha, 30000)
    factor = photo.alpha[..., None] / 65535
    stored = np.dstack([np.rint(photo.pixels * factor).astype(np.uint16), photo.alpha])
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
    back = read_photo(tmp_path / "a.tif")
    assert np.array_equal(back.alpha, photo.alpha)
    assert np.abs(back.pixels.astype(int) - photo.pixels).max() <= 2


def test_unspecified_extra_channels_are_no_alpha(tmp_path):
    extra = {"extrasamples": ["unspecified"] * 2, "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", noise(14, 14, 5), photometric="rgb", **extra)
    assert read_photo(tmp_path / "a.tif").alpha is None


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_float_tiff_between_zero_and_one(tmp_path, kind):
    values = np.random.default_rng(0).random((5, 4, 3)).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    assert np.array_equal(
        read_photo(tmp_path / "a.tif").pixels,
        np.rint(values.astype(float) * 65535).astype(np.uint16),
    )


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        (
            np.full((4, 4, 3), 1.5, np.float32),
            {"photometric": "rgb"},
            "32-bit float32 TIFF with values 1.5 – 1.5",
        ),
        (np.full((4, 4), np.nan, np.float32), {"photometric": "minisblack"}, "nan"),
        (np.ones((4, 4), np.int16), {"photometric": "minisblack"}, "16-bit int16"),
        (np.ones((4, 4), np.uint32), {"photometric": "minisblack"}, "32-bit uint32"),
        (
            np.ones((4, 4, 4), np.uint16),
            {"photometric": "separated"},
            "SEPARATED colour: convert it to RGB",
        ),
        (np.ones((3, 4, 4, 3), np.uint8), {"photometric": "rgb"}, "3 pages"),
        (np.ones((4, 4, 3), np.uint8), {"photometric": "rgb", "subfiletype": 1}, "raw camera file"),
        (np.ones((4, 4, 3), np.uint8), {"photometric": "cielab"}, "LAB"),
    ],
)
def test_odd_tiff_is_refused_with_its_kind(tmp_path, values, options, reason):
    tifffile.imwrite(tmp_path / "odd.tif", values, metadata=None, **options)
    with pytest.raises(PhotoError, match=r"^[^\n]*odd\.tif: [^\n]*" + reason):
        read_photo(tmp_path / "odd.tif")


@pytest.mark.parametrize("channels", [1, 3])
def test_deep_png_with_a_transparent_color(tmp_path, channels):
    values = noise(6, 5, channels, dtype=np.uint16)
    values[2, 3] = values[0, 0]
    data = imagecodecs.png_encode((values if channels == 3 else values[..., 0]).copy())
    chunk = b"tRNS" + values[0, 0].astype(">u2").tobytes()
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    photo = read_photo(tmp_path / "a.png")
    assert np.array_equal(photo.pixels[..., :channels], values) and photo.gray == (channels == 1)
    assert (
        (photo.alpha == 0).sum() == 2
        and photo.alpha[0, 0] == photo.alpha[2, 3] == 0
        and photo.alpha.max() == 65535
    )


# Modes


def test_palette_and_one_bit_and_their_transparency(tmp_path):
    colors = noise(4, 3, seed=2)
    index = noise(6, 7) % 4
    palette = Image.fromarray(index).convert("P")
    palette.putdata(index.ravel().tolist())
    palette.putpalette(colors.tobytes())
    plain = read_photo(save(palette, tmp_path / "p.png"))
    assert np.array_equal(plain.pixels, colors[index]) and plain.alpha is None and not plain.gray
    clear = read_photo(save(palette, tmp_path / "t.png", transparency=bytes([255, 0, 128, 255])))
    assert np.array_equal(clear.pixels, colors[index])
    assert np.array_equal(clear.alpha, np.array([255, 0, 128, 255])[index])
    palette.putpalette(colors[:, :1].repeat(3, axis=1).tobytes())
    assert read_photo(save(palette, tmp_path / "g.png")).gray

    bits = noise(6, 9) > 127
    for name in ("b.png", "b.tif", "b.bmp"):
        photo = read_photo(save(Image.fromarray(bits), tmp_path / name))
        assert photo.gray and np.array_equal(photo.pixels[..., 0], bits * np.uint8(255))
    photo = read_photo(save(Image.fromarray(bits), tmp_path / "k.png", transparency=0))
    assert np.array_equal(photo.alpha, bits * np.uint8(255))


def test_color_keys_become_alpha(tmp_path):
    gray, color = noise(6, 7), noise(6, 7, 3)
    photo = read_photo(
        save(Image.fromarray(gray), tmp_path / "g.png", transparency=int(gray[0, 0]))
    )
    assert photo.gray and np.array_equal(photo.alpha, np.where(gray == gray[0, 0], 0, 255))
    photo = read_photo(
        save(Image.fromarray(color), tmp_path / "c.png", transparency=tuple(map(int, color[0, 0])))
    )
    assert (
        photo.alpha[0, 0] == 0 and photo.alpha.mean() > 200 and np.array_equal(photo.pixels, color)
    )


def cmyk_profile(lab):
    """A small ICC profile for CMYK: ``lab`` (16, 3) holds the 8-bit Lab colour of each ink
    corner.
    """
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    table += struct.pack(">9i", *(65536 * v for v in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    table += ramp * 4 + lab.astype(np.uint8).tobytes() + ramp * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    text = b"text" + bytes(4) + b"none\0\0\0\0"
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(12 + 67 + 4)
    tags, body = b"", b""
    contents = {b"desc": name, b"cprt": text, b"wtpt": white, b"A2B0": table}
    for tag, content in contents.items():
        tags += tag + struct.pack(">II", 128 + 4 + 12 * len(contents) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = 128 + 4 + len(tags) + len(body)
    header = (
        struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02400000, b"prtr", b"CMYK", b"Lab ")
        + bytes(12)
        + b"acsp"
    )
    header = header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(contents)) + tags + body


def test_cmyk_goes_through_its_profile(tmp_path):
    lab = np.tile([0, 128, 128], (16, 1))
    lab[0] = [255, 128, 128]  # paper white
    lab[8] = [140, 100, 90]  # cyan, first ink of four
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    image.paste((0, 0, 0, 0), (4, 0, 8, 8))
    for name in ("a.jpg", "a.tif"):
        photo = read_photo(save(image, tmp_path / name, icc_profile=cmyk_profile(lab)))
        cyan, white = photo.pixels[4, 1].astype(int), photo.pixels[4, 6].astype(int)
        assert photo.icc is None and (white >= 250).all()
        assert (
            cyan[0] < 60 and 100 < cyan[1] < 190 and 150 < cyan[2] < 220
        )  # not the plain formula's 0, 255, 255
        write_photo(photo, tmp_path / f"out-{name}")
        with Image.open(tmp_path / f"out-{name}") as out:
            assert out.mode == "RGB" and "icc_profile" not in out.info


@pytest.mark.parametrize(
    "profile", [None, b"no profile", SRGB, cmyk_profile(np.zeros((16, 3)))[:400]]
)
def test_cmyk_without_a_usable_profile(tmp_path, profile):
    path = save(
        Image.new("CMYK", (8, 8), (255, 0, 0, 0)), tmp_path / "a.tif", icc_profile=profile or b""
    )
    photo = read_photo(path)
    assert photo.pixels[0, 0].tolist() == [0, 255, 255] and photo.icc is None


def test_profiles_go_where_they_fit(tmp_path):
    color, gray = Image.fromarray(noise(8, 8, 3)), Image.fromarray(noise(8, 8))
    for suffix in ("jpg", "png", "tif", "webp", "avif"):
        photo = read_photo(save(color, tmp_path / f"c.{suffix}", icc_profile=SRGB))
        assert photo.icc == SRGB
        write_photo(photo, tmp_path / f"d.{suffix}")
        assert read_photo(tmp_path / f"d.{suffix}").icc == SRGB
    for suffix in ("jpg", "png", "tif"):
        photo = read_photo(save(gray, tmp_path / f"g.{suffix}", icc_profile=GRAY_PROFILE))
        assert photo.icc == GRAY_PROFILE and photo.gray
        write_photo(photo, tmp_path / f"h.{suffix}")
        assert read_photo(tmp_path / f"h.{suffix}").icc == GRAY_PROFILE
    assert read_photo(save(gray, tmp_path / "m.png", icc_profile=SRGB)).icc is None
    assert read_photo(save(color, tmp_path / "m.tif", icc_profile=GRAY_PROFILE)).icc is None
    write_photo(
        Photo(picture(4, 4, gray=True).pixels, gray=True, icc=GRAY_PROFILE), tmp_path / "g.webp"
    )
    with Image.open(tmp_path / "g.webp") as image:
        assert image.mode == "RGB" and "icc_profile" not in image.info
    for depth in (np.uint8, np.uint16):
        photo = picture(4, 4, dtype=depth)
        photo.icc = SRGB
        for suffix in ("png", "tif"):
            write_photo(photo, tmp_path / f"deep.{suffix}")
            assert read_photo(tmp_path / f"deep.{suffix}").icc == SRGB


# Orientation and EXIF


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "suffix", ["jpg", "png", "tif", "webp", "avif", "cmyk.tif", "16.png", "16.tif"]
)
def test_orientation_is_applied_once(tmp_path, suffix, orientation):
    alpha = suffix not in ("jpg", "cmyk.tif")
    deep, pixels = suffix.startswith("16"), smooth(20, 36)
    pixels = pixels * np.uint16(257) if deep else pixels
    transparency = pixels[..., 0] if alpha else None
    path = tmp_path / f"a.{suffix}"
    source = Photo(pixels, transparency, exif=exif_block(orientation))
    if suffix == "cmyk.tif":
        exif = Image.Exif()
        exif[274] = (
            # Pillow applies it while decoding, and must not be followed by a second time
            orientation
        )
        save(Image.fromarray(pixels).convert("CMYK"), path, compression="tiff_lzw", exif=exif)
    else:
        write_photo(source, path)
    expected = ImageOps.exif_transpose(
        to_pil(Photo((pixels >> 8).astype(np.uint8) if deep else pixels, exif=source.exif))
    )
    photo = read_photo(path)
    got = photo.pixels >> 8 if deep else photo.pixels
    tolerance = 0 if suffix[-3:] in ("png", "tif") else 12
    assert got.shape[:2] == expected.size[::-1]
    assert np.abs(got.astype(int) - np.asarray(expected)).max() <= tolerance
    if alpha:
        assert np.abs(photo.alpha.astype(int) - photo.pixels[..., 0]).max() <= tolerance
    write_photo(photo, tmp_path / f"b.{suffix}")
    again = read_photo(tmp_path / f"b.{suffix}")
    assert again.pixels.shape == photo.pixels.shape
    for block in (photo.exif, again.exif):
        assert suffix == "cmyk.tif" or loaded(block)[274] == 1


@pytest.mark.parametrize("source", ["jpg", "png", "tif", "webp", "avif", "16.png", "16.tif"])
@pytest.mark.parametrize("target", ["jpg", "png", "tif", "webp", "avif"])
def test_exif_is_carried(tmp_path, source, target):
    dtype = np.uint16 if source.startswith("16") else np.uint8
    write_photo(Photo(noise(8, 12, 3, dtype=dtype), exif=exif_block(6)), tmp_path / f"a.{source}")
    photo = read_photo(tmp_path / f"a.{source}")
    if dtype == np.uint16 and target not in ("png", "tif"):
        photo.pixels = (photo.pixels >> 8).astype(np.uint8)
    write_photo(photo, tmp_path / f"b.{target}")
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
    with Image.open(path) as image:
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1)[514] == len(
            thumbnail
        )  # the source does hold one
    photo = read_photo(path)
    for name in ("b.jpg", "b.png", "b.tif", "b.webp"):
        write_photo(photo, tmp_path / name)
        assert b"THUMBNAIL" not in (tmp_path / name).read_bytes()


def test_damaged_exif_does_not_cost_the_photograph(tmp_path):
    pixels = smooth(16, 24)
    for number, block in enumerate(
        [b"Exif\0\0II*\0\xff\xff\xff\0", b"Exif\0\0garbage", b"Exif\0\0"]
    ):
        path = save(Image.fromarray(pixels), tmp_path / f"{number}.jpg", exif=block)
        photo = read_photo(path)
        assert photo.pixels.shape == pixels.shape
        write_photo(photo, tmp_path / f"{number}-out.jpg")
    photo.exif = b"Exif\0\0" + b"II*\0" + bytes(70_000)
    write_photo(photo, tmp_path / "long.jpg")  # above 64 KB: left out
    assert read_photo(tmp_path / "long.jpg").exif is None


def test_phone_pictures_with_a_second_picture_behind(tmp_path):
    pixels = smooth(16, 24)
    save(
        Image.fromarray(pixels),
        tmp_path / "a.jpg",
        format="MPO",
        save_all=True,
        append_images=[Image.new("RGB", (4, 4))],
    )
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "MPO"
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.format == "JPEG" and np.abs(photo.pixels.astype(int) - pixels).max() < 20


# Phones and cameras


def heic(image, **options):
    library = pytest.importorskip(
        "pillow_heif", reason='the extra brings it back: pip install "zdce[heif]"'
    )
    library.register_heif_opener()
    buffer = io.BytesIO()
    image.save(buffer, "HEIF", **{"quality": 95, "exif": image.info.get("exif")} | options)
    return buffer.getvalue()


def dng(values):
    """A raw file as cameras write it: colours behind a mosaic of red, green, green, blue."""
    pytest.importorskip("rawpy", reason='the extra brings it back: pip install "zdce[raw]"')
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
    image.info |= {"exif": exif_block(), "xmp": b"<x:xmpmeta/>", "icc_profile": SRGB}
    (tmp_path / "a.HEIC").write_bytes(heic(image))
    photo = read_photo(tmp_path / "a.HEIC")
    assert photo.format == "HEIF" and (photo.alpha is not None) == alpha
    wanted = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(photo.pixels.astype(int) - wanted).mean() < 3
    assert loaded(photo.exif)[271] == "Maker" and photo.carried["XMP"] == b"<x:xmpmeta/>"
    write_photo(photo, tmp_path / "b.png")
    assert loaded(read_photo(tmp_path / "b.png").exif)[271] == "Maker"
    with pytest.raises(PhotoError, match="photographs are written as"):
        write_photo(photo, tmp_path / "b.heic")


def test_heic_is_turned_once(tmp_path):
    image = Image.fromarray(smooth(32, 64))
    image.info["exif"] = exif_block(6)
    (tmp_path / "a.heic").write_bytes(heic(image))
    photo = read_photo(tmp_path / "a.heic")
    assert photo.pixels.shape == (64, 32, 3) and loaded(photo.exif)[274] == 1
    upright = np.rot90(smooth(32, 64), -1).astype(int)
    assert np.abs(photo.pixels.astype(int) - upright).mean() < 3


def test_heic_of_ten_bits_becomes_sixteen(tmp_path):
    library = pytest.importorskip("pillow_heif", reason='pip install "zdce[heif]" brings it back')
    deep = smooth(48, 64) * np.uint16(257)
    library.from_bytes("RGB;16", (64, 48), deep.tobytes()).save(tmp_path / "a.heic", quality=100)
    photo = read_photo(tmp_path / "a.heic")
    assert photo.pixels.dtype == np.uint16
    assert np.abs(photo.pixels.astype(int) - deep).mean() < 500


def test_a_raw_file_is_developed_to_sixteen_bits_as_bright_as_it_is(tmp_path):
    light = np.tile(np.linspace(500, 40_000, 160).astype(np.uint16), (120, 1))
    (tmp_path / "a.dng").write_bytes(dng(light))
    photo = read_photo(tmp_path / "a.dng")
    assert photo.format == "RAW" and photo.pixels.dtype == np.uint16
    scaled = light[60, 8:-8] / 65535
    tones = np.where(scaled <= 0.0031308, 12.92 * scaled, 1.055 * scaled ** (1 / 2.4) - 0.055)
    assert np.abs(photo.pixels[60, 8:-8] / 65535 - tones[:, None]).max() < 0.01
    exif = loaded(photo.exif)
    assert exif[271] == "Maker" and exif[272] == "Model" and 50706 not in exif
    for name in ("b.tif", "b.png"):
        write_photo(photo, tmp_path / name)
        assert np.array_equal(read_photo(tmp_path / name).pixels, photo.pixels)


def test_damaged_heic_and_raw_files_give_one_line(tmp_path):
    rng = np.random.default_rng(0)
    files = {
        "a.heic": heic(Image.fromarray(noise(32, 48, 3))),
        "a.dng": dng(noise(32, 48, dtype=np.uint16)),
    }
    for name, data in files.items():
        for turn in range(30):
            damaged = bytearray(data[: rng.integers(1, len(data))] if turn % 3 == 0 else data)
            for place in rng.integers(0, len(damaged), 1 + turn % 5):
                damaged[place] = rng.integers(256)
            (tmp_path / name).write_bytes(damaged)
            try:
                read_photo(tmp_path / name)
            except PhotoError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.CR2", b"II*\0\x10\0\0\0CR\2\0" + bytes(300)),
        ("a.rw2", b"IIU\0\x18\0\0\0" + bytes(300)),
        ("a.orf", b"IIRO\x08\0\0\0" + bytes(300)),
        ("a.raf", b"FUJIFILMCCD-RAW 0201" + bytes(300)),
        ("a.cr3", struct.pack(">I", 24) + b"ftypcrx \0\0\0\1crx isom" + bytes(300)),
        ("a.nef", b"MM\0*\0\0\0\x08" + bytes(300)),
        ("a.jpg", b"\0MRM" + bytes(300)),
    ],
)
def test_raw_files_are_told_as_such(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PhotoError, match=r"a raw camera file|raw camera files need an extra"):
        read_photo(tmp_path / name)


# Files that are no photographs


def saved_bytes(fmt, **options):
    buffer = io.BytesIO()
    Image.fromarray(noise(60, 50, 3)).save(buffer, fmt, **options)
    return buffer.getvalue()


def deep_bytes(tmp_path, name):
    write_photo(picture(60, 50, dtype=np.uint16), tmp_path / name)
    return (tmp_path / name).read_bytes()


FORMATS = ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "AVIF", "deep.png", "deep.tif"]


@pytest.mark.parametrize("fmt", FORMATS)
def test_cut_and_damaged_files_give_one_line(tmp_path, fmt):
    data = deep_bytes(tmp_path, fmt) if fmt.startswith("deep") else saved_bytes(fmt)
    for share in (0.001, 0.05, 0.3, 0.6, 0.9, 0.99):
        (tmp_path / "cut.jpg").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(PhotoError) as error:
            read_photo(tmp_path / "cut.jpg")
        assert str(error.value).startswith(f"{tmp_path / 'cut.jpg'}: ") and "\n" not in str(
            error.value
        )
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 600), 3):
            damaged[place] = rng.integers(256)
        (tmp_path / "damaged.jpg").write_bytes(damaged)
        try:
            read_photo(tmp_path / "damaged.jpg")
        except PhotoError as error:
            assert "\n" not in str(error)


def test_a_tiff_that_lacks_its_pixels_is_not_read_as_black(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", noise(40, 30), photometric="minisblack", rowsperstrip=10, metadata=None
    )
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        place = file.pages.first.tags["StripOffsets"].valueoffset
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[place + 4 : place + 8] = bytes(4)  # the second strip lies nowhere
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(PhotoError, match=r"a\.tif: damaged: parts of the picture are missing"):
        read_photo(tmp_path / "a.tif")


def test_what_is_no_photograph(tmp_path):
    (tmp_path / "text.jpg").write_text("dear diary")
    (tmp_path / "empty.png").write_bytes(b"")
    save(Image.fromarray(noise(4, 4)), tmp_path / "picture.gif")
    save(
        Image.new("RGB", (4, 4)),
        tmp_path / "loop.png",
        save_all=True,
        append_images=[Image.new("RGB", (4, 4), "red")],
    )
    for name, reason in {
        "text.jpg": "no photograph",
        "empty.png": "empty",
        "picture.gif": "a GIF, which is not read",
        "loop.png": "animation of 2",
        "missing.jpg": "cannot be read: No such file",
        "": "cannot be read: Is a directory",
    }.items():
        with pytest.raises(PhotoError) as error:
            read_photo(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: ") and reason in str(error.value)
        assert "\n" not in str(error.value)


def test_decompression_bombs(tmp_path, monkeypatch):
    data = bytearray(saved_bytes("PNG"))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(PhotoError, match=r"bomb\.png: more than 268 megapixels"):
        read_photo(tmp_path / "bomb.png")
    data[16:24] = struct.pack(
        ">II", 16_320, 12_240
    )  # a size that telephones give, in a file that cannot hold it
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(
        PhotoError, match=r"bomb\.png: 199 megapixels in \d+ bytes, which no photograph is"
    ):
        read_photo(tmp_path / "bomb.png")
    monkeypatch.setattr(photos, "MAX_PIXELS", 100)
    write_photo(picture(11, 10, dtype=np.uint16), tmp_path / "bomb.tif")
    with pytest.raises(PhotoError, match=r"bomb\.tif: more than"):
        read_photo(tmp_path / "bomb.tif")


def test_large_photographs_are_read_where_the_file_holds_them(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # above twice as many Pillow refuses
    monkeypatch.setattr(photos, "UNSURE_PIXELS", 80)
    monkeypatch.setattr(photos, "BAND", 30)
    for mode in ("RGB", "L", "RGBA"):
        original = (
            np.random.default_rng(0).integers(0, 256, (31, 17, len(mode)), np.uint8).squeeze()
        )
        Image.fromarray(original).save(tmp_path / "large.png")
        photo = read_photo(tmp_path / "large.png")
        assert np.array_equal(
            photo.pixels,
            original[..., :3] if mode != "L" else original[..., None].repeat(3, axis=2),
        )
        assert photo.alpha is None or np.array_equal(photo.alpha, original[..., 3])
    assert Image.MAX_IMAGE_PIXELS == 40
    Image.new("L", (200, 200)).save(tmp_path / "thin.png")
    with pytest.raises(PhotoError, match="which no photograph is"):
        read_photo(tmp_path / "thin.png")


# Writing


def test_lossy_formats_stay_close(tmp_path):
    pixels = smooth(48, 64)
    for suffix in ("jpg", "webp", "avif"):
        write_photo(Photo(pixels), tmp_path / f"a.{suffix}")
        assert np.abs(read_photo(tmp_path / f"a.{suffix}").pixels.astype(int) - pixels).mean() < 1.5
    with Image.open(tmp_path / "a.jpg") as image:
        assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4
        assert sum(image.quantization[0]) < 400  # quality 95; 75 has 1,858


def test_avif_keeps_alpha_exactly(tmp_path):
    photo = picture(31, 21, alpha=True)
    for suffix in ("avif", "webp"):
        write_photo(photo, tmp_path / f"a.{suffix}")
        assert np.array_equal(read_photo(tmp_path / f"a.{suffix}").alpha, photo.alpha)


@pytest.mark.parametrize(
    ("name", "photo", "reason"),
    [
        ("a.jpg", picture(4, 4, alpha=True), "holds no transparency"),
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
    lost = write_photo(Photo(pixels + np.uint16(100)), tmp_path / f"a.{suffix}")
    assert lost == ["16 bits (8 are kept)"]
    back = read_photo(tmp_path / f"a.{suffix}").pixels.astype(int)
    assert np.abs(back - (pixels >> 8)).mean() < (0.1 if suffix == "bmp" else 2)
    assert write_photo(Photo(pixels), tmp_path / "a.png") == []


def test_an_opaque_alpha_may_go_into_a_jpeg(tmp_path):
    write_photo(Photo(smooth(8, 8), np.full((8, 8), 255, np.uint8)), tmp_path / "a.JPG")
    assert read_photo(tmp_path / "a.JPG").alpha is None


def test_a_name_without_suffix_takes_the_format_of_the_photo(tmp_path):
    write_photo(Photo(smooth(8, 8), format="WEBP"), tmp_path / "new" / "a")
    assert read_photo(tmp_path / "new" / "a").format == "WEBP"


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_photo(picture(4, 4), path)
    before = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(PhotoError, match=r"a\.png: cannot be written: No space left"):
        write_photo(picture(5, 5), path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.png"]


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


# Arrays, Pillow images, tensors


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_from_and_to_pillow(mode):
    image = (
        Image.fromarray(noise(6, 5, dtype=np.uint16))
        if mode == "I;16"
        else Image.fromarray(noise(6, 5, 4)).convert(mode)
    )
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
def test_tensors_keep_every_level(dtype):
    top = np.iinfo(dtype).max
    pixels = np.arange(top + 1).astype(dtype).reshape(-1, 32, 1).repeat(3, axis=2)
    tensor = to_tensor(pixels)
    assert tensor.shape == (1, 3, (top + 1) // 32, 32) and tensor.dtype == torch.float32
    assert tensor.min() == 0 and tensor.max() == 1
    assert np.array_equal(to_pixels(tensor, dtype), pixels)


def test_rounding_is_add_half_clamp_truncate():
    values = (
        torch.tensor([-0.3, 0.4999 / 255, 0.5 / 255, 1.4 / 255, 1.6 / 255, 1.7])
        .view(1, 1, 6)
        .expand(3, 1, 6)
    )
    assert to_pixels(values)[0, :, 0].tolist() == [0, 0, 1, 1, 2, 255]
