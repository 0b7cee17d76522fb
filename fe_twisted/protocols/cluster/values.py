"""Values as octets, by their declared types: dataclasses, enums and what Python has itself.

A :class:`Codec` is made with the classes that may occur; from a type annotation it makes a function that writes values of it and one that
reads them, checking the type of everything.  Nothing is ever guessed from the form of a value, and no class is looked up by a name that
came over the wire, but for the members of a declared union.

What is written is a CBOR array of byte strings.  The first is the CBOR of the value; where the value holds long octets or many integers,
there stands a number instead, and they are that one of the further byte strings, as they are: messages and long lists go through no
encoder.  Integers in such a list are 64 bits each, little-endian (as in RFC 8746 tag 79).

==========================================  ===================================================================================
dataclass                                   map of its fields' names; those with their default value are left out
union of dataclasses                        array of the class's name and the map
enum                                        its value
list, tuple, frozenset, Sequence            array; those of integers, or of tuples of integers, may be a long list
datetime (aware), date                      ISO 8601
``list[tuple[Any, ...]]``                   rows of a table, column by column; they hold integers, octets, texts and None
==========================================  ===================================================================================
"""

from __future__ import annotations

import datetime
import enum
import sys
import types
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from itertools import accumulate, chain
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import cbor2

from fe_twisted.protocols.cluster.tags import REFUSED, refuse

T = TypeVar("T")

Buffer = bytes | bytearray | memoryview

#: Octets, and integers, from which on a value is put beside the CBOR and not into it.
LONG = 2048
MANY = 32

#: Nesting of the CBOR inside: a search program of the deepest kind that IMAP lets through takes four levels for each of its own.
MAX_DEPTH = 450

#: Byte strings beside the first at most.
MAX_PARTS = 200_000

_PLAIN: tuple[type, ...] = (int, str, bytes, bool, type(None))

Write = Callable[[Any, list[Buffer]], Any]
Read = Callable[[Any, list[bytes]], Any]


class BadValue(Exception):
    """Octets that are no value of the type; the text names the type, never the value."""


class Codec:
    """Writes and reads values of declared types.

    :param classes: every dataclass and enum that may occur.
    """

    def __init__(self, classes: Iterable[type]) -> None:
        self._classes = frozenset(classes)
        self._made: dict[Any, Shape] = {}

    def shape(self, annotation: Any) -> Shape:
        """How values of a type are written and read.

        :raises TypeError: a type that cannot be, or a class that was not declared: a bug that shows at import.
        """
        if annotation not in self._made:
            shape = self._made[annotation] = Shape()  # before it is complete, because types may hold themselves
            try:
                shape.write, shape.read = self._compile(annotation)
            except BaseException:
                del self._made[annotation]
                raise
        return self._made[annotation]

    def _compile(self, annotation: Any) -> tuple[Write, Read]:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if annotation is Any:
            return _plain(_PLAIN)
        if annotation is None or annotation in _PLAIN:
            return _octets() if annotation is bytes else _plain((type(None) if annotation is None else annotation,))
        if annotation in (datetime.datetime, datetime.date):
            return _moment(annotation)
        if origin is Literal:
            return _literal(arguments)
        if origin in (Union, types.UnionType):
            return self._union(arguments)
        if origin in (list, Sequence, frozenset) or (origin is tuple and arguments[1:] == (Ellipsis,)):
            return self._many(origin, arguments[0])
        if origin is tuple:
            return _fixed([self.shape(argument) for argument in arguments])
        if annotation in self._classes:
            return _enum(annotation) if issubclass(annotation, enum.Enum) else self._dataclass(annotation)
        raise TypeError(f"{annotation} cannot travel: it is not declared")

    def _many(self, origin: Any, inner: Any) -> tuple[Write, Read]:
        make: Callable[[Iterable[Any]], Any] = {tuple: tuple, frozenset: frozenset}.get(origin, list)
        if inner == tuple[Any, ...]:
            return _rows()
        if inner is int:
            return _integers(make, 0)
        if get_origin(inner) is tuple and set(get_args(inner)) == {int}:
            return _integers(make, len(get_args(inner)))
        return _sequence(make, self.shape(inner), ordered=origin is not frozenset)

    def _union(self, arguments: tuple[Any, ...]) -> tuple[Write, Read]:
        members = [argument for argument in arguments if argument is not type(None)]
        if len(members) == 1:
            return _optional(self.shape(members[0]))
        if len(members) != len(arguments) or not all(is_dataclass(member) for member in members):
            raise TypeError(f"a union of {arguments} cannot travel")
        return _either({member.__name__: (member, self.shape(member)) for member in members})

    def _dataclass(self, made: type) -> tuple[Write, Read]:
        if not is_dataclass(made):
            raise TypeError(f"{made} is neither a dataclass nor an enum")
        hints = get_type_hints(made)
        described = [(each.name, self.shape(hints[each.name]), each.default) for each in fields(made)]
        known = {name: shape for name, shape, _ in described}
        required = {each.name for each in fields(made) if each.default is MISSING and each.default_factory is MISSING}

        def write(value: Any, parts: list[Buffer]) -> Any:
            if type(value) is not made:
                raise TypeError(f"{type(value).__name__} in the place of {made.__name__}")
            out = {}
            for name, shape, default in described:
                field = getattr(value, name)
                if default is MISSING or field != default:
                    out[name] = shape.write(field, parts)
            return out

        def read(raw: Any, parts: list[bytes]) -> Any:
            if type(raw) is not dict or not required <= raw.keys() <= known.keys():
                raise BadValue(f"not a {made.__name__}")
            return made(**{name: known[name].read(value, parts) for name, value in raw.items()})

        return write, read

    def encode(self, annotation: Any, value: Any) -> list[Buffer]:
        """The value as octets, in parts, so that long ones are not copied.

        :raises TypeError: it is not of that type: a bug here.
        """
        return encode(self.shape(annotation), value)

    def decode(self, annotation: Any, octets: bytes) -> Any:
        """The value.

        :raises BadValue: the octets are no such value.
        """
        return decode(self.shape(annotation), octets)


class Shape:
    """How values of one type are written and read."""

    __slots__ = ("read", "write")
    write: Write
    read: Read


class _Columns(Shape):
    """What ``list[tuple[Any, ...]]`` is on the wire, as columns on both sides: many rows without a tuple for each."""

    def __init__(self) -> None:
        self.write, self.read = _write_columns, _read_columns


def encode(shape: Shape, value: Any) -> list[Buffer]:
    """See :meth:`Codec.encode`."""
    parts: list[Buffer] = []
    head = cbor2.dumps(shape.write(value, parts))
    out: list[Buffer] = [_array_header(1 + len(parts)) + _octets_header(len(head)) + head]
    for part in parts:
        out += (_octets_header(len(part)), part)
    return out


def decode(shape: Shape, octets: bytes) -> Any:
    """See :meth:`Codec.decode`."""
    head, *parts = _split(octets)
    try:
        raw = cbor2.loads(
            head, semantic_decoders=REFUSED, tag_hook=refuse, max_depth=MAX_DEPTH, allow_indefinite=False, allow_duplicate_keys=False
        )
    except (cbor2.CBORDecodeError, ValueError, TypeError) as error:
        raise BadValue("not CBOR of this protocol") from error
    try:
        return shape.read(raw, parts)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadValue("a value out of its range") from error


# -- the array of byte strings --------------------------------------------------------------------


def _header(major: int, number: int) -> bytes:
    """The head of a CBOR item (RFC 8949 section 3)."""
    if number < 24:
        return bytes((major | number,))
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * size:
            return bytes((major | code,)) + number.to_bytes(size, "big")
    raise ValueError("too long")


def _array_header(length: int) -> bytes:
    return _header(0x80, length)


def _octets_header(length: int) -> bytes:
    return _header(0x40, length)


def _number(octets: bytes, at: int, major: int) -> tuple[int, int]:
    """Read a head; returns its number and the position after it."""
    first = octets[at] if at < len(octets) else -1
    code = first & 0x1F
    if first & 0xE0 != major or first < 0 or code > 27:
        raise BadValue("not an array of byte strings")
    if code < 24:
        return code, at + 1
    size = 1 << (code - 24)
    return int.from_bytes(octets[at + 1 : at + 1 + size], "big"), at + 1 + size


def _split(octets: bytes) -> list[bytes]:
    count, at = _number(octets, 0, 0x80)
    if not 1 <= count <= MAX_PARTS:
        raise BadValue("too many byte strings")
    parts: list[bytes] = []
    for _ in range(count):
        length, at = _number(octets, at, 0x40)
        parts.append(octets[at : at + length])
        at += length
    if at != len(octets):
        raise BadValue("cut short or too long")
    return parts


def _part(number: Any, parts: list[bytes]) -> bytes:
    if type(number) is not int or not 0 <= number < len(parts):
        raise BadValue("no such byte string")
    return parts[number]


# -- one kind of type each ------------------------------------------------------------------------


def _plain(allowed: tuple[type, ...]) -> tuple[Write, Read]:
    """Values that CBOR has itself; a bool is no int."""
    kinds = frozenset(allowed)
    names = ", ".join(kind.__name__ for kind in allowed)

    def write(value: Any, parts: list[Buffer]) -> Any:
        if type(value) not in kinds:
            raise TypeError(f"{type(value).__name__} in the place of {names}")
        return value

    def read(raw: Any, parts: list[bytes]) -> Any:
        if type(raw) not in kinds:
            raise BadValue(f"not {names}")
        return raw

    return write, read


def _octets() -> tuple[Write, Read]:
    def write(value: Any, parts: list[Buffer]) -> Any:
        if not isinstance(value, bytes):
            raise TypeError(f"{type(value).__name__} in the place of bytes")
        if len(value) < LONG:
            return value
        parts.append(value)
        return len(parts) - 1

    def read(raw: Any, parts: list[bytes]) -> Any:
        return raw if type(raw) is bytes else _part(raw, parts)

    return write, read


def _moment(kind: Any) -> tuple[Write, Read]:
    def write(value: Any, parts: list[Buffer]) -> Any:
        if type(value) is not kind or (kind is datetime.datetime and value.tzinfo is None):
            raise TypeError(f"{type(value).__name__} in the place of an aware {kind.__name__}")
        return value.isoformat()

    def read(raw: Any, parts: list[bytes]) -> Any:
        if type(raw) is not str:
            raise BadValue(f"not a {kind.__name__}")
        value = kind.fromisoformat(raw)
        if kind is datetime.datetime and value.tzinfo is None:
            raise BadValue("a time without its zone")
        return value

    return write, read


def _literal(choices: tuple[Any, ...]) -> tuple[Write, Read]:
    def write(value: Any, parts: list[Buffer]) -> Any:
        if value not in choices:
            raise TypeError(f"{value!r} is none of {choices}")
        return value

    def read(raw: Any, parts: list[bytes]) -> Any:
        if type(raw) not in (str, int) or raw not in choices:
            raise BadValue(f"none of {choices}")
        return raw

    return write, read


def _enum(made: Any) -> tuple[Write, Read]:
    def write(value: Any, parts: list[Buffer]) -> Any:
        if type(value) is not made:
            raise TypeError(f"{type(value).__name__} in the place of {made.__name__}")
        return value.value

    def read(raw: Any, parts: list[bytes]) -> Any:
        if type(raw) not in (str, int):
            raise BadValue(f"not a {made.__name__}")
        return made(raw)

    return write, read


def _optional(inner: Shape) -> tuple[Write, Read]:
    def write(value: Any, parts: list[Buffer]) -> Any:
        return None if value is None else inner.write(value, parts)

    def read(raw: Any, parts: list[bytes]) -> Any:
        return None if raw is None else inner.read(raw, parts)

    return write, read


def _either(members: dict[str, tuple[Any, Shape]]) -> tuple[Write, Read]:
    def write(value: Any, parts: list[Buffer]) -> Any:
        name = type(value).__name__
        if name not in members or type(value) is not members[name][0]:
            raise TypeError(f"{name} is none of {', '.join(members)}")
        return [name, members[name][1].write(value, parts)]

    def read(raw: Any, parts: list[bytes]) -> Any:
        if type(raw) is not list or len(raw) != 2 or type(raw[0]) is not str or raw[0] not in members:
            raise BadValue(f"none of {', '.join(members)}")
        return members[raw[0]][1].read(raw[1], parts)

    return write, read


def _sequence(make: Callable[[Iterable[Any]], Any], inner: Shape, *, ordered: bool) -> tuple[Write, Read]:
    def write(value: Any, parts: list[Buffer]) -> Any:
        if isinstance(value, str | bytes):
            raise TypeError("a text in the place of a sequence")
        return [inner.write(each, parts) for each in (value if ordered else sorted(value))]

    def read(raw: Any, parts: list[bytes]) -> Any:
        if type(raw) is not list:
            raise BadValue("not a sequence")
        return make(inner.read(each, parts) for each in raw)

    return write, read


def _fixed(inner: list[Shape]) -> tuple[Write, Read]:
    def write(value: Any, parts: list[Buffer]) -> Any:
        return [shape.write(each, parts) for shape, each in zip(inner, value, strict=True)]

    def read(raw: Any, parts: list[bytes]) -> Any:
        if type(raw) is not list or len(raw) != len(inner):
            raise BadValue(f"not a tuple of {len(inner)}")
        return tuple(shape.read(each, parts) for shape, each in zip(inner, raw, strict=True))

    return write, read


def _integers(make: Callable[[Iterable[Any]], Any], width: int) -> tuple[Write, Read]:
    """Integers (width 0), or tuples of so many of them."""

    def write(value: Any, parts: list[Buffer]) -> Any:
        flat = list(chain.from_iterable(value)) if width else list(value)
        if not _only(flat, int) or (width and set(map(len, value)) - {width}):
            raise TypeError("something else in the place of integers")
        if len(flat) < MANY:
            return flat
        parts.append(_long_list(flat))
        return len(parts) - 1

    def read(raw: Any, parts: list[bytes]) -> Any:
        flat = raw if type(raw) is list else _from_long_list(_part(raw, parts))
        if type(raw) is list and not _only(flat, int):
            raise BadValue("something else in the place of integers")
        if not width:
            return make(flat)
        if len(flat) % width:
            raise BadValue(f"not tuples of {width}")
        return make(zip(*(iter(flat),) * width, strict=True))

    return write, read


def _rows() -> tuple[Write, Read]:
    """Rows of a table."""

    def write(value: Any, parts: list[Buffer]) -> Any:
        return _write_columns(list(zip(*value, strict=True)), parts)

    def read(raw: Any, parts: list[bytes]) -> Any:
        return list(zip(*_read_columns(raw, parts), strict=True))

    return write, read


def _write_columns(columns: Sequence[Sequence[Any]], parts: list[Buffer]) -> Any:
    return [len(columns[0]) if columns else 0, [_write_column(column, parts) for column in columns]]


def _read_columns(raw: Any, parts: list[bytes]) -> list[list[Any]]:
    if type(raw) is not list or len(raw) != 2 or type(raw[0]) is not int or type(raw[1]) is not list:
        raise BadValue("not rows")
    columns = [_read_column(column, parts) for column in raw[1]]
    if any(len(column) != raw[0] for column in columns) or (raw[0] and not columns):
        raise BadValue("rows of different length")
    return columns


def _write_column(column: Sequence[Any], parts: list[Buffer]) -> Any:
    """A number: a long list of integers.  A list: the values.  A map: octets, each a byte string of its own, or all joined."""
    if len(column) >= MANY and _only(column, int):
        parts.append(_long_list(column))
        return len(parts) - 1
    octets = sum(map(len, column)) if _only(column, bytes) else 0
    if octets >= LONG * len(column):
        parts += column
        return {"from": len(parts) - len(column), "rows": len(column)}
    if octets >= LONG:
        parts += (_long_list(map(len, column)), b"".join(column))
        return {"joined": len(parts) - 2}
    if not set(map(type, column)) <= set(_PLAIN):
        raise TypeError("something in a row that cannot travel")
    return list(column)


def _read_column(raw: Any, parts: list[bytes]) -> list[Any]:
    if type(raw) is list:
        if not set(map(type, raw)) <= set(_PLAIN):
            raise BadValue("something in a row that may not be there")
        return raw
    if type(raw) is not dict:
        return _from_long_list(_part(raw, parts))
    if "joined" in raw:
        return _cut(raw["joined"], parts)
    first, rows = raw.get("from"), raw.get("rows")
    if type(first) is not int or type(rows) is not int or not 0 <= first < first + rows <= len(parts):
        raise BadValue("not a column")
    return list(parts[first : first + rows])


def _cut(first: Any, parts: list[bytes]) -> list[bytes]:
    """Short octets that were put together, after a long list of their lengths."""
    lengths = _from_long_list(_part(first, parts))
    joined = _part(first + 1, parts)
    if lengths and min(lengths) < 0:
        raise BadValue("octets of a negative length")
    ends = list(accumulate(lengths))
    if (ends[-1] if ends else 0) != len(joined):
        raise BadValue("octets that do not add up")
    return [joined[end - length : end] for length, end in zip(lengths, ends, strict=True)]


#: Rows, taken and given as columns of the same length.
COLUMNS: Shape = _Columns()


def _only(values: Iterable[Any], kind: type) -> bool:
    return set(map(type, values)) <= {kind}


def _long_list(values: Iterable[int]) -> bytes:
    packed = array("q", values)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _from_long_list(octets: bytes) -> list[int]:
    packed = array("q")
    packed.frombytes(octets)  # a length that is no multiple of eight is a ValueError
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tolist()
