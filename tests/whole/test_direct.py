"""Workers read the mailbox files of their primary themselves, and leave no trace of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fe_twisted.app import keymark
from fe_twisted.app.cli.reload import workers_of
from tests.whole.daemon import Daemon, simple, until


def started(tmp_path: Path, access: str) -> Daemon:
    daemon = Daemon(tmp_path / "var", overrides={"workers": "2", "mailbox_access": access, "log_level": "debug"})
    daemon.init().start()
    until(lambda: daemon.log().count("cluster.joined") >= 2, "both workers are linked")
    return daemon


def opened(pid: int, folder: Path) -> dict[str, str]:
    """The files of a folder that a process has open, and how, by the last three octal digits of their flags."""
    found: dict[str, str] = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            path = entry.readlink()
            if path.parent == folder:
                found[path.name.partition(".")[2]] = (Path(f"/proc/{pid}/fdinfo") / entry.name).read_text().split()[3][-1]
        except FileNotFoundError:
            continue
    return found


@pytest.mark.parametrize("access", ["auto", "direct", "link"])
def test_what_workers_have_open(tmp_path: Path, access: str) -> None:
    daemon = started(tmp_path, access)
    assert daemon.process is not None
    folder = (tmp_path / "var" / "mailboxes").resolve()
    owner = daemon.owner()
    for number in range(8):
        daemon.send(owner.address, simple(f"message {number}"))
    clients = [daemon.imaps() for _ in range(8)]
    # The kernel deals connections out, and may well give one worker the first eight.
    while len(set(re.findall(r"imap\.connected process=(worker-\d)", daemon.log()))) < 2:
        clients.append(daemon.imaps())
    for client in clients:
        client.login(owner.address, owner.password)
    # A worker that was not linked yet has kept its mail, and hands it over.
    until(lambda: clients[0].select("INBOX")[1] == [b"8"], "all mail has come")
    for client in clients:
        assert client.select("INBOX")[1] == [b"8"]
    clients[0].store("1:*", "+FLAGS", "Fresh")
    for client in clients:
        client.noop()
        assert all(b"Fresh" in line for line in client.fetch("1:*", "(FLAGS)")[1])  # type: ignore[operator]
        assert client.search(None, "SUBJECT", "message", "BODY", '"a line"')[1] == [b"1 2 3 4 5 6 7 8"]
    log = daemon.log()
    assert len(set(re.findall(r"process=(worker-\d)", "\n".join(line for line in log.splitlines() if "imap.connected" in line)))) == 2
    held = [opened(pid, folder) for pid in workers_of(daemon.process.pid)]
    if access == "link":
        assert held == [{}, {}]
    else:
        assert all(set(found) == {"sqlite", "sqlite-wal", "sqlite-shm"} for found in held), held
        assert all(found["sqlite"] == found["sqlite-shm"] == "0" for found in held), "read-only"
    assert "mailbox.direct" not in log, "it never had to be asked instead"
    for client in clients:
        client.logout()
    until(lambda: not any(opened(pid, folder) for pid in workers_of(daemon.process.pid)), "workers let go")  # type: ignore[union-attr]
    daemon.stop()
    left = [path.name for path in folder.iterdir()]
    assert all(name.endswith(".sqlite") or name == keymark.NAME for name in left), f"not everything was put away: {left}"
    daemon.close()
