"""Values by their types: what goes in comes out, of the same type, and nothing else does."""

from __future__ import annotations

import contextlib
import datetime
import enum
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.cluster.signature import Signature
from fe_twisted.protocols.cluster.values import LONG, BadValue, Codec


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Leaf:
    value: int


@dataclass(frozen=True)
class Twig:
    trees: tuple[Tree, ...]
    colour: Colour = Colour.RED


Tree = Leaf | Twig


@dataclass(frozen=True)
class Everything:
    number: int
    text: str
    octets: bytes
    flag: bool
    maybe: str | None
    numbers: Sequence[int]
    triples: list[tuple[int, int, int]]
    ranges: tuple[tuple[int, int], ...]
    names: frozenset[str]
    day: datetime.date
    moment: datetime.datetime
    tree: Tree
    mode: Literal["add", "remove"] = "add"
    count: Literal[0, 1, -1] = 0
    pairs: Sequence[tuple[str, bytes | None]] = ()


@dataclass(frozen=True)
class Stranger:
    value: int


CODEC = Codec([Colour, Leaf, Twig, Everything])
int64 = st.integers(-(2**63), 2**63 - 1)
long_octets = st.binary(max_size=10) | st.just(bytes(LONG)) | st.just(bytes(3 * LONG + 1))
trees = st.recursive(
    st.builds(Leaf, int64), lambda inner: st.builds(Twig, st.lists(inner, max_size=3).map(tuple), st.sampled_from(Colour)), max_leaves=8
)
everything = st.builds(
    Everything,
    number=int64,
    text=st.text(),
    octets=long_octets,
    flag=st.booleans(),
    maybe=st.none() | st.text(),
    numbers=st.lists(int64, max_size=50),
    triples=st.lists(st.tuples(int64, int64, int64), max_size=30),
    ranges=st.lists(st.tuples(int64, int64), max_size=30).map(tuple),
    names=st.frozensets(st.text(max_size=5)),
    day=st.dates(),
    moment=st.datetimes(timezones=st.sampled_from([datetime.UTC, datetime.timezone(datetime.timedelta(hours=-7))])),
    tree=trees,
    mode=st.sampled_from(("add", "remove")),
    count=st.sampled_from((0, 1, -1)),
    pairs=st.lists(st.tuples(st.text(max_size=5), st.none() | long_octets), max_size=5),
)


def joined(parts: Sequence[Any]) -> bytes:
    return b"".join(bytes(part) for part in parts)


@given(everything)
@settings(max_examples=60)
def test_what_goes_in_comes_out(value: Everything) -> None:
    octets = joined(CODEC.encode(Everything, value))
    assert CODEC.decode(Everything, octets) == value
    assert isinstance(cbor2.loads(octets), list), "an array of byte strings, and nothing after it"


cells = {
    "int": int64,
    "bytes": st.binary(max_size=80),
    "long": st.just(bytes(LONG)) | st.binary(max_size=3),
    "mixed": st.none() | st.integers(0, 5) | st.text(max_size=3) | st.binary(max_size=3) | st.booleans(),
}


@given(st.lists(st.sampled_from(sorted(cells)), min_size=1, max_size=4), st.integers(0, 60), st.data())
@settings(max_examples=60, deadline=None)
def test_rows_come_out_as_they_went_in(kinds: list[str], count: int, data: st.DataObject) -> None:
    columns = [data.draw(st.lists(cells[kind], min_size=count, max_size=count)) for kind in kinds]
    rows = list(zip(*columns, strict=True))
    decoded = CODEC.decode(list[tuple[Any, ...]], joined(CODEC.encode(list[tuple[Any, ...]], rows)))
    assert decoded == rows
    assert [[type(cell) for cell in row] for row in decoded] == [[type(cell) for cell in row] for row in rows]


@given(everything, st.data())
@settings(max_examples=150, deadline=None)
def test_changed_octets_never_raise_anything_else(value: Everything, data: st.DataObject) -> None:
    octets = bytearray(joined(CODEC.encode(Everything, value)))
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadValue):
        CODEC.decode(Everything, bytes(octets))


def packed(value: Any, *parts: bytes) -> bytes:
    return cbor2.dumps([cbor2.dumps(value), *parts])


@pytest.mark.parametrize(
    ("annotation", "raw", "parts"),
    [
        (int, True, ()),
        (int, "1", ()),
        (int, 1.5, ()),
        (bool, 1, ()),
        (str, b"x", ()),
        (bytes, "x", ()),
        (bytes, 0, ()),
        (bytes, -1, (b"x",)),
        (bytes, 1, (b"x",)),
        (list[int], [1, "2"], ()),
        (list[int], [1, True], ()),
        (list[int], 0, (b"1234567",)),
        (list[int], {"a": 1}, ()),
        (list[tuple[int, int]], [1, 2, 3], ()),
        (Literal["add"], "remove", ()),
        (Literal["add"], ["add"], ()),
        (Literal[0, 1], True, ()),
        (Colour, "green", ()),
        (Colour, ["red"], ()),
        (Leaf, {}, ()),
        (Leaf, {"value": 1, "more": 2}, ()),
        (Leaf, {1: 1}, ()),
        (Leaf, [1], ()),
        (Tree, ["Stranger", {"value": 1}], ()),
        (Tree, ["Leaf"], ()),
        (Tree, [["Leaf"], {}], ()),
        (Tree, {"value": 1}, ()),
        (datetime.date, "2026-02-30", ()),
        (datetime.date, 20260230, ()),
        (datetime.datetime, "2026-02-03T00:00:00", ()),
        (list[tuple[Any, ...]], [2, [[1]]], ()),
        (list[tuple[Any, ...]], [1, []], ()),
        (list[tuple[Any, ...]], [1, [[[1]]]], ()),
        (list[tuple[Any, ...]], [1, [{"from": 0, "rows": 2}]], (b"x",)),
        (list[tuple[Any, ...]], [1, [{"from": 0}]], (b"x",)),
        (list[tuple[Any, ...]], [1, [{"joined": 0}]], (bytes(8), b"x")),
        (list[tuple[Any, ...]], [2, [{"joined": 0}]], (b"\xff" * 8 + b"\2" + bytes(7), b"x")),
        (list[tuple[Any, ...]], [1, [{"joined": "0"}]], ()),
        (list[tuple[Any, ...]], [1, [{"joined": 0}]], (bytes(8),)),
    ],
)
def test_other_values_are_refused(annotation: Any, raw: Any, parts: tuple[bytes, ...]) -> None:
    with pytest.raises(BadValue):
        CODEC.decode(annotation, packed(raw, *parts))


@pytest.mark.parametrize("octets", [b"", b"\x80", b"\x81\x41", b"\x81\x41\0\0", b"\x9f", b"\x81\x5f", b"\xa0", b"\x81\x5b" + b"\xff" * 8])
def test_octets_that_are_no_array_of_byte_strings_are_refused(octets: bytes) -> None:
    with pytest.raises(BadValue):
        CODEC.decode(Any, octets)


def test_nesting_is_limited() -> None:
    with pytest.raises(BadValue):
        CODEC.decode(Tree, cbor2.dumps([b"\x82\x64Twig\xa1\x65trees\x81" * 1000]))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, "1"),
        (int, True),
        (bytes, "x"),
        (Sequence[str], "text"),
        (Leaf, Stranger(1)),
        (Tree, Stranger(1)),
        (Colour, "red"),
        (Literal["add"], "other"),
        (datetime.datetime, datetime.datetime(2026, 1, 1)),
        (list[tuple[int, int]], [(1, 2, 3)]),
        (list[tuple[Any, ...]], [([],)]),
    ],
)
def test_what_is_not_of_the_type_is_not_written(annotation: Any, value: Any) -> None:
    with pytest.raises(TypeError):
        CODEC.encode(annotation, value)


@pytest.mark.parametrize("annotation", [Stranger, dict[str, int], object, int | str, list[Stranger], Leaf | Stranger])
def test_a_type_that_was_not_declared_cannot_travel(annotation: Any) -> None:
    with pytest.raises(TypeError):
        CODEC.shape(annotation)


class Interface:
    async def change(self, name: str, number: int = 0, *, since: int | None = None) -> list[int]:
        raise NotImplementedError

    def stream(self, name: str) -> AsyncIterator[list[tuple[Any, ...]]]:
        raise NotImplementedError


def test_arguments_travel_by_name_and_defaults_do_not() -> None:
    signature = Signature(CODEC, Interface.change)
    assert signature.read(joined(signature.write(("a",), {}))) == (["a", 0], {})
    assert signature.read(joined(signature.write(("a", 5), {"since": 7}))) == (["a", 5], {"since": 7})
    assert signature.read(joined(signature.write((), {"name": "b", "since": None}))) == (["b", 0], {})
    assert b"since" not in joined(signature.write(("a", 0), {"since": None})), "so an older peer understands it"
    assert not signature.streams and Signature(CODEC, Interface.stream).streams


def test_arguments_that_do_not_fit_are_refused() -> None:
    signature = Signature(CODEC, Interface.change)
    for arguments, named in (((), {}), (("a", 1, 2), {}), (("a",), {"other": 1})):
        with pytest.raises(TypeError):
            signature.write(arguments, named)
    for raw in ({}, {"number": 1}, {"name": 1}, {"name": "a", "other": 1}, {"name": "a", "since": "x"}, ["a"], None):
        with pytest.raises(BadValue):
            signature.read(packed(raw))
