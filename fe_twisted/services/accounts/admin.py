"""The administrative actions."""

from __future__ import annotations

import datetime
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from fe_twisted.base import log
from fe_twisted.base.addresses import normalise_domain, parse_address
from fe_twisted.base.errors import NotFound, NotReady, Refused, UnknownDomain, WrongPassword
from fe_twisted.base.ids import object_id
from fe_twisted.protocols.crypto import scram, slots
from fe_twisted.storage.directory.api import Account, Alias, AliasState, Directory, Domain, KeySlot

#: The account of domains that were added without naming one.
DEFAULT_ACCOUNT = "default"

Action = Literal["enable", "discard", "defer", "reject"]
_STATES: dict[str, AliasState] = {
    "enable": AliasState.ENABLED,
    "discard": AliasState.DISCARD,
    "defer": AliasState.DEFER,
    "reject": AliasState.REJECT,
}


class MailboxStore(Protocol):
    """The mailbox files; :class:`fe_twisted.storage.mailbox.files.MailboxFiles` is one."""

    def create(self, mailbox_id: str, key: bytes, /) -> bytes:
        """Make an empty mailbox under a raw key of 32 octets, durable; returns its public sealing key."""

    def delete(self, mailbox_id: str, /) -> None:
        """Remove a mailbox with everything beside it; nothing happens when it is not there."""

    def ids(self) -> Iterable[str]:
        """The ids of all mailboxes that are there."""


@dataclass(frozen=True, slots=True)
class NewPassword:
    """A password that was just made; it is kept nowhere, so this is the one time that it can be shown."""

    address: str
    password: str = field(repr=False)


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Accounts:
    """The administrative actions over a directory and the mailbox files.

    :param location: what the directory calls the primary whose files these are; empty on a box without mailboxes.
    :param now: the current time, aware.
    :param random: octets from a cryptographic source.
    """

    def __init__(
        self,
        directory: Directory,
        files: MailboxStore,
        *,
        location: str = "local",
        now: Callable[[], datetime.datetime] = _utc_now,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._directory = directory
        self._files = files
        self._location = location
        self._now = now
        self._random = random

    # -- domains ----------------------------------------------------------------------------------

    def add_domain(self, name: str, account: str = DEFAULT_ACCOUNT) -> Domain:
        """Take mail for a domain; the account is made if it is not there.

        :raises AlreadyExists, BadAddress:
        """
        normalise_domain(name)
        return self._directory.add_domain(name, self._account(account).id)

    def remove_domain(self, name: str) -> None:
        """:raises NotFound: no such domain.
        :raises Refused: it still has aliases.
        """
        self._directory.remove_domain(name)

    def domains(self) -> list[Domain]:
        """All, by name."""
        return self._directory.domains()

    def _account(self, name: str) -> Account:
        for account in self._directory.accounts():
            if account.name == name:
                return account
        return self._directory.add_account(name)

    # -- aliases ----------------------------------------------------------------------------------

    def add_alias(self, address: str, location: str | None = None) -> Alias:
        """Take mail for an address.  It has no mailbox until :meth:`new_password` makes one.

        :param location: which primary will have the mailbox; None for the one whose files these are.
        :raises AlreadyExists, UnknownDomain, BadAddress:
        :raises Refused: these are nobody's, and no location was given.
        """
        if not (location or self._location):
            raise Refused("this box has no mailboxes; say which primary will have this one (--location NAME)")
        try:
            return self._directory.add_alias(address, location or self._location)
        except UnknownDomain as error:
            domain = parse_address(address).domain
            raise UnknownDomain(f"{domain} is not a domain of this server; add it first") from error

    def remove_alias(self, address: str) -> Alias:
        """Remove an alias with its mailbox and all mail in it.

        :raises NotFound, BadAddress:
        :raises Refused: the mailbox is at another primary.
        """
        alias = self.show_alias(address)
        if alias.mailbox_id is not None:
            self._expect_here(alias)
        removed = self._directory.remove_alias(address)
        if removed.mailbox_id is not None:
            self._files.delete(removed.mailbox_id)
        return removed

    def place_alias(self, address: str, location: str) -> Alias:
        """Say which primary will have the mailbox of an alias that has none yet.

        :raises NotFound, BadAddress:
        :raises Busy: it has one meanwhile; nothing was changed.
        """
        return self._directory.place_alias(address, location)

    def rename_location(self, old: str, new: str) -> int:
        """Give a primary another name; returns how many aliases it has.  No process may have its mailboxes open meanwhile.

        :raises NotFound: it has no alias.
        :raises AlreadyExists: another one is called so.
        """
        return self._directory.rename_location(old, new)

    def strays(self, known: Collection[str]) -> dict[str, int]:
        """Mailboxes whose files are here and whose location is neither this primary's nor one of ``known``, by location.

        Empty when any mailbox of this primary is here: then its name is right.  An alias of that location, or a mailbox without a file, is
        no sign: it may be that of another primary, whose location was written down here too.
        """
        here = set(self._files.ids())
        everywhere = self._directory.elsewhere("") if here else {}
        places = Counter(place for id, place in everywhere.items() if id in here)
        return {} if self._location in places else {place: number for place, number in places.items() if place not in known}

    def aliases(self, domain: str | None = None) -> list[Alias]:
        """All, or those of one domain, by address.

        :raises NotFound: no such domain.
        """
        if domain is not None and self._directory.domain(domain) is None:
            raise NotFound(f"{normalise_domain(domain)} is not a domain of this server")
        return self._directory.aliases(domain)

    def show_alias(self, address: str) -> Alias:
        """:raises NotFound, BadAddress:"""
        alias = self._directory.alias(address)
        if alias is None:
            raise NotFound(f"there is no alias {parse_address(address).normalise()}")
        return alias

    def set_state(self, address: str, action: Action) -> Alias:
        """Switch an alias on, or off with what becomes of its mail.

        :raises NotFound, BadAddress:
        :raises Refused: no such action.
        """
        if action not in _STATES:
            raise Refused(f"an alias can be switched to {', '.join(_STATES)}, not to {action!r}")
        self._directory.set_alias_state(address, _STATES[action])
        return self.show_alias(address)

    def hide(self, address: str, hide: Iterable[str], show: Iterable[str]) -> Alias:
        """Hide IMAP capabilities from the clients of an alias, or show them again; it counts from the next login.

        :param hide, show: names in any case; what is in both is shown.
        :raises NotFound, BadAddress:
        """
        shown = {name.upper() for name in show}
        hidden = ({name.upper() for name in hide} | set(self.show_alias(address).hidden)) - shown
        self._directory.set_hidden(address, hidden)
        return self.show_alias(address)

    # -- passwords and keys -----------------------------------------------------------------------

    def new_password(
        self,
        address: str,
        *,
        current_password: str | None = None,
        discard_mailbox: bool = False,
        show: Callable[[NewPassword], None] | None = None,
    ) -> NewPassword:
        """Generate a password.

        The first one makes the mailbox.  After that either the current password must be given, and the mail stays, or the mailbox is
        discarded with all mail in it: nothing on the server opens it without a password.

        :param show: called with the password just before it comes into force.  A password that was never shown would lock its owner
            out for good, so whoever prints it does it here: if printing fails, or the power does, the old password is still good.
        :raises WrongPassword: the current password opens no key slot.
        :raises Refused: there is a mailbox, and not exactly one of the two was said.
        :raises Refused: a mailbox is to be made or discarded, and its files are at another primary.
        :raises Busy: somebody else changed it at the same time; nothing was done.
        :raises NotFound, BadAddress:
        """
        alias = self.show_alias(address)
        if alias.mailbox_id is None or discard_mailbox:
            self._expect_here(alias)
        if alias.mailbox_id is None:
            if current_password is not None:
                raise Refused(f"{alias.address} has no mailbox yet, so it has no current password; leave it out")
            return self._make_mailbox(alias, show)
        if (current_password is not None) == discard_mailbox:
            raise Refused(
                f"{alias.address} has a mailbox that only its password opens. Give the current password to keep the mail, "
                "or say that the mailbox is to be discarded, which deletes all mail in it for good."
            )
        if current_password is None:
            return self._make_mailbox(alias, show)
        slot, key = self._open(alias, current_password)
        password = slots.generate_password(self._random)
        made = NewPassword(alias.address, password)
        if show is not None:
            show(made)
        self._directory.replace_slot(alias.id, slot.id, self._slot(alias.mailbox_id, key, password, slot.label))
        return made

    def unlock(self, address: str, password: str) -> tuple[Alias, bytes]:
        """The alias and its mailbox key.

        :raises WrongPassword: no key slot opens.
        :raises NotReady: the alias has no mailbox yet.
        :raises NotFound, BadAddress:
        """
        alias = self.show_alias(address)
        if alias.mailbox_id is None:
            raise NotReady(f"{alias.address} has no mailbox yet; make a password for it first")
        return alias, self._open(alias, password)[1]

    def check(self) -> list[str]:
        """What directory and files disagree about, as sentences; empty when all is well."""
        owners = {alias.mailbox_id: alias for alias in self._directory.aliases() if alias.mailbox_id}
        here = {id for id, alias in owners.items() if alias.location == self._location}
        there = set(self._files.ids())
        missing = [
            f"the mailbox file {id} of {owners[id].address} is missing; restore it from a backup "
            f"(or is it on another box, whose setting location is {self._location} too? Each primary needs its own)"
            for id in sorted(here - there)
        ]
        moved = [
            f"the mailbox {id} of {owners[id].address} is at {owners[id].location}, and a copy of its file is here; "
            "the server removes it once that primary has confirmed that it has the mailbox"
            for id in sorted(there & (owners.keys() - here))
        ]
        orphans = [f"the mailbox file {id} belongs to no alias; it can be deleted" for id in sorted(there - owners.keys())]
        return missing + moved + orphans

    def _expect_here(self, alias: Alias) -> None:
        """:raises Refused: its files are not these."""
        if alias.location != self._location:
            raise Refused(f"the mailbox of {alias.address} belongs to the primary {alias.location}; do this on the box of that primary")

    def _make_mailbox(self, alias: Alias, show: Callable[[NewPassword], None] | None) -> NewPassword:
        """A new mailbox in the place of the old one, if there is an old one."""
        mailbox_id, key, password = object_id(), self._random(32), slots.generate_password(self._random)
        made = NewPassword(alias.address, password)
        slot = self._slot(mailbox_id, key, password, "")
        sealing_key = self._files.create(mailbox_id, key)
        try:
            if show is not None:
                show(made)
            self._directory.set_mailbox(alias.id, mailbox_id, sealing_key, [slot], replaces=alias.mailbox_id)
        except Exception:
            # Nobody knows the password of the new file, unless the commit went through and only its answer was lost.
            current = self._directory.alias(alias.address)
            if current is None or current.mailbox_id != mailbox_id:
                self._files.delete(mailbox_id)
            raise
        if alias.mailbox_id is not None:
            self._files.delete(alias.mailbox_id)
        return made

    def _slot(self, mailbox_id: str, key: bytes, password: str, label: str) -> KeySlot:
        wrapped = slots.make_slot(key, password, mailbox_id=mailbox_id, salt=self._random(32), nonce=self._random(12))
        created_at = self._now().astimezone(datetime.UTC).isoformat(timespec="seconds")
        both = scram.extend(wrapped.wrapped, key, password, mailbox_id=mailbox_id, nonce=self._random(12))
        return KeySlot(0, slots.PASSWORD, label, wrapped.kdf, wrapped.salt, both, created_at)

    def _open(self, alias: Alias, password: str) -> tuple[KeySlot, bytes]:
        """The slot that a password opens, and the mailbox key.

        :raises WrongPassword: none does.
        """
        for slot in self._directory.key_slots(alias.id):
            try:
                key = slots.open_slot(slot.kdf, slot.salt, slot.wrapped, password, mailbox_id=alias.mailbox_id or "", kind=slot.kind)
            except ValueError as error:
                # A slot that cannot be read spoils itself only.
                log.warning("accounts.bad_slot", address=alias.address, slot=slot.id, reason=str(error))
                continue
            if key is not None:
                return slot, key
        raise WrongPassword("the password is wrong")
