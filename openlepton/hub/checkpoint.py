"""Foreign checkpoints (`.pt`, YOLOv5 v5.0 to v7.0) as data: nothing in them is run, imported or even looked up.

A checkpoint is a zip archive with a pickle, which describes whole Python objects, and the raw numbers beside it. The pickle
is read by a machine that cannot call anything (`openlepton.hub.pickled`); what it describes is then understood here, if
every global it mentions is one that such a checkpoint has. torch is not needed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openlepton.arrays import Array
from openlepton.errors import CheckpointRefused
from openlepton.hub.pickled import Global, Instance, Pickled, PickleError, read_pickle
from openlepton.hub.storages import STORAGES, Archive, TensorFacts, open_archive, tensor_facts

MAX_TENSORS = 20_000
MAX_DEPTH = 64
_PLAIN_VALUES = 10_000
_SHOWN = 5  # globals that an error names

_DTYPES = {"float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool"}
_PATHS = frozenset({"Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"})
KNOWN: Mapping[str, frozenset[str]] = {
    "torch": frozenset({"Size", "device", "Tensor", *STORAGES, *_DTYPES}),
    "torch._utils": frozenset(
        {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_parameter_with_state"}
    ),
    "torch.nn.parameter": frozenset({"Parameter"}),
    "collections": frozenset({"OrderedDict"}),
    "numpy": frozenset({"ndarray", "dtype"}),
    "numpy.core.multiarray": frozenset({"scalar", "_reconstruct"}),
    "numpy._core.multiarray": frozenset({"scalar", "_reconstruct"}),
    "_codecs": frozenset({"encode"}),
    "__builtin__": frozenset({"set", "frozenset"}),
    "builtins": frozenset({"set", "frozenset"}),
    # How images were prepared, which classifiers carry along.
    "torchvision.transforms.transforms": frozenset({"Compose", "Normalize", "Resize", "CenterCrop", "ToTensor"}),
    "torchvision.transforms.functional": frozenset({"InterpolationMode"}),
    "utils.augmentations": frozenset({"CenterCrop", "LetterBox", "ToTensor"}),
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
    "models.yolo": frozenset({"Detect.forward"}),  # a method that segmenters keep a reference to
}
"""Globals that YOLOv5 checkpoints mention, by module; beside them, classes of `models.*` and `torch.nn.modules.*`."""


@dataclass(frozen=True, slots=True)
class Module:
    """One module of a network as the checkpoint describes it."""

    kind: str
    """Its class, `torch.nn.modules.conv.Conv2d`."""
    settings: Mapping[str, Any]
    """Its plain attributes, such as `stride`."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says, as plain values and arrays."""

    size: int
    sha256: str
    kind: str
    """Class of the network, `models.yolo.DetectionModel`; "" where the file holds only named tensors."""
    part: str
    """Where the weights come from: "ema", "model" or "state_dict"."""
    names: tuple[str, ...]
    """Class names in order; empty where it has none."""
    classes: int | None
    strides: tuple[float, ...]
    yaml: Mapping[str, Any]
    """How the network was described; never evaluated."""
    state: Mapping[str, Array]
    """Tensors by the name that torch's `state_dict` gives them, in the precision they are stored in."""
    modules: Mapping[str, Module]
    """Modules by path; empty where the file holds only named tensors."""
    details: Mapping[str, Any]
    """What else it records: epoch, date, and so on."""
    globals: Mapping[str, int]
    """Every global it mentions, and how often."""


@dataclass(frozen=True, slots=True)
class GlobalUse:
    """A global that a checkpoint mentions."""

    name: str
    count: int
    known: bool
    """Whether a checkpoint of a network needs it."""


@dataclass(frozen=True, slots=True)
class TensorUse:
    """A tensor of a checkpoint."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Inspection:
    """Everything that can be told about a checkpoint without trusting it."""

    size: int
    sha256: str
    globals: tuple[GlobalUse, ...]
    """Unknown ones first, then by how often they are mentioned."""
    tensors: tuple[TensorUse, ...]
    details: Mapping[str, Any]
    """What the file records about itself."""
    problem: str | None
    """Why `read_checkpoint` refuses it, if it does."""


def known(found: Global) -> bool:
    """Return whether checkpoints of networks mention this global; other dotted names, which would look further, are not known."""
    if found.name in KNOWN.get(found.module, ()):
        return True
    if not found.name.isidentifier() or not all(part.isidentifier() for part in found.module.split(".")):
        return False
    return found.module.startswith(("models.", "torch.nn.modules.")) and not found.name.startswith("_")


def read_checkpoint(source: Path | bytes) -> Checkpoint:
    """Return what the checkpoint at a path, or in bytes, says.

    Raises:
        CheckpointRefused: It is not a torch checkpoint, is damaged, mentions a global that no network needs, or holds none.
    """
    with open_archive(source) as archive:
        return _checkpoint(archive, _pickled(archive))


def inspect_checkpoint(source: Path | bytes) -> Inspection:
    """Return a list of all that the checkpoint holds, whether or not it could be converted.

    Raises:
        CheckpointRefused: It is not a torch checkpoint, or is too damaged to be listed.
    """
    with open_archive(source) as archive:
        problem: str | None = None
        tensors: list[TensorUse] = []
        details: Mapping[str, Any] = {}
        try:
            pickled = read_pickle(archive.pickle())
        except PickleError as error:
            pickled, problem = Pickled(None, error.globals), f"its pickle cannot be read: {error}"
        else:
            details = _details(pickled.value)
            try:
                tensors = [
                    TensorUse(name, facts.shape, facts.dtype, facts.size) for name, facts in _all_tensors(pickled.value)
                ]
                _checkpoint(archive, pickled)
            except CheckpointRefused as error:
                problem = str(error)
        uses = [GlobalUse(str(found), count, known(found)) for found, count in pickled.globals.items()]
        uses.sort(key=lambda use: (use.known, -use.count, use.name))
        return Inspection(archive.size, archive.sha256, tuple(uses), tuple(tensors), details, problem)


def _pickled(archive: Archive) -> Pickled:
    try:
        return read_pickle(archive.pickle())
    except PickleError as error:
        _refuse_unknown(error.globals)
        raise CheckpointRefused(f"its pickle cannot be read: {error}") from None


def _refuse_unknown(mentioned: Mapping[Global, int]) -> None:
    unknown = sorted(str(found)[:120] for found in mentioned if not known(found))
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise CheckpointRefused(
            f"it mentions {', '.join(unknown[:_SHOWN])}{more}, which no network needs; nothing of it was run"
        )


def _checkpoint(archive: Archive, pickled: Pickled) -> Checkpoint:
    top = pickled.value
    _refuse_unknown(pickled.globals)
    part, network = _network(top)
    modules: dict[str, Module] = {}
    facts: dict[str, TensorFacts] = {}
    if part == "state_dict":
        facts = {key: found for key, value in _mapping(network).items() if (found := tensor_facts(value)) is not None}
        own: Mapping[str, Any] = {}
    else:
        own = _attributes(network)
        for path, module in _walk_modules(network):
            modules[path] = Module(str(module.of), _plain(_settings(module)))
            prefix = f"{path}." if path else ""
            facts |= {f"{prefix}{name}": found for name, found in _own_tensors(module)}
            if len(facts) > MAX_TENSORS:
                raise CheckpointRefused(f"more than {MAX_TENSORS:,} tensors")
    stride = tensor_facts(own.get("stride"))
    return Checkpoint(
        size=archive.size,
        sha256=archive.sha256,
        kind=str(network.of) if part != "state_dict" else "",
        part=part,
        names=_names(own.get("names")),
        classes=own.get("nc") if isinstance(own.get("nc"), int) else None,
        strides=tuple(archive.array(stride).astype(float).ravel().tolist()) if stride else (),
        yaml=_mapping(_plain(own.get("yaml"))),
        state={name: archive.array(found) for name, found in facts.items()},
        modules=modules,
        details=_details(top),
        globals={str(found): count for found, count in pickled.globals.items()},
    )


def _network(top: Any) -> tuple[str, Any]:
    """Return which part of the checkpoint is the network, and that part."""
    keys = _mapping(top)
    for part in ("ema", "model"):
        if _is_module(keys.get(part)):
            return part, keys[part]
    if _is_module(top):
        return "model", top
    for candidate in (keys.get("ema"), keys.get("model"), keys.get("state_dict"), top):
        tensors = [tensor_facts(value) for value in _mapping(candidate).values()]
        if tensors and all(found is not None for found in tensors):
            return "state_dict", candidate
    raise CheckpointRefused("it holds no network: neither a module under 'ema' or 'model' nor named tensors")


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return the text keys of a dict or of a described OrderedDict with their values; of anything else, nothing."""
    if isinstance(value, Instance) and value.of == Global("collections", "OrderedDict"):
        value = dict(pair for pair in value.pairs if isinstance(pair[0], str))
    return {key: item for key, item in value.items() if isinstance(key, str)} if isinstance(value, dict) else {}


def _attributes(module: Instance) -> Mapping[str, Any]:
    return _mapping(module.state)


def _is_module(value: Any) -> bool:
    return isinstance(value, Instance) and {"_modules", "_parameters", "_buffers"} <= _attributes(value).keys()


def _settings(module: Instance) -> Mapping[str, Any]:
    return {key: value for key, value in _attributes(module).items() if not key.startswith("_")}


def _own_tensors(module: Instance) -> Iterator[tuple[str, TensorFacts]]:
    attributes = _attributes(module)
    for name, value in (*_mapping(attributes["_parameters"]).items(), *_mapping(attributes["_buffers"]).items()):
        facts = tensor_facts(value)
        if facts is not None:
            yield name, facts


def _walk_modules(root: Instance) -> Iterator[tuple[str, Instance]]:
    """Return every module below `root` and itself, by path; described objects may share or contain each other."""
    waiting: list[tuple[str, Instance, int]] = [("", root, 0)]
    seen = 0
    while waiting:
        path, module, depth = waiting.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_TENSORS:
            raise CheckpointRefused("its modules contain each other without end")
        yield path, module
        children = _mapping(_attributes(module)["_modules"])
        prefix = f"{path}." if path else ""
        waiting += [(f"{prefix}{name}", child, depth + 1) for name, child in children.items() if _is_module(child)][
            ::-1
        ]


def _all_tensors(top: Any) -> Iterator[tuple[str, TensorFacts]]:
    """Return every tensor that is described anywhere, each once, under a path that says where."""
    waiting, seen = [("", top)], set[int]()
    while waiting:
        path, value = waiting.pop()
        facts = tensor_facts(value)
        if facts is not None:
            yield path.strip("."), facts
            continue
        if not isinstance(value, Instance | dict | list | tuple) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            inner = [(f"{path}.{key}" if not str(key).startswith("_") else path, item) for key, item in value.items()]
        elif isinstance(value, Instance):
            pairs = [(f"{path}.{key}", item) for key, item in value.pairs]
            inner = [*((path, item) for item in (value.args, value.state, value.items)), *pairs]
        else:
            inner = [(f"{path}.{index}", item) for index, item in enumerate(value)]
        waiting += inner[::-1]


def _names(value: Any) -> tuple[str, ...]:
    """Return class names from a list (to v6.1) or a dict by number (from v6.2)."""
    if isinstance(value, dict):
        if sorted(value, key=repr) != sorted(range(len(value)), key=repr):
            return ()
        value = [value[index] for index in range(len(value))]
    if not isinstance(value, list | tuple) or not all(isinstance(name, str | int) for name in value):
        return ()
    return tuple(str(name).strip() for name in value)


def _details(top: Any) -> Mapping[str, Any]:
    """Return the plain values that a checkpoint records beside its tensors."""
    keys = _mapping(top)
    details = {key: value for key, value in keys.items() if key not in ("model", "ema", "optimizer", "state_dict")}
    network = next((keys[part] for part in ("ema", "model") if _is_module(keys.get(part))), None)
    if network is not None:
        own = _attributes(network)
        details["network"] = {"class": str(network.of)} | {
            key: own[key] for key in ("nc", "names", "yaml") if key in own
        }
    return _mapping(_plain(details))


def _plain(value: Any) -> Any:
    """Return `value` with everything that is not a plain value written as text; bounded in depth and number."""
    left = _PLAIN_VALUES

    def plain(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > 8:
            return "..."
        match value:
            case None | bool() | int() | float() | str():
                return value if not isinstance(value, int) or abs(value) < 1 << 63 else "..."
            case list() | tuple():
                return [plain(item, depth + 1) for item in value[: max(left, 0)]]
            case dict():
                items = [pair for pair, _ in zip(value.items(), range(max(left, 0)), strict=False)]
                return {key if isinstance(key, int) else str(key): plain(item, depth + 1) for key, item in items}
            case Instance(Global(module), args) if module.startswith("pathlib"):
                return "/".join(part for part in args if isinstance(part, str))
            case Instance(Global() as of):
                return f"<{of}>"
        return f"<{value if isinstance(value, Global) else type(value).__name__}>"

    return plain(value, 0)
