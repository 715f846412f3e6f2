"""File to masks in PyTorch eager: `eager_segmentation.py MODEL IMAGE MODE [REPEAT] [THREADS]`.

The network of a model folder, its batch norms fused, and masks as YOLACT (arXiv:1904.02689) and those after it describe them:
all coefficients times all prototypes, a sigmoid, then in mode `native` every mask enlarged to the original image, cut at its box
and compared with one half; in mode `input` cut on the grid of the prototypes and enlarged to the network's input alone.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from openlepton.card import open_folder
from openlepton.hub.convert import build_network
from openlepton.ops.boxes import nms

SIZE = 640


def crop(masks: Tensor, boxes: Tensor) -> Tensor:
    """Return `(N, h, w)` masks, zero outside their boxes."""
    _, h, w = masks.shape
    x1, y1, x2, y2 = torch.chunk(boxes[:, :, None], 4, 1)
    columns = torch.arange(w, dtype=masks.dtype)[None, None, :]
    rows = torch.arange(h, dtype=masks.dtype)[None, :, None]
    return masks * ((columns >= x1) * (columns < x2) * (rows >= y1) * (rows < y2))


def masks_of(
    protos: Tensor, coeffs: Tensor, boxes: Tensor, seen: tuple[int, int], image: tuple[int, int], mode: str
) -> Tensor:
    """Return `(N, H, W)` bool at the size of the image, or of what the network sees."""
    c, h, w = protos.shape
    masks = (coeffs @ protos.view(c, -1)).sigmoid().view(-1, h, w)
    if mode == "input":
        scaled = boxes * torch.tensor([w / seen[1], h / seen[0]] * 2)
        masks = functional.interpolate(crop(masks, scaled)[None], seen, mode="bilinear", align_corners=False)[0]
        return masks > 0.5
    gain = min(h / image[0], w / image[1])
    top, left = int((h - image[0] * gain) / 2), int((w - image[1] * gain) / 2)
    masks = masks[:, top : h - top, left : w - left]
    masks = functional.interpolate(masks[None], image, mode="bilinear", align_corners=False)[0]
    ratio = min(seen[0] / image[0], seen[1] / image[1])
    pad = torch.tensor([(seen[1] - image[1] * ratio) / 2, (seen[0] - image[0] * ratio) / 2] * 2)
    return crop(masks, (boxes - pad) / ratio) > 0.5


def main(model: str, source: str, mode: str, repeat: int = 50, threads: int = 2) -> None:
    """Print JSON: milliseconds for an image, the median."""
    torch.set_num_threads(threads)
    folder = open_folder(Path(model))
    state = safetensors.torch.load(folder.read("model.safetensors"))
    network = build_network({name: value.numpy() for name, value in state.items()})[1].fused()
    times, count = [], 0
    for step in range(repeat + 5):
        started = time.perf_counter()
        image = cv2.imread(source)
        h, w = image.shape[:2]
        ratio = SIZE / max(h, w)
        small = cv2.resize(image, (round(w * ratio), round(h * ratio)), interpolation=cv2.INTER_LINEAR)
        right, below = -small.shape[1] % 32, -small.shape[0] % 32
        around = (below // 2, below - below // 2, right // 2, right - right // 2)
        padded = cv2.copyMakeBorder(small, *around, cv2.BORDER_CONSTANT, value=(114, 114, 114))
        pixels = np.ascontiguousarray(padded[..., ::-1].transpose(2, 0, 1))
        with torch.inference_mode():
            boxes, scores, coeffs, protos = network.decode(network(torch.from_numpy(pixels)[None].float() / 255))
            best, labels = scores[0].max(1)
            rows = (best > 0.25).nonzero()[:, 0]
            kept = nms(
                boxes[0, rows].numpy(), best[rows].numpy(), labels[rows].numpy(), max_iou=0.45, max_detections=300
            )
            rows = rows[torch.from_numpy(kept)]
            found = masks_of(protos[0], coeffs[0, rows], boxes[0, rows], padded.shape[:2], (h, w), mode)
        count = len(found)
        if step >= 5:
            times.append(1000 * (time.perf_counter() - started))
    print(json.dumps({"ms": statistics.median(times), "detections": count}))


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
