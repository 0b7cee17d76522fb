"""The service as several processes, and what can happen to them.

:class:`One` is one box with a primary and workers; :class:`Several` is a primary and secondaries that reach it through a network which can
be cut.  What the load and the faults need of either is in :class:`Service`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.proxy import Proxy
from tests.whole.daemon import OFFSETS, PATIENCE, TROUBLE, Daemon, Owner, _free, until

#: Sessions end at once here, so that what is left in memory can be looked at.
SETTINGS = {
    "session_grace_seconds": "0",
    "login_failures_per_alias": "100000",
    "login_failures_per_network": "100000",
    "log_level": "debug",
}

#: The port of the link; each box adds its offset.
LINK = 700


def children(pid: int) -> list[int]:
    """The processes that one has started and that run."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return [child for child in found if alive(child)]


def alive(pid: int) -> bool:
    """Whether a process runs, and is not only waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def resident(pid: int) -> int:
    """Octets of memory of a process."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


@dataclass
class Door:
    """Where clients come in.

    :param name: of the box.
    :param lives: how often whoever holds the sessions behind this door has been killed: only then may they end.
    :param dying: how many are being killed or replaced now.
    """

    name: str
    daemon: Daemon
    lives: int = 0
    dying: int = 0

    def safe(self, life: int) -> bool:
        """Whether nobody behind this door has been killed since ``lives`` was ``life``, or is being killed now."""
        return not self.dying and self.lives == life

    @property
    def imap(self) -> int:
        """The port."""
        return self.daemon.port("imap")

    @property
    def mx(self) -> int:
        """The port."""
        return self.daemon.port("mx")


@dataclass
class Service:
    """All processes together.

    :param daemons: whoever has to be started, the primary first.
    :param doors: where clients come in.
    :param proxies: the networks that can be cut, by the box behind them.
    """

    daemons: list[Daemon] = field(default_factory=list)
    doors: list[Door] = field(default_factory=list)
    proxies: dict[str, Proxy] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    counting: threading.Lock = field(default_factory=threading.Lock)

    @property
    def primary(self) -> Daemon:
        """The one with the mailboxes."""
        return self.daemons[0]

    def owner(self, local: str | None = None) -> Owner:
        """A new alias."""
        return self.primary.owner(local)

    def pids(self) -> list[int]:
        """Every process of the service."""
        top = [daemon.process.pid for daemon in self.daemons if daemon.process is not None]
        return [*top, *(child for pid in top for child in children(pid))]

    def logs(self) -> str:
        """All logs, one after the other."""
        return "\n".join(daemon.log() for daemon in self.daemons)

    def waiting(self) -> list[str]:
        """Files with mail that waits, at secondaries and at the primary."""
        queued = [path for daemon in self.daemons for path in daemon.data.glob("queue/*/*.sqlite")]
        return [str(path) for path in [*queued, *self.primary.waiting_files()]]

    # -- faults -------------------------------------------------------------------------------------

    def kill(self, daemon: Daemon, away: float) -> None:
        """kill -9 of a box's first process; it is started again after so many seconds, as systemd would."""
        with self.lock:
            assert daemon.process is not None
            left = children(daemon.process.pid)
            with self._dying(daemon):
                daemon.kill()
                # Nobody may stay behind and hold the ports; without a word of anybody, and in no time.
                until(lambda: not any(map(alive, left)), "the workers go when their primary is gone")
        time.sleep(away)
        with self.lock:
            start(daemon)

    def kill_worker(self, pid: int) -> None:
        """kill -9 of a worker; its primary starts another."""
        with self.lock, self._dying(self.primary):
            with contextlib.suppress(ProcessLookupError):  # another fault came first
                os.kill(pid, signal.SIGKILL)
            until(lambda: not alive(pid), "a process that was killed has ended", 15)

    def reload(self) -> None:
        """``forwardemail reload``: every worker is replaced, unless another fault keeps it from that; sessions end with a BYE."""
        with self._dying(self.primary):
            done = self.primary.run("reload", "--wait", "60", "--config", str(self.primary.config))
        assert "Traceback" not in done.stderr, done.stderr
        # 1: the primary was away at that moment, or a worker was killed that was to be the next one.
        assert done.returncode in (0, 1), done.stderr

    def freeze(self, pid: int, seconds: float) -> None:
        """SIGSTOP and SIGCONT; nothing of a process that has ended meanwhile."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            try:
                time.sleep(seconds)
            finally:
                os.kill(pid, signal.SIGCONT)

    def workers(self) -> list[int]:
        """The worker processes of the primary."""
        return children(self.primary.process.pid) if self.primary.process is not None else []

    @contextlib.contextmanager
    def _dying(self, daemon: Daemon) -> Iterator[None]:
        """Whoever is behind the doors of this box is being killed: those who come in meanwhile are thrown out too."""
        doors = [door for door in self.doors if door.daemon is daemon]
        with self.counting:
            for door in doors:
                door.dying += 1
        try:
            yield
        finally:
            with self.counting:
                for door in doors:
                    door.lives += 1
                    door.dying -= 1

    # -- the end ------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop what runs, in the order in which nobody waits for anybody, and look at the logs."""
        for daemon in reversed(self.daemons):
            daemon.close()
        for proxy in self.proxies.values():
            proxy.close()

    def abandon(self) -> None:
        """After a failure: end everything, look at nothing."""
        for daemon in self.daemons:
            if daemon.process is not None:
                for pid in [*children(daemon.process.pid), daemon.process.pid]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                daemon.process.wait(PATIENCE)
                daemon.process = None
        for proxy in self.proxies.values():
            proxy.close()


@contextlib.contextmanager
def closing(service: Service) -> Iterator[Service]:
    """A clean end after a success; after a failure an end, and what the logs say of it."""
    try:
        yield service
        service.stop()
    except BaseException:
        service.abandon()
        for daemon in service.daemons:
            lines = daemon.log().splitlines()
            told = [at for at, line in enumerate(lines) if TROUBLE.search(line)][:5]
            print(f"== {daemon.data.name}", *(line for at in told for line in lines[at : at + 25]), "…", *lines[-10:], sep="\n")
        raise


def one(folder: Path, workers: int = 2, **settings: str) -> Service:
    """One box: a primary and its workers, running."""
    daemon = Daemon(folder / "var", overrides={**SETTINGS, "workers": str(workers), **settings})
    daemon.init()
    service = Service([daemon], [Door("box", daemon)])
    _start(service, workers)
    return service


def several(folder: Path, directory_url: str, secondaries: int = 2, *, shared: bool = False, **settings: str) -> Service:
    """A primary that answers clients too, and secondaries behind networks of their own; all running.

    :param shared: the secondaries see the primary's mailbox files, as on a shared volume.
    """
    url = directory_url.replace("postgresql+psycopg://", "postgresql://")
    primary = Daemon(folder / "primary", overrides={**SETTINGS, **settings})
    primary.offset = _offset()
    _init(primary, "--directory-url", url)
    primary.cli("domain", "add", "example.com")
    with primary.config.open("a") as file:
        file.write(f"link_port = {LINK}\n")
    token = primary.json("link", "token")["token"]
    service = Service([primary], [Door("primary", primary)])
    for number in range(1, secondaries + 1):
        name = f"secondary-{number}"
        proxy = service.proxies[name] = Proxy(LINK + primary.offset)
        box = Daemon(folder / name, overrides={**SETTINGS, **settings})
        box.offset = _offset()
        _init(box, "--role", "secondary", "--primary", f"wss://localhost:{proxy.port}", "--directory-url", url)
        shutil.copy(primary.data / "tls" / "certificate.pem", box.data / "tls" / "primary.pem")
        with box.config.open("a") as file:
            file.write('link_authority = "tls/primary.pem"\n')
        box.cli("link", "join", stdin=token + "\n")
        if shared:
            (box.data / "mailboxes").symlink_to(primary.data / "mailboxes")
        service.daemons.append(box)
        service.doors.append(Door(name, box))
    _start(service, secondaries)
    return service


def _start(service: Service, peers: int) -> None:
    """Start all, or leave nothing behind."""
    try:
        for daemon in service.daemons:
            start(daemon)
        until(lambda: service.primary.log().count("cluster.joined") >= peers, "all are linked")
    except BaseException:
        service.abandon()
        raise


def start(daemon: Daemon, env: Mapping[str, str] | None = None) -> None:
    """Start it, and wait as long as it takes on a machine that has other things to do."""
    daemon.start(env, wait=False)
    for last in (False, False, False, True):
        try:
            daemon.wait_ready()
            return
        except AssertionError:
            assert daemon.process is not None
            if last or daemon.process.poll() is not None:
                raise


def _offset() -> int:
    while True:
        offset = OFFSETS.take()
        if _free(LINK + offset):
            return offset


def _init(daemon: Daemon, *arguments: str) -> None:
    done = daemon.run("init", "--data", str(daemon.data), "--development", "--port-offset", str(daemon.offset), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
