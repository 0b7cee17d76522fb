"""The directory: accounts, domains, aliases, key slots, sealing keys and storage locations.

It never holds a mailbox key in the clear, nor anything that opens a mailbox: key slots are the mailbox key wrapped by a password.
Calls are synchronous and short; :mod:`fe_twisted.storage.directory.lookup` puts the ones that a server needs off the reactor
when the database is across a network.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


class AliasState(enum.StrEnum):
    """What becomes of mail to an alias, and whether its owner may log in (only when ENABLED)."""

    ENABLED = "enabled"
    #: Accept with 250 and throw away.
    DISCARD = "discard"
    #: Answer 421 and let the sender try again.
    DEFER = "defer"
    #: Answer 550.
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Account:
    """Who pays and whose quota is pooled."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain that we take mail for; ``name`` is the lower-case A-label form."""

    id: int
    name: str
    account_id: int


@dataclass(frozen=True, slots=True)
class Alias:
    """An address with (once a password was made) a mailbox of its own.

    :param address: ``local@domain``, local part lower case, domain as A-label.
    :param mailbox_id: 24 hex digits, or None before the first password.
    :param sealing_key: the public HPKE key, 1,216 octets, or None before the first password.
    :param location: which primary holds the file (``local`` on a single box).
    :param hidden: IMAP capabilities that the owner's clients are not told of, upper case, sorted.
    """

    id: int
    address: str
    state: AliasState
    mailbox_id: str | None
    sealing_key: bytes | None
    location: str
    created_at: str
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeySlot:
    """One credential's wrapping of the mailbox key.

    :param kind: ``password`` now; app passwords and recovery codes later.
    :param kdf: ``hkdf-sha256`` or ``argon2id`` with its parameters.
    :param wrapped: opaque to the directory: made and opened by :mod:`fe_twisted.protocols.crypto.slots`.
    """

    id: int
    kind: str
    label: str
    kdf: str
    salt: bytes
    wrapped: bytes
    created_at: str


class Directory(Protocol):
    """The store, embedded or PostgreSQL.  Every method is one transaction, durable when it returns."""

    def add_account(self, name: str) -> Account:
        """:raises AlreadyExists:"""

    def accounts(self) -> list[Account]:
        """All, by name."""

    def add_domain(self, name: str, account_id: int) -> Domain:
        """:raises AlreadyExists, BadAddress:"""

    def domain(self, name: str) -> Domain | None:
        """The domain of this name (any case, U-label or A-label)."""

    def domains(self) -> list[Domain]:
        """All, by name."""

    def remove_domain(self, name: str) -> None:
        """:raises NotFound: no such domain.
        :raises Refused: it still has aliases.
        """

    def add_alias(self, address: str, location: str = "local") -> Alias:
        """:param location: which primary will have the mailbox.
        :raises AlreadyExists, UnknownDomain, BadAddress:
        """

    def alias(self, address: str) -> Alias | None:
        """Exactly this address, after normalisation; plus-addressing is the caller's business."""

    def aliases(self, domain: str | None = None) -> list[Alias]:
        """All, or those of one domain, by address."""

    def owner(self, mailbox_id: str) -> Alias | None:
        """The alias that has a mailbox; None when nobody has it (any more)."""

    def elsewhere(self, location: str) -> dict[str, str]:
        """The locations of all mailboxes that are not at ``location``, by mailbox id."""

    def set_location(self, mailbox_id: str, location: str, *, replaces: str) -> None:
        """Say that a mailbox is at another primary now.  To say so again changes nothing and is no error.

        :param replaces: where it has been.
        :raises NotFound: nobody has the mailbox (any more).
        :raises Refused: it is at a third place; nothing was changed.
        """

    def locations(self) -> dict[str, int]:
        """The number of aliases of each location, those without a mailbox included."""

    def rename_location(self, old: str, new: str) -> int:
        """Give the primary of a location another name, in all its aliases at once; returns how many there are.

        :raises NotFound: no alias is there.
        :raises AlreadyExists: aliases are at the new one already; nothing was changed.
        """

    def place_alias(self, address: str, location: str) -> Alias:
        """Say which primary will have the mailbox of an alias that has none yet.

        :raises NotFound:
        :raises Busy: it has one meanwhile; nothing was changed.
        """

    def remove_alias(self, address: str) -> Alias:
        """Remove the alias and its key slots; returns what was removed, so that the caller can remove the files.

        :raises NotFound:
        """

    def set_hidden(self, address: str, capabilities: Iterable[str]) -> None:
        """Hide these IMAP capabilities and no others from the alias's clients.

        :raises NotFound:
        """

    def set_alias_state(self, address: str, state: AliasState) -> None:
        """:raises NotFound:"""

    def set_mailbox(self, alias_id: int, mailbox_id: str, sealing_key: bytes, slots: list[KeySlot], *, replaces: str | None = None) -> None:
        """Give the alias a (new) mailbox and replace all its key slots, in one transaction.

        :param replaces: the id of the mailbox that the alias has now, None when it has none.
        :raises NotFound: the alias is not there any more.
        :raises Busy: it has another mailbox than ``replaces``: somebody else changed it meanwhile, and nothing was changed here.
        """

    def key_slots(self, alias_id: int) -> list[KeySlot]:
        """All slots of the alias; the login path tries each."""

    def replace_slot(self, alias_id: int, slot_id: int, new: KeySlot) -> None:
        """Put a rewrapped key in the place of a slot, atomically.

        :raises NotFound: the slot is not there any more (someone else changed it).
        """

    def generation(self) -> int:
        """A number that grows with every change of any alias, so that servers notice cheaply that something changed."""

    def shared_secret(self, offer: bytes) -> bytes:
        """32 octets that are the same for every box with this directory, and stay.

        They are no secret from whoever can read the directory; keys that come from them may guard what the directory itself tells.

        :param offer: what they become if nobody asked before.
        """

    def close(self) -> None:
        """Let go of all connections."""
