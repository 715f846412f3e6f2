"""YOLOX-Nano as Megvii trained it on COCO (Apache-2.0), read from its ONNX graph into `openlepton.nets.yolox`.

    python recipes/yolox_nano.py yolox_nano.onnx VOC20

prints how far the network's outputs are from the graph's, and how it scores on the 20 of its 80 classes that VOC has.

The graph has no batch norms any more: they were folded into the convolutions. Training wants them back, so each gets the
mean and the variance that its convolution gives on images of the data set, and the scale and shift that, with those,
compute what the folded convolution computed.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from openlepton.card import ImageInput
from openlepton.data.datasets import open_dataset
from openlepton.data.loader import validation_batches
from openlepton.data.reader import Reader
from openlepton.nets import yolox
from openlepton.nets.blocks import Conv
from openlepton.nets.export import open_graph
from openlepton.nets.restore import settle
from openlepton.train.evaluate import NetworkRuntime, Pair, evaluate
from openlepton.vision.detect import Detect

SIZE = 416
COCO_ROWS = {
    "aeroplane": 4,
    "bicycle": 1,
    "bird": 14,
    "boat": 8,
    "bottle": 39,
    "bus": 5,
    "car": 2,
    "cat": 15,
    "chair": 56,
    "cow": 19,
    "diningtable": 60,
    "dog": 16,
    "horse": 17,
    "motorbike": 3,
    "person": 0,
    "pottedplant": 58,
    "sheep": 18,
    "sofa": 57,
    "train": 6,
    "tvmonitor": 62,
}
"""VOC's classes among COCO's 80: couch is sofa, airplane aeroplane, tv tvmonitor, potted plant, dining table, motorcycle."""


def read(graph: Path, images: list[Tensor]) -> yolox.Yolox:
    """Return the network with its 80 classes.

    Args:
        graph: The ONNX file.
        images: Batches `(B, 3, H, W)`, RGB 0 to 1, that the batch norms' statistics are taken from.
    """
    network = yolox.build("nano").eval()
    convolutions = _in_order(network)
    folded = _folded(graph)
    if len(folded) != len(convolutions):
        raise SystemExit(f"{graph}: expected {len(convolutions)} convolutions, found {len(folded)}")
    folded[0] = (_as_rgb(folded[0][0]), folded[0][1])
    blocks = {id(module.conv): module for module in network.modules() if isinstance(module, Conv)}
    with torch.no_grad():
        for conv, (weight, bias) in zip(convolutions, folded, strict=True):
            if conv.weight.shape != weight.shape:
                raise SystemExit(f"{graph}: expected a kernel {tuple(conv.weight.shape)}, found {tuple(weight.shape)}")
            conv.weight.copy_(weight)
            if conv.bias is not None:
                conv.bias.copy_(bias)
            else:
                _pass(blocks[id(conv)].bn, bias, scale=255.0 if conv is convolutions[0] else 1.0)
    settle(network, [path for path, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)], images)
    return network


def to_voc(network: yolox.Yolox) -> yolox.Yolox:
    """Return the network with the rows of VOC's 20 classes alone."""
    few = yolox.build("nano", len(COCO_ROWS)).eval()
    rows, state = list(COCO_ROWS.values()), network.state_dict()
    few.load_state_dict({name: value[rows] if ".classes." in name else value for name, value in state.items()})
    return few


def statistics_images(data: str, count: int = 256) -> list[Tensor]:
    """Return images of the training split, letterboxed, in batches of one shape."""
    reader = Reader(open_dataset(data)["train"].take(np.arange(count)), SIZE)
    return [torch.from_numpy(batch.images).float() / 255 for batch in validation_batches(reader, batch_size=16)]


def _in_order(network: nn.Module) -> list[nn.Conv2d]:
    """Return the convolutions in the order in which they run, which is the graph's."""
    order: list[nn.Conv2d] = []
    hooks = [
        module.register_forward_pre_hook(lambda conv, _: order.append(conv))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    return order


def _folded(graph: Path) -> list[tuple[Tensor, Tensor]]:
    """Return weight and bias of every convolution, in the graph's order."""
    model = onnx.load(graph)
    values = {value.name: value for value in model.graph.initializer}
    return [
        (_tensor(values[node.input[1]]), _tensor(values[node.input[2]]))
        for node in model.graph.node
        if node.op_type == "Conv"
    ]


def _tensor(value: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(numpy_helper.to_array(value).copy())


def _as_rgb(weight: Tensor) -> Tensor:
    """Return the kernel `(C, 3, 6, 6)` for RGB that is equal to Focus and `(C, 12, 3, 3)` for BGR."""
    wide = weight.new_zeros(len(weight), 3, 6, 6)
    for square, (dy, dx) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        wide[:, :, dy::2, dx::2] = weight[:, square * 3 : square * 3 + 3].flip(1)
    return wide


def _pass(bn: nn.Module, bias: Tensor, *, scale: float) -> None:
    """Make a batch norm multiply with `scale` and add `bias`."""
    assert isinstance(bn, nn.BatchNorm2d)
    nn.init.zeros_(bn.running_mean)
    nn.init.constant_(bn.running_var, 1 - bn.eps)
    nn.init.constant_(bn.weight, scale)
    bn.bias.copy_(bias)


def difference(network: yolox.Yolox, graph: Path) -> tuple[float, float]:
    """Return the largest differences of boxes, in pixels, and of scores, on random pictures."""
    images = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (4, 3, SIZE // 8, SIZE // 8)).astype(np.float32)
    )
    images = nn.functional.interpolate(images, (SIZE, SIZE), mode="bilinear")
    session = open_graph(graph.read_bytes(), threads=1)
    raw = np.concatenate([session.run(None, {"images": image[None].flip(1).numpy()})[0] for image in images])
    with torch.no_grad():
        maps = network(images / 255)
        boxes, scores = network.decode(maps)
    corners, sides = yolox.cells(maps)
    theirs = torch.from_numpy(raw)  # (B, N, 85) as logits, but for objectness and classes
    centres, halves = (theirs[..., :2] + corners) * sides, theirs[..., 2:4].exp() * (sides / 2)
    places = torch.cat((centres - halves, centres + halves), 2)
    return float((places - boxes).abs().max()), float((theirs[..., 5:] * theirs[..., 4:5] - scores).abs().max())


def measure(network: yolox.Yolox, data: str, size: int = SIZE) -> dict[str, float]:
    """Return how good a network of the 20 classes is on the split val."""
    task = Detect(ImageInput(size=size, resize="letterbox", multiple=32), tuple(COCO_ROWS))
    found = evaluate(Pair(task, NetworkRuntime(network.fused())), open_dataset(data)["val"], batch=16, workers=1)
    return {name: round(value, 4) for name, value in found.report.summary().items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    source, voc20 = Path(sys.argv[1]), sys.argv[2]
    teacher = read(source, statistics_images(voc20))
    boxes_px, scores = difference(teacher, source)
    print(f"boxes differ by {boxes_px:.2g} px, scores by {scores:.2g}")
    print(measure(to_voc(teacher), voc20))
