"""Daemons for the tests: one that most tests share, and fresh ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.whole.daemon import Daemon, Owner

#: In CI nothing may be passed over because a program is missing: .ci/run installs them all.
IN_CI = bool(os.environ.get("CI"))


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A running daemon that tests share; each uses aliases of its own.

    It has workers, as most installations have; the fresh ones are single processes.
    """
    limits = {"login_failures_per_alias": "100000", "login_failures_per_network": "100000"}
    shared = Daemon(tmp_path_factory.mktemp("whole") / "var", overrides={**limits, "workers": "2"})
    shared.init().start()
    yield shared
    shared.close()


@pytest.fixture
def owner(daemon: Daemon) -> Owner:
    """A new alias with a password on the shared daemon."""
    return daemon.owner()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Daemon]:
    """A data directory of its own with the example domain; not started."""
    single = Daemon(tmp_path / "var")
    single.init()
    yield single
    single.close()


@pytest.fixture(scope="session")
def needs() -> Callable[[str], str]:
    """``needs("swaks")``: the program's path; the test is skipped without it, except in CI."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            if IN_CI:
                pytest.fail(f"{name} is not installed")
            pytest.skip(f"{name} is not installed")
        return path

    return find
