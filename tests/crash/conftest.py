"""One zygote for all runs, and data directories to start from."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.forked import Forked, Ledger, Zygote, deliver
from tests.whole.daemon import Owner, simple


@dataclass
class Prepared:
    """A data directory as it was after a clean stop, and what is in it."""

    folder: Path
    offset: int
    owners: list[Owner]
    ledger: Ledger


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Forks daemons."""
    process = Zygote()
    yield process
    process.close()


@pytest.fixture(scope="session")
def empty(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Two owners, no mail."""
    daemon = Forked(tmp_path_factory.mktemp("crash") / "var", zygote=zygote)
    daemon.init()
    return Prepared(daemon.data, daemon.offset, [daemon.owner("hello"), daemon.owner("world")], Ledger())


@pytest.fixture(scope="session")
def waiting(zygote: Zygote, empty: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The same with thirty messages that wait for each owner."""
    daemon = Forked(tmp_path_factory.mktemp("crash") / "var", zygote=zygote)
    shutil.copytree(empty.folder, daemon.data)
    daemon.offset = empty.offset
    ledger = Ledger()
    daemon.start()
    deliver(daemon, ledger, empty.owners, [simple(f"waiting {number}", "text\r\n" * (1 + number * 100)) for number in range(30)])
    daemon.stop()
    assert len(ledger.acknowledged[empty.owners[0].address]) == 30 and not ledger.unanswered
    return Prepared(daemon.data, daemon.offset, empty.owners, ledger)


Run = Callable[[Prepared], tuple[Forked, Ledger]]


@pytest.fixture
def run(zygote: Zygote, tmp_path: Path) -> Iterator[Run]:
    """A copy of a prepared data directory, and a copy of its ledger."""
    made: list[Forked] = []

    def copy(prepared: Prepared) -> tuple[Forked, Ledger]:
        daemon = Forked(tmp_path / f"var{len(made)}", offset=prepared.offset, zygote=zygote)
        shutil.copytree(prepared.folder, daemon.data)
        made.append(daemon)
        return daemon, prepared.ledger.copy()

    yield copy
    for daemon in made:
        if daemon.alive():
            daemon.kill()
        shutil.rmtree(daemon.data, ignore_errors=True)
