"""Attack: learn which addresses exist, are switched off, or have a chosen password, from the text or the time of a refused login."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from fe_twisted.base.errors import WrongPassword
from fe_twisted.protocols.crypto import slots
from fe_twisted.services.login.authenticate import Login
from fe_twisted.services.login.throttle import LoginLimits
from fe_twisted.storage.directory.api import AliasState, KeySlot
from fe_twisted.storage.directory.lookup import Lookups
from fe_twisted.storage.directory.sql import open_directory

USERS = ["generated", "chosen", "disabled", "fresh", "missing", "other.example"]


def test_all_refusals_look_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One text, one time on the clock, and at least one slot's work, whoever was asked for."""
    directory = open_directory(tmp_path / "directory.sqlite", bytes(32))
    directory.add_domain("example.com", directory.add_account("default").id)
    for number, name in enumerate(USERS[:4]):
        alias = directory.add_alias(f"{name}@example.com")
        if name == "fresh":
            continue
        mailbox_id = f"{number:024x}"
        kdf = "argon2id:t=1,m=64,p=1" if name == "chosen" else None
        made = slots.make_slot(bytes(32), slots.generate_password(), mailbox_id=mailbox_id, kdf=kdf)
        directory.set_mailbox(alias.id, mailbox_id, b"public", [KeySlot(0, "password", "", made.kdf, made.salt, made.wrapped, "")])
    directory.set_alias_state("disabled@example.com", AliasState.REJECT)
    clock, opened = Clock(), [0]
    real = slots.open_slot

    def counting(*arguments: Any, **options: Any) -> Any:
        opened[0] += 1
        # The work takes time on this clock too, and Argon2id more of it.
        clock.advance(0.2 if arguments[0].startswith("argon2id") else 0.001)
        return real(*arguments, **options)

    monkeypatch.setattr(slots, "open_slot", counting)
    seen = set()
    for number, name in enumerate(USERS):
        login = Login(Lookups(directory), clock, LoginLimits(first_delay=1))
        user = name if name == "other.example" else f"{name}@example.com"
        began, opened[0] = clock.seconds(), 0
        outcome: list[Any] = []
        Deferred.fromCoroutine(login.authenticate(user, "guess", peer=f"192.0.2.{number}")).addBoth(outcome.append)
        while not outcome:
            clock.advance(0.0005)
        assert isinstance(outcome[0], Failure)
        assert opened[0] == 1
        error = outcome[0].value
        assert isinstance(error, WrongPassword)
        seen.add((str(error), error.reason, round(clock.seconds() - began, 2)))
    assert len(seen) == 1
    directory.close()
