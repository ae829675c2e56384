"""What travels with a photograph: EXIF with its maker notes, XMP, IPTC, what lies behind a JPEG,
text of a PNG.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

PREFIX = b"Exif\0\0"
ORIENTATION, EXIF_IFD, INTEROPERABILITY, PROCESSING_SOFTWARE = 274, 34665, 40965, 11
MAKER_NOTE, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 37500, 282, 283, 296
# Of TIFF's tags: what says who took it, when and with what, not how its pixels are stored.
DESCRIBING = {PROCESSING_SOFTWARE, 270, 271, 272, ORIENTATION, X_RESOLUTION, Y_RESOLUTION, 305, 306}
DESCRIBING |= {RESOLUTION_UNIT, 315, 316, 18246, 33432, EXIF_IFD, 34853, *range(40091, 40096)}
GAIN_MAPS = (b"hdrgm", b"hdrgainmap", b"HDRGainMap", b"urn:iso:std:iso:ts:21496")
XMP_KEYWORD = b"XML:com.adobe.xmp"


# EXIF: an entry of a TIFF's directory is 12 bytes (tag, kind, count, value or where it lies)


def clean_exif(block: bytes) -> bytes | None:
    """An EXIF block as it fits an upright picture: no orientation, no thumbnail.

    Only the first directory changes, and moves to the end: whatever maker notes point at stays
    where it was. None where the block is damaged or says nothing.
    """
    try:
        tiff = bytearray(block.removeprefix(PREFIX))
        order, first, entries = _first_directory(tiff)
        (behind,) = struct.unpack_from(order + "I", tiff, first + 2 + 12 * len(entries))
        if behind:  # a thumbnail
            of_it = _directory(tiff, behind, order)
            places = (of_it.get(tag, bytes(12)) for tag in (513, 514))
            begin, length = (struct.unpack(order + "8xI", place)[0] for place in places)
            if 8 < begin < begin + length <= len(tiff):
                tiff[begin : begin + length] = bytes(length)
                tiff = tiff[:begin] if begin + length == len(tiff) else tiff
        # Upright without an orientation; Pillow would arrange AVIF's block anew.
        entries.pop(ORIENTATION, None)
        cleaned = _with_directory(tiff, entries, order)
        Image.Exif().load(cleaned)
        return cleaned if entries else None
    except Exception:  # damaged in any way
        return None


def with_settings(block: bytes | None, settings: str) -> bytes:
    """The EXIF block, or a new one, with ``settings`` as its ProcessingSoftware (tag 11)."""
    tiff = bytearray(block.removeprefix(PREFIX) if block else b"II*\0\x08\0\0\0" + bytes(6))
    order, _, entries = _first_directory(tiff)
    tiff += bytes(len(tiff) % 2)
    text = settings.encode("ascii", "replace").ljust(4) + b"\0"  # shorter stand in the entry
    entry = PROCESSING_SOFTWARE, 2, len(text), len(tiff)
    entries[PROCESSING_SOFTWARE] = struct.pack(order + "HHII", *entry)
    return _with_directory(tiff + text, entries, order)


def loaded(block: bytes | None) -> Image.Exif:
    """:data:`DESCRIBING` tags and sub-directories of an EXIF block, a TIFF or a raw file."""
    exif = Image.Exif()
    exif.load(block)
    for tag in set(exif) - DESCRIBING:
        del exif[tag]
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


def exif_of_tiff(data: bytes, raw: bool = False) -> tuple[bytes | None, int]:
    """EXIF block of a TIFF, or of a raw file, without maker notes, which tell how its sensor is
    read; and its orientation. None where it is damaged.
    """
    try:
        exif = loaded(data)
        if raw:
            exif.get_ifd(EXIF_IFD).pop(MAKER_NOTE, None)
        return exif.tobytes(), exif.get(ORIENTATION, 1)
    except Exception:
        return None, 1


def exif_into_tiff(file: io.BytesIO, block: bytes) -> None:
    """Add EXIF, with the sub-directories that tifffile does not write, to a TIFF file in memory: a
    joint directory at its end, in which its own entries count. The pixels are not copied.
    """
    with file.getbuffer() as tiff:
        order, _, own = _first_directory(tiff)
    end = file.seek(0, 2)
    file.write(bytes(end % 2))
    moved = loaded(block).tobytes(end + end % 2)[len(PREFIX) + 8 :]
    file.write(moved + bytes(len(moved) % 2))
    start = file.tell()
    file.write(_table(_directory(moved, 0, order) | own, order))
    file.seek(4)
    file.write(struct.pack(order + "I", start))


def _first_directory(tiff: bytes) -> tuple[str, int, dict[int, bytes]]:
    """Byte order of a TIFF, where its first directory lies, and its entries."""
    order = {b"II": "<", b"MM": ">"}[bytes(tiff[:2])]
    (first,) = struct.unpack_from(order + "I", tiff, 4)
    return order, first, _directory(tiff, first, order)


def _directory(tiff: bytes, start: int, order: str) -> dict[int, bytes]:
    (count,) = struct.unpack_from(order + "H", tiff, start)
    places = range(start + 2, start + 2 + 12 * count, 12)
    return {struct.unpack_from(order + "H", tiff, p)[0]: bytes(tiff[p : p + 12]) for p in places}


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
    return re.sub(rb"\shdrgm:\w*\s*=\s*(\"[^\"]*\"|'[^']*')", b"", xmp)


def iptc_segment(iptc: bytes) -> bytes:
    """IPTC as a JPEG's APP13 segment, one of Photoshop's blocks."""
    body = b"Photoshop 3.0\0008BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc
    body += bytes(len(iptc) % 2)
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body


# What lies behind the picture of a JPEG

_PICTURE = re.compile(rb"\0*\xff\xd8(?=\xff)")
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # no stuffed zero, restart or filling


def behind_jpeg(data: bytes) -> tuple[bytes, int]:
    """What follows the picture of a JPEG file, further JPEGs left out, and how many those are."""
    end, pictures = 0, -1
    while picture := _PICTURE.match(data, end):
        at = picture.end()
        while (found := _MARKER.search(data, at)) and found[1] != b"\xd9":
            at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
        end, pictures = found.end() if found else len(data), pictures + 1
    return data[end:], pictures


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
