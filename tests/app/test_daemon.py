"""The top service where twistd's own rules are easily broken."""

from __future__ import annotations

import datetime
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Service
from twisted.internet.testing import MemoryReactorClock

from fe_twisted.app import daemon
from fe_twisted.app.claim import claim
from fe_twisted.app.cli import run
from fe_twisted.app.setup import create
from fe_twisted.app.store import opened
from fe_twisted.base.errors import BadSettings
from fe_twisted.base.load import load
from fe_twisted.base.settings import Settings

ROOT = Path(__file__).parent.parent.parent


def twistd(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FORWARDEMAIL_")}
    command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", *arguments]
    command += ["forwardemail", "--config", str(data / "forwardemail.toml")]
    return subprocess.run(command, cwd=data, env={**kept, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=60)


def free_offset() -> int:
    """A port offset whose MX port nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(int(probe.getsockname()[1]), 60_000) - 25


def make(data: Path) -> int:
    """A data folder with the IMAP doors off; returns the MX port."""
    now = datetime.datetime.now(datetime.UTC)
    offset = free_offset()
    made = create(data, hostname="localhost", development=True, port_offset=offset, example=False, now=now)
    with made.settings.file.open("a") as file:
        file.write("imap_port = 0\nimaps_port = 0\n")
    return 25 + offset


def test_a_taken_port_ends_a_daemon_with_a_reason_instead_of_hanging(tmp_path: Path) -> None:
    """twistd's parent waits for a word of its child; a child that just exits would leave it waiting for ever."""
    port = make(tmp_path / "data")
    with socket.create_server(("127.0.0.1", port)):
        done = twistd(tmp_path / "data", "--pidfile", str(tmp_path / "pid"))
        assert done.returncode == 1
        whole = f"forwardemail: port {port} (mx) on 127.0.0.1 cannot be had: Address already in use; is the server running already?"
        assert done.stderr.startswith(whole), "the reason, not cut off"
        assert not (tmp_path / "pid").exists()
        log = (tmp_path / "data" / "forwardemail.log").read_text()
        assert "server.not_started" in log
        assert "Traceback" not in log
        done = twistd(tmp_path / "data", "-n", "--pidfile=")
        assert done.returncode == 1
        assert f"forwardemail: port {port} (mx) on 127.0.0.1 cannot be had" in done.stderr
        assert "Traceback" not in done.stdout + done.stderr


def test_two_servers_never_share_mailboxes(tmp_path: Path) -> None:
    """On other ports they could; then one would take a temporary mailbox away in which the other has just stored a message."""
    data = tmp_path / "data"
    make(data)
    claimed = claim(data / "mailboxes")
    done = twistd(data, "-n", "--pidfile=")
    assert done.returncode == 1
    assert "another server is running with the mailboxes in" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    os.close(claimed)
    os.close(claim(data / "mailboxes"))


SECONDARY = """
role = "secondary"
primary = "wss://localhost:1"
directory_url = "postgresql://nobody@/nothing?host=/nonexistent"
"""


@pytest.mark.parametrize("more", ["workers = 0", "workers = 2", "workers = 0" + SECONDARY, "workers = 2" + SECONDARY])
def test_two_servers_never_share_a_data_folder(tmp_path: Path, more: str) -> None:
    """Whatever they are; the second does nothing, not even ask the directory."""
    data = tmp_path / "data"
    make(data)
    with (data / "forwardemail.toml").open("a") as file:
        file.write(more)
    claimed = claim(data)
    done = twistd(data, "-n", "--pidfile=")
    os.close(claimed)
    assert done.returncode == 1
    assert f"another server is running with the data folder {data}" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("more", ["workers = 2", "workers = 0\nlink_port = 4190", "workers = 0"])
def test_a_primary_that_the_directory_knows_by_another_name_is_told_so(tmp_path: Path, more: str) -> None:
    """With workers or links nobody would find the mailboxes. All in one process has nobody to ask: there they are, as before."""
    data = tmp_path / "data"
    now = datetime.datetime.now(datetime.UTC)
    made = create(data, hostname="localhost", development=True, port_offset=free_offset(), example=True, now=now)
    with made.settings.file.open("a") as file:
        file.write(f'imap_port = 0\nimaps_port = 0\nlocation = "paris"\n{more}\n')
    assert run(["link", "token", "--config", str(made.settings.file)]) == 0
    if more == "workers = 0":
        settings = load(made.settings.file, {})
        with opened(settings) as store:
            assert store.accounts.strays(()), "so it is that which is not looked at"
        done = twistd(data, "--pidfile", str(tmp_path / "pid"))
        assert done.returncode == 0, done
        process = int((tmp_path / "pid").read_text())
        os.kill(process, signal.SIGTERM)
        _until(lambda: not (tmp_path / "pid").exists())
        return
    done = twistd(data, "-n", "--pidfile=")
    assert done.returncode == 1
    assert "forwardemail directory rename-location local paris" in done.stderr
    assert 'location = "local"' in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert run(["alias", "add", "new@example.com", "--config", str(made.settings.file)]) == 0
    done = twistd(data, "-n", "--pidfile=")
    assert done.stderr.endswith('write location = "local"\n'), "to rename it would be refused now that there is an alias of that name"


def test_a_server_that_was_killed_has_claimed_nothing(tmp_path: Path) -> None:
    """Not even if processes that it has started live on for a moment."""
    data = tmp_path / "data"
    data.mkdir()
    code = "import subprocess, sys, os; from pathlib import Path; from fe_twisted.app.claim import claim; claim(Path(sys.argv[1]));"
    code += "print(subprocess.Popen(['sleep', '60'], close_fds=False, stdout=subprocess.DEVNULL).pid, flush=True); sys.stdin.read()"
    server = subprocess.Popen(
        [sys.executable, "-c", code, str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert server.stdout is not None
    child = int(server.stdout.readline())
    try:
        with pytest.raises(BadSettings, match="another server is running with the data folder"):
            claim(data, "the data folder")
        server.kill()
        server.wait()
        os.close(claim(data))
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_reload_while_it_only_starts_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket answers before all is started, and by its socket ``forwardemail reload`` finds it."""
    asked: list[Any] = []
    ended: list[int] = []
    make(tmp_path / "data")
    handlers = {number: signal.signal(number, lambda number, _: ended.append(number)) for number in (signal.SIGUSR2, signal.SIGHUP)}

    class Starting(Service):
        def startService(self) -> None:
            os.kill(os.getpid(), signal.SIGUSR2)

    reactor = MemoryReactorClock()
    monkeypatch.setattr(reactor, "callFromThread", asked.append, raising=False)
    monkeypatch.setattr(daemon, "build", lambda *_, **__: Starting())
    monkeypatch.setattr(daemon, "settle", lambda: None)
    try:
        daemon.Daemon(load(tmp_path / "data" / "forwardemail.toml", {}), reactor, None).startService()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert not ended
    assert len(asked) == 1


def test_a_reason_that_is_no_text_is_told_to_the_terminal_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a file may be any octets."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    reading, writing = os.pipe()
    refused = daemon.Daemon(Settings(file=Path()), None, None, foreground=False)
    refused._terminal = writing
    with pytest.raises(daemon.NotStarted):
        refused._refuse(os.fsdecode(b"no file caf\xe9.pem"))
    assert os.read(reading, 1000) == b"forwardemail: no file caf\\udce9.pem\n"
    os.close(reading)


def test_in_the_background_it_serves_reloads_and_stops(tmp_path: Path) -> None:
    data = tmp_path / "data"
    port = make(data)
    log = data / "forwardemail.log"
    done = twistd(data, "--pidfile", str(tmp_path / "pid"))
    assert done.returncode == 0, done
    process = int((tmp_path / "pid").read_text())
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            assert client.recv(100).startswith(b"220 localhost")
            (data / "tls" / "certificate.pem").write_text("garbage")
            log.rename(data / "old.log")
            os.kill(process, signal.SIGHUP)
            _until(lambda: log.exists() and "tls.not_reloaded" in log.read_text())
            os.kill(process, signal.SIGTERM)
            assert client.recv(100).startswith(b"421 ")
        _until(lambda: not (tmp_path / "pid").exists())
        assert "server.stopped" in log.read_text()
    finally:
        if (tmp_path / "pid").exists():
            os.kill(process, signal.SIGKILL)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
