"""Frames: what is written is read again, and what is not exactly a frame is refused by name and nothing else."""

from __future__ import annotations

import contextlib
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.cluster import frames
from fe_twisted.protocols.cluster.frames import (
    PIECE,
    BadFrame,
    Cancel,
    Credit,
    Data,
    Error,
    Evict,
    Frame,
    Hello,
    Notify,
    Proof,
    Refuse,
    Request,
    decode,
    encode,
)

BOX = "0123456789abcdef01234567"
NONCE = bytes(32)

ids = st.integers(1, 2**32 - 1)
sizes = st.integers(0, frames.MAX_BODY)
numbers = st.integers(0, 2**63 - 1)
boxes = st.text("0123456789abcdef", min_size=24, max_size=24)
names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
words = st.none() | st.lists(st.text(max_size=30), max_size=5).map(tuple)


def request(number: int, method: str, mailbox: str, key: bytes, credit: int, body: bytes) -> Request:
    return Request(number, method, mailbox, key, credit, len(body), body)


every: st.SearchStrategy[Frame] = st.one_of(
    st.builds(
        Hello,
        st.integers(1, 999),
        st.integers(1, 999),
        st.sampled_from(("primary", "secondary")),
        names,
        st.lists(names, max_size=4).map(tuple),
        st.binary(min_size=32, max_size=32),
    ),
    st.builds(Proof, st.binary(min_size=32, max_size=32)),
    st.builds(Refuse, st.sampled_from(("bad-frame", "x")), st.text(max_size=50)),
    st.builds(request, ids, st.sampled_from(("fetch", "a_b")), boxes | st.just(""), st.sampled_from((b"", bytes(16))), sizes, st.binary()),
    st.builds(Data, ids, st.integers(0, 3), st.binary(max_size=2000)),
    st.builds(Error, ids, st.sampled_from(("Later", "TryCreate")), st.text(max_size=50)),
    st.builds(Credit, ids, sizes),
    st.builds(Cancel, ids),
    st.builds(Notify, boxes, numbers, numbers, words),
    st.builds(Evict, boxes, st.booleans()),
)


@given(every)
def test_what_is_written_is_read(frame: Frame) -> None:
    assert decode(encode(frame)) == frame
    assert cbor2.loads(encode(frame))[0] == frame.kind, "every frame is CBOR, also the ones written by hand"


@given(every, st.data())
@settings(max_examples=300)
def test_a_changed_octet_never_raises_anything_else(frame: Frame, data: st.DataObject) -> None:
    octets = bytearray(encode(frame))
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadFrame):
        decode(bytes(octets))


@given(st.binary(max_size=300))
def test_garbage_is_refused(octets: bytes) -> None:
    with contextlib.suppress(BadFrame):
        decode(octets)


@given(every, st.integers(0, 10))
def test_cut_short_or_followed_by_anything_is_refused(frame: Frame, cut: int) -> None:
    octets = encode(frame)
    with pytest.raises(BadFrame):
        decode(octets + b"\0")
    with pytest.raises(BadFrame):
        decode(octets[: max(0, len(octets) - 1 - cut)])


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [10, 1],
        [-1],
        [True, 1],
        ["hello"],
        [7, 0],
        [7, -1],
        [7, 2**32],
        [7, True],
        [7, 1.0],
        [7, "1"],
        [7, 1, 1],
        [7],
        [6, 1, -1],
        [6, 1, 2**62],
        [9, ""],
        [9, BOX.upper()],
        [9, "../../etc/passwd"],
        [9, BOX + "\n"],
        [9, "/" + BOX[1:]],
        [3, 1, "fetch", "../" + BOX[3:], b"", 0, 0, b""],
        [3, 1, "fetch", BOX + ".sqlite", b"", 0, 0, b""],
        [3, 1, "fetch\0", BOX, b"", 0, 0, b""],
        [3, 1, "_write", BOX, b"", 0, 0, b""],
        [3, 1, "__init__", BOX, b"", 0, 0, b""],
        [3, 1, "x" * 41, BOX, b"", 0, 0, b""],
        [3, 1, "fetch", BOX, b"short", 0, 0, b""],
        [3, 1, "fetch", BOX, b"", 0, 5, b"four"],
        [3, 1, "fetch", BOX, b"", 0, frames.MAX_BODY + 1, b""],
        [3, 1, "fetch", BOX, b"", 0, PIECE + 1, bytes(PIECE + 1)],
        [3, 1, "fetch", BOX, "", 0, 0, b""],
        [5, 1, "os.system", "text"],
        [5, 1, "Later", "x" * 1001],
        [8, BOX, 1, 2**63, None],
        [8, BOX, 1, 1, ["a", 1]],
        [8, BOX, 1, 1, ["a"] * 257],
        [8, BOX, 1, 1, [["a"]]],
        [0, 1, 1, "admin", "name", [], NONCE],
        [0, 1, 1, "primary", "a name", [], NONCE],
        [0, 1, 1, "primary", "name", [], NONCE[1:]],
        [0, 0, 1, "primary", "name", [], NONCE],
        [1, NONCE[1:]],
        [4, 1, 0, b"data that is not in the one form it has"],
    ],
)
def test_bad_fields_are_refused(fields: list[Any]) -> None:
    with pytest.raises(BadFrame):
        decode(cbor2.dumps(fields))


def test_a_later_hello_may_be_longer() -> None:
    hello = Hello(1, 2, "primary", "box", (), NONCE)
    longer = cbor2.dumps([0, 1, 2, "primary", "box", [], NONCE, {"more": 1}])
    assert decode(longer) == hello


@pytest.mark.parametrize("tag", [0, 1, 2, 4, 5, 28, 29, 30, 35, 36, 37, 55799, 12345])
def test_nothing_is_made_of_tags(tag: int) -> None:
    """A regular expression, a number with a huge exponent, a shared value: none of them is even built."""
    for content in ("(a+)+$", [10**6, 1], 1, b"x"):
        with pytest.raises(BadFrame):
            decode(cbor2.dumps([7, cbor2.CBORTag(tag, content)]))


@pytest.mark.parametrize(
    "octets",
    [
        b"\x9f\x07\x01\xff",  # an array without its length
        b"\x81" * 1000 + b"\0",  # nested
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",  # an array of 2**64
        b"\x82\x07\x5b\xff\xff\xff\xff\xff\xff\xff\xff",  # a string of 2**64
        b"\xa1\x07\x01",  # a map
        b"\x84\x04\x1a\0\0\0\1\x00\x5a\xff\xff\xff\xff",  # Data of another length
        b"\x84\x04\x1a\0\0\0\1\x04\x5a\0\0\0\0",  # unknown flags
        b"\x84\x04\x1a\0\0\0\0\x00\x5a\0\0\0\0",  # id 0
        b"",
    ],
)
def test_bad_octets_are_refused(octets: bytes) -> None:
    with pytest.raises(BadFrame):
        decode(octets)


def test_sizes_are_limited() -> None:
    assert len(encode(Data(1, 0, bytes(PIECE)))) <= frames.MAX_MESSAGE
    assert len(encode(request(2**32 - 1, "x" * 40, BOX, bytes(16), frames.MAX_BODY, bytes(PIECE)))) <= frames.MAX_MESSAGE
    with pytest.raises(BadFrame):
        decode(encode(Data(1, 0, bytes(PIECE + 1))))
    with pytest.raises(BadFrame):
        decode(bytes(frames.MAX_MESSAGE + 1))


by_hand = every.filter(lambda frame: isinstance(frame, Request | Credit) or (isinstance(frame, Notify) and frame.keywords is None))


@given(by_hand, st.data())
@settings(max_examples=300)
def test_what_is_read_without_the_library_is_what_the_library_reads(frame: Frame, data: st.DataObject) -> None:
    octets = bytearray(encode(frame))
    assert frames._quickly(bytes(octets)) == frames._array(bytes(octets))
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    quickly = frames._quickly(bytes(octets))
    assert quickly is None or quickly == frames._array(bytes(octets))
    whole = [frame.kind, *(getattr(frame, name) for name in frame.__slots__)]
    assert decode(cbor2.dumps(whole)) == frame, "in the shortest form too"
