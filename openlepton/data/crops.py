"""Training images for classifiers: a random part of the image at a random shape, mirrored, in other colours; and blends of two."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from openlepton.data.augment import AugmentConfig, Read, hsv, hsv_gains
from openlepton.data.warp import Labelled
from openlepton.errors import UsageError
from openlepton.ops.geometry import resize

_TRIES = 10


@dataclass(frozen=True)
class CropConfig:
    """How far training images of a classifier differ from those on disk; the defaults are those customary for ImageNet.

    Raises:
        UsageError: A value is out of range.
    """

    size: int = 224
    """Side of a training image, pixels; the reader's images should be larger, for crops are enlarged."""
    min_area: float = 0.08
    """The least share of the image's area that a crop shows."""
    max_aspect: float = 4 / 3
    """The most that a crop is longer in one direction than in the other, before it is resized to a square."""
    fliplr: float = 0.5
    """How probable it is that left and right are swapped."""
    hsv_h: float = 0.0
    """Hue is multiplied by 1 ± up to this."""
    hsv_s: float = 0.4
    """Saturation is multiplied by 1 ± up to this."""
    hsv_v: float = 0.4
    """Brightness is multiplied by 1 ± up to this."""
    mixup: float = 0.0
    """How two images share a picture: the parameter of the Beta distribution of their shares (0.2 is customary); 0 is never."""
    cutmix: float = 0.0
    """The same where one image is pasted into a rectangle of the other (1 is customary); with both, each is taken half the time."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"size: expected 1 or more pixels, got {self.size}")
        if not 0 < self.min_area <= 1:
            raise UsageError(f"min_area: expected more than 0, to 1, got {self.min_area}")
        if not self.max_aspect >= 1:
            raise UsageError(f"max_aspect: expected 1 or more, got {self.max_aspect}")
        if not (0 <= self.mixup < np.inf and 0 <= self.cutmix < np.inf):
            raise UsageError(f"mixup, cutmix: expected 0 or more, got {self.mixup} and {self.cutmix}")
        self.colours()

    @property
    def fixed(self) -> bool:
        """Whether an image looks the same every time: its central square."""
        return self == CropConfig(self.size, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0)

    def closing(self) -> "CropConfig":
        """Return the same without blends, for the last epochs."""
        return replace(self, mixup=0.0, cutmix=0.0)

    def colours(self) -> AugmentConfig:
        """Return the part that detection shares: colours and the flip."""
        return AugmentConfig(hsv_h=self.hsv_h, hsv_s=self.hsv_s, hsv_v=self.hsv_v, fliplr=self.fliplr)


CROPS: Final[Mapping[str, CropConfig]] = {
    "none": CropConfig(min_area=1.0, max_aspect=1.0, fliplr=0.0, hsv_s=0.0, hsv_v=0.0),
    "low": CropConfig(min_area=0.35, hsv_s=0.2, hsv_v=0.2),
    "medium": CropConfig(),
    "high": CropConfig(mixup=0.2, cutmix=1.0),
}
"""From the central square alone to what long trainings need; medium is what is customary for ImageNet."""


def classified_image(read: Read, index: int, config: CropConfig, rng: np.random.Generator) -> Labelled:
    """Return a training image of one class or several; the box of each is the whole picture."""
    size = config.size
    item = read(index)
    x1, y1, x2, y2 = random_crop(item.image.shape[1], item.image.shape[0], config, rng)
    shrinks = (x2 - x1) * (y2 - y1) > size * size
    image = resize(item.image[y1:y2, x1:x2], (size, size), "area" if shrinks else "linear")
    if rng.random() < config.fliplr:
        image = cv2.flip(image, 1)  # type: ignore[assignment]
    image = hsv(image, *hsv_gains(config.colours(), rng))
    boxes = np.tile(np.array([[0, 0, size, size]], np.float32), (len(item.class_ids), 1))
    return Labelled(image, boxes, item.class_ids)


def random_crop(width: int, height: int, config: CropConfig, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return x1, y1, x2, y2 of a part of an image: area uniform, shape log-uniform, place uniform (Szegedy et al. 2015).

    When ten tries do not fit into a very long image, it is the middle of it, as large as the shape may be.
    """
    areas = rng.uniform(config.min_area, 1, _TRIES) * width * height
    aspects = np.exp(rng.uniform(-1, 1, _TRIES) * np.log(config.max_aspect))
    widths, heights = np.rint(np.sqrt(areas * aspects)).astype(int), np.rint(np.sqrt(areas / aspects)).astype(int)
    place_x, place_y = rng.random(2)
    fits = np.flatnonzero((widths <= width) & (heights <= height) & (widths > 0) & (heights > 0))
    if len(fits):
        w, h = int(widths[fits[0]]), int(heights[fits[0]])
        x, y = int(place_x * (width - w + 1)), int(place_y * (height - h + 1))
    else:
        w, h = min(width, round(height * config.max_aspect)), min(height, round(width * config.max_aspect))
        x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def blend(images: NDArray[np.uint8], config: CropConfig, rng: np.random.Generator) -> tuple[NDArray[np.uint8], float]:
    """Return each of `images` `(B, 3, H, W)` blended with the one as far from the other end, and its own share of the result.

    By mixup (Zhang et al. 2018) both are seen everywhere, by cutmix (Yun et al. 2019) the other is seen in a rectangle.
    """
    cut = rng.random() < (0.5 if config.mixup and config.cutmix else bool(config.cutmix))
    parameter = config.cutmix if cut else config.mixup
    share = float(rng.beta(parameter, parameter))
    others = images[::-1]
    if not cut:
        mixed = cv2.addWeighted(images.reshape(-1), share, others.reshape(-1), 1 - share, 0)
        return mixed.reshape(images.shape).astype(np.uint8, copy=False), share
    height, width = images.shape[2:]
    h, w = round(height * (1 - share) ** 0.5), round(width * (1 - share) ** 0.5)
    y, x = (int(rng.integers(0, side - length, endpoint=True)) for side, length in ((height, h), (width, w)))
    pasted = images.copy()
    pasted[:, :, y : y + h, x : x + w] = others[:, :, y : y + h, x : x + w]
    return pasted, 1 - h * w / (height * width)
