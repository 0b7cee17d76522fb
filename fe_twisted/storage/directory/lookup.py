"""What servers ask the directory, asynchronous: inline when it is a file, in a thread when it is across a network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from fe_twisted.base.addresses import Address
from fe_twisted.base.errors import UnknownDomain, UnknownRecipient
from fe_twisted.storage.directory.api import Alias, KeySlot
from fe_twisted.storage.directory.sql import SqlDirectory

_T = TypeVar("_T")

#: ``run(function, *arguments)`` gives an awaitable for the function's result, which is computed in a thread.
RunInThread = Callable[..., Awaitable[Any]]

#: Recipients, and as many logins, remembered while nothing changes in an embedded directory; about 2 KB each.
REMEMBERED = 10_000


class Lookups:
    """The look-ups on the delivery and the login path.

    :param run_in_thread: needed for a directory that is not embedded; an embedded one answers inline, which is faster than a thread.
    """

    def __init__(self, directory: SqlDirectory, run_in_thread: RunInThread | None = None) -> None:
        if not directory.embedded and run_in_thread is None:
            raise ValueError("a directory across a network needs run_in_thread, or the reactor would wait for it")
        self._directory = directory
        self._run = None if directory.embedded else run_in_thread
        self._known: dict[Address, Alias] = {}
        self._logins: dict[Address, tuple[Alias, list[KeySlot]]] = {}
        self._version = -1

    async def recipient(self, address: Address) -> Alias:
        """The alias that takes mail for an address, in whatever state it is.

        First exactly this address, then without plus-addressing.  ``postmaster`` of any of our domains is always somebody (RFC 5321 section
        4.5.1): the alias of that name, or else the oldest enabled alias of the domain that has a mailbox.  The bare
        :data:`~fe_twisted.base.addresses.POSTMASTER` is the same over all domains, the oldest domain first.

        An embedded directory tells cheaply whether anybody changed it; as long as nobody does, an answer is remembered.

        :raises UnknownDomain: not one of our domains.
        :raises UnknownRecipient: our domain, and no such alias.
        """
        if self._run is not None:
            return await self._find(address)
        self._forget()
        alias = self._known.get(address)
        if alias is None:
            alias = self._known[address] = await self._find(address)
        return alias

    def _forget(self) -> None:
        """What is no longer so, as somebody has changed something; or everything, before it gets too much."""
        version = self._directory.version()
        if version != self._version or max(len(self._known), len(self._logins)) >= REMEMBERED:
            self._known.clear()
            self._logins.clear()
            self._version = version

    async def _find(self, address: Address) -> Alias:
        address = address.normalise()
        if not address.domain:
            found = await self._call(self._directory.postmaster, None) if address.base_address().local == "postmaster" else None
            if found is None:
                raise UnknownRecipient
            return found
        known, alias = await self._call(self._directory.recipient, address)
        if not known:
            raise UnknownDomain
        if alias is None and address.base_address().local == "postmaster":
            alias = await self._call(self._directory.postmaster, address.domain)
        if alias is None:
            raise UnknownRecipient
        return alias

    async def login(self, address: Address) -> tuple[Alias, list[KeySlot]] | None:
        """The alias of exactly this address with all its key slots, in whatever state it is; None when there is none.

        It is remembered like the answer of :meth:`recipient`, except that there is none: a name that was made up must not cost memory.
        """
        address = address.normalise()
        if self._run is not None:
            return await self._call(self._directory.login, address)
        self._forget()
        found = self._logins.get(address)
        if found is None:
            found = self._directory.login(address)
            if found is not None:
                self._logins[address] = found
        return found

    async def owner(self, mailbox_id: str) -> Alias | None:
        """The alias that has a mailbox; None when nobody has it (any more)."""
        return await self._call(self._directory.owner, mailbox_id)

    async def location_of(self, mailbox_id: str) -> str | None:
        """Which primary has a mailbox; None when nobody has it (any more)."""
        found = await self.owner(mailbox_id)
        return found.location if found is not None else None

    async def elsewhere(self, location: str) -> dict[str, str]:
        """See :meth:`fe_twisted.storage.directory.api.Directory.elsewhere`."""
        return await self._call(self._directory.elsewhere, location)

    async def set_location(self, mailbox_id: str, location: str, replaces: str) -> None:
        """See :meth:`fe_twisted.storage.directory.api.Directory.set_location`."""
        await self._call(partial(self._directory.set_location, replaces=replaces), mailbox_id, location)

    async def generation(self) -> int:
        """See :meth:`fe_twisted.storage.directory.api.Directory.generation`."""
        return await self._call(self._directory.generation)

    async def _call(self, function: Callable[..., _T], *arguments: object) -> _T:
        if self._run is None:
            return function(*arguments)
        result: _T = await self._run(function, *arguments)
        return result
