"""Damaged commands: each is answered, none is a bug of ours, and the session goes on."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.logger import globalLogPublisher

from tests.servers.imap.house import House

COMMANDS = [
    b"SELECT INBOX",
    b"EXAMINE Sent",
    b"CREATE a/b/c",
    b"RENAME a/b x/y",
    b"RENAME INBOX old",
    b"DELETE a/b/c",
    b'LIST "" "%/*"',
    b'LSUB "x" %',
    b"STATUS INBOX (MESSAGES UNSEEN RECENT UIDNEXT UIDVALIDITY)",
    b"FETCH 1:3,*:2 (FLAGS UID ENVELOPE BODYSTRUCTURE BODY.PEEK[1.HEADER.FIELDS (FROM TO)]<3.9>)",
    b"UID FETCH 1:* (BODY[1.MIME] RFC822.HEADER BODY[TEXT]<0.3> INTERNALDATE)",
    b"STORE 1,3 -FLAGS.SILENT (\\Seen $Work Other)",
    b"UID STORE 1:2 FLAGS (\\Deleted)",
    b'SEARCH OR NOT (SEEN 1:3) SUBJECT "x" SINCE 1-Jan-2020 UID 1:* HEADER Received ""',
    b"UID SEARCH CHARSET UTF-8 KEYWORD $Work LARGER 3 TEXT mail",
    b"COPY 1:2 Archive",
    b"UID MOVE 2 Trash",
    b"EXPUNGE",
    b"UID EXPUNGE 1:9",
    b'APPEND Sent (\\Seen) "17-Jul-1996 02:44:25 -0700"',
    b"SUBSCRIBE a&AOQ-",
    b'ID ("name" NIL)',
    b"ENABLE CONDSTORE",
    b"NOOP",
    b"CLOSE",
    b"UNSELECT",
    b"IDLE",
    b"CHECK",
]

damage = st.tuples(st.sampled_from(["keep", "drop", "double", "put"]), st.integers(0, 90), st.integers(1, 8), st.binary(max_size=3))


def damaged(command: bytes, hurts: list[tuple[str, int, int, bytes]]) -> bytes:
    for kind, at, length, octets in hurts:
        at %= len(command) + 1
        if kind == "drop":
            command = command[:at] + command[at + length :]
        elif kind == "double":
            command = command[: at + length] + command[at:]
        elif kind == "put":
            command = command[:at] + octets + command[at:]
    # Literals and line ends have tests of their own; here one line is one command.
    return command.translate(None, b"\r\n{}")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(COMMANDS), st.lists(damage, max_size=2)), max_size=15), st.integers(1, 40))
def test_every_line_is_answered_and_no_bug_is_found(work: list[tuple[bytes, list[Any]]], chunk: int) -> None:
    bugs: list[Any] = []

    def watch(event: dict[str, Any]) -> None:
        if event.get("event") in ("imap.failed", "imap.broken", "imap.push_failed") or "log_failure" in event:
            bugs.append(event)

    globalLogPublisher.addObserver(watch)
    try:
        with tempfile.TemporaryDirectory() as folder:
            house = House(Path(folder))
            house.fill("INBOX", 3)
            client = house.login("INBOX", chunk=chunk)
            for command, hurts in work:
                client.take()
                client.send(b"t " + damaged(command, hurts) + b"\r\n")
                if client.lines()[-1:] == ["+ idling"]:
                    client.send(b"DONE\r\n")
                if client.closing:
                    break
                assert client.ask("NOOP")[-1] == "t OK NOOP completed"
            house.close()
    finally:
        globalLogPublisher.removeObserver(watch)
    assert bugs == []
