"""Python's own ``email`` package as an independent reader: the same parts, types, decoded bodies, dates, addresses and subjects.

Input is CPython's test data (real and wilfully broken mail) and messages that ``email`` itself writes.
"""

from __future__ import annotations

import email
import email.header
import email.message
import email.mime.application
import email.mime.base
import email.mime.message
import email.mime.multipart
import email.mime.text
import email.utils
import importlib.util
import pathlib
import quopri
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.mime import Part, decode, parse


def data_files() -> list[pathlib.Path]:
    """CPython's messages, where this Python was installed with its tests."""
    try:
        found = importlib.util.find_spec("test.test_email")
    except ModuleNotFoundError:
        return []
    if found is None or found.origin is None:
        return []
    return sorted((pathlib.Path(found.origin).parent / "data").glob("msg_*.txt"))


#: Structural damage that ``email`` notices: it then stops dividing, and we go on.
DEFECTS = (
    email.errors.NoBoundaryInMultipartDefect,
    email.errors.StartBoundaryNotFoundDefect,
    email.errors.MissingHeaderBodySeparatorDefect,
)


def compare(content: bytes, part: Part, other: email.message.Message) -> int:
    """Assert that both see the same; returns how many leaves were compared."""
    assert part.type == other.get_content_type()
    if any(isinstance(defect, DEFECTS) for defect in other.defects):
        return 0
    payload = other.get_payload()
    if part.type.startswith("message/") and part.type != "message/rfc822":
        return 0  # email divides every message/… type; for IMAP the others are leaves (RFC 9051 section 9, media-basic)
    if isinstance(payload, list):
        assert len(part.children) == len(payload), part.type
        return sum(compare(content, child, other_child) for child, other_child in zip(part.children, payload, strict=True))
    assert part.children == ()
    assert part.filename.strip() == (other.get_filename() or "").strip()
    decoded = other.get_payload(decode=True)
    if part.encoding == "quoted-printable":  # RFC 2045 section 6.7, rule 3, which Python does not follow
        decoded = quopri.decodestring(re.sub(rb"[ \t]+(?=\r?\n|\Z)", b"", payload.encode("ascii", "surrogateescape")))
    assert decode(part, content[part.body : part.end]) == decoded
    return 1


@pytest.mark.skipif(not data_files(), reason="this Python came without its test data")
def test_cpython_messages_have_the_same_parts() -> None:
    leaves = 0
    for path in data_files():
        content = path.read_bytes()
        other = email.message_from_bytes(content)
        try:
            leaves += compare(content, parse(content).root, other)
        except AssertionError as error:
            raise AssertionError(path.name) from error
    assert leaves >= 80


@pytest.mark.skipif(not data_files(), reason="this Python came without its test data")
def test_cpython_messages_have_the_same_header_fields() -> None:
    compared = 0
    for path in data_files():
        content = path.read_bytes()
        message, other = parse(content), email.message_from_bytes(content)
        assert [name for name, _ in message.headers] == [name.lower() for name in other], path.name
        assert " ".join(message.subject.split()) == " ".join(
            str(email.header.make_header(email.header.decode_header(other["subject"] or ""))).split()
        )
        date = email.utils.parsedate_to_datetime(other["date"]) if other["date"] else None
        assert (message.sent is None) == (date is None)
        if message.sent and date:
            assert message.sent.utctimetuple() == date.utctimetuple()
        compared += 1
    assert compared >= 40


_word = st.text(alphabet="abcXYZ äß€日.-", min_size=1, max_size=12)
_texts = st.builds(
    lambda text, kind, name: email.mime.text.MIMEText(text.encode(name, "replace").decode(name), kind, name),
    st.text(alphabet="abc \näöüß=.-", max_size=200),
    st.sampled_from(["plain", "html"]),
    st.sampled_from(["utf-8", "iso-8859-1"]),
)


def _attach(raw: bytes, name: str) -> email.message.Message:
    part = email.mime.application.MIMEApplication(raw)
    part.add_header("Content-Disposition", "attachment", filename=("utf-8", "", name))
    return part


def _multipart(kind: str, parts: list[email.message.Message]) -> email.message.Message:
    return email.mime.multipart.MIMEMultipart(kind, _subparts=parts)


_leaves = _texts | st.builds(_attach, st.binary(max_size=100), _word)
_messages = st.recursive(
    _leaves,
    lambda inner: (
        st.builds(_multipart, st.sampled_from(["mixed", "alternative", "related"]), st.lists(inner, min_size=1, max_size=4))
        | st.builds(email.mime.message.MIMEMessage, inner)
    ),
    max_leaves=8,
)


@given(_messages, _word, st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=200, deadline=None)
def test_messages_that_email_writes_have_the_same_parts(message: email.message.Message, subject: str, newline: str) -> None:
    message["Subject"] = email.header.Header(subject.strip() or "x", "utf-8")
    content = message.as_bytes(policy=email.policy.compat32.clone(linesep=newline))
    parsed = parse(content)
    other = email.message_from_bytes(content)
    assert compare(content, parsed.root, other) >= 1
    assert parsed.subject == (subject.strip() or "x")
