"""A mixed load, faults at random moments, and the audit afterwards.

``SOAK_SECONDS`` says how long a scenario goes on; the seed is printed, and ``SOAK_SEED`` sets it.  The same seed gives the same faults at
the same moments, the same way of reading (``SOAK_ACCESS`` forces one) and the same wishes of each client; what comes of them is up to the
machine.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.soak.boxes import Service, resident
from tests.soak.clients import Client, Sender, Session, contents
from tests.soak.faults import Fault
from tests.soak.ledger import Ledger
from tests.whole.daemon import Owner, until

#: Seconds of a scenario.
SECONDS = float(os.environ.get("SOAK_SECONDS", "6"))

CLIENTS, SENDERS, OWNERS = 16, 4, 3

#: How processes without the files may read.
ACCESS = ("auto", "direct", "link")

#: How often there are two faults at a time.
OVERLAPPING = 0.4

#: Octets by which a process may have grown since its start when everybody has left.
GROWTH = 128 * 1024 * 1024

#: Seconds until mail that waits must have been handed over: two looks of a process for what another left, and one more attempt.
HANDED_OVER = 150.0


def seed() -> int:
    """From the environment, or one that brings overlapping faults to both forms in the first seconds."""
    return int(os.environ.get("SOAK_SEED", "28"))


def access(form: str) -> str:
    """How workers and secondaries read in this run of a form, drawn by its seed: the setting ``mailbox_access``."""
    drawn = os.environ.get("SOAK_ACCESS") or random.Random(f"{form} {seed()}").choice(ACCESS)
    print(f"{form}: mailbox_access = {drawn}")
    return drawn


class Soak:
    """One run.

    :param service: running; every door is there.
    """

    def __init__(self, service: Service, seed: int) -> None:
        print(f"SOAK_SEED={seed} SOAK_SECONDS={SECONDS:g}")
        self.service = service
        self.seed = seed
        self.ledger = Ledger()
        self.owners = [service.owner() for _ in range(OWNERS)]
        self._over = threading.Event()
        self._errors: list[str] = []
        for owner in self.owners:
            session = Session(service.doors[0], owner)
            session.ask("CREATE Work", lambda _: None)
            session.close()
        self._memory = {pid: resident(pid) for pid in service.pids()}
        self._clients: list[threading.Thread] = []

    def start(self) -> None:
        """Let the clients loose."""
        more = (self.service.doors, self.ledger, self.seed, self._over, self._errors)
        keepers: list[tuple[Owner, list[int]]] = [(owner, list(range(at, CLIENTS, OWNERS))) for at, owner in enumerate(self.owners)]
        self._clients += [Client(number, self.owners[number % OWNERS], *more) for number in range(CLIENTS)]
        self._clients += [Sender(number, keepers, *more) for number in range(SENDERS)]
        for each in self._clients:
            each.start()

    def suffer(self, kinds: Sequence[Fault], seconds: float = SECONDS) -> None:
        """Faults of these kinds: one after the other, and now and then a second one before the first is over."""
        chance = random.Random(self.seed)
        began = time.monotonic()

        def one(kind: Fault, wait: float, own: random.Random) -> None:
            time.sleep(wait)
            at = time.monotonic() - began
            kind(self.service, own)
            print(f"{at:7.1f} s {kind.__name__} for {time.monotonic() - began - at:.1f} s")

        with ThreadPoolExecutor(2) as pool:
            while not self._over.wait(chance.uniform(0.3, 2.5)) and time.monotonic() - began < seconds:
                several = 2 if chance.random() < OVERLAPPING else 1
                running = [
                    pool.submit(one, kind, chance.uniform(0, 2) if number else 0.0, random.Random(chance.random()))
                    for number, kind in enumerate(chance.sample(kinds, several))
                ]
                for each in running:
                    each.result()

    def wait(self, seconds: float) -> None:
        """Let them work, unless one has failed."""
        self._over.wait(seconds)

    def end(self) -> None:
        """Stop the clients and look whether everything is as they were told."""
        self._over.wait(1.0)
        failed, _ = self._over.is_set(), self._over.set()
        for each in self._clients:
            each.join(300)
            assert not each.is_alive(), f"{each.name} hangs"
        print(dict(self.ledger.done))
        assert not failed and not self._errors, "\n\n".join(self._errors)
        self._handed_over()
        for owner in self.owners:
            self._audit(owner)
        self._let_go()

    def _handed_over(self) -> None:
        """Mail that waited has moved in."""

        def nothing_waits() -> bool:
            for owner in self.owners:
                session = Session(self.service.doors[0], owner)
                session.ask("SELECT INBOX", lambda _: None)  # waits until what waited has moved in
                session.close()
            return not self.service.waiting()

        until(nothing_waits, f"nothing waits any more: {self.service.waiting()}", HANDED_OVER)

    def _audit(self, owner: Owner) -> None:
        views = [contents(door, owner) for door in self.service.doors]
        assert all(view == views[0] for view in views), "two doors show different mailboxes"
        wrong = self.ledger.audit(owner.address, views[0])
        assert not wrong, f"{len(wrong)} messages, seed {self.seed}:\n" + "\n".join(wrong[:10])
        answer = self.service.primary.json("mailbox", "check", owner.address, "--password-stdin", stdin=owner.password + "\n")
        assert answer["problems"] == []

    def _let_go(self) -> None:
        """Everybody has left: no process has a mailbox open, and none has grown by much."""
        until(lambda: not opened(self.service), f"mailboxes are closed when nobody is there: {opened(self.service)}")
        for pid in self.service.pids():
            now = resident(pid)
            before = self._memory.get(pid, min(self._memory.values()))
            print(f"process {pid}: {before >> 20} MiB before, {now >> 20} MiB after")
            assert now - before < GROWTH, f"process {pid} has grown from {before >> 20} MiB to {now >> 20} MiB"


def opened(service: Service) -> list[str]:
    """Files of mailboxes that some process of the service has open."""
    found = []
    for pid in service.pids():
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(descriptor)
            except OSError:
                continue
            if "/mailboxes/" in target and ".sqlite" in target:
                found.append(f"{pid}: {target}")
    return found
