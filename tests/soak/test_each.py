"""Each fault by itself, in the middle of the mixed load; and the memory when nothing is wrong."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak import faults
from tests.soak.boxes import Service, closing, one, resident, several
from tests.soak.engine import Soak, seed
from tests.soak.faults import Fault

#: Seconds of load before a fault, and after it.
BEFORE, AFTER = 3.0, 3.0

#: Octets that a process may grow by when the same is done once more.
AGAIN = 24 * 1024 * 1024


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One box with two workers."""
    with closing(one(tmp_path_factory.mktemp("one"))) as service:
        yield service


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory, module_database: str) -> Iterator[Service]:
    """A primary and two secondaries."""
    with closing(several(tmp_path_factory.mktemp("several"), module_database)) as service:
        yield service


def _suffer(service: Service, fault: Fault) -> None:
    soak = Soak(service, seed())
    soak.start()
    soak.wait(BEFORE)
    fault(service, random.Random(seed()))
    soak.wait(AFTER)
    soak.end()


@pytest.mark.parametrize("fault", faults.ONE, ids=lambda fault: fault.__name__)
def test_on_one_box(box: Service, fault: Fault) -> None:
    _suffer(box, fault)


@pytest.mark.parametrize("fault", faults.SEVERAL, ids=lambda fault: fault.__name__)
def test_on_several_boxes(boxes: Service, fault: Fault) -> None:
    _suffer(boxes, fault)


def test_memory_is_back_after_each_load(tmp_path: Path) -> None:
    """The same load three times: what the third adds to the second is what would grow for ever."""
    seconds = float(os.environ.get("SOAK_SECONDS", "8"))
    with closing(one(tmp_path)) as service:
        sizes: list[dict[int, int]] = []
        for number in range(3):
            soak = Soak(service, seed() + number)
            soak.start()
            soak.wait(seconds)
            soak.end()
            sizes.append({pid: resident(pid) for pid in service.pids()})
            print({pid: f"{size >> 20} MiB" for pid, size in sizes[-1].items()})
        for pid, size in sizes[2].items():
            assert size - sizes[1][pid] < AGAIN, f"process {pid} grows from {sizes[1][pid] >> 20} to {size >> 20} MiB"
