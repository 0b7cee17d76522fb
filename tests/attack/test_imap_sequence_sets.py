"""Sequence sets that cost a server its time: twisted.mail took 585 ms for 2,000 disjoint ids, and counted through ``1:4294967295``."""

from __future__ import annotations

import time

from fe_twisted.protocols.imap import ranges
from fe_twisted.protocols.imap.commands import BadCommand, Command, Copy
from fe_twisted.protocols.imap.parse import Limits, Parser


def copy_set(text: bytes, limits: Limits | None = None) -> Copy | BadCommand:
    parser = Parser(limits)
    parser.authenticated = True
    parser.feed(b"a COPY " + text + b" x\r\n")
    event = parser.next_event()
    if isinstance(event, BadCommand):
        return event
    assert isinstance(event, Command) and isinstance(event.arguments, Copy)
    return event.arguments


def test_disjoint_ids_are_linear() -> None:
    wide = Limits(line=1_000_000)
    text = b",".join(b"%d" % number for number in range(99_998, 0, -2))
    started = time.perf_counter()
    made = copy_set(text, wide)
    assert isinstance(made, Copy)
    resolved = ranges.resolve(made.messages, 100_000, clamp=True)
    view = ranges.UidList(resolved)
    assert view.sequences(resolved) == ((1, 49_999),)
    assert len(view.remove(resolved)) == 49_999
    assert time.perf_counter() - started < 2
    assert len(resolved) == 49_999


def test_the_number_of_items_is_limited() -> None:
    made = copy_set(b",".join([b"1"] * 50_001), Limits(line=1_000_000))
    assert isinstance(made, BadCommand) and made.text.startswith("more than 50000 items")


def test_the_longest_range_is_two_numbers() -> None:
    started = time.perf_counter()
    made = copy_set(b",".join([b"1:4294967295"] * 4_000))
    assert isinstance(made, Copy)
    assert ranges.resolve(made.messages, 5, clamp=True) == ((1, 5),)
    assert ranges.resolve(made.messages, 5) == ((1, 4294967295),)
    assert time.perf_counter() - started < 1


def test_numbers_beyond_32_bits_and_zero() -> None:
    for text in (b"0", b"1:0", b"4294967296", b"1:4294967296", b"9" * 60_000, b"-1", b"1:", b":1", b",", b":", b"**", b"*1"):
        assert isinstance(copy_set(text), BadCommand), text
