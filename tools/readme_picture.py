"""Write docs/images/demo.jpg, what the README shows: `python tools/readme_picture.py`."""

from pathlib import Path

import cv2
import numpy as np

import openlepton

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ROOT / "openlepton" / "assets" / "photos"
HEIGHT, GAP = 320, 8


def main() -> None:
    """Classify three photographs, in English and in Chinese, and set them side by side."""
    row = []
    for name, language in (("cat.jpg", "en"), ("coffee.jpg", "zh"), ("photographer.jpg", "en")):
        image = openlepton.read_image(PHOTOS / name)
        result = openlepton.load("efficientnet-lite0", language=language)(image)
        width = round(image.shape[1] * HEIGHT / image.shape[0])
        row += [cv2.resize(openlepton.draw(image, result), (width, HEIGHT), interpolation=cv2.INTER_AREA)]
        row += [np.full((HEIGHT, GAP, 3), 255, np.uint8)]
    openlepton.write_image(ROOT / "docs" / "images" / "demo.jpg", np.hstack(row[:-1]))


if __name__ == "__main__":
    main()
