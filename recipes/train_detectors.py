"""Train the detectors and the segmenter that ship, and the older networks whose numbers stand in docs/models.

    python recipes/train_detectors.py bccd --data BCCD --out runs/bccd --stop-after 30
    python recipes/train_detectors.py roadsign-448 --data ROADSIGN --out runs/roadsign-448 --pretrained runs/imitated.safetensors
    python recipes/train_detectors.py roadsign-576 --data ROADSIGN --out runs/roadsign-576 --pretrained runs/roadsign-448/best
    python recipes/train_detectors.py voc20-320 --data VOC20 --out runs/voc20-320 --pretrained runs/imitated.safetensors
    python recipes/train_detectors.py voc20-416 --data VOC20 --out runs/voc20-416 --pretrained runs/voc20-320/best
    python recipes/train_detectors.py nuclei --data NUCLEI --out runs/nuclei --pretrained runs/bccd/best
    python recipes/train_detectors.py yolov3-tiny-bccd --data BCCD --out runs/yolov3-tiny-bccd
    python recipes/train_detectors.py yolov1-tiny-bccd --data BCCD --out runs/yolov1-tiny-bccd --body runs/yolov3-tiny-bccd/best

The data sets are Kaggle's "Road Sign Detection" (CC0) and BCCD (MIT) as YOLO folders with `classes.txt`, `train.txt` and
`val.txt`. On one core of a 2023 server each takes about half an hour; the same processor, torch and number of threads give
the same weights again. `--resume` goes on with a training that was interrupted. Needs the extra `train`.
"""

import argparse
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file, save_file

from openlepton.data.augment import PRESETS
from openlepton.train import TrainConfig, fit, resume
from openlepton.train.watch import Epoch, Event, Note, Step

# AdamW and short averaging: the published schedule needs ten times as many steps as there was time for.
SHORT = TrainConfig(
    data="",
    out="",
    size=320,
    batch=16,
    nominal_batch=16,
    optimizer="adamw",
    lr=2e-3,
    final_lr=0.02,
    schedule="cosine",
    momentum=0.9,
    warmup_momentum=0.9,
    warmup_bias_lr=2e-3,
    warmup_epochs=2.0,
    weight_decay=1e-3,
    ema_decay=0.998,
    ema_ramp=200.0,
    evaluate_every=2,
    precision="float32",
    threads=1,
    licence="Apache-2.0",
    store="float16",
)
# Few images: smaller batches make more steps. Cells have no upside.
BCCD = replace(SHORT, batch=8, nominal_batch=8, lr=1.5e-3, augment=replace(PRESETS["low"], flipud=0.5))
VOC20 = replace(
    SHORT,
    name="yolov5n-voc20",
    freeze="5",
    warmup_epochs=0.2,
    ema_decay=0.999,
    cache_mb=2600,
    precision="bfloat16",
    threads=2,
)
RECIPES = {
    # Traffic lights are small: at 320 pixels their AP50 was 0.29, at 448 without any training there 0.43. The first layers
    # know COCO already, by imitation (recipes/imitate_yolox.py): they stay, which also makes an epoch a third shorter.
    "roadsign-448": replace(
        SHORT,
        name="yolov5n-roadsign",
        size=448,
        epochs=16,
        freeze="5",
        lr=1e-3,
        warmup_bias_lr=1e-3,
        warmup_epochs=0.5,
        closing_epochs=5,
    ),
    # ... and at 576, of one that never saw them so large, 0.84; what it needs is to see them.
    "roadsign-576": replace(
        SHORT,
        name="yolov5n-roadsign",
        size=576,
        batch=8,
        nominal_batch=8,
        epochs=7,
        freeze="5",
        lr=3e-4,
        warmup_bias_lr=3e-4,
        warmup_epochs=0.3,
        closing_epochs=4,
        evaluate_every=1,
    ),
    # The body knows COCO already, by imitation (recipes/imitate_yolox.py), and its first layers stay. With
    # the whole backbone standing still AP50 was 0.198 after three epochs. Small images first, for they are seen twice as fast.
    "voc20-320": replace(VOC20, epochs=24, lr=1e-3, final_lr=0.1, warmup_bias_lr=1e-3, evaluate_every=4),
    "voc20-416": replace(VOC20, size=416, epochs=8, lr=3e-4, warmup_bias_lr=3e-4, closing_epochs=5),
    "bccd": replace(BCCD, name="yolov5n-bccd", epochs=60, closing_epochs=8),
    # Masks from instance ids; what blood cells taught the body is worth some ten epochs.
    "nuclei": replace(
        BCCD,
        model="yolov5n-seg",
        name="yolov5n-seg-nuclei",
        epochs=30,
        warmup_epochs=1.0,
        closing_epochs=6,
        evaluate_every=3,
    ),
    "yolov3-tiny-bccd": replace(
        BCCD,
        model="yolov3-tiny",
        name="yolov3-tiny-bccd",
        batch=4,
        nominal_batch=4,
        lr=1e-3,
        warmup_bias_lr=1e-3,
        epochs=16,
        closing_epochs=3,
        evaluate_every=4,
    ),
    # Of two objects in one cell one is lost: a grid of 6 x 6 keeps 94 % of them, and there is no mosaic, which makes them
    # smaller, but the paper's variations. The last layer sums 9,216 inputs: with steps as long as elsewhere its numbers jump
    # by whole cells, and nothing is learned. The paper begins with a body that knows ImageNet, this one with YOLOv3-tiny's,
    # which stays up to its last convolution.
    "yolov1-tiny-bccd": replace(
        BCCD,
        model="yolov1-tiny",
        name="yolov1-tiny-bccd",
        size=384,
        batch=4,
        nominal_batch=4,
        lr=1e-4,
        warmup_bias_lr=1e-4,
        epochs=20,
        freeze="12",
        evaluate_every=4,
        augment=replace(PRESETS["low"], mosaic=0.0, scale=0.2, translate=0.2, flipud=0.5),
    ),
}


BODY = 7
"""Convolutions that YOLOv1-tiny and YOLOv3-tiny have in common: 16 to 1,024 channels, each 3x3."""


def body(model: Path, out: Path) -> Path:
    """Write the first convolutions of a YOLOv3-tiny under the names that YOLOv1-tiny has for them, and return the file."""
    taken = {}
    for name, value in load_file(model / "model.safetensors").items():
        found = re.fullmatch(r"backbone\.convs\.(\d+)\.(.+)", name)
        if found and int(found[1]) < BODY:
            index = 2 * int(found[1])  # a max pool stands after each of the first six
            taken[f"features.{index}.{found[2]}"] = value.contiguous()
    out.mkdir(parents=True, exist_ok=True)
    save_file(taken, out / "body.safetensors")
    return out / "body.safetensors"


def main() -> None:
    """Train one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=sorted(RECIPES))
    parser.add_argument("--data", required=True, help="the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; its best/ is the model")
    parser.add_argument("--pretrained", default="", help="a model folder or .safetensors to start from")
    parser.add_argument("--body", type=Path, help="a model folder of yolov3-tiny whose body yolov1-tiny begins with")
    parser.add_argument("--epochs", type=int, help="another number of epochs")
    parser.add_argument("--stop-after", type=int, default=0, help="interrupt it after this epoch")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    options = parser.parse_args()

    def watch(event: Event) -> None:
        tell(event)
        if isinstance(event, Epoch) and event.epoch + 1 == options.stop_after:
            signal.raise_signal(signal.SIGINT)

    if options.resume:
        trained = resume(options.out, watch=watch)
    else:
        recipe = RECIPES[options.which]
        command = f"python recipes/train_detectors.py {options.which} --data {Path(options.data).name}"
        command += f" --pretrained {'/'.join(Path(options.pretrained).parts[-2:])}" if options.pretrained else ""
        command += f" --body {'/'.join(options.body.parts[-2:])}" if options.body else ""
        command += f" --epochs {options.epochs}" if options.epochs else ""
        command += f" --stop-after {options.stop_after}" if options.stop_after else ""
        start = str(body(options.body, options.out.parent)) if options.body else options.pretrained
        changes = {"data": options.data, "out": str(options.out), "pretrained": start, "command": command}
        trained = fit(replace(recipe, epochs=options.epochs or recipe.epochs, **changes), watch=watch)
    if trained.report is not None:
        print({name: round(value, 4) for name, value in trained.report.summary().items()})


def tell(event: Event) -> None:
    """Print notes and epochs, and now and then a batch."""
    match event:
        case Note(text):
            print(text, flush=True)
        case Epoch(_, epochs, row, best):
            numbers = " ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
            print(f"epoch {row['epoch']:.0f}/{epochs} {numbers}{' best' * best}", flush=True)
        case Step(batch=batch, images_per_s=speed, eta_s=eta) if batch % 20 == 0:
            print(f"  batch {batch}: {speed:.1f} images/s, {eta / 60:.0f} min left", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
