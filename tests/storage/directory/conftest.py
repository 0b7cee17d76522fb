"""A directory of each kind: an encrypted file, and a database in a private PostgreSQL that is started for the tests."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fe_twisted.storage.directory.sql import SqlDirectory, open_directory

KEY = bytes(range(32))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The folder of the unix socket of a running PostgreSQL that listens nowhere else."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.split("/")[4]))
    initdb = found[-1] if found else shutil.which("initdb")
    if initdb is None:
        if os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL is not installed, and in CI the directory is tested on it")
        pytest.skip("PostgreSQL is not installed")
    # PostgreSQL refuses to run as root.
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        names = {entry.pw_name: entry for entry in pwd.getpwall()}
        entry = names.get("postgres") or names["nobody"]
        user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    # A short path: the name of a unix socket may have 107 octets.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    if user:
        os.chown(folder, user["user"], user["group"])
    try:
        data = folder / "data"
        subprocess.run(
            [initdb, "-D", data, "-U", "forwardemail", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"],
            check=True,
            capture_output=True,
            cwd=folder,
            **user,
        )
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [Path(initdb).with_name("postgres"), "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"],
                stdout=log,
                stderr=log,
                cwd=folder,
                **user,
            )
        try:
            _wait(folder, server)
            yield str(folder)
        finally:
            # SIGINT is PostgreSQL's fast shutdown.
            server.send_signal(2)
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder)


def _wait(folder: Path, server: subprocess.Popen[bytes]) -> None:
    """Until it answers."""
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(host=str(folder), user="forwardemail", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)


@pytest.fixture
def postgresql_url(postgresql: str) -> Iterator[str]:
    """The URL of an empty database of its own."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(host=postgresql, user="forwardemail", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"postgresql+psycopg://forwardemail@/{name}?host={postgresql}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlcipher", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What :func:`open_directory` takes, for each kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    return str(tmp_path / "directory.sqlite")


@pytest.fixture
def opened(where: str) -> Iterator[Callable[[], SqlDirectory]]:
    """Opens the directory, as often as it is called; closed at the end."""
    made: list[SqlDirectory] = []

    def open_it() -> SqlDirectory:
        made.append(open_directory(where, KEY))
        return made[-1]

    yield open_it
    for directory in made:
        directory.close()


@pytest.fixture
def directory(opened: Callable[[], SqlDirectory]) -> SqlDirectory:
    """An empty directory with the domain ``example.com``."""
    made = opened()
    made.add_domain("example.com", made.add_account("default").id)
    return made
