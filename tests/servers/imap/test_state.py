"""A session after UNAUTHENTICATE, what ENABLE switches on, and what is announced when (RFC 8437, RFC 5161, RFC 9051 section 6.1.1)."""

from __future__ import annotations

import pytest

from fe_twisted.servers.imap.capability import TABLE
from fe_twisted.servers.imap.limits import ImapLimits
from fe_twisted.servers.imap.session import Session, State
from tests.servers.imap.house import Client, House

#: Of the connection, not of who is logged in.
OF_THE_CONNECTION = {"wire", "door", "limits", "clock", "tls", "plaintext", "failures", "binding_told", "compressed"}


def state(client: Client) -> dict[str, object]:
    session = client.protocol.session
    return {name: getattr(session, name) for name in Session.__slots__ if name not in OF_THE_CONNECTION}


def test_nothing_is_left_of_who_was_logged_in(house: House) -> None:
    """Every attribute of the session is that of a fresh one, and so are the parser's rules."""
    house.fill("INBOX", 3)
    house.doorman.hides = frozenset({"IDLE"})
    fresh = house.connect()
    client = house.login()
    assert client.ask("ENABLE QRESYNC IMAP4rev2 UTF8=ACCEPT UIDONLY")[-1].startswith("t OK")
    client.ask("SELECT INBOX")
    client.ask("UID SEARCH RETURN (SAVE) ALL")
    client.ask("NOTIFY SET (SELECTED (MessageNew MessageExpunge)) (PERSONAL (MailboxName))")
    before = state(client)
    assert client.ask("UNAUTHENTICATE")[-1].startswith("t OK [CAPABILITY IMAP4rev1 ")
    assert state(client) == state(fresh)
    changed = [name for name, value in state(client).items() if value != before[name]]
    assert set(changed) == set(before), "all of it was something else before"
    assert not house.mailbox._watchers and house.doorman.inside == 0
    for one in (client, fresh):
        assert one.ask(b"LOGIN {5000+}\r\n" + b"x" * 5000 + b" y")[-1].startswith("t BAD [TOOBIG]"), "a literal of before login"
    assert client.ask("LOGIN hello@example.com secret")[-1].startswith("t OK")
    assert client.ask("CREATE &AOQ-")[-1].startswith("t OK")
    assert client.ask('LIST "" &AOQ-')[0] == '* LIST (\\HasNoChildren) "/" &AOQ-'
    assert client.ask("SELECT INBOX")[-1].startswith("t OK")
    assert client.ask("SEARCH $")[0] == "* SEARCH"
    assert client.ask("STORE 1 +FLAGS (\\Seen)")[0] == "* 1 FETCH (FLAGS (\\Seen \\Recent))", "no UID, no MODSEQ"


ENABLES = (
    ("CONDSTORE", "CONDSTORE", "STORE 1 +FLAGS (\\Seen)", "* 1 FETCH (UID 1 FLAGS (\\Seen \\Recent) MODSEQ (3))"),
    ("qresync", "QRESYNC", "STORE 1 +FLAGS (\\Seen)", "* 1 FETCH (UID 1 FLAGS (\\Seen \\Recent) MODSEQ (3))"),
    ("X-NO CONDSTORE", "CONDSTORE", "NOOP", "t OK NOOP completed"),
    ("IMAP4REV2", "IMAP4rev2", "SEARCH ALL", '* ESEARCH (TAG "t") ALL 1'),
    ("UTF8=ACCEPT", "UTF8=ACCEPT", "NOOP", "t OK NOOP completed"),
    ("UIDONLY", "UIDONLY", "UID FETCH 1 FLAGS", "* 1 UIDFETCH (FLAGS (\\Recent))"),
    ("IMAP4rev1 IDLE", "", "SEARCH ALL", "* SEARCH 1"),
)


@pytest.mark.parametrize(("asked", "told", "command", "answer"), ENABLES, ids=[row[0] for row in ENABLES])
def test_enable(house: House, asked: str, told: str, command: str, answer: str) -> None:
    """Only what is new is told, and only what can be enabled; it works from then on."""
    house.fill("INBOX", 1)
    client = house.login()
    assert client.ask(f"ENABLE {asked}") == [f"* ENABLED {told}".rstrip(), "t OK ENABLE completed"]
    assert client.ask(f"ENABLE {asked}") == ["* ENABLED", "t OK ENABLE completed"]
    client.ask("SELECT INBOX")
    assert client.ask(command)[0] == answer


def test_a_refused_enable_switches_nothing_on(house: House) -> None:
    """All of one ENABLE or none."""
    house.fill("INBOX", 1)
    client = house.login("INBOX")
    assert client.ask("ENABLE CONDSTORE UIDONLY")[-1].startswith("t BAD")
    assert client.ask("STORE 1 +FLAGS (\\Seen)")[0] == "* 1 FETCH (FLAGS (\\Seen \\Recent))"
    assert client.ask("ENABLE CONDSTORE")[0] == "* ENABLED CONDSTORE"


def announced(client: Client) -> set[str]:
    return {name.partition("=")[0] if name.startswith("APPENDLIMIT") else name for name in client.ask("CAPABILITY")[0].split()[2:]}


def test_what_is_announced_when(house: House) -> None:
    house.factory.limits = ImapLimits(compress=True)
    before = {row.name for row in TABLE if row.states & State.GREETED}
    after = {row.name for row in TABLE if row.states & State.SELECTED}
    passwords = {"AUTH=PLAIN", "AUTH=LOGIN", "AUTH=SCRAM-SHA-256"}
    in_the_clear = house.connect(peer="192.0.2.1")
    greeting = in_the_clear.lines()[0]
    assert announced(in_the_clear) == before - passwords - {"AUTH=SCRAM-SHA-256-PLUS", "STARTTLS"}, "no TLS is to be had here"
    assert set(greeting.partition("[CAPABILITY ")[2].partition("]")[0].split()) == announced(in_the_clear)
    encrypted = house.connect(peer="192.0.2.1", secure=True)
    assert announced(encrypted) == before - {"LOGINDISABLED", "STARTTLS", "AUTH=SCRAM-SHA-256-PLUS"}
    login = encrypted.ask("LOGIN hello@example.com secret")[-1]
    assert announced(encrypted) == after
    assert {name.partition("=")[0] if "LIMIT" in name else name for name in login.partition("Y ")[2].partition("]")[0].split()} == after
    encrypted.ask("SELECT INBOX")
    assert announced(encrypted) == after
    for name in ("STARTTLS", "LOGINDISABLED", "LITERAL-", "SASL-IR", *passwords):
        assert name not in after
    for name in ("LITERAL+", "IMAP4rev2", "UIDPLUS"):
        assert name in after
    assert {"LITERAL+", "COMPRESS=DEFLATE", "UNAUTHENTICATE"}.isdisjoint(before), "RFC 7888 section 4, RFC 4978, RFC 8437"
