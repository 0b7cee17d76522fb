"""Fault points: harmless unless armed, deadly when armed, and the list is complete."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fe_twisted
from fe_twisted.base import faults


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    faults.disarm()


def test_every_point_in_the_sources_is_in_the_list_and_the_other_way_round() -> None:
    sources = Path(fe_twisted.__file__).parent.rglob("*.py")
    found = {
        name for source in sources for name in re.findall(r"faults\.reach\(\"([a-z_.]+)\"\)", source.read_text()) if name != faults.__name__
    }
    documented = {"spool.before_commit"}  # the example in the docstring of faults itself
    assert found - documented == set(faults.POINTS)


def test_not_armed() -> None:
    for point in faults.POINTS:
        assert faults.reach(point) is None


def test_counts() -> None:
    reached: list[str] = []
    faults.arm("merge.taken:3", reached.append)
    for _ in range(5):
        faults.reach("merge.taken")
        faults.reach("merge.start")
    assert reached == ["merge.taken"], "the third time, and only then"


@pytest.mark.parametrize("spec", ["", "nowhere", "merge.taken:0", "merge.taken:x", ":1"])
def test_bad_specs(spec: str) -> None:
    with pytest.raises(ValueError):
        faults.arm(spec)


def test_the_process_dies_at_once() -> None:
    program = """
from fe_twisted.base import faults
import atexit, sys
atexit.register(print, "exit function")
faults.arm("merge.taken:2")
faults.reach("merge.taken")
print("first", flush=True)
faults.reach("merge.taken")
print("second", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "first\n"
