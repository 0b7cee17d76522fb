"""Arguments of MAIL and RCPT."""

from __future__ import annotations

import pytest

from fe_twisted.base.addresses import POSTMASTER, Address
from fe_twisted.base.errors import BadAddress, BadSyntax, MailError, MessageTooLarge
from fe_twisted.protocols.smtp.address import (
    BadParameter,
    BadSender,
    NotAscii,
    Sender,
    UnknownParameter,
    parse_mail,
    parse_rcpt,
)


@pytest.mark.parametrize(
    ("argument", "sender"),
    [
        ("FROM:<>", Sender(None)),
        ("from: <a@Example.ORG>", Sender(Address("a", "example.org"))),
        ("FROM:<@x.example,@y.example:a@example.org>", Sender(Address("a", "example.org"))),
        ('FROM:<"a b>c"@example.org>', Sender(Address("a b>c", "example.org"))),
        ('FROM:<"a\\"b"@example.org> SIZE=7', Sender(Address('a"b', "example.org"), 7)),
        ("FROM:<a@[192.0.2.1]> body=8bitmime", Sender(Address("a", "[192.0.2.1]"), None, True)),
        ("FROM:<> SIZE=1000 BODY=7BIT  SMTPUTF8", Sender(None, 1000, False, True)),
        ("FROM:<jürgen@bücher.example> SMTPUTF8", Sender(Address("jürgen", "xn--bcher-kva.example"), smtputf8=True)),
    ],
)
def test_mail(argument: str, sender: Sender) -> None:
    assert parse_mail(argument.encode(), 1000) == sender


@pytest.mark.parametrize(
    ("argument", "error"),
    [
        (b"", BadSyntax),
        (b"FROM", BadSyntax),
        (b"FROM:", BadSyntax),
        (b"FROM:a@example.org", BadSyntax),
        (b"FROM:<a@example.org", BadSyntax),
        (b"FROM:<a@example.org>SIZE=1", BadSyntax),
        (b"FROM:<a@example.org><b@example.org>", BadSyntax),
        (b"FROM:<<a@example.org>>", BadSyntax),
        (b"FROM:< >", BadSyntax),
        (b"FROM:<\xff@example.org> SMTPUTF8", BadSyntax),
        (b"FROM:<a>", BadSender),
        (b"FROM:<@x.example:>", BadSender),
        (b"FROM:<a@b..c>", BadSender),
        (b"FROM:<postmaster>", BadSender),
        (b"FROM:<> SIZE", BadParameter),
        (b"FROM:<> SIZE=-1", BadParameter),
        (b"FROM:<> SIZE=" + "٣".encode(), BadParameter),
        (b"FROM:<> SIZE=1 size=1", BadParameter),
        (b"FROM:<> BODY", BadParameter),
        (b"FROM:<> SMTPUTF8 SMTPUTF8", BadParameter),
        (b"FROM:<> A=b=c", BadParameter),
        (b"FROM:<> RET=FULL", UnknownParameter),
        (b"FROM:<> AUTH=<>", UnknownParameter),
        (b"FROM:<> SIZE=1001", MessageTooLarge),
        ("FROM:<é@example.org>".encode(), NotAscii),
        ("FROM:<e@é.example>".encode(), NotAscii),
    ],
)
def test_bad_mail(argument: bytes, error: type[MailError]) -> None:
    with pytest.raises(error) as caught:
        parse_mail(argument, 1000)
    assert type(caught.value) is error


def test_rcpt() -> None:
    """Postmaster in any case needs no domain; SMTPUTF8 was said in MAIL."""
    assert parse_rcpt(b"TO:<pOSTmASTER>", False) == POSTMASTER
    assert parse_rcpt(b"to:<a+b@example.com>", False) == Address("a+b", "example.com")
    assert parse_rcpt("TO:<ü@example.com>".encode(), True) == Address("ü", "example.com")
    for argument, error in (
        (b"TO:<>", BadAddress),
        (b"TO:<a@b> X=1", UnknownParameter),
        ("TO:<ü@b>".encode(), NotAscii),
        (b"FROM:<a@b>", BadSyntax),
    ):
        with pytest.raises(error):
            parse_rcpt(argument, False)


def test_reading_is_linear() -> None:
    """The longest command line of nothing but quotes, backslashes or commas is read at once."""
    for filling in (b'"', b"\\", b'"\\', b"@a,", b"<", b" ", b"@,:", b'""'):
        with pytest.raises(MailError):
            parse_mail(b"FROM:<" + filling * (4000 // len(filling)) + b">", 1000)
