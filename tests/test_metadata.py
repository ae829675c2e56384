"""What belongs to a photograph travels with it, or is told."""

import struct

import numpy as np
import pytest
from pictures import encoded, heic, smooth, tiff
from PIL import Image, PngImagePlugin

from zdce import metadata, photos
from zdce.photos import COMMENT, IPTC, TAIL, TEXT, XMP, Photo, read_photo, write_photo

WORDS = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>'
    b'<rdf:Description xmp:Rating="4" tiff:Orientation="6" '
    b'GPano:ProjectionType="equirectangular"/></rdf:RDF></x:xmpmeta>'
)
VIDEO = struct.pack(">I", 24) + b"ftypmp42" + bytes(12) + b"\xff\xd8\xff\xd9" + bytes(3000)


def jpeg(**options) -> bytes:
    return encoded(smooth(), "JPEG", **options)


def through(tmp_path, name, data, target, **options):
    """(photograph read, what was lost, the output's content)."""
    (tmp_path / name).write_bytes(data)
    photo = read_photo(tmp_path / name)
    lost = write_photo(photo, tmp_path / target, **options)
    return photo, lost, (tmp_path / target).read_bytes()


# EXIF


SECRET, PLACE = b"lens serial number 4711", 300


def exif_with_maker_note(order="<") -> bytes:
    """A camera's block whose maker note points, from the block's beginning, at :data:`PLACE`,
    outside itself.
    """
    tiff = bytearray(400)
    tiff[:8] = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    first = [(271, 2, 6, 200), (34665, 4, 1, 100), (274, 3, 1, 6)]  # unsorted on purpose
    first += [(322, 4, 1, 512), (323, 4, 1, 512)]  # as phones write; no strips of a TIFF's
    for at, entries in ((8, first), (100, [(37500, 7, 8, 220)])):
        struct.pack_into(order + "H", tiff, at, len(entries))
        for k, (tag, kind, count, value) in enumerate(entries):
            value <<= 16 * (kind == 3 and order == ">")  # a short stands in the first two bytes
            struct.pack_into(order + "HHII", tiff, at + 2 + 12 * k, tag, kind, count, value)
    struct.pack_into(order + "II", tiff, 220, PLACE, len(SECRET))
    tiff[200:206], tiff[PLACE : PLACE + len(SECRET)] = b"Maker\0", SECRET
    return b"Exif\0\0" + bytes(tiff)


BLOCKS = (b"", exif_with_maker_note(), exif_with_maker_note(">"), b"Exif\0\0damaged")


@pytest.mark.parametrize("block", BLOCKS, ids=["none", "little", "big", "damaged"])
@pytest.mark.parametrize("target", ["jpg", "png", "tif", "webp", "avif"])
def test_settings_are_recorded_and_maker_notes_stay_in_their_place(tmp_path, target, block):
    _, lost, _ = through(tmp_path, "a.jpg", jpeg(exif=block), f"b.{target}", settings="zdce, 1")
    with Image.open(tmp_path / f"b.{target}") as image:
        exif, out = image.getexif(), image.info.get("exif", b"").removeprefix(b"Exif\0\0")
        image.load()
    assert not lost and exif[metadata.PROCESSING_SOFTWARE] == "zdce, 1" and exif.get(274, 1) == 1
    assert (exif.get(271) == "Maker") == (b"Maker" in block)
    if b"Maker" in block and target != "tif":  # which is arranged anew
        order = "<" if block == BLOCKS[1] else ">"
        assert struct.unpack(order + "II", exif.get_ifd(34665)[37500]) == (PLACE, len(SECRET))
        assert out[PLACE : PLACE + len(SECRET)] == SECRET


# Resolution


def with_density(suffix) -> bytes:
    """A picture of 300 × 240 dpi, stated as this format does."""
    if suffix == "cm.tif":
        inches = {"resolution": (118.1102, 94.4882), "resolutionunit": 3}
        return tiff(smooth() * np.uint16(257), photometric="rgb", **inches)
    block = Image.Exif()
    block[282], block[283], block[296] = 300.0, 240.0, 2
    if suffix == "heic":
        return heic(smooth(), exif=block.tobytes())
    options = {"exif": block.tobytes()} if suffix in ("webp", "avif") else {}
    kind = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
    return encoded(smooth(), kind, dpi=(300, 240), **options)


@pytest.mark.parametrize("source", ["jpg", "png", "tif", "cm.tif", "bmp", "webp", "avif", "heic"])
@pytest.mark.parametrize("target", ["jpg", "png", "tif", "bmp"])
def test_the_resolution_is_kept(tmp_path, source, target):
    photo, _, _ = through(tmp_path, f"a.{source}", with_density(source), f"b.{target}")
    with Image.open(tmp_path / f"b.{target}") as image:
        assert image.info["dpi"] == pytest.approx((300, 240), abs=0.5) == photo.dpi


def test_a_turned_picture_has_its_resolution_turned(tmp_path):
    data = encoded(smooth(), "JPEG", dpi=(300, 240), exif=exif_with_maker_note())
    assert through(tmp_path, "a.jpg", data, "b.jpg")[0].dpi == (240, 300)


# XMP, IPTC, texts, comments, videos


IPTC_BLOCK = b"\x1c\x02\x78\0\x0bMilky Way!!"
PHOTOSHOP = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC_BLOCK)) + IPTC_BLOCK


def everything_in_a_jpeg() -> bytes:
    data, segment = jpeg(xmp=WORDS, comment=b"by night"), b"Photoshop 3.0\0" + PHOTOSHOP
    return data[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + data[2:] + VIDEO


def with_texts() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "Night", zip=True)
    info.add_text("Raw profile type iptc", "\niptc\n 2\n1c02\n", zip=True)
    info.add_itxt("XML:com.adobe.xmp", WORDS.decode(), zip=True)
    return encoded(smooth(), "PNG", pnginfo=info)


def with_iptc(*entry) -> bytes:
    tags = [(33723, *entry, True), (700, 1, len(WORDS), WORDS, True)]
    return tiff(smooth(), photometric="rgb", extratags=tags)


MARKS = {XMP: b"equirectangular", IPTC: b"Milky Way", TEXT: b"Title", COMMENT: b"night"}
MARKS |= {TAIL: VIDEO}
HOLD = {"jpg": {XMP, IPTC, COMMENT, TAIL}, "png": {XMP, TEXT}, "tif": {XMP, IPTC}}
HOLD |= {"webp": {XMP}, "avif": {XMP}, "bmp": set()}
SOURCES = {"a.jpg": everything_in_a_jpeg(), "a.png": with_texts()}
SOURCES |= {f"a.{kind}": encoded(smooth(), kind.upper(), xmp=WORDS) for kind in ("webp", "avif")}
SOURCES["bytes.tif"] = with_iptc(7, len(IPTC_BLOCK), IPTC_BLOCK)
SOURCES["libtiff.tif"] = with_iptc(4, 4, struct.unpack("<4I", IPTC_BLOCK))


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("target", HOLD)
def test_what_belongs_to_a_photograph_travels_where_it_can_or_is_told(tmp_path, name, target):
    held = HOLD[name.split(".")[1]]
    photo, lost, out = through(tmp_path, name, SOURCES[name], f"b.{target}")
    assert set(photo.carried) == held and set(lost) - {"EXIF"} == held - HOLD[target]
    assert photo.notes == ((IPTC,) if name == "a.png" else ())
    again = read_photo(tmp_path / f"b.{target}")
    assert set(again.carried) == held & HOLD[target]
    for kind in held:
        assert out.count(MARKS[kind]) == (kind in HOLD[target]), kind
    # XMP's own word on orientation is followed once, where readers follow it, and then goes.
    assert photo.pixels.shape == (20, 30, 3) if name.endswith("tif") else (30, 20, 3)
    assert again.pixels.shape == photo.pixels.shape


def test_what_is_too_long_for_a_jpeg_is_told(tmp_path):
    exif, long = b"Exif\0\0II*\0" + bytes(70_000), bytes(70_000)
    photo = Photo(smooth(), carried={XMP: long, IPTC: long})
    assert write_photo(photo, tmp_path / "a.tif") == []
    photo.exif = exif
    assert sorted(write_photo(photo, tmp_path / "a.jpg")) == ["EXIF", "IPTC", "XMP"]
    assert read_photo(tmp_path / "a.jpg").exif is None


def test_what_holds_for_the_picture_before_alone_is_told(tmp_path):
    data, box = jpeg(), b"JP\0\1\0\0\0\1\0\0\0\x32jumb\0\0\0\x1ejumdc2pa".ljust(58, b"\0")
    signed = data[:2] + b"\xff\xeb" + struct.pack(">H", 60) + box + data[2:]
    photo, _, out = through(tmp_path, "a.jpg", signed, "b.jpg")
    assert photo.notes == (photos.CREDENTIALS,) and b"c2pa" not in out
    layers = [(37724, 7, 39, b"Adobe Photoshop Document Data Block\0abc", True)]
    photo, _, _ = through(tmp_path, "a.tif", tiff(smooth(), extratags=layers), "b.tif")
    assert photo.notes == ("Photoshop's layers",)


# What lies behind a JPEG


HARD = {"exif": exif_with_maker_note() + b"\xff\xd9\xff\xda\xff\xd8", "comment": b"\xff\xd9"}


@pytest.mark.parametrize("options", [HARD, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_what_lies_behind_a_jpeg_is_found_and_nothing_where_it_is_cut(options):
    data = jpeg(**options)
    assert metadata.behind_jpeg(data + VIDEO) == (VIDEO, 0)
    assert metadata.behind_jpeg(data + bytes(50) + data + VIDEO) == (VIDEO, 1)
    for length in range(7, len(data), 7):
        assert metadata.behind_jpeg(data[:length]) == (b"", 0)


def test_further_pictures_are_told_and_a_gain_map_leaves_no_mark(tmp_path):
    mark = b'hdrgm:Version="1.0"'
    xmp = b"<x:xmpmeta><rdf:Description " + mark + b' xmp:Rating="5"/></x:xmpmeta>'
    more = {"save_all": True, "append_images": [Image.new("L", (8, 8))]}
    photo, _, out = through(tmp_path, "a.jpg", encoded(smooth(), "MPO", xmp=xmp, **more), "b.jpg")
    assert photo.notes == ("a gain map (its HDR part)",)
    data = encoded(smooth(), "MPO", **more)
    assert through(tmp_path, "c.jpg", data, "d.jpg")[0].notes == (photos.FURTHER,)
    assert b"hdrgm:" not in out and b'xmp:Rating="5"' in out
