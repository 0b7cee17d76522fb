"""Every refusal is a NO (or BAD) with the response code of RFC 5530 and of the extensions; every command in the wrong state is a BAD."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import LogLevel, globalLogPublisher

from fe_twisted.base import errors
from fe_twisted.protocols.imap.arguments import COMMANDS, UID_COMMANDS
from fe_twisted.servers.imap.limits import ImapLimits
from fe_twisted.servers.imap.table import TABLE
from fe_twisted.storage.mailbox.api import MAX_KEYWORD, MAX_KEYWORDS, NewMessage
from fe_twisted.storage.mailbox.folders import MAX_LEVEL_OCTETS, MAX_LEVELS
from tests.protocols.imap.test_places import SAMPLES
from tests.servers.imap.house import Client, House, mail
from tests.storage.mailbox.driving import run

#: All codes that a tagged NO or BAD may have here, with the document that has them.
CODES = {
    "ALREADYEXISTS": 5530, "AUTHENTICATIONFAILED": 5530, "AUTHORIZATIONFAILED": 5530, "CANNOT": 5530, "CORRUPTION": 5530,
    "EXPUNGEISSUED": 5530, "INUSE": 5530, "LIMIT": 5530, "NONEXISTENT": 5530, "NOPERM": 5530, "OVERQUOTA": 5530, "PRIVACYREQUIRED": 5530,
    "SERVERBUG": 5530, "UNAVAILABLE": 5530, "HASCHILDREN": 9051, "TRYCREATE": 3501, "READ-ONLY": 3501, "BADCHARSET": 3501,
    "UNKNOWN-CTE": 3516, "TOOBIG": 4469, "BADURL": 4469, "COMPRESSIONACTIVE": 4978, "BADEVENT": 5465, "METADATA": 5464, "USEATTR": 6154,
    "UIDREQUIRED": 9586, "MODIFIED": 7162,
}  # fmt: skip

MESSAGE = b"{%d+}\r\n%b" % (len(mail(9)), mail(9))

#: What goes before, the command, and the beginning of its tagged answer.
REFUSED: tuple[tuple[tuple[str, ...], bytes | str, str], ...] = (
    ((), "SELECT Nowhere", "NO [NONEXISTENT]"),
    ((), "EXAMINE Nowhere", "NO [NONEXISTENT]"),
    ((), "STATUS Nowhere (MESSAGES)", "NO [NONEXISTENT]"),
    ((), "DELETE Nowhere", "NO [NONEXISTENT]"),
    ((), "DELETE INBOX", "NO [CANNOT]"),
    (("CREATE a/b", "DELETE a"), "DELETE a", "NO [HASCHILDREN]"),
    (("CREATE a/b", "DELETE a"), "SELECT a", "NO [NONEXISTENT]"),
    ((), "CREATE Sent", "NO [ALREADYEXISTS]"),
    ((), "CREATE inbox", "NO [ALREADYEXISTS]"),
    ((), 'CREATE ""', "NO [CANNOT]"),
    ((), "CREATE a//b", "NO [CANNOT]"),
    ((), 'CREATE "a*b"', "NO [CANNOT]"),
    ((), "CREATE " + "x" * (MAX_LEVEL_OCTETS + 1), "NO [CANNOT]"),
    ((), "CREATE " + "/".join("x" * (MAX_LEVELS + 1)), "NO [CANNOT]"),
    ((), "CREATE x (USE (\\All))", "NO [USEATTR]"),
    ((), "CREATE x (USE (\\Sent))", "NO [USEATTR]"),
    ((), "RENAME Nowhere x", "NO [NONEXISTENT]"),
    ((), "RENAME Sent Drafts", "NO [ALREADYEXISTS]"),
    ((), "RENAME Sent INBOX", "NO [ALREADYEXISTS]"),
    ((), "RENAME Sent Sent/x", "NO [CANNOT]"),
    ((), b"APPEND Nowhere " + MESSAGE, "NO [TRYCREATE]"),
    ((), "APPEND INBOX {999999999}", "NO [TOOBIG]"),
    ((), 'APPEND INBOX CATENATE (URL "/INBOX/;UID=99")', "NO [BADURL /INBOX/;UID=99]"),
    ((), "APPEND INBOX {0+}\r\n", "NO an empty message"),
    ((), "REPLACE 1 INBOX {999999999}", "NO [TOOBIG]"),
    ((), "GETQUOTA x", "NO [NONEXISTENT]"),
    ((), "GETMETADATA Nowhere /private/comment", "NO [NONEXISTENT]"),
    ((), 'SETMETADATA Nowhere (/private/comment "x")', "NO [NONEXISTENT]"),
    ((), 'SETMETADATA "" (/shared/admin "x")', "NO [NOPERM]"),
    ((), b"SETMETADATA INBOX (/private/a ~{65537+}\r\n%b)" % (b"x" * 65_537), "NO [METADATA MAXSIZE 65536]"),
    ((), "NOTIFY SET (PERSONAL (AnnotationChange MessageNew MessageExpunge))", "NO [BADEVENT (MessageNew"),
    ((), "COMPRESS LZ4", "NO [CANNOT]"),
    (("ENABLE UIDONLY", "SELECT INBOX"), "FETCH 1 FLAGS", "BAD [UIDREQUIRED]"),
    (("ENABLE UIDONLY", "SELECT INBOX"), "UID SEARCH 1", "BAD [UIDREQUIRED]"),
    (("ENABLE UIDONLY", "SELECT INBOX"), b"REPLACE 1 INBOX " + MESSAGE, "BAD [UIDREQUIRED]"),
    (("SELECT INBOX",), "COPY 1 Nowhere", "NO [TRYCREATE]"),
    (("SELECT INBOX",), "UID MOVE 1 Nowhere", "NO [TRYCREATE]"),
    (("SELECT INBOX",), b"REPLACE 1 Nowhere " + MESSAGE, "NO [TRYCREATE]"),
    (("SELECT INBOX",), b"UID REPLACE 99 INBOX " + MESSAGE, "NO [NONEXISTENT]"),
    (("SELECT INBOX",), "SEARCH CHARSET X-NO TEXT x", "NO [BADCHARSET (UTF-8 US-ASCII)]"),
    (("SELECT INBOX",), "SEARCH RETURN (SAVE) CHARSET X-NO TEXT x", "NO [BADCHARSET (UTF-8 US-ASCII)]"),
    (("SELECT INBOX",), "SORT (DATE) X-NO ALL", "NO [BADCHARSET (UTF-8 US-ASCII)]"),
    (("SELECT INBOX",), "UID THREAD REFERENCES X-NO ALL", "NO [BADCHARSET (UTF-8 US-ASCII)]"),
    (("SELECT INBOX",), "ESEARCH CHARSET X-NO ALL", "NO [BADCHARSET (UTF-8 US-ASCII)]"),
    (("SELECT INBOX",), "FETCH 2 BINARY[1]", "NO [UNKNOWN-CTE]"),
    (("SELECT INBOX",), "FETCH 2 BINARY.SIZE[1]", "NO [UNKNOWN-CTE]"),
    (("EXAMINE INBOX",), "STORE 1 FLAGS ()", "NO [READ-ONLY]"),
    (("EXAMINE INBOX",), "UID MOVE 1 Sent", "NO [READ-ONLY]"),
    (("EXAMINE INBOX",), "EXPUNGE", "NO [READ-ONLY]"),
    (("EXAMINE INBOX",), "UID EXPUNGE 1", "NO [READ-ONLY]"),
    (("EXAMINE INBOX",), b"REPLACE 1 INBOX " + MESSAGE, "NO [READ-ONLY]"),
    (("SELECT INBOX",), "STORE 1 +FLAGS (" + " ".join(f"k{number}" for number in range(MAX_KEYWORDS + 1)) + ")", "NO [LIMIT]"),
    (("SELECT INBOX",), f"STORE 1 +FLAGS ({'k' * (MAX_KEYWORD + 1)})", "NO [LIMIT]"),
    (("SELECT INBOX",), b"APPEND INBOX (%b) " % (b"k" * (MAX_KEYWORD + 1)) + MESSAGE, "NO [LIMIT]"),
    (("SELECT INBOX",), "STORE 1:2 (UNCHANGEDSINCE 1) +FLAGS (x)", "OK [MODIFIED 1:2]"),
    (("SELECT INBOX",), "FETCH 9 FLAGS", "BAD no message has such a number"),
    (("SELECT INBOX",), "FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)", "BAD "),
    (("SELECT INBOX",), "UID FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)", "BAD VANISHED needs ENABLE QRESYNC"),
    ((), "SELECT INBOX (QRESYNC (1 1))", "BAD QRESYNC needs ENABLE QRESYNC"),
    (("ENABLE UTF8=ACCEPT", "SELECT INBOX"), "SEARCH CHARSET UTF-8 ALL", "BAD CHARSET cannot be given"),
    (("ENABLE IMAP4rev2",), "STATUS INBOX (RECENT)", "BAD RECENT is not in IMAP4rev2"),
    (("SELECT INBOX",), "ENABLE UIDONLY", "BAD UIDONLY can be enabled only while"),
    (("SELECT INBOX",), "ENABLE IMAP4rev2", "BAD IMAP4rev2 can be enabled only while"),
    ((), "ESEARCH ALL", "BAD no mailbox is selected"),
    (("SELECT INBOX",), "ESEARCH IN (personal) 1:2", "BAD message numbers"),
    (("SELECT INBOX",), "ESEARCH IN (personal) RETURN (SAVE) ALL", "BAD a result is saved for the selected"),
)


@pytest.fixture
def client(house: House) -> Client:
    house.factory.limits = ImapLimits(compress=True)
    encoded = b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: x-rot13\r\n\r\nuryyb\r\n"
    run(house.mailbox.append("INBOX", [NewMessage(mail(1)), NewMessage(encoded)]))
    return house.login()


@pytest.mark.parametrize(("before", "command", "answer"), REFUSED, ids=lambda value: str(value)[:24])
def test_refusals(house: House, client: Client, before: tuple[str, ...], command: bytes | str, answer: str) -> None:
    for line in before:
        assert client.ask(line)[-1].startswith("t OK"), line
    said = client.ask(command)[-1]
    assert said.startswith(f"t {answer}"), said
    code = said.partition("[")[2].partition("]")[0].partition(" ")[0]
    assert not code or code in CODES
    assert client.ask("NOOP")[-1] == "t OK NOOP completed"


def test_logins(house: House) -> None:
    assert house.connect(peer="192.0.2.1").ask("LOGIN hello@example.com secret")[-1].startswith("t NO [PRIVACYREQUIRED]")
    client = house.connect()
    assert client.ask("LOGIN hello@example.com wrong")[-1].startswith("t NO [AUTHENTICATIONFAILED]")
    assert client.ask("AUTHENTICATE PLAIN AGEAYg==")[-1].startswith("t NO [AUTHENTICATIONFAILED]")
    assert client.ask("AUTHENTICATE PLAIN eABhAGI=")[-1].startswith("t NO [AUTHORIZATIONFAILED]")
    assert client.ask("AUTHENTICATE FROB")[-1].startswith("t NO [CANNOT]")
    assert client.ask("AUTHENTICATE PLAIN *")[-1].startswith("t BAD")


def _all(root: type[errors.MailError]) -> Iterator[type[errors.MailError]]:
    yield root
    for child in root.__subclasses__():
        yield from _all(child)


@pytest.mark.parametrize("error", sorted(set(_all(errors.MailError)), key=lambda error: error.__name__), ids=lambda error: error.__name__)
def test_every_error_has_a_code_that_is_registered(error: type[errors.MailError]) -> None:
    condition, code = error.imap
    assert condition in ("NO", "BAD")
    assert not code or code.partition(" ")[0] in CODES


FAILING: tuple[tuple[errors.MailError | Exception, str], ...] = (
    (errors.OverQuota(), "NO [OVERQUOTA] mailbox is full"),
    (errors.DiskFull(), "NO [UNAVAILABLE] "),
    (errors.Busy(), "NO [INUSE] "),
    (errors.PrimaryAway(), "NO [UNAVAILABLE] "),
    (errors.DamagedFile(reason="secret"), "NO [CORRUPTION] mailbox file is damaged [conn "),
    (errors.StorageFailed(reason="secret"), "NO [SERVERBUG] storage failure, nothing was stored [conn "),
    (errors.LimitReached("too much"), "NO [LIMIT] too much"),
    (RuntimeError("secret"), "NO [SERVERBUG] internal error [conn "),
)


@pytest.mark.parametrize(("error", "answer"), FAILING, ids=lambda value: type(value).__name__)
def test_what_goes_wrong_below_is_told(
    house: House, client: Client, monkeypatch: pytest.MonkeyPatch, error: Exception, answer: str
) -> None:
    """And nothing private of it."""

    async def fail(*arguments: object, **named: object) -> None:
        raise error

    for method, command in (("append", b"APPEND INBOX " + MESSAGE), ("status", b"STATUS INBOX (MESSAGES)"), ("create", b"CREATE x")):
        monkeypatch.setattr(house.mailbox, method, fail)
        said = client.ask(command)[-1]
        assert said.startswith(f"t {answer}") and "secret" not in said
    monkeypatch.undo()
    assert client.ask("STATUS INBOX (MESSAGES)")[-1] == "t OK STATUS completed"


@pytest.mark.parametrize(("error", "level"), [(errors.PrimaryAway(), LogLevel.warn), (errors.StorageFailed(), LogLevel.error)])
def test_a_poll_that_fails_is_no_bug_unless_it_is_ours(
    house: House, client: Client, monkeypatch: pytest.MonkeyPatch, error: errors.MailError, level: Any
) -> None:
    """A primary that is away for a minute must not fill the log with tracebacks."""
    told: list[Any] = []

    async def fail() -> int:
        raise error

    def observe(event: Any) -> None:
        if event.get("event") == "imap.poll_failed":
            told.append(event["log_level"])

    monkeypatch.setattr(house.mailbox, "poll", fail)
    globalLogPublisher.addObserver(observe)
    try:
        assert client.ask("NOOP")[-1] == "t OK NOOP completed"
    finally:
        globalLogPublisher.removeObserver(observe)
    assert told == [level]


# -- states ---------------------------------------------------------------------------------------

BEFORE = {"LOGIN", "AUTHENTICATE", "STARTTLS"}
EVER = {"CAPABILITY", "NOOP", "LOGOUT", "ID"}
#: Commands that end what the others are tested with, or wait for the client.
APART = {"LOGOUT", "IDLE", "UNAUTHENTICATE", "COMPRESS"}


def _one_each() -> dict[str, str]:
    found: dict[str, str] = {}
    for text in SAMPLES:
        words = text.split(" ")
        found.setdefault(" ".join(words[:2]) if words[0] == "UID" else words[0], text)
    return found


ONE_EACH = _one_each()


def test_every_command_is_here() -> None:
    assert set(ONE_EACH) == {*COMMANDS, *(f"UID {name}" for name in UID_COMMANDS)}
    assert set(TABLE) | {"UID"} >= {name.split()[0] for name in ONE_EACH}


def _octets(text: str) -> bytes:
    return text.encode("latin-1")


@pytest.mark.parametrize("name", sorted(set(ONE_EACH) - BEFORE - EVER))
def test_before_login(house: House, name: str) -> None:
    text = ONE_EACH[name] if "{" not in ONE_EACH[name] else ONE_EACH[name].replace("x", "INBOX", 1)
    answer = house.connect().ask(_octets(text))[-1]
    # a literal that is a message is none yet, and has the size of a password
    assert answer == "t BAD log in first", answer


@pytest.mark.parametrize("name", sorted(BEFORE))
def test_after_login(client: Client, name: str) -> None:
    assert client.ask(_octets(ONE_EACH[name]))[-1] == "t BAD already logged in"


@pytest.mark.parametrize("name", sorted(name for name in ONE_EACH if name.split()[-1] in TABLE))
def test_without_a_mailbox(client: Client, name: str) -> None:
    """What needs a selected mailbox is refused for that and nothing else."""
    command = name.split()[-1]
    if command in APART | BEFORE:
        return
    selected_only = {
        "CHECK", "CLOSE", "UNSELECT", "EXPUNGE", "SEARCH", "SORT", "THREAD", "FETCH", "STORE", "COPY", "MOVE", "REPLACE",
    }  # fmt: skip
    answer = client.ask(_octets(ONE_EACH[name]))[-1]
    assert (answer == "t BAD select a mailbox first") == (command in selected_only), answer


def test_no_new_keywords_are_promised_when_there_is_no_room(house: House) -> None:
    client = house.login()
    keywords = [f"k{number:02}" for number in range(MAX_KEYWORDS)]
    client.ask(b"APPEND INBOX " + MESSAGE)
    assert "\\*)]" in permanent(client.ask("SELECT INBOX"))
    assert "k56 \\*)]" in permanent(client.ask(f"STORE 1 +FLAGS ({' '.join(keywords[:-1])})"))
    assert "k57)]" in permanent(client.ask(f"STORE 1 +FLAGS ({keywords[-1]})"))
    assert "k57)]" in permanent(client.ask("SELECT INBOX"))


def permanent(answer: list[str]) -> str:
    (line,) = [line for line in answer if "PERMANENTFLAGS" in line]
    return line
