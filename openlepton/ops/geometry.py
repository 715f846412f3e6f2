"""From an image to the tensor that a network sees, and back from its pixels to those of the original image."""

from dataclasses import dataclass
from typing import Literal, cast

import cv2
import numpy as np

from openlepton.arrays import Boxes, Floats, Image
from openlepton.errors import ShapeError
from openlepton.ops.boxes import clip

Interpolation = Literal["linear", "cubic", "area"]

_INTERPOLATIONS = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA}


@dataclass(frozen=True)
class Frame:
    """Where the original image lies in what the network sees: `seen = original * scale_xy + pad_xy`."""

    image_hw: tuple[int, int]
    """Height and width of the original image, pixels."""
    scale_xy: tuple[float, float] = (1.0, 1.0)
    pad_xy: tuple[int, int] = (0, 0)
    """Columns on the left and rows on the top that do not belong to the image."""
    seen_hw: tuple[int, int] | None = None
    """Height and width of what the network sees, pixels; None where nobody has to know."""

    def undo(self, boxes_seen: Boxes) -> Boxes:
        """Return `(N, 4)` boxes in pixels of the original image, cut to it, from boxes in pixels of the network's input."""
        scale = np.array(self.scale_xy * 2, np.float32)
        return clip((boxes_seen - np.array(self.pad_xy * 2, np.float32)) / scale, self.image_hw)

    def apply(self, boxes: Boxes) -> Boxes:
        """Return `(N, 4)` boxes in pixels of the network's input from boxes in pixels of the original image."""
        return boxes * np.array(self.scale_xy * 2, np.float32) + np.array(self.pad_xy * 2, np.float32)


def letterbox(
    image: Image,
    size: int,
    *,
    multiple: int = 32,
    fill: int = 114,
    square: bool = False,
    enlarge: bool = True,
    size_hw: tuple[int, int] | None = None,
    image_hw: tuple[int, int] | None = None,
) -> tuple[Image, Frame]:
    """Return the image resized so that its longest side is `size`, padded evenly to multiples of `multiple`, and its frame.

    Args:
        image: `(H, W, 3)`.
        size: Longest side of the result before padding, pixels.
        multiple: What height and width of the result are divisible by.
        fill: Grey of the padding, 0 to 255.
        square: Pad to `size` by `size` rather than to the next multiple.
        enlarge: Whether an image smaller than `size` is enlarged.
        size_hw: Height and width of the result, pixels, into which the image is fitted whatever `size` says.
        image_hw: Size of the original image when `image` is already a smaller copy of it.
    """
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ShapeError(f"image: expected (H, W, 3), got {image.shape}")
    original_h, original_w = image_hw or image.shape[:2]
    ratio = (
        size / max(original_h, original_w) if size_hw is None else min(size_hw[0] / original_h, size_hw[1] / original_w)
    )
    if not enlarge:
        ratio = min(ratio, 1.0)
    inner_w, inner_h = max(round(original_w * ratio), 1), max(round(original_h * ratio), 1)
    image = resize(image, (inner_h, inner_w))  # (inner_h, inner_w, 3)
    padded_hw = (size, size) if square else (_up(inner_h, multiple), _up(inner_w, multiple))
    outer_h, outer_w = padded_hw if size_hw is None else size_hw
    left, top = (outer_w - inner_w) // 2, (outer_h - inner_h) // 2
    if (outer_h, outer_w) != (inner_h, inner_w):
        right, bottom = outer_w - inner_w - left, outer_h - inner_h - top
        border = (fill, fill, fill)
        image = cast(Image, cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=border))
    scale_xy = (inner_w / original_w, inner_h / original_h)
    return image, Frame((original_h, original_w), scale_xy, (left, top), (outer_h, outer_w))


def stretch(image: Image, size_hw: tuple[int, int], *, image_hw: tuple[int, int] | None = None) -> tuple[Image, Frame]:
    """Return the image resized to `size_hw` whatever its aspect ratio, and its frame.

    Args:
        image: `(H, W, 3)`.
        size_hw: Height and width of the result, pixels.
        image_hw: Size of the original image when `image` is already a smaller copy of it.
    """
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ShapeError(f"image: expected (H, W, 3), got {image.shape}")
    original_h, original_w = image_hw or image.shape[:2]
    scale_xy = (size_hw[1] / original_w, size_hw[0] / original_h)
    return resize(image, size_hw), Frame((original_h, original_w), scale_xy, seen_hw=size_hw)


def center_crop(image: Image, size: int, *, fraction: float = 1.0, interpolation: Interpolation = "linear") -> Image:
    """Return the central square, `(size, size, 3)`: the shorter side is resized to `size / fraction`, the rest cut off.

    An image more than twice as large as needed is averaged over areas instead, which skips no pixel.
    """
    height, width = image.shape[:2]
    side = min(height, width) * fraction  # what the crop shows, in pixels of the image
    top, left = (height - side) / 2, (width - side) / 2
    y1, x1, y2, x2 = round(top), round(left), round(top + side), round(left + side)
    middle = image[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
    return resize(middle, (size, size), "area" if side > 2 * size else interpolation)


def resize(image: Image, size_hw: tuple[int, int], interpolation: Interpolation = "linear") -> Image:
    """Return the image at `size_hw` pixels, itself when it has that size already."""
    if image.shape[:2] == size_hw:
        return image
    return cast(Image, cv2.resize(image, size_hw[::-1], interpolation=_INTERPOLATIONS[interpolation]))


def to_tensor(image: Image) -> Floats:
    """Return `(3, H, W)` float32 in 0..1 from an `(H, W, 3)` image."""
    tensor = np.empty((3, *image.shape[:2]), np.float32)
    for plane, scaled in zip(cv2.split(image), tensor, strict=True):  # three passes in order beat one that jumps
        np.multiply(plane, np.float32(1 / 255), out=scaled)
    return tensor


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
