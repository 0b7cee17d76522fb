"""Date: fields, good and bad."""

from __future__ import annotations

import datetime
import email.utils

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.mime.date import parse


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Fri, 21 Nov 1997 09:55:06 -0600", "1997-11-21T09:55:06-06:00"),
        ("21 Nov 1997 09:55 +0530", "1997-11-21T09:55:00+05:30"),
        ("Fri, 21 Nov 97 09:55:06 GMT", "1997-11-21T09:55:06+00:00"),
        ("Fri, 21 Nov 1997 09:55:06 EST", "1997-11-21T09:55:06-05:00"),
        ("Fri, 21 Nov 1997 09:55:06 -0000", "1997-11-21T09:55:06+00:00"),
        ("Fri, 21 Nov 1997 09:55:06 -0600 (CST)", "1997-11-21T09:55:06-06:00"),
        ("Fri, 21 Nov 1997 09:55:06", "1997-11-21T09:55:06+00:00"),
        ("Fri, 21 Nov 1997 09:55:06 +9900", "1997-11-21T09:55:06+00:00"),
        ("Sat, 31 Dec 2016 23:59:60 +0000", "2016-12-31T23:59:59+00:00"),
        ("Fri Nov 21 09:55:06 1997", "1997-11-21T09:55:06+00:00"),
    ],
)
def test_understood(value: str, expected: str) -> None:
    assert parse(value) == datetime.datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "yesterday",
        "Fri, 31 Feb 1997 09:55:06 +0000",
        "Fri, 21 Nov 1997 25:00:00 +0000",
        "Fri, 1 Jan 0000 00:00:00 +0000",
        "Fri, 1 Jan 0001 00:00:00 +1400",  # before the year 1 in UTC
        "Fri, 31 Dec 9999 23:59:59 -0100",  # after the year 9999 in UTC
        "Fri, 21 Nov 99999 09:55:06 +0000",
        "Fri, 21 Foo 1997 09:55:06 +0000",
        "1 Jan 2000 00:00:00 +0000" + " " * 10000,
    ],
)
def test_not_understood(value: str) -> None:
    assert parse(value) is None


@given(st.text(max_size=60) | st.text(alphabet="0123456789 :,+-JanFebMoTue()", max_size=40))
@settings(max_examples=500, deadline=None)
def test_any_text_gives_a_time_with_a_utc_equivalent_or_none(value: str) -> None:
    found = parse(value)
    if found is not None:
        assert found.astimezone(datetime.UTC).tzinfo is datetime.UTC


@given(st.datetimes(min_value=datetime.datetime(1970, 1, 2), max_value=datetime.datetime(9000, 1, 1)), st.integers(-14 * 60, 14 * 60))
@settings(max_examples=200, deadline=None)
def test_agrees_with_the_standard_library(when: datetime.datetime, minutes: int) -> None:
    aware = when.replace(microsecond=0, tzinfo=datetime.timezone(datetime.timedelta(minutes=minutes)))
    assert parse(email.utils.format_datetime(aware)) == aware
