"""``forwardemail reload`` beside a server that ends at the wrong moment."""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fe_twisted.app.cli.reload import reload as command
from fe_twisted.base.errors import Later

#: The module, which has the name of its command.
reload: Any = importlib.import_module("fe_twisted.app.cli.reload")


@contextlib.contextmanager
def server(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that says when it is ready, in the place of a server."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: int, workers: list[set[int]]) -> BaseException | None:
    """Run it with a server that has this process id, and these workers whenever one looks."""
    (tmp_path / "forwardemail.toml").write_text("development = true\n")
    monkeypatch.setattr(reload, "running", lambda settings: pid)
    monkeypatch.setattr(reload, "workers_of", lambda pid: workers.pop(0) if len(workers) > 1 else workers[0])
    done = CliRunner().invoke(command, ["--config", str(tmp_path / "forwardemail.toml")], standalone_mode=False)
    return done.exception


def test_it_has_ended_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server("print('ready', flush=True); import time; time.sleep(60)") as process:
        process.kill()
        process.wait()
        found = ask(tmp_path, monkeypatch, process.pid, [{1, 2}])
    assert isinstance(found, Later) and "ended meanwhile" in str(found)


def test_it_ends_and_its_workers_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has replaced them."""
    code = "import os, signal; signal.signal(signal.SIGUSR2, lambda *_: os._exit(1)); print('ready', flush=True); signal.pause()"
    with server(code) as process, monkeypatch.context() as patch:
        # It is reaped meanwhile, as init does it for a server; without a time limit, which would sleep itself.
        patch.setattr(reload.time, "sleep", lambda seconds: process.wait())
        found = ask(tmp_path, patch, process.pid, [{1, 2}, {1, 2}, set()])
    assert isinstance(found, Later) and "ended meanwhile" in str(found)


def test_a_server_that_lives_has_replaced_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import signal; signal.signal(signal.SIGUSR2, lambda *_: None); print('ready', flush=True)\nwhile True: signal.pause()"
    with server(code) as process:
        assert ask(tmp_path, monkeypatch, process.pid, [{1, 2}, {2, 3}, {3, 4}]) is None


@pytest.mark.parametrize(("before", "said"), [({1}, "1 worker was replaced.\n"), ({1, 2}, "2 workers were replaced.\n")])
def test_it_says_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: set[int], said: str) -> None:
    code = "import signal; signal.signal(signal.SIGUSR2, lambda *_: None); print('ready', flush=True)\nwhile True: signal.pause()"
    (tmp_path / "forwardemail.toml").write_text("development = true\n")
    looks = [before, set()]
    monkeypatch.setattr(reload, "workers_of", lambda pid: looks.pop(0))
    with server(code) as process:
        monkeypatch.setattr(reload, "running", lambda settings: process.pid)
        done = CliRunner().invoke(command, ["--config", str(tmp_path / "forwardemail.toml")], standalone_mode=False)
    assert done.output == said
