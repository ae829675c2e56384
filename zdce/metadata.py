"""What travels with a photograph: EXIF with its maker notes, XMP, IPTC, what lies behind a JPEG,
text of a PNG.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

PREFIX = b"Exif\0\0"
ORIENTATION, EXIF_IFD, PROCESSING_SOFTWARE, MAKER_NOTE = 274, 34665, 11, 37500
WIDTH_IN_EXIF, HEIGHT_IN_EXIF, INTEROPERABILITY = 40962, 40963, 40965
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = DENSITY_TAGS = 282, 283, 296
# TIFF tags that say how pixels are stored, or hold a second copy (thumbnail, layers, XMP, IPTC,
# ICC), but orientation, page name, white point and primaries.
_RANGES = ((254, 267), (273, 282), (284, 294), (317, 348), (512, 533))
STRUCTURE_TAGS = {tag for first, end in _RANGES for tag in range(first, end)}
STRUCTURE_TAGS |= {301, 700, 33723, 34377, 34675, 37724}
STRUCTURE_TAGS -= {274, 285, 318, 319}
# Of a raw file: what says who took it, when and with what; the rest tells how its sensor is read.
RAW_TAGS = {270, 271, 272, 306, 315, 33432, 34665, 34853}
GAIN_MAPS = (b"hdrgm", b"hdrgainmap", b"HDRGainMap", b"urn:iso:std:iso:ts:21496")
MOTION_PHOTO = rb"\w*Camera:(?:MotionPhoto|MicroVideo)"  # its marks in XMP
XMP_KEYWORD = b"XML:com.adobe.xmp"


# EXIF: an entry of a TIFF's directory is 12 bytes (tag, kind, count, value or where it lies)


def clean_exif(block: bytes, shape: tuple[int, ...]) -> bytes | None:
    """An EXIF block as it fits an upright picture of ``shape`` (H, W, ...): no orientation, no
    thumbnail.

    Only directories change, and the first moves to the end: whatever maker notes point at stays
    where it was. None where the block is damaged or says nothing.
    """
    try:
        tiff = bytearray(block.removeprefix(PREFIX))
        order, first = _begin(tiff)
        entries = _directory(tiff, first, order)
        (behind,) = struct.unpack_from(order + "I", tiff, first + 2 + 12 * len(entries))
        if behind:  # a thumbnail
            of_it = _directory(tiff, behind, order)
            places = (of_it.get(tag, bytes(12)) for tag in (513, 514))
            begin, length = (struct.unpack(order + "8xI", place)[0] for place in places)
            if 8 < begin < begin + length <= len(tiff):
                tiff[begin : begin + length] = bytes(length)
                tiff = tiff[:begin] if begin + length == len(tiff) else tiff
        # Upright without an orientation; Pillow would arrange AVIF's block anew.
        kept = {t: e for t, e in entries.items() if t not in (*STRUCTURE_TAGS, ORIENTATION)}
        if not kept:
            return None
        if EXIF_IFD in kept:
            inner = struct.unpack(order + "HHII", kept[EXIF_IFD])[3]
            for tag, place in _places(tiff, inner, order):
                if tag in (WIDTH_IN_EXIF, HEIGHT_IN_EXIF):
                    side = shape[1] if tag == WIDTH_IN_EXIF else shape[0]
                    struct.pack_into(order + "HHII", tiff, place, tag, 4, 1, side)
        cleaned = _with_directory(tiff, kept, order)
        Image.Exif().load(cleaned)
        return cleaned
    except Exception:  # damaged in any way
        return None


def with_settings(
    block: bytes | None, settings: str | None, dpi: tuple[float, float] | None = None
) -> bytes:
    """The EXIF block, or a new one, with ``settings`` as its ProcessingSoftware (tag 11), and with
    the resolution ``dpi`` where it states none.
    """
    tiff = bytearray(block.removeprefix(PREFIX) if block else b"II*\0\x08\0\0\0" + bytes(6))
    order, first = _begin(tiff)
    entries = _directory(tiff, first, order)
    tiff += bytes(len(tiff) % 2)
    if settings:
        text = settings.encode("ascii", "replace").ljust(4) + b"\0"  # shorter stand in the entry
        entry = PROCESSING_SOFTWARE, 2, len(text), len(tiff)
        entries[PROCESSING_SOFTWARE] = struct.pack(order + "HHII", *entry)
        tiff += text + bytes(len(text) % 2)
    if dpi and X_RESOLUTION not in entries:
        for tag, value in zip((X_RESOLUTION, Y_RESOLUTION), dpi, strict=True):
            entries[tag] = struct.pack(order + "HHII", tag, 5, 1, len(tiff))
            tiff += struct.pack(order + "II", round(100 * value), 100)
        entries[RESOLUTION_UNIT] = struct.pack(order + "HHIHH", RESOLUTION_UNIT, 3, 1, 2, 0)
    return _with_directory(tiff, entries, order)


def loaded(block: bytes | None) -> Image.Exif:
    """An EXIF block as Pillow reads it; a TIFF or a raw file of that kind does as well."""
    exif = Image.Exif()
    exif.load(block)
    return exif


def density(dpi, block: bytes | None) -> tuple[float, float] | None:
    """Pixels an inch, across and down: ``dpi``, or what an EXIF block or a TIFF states where that
    is None; None where they make no sense.
    """
    try:
        if dpi is None:
            exif = loaded(block)
            unit = {2: 1.0, 3: 2.54}[exif.get(RESOLUTION_UNIT, 2)]
            dpi = (unit * float(exif[tag]) for tag in (X_RESOLUTION, Y_RESOLUTION))
        across, down = map(float, dpi)
        return (across, down) if 1 <= across <= 65_535 and 1 <= down <= 65_535 else None
    except Exception:  # none, or damaged
        return None


def states_adobe_rgb(block: bytes | None) -> bool:
    """Whether an EXIF block says Adobe RGB, as cameras do without a profile (DCF's "R03")."""
    try:
        return loaded(block).get_ifd(INTEROPERABILITY).get(1) == "R03"
    except Exception:  # none, or damaged
        return False


def exif_of_tiff(data: bytes) -> tuple[bytes | None, int]:
    """EXIF block of a TIFF file, structure and resolution left out, and its orientation; none where
    it is damaged.
    """
    try:
        exif = loaded(data)
        for tag in set(exif) & {*STRUCTURE_TAGS, *DENSITY_TAGS}:
            del exif[tag]
        return exif.tobytes(), exif.get(ORIENTATION, 1)
    except Exception:
        return None, 1


def exif_of_raw(data: bytes) -> tuple[bytes | None, bool]:
    """EXIF block of a raw file that is a TIFF, or of a preview that is a JPEG, and whether it had
    maker notes: they tell how the sensor is read, and are left out.
    """
    if data[:2] == b"\xff\xd8":
        exif = Image.open(io.BytesIO(data), formats=["JPEG"]).getexif()
    else:
        exif = loaded(data)
        for tag in set(exif) - RAW_TAGS:
            del exif[tag]
    noted = exif.get_ifd(EXIF_IFD).pop(MAKER_NOTE, None)
    return exif.tobytes() if exif else None, bool(noted)


def exif_into_tiff(file: io.BytesIO, block: bytes, has_density: bool) -> None:
    """Add EXIF, sub-directories included, to a TIFF file in memory, by a joint directory at its
    end; has_density: its own resolution counts, not that of the EXIF.

    tifffile writes no sub-directories of EXIF and GPS tags. The pixels stay where they are, and are
    not copied: half a gigabyte of them may be there.
    """
    with file.getbuffer() as tiff:
        order, first = _begin(tiff)
        own = _directory(tiff, first, order)
    density = {tag: own[tag] for tag in DENSITY_TAGS if has_density}
    end = file.seek(0, 2)
    file.write(bytes(end % 2))
    moved = loaded(block).tobytes(end + end % 2)[len(PREFIX) + 8 :]
    file.write(moved + bytes(len(moved) % 2))
    start = file.tell()
    file.write(_table(own | _directory(moved, 0, order) | density, order))
    file.seek(4)
    file.write(struct.pack(order + "I", start))


def _begin(tiff: bytes) -> tuple[str, int]:
    """Byte order of a TIFF, and where its first directory lies."""
    order = {b"II": "<", b"MM": ">"}[bytes(tiff[:2])]
    return order, struct.unpack_from(order + "I", tiff, 4)[0]


def _places(tiff: bytes, start: int, order: str) -> Iterator[tuple[int, int]]:
    """Tag of each entry of a directory, and where it lies."""
    (count,) = struct.unpack_from(order + "H", tiff, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        yield struct.unpack_from(order + "H", tiff, at)[0], at


def _directory(tiff: bytes, start: int, order: str) -> dict[int, bytes]:
    return {tag: bytes(tiff[at : at + 12]) for tag, at in _places(tiff, start, order)}


def _table(entries: dict[int, bytes], order: str) -> bytes:
    """A directory that no other one follows."""
    table = b"".join(entries[tag] for tag in sorted(entries))
    return struct.pack(order + "H", len(entries)) + table + bytes(4)


def _with_directory(tiff: bytearray, entries: dict[int, bytes], order: str) -> bytes:
    """EXIF block of ``tiff`` with a new first directory at its end; nothing else moves."""
    tiff += bytes(len(tiff) % 2)
    struct.pack_into(order + "I", tiff, 4, len(tiff))
    return PREFIX + bytes(tiff) + _table(entries, order)


# XMP and IPTC


def clean_xmp(xmp: bytes) -> bytes:
    """XMP as it fits an upright picture, without the marks of a gain map, which is left out."""
    xmp = re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>))\d", rb"\g<1>1", xmp)
    return without(rb"hdrgm:", xmp)


def without(names: bytes, xmp: bytes) -> bytes:
    """XMP without the attributes whose names begin so, a regular expression."""
    return re.sub(rb"\s" + names + rb"\w*\s*=\s*(\"[^\"]*\"|'[^']*')", b"", xmp)


def iptc_of_photoshop(blocks: bytes | None) -> bytes | None:
    """IPTC among Photoshop's blocks, as a TIFF holds them; None where there is none."""
    found = re.search(rb"8BIM\x04\x04\0\0(.{4})", blocks or b"", re.DOTALL)
    return blocks[found.end() :][: int.from_bytes(found[1], "big")] if found else None


def iptc_segment(iptc: bytes) -> bytes:
    """IPTC as a JPEG's APP13 segment, one of Photoshop's blocks."""
    body = b"Photoshop 3.0\0008BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc
    body += bytes(len(iptc) % 2)
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body


# What lies behind the picture of a JPEG

_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # no stuffed zero, restart or filling
_FURTHER = re.compile(rb"\0*(?=\xff\xd8\xff)")


def behind_jpeg(data: bytes) -> tuple[bytes, int]:
    """What follows the picture of a JPEG file, further JPEGs left out, and how many those are."""
    end, pictures = _jpeg_end(data, 0), 0
    while more := _FURTHER.match(data, end):
        end, pictures = _jpeg_end(data, more.end()), pictures + 1
    return data[end:], pictures


def _jpeg_end(data: bytes, at: int) -> int:
    """Where the JPEG that begins at ``at`` ends; the file's end where it is cut."""
    at += 2
    while found := _MARKER.search(data, at):
        at = found.end()
        if found[1] == b"\xd9":
            return at
        at += int.from_bytes(data[at : at + 2], "big")
    return len(data)


# PNG and AVIF


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of a PNG's chunks; of its pixels the name alone. Ends where the file is
    damaged.
    """
    at = 8
    while at + 12 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        yield name, b"" if name == b"IDAT" else data[at + 8 : at + 8 + length]
        at += 12 + length


def png_texts(data: bytes) -> bytes:
    """The chunks of a PNG that hold its texts (title, author, ...), but XMP and what else has a
    place of its own.
    """
    texts = [c for c in png_chunks(data) if c[0] in (b"tEXt", b"zTXt", b"iTXt")]
    own = (XMP_KEYWORD, b"Raw profile type")
    return b"".join(png_chunk(*c) for c in texts if not c[1].startswith(own))


def png_chunk(name: bytes, content: bytes) -> bytes:
    """A chunk as it stands in a PNG."""
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def code_points(data: bytes) -> tuple[int, int] | None:
    """Colour primaries and transfer function of an AVIF, ITU-T H.273; None where it states none."""
    at = data.find(b"colrnclx")
    return struct.unpack_from(">HH", data, at + 8) if 0 <= at <= len(data) - 12 else None


def bits_of_avif(data: bytes) -> int:
    """8, 10 or 12, by the first codec configuration of an AVIF."""
    at = data.find(b"av1C")
    flags = data[at + 6] if 0 <= at < len(data) - 6 else 0
    return (12 if flags & 32 else 10) if flags & 64 else 8
