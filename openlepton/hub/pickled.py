"""Pickles read as data: a machine for the pickle language that has no instruction to import, call or set anything.

Python's own unpickler runs what a pickle says. This one writes it down: a global stays a name (`Global`), and a call stays
a note of what was to be called with which arguments (`Instance`). What comes out is made of those two, `Persistent`, and
Python's plain values, so a hostile pickle can at worst be refused.
"""

import pickletools
from dataclasses import dataclass, field
from typing import Any

MAX_BYTES = 16 * 1024 * 1024
MAX_STEPS = 500_000


class PickleError(ValueError):
    """The bytes are not a pickle, are cut short, or pass a limit; `globals` are those mentioned up to there."""

    def __init__(self, message: str, mentioned: "dict[Global, int] | None" = None) -> None:
        super().__init__(message)
        self.globals = mentioned or {}


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function, never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


_GETATTR = (Global("__builtin__", "getattr"), Global("builtins", "getattr"))


@dataclass(eq=False, slots=True)
class Instance:
    """A call or an object that the pickle describes: nothing was called, no object was made."""

    of: Any
    """What was to be called, most often a `Global`."""
    args: tuple[Any, ...] = ()
    state: Any = None
    """What the object's attributes were to be."""
    items: list[Any] = field(default_factory=list)
    """What was to be appended or added to it."""
    pairs: list[tuple[Any, Any]] = field(default_factory=list)
    """What was to be set in it by key."""


@dataclass(frozen=True, slots=True)
class Persistent:
    """A reference to something outside the pickle; for torch, to a storage."""

    id: Any


@dataclass(frozen=True)
class Pickled:
    """What a pickle holds, and how often it mentions each global."""

    value: Any
    globals: dict[Global, int]


def read_pickle(data: bytes) -> Pickled:
    """Return what the pickle `data` describes, without doing any of it.

    Raises:
        PickleError: It is not a pickle, is cut short, or is longer than any checkpoint's.
    """
    if len(data) > MAX_BYTES:
        raise PickleError(f"{len(data):,} bytes, at most {MAX_BYTES:,} are read")
    machine = _Machine()
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if step == MAX_STEPS:
                raise PickleError(f"more than {MAX_STEPS:,} steps")
            machine.do(opcode.name, argument)
    except PickleError as error:
        raise PickleError(str(error), machine.globals) from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, Warning) as error:  # Warning: under `-W error`
        raise PickleError(f"not a complete pickle: {error}", machine.globals) from None
    return Pickled(machine.result, machine.globals)


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_TEXTS = {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_LITERALS = frozenset(_NUMBERS | _TEXTS | _BYTES)
_IGNORED = frozenset({"PROTO", "FRAME", "READONLY_BUFFER"})


class _Machine:
    """The stack, the marks and the memo of the pickle language, as `pickletools` documents it."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # one stack for every mark
        self.memo: dict[int, Any] = {}
        self.globals: dict[Global, int] = {}
        self.result: Any = None

    def do(self, name: str, argument: Any) -> None:
        """Perform one step; unknown ones are refused."""
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name not in _IGNORED:
            step = getattr(self, f"_{name.lower()}", None)
            if step is None:
                raise PickleError(f"the step {name} does not belong in a checkpoint")
            step(argument)

    def _take(self) -> list[Any]:
        above, self.stack = self.stack, self.below.pop()
        return above

    def _mention(self, value: Global) -> None:
        self.globals[value] = self.globals.get(value, 0) + 1
        self.stack.append(value)

    def _stop(self, _: Any) -> None:
        self.result = self.stack.pop()

    def _mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._take()

    def _pop_mark(self, _: Any) -> None:
        self._take()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    # memo

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index: int) -> None:
        value = self.memo[index]
        if isinstance(value, Global):
            self._mention(value)
        else:
            self.stack.append(value)

    _binget = _long_binget = _get

    # containers

    def _tuple(self, _: Any) -> None:
        items = self._take()
        self.stack.append(tuple(items))

    def _tuple1(self, _: Any) -> None:
        self._last(1)

    def _tuple2(self, _: Any) -> None:
        self._last(2)

    def _tuple3(self, _: Any) -> None:
        self._last(3)

    def _last(self, count: int) -> None:
        if len(self.stack) < count:
            raise PickleError("a tuple of more than there is")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _empty_list(self, _: Any) -> None:
        self.stack.append([])

    def _list(self, _: Any) -> None:
        items = self._take()
        self.stack.append(items)

    def _empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def _dict(self, _: Any) -> None:
        flat = self._take()
        self.stack.append({})
        self._set(flat)

    def _empty_set(self, _: Any) -> None:
        self.stack.append(Instance(Global("builtins", "set")))

    def _frozenset(self, _: Any) -> None:
        items = self._take()
        self.stack.append(Instance(Global("builtins", "frozenset"), items=items))

    def _append(self, _: Any) -> None:
        value = self.stack.pop()
        self._extend([value])

    def _appends(self, _: Any) -> None:
        self._extend(self._take())

    _additems = _appends

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list | Instance):
            raise PickleError(f"items are appended to a {type(target).__name__}")
        (target if isinstance(target, list) else target.items).extend(values)

    def _setitem(self, _: Any) -> None:
        value = self.stack.pop()
        self._set([self.stack.pop(), value])

    def _setitems(self, _: Any) -> None:
        self._set(self._take())

    def _set(self, flat: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            if isinstance(target, Instance):
                target.pairs.append((key, value))
            elif isinstance(target, dict):
                target[_key(key)] = value
            else:
                raise PickleError(f"keys are set in a {type(target).__name__}")

    # names, calls, objects

    def _global(self, both: str) -> None:
        module, _, name = both.partition(" ")
        self._mention(Global(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise PickleError("the name of a global is not text")
        self._mention(Global(module, name))

    def _ext(self, code: int) -> None:
        self._mention(Global("copyreg", f"extension {code}"))

    _ext1 = _ext2 = _ext4 = _ext

    def _reduce(self, _: Any) -> None:
        args = self.stack.pop()
        of = self.stack.pop()
        if of in _GETATTR and isinstance(args, tuple) and [type(arg) for arg in args] == [Global, str]:
            self.globals[of] -= 1  # how older pickles name a method: as an attribute of its class
            if not self.globals[of]:
                del self.globals[of]
            self._mention(Global(args[0].module, f"{args[0].name}.{args[1]}"))
        else:
            self._note(of, args)

    def _newobj(self, _: Any) -> None:
        args = self.stack.pop()
        self._note(self.stack.pop(), args)

    def _newobj_ex(self, _: Any) -> None:
        options, args = self.stack.pop(), self.stack.pop()
        self._note(self.stack.pop(), (args, options))

    def _obj(self, _: Any) -> None:
        of, *args = self._take()
        self._note(of, tuple(args))

    def _inst(self, both: str) -> None:
        args = self._take()
        self._global(both)
        self._note(self.stack.pop(), tuple(args))

    def _note(self, of: Any, args: Any) -> None:
        if not isinstance(args, tuple):
            raise PickleError("the arguments of a call are not a tuple")
        self.stack.append(Instance(of, args))

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Instance):
            raise PickleError(
                f"attributes are set on {target if isinstance(target, Global) else type(target).__name__}"
            )
        if target.state is not None:
            raise PickleError(f"the attributes of a {target.of} are set twice")
        target.state = state

    def _binpersid(self, _: Any) -> None:
        self.stack.append(Persistent(self.stack.pop()))


def _key(key: Any) -> Any:
    """Return `key`, or a stand-in where hashing it could be slow (colliding numbers) or deep (tuples in tuples)."""
    quick = key is None or isinstance(key, str | bytes) or (isinstance(key, int) and abs(key) < 1 << 60)
    return key if quick else _Odd(type(key).__name__)


@dataclass(eq=False, frozen=True, slots=True)
class _Odd:
    """Stands for a dictionary key that no checkpoint has."""

    kind: str
