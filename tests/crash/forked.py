"""Daemons forked from a :mod:`tests.crash.zygote`, and what a run of the crash matrix does with one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from tests.whole.daemon import PATIENCE, ROOT, Daemon, Owner, as_sent, environment, until
from tests.whole.wire import Imap, Smtp

#: The daemon's variable for the point at which it dies; development mode only.
CRASH_AT = "FORWARDEMAIL_CRASH_AT"


def points() -> list[str]:
    """Every fault point, from the sources, so that a new one is covered without a word here.

    Those of a mailbox on its way between two primaries, and of a link, are not passed by one process; tests/services/cluster/test_move.py
    and tests/soak/test_points.py die at each.
    """
    found = set()
    for path in (ROOT / "fe_twisted").rglob("*.py"):
        if path.name != "faults.py":
            found |= set(re.findall(r'faults\.reach\(\s*"([^"]+)"', path.read_text()))
    return sorted(each for each in found if not each.startswith(APART))


#: See :func:`points`.
APART = ("move.", "arrive.", "remote.", "host.")


class Zygote:
    """The process that forks daemons."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.zygote"],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the zygote ended"
        return json.loads(line)

    def ask(self, **request: object) -> Any:
        """One request and its answer."""
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return self._read()

    def close(self) -> None:
        """End it; daemons are ended by those who started them."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)


class Child:
    """As much of ``subprocess.Popen`` as :class:`Daemon` uses, for a grandchild."""

    def __init__(self, zygote: Zygote, pid: int) -> None:
        self._zygote = zygote
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        if self.returncode is None:
            self.returncode = self._zygote.ask(wait=self.pid)
        return self.returncode

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit status, once there is one."""
        until(lambda: self.poll() is not None, "the daemon ends", timeout)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To a process that runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


@dataclass
class Forked(Daemon):
    """A daemon whose process is forked from the zygote."""

    zygote: Zygote | None = None

    def start(self, env: Mapping[str, str] | None = None, *, wait: bool = True, limits: Mapping[int, int] | None = None) -> Daemon:
        """As :meth:`Daemon.start`, without resource limits."""
        assert self.zygote is not None and not limits
        settings = {f"FORWARDEMAIL_{name.upper()}": value for name, value in self.overrides.items()}
        pid = self.zygote.ask(
            argv=["twistd", "--nodaemon", "--pidfile=", "forwardemail", "--config", str(self.config)],
            env=environment({**settings, **(env or {})}),
            log=str(self.log_file),
        )
        self.process = cast("subprocess.Popen[bytes]", Child(self.zygote, pid))
        self.runs += 1
        if wait:
            self.wait_ready()
        return self

    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def wait_dead(self, seconds: float) -> bool:
        """Whether it ended by itself within so many seconds."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def finish(self) -> bool:
        """Kill it if it still runs; whether it had died at its fault point."""
        assert self.process is not None
        died = not self.alive()
        if died:
            assert self.process.returncode == -signal.SIGKILL, f"exit {self.process.returncode}:\n{self.log()[-3000:]}"
            self.process = None
        else:
            self.kill()
        return died


@dataclass
class Ledger:
    """What clients know: messages that were acknowledged, and those whose answer never came.

    :param acknowledged: owner's address to contents answered with 250 or OK.
    :param unanswered: the same for contents that were sent, perhaps not completely, without an answer.
    :param surprises: replies that no run should get.
    """

    acknowledged: dict[str, list[bytes]] = field(default_factory=dict)
    unanswered: dict[str, list[bytes]] = field(default_factory=dict)
    surprises: list[bytes] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, acknowledged: bool, content: bytes, owners: list[Owner]) -> None:
        """One message to these owners."""
        book = self.acknowledged if acknowledged else self.unanswered
        with self.lock:
            for owner in owners:
                book.setdefault(owner.address, []).append(content)

    def copy(self) -> Ledger:
        """Another one with the same entries."""
        return Ledger(
            {address: list(items) for address, items in self.acknowledged.items()},
            {address: list(items) for address, items in self.unanswered.items()},
        )


class Gone(Exception):
    """The daemon ended in the middle of a dialogue."""


def _expect(reply: bytes, ledger: Ledger) -> None:
    """A reply that begins with 250; anything but the end of the connection is kept for the audit to fail on."""
    if not reply.startswith(b"250"):
        if reply:
            ledger.surprises.append(reply)
        raise Gone


def deliver(daemon: Daemon, ledger: Ledger, owners: list[Owner], contents: list[bytes]) -> None:
    """Send messages on one connection, each to all owners, until all are sent or the daemon is gone."""
    sending: bytes | None = None
    try:
        with Smtp(daemon) as smtp:
            _expect(smtp.ask(b"EHLO client.example.net"), ledger)
            for content in contents:
                _expect(smtp.ask(b"MAIL FROM:<a@example.net>"), ledger)
                for owner in owners:
                    _expect(smtp.ask(b"RCPT TO:<" + owner.address.encode() + b">"), ledger)
                smtp.send(b"DATA\r\n")
                if not smtp.reply().startswith(b"354"):
                    raise Gone
                sending = content
                smtp.send(content + b".\r\n")
                _expect(smtp.reply(), ledger)
                ledger.note(True, content, owners)
                sending = None
    except (OSError, Gone):
        if sending is not None:
            ledger.note(False, sending, owners)


def stored(daemon: Daemon, owner: Owner, folders: tuple[str, ...] = ("INBOX",)) -> list[bytes]:
    """All messages of the folders without trace fields."""
    found = []
    for folder in folders:
        for content in daemon.messages(owner, folder):
            found.append(as_sent(content) if content.startswith(b"Return-Path:") else content)
    return found


def audit(daemon: Daemon, ledger: Ledger, owners: list[Owner], folders: tuple[str, ...] = ("INBOX",)) -> None:
    """Acknowledged messages exactly once, unanswered ones at most once, nothing else; the mailboxes are consistent, nothing waits."""
    assert ledger.surprises == []
    for owner in owners:
        acknowledged = ledger.acknowledged.get(owner.address, [])
        unanswered = ledger.unanswered.get(owner.address, [])
        there = stored(daemon, owner, folders)
        lost = [content for content in acknowledged if content not in there]
        doubled = {content for content in there if there.count(content) > 1}
        alien = [content for content in there if content not in acknowledged and content not in unanswered]
        assert not lost, f"{len(lost)} of {len(acknowledged)} lost, the first is {lost[0][:120]!r}"
        assert not doubled, f"{len(doubled)} doubled"
        assert not alien, f"{len(alien)} of unknown origin, the first is {alien[0][:200]!r}"
        answer = daemon.json("mailbox", "check", owner.address, "--password-stdin", stdin=owner.password + "\n")
        assert answer["problems"] == []
    until(lambda: not daemon.waiting_files(), f"nothing waits: {[path.name for path in daemon.waiting_files()]}")


def append(daemon: Daemon, ledger: Ledger, owner: Owner, contents: list[bytes]) -> None:
    """APPEND messages to INBOX, moving every second one to Archive, until all are done or the daemon is gone."""
    try:
        with Imap(daemon, owner, "INBOX") as imap:
            for number, content in enumerate(contents):
                noted = False
                try:
                    answer = imap.append(content)[-1]
                    if b" OK " in answer:
                        ledger.note(True, content, [owner])
                        noted = True
                    elif answer:
                        ledger.surprises.append(answer)
                finally:
                    if not noted:
                        ledger.note(False, content, [owner])
                if not noted:
                    return
                if number % 2:
                    imap.ask(b"UID MOVE * Archive")
    except (OSError, EOFError, AssertionError):
        return
