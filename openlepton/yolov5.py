"""The example that this project grew from, for images as OpenCV reads them: `results = detect().detect(cv2.imread(path))`."""

import os
from typing import Any, TypedDict

import numpy as np

from openlepton.arrays import Image
from openlepton.drawing import draw
from openlepton.errors import ShapeError
from openlepton.hub.index import default
from openlepton.predictor import load
from openlepton.results import Detections


class Results(TypedDict):
    """What `detect.detect` returns."""

    img: Image
    """`(H, W, 3)` BGR, a copy of the image with the detections drawn on it, as `cv2.imshow` and `cv2.imwrite` take it."""
    detections: Detections


class detect:  # noqa: N801 - the example's own spelling
    """A detector for BGR images.

    Args:
        model: A name or a model folder; the default detector if not given.
        **options: What `openlepton.load` takes: `min_score`, `max_iou`, `classes`, ...

    Raises:
        ModelNotFound: There is no such model.
    """

    def __init__(self, model: str | os.PathLike[str] | None = None, **options: Any) -> None:
        self._predictor = load(default("detect") if model is None else model, **options)

    def detect(self, image: Image) -> Results:
        """Return the detections in `image`, `(H, W, 3)` uint8 BGR, and a picture of them.

        Raises:
            ShapeError: The image is not a BGR array; `cv2.imread` returns None for a file that it cannot read.
        """
        if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ShapeError(f"image: expected (H, W, 3) uint8 BGR as cv2.imread returns it, got {found}")
        rgb = np.ascontiguousarray(image[..., ::-1])
        found = self._predictor(rgb)
        return {"img": np.ascontiguousarray(draw(rgb, found)[..., ::-1]), "detections": found}
