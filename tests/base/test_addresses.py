"""Addresses: what is read, what is refused, and that one mailbox has one spelling."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.base.addresses import POSTMASTER, Address, normalise_domain, parse_address
from fe_twisted.base.errors import BadAddress


@pytest.mark.parametrize(
    ("text", "local", "domain", "written"),
    [
        ("hello@example.com", "hello", "example.com", "hello@example.com"),
        ("Hello+Tag@EXAMPLE.com", "Hello+Tag", "example.com", "Hello+Tag@example.com"),
        ("!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~", "example.com", "!#$%&'*+-/=?^_`{|}~@example.com"),
        ('"a b"@example.com', "a b", "example.com", '"a b"@example.com'),
        ('"plain"@example.com', "plain", "example.com", "plain@example.com"),
        (r'"a\"b\\c"@example.com', r'a"b\c', "example.com", r'"a\"b\\c"@example.com'),
        ('"a@b"@example.com', "a@b", "example.com", '"a@b"@example.com'),
        ('""@example.com', "", "example.com", '""@example.com'),
        ("用户@例え.jp", "用户", "xn--r8jz45g.jp", "用户@xn--r8jz45g.jp"),
        ("x@Bücher.example", "x", "xn--bcher-kva.example", "x@xn--bcher-kva.example"),
        ("x@XN--BCHER-KVA.example", "x", "xn--bcher-kva.example", "x@xn--bcher-kva.example"),
        ("x@faß.de", "x", "xn--fa-hia.de", "x@xn--fa-hia.de"),
        ("x@例え\u3002jp", "x", "xn--r8jz45g.jp", "x@xn--r8jz45g.jp"),
        ("x@[192.0.2.1]", "x", "[192.0.2.1]", "x@[192.0.2.1]"),
        ("x@[ipv6:2001:DB8:0::1]", "x", "[IPv6:2001:db8::1]", "x@[IPv6:2001:db8::1]"),
        ("x@localhost", "x", "localhost", "x@localhost"),
    ],
)
def test_reads(text: str, local: str, domain: str, written: str) -> None:
    address = parse_address(text)
    assert (address.local, address.domain) == (local, domain)
    assert str(address) == written
    assert parse_address(written) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "hello",
        "postmaster",
        "@example.com",
        "hello@",
        "a..b@example.com",
        ".a@example.com",
        "a.@example.com",
        "a b@example.com",
        "a@b@example.com",
        "<a@example.com>",
        "a@example.com ",
        " a@example.com",
        "a@example..com",
        "a@example.com.",
        "a@-example.com",
        "a@example-.com",
        "a@exa_mple.com",
        "a@exam ple.com",
        "a@" + "x" * 64 + ".com",
        "a\r\nRCPT TO:<b@example.com>@example.com",
        "a\x00@example.com",
        "a@example.com\n",
        '"a\r\n"@example.com',
        '"a@example.com',
        '"a"b@example.com',
        'a"b"@example.com',
        '"a\\"@example.com',
        "a\u2028b@example.com",
        "a\x85b@example.com",
        "a\ud800@example.com",
        "a@[1.2.3]",
        "a@[1.2.3.4",
        "a@[01.2.3.4]",
        "a@[IPv6:::1%eth0]",
        "a@[x400:foo]",
        "a@\u2488com",
        "a@xn--\u00fc.com",
        "x@\u200d.com",
        "x" * 65 + "@example.com",
        "ü" * 33 + "@example.com",
        "x@" + ".".join(["a" * 60] * 5),
        "x" * 60 + "@" + ".".join(["a" * 60] * 4),
        "a@" + "ü" * 10_000,
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(BadAddress):
        parse_address(text)


def test_the_longest_that_may_be() -> None:
    local, domain = "x" * 64, ".".join(["a" * 61, "b" * 61, "c" * 61, "dd"])
    address = parse_address(f"{local}@{domain}")
    assert len(str(address)) == 253
    assert len(str(parse_address(f"{local}@{domain}d"))) == 254
    with pytest.raises(BadAddress):
        parse_address(f"{local}@{domain}dd")


def test_quoting_counts_towards_the_length_of_the_whole() -> None:
    domain = ".".join(["a" * 61, "b" * 61, "c" * 61, "ddd"])
    with pytest.raises(BadAddress):
        parse_address('"' + " " * 64 + '"@' + domain)


def test_normal_form() -> None:
    assert parse_address("HeLLo@Example.COM").normalise() == Address("hello", "example.com")
    composed, decomposed = parse_address("J\u00fcrgen@example.com"), parse_address("Ju\u0308rgen@example.com")
    assert composed != decomposed
    assert composed.normalise() == decomposed.normalise() == Address("j\u00fcrgen", "example.com")


@pytest.mark.parametrize(
    ("local", "base", "tag"),
    [("hello+tag", "hello", "tag"), ("hello+a+b", "hello", "a+b"), ("hello", "hello", ""), ("+tag", "+tag", ""), ("hello+", "hello", "")],
)
def test_plus_addressing(local: str, base: str, tag: str) -> None:
    address = Address(local, "example.com")
    assert address.base_address() == Address(base, "example.com")
    assert address.tag == tag


def test_postmaster_has_no_domain() -> None:
    assert str(POSTMASTER) == "postmaster"


def test_domains_alone() -> None:
    assert normalise_domain("EXAMPLE.com") == "example.com"
    assert normalise_domain("münchen.example") == "xn--mnchen-3ya.example"
    for bad in ("", ".", "a b", "exa\nmple.com", "[", "[]", "]"):
        with pytest.raises(BadAddress):
            normalise_domain(bad)


_LOCALS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20).filter(lambda text: len(text.encode()) <= 50)


@given(_LOCALS)
@settings(max_examples=200, deadline=None)
def test_every_local_part_survives_writing_and_reading(local: str) -> None:
    address = Address(local, "example.com")
    assert parse_address(str(address)) == address
    normal = address.normalise()
    assert normal.normalise() == normal
    assert unicodedata.is_normalized("NFC", normal.local)


@given(st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_text_is_an_address_or_bad(text: str) -> None:
    try:
        address = parse_address(text)
    except BadAddress:
        return
    assert parse_address(str(address)) == address
    assert not any(char in str(address) for char in "\r\n\0")
