"""docs/scaling.md, followed literally on one machine: three boxes on three loopback addresses, a real PostgreSQL and a real Redis.

Every ``sh`` block of the page runs as it stands, in its order, in one bash.  Only the installation of Debian packages is left out: they
must be there (in CI they are, by ``.ci/run``).  It needs root, as the page does, because PostgreSQL and Redis are started as services.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.whole.daemon import OFFSETS, ROOT, STANDARD_PORTS, TROUBLE, environment, trusting

PAGE = ROOT / "docs" / "scaling.md"
#: Seconds for one block; a new interpreter takes a second, and on a loaded machine several.
PATIENCE = 300.0


def needed() -> str:
    """Why the page cannot be followed here, or an empty text."""
    if os.geteuid() != 0:
        return "it starts PostgreSQL and Redis as services, which takes root"
    missing = [name for name in ("bash", "curl", "openssl", "service", "redis-server", "psql") if shutil.which(name) is None]
    if missing:
        return f"missing: {', '.join(missing)} (Debian: apt install postgresql redis-server curl openssl)"
    taken = [str(port) for port in (5432, 6379) if answers(port)]
    if taken:
        return f"something listens on port {' and '.join(taken)} already, and what is there is not for tests"
    return ""


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Shell:
    """One bash that blocks are given to."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._folder = folder
        self._log = folder / "shell.log"
        self._log.touch()
        self._number = 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(["bash"], stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=folder, env=env)
        self._say("set -eo pipefail")

    def run(self, block: str) -> str:
        """Run a block; its output.  Every command of it must succeed."""
        self._number += 1
        before = self._log.stat().st_size
        script = self._folder / f"block-{self._number}.sh"
        script.write_text(block)
        mark = f"-- block {self._number} is done --"
        self._say(f". {script} < /dev/null\necho '{mark}'")
        deadline = time.monotonic() + PATIENCE
        while True:
            output = self._log.read_bytes()[before:].decode("utf-8", "replace").replace("\r\n", "\n")
            if mark in output:
                return output.partition(mark)[0]
            ended = self._process.poll() is not None
            assert not ended and time.monotonic() < deadline, f"{'failed' if ended else 'not done'}:\n{block}\n{output[-6000:]}"
            time.sleep(0.05)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(30)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()


def sections() -> dict[str, list[str]]:
    """The blocks of each section of the page, by the beginning of its heading."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"^## ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        if blocks:
            kept = [re.sub(r"^apt-get .*\n", "", block, flags=re.MULTILINE) for block in blocks]
            found[section.split(maxsplit=1)[0]] = kept
    return found


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    reason = needed()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(f"docs/scaling.md cannot be followed in CI: {reason}")
    if reason:
        pytest.skip(reason)
    programs = tmp_path / "bin"
    programs.mkdir()
    twistd = Path(sys.executable).parent / "twistd"
    for name, line in (("twistd", f'exec {sys.executable} {twistd} "$@"'), ("forwardemail", f'exec {sys.executable} -c "{_MAIN}" "$@"')):
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    boxes = tmp_path / "boxes"
    env = environment({"BOXES": str(boxes), "OFFSET": str(OFFSETS.take()), "PATH": f"{programs}:{os.environ['PATH']}"})
    env.pop("FORWARDEMAIL_WORKERS", None)  # the page is about them
    made = Shell(tmp_path, env)
    yield made
    made.close()
    for pid in boxes.glob("*.pid"):
        os.kill(int(pid.read_text()), 9)
    if (boxes / "pgpass").exists():  # the page made them, and did not come to its end
        for what in ("DATABASE", "ROLE"):
            subprocess.run(["su", "postgres", "-c", f"psql -c 'DROP {what} IF EXISTS forwardemail'"], check=False, capture_output=True)
    for service in ("redis-server", "postgresql"):
        subprocess.run(["service", service, "stop"], check=False, capture_output=True)


_MAIN = "from fe_twisted.app.cli import main; main()"


@pytest.mark.slow
def test_the_page_works_as_it_stands(shell: Shell) -> None:
    page = sections()
    assert list(page) == ["Before", "1.", "2.", "3.", "4.", "5.", "6.", "7.", "8."]
    outputs: dict[str, str] = {}

    def follow(name: str) -> str:
        outputs[name] = "".join(shell.run(block) for block in page[name])
        return outputs[name]

    follow("Before")
    boxes, offset = shell.run('echo "$BOXES $OFFSET"').split()
    first = follow("1.")
    assert "* SEARCH 1\n" in first and "primary, location local" in first
    assert "worker-1" in first or os.cpu_count() == 1
    second = follow("2.")
    assert "Copied and compared: accounts 1, domains 1, aliases 1, key slots 1." in second and second.endswith("* SEARCH 1\n")
    third = follow("3.")
    assert "All is well." in third
    assert "* SEARCH 1\n" in third and "* SEARCH 2\n" in third
    assert re.search(r"127\.0\.0\.2 +secondary +127\.0\.0\.1 .* ms", third), "the primary shows its secondary, with the round trip"
    assert "NOT CONNECTED" not in third
    guesses_count_together(int(offset))
    fourth = follow("4.")
    assert "Mail waits for 1 mailbox, sealed" in fourth and "NOT CONNECTED" in fourth and fourth.endswith("* SEARCH 3\n")
    fifth = follow("5.")
    assert "you@example.com is at three now" in fifth
    assert [line for line in fifth.splitlines() if line.startswith("* SEARCH")] == ["* SEARCH 3"] * 3 + ["* SEARCH 4"] * 2
    refused = shell.run("on two forwardemail alias move you@example.com local 2>&1 || true")
    assert "this box is a secondary" in refused and "on the box of the primary three" in refused
    refused = shell.run("on one forwardemail alias move you@example.com three 2>&1 || true")
    assert refused == "forwardemail: the mailbox is at three already\n"
    follow("6.")
    assert "* SEARCH 4\n" in follow("7.")
    logs = {path.parent.name: path.read_text() for path in Path(boxes).glob("*/forwardemail.log")}
    assert set(logs) == {"one", "two", "three"}
    for box, log in logs.items():
        assert [line for line in log.splitlines() if TROUBLE.search(line)] == [], box
        # While a new token goes round.
        assert set(re.findall(r" (?:cluster|link)\.refused .*?reason=([a-z-]+)", log)) <= {"wrong-secret"}, box
    follow("8.")
    assert not Path(boxes).exists() and not answers(6379)


def guesses_count_together(offset: int) -> None:
    """Half of the wrong passwords that are borne at one box, half at another: then both turn the network away, and no other one."""
    limit = 30  # the default of login_failures_per_network

    def guess(number: int) -> bytes:
        return login(f"127.0.0.{1 + number % 2}", offset, "127.0.0.99", f"guess{number}@example.com")

    with ThreadPoolExecutor(limit) as pool:
        assert {b"NO [AUTHENTICATIONFAILED]" in answer for answer in pool.map(guess, range(limit))} == {True}
    for number in (1, 2):
        assert b"NO [LIMIT]" in guess(number)
    assert b"NO [AUTHENTICATIONFAILED]" in login("127.0.0.1", offset, "127.0.0.98", "guess@example.com")


def login(box: str, offset: int, source: str, user: str) -> bytes:
    """The answer to a wrong password."""
    context: ssl.SSLContext = trusting()
    with (
        socket.create_connection((box, STANDARD_PORTS["imaps"] + offset), 60, source_address=(source, 0)) as plain,
        context.wrap_socket(plain) as connection,
    ):
        connection.recv(4096)
        connection.sendall(f"a LOGIN {user} wrong\r\n".encode())
        return connection.recv(4096)
