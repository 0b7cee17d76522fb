"""Every capability that is named after login can be hidden, and what it stands for is then refused, or not done."""

from __future__ import annotations

import pytest

from fe_twisted.servers.imap.capability import HIDEABLE
from fe_twisted.servers.imap.limits import ImapLimits
from tests.servers.imap.house import House, mail

CATENATE = b'APPEND Drafts CATENATE (URL "/INBOX/;UID=1")'
TWO = b"{%d+}\r\n%b" % (len(mail(8)), mail(8))

#: A command that needs the capability: it is carried out, and with the capability hidden it is a BAD.
REFUSED: dict[str, bytes] = {
    "ID": b"ID NIL",
    "ENABLE": b"ENABLE CONDSTORE",
    "NAMESPACE": b"NAMESPACE",
    "UNSELECT": b"UNSELECT",
    "UIDPLUS": b"UID EXPUNGE 9",
    "MOVE": b"UID MOVE 1 Trash",
    "SPECIAL-USE": b'LIST (SPECIAL-USE) "" *',
    "CREATE-SPECIAL-USE": b"CREATE Vital (USE (\\Important))",
    "LIST-EXTENDED": b'LIST "" (INBOX Sent)',
    "LIST-STATUS": b'LIST "" % RETURN (STATUS (MESSAGES))',
    "CONDSTORE": b"FETCH 1 MODSEQ",
    "UNAUTHENTICATE": b"UNAUTHENTICATE",
    "STATUS=SIZE": b"STATUS INBOX (SIZE)",
    "NOTIFY": b"NOTIFY NONE",
    "OBJECTID": b"FETCH 1 THREADID",
    "SAVEDATE": b"UID THREAD REFERENCES UTF-8 SAVEDON 21-Sep-2026",
    "ESEARCH": b"SEARCH RETURN (MIN) ALL",
    "SEARCHRES": b"SEARCH RETURN (SAVE) ALL",
    "PARTIAL": b"UID FETCH 1:* (FLAGS) (PARTIAL 1:2)",
    "WITHIN": b"SORT (DATE) UTF-8 YOUNGER 9",
    "PREVIEW": b"FETCH 1 PREVIEW",
    "X-SEARCH-REGEX": b"SEARCH NOT X-REGEX SUBJECT mai[lt]",
    "MULTISEARCH": b"ESEARCH IN (personal) ALL",
    "SORT": b"SORT (DATE) UTF-8 ALL",
    "SORT=DISPLAY": b"UID SORT (REVERSE DISPLAYTO) UTF-8 ALL",
    "ESORT": b"SORT RETURN (COUNT) (DATE) UTF-8 ALL",
    "THREAD=ORDEREDSUBJECT": b"THREAD ORDEREDSUBJECT UTF-8 ALL",
    "THREAD=REFERENCES": b"THREAD REFERENCES UTF-8 ALL",
    "COMPRESS=DEFLATE": b"COMPRESS DEFLATE",
    "METADATA": b"GETMETADATA INBOX /private/comment",
    "QUOTA": b'GETQUOTA ""',
    "QUOTA=RES-STORAGE": b"STATUS INBOX (DELETED-STORAGE)",
    "MULTIAPPEND": b"APPEND Drafts " + TWO + b" " + TWO,
    "BINARY": b"FETCH 1 BINARY.SIZE[1]",
    "CATENATE": CATENATE,
    "REPLACE": b"UID REPLACE 1 INBOX " + TWO,
    "APPENDLIMIT": b'LIST "" INBOX RETURN (STATUS (APPENDLIMIT))',
}

#: These only change what ENABLE switches on.
ENABLED = ("IMAP4rev2", "QRESYNC", "UIDONLY", "UTF8=ACCEPT")

#: Commands and answers in which something is left out instead, and what.
LEFT_OUT = {
    "CHILDREN": (b'LIST "" INBOX', "HasNoChildren"),
    "QUOTA=RES-MESSAGE": (b'GETQUOTA ""', "MESSAGE"),
    "UIDPLUS": (b"APPEND Drafts " + TWO, "APPENDUID"),
    "SPECIAL-USE": (b'LIST "" Sent', "\\Sent"),
}

#: Nothing to refuse: how literals are written, and what is tested elsewhere because it takes time.
OTHERS = ("LITERAL+", "IDLE", "INPROGRESS")


def compressing() -> ImapLimits:
    return ImapLimits(compress=True)


def test_every_capability_is_in_one_of_these_tables() -> None:
    assert {*REFUSED, *ENABLED, *LEFT_OUT, *OTHERS} == set(HIDEABLE)


def test_what_is_named_after_login_can_be_hidden(house: House) -> None:
    house.factory.limits = compressing()
    named = house.login().ask("CAPABILITY")[0].split()[2:]
    assert {name.partition("=")[0] if name.startswith("APPENDLIMIT") else name for name in named} == {*HIDEABLE, "IMAP4rev1"}


@pytest.mark.parametrize("name", HIDEABLE)
def test_what_is_hidden_is_not_named(house: House, name: str) -> None:
    house.doorman.hides = frozenset({name})
    answer = house.connect().ask("LOGIN hello@example.com secret")[-1]
    assert not any(word.partition("=")[0] == name or word == name for word in answer.split("]")[0].split())


@pytest.mark.parametrize("name", REFUSED)
def test_what_belongs_to_it_is_refused(house: House, name: str) -> None:
    house.factory.limits = compressing()
    house.fill("INBOX", 2)
    house.doorman.hides = frozenset({name})
    refused = house.login("INBOX").ask(REFUSED[name])
    assert len(refused) == 1 and refused[0].startswith("t BAD "), refused
    house.doorman.hides = frozenset()
    # compressed octets come after the OK
    assert any(line.startswith("t OK") for line in house.login("INBOX").ask(REFUSED[name]))


@pytest.mark.parametrize("name", ENABLED)
def test_it_cannot_be_enabled(house: House, name: str) -> None:
    house.doorman.hides = frozenset({name})
    assert house.login().ask(f"ENABLE {name}")[0] == "* ENABLED"
    house.doorman.hides = frozenset()
    assert house.login().ask(f"ENABLE {name}")[0] == f"* ENABLED {name}"


@pytest.mark.parametrize("name", LEFT_OUT)
def test_it_is_left_out(house: House, name: str) -> None:
    command, word = LEFT_OUT[name]
    house.doorman.hides = frozenset({name})
    hidden = house.login().ask(command)
    assert hidden[-1].startswith("t OK") and not any(word in line for line in hidden)
    house.doorman.hides = frozenset()
    assert any(word in line for line in house.login().ask(command))


def test_a_search_in_notify_is_looked_through_too(house: House) -> None:
    house.doorman.hides = frozenset({"PREVIEW"})
    answer = house.login("INBOX").ask("NOTIFY SET (SELECTED (MessageNew (UID PREVIEW) MessageExpunge))")
    assert answer == ["t BAD PREVIEW is not available"]
