"""Names and LIST patterns."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fe_twisted.servers.imap.names import canonical, matcher, parents


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("inbox", "INBOX"),
        ("InBox/Sub", "INBOX/Sub"),
        ("inboxes", "inboxes"),
        ("sub/inbox", "sub/inbox"),
        ("Cafe\N{COMBINING ACUTE ACCENT}", "Caf\N{LATIN SMALL LETTER E WITH ACUTE}"),
    ],
)
def test_canonical(given: str, meant: str) -> None:
    assert canonical(given) == meant
    assert canonical(meant) == meant


def test_parents() -> None:
    assert parents("a/b/c") == ["a", "a/b"]
    assert parents("a") == []


@pytest.mark.parametrize(
    ("reference", "pattern", "name", "matches"),
    [
        ("", "*", "a/b", True),
        ("", "%", "a/b", False),
        ("", "%/%", "a/b", True),
        ("a/", "%", "a/b", True),
        ("a", "%", "a/b", False),
        ("", "a%", "a", True),
        ("", "a*b", "a/x/b", True),
        ("", "*%", "a/b", True),
        ("", "%*", "a/b", True),
        ("", "a.c", "abc", False),
        ("", "", "", True),
        ("", "inbox", "INBOX", True),
        ("", "inBOX/%", "INBOX/a", True),
        ("", "in%", "INBOX", True),
        ("", "INBOX/A", "INBOX/a", False),
        ("", "sent", "Sent", False),
    ],
)
def test_matcher(reference: str, pattern: str, name: str, matches: bool) -> None:
    assert matcher(reference, pattern)(name) is matches


@given(st.text("ab/*%", max_size=12), st.text("ab/", max_size=12))
@example("*%*%", "a/b")
@settings(max_examples=400, deadline=None)
def test_matcher_means_what_the_regular_expression_means(pattern: str, name: str) -> None:
    meaning = "".join({"*": ".*", "%": "[^/]*"}.get(character, re.escape(character)) for character in pattern)
    assert matcher("", pattern)(name) is bool(re.fullmatch(meaning, name))


def test_no_pattern_takes_long() -> None:
    """A regular expression would need 2^40 steps for this."""
    started = time.process_time()
    assert not matcher("", "*a%" * 400 + "b")("a" * 1000)
    assert time.process_time() - started < 2
