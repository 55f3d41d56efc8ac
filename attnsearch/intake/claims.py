"""What a torch file claims to hold, weighed against its bytes before torch is let at it.

`torch.load(weights_only=True)` runs no code, yet believes every size it is told: it would make
terabytes of a file of one kilobyte. So the pickle in the file is read here first, by a machine
that knows the few operations `torch.save` writes and makes nothing but stand-ins. A file passes
where the tensors together are not much larger than the file.

Admitted are tables, lists, tuples, plain values and plain tensors. Sparse, quantised, nested and
meta tensors, sets, complex numbers, and parameters with attributes of their own are refused.
"""

import pickletools
import warnings
from dataclasses import dataclass
from itertools import islice
from math import prod
from typing import Any, BinaryIO, Final

from attnsearch.intake.archive import START, ArchiveError, Entry, read_directory
from attnsearch.intake.values import one_line, quote

MAX_PICKLE: Final = 8 * 2**20
"""Bytes; the training state of a model of 300 tensors has some 100 thousand."""
MAX_OPERATIONS: Final = 1_000_000
MAX_TENSORS: Final = 50_000
MAX_SHARING: Final = 4
"""Most bytes of all tensors together, in those of the file: a storage may have several names."""
MAX_VALUES: Final = 200_000
"""Values within values, one that is at several places counted at each."""
MAX_DEPTH: Final = 16
_MAX_AXES: Final = 16
_INT_BITS: Final = 64

_ITEM_BYTES: Final = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "complex64": 8, "complex128": 16,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
    "uint16": 2, "uint32": 4, "uint64": 8,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
}  # fmt: skip
_STORAGES: Final = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
_ITEMS: Final = {
    **{f"torch {name}": size for name, size in _ITEM_BYTES.items()},
    **{f"torch {name}": _ITEM_BYTES[of] for name, of in _STORAGES.items()},
    "torch.storage UntypedStorage": 1,
}
"""Bytes of a number, by the name of its type or of its storage's."""

_TABLE: Final = "collections OrderedDict"
_BYTES: Final = "_codecs encode"
_SIZE: Final = "torch Size"
_DEVICE: Final = "torch device"
_TENSOR: Final = "torch._utils _rebuild_tensor_v2"
_TENSOR_OF_TYPE: Final = "torch._utils _rebuild_tensor_v3"
_PARAMETER: Final = "torch._utils _rebuild_parameter"
_MADE: Final = frozenset(
    (_TABLE, _BYTES, _SIZE, _DEVICE, _TENSOR, _TENSOR_OF_TYPE, _PARAMETER, *_ITEMS)
)
_ODD: Final = ("torch._utils _rebuild_", "torch.serialization _get_layout")
"""How the names of tensors of other kinds begin."""

_VALUES: Final = frozenset(
    ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING")
)
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TAKEN: Final = {
    "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2, "REDUCE": 2, "BUILD": 1,
    "BINPERSID": 1,
}  # fmt: skip
"""How many values an operation takes off the stack."""
_TAKING_ALL: Final = frozenset(("TUPLE", "APPENDS", "SETITEMS"))
"""Operations that take those since the last mark."""


class ForeignError(ArchiveError):
    """A file names something beside plain values and tensors, which loading it might run."""


class _Table(dict[Any, Any]):
    """An OrderedDict, to which torch attaches the versions of a model's modules."""


@dataclass(frozen=True, slots=True)
class _Name:
    """What the file calls by name; nothing is looked up."""

    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    kind: str
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    plain: bool


def inspect_torch_file(file: BinaryIO) -> None:
    """Refuse a file that is not what `torch.save` writes of plain values and tensors.

    Raises:
        ForeignError: it names something else.
        ArchiveError: it is damaged, or claims more than it has; the message says what.
    """
    file.seek(0)
    if file.read(len(START)) != START:
        raise ArchiveError("it is of another kind")
    entries = read_directory(file)
    if "data.pkl" not in entries:
        raise ArchiveError("it is an archive of another kind")
    start, size = entries["data.pkl"]
    if size > MAX_PICKLE:
        raise ArchiveError(f"its table of contents has more than {MAX_PICKLE // 2**20} MiB")
    machine = _Machine(entries, room=MAX_SHARING * file.seek(0, 2))
    file.seek(start)
    _check_values(machine.run(file.read(size)))


class _Machine:
    """Runs a pickle as torch would, making stand-ins."""

    def __init__(self, entries: dict[str, Entry], room: int) -> None:
        """`room` is what all tensors may have together, in bytes."""
        self._entries = entries
        self._room = room
        self._tensors = 0
        self._kinds: dict[str, str] = {}
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, pickle: bytes) -> Any:
        """What the pickle describes."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of backslashes in names
                for operation, argument, _ in islice(pickletools.genops(pickle), MAX_OPERATIONS):
                    if operation.name == "STOP":
                        return self._stack.pop()
                    self._step(operation.name, argument)
        except ArchiveError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ArchiveError("its table of contents is damaged") from error
        raise ArchiveError("its table of contents has no end")

    def _step(self, operation: str, argument: Any) -> None:
        if operation in _TAKEN or operation in _TAKING_ALL:
            self._combine(operation, self._take(operation))
        elif operation in _VALUES:
            if isinstance(argument, int) and argument.bit_length() > _INT_BITS:
                raise ArchiveError(f"an integer of it has more than {_INT_BITS} bits")
            self._stack.append(argument)
        elif operation in _CONSTANTS:
            self._stack.append(_CONSTANTS[operation])
        elif operation in ("EMPTY_DICT", "EMPTY_LIST"):
            self._stack.append({} if operation == "EMPTY_DICT" else [])
        elif operation in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif operation in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif operation == "MARK":
            self._outer.append(self._stack)
            self._stack = []
        elif operation == "GLOBAL":
            if argument not in _MADE and not argument.startswith(_ODD):
                raise ForeignError(f"it names {one_line(argument.replace(' ', '.'), 100)}")
            self._stack.append(_Name(argument))
        elif operation != "PROTO":
            raise ForeignError(f"it has the operation {operation}")

    def _take(self, operation: str) -> list[Any]:
        if operation in _TAKING_ALL:
            taken, self._stack = self._stack, self._outer.pop()
            return taken
        count = _TAKEN[operation]
        if len(self._stack) < count:
            raise IndexError(operation)
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _combine(self, operation: str, values: list[Any]) -> None:
        """What an operation makes of the values it took, or does with them to the one below."""
        if operation == "REDUCE":
            self._stack.append(self._make(*values))
        elif operation == "BINPERSID":
            self._stack.append(self._storage(*values[0]))
        elif operation.startswith("TUPLE"):
            self._stack.append(tuple(values))
        elif operation.startswith("APPEND"):
            self._below(list).extend(values)
        elif operation.startswith("SETITEM"):
            table = self._below(dict, _Table)
            for key, value in zip(values[::2], values[1::2], strict=True):
                # Others may take for ever to hash, or say of themselves what they like.
                if type(key) not in (str, int):
                    raise ArchiveError("a table of it has keys that are neither text nor integers")
                table[key] = value
        elif self._below(_Table) is None or set(values[0]) != {"_metadata"}:
            raise ArchiveError("a table of it has attributes")

    def _below(self, *kinds: type) -> Any:
        if type(self._stack[-1]) not in kinds:
            raise TypeError(type(self._stack[-1]))
        return self._stack[-1]

    def _make(self, made: _Name, arguments: tuple[Any, ...]) -> Any:
        """What calling something gives."""
        name = made.name
        if name in (_TENSOR, _TENSOR_OF_TYPE):
            return self._tensor(*arguments, of_type=name == _TENSOR_OF_TYPE)
        if name == _PARAMETER:
            tensor, _, hooks = arguments
            return tensor if isinstance(tensor, _Tensor) and not hooks else _Tensor(plain=False)
        if name.startswith(_ODD):
            return _Tensor(plain=False)
        if name == _TABLE and not arguments:
            return _Table()
        if name == _DEVICE:
            return made
        # A copy each time, and the file may ask for many of one and the same.
        if name == _BYTES and isinstance(arguments[0], str) and arguments[1:] == ("latin1",):
            self._spend(len(arguments[0]))
            return arguments[0]
        if name == _SIZE and isinstance(arguments[0], tuple):
            self._spend(8 * len(arguments[0]))
            return arguments[0]
        raise ForeignError(f"it calls {name.replace(' ', '.')}")

    def _storage(self, kind: str, made: _Name, key: str, location: str, numbers: int) -> _Storage:
        """A storage that is as large as its entry."""
        del location  # on whatever device it was
        if kind != "storage" or type(key) is not str or type(numbers) is not int:
            raise TypeError(kind)
        entry = self._entries[f"data/{key}"]
        if self._kinds.setdefault(key, made.name) != made.name:
            raise ArchiveError(f"storage {quote(key)} is of two kinds")
        if numbers * _ITEMS[made.name] != entry.size:
            raise ArchiveError(
                f"storage {quote(key)} claims {quote(numbers)} numbers and has {entry.size} bytes"
            )
        return _Storage(made.name, entry.size)

    def _tensor(
        self,
        storage: _Storage,
        offset: int,
        sizes: tuple[int, ...],
        strides: tuple[int, ...],
        requires_grad: bool,  # noqa: FBT001 - the order is torch's
        hooks: Any,
        *rest: Any,
        of_type: bool,
    ) -> _Tensor:
        """A tensor that lies within its storage and has no more numbers than it."""
        kind, metadata = (rest[0].name, rest[1:]) if of_type else (storage.kind, rest)
        numbers = [offset, *sizes, *strides]
        if (
            not all(type(number) is int and number >= 0 for number in numbers)
            or len(sizes) != len(strides)
            or len(sizes) > _MAX_AXES
            or type(requires_grad) is not bool
        ):
            raise ArchiveError("a tensor of it has no proper sizes")
        count, item = prod(sizes), _ITEMS[kind]
        last = offset + sum(
            (size - 1) * stride for size, stride in zip(sizes, strides, strict=True)
        )
        # Where a tensor of nothing lies does not matter to torch.
        if count and (last + 1) * item > storage.size:
            raise ArchiveError(f"a tensor of {quote(sizes)} numbers lies outside its storage")
        if count * item > storage.size:
            raise ArchiveError(f"a tensor of {quote(sizes)} numbers is larger than its storage")
        self._tensors += 1
        if self._tensors > MAX_TENSORS:
            raise ArchiveError(f"it has more than {MAX_TENSORS:,} tensors")
        self._spend(count * item)
        return _Tensor(plain=not hooks and not any(metadata))

    def _spend(self, count: int) -> None:
        self._room -= count
        if self._room < 0:
            raise ArchiveError(f"its tensors have more than {MAX_SHARING} times its own bytes")


def _check_values(content: Any) -> None:
    """Refuse odd values by their names, and values within values without end."""
    waiting = [(content, 0, "it")]
    seen = 0
    while waiting:
        value, depth, name = waiting.pop()
        if isinstance(value, _Storage) or value == _Tensor(plain=False):
            raise ArchiveError(f"{one_line(name, 200)} is not a plain tensor of numbers")
        if isinstance(value, _Name) and value.name not in (_DEVICE, *_ITEMS):
            raise ForeignError(f"{one_line(name, 200)} is {value.name.replace(' ', '.')}")
        inner: list[tuple[str, Any]] = []
        if isinstance(value, dict):
            inner = [(str(key), each) for key, each in value.items()]
        elif isinstance(value, list | tuple):
            inner = [(name, each) for each in value]
        seen += len(inner)
        if seen > MAX_VALUES or (inner and depth == MAX_DEPTH):
            raise ArchiveError("its values are nested too deeply, or too many")
        waiting += [(each, depth + 1, key) for key, each in inner]
