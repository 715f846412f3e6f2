"""Files that are missing, damaged, lying or made to exhaust the reader: one clear line each, soon and cheaply."""

import io
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from openlepton.arrays import Array
from openlepton.errors import ImageError, ImageNotFound, ImageTooLarge, ImageUnreadable, UsageError
from openlepton.images import Limits, read_bytes, read_header, read_image, read_scaled

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")


def encode(image: Array | Pillow.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture = image if isinstance(image, Pillow.Image) else Pillow.fromarray(image)
    picture.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, colour: int = 2, bits: int = 8) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def webp(kind: bytes, content: bytes) -> bytes:
    body = b"WEBP" + kind + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp(
    width: int, height: int, content: bytes, *, bits: int = 24, compression: int = 0, colours: bytes = b""
) -> bytes:
    sizes = 40, width, height, 1, bits, compression, len(content), 0, 0, len(colours) // 4, 0
    offset = 54 + len(colours)
    head = b"BM" + struct.pack("<IHHI", offset + len(content), 0, 0, offset)
    return head + struct.pack("<IiiHHIIiiII", *sizes) + colours + content


def gif(width: int, height: int, extensions: bytes = b"") -> bytes:
    frame = b"," + struct.pack("<HHHH", 0, 0, width, height) + b"\0\x02\x02\x44\x01\0;"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + bytes(6) + extensions + frame


def tiff(tags: dict[int, tuple[int, int, int]], content: bytes = b"") -> bytes:
    entries = b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + content


def grey_tiff(width: int, height: int, **more: tuple[int, int, int]) -> bytes:
    tags = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, 8),
        277: (3, 1, 1),
    }
    return tiff(
        tags | {278: (4, 1, height), 279: (4, 1, 64)} | {int(key[1:]): value for key, value in more.items()}, bytes(64)
    )


def noise(height: int = 96, width: int = 128) -> Array:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


# What is no image


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"hello", "not an image of a known format"),
        (b"\0" * 100, "not an image of a known format"),
        (b"  <svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing; export it as PNG"),
        (b"<?xml version='1.0'?><!DOCTYPE svg><svg/>", "an SVG drawing; export it as PNG"),
        (b"<?xml version='1.0'?><note/>", "XML, not an image"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><p>not found", "a web page, not an image"),
        (b"%PDF-1.7", "a PDF document; export the page as an image"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"\x1f\x8brest", "a gzip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer; run `git lfs pull`"),
        (b"\0\0\0\x18ftypheic\0\0", "HEIC, which is not read; convert it to JPEG or PNG"),
        (b"\0\0\0\x18ftypavif\0\0", "AVIF, which is not read; convert it to JPEG or PNG"),
        (b"\0\0\0\x18ftypisom\0\0", "a video, not an image"),
        (b"P", "not an image of a known format"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    for source, name in ((data, "image data"), (path, str(path))):
        with pytest.raises(ImageUnreadable) as caught:
            read_image(source)
        assert str(caught.value) == f"{name}: {words}"


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "no.jpg", tmp_path / "no" / "a.jpg", ""):
        with pytest.raises(ImageNotFound) as caught:
            read_image(path)
        assert str(caught.value) == f"{path or 'image data'}: no such file"
    with pytest.raises(ImageError, match="a.jpg: no such file"):
        read_image(tmp_path / "file" / "a.jpg")


def test_a_name_of_several_lines_makes_an_error_of_one(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFound, match=r"^'.*a\\nb.jpg': no such file$"):
        read_image(tmp_path / "a\nb.jpg")


@pytest.mark.parametrize(
    "url", ["https://example.org/cat.jpg", "HTTP://a/b", "file:///a.png", "s3://a/b", "data:image/png;base64,AA=="]
)
def test_nothing_is_fetched(url: str) -> None:
    with pytest.raises(ImageUnreadable) as caught:
        read_image(url)
    assert str(caught.value) == f"{url}: a URL; nothing is fetched, save the image to a file first"


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageUnreadable) as caught:
        read_image(tmp_path)
    assert str(caught.value) == f"{tmp_path}: a folder, not an image"


def test_a_null_character_in_a_path_is_an_error() -> None:
    with pytest.raises(ImageError, match=r"^'a\\x00b': "):
        read_image("a\0b")


@posix
def test_a_pipe_or_device_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    start = time.perf_counter()
    for path in (pipe, "/dev/zero", "/dev/null"):
        with pytest.raises(ImageUnreadable, match="not a regular file"):
            read_image(path)
    assert time.perf_counter() - start < 1


@posix
def test_a_file_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("permissions do not bind this user")
    with pytest.raises(ImageUnreadable, match="a.jpg: cannot be read: Permission denied"):
        read_image(path)


def test_what_is_no_source_is_a_mistake() -> None:
    for source in (7, None, [[0, 0]]):
        with pytest.raises(UsageError, match="an image is a path, bytes, an open file, a PIL image or an array, not "):
            read_image(source)  # type: ignore[arg-type]


def test_a_file_opened_as_text_or_closed_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("hello")
    with path.open() as file, pytest.raises(ImageUnreadable, match="a.txt: opened as text; open it with 'rb'"):
        read_image(file)  # type: ignore[arg-type]
    path.write_bytes(b"\xff\xd8\xff")
    with path.open(encoding="utf-8") as file, pytest.raises(ImageUnreadable, match="a.txt: cannot be read"):
        read_image(file)  # type: ignore[arg-type]
    with path.open("rb") as closed:
        pass
    with pytest.raises(ImageUnreadable, match="a.txt: cannot be read: read of closed file"):
        read_image(closed)


# Limits


class Endless(io.RawIOBase):
    """A stream that never ends, and counts what is taken from it."""

    taken = 0

    def read(self, size: int = -1) -> bytes:
        self.taken += size
        return bytes(size)


def test_bytes_beyond_the_limit_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(1001))
    limits = Limits(max_bytes=1000)
    for source in (path, bytes(1001), memoryview(bytes(1004)).cast("I"), io.BytesIO(bytes(5000))):
        with pytest.raises(ImageTooLarge, match=": has more bytes than the limit of 1,000$"):
            read_bytes(source, limits=limits)  # type: ignore[arg-type]
    path.write_bytes(bytes(1000))
    assert read_bytes(path, limits=limits) == read_bytes(io.BytesIO(bytes(1000)), limits=limits) == bytes(1000)
    endless = Endless()
    with pytest.raises(ImageTooLarge):
        read_bytes(endless, limits=limits)  # type: ignore[arg-type]
    assert endless.taken == 1001


def test_pixels_at_the_limit_are_read_and_one_more_is_not() -> None:
    data = encode(noise(10, 10), "PNG")
    assert read_image(data, limits=Limits(max_pixels=100)).shape == (10, 10, 3)
    with pytest.raises(ImageTooLarge, match="^image data: 10 x 10 is 0.0 megapixels, the limit is 0.0$"):
        read_image(data, limits=Limits(max_pixels=99))


def test_a_format_that_is_not_admitted_is_refused_by_name() -> None:
    with pytest.raises(ImageUnreadable, match="^image data: GIF is not accepted here, only JPEG, PNG$"):
        read_image(encode(noise(), "GIF"), limits=Limits(formats=frozenset(("PNG", "JPEG"))))


BOMBS = {
    "png": png(20_000, 20_000, chunk(b"IDAT", zlib.compress(bytes(50_000_000), 9)), colour=0, bits=1),
    "png, 2^31 wide": png(2**31 - 1, 2**31 - 1, chunk(b"IDAT", b"")),
    "webp, lossless": webp(b"VP8L", b"\x2f" + struct.pack("<I", 16383 | 16383 << 14) + bytes(40)),
    "webp, lossy": webp(b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383) + bytes(40)),
    "webp, canvas": webp(b"VP8X", b"\x02\0\0\0" + (2**24 - 1).to_bytes(3, "little") * 2),
    "bmp": bmp(60_000, 60_000, b""),
    "bmp, 2^31 wide": bmp(2**31 - 1, -(2**31) + 1, b""),
    "gif": gif(65535, 65535),
    "tiff": grey_tiff(2**31, 2**31),
    "tiff, tiles": grey_tiff(64, 64, _322=(4, 1, 65536), _323=(4, 1, 65536), _324=(4, 1, 8), _325=(4, 1, 64)),
    "ppm": b"P6 100000 100000 255\n" + bytes(100),
    "jpeg": encode(np.zeros((8, 8), np.uint8), "JPEG").replace(b"\x08\0\x08\0\x08", b"\x08\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_bomb_is_too_large_before_anything_is_decoded(case: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ImageTooLarge, match="^image data: .* megapixels, the limit is 100.0$"):
        read_image(BOMBS[case])
    assert time.perf_counter() - start < 0.2


@posix
def test_a_bomb_costs_no_time_and_no_memory(tmp_path: Path) -> None:
    assert len(BOMBS["png"]) < 50_000
    script = (
        "import resource, sys, time\n"
        "from openlepton.errors import ImageTooLarge\n"
        "from openlepton.images import read_image\n"
        "from PIL import PngImagePlugin, WebPImagePlugin\n"
        "unit = 1 if sys.platform == 'darwin' else 1024\n"
        "for path in sys.argv[1:]:\n"
        "    before, took = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []\n"
        "    for _ in range(3):\n"
        "        start = time.perf_counter()\n"
        "        try:\n"
        "            read_image(path)\n"
        "        except ImageTooLarge:\n"
        "            took.append(time.perf_counter() - start)\n"
        "    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit\n"
        "    assert len(took) == 3 and min(took) < 0.05 and grown < 20e6, (path, took, grown)\n"
    )
    paths = []
    for number, case in enumerate(case for case in BOMBS if case.startswith(("png", "webp"))):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(BOMBS[case])
    subprocess.run([sys.executable, "-c", script, *map(str, paths)], check=True)


def test_a_jpeg_of_one_row_is_read_to_the_last_pixel_or_refused() -> None:
    data = encode((np.arange(65_500)[None] // 257).astype(np.uint8), "JPEG", quality=95)
    image = read_image(data)
    assert image.shape == (1, 65_500, 3)
    assert np.abs(image[0, :, 0] - np.arange(65_500) / 257).max() < 3
    with pytest.raises(ImageUnreadable, match="^image data: JPEG cannot be decoded"):  # beyond what libjpeg decodes
        read_image(data.replace(b"\x08\0\x01\xff\xdc", b"\x08\0\x01\xff\xff"))


def jpeg_of_many_scans() -> bytes:
    data = encode(np.zeros((16, 16, 3), np.uint8), "JPEG", progressive=True)
    return data[:-2] + data[data.rfind(b"\xff\xda") : -2] * 100 + b"\xff\xd9"


def tiff_of_overlapping_tags() -> bytes:
    tags = {256: (4, 1, 8), 257: (4, 1, 8), 258: (3, 1, 8), 262: (3, 1, 1), 273: (4, 1, 8), 279: (4, 1, 64)}
    return tiff(tags | dict.fromkeys(range(40_000, 40_900), (7, 2_000_000, 8)), bytes(2_000_000))


def tiff_of_hidden_tags() -> bytes:
    tags = {
        256: (4, 1, 8),
        257: (4, 1, 8),
        258: (3, 1, 8),
        262: (3, 1, 1),
        273: (4, 1, 8),
        279: (4, 1, 64),
        34665: (4, 1, 98),
    }
    hidden = b"".join(struct.pack("<HHII", tag, 7, 2_000_000, 8) for tag in range(900))
    return tiff(tags, struct.pack("<H", 900) + hidden + bytes(2_000_000))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (jpeg_of_many_scans, "more than 64 JPEG scans"),
        (lambda: b"\xff\xd8" + b"\xff\xfe\0\x02" * 4_000_000 + b"\xff\xd9", "more than 10000 JPEG segments"),
        (lambda: b"\xff\xd8" + b"\xff" * 16_000_000, "JPEG segments before the picture"),
        (lambda: png(8, 8, chunk(b"prVt", b"") * 1_400_000), "more than 100000 PNG chunks"),
        (lambda: png(8, 8, b"\xf0\0\0\0gKiA" + bytes(99)), "truncated: the PNG ends within a chunk"),  # 4 GB, says it
        (lambda: gif(5, 5, b"!\xfe" + b"\x01a" * 8_000_000 + b"\0"), "more than 20000 GIF comment blocks"),
        (tiff_of_overlapping_tags, "tags claim more than the file holds"),
        (tiff_of_hidden_tags, "tags claim more than the file holds"),
        (lambda: grey_tiff(8, 8, _700=(7, 2**32 - 1, 8)), "tags claim more than the file holds"),
        (
            lambda: b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 700_000) + bytes(16_000_000),
            "tags claim more than the file holds",
        ),
    ],
)
def test_a_file_made_to_exhaust_the_reader_is_refused_in_time(make: Any, words: str) -> None:
    data = make()
    start = time.perf_counter()
    with pytest.raises(ImageUnreadable, match=f"^image data: .*{words}"):
        read_image(data)
    assert time.perf_counter() - start < 1.5


def test_what_a_png_holds_besides_its_picture_is_neither_unpacked_nor_decoded() -> None:
    picture = encode(noise(), "PNG")
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8), 9))
    frame = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 8, 8, 0, 0, 1, 1, 0, 0))
    animation = (
        chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"acTL", b"\xff" * 8) + frame
    )  # from 4.11, OpenCV stumbles
    data = picture[:33] + text + animation + picture[33:-12] + frame + chunk(b"fdAT", bytes(99)) + picture[-12:]
    start = time.perf_counter()
    for _ in range(20):
        assert np.array_equal(read_image(data), noise())
    assert time.perf_counter() - start < 1


def test_pixels_beyond_the_header_are_not_unpacked() -> None:
    data = png(10, 10, chunk(b"IDAT", zlib.compress(bytes(100_000_000), 9)), colour=0)
    start = time.process_time()
    assert not read_image(data).any()
    assert time.process_time() - start < 1


def test_a_compressed_bmp_is_read_and_sixteen_megabytes_of_it_take_no_minutes() -> None:
    colours = bytes.fromhex("00000000ff00000000ff00000000ff00")
    small = bmp(4, 2, bytes.fromhex("0401 0000 0202 0203 0001"), bits=8, compression=1, colours=colours)
    assert read_image(small)[..., 2].tolist() == [[0, 0, 0, 0], [255, 255, 255, 255]]
    assert read_image(small)[..., 0].tolist() == [[0, 0, 255, 255], [0, 0, 0, 0]]
    large = bmp(4096, 4096, b"\x01\x01" * 8_000_000, bits=8, compression=1, colours=colours)
    start = time.perf_counter()
    with pytest.raises(ImageUnreadable):  # it ends within a row
        read_image(large)
    assert time.perf_counter() - start < 3


# Lies and damage


@pytest.mark.parametrize(
    "data",
    [
        encode(noise(), "JPEG").replace(
            b"\xff\xda", b"\xff\xc0\0\x11\x08\0\x08\0\x08\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xda", 1
        ),
        encode(np.zeros((8, 8), np.uint8), "JPEG").replace(b"\x08\0\x08\0\x08", b"\x08\0\0\0\x08"),
        encode(np.zeros((8, 8), np.uint8), "JPEG").replace(b"\x08\0\x08\0\x08", b"\x0c\0\x08\0\x08"),
        png(0, 10, chunk(b"IDAT", b"")),
        png(10, 10, chunk(b"IDAT", zlib.compress(bytes(100)))),
        png(10, 10, chunk(b"IDAT", b"not zlib")),
        png(10, 10),
        webp(b"VP8X", b"\0\0\0\0" + bytes(6)) + encode(noise(), "WEBP")[12:],
        bmp(10, 0, bytes(300)),
        bmp(10, 10, bytes(200)),
        gif(0, 5),
        grey_tiff(8, 0),
        b"II*\0\xff\0\0\0" + bytes(99),
        grey_tiff(100, 100),
        b"P6 0 10 255\n",
        b"P6 ten 10 255\n",
    ],
)
def test_a_header_that_lies_is_an_error(data: bytes) -> None:
    with pytest.raises(ImageUnreadable, match="^image data: "):
        read_image(data)


FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {}),
    "jpeg, progressive": ("JPEG", {"progressive": True}),
    "jpeg, thumbnail": ("JPEG", {"exif": b"Exif\0\0" + encode(noise(16, 16), "JPEG")}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "webp, lossless": ("WEBP", {"lossless": True}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
    "tiff": ("TIFF", {}),
    "tiff, lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "ppm": ("PPM", {}),
}


@pytest.mark.parametrize("case", FORMATS)
def test_a_truncated_file_is_never_passed_off_as_whole(case: str) -> None:
    kind, options = FORMATS[case]
    data = encode(noise(), kind, **options)
    assert read_image(data).shape == (96, 128, 3)
    for length in [*range(1, 64), *range(64, len(data) - 64, max(1, len(data) // 40)), len(data) - 64]:
        with pytest.raises(ImageUnreadable, match="^image data: [^\n]*$"):
            read_image(data[:length])
        with pytest.raises(ImageUnreadable):
            read_scaled(data[:length], long_side=16)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_file_is_called_truncated(kind: str) -> None:
    data = encode(noise(), kind)
    for length in (100, len(data) // 2, len(data) - 2):
        with pytest.raises(ImageUnreadable, match=f"^image data: truncated: the {kind} "):
            read_header(data[:length])


def test_what_follows_a_picture_does_not_matter() -> None:
    data = encode(noise(), "JPEG")
    video = np.random.default_rng(1).integers(0, 256, 8_000_000, dtype=np.uint8).tobytes()  # as phones append one
    assert video.count(b"\xff\xda") > 64
    assert np.array_equal(read_image(data + video), read_image(data))


def seeds() -> list[bytes]:
    image = noise(24, 32)
    palette = Pillow.fromarray(image).quantize(8)
    exif = Pillow.Exif()
    exif[0x0112] = 6
    return [
        encode(image, "JPEG", exif=exif),
        encode(image, "JPEG", progressive=True),
        encode(Pillow.fromarray(image).convert("CMYK"), "JPEG"),
        encode(image, "PNG", exif=exif),
        encode(palette, "PNG", transparency=bytes(8)),
        encode(Pillow.fromarray(image), "PNG", save_all=True, append_images=[palette.convert("RGB")]),
        cv2.imencode(".png", image.astype(np.uint16) * 257)[1].tobytes(),
        encode(image, "WEBP", exif=exif),
        encode(Pillow.fromarray(image), "WEBP", save_all=True, append_images=[palette.convert("RGB")]),
        encode(image, "TIFF", compression="tiff_lzw", tiffinfo=exif),
        encode(palette, "TIFF"),
        cv2.imencode(".tiff", image.astype(np.uint16) * 257)[1].tobytes(),
        encode(palette, "GIF", transparency=1),
        encode(palette, "BMP"),
        encode(image, "PPM"),
        grey_tiff(8, 8),
        bmp(4, 2, bytes.fromhex("0401 0000 0202 0203 0001"), bits=8, compression=1, colours=bytes(16)),
    ]


@pytest.mark.slow
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    data=st.sampled_from(seeds()),
    bytes_=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    head=st.lists(st.tuples(st.integers(0, 80), st.sampled_from([0, 1, 8, 16, 127, 128, 255])), max_size=4),
    cut=st.none() | st.floats(0, 1),
    insert=st.binary(max_size=8),
)
def test_mutated_files_are_pictures_or_image_errors(
    data: bytes, bytes_: list[tuple[float, int]], head: list[tuple[int, int]], cut: float | None, insert: bytes
) -> None:
    mutated = bytearray(data)
    for at, value in head:
        mutated[min(at, len(mutated) - 1)] = value
    for where, value in bytes_:
        mutated[int(where * len(mutated))] = value
    if insert:
        middle = len(mutated) // 2
        mutated[middle:middle] = insert
    if cut is not None:
        del mutated[int(cut * len(mutated)) :]
    limits = Limits(max_pixels=250_000)
    try:
        header = read_header(bytes(mutated), limits=limits)
        image, image_hw = read_scaled(bytes(mutated), long_side=8, limits=limits)
        whole = read_image(bytes(mutated), limits=limits)
    except ImageError as error:
        line = str(error)
    else:
        line = "image data: read"
        assert whole.shape == (*header.size_hw, 3)
        assert whole.dtype == image.dtype == np.uint8
        assert image_hw == header.size_hw
    assert line.startswith("image data: ")
    assert "\n" not in line
