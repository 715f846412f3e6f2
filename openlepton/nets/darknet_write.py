"""Networks trained here as Darknet's files: the configuration of a YOLOv3 or YOLOv1, and its weights."""

from pathlib import Path

from openlepton.errors import UsageError
from openlepton.files import write_atomic
from openlepton.nets.darknet_files import weights_in, write_weights
from openlepton.nets.darknet_plan import plan
from openlepton.nets.yolov1 import Yolov1
from openlepton.nets.yolov3 import Yolov3


class _Sections:
    """A configuration as it grows; every method appends a layer and returns its number."""

    def __init__(self, size_hw: tuple[int, int], channels: int) -> None:
        self.text: list[str] = []
        self.layers = -1
        self.add("net", batch=1, subdivisions=1, height=size_hw[0], width=size_hw[1], channels=channels)

    def add(self, kind: str, **options: object) -> int:
        self.text.append(f"[{kind}]\n" + "".join(f"{key}={value}\n" for key, value in options.items()))
        self.layers += 1
        return self.layers - 1

    def conv(
        self, filters: int, size: int = 1, stride: int = 1, *, norm: bool = True, activation: str = "leaky"
    ) -> int:
        normal = {"batch_normalize": 1} if norm else {}
        return self.add(
            "convolutional", **normal, filters=filters, size=size, stride=stride, pad=1, activation=activation
        )

    def route(self, *layers: int) -> int:
        return self.add("route", layers=",".join(map(str, layers)))


def configuration(network: Yolov3 | Yolov1, size_hw: tuple[int, int] = (416, 416)) -> str:
    """Return the configuration file of `network` for images of `size_hw` pixels; a YOLOv1 has a size of its own."""
    if isinstance(network, Yolov1):
        return "\n".join(_yolov1(network).text)
    return "\n".join(_yolov3(network, size_hw).text)


def write_darknet(network: Yolov3 | Yolov1, cfg: Path, weights: Path, size_hw: tuple[int, int] = (416, 416)) -> None:
    """Write `network` as a configuration and weights that Darknet, and whatever else reads its files, can run.

    Raises:
        UsageError: The batch norms of `network` are fused into its convolutions already.
        OutputError: A file cannot be written.
    """
    text = configuration(network, size_hw)
    wanted, found = plan(text, str(cfg)).weights, weights_in(network)
    if wanted != found:
        raise UsageError(f"the configuration has {wanted:,} weights, the network {found:,}: its batch norms are fused")
    write_weights(network, weights)
    write_atomic(cfg, text.encode())


def _yolov3(network: Yolov3, size_hw: tuple[int, int]) -> _Sections:
    config = network.config
    cfg, w = _Sections(size_hw, config.channels), config.wide
    anchors = [side for level in config.anchors for anchor in level for side in anchor]
    each, last = len(config.anchors[0]), len(config.anchors) - 1
    tiny = config.backbone == "tiny"
    taps = _tiny(cfg, network) if tiny else _darknet53(cfg, network)
    before = -1
    for level, c in zip(range(last, -1, -1), (256, 128) if tiny else (512, 256, 128), strict=True):
        if level < last:
            cfg.route(before)
            cfg.conv(w(c))
            joined = cfg.add("upsample", stride=2)
            cfg.route(joined, taps[level])
        if not tiny:
            before = _neck(cfg, w(c), config.pools if level == last else ())
        elif level == last:
            before = cfg.conv(w(c))
        cfg.conv((w(512) if level == last else w(256)) if tiny else 2 * w(c), 3)
        cfg.conv(each * (5 + config.classes), norm=False, activation="linear")
        cfg.add(
            "yolo",
            mask=",".join(str(level * each + index) for index in range(each)),
            anchors=", ".join(f"{side:g}" for side in anchors),
            classes=config.classes,
            num=len(anchors) // 2,
        )
    return cfg


def _darknet53(cfg: _Sections, network: Yolov3) -> list[int]:
    """Append the backbone and return its layers of strides 8, 16, 32."""
    w, taps = network.config.wide, []
    cfg.conv(w(32), 3)
    for power, repeats in enumerate((1, 2, 8, 8, 4), 1):
        c = w(32 << power)
        end = cfg.conv(c, 3, 2)
        for _ in range(repeats):
            cfg.conv(c // 2)
            cfg.conv(c, 3)
            end = cfg.add("shortcut", **{"from": -3}, activation="linear")
        taps.append(end)
    return taps[2:]


def _tiny(cfg: _Sections, network: Yolov3) -> list[int]:
    """Append the backbone and return its layers of strides 16, 32."""
    taps = []
    for power in range(7):
        taps.append(cfg.conv(network.config.wide(16 << power), 3))
        if power < 6:
            cfg.add("maxpool", size=2, stride=2 if power < 5 else 1)
    return [taps[4], taps[6]]


def _neck(cfg: _Sections, c: int, pools: tuple[int, ...]) -> int:
    cfg.conv(c)
    cfg.conv(2 * c, 3)
    before = cfg.conv(c)
    if pools:
        pooled = list[int]()
        for kernel in sorted(pools):
            if pooled:
                cfg.route(before)
            pooled.append(cfg.add("maxpool", size=kernel, stride=1))
        cfg.route(*reversed(pooled), before)
        cfg.conv(c)
    cfg.conv(2 * c, 3)
    return cfg.conv(c)


def _yolov1(network: Yolov1) -> _Sections:
    config = network.config
    cfg = _Sections((config.size, config.size), config.channels)
    for kernel, channels, stride in config.convs:
        if kernel:
            cfg.conv(config.wide(channels), kernel, stride, norm=config.norm)
        else:
            cfg.add("maxpool", size=2, stride=2)
    if config.head == "local":
        cfg.add("local", filters=config.wide(256), size=3, stride=1, pad=1, activation="leaky")
    elif config.head == "connected":
        cfg.add("connected", output=config.wide(4096), activation="leaky")
    if config.head != "direct":
        cfg.add("dropout", probability=config.dropout)
    cfg.add("connected", output=config.numbers, activation="linear")
    cfg.add(
        "detection", classes=config.classes, coords=4, rescore=1, side=config.side, num=config.boxes, softmax=0, sqrt=1
    )
    return cfg
