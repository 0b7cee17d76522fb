"""Commands that break the grammar, and commands that are refused: each gets its tagged answer, and the next command works."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.whole.daemon import Daemon, Owner, simple
from tests.whole.wire import Imap

#: Each with a ``^`` where the answer must say that the fault is; the arrow is not sent.
# fmt: off
MALFORMED = (
    "NOOP^ extra", "FETCH^", "FETCH 1^", "FETCH ^0 FLAGS", "FETCH ^1: FLAGS", "FETCH 1:* ^", "FETCH ^1,,2 FLAGS", "FETCH ^a FLAGS",
    "FETCH ^99999999999 FLAGS", "FETCH 1 ^NOSUCH", "FETCH 1 (FLAGS^", "FETCH 1 (FLAGS ^NOSUCH)", "FETCH 1 (^)", "FETCH 1 FLAGS^)",
    "FETCH 1 BODY[^", "FETCH 1 BODY[1.^MIM]", "FETCH 1 BODY[^MIME]", "FETCH 1 BODY[^0]", "FETCH 1 BODY[1.^.2]",
    "FETCH 1 BODY[HEADER.FIELDS^]", "FETCH 1 BODY[HEADER.FIELDS (^)]", "FETCH 1 BODY[HEADER.FIELDS (^a:b)]", "FETCH 1 BODY[]^<1>",
    "FETCH 1 BODY[]^<0.0>", "FETCH 1 BODY[]^<.5>", "FETCH 1 BINARY[^TEXT]", "FETCH 1 ^ FLAGS", "FETCH 1 FLAGS (CHANGEDSINCE ^x)",
    "UID FETCH 1^", "UID EXPUNGE^", "STORE 1^", "STORE 1 FLAGS^", "STORE 1 ^FLAG (\\Seen)", "STORE 1 FLAGS (^\\Recent)",
    "STORE 1 FLAGS (\\Seen^", 'STORE 1 FLAGS (a^"b)', "STORE 1 FLAGS^.LOUD ()", "STORE * +FLAGS (^\\*)", "SEARCH^", "SEARCH ^NOSUCH",
    "SEARCH SUBJECT^", 'SEARCH SUBJECT ^"x', "SEARCH OR SEEN^", "SEARCH NOT^", "SEARCH (SEEN^", "SEARCH (^)", "SEARCH SINCE ^32-Jan-2024",
    "SEARCH SINCE ^1-Foo-2024", 'SEARCH SINCE ^"1-Jan-2024', "SEARCH LARGER ^x", "SEARCH LARGER ^99999999999999999999",
    "SEARCH KEYWORD ^\\Seen", "SEARCH ^CHARSET", "SEARCH UID^", "SEARCH HEADER From^", "SEARCH SEEN ^ UNSEEN", "SELECT^",
    "SELECT INBOX ^extra", 'SELECT ^"INBOX', "SELECT INBOX (^NOSUCH)", "EXAMINE^", "CREATE^", "CREATE a ^b", 'CREATE ^"&"',
    'CREATE ^"a\tb"', "DELETE^", "RENAME a^", "RENAME INBOX^", "SUBSCRIBE^", 'LIST ""^', 'LIST "" ^"x', "LIST^", "LSUB^", "STATUS INBOX^",
    "STATUS INBOX (^)", "STATUS INBOX (^NOSUCH)", "STATUS INBOX ^MESSAGES", "STATUS INBOX (MESSAGES^", "COPY 1^", "COPY 1 ^",
    "COPY ^x INBOX", "MOVE 1^", "APPEND^", "APPEND INBOX^", 'APPEND INBOX ^"x"', "ENABLE^", "ID^", "ID (^a)", 'ID ("a"^)', 'ID ("a" "b"^',
    "AUTHENTICATE^", "IDLE^ x", "EXPUNGE^ 1", "CLOSE^ x", "UNSELECT^ x", "CAPABILITY^ x", "LOGOUT^ x", "SORT (DATE) UTF-8^",
    "SORT (^NOSUCH) UTF-8 ALL", "THREAD ^NOSUCH UTF-8 ALL",
)
# fmt: on

#: No place is better than the command's name, which the answer must hold.
UNKNOWN = ("NOSUCH", "NOSUCH 1 FLAGS", "UID NOOP", "UID", "FETCHX 1 FLAGS", "XYZZY")

#: What a client must not do where it stands, with INBOX selected, with the response code of RFC 5530 or of the extension.
REFUSED = (
    ("SELECT Nowhere", "NONEXISTENT"),
    ("EXAMINE Nowhere", "NONEXISTENT"),
    ("STATUS Nowhere (MESSAGES)", "NONEXISTENT"),
    ("DELETE Nowhere", "NONEXISTENT"),
    ("DELETE INBOX", "CANNOT"),
    ("CREATE INBOX", "ALREADYEXISTS"),
    ("CREATE Drafts", "ALREADYEXISTS"),
    ('CREATE ""', "CANNOT"),
    ("CREATE a//b", "CANNOT"),
    ("RENAME Nowhere x", "NONEXISTENT"),
    ("RENAME Drafts Sent", "ALREADYEXISTS"),
    ("RENAME Drafts INBOX", "ALREADYEXISTS"),
    ("RENAME Drafts Drafts/x", "CANNOT"),
    ("COPY 1 Nowhere", "TRYCREATE"),
    ("UID COPY 1 Nowhere", "TRYCREATE"),
    ("MOVE 1 Nowhere", "TRYCREATE"),
    ("UID MOVE 1 Nowhere", "TRYCREATE"),
    ("APPEND Nowhere {3+}\r\nabc", "TRYCREATE"),
    ("SEARCH CHARSET X-NO-SUCH TEXT x", "BADCHARSET"),
    ("SORT (DATE) X-NO-SUCH ALL", "BADCHARSET"),
    ("THREAD REFERENCES X-NO-SUCH ALL", "BADCHARSET"),
    ("FETCH 2 BINARY[1]", "UNKNOWN-CTE"),
    ("CREATE x (USE (\\NoSuch))", "USEATTR"),
)

#: With INBOX opened by EXAMINE.
READ_ONLY = ("STORE 1 FLAGS (\\Seen)", "UID STORE 1 +FLAGS.SILENT (x)", "MOVE 1 Drafts", "UID MOVE 1 Drafts", "EXPUNGE", "UID EXPUNGE 1")

#: These need a selected mailbox.
SELECTED_ONLY = ("FETCH 1 FLAGS", "UID FETCH 1 FLAGS", "STORE 1 FLAGS ()", "COPY 1 Drafts", "SEARCH ALL", "EXPUNGE", "CLOSE", "CHECK")

#: These need a login, or must not come after it.
LOGIN_ONLY = ("SELECT INBOX", 'LIST "" *', "STATUS INBOX (MESSAGES)", "APPEND INBOX {3+}\r\nabc", "NAMESPACE", "SUBSCRIBE x", "IDLE")


@pytest.fixture(scope="module")
def filled(daemon: Daemon) -> Owner:
    """Two messages; the second one in an encoding that nobody knows."""
    owner = daemon.owner()
    daemon.send(owner.address, simple())
    daemon.send(owner.address, simple(more="MIME-Version: 1.0\r\nContent-Transfer-Encoding: x-rot13\r\n"))
    return owner


@pytest.fixture
def wire(daemon: Daemon, filled: Owner) -> Iterator[Imap]:
    """A session with INBOX selected."""
    with Imap(daemon, filled, "INBOX", door="imap") as one:
        yield one


def _answer(wire: Imap, text: str) -> str:
    """The tagged answer; the next command must work, and the connection must be where it was."""
    tag = wire.command(text.encode())
    answer = wire.until(tag)[-1].decode()
    assert answer.startswith(f"{tag.decode()} "), answer
    assert wire.ask(b"NOOP")[-1].endswith(b"OK NOOP completed")
    return answer.removeprefix(f"{tag.decode()} ")


@pytest.mark.parametrize("marked", MALFORMED)
def test_a_grammar_error_is_a_bad_with_its_place(wire: Imap, marked: str) -> None:
    """Octets are counted from 1, the tag's first one."""
    before, _, after = marked.partition("^")
    answer = _answer(wire, before + after)
    found = re.fullmatch(r"BAD (?:\[[^\]]+\] )?(.+) at octet (\d+)", answer)
    assert found is not None, answer
    assert len(found[1]) > 8 and int(found[2]) == len("t2 ") + len(before) + 1, answer
    assert wire.ask(b"FETCH 1 FLAGS")[-1].split(b" ")[1] == b"OK", "still selected"


@pytest.mark.parametrize("command", UNKNOWN)
def test_an_unknown_command_is_a_bad_with_its_name(wire: Imap, command: str) -> None:
    answer = _answer(wire, command)
    assert answer.startswith("BAD ") and command.partition(" ")[0] in answer


@pytest.mark.parametrize(("command", "code"), REFUSED)
def test_a_refusal_is_a_no_with_its_code(wire: Imap, command: str, code: str) -> None:
    answer = _answer(wire, command)
    assert re.match(rf"NO \[{code}[ \]]", answer), answer


@pytest.mark.parametrize("command", READ_ONLY)
def test_a_mailbox_opened_to_look_at(wire: Imap, command: str) -> None:
    """RFC 9051 section 6.3.3: no changes are permitted."""
    wire.ask(b"EXAMINE INBOX")
    assert _answer(wire, command).startswith("NO ")
    assert b"* 2 EXISTS" in wire.ask(b"SELECT INBOX")


@pytest.mark.parametrize("command", SELECTED_ONLY)
def test_no_mailbox_is_selected(wire: Imap, command: str) -> None:
    wire.ask(b"UNSELECT")
    assert _answer(wire, command).startswith("BAD ")


@pytest.mark.parametrize("command", LOGIN_ONLY)
def test_nobody_is_logged_in(daemon: Daemon, command: str) -> None:
    with Imap(daemon, door="imap") as one:
        assert _answer(one, command).startswith("BAD ")


def test_logins_that_fail(daemon: Daemon, filled: Owner) -> None:
    """RFC 5530: AUTHENTICATIONFAILED, and nothing that tells whether the user exists."""
    with Imap(daemon, door="imap") as one:
        answers = {_answer(one, f"LOGIN {name} wrong") for name in (filled.address, "nobody@example.com", "x")}
        (answer,) = answers
        assert answer.startswith("NO [AUTHENTICATIONFAILED]")
        assert _answer(one, "AUTHENTICATE NOSUCH").startswith(("NO ", "BAD "))
