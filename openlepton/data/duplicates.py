"""Images that are the same, byte for byte or to the eye.

Bytes are compared by their hash. To the eye, two images are the same if a small grey copy of one differs little from that
of the other; which pairs are worth comparing, a perceptual hash says (the signs of the low frequencies of the cosine
transform: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010). The bounds are cautious:
frames of one scene are found, different scenes are not. Images without structure are compared by their bytes alone.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from openlepton.arrays import Bools, Floats, Ints
from openlepton.errors import ImageError
from openlepton.images import read_bytes, read_scaled

SIDE = 32
"""Side of the small grey copy, pixels."""

HASH_SIDE = 8

MAX_BITS = 18
"""Of 64 bits of the perceptual hash, as many may differ between images that are compared more closely."""

MIN_CORRELATION = 0.88
"""Between the grey copies of images that are the same to the eye."""

MAX_DIFFERENCE = 12.0
"""Mean difference between the grey copies of images that are the same to the eye, of 255."""

BLOCK = 2048


@dataclass(frozen=True, eq=False)
class Look:
    """What is kept of an image to compare it with others."""

    digest: bytes
    """Hash of the file's bytes."""
    grey: NDArray[np.uint8]
    """`(32, 32)` small grey copy."""
    size_hw: tuple[int, int]
    """Of the image, pixels."""


@dataclass(frozen=True)
class Pair:
    """Two images that are the same."""

    first: int
    second: int
    exact: bool
    """Byte for byte, not only to the eye."""
    correlation: float
    """Between the small grey copies."""


def look(path: Path) -> Look | ImageError:
    """Return what is kept of an image, or why it cannot be read."""
    try:
        image, size_hw = read_scaled(path, long_side=4 * SIDE)
        digest = hashlib.blake2b(read_bytes(path), digest_size=16).digest()
    except ImageError as error:
        return error
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return Look(digest, cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8), size_hw)


def look_at_all(
    paths: Sequence[Path], workers: int, progress: Callable[[int, int], None] | None
) -> list[Look | ImageError]:
    """Return what is kept of each image; `workers` threads decode them, outside the interpreter's lock."""
    looks = []
    with ThreadPoolExecutor(workers) as pool:
        for done, found in enumerate(pool.map(look, paths), 1):
            looks.append(found)
            if progress is not None:
                progress(done, len(paths))
    return looks


def find_pairs(looks: Sequence[Look]) -> list[Pair]:
    """Return which images are the same: exact pairs first, as a chain where there are more than two, then similar ones."""
    by_digest: dict[bytes, list[int]] = defaultdict(list)
    for index, each in enumerate(looks):
        by_digest[each.digest].append(index)
    exact = [Pair(a, b, exact=True, correlation=1.0) for same in by_digest.values() for a, b in pairwise(same)]
    # One of each is enough to be compared with the others.
    rows = np.array(sorted(same[0] for same in by_digest.values()), np.int64)
    if not rows.size:
        return exact
    grey = np.stack([looks[row].grey for row in rows])
    return exact + [
        Pair(int(rows[a]), int(rows[b]), exact=False, correlation=float(how))
        for first, second, close in _similar(grey)
        for a, b, how in zip(first, second, close, strict=True)
    ]


def perceptual_hashes(grey: NDArray[np.uint8]) -> Bools:
    """Return the 64 bits of each small grey image, `(N, 32, 32)` to `(N, 64)`: which low frequencies are above their median."""
    low = np.stack([cv2.dct(one)[:HASH_SIDE, :HASH_SIDE].reshape(-1) for one in grey.astype(np.float32)])
    # The first is the brightness, which says nothing about what is to be seen.
    return np.asarray(low > np.median(low[:, 1:], axis=1, keepdims=True))


def _similar(grey: NDArray[np.uint8]) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Yield rows of pairs that are the same to the eye with their correlation, a block of rows at a time."""
    count = len(grey)
    flat = grey.reshape(count, -1).astype(np.float32)
    centred = flat - flat.mean(1, keepdims=True)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1.0)
    signs = np.where(perceptual_hashes(grey), np.float32(1), np.float32(-1))
    for start in range(0, count, BLOCK):
        # Of ±1 signs, the product is bits that agree less bits that differ.
        agree = signs[start : start + BLOCK] @ signs[start:].T
        first, second = np.nonzero(agree >= signs.shape[1] - 2 * MAX_BITS)
        first, second = first[second > first] + start, second[second > first] + start
        for at in range(0, len(first), BLOCK):
            a, b = first[at : at + BLOCK], second[at : at + BLOCK]
            how = np.einsum("ij,ij->i", unit[a], unit[b])
            same = (how >= MIN_CORRELATION) & (np.abs(flat[a] - flat[b]).mean(1) <= MAX_DIFFERENCE)
            yield a[same], b[same], how[same]
