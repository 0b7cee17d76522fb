"""Address lists as ENVELOPE needs them."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.mime import address

END = (None, None, None)


def parse(value: bytes) -> list[tuple[bytes | None, ...]]:
    """Without routes, which hardly any address has."""
    return [one[:3] for one in address.parse(value)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"jane@example.org", [(None, b"jane", b"example.org")]),
        (b"Jane Doe <jane@example.org>", [(b"Jane Doe", b"jane", b"example.org")]),
        (b'"Doe, Jane" <jane@example.org>, bob@b.c', [(b"Doe, Jane", b"jane", b"example.org"), (None, b"bob", b"b.c")]),
        (rb'"say \"hi\" \\o/" <a@b>', [(rb'say "hi" \o/', b"a", b"b")]),
        (b"=?utf-8?q?J=C3=B6rg?= =?utf-8?q?_K?= <j@k.l>", [(b"=?utf-8?q?J=C3=B6rg?= =?utf-8?q?_K?=", b"j", b"k.l")]),
        ("Jörg <j@k.l>".encode(), [("Jörg".encode(), b"j", b"k.l")]),
        (b"J.R.R. Tolkien <j@t>", [(b"J.R.R. Tolkien", b"j", b"t")]),
        (b'"john doe"@example.org', [(None, b"john doe", b"example.org")]),
        (b'X <"q r"@h>', [(b"X", b"q r", b"h")]),
        (b"a@[192.0.2.1]", [(None, b"a", b"[192.0.2.1]")]),
        (b"<>", [(None, b"", b"")]),
        (b"", []),
        (b" , ,", []),
        (b'"" <a@b>', [(None, b"a", b"b")]),
    ],
)
def test_ordinary_forms(value: bytes, expected: list[tuple[bytes | None, ...]]) -> None:
    assert parse(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", [(b"Pete", b"pete", b"silly.test")]),
        (b"u@h (A (nested) name)", [(b"A (nested) name", b"u", b"h")]),
        (b"(who?) a@b", [(b"who?", b"a", b"b")]),
        (b"a@b (never closed", [(b"never closed", b"a", b"b")]),
    ],
)
def test_comments_are_skipped_and_name_those_who_have_no_other_name(value: bytes, expected: list[tuple[bytes | None, ...]]) -> None:
    assert parse(value) == expected


def test_groups_have_a_beginning_and_an_end() -> None:
    """RFC 5322 appendix A.1.3, and a group that is not closed."""
    value = b"A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;, x@y"
    assert parse(value) == [
        (None, b"A Group", None),
        (b"Ed Jones", b"c", b"a.test"),
        (None, b"joe", b"where.test"),
        (b"John", b"jdoe", b"one.test"),
        END,
        (None, b"x", b"y"),
    ]
    assert parse(b"Undisclosed recipients:;") == [(None, b"Undisclosed recipients", None), END]
    assert parse(b"g: a@b") == [(None, b"g", None), (None, b"a", b"b"), END]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"<@one.test,@two.test:user@host>", [(None, b"user", b"host")]),
        (b"<@one.test:user@host>", [(None, b"user", b"host")]),
        (b"john . doe @ example . org", [(None, b"john.doe", b"example.org")]),
        (b"Who? <one@y.test>", [(b"Who?", b"one", b"y.test")]),
    ],
)
def test_obsolete_forms(value: bytes, expected: list[tuple[bytes | None, ...]]) -> None:
    """RFC 5322 section 4.4: routes are ignored, white space around dots is not part of an address."""
    assert parse(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"postmaster", [(None, b"postmaster", b"")]),
        (b"John Doe", [(b"John Doe", b"", b"")]),
        (b"@host", [(None, b"", b"host")]),
        (b"John Doe user@host", [(b"John Doe", b"user", b"host")]),
        (b"a@b c@d", [(None, b"a", b"b"), (None, b"c", b"d")]),
        (b"<a@b> <c@d>", [(None, b"a", b"b"), (None, b"c", b"d")]),
        (b"X <a@b", [(b"X", b"a", b"b")]),
        (b"<a@b> trailing words, c@d", [(None, b"a", b"b"), (None, b"c", b"d")]),
        (b"<a@b@c>", [(None, b"a@b", b"c")]),
    ],
)
def test_broken_forms_keep_what_can_be_read(value: bytes, expected: list[tuple[bytes | None, ...]]) -> None:
    """A missing host is empty and never NIL: NIL would begin or end a group."""
    assert parse(value) == expected


@given(st.binary(max_size=200) | st.text(alphabet='ab<>@,;:."()\\[] =?', max_size=60).map(str.encode))
@settings(max_examples=500, deadline=None)
def test_any_octets_give_addresses_and_balanced_groups(value: bytes) -> None:
    depth = 0
    for one in address.parse(value):
        if one.host is None:
            assert one.name is None
            depth += 1 if one.mailbox is not None else -1
            assert depth in (0, 1)
        else:
            assert one.mailbox is not None
    assert depth == 0


_atom = st.text(alphabet="abcXYZ019-_+", min_size=1, max_size=8)
_name = st.lists(_atom, min_size=0, max_size=3).map(" ".join) | st.text(alphabet='ab c,<>()@;:"\\', max_size=12)


@given(st.lists(st.tuples(_name, _atom, _atom), min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_agrees_with_the_standard_library_on_well_formed_lists(people: list[tuple[str, str, str]]) -> None:
    line = ", ".join(email.utils.formataddr((name, f"{local}@{host}.test")) for name, local, host in people)
    expected = [(name.strip(), address) for name, address in email.utils.getaddresses([line])]
    mine = address.parse(line.encode())
    found = [((one.name or b"").decode(), f"{(one.mailbox or b'').decode()}@{(one.host or b'').decode()}") for one in mine]
    assert found == expected


@pytest.mark.parametrize(
    ("value", "route"),
    [
        (b"a@b", None),
        (b"<@relay.example:joe@example.net>", b"@relay.example"),
        (b"Joe <@one.example,@two.example:joe@example.net>", b"@one.example,@two.example"),
        (b"Joe <@one.example, @two.example : joe@example.net>", b"@one.example,@two.example"),
        (b"Joe <@example.net>", None),
    ],
)
def test_a_source_route_is_kept_apart(value: bytes, route: bytes | None) -> None:
    """RFC 3501 section 7.4.2: the second field of an address structure holds it."""
    (only,) = address.parse(value)
    assert only.route == route
    assert only.host in (b"example.net", b"b")
