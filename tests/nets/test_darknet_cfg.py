"""Configurations of Darknet: published networks to the byte, and whatever else is refused by section and line, in milliseconds."""

# ruff: noqa: E402

import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from openlepton.errors import CheckpointRefused, UsageError
from openlepton.nets import yolov1, yolov3
from openlepton.nets.darknet import Darknet
from openlepton.nets.darknet_files import read_weights, weights_in
from openlepton.nets.darknet_plan import plan
from openlepton.nets.darknet_sections import KINDS
from openlepton.nets.darknet_write import configuration, write_darknet

FOLDER = Path(__file__).parent.parent / "fixtures" / "darknet"
TEXTS = [path.read_text() for path in sorted(FOLDER.glob("*.cfg"))]
HEADER = 20

NET = "[net]\nheight=64\nwidth=64\nchannels=3\n"
CONV = "[convolutional]\nfilters=16\nsize=3\nstride=2\npad=1\nactivation=linear\n"
YOLO = "[yolo]\nmask=0,1\nanchors=1,2, 3,4\nnum=2\nclasses=3\n"


def conv(filters: int, size: int = 1, stride: int = 1, activation: str = "leaky") -> str:
    norm = "" if activation == "linear" else "batch_normalize=1\n"
    return f"[convolutional]\n{norm}filters={filters}\nsize={size}\nstride={stride}\npad=1\nactivation={activation}\n"


def route(*layers: int, groups: int = 1) -> str:
    return f"[route]\nlayers={','.join(map(str, layers))}\n" + ("groups=2\ngroup_id=1\n" if groups == 2 else "")


def yolov4_tiny() -> str:
    """YOLOv4-tiny (arXiv:2011.08036): three cross-stage blocks on half of the channels, two heads."""
    anchors = "anchors=10,14, 23,27, 37,58, 81,82, 135,169, 344,319\nclasses=80\nnum=6\nscale_x_y=1.05\n"
    text = "[net]\nheight=416\nwidth=416\nchannels=3\n" + conv(32, 3, 2) + conv(64, 3, 2)
    for c in (64, 128, 256):
        text += conv(c, 3) + route(-1, groups=2) + conv(c // 2, 3) + conv(c // 2, 3) + route(-1, -2) + conv(c)
        text += route(-6, -1) + "[maxpool]\nsize=2\nstride=2\n"
    text += conv(512, 3) + conv(256) + conv(512, 3) + conv(255, activation="linear") + "[yolo]\nmask=3,4,5\n" + anchors
    text += route(-4) + conv(128) + "[upsample]\nstride=2\n" + route(-1, 23) + conv(256, 3)
    return text + conv(255, activation="linear") + "[yolo]\nmask=1,2,3\n" + anchors


def yolov4() -> str:
    """YOLOv4 (arXiv:2004.10934): CSPDarknet-53 with mish, pyramid pooling, a path down and up again, three heads."""
    text, layers = "[net]\nheight=608\nwidth=608\nchannels=3\n", 0

    def add(part: str) -> int:
        nonlocal text, layers
        text, layers = text + part, layers + 1
        return layers - 1

    add(conv(32, 3, activation="mish"))
    taps = []
    for c, repeats in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        half = c if c == 64 else c // 2
        add(conv(c, 3, 2, "mish"))
        side = add(conv(half, activation="mish"))
        add(route(-2))
        add(conv(half, activation="mish"))
        for _ in range(repeats):
            add(conv(32 if c == 64 else half, activation="mish"))
            add(conv(half, 3, activation="mish"))
            add("[shortcut]\nfrom=-3\nactivation=linear\n")
        add(conv(half, activation="mish"))
        add(route(-1, side))
        taps.append(add(conv(c, activation="mish")))
    add(conv(512))
    add(conv(1024, 3))
    middle = add(conv(512))
    pools = []
    for size in (5, 9, 13):
        if pools:
            add(route(middle))
        pools.append(add(f"[maxpool]\nstride=1\nsize={size}\n"))
    add(route(*pools[::-1], middle))
    add(conv(512))
    add(conv(1024, 3))
    down = [add(conv(512))]
    for c, tap in ((256, taps[3]), (128, taps[2])):
        up = [add(conv(c)), add("[upsample]\nstride=2\n")][1]
        add(route(tap))
        add(conv(c))
        add(route(-1, up))
        for width, size in ((c, 1), (2 * c, 3), (c, 1), (2 * c, 3), (c, 1)):
            last = add(conv(width, size))
        down.append(last)
    for level, c in enumerate((128, 256, 512)):
        if level:
            add(route(last))
            add(conv(c, 3, 2))
            add(route(-1, down[2 - level]))
            for width, size in ((c, 1), (2 * c, 3), (c, 1), (2 * c, 3), (c, 1)):
                last = add(conv(width, size))
        add(conv(2 * c, 3))
        add(conv(255, activation="linear"))
        anchors = ",".join(str(side) for side in range(1, 19))
        add(f"[yolo]\nmask={3 * level},{3 * level + 1},{3 * level + 2}\nanchors={anchors}\nclasses=80\nnum=9\n")
    return text


@pytest.mark.parametrize(
    ("text", "size"), [(yolov4_tiny(), 24_251_276), (yolov4(), 257_717_640)], ids=["tiny", "large"]
)
def test_yolov4_is_as_large_as_published(text: str, size: int) -> None:
    found = plan(text)
    assert HEADER + 4 * found.weights == size
    assert (found.any_size, found.multiple, found.classes, len(found.heads)) == (True, 32, 80, len(found.heads))


@pytest.mark.parametrize(
    ("kind", "classes", "size", "rows"),
    [
        ("darknet53", 80, 248_007_048, 10_647),
        ("spp", 80, 252_209_544, 10_647),
        ("tiny", 80, 35_434_956, 2_535),
        ("darknet53", 20, 246_714_648, 10_647),
    ],
)
def test_our_yolov3_is_the_published_one_in_size_and_rows(kind: str, classes: int, size: int, rows: int) -> None:
    with torch.device("meta"):
        network = yolov3.build(kind, classes=classes)
    found = plan(configuration(network, (416, 416)))
    assert HEADER + 4 * found.weights == HEADER + 4 * weights_in(network) == size
    assert sum(found.layers[head].shape[1] * found.layers[head].shape[2] * 3 for head in found.heads) == rows
    assert (found.any_size, found.multiple, found.task) == (True, 32, "detect")


@pytest.mark.parametrize(("kind", "size"), [("local", 789_312_992), ("tiny", 108_399_820)])
def test_our_yolov1_is_the_published_one_in_size(kind: str, size: int) -> None:
    with torch.device("meta"):
        network = yolov1.build(kind)
    found = plan(configuration(network))
    assert HEADER + 4 * found.weights == HEADER + 4 * weights_in(network) == size
    assert (found.any_size, found.size_hw, found.classes) == (False, (448, 448), 20)


@pytest.mark.parametrize(
    "network",
    [pytest.param("darknet53", marks=pytest.mark.slow), "spp", "tiny", "v1 tiny", "v1 local", "v1 paper"],
)
def test_what_is_written_computes_the_same_when_it_is_read(network: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    if network.startswith("v1"):
        ours = yolov1.build(network[3:], classes=3, width=0.02, size=64 * 3)
        size_hw = (192, 192)
    else:
        ours = yolov3.build(network, classes=3, width=0.125)
        size_hw = (64, 96)
    for part in ours.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    write_darknet(ours.eval(), tmp_path / "net.cfg", tmp_path / "net.weights", size_hw)
    found = plan((tmp_path / "net.cfg").read_text())
    assert found.size_hw == size_hw
    again = Darknet(found).eval()
    read_weights(again, tmp_path / "net.weights")
    images = torch.rand(2, 3, *size_hw)
    with torch.no_grad():
        wanted, got = ours.decode(ours(images)), again.decode(again(images))
    if not network.startswith("v1"):  # ours has the finest level first, Darknet's file the coarsest
        counts = [3 * size_hw[0] * size_hw[1] // stride**2 for stride in ours.config.strides]
        wanted = tuple(torch.cat(part.split(counts, 1)[::-1], 1) for part in wanted)
    torch.testing.assert_close(got[0], wanted[0], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(got[1], wanted[1], atol=1e-5, rtol=1e-4)


def test_what_was_written_comes_back_to_the_bit(tmp_path: Path) -> None:
    ours, again = (yolov3.build("tiny", classes=2, width=0.125) for _ in range(2))
    write_darknet(ours, tmp_path / "net.cfg", tmp_path / "net.weights")
    read_weights(again, tmp_path / "net.weights")
    theirs = again.state_dict()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


def test_a_network_with_fused_norms_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its batch norms are fused"):
        write_darknet(yolov3.build("tiny", width=0.125).fused(), tmp_path / "net.cfg", tmp_path / "net.weights")
    assert list(tmp_path.iterdir()) == []


MALFORMED = [
    ("", "expected [net] first, got no section"),
    ("height=3", "line 1: expected [net] first, got height=3"),
    (CONV, "expected [net] first, got [convolutional] in line 1"),
    (NET, "line 1: [net]: there is no layer after it"),
    (NET + "[dropout]\n", "line 1: [net]: there is no layer after it"),
    (NET + "[convolutional\n", "line 5: expected [section], got [convolutional"),
    (NET + "[lstm]\noutput=3\n", "line 5: [lstm]: not a section that is read; those are convolutional, "),
    (NET + CONV + "whatever\n" + YOLO, "line 11: expected key = value, got whatever"),
    (NET + CONV + "xnor=1\n" + YOLO, "line 11: [convolutional] xnor: 1 is not supported, 0 is"),
    (NET + CONV + "sparkle=1\n" + YOLO, "line 11: [convolutional] sparkle: not supported, or not a key of Darknet"),
    (NET.replace("64", "-64") + CONV + YOLO, "line 2: [net] height: expected a whole number of 1 to 8,192, got -64"),
    (
        NET.replace("width=64", "width=99999") + CONV + YOLO,
        "line 3: [net] width: expected a whole number of 1 to 8,192",
    ),
    (NET.replace("3", "1") + CONV + YOLO, "line 4: [net] channels: models here take 3 channels (RGB), got 1"),
    (
        NET + CONV.replace("16", "1000000000") + YOLO,
        "line 6: [convolutional] filters: expected a whole number of 1 to 131,072",
    ),
    (NET + CONV.replace("16", "99999999999999999999") + YOLO, "[convolutional] filters: expected a whole number"),
    (
        NET + CONV.replace("16", "-16") + YOLO,
        "[convolutional] filters: expected a whole number of 1 to 131,072, got -16",
    ),
    (
        NET + CONV.replace("size=3", "size=-3") + YOLO,
        "[convolutional] size: expected a whole number of 1 to 255, got -3",
    ),
    (
        NET + CONV.replace("stride=2", "stride=0") + YOLO,
        "[convolutional] stride: expected a whole number of 1 to 255, got 0",
    ),
    (
        NET + CONV.replace("size=3", "size=3.5") + YOLO,
        "[convolutional] size: expected a whole number of 1 to 255, got 3.5",
    ),
    (
        NET + CONV.replace("pad=1", "groups=7") + YOLO,
        "[convolutional] groups: 7 groups divide neither or only one of 3 ",
    ),
    (
        NET + CONV.replace("linear", "sine") + YOLO,
        "activation: expected one of linear, leaky, mish, swish, relu, logistic",
    ),
    (
        NET + CONV.replace("size=3", "size=99").replace("pad=1", "pad=0") + YOLO,
        "a window of 99 does not fit into 64 + 0 pixels",
    ),
    (
        NET + "[route]\nlayers=-1\n",
        "line 6: [route] layers: expected the numbers of earlier layers, of which there are none",
    ),
    (NET + CONV + "[route]\nlayers=-2\n" + YOLO, "line 12: [route] layers: expected a whole number of -1 to 0, got -2"),
    (NET + CONV + "[route]\nlayers=1\n" + YOLO, "line 12: [route] layers: expected a whole number of -1 to 0, got 1"),
    (
        NET + CONV + "[route]\nlayers=7\n" + CONV + YOLO,
        "line 12: [route] layers: expected a whole number of -1 to 0, got 7",
    ),
    (
        NET + CONV + "[route]\nlayers=-1,\n" + YOLO,
        "line 12: [route] layers: expected a whole number of -1 to 0, got nothing",
    ),
    (
        NET + CONV + CONV + "[route]\nlayers=-1,-2\n" + YOLO,
        "maps of different sizes cannot stand side by side: 16x16, 32x32",
    ),
    (NET + CONV + "[route]\nlayers=-1\ngroups=3\n" + YOLO, "[route] groups: 3 groups do not divide 16 channels"),
    (NET + CONV + "[route]\nlayers=-1\ngroups=2\ngroup_id=2\n", "group_id: expected a whole number of 0 to 1, got 2"),
    (
        NET + CONV + CONV.replace("=2", "=3") + "[shortcut]\nfrom=-2\n" + YOLO,
        "a map of 32x32 cannot be added to one of 11x11",
    ),
    (
        NET + CONV + "[shortcut]\nfrom=-1\nweights_type=per_feature\n",
        "weights_type: learned weights of a sum are not supported",
    ),
    (NET + CONV + "[upsample]\nstride=-2\n", "[upsample] stride: expected a whole number of 1 to 64, got -2"),
    (NET + CONV + "[reorg]\nstride=3\n", "[reorg] stride: 3 does not divide 32x32"),
    (NET + CONV + "[maxpool]\nsize=2\npadding=3\n", "3 pixels of padding leave windows of 2 with nothing in them"),
    (NET + CONV + YOLO + CONV, "reads layer 1 (line 11), which gives boxes, not a map"),
    (NET + CONV + YOLO.replace("classes=3", "classes=4"), "2 boxes of 5 + 4 numbers make 18 channels, it reads 16"),
    (NET + CONV + YOLO.replace("0,1", "0,2"), "line 12: [yolo] mask: expected a whole number of 0 to 1, got 2"),
    (NET + CONV + YOLO.replace(" 3,4", "3"), "[yolo] anchors: expected width and height of 2 anchors, got 3 numbers"),
    (NET + CONV + YOLO.replace("1,2", "1,1e99"), "[yolo] anchors: expected a number of 1e-06 to 1,000,000.0, got 1e99"),
    (NET + CONV + "[region]\nclasses=3\nnum=2\nanchors=1,1,2,2\n", "[region] softmax: softmax=0 is not supported"),
    (
        NET + CONV + "[region]\nclasses=3\nnum=2\ntree=coco.tree\nsoftmax=1\nanchors=1,1,2,2\n",
        "[region] tree: not supported",
    ),
    (
        NET + CONV + "[detection]\nclasses=3\ncoords=4\n",
        "7x7 cells of 3 classes and 1 boxes make 392, it reads (16, 32, 32)",
    ),
    (NET + CONV, "expected [yolo], [region] or [detection], or [softmax] at the end: what it gives is not known"),
    (NET + CONV + YOLO + "[route]\nlayers=0\n" + CONV.replace("16", "14") + YOLO.replace("=3", "=2"), "(lines 11, 24)"),
    (
        NET + CONV * 12 + "[avgpool]\n[connected]\noutput=16777216\n" * 9 + "[softmax]",
        "weights so far, at most 1,073,741,824",
    ),
    (NET + CONV.replace("16", "99999") * 3 + YOLO, "weights so far, at most 1,073,741,824 are read"),
    (NET + "[upsample]\nstride=64\n" * 3 + YOLO, "numbers in its map, at most 134,217,728 are read"),
    (NET.replace("64", "4096") + CONV.replace("stride=2", "stride=1") * 30 + YOLO, "numbers in its map, at most"),
    (
        NET.replace("64", "2048") + (CONV.replace("stride=2", "stride=1")) * 99 + YOLO,
        "numbers in the maps so far, at most",
    ),
    (
        NET.replace("64", "512") + CONV.replace("=2", "=1").replace("16", "500") * 9,
        "multiplications so far, at most 4,398,046,511,104 are read",
    ),
    (NET + "[cost]\n" * 3000, "line 2004: a configuration has at most 2,000 sections"),
    (NET + "# " + "x" * 2_000_000, "a configuration has at most 1,048,576 characters"),
    (NET + CONV + "[route]\nlayers=" + "-1," * 100_000 + "-1\n" + YOLO, "at most 2,000 values, got 100,001"),
]


@pytest.mark.parametrize(("text", "said"), MALFORMED, ids=[said[:50] for _, said in MALFORMED])
def test_what_makes_no_sense_is_refused_by_line_at_once_and_without_memory(text: str, said: str) -> None:
    tracemalloc.start()
    with pytest.raises(CheckpointRefused) as caught:
        plan(text, "net.cfg")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith("net.cfg: ")
    assert said in message
    assert "\n" not in message
    assert len(message) < 400
    assert peak < 40 * len(text) + 2_000_000
    assert min(_seconds(text) for _ in range(3)) < 0.1


def test_a_large_network_is_planned_in_milliseconds() -> None:
    text = yolov4()
    best = min(_seconds(text) for _ in range(5))
    assert best < 0.1


def _seconds(text: str) -> float:
    started = time.perf_counter()
    with suppress(CheckpointRefused):
        plan(text)
    return time.perf_counter() - started


def test_blanks_comments_and_other_names_are_read_as_darknet_reads_them() -> None:
    plain = plan(NET + CONV + YOLO)
    odd = "\ufeff# made by hand\r\n" + (NET + CONV + YOLO).replace("\n", "\r\n").replace("=", " =\t")
    odd = (
        odd.replace("[net]", "[network] ; old")
        .replace("[convolutional]", "[conv]")
        .replace("0,1", "0, 1 # two of them")
    )
    odd = odd.replace("filters =\t16", "filters=16\r\nfilters=17")  # the first of two counts
    again = plan(odd)
    assert [layer.shape for layer in again.layers] == [layer.shape for layer in plain.layers] == [(16, 32, 32)] * 2
    assert again.layers[1].line == plain.layers[1].line + 2


def test_a_stranger_cannot_forge_or_flood_the_message() -> None:
    with pytest.raises(CheckpointRefused) as caught:
        plan(NET + "[\x1b[31m" + "x" * 5000 + "\u2028error]\n")
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


NUMBERS = st.sampled_from(
    [
        "-1",
        "0",
        "1",
        "2",
        "3",
        "4",
        "16",
        "-2",
        "64",
        "1e9",
        "1000000000",
        "9" * 40,
        "nan",
        "-inf",
        "0x1",
        "",
        "1,2",
        "-1,-2",
        "½",
    ]
)
KEYS = (
    "filters size stride pad padding groups group_id dilation activation batch_normalize layers from classes num mask anchors "
    "coords side softmax sqrt output height width channels temperature scale scale_x_y new_coords unknown"
)
SECTIONS = st.sampled_from([*KINDS, "net", "lstm", "", "]"])


@given(
    st.lists(st.tuples(SECTIONS, st.lists(st.tuples(st.sampled_from(KEYS.split()), NUMBERS), max_size=6)), max_size=12)
)
def test_any_sections_are_planned_or_refused(sections: list[tuple[str, list[tuple[str, str]]]]) -> None:
    _planned_or_refused(
        NET + "".join(f"[{kind}]\n" + "".join(f"{k}={v}\n" for k, v in keys) for kind, keys in sections)
    )


@pytest.mark.slow
@given(
    st.sampled_from(TEXTS),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 40), st.text(max_size=12)), max_size=5),
)
def test_a_mutated_configuration_is_planned_or_refused(text: str, edits: list[tuple[int, int, str]]) -> None:
    for start, length, put in edits:
        text = text[:start] + put + text[start + length :]
    _planned_or_refused(text)


@given(st.sampled_from(TEXTS), st.lists(st.tuples(st.integers(0, 200), NUMBERS), max_size=4))
def test_a_configuration_with_other_numbers_is_planned_or_refused(text: str, edits: list[tuple[int, str]]) -> None:
    lines = text.split("\n")
    for index, value in edits:
        key, equals, _ = lines[index % len(lines)].partition("=")
        lines[index % len(lines)] = key + equals + (value if equals else "")
    _planned_or_refused("\n".join(lines))


@given(st.binary(max_size=300))
def test_any_text_is_planned_or_refused(data: bytes) -> None:
    _planned_or_refused(data.decode(errors="replace"))


def _planned_or_refused(text: str) -> None:
    """Refuse, or plan what can be run: a small one is run, so that shapes are what the plan says."""
    try:
        found = plan(text)
    except CheckpointRefused:
        return
    if (
        found.weights < 300_000
        and sum(layer.shape[0] * layer.shape[1] * layer.shape[2] for layer in found.layers) < 500_000
    ):
        network = Darknet(found).eval()
        assert weights_in(network) == found.weights
        with torch.no_grad():
            results = network.decode(network(torch.zeros(1, 3, *found.size_hw)))
        scores = results[1] if isinstance(results, tuple) else results
        assert scores.shape[-1] == found.classes
