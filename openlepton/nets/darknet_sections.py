"""What each section of a Darknet configuration means: its options and the maps before it to a layer, every number limited."""

import math
from collections.abc import Callable, Mapping

from openlepton.nets.darknet_cfg import Options
from openlepton.nets.darknet_layers import (
    IMAGE,
    Avgpool,
    Connected,
    Convolutional,
    Detection,
    Head,
    Layer,
    Local,
    Maxpool,
    Region,
    Reorg,
    Route,
    Same,
    Shape,
    Shortcut,
    Softmax,
    Upsample,
    Yolo,
)

ACTIVATIONS = ("linear", "leaky", "mish", "swish", "relu", "logistic")

MAX_CHANNELS = 1 << 17


class Reader:
    """What a section can ask about the layers before it, which are all that it can refer to."""

    def __init__(self, size_hw: tuple[int, int]) -> None:
        self.image: Shape = (3, *size_hw)
        self.layers: list[Layer] = []

    def shape(self, options: Options, index: int, key: str | None = None) -> Shape:
        """Return the shape of the map of layer `index`."""
        layer = self.layers[index] if index != IMAGE else None
        if isinstance(layer, Head):
            raise options.error(f"reads layer {index} (line {layer.line}), which gives boxes, not a map", key)
        return layer.shape if layer else self.image

    @property
    def before(self) -> int:
        """The number of the last layer so far."""
        return len(self.layers) - 1

    def earlier(self, options: Options, key: str) -> tuple[int, ...]:
        """Return the layers that `key` names: from the first if 0 or more, back from here if negative."""
        here = len(self.layers)
        named = options.integers(key, -here, here - 1) if here else ()
        if not named:
            raise options.error(
                "expected the numbers of earlier layers" + ("" if here else ", of which there are none"), key
            )
        return tuple(index if index >= 0 else here + index for index in named)


def _activation(options: Options, default: str) -> str:
    name = options.text("activation", default)
    if name not in ACTIVATIONS:
        raise options.error(f"expected one of {', '.join(ACTIVATIONS)}, got {name[:40]!r}", "activation")
    return name


def _loaded(options: Options) -> None:
    """Refuse what makes a layer's weights differ from what the file says."""
    for key in ("dontload", "dontloadscales", "numload", "flipped", "binary", "xnor", "bin_output", "transpose"):
        options.only(key, 0)


def _out(options: Options, side: int, padding: int, size: int, stride: int) -> int:
    if side + padding < size:
        raise options.error(f"a window of {size} does not fit into {side} + {padding} pixels")
    return (side + padding - size) // stride + 1


def _convolutional(options: Options, reader: Reader) -> Layer:
    c, h, w = reader.shape(options, reader.before)
    filters = options.integer("filters", 1, 1, MAX_CHANNELS)
    size, stride = options.integer("size", 1, 1, 255), options.integer("stride", 1, 1, 255)
    groups = options.integer("groups", 1, 1, MAX_CHANNELS)
    dilation = options.integer("dilation", 1, 1, 255)
    padding = options.integer("padding", 0, 0, 255)
    pad = size // 2 if options.flag("pad") else padding
    normalized = options.flag("batch_normalize")
    normalized = options.flag("cbn") or normalized
    _loaded(options)
    for key in ("antialiasing", "assisted_excitation", "sway", "rotate", "stretch", "stretch_sway"):
        options.only(key, 0)
    if c % groups or filters % groups:
        raise options.error(
            f"{groups} groups divide neither or only one of {c} channels and {filters} filters", "groups"
        )
    dilation = 1 if size == 1 else dilation
    if dilation > 1 and 2 * pad != size - 1:
        raise options.error(f"with dilation, padding by half the size is supported, got {pad} for {size}", "dilation")
    high, wide = (_out(options, side, 2 * pad, size, stride) for side in (h, w))
    weights = filters * (4 if normalized else 1) + filters * (c // groups) * size * size
    return Convolutional(
        line=options.section.line,
        reads=(reader.before,),
        shape=(filters, high, wide),
        weights=weights,
        cin=c,
        size=size,
        stride=stride,
        pad=pad * dilation,
        dilation=dilation,
        groups=groups,
        normalized=normalized,
        activation=_activation(options, "logistic"),
    )


def _local(options: Options, reader: Reader) -> Layer:
    c, h, w = reader.shape(options, reader.before)
    filters = options.integer("filters", 1, 1, MAX_CHANNELS)
    size, stride = options.integer("size", 1, 1, 255), options.integer("stride", 1, 1, 255)
    pad = int(options.flag("pad"))
    _loaded(options)
    if pad and size != 3:  # it pads by one pixel but counts as if by half the size
        raise options.error(f"pad is supported with size 3, got {size}", "pad")
    high, wide = (_out(options, side, 2 * pad, size, stride) for side in (h, w))
    return Local(
        line=options.section.line,
        reads=(reader.before,),
        shape=(filters, high, wide),
        weights=filters * high * wide * (1 + c * size * size),
        cin=c,
        size=size,
        stride=stride,
        pad=pad,
        activation=_activation(options, "logistic"),
    )


def _connected(options: Options, reader: Reader) -> Layer:
    inputs = math.prod(reader.shape(options, reader.before))
    outputs = options.integer("output", 1, 1, 1 << 24)
    normalized = options.flag("batch_normalize")
    _loaded(options)
    return Connected(
        line=options.section.line,
        reads=(reader.before,),
        shape=(outputs, 1, 1),
        weights=outputs * (4 if normalized else 1) + outputs * inputs,
        inputs=inputs,
        normalized=normalized,
        activation=_activation(options, "logistic"),
    )


def _maxpool(options: Options, reader: Reader) -> Layer:
    c, h, w = reader.shape(options, reader.before)
    stride = options.integer("stride", 1, 1, 255)
    size = options.integer("size", stride, 1, 255)
    padding = options.integer("padding", size - 1, 0, 255)
    for key in ("maxpool_depth", "antialiasing"):
        options.only(key, 0)
    if padding >= 2 * size - 1:
        raise options.error(f"{padding} pixels of padding leave windows of {size} with nothing in them", "padding")
    high, wide = (_out(options, side, padding, size, stride) for side in (h, w))
    for side, out in ((h, high), (w, wide)):
        if (out - 1) * stride - padding // 2 >= side:
            raise options.error(f"{padding} pixels of padding leave the last window with nothing in it", "padding")
    line, reads = options.section.line, (reader.before,)
    return Maxpool(line=line, reads=reads, shape=(c, high, wide), size=size, stride=stride, padding=padding)


def _avgpool(options: Options, reader: Reader) -> Layer:
    c, _, _ = reader.shape(options, reader.before)
    return Avgpool(line=options.section.line, reads=(reader.before,), shape=(c, 1, 1))


def _softmax(options: Options, reader: Reader) -> Layer:
    inputs = math.prod(reader.shape(options, reader.before))
    groups = options.integer("groups", 1, 1, inputs)
    temperature = options.number("temperature", 1, 1e-6, 1e6)
    options.only("spatial", 0)
    if inputs % groups:
        raise options.error(f"{groups} groups do not divide {inputs} values", "groups")
    line, reads = options.section.line, (reader.before,)
    return Softmax(line=line, reads=reads, shape=(inputs, 1, 1), groups=groups, temperature=temperature)


def _same(options: Options, reader: Reader) -> Layer:
    return Same(line=options.section.line, reads=(reader.before,), shape=reader.shape(options, reader.before))


def _route(options: Options, reader: Reader) -> Layer:
    reads = reader.earlier(options, "layers")
    shapes = [reader.shape(options, index, "layers") for index in reads]
    groups = options.integer("groups", 1, 1, MAX_CHANNELS)
    group_id = options.integer("group_id", 0, 0, groups - 1)
    if len({shape[1:] for shape in shapes}) > 1:
        sizes = ", ".join(f"{h}x{w}" for _, h, w in shapes)
        raise options.error(f"maps of different sizes cannot stand side by side: {sizes}", "layers")
    if any(shape[0] % groups for shape in shapes):
        raise options.error(f"{groups} groups do not divide {', '.join(str(s[0]) for s in shapes)} channels", "groups")
    shape = (sum(shape[0] for shape in shapes) // groups, *shapes[0][1:])
    return Route(line=options.section.line, reads=reads, shape=shape, groups=groups, group_id=group_id)


def _shortcut(options: Options, reader: Reader) -> Layer:
    c, h, w = reader.shape(options, reader.before)
    others = reader.earlier(options, "from")
    for key in ("alpha", "beta"):
        options.only(key, 1)
    if options.text("weights_type", "none") != "none":
        raise options.error("learned weights of a sum are not supported", "weights_type")
    for index in others:
        _, high, wide = reader.shape(options, index, "from")
        if high % h or wide % w or high // h != wide // w or (len(others) > 1 and high != h):
            raise options.error(f"a map of {high}x{wide} cannot be added to one of {h}x{w}", "from")
    return Shortcut(
        line=options.section.line,
        reads=(reader.before, *others),
        shape=(c, h, w),
        activation=_activation(options, "linear"),
    )


def _upsample(options: Options, reader: Reader) -> Layer:
    c, h, w = reader.shape(options, reader.before)
    stride = options.integer("stride", 2, 1, 64)
    scale = options.number("scale", 1, -1e6, 1e6)
    shape = (c, h * stride, w * stride)
    return Upsample(line=options.section.line, reads=(reader.before,), shape=shape, stride=stride, scale=scale)


def _reorg(options: Options, reader: Reader) -> Layer:
    c, h, w = reader.shape(options, reader.before)
    stride = options.integer("stride", 1, 1, 64)
    for key in ("reverse", "flatten", "extra"):
        options.only(key, 0)
    if c % stride**2 or h % stride or w % stride:
        raise options.error(f"{stride} does not divide {h}x{w}, or its square not {c} channels", "stride")
    shape = (c * stride**2, h // stride, w // stride)
    return Reorg(line=options.section.line, reads=(reader.before,), shape=shape, stride=stride)


def _anchors(options: Options, count: int) -> tuple[tuple[float, float], ...]:
    sides = options.numbers("anchors", 1e-6, 1e6)
    if len(sides) < 2 * count:
        raise options.error(f"expected width and height of {count} anchors, got {len(sides)} numbers", "anchors")
    return tuple((sides[2 * index], sides[2 * index + 1]) for index in range(count))


def _check_channels(options: Options, shape: Shape, boxes: int, classes: int) -> None:
    if shape[0] != boxes * (5 + classes):
        raise options.error(
            f"{boxes} boxes of 5 + {classes} numbers make {boxes * (5 + classes)} channels, it reads {shape[0]}"
        )


def _yolo(options: Options, reader: Reader) -> Layer:
    shape = reader.shape(options, reader.before)
    classes = options.integer("classes", 20, 1, MAX_CHANNELS)
    total = options.integer("num", 1, 1, 1000)
    mask = options.integers("mask", 0, total - 1) or tuple(range(total))
    anchors = _anchors(options, total)
    _check_channels(options, shape, len(mask), classes)
    return Yolo(
        line=options.section.line,
        reads=(reader.before,),
        shape=shape,
        classes=classes,
        boxes=len(mask),
        anchors=tuple(anchors[index] for index in mask),
        scale_xy=options.number("scale_x_y", 1, 0.1, 10),
        new_coords=options.flag("new_coords"),
    )


def _region(options: Options, reader: Reader) -> Layer:
    shape = reader.shape(options, reader.before)
    classes = options.integer("classes", 20, 1, MAX_CHANNELS)
    boxes = options.integer("num", 1, 1, 1000)
    options.only("coords", 4)
    options.only("background", 0)
    options.integer("classfix", 0, 0, 2)
    if not options.flag("softmax"):  # the sigmoid of each in one branch of Darknet, the bare number in the other
        raise options.error("softmax=0 is not supported", "softmax")
    _check_channels(options, shape, boxes, classes)
    line, reads, anchors = options.section.line, (reader.before,), _anchors(options, boxes)
    return Region(line=line, reads=reads, shape=shape, classes=classes, boxes=boxes, anchors=anchors)


def _detection(options: Options, reader: Reader) -> Layer:
    shape = reader.shape(options, reader.before)
    classes = options.integer("classes", 1, 1, MAX_CHANNELS)
    boxes, side = options.integer("num", 1, 1, 1000), options.integer("side", 7, 1, 1000)
    if options.integer("coords", 1, 1, 4) != 4:
        raise options.error("expected 4", "coords")
    options.only("reorg", 0)
    if math.prod(shape) != side * side * (classes + boxes * 5):
        numbers = side * side * (classes + boxes * 5)
        raise options.error(
            f"{side}x{side} cells of {classes} classes and {boxes} boxes make {numbers}, it reads {shape}"
        )
    return Detection(
        line=options.section.line,
        reads=(reader.before,),
        shape=shape,
        classes=classes,
        boxes=boxes,
        side=side,
        softmax=options.flag("softmax"),
        roots=options.flag("sqrt"),
    )


KINDS: Mapping[str, Callable[[Options, Reader], Layer]] = {
    "convolutional": _convolutional,
    "local": _local,
    "connected": _connected,
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "softmax": _softmax,
    "dropout": _same,
    "cost": _same,
    "route": _route,
    "shortcut": _shortcut,
    "upsample": _upsample,
    "reorg": _reorg,
    "yolo": _yolo,
    "region": _region,
    "detection": _detection,
}
"""Sections that are read."""
