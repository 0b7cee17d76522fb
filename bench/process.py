"""Servers as processes: what they have used, and how they end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parents.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def cpu(pid: int, *, alone: bool = False) -> float:
    """Seconds of processor time that a process, its descendants and their finished children have used.

    :param alone: only the process itself and its finished children.
    """
    total = 0.0
    for one in [pid] if alone else tree(pid):
        with contextlib.suppress(OSError, IndexError):
            total += sum(map(int, _stat(one)[11:15]))  # utime, stime, cutime, cstime
    return total / _TICK


def rest(pid: int, seconds: float = 180) -> float:
    """Wait until a process and its descendants have nothing left to do; the seconds until then.

    :param seconds: give up after so many.
    """
    began = idle = time.monotonic()
    used = cpu(pid)
    while time.monotonic() - idle < 2 and time.monotonic() - began < seconds:
        time.sleep(0.25)
        now = cpu(pid)
        if now - used > 0.01:
            used, idle = now, time.monotonic()
    return idle - began


def memory(pid: int) -> int:
    """Octets of memory of a process and its descendants, shared pages counted once (PSS)."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (state) on: index 0 is the state, 1 the parent."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def free_port() -> int:
    """A port on loopback that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for_port(port: int, seconds: float = 30) -> None:
    """Return when something answers there.

    :raises TimeoutError: nothing does.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            if connection.recv(1):
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing answers on port {port}")


def end(pid: int, seconds: float = 20) -> None:
    """SIGTERM, and SIGKILL for what of its tree is still there after a while."""
    family = tree(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(_alive(one) for one in family):
        time.sleep(0.05)
    for one in family:
        if _alive(one):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)


def _alive(pid: int) -> bool:
    try:
        return _stat(pid)[0] != "Z"
    except (OSError, IndexError):
        return False
