"""What an image file says about itself, read before any pixel is; headers made to exhaust the reader are refused.

JPEG is walked here. The other formats are opened, not decoded, by pillow, each by its own plugin: `PIL.Image.open` would
try them all and apply pillow's limits instead of ours.
"""

import importlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from openlepton.errors import ImageTooLarge, ImageUnreadable

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

ByteOrder = Literal["little", "big"]

FORMATS = frozenset(("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"))
"""The formats that are read; JPEG includes MPO (its first picture), PPM includes PGM and PBM."""

_PLUGINS = {
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "PPM": ("PIL.PpmImagePlugin", "PpmImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
}

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)

_OTHERS = (
    (b"%PDF", "a PDF document; export the page as an image"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer; run `git lfs pull`"),
)

ORIENTATION = 0x0112
"""The EXIF tag, which is a TIFF tag too."""

# Ours to choose: far above what cameras and programs write, low enough that a hostile file costs well under a second.
_MAX_SEGMENTS = 10_000
_MAX_SCANS = 64
_MAX_CHUNKS = 100_000
_MAX_BLOCKS = 20_000
_MAX_TAGS = 1_000

_DIRECTORIES = (0x8769, 0x8825, 0xA005)  # Exif, GPS and interoperability, which pillow reads whole
_TAG_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True)
class Header:
    """What a file says its first picture is."""

    format: str
    """One of `FORMATS`."""
    width: int
    """Pixels, with the orientation applied."""
    height: int
    """Pixels, with the orientation applied."""
    orientation: int = 1
    """EXIF orientation, 1 (as stored) to 8."""
    mode: str = "RGB"
    """Colours as pillow names them: `L`, `RGB`, `CMYK`, `P`, `I;16`, ..."""

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height in pixels before the orientation is applied."""
        return (self.height, self.width) if self.orientation > 4 else (self.width, self.height)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels, with the orientation applied."""
        return self.height, self.width


def sniff(data: bytes) -> str | None:
    """Return the format that the first bytes announce, or None if it is none of `FORMATS`."""
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return "PPM"
    return None


def describe(data: bytes) -> str:
    """Return in words what data that is no image appears to be."""
    for magic, words in _OTHERS:
        if data.startswith(magic):
            return words
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        if brand in (b"avif", b"avis"):
            return "AVIF, which is not read; convert it to JPEG or PNG"
        if brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
            return "HEIC, which is not read; convert it to JPEG or PNG"
        return "a video, not an image"
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page, not an image"
    if start.startswith(b"<"):
        return "an SVG drawing; export it as PNG" if b"<svg" in start else "XML, not an image"
    return "not an image of a known format"


def open_header(
    data: bytes, name: str, *, formats: frozenset[str] = FORMATS, max_pixels: int
) -> tuple[Header, "ImageFile | None", bytes]:
    """Return the header; the picture opened by pillow but not decoded (None for JPEG); and the bytes to decode.

    Those are `data`, except that of a PNG only what its picture needs is left: no text, no profile, no animation.

    Args:
        data: The whole file.
        name: What errors begin with.
        formats: Those of `FORMATS` to admit.
        max_pixels: The most pixels to admit.

    Raises:
        ImageUnreadable: It is empty, damaged, truncated, no image, or of a format that is not admitted.
        ImageTooLarge: It has more pixels than `max_pixels`.
    """
    if not data:
        raise ImageUnreadable(f"{name}: empty")
    kind = sniff(data)
    if kind is None:
        raise ImageUnreadable(f"{name}: {describe(data)}")
    if kind not in formats:
        raise ImageUnreadable(f"{name}: {kind} is not accepted here, only {', '.join(sorted(formats))}")
    if kind == "JPEG":
        header = _jpeg(data, name)
        check_size(header.width, header.height, name, max_pixels)
        return header, None, data
    exif = b""
    if kind == "PNG":
        data, exif = _png_parts(data, name)
    elif kind == "WEBP":  # pillow allocates the canvas when it opens the file
        check_size(*_webp_size(data, name), name, max_pixels)
    elif kind == "GIF":
        _check_gif(data, name)
    elif kind == "TIFF":
        _check_tiff(data, name)
    header, opened = _open(data, kind, exif, name, max_pixels)
    return header, opened, data


def check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    """Raise unless the picture has pixels, and no more than `max_pixels`."""
    if width < 1 or height < 1:
        raise ImageUnreadable(f"{name}: has no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"{name}: {width} x {height} is {width * height / 1e6:,.1f} megapixels, the limit is {max_pixels / 1e6:,.1f}"
        )


def _jpeg(data: bytes, name: str) -> Header:
    """Walk the segments up to the first scan; there must be an end-of-image marker, as decoders invent what is missing."""
    height = width = components = 0
    orientation, at = 1, 2
    for _ in range(_MAX_SEGMENTS):
        at = data.find(b"\xff", at)
        if at < 0 or at + 4 > len(data):
            raise ImageUnreadable(f"{name}: truncated: the JPEG ends before its picture begins")
        marker, at = data[at + 1], at + 1
        if marker in (0x00, 0xFF):  # stuffing and padding
            continue
        at += 1
        if marker == 0x01 or 0xD0 <= marker <= 0xD9:  # these have no content
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # frame header
            height, width = int.from_bytes(data[at + 3 : at + 5], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
            components = int.from_bytes(data[at + 7 : at + 8], "big")
            if data[at + 2 : at + 3] != b"\x08" or components not in (1, 3, 4):
                raise ImageUnreadable(f"{name}: JPEG of a kind not read; only 8 bits in 1, 3 or 4 channels are")
        elif marker == 0xE1 and data.startswith(b"Exif\0\0", at + 2):
            orientation = _orientation(data[at + 8 : at + length])
        elif marker == 0xDA:
            break
        at += max(length, 2)
    else:
        raise ImageUnreadable(f"{name}: more than {_MAX_SEGMENTS} JPEG segments before the picture")
    if data.rfind(b"\xff\xd9") < at:  # a thumbnail's lies before the first scan
        raise ImageUnreadable(f"{name}: truncated: the JPEG has no end-of-image marker")
    if _scans(data, at) > _MAX_SCANS:  # each has the whole picture gone through once more
        raise ImageUnreadable(f"{name}: more than {_MAX_SCANS} JPEG scans")
    if orientation > 4:
        width, height = height, width
    return Header("JPEG", width, height, orientation, {0: "", 1: "L", 3: "RGB", 4: "CMYK"}[components])


def _scans(data: bytes, at: int) -> int:
    """Return how many scans follow the first; phones append more pictures, even videos, to a JPEG."""
    values = np.frombuffer(data, np.uint8, offset=at)
    most = int(np.count_nonzero((values[:-1] == 0xFF) & (values[1:] == 0xDA)))  # fast, but may count what is appended
    return most if most <= _MAX_SCANS else data.count(b"\xff\xda", at, data.find(b"\xff\xd9", at))


def _open(data: bytes, kind: str, exif: bytes, name: str, max_pixels: int) -> tuple[Header, "ImageFile"]:
    module, plugin = _PLUGINS[kind]
    try:
        opened: ImageFile = getattr(importlib.import_module(module), plugin)(io.BytesIO(data))
    except Exception as error:  # a parser fed hostile bytes may raise anything
        raise ImageUnreadable(f"{name}: {kind} is truncated, damaged or of a kind not read ({brief(error)})") from error
    width, height = opened.size
    check_size(width, height, name, max_pixels)
    if kind == "TIFF":
        check_size(tiff_tag(opened, 322, 1), tiff_tag(opened, 323, 1), name, max_pixels)  # tiles may exceed the picture
        orientation = tiff_tag(opened, ORIENTATION, 1)
        return Header(kind, width, height, orientation if 1 <= orientation <= 8 else 1, opened.mode), opened
    if kind == "WEBP":
        exif = opened.info.get("exif", b"")
    orientation = _orientation(exif.removeprefix(b"Exif\0\0"))
    if orientation > 4:
        width, height = height, width
    return Header(kind, width, height, orientation, opened.mode), opened


def tiff_tag(opened: "Image", tag: int, default: int) -> int:
    """Return the first number in a tag of a TIFF, or `default` where there is none."""
    value = opened.tag_v2.get(tag, default)  # type: ignore[attr-defined]
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int) else default


def brief(error: Exception) -> str:
    """Return the message of a foreign error as one short line."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def _orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data, which is a TIFF without a picture; 1 if there is none."""
    if exif[:2] not in (b"II", b"MM"):
        return 1
    order: ByteOrder = "little" if exif[:2] == b"II" else "big"
    for tag, kind, _, value in _entries(exif, int.from_bytes(exif[4:8], order), order):
        if tag == ORIENTATION:
            found = int.from_bytes(exif[value : value + _TAG_BYTES.get(kind, 2)], order)
            return found if 1 <= found <= 8 else 1
    return 1


def _entries(tiff: bytes, at: int, order: ByteOrder, *, large: bool = False) -> Iterator[tuple[int, int, int, int]]:
    """Yield tag, type, count and where the value (or its offset) is, for at most one entry more than are tolerated."""
    head, entry, wide = (8, 20, 8) if large else (2, 12, 4)
    number = int.from_bytes(tiff[at : at + head], order)
    at += head
    for start in range(at, min(at + entry * min(number, _MAX_TAGS + 1), len(tiff) - entry + 1), entry):
        tag, kind = int.from_bytes(tiff[start : start + 2], order), int.from_bytes(tiff[start + 2 : start + 4], order)
        yield tag, kind, int.from_bytes(tiff[start + 4 : start + 4 + wide], order), start + 4 + wide


def _check_tiff(data: bytes, name: str) -> None:
    """Refuse directories whose values overlap or are too many: pillow reads each into memory of its own."""
    order: ByteOrder = "little" if data[:2] == b"II" else "big"
    large = data[2:4] in (b"+\0", b"\0+")
    head, entry, wide = (8, 20, 8) if large else (2, 12, 4)
    starts = [int.from_bytes(data[wide : 2 * wide], order)]
    count = total = 0
    while starts:
        start = starts.pop()
        if start + head + entry * int.from_bytes(data[start : start + head], order) + wide > len(data):
            if count:  # careless programs copy pointers to what they do not copy
                continue
            raise ImageUnreadable(f"{name}: TIFF is truncated: its directory lies beyond its end")
        for tag, kind, values, at in _entries(data, start, order, large=large):
            size, value = values * _TAG_BYTES.get(kind, 1), int.from_bytes(data[at : at + wide], order)
            count, total = count + 1, total + size
            if count > _MAX_TAGS or total > len(data):
                raise ImageUnreadable(f"{name}: TIFF is truncated or damaged: its tags claim more than the file holds")
            if tag < 0x8000 and size > wide and value + size > len(data):  # private tags may be stale
                raise ImageUnreadable(f"{name}: TIFF is truncated: tag {tag} lies beyond its end")
            if tag in _DIRECTORIES:
                starts.append(value)


def _png_parts(data: bytes, name: str) -> tuple[bytes, bytes]:
    """Return the PNG without what its picture does not need, and its EXIF data, which may also follow the picture."""
    at, exif, parts = 8, b"", [data[:8]]
    for _ in range(_MAX_CHUNKS):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):  # OpenCV would allocate whatever the chunk says
            raise ImageUnreadable(f"{name}: truncated: the PNG ends within a chunk")
        if kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        elif kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            parts.append(data[at:end])
        if kind == b"IEND":
            return b"".join(parts), exif
        at = end
    raise ImageUnreadable(f"{name}: more than {_MAX_CHUNKS} PNG chunks")


def _webp_size(data: bytes, name: str) -> tuple[int, int]:
    """Return width and height from a file that has all the bytes it should."""
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise ImageUnreadable(f"{name}: truncated: the WEBP ends before the length it states")
    kind, part = data[12:16], data[20:30]
    if len(part) == 10 and kind == b"VP8X":
        return int.from_bytes(part[4:7], "little") + 1, int.from_bytes(part[7:10], "little") + 1
    if len(part) == 10 and kind == b"VP8 ":
        return int.from_bytes(part[6:8], "little") & 0x3FFF, int.from_bytes(part[8:10], "little") & 0x3FFF
    if len(part) >= 5 and kind == b"VP8L":
        bits = int.from_bytes(part[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise ImageUnreadable(f"{name}: WEBP is damaged or of a kind not read")


def _check_gif(data: bytes, name: str) -> None:
    """Refuse comments without number before the picture: pillow joins them one by one."""
    flags = int.from_bytes(data[10:11], "big")
    at, blocks = 13 + (3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0), 0  # after the colours, if there are any
    while data[at : at + 1] == b"!":
        at += 2
        while size := int.from_bytes(data[at : at + 1], "big"):
            at, blocks = at + 1 + size, blocks + 1
            if blocks > _MAX_BLOCKS:
                raise ImageUnreadable(f"{name}: more than {_MAX_BLOCKS} GIF comment blocks before the picture")
        at += 1
