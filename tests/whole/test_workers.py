"""One primary and its workers: shared ports, restarts, replacement, a clean end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fe_twisted.app.cli.reload import workers_of
from tests.whole.daemon import OFFSETS, Daemon, simple, until
from tests.whole.wire import Imap, Smtp


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Daemon]:
    """A primary with two workers, running."""
    made = Daemon(tmp_path / "var", overrides={"workers": "2", "log_level": "debug"})
    made.init().start()
    until(lambda: made.log().count("cluster.joined") >= 2, "both workers are linked")
    yield made
    if made.process is not None:
        made.close()


def workers(daemon: Daemon) -> set[int]:
    assert daemon.process is not None
    return workers_of(daemon.process.pid)


def serving(daemon: Daemon) -> set[str]:
    """The processes that have answered an IMAP or MX connection so far."""
    return set(re.findall(r"process=(worker-\d)", "\n".join(line for line in daemon.log().splitlines() if ".connected" in line)))


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_connections_are_shared_and_mail_is_one(pair: Daemon) -> None:
    """Both workers answer on the same ports; what one takes, the other shows."""
    owner = pair.owner()
    for number in range(24):
        pair.send(owner.address, simple(f"message {number}"))
    clients = []
    for _ in range(12):
        client = pair.imaps()
        client.login(owner.address, owner.password)
        clients.append(client)
    assert serving(pair) == {"worker-1", "worker-2"}
    for client in clients:
        assert client.select("INBOX")[1] == [b"24"]
    clients[0].store("1", "+FLAGS", r"(\Flagged)")
    for client in clients[1:]:
        client.noop()
        assert b"Flagged" in client.fetch("1", "(FLAGS)")[1][0]  # type: ignore[operator]
        client.logout()
    clients[0].logout()
    pair.stop()
    assert all(gone(pid) for pid in map(int, re.findall(r"worker\.ready .*pid=(\d+)", pair.log())))


def test_names_subscriptions_and_annotations_are_told_in_every_worker(pair: Daemon) -> None:
    """NOTIFY of what has no folder's modseq: it comes over the link, whoever made the change."""
    owner = pair.owner()
    with Imap(pair, owner) as client, Imap(pair, owner) as other:
        other.ask(b"CREATE Before")
        client.ask(b"NOTIFY SET (personal (MailboxName SubscriptionChange ServerMetadataChange))")
        for command, told in (
            (b"RENAME Before After", b'* LIST (\\HasNoChildren) "/" After ("OLDNAME" (Before))'),
            (b"SUBSCRIBE After", b'* LIST (\\HasNoChildren \\Subscribed) "/" After'),
            (b'SETMETADATA "" (/private/comment "x")', b'* METADATA "" /private/comment'),
        ):
            other.ask(command)
            assert client.line() == told
    pair.stop()


def test_a_worker_that_dies_is_started_again(pair: Daemon) -> None:
    owner = pair.owner()
    pair.send(owner.address, simple("before"))
    before = workers(pair)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(workers(pair)) == 2 and victim not in workers(pair), "there are two again")
    assert "worker.died" in pair.log()
    # Connections that came meanwhile wait in the queue of the socket, which the primary keeps.
    for number in range(8):
        pair.send(owner.address, simple(f"after {number}"))
    assert len(pair.messages(owner)) == 9
    pair.stop()


def test_a_worker_that_only_begins_is_not_ended_by_the_signals_of_the_terminal(pair: Daemon) -> None:
    """Ctrl-C reaches the whole group, also a worker that is still being loaded; the rotation of logs may send SIGHUP then."""
    before = workers(pair)
    os.kill(min(before), signal.SIGKILL)
    (young,) = until(lambda: workers(pair) - before, "a new one begins")
    while f"pid={young}" not in pair.log():
        assert not gone(young)
        os.kill(young, signal.SIGINT)
        os.kill(young, signal.SIGHUP)
        time.sleep(0.01)
    assert young in workers(pair)
    os.kill(young, signal.SIGINT)
    pair.stop()
    assert "Traceback" not in pair.log()


def test_reload_replaces_workers_one_by_one_while_mail_goes_on(pair: Daemon) -> None:
    """Every message and every login is taken while it goes on, at once, and each message is there once."""
    owner = pair.owner()
    before = workers(pair)
    answer: list[str] = []
    reloading = threading.Thread(target=lambda: answer.append(pair.run("reload", "--config", str(pair.config)).stdout))
    reloading.start()
    sent = 0
    while reloading.is_alive():
        pair.send(owner.address, simple(f"meanwhile {sent}."))
        sent += 1
        client = pair.login(owner)
        client.noop()
        client.logout()
    assert answer == ["2 workers were replaced.\n"], answer
    after = workers(pair)
    assert len(after) == 2 and not after & before
    stored = [int(re.search(rb"meanwhile (\d+)\.", each)[1]) for each in pair.messages(owner)]  # type: ignore[index]
    assert stored == list(range(sent))
    pair.stop()


def until_tagged(client: Imap, tag: bytes) -> bytes:
    """The tagged answer; nobody may say goodbye before it."""
    while not (line := client.line()).startswith(tag + b" "):
        assert line and not line.startswith(b"* BYE"), line
    return line


def test_reload_cuts_nobody_off_who_is_in_the_middle_of_something(pair: Daemon) -> None:
    """Of connections that were accepted before it: who has not logged in, sends a message, or appends one, is served. IDLE ends at once."""
    owner = pair.owner()
    message = simple("in two pieces")
    fresh = [Imap(pair) for _ in range(6)]
    appending, idling = Imap(pair, owner), Imap(pair, owner, "INBOX")
    appending.send(b"a APPEND INBOX {%d}\r\n" % len(message))
    assert appending.line().startswith(b"+")
    appending.send(message[:20])
    idling.send(b"a IDLE\r\n")
    assert idling.line().startswith(b"+")
    sending = [Smtp(pair) for _ in range(3)]
    for mail in sending:
        mail.envelope(owner.address)
    for mail in sending[1:]:
        assert mail.ask(b"DATA").startswith(b"354")
    sending[2].send(message[:20])

    assert "being replaced" in pair.cli("reload", "--wait", "0")
    until(lambda: pair.log().count("worker.leaving") == 2, "both workers have a successor")
    assert idling.line() == b"* BYE this process is being replaced, connect again"
    for client in fresh:
        client.send(b"a LOGIN %s %s\r\nb SELECT INBOX\r\n" % (owner.address.encode(), owner.password.encode()))
        assert until_tagged(client, b"b").startswith(b"b OK")
    appending.send(message[20:] + b"\r\n")
    assert until_tagged(appending, b"a").startswith(b"a OK")
    assert sending[0].data(message).startswith(b"250")
    sending[1].send(message + b".\r\n")
    sending[2].send(message[20:] + b".\r\n")
    assert all(mail.reply().startswith(b"250") for mail in sending[1:])
    assert not pair.log().count("worker.stopped")

    until(lambda: pair.log().count("worker.stopped") == 2, "both have ended")
    for client in [*fresh, appending]:
        assert client.rest().endswith(b"* BYE this process is being replaced, connect again\r\n")
    for mail in sending:
        assert mail.reply().startswith(b"421")
    for each in (*fresh, appending, idling, *sending):
        each.close()
    assert len(pair.messages(owner)) == 4
    pair.stop()


def test_reload_ends_within_its_time_whoever_stays(tmp_path: Path) -> None:
    """A client that never logs in, and a message that never ends, get their BYE and 421 when ``shutdown_seconds`` are over."""
    pair = Daemon(tmp_path / "var", overrides={"workers": "2", "shutdown_seconds": "3"})
    pair.init().start()
    owner = pair.owner()
    silent, sending = Imap(pair), Smtp(pair)
    sending.envelope(owner.address)
    assert sending.ask(b"DATA").startswith(b"354")
    assert "being replaced" in pair.cli("reload", "--wait", "0")
    until(lambda: pair.log().count("worker.leaving") == 2, "both workers have a successor")
    began = time.monotonic()
    assert silent.line() == b"* BYE server is shutting down"
    assert sending.reply().startswith(b"421")
    assert time.monotonic() - began < 3 + 10
    until(lambda: pair.log().count("worker.stopped") == 2, "both have ended")
    silent.close()
    sending.close()
    assert pair.messages(owner) == []
    pair.stop()


def test_reload_reads_the_settings_again(pair: Daemon) -> None:
    with pair.config.open("a") as file:
        file.write("message_size_limit = 70000\n")
    assert pair.json("reload") == {"workers": 2, "pid": pair.process.pid if pair.process else 0}
    with pair.smtp() as client:
        client.ehlo()
        assert client.esmtp_features["size"] == "70000"
    pair.stop()


def test_reload_with_settings_that_cannot_be_used_changes_nothing(pair: Daemon) -> None:
    before = workers(pair)
    good = pair.config.read_text()
    pair.config.write_text(good + "message_size_limit = 7\n")
    assert "too small" in pair.cli("reload", status=1)
    assert workers(pair) == before
    pair.config.write_text(good)
    pair.stop()


def test_reload_without_a_server_says_so(fresh: Daemon) -> None:
    assert "not running" in fresh.cli("reload", status=1)


def test_workers_end_with_their_primary(pair: Daemon) -> None:
    """A primary that is killed leaves nobody behind who holds the ports; the next start finds all mail."""
    owner = pair.owner()
    pair.send(owner.address, simple("kept"))
    left = workers(pair)
    pair.kill()
    until(lambda: all(gone(pid) for pid in left), "the workers have gone")
    pair.start()
    assert len(pair.messages(owner)) == 1
    pair.stop()


def test_a_second_server_on_the_same_ports_is_refused(pair: Daemon, tmp_path: Path) -> None:
    """Sockets that several processes share must not be shared with another server by mistake."""
    other = Daemon(tmp_path / "other", overrides={"workers": "2"})
    other.init()
    other.config.write_text(re.sub(r"port_offset = \d+", f"port_offset = {pair.offset}", other.config.read_text()))
    other.start(wait=False)
    assert other.process is not None
    assert other.process.wait(60) == 1
    assert "cannot be had: Address already in use" in other.log()
    pair.stop()


def test_a_second_server_in_the_same_folder_is_refused(pair: Daemon) -> None:
    """On other ports; and as soon as the first was killed, with its workers still about, there may be one."""
    owner = pair.owner()
    for number in range(3):
        pair.send(owner.address, simple(f"message {number}"))
    waiting = pair.json("status", "--full")["own"]
    assert (waiting["waiting_messages"], waiting["waiting_set_aside"], waiting["waiting_unknown"]) == (3, 0, 0)
    assert waiting["waiting_since"] >= waiting["started"]
    assert "3 messages wait, for " in pair.cli("status", "--full")
    other = Daemon(pair.data, overrides={"workers": "2", "port_offset": str(OFFSETS.take())}, log_outside=pair.data.with_name("other.log"))
    other.start(wait=False)
    assert other.process is not None
    assert other.process.wait(60) == 1
    assert "another server is running with the data folder" in other.log()
    pair.kill()
    pair.start()
    assert len(pair.messages(owner)) == 3
    until(lambda: pair.json("status", "--full")["own"]["waiting_messages"] == 0, "nothing waits")
    pair.stop()


def test_sessions_go_on_while_the_other_worker_dies(pair: Daemon) -> None:
    """An IDLE client on the worker that lives hears of new mail at once."""
    owner = pair.owner()
    clients = []
    while len({name for name, _ in clients}) < 2:
        client = pair.imaps()
        client.login(owner.address, owner.password)
        client.select("INBOX")
        line = [line for line in pair.log().splitlines() if "imap.login" in line][-1]
        found = re.search(r"process=(worker-\d)", line)
        assert found
        clients.append((found[1], client))
    name, survivor = clients[0]
    number = int(re.search(r"\d", name)[0])  # type: ignore[index]
    pids = {int(a): int(b) for a, b in re.findall(r"worker\.ready worker=(\d) pid=(\d+)", pair.log())}
    os.kill(pids[3 - number], signal.SIGKILL)
    started = time.monotonic()
    survivor.send(b"i1 IDLE\r\n")
    assert survivor.readline().startswith(b"+")
    pair.send(owner.address, simple("news"))
    assert survivor.readline() == b"* 1 EXISTS\r\n"
    assert time.monotonic() - started < 20
    for _, client in clients:
        with contextlib.suppress(OSError):
            client.sock.shutdown(socket.SHUT_RDWR)
    pair.stop()
