"""Sort keys: the base subject, first addresses, message ids (RFC 5256 section 2, RFC 5957)."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.mime.order import MAX_REFERENCES, Order, base_subject, comparable
from fe_twisted.protocols.mime.parse import parse


@pytest.mark.parametrize(
    ("subject", "base", "reply"),
    [
        ("", "", False),
        ("hello", "hello", False),
        ("Re: hello", "hello", True),
        ("RE:hello", "hello", True),
        ("re : hello", "hello", True),
        ("Re[2]: hello", "hello", True),
        ("Fw: Fwd: FWD: hello (fwd)", "hello", True),
        ("hello (FWD) ", "hello", True),
        ("[list] hello", "hello", False),
        ("[list] Re: [list] hello", "hello", True),
        ("[a][b]  [c] hello", "hello", False),
        ("[only]", "[only]", False),
        ("Re: [only]", "[only]", True),
        ("[Fwd: hello]", "hello", True),
        ("[fwd: [fwd: Re: hello]]", "hello", True),
        ("[fwd: hello", "[fwd: hello", False),
        ("Rebuild", "Rebuild", False),
        ("Reply: hello", "Reply: hello", False),
        ("  two \t words\t", "two words", False),
        ("Re:", "", True),
    ],
)
def test_base_subject(subject: str, base: str, reply: bool) -> None:
    assert base_subject(subject) == (base, reply)


def _slow(subject: str) -> tuple[str, bool]:
    """RFC 5256 section 2.1 step by step, with fresh strings."""
    blob = r"\[[^\[\]]*\][ \t]*"
    text, reply = re.sub(r"[ \t\r\n]+", " ", subject), False
    while True:
        while True:  # step 2
            if re.search(r"\(fwd\)\Z", text, re.IGNORECASE):
                text, reply = text[:-5], True
            elif text and text[-1] == " ":
                text = text[:-1]
            else:
                break
        while True:  # steps 3 to 5
            led = re.match(rf"(?:{blob})*(?:re|fwd?)[ \t]*(?:{blob})?:", text, re.IGNORECASE)
            blobbed = re.match(blob, text)
            if led:
                text, reply = text[led.end() :], True
            elif text.startswith(" "):
                text = text[1:]
            elif blobbed and text[blobbed.end() :]:
                text = text[blobbed.end() :]
            else:
                break
        if text.lower().startswith("[fwd:") and text.endswith("]"):  # step 6
            text, reply = text[5:-1], True
        else:
            return text, reply


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.sampled_from(["re", "Fw", "fwd", ":", " ", "\t", "[", "]", "[fwd:", "(fwd)", "[x]", "a", "Re: "]), max_size=14).map("".join)
)
def test_base_subject_against_the_rules_step_by_step(subject: str) -> None:
    assert base_subject(subject) == _slow(subject)


@pytest.mark.parametrize("piece", ["[a]", "re:", "[fwd:", "(fwd)", "[a] ", "re[", " \t", "["])
def test_hostile_subjects_take_no_time(piece: str) -> None:
    started = time.process_time()
    base_subject(piece * 50_000)
    base_subject("re: " + piece * 50_000 + "]" * 50_000)
    assert time.process_time() - started < 0.5


def test_comparable_is_unicode_casemap() -> None:
    assert comparable("Hello") == comparable("hELLO") == "HELLO"
    assert comparable("\u00e4") == comparable("A\u0308") == "A\u0308"  # decomposed
    assert comparable("\u01c6") == comparable("\u01c4")  # by title case
    assert comparable("\u00df") != comparable("ss")  # the simple mapping: one character to one
    assert "\0" not in comparable("a\0b\u00e9\0")
    comparable("\ud800").encode("utf-8")


def _order(header: str) -> Order:
    return parse(header.encode() + b"\r\n\r\nx").order


@pytest.mark.parametrize(
    ("value", "local", "name"),
    [
        ("Jane Doe <jane@example.org>, bob@example.org", "JANE", "JANE DOE"),
        ("jane@example.org", "JANE", "JANE@EXAMPLE.ORG"),
        ("=?utf-8?q?J=C3=BCrgen?= <j@example.org>", "J", comparable("J\u00fcrgen")),
        ('"Doe, Jane" <jane@example.org>', "JANE", "DOE, JANE"),
        ("Friends: jane@example.org, bob@example.org;", "FRIENDS", "FRIENDS"),
        ("", "", ""),
    ],
)
def test_first_address(value: str, local: str, name: str) -> None:
    keys = _order(f"From: {value}\r\nTo: {value}\r\nCc: {value}")
    assert (keys.sender, keys.to, keys.cc) == (local, local, local)
    assert (keys.sender_name, keys.to_name) == (name, name)


def test_no_fields_no_keys() -> None:
    assert _order("X: y") == Order("", False, "", "", "", "", "", 0, ())


def test_message_ids() -> None:
    first = _order("Message-ID: <a@b>")
    assert first.identity
    assert _order('Message-ID: <"a"@b>').identity == first.identity  # RFC 5256 section 3
    assert _order("Message-ID: <A@b>").identity != first.identity
    assert _order("Message-ID: none").identity == 0


def test_references() -> None:
    a, b, c = (_order(f"Message-ID: <{name}@x>").identity for name in "abc")
    assert _order("References: <a@x> <b@x>\r\n <c@x>").references == (a, b, c)
    assert _order("References: <a@x> <b@x> <a@x>").references == (a, b)
    assert _order("References: junk\r\nIn-Reply-To: Jane's of Monday <b@x> <c@x>").references == (b,)
    assert _order("References: <a@x>\r\nIn-Reply-To: <b@x>").references == (a,)
    many = _order("References: " + " ".join(f"<{number}@x>" for number in range(500))).references
    assert len(many) == MAX_REFERENCES
    assert many[0] == _order("Message-ID: <0@x>").identity
    assert many[-1] == _order("Message-ID: <499@x>").identity
