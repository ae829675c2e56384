"""Colour as it is meant: sRGB before, the file's own encoding after, high dynamic range refused."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from functools import cache

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from zdce import color
from zdce.metadata import png_chunk
from zdce.photos import Photo, PhotoError, from_pil, read_photo, to_pil, write_photo

SRGB = bytes(imagecodecs.cms_profile("srgb"))
KINDS = {  # white, primaries, gamma
    "linear": (color.D65, color.SRGB_CHROMATICITY[2:], 1.0),
    "gamma 1.8": (color.D65, color.SRGB_CHROMATICITY[2:], 1.8),
    "Adobe RGB": (color.D65, (0.64, 0.33, 0.21, 0.71, 0.15, 0.06), 2.19921875),
    "ProPhoto": ((0.3457, 0.3585), (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), 1.8),
    "linear BT.2020": (color.D65, color.PRIMARIES[9][1], 1.0),
}


@cache
def profile(kind: str) -> bytes:
    white, primaries, gamma = KINDS[kind]
    return bytes(imagecodecs.cms_profile("rgb", whitepoint=white, primaries=primaries, gamma=gamma))


def scene(dtype=np.uint16, height=60, width=80):
    """A dark picture with smooth colours."""
    y, x = np.mgrid[:height, :width]
    base = np.dstack([np.sin(x / 9) + 1, np.sin(y / 7) + 1, np.sin((x + y) / 11) + 1])
    return np.rint(0.15 * base * np.iinfo(dtype).max).astype(dtype)


def converted(pixels, icc, to):
    return imagecodecs.cms_transform(
        pixels, icc, to, colorspace="rgb", outcolorspace="rgb", flags=color.EXACT
    )


def brightened(photo: Photo) -> Photo:
    top = np.iinfo(photo.pixels.dtype).max
    return replace(
        photo, pixels=np.rint(top * (photo.pixels / top) ** 0.5).astype(photo.pixels.dtype)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_photograph_is_shown_alike_whatever_its_encoding(tmp_path, kind):
    icc, plain = profile(kind), scene()
    tifffile.imwrite(
        tmp_path / "a.tif", converted(plain, SRGB, icc), photometric="rgb", iccprofile=icc
    )
    write_photo(brightened(read_photo(tmp_path / "a.tif")), tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages.first.iccprofile == icc
        shown = converted(file.asarray(), icc, SRGB)
    wanted = brightened(Photo(plain)).pixels
    assert np.abs(shown.astype(int) - wanted).mean() / 257 < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_changed_comes_back_as_it_was_colours_beyond_srgb_too(tmp_path, kind):
    values = np.random.default_rng(0).integers(0, 65536, (50, 40, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", iccprofile=profile(kind))
    write_photo(read_photo(tmp_path / "a.tif"), tmp_path / "b.tif")
    back = tifffile.imread(tmp_path / "b.tif").astype(int)
    assert np.abs(back - values).max() / 257 < 0.6


def test_a_turned_photograph_keeps_its_colours_beyond_srgb(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (30, 20, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = 6
    image = Image.fromarray(values)
    image.save(tmp_path / "a.png", icc_profile=profile("ProPhoto"), exif=exif)
    write_photo(read_photo(tmp_path / "a.png"), tmp_path / "b.png")
    back = np.asarray(Image.open(tmp_path / "b.png")).astype(int)
    assert np.abs(back - np.rot90(values, -1)).max() <= 1


@pytest.mark.parametrize("kind", ["linear", "Adobe RGB"])
def test_eight_bits_stay_eight_and_transparency_stays(tmp_path, kind):
    values = np.dstack([scene(np.uint8), scene(np.uint8)[..., 0]])
    Image.fromarray(values).save(tmp_path / "a.png", icc_profile=profile(kind))
    photo = read_photo(tmp_path / "a.png")
    assert photo.pixels.dtype == np.uint16 and photo.alpha.dtype == np.uint16
    write_photo(photo, tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert image.info["icc_profile"] == profile(kind)
        assert np.abs(np.asarray(image).astype(int) - values).max() <= 1


def test_a_pillow_image_goes_the_same_way():
    image = Image.fromarray(scene(np.uint8))
    image.info["icc_profile"] = profile("Adobe RGB")
    photo = from_pil(image)
    assert photo.pixels.dtype == np.uint16
    assert np.abs(np.asarray(to_pil(photo)).astype(int) - np.asarray(image)).max() <= 1


def test_grey_by_a_profile(tmp_path):
    icc = bytes(imagecodecs.cms_profile("gray", gamma=1.0))
    plain = scene()[..., 0]
    light = np.where(
        plain <= 0.04045 * 65535, plain / 12.92, 65535 * ((plain / 65535 + 0.055) / 1.055) ** 2.4
    )
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.rint(light).astype(np.uint16),
        photometric="minisblack",
        iccprofile=icc,
    )
    photo = read_photo(tmp_path / "a.tif")
    assert photo.gray and np.abs(photo.pixels[..., 0].astype(int) - plain).max() < 100
    write_photo(photo, tmp_path / "b.tif")
    assert np.abs(tifffile.imread(tmp_path / "b.tif") - light).max() < 2
    write_photo(photo, tmp_path / "b.webp")  # which has no grey, and no place for its profile
    assert (
        np.abs(read_photo(tmp_path / "b.webp").pixels.astype(int) - photo.pixels / 257).mean() < 2
    )


@pytest.mark.parametrize("suffix", ["bmp", "jpg", "png", "webp", "avif"])
def test_a_wide_gamut_is_shown_right_in_every_format(tmp_path, suffix):
    icc, plain = profile("Adobe RGB"), scene(np.uint8)
    Image.fromarray(converted(plain, SRGB, icc)).save(tmp_path / "a.png", icc_profile=icc)
    write_photo(read_photo(tmp_path / "a.png"), tmp_path / f"b.{suffix}")
    with Image.open(tmp_path / f"b.{suffix}") as image:
        found = image.info.get("icc_profile")
        shown = np.asarray(image.convert("RGB"))
    shown = converted(shown, found, SRGB) if found else shown
    assert bool(found) == (suffix != "bmp") and np.abs(shown.astype(int) - plain).mean() < 2


def test_display_p3_is_kept_as_it_is(tmp_path):
    icc = color.profile(*color.PRIMARIES[12])
    Image.fromarray(scene(np.uint8)).save(tmp_path / "a.png", icc_profile=icc)
    photo = read_photo(tmp_path / "a.png")
    assert np.array_equal(photo.pixels, scene(np.uint8)) and photo.icc == icc


@pytest.mark.parametrize("icc", [b"no profile" * 30, SRGB[:200], profile("linear")[:150]])
def test_a_damaged_profile_changes_nothing(tmp_path, icc):
    tifffile.imwrite(tmp_path / "a.tif", scene(), photometric="rgb", iccprofile=icc)
    assert np.array_equal(read_photo(tmp_path / "a.tif").pixels, scene())


# Code points


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(scene(np.uint8)).save(buffer, "PNG")
    data = buffer.getvalue()
    return data[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[33:]


def test_a_png_with_gamma_becomes_srgb(tmp_path):
    (tmp_path / "plain.png").write_bytes(png_with((b"gAMA", struct.pack(">I", 45455))))
    assert np.array_equal(read_photo(tmp_path / "plain.png").pixels, scene(np.uint8))
    both = png_with((b"gAMA", struct.pack(">I", 100_000)), (b"sRGB", b"\0"))
    (tmp_path / "srgb.png").write_bytes(both)
    assert np.array_equal(read_photo(tmp_path / "srgb.png").pixels, scene(np.uint8))
    (tmp_path / "linear.png").write_bytes(png_with((b"gAMA", struct.pack(">I", 100_000))))
    photo = read_photo(tmp_path / "linear.png")
    assert photo.pixels.mean() / 257 > 2 * scene(np.uint8).mean() and photo.icc is None
    write_photo(photo, tmp_path / "out.png")
    out = read_photo(tmp_path / "out.png")
    assert out.pixels.dtype == np.uint8 and out.icc is None and out.encoding is None
    assert np.abs(out.pixels * 257.0 - photo.pixels).max() <= 129


def test_a_png_by_code_points(tmp_path):
    (tmp_path / "p3.png").write_bytes(png_with((b"cICP", bytes([12, 13, 0, 1]))))
    photo = read_photo(tmp_path / "p3.png")
    assert photo.icc and np.array_equal(photo.pixels, scene(np.uint8))
    (tmp_path / "linear.png").write_bytes(png_with((b"cICP", bytes([1, 8, 0, 1]))))
    assert read_photo(tmp_path / "linear.png").pixels.dtype == np.uint16
    chromaticities = struct.pack(
        ">8I", *(round(1e5 * v) for v in (*color.D65, *color.PRIMARIES[12][1]))
    )
    wide = png_with((b"gAMA", struct.pack(">I", 45455)), (b"cHRM", chromaticities))
    (tmp_path / "wide.png").write_bytes(wide)
    assert read_photo(tmp_path / "wide.png").icc


def with_cicp(icc: bytes, transfer: int) -> bytes:
    """A profile with one more tag, the code points."""
    count = int.from_bytes(icc[128:132], "big")
    tag = b"cicp" + bytes(4) + bytes([9, transfer, 0, 1])
    moved = bytearray(icc[132 : 132 + 12 * count])
    for place in range(4, len(moved), 12):
        offset = int.from_bytes(moved[place : place + 4], "big")
        moved[place : place + 4] = (offset + 12).to_bytes(4, "big")
    entry = b"cicp" + struct.pack(">II", len(icc) + 12, len(tag))
    head = struct.pack(">I", len(icc) + 12 + len(tag)) + icc[4:128] + struct.pack(">I", count + 1)
    return head + bytes(moved) + entry + icc[132 + 12 * count :] + tag


def avif_with(primaries: int, transfer: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(scene(np.uint8)).save(buffer, "AVIF")
    data = bytearray(buffer.getvalue())
    at = data.index(b"colrnclx") + 8
    data[at : at + 4] = struct.pack(">HH", primaries, transfer)
    return bytes(data)


@pytest.mark.parametrize("transfer", [16, 18])
def test_high_dynamic_range_is_refused_and_named(tmp_path, transfer):
    files = {
        "a.avif": avif_with(9, transfer),
        "a.png": png_with((b"cICP", bytes([9, transfer, 0, 1]))),
        "b.png": png_with(
            (b"iCCP", b"x\0\0" + __import__("zlib").compress(with_cicp(SRGB, transfer)))
        ),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(PhotoError, match=rf"{name}: .*HDR.*{color.HDR[transfer]}"):
            read_photo(tmp_path / name)


def test_an_avif_by_code_points(tmp_path):
    (tmp_path / "p3.avif").write_bytes(avif_with(12, 13))
    photo = read_photo(tmp_path / "p3.avif")
    write_photo(photo, tmp_path / "out.avif")
    with Image.open(tmp_path / "out.avif") as image:
        assert image.info["icc_profile"] == photo.icc != None  # noqa: E711
    (tmp_path / "strange.avif").write_bytes(avif_with(1, 200))
    with pytest.raises(PhotoError, match="transfer function 200"):
        read_photo(tmp_path / "strange.avif")


def test_heic_of_high_dynamic_range_is_refused(tmp_path):
    heif = pytest.importorskip(
        "pillow_heif", reason='the extra brings it back: pip install "zdce[heif]"'
    )
    image = heif.from_pillow(Image.fromarray(scene(np.uint8)))
    points = {"color_primaries": 9, "transfer_characteristics": 16, "matrix_coefficients": 9}
    image.save(tmp_path / "a.heic", quality=90, **points)
    with pytest.raises(PhotoError, match="HDR, PQ"):
        read_photo(tmp_path / "a.heic")


def test_a_profile_that_is_a_table_becomes_srgb(tmp_path):
    """Three inputs, Lab out: corners of a cube; here an inverted picture."""
    ramp = bytes(range(256))
    lab = np.array(
        [[255 - 85 * (r + g + b), 128, 128] for r in (0, 1) for g in (0, 1) for b in (0, 1)]
    )
    table = b"mft1" + bytes(4) + bytes([3, 3, 2, 0])
    table += struct.pack(">9i", *(65536 * v for v in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    table += ramp * 3 + lab.astype(np.uint8).tobytes() + ramp * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(83)
    contents = {
        b"desc": name,
        b"cprt": b"text" + bytes(4) + b"none\0\0\0\0",
        b"wtpt": white,
        b"A2B0": table,
    }
    tags, body = b"", b""
    for tag, content in contents.items():
        tags += tag + struct.pack(">II", 132 + 48 + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4sI4s4s4s", 180 + len(body), bytes(4), 0x02400000, b"scnr", b"RGB ", b"Lab "
    )
    head = (head + bytes(12) + b"acsp").ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    icc = head.ljust(128, b"\0") + struct.pack(">I", 4) + tags + body
    for dtype in (np.uint8, np.uint16):
        values = np.zeros((4, 4, 3), dtype)
        values[:, :2] = np.iinfo(dtype).max
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", iccprofile=icc)
        photo = read_photo(tmp_path / "a.tif")
        assert photo.icc is None and photo.pixels.dtype == dtype
        assert photo.pixels[0, 0].max() < 0.05 * np.iinfo(dtype).max
        assert photo.pixels[0, 3].min() > 0.95 * np.iinfo(dtype).max
