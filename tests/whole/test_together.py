"""What the processes of one box count and tell together: status, wrong passwords, connections."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.whole.daemon import Daemon, simple, trusting, until

STRANGER = "127.0.0.66"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Daemon]:
    """A primary with two workers and narrow limits."""
    limits = {"login_failures_per_network": "16", "imap_connections_per_address": "6"}
    made = Daemon(tmp_path / "var", overrides={"workers": "2", "log_level": "debug", **limits})
    made.init().start()
    until(lambda: len(made.json("status")["peers"]) == 2, "both workers have told how they are")
    yield made
    if made.process is not None:
        made.close()


def dial(daemon: Daemon, door: str, source: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", daemon.port(door)), 60, source_address=(source, 0))


def guess(daemon: Daemon, number: int, source: str = STRANGER) -> bytes:
    """The answer to a wrong password."""
    with trusting().wrap_socket(dial(daemon, "imaps", source)) as connection:
        connection.recv(4096)
        connection.sendall(f"a LOGIN guess{number}@example.com wrong\r\n".encode())
        return connection.recv(4096)


def test_status_of_a_box_with_workers(pair: Daemon) -> None:
    owner = pair.owner()
    pair.send(owner.address, simple("waits"))
    with contextlib.closing(dial(pair, "imap", STRANGER)) as connection:
        connection.recv(100)
        until(lambda: sum(peer["imap"] for peer in pair.json("status")["peers"]) == 1, "the session is told of")
    state = pair.json("status")
    own, peers = state["own"], state["peers"]
    assert (own["role"], own["location"], own["waiting"], own["links"]) == ("primary", "local", 1, [])
    assert own["pid"] == (pair.process.pid if pair.process else 0) and own["waiting_octets"] > 1000
    assert [(peer["role"], peer["address"], peer["version"]) for peer in peers] == [("worker", "unix", own["version"])] * 2
    assert all(peer["round_trip_ms"] is not None and peer["told_seconds_ago"] < 60 for peer in peers)
    text = pair.cli("status")
    assert "Mail waits for 1 mailbox" in text and "worker-1" in text and "worker-2" in text
    with contextlib.closing(pair.login(owner)):
        until(lambda: pair.json("status")["own"]["waiting"] == 0, "nothing waits any more")
        assert pair.json("status")["own"]["mailboxes"] == 1


def test_status_without_workers_and_without_a_server(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "var", overrides={"workers": "0"})
    daemon.init()
    assert "the server is not running" in daemon.cli("status", status=1)
    assert daemon.json("status", status=1)["code"] == "not_found"
    daemon.start()
    with contextlib.closing(dial(daemon, "mx", STRANGER)) as connection:
        connection.recv(100)
        state = daemon.json("status")
        assert state["peers"] == [] and state["own"]["mx"] == 1
    daemon.kill()
    assert "the server is not running" in daemon.cli("status", status=1)


def test_status_of_a_server_that_does_not_answer(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "var", overrides={"workers": "0"})
    daemon.init().start()
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        assert "does not answer" in daemon.cli("status", status=1)
    finally:
        daemon.process.send_signal(signal.SIGCONT)
        daemon.close()


def test_wrong_passwords_count_over_workers(pair: Daemon) -> None:
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda number: guess(pair, number), range(16)))
    assert all(b"NO [AUTHENTICATIONFAILED]" in answer for answer in answers)
    failed = re.findall(r"process=(worker-\d).*?imap\.login_failed|imap\.login_failed.*?process=(worker-\d)", pair.log())
    assert {one or other for one, other in failed} == {"worker-1", "worker-2"}, "both have seen some"
    for number in range(8):
        assert b"NO [LIMIT]" in guess(pair, number)
    assert b"NO [AUTHENTICATIONFAILED]" in guess(pair, 0, "127.0.0.67")


def test_connections_count_over_workers(pair: Daemon) -> None:
    """Twenty from one address: never more than six for longer than a moment, and six stay."""
    connections = [dial(pair, "imap", STRANGER) for _ in range(20)]

    def alive() -> int:
        return sum(not ended(connection) for connection in connections)

    until(lambda: alive() == 6, "six are left")
    assert "imap.refused" in pair.log()
    with contextlib.closing(dial(pair, "imap", "127.0.0.67")) as other:
        assert other.recv(100).startswith(b"* OK")
    for connection in connections:
        connection.close()

    def free() -> bool:
        """All six are to be had again."""
        fresh = [dial(pair, "imap", STRANGER) for _ in range(6)]
        try:
            return all(connection.recv(100).startswith(b"* OK") for connection in fresh)
        except ConnectionError:
            return False
        finally:
            for connection in fresh:
                connection.close()

    until(free, "who has left is not counted any more")


def ended(connection: socket.socket) -> bool:
    """Whether the server has closed it, whatever it said before."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
