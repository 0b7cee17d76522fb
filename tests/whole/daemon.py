"""The real daemon, started and stopped as a user does it.

Everything goes through the command line: ``forwardemail init``, ``domain add``, ``alias add``, ``alias password``, then ``twistd --nodaemon
forwardemail --config …`` as a process of its own.
"""

from __future__ import annotations

import contextlib
import imaplib
import io
import json
import os
import random
import re
import resource
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fe_twisted.app.cli import run as run_verb
from fe_twisted.app.cli.reload import workers_of

#: The checkout; the program is run from it without being installed.
ROOT = Path(__file__).resolve().parents[2]

#: Seconds to wait for something that takes well under one; generous for a loaded machine.
PATIENCE = 30.0

#: What standard ports become in development mode, by door.
STANDARD_PORTS = {"mx": 25, "imap": 143, "imaps": 993}

#: Texts in a log that mean that something was not answered as it should be.
TROUBLE = re.compile(r"Traceback|Unhandled|unhandled|never retrieved|Exception ignored|level=error|\"level\": ?\"(error|critical)\"")

# A message may be one long line, and so may an answer; imaplib's own limit is for answers of careless servers.
imaplib._MAXLINE = 200_000_000  # type: ignore[attr-defined]


def program(name: str) -> list[str]:
    """How a console script of the running Python's environment is called."""
    script = Path(sys.executable).parent / name
    if script.exists():
        return [str(script)]
    assert name == "forwardemail"
    return [sys.executable, "-c", "from fe_twisted.app.cli import main; main()"]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of every process: this checkout first on the path, no setting from outside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FORWARDEMAIL_")}
    kept["PYTHONPATH"] = str(ROOT)
    kept["PYTHONUNBUFFERED"] = "1"
    # One process, unless it is said otherwise: by a test that is about several, or by whoever runs them all with several.
    kept["FORWARDEMAIL_WORKERS"] = os.environ.get("FE_TEST_WORKERS", "0")
    return {**kept, **(extra or {})}


class Offsets:
    """Port offsets that no other test of this machine uses; an abstract socket marks each as taken while this process lives."""

    def __init__(self) -> None:
        self._marks: list[socket.socket] = []

    def take(self) -> int:
        """A new one, with its three ports free at this moment."""
        for _ in range(500):
            # Below the ephemeral ports, so that no client of another test sits on one of them.
            offset = random.randrange(5_000, 31_000, 7)
            mark = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                mark.bind(f"\0forwardemail-test-{offset}")
            except OSError:
                mark.close()
                continue
            if all(_free(port + offset) for port in STANDARD_PORTS.values()):
                self._marks.append(mark)
                return offset
            mark.close()
        raise RuntimeError("no free ports")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _memory(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


OFFSETS = Offsets()


def trusting() -> ssl.SSLContext:
    """A client context that takes the self-signed certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Wait until ``condition()`` is true and return its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


@dataclass(frozen=True)
class Owner:
    """An alias and the password that was printed for it."""

    address: str
    password: str


@dataclass
class Daemon:
    """One data directory and the process that serves it.

    :param data: the data directory; made by :meth:`init`.
    :param overrides: settings, by name, handed over as environment variables.
    """

    data: Path
    offset: int = 0
    overrides: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    runs: int = 0
    #: Regular expressions of log lines that a test expects although they look like trouble.
    expected: list[str] = field(default_factory=list)
    #: Where the log goes, if not beside the data directory.
    log_outside: Path | None = None

    # -- the command line ---------------------------------------------------------------------------

    @property
    def config(self) -> Path:
        """The settings file."""
        return self.data / "forwardemail.toml"

    def run(
        self, *arguments: str, stdin: str | None = None, timeout: float = 120, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """``forwardemail ARGUMENTS`` as a process; never raises for its exit status."""
        return subprocess.run(
            [*program("forwardemail"), *arguments],
            cwd=ROOT, env=environment(env), input=stdin or "", capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def cli(self, *arguments: str, stdin: str | None = None, status: int = 0) -> str:
        """One verb with ``--config`` on this data directory; its output.  Its exit status must be the one expected."""
        done = self._verb(*arguments, stdin=stdin)
        assert done.returncode == status, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + (done.stderr if status else "")

    def json(self, *arguments: str, stdin: str | None = None, status: int = 0) -> Any:
        """Like :meth:`cli` with ``--json``; the object that was printed."""
        done = self._verb(*arguments, "--json", stdin=stdin)
        assert done.returncode == status, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def _verb(self, *arguments: str, stdin: str | None) -> subprocess.CompletedProcess[str]:
        """One verb in this process, which spares the second that a new interpreter takes; as a process with ``FE_TEST_CLI=process``."""
        whole = [*arguments, "--config", str(self.config)]
        if os.environ.get("FE_TEST_CLI") == "process":
            return self.run(*whole, stdin=stdin)
        output, errors = io.StringIO(), io.StringIO()
        standard, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO((stdin or "").encode()), encoding="utf-8")
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
                status = run_verb(whole)
        finally:
            sys.stdin = standard
        return subprocess.CompletedProcess(whole, status, output.getvalue(), errors.getvalue())

    def init(self) -> Daemon:
        """``forwardemail init`` in development mode on ports that are free, and the example domain."""
        self.offset = OFFSETS.take()
        done = self.run("init", "--data", str(self.data), "--development", "--port-offset", str(self.offset))
        assert done.returncode == 0, done.stdout + done.stderr
        self.cli("domain", "add", "example.com")
        return self

    def owner(self, local: str | None = None, domain: str = "example.com") -> Owner:
        """A new alias with a password."""
        address = f"{local or random.randbytes(5).hex()}@{domain}"
        self.cli("alias", "add", address)
        return self.password(address)

    def password(self, address: str, *options: str, stdin: str | None = None) -> Owner:
        """``alias password``: a generated one."""
        answer = self.json("alias", "password", address, *options, stdin=stdin)
        return Owner(answer["address"], answer["password"])

    # -- the process --------------------------------------------------------------------------------

    @property
    def log_file(self) -> Path:
        """Where the output of all runs goes; outside the data directory."""
        return self.log_outside or self.data.with_name(self.data.name + ".log")

    def start(self, env: Mapping[str, str] | None = None, *, wait: bool = True, limits: Mapping[int, int] | None = None) -> Daemon:
        """``twistd --nodaemon forwardemail --config …``; returns when all ports answer.

        :param limits: resource limits (``resource.RLIMIT_…``) for the process.
        """
        assert self.process is None or self.process.poll() is not None
        settings = {f"FORWARDEMAIL_{name.upper()}": value for name, value in self.overrides.items()}

        def restrict() -> None:
            for which, most in (limits or {}).items():
                resource.setrlimit(which, (most, resource.getrlimit(which)[1]))

        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*program("twistd"), "--nodaemon", "--pidfile=", "forwardemail", "--config", str(self.config)],
                cwd=ROOT, env=environment({**settings, **(env or {})}), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=restrict if limits else None,
            )  # fmt: skip
        self.runs += 1
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Until every port takes connections and is answered at: before the reactor runs, a SIGTERM would end it without a goodbye."""
        for door in STANDARD_PORTS:
            until(lambda door=door: self._answers(door), f"{door} on port {self.port(door)}\n{self.log()[-3000:]}")  # type: ignore[misc]

    def _answers(self, door: str) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}:\n{self.log()[-3000:]}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port(door)), 5) as connection:
            return door == "imaps" or connection.recv(1) != b""
        return False

    def stop(self) -> None:
        """SIGTERM; the exit must be clean and the log without anything that nobody expected."""
        assert self.process is not None
        assert self.process.poll() is None, f"the daemon had ended with {self.process.returncode}:\n{self.log()[-3000:]}"
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE)
        self.process = None
        # twistd ends itself with the signal that stopped it, once everything is shut down.
        assert status in (0, -signal.SIGTERM), f"exit {status}:\n{self.log()[-3000:]}"
        assert "server.stopped" in self.log()[-2000:], self.log()[-3000:]
        self.assert_no_trouble()

    def kill(self) -> None:
        """SIGKILL, as a power cut for the process."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)
        self.process = None

    def close(self) -> None:
        """For a fixture's end: stop if it runs, and look at the log."""
        if self.process is not None and self.process.poll() is None:
            self.stop()
        elif self.process is not None:
            raise AssertionError(f"the daemon had ended with {self.process.returncode}:\n{self.log()[-3000:]}")

    def restart(self) -> Daemon:
        """Stop and start on the same data."""
        self.stop()
        return self.start()

    # -- looking at it ------------------------------------------------------------------------------

    def log(self) -> str:
        """All that the daemon has printed so far."""
        try:
            return self.log_file.read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def assert_no_trouble(self) -> None:
        """No traceback and no error in the log except those that the test expects."""
        lines = [line for line in self.log().splitlines() if TROUBLE.search(line)]
        left = [line for line in lines if not any(re.search(pattern, line) for pattern in self.expected)]
        assert not left, "\n".join(left[:5]) + "\n…\n" + self.log()[-6000:]

    def rss(self) -> int:
        """Resident memory of the process and its workers in octets."""
        return self._status("VmRSS")

    def peak(self) -> int:
        """The highest resident memory so far in octets, of the process and each of its workers."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """The highest so far begins anew (proc(5), clear_refs)."""
        for pid in self._processes():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def _status(self, name: str) -> int:
        return sum(_memory(pid, name) for pid in self._processes())

    def _processes(self) -> list[int]:
        assert self.process is not None
        return [self.process.pid, *workers_of(self.process.pid)]

    def files(self) -> list[Path]:
        """All files of the data directory."""
        return sorted(path for path in self.data.rglob("*") if path.is_file())

    def waiting_files(self) -> list[Path]:
        """Temporary mailboxes and what belongs to them; not one that a crash kept from being finished, which holds nothing."""
        return [path for path in self.files() if "-tmp." in path.name and ".new" not in path.name]

    # -- clients ------------------------------------------------------------------------------------

    def port(self, door: str) -> int:
        """``mx``, ``imap`` or ``imaps``."""
        return STANDARD_PORTS[door] + self.offset

    def smtp(self, timeout: float = PATIENCE) -> smtplib.SMTP:
        """A connection to the MX port."""
        return smtplib.SMTP("127.0.0.1", self.port("mx"), local_hostname="client.example.net", timeout=timeout)

    def send(
        self, recipients: str | Sequence[str], content: bytes, sender: str = "sender@example.net", options: Sequence[str] = ()
    ) -> None:
        """Deliver a message by SMTP; every recipient must be accepted."""
        with self.smtp() as client:
            refused = client.sendmail(sender, recipients, content, mail_options=list(options))
        assert refused == {}

    def imaps(self, timeout: float = PATIENCE) -> imaplib.IMAP4_SSL:
        """A connection to the IMAPS port, not logged in."""
        return imaplib.IMAP4_SSL("127.0.0.1", self.port("imaps"), ssl_context=trusting(), timeout=timeout)

    def login(self, owner: Owner, folder: str | None = "INBOX") -> imaplib.IMAP4_SSL:
        """Logged in, with a folder selected."""
        client = self.imaps()
        client.login(owner.address, owner.password)
        if folder is not None:
            select(client, folder)
        return client

    def messages(self, owner: Owner, folder: str = "INBOX") -> list[bytes]:
        """All messages of a folder, read over a new connection."""
        client = self.login(owner, folder)
        try:
            return contents(client)
        finally:
            client.logout()


def select(client: imaplib.IMAP4, folder: str = "INBOX") -> int:
    """SELECT; the number of messages."""
    status, data = client.select(f'"{folder}"')
    assert status == "OK", data
    return int(data[0] or b"0")


def contents(client: imaplib.IMAP4, messages: str = "1:*", peek: bool = True) -> list[bytes]:
    """BODY[] of the selected folder's messages, in order."""
    status, data = client.uid("FETCH", messages, "(UID BODY.PEEK[])" if peek else "(UID BODY[])")
    assert status == "OK", data
    return [item[1] for item in data if isinstance(item, tuple)]


def trace_of(stored: bytes) -> bytes:
    """The trace fields that the server put in front: Return-Path, Delivered-To and one Received, with their continuation lines."""
    found = re.match(rb"(?:(?:Return-Path|Delivered-To|Received):[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*){3}", stored)
    assert found is not None, stored[:600]
    return found[0]


def as_sent(stored: bytes) -> bytes:
    """A stored message without the trace fields."""
    return stored[len(trace_of(stored)) :]


def received(stored: bytes) -> str:
    """The unfolded Received field on top."""
    found = re.search(rb"^Received:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", stored, re.MULTILINE)
    assert found is not None, stored[:600]
    return " ".join(found[0].decode().split())


def simple(subject: str = "hello", body: str = "a line\r\n", sender: str = "sender@example.net", more: str = "") -> bytes:
    """A small message with CRLF line ends."""
    return (f"From: <{sender}>\r\nTo: <somebody@example.com>\r\nSubject: {subject}\r\n{more}\r\n{body}").encode()
