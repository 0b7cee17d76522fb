"""Response lines, octet for octet."""

from __future__ import annotations

import pytest

from fe_twisted.protocols.imap import responses, strings


def test_conditions() -> None:
    assert responses.tagged("a1", "OK", "done") == b"a1 OK done\r\n"
    assert responses.tagged("a1", "NO", "no such mailbox", "TRYCREATE") == b"a1 NO [TRYCREATE] no such mailbox\r\n"
    assert responses.untagged("OK", "UIDs valid", "UIDVALIDITY 5") == b"* OK [UIDVALIDITY 5] UIDs valid\r\n"
    assert responses.untagged("BYE", "") == b"* BYE -\r\n"
    assert responses.continuation() == b"+ ready\r\n"
    assert responses.continuation("") == b"+ \r\n"


def test_a_text_cannot_end_the_line_or_the_code() -> None:
    assert responses.tagged("a", "NO", "x\r\n* OK pwned\0é", "A]B\r\n") == b"a NO [A?B  ] x  * OK pwned??\r\n"


def test_lists_of_words() -> None:
    assert responses.capability(["IMAP4rev1", "IDLE"]) == b"* CAPABILITY IMAP4rev1 IDLE\r\n"
    assert responses.enabled([]) == b"* ENABLED\r\n"
    assert responses.enabled(["CONDSTORE"]) == b"* ENABLED CONDSTORE\r\n"
    assert responses.flags(["\\Seen", "$F"]) == b"* FLAGS (\\Seen $F)\r\n"
    assert responses.identity([]) == b"* ID NIL\r\n"
    assert responses.identity([("name", 'a"b'), ("version", None)]) == b'* ID ("name" "a\\"b" "version" NIL)\r\n'
    assert responses.namespace() == b'* NAMESPACE (("" "/")) NIL NIL\r\n'
    assert responses.namespace("\\") == b'* NAMESPACE (("" "\\\\")) NIL NIL\r\n'


def test_list() -> None:
    assert responses.listed("INBOX", ["\\HasNoChildren"]) == b'* LIST (\\HasNoChildren) "/" INBOX\r\n'
    assert responses.listed("a b", [], command="LSUB", separator=None) == b'* LSUB () NIL "a b"\r\n'
    assert responses.listed("Gelöscht", []) == b'* LIST () "/" Gel&APY-scht\r\n'
    assert responses.listed("Gelöscht", [], utf8=True) == '* LIST () "/" "Gelöscht"\r\n'.encode()
    assert responses.listed("x", ["\\NonExistent"], childinfo=["SUBSCRIBED"]) == (
        b'* LIST (\\NonExistent) "/" x ("CHILDINFO" ("SUBSCRIBED"))\r\n'
    )


def test_status_and_counts() -> None:
    assert responses.status("INBOX", [("MESSAGES", 3), ("MAILBOXID", "F2"), ("UNSEEN", 0)]) == (
        b"* STATUS INBOX (MESSAGES 3 MAILBOXID (F2) UNSEEN 0)\r\n"
    )
    assert responses.exists(3) + responses.recent(0) == b"* 3 EXISTS\r\n* 0 RECENT\r\n"
    assert responses.expunged([3, 3, 5]) == b"* 3 EXPUNGE\r\n* 3 EXPUNGE\r\n* 5 EXPUNGE\r\n"
    assert responses.expunged([]) == b""
    assert responses.vanished(((1, 3), (7, 7))) == b"* VANISHED 1:3,7\r\n"
    assert responses.vanished(((1, 1),), earlier=True) == b"* VANISHED (EARLIER) 1\r\n"
    assert responses.vanished(()) == b""


def test_search() -> None:
    assert responses.search([]) == b"* SEARCH\r\n"
    assert responses.search([2, 84, 882]) == b"* SEARCH 2 84 882\r\n"
    assert responses.search([2], 917162500) == b"* SEARCH 2 (MODSEQ 917162500)\r\n"


@pytest.mark.parametrize("count", [1023, 1024, 1025, 3000])
def test_many_numbers_are_one_line(count: int) -> None:
    numbers = list(range(count, 0, -1))
    assert responses.sort(numbers, 7) == b"* SORT " + " ".join(map(str, numbers)).encode() + b" (MODSEQ 7)\r\n"
    assert responses.search(numbers) == b"* SEARCH " + " ".join(map(str, numbers)).encode() + b"\r\n"
    assert responses.sort([]) == b"* SORT\r\n"


@pytest.mark.parametrize(
    ("uid", "returns", "found", "modseq", "expected"),
    [
        (False, ("MIN", "COUNT"), ((2, 3), (9, 9)), 0, b'* ESEARCH (TAG "A2") MIN 2 COUNT 3\r\n'),
        (True, ("ALL", "MAX"), ((2, 3), (9, 9)), 0, b'* ESEARCH (TAG "A2") UID MAX 9 ALL 2:3,9\r\n'),
        (True, ("MIN", "MAX", "ALL", "COUNT"), (), 5, b'* ESEARCH (TAG "A2") UID COUNT 0\r\n'),
        (False, ("ALL",), ((1, 1),), 7, b'* ESEARCH (TAG "A2") ALL 1 MODSEQ 7\r\n'),
        (False, ("SAVE",), ((1, 1),), 0, b'* ESEARCH (TAG "A2")\r\n'),
    ],
)
def test_esearch(uid: bool, returns: tuple[str, ...], found: tuple[tuple[int, int], ...], modseq: int, expected: bytes) -> None:
    assert responses.esearch("A2", uid, returns, found, modseq) == expected


def test_uidplus_codes() -> None:
    assert responses.appenduid(38505, [3955, 3956, 3960]) == "APPENDUID 38505 3955:3956,3960"
    assert responses.copyuid(38505, [304, 319, 320], [3956, 3957, 3958]) == "COPYUID 38505 304,319:320 3956:3958"
    assert responses.copyuid(38505, [], []) == ""


@pytest.mark.parametrize(
    ("octets", "wire"),
    [
        (b"INBOX", b"INBOX"),
        (b"", b'""'),
        (b"nil", b'"nil"'),
        (b"a]b", b"a]b"),
        (b"a b", b'"a b"'),
        (b'a"b\\c', b'"a\\"b\\\\c"'),
        (b"a*", b'"a*"'),
        (b"a\r\nb", b"{4}\r\na\r\nb"),
        (b"\xff", b"{1}\r\n\xff"),
        (b"x y" * 2000, b"{6000}\r\n" + b"x y" * 2000),
    ],
)
def test_astring(octets: bytes, wire: bytes) -> None:
    assert strings.astring(octets) == wire


def test_quoted_refuses_what_cannot_be_quoted() -> None:
    assert strings.quoted("é") == b'"\xc3\xa9"'
    for octets in (b"\0", b"\r", b"\n"):
        with pytest.raises(ValueError, match="quoted string"):
            strings.quoted(octets)
        assert strings.string(octets) == b"{1}\r\n" + octets
