"""Clips made with PyAV, whose frames say which they are."""

from fractions import Fraction

import numpy as np
import pytest

av = pytest.importorskip("av")

BITS = 8


def numbered(index, width=128, height=96):
    """A picture whose top half holds `index` as black and white fields, and whose lower half is a pattern that moves."""
    image = np.zeros((height, width, 3), np.uint8)
    field = width // BITS
    for bit in range(BITS):
        image[: height // 2, bit * field : (bit + 1) * field] = 255 * (index >> bit & 1)
    rows, columns = np.mgrid[: height - height // 2, :width]
    image[height // 2 :, :, 0] = (columns * 2 + index * 5) % 256
    image[height // 2 :, :, 1] = (rows * 5 + index * 3) % 256
    return image


def number(image):
    """Which picture this is."""
    field = image.shape[1] // BITS
    top = image[: image.shape[0] // 2]
    bits = [top[4:-4, bit * field + 4 : (bit + 1) * field - 4].mean() > 127 for bit in range(BITS)]
    return sum(1 << bit for bit in range(BITS) if bits[bit])


@pytest.fixture(scope="session")
def read_number():
    return number


@pytest.fixture(scope="session")
def picture():
    return numbered


@pytest.fixture
def make_clip(tmp_path):
    """Make a clip: `times` in seconds, or `count` frames at 25 a second."""

    def make(
        name,
        count=20,
        *,
        codec="libx264",
        times=None,
        size=(128, 96),
        gop=5,
        rotation=0,
        container_format=None,
        options=None,
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        times = [index / 25 for index in range(count)] if times is None else times
        with av.open(str(path), "w", format=container_format) as container:
            stream = container.add_stream(codec, rate=25, options={"g": str(gop), **(options or {})})
            stream.width, stream.height = size
            odd = any(side % 2 for side in size)
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv444p" if odd else "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
            if rotation:
                stream.set_display_rotation(rotation)
            for index, time_s in enumerate(times):
                frame = av.VideoFrame.from_ndarray(numbered(index, *size), format="rgb24")
                frame.pts, frame.time_base = round(1000 * time_s), Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return make
