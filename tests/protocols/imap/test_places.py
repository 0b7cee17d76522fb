"""Every command cut off anywhere, and with any octet spoilt: a command, or a BAD that says where the fault is (RFC 9051 section 7.1.3)."""

from __future__ import annotations

import re

import pytest

from fe_twisted.protocols.imap.arguments import COMMANDS, UID_COMMANDS
from fe_twisted.protocols.imap.commands import BadCommand, Command, NeedContinuation
from fe_twisted.protocols.imap.parse import Parser

#: Of every command all that it can have.
# fmt: off
SAMPLES: tuple[str, ...] = (
    "CAPABILITY", "NOOP", "LOGOUT", "STARTTLS", "CHECK", "CLOSE", "UNSELECT", "EXPUNGE", "IDLE", "NAMESPACE", "UNAUTHENTICATE",
    "LOGIN user \"pass\\\"word\"", "LOGIN {4+}\r\nuser {4+}\r\npass", "AUTHENTICATE PLAIN AGEAYg==", "AUTHENTICATE SCRAM-SHA-256 =",
    "ENABLE CONDSTORE QRESYNC X-OTHER", "COMPRESS DEFLATE", "ID NIL", 'ID ("name" "x" "version" NIL)',
    "SELECT INBOX", 'SELECT "a &AOQ- b" (CONDSTORE)', "EXAMINE x (QRESYNC (67890007 20050715194045000 41:211,300 (1:3 4:6)) CONDSTORE)",
    "CREATE x", "CREATE x (USE (\\Sent \\Drafts))", "DELETE x", "RENAME x {1+}\r\ny", "SUBSCRIBE x", "UNSUBSCRIBE x",
    'LIST "" *', 'LIST (SUBSCRIBED RECURSIVEMATCH) "" ("a*" %b) RETURN (CHILDREN STATUS (MESSAGES SIZE) SPECIAL-USE)', "LSUB #x. %",
    "STATUS x (MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN DELETED SIZE HIGHESTMODSEQ MAILBOXID APPENDLIMIT DELETED-STORAGE)",
    'GETQUOTA ""', "GETQUOTAROOT x", "GETMETADATA (MAXSIZE 1024 DEPTH infinity) x (/private/a/b /shared/c)",
    'GETMETADATA x (DEPTH 0) /private/a', 'SETMETADATA "" (/private/a "v" /shared/b NIL /private/c ~{2+}\r\n\0a)',
    'APPEND x (\\Seen $Work) " 7-Feb-1994 21:52:25 -0800" {3+}\r\nabc ~{2+}\r\na\0 UTF8 (~{1+}\r\na)',
    'APPEND x CATENATE (TEXT {1+}\r\na URL "/INBOX;UIDVALIDITY=5/;UID=3/;SECTION=1.2/;PARTIAL=1.2")',
    "REPLACE 4 x (\\Draft) {3+}\r\nabc", "REPLACE * x CATENATE (URL /;UID=3)",
    "SEARCH RETURN (MIN MAX COUNT SAVE PARTIAL -1:-100) CHARSET UTF-8 (OR NOT SEEN 1:*) $ UID 3,4:* SUBJECT {1+}\r\na",
    'SEARCH KEYWORD $a UNKEYWORD b HEADER X-Y "z" BODY a TEXT b LARGER 4 SMALLER 5 ON 1-Feb-1994 SENTSINCE "01-Feb-1994"',
    "SEARCH SAVEDON 1-Feb-1994",
    'SEARCH MODSEQ "/flags/\\\\draft" all 620162338 YOUNGER 5 OLDER 6 EMAILID M1 THREADID T1 X-REGEX SUBJECT "a(b|c)+" FROM a BCC b NEW',
    'ESEARCH IN (mailboxes ("a" b) subtree c subtree-one d selected personal) RETURN (COUNT) CHARSET UTF-8 SUBJECT "a"',
    "SORT RETURN (ALL COUNT) (REVERSE DATE SUBJECT DISPLAYFROM) UTF-8 UNSEEN SINCE 1-Feb-1994", "THREAD REFERENCES UTF-8 (SEEN 1:4)",
    "FETCH 1:3,7:* (FLAGS UID INTERNALDATE RFC822.SIZE ENVELOPE BODY BODYSTRUCTURE MODSEQ EMAILID THREADID SAVEDATE PREVIEW (LAZY))",
    "FETCH $ (BODY.PEEK[1.2.HEADER.FIELDS.NOT (a \"b\")]<0.100> BODY[1.MIME] RFC822)",
    "FETCH 1 (BINARY.PEEK[1.2]<3.4> BINARY.SIZE[1] BINARY[])", "FETCH * FULL",
    "STORE 1:* (UNCHANGEDSINCE 12) +FLAGS.SILENT (\\Deleted a)", "STORE 1 FLAGS \\Seen b", "COPY 1,2 x", "MOVE $ x",
    "NOTIFY SET STATUS (SELECTED (MessageNew (UID BODY.PEEK[HEADER.FIELDS (a)]) MessageExpunge)) (SUBTREE (x y) NONE)",
    "NOTIFY SET (PERSONAL (MailboxName)) (SUBTREE-ONE x NONE)",
    "NOTIFY NONE",
    "UID FETCH 1:* (FLAGS) (CHANGEDSINCE 12345 VANISHED PARTIAL 1:10)", "UID STORE 1 -FLAGS (a)", "UID SEARCH UID 1 ALL",
    "UID SORT (SIZE) US-ASCII ALL", "UID THREAD ORDEREDSUBJECT UTF-8 ALL", "UID REPLACE 7 x {1+}\r\na", "UID COPY 1 x", "UID MOVE 1 x",
    "UID EXPUNGE 1:2,4",
)
# fmt: on

#: What an octet is spoilt with.
SPOILT = '\0\t"(){}[]*%\\ \x7f\xe4<,:a0'


def event_of(text: str) -> object:
    """What the parser makes of a line, and that there is nothing left over."""
    parser = Parser()
    parser.authenticated = True
    parser.feed(b"a1 " + text.encode("latin-1") + b"\r\n")
    return parser.next_event()


def right(text: str) -> None:
    """A command, a literal that is waited for, or an error with its place."""
    event = event_of(text)
    if isinstance(event, Command | NeedContinuation) or event is None:  # None: octets of a literal are still to come
        return
    assert isinstance(event, BadCommand), event
    if event.refused:
        assert event.error_code or "empty message" in event.text, (text, event)
        return
    if event.text.startswith(("unknown command", "bare LF", "literal larger")):
        return
    place = re.search(r" at octet (\d+)\Z", event.text)
    assert place is not None, (text, event.text)
    assert 1 <= int(place[1]) <= len("a1 " + text) + 1, (text, event.text)
    assert event.text.isprintable() and len(event.text) < 200, (text, event.text)


def test_the_samples_are_commands_and_all_of_them() -> None:
    found = set()
    for text in SAMPLES:
        event = event_of(text)
        assert isinstance(event, Command), (text, event)
        found.add((event.name, event.uid))
    assert found == {(name, False) for name in COMMANDS} | {(name, True) for name in UID_COMMANDS}


@pytest.mark.parametrize("text", SAMPLES, ids=lambda text: text[:20].replace("\r\n", "/"))
def test_cut_off_anywhere(text: str) -> None:
    for end in range(1, len(text)):
        right(text[:end])


@pytest.mark.parametrize("text", SAMPLES, ids=lambda text: text[:20].replace("\r\n", "/"))
def test_with_more_than_there_may_be(text: str) -> None:
    for more in (" ", " extra", ")", " ()", " (", ' "', "  x"):
        right(text + more)


@pytest.mark.parametrize("text", SAMPLES, ids=lambda text: text[:20].replace("\r\n", "/"))
def test_with_any_octet_spoilt(text: str) -> None:
    for at in range(len(text)):
        for octet in SPOILT:
            right(text[:at] + octet + text[at + 1 :])
        right(text[:at] + text[at + 1 :])
        right(text[:at] + text[at] + text[at:])
