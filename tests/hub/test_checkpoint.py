"""Reading foreign checkpoints: what is there comes out right, and nothing of them is ever run."""

import contextlib
import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openlepton.errors import CheckpointRefused
from openlepton.hub.checkpoint import inspect_checkpoint, known, read_checkpoint
from openlepton.hub.pickled import Global, Instance, PickleError, read_pickle
from openlepton.hub.storages import tensor_facts

ArchiveOf = Callable[..., bytes]


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def call(module: str, name: str, *args: str) -> bytes:
    """A pickle that Python's own reader would take as `module.name(*args)`."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + b"".join(map(text, args)) + b"tR."


def stack_call(module: str, name: str, *args: str) -> bytes:
    """The same with a name that may have dots."""
    return b"\x80\x04" + text(module) + text(name) + b"\x93(" + b"".join(map(text, args)) + b"tR."


def method_call(builtins: str, module: str, name: str, method: str) -> bytes:
    """A pickle that Python's own reader would take as a call of `module.name.method`, which it finds by `getattr`."""
    found = f"c{builtins}\ngetattr\nc{module}\n{name}\n".encode() + text(method) + b"\x86R"
    return b"\x80\x02" + found + b"(" + text("touch pwned") + b"tR."


def tensor(key: str, shape: tuple[int, ...], kind: str = "FloatStorage", /, **lies: Any) -> bytes:
    """The steps that describe a contiguous tensor; `lies` replace its offset, strides or number of elements."""
    strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    facts = {"offset": 0, "shape": shape, "strides": strides, "elements": int(np.prod(shape))} | lies
    numbers = {name: pickle.dumps(value, 2)[2:-1] for name, value in facts.items()}
    storage = (
        b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + numbers["elements"] + b"tQ"
    )
    rest = numbers["offset"] + numbers["shape"] + numbers["strides"] + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def state_dict(**tensors: bytes) -> bytes:
    body = b"".join(text(name) + steps for name, steps in tensors.items())
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + body + b"u."


# what is there comes out right


def test_a_published_checkpoint_says_what_it_is(published: Path) -> None:
    found = read_checkpoint(published)
    assert (found.kind, found.part, found.strides) == ("models.yolo.DetectionModel", "model", (8.0, 16.0, 32.0))
    assert found.names == tuple(f"class{i}" for i in range(80))
    assert found.yaml["depth_multiple"] == 0.33
    assert len(found.state) == 349
    assert found.state["model.0.conv.weight"].shape == (16, 3, 6, 6)
    assert found.state["model.0.conv.weight"].dtype == np.float16
    assert found.state["model.0.bn.num_batches_tracked"].dtype == np.int64
    assert found.state["model.24.anchors"][0].tolist() == [[1.25, 1.625], [2.0, 3.75], [4.125, 2.875]]
    assert found.modules["model.0.bn"].settings["eps"] == 0.001
    assert found.modules["model.24"].settings["f"] == [17, 20, 23]
    assert found.details["date"] == "2026-11-23"
    assert found.details["opt"] == {"weights": "yolov5.pt", "imgsz": 640}
    assert found.size == published.stat().st_size
    assert read_checkpoint(published.read_bytes()).sha256 == found.sha256


def test_arrays_equal_what_torch_loads(published: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    base = torch.arange(60, dtype=torch.float32)
    tensors = {
        "half": torch.randn(3, 4).half(),
        "bfloat16": torch.randn(5).bfloat16(),
        "double": torch.randn(2, 2, 2).double(),
        "long": torch.tensor([1, -(2**40)]),
        "bool": torch.tensor([True, False, True]),
        "byte": torch.tensor([0, 255], dtype=torch.uint8),
        "scalar": torch.tensor(7.5),
        "empty": torch.zeros(0, 3),
        "transposed": base[:12].view(3, 4).T,
        "slice": base.view(6, 10)[1:4, 2:5],
        "parameter": torch.nn.Parameter(torch.randn(3)),
    }
    torch.save(tensors, tmp_path / "named.pt")
    state = read_checkpoint(tmp_path / "named.pt").state
    assert state.keys() == tensors.keys()
    for name, wanted in tensors.items():
        wanted = wanted.detach().float().numpy() if name == "bfloat16" else wanted.detach().numpy()
        assert state[name].dtype == wanted.dtype
        assert np.array_equal(state[name], wanted)


def test_big_endian_archives_are_read(archive_of: ArchiveOf) -> None:
    values = np.array([1.5, -2.25], ">f4")
    data = archive_of(state_dict(w=tensor("0", (2,))), {"net/data/0": values.tobytes(), "net/byteorder": b"big"})
    assert read_checkpoint(data).state["w"].tolist() == [1.5, -2.25]


def test_inspection_lists_globals_tensors_and_details(published: Path) -> None:
    found = inspect_checkpoint(published)
    assert found.problem is None
    assert len(found.tensors) == 357  # the state, the strides, and grids that the head keeps
    first = found.tensors[0]
    assert (first.name, first.shape, first.dtype, first.size) == (
        "model.model.0.conv.weight",
        (16, 3, 6, 6),
        "float16",
        3456,
    )
    counts = {use.name: use.count for use in found.globals}
    assert counts["torch._utils._rebuild_tensor_v2"] == 357
    assert counts["models.common.Conv"] == 57
    assert all(use.known for use in found.globals)
    assert found.details["network"]["class"] == "models.yolo.DetectionModel"


def test_inspection_lists_what_reading_refuses(archive_of: ArchiveOf) -> None:
    found = inspect_checkpoint(archive_of(call("os", "system", "false")))
    assert [(use.name, use.count, use.known) for use in found.globals] == [("os.system", 1, False)]
    assert found.problem is not None
    assert "it mentions os.system, which no network needs" in found.problem


def test_inspection_of_half_a_pickle_still_lists_its_globals(archive_of: ArchiveOf) -> None:
    found = inspect_checkpoint(archive_of(call("os", "system", "false")[:-3]))
    assert [use.name for use in found.globals] == ["os.system"]
    assert found.problem is not None
    assert "its pickle cannot be read" in found.problem


# nothing is run

HOSTILE: dict[str, tuple[bytes, str]] = {
    "system": (call("os", "system", "touch pwned"), "os.system"),
    "posix": (call("posix", "system", "touch pwned"), "posix.system"),
    "eval": (call("builtins", "eval", "open('pwned','w')"), "builtins.eval"),
    "exec": (call("__builtin__", "exec", "open('pwned','w')"), "__builtin__.exec"),
    "getattr": (call("builtins", "getattr", "a", "b"), "builtins.getattr"),
    "method": (method_call("__builtin__", "os", "system", "__call__"), "os.system.__call__"),
    "method of a network": (method_call("builtins", "models.yolo", "Detect", "__init__"), "models.yolo.Detect.__init__"),
    "getattr twice": (
        method_call("builtins", "models.yolo", "Detect", "forward")[:-1] + b"cbuiltins\ngetattr\n.",
        "builtins.getattr",
    ),
    "import": (call("importlib", "import_module", "antigravity"), "importlib.import_module"),
    "hub": (call("torch.hub", "load", "evil/repo", "net"), "torch.hub.load"),
    "load": (call("torch", "load", "other.pt"), "torch.load"),
    "write_text": (stack_call("pathlib", "Path.write_text", "pwned", "x"), "pathlib.Path.write_text"),
    "load_library": (call("numpy.ctypeslib", "load_library", "evil", "."), "numpy.ctypeslib.load_library"),
    "spawn": (call("multiprocessing.util", "spawnv_passfds", "/bin/sh"), "multiprocessing.util.spawnv_passfds"),
    "read_csv": (call("pandas", "read_csv", "http://127.0.0.1:9/x"), "pandas.read_csv"),
    "unknown": (call("models_of_mine", "Net"), "models_of_mine.Net"),
    "dotted": (stack_call("models.yolo", "os.system", "touch pwned"), "models.yolo.os.system"),
    "dotted torch": (stack_call("torch.nn.modules.module", "torch.os.system", "x"), "torch.nn.modules.module.torch.os.system"),
    "private": (call("torch.nn.modules.module", "_load"), "torch.nn.modules.module._load"),
    "space": (b"\x80\x02cmodels.yolo os\nsystem\n)R.", "models.yolo.os system"),
    "inst": (b"(S'touch pwned'\nios\nsystem\n.", "os.system"),
    "obj": (b"\x80\x02(cos\nsystem\n" + text("touch pwned") + b"o.", "os.system"),
    "newobj": (b"\x80\x02cos\nsystem\n(" + text("touch pwned") + b"t\x81.", "os.system"),
    "extension": (b"\x80\x02\x82\x01)R.", "copyreg.extension 1"),
    "setstate": (
        b"\x80\x02cmodels.yolo\nModel\n)\x81}(" + text("__setstate__") + b"cos\nsystem\nub.",
        "os.system",
    ),
    "hidden": (
        b"\x80\x02}(" + text("model") + b"N" + text("optimizer") + call("os", "system", "touch pwned")[2:-1] + b"u.",
        "os.system",
    ),
    "popped": (b"\x80\x02cos\nsystem\n(" + text("touch pwned") + b"tR0N.", "os.system"),
    "path": (call("pathlib", "PosixPath", "/etc/passwd"), "holds no network"),
    "allowed call": (call("models.yolo", "Model", "yolov5n.yaml"), "holds no network"),
    "bare class": (b"\x80\x02cmodels.yolo\nModel\n}" + text("a") + text("b") + b"sb.", "attributes are set on models.yolo.Model"),
    "persistent text": (b"Pstorage\n.", "the step PERSID does not belong in a checkpoint"),
    "deep": (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "holds no network"),
    "deep key": (b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.", "holds no network"),
    "colliding keys": (
        b"\x80\x02}(" + b"".join(pickle.dumps(n * (2**61 - 1), 2)[2:-1] + b"N" for n in range(2, 40_000)) + b"u.",
        "holds no network",
    ),
    "list in itself": (b"\x80\x02]q\x00h\x00a.", "holds no network"),
    "module in itself": (
        b"\x80\x02}" + text("model") + b"cmodels.yolo\nModel\n)\x81q\x00}("
        + text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + b"}" + text("a") + b"h\x00su"
        + b"bs.",
        "its modules contain each other without end",
    ),
}  # fmt: skip

WATCH = """
import json, sys
from openlepton.hub.checkpoint import inspect_checkpoint, read_checkpoint
warm, hostile = json.load(sys.stdin)
read_checkpoint(bytes.fromhex(warm))  # what reading itself imports is imported before the watch begins
seen, watching = [], False
def watch(event, args):
    if watching and event != "builtins.id":  # asking for an object's identity does nothing
        seen.append([event, repr(args)[:80]])
sys.addaudithook(watch)
report = {}
for name, data in hostile.items():
    data = bytes.fromhex(data)
    for read in (read_checkpoint, inspect_checkpoint):
        seen.clear()
        watching = True
        try:
            result = read(data)
            outcome = result.problem if read is inspect_checkpoint else "read"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        watching = False
        report[f"{name}/{read.__name__}"] = [outcome, list(seen)]
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, list[list[str]]]]:
    """Read every hostile checkpoint in a process whose every audited act is recorded."""

    def archive(pickled: bytes) -> str:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as entries:
            entries.writestr("net/data.pkl", pickled)
            entries.writestr("net/data/0", np.zeros(2, np.float32).tobytes())
        return buffer.getvalue().hex()

    job = [archive(state_dict(w=tensor("0", (2,)))), {name: archive(pickled) for name, (pickled, _) in HOSTILE.items()}]
    folder = tmp_path_factory.mktemp("watched")
    done = subprocess.run(
        [sys.executable, "-c", WATCH], input=json.dumps(job), capture_output=True, text=True, check=True, cwd=folder
    )
    assert list(folder.iterdir()) == []
    report: dict[str, tuple[str, list[list[str]]]] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_in_a_hostile_checkpoint_is_run(name: str, watched: dict[str, tuple[str, list[list[str]]]]) -> None:
    outcome, events = watched[f"{name}/read_checkpoint"]
    assert events == []
    assert outcome.startswith("CheckpointRefused: checkpoint: ")
    assert HOSTILE[name][1] in outcome
    outcome, events = watched[f"{name}/inspect_checkpoint"]
    assert events == []
    assert HOSTILE[name][1] in outcome


def test_the_watch_would_see_an_import_and_a_file(tmp_path: Path) -> None:
    code = WATCH.replace("result = read(data)", "import this; open('x', 'w'); result = read(data)")
    warm = io.BytesIO()
    with zipfile.ZipFile(warm, "w") as entries:
        entries.writestr("net/data.pkl", state_dict(w=tensor("0", (1,))))
        entries.writestr("net/data/0", b"1234")
    job = json.dumps([warm.getvalue().hex(), {"a": warm.getvalue().hex()}])
    done = subprocess.run(
        [sys.executable, "-c", code], input=job, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    events = {event for event, _ in json.loads(done.stdout.splitlines()[-1])["a/read_checkpoint"][1]}
    assert {"import", "open"} <= events


def test_an_unknown_global_beside_a_good_network_is_refused(published: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil.pt"
    with zipfile.ZipFile(published) as source, zipfile.ZipFile(evil, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                data = data[:-2] + text("extra") + call("os", "system", "false")[2:-1] + data[-2:]
            target.writestr(entry.filename, data)
    with pytest.raises(
        CheckpointRefused, match=r"evil\.pt: it mentions os\.system, which no network needs; nothing of it was run"
    ):
        read_checkpoint(evil)


def test_many_unknown_globals_are_named_in_part(archive_of: ArchiveOf) -> None:
    body = b"".join(f"cevil\nname{i}\n0".encode() for i in range(9))
    with pytest.raises(CheckpointRefused, match=r"evil\.name0, .*evil\.name4 and 4 more, which no network needs"):
        read_checkpoint(archive_of(b"\x80\x02" + body + b"N."))


@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [
        ("models.yolo", "DetectionModel", True),
        ("models.common", "C3", True),
        ("torch.nn.modules.conv", "Conv2d", True),
        ("torch", "HalfStorage", True),
        ("torch._utils", "_rebuild_tensor_v2", True),
        ("pathlib._local", "PosixPath", True),
        ("numpy._core.multiarray", "scalar", True),
        ("collections", "OrderedDict", True),
        ("models", "Model", False),
        ("models.yolo", "Model.forward", False),
        ("models.yolo", "Detect.forward", True),  # segmenters keep a reference to it
        ("models.common", "Detect.forward", False),
        ("models.yolo.", "Model", False),
        ("models..yolo", "Model", False),
        ("modelsx.yolo", "Model", False),
        ("torch", "load", False),
        ("torch.storage", "_load_from_bytes", False),
        ("torch.nn.modules", "Module", False),
        ("builtins", "getattr", False),
        ("numpy", "load", False),
        ("collections", "namedtuple", False),
        ("", "", False),
    ],
)
def test_only_what_networks_need_is_known(module: str, name: str, expected: bool) -> None:
    assert known(Global(module, name)) is expected


# damaged and foreign files

FOREIGN = {
    "nothing": (b"", "an empty file"),
    "text": (b"hello, this is not a checkpoint", "not a torch checkpoint"),
    "legacy": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "in the format of torch before 1.6"),
    "pickle": (pickle.dumps({"a": 1}), "a bare pickle"),
    "safetensors": (struct.pack("<Q", 20) + b'{"__metadata__": {}} ' + b" " * 9, "a safetensors file"),
    "keras": (b"\x89HDF\r\n\x1a\n" + b"\0" * 8, "an HDF5 file"),
    "cut zip": (b"PK\x03\x04" + b"\0" * 60, "a damaged or truncated zip archive"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_named_for_what_they_are(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(FOREIGN[name][0])
    for read in (read_checkpoint, inspect_checkpoint):
        with pytest.raises(CheckpointRefused) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: {FOREIGN[name][1]}")


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointRefused, match=r"none\.pt: No such file"):
        read_checkpoint(tmp_path / "none.pt")


def test_a_truncated_checkpoint_is_damaged(published: Path) -> None:
    data = published.read_bytes()
    for keep in (40, len(data) // 2, len(data) - 1):
        with pytest.raises(CheckpointRefused, match="damaged or truncated"):
            read_checkpoint(data[:keep])


def test_a_flipped_bit_in_the_numbers_is_noticed(published: Path) -> None:
    data = bytearray(published.read_bytes())
    data[len(data) // 2] ^= 1
    with pytest.raises(CheckpointRefused, match="the archive is damaged at 'yolov5n/data/"):
        read_checkpoint(bytes(data))


GOOD = state_dict(w=tensor("0", (2,)))
ARCHIVES: dict[str, tuple[dict[str, bytes], str]] = {
    "up": ({"net/../../evil": b""}, "an entry with the path 'net/../../evil'"),
    "root": ({"/etc/evil": b""}, "an entry with the path '/etc/evil'"),
    "drive": ({"C:/evil": b""}, "an entry with the path 'C:/evil'"),
    "backslash": ({"net\\evil": b""}, "an entry with the path 'net\\\\\\\\evil'"),
    "two pickles": ({"other/data.pkl": GOOD}, "it has no data.pkl"),
    "script": ({"net/constants.pkl": b""}, "a TorchScript program"),
    "many": ({f"net/x{i}": b"" for i in range(20_001)}, "at most 20,000 are read"),
    "no storage": ({"net/data/0": b""}, "storage 0 has 0 bytes, 8 were due"),
    "long storage": ({"net/data/0": b"0" * 12}, "storage 0 has 12 bytes, 8 were due"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_strange_archives_are_refused(name: str, archive_of: ArchiveOf) -> None:
    entries, message = ARCHIVES[name]
    with pytest.raises(CheckpointRefused) as caught:
        read_checkpoint(archive_of(GOOD, {"net/data/0": b"0" * 8} | entries))
    assert message.replace("\\\\\\\\", "\\\\") in str(caught.value)


def test_entries_of_the_same_name_are_refused(archive_of: ArchiveOf) -> None:
    buffer = io.BytesIO(archive_of(GOOD, {"net/data/0": b"0" * 8}))
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("net/data/0", b"1" * 8)
    with pytest.raises(CheckpointRefused, match="two entries 'net/data/0'"):
        read_checkpoint(buffer.getvalue())


def test_compressed_entries_are_refused(archive_of: ArchiveOf) -> None:
    bomb = archive_of(GOOD, {"net/data/0": b"\0" * 50_000_000}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    with pytest.raises(CheckpointRefused, match="is compressed or encrypted, which torch never does"):
        read_checkpoint(bomb)


def test_a_pickle_of_enormous_size_is_refused(archive_of: ArchiveOf) -> None:
    with pytest.raises(CheckpointRefused, match="its pickle has more than 16,777,216 bytes"):
        read_checkpoint(archive_of(b"\x80\x02N." + b"\0" * (16 << 20)))


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "beyond": ({"elements": 1}, "reaches beyond its storage of 1 elements"),
    "offset": ({"offset": 1}, "reaches beyond its storage of 2 elements"),
    "negative offset": ({"offset": -1}, "offset -1"),
    "stride": ({"strides": (2,)}, "reaches beyond"),
    "negative stride": ({"strides": (-1,)}, "an impossible shape"),
    "ranks": ({"strides": (1, 1)}, "strides (1, 1)"),
    "repeated": ({"shape": (10**9,), "strides": (0,)}, "reaches beyond its storage of 2 elements"),
    "huge": ({"shape": (1 << 50,), "strides": (0,)}, "an impossible shape"),
    "text": ({"shape": ("two",)}, "an impossible shape"),
    "true": ({"shape": (True,)}, "an impossible shape"),
    "dimensions": ({"shape": (1,) * 9, "strides": (1,) * 9}, "no shape"),
    "no tuple": ({"shape": 2}, "no shape"),
    "elements": ({"elements": -1}, "offset 0"),
}


@pytest.mark.parametrize("name", LIES)
def test_tensors_that_cannot_be_are_refused(name: str, archive_of: ArchiveOf) -> None:
    lies, message = LIES[name]
    data = archive_of(state_dict(w=tensor("0", (2,), **lies)), {"net/data/0": b"0" * 8})
    with pytest.raises(CheckpointRefused) as caught:
        read_checkpoint(data)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("key", "kind"), [("../data.pkl", "FloatStorage"), ("7", "FloatStorage"), ("0", "QInt8Storage")]
)
def test_storages_that_are_not_there_are_refused(key: str, kind: str, archive_of: ArchiveOf) -> None:
    with pytest.raises(CheckpointRefused, match="lacks|QInt8Storage"):
        read_checkpoint(archive_of(state_dict(w=tensor(key, (2,), kind)), {"net/data/0": b"0" * 8}))


def test_one_storage_is_kept_once_however_many_tensors_lie_in_it(archive_of: ArchiveOf) -> None:
    tensors = {f"t{i}": tensor("0", (1_000_000,)) for i in range(500)}  # 2 GB if each were a copy
    state = read_checkpoint(archive_of(state_dict(**tensors), {"net/data/0": bytes(4_000_000)})).state
    assert len(state) == 500
    assert all(np.shares_memory(array, state["t0"]) for array in state.values())


# the machine itself


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_out_as_python_reads_them(protocol: int) -> None:
    value: Any = {
        "numbers": [0, 1, -1, 255, 256, 70_000, -(2**31), 2**40, 2**70, 1.5, -0.0, 1e300],
        "texts": ["", "a", "ä模", "x" * 300, "line\nbreak\\'"],
        "others": (None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        7: [[], {}, [[1]], {"a": {"b": []}}],
    }
    assert read_pickle(pickle.dumps(value, protocol)).value == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_objects_come_out_as_notes(protocol: int) -> None:
    noted = read_pickle(pickle.dumps([OrderedDict(a=1), np.float64(2.0)], protocol))
    ordered, number = noted.value
    assert isinstance(ordered, Instance)
    assert ordered.of == Global("collections", "OrderedDict")
    assert isinstance(number, Instance)
    assert {found.module for found in noted.globals} <= {"collections", "numpy", "numpy._core.multiarray",
                                                         "numpy.core.multiarray", "_codecs"}  # fmt: skip


def test_a_pickle_without_end_is_refused() -> None:
    with pytest.raises(PickleError, match="more than 500,000 steps"):
        read_pickle(b"\x80\x02" + b"N0" * 250_000 + b"N.")


@settings(max_examples=400)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(PickleError):
        tensor_facts(read_pickle(data).value)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@settings(max_examples=300)
@given(data=st.data())
def test_a_checkpoint_with_any_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    pickled = bytearray(
        b"\x80\x02}("
        + text("model")
        + state_dict(a=tensor("0", (2,)), b=tensor("1", (2, 2), "HalfStorage"))[2:-1]
        + b"u."
    )
    for _ in range(data.draw(st.integers(0, 4))):
        pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("net/data.pkl", bytes(pickled))
        archive.writestr("net/data/0", b"0" * 8)
        archive.writestr("net/data/1", b"0" * 8)
    for read in (read_checkpoint, inspect_checkpoint):
        with contextlib.suppress(CheckpointRefused):
            read(buffer.getvalue())


@settings(max_examples=300)
@given(data=st.data())
def test_an_archive_with_any_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("net/data.pkl", GOOD)
        archive.writestr("net/data/0", b"0" * 8)
    changed = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CheckpointRefused):
        read_checkpoint(bytes(changed))
