"""Who is there: versions, then a proof by each side that it has the link secret.

===========  =======================================================================================
secondary    ``Hello`` with its nonce
primary      ``Hello`` with its nonce, or ``Refuse``
secondary    ``Proof``: an HMAC over both hellos, octet for octet, and the TLS channel (RFC 9266)
primary      ``Proof``, made with another label, so that neither can be sent back to its maker
===========  =======================================================================================

A replayed proof fails because the other nonce is new; one that was passed on through somebody else's TLS connection fails because the
channel is another one.  The primary says nothing but its own hello to anybody who has not proved himself.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fe_twisted.protocols.cluster.frames import NONCE, Frame, Hello, Proof, encode
from fe_twisted.protocols.cluster.keys import LinkKeys

#: The versions of the protocol that this program speaks.  Raise LOWEST only after a release that spoke both.
LOWEST, HIGHEST = 1, 1

#: Octets of a link secret at least.
SECRET = 32


class Reason(enum.StrEnum):
    """Why a connection was refused; goes to the other side and into the log."""

    BAD_FRAME = "bad-frame"
    TOO_LARGE = "too-large"
    UNEXPECTED = "unexpected-frame"
    WRONG_VERSION = "wrong-version"
    WRONG_ROLE = "wrong-role"
    WRONG_SECRET = "wrong-secret"
    WRONG_CERTIFICATE = "wrong-certificate"
    REPLAYED = "replayed"
    CREDIT_EXCEEDED = "credit-exceeded"
    TOO_MANY_CALLS = "too-many-calls"


class Refusal(Exception):
    """The other side is not, or does not, as agreed; the connection must end.

    :param told: True when it was the other side that refused.
    """

    def __init__(self, reason: str, text: str, *, told: bool = False) -> None:
        super().__init__(text)
        self.reason = reason
        self.told = told


@dataclass(frozen=True, slots=True)
class Identity:
    """What a side says of itself."""

    name: str
    lowest: int = LOWEST
    highest: int = HIGHEST
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Agreed:
    """The outcome.

    :param version: the highest that both speak.
    :param peer: the other side's hello.
    """

    version: int
    peer: Hello
    keys: LinkKeys = field(repr=False)


class Handshake:
    """One side of it.

    :param secrets: link secrets, each at least 32 octets; the calling side has one, the answering side may have several while one is being
        replaced by another.
    :param binding: names the TLS channel, the same on both sides (RFC 9266 ``tls-exporter``); empty on a unix socket.
    :param random: gives that many random octets.
    :raises ValueError: no secret, or a short one.
    """

    def __init__(
        self,
        identity: Identity,
        secrets: Sequence[bytes],
        binding: bytes,
        *,
        calling: bool,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if not secrets or any(len(secret) < SECRET for secret in secrets):
            raise ValueError(f"a link secret of at least {SECRET} octets is needed")
        self._calling = calling
        self._secrets = secrets
        self._binding = binding
        role = "secondary" if calling else "primary"
        self._own = Hello(identity.lowest, identity.highest, role, identity.name, identity.capabilities, random(NONCE))
        self._own_octets = encode(self._own)
        self._peer: Hello | None = None
        self._transcript = b""
        #: Set when both have proved themselves.
        self.agreed: Agreed | None = None

    def start(self) -> list[Frame]:
        """What is to be sent at once."""
        return [self._own] if self._calling else []

    def receive(self, frame: Frame, octets: bytes) -> list[Frame]:
        """Take a frame; returns what is to be sent.

        :param octets: the frame as it was received.
        :raises Refusal: the other side cannot stay.
        """
        if isinstance(frame, Hello) and self._peer is None:
            return self._hello(frame, octets)
        if isinstance(frame, Proof) and self._peer is not None:
            return self._proof(frame, self._peer)
        raise Refusal(Reason.UNEXPECTED, f"{type(frame).__name__} in the handshake")

    def _hello(self, peer: Hello, octets: bytes) -> list[Frame]:
        if peer.role == self._own.role:
            raise Refusal(Reason.WRONG_ROLE, f"both sides are {peer.role}")
        if peer.highest < self._own.lowest or peer.lowest > self._own.highest or peer.lowest > peer.highest:
            raise Refusal(
                Reason.WRONG_VERSION,
                f"{self._own.name} speaks link versions {self._own.lowest} to {self._own.highest},"
                f" {peer.name} speaks {peer.lowest} to {peer.highest}: update the older one",
            )
        if hmac.compare_digest(peer.nonce, self._own.nonce):
            raise Refusal(Reason.REPLAYED, "the nonce is our own")
        self._peer = peer
        called, answered = (self._own_octets, octets) if self._calling else (octets, self._own_octets)
        digest = hashlib.sha256(b"forwardemail link handshake")
        for part in (called, answered, self._binding):
            digest.update(len(part).to_bytes(4, "big") + part)
        self._transcript = digest.digest()
        if self._calling:
            return [self._prove(self._secrets[0])]
        return [self._own]

    def _proof(self, proof: Proof, peer: Hello) -> list[Frame]:
        for secret in self._secrets:
            if hmac.compare_digest(proof.mac, self._mac(secret, peer.role)):
                break
        else:
            raise Refusal(Reason.WRONG_SECRET, "the proof does not fit: another link secret, or somebody between the two sides")
        keys = LinkKeys(secret, self._transcript, calling=self._calling)
        self.agreed = Agreed(min(peer.highest, self._own.highest), peer, keys)
        return [] if self._calling else [self._prove(secret)]

    def _prove(self, secret: bytes) -> Proof:
        return Proof(self._mac(secret, self._own.role))

    def _mac(self, secret: bytes, role: str) -> bytes:
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"forwardemail link proof of the " + role.encode()).derive(secret)
        return hmac.digest(key, self._transcript, "sha256")
