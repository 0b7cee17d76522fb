r"""FETCH of what is no PEEK sets ``\Seen`` as it goes on, and tells it once (RFC 9051 section 6.4.5)."""

from __future__ import annotations

import re

from fe_twisted.storage.mailbox.api import SEEN, NewMessage
from tests.servers.imap.house import Client, House, Slow, mail
from tests.storage.mailbox.driving import collect, run

COUNT = 12


def fill(house: House) -> None:
    """Messages of which no two fit into one batch."""
    run(house.mailbox.append("INBOX", [NewMessage(mail(number, "x" * 300_000 + "\r\n")) for number in range(1, COUNT + 1)]))


def seen(house: House) -> list[int]:
    inbox = run(house.mailbox.select("INBOX", claim_recent=False))
    rows = run(collect(house.mailbox.fetch(inbox.folder_id, ((1, COUNT),), ("uid", "flags"))))
    return [uid for uid, flags in rows if flags & SEEN]


def read(house: House, client: Client, pieces: int) -> bytes:
    said = b""
    assert isinstance(client.transport, Slow)
    for _ in range(pieces):
        said += client.transport.move()
        house.clock.advance(0)
    return said


def told(said: bytes) -> list[str]:
    """Responses without their literals."""
    return re.sub(rb"\{\d+\}\r\n.*?\r\n\)", b"...)", said, flags=re.DOTALL).decode().split("\r\n")[:-1]


def test_a_fetch_that_is_cut_off_marks_nothing_that_was_far_from_being_sent(house: House) -> None:
    fill(house)
    client = house.login("INBOX", network=Slow)
    client.send(b"f FETCH 1:* BODY[]\r\n")
    read(house, client, 8)
    client.drop()
    marked = seen(house)
    assert marked == list(range(1, len(marked) + 1))
    assert 1 <= len(marked) < COUNT / 2


def test_each_message_is_told_once(house: House) -> None:
    fill(house)
    client = house.login("INBOX", network=Slow)
    client.ask("STORE 1:3 +FLAGS.SILENT (\\Seen)")
    client.send(b"f FETCH 1:* BODY[]\r\n")
    lines = told(read(house, client, 1000))
    assert lines == [
        *(f"* {number} FETCH (BODY[] ...)" for number in range(1, 4)),
        *(f"* {number} FETCH (FLAGS (\\Seen \\Recent) BODY[] ...)" for number in range(4, COUNT + 1)),
        "f OK FETCH completed",
    ]
    assert seen(house) == list(range(1, COUNT + 1))
    client.send(b"n NOOP\r\n")
    assert told(read(house, client, 10)) == ["n OK NOOP completed"]


def test_the_modseq_told_is_the_one_that_it_has_then(house: House) -> None:
    fill(house)
    client = house.login(network=Slow)
    client.ask("ENABLE CONDSTORE")
    client.ask("SELECT INBOX")
    client.send(b"f UID FETCH 1:3 BODY[]\r\n")
    lines = told(read(house, client, 1000))
    modseqs = [int(found[1]) for line in lines if (found := re.search(r"MODSEQ \((\d+)\)", line))]
    assert modseqs == [3, 4, 5]
    client.send(b"g UID FETCH 1:3 MODSEQ\r\n")
    assert told(read(house, client, 10)) == [*(f"* {n} FETCH (MODSEQ ({n + 2}) UID {n})" for n in (1, 2, 3)), "g OK FETCH completed"]


def test_what_another_session_does_meanwhile_is_told(house: House) -> None:
    fill(house)
    other = house.login("INBOX")
    client = house.login("INBOX", network=Slow)
    client.send(b"f FETCH 1:* BODY[]\r\n")
    said = read(house, client, 3)
    other.ask(f"STORE 1,{COUNT} +FLAGS (\\Flagged)")
    other.ask(f"STORE {COUNT - 1} +FLAGS (\\Deleted)")
    other.ask("EXPUNGE")
    lines = told(said + read(house, client, 1000))
    assert f"* {COUNT} FETCH (FLAGS (\\Seen \\Flagged) BODY[] ...)" in lines
    assert "* 1 FETCH (FLAGS (\\Seen \\Flagged))" in lines, "its flags changed after it was sent"
    assert lines[-1] == "f OK [EXPUNGEISSUED] some of the messages were expunged"
    client.send(b"n NOOP\r\n")
    assert told(read(house, client, 10))[0] == f"* {COUNT - 1} EXPUNGE"


def test_looking_only_marks_nothing(house: House) -> None:
    fill(house)
    client = house.login(network=Slow)
    client.ask("EXAMINE INBOX")
    client.send(b"f FETCH 1:* BODY[]\r\n")
    assert told(read(house, client, 1000))[-1] == "f OK FETCH completed"
    assert seen(house) == []


def test_changed_since_marks_what_it_answers(house: House) -> None:
    fill(house)
    client = house.login("INBOX", network=Slow)
    client.ask("STORE 5:6 +FLAGS (\\Answered)")
    client.send(b"f FETCH 1:* BODY[] (CHANGEDSINCE 2)\r\n")
    lines = told(read(house, client, 1000))
    assert [line.split()[1] for line in lines if " FETCH (" in line] == ["5", "6"]
    assert seen(house) == [5, 6]
