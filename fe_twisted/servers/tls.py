"""TLS for every listener, by pyOpenSSL through Twisted: TLS 1.2 and up, hybrid post-quantum key exchange first.

OpenSSL 3.5 and later prefer X25519MLKEM768 by default and negotiate it whenever the client offers it.  The certificate can be changed while
connections live: a new context is used for new handshakes, old connections keep theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from fe_twisted.base.errors import BadSettings

#: SSL_MODE_RELEASE_BUFFERS: an idle connection gives its 2 × 17 KB read and write buffers back (not named by pyOpenSSL).
RELEASE_BUFFERS = 0x10

#: For TLS 1.2: OpenSSL's own choice without the key exchanges that the certificate's key could open afterwards.
CIPHERS = b"DEFAULT:!kRSA:!kPSK:!aNULL"


@dataclass(frozen=True, slots=True)
class TLSInfo:
    """What was negotiated, for the log, ``Received:`` and ID."""

    version: str
    cipher: str
    group: str

    def __str__(self) -> str:
        return f"{self.version} {self.cipher} {self.group}"


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Makes the server side of TLS connections from a certificate chain and key in PEM files.

    :raises BadSettings: a file is missing or the key does not belong to the certificate.
    """

    def __init__(self, certificate: Path, key: Path, minimum: str = "1.2") -> None:
        self._certificate = certificate
        self._key = key
        self._minimum = SSL.TLS1_3_VERSION if minimum == "1.3" else SSL.TLS1_2_VERSION
        self._context = self._make()

    def reload(self) -> None:
        """Read the files again; connections that live keep what they have.

        :raises BadSettings: the new files cannot be used; the old certificate stays in force.
        """
        self._context = self._make()

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """For Twisted: a new connection object with the current context."""
        return SSL.Connection(self._context, None)

    def _make(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(self._minimum)
        context.set_cipher_list(CIPHERS)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_mode(RELEASE_BUFFERS)
        context.set_session_id(b"forwardemail")
        try:
            context.use_certificate_chain_file(str(self._certificate))
            context.use_privatekey_file(str(self._key))
            context.check_privatekey()
        except (SSL.Error, OSError) as error:
            raise BadSettings(f"TLS certificate {self._certificate} with key {self._key} cannot be used: {error}") from error
        return context


def negotiated(transport: Any) -> TLSInfo | None:
    """What a transport negotiated, or None when it is not (yet) TLS.

    :param transport: a Twisted transport, after its handshake.
    """
    handle = getattr(transport, "getHandle", lambda: None)()
    if not isinstance(handle, SSL.Connection):
        return None
    return TLSInfo(
        version=str(handle.get_protocol_version_name()).replace("TLSv", "TLS"),
        cipher=str(handle.get_cipher_name()),
        group=str(handle.get_group_name() or ""),
    )


def exporter(transport: Any) -> bytes:
    """The channel binding ``tls-exporter`` of a transport (RFC 9266), empty when there is none.

    With TLS 1.2 there is none here: it would be sound only with the extended master secret, which cannot be asked for.
    """
    handle = getattr(transport, "getHandle", lambda: None)()
    if not isinstance(handle, SSL.Connection) or handle.get_protocol_version_name() != "TLSv1.3":
        return b""
    try:
        return handle.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
    except SSL.Error:  # the handshake has not ended
        return b""
