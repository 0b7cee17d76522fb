"""The password check: which mailbox key does this password open?"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred

from fe_twisted.base import log
from fe_twisted.base.addresses import Address, parse_address
from fe_twisted.base.clock import Clock
from fe_twisted.base.errors import BadAddress, WrongPassword
from fe_twisted.base.networks import network_of
from fe_twisted.protocols.crypto import scram, slots
from fe_twisted.protocols.sasl.scram import Answer, client_key, server_signature
from fe_twisted.services.login.failures import Failures
from fe_twisted.services.login.throttle import LoginLimits
from fe_twisted.storage.directory.api import Alias, AliasState, KeySlot
from fe_twisted.storage.directory.lookup import Lookups

#: Octets; more than any person or password manager uses, and bounded because Argon2id reads all of it.
MAX_PASSWORD = 1024

#: ``run(function, *arguments)`` gives an awaitable for the function's result, computed in a thread.
RunInThread = Callable[..., Awaitable[Any]]

#: Opened when there is nothing to open, so that an unknown user name costs the work of a known one.  It opens with no password.
_DECOY = slots.Wrapped(slots.HKDF_SHA256, bytes(32), b"\x01" + bytes(60))


@dataclass(frozen=True, slots=True)
class Opened:
    """A login that succeeded.

    :param mailbox_key: 32 octets, the raw key of the mailbox file.
    """

    alias: Alias
    mailbox_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ScramAttempt:
    """A login by SCRAM that has begun (RFC 5802).

    :param salt: for the server's first message, with :attr:`iterations`.
    :param candidates: the credentials that may be meant; empty for users who cannot log in.
    """

    login: Login = field(repr=False)
    alias: Alias | None
    candidates: list[tuple[KeySlot, scram.Verifier]] = field(repr=False)
    salt: bytes
    network: str
    name: str

    @property
    def iterations(self) -> int:
        """Rounds of PBKDF2, the same for everybody."""
        return scram.ITERATIONS

    async def finish(self, answer: Answer | None) -> tuple[Opened, bytes]:
        """The opened mailbox, and the server's last message.

        :param answer: what the client said; None when it was not an answer to what it was asked.
        :raises WrongPassword, TooManyConnections: as :meth:`Login.authenticate`.
        """
        return await self.login.scram_finished(self, answer)


class Login:
    """Checks passwords, and slows down those who guess.

    :param lookups: the directory.
    :param clock: tells the time and waits.
    :param limits: see :class:`~fe_twisted.services.login.throttle.LoginLimits`.
    :param decoy_secret: 32 octets that make up what SCRAM tells of users who are not there; the same after a restart, or they would
        be told from the others.  Random when left out.
    :param failures: counts failed logins, perhaps together with other processes; made from ``limits`` when left out.
    :param run_in_thread: for key slots that are slow by design (Argon2id); without it they are opened inline.
    """

    def __init__(
        self,
        lookups: Lookups,
        clock: Clock,
        limits: LoginLimits | None = None,
        run_in_thread: RunInThread | None = None,
        decoy_secret: bytes | None = None,
        failures: Failures | None = None,
    ) -> None:
        self._lookups = lookups
        self._clock = clock
        self._failures = failures or Failures(limits or LoginLimits(), clock)
        self._run = run_in_thread
        self._decoy_secret = decoy_secret or os.urandom(32)

    async def authenticate(self, user: bytes | str, password: bytes | str, *, peer: str) -> Opened:
        """Open the mailbox of ``user``.

        :param user: the full address; a local part alone is nobody.
        :param peer: the client's IP address.
        :raises WrongPassword: wrong password, no such user, alias switched off, no mailbox yet: nobody outside can tell which.
        :raises TooManyConnections: too many failures from there, or on this name.
        :raises Later, Ours: the directory cannot be asked; it does not count as a failure.
        """
        network = network_of(peer)
        address = _address(user)
        name = str(address) if address else "?"
        started = self._clock.seconds()
        await self._failures.check(network, name)
        opened = await self._open(address, _text(password, MAX_PASSWORD))
        if opened is not None:
            self._failures.succeeded(network, name)
            return opened
        await self._refuse(network, name, started)
        raise WrongPassword

    async def scram(self, user: str, *, peer: str) -> ScramAttempt:
        """Begin a login by SCRAM; who is not there, or switched off, is told a salt too.

        :param user: the full address.
        :param peer: the client's IP address.
        :raises TooManyConnections: too many failures from there, or on this name.
        :raises Later, Ours: the directory cannot be asked.
        """
        network = network_of(peer)
        address = _address(user)
        await self._failures.check(network, str(address) if address else "?")
        found = await self._lookups.login(address) if address else None
        mailbox_id = found[0].mailbox_id if found else None
        salt = scram.salt_of(mailbox_id) if mailbox_id else scram.decoy_salt(self._decoy_secret, str(address or user))
        candidates: list[tuple[KeySlot, scram.Verifier]] = []
        if found is not None and mailbox_id and found[0].state is AliasState.ENABLED:
            verifiers = [(slot, scram.verifier(slot.wrapped)) for slot in found[1]]
            candidates = [(slot, held) for slot, held in verifiers if held and (held.salt, held.iterations) == (salt, scram.ITERATIONS)]
        return ScramAttempt(self, found[0] if found else None, candidates, salt, network, str(address) if address else "?")

    async def scram_finished(self, attempt: ScramAttempt, answer: Answer | None) -> tuple[Opened, bytes]:
        """See :meth:`ScramAttempt.finish`."""
        started = self._clock.seconds()
        await self._failures.check(attempt.network, attempt.name)
        if answer is not None and attempt.alias is not None:
            for slot, held in attempt.candidates:
                key = client_key(answer, held.stored_key)
                mailbox_id = attempt.alias.mailbox_id or ""
                opened = scram.open_with(held, key, mailbox_id=mailbox_id, kind=slot.kind) if key is not None else None
                if opened is not None:
                    self._failures.succeeded(attempt.network, attempt.name)
                    return Opened(attempt.alias, opened), server_signature(answer, held.server_key)
        await self._refuse(attempt.network, attempt.name, started)
        raise WrongPassword

    async def _refuse(self, network: str, name: str, started: float) -> None:
        """Count a failure, and wait as long as it costs."""
        answer_at = started + await self._failures.failed(network, name)
        now = self._clock.seconds()
        # Counted from the start, so that the work of an Argon2id slot, or of no slot, cannot be read off the clock.
        if answer_at > now:
            wait: Deferred[None] = Deferred()
            self._clock.callLater(answer_at - now, wait.callback, None)
            await wait

    async def _open(self, address: Address | None, password: str | None) -> Opened | None:
        found = await self._lookups.login(address) if address else None
        if found is None or password is None or found[0].mailbox_id is None or found[0].state is not AliasState.ENABLED:
            slots.open_slot(_DECOY.kdf, _DECOY.salt, _DECOY.wrapped, password or "", mailbox_id="")
            return None
        alias, candidates = found
        for slot in sorted(candidates, key=lambda slot: slots.is_slow(slot.kdf)):
            key = await self._try(alias, slot, password)
            if key is not None:
                return Opened(alias, key)
        return None

    async def _try(self, alias: Alias, slot: KeySlot, password: str) -> bytes | None:
        """The mailbox key if this slot opens.  A slot that cannot be read spoils itself only."""
        try:
            if self._run is not None and slots.is_slow(slot.kdf):
                key: bytes | None = await self._run(_open_slot, alias.mailbox_id, slot, password)
                return key
            return _open_slot(alias.mailbox_id or "", slot, password)
        except ValueError as error:
            log.warning("login.bad_slot", address=alias.address, slot=slot.id, reason=str(error))
            return None


def _open_slot(mailbox_id: str, slot: KeySlot, password: str) -> bytes | None:
    return slots.open_slot(slot.kdf, slot.salt, slot.wrapped, password, mailbox_id=mailbox_id, kind=slot.kind)


def _text(value: bytes | str, most: int) -> str | None:
    """What was typed, as text; None for what no slot was ever made with."""
    octets = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
    if not octets or len(octets) > most:
        return None
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _address(user: bytes | str) -> Address | None:
    text = _text(user, 1024)
    try:
        return parse_address(text).normalise() if text else None
    except BadAddress:
        return None
