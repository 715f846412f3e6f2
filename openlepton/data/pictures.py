"""Pictures of a data set: how much of each class, how large, some samples, and images that are the same."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont

from openlepton.arrays import Image, Ints
from openlepton.data.samples import Dataset, Split
from openlepton.errors import ImageError
from openlepton.images import read_scaled

INK, PAPER = (32, 36, 44), (255, 255, 255)

COLOURS = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (86, 180, 233), (240, 228, 66),
)  # fmt: skip
"""Seven that colour-blind people tell apart (Okabe and Ito, Color Universal Design, 2008)."""

MAX_BARS = 80
TILE = 320
"""Side of one image in a mosaic, pixels."""

Font = ImageFont.FreeTypeFont


def font(size: int) -> Font:
    """Return the font of labels, `size` pixels high."""
    return ImageFont.truetype(str(resources.files("openlepton") / "assets" / "sans.ttf"), size)


def class_bars(classes: Sequence[str], counts: Mapping[str, Ints]) -> Image:
    """Return a bar for each class and split, the most frequent class first; 80 classes at most."""
    total = np.sum(list(counts.values()), axis=0)
    order = np.argsort(-total, kind="stable")[:MAX_BARS]
    small, line = font(14), 18
    left, bars, height = 200, 700, 16 + len(order) * (line * len(counts) + 8) + 40
    canvas, draw = _canvas(left + bars + 100, height)
    longest = max(1, max(int(each.max(initial=0)) for each in counts.values()))
    y = 12
    for row in order:
        draw.text((left - 8, y), _fitted(f"{row} {classes[row]}", small, left - 16), INK, small, anchor="ra")
        for colour, each in zip(COLOURS * len(counts), counts.values(), strict=False):
            width = round(bars * int(each[row]) / longest)
            draw.rectangle((left, y + 1, left + width, y + line - 3), colour)
            draw.text((left + width + 6, y), f"{each[row]:,}", INK, small)
            y += line
        y += 8
    x: float = left
    for colour, (name, each) in zip(COLOURS * len(counts), counts.items(), strict=False):
        text = f"{name} {int(each.sum()):,}"
        draw.rectangle((x, y + 8, x + 12, y + 20), colour)
        draw.text((x + 18, y + 6), text, INK, small)
        x += small.getlength(text) + 40
    if len(order) < len(classes):
        draw.text((x, y + 6), f"and {len(classes) - len(order)} classes more", INK, small)
    return np.asarray(canvas)


def size_map(counts: Ints) -> Image:
    """Return how many boxes there are of each height and width, `(K, K)` by row and column, as shades."""
    cells, cell, left, top = len(counts), 16, 70, 50
    canvas, draw = _canvas(left + cells * cell + 40, top + cells * cell + 60)
    # By the logarithm: small boxes outnumber large ones by orders of magnitude.
    shades = np.log1p(counts) / max(float(np.log1p(counts).max()), 1.0)
    for row, column in np.argwhere(counts > 0).tolist():
        colour = tuple(
            round(light + (dark - light) * float(shades[row, column]))
            for light, dark in zip((222, 235, 247), (8, 48, 107), strict=True)
        )
        y = top + (cells - 1 - row) * cell
        draw.rectangle((left + column * cell, y, left + (column + 1) * cell - 1, y + cell - 1), colour)
    draw.rectangle((left, top, left + cells * cell, top + cells * cell), outline=INK)
    small = font(14)
    for share in (0, 25, 50, 75, 100):
        at = share * cells * cell // 100
        draw.text((left + at, top + cells * cell + 6), f"{share}%", INK, small, anchor="ma")
        draw.text((left - 6, top + cells * cell - at), f"{share}%", INK, small, anchor="rm")
    draw.text(
        (left, 14),
        f"{int(counts.sum()):,} boxes: width (across) and height (up) of the image's; darker is more",
        INK,
        small,
    )
    return np.asarray(canvas)


def sample_mosaic(dataset: Dataset, columns: int = 4, rows: int = 3) -> Image:
    """Return some images with their boxes, evenly spread over all splits."""
    every = [(split, index) for split in dataset.splits.values() for index in range(len(split))]
    picked = [every[at] for at in np.linspace(0, len(every) - 1, min(columns * rows, len(every))).astype(int)]
    tiles = [tile for split, index in picked if (tile := _sample(split, index)) is not None]
    return _grid(tiles or [_canvas(TILE, TILE)[0]], columns)


def pair_mosaic(pairs: Sequence[tuple[Path, Path]], root: Path, most: int = 12) -> Image:
    """Return the first pairs of images, each pair side by side."""
    tiles = []
    for file in (file for pair in pairs[:most] for file in pair):
        found = _tile(file)
        tile = found[0] if found else _canvas(TILE, TILE)[0]
        _caption(
            ImageDraw.Draw(tile),
            (2, TILE - 20),
            str(file.relative_to(root) if file.is_relative_to(root) else file),
            INK,
        )
        tiles.append(tile)
    return _grid(tiles, 4)


def _sample(split: Split, index: int) -> Pictures.Image | None:
    found = _tile(split.image(index))
    if found is None:
        return None
    tile, size_hw = found
    sample = split.annotation(index).located(size_hw)
    draw = ImageDraw.Draw(tile)
    boxes = sample.objects.boxes * (TILE / max(size_hw))
    for box, row in zip(boxes.tolist(), sample.objects.class_ids.tolist(), strict=True):
        colour = COLOURS[row % len(COLOURS)]
        draw.rectangle(box, outline=colour, width=2)
        _caption(draw, (max(box[0], 0), max(box[1] - 16, 0)), split.classes[row], colour)
    if sample.class_id is not None:
        _caption(draw, (2, 2), split.classes[sample.class_id], COLOURS[sample.class_id % len(COLOURS)])
    _caption(draw, (2, TILE - 18), f"{split.name}: {sample.image.name}", INK)
    return tile


def _tile(file: Path) -> tuple[Pictures.Image, tuple[int, int]] | None:
    """Return an image at the top left of a square tile, and the height and width it has in full; None if it cannot be read."""
    try:
        image, size_hw = read_scaled(file, long_side=TILE)
    except ImageError:
        return None
    scale = TILE / max(size_hw)
    tile, _ = _canvas(TILE, TILE)
    tile.paste(Pictures.fromarray(image).resize((max(1, round(size_hw[1] * scale)), max(1, round(size_hw[0] * scale)))))
    return tile, size_hw


def _caption(draw: ImageDraw.ImageDraw, point_xy: tuple[float, float], text: str, colour: tuple[int, int, int]) -> None:
    small = font(12)
    text = _fitted(text, small, TILE - 8)
    left, top, right, bottom = draw.textbbox(point_xy, text, small)
    draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), colour)
    draw.text(point_xy, text, PAPER if sum(colour) < 450 else INK, small)


def _fitted(text: str, small: Font, width: float) -> str:
    """Return the text, or as much of its end as fits: the ends of names differ."""
    while small.getlength(text) > width and len(text) > 2:
        text = "…" + text[2:]
    return text


def _grid(tiles: Sequence[Pictures.Image], columns: int) -> Image:
    gap = 6
    rows = -(-len(tiles) // columns)
    canvas, _ = _canvas(columns * (TILE + gap) + gap, rows * (TILE + gap) + gap)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        canvas.paste(tile, (gap + column * (TILE + gap), gap + row * (TILE + gap)))
    return np.asarray(canvas)


def _canvas(width: int, height: int) -> tuple[Pictures.Image, ImageDraw.ImageDraw]:
    canvas = Pictures.new("RGB", (width, height), PAPER)
    return canvas, ImageDraw.Draw(canvas)
