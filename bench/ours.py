"""Our server, started as a user starts it, in a folder of its own on free loopback ports."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

from bench import process

ROOT = Path(__file__).resolve().parent.parent
_CLI = [sys.executable, "-c", "from fe_twisted.app.cli import main; main()"]
_TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


class Ours:
    """One installation.

    :param folder: empty; everything goes in there.
    :param settings: overrides, for example ``{"storage_threads": "4"}``.
    """

    name = "ours"

    def __init__(self, folder: Path, settings: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.data = folder / "data"
        # One process unless it is said otherwise: by whoever measures several, or for all by the environment.
        self._environment = {"FORWARDEMAIL_WORKERS": "0", **os.environ, "PYTHONPATH": str(ROOT)}
        self.settle(settings or {})
        offset = _free_offset()
        made = self._cli("init", "--data", str(self.data), "--development", "--example", "--port-offset", str(offset))
        self.ports: dict[str, int] = made["ports"]
        self.passwords: dict[str, str] = {alias["address"]: alias["password"] for alias in made["aliases"]}
        self._process: subprocess.Popen[bytes] | None = None

    def settle(self, settings: dict[str, str]) -> None:
        """Override settings from the next start on."""
        self._environment |= {f"FORWARDEMAIL_{name.upper()}": value for name, value in settings.items()}

    def _cli(self, *arguments: str) -> dict:
        done = subprocess.run([*_CLI, *arguments, "--json"], capture_output=True, text=True, env=self._environment, cwd=ROOT, check=False)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return json.loads(done.stdout)

    def owner(self, local: str) -> tuple[str, str]:
        """A new alias: address and password."""
        config = ["--config", str(self.data / "forwardemail.toml")]
        address = f"{local}@example.com"
        self._cli("alias", "add", address, *config)
        return address, self._cli("alias", "password", address, *config)["password"]

    def start(self, *twistd: str) -> Ours:
        """Start, with more options for ``twistd`` if need be; returns when it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_TWISTD, "--nodaemon", "--pidfile=", *twistd, "forwardemail", "--config", str(self.data / "forwardemail.toml")],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._environment, cwd=ROOT,
            )  # fmt: skip
        for door in ("mx", "imap"):
            process.wait_for_port(self.ports[door])
        return self

    @property
    def pid(self) -> int:
        """Of the running process."""
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.pid

    def stop(self) -> None:
        """End it and wait."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def _free_offset() -> int:
    """A port offset with all of our ports free."""
    for offset in random.sample(range(20_000, 58_000, 7), 200):
        try:
            for port in (25, 143, 993):
                socket.create_server(("127.0.0.1", port + offset)).close()
        except OSError:
            continue
        return offset
    raise RuntimeError("no free ports")
