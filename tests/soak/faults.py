"""What goes wrong, by name: each is called with the service and a source of chance, and returns when it is over."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from tests.soak.boxes import Service
from tests.whole.daemon import Daemon

Fault = Callable[[Service, random.Random], None]

#: Seconds that a process is stopped: less than what a link takes for dead.
FREEZE = 5.0

#: Seconds that a network is held up for longer than a link takes for dead (ping and pong, see clients/link/websocket.py).
LONG = 22.0


def kill_worker(service: Service, chance: random.Random) -> None:
    """kill -9 of a worker."""
    workers = service.workers()
    if workers:
        service.kill_worker(chance.choice(workers))


def kill_primary(service: Service, chance: random.Random) -> None:
    """kill -9 of the primary, which is started again."""
    service.kill(service.primary, chance.uniform(0.2, 2.0))


def kill_secondary(service: Service, chance: random.Random) -> None:
    """kill -9 of a secondary, which is started again."""
    service.kill(chance.choice(service.daemons[1:]), chance.uniform(0.2, 2.0))


def freeze_worker(service: Service, chance: random.Random) -> None:
    """SIGSTOP of a worker."""
    workers = service.workers()
    if workers:
        service.freeze(chance.choice(workers), FREEZE)


def freeze_primary(service: Service, chance: random.Random) -> None:
    """SIGSTOP of the primary."""
    _freeze(service, service.primary)


def freeze_secondary(service: Service, chance: random.Random) -> None:
    """SIGSTOP of a secondary."""
    _freeze(service, chance.choice(service.daemons[1:]))


def _freeze(service: Service, daemon: Daemon) -> None:
    """The first process of a box, unless another fault has just ended it."""
    process = daemon.process
    if process is not None:
        service.freeze(process.pid, FREEZE)


def reload(service: Service, chance: random.Random) -> None:
    """``forwardemail reload``: all workers are replaced one by one."""
    service.reload()


def reset_link(service: Service, chance: random.Random) -> None:
    """The connection of a link is reset in the middle of whatever goes on, several times."""
    proxy = service.proxies[chance.choice(list(service.proxies))]
    for _ in range(chance.randint(1, 5)):
        proxy.reset()
        time.sleep(chance.uniform(0.0, 0.7))


def cut_link(service: Service, chance: random.Random) -> None:
    """No connection can be had for a while."""
    proxy = service.proxies[chance.choice(list(service.proxies))]
    proxy.cut()
    time.sleep(chance.uniform(0.5, 4.0))
    proxy.heal()


def stall_link(service: Service, chance: random.Random) -> None:
    """Nothing is carried for a while, and nobody is told; then everything comes at once."""
    proxy = service.proxies[chance.choice(list(service.proxies))]
    proxy.hold()
    time.sleep(chance.uniform(0.5, 6.0))
    proxy.heal()


def lose_link(service: Service, chance: random.Random) -> None:
    """Nothing is carried, for so long that both ends give the connection up."""
    proxy = service.proxies[chance.choice(list(service.proxies))]
    proxy.hold()
    time.sleep(LONG)
    proxy.reset()
    proxy.heal()


#: For one box with workers, and for several boxes.
ONE: tuple[Fault, ...] = (kill_worker, kill_primary, freeze_worker, freeze_primary, reload)
SEVERAL: tuple[Fault, ...] = (kill_primary, kill_secondary, reset_link, cut_link, stall_link, lose_link, freeze_primary, freeze_secondary)
