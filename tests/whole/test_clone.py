"""The two commands of the README in a fresh clone: ``make run``, twice, and nothing else beforehand."""

from __future__ import annotations

import contextlib
import imaplib
import os
import re
import signal
import smtplib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.whole.daemon import OFFSETS, ROOT, simple, trusting, until


class Run:
    """One ``make run`` in a folder, in a process group of its own."""

    def __init__(self, folder: Path, number: int) -> None:
        self._output = folder.with_name(f"run{number}.txt")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("FORWARDEMAIL_", "PYTHON", "VIRTUAL_ENV"))}
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                ["make", "run", f"PYTHON={sys.executable}"], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output,                 start_new_session=True,
            )  # fmt: skip

    def text(self) -> str:
        """What the terminal shows."""
        return self._output.read_text("utf-8", "replace")

    def wait_until(self, port: int) -> None:
        """Until the port answers."""

        def ready() -> bool:
            assert self.process.poll() is None, self.text()[-3000:]
            with contextlib.suppress(OSError), imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=trusting(), timeout=5) as client:
                client.noop()
                return True
            return False

        until(ready, f"make run\n{self.text()[-3000:]}", 600)

    def interrupt(self) -> None:
        """Ctrl-C, to the whole group as a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(60)


@pytest.mark.slow
def test_make_run_twice(tmp_path: Path) -> None:
    """Passwords shown once, ports and lines to paste; the second run keeps all data."""
    if not os.environ.get("CI") and not os.environ.get("FE_TEST_CLONE"):
        pytest.skip("installs everything anew; runs in CI, or with FE_TEST_CLONE=1")
    folder = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    first = Run(folder, 1)
    try:
        first.wait_until(2993)
        text = first.text()
        passwords = dict(re.findall(r"(\w+@example\.com)\s+password\s+([A-Za-z0-9_-]{24})\b", text))
        assert set(passwords) == {"hello@example.com", "world@example.com"}, text[-3000:]
        for port in ("2025", "2143", "2993"):
            assert port in text
        with smtplib.SMTP("127.0.0.1", 2025) as client:
            client.sendmail("a@example.net", "hello@example.com", simple("by make run"))
        with imaplib.IMAP4_SSL("127.0.0.1", 2993, ssl_context=trusting()) as reader:
            reader.login("hello@example.com", passwords["hello@example.com"])
            assert reader.select("INBOX")[1] == [b"1"]
    finally:
        first.interrupt()
    second = Run(folder, 2)
    try:
        second.wait_until(2993)
        assert passwords["hello@example.com"] not in second.text()
        with imaplib.IMAP4_SSL("127.0.0.1", 2993, ssl_context=trusting()) as reader:
            reader.login("hello@example.com", passwords["hello@example.com"])
            assert reader.select("INBOX")[1] == [b"1"]
    finally:
        second.interrupt()
    assert "Traceback" not in first.text() + second.text()
    assert subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, check=True).stdout == ""


def test_offsets_do_not_repeat() -> None:
    """Tests that run side by side never share ports."""
    taken = [OFFSETS.take() for _ in range(5)]
    assert len(set(taken)) == 5
