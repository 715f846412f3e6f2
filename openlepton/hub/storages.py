"""The archive of a torch checkpoint: a zip whose entries are checked before they are read, and tensors as NumPy arrays."""

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from openlepton.arrays import Array
from openlepton.errors import CheckpointRefused
from openlepton.hub.pickled import MAX_BYTES, Global, Instance, Persistent

MAX_ENTRIES = 20_000
MAX_DIMENSIONS = 8

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
"""Torch's storage types and what they hold; bfloat16, which NumPy lacks, is widened to float32."""

_PLAIN_PATH = re.compile(r"(?!\.\.?(/|$))[^/\\:\0]+(/(?!\.\.?(/|$))[^/\\:\0]+)*/?")
_MAGIC = (
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", "in the format of torch before 1.6: save it again with a newer torch"),
    (b"\x80", "a bare pickle, not a checkpoint archive"),
    (b"\x89HDF", "an HDF5 file, not a torch checkpoint"),
)


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """Where a tensor lies in its storage."""

    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...]
    offset: int
    key: str
    """Which storage."""
    elements: int
    """How many elements that storage has."""

    @property
    def size(self) -> int:
        """Bytes of the tensor's own elements."""
        return prod(self.shape) * _item(self.dtype)


def tensor_facts(value: Any) -> TensorFacts | None:
    """Return where the tensor that `value` describes lies, or nothing if it describes no tensor.

    Raises:
        CheckpointRefused: It describes a tensor that cannot be.
    """
    for _ in range(4):  # a parameter is a tensor in a wrapper
        if not isinstance(value, Instance) or not isinstance(value.of, Global) or value.of.module != "torch._utils":
            return None
        if value.of.name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            value = value.args[0] if value.args else None
        elif value.of.name in ("_rebuild_tensor", "_rebuild_tensor_v2") and len(value.args) >= 4:
            return _facts(*value.args[:4])
    return None


def _facts(storage: Any, offset: Any, shape: Any, strides: Any) -> TensorFacts:
    match storage:
        case Persistent(("storage", Global("torch", kind), str(key), str(), int(elements))) if kind in STORAGES:
            pass
        case _:
            raise CheckpointRefused("a tensor of it lies in no storage of a known type")
    shape, strides = _sizes(shape), _sizes(strides)
    if len(shape) != len(strides) or not isinstance(offset, int) or offset < 0 or elements < 0:
        raise CheckpointRefused(f"a tensor of it has shape {shape}, strides {strides}, offset {offset}")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    count = prod(shape)
    if count and (last >= elements or count > elements):
        raise CheckpointRefused(f"a tensor of shape {shape} reaches beyond its storage of {elements:,} elements")
    return TensorFacts(shape, STORAGES[kind], strides, offset, key, elements)


def _sizes(value: Any) -> tuple[int, ...]:
    if isinstance(value, Instance) and value.of == Global("torch", "Size") and len(value.args) == 1:
        value = value.args[0]
    if not isinstance(value, tuple | list) or len(value) > MAX_DIMENSIONS:
        raise CheckpointRefused("a tensor of it has no shape")
    if not all(type(n) is int and 0 <= n < 1 << 40 for n in value):
        raise CheckpointRefused("a tensor of it has an impossible shape")
    return tuple(value)


class Archive:
    """An open checkpoint: its pickle, and tensors by where they lie; made by `open_archive`."""

    def __init__(self, where: str, file: BinaryIO, size: int, sha256: str, entries: zipfile.ZipFile) -> None:
        self.where, self.file, self.size, self.sha256 = where, file, size, sha256
        self._zip = entries
        self._storages: dict[tuple[str, str], Array] = {}
        _check_entries(entries.infolist(), size)
        found = [name for name in entries.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(found) != 1:
            raise CheckpointRefused("a zip archive, but not of a torch checkpoint: it has no data.pkl")
        self._stem = found[0].removesuffix("data.pkl")
        if f"{self._stem}constants.pkl" in entries.namelist():
            raise CheckpointRefused("a TorchScript program, not a checkpoint: convert the checkpoint it was made from")
        order = f"{self._stem}byteorder"
        self._big = order in entries.namelist() and self._read(order).strip() == b"big"

    def _read(self, name: str) -> bytes:
        try:
            return self._zip.read(name)
        except KeyError:
            raise CheckpointRefused(f"the archive lacks {name!r}: it is damaged") from None
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError) as error:
            raise CheckpointRefused(f"the archive is damaged at {name!r}: {error}") from None

    def pickle(self) -> bytes:
        """Return the pickle that describes the checkpoint."""
        name = f"{self._stem}data.pkl"
        if self._zip.getinfo(name).file_size > MAX_BYTES:
            raise CheckpointRefused(f"its pickle has more than {MAX_BYTES:,} bytes")
        return self._read(name)

    def array(self, facts: TensorFacts) -> Array:
        """Return the tensor as an array, which must not be written to; bfloat16 comes back as float32."""
        storage = self._storage(facts.key, facts.dtype, facts.elements)
        item = storage.itemsize
        view = np.lib.stride_tricks.as_strided(
            storage[facts.offset :], facts.shape, tuple(step * item for step in facts.strides), writeable=False
        )
        return np.ascontiguousarray(view).reshape(facts.shape)

    def _storage(self, key: str, dtype: str, elements: int) -> Array:
        storage = self._storages.get((key, dtype))
        if storage is None:
            data = self._read(f"{self._stem}data/{key}")
            plain = "uint16" if dtype == "bfloat16" else dtype
            kind = np.dtype(plain).newbyteorder(">" if self._big else "<")
            if len(data) != elements * kind.itemsize:
                raise CheckpointRefused(f"storage {key} has {len(data):,} bytes, {elements * kind.itemsize:,} were due")
            storage = np.frombuffer(data, kind).astype(plain, copy=False)
            if dtype == "bfloat16":
                storage = (storage.astype(np.uint32) << 16).view(np.float32)
            self._storages[key, dtype] = storage
        if len(storage) != elements:
            raise CheckpointRefused(f"storage {key} is described with two sizes")
        return storage


@contextmanager
def open_archive(source: Path | bytes) -> Iterator[Archive]:
    """Open the checkpoint at a path or in bytes; errors of the whole `with` block name the file.

    Raises:
        CheckpointRefused: It is no zip archive, is damaged, or has entries that no checkpoint has.
    """
    where = "checkpoint" if isinstance(source, bytes) else str(source)
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            head, size = file.read(16), file.seek(0, io.SEEK_END)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if not head.startswith(b"PK\x03\x04"):
                raise CheckpointRefused(_what(head, size))
            try:
                entries = zipfile.ZipFile(file)
            except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
                raise CheckpointRefused(f"a damaged or truncated zip archive: {error}") from None
            with entries:
                yield Archive(where, file, size, sha256, entries)
    except CheckpointRefused as error:
        raise CheckpointRefused(f"{where}: {error}") from None
    except OSError as error:
        raise CheckpointRefused(f"{where}: {error.strerror or error}") from None


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    if len(entries) > MAX_ENTRIES:
        raise CheckpointRefused(f"an archive of {len(entries):,} entries, at most {MAX_ENTRIES:,} are read")
    names: set[str] = set()
    for entry in entries:
        if not _PLAIN_PATH.fullmatch(entry.orig_filename):
            raise CheckpointRefused(f"the archive has an entry with the path {entry.orig_filename[:80]!r}")
        if entry.filename in names:
            raise CheckpointRefused(f"the archive has two entries {entry.filename[:80]!r}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.file_size != entry.compress_size:
            raise CheckpointRefused(f"entry {entry.filename[:80]!r} is compressed or encrypted, which torch never does")
        names.add(entry.filename)
    if sum(entry.file_size for entry in entries) > size:
        raise CheckpointRefused("the archive claims more bytes than it has")


def _what(head: bytes, size: int) -> str:
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return "a safetensors file, not a torch checkpoint"
    return "an empty file" if not size else "not a torch checkpoint (a zip archive with a data.pkl)"


def _item(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
