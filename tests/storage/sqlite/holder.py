"""Another process that has a file open and writes it, told line by line what to do; and the hands to lead it with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from fe_twisted.storage.sqlite.connect import connect, connect_beside

KEY = bytes(range(32))
ROOT = Path(__file__).resolve().parents[3]


class Holder:
    """The process.

    :param role: ``writer`` writes, ``reader`` has the file open beside a writer.
    :param user: a numeric user to become before it opens the file, for a process of the superuser.
    """

    def __init__(self, path: Path, role: str = "writer", user: int | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.storage.sqlite.holder", role, str(path), *([str(user)] if user else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def say(self, line: str) -> str:
        """Have it do something; returns what it answers."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def prepare(path: Path) -> None:
    """A file with a table for notes, closed."""
    connection = connect(path, key=KEY, create=True)
    connection.execute("CREATE TABLE note (number INTEGER PRIMARY KEY, text TEXT)")
    connection.close()


def main(role: str, path: str, user: str = "") -> None:
    """Open it, and do what standard input says."""
    if user:
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    connection = connect(path, key=KEY) if role == "writer" else connect_beside(path, key=KEY)
    connection.execute("SELECT count(*) FROM note").fetchall()
    print("ready", flush=True)
    for line in sys.stdin:
        word, _, text = line.strip().partition(" ")
        if word == "add":
            connection.execute("INSERT INTO note(text) VALUES(?)", (text,))
            print("ok", flush=True)
        elif word == "begin":
            connection.execute("BEGIN IMMEDIATE")
            print("ok", flush=True)
        elif word == "count":
            print(connection.execute("SELECT count(*) FROM note").get, flush=True)
        elif word == "truncate":
            print(*connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone(), flush=True)
        elif word == "open":
            connection = connect(path, key=KEY)
            print(connection.execute("SELECT count(*) FROM note").get, flush=True)
        elif word == "close":
            connection.close()
            print("ok", flush=True)


if __name__ == "__main__":
    os.umask(0o077)
    main(*sys.argv[1:])
