"""A secondary that has the link secret and nothing else: it names no file, runs no SQL, and reaches no mailbox that it has no key for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from fe_twisted.base import errors
from fe_twisted.protocols.cluster.frames import Request, encode
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes
from fe_twisted.storage.mailbox.remote import METHODS, open_remote
from tests.servers.cluster.wires import logged
from tests.storage.mailbox.driving import ID, KEY, at_once, nothing_waits, run
from tests.storage.mailbox.linked import Network, hosting

OTHER = "f" * 24


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    clock = Clock()
    clock.advance(1_790_000_000)
    files = MailboxFiles(tmp_path / "mailboxes")
    files.create(ID, KEY)
    files.create(OTHER, bytes(32))
    mailboxes: OpenMailboxes[LocalMailbox] = OpenMailboxes(
        lambda mailbox_id, key: open_mailbox(files, mailbox_id, key, at_once, clock, nothing_waits), clock, grace=0
    )
    network = Network(hosting(mailboxes, files), clock)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    yield network
    network.cable.break_()
    clock.advance(1)
    assert len(mailboxes) == 0
    assert files.check(ID, KEY) == files.check(OTHER, bytes(32)) == []
    assert sorted(path.name for path in tmp_path.rglob("*") if not path.name.endswith(("-wal", "-shm"))) == before, "no file was made"


def ask(network: Network, method: str, mailbox: str, body: bytes = b"", key: bytes = b"") -> Any:
    """The answer to a request that a well-behaved secondary would never make, and the log."""
    results: list[Any] = []
    with logged() as events:
        network.cable.conversation.ask(method, mailbox, [body], key, timeout=10).addBoth(results.append)
    answer = results[0].value if results and isinstance(results[0], Failure) else results
    return answer, [event["reason"] for event in events if event["event"] == "cluster.refused"]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_no_method_reaches_a_mailbox_that_is_not_open_here(network: Network, method: str) -> None:
    network.link()
    answer, reasons = ask(network, method, OTHER)
    assert isinstance(answer, errors.Refused) and reasons == ["mailbox-not-open"]
    answer, reasons = ask(network, method, "")
    assert isinstance(answer, errors.Refused) and reasons == ["mailbox-not-open"]


def test_a_mailbox_that_another_secondary_has_open_is_not_open_here(network: Network) -> None:
    link = network.link()
    mailbox = run(open_remote(link, ID, KEY, print))
    network.link()
    answer, reasons = ask(network, "status", ID, cbor2.dumps([b"\xa1\x64name\x65INBOX"]))
    assert isinstance(answer, errors.Refused) and reasons == ["mailbox-not-open"]
    run(mailbox.close())


@pytest.mark.parametrize("method", ["sql", "execute", "idempotent", "sealing_key", "close", "collect", "modseqs", "keywords", "watch"])
def test_what_is_not_in_the_table_is_refused(network: Network, method: str) -> None:
    """Also the methods of the object that the interface does not have."""
    link = network.link()
    mailbox = run(open_remote(link, ID, KEY, print))
    answer, reasons = ask(network, method, ID)
    assert isinstance(answer, errors.Refused) and reasons == ["unknown-method"]
    assert run(mailbox.status("INBOX")).messages == 0, "the link goes on"
    run(mailbox.close())


def test_a_key_in_the_clear_or_for_another_connection_opens_nothing(network: Network) -> None:
    network.link()
    theirs = network.cable.conversation.agreed.keys.wrap(ID, KEY)
    network.link()
    ours = network.cable.conversation.agreed.keys
    for wrapped in (KEY, b"", theirs, ours.wrap(OTHER, KEY), bytes(60)):
        answer, reasons = ask(network, "open", ID, wrapped)
        assert isinstance(answer, errors.Refused) and reasons == ["wrong-key"]
    answer, reasons = ask(network, "open", ID, ours.wrap(ID, bytes(32)))
    assert isinstance(answer, errors.DamagedFile) and reasons == ["wrong-key"], "wrapped well, and another mailbox's key"


def test_a_mailbox_that_is_not_here_is_not_made(network: Network) -> None:
    network.link()
    nowhere = "a" * 24
    answer, reasons = ask(network, "open", nowhere, network.cable.conversation.agreed.keys.wrap(nowhere, KEY))
    assert isinstance(answer, errors.Refused) and reasons == ["not-here"]
    for method in ("handover", "deliver"):
        answer, reasons = ask(network, method, nowhere, b"garbage")
        assert isinstance(answer, errors.Refused) and reasons == ["bad-arguments"]


@pytest.mark.parametrize("mailbox", ["../" + ID[3:], "/etc/passwd", ID + ".sqlite", ID.upper(), ID[:-1], ID + "\0", "..", "a" * 23 + "\n"])
def test_ids_like_paths_end_the_connection(network: Network, mailbox: str) -> None:
    network.link()
    with logged() as events:
        network.cable.send(True, encode(Request(1, "open", mailbox, b"", 0, 0, b"")))
    assert [event["reason"] for event in events if event["event"] == "cluster.refused"] == ["bad-frame"]
    assert network.cable.cut


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        cbor2.dumps([cbor2.dumps({"name": 1})]),
        cbor2.dumps([cbor2.dumps({"name": "INBOX", "sql": "DROP TABLE messages"})]),
        cbor2.dumps([cbor2.dumps(["INBOX"])]),
        cbor2.dumps([cbor2.dumps({"name": cbor2.CBORTag(35, "(a+)+$")})]),
        cbor2.dumps([b"\x81" * 5000]),
    ],
)
def test_arguments_that_do_not_fit_are_refused_and_the_link_goes_on(network: Network, body: bytes) -> None:
    link = network.link()
    mailbox = run(open_remote(link, ID, KEY, print))
    answer, _ = ask(network, "status", ID, body)
    assert isinstance(answer, errors.BadSyntax)
    assert run(mailbox.status("INBOX")).messages == 0
    run(mailbox.close())


@pytest.mark.parametrize("name", ["INBOX'; DROP TABLE folders; --", "../../secret", "\0", 'INBOX" OR 1=1'])
def test_names_are_only_names(network: Network, name: str) -> None:
    link = network.link()
    mailbox = run(open_remote(link, ID, KEY, print))
    with pytest.raises(errors.NoSuchFolder):
        run(mailbox.status(name))
    assert len(run(mailbox.folders())) == 6
    run(mailbox.close())
