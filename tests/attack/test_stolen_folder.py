"""Attack: somebody has a copy of the whole data folder, server key included, and no password.

What is said of this thief in docs/security.md, in both directions: what stays closed, and what lies open.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from fe_twisted.app.setup import create
from fe_twisted.app.store import Store, open_store
from fe_twisted.base.errors import BadSettings, DamagedFile, WrongPassword
from fe_twisted.base.settings import Settings
from fe_twisted.protocols.crypto import derive
from fe_twisted.protocols.crypto.seal import OVERHEAD, PUBLIC, SEED, SealingKey
from fe_twisted.protocols.crypto.slots import ALPHABET, LENGTH, open_slot
from fe_twisted.storage.mailbox.api import NewMessage
from fe_twisted.storage.mailbox.local import open_mailbox
from fe_twisted.storage.spool.item import Unreadable, Waiting, unseal
from fe_twisted.storage.spool.spool import Spool
from fe_twisted.storage.sqlite.connect import WrongKey, connect
from fe_twisted.storage.vault.secret import create_server_key
from tests.storage.mailbox.driving import at_once, nothing_waits, run

HELLO = "hello@example.com"
NOW = datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
READ = b"Subject: read already\r\n\r\nquicksilver in the mailbox\r\n"
WAITING = b"Subject: not read yet\r\n\r\nquicksilver that waits\r\n"
DELIVERY = bytes(range(16))


@dataclass(frozen=True)
class Stolen:
    """The copy: a folder with one message in a mailbox and one that waits, and what only the test knows."""

    settings: Settings
    store: Store
    mailbox_id: str
    password: str

    @property
    def mailbox(self) -> Path:
        return self.store.files.path(self.mailbox_id)

    @property
    def temporary(self) -> Path:
        return self.store.files.temporary_path(self.mailbox_id)

    def waiting_rows(self) -> list[tuple[bytes, bytes]]:
        """What the temporary mailbox holds, opened with the server key."""
        key = derive.spool_key(self.store.server_key, self.mailbox_id)
        with closing(connect(self.temporary, key=key, readonly=True)) as connection:
            return [(bytes(name), bytes(sealed)) for name, sealed in connection.execute("SELECT delivery_id, sealed FROM message")]

    def candidates(self) -> Iterator[bytes]:
        """Every 32 octets that a thief could think of: the server key, all that is derived from it, and pieces of all that is stored."""
        key = self.store.server_key
        labels = (derive.DIRECTORY, derive.SPOOL, derive.SESSION, derive.COOKIE, derive.SRS, derive.CLUSTER)
        yield key
        yield from (derive.derive(key, label) for label in labels)
        yield from (derive.derive(key, f"{label}:{self.mailbox_id}") for label in labels)
        alias = self.store.directory.alias(HELLO)
        assert alias is not None
        stored = [alias.sealing_key or b"", self.mailbox_id.encode() + bytes(8)]
        for slot in self.store.directory.key_slots(alias.id):
            stored += [slot.salt, slot.wrapped]
        stored += [row for _, row in self.waiting_rows()]
        stored += [self.mailbox.read_bytes()[:64], self.settings.certificate_key_file.read_bytes()]
        for octets in stored:
            last = min(len(octets), 96) - 32
            yield from (octets[start : start + 32] for start in range(last + 1))


@pytest.fixture(scope="module")
def stolen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stolen]:
    made = create(tmp_path_factory.mktemp("stolen") / "var", hostname=None, development=True, port_offset=None, example=True, now=NOW)
    store = open_store(made.settings)
    password = next(each.password for each in made.passwords if each.address == HELLO)
    alias, key = store.accounts.unlock(HELLO, password)
    assert alias.mailbox_id is not None and alias.sealing_key is not None
    mailbox = run(open_mailbox(store.files, alias.mailbox_id, key, at_once, Clock(), nothing_waits))
    run(mailbox.append("INBOX", [NewMessage(READ)]))
    run(mailbox.close())
    spool = Spool(store.files.temporary_path, store.server_key, at_once, Clock())
    run(spool.add(alias.mailbox_id, alias.sealing_key, Waiting(DELIVERY, NOW, WAITING)))
    run(spool.close())
    yield Stolen(made.settings, store, alias.mailbox_id, password)
    store.directory.close()


def test_addresses_keys_and_sizes_lie_open(stolen: Stolen) -> None:
    """With the server key: which addresses there are, whose mailbox is which, how much mail waits and how large each message is."""
    alias = stolen.store.directory.alias(HELLO)
    assert alias is not None and alias.mailbox_id == stolen.mailbox_id
    assert len(alias.sealing_key or b"") == PUBLIC
    ((name, sealed),) = stolen.waiting_rows()
    assert name == DELIVERY
    assert 0 < len(sealed) - OVERHEAD - len(WAITING) < 200, "a row is as long as its message, but for a known rest"


def test_no_stored_key_opens_a_mailbox(stolen: Stolen) -> None:
    """And trying does not change the file."""
    before = stolen.mailbox.read_bytes()
    tried = 0
    for candidate in set(stolen.candidates()):
        with pytest.raises(WrongKey):
            connect(stolen.mailbox, key=candidate, readonly=True)
        tried += 1
    assert tried > 100
    assert stolen.mailbox.read_bytes() == before
    assert b"quicksilver" not in before
    _, key = stolen.store.accounts.unlock(HELLO, stolen.password)
    connect(stolen.mailbox, key=key, readonly=True).close()


def test_no_stored_key_opens_waiting_mail(stolen: Stolen) -> None:
    """The temporary mailbox opens with the server key, its rows do not: the seed of the sealing key is inside the mailbox."""
    ((name, sealed),) = stolen.waiting_rows()
    assert b"quicksilver" not in sealed
    candidates = sorted(set(stolen.candidates()))
    assert len(candidates) > 100
    for one, two, three in zip(candidates, candidates[1:], candidates[2:], strict=False):
        seed = (one + two + three)[:SEED]
        with pytest.raises(Unreadable):
            unseal(sealed, SealingKey.from_seed(seed), stolen.mailbox_id, name)
    _, key = stolen.store.accounts.unlock(HELLO, stolen.password)
    with closing(stolen.store.files.open(stolen.mailbox_id, key, readonly=True)) as connection:
        seed = bytes(connection.execute("SELECT value FROM meta WHERE name = 'sealing_seed'").fetchall()[0][0])
    assert unseal(sealed, SealingKey.from_seed(seed), stolen.mailbox_id, name).content == WAITING


def test_guesses_at_a_key_slot_open_nothing(stolen: Stolen) -> None:
    """A slot gives its key for the password alone; not for one that differs in one character, and not for none."""
    alias = stolen.store.directory.alias(HELLO)
    assert alias is not None
    (slot,) = stolen.store.directory.key_slots(alias.id)
    right = stolen.password
    other = {char: ALPHABET[(ALPHABET.index(char) + 1) % len(ALPHABET)] for char in ALPHABET}
    guesses = {right[:at] + other[right[at]] + right[at + 1 :] for at in range(LENGTH)}
    guesses |= {"", right[:-1], right + "A", right.swapcase(), right[::-1]}
    for guess in guesses - {right}:
        assert open_slot(slot.kdf, slot.salt, slot.wrapped, guess, mailbox_id=stolen.mailbox_id, kind=slot.kind) is None
    with pytest.raises(WrongPassword):
        stolen.store.accounts.unlock(HELLO, "guess")


def test_a_copy_without_the_server_key_does_not_even_show_the_addresses(stolen: Stolen, tmp_path: Path) -> None:
    """A backup that was made without ``secrets/``, in the hands of somebody who tries a key of his own."""
    create_server_key(tmp_path / "server.key")
    settings = Settings(**{**vars(stolen.settings), "server_key": str(tmp_path / "server.key")})
    with pytest.raises(BadSettings, match="does not open with this server key"):
        open_store(settings)
    with pytest.raises(DamagedFile):
        connect(stolen.temporary, key=derive.spool_key(os.urandom(32), stolen.mailbox_id), readonly=True)
    for path in sorted(stolen.settings.data_folder.rglob("*")):
        if path.is_file() and path.parent.name != "secrets":
            content = path.read_bytes()
            assert b"hello@" not in content and b"quicksilver" not in content, path.name
