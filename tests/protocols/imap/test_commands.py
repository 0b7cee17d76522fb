"""Every command, well-formed and not: one line in, one event out."""

from __future__ import annotations

import datetime
from datetime import UTC, timedelta, timezone
from typing import Any

import pytest

from fe_twisted.protocols.imap import search as k
from fe_twisted.protocols.imap.arguments import COMMANDS, UID_COMMANDS
from fe_twisted.protocols.imap.commands import (
    SAVED,
    Append,
    AppendMessage,
    Authenticate,
    BadCommand,
    Command,
    Compress,
    Copy,
    Create,
    Enable,
    Event,
    EventGroup,
    Expunge,
    Fetch,
    FetchItem,
    Id,
    List,
    Login,
    Mailbox,
    MessageUrl,
    NeedContinuation,
    Notify,
    Partial,
    Rename,
    Replace,
    Resync,
    Search,
    Section,
    Select,
    Status,
    Store,
)
from fe_twisted.protocols.imap.metadata import GetMetadata, QuotaRoot, SetMetadata
from fe_twisted.protocols.imap.multisearch import MultiSearch, Source
from fe_twisted.protocols.imap.parse import Parser
from fe_twisted.protocols.imap.sort import Algorithm, Criterion, Sort, SortKey, Thread


def one(line: bytes, *, utf8: bool = False) -> Event:
    """The only event of one command; continuations are taken as granted."""
    parser = Parser()
    parser.authenticated = True
    parser.utf8 = utf8
    parser.feed(line + b"\r\n")
    made = [event for event in parser.events() if not isinstance(event, NeedContinuation)]
    assert len(made) == 1, made
    assert parser.buffered == 0
    return made[0]


def arguments(line: bytes, **options: bool) -> Any:
    event = one(b"a1 " + line, **options)
    assert isinstance(event, Command), event
    return event.arguments


def problem(line: bytes, **options: bool) -> BadCommand:
    event = one(b"a1 " + line, **options)
    assert isinstance(event, BadCommand), event
    assert event.tag == "a1"
    assert not event.fatal
    return event


def item(name: str, label: bytes = b"", **other: Any) -> FetchItem:
    return FetchItem(name, label=label or name.encode(), **other)


SEEN, DELETED = k.Flag("\\Seen"), k.Flag("\\Deleted")
FLAGS, DATE, SIZE, ENVELOPE, BODY = (item(name) for name in ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"))

BACKWARDS = Criterion(SortKey.SUBJECT, reverse=True)
ONE_SEEN = k.And((k.Sequence(((1, 1),)), SEEN))
GOOD: list[tuple[bytes, Any]] = [
    (b"LOGIN joe secret", Login(b"joe", b"secret")),
    (b'LOGIN "j\\"o\\\\e" {7}\r\nse"cr\\t', Login(b'j"o\\e', b'se"cr\\t')),
    (b"login {3}\r\njoe {6+}\r\nse\r\nct", Login(b"joe", b"se\r\nct")),
    (b'LOGIN "jo\xc3\xab" ""', Login(b"jo\xc3\xab", b"")),
    (b"LOGIN a]b c", Login(b"a]b", b"c")),
    (b"AUTHENTICATE plain", Authenticate("PLAIN", None)),
    (b"AUTHENTICATE PLAIN AHRpbQB0", Authenticate("PLAIN", b"AHRpbQB0")),
    (b"AUTHENTICATE EXTERNAL =", Authenticate("EXTERNAL", b"=")),
    (b"ENABLE condstore UTF8=ACCEPT", Enable(("CONDSTORE", "UTF8=ACCEPT"))),
    (b"ID NIL", Id(())),
    (b"ID ()", Id(())),
    (b'ID ("name" "x" "version" NIL)', Id((("name", "x"), ("version", None)))),
    (b"SELECT inbox", Select("INBOX")),
    (b"SELECT InBox/x", Select("INBOX/x")),
    (b"SELECT inboxes", Select("inboxes")),
    (b"EXAMINE {5}\r\nA &-B", Select("A &B")),
    (b'SELECT "Gel&APY-scht"', Select("Gelöscht")),
    (b"SELECT x (condstore)", Select("x", condstore=True)),
    (
        b"SELECT x (QRESYNC (67890007 9 41:211 (1:3 4:6)) CONDSTORE)",
        Select("x", True, Resync(67890007, 9, ((41, 211),), (((1, 3),), ((4, 6),)))),
    ),
    (b"CREATE a/b", Create("a/b")),
    (b"CREATE a (USE (\\sent \\Junk))", Create("a", ("\\Sent", "\\Junk"))),
    (b"CREATE a (use ())", Create("a", ())),
    (b"DELETE a", Mailbox("a")),
    (b"SUBSCRIBE #news", Mailbox("#news")),
    (b"UNSUBSCRIBE a", Mailbox("a")),
    (b'RENAME "a b" inbox', Rename("a b", "INBOX")),
    (b'LIST "" *', List("", ("*",))),
    (b'LIST "" ""', List("", ("",))),
    (b"LIST a/ %/%", List("a/", ("%/%",))),
    (b'LIST (subscribed recursivematch) "" "x*"', List("", ("x*",), ("SUBSCRIBED", "RECURSIVEMATCH"))),
    (b'LIST () "" (INBOX "&APY-%")', List("", ("INBOX", "ö%"))),
    (
        b'LIST "" % return (children STATUS (messages UIDNEXT) special-use)',
        List("", ("%",), (), ("CHILDREN", "STATUS", "SPECIAL-USE"), ("MESSAGES", "UIDNEXT")),
    ),
    (b'LIST "" % RETURN ()', List("", ("%",))),
    (b'LSUB "" *', List("", ("*",))),
    (b"STATUS inbox (messages UNSEEN messages)", Status("INBOX", ("MESSAGES", "UNSEEN"))),
    (b"APPEND x {3}\r\nabc", Append("x", (AppendMessage(b"abc"),))),
    (b"APPEND {1}\r\nx {3+}\r\nabc", Append("x", (AppendMessage(b"abc"),))),
    (
        b'APPEND x (\\seen $F) "17-jul-1996 02:44:25 -0700" {3+}\r\na\0c',
        Append(
            "x",
            (
                AppendMessage(
                    b"a\0c", frozenset(("\\Seen", "$F")), datetime.datetime(1996, 7, 17, 2, 44, 25, tzinfo=timezone(-timedelta(hours=7)))
                ),
            ),
        ),
    ),
    (
        b'APPEND x " 1-Feb-2020 00:00:60 +0000" {1}\r\na () ~{1}\r\nb UTF8 (~{1+}\r\nc)',
        Append(
            "x",
            (
                AppendMessage(b"a", internaldate=datetime.datetime(2020, 2, 1, 0, 0, 59, tzinfo=UTC)),
                AppendMessage(b"b"),
                AppendMessage(b"c"),
            ),
        ),
    ),
    (b"COPY 1:3,* a", Copy(((1, 3), (None, None)), "a")),
    (b"UID MOVE $ inbox", Copy(SAVED, "INBOX")),
    (b"UID EXPUNGE 3:*", Expunge(((3, None),))),
    (b"EXPUNGE", None),
    (b"STORE 1 FLAGS ()", Store(((1, 1),), "replace", frozenset())),
    (b"STORE 1 +FLAGS.SILENT \\seen \\FLAGGED kw", Store(((1, 1),), "add", frozenset(("\\Seen", "\\Flagged", "kw")), True)),
    (b"UID STORE 1 (UNCHANGEDSINCE 0) -flags (\\Draft)", Store(((1, 1),), "remove", frozenset(("\\Draft",)), False, 0)),
    (b"FETCH 1 FAST", Fetch(((1, 1),), (FLAGS, DATE, SIZE))),
    (b"FETCH 1 all", Fetch(((1, 1),), (FLAGS, DATE, SIZE, ENVELOPE))),
    (b"FETCH 1 FULL", Fetch(((1, 1),), (FLAGS, DATE, SIZE, ENVELOPE, BODY))),
    (b"FETCH 1 body", Fetch(((1, 1),), (BODY,))),
    (b"FETCH 1 (uid UID)", Fetch(((1, 1),), (item("UID"),))),
    (
        b"FETCH 1 (RFC822 RFC822.HEADER RFC822.TEXT)",
        Fetch(((1, 1),), (item("RFC822", peek=False), item("RFC822.HEADER"), item("RFC822.TEXT", peek=False))),
    ),
    (b"FETCH 1 BODY[]", Fetch(((1, 1),), (item("BODY[]", section=Section(), peek=False),))),
    (
        b"FETCH 1 body.peek[]<10.20>",
        Fetch(((1, 1),), (item("BODY[]", b"BODY[]<10>", section=Section(), partial=(10, 20)),)),
    ),
    (
        b"FETCH 1 BODY.PEEK[1.2.mime]",
        Fetch(((1, 1),), (item("BODY[]", b"BODY[1.2.MIME]", section=Section((1, 2), "MIME")),)),
    ),
    (
        b'FETCH 1 BODY[3.header.fields.not (Date "To" {2+}\r\nCc)]<0.1>',
        Fetch(
            ((1, 1),),
            (
                item(
                    "BODY[]",
                    b"BODY[3.HEADER.FIELDS.NOT (Date To Cc)]<0>",
                    section=Section((3,), "HEADER.FIELDS.NOT", ("Date", "To", "Cc")),
                    peek=False,
                    partial=(0, 1),
                ),
            ),
        ),
    ),
    (b"FETCH 1 BODY[TEXT]", Fetch(((1, 1),), (item("BODY[]", b"BODY[TEXT]", section=Section((), "TEXT"), peek=False),))),
    (
        b"FETCH 1 (BINARY[1]<0.5> BINARY.PEEK[2] BINARY.SIZE[1.1])",
        Fetch(
            ((1, 1),),
            (
                item("BINARY[]", b"BINARY[1]<0>", section=Section((1,)), peek=False, partial=(0, 5)),
                item("BINARY[]", b"BINARY[2]", section=Section((2,))),
                item("BINARY.SIZE[]", b"BINARY.SIZE[1.1]", section=Section((1, 1))),
            ),
        ),
    ),
    (b"UID FETCH 1 UID (CHANGEDSINCE 5 VANISHED)", Fetch(((1, 1),), (item("UID"),), 5, True)),
    (b"FETCH 1 UID (changedsince 9223372036854775807)", Fetch(((1, 1),), (item("UID"),), (1 << 63) - 1)),
    (b"COMPRESS deflate", Compress("DEFLATE")),
    (b"ESEARCH ALL", MultiSearch((Source("SELECTED"),), k.All())),
    (
        b"ESEARCH IN (mailboxes (inbox a) SUBTREE b personal) RETURN (COUNT) CHARSET utf-8 SEEN",
        MultiSearch((Source("MAILBOXES", ("INBOX", "a")), Source("SUBTREE", ("b",)), Source("PERSONAL")), SEEN, ("COUNT",)),
    ),
    (b"SORT (date) utf-8 ALL", Sort((Criterion(SortKey.DATE),), k.All())),
    (b"SORT RETURN (MIN) (REVERSE SUBJECT DATE SUBJECT) UTF-8 1 SEEN", Sort((BACKWARDS, Criterion(SortKey.DATE)), ONE_SEEN, ("MIN",))),
    (b"UID SORT (DISPLAYTO) UTF-8 ALL", Sort((Criterion(SortKey.DISPLAYTO),), k.All())),
    (b"THREAD references utf-8 SEEN", Thread(Algorithm.REFERENCES, SEEN)),
    (b"UID THREAD ORDEREDSUBJECT iso-8859-1 TO {1}\r\n\xeb", Thread(Algorithm.ORDEREDSUBJECT, k.Header("to", "\u00eb"))),
    (b"GETQUOTA {2+}\r\na ", QuotaRoot("a ")),
    (b"GETQUOTAROOT inbox", Mailbox("INBOX")),
    (b'GETMETADATA "" /Shared/Comment', GetMetadata("", ("/shared/comment",))),
    (b"GETMETADATA (DEPTH infinity MAXSIZE 9) box (/private/a /private/b)", GetMetadata("box", ("/private/a", "/private/b"), -1, 9)),
    (b'SETMETADATA box (/private/a NIL /private/b "x")', SetMetadata("box", (("/private/a", None), ("/private/b", b"x")))),
    (b"SETMETADATA box (/private/a ~{1+}\r\n\0)", SetMetadata("box", (("/private/a", b"\0"),))),
    (b"REPLACE 4 box (\\Seen) {1+}\r\nx", Replace(4, "box", AppendMessage(b"x", frozenset({"\\Seen"})))),
    (b"UID REPLACE * box ~{1}\r\nx", Replace(None, "box", AppendMessage(b"x"))),
    (
        b'APPEND box CATENATE (TEXT {1+}\r\nx URL "/a%2Fb;UIDVALIDITY=7/;UID=9/;SECTION=1.MIME/;PARTIAL=3.4" URL /;UID=2)',
        Append(
            "box",
            (
                AppendMessage(
                    b"",
                    parts=(
                        b"x",
                        MessageUrl("/a%2Fb;UIDVALIDITY=7/;UID=9/;SECTION=1.MIME/;PARTIAL=3.4", "a/b", 7, 9, Section((1,), "MIME"), (3, 4)),
                        MessageUrl("/;UID=2", "", None, 2),
                    ),
                ),
            ),
        ),
    ),
    (b"SEARCH ALL", Search(k.All())),
    (b"SEARCH NEW", Search(k.And((k.Recent(), k.Not(SEEN))))),
    (b"SEARCH old UNSEEN", Search(k.And((k.Not(k.Recent()), k.Not(SEEN))))),
    (b"SEARCH (RECENT)", Search(k.Recent())),
    (b"SEARCH OR DELETED NOT (SEEN 1:2)", Search(k.Or(DELETED, k.Not(k.And((SEEN, k.Sequence(((1, 2),)))))))),
    (b"SEARCH UID 5:* *", Search(k.And((k.UidSequence(((5, None),)), k.Sequence(((None, None),)))))),
    (b"SEARCH $ UID $", Search(k.And((k.Saved(), k.Saved())))),
    (b"SEARCH KEYWORD $F UNKEYWORD x", Search(k.And((k.Flag("$F"), k.Not(k.Flag("x")))))),
    (b"SEARCH FROM joe SUBJECT {3+}\r\na b", Search(k.And((k.Header("from", "joe"), k.Header("subject", "a b"))))),
    (b'SEARCH HEADER Message-ID ""', Search(k.Header("message-id", ""))),
    (b'SEARCH BODY "x" TEXT y', Search(k.And((k.Body("x"), k.Text("y"))))),
    (b"SEARCH LARGER 5 SMALLER 9", Search(k.And((k.Size(k.Compare.LARGER, 5), k.Size(k.Compare.BEFORE, 9))))),
    (b"SEARCH SINCE 1-feb-1994", Search(k.Date(k.DateOf.INTERNAL, k.Compare.SINCE, datetime.date(1994, 2, 1)))),
    (b'SEARCH SENTBEFORE "29-Feb-2024"', Search(k.Date(k.DateOf.SENT, k.Compare.BEFORE, datetime.date(2024, 2, 29)))),
    (b"SEARCH SAVEDON 01-Jan-2000", Search(k.Date(k.DateOf.SAVED, k.Compare.ON, datetime.date(2000, 1, 1)))),
    (b'SEARCH MODSEQ "/flags/\\\\draft" all 7 YOUNGER 60', Search(k.And((k.Modseq(7), k.Within(True, 60))))),
    (b'SEARCH CHARSET utf-8 TO "jo\xc3\xab"', Search(k.Header("to", "joë"), "UTF-8")),
    (b"SEARCH CHARSET iso-8859-1 TO {1}\r\n\xeb", Search(k.Header("to", "ë"), "ISO-8859-1")),
    (b'SEARCH CHARSET "KOI8-R" CC {1}\r\n\xc1', Search(k.Header("cc", "а"), "KOI8-R")),
    (b'SEARCH TO "jo\xc3\xab"', Search(k.Header("to", "joë"))),
    (b"NOTIFY none", Notify(())),
    (
        b"NOTIFY set status (selected (MessageNew (UID) MessageExpunge)) (subtree (a inbox) NONE) (mailboxes x (MailboxName))",
        Notify(
            (
                EventGroup("SELECTED", (), frozenset({"MESSAGENEW", "MESSAGEEXPUNGE"}), (FetchItem("UID", label=b"UID"),)),
                EventGroup("SUBTREE", ("a", "INBOX"), frozenset()),
                EventGroup("MAILBOXES", ("x",), frozenset({"MAILBOXNAME"})),
            ),
            status=True,
        ),
    ),
    (b"SEARCH RETURN () ALL", Search(k.All(), None, ("ALL",))),
    (b"SEARCH RETURN (COUNT PARTIAL 9:4) ALL", Search(k.All(), None, ("COUNT", "PARTIAL"), Partial(4, 9, False, "9:4"))),
    (b"SEARCH RETURN (PARTIAL -1:-100) ALL", Search(k.All(), None, ("PARTIAL",), Partial(1, 100, True, "-1:-100"))),
    (b"SEARCH RETURN (SAVE) CHARSET x-klingon TEXT nuqneH", Search(k.All(), "X-KLINGON", ("SAVE",), unknown_charset=True)),
    (b"UID SEARCH return (min COUNT save) charset US-ASCII all", Search(k.All(), "US-ASCII", ("MIN", "COUNT", "SAVE"))),
]


@pytest.mark.parametrize(("line", "expected"), GOOD)
def test_good(line: bytes, expected: Any) -> None:
    assert arguments(line) == expected


def test_every_command_has_an_example() -> None:
    """The table and the examples above name the same commands (those without arguments are tested below)."""
    names, uid_names = set(), set()
    for line, _ in GOOD:
        words = line.upper().split(b" ")
        (uid_names if words[0] == b"UID" else names).add(words[words[0] == b"UID"].decode())
    assert names | {name for name, read in COMMANDS.items() if read is None} | {"MOVE"} == set(COMMANDS)
    assert uid_names | {"COPY"} == set(UID_COMMANDS)


@pytest.mark.parametrize("name", sorted(name for name, read in COMMANDS.items() if read is None))
def test_commands_without_arguments(name: str) -> None:
    assert one(f"a.1 {name.lower()}".encode()) == Command("a.1", name)
    assert problem(name.encode() + b" x").text == f"expected the end of the command at octet {len(name) + 4}"
    assert problem(name.encode() + b" ").text == f"expected the end of the command at octet {len(name) + 4}"


def test_uid_is_told_from_the_name() -> None:
    assert one(b"7 uid fetch 1 uid") == Command("7", "FETCH", True, Fetch(((1, 1),), (item("UID"),)))
    assert problem(b"UID NOOP").text == "unknown command UID NOOP"
    assert problem(b"UID").text == "unknown command UID"


BAD: list[tuple[bytes, str]] = [
    (b"XYZZY", "unknown command XYZZY"),
    (b"X" * 100, "unknown command " + "X" * 32),
    (b"__init__", "expected a command at octet 4"),
    (b"", "expected a command at octet 4"),
    (b" NOOP", "expected a command at octet 4"),
    (b"NOOP\0", "expected a command at octet 4"),
    (b"LOGIN", "expected a space at octet 9"),
    (b"LOGIN ", "expected a user name at octet 10"),
    (b"LOGIN joe", "expected a space at octet 13"),
    (b"LOGIN joe ", "expected a password at octet 14"),
    (b"LOGIN  joe x", "expected a user name at octet 10"),
    (b"LOGIN joe x y", "expected the end of the command at octet 15"),
    (b'LOGIN "joe x', "expected a quoted string at octet 10"),
    (b'LOGIN "joe\\" x', "expected a quoted string at octet 10"),
    (b'LOGIN "j\\oe" x', "expected a quoted string at octet 10"),
    (b'LOGIN "j\0e" x', "expected a quoted string at octet 10"),
    (b"LOGIN j\xc3\xa9 x", "expected a space at octet 11"),
    (b"LOGIN (joe) x", "expected a user name at octet 10"),
    (b"LOGIN {3+}\r\nj\0e x", "a literal holds NUL at octet 10"),
    (b"LOGIN {3+}\r\njoe{1+}\r\nx", "expected a space at octet 19"),
    (b"LOGIN joe {-5}", "expected a literal at octet 14"),
    (b"LOGIN joe {5", "expected a literal at octet 14"),
    (b"LOGIN joe {5++}", "expected a literal at octet 14"),
    (b"LOGIN joe {}", "expected a literal at octet 14"),
    (b"LOGIN joe ~{3+}\r\nabc", "expected a password at octet 14"),
    (b"AUTHENTICATE", "expected a space at octet 16"),
    (b"AUTHENTICATE PLAIN ", "expected an initial response, '=' for an empty one at octet 23"),
    (b"AUTHENTICATE PLAIN a b", "expected the end of the command at octet 24"),
    (b"ENABLE", "expected a capability at octet 10"),
    (b'ID ("a")', "expected a space at octet 11"),
    (b'ID "a"', "expected NIL or '(' at octet 10"),
    (b"ID (" + b" ".join([b'"a" NIL'] * 31) + b")", "more than 30 fields"),
    (b"SELECT", "expected a space at octet 10"),
    (b"SELECT R&D", "modified UTF-7"),
    (b"SELECT a*b", "expected the end of the command at octet 12"),
    (b"SELECT a%", "expected the end of the command at octet 12"),
    (b"SELECT a\xc3\xa9", "expected the end of the command at octet 12"),
    (b'SELECT "a\xc3\xa9"', "a mailbox name is not valid modified UTF-7"),
    (b"SELECT a&AAo-b", "a mailbox name holds a control character at octet 11"),
    (b"SELECT x ()", "expected a parameter"),
    (b"SELECT x (FOO)", "expected the parameters CONDSTORE or QRESYNC at octet 14"),
    (b"SELECT x (CONDSTORE CONDSTORE)", "a parameter is repeated"),
    (b"SELECT x (QRESYNC)", "expected a space at octet 21"),
    (b"SELECT x (QRESYNC 1 2)", "expected '(' at octet 22"),
    (b"SELECT x (QRESYNC (((((1)))))", "expected a number at octet 23"),
    (b"SELECT x (QRESYNC (1", "expected a space at octet 24"),
    (b"SELECT x (QRESYNC (0 1))", "expected a number from 1 to 4294967295"),
    (b"SELECT x (QRESYNC (1 0))", "expected a number from 1 to 9223372036854775807"),
    (b"SELECT x (QRESYNC (1 9223372036854775808))", "expected a number from 1 to"),
    (b"SELECT x (QRESYNC (1 1 1:*))", "'*' and '$' cannot stand here at octet 27"),
    (b"SELECT x (QRESYNC (1 1 $))", "'*' and '$' cannot stand here"),
    (b"SELECT x (QRESYNC (1 1 1:3 (1:2 3)))", "expected as many UIDs as message numbers"),
    (b"SELECT x (QRESYNC (1 1 1:3 (2,1 3,4)))", "message numbers and UIDs must ascend"),
    (b"SELECT x (QRESYNC (1 1 1:3 (1)))", "expected a space"),
    (b"SELECT x (QRESYNC (1 1 1:3) FOO)", "expected the parameters CONDSTORE or QRESYNC"),
    (b"SEARCH RETURN (PARTIAL) ALL", "expected a space"),
    (b"SEARCH RETURN (PARTIAL 0:5) ALL", "expected a range such as 1:100 or -1:-100"),
    (b"SEARCH RETURN (PARTIAL 1:*) ALL", "expected a range such as 1:100 or -1:-100"),
    (b"SEARCH RETURN (PARTIAL -1:5) ALL", "expected a range such as 1:100 or -1:-100"),
    (b"SEARCH RETURN (PARTIAL 1:4294967296) ALL", "expected a range such as 1:100 or -1:-100"),
    (b"SEARCH RETURN (PARTIAL 1:5 ALL) ALL", "expected at most one of ALL and PARTIAL"),
    (b"SEARCH RETURN (PARTIAL 1:5 PARTIAL 6:9) ALL", "expected at most one of ALL and PARTIAL"),
    (b"FETCH 1 FLAGS (PARTIAL 1:5)", "PARTIAL is for UID FETCH only"),
    (b"UID FETCH 1 FLAGS (PARTIAL 1:5 PARTIAL 1:2)", "unknown or repeated FETCH modifier"),
    (b"UID FETCH 1 FLAGS (PARTIAL 5)", "expected a range such as 1:100 or -1:-100"),
    (b"UID FETCH 1 FLAGS (CHANGEDSINCE 0)", "expected a number from 1 to"),
    (b"CREATE a (USE \\Sent)", "expected '('"),
    (b"CREATE a (USE (Sent))", "expected '\\'"),
    (b"RENAME a", "expected a space"),
    (b'LIST ""', "expected a space"),
    (b'LIST (RECURSIVEMATCH) "" *', "RECURSIVEMATCH needs SUBSCRIBED or SPECIAL-USE at octet 9"),
    (b'LIST (FOO) "" *', "unknown selection option"),
    (b'LIST "" ()', "expected a mailbox pattern"),
    (b'LIST "" * RETURN (FOO)', "unknown return option"),
    (b'LIST "" * RETURN (STATUS)', "expected a space"),
    (b'LIST "" * x', "expected RETURN"),
    (b"STATUS inbox ()", "expected a status item"),
    (b"STATUS inbox MESSAGES", "expected '('"),
    (b"STATUS inbox (FOO)", "unknown status item FOO at octet 18"),
    (b"APPEND x", "expected a space"),
    (b'APPEND x "text"', "expected a date-time"),
    (b"APPEND x text", "expected a literal"),
    (b"APPEND x (\\Recent) {1+}\r\na", "expected a keyword or one of"),
    (b'APPEND x "31-Feb-2020 00:00:00 +0000" {1+}\r\na', "no such date and time"),
    (b'APPEND x " 1-Jan-0001 00:00:00 +2359" {1+}\r\na', "no such date and time"),
    (b'APPEND x " 1-Jan-2020 00:00:00 +2400" {1+}\r\na', "no such date and time"),
    (b'APPEND x " 1-Jan-2020 00:00:00 +0060" {1+}\r\na', "no such date and time"),
    (b'APPEND x " 1-Jan-2020 00:00:61 +0000" {1+}\r\na', "no such date and time"),
    (b'APPEND x " 1-Foo-2020 00:00:00 +0000" {1+}\r\na', "no such date and time"),
    (b"APPEND x {1+}\r\na{1+}\r\nb", "expected a space"),
    (b"APPEND x UTF8 (~{1+}\r\na", "expected ')'"),
    (b"COPY 1", "expected a space"),
    (b"COPY 0 a", "expected message numbers"),
    (b"COPY 1,,2 a", "expected message numbers"),
    (b"COPY 1:2:3 a", "expected message numbers"),
    (b"COPY 4294967296 a", "expected message numbers"),
    (b"COPY 01 a", "expected message numbers"),
    (b"COPY a b", "expected a sequence set at octet 9"),
    (b"STORE 1 FLAGS", "expected a space"),
    (b"STORE 1 FLAGS \\Recent", "expected a keyword or one of"),
    (b"STORE 1 FLAGS \\*", "expected a flag"),
    (b"STORE 1 FLAGS (\\Foo)", "expected a keyword or one of"),
    (b"STORE 1 FLAGS (a]b)", "expected a space or ')'"),
    (b"STORE 1 FLAGZ (a)", "expected FLAGS, +FLAGS or -FLAGS"),
    (b"STORE 1 FLAGS.SILENTLY (a)", "expected a space"),
    (b"STORE 1 (UNCHANGEDSINCE x) FLAGS ()", "expected a number"),
    (b"STORE 1 (UNCHANGEDSINCE 9223372036854775808) FLAGS ()", "expected a number from 0 to 9223372036854775807"),
    (b"FETCH 1", "expected a space"),
    (b"FETCH 1 ()", "expected a data item to fetch at octet 13"),
    (b"FETCH 1 (ALL)", "unknown data item ALL at octet 13"),
    (b"FETCH 1 FLAGS UID", "expected '(' at octet 18"),
    (b"FETCH 1 (FLAGS  UID)", "expected a data item to fetch at octet 19"),
    (b"FETCH 1 (FLAGS", "expected a space or ')'"),
    (b"FETCH 1 FOO", "unknown data item FOO at octet 12"),
    (b"FETCH 1 BODY.PEEK", "unknown data item BODY.PEEK"),
    (b"FETCH 1 BODY[MIME]", "expected HEADER,"),
    (b"FETCH 1 BODY[0]", "expected a number from 1"),
    (b"FETCH 1 BODY[1.]", "expected a section"),
    (b"FETCH 1 BODY[1..2]", "expected HEADER,"),
    (b"FETCH 1 BODY[FOO]", "expected HEADER,"),
    (b"FETCH 1 BODY[HEADER.FIELDS]", "expected a space"),
    (b"FETCH 1 BODY[HEADER.FIELDS ()]", "expected a header field name"),
    (b'FETCH 1 BODY[HEADER.FIELDS ("a b")]', "not a header field name"),
    (b"FETCH 1 BODY[" + b"1." * 101 + b"1]", "part number too deep"),
    (b"FETCH 1 BODY[]<1>", "expected <origin.octets>"),
    (b"FETCH 1 BODY[]<1.0>", "expected <origin.octets> with at least one octet"),
    (b"FETCH 1 BODY[]<-1.5>", "expected <origin.octets>"),
    (b"FETCH 1 BODY[]<0.99999999999999999999>", "expected <origin.octets>"),
    (b"FETCH 1 BODY[", "expected a section"),
    (b"FETCH 1 BINARY[HEADER]", "expected ']'"),
    (b"FETCH 1 BINARY.SIZE[1]<0.1>", "expected the end of the command"),
    (b"FETCH 1 UID (CHANGEDSINCE 1 VANISHED)", "VANISHED is for UID FETCH only"),
    (b"UID FETCH 1 UID (VANISHED)", "VANISHED needs CHANGEDSINCE"),
    (b"UID FETCH 1 UID (FOO)", "unknown or repeated FETCH modifier"),
    (b"UID FETCH 1 UID (CHANGEDSINCE 1 CHANGEDSINCE 2)", "unknown or repeated FETCH modifier"),
    (b"SEARCH", "expected a space"),
    (b"SEARCH ", "expected a search key"),
    (b"SEARCH FOO", "unknown search key FOO at octet 11"),
    (b"SEARCH NOT", "expected a space"),
    (b"SEARCH OR SEEN", "expected a space"),
    (b"SEARCH ()", "expected a search key"),
    (b"SEARCH (SEEN", "expected ')'"),
    (b"SEARCH SEEN)", "expected the end of the command"),
    (b"SEARCH FROM", "expected a space"),
    (b"SEARCH HEADER a:b c", "not a header field name"),
    (b"SEARCH SINCE 31-Feb-2020", "no such date at octet 17"),
    (b"SEARCH SINCE 2020-01-01", "expected a date such as 1-Feb-1994"),
    (b'SEARCH SINCE "1-Feb-1994', "expected a date such as 1-Feb-1994"),
    (b"SEARCH LARGER -1", "expected a number"),
    (b"SEARCH LARGER " + b"9" * 5000, "expected a number from 0"),
    (b"SEARCH YOUNGER 0", "expected a number from 1"),
    (b"SEARCH 0", "expected message numbers"),
    (b"SEARCH RETURN (FOO) ALL", "expected the RETURN options"),
    (b"SEARCH RETURN (ALL)", "expected a space"),
    (b"SEARCH CHARSET UTF-8 TO {1+}\r\n\xff", "the string is not valid in its charset"),
    (b"SEARCH CHARSET UTF-8", "expected a space"),
    (b"SEARCH TO {1+}\r\n\xff", "the string is not valid in its charset"),
]


@pytest.mark.parametrize(("line", "text"), BAD)
def test_bad(line: bytes, text: str) -> None:
    event = problem(line)
    assert text in event.text
    assert not event.refused


@pytest.mark.parametrize("charset", [b"x-unknown", b"unicode_escape", b"punycode", b"rot13", b"base64", b'"a/../b"', b"{2+}\r\n\xff\xff"])
def test_an_unknown_charset_is_refused_with_no(charset: bytes) -> None:
    """RFC 3501 section 6.4.4: tagged NO with BADCHARSET, not BAD."""
    event = problem(b"SEARCH CHARSET " + charset + b" ALL")
    assert (event.refused, event.error_code) == (True, "BADCHARSET (UTF-8 US-ASCII)")


def test_an_empty_message_is_refused() -> None:
    assert problem(b"APPEND x {0}\r\n").refused
    assert problem(b"APPEND x {1}\r\na {0+}\r\n").refused


def test_search_depth_and_number_of_keys() -> None:
    assert problem(b"SEARCH " + b"NOT " * 101 + b"SEEN").text.startswith("search keys nested deeper than 100")
    assert problem(b"SEARCH " + b"(" * 101 + b"SEEN" + b")" * 101).text.startswith("search keys nested deeper than 100")
    assert problem(b"SEARCH " + b"OR " * 20_000 + b"SEEN").text.startswith("search keys nested deeper than 100")
    assert arguments(b"SEARCH " + b"NOT " * 100 + b"SEEN")
    assert arguments(b"SEARCH " + b"SEEN " * 4_999 + b"SEEN")
    assert problem(b"SEARCH " + b"SEEN " * 5_000 + b"SEEN").text.startswith("more than 5000 search keys")


def test_utf8_names_once_enabled() -> None:
    assert arguments('SELECT "é&-"'.encode(), utf8=True) == Select("é&-")
    assert arguments('LIST "" {3+}\r\né%'.encode(), utf8=True) == List("", ("é%",))
    assert "not valid UTF-8" in problem(b'SELECT "\xff"', utf8=True).text
    assert "control character" in problem(b'SELECT "a\x01"', utf8=True).text


def test_errors_are_told_where_they_are_also_from_the_cache() -> None:
    """FETCH items are cached by their text; an error still counts from the start of the command."""
    for prefix in (b"FETCH 1 ", b"FETCH 1:1000 "):
        for _ in range(2):
            assert problem(prefix + b"(UID FOO)").text == f"unknown data item FOO at octet {len(prefix) + 9}"


def test_credentials_are_not_shown() -> None:
    assert "secret" not in repr(one(b"a LOGIN joe secret"))
    assert "c2VjcmV0" not in repr(one(b"a AUTHENTICATE PLAIN c2VjcmV0"))
