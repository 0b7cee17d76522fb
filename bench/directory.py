"""How long the directory's look-ups take: ``python bench/directory.py [--aliases N] [--url URL] [--json]``.

Builds a directory of N aliases (100,000 when left out) with a key slot each, and measures what a server asks for every recipient and every
login.  Times are microseconds.  The embedded directory is made in a temporary folder; ``--url`` names an empty PostgreSQL database instead.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import insert
from twisted.internet.defer import Deferred, succeed

from fe_twisted.base.addresses import parse_address
from fe_twisted.base.errors import UnknownDomain, UnknownRecipient
from fe_twisted.protocols.crypto import slots
from fe_twisted.protocols.crypto.seal import PUBLIC
from fe_twisted.storage.directory.lookup import Lookups
from fe_twisted.storage.directory.schema import aliases, domains, key_slots
from fe_twisted.storage.directory.sql import SqlDirectory, open_directory

DOMAINS = 100
ROUNDS = 5000
PASSWORD = slots.generate_password()


def fill(directory: SqlDirectory, count: int) -> None:
    """Insert ``count`` aliases with a mailbox and a slot, spread over the domains, in one transaction."""
    account = directory.add_account("bench")
    now = "2026-01-02T03:04:05+00:00"
    with directory._write() as connection:
        rows = [{"name": f"d{number}.example", "account_id": account.id, "created_at": now} for number in range(DOMAINS)]
        connection.execute(insert(domains), rows)
        wrapped = slots.make_slot(bytes(32), PASSWORD, mailbox_id="0" * 24)
        for first in range(0, count, 10_000):
            numbers = range(first, min(first + 10_000, count))
            connection.execute(
                insert(aliases),
                [
                    {
                        "id": number + 1,
                        "domain_id": number % DOMAINS + 1,
                        "local": f"user{number}",
                        "state": "enabled",
                        "mailbox_id": f"{number:024x}",
                        "sealing_key": os.urandom(PUBLIC),
                        "location": "local",
                        "created_at": now,
                    }
                    for number in numbers
                ],
            )
            slot = {"kind": "password", "label": "", "created_at": now, **dataclasses.asdict(wrapped)}
            connection.execute(insert(key_slots), [{"alias_id": number + 1, **slot} for number in numbers])


def measure(work: Callable[[int], object], count: int) -> dict[str, float]:
    """Microseconds of :data:`ROUNDS` calls with random aliases: median, 99th percentile, longest."""
    chosen = random.Random(1)
    times = []
    for _ in range(ROUNDS):
        number = chosen.randrange(count)
        began = time.perf_counter_ns()
        work(number)
        times.append((time.perf_counter_ns() - began) / 1000)
    return {"median_us": statistics.median(times), "p99_us": statistics.quantiles(times, n=100)[98], "longest_us": max(times)}


def look_ups(directory: SqlDirectory) -> dict[str, Callable[[int], object]]:
    """What is measured, by name."""
    lookups = Lookups(directory, lambda function, *arguments: succeed(function(*arguments)))

    def recipient(local: str, number: int) -> None:
        wait = Deferred.fromCoroutine(lookups.recipient(parse_address(f"{local}@d{number % DOMAINS}.example")))
        wait.addErrback(lambda failure: failure.trap(UnknownRecipient, UnknownDomain))

    def login(number: int) -> None:
        address = parse_address(f"user{number}@d{number % DOMAINS}.example")
        found: list[object] = []
        Deferred.fromCoroutine(lookups.login(address)).addCallback(found.append)
        assert found[0] is not None

    def login_and_slot(number: int) -> None:
        login(number)
        slots.open_slot(slots.HKDF_SHA256, bytes(32), b"\x01" + bytes(60), PASSWORD, mailbox_id="0" * 24)

    return {
        "recipient": lambda number: recipient(f"user{number}", number),
        "recipient, plus-addressed": lambda number: recipient(f"user{number}+tag", number),
        "recipient, unknown": lambda number: recipient(f"nobody{number}", number),
        "recipient, postmaster": lambda number: recipient("postmaster", number),
        "login look-up": login,
        "login look-up and key slot": login_and_slot,
        "generation": lambda _number: directory.generation(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--aliases", type=int, default=100_000)
    parser.add_argument("--url", help="an empty PostgreSQL database, as postgresql+psycopg://…")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = open_directory(options.url or Path(folder) / "directory.sqlite", os.urandom(32))
        began = time.perf_counter()
        fill(directory, options.aliases)
        filled = time.perf_counter() - began
        results = {name: measure(work, options.aliases) for name, work in look_ups(directory).items()}
        size = sum(entry.stat().st_size for entry in Path(folder).iterdir())
        directory.close()
    kind = "PostgreSQL" if options.url else "SQLCipher"
    if options.json:
        about = {"bench": "directory", "kind": kind, "aliases": options.aliases, "fill_s": filled, "octets": size}
        print(json.dumps({**about, "results": results}))
        return 0
    print(f"{kind}, {options.aliases:,} aliases, filled in {filled:.1f} s, {size / 1e6:.0f} MB; {ROUNDS:,} look-ups each\n")
    print(f"{'':28}{'median':>10}{'99 %':>10}{'longest':>10}   µs")
    for name, result in results.items():
        print(f"{name:28}{result['median_us']:10.0f}{result['p99_us']:10.0f}{result['longest_us']:10.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
