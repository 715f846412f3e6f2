"""Pictures in and out: whatever holds one becomes `(H, W, 3)` RGB uint8, the right way up.

Size and format are known before anything is decoded, so what exceeds the limits costs nothing. OpenCV decodes JPEG (whole
or at a fraction of its size), PNG, WebP and 16-bit colour. Pillow decodes what OpenCV does not, or not in every release,
or not exactly: GIF, BMP, PPM, most TIFF, animations.
"""

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from openlepton.arrays import Array, Image
from openlepton.errors import ImageNotFound, ImageTooLarge, ImageUnreadable, OutputError, ShapeError, UsageError
from openlepton.files import write_atomic
from openlepton.headers import FORMATS, ORIENTATION, Header, brief, check_size, open_header, tiff_tag

if TYPE_CHECKING:
    import PIL.Image
    import PIL.ImageFile

__all__ = [
    "LIMITS", "Header", "Limits", "Source", "read_bytes", "read_header", "read_image", "read_scaled", "write_image",
]  # fmt: skip

File: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO
"""What holds the bytes of an image file: a path, the bytes themselves, or a file open for reading."""

Source: TypeAlias = "File | PIL.Image.Image | NDArray[Any]"
"""What `read_image` reads. An array is `(H, W)`, `(H, W, 1)`, `(H, W, 3)` RGB or `(H, W, 4)` RGBA; uint8, uint16, bool, or
floating point from 0 to 1."""


@dataclass(frozen=True)
class Limits:
    """What is refused before it is read or decoded. A server that strangers reach should admit less than a person's laptop."""

    max_bytes: int = 256 * 1024 * 1024
    max_pixels: int = 100_000_000
    formats: frozenset[str] = FORMATS


LIMITS = Limits()
"""What is admitted unless the caller says otherwise."""

_URL = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)

_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
"""The flag for each fraction without its bits for colour."""

_STRIP_PIXELS = 4_000_000
_FLOAT_SLACK = 1e-3  # what interpolation may overshoot

_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))


def read_bytes(source: File, *, limits: Limits = LIMITS) -> bytes:
    """Return the bytes of an image file; at most one more than the limit is ever read.

    Raises:
        ImageNotFound: There is no such file.
        ImageUnreadable: It is a folder, a device, a URL, or may not be read.
        ImageTooLarge: It has more bytes than `limits.max_bytes`.
    """
    name = _name(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        _check_bytes(memoryview(source).nbytes, name, limits)
        return bytes(source)
    try:
        if isinstance(source, (str, os.PathLike)):
            return _read_path(os.fsdecode(source), name, limits)
        if hasattr(source, "read"):
            return _read_stream(source, name, limits)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageNotFound(f"{name}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in a path, a closed file, text
        reason = (isinstance(error, OSError) and error.strerror) or brief(error)
        raise ImageUnreadable(f"{name}: cannot be read: {reason}") from error
    raise UsageError(f"an image is a path, bytes, an open file, a PIL image or an array, not {type(source).__name__}")


def read_header(source: File, *, limits: Limits = LIMITS) -> Header:
    """Return what an image file says about itself; nothing is decoded.

    Raises:
        ImageError: It is missing, too large, damaged, or no image.
    """
    data = read_bytes(source, limits=limits)
    return open_header(data, _name(source), formats=limits.formats, max_pixels=limits.max_pixels)[0]


def read_image(source: Source, *, limits: Limits = LIMITS) -> Image:
    """Return the picture, `(H, W, 3)` RGB uint8, turned as its EXIF orientation says and composited over white.

    Of several frames or pages the first is read. 16 bits are scaled to 8. An array is never changed; one that is already
    `(H, W, 3)` uint8 comes back as it is.

    Raises:
        ImageError: It is missing, too large, damaged, or no image.
        ShapeError: An array has a shape, type or values that are no picture.
    """
    return _read(source, limits, None)[0]


def read_scaled(source: Source, *, long_side: int, limits: Limits = LIMITS) -> tuple[Image, tuple[int, int]]:
    """Return the picture, possibly smaller, and the height and width that it has at full size.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where its longer side stays at least `long_side`: that costs a
    fraction of decoding it whole. Everything else is what `read_image` returns.

    Args:
        source: Whatever `read_image` reads.
        long_side: The least pixels that the longer side of the result may have, if the picture has as many.
        limits: What to refuse.

    Raises:
        ImageError: It is missing, too large, damaged, or no image.
        ShapeError: An array has a shape, type or values that are no picture.
    """
    if long_side < 1:
        raise UsageError(f"long_side: expected at least 1 pixel, got {long_side}")
    return _read(source, limits, long_side)


def write_image(path: str | os.PathLike[str], image: Image, *, quality: int = 92) -> None:
    """Write `(H, W, 3)` RGB uint8 in the format that the suffix names; upon failure what was there before stays.

    Args:
        path: Ends in `.jpg`, `.png`, `.webp`, `.bmp`, `.tiff` or `.ppm`.
        image: The picture.
        quality: 1 to 100, for JPEG and WebP.

    Raises:
        OutputError: The suffix is another, the format cannot hold the picture, or the disk does not take it.
        ShapeError: `image` is not `(H, W, 3)` uint8.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise OutputError(f"{path}: the suffix must be one of {', '.join(sorted(_SUFFIXES))}")
    if not 1 <= quality <= 100:
        raise UsageError(f"quality: expected 1 to 100, got {quality}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ShapeError(f"image: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
    options = {
        ".jpg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        ".webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
    }.get(suffix, [])
    try:
        done, data = cv2.imencode(suffix, cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR), options)
    except cv2.error as error:
        raise OutputError(f"{path}: cannot be encoded ({brief(error)})") from error
    if not done:
        raise OutputError(f"{path}: {suffix[1:]} cannot hold {image.shape[1]} x {image.shape[0]} pixels")
    write_atomic(path, data.tobytes())


def write_grey(path: str | os.PathLike[str], values: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write `(H, W)` uint8 or uint16 as a PNG of one channel, such as a class map; upon failure what was there before stays.

    Raises:
        OutputError: The disk does not take it.
        ShapeError: `values` is not `(H, W)` uint8 or uint16.
    """
    if values.ndim != 2 or values.dtype not in (np.uint8, np.uint16) or not values.size:
        raise ShapeError(f"values: expected (H, W) uint8 or uint16, got {values.shape} {values.dtype}")
    write_atomic(path, cv2.imencode(".png", np.ascontiguousarray(values))[1].tobytes())


def _name(source: object) -> str:
    """Return what errors call the source, on one line."""
    if isinstance(source, (str, os.PathLike)):
        name = os.fsdecode(source)
    else:
        name = getattr(source, "filename", "") or getattr(source, "name", "")
    if not isinstance(name, str) or not name:
        return "image data"
    return name if name.isprintable() else repr(name)


def _check_bytes(size: int, name: str, limits: Limits) -> None:
    if size > limits.max_bytes:
        raise ImageTooLarge(f"{name}: has more bytes than the limit of {limits.max_bytes:,}")


def _read_path(path: str, name: str, limits: Limits) -> bytes:
    if _URL.match(path):
        raise ImageUnreadable(f"{name}: a URL; nothing is fetched, save the image to a file first")
    status = os.stat(path)  # noqa: PTH116 - `Path` would turn "" into the current folder
    if stat.S_ISDIR(status.st_mode):
        raise ImageUnreadable(f"{name}: a folder, not an image")
    if not stat.S_ISREG(status.st_mode):  # opening a pipe or a device may never return
        raise ImageUnreadable(f"{name}: not a regular file")
    _check_bytes(status.st_size, name, limits)
    with open(path, "rb") as file:  # noqa: PTH123
        data = file.read(status.st_size + 1)
    _check_bytes(len(data), name, limits)
    return data


def _read_stream(stream: BinaryIO, name: str, limits: Limits) -> bytes:
    parts: list[bytes] = []
    size = 0
    while size <= limits.max_bytes and (part := stream.read(min(2**20, limits.max_bytes + 1 - size))):
        if not isinstance(part, bytes):
            raise ImageUnreadable(f"{name}: opened as text; open it with 'rb'")
        parts.append(part)
        size += len(part)
    _check_bytes(size, name, limits)
    return b"".join(parts)


def _read(source: Source, limits: Limits, long_side: int | None) -> tuple[Image, tuple[int, int]]:
    """Return the picture, smaller if `long_side` admits it, and its full height and width."""
    if isinstance(source, np.ndarray):
        image = _rgb(source)
        return image, (image.shape[0], image.shape[1])
    name = _name(source)
    if _is_pillow(source):
        check_size(*source.size, name, limits.max_pixels)
        with _decoding(name, source.format or "picture"):
            source.load()  # before the orientation is asked for: of a TIFF, pillow applies and removes it here
            image = _turn(_decode_pillow(source), source.getexif().get(ORIENTATION, 1))
        return image, (image.shape[0], image.shape[1])
    data = read_bytes(cast("File", source), limits=limits)
    header, opened, data = open_header(data, name, formats=limits.formats, max_pixels=limits.max_pixels)
    with _decoding(name, header.format):
        if opened is None:
            return _turn(_decode_jpeg(data, header, long_side), header.orientation), header.size_hw
        image = _decode_raw(data, opened.size) if _for_opencv(data, opened) else _decode_pillow(opened)
        # Both decoders have turned a TIFF already.
        return _turn(image, 1 if header.format == "TIFF" else header.orientation), header.size_hw


def _is_pillow(source: object) -> "TypeGuard[PIL.Image.Image]":
    pillow = sys.modules.get("PIL.Image")  # whoever holds one of its pictures has imported it
    kind = getattr(pillow, "Image", None)  # missing while another thread is still importing it
    return kind is not None and isinstance(source, kind)


@contextmanager
def _decoding(name: str, kind: str) -> Iterator[None]:
    """Turn whatever a decoder raises into one line that names the source."""
    try:
        yield
    except ShapeError as error:
        raise ImageUnreadable(f"{name}: {str(error).removeprefix('image: ')}") from error
    except Exception as error:
        raise ImageUnreadable(
            f"{name}: {kind} cannot be decoded, it is truncated or damaged ({brief(error)})"
        ) from error


def _decode_jpeg(data: bytes, header: Header, long_side: int | None) -> Image:
    """Return the picture as stored, at the smallest fraction of its size that `long_side` admits."""
    factor = max(f for f in _REDUCED if f == 1 or (long_side and -(-max(header.size_hw) // f) >= long_side))
    flags = _REDUCED[factor] | cv2.IMREAD_IGNORE_ORIENTATION
    buffer = np.frombuffer(data, np.uint8)
    if hasattr(cv2, "IMREAD_COLOR_RGB"):  # from 4.11
        image = cv2.imdecode(buffer, flags | cv2.IMREAD_COLOR_RGB)
    else:
        image = cv2.imdecode(buffer, flags | cv2.IMREAD_COLOR)
        image = image if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    width, height = header.stored_size
    return _checked(image, (-(-width // factor), -(-height // factor)))


def _for_opencv(data: bytes, opened: "PIL.ImageFile.ImageFile") -> bool:
    """Return whether OpenCV is to decode: where it is exact, it is faster, and it keeps all 16 bits of colour."""
    if opened.format == "PNG":  # of grey with a transparent level, OpenCV forgets which
        return opened.mode not in ("1", "L", "I;16") or "transparency" not in opened.info
    if opened.format == "WEBP":
        return data[12:16] != b"VP8X" or not data[20] & 2  # no animation
    if opened.format == "BMP":
        return opened.info.get("compression") in (1, 2)  # over which pillow loops in Python
    if opened.format == "TIFF" and opened.mode in ("RGB", "RGBA") and tiff_tag(opened, 258, 8) == 16:
        if tiff_tag(opened, 284, 1) != 1:
            raise ShapeError("a 16-bit TIFF with its channels in separate planes, which is not read")
        return True
    return False


def _decode_raw(data: bytes, size: tuple[int, int]) -> Image:
    """Return what OpenCV decodes without converting it: BGR(A) or grey of any depth."""
    values = _checked(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), size)
    if values.ndim == 3:
        values = cv2.cvtColor(values, cv2.COLOR_BGRA2RGBA if values.shape[2] == 4 else cv2.COLOR_BGR2RGB, dst=values)
    return _rgb(values)


def _checked(image: Array | None, size: tuple[int, int]) -> Array:
    if image is None:
        raise ValueError("OpenCV refuses it")
    if image.shape[1::-1] != size:
        raise ValueError(f"the header says {size[0]} x {size[1]}, it decodes to {image.shape[1]} x {image.shape[0]}")
    return image


def _decode_pillow(picture: "PIL.Image.Image") -> Image:
    picture.load()
    if picture.mode[0] in "IF":  # one channel of more than 8 bits
        values = np.asarray(picture)
        if picture.mode == "I" and picture.format == "PPM":  # 16 bits, of which pillow makes 32
            values = values.astype(np.uint16)
        elif picture.format == "TIFF" and values.dtype.kind == "u":
            full = 2 ** tiff_tag(picture, 258, 16) - 1  # 12 bits are possible
            values = (values.astype(np.uint32) * 65535 // full).astype(np.uint16)
            values = 65535 - values if tiff_tag(picture, 262, 1) == 0 else values  # white is zero
        return _rgb(values)
    width, height = picture.size
    mode = "RGBA" if picture.has_transparency_data else "RGB"
    image = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):  # in strips, as each conversion is one more copy
        strip = picture.crop((0, top, width, min(top + rows, height)))
        image[top : top + rows] = _over_white(np.asarray(strip.convert(mode)))
    return image


def _rgb(values: Array) -> Image:
    """Return grey, RGB or RGBA values of any accepted type as `(H, W, 3)` uint8."""
    channels = 1 if values.ndim == 2 else values.shape[2] if values.ndim == 3 else 0
    if channels not in (1, 3, 4) or not values.size:
        hint = "; move the channels last" if values.ndim == 3 and values.shape[0] in (1, 3, 4) else ""
        raise ShapeError(f"image: expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {values.shape}{hint}")
    image = _eight_bits(values)
    if channels == 1:
        return cv2.cvtColor(np.ascontiguousarray(image.reshape(image.shape[:2])), cv2.COLOR_GRAY2RGB).astype(
            np.uint8, copy=False
        )
    return np.ascontiguousarray(_over_white(image))


def _eight_bits(values: Array) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 257 * 255
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= -_FLOAT_SLACK and high <= 1 + _FLOAT_SLACK):  # so written, NaN is refused too
            raise ShapeError(f"image: expected floating point from 0 to 1, got {low:.4g} to {high:.4g}")
        return np.rint(np.clip(values.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    raise ShapeError(f"image: expected uint8, uint16, bool, or floating point from 0 to 1, got {values.dtype}")


def _over_white(pixels: NDArray[np.uint8]) -> Image:
    """Return RGB as it is, and RGBA composited over white, rounded."""
    if pixels.shape[2] == 3:
        return pixels
    if (pixels[..., 3] == 255).all():
        return pixels[..., :3]
    alpha = pixels[..., 3:].astype(np.uint16)
    return ((pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)  # at most 65152


def _turn(image: Image, orientation: int) -> Image:
    """Return the picture turned as EXIF `orientation`, 1 to 8, says."""
    if orientation in (5, 7):
        image = cv2.transpose(image).astype(np.uint8, copy=False)
    move = {2: 1, 3: -1, 4: 0, 7: -1}.get(orientation)
    if move is not None:
        return cv2.flip(image, move).astype(np.uint8, copy=False)
    turn = {6: cv2.ROTATE_90_CLOCKWISE, 8: cv2.ROTATE_90_COUNTERCLOCKWISE}.get(orientation)
    return image if turn is None else cv2.rotate(image, turn).astype(np.uint8, copy=False)
