"""Ranges and UidList against plain sets and lists."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.imap import ranges
from fe_twisted.protocols.imap.ranges import UidList

NUMBERS = st.sets(st.integers(1, 60), max_size=40)
PAIRS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), max_size=12)


def made_of(numbers: set[int]) -> ranges.Ranges:
    return ranges.from_sorted(sorted(numbers))


def is_normal(value: ranges.Ranges) -> bool:
    return all(low <= high for low, high in value) and all(a[1] + 1 < b[0] for a, b in itertools.pairwise(value))


@given(PAIRS)
def test_normalise_is_the_set_of_all_numbers(pairs: list[tuple[int, int]]) -> None:
    expected = {n for low, high in pairs for n in range(min(low, high), max(low, high) + 1)}
    result = ranges.normalise(pairs)
    assert is_normal(result)
    assert set(ranges.iterate(result)) == expected
    assert ranges.count(result) == len(expected)


@given(NUMBERS, NUMBERS)
def test_set_operations(left: set[int], right: set[int]) -> None:
    a, b = made_of(left), made_of(right)
    for result, expected in (
        (ranges.union(a, b), left | right),
        (ranges.intersect(a, b), left & right),
        (ranges.subtract(a, b), left - right),
    ):
        assert is_normal(result)
        assert set(ranges.iterate(result)) == expected
    assert {n for n in range(70) if ranges.contains(a, n)} == left


@given(st.lists(st.integers(1, 30), max_size=15))
def test_render_sequence_keeps_the_order(numbers: list[int]) -> None:
    read: list[int] = []
    for item in ranges.render_sequence(numbers).split(b",") if numbers else []:
        low, _, high = item.partition(b":")
        read.extend(range(int(low), int(high or low) + 1))
    assert read == numbers


@pytest.mark.parametrize(
    ("items", "maximum", "clamp", "expected"),
    [
        (((1, 3), (7, 7)), 10, False, b"1:3,7"),
        (((5, None),), 3, False, b"3:5"),
        (((None, 5),), 3, False, b"3:5"),
        (((5, None),), 3, True, b"3"),
        (((None, None),), 3, True, b"3"),
        (((None, None),), 0, False, b""),
        (((5, None), (2, 2)), 0, False, b"2"),
        (((1, 4294967295),), 3, True, b"1:3"),
        (((1, 4294967295),), 0, True, b""),
        (((4, 2), (3, 3), (1, 1)), 9, True, b"1:4"),
        (((8, 9),), 3, True, b""),
    ],
)
def test_resolve(items: ranges.SequenceSet, maximum: int, clamp: bool, expected: bytes) -> None:
    assert ranges.render(ranges.resolve(items, maximum, clamp=clamp)) == expected


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.integers(1, 4), max_size=6)),
        st.tuples(st.just("remove"), st.lists(st.integers(1, 60), max_size=8)),
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(NUMBERS, STEPS, NUMBERS)
def test_uid_list_behaves_as_a_list(start: set[int], steps: list[tuple[str, list[int]]], asked: set[int]) -> None:
    model = sorted(start)
    view = UidList(made_of(start))
    highest = max(start, default=0)
    for action, numbers in steps:
        if action == "append":
            new: list[int] = []
            for gap in numbers:
                highest += gap
                new.append(highest)
            view.append(new)
            model += new
            highest = max(highest, *model) if model else highest
        else:
            gone = made_of(set(numbers))
            announced = view.remove(gone)
            before = list(model)
            for number in announced:
                del before[number - 1]
            model = [uid for uid in model if uid not in numbers]
            assert before == model, "replaying the EXPUNGEs gives the same mailbox"
        check(view, model, asked)


def check(view: UidList, model: list[int], asked: set[int]) -> None:
    assert len(view) == len(model)
    assert view.last == (model[-1] if model else 0)
    assert is_normal(view.ranges) and list(ranges.iterate(view.ranges)) == model
    assert [view.uid(n) for n in range(1, len(model) + 1)] == model
    known = {uid: number for number, uid in enumerate(model, 1)}
    assert all(view.seq(uid) == known.get(uid) for uid in range(80))
    wanted = made_of(asked)
    assert list(ranges.iterate(view.sequences(wanted))) == [known[uid] for uid in sorted(asked) if uid in known]
    assert list(ranges.iterate(view.uids(wanted))) == [model[n - 1] for n in sorted(asked) if n <= len(model)]
    assert view.known(wanted) == ranges.intersect(wanted, view.ranges)
    assert is_normal(view.sequences(wanted)) and is_normal(view.uids(wanted))
    assert view.sequence_numbers(sorted(asked)) == [known.get(uid) for uid in sorted(asked)]
    assert view.sequence_numbers(sorted(asked, reverse=True)) == [known.get(uid) for uid in sorted(asked, reverse=True)]


def test_uid_list_refuses_what_does_not_ascend() -> None:
    view = UidList(((3, 5),))
    with pytest.raises(ValueError, match="UID 5 after 5"):
        view.append([5])
    with pytest.raises(IndexError):
        view.uid(4)
    with pytest.raises(IndexError):
        view.uid(0)
    assert 4 in view and 6 not in view


def test_a_huge_range_costs_nothing() -> None:
    """``1:4294967295`` is never counted through."""
    started = time.perf_counter()
    view = UidList(((1, 4294967295),))
    everything = ranges.resolve(((1, None),), view.last)
    assert view.sequences(everything) == ((1, 4294967295),)
    assert view.uids(everything) == ((1, 4294967295),)
    assert ranges.count(ranges.subtract(everything, ((7, 7),))) == 4294967294
    assert view.seq(4000000000) == 4000000000
    assert time.perf_counter() - started < 1


@given(st.lists(st.integers(1, 60), unique=True), st.integers(1, 70), st.integers(0, 30), st.booleans())
def test_a_window_is_a_slice(numbers: list[int], low: int, length: int, newest: bool) -> None:
    """RFC 9394 section 3.1: the first result is 1, the last one -1."""
    ordered = sorted(numbers, reverse=newest)
    expected = sorted(ordered[low - 1 : low + length])
    found = ranges.window(ranges.from_sorted(sorted(numbers)), low, low + length, newest=newest)
    assert list(ranges.iterate(found)) == expected
