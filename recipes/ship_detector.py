"""Put a trained detector or segmenter into the zoo: `python recipes/ship_detector.py RUN/best`.

The graph and the card go, the card with class names in Chinese and with what its numbers were chosen on. The weights by name
(`model.safetensors`) stay where they are: to run the model takes the graph alone.
"""

import sys
from pathlib import Path
from typing import Any

from openlepton.card import CARD_NAME, ModelCard, format_card, open_folder
from openlepton.hub.index import ZOO, find

CHINESE = {
    "Platelets": "血小板",
    "RBC": "红细胞",
    "WBC": "白细胞",
    "crosswalk": "人行横道",
    "speedlimit": "限速",
    "stop": "停车让行",
    "trafficlight": "红绿灯",
    "nucleus": "细胞核",
    "background": "背景",
    "boundary": "边界",
}
VOC20 = find("yolox-nano-voc20").card
CHINESE |= dict(zip(VOC20.labels, VOC20.labels_zh, strict=True))
LABELS = {"yolov5n-seg-nuclei": ("nucleus",), "unet-lite0-nuclei": ("background", "nucleus", "boundary")}
"""What classes are called whose data set does not say."""
DESCRIPTIONS = {
    "yolov5n-bccd": "YOLOv5n that counts blood cells on microscope images: platelets, red and white cells.",
    "yolov5n-roadsign": "YOLOv5n that finds crosswalk, speed limit and stop signs and traffic lights.",
    "yolov5n-voc20": "YOLOv5n that finds the 20 classes of Pascal VOC, as 5,396 images taught it; yolox-nano-voc20 finds more.",
    "yolov5n-seg-nuclei": "YOLOv5n with masks that outlines cell nuclei on microscope images, stained or fluorescent.",
    "unet-lite0-nuclei": "U-Net on EfficientNet-Lite0 telling background, cell nuclei and their boundaries apart, pixel for pixel.",
}
IMITATED = "begun with what recipes/imitate_yolox.py learned from YOLOX-Nano for COCO (Megvii, Apache-2.0)"
NUCLEI = "Data Science Bowl 2018, stage 1 (BBBC038v1 of the Broad Bioimage Benchmark Collection, CC0)"
SOURCES = {
    "yolov5n-bccd": "BCCD Dataset (MIT)",
    "yolov5n-roadsign": f"Kaggle's Road Sign Detection (CC0); {IMITATED}",
    "yolov5n-voc20": f"photographs of Pascal VOC and COCO; {IMITATED}",
    "yolov5n-seg-nuclei": NUCLEI,
    "unet-lite0-nuclei": NUCLEI,
}
GRAPH = "model.onnx"
MIN_SCORES = {"yolov5n-roadsign": 0.5}
"""Near the best F1, where that is far from the default: in a street much looks a little like a sign."""


def main(run: Path) -> None:
    """Write the zoo's folder from the run's."""
    folder = open_folder(run)
    card = folder.card
    out = ZOO / card.name
    shipped = card.model_copy(update={"files": {GRAPH: card.files[GRAPH]}} | described(card))
    out.mkdir(parents=True, exist_ok=True)
    (out / GRAPH).write_bytes(folder.read(GRAPH))
    (out / CARD_NAME).write_text(format_card(shipped), encoding="utf-8")
    print(f"{out}: {', '.join(f'{metric.name} {metric.value:g}' for metric in shipped.metrics)}")


def described(card: ModelCard) -> dict[str, Any]:
    """Return what the trainer's card does not say; nothing for a model whose recipe writes the whole card."""
    if card.name not in DESCRIPTIONS:
        return {}
    note = "the best epoch was chosen on these same images"
    labels = LABELS.get(card.name, card.labels)
    renamed = {f"IoU {old}": f"IoU {new}" for old, new in zip(card.labels, labels, strict=True)}
    detect = card.detect
    if detect is not None and card.name in MIN_SCORES:
        detect = detect.model_copy(update={"min_score": MIN_SCORES[card.name]})
    return {
        "detect": detect,
        "description": DESCRIPTIONS[card.name],
        "source": f"{card.source}; data: {SOURCES[card.name]}",
        "labels": labels,
        "labels_zh": tuple(CHINESE[label] for label in labels),
        "metrics": tuple(
            metric.model_copy(update={"name": renamed.get(metric.name, metric.name), "note": note})
            for metric in card.metrics
        ),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
