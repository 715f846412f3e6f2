import io
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from openlepton.arrays import Array, Image
from openlepton.errors import ImageError, ImageTooLarge, ImageUnreadable, OutputError, ShapeError, UsageError
from openlepton.images import LIMITS, Limits, read_bytes, read_header, read_image, read_scaled, write_image

TURNS: dict[int, Callable[[Array], Array]] = {  # what EXIF says, in NumPy
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def scene(height: int = 24, width: int = 40, channels: int = 3) -> Image:
    small = np.random.default_rng(0).integers(0, 256, (6, 8, channels), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def encode(image: Array | Pillow.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture = image if isinstance(image, Pillow.Image) else Pillow.fromarray(image)
    picture.save(file, kind, **options)
    return file.getvalue()


def encode_cv2(suffix: str, image: Array) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def with_tag(tiff: bytes, tag: int, value: int) -> bytes:
    """The little-endian TIFF with a tag of one 16-bit number set: a new directory at the end of the file."""
    start = int.from_bytes(tiff[4:8], "little")
    count = int.from_bytes(tiff[start : start + 2], "little")
    entries = {tiff[at : at + 2]: tiff[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)}
    key = tag.to_bytes(2, "little")
    entries[key] = key + b"\3\0\1\0\0\0" + value.to_bytes(4, "little")
    ordered = [entries[key] for key in sorted(entries, key=lambda key: int.from_bytes(key, "little"))]
    tiff += bytes(len(tiff) % 2)
    directory = len(ordered).to_bytes(2, "little") + b"".join(ordered) + bytes(4)
    return tiff[:4] + len(tiff).to_bytes(4, "little") + tiff[8:] + directory


def over_white(rgba: Array) -> Array:
    alpha = rgba[..., 3:] / 255.0
    return np.floor(rgba[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)


def grey(values: Array) -> Array:
    return np.repeat(values[..., None], 3, axis=2)


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
def test_a_picture_is_turned_as_its_exif_orientation_says(kind: str, orientation: int) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    plain = encode(scene(), kind, **options)
    turned = encode(scene(), kind, exif=exif, **options) if kind != "TIFF" else encode(scene(), kind, tiffinfo=exif)
    expected = TURNS[orientation](read_image(plain))

    assert np.array_equal(read_image(turned), expected)
    assert np.array_equal(read_image(Pillow.open(io.BytesIO(turned))), expected)
    header = read_header(turned)
    assert header.size_hw == expected.shape[:2]
    assert header.orientation == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sixteen_bit_colour_is_turned_too(orientation: int) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    tiff = with_tag(encode_cv2(".tiff", values[..., ::-1]), 0x0112, orientation)
    expected = TURNS[orientation](np.rint(values / 257).astype(np.uint8))
    assert np.array_equal(read_image(tiff), expected)
    assert read_header(tiff).size_hw == expected.shape[:2]


def test_the_orientation_counts_in_either_byte_order_and_after_the_pixels_of_a_png() -> None:
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    png = encode(scene(), "PNG", exif=exif)
    at = png.index(b"eXIf") - 4
    chunk = png[at : at + 12 + len(exif)]
    late = png.replace(chunk, b"").replace(png[-12:], chunk + png[-12:])
    assert late != png
    assert np.array_equal(read_image(png), TURNS[6](scene()))
    assert np.array_equal(read_image(late), TURNS[6](scene()))
    assert read_header(late).size_hw == (40, 24)


@pytest.mark.parametrize(
    "exif", [b"", b"II", b"junk" * 9, b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 50]
)
def test_damaged_exif_is_no_orientation(exif: bytes) -> None:
    assert np.array_equal(read_image(encode(scene(), "PNG", exif=exif)), scene())


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(value: int) -> None:
    exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + value.to_bytes(2, "little") + bytes(6)
    assert np.array_equal(read_image(encode(scene(), "PNG", exif=exif)), scene())


# Modes


def modes() -> dict[str, tuple[bytes, Array]]:
    rgb, rgba = scene(), scene(channels=4)
    one = rgb[..., 0]
    pillow, pillow_rgba = Pillow.fromarray(rgb), Pillow.fromarray(rgba)
    palette = pillow.quantize(16)
    colours = np.asarray(palette.convert("RGB"))
    bits = Pillow.fromarray(one).convert("1")
    grey_alpha = Pillow.merge("LA", (Pillow.fromarray(one), pillow_rgba.getchannel(3)))
    see_through = np.asarray(palette)
    holes = np.where(see_through[..., None] == 3, np.uint8(255), colours)
    fading = bytes(range(0, 256, 16))
    faded = over_white(np.dstack([colours, np.frombuffer(fading, np.uint8)[see_through]]))
    key = tuple(int(v) for v in rgb[0, 0])
    return {
        "png rgb": (encode(rgb, "PNG"), rgb),
        "png rgb, a colour transparent": (
            encode(rgb, "PNG", transparency=key),
            np.where((rgb == key).all(axis=2, keepdims=True), np.uint8(255), rgb),
        ),
        "png rgba": (encode(rgba, "PNG"), over_white(rgba)),
        "png grey": (encode(one, "PNG"), grey(one)),
        "png grey, a level transparent": (
            encode(one, "PNG", transparency=int(one[0, 0])),
            grey(np.where(one == one[0, 0], np.uint8(255), one)),
        ),
        "png grey and alpha": (encode(grey_alpha, "PNG"), over_white(np.dstack([grey(one), rgba[..., 3]]))),
        "png palette": (encode(palette, "PNG"), colours),
        "png palette, one transparent": (encode(palette, "PNG", transparency=3), holes),
        "png palette, fading": (encode(palette, "PNG", transparency=fading), faded),
        "png 1 bit": (encode(bits, "PNG"), grey(np.asarray(bits).astype(np.uint8) * 255)),
        "png with icc profile and gamma": (with_gamma(encode(rgb, "PNG", icc_profile=b"no profile at all")), rgb),
        "webp rgb": (encode(rgb, "WEBP", lossless=True), rgb),
        "webp rgba": (encode(rgba, "WEBP", lossless=True, exact=True), over_white(rgba)),
        "webp animated": (
            encode(pillow, "WEBP", lossless=True, save_all=True, append_images=[pillow.rotate(180)]),
            rgb,
        ),
        "png animated": (encode(pillow, "PNG", save_all=True, append_images=[pillow.rotate(180)]), rgb),
        "gif": (encode(palette, "GIF"), colours),
        "gif animated": (encode(palette, "GIF", save_all=True, append_images=[palette.rotate(180)]), colours),
        "gif transparent": (encode(palette, "GIF", transparency=3), holes),
        "bmp rgb": (encode(rgb, "BMP"), rgb),
        "bmp grey": (encode(one, "BMP"), grey(one)),
        "bmp palette": (encode(palette, "BMP"), colours),
        "ppm": (encode(rgb, "PPM"), rgb),
        "pgm": (encode(one, "PPM"), grey(one)),
        "pbm": (encode(bits, "PPM"), grey(np.asarray(bits).astype(np.uint8) * 255)),
        "tiff rgb": (encode(rgb, "TIFF"), rgb),
        "tiff rgb lzw": (encode(rgb, "TIFF", compression="tiff_lzw"), rgb),
        "tiff rgba": (encode(rgba, "TIFF"), over_white(rgba)),
        "tiff grey and alpha": (encode(grey_alpha, "TIFF"), over_white(np.dstack([grey(one), rgba[..., 3]]))),
        "tiff palette": (encode(palette, "TIFF"), colours),
        "tiff fax": (encode(bits, "TIFF", compression="group4"), grey(np.asarray(bits).astype(np.uint8) * 255)),
        "tiff pages": (encode(pillow, "TIFF", save_all=True, append_images=[pillow.rotate(180)]), rgb),
        "tiff cmyk": (encode(pillow.convert("CMYK"), "TIFF"), np.asarray(pillow.convert("CMYK").convert("RGB"))),
    }


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_gamma(png: bytes) -> bytes:
    return png[:33] + png_chunk(b"gAMA", struct.pack(">I", 10_000)) + png[33:]


MODES = modes()


@pytest.mark.parametrize("case", MODES)
def test_every_kind_of_picture_becomes_rgb_exactly(case: str) -> None:
    data, expected = MODES[case]
    image = read_image(data)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image.flags.c_contiguous
    assert np.array_equal(image, expected)
    assert read_header(data).size_hw == (24, 40)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0, "optimize": True}, {"keep_rgb": True}]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_equals_what_pillow_decodes(channels: int, options: dict[str, Any]) -> None:
    picture = Pillow.fromarray(scene(203, 301)).convert("L" if channels == 1 else "RGB")
    data = encode(picture, "JPEG", **options)
    assert np.array_equal(read_image(data), np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("adobe", [b"\0", b"\2", None])
def test_a_jpeg_for_print_equals_what_pillow_decodes(adobe: bytes | None) -> None:
    data = encode(Pillow.fromarray(scene(64, 80)).convert("CMYK"), "JPEG", quality=95)
    at = data.index(b"\xff\xee\x00\x0eAdobe")
    marker = b"" if adobe is None else data[at : at + 15] + adobe  # 0: CMYK, 2: YCCK; no marker: CMYK
    data = data[:at] + marker + data[at + 16 :]
    expected = np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB"))
    assert np.abs(read_image(data).astype(int) - expected).max() <= 1
    assert read_header(data).mode == "CMYK"


def deep() -> dict[str, tuple[bytes, Array]]:
    values = np.random.default_rng(0).integers(0, 65536, (9, 11, 4), dtype=np.uint16)
    values[0, :4, 0] = 128, 129, 65406, 65407  # on both sides of rounding
    eight = np.rint(values / 257).astype(np.uint8)
    bgr, bgra, one = values[..., 2::-1], values[..., [2, 1, 0, 3]], values[..., 0]
    little = encode(one, "TIFF")
    twelve = np.array([[0, 1, 8, 9], [2047, 2048, 4094, 4095]])
    packed = b"".join(int(a << 12 | b).to_bytes(3, "big") for a, b in twelve.reshape(-1, 2))
    place = encode(np.full((2, 4), 0x7777, np.uint16), "TIFF")
    return {
        "png rgb": (encode_cv2(".png", bgr), eight[..., :3]),
        "png rgba": (encode_cv2(".png", bgra), over_white(eight)),
        "png grey": (encode_cv2(".png", one), grey(eight[..., 0])),
        "tiff rgb": (encode_cv2(".tiff", bgr), eight[..., :3]),
        "tiff rgba": (encode_cv2(".tiff", bgra), over_white(eight)),
        "tiff grey": (little, grey(eight[..., 0])),
        "tiff grey, big-endian": (
            encode(Pillow.frombytes("I;16B", (11, 9), one.astype(">u2").tobytes()), "TIFF"),
            grey(eight[..., 0]),
        ),
        "tiff grey, white is zero": (with_tag(little, 262, 0), grey(255 - eight[..., 0])),
        "tiff grey of 12 bits": (
            with_tag(place, 258, 12).replace(b"\x77" * 16, packed + bytes(4)),
            grey(np.rint(twelve / 4095 * 255).astype(np.uint8)),
        ),
        "pgm": (encode_cv2(".pgm", one), grey(eight[..., 0])),
        "tiff floating point": (encode((one / 65535).astype(np.float32), "TIFF"), grey(eight[..., 0])),
    }


DEEP = deep()


@pytest.mark.parametrize("case", DEEP)
def test_more_than_eight_bits_are_scaled_and_rounded(case: str) -> None:
    data, expected = DEEP[case]
    assert np.array_equal(read_image(data), expected)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (encode(np.full((4, 4), 300.0, np.float32), "TIFF"), "expected floating point from 0 to 1, got 300 to 300"),
        (encode(np.full((4, 4), np.nan, np.float32), "TIFF"), "got nan to nan"),
        (encode(np.full((4, 4), 70000, np.int32), "TIFF"), "got int32"),
        (with_tag(encode_cv2(".tiff", np.zeros((4, 4, 3), np.uint16)), 284, 2), "separate planes"),
    ],
)
def test_numbers_that_are_no_brightness_are_an_error(data: bytes, words: str) -> None:
    with pytest.raises(ImageUnreadable, match=f"^image data: .*{words}"):
        read_image(data)


# Arrays


def test_an_rgb_array_comes_back_as_it_is() -> None:
    image = scene()
    assert read_image(image) is image


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (scene()[..., 0], grey(scene()[..., 0])),
        (scene()[..., :1], grey(scene()[..., 0])),
        (scene(channels=4), over_white(scene(channels=4))),
        (scene()[:, ::-1], scene()[:, ::-1]),
        (scene().astype(np.uint16) * 257, scene()),
        (scene().astype(">u2") * 257, scene()),
        (scene() / 255, scene()),
        (scene().astype(np.float32) / 255, scene()),
        (scene()[..., 0] > 99, grey((scene()[..., 0] > 99).astype(np.uint8) * 255)),
        (np.array([[-1e-7, 1 + 1e-7]], np.float32), grey(np.array([[0, 255]], np.uint8))),
    ],
)
def test_an_array_becomes_rgb_and_stays_unchanged(array: Array, expected: Array) -> None:
    before = array.copy()
    image = read_image(array)
    assert np.array_equal(image, expected)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert np.array_equal(array, before)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 4, 5), np.uint8), r"expected .*, got \(3, 4, 5\); move the channels last"),
        (np.zeros((4, 5, 2), np.uint8), r"got \(4, 5, 2\)"),
        (np.zeros((0, 5, 3), np.uint8), r"got \(0, 5, 3\)"),
        (np.zeros(5, np.uint8), r"got \(5,\)"),
        (np.zeros((4, 5, 3), np.int64), "got int64"),
        (np.zeros((4, 5, 3), np.int8), "got int8"),
        (np.zeros((4, 5, 3), complex), "got complex128"),
        (np.full((4, 5, 3), 255.0), "from 0 to 1, got 255 to 255"),
        (np.full((4, 5, 3), -0.5), "from 0 to 1, got -0.5 to -0.5"),
    ],
)
def test_an_array_that_is_no_picture_is_a_shape_error(array: Array, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        read_image(array)


# Sources


def test_every_source_gives_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "街景 été №1.png"
    data = encode(scene(), "PNG")
    path.write_bytes(data)
    with path.open("rb") as file, path.open("rb", buffering=0) as raw:
        sources: list[Any] = [str(path), path, data, bytearray(data), memoryview(data), file, raw, io.BytesIO(data)]
        for source in sources:
            assert np.array_equal(read_image(source), scene())
    assert np.array_equal(read_image(Pillow.fromarray(scene())), scene())
    with Pillow.open(path) as picture:
        assert np.array_equal(read_image(picture), scene())


def test_bytes_are_not_copied() -> None:
    data = encode(scene(), "PNG")
    assert read_bytes(data) is data


def test_a_picture_of_pillow_obeys_the_limit_on_pixels() -> None:
    with pytest.raises(ImageTooLarge, match="^image data: 40 x 24 is 0.0 megapixels, the limit is 0.0$"):
        read_image(Pillow.fromarray(scene()), limits=Limits(max_pixels=959))
    assert read_image(Pillow.fromarray(scene()), limits=Limits(max_pixels=960)).shape == (24, 40, 3)


def test_thirty_two_threads_read_the_same_picture() -> None:
    sources = [data for data, _ in MODES.values()]
    with ThreadPoolExecutor(32) as pool:
        results = list(pool.map(read_image, sources * 4))
    for image, (_, expected) in zip(results, list(MODES.values()) * 4, strict=True):
        assert np.array_equal(image, expected)


def test_pillow_is_loaded_only_when_it_is_needed() -> None:
    script = (
        "import sys, cv2, numpy as np, openlepton.images as images\n"
        "data = cv2.imencode('.jpg', np.zeros((9, 9, 3), np.uint8))[1].tobytes()\n"
        "assert images.read_image(data).shape == (9, 9, 3)\n"
        "assert not any(name.startswith('PIL') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_pillow_warns_of_nothing() -> None:
    data = encode(Pillow.new("1", (9600, 9600)), "PNG")  # beyond what pillow calls a bomb
    broken = encode(scene(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x01" * 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_header(data).size_hw == (9600, 9600)
        assert read_image(broken).shape == (24, 40, 3)


# Reduced decoding


@pytest.mark.parametrize(
    ("size_hw", "long_side", "factor"),
    [
        ((720, 1280), 640, 2),
        ((720, 1280), 641, 1),
        ((721, 1279), 640, 2),
        ((1281, 720), 641, 2),
        ((1203, 1601), 200, 8),
        ((1203, 1601), 201, 8),
        ((1203, 1601), 202, 4),
        ((9, 17), 1, 8),
        ((24, 40), 640, 1),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_is_decoded_as_small_as_the_long_side_admits(
    size_hw: tuple[int, int], long_side: int, factor: int, mode: str
) -> None:
    data = encode(Pillow.fromarray(scene(*size_hw)).convert(mode), "JPEG")
    image, image_hw = read_scaled(data, long_side=long_side)
    assert image_hw == size_hw
    assert image.shape == (-(-size_hw[0] // factor), -(-size_hw[1] // factor), 3)
    assert max(image.shape) >= min(long_side, max(size_hw))
    if size_hw[0] % 8 == size_hw[1] % 8 == 0:  # then pillow's draft mode, the same scaled DCT, takes the same factor
        draft = Pillow.open(io.BytesIO(data))
        draft.draft(None, image.shape[1::-1])
        assert np.array_equal(image, np.asarray(draft.convert("RGB")))


def test_a_reduced_jpeg_is_turned_after_decoding() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    image, image_hw = read_scaled(encode(scene(123, 400), "JPEG", exif=exif), long_side=100)
    plain, _ = read_scaled(encode(scene(123, 400), "JPEG"), long_side=100)
    assert image_hw == (400, 123)
    assert plain.shape == (31, 100, 3)
    assert np.array_equal(image, TURNS[6](plain))


@pytest.mark.parametrize(
    "source",
    [encode(scene(), "PNG"), scene(), Pillow.open(io.BytesIO(encode(scene(), "PNG")))],
    ids=["png", "array", "pil"],
)
def test_what_is_no_jpeg_keeps_its_size(source: bytes | Image | Pillow.Image) -> None:
    image, image_hw = read_scaled(source, long_side=5)
    assert np.array_equal(image, scene())
    assert image_hw == (24, 40)


def test_a_long_side_of_nothing_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="long_side: expected at least 1 pixel, got 0"):
        read_scaled(scene(), long_side=0)


# Writing


@pytest.mark.parametrize("suffix", [".png", ".BMP", ".tif", ".tiff", ".ppm"])
def test_what_is_written_without_loss_is_read_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"图 {suffix}"
    write_image(path, scene()[:, ::-1])
    assert np.array_equal(read_image(path), scene()[:, ::-1])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
def test_quality_trades_bytes_for_likeness(tmp_path: Path, suffix: str) -> None:
    path, image = tmp_path / f"a{suffix}", scene(120, 200)
    sizes, errors = [], []
    for quality in (10, 92):
        write_image(path, image, quality=quality)
        sizes.append(path.stat().st_size)
        errors.append(float(np.abs(read_image(path).astype(int) - image).mean()))
    assert sizes[0] < sizes[1]
    assert errors[0] > errors[1]
    assert errors[1] < 2.5


@pytest.mark.parametrize(
    ("name", "image", "error", "words"),
    [
        ("a.heic", scene(), OutputError, "a.heic: the suffix must be one of .bmp, .jpeg, "),
        ("a", scene(), OutputError, "a: the suffix must be one of"),
        ("no/a.png", scene(), OutputError, "there is no folder"),
        ("a.png", scene()[..., 0], ShapeError, r"expected \(H, W, 3\) uint8, got \(24, 40\) uint8"),
        ("a.png", scene() / 255, ShapeError, "float64"),
        ("a.jpg", np.zeros((1, 70000, 3), np.uint8), OutputError, "a.jpg: "),
        ("a.webp", np.zeros((1, 16384, 3), np.uint8), OutputError, "a.webp: "),
    ],
)
def test_what_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, name: str, image: Array, error: type[Exception], words: str
) -> None:
    (tmp_path / "a.png").write_bytes(b"before")
    with pytest.raises(error, match=words) as caught:
        write_image(tmp_path / name, image)
    assert "\n" not in str(caught.value)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.png", b"before")]


def test_a_quality_beyond_its_range_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="quality: expected 1 to 100, got 101"):
        write_image(tmp_path / "a.jpg", scene(), quality=101)


def test_the_default_limits_are_those_of_the_documentation() -> None:
    assert (LIMITS.max_bytes, LIMITS.max_pixels) == (2**28, 100_000_000)
    assert issubclass(ImageTooLarge, ImageError)
