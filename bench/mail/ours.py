"""This server as a subject of measurement: started as a user starts it, in a temporary folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.whole.daemon import Daemon, Owner


class Ours:
    """A running daemon with one alias for mail and more for sessions."""

    name = "ours"

    def __init__(self, aliases: int = 1) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self.daemon = Daemon(Path(self._folder.name) / "var", overrides={"log_level": "warn"})
        self.daemon.init()
        self.owners = [self.daemon.owner("bench")] + [self.daemon.owner(f"more{number}") for number in range(aliases - 1)]
        self.daemon.start()
        self.smtp_port = self.daemon.port("mx")
        self.imaps_port = self.daemon.port("imaps")

    @property
    def owner(self) -> Owner:
        """Who gets the mail."""
        return self.owners[0]

    def memory(self) -> int:
        """Octets of all processes, what they share counted once."""
        return pss([self.daemon.process.pid]) if self.daemon.process else 0

    def close(self) -> None:
        """End it and remove the folder."""
        self.daemon.kill()
        self.daemon.assert_no_trouble()
        self._folder.cleanup()


def pss(pids: list[int]) -> int:
    """The proportional set size of processes in octets; those that ended meanwhile are passed over."""
    total = 0
    for pid in pids:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    return total
