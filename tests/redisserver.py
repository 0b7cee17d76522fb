"""A private Redis server for tests: on loopback, in memory, ended with the test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest


class RedisServer:
    """One server process.

    :param password: asked of clients; empty for none.
    """

    def __init__(self, folder: Path, password: str = "") -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            if os.environ.get("CI") == "true":
                pytest.fail("Redis is not installed, and in CI the shared limits are tested on it")
            pytest.skip("Redis is not installed (Debian: apt install redis-server)")
        self._program = program
        self._folder = folder
        self._password = password
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What the setting ``redis_url`` takes."""
        user = f":{self._password}@" if self._password else ""
        return f"redis://{user}127.0.0.1:{self.port}/1"

    def start(self) -> RedisServer:
        """Start it, empty; returns when it takes connections."""
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        if self._password:
            command += ["--requirepass", self._password]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                assert self._process.poll() is None and time.monotonic() < deadline, "Redis did not start"
                time.sleep(0.02)

    def freeze(self, frozen: bool) -> None:
        """Stop it, its connections staying, or let it go on."""
        assert self._process is not None
        self._process.send_signal(19 if frozen else 18)  # SIGSTOP, SIGCONT

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None
