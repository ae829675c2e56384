"""Colour as it is meant: sRGB before, the file's own encoding after, high dynamic range refused."""

import struct
import zlib
from dataclasses import replace
from functools import cache

import imagecodecs
import numpy as np
import pytest
import tifffile
from pictures import SRGB, encoded, heic, read, tiff
from PIL import Image

from zdce import color
from zdce.metadata import png_chunk
from zdce.photos import Photo, PhotoError, from_pil, read_photo, to_pil, write_photo

PROPHOTO = (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)
KINDS = {  # primaries, gamma, white
    "linear": (color.PRIMARIES[1], 1.0),
    "gamma 1.8": (color.PRIMARIES[1], 1.8),
    "Display P3": (color.PRIMARIES[12],),
    "Adobe RGB": color.ADOBE,
    "ProPhoto": (PROPHOTO, 1.8, (0.3457, 0.3585)),
    "linear BT.2020": (color.PRIMARIES[9], 1.0),
}
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "avif": "AVIF", "tif": "TIFF"}


@cache
def profile(kind: str) -> bytes:
    return color.profile(*KINDS[kind])


def scene(dtype=np.uint16, height=60, width=80):
    """A dark picture with smooth colours."""
    y, x = np.mgrid[:height, :width]
    base = np.dstack([np.sin(x / 9) + 1, np.sin(y / 7) + 1, np.sin((x + y) / 11) + 1])
    return np.rint(0.15 * base * np.iinfo(dtype).max).astype(dtype)


def converted(pixels, icc, to):
    spaces = {"colorspace": "rgb", "outcolorspace": "rgb"}
    return imagecodecs.cms_transform(pixels, icc, to, **spaces, flags=color.EXACT)


def shown(path):
    """As a viewer shows the file: in sRGB, 8 bits; and its profile."""
    with Image.open(path) as image:
        found, pixels = image.info.get("icc_profile"), np.asarray(image.convert("RGB"))
    return (converted(pixels, found, SRGB) if found else pixels).astype(int), found


def brightened(photo: Photo) -> Photo:
    top = np.iinfo(photo.pixels.dtype).max
    bright = np.rint(top * (photo.pixels / top) ** 0.5).astype(photo.pixels.dtype)
    return replace(photo, pixels=bright)


BRIGHT = brightened(Photo(scene(np.uint8)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_photograph_is_shown_alike_whatever_its_encoding(tmp_path, kind):
    icc, plain = profile(kind), scene()
    data = tiff(converted(plain, SRGB, icc), photometric="rgb", iccprofile=icc)
    write_photo(brightened(read(tmp_path, data)), tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages.first.iccprofile == icc
        found = converted(file.asarray(), icc, SRGB)
    wanted = brightened(Photo(plain)).pixels
    assert np.abs(found.astype(int) - wanted).mean() / 257 < 0.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_not_changed_comes_back_as_it_was_colours_beyond_srgb_too(tmp_path, kind, dtype):
    values = np.random.default_rng(0).integers(0, 256, (50, 40, 3)).astype(dtype)
    values *= np.iinfo(dtype).max // 255
    turned = Image.Exif()
    turned[274] = 6
    source = Photo(values, values[..., 0], icc=profile(kind), exif=turned.tobytes())
    write_photo(source, tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    assert photo.pixels.dtype == photo.alpha.dtype == np.uint16
    write_photo(photo, tmp_path / "b.png")
    back = imagecodecs.png_decode((tmp_path / "b.png").read_bytes())
    wanted = np.rot90(np.dstack([values, values[..., 0]]), -1).astype(int)
    assert back.dtype == dtype
    assert np.abs(back.astype(int) - wanted).max() <= (1 if dtype == np.uint8 else 0.6 * 257)


def test_a_pillow_image_goes_the_same_way():
    image = Image.fromarray(scene(np.uint8))
    image.info["icc_profile"] = profile("Adobe RGB")
    photo = from_pil(image)
    assert photo.pixels.dtype == np.uint16
    assert np.abs(np.asarray(to_pil(photo)).astype(int) - np.asarray(image)).max() <= 1


def test_grey_by_a_profile(tmp_path):
    icc, plain = bytes(imagecodecs.cms_profile("gray", gamma=1.0)), scene()[..., 0]
    tone = plain / 65535
    light = np.where(tone <= 0.04045, tone / 12.92, ((tone + 0.055) / 1.055) ** 2.4)
    stored = np.rint(65535 * light).astype(np.uint16)
    photo = read(tmp_path, tiff(stored, photometric="minisblack", iccprofile=icc))
    assert photo.gray and np.abs(photo.pixels[..., 0].astype(int) - plain).max() < 100
    write_photo(photo, tmp_path / "b.tif")
    assert np.abs(tifffile.imread(tmp_path / "b.tif").astype(int) - stored).max() < 2
    write_photo(photo, tmp_path / "b.webp")  # which has no grey, and no place for its profile
    pixels, found = shown(tmp_path / "b.webp")
    assert not found and np.abs(pixels - photo.pixels / 257).mean() < 2


@pytest.mark.parametrize("icc", [b"no profile" * 30, SRGB[:200], color.profile(*color.ADOBE)[:150]])
def test_a_damaged_profile_changes_nothing(tmp_path, icc):
    data = tiff(scene(), photometric="rgb", iccprofile=icc)
    assert np.array_equal(read(tmp_path, data).pixels, scene())


# Code points, and what else stands in a profile's place


def png_with(*chunks: tuple[bytes, bytes], pixels=None) -> bytes:
    data = encoded(scene(np.uint8) if pixels is None else pixels, "PNG")
    return data[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[33:]


def avif_with(primaries: int, transfer: int, pixels=None) -> bytes:
    data = bytearray(encoded(scene(np.uint8) if pixels is None else pixels, "AVIF"))
    at = data.index(b"colrnclx") + 8
    data[at : at + 4] = struct.pack(">HH", primaries, transfer)
    return bytes(data)


def with_cicp(icc: bytes, transfer: int) -> bytes:
    """A profile with the code points in place of its copyright."""
    data, at = bytearray(icc), icc.index(b"cprt")
    data[at : at + 12] = b"cicp" + struct.pack(">II", len(icc), 12)
    data[:4] = struct.pack(">I", len(icc) + 12)
    return bytes(data) + b"cicp" + bytes(4) + bytes([9, transfer, 0, 1])


def gamma(value):
    return b"gAMA", struct.pack(">I", round(1e5 * value))


def primaries(which):
    return b"cHRM", struct.pack(">8I", *(round(1e5 * v) for v in (*color.D65, *which)))


def iccp(icc):
    return b"iCCP", b"x\0\0" + zlib.compress(icc)


def adobe_by_exif(pixels) -> bytes:
    exif = Image.Exif()
    exif[34665] = {40961: 65535, 40965: {1: "R03", 2: b"0100"}}
    return encoded(pixels, "JPEG", exif=exif.tobytes(), quality=98)


P3_XY = KINDS["Display P3"][0]
P3, SRGB_INTENT = (b"cICP", bytes([12, 13, 0, 1])), (b"sRGB", b"\0")
STATED = {  # file, the encoding that it states
    "a.png": (lambda p: png_with(P3, pixels=p), "Display P3"),
    "b.png": (lambda p: png_with(P3, iccp(SRGB), pixels=p), "Display P3"),
    "c.png": (lambda p: png_with((b"cICP", bytes([9, 8, 0, 1])), pixels=p), "linear BT.2020"),
    "d.png": (lambda p: png_with(gamma(1), pixels=p), "linear"),
    "e.png": (lambda p: png_with(gamma(1 / 2.2), primaries(P3_XY), pixels=p), None),
    "f.png": (lambda p: png_with(gamma(1), SRGB_INTENT, pixels=p), "sRGB"),
    "g.png": (lambda p: png_with(gamma(1), iccp(SRGB), pixels=p), "sRGB"),
    "h.png": (lambda p: png_with(gamma(1 / 2.2), pixels=p), "sRGB"),
    "i.avif": (lambda p: avif_with(12, 13, p), "Display P3"),
    "j.avif": (lambda p: avif_with(1, 8, p), "linear"),
    "k.jpg": (adobe_by_exif, "Adobe RGB"),
}


def by_profile(suffix, kind):
    options = {"icc_profile": profile(kind), "quality": 98}
    return lambda p: encoded(p, FORMATS[suffix], **options), kind


WIDE = [(suffix, kind) for suffix in FORMATS for kind in ("Adobe RGB", "Display P3")]
STATED |= {f"{kind}.{suffix}": by_profile(suffix, kind) for suffix, kind in WIDE}


@pytest.mark.parametrize("name", STATED)
def test_what_a_file_states_is_followed_and_what_is_written_is_shown_right(tmp_path, name):
    made, kind = STATED[name]
    icc = SRGB if kind == "sRGB" else profile(kind or "Display P3")
    bright = BRIGHT.pixels  # 8 bits of linear light are coarse in the dark
    photo = read(tmp_path, made(converted(bright, SRGB, icc)), name)
    level = photo.pixels / (np.iinfo(photo.pixels.dtype).max / 255)
    assert np.abs(level - bright).mean() < 2.5
    assert (photo.pixels.dtype == np.uint8) == (kind == "sRGB")
    photo.pixels = ~photo.pixels
    for target in (name, "b.bmp"):  # which has no place for a profile
        write_photo(photo, tmp_path / f"out-{target}")
        pixels, found = shown(tmp_path / f"out-{target}")
        assert np.abs(pixels - (255 - bright.astype(int))).mean() < 4
        assert bool(found) == (target == name and (kind != "sRGB" or name == "g.png"))


@pytest.mark.parametrize("transfer", [16, 18])
def test_high_dynamic_range_is_refused_and_named(tmp_path, transfer):
    stated = b"cICP", bytes([9, transfer, 0, 1])
    files = {
        "a.avif": avif_with(9, transfer),
        "a.png": png_with(stated),
        "b.png": png_with(stated, pixels=scene(np.uint8)[..., 0]),
        "c.png": png_with(iccp(with_cicp(SRGB, transfer))),
    }
    for name, data in files.items():
        with pytest.raises(PhotoError, match=rf"{name}: .*HDR.*{color.HDR[transfer]}"):
            read(tmp_path, data, name)
    with pytest.raises(PhotoError, match="transfer function 200"):
        read(tmp_path, avif_with(1, 200))


def test_heic_by_code_points(tmp_path):
    wide = converted(scene(np.uint8), SRGB, profile("Display P3"))
    points = {"color_primaries": 12, "transfer_characteristics": 13, "matrix_coefficients": 6}
    (tmp_path / "a.heic").write_bytes(heic(wide, **points))
    write_photo(read_photo(tmp_path / "a.heic"), tmp_path / "b.jpg")
    pixels, found = shown(tmp_path / "b.jpg")
    assert found and np.abs(pixels - scene(np.uint8)).mean() < 3
    (tmp_path / "a.heic").write_bytes(heic(wide, **points | {"transfer_characteristics": 16}))
    with pytest.raises(PhotoError, match="HDR, PQ"):
        read_photo(tmp_path / "a.heic")
