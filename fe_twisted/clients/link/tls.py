"""TLS towards a primary on another box: version 1.3, and a name for the channel that both ends agree on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto
from service_identity import VerificationError
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.protocols.tls import TLSMemoryBIOFactory

from fe_twisted.base.errors import BadSettings


def tls_endpoint(reactor: Any, host: str, port: int, *, authority: Path | None = None, verify: bool = True) -> Any:
    """An endpoint that connects by TLS 1.3; OpenSSL 3.5 and later offer X25519MLKEM768 first by themselves.

    :param authority: PEM file of certificates to trust instead of the system's.
    :param verify: whether the certificate must be ``host``'s.  Without it the connection is still nobody else's, because the proofs of the
        link secret name the TLS channel; but the secret alone then decides.
    :raises BadSettings: ``authority`` cannot be used.
    """
    options: dict[str, Any] = {"raiseMinimumTo": ssl.TLSVersion.TLSv1_3}
    endpoint: Any = HostnameEndpoint(reactor, host, port)
    context: Any = ssl.CertificateOptions(**options)
    if verify:
        trust = None if authority is None else _trusted(authority)
        context = ssl.optionsForClientTLS(host, trustRoot=trust, extraCertificateOptions=options)
    return _OverTls(endpoint, context, reactor)


class _OverTls:
    """An endpoint over TLS, as :func:`twisted.internet.endpoints.wrapClientTLS` makes it, but for whatever reactor it is given: that one's
    writes wait for the reactor of the process, which the command line does not run.
    """

    def __init__(self, endpoint: Any, context: Any, reactor: Any) -> None:
        self._endpoint = endpoint
        self._context = context
        self._reactor = reactor

    def connect(self, factory: Any) -> Deferred[Any]:
        """Connect; fires with the factory's protocol."""
        wrapped: Any = TLSMemoryBIOFactory(self._context, True, factory, clock=self._reactor)
        connecting: Deferred[Any] = self._endpoint.connect(wrapped)
        return connecting.addCallback(lambda protocol: protocol.wrappedProtocol)


def _trusted(authority: Path) -> Any:
    """:raises BadSettings: no certificates."""
    end = b"-----END CERTIFICATE-----"
    certificate: Any = ssl.Certificate
    roots: Any = ssl.trustRootFromCertificates
    try:
        blocks = authority.read_bytes().split(end)[:-1]
        found = [certificate(crypto.load_certificate(crypto.FILETYPE_PEM, block + end)) for block in blocks]
    except (OSError, crypto.Error, ValueError) as error:
        raise BadSettings(f"certificates in {authority} cannot be used: {error}") from error
    if not found:
        raise BadSettings(f"there is no certificate in {authority}")
    return roots(found)


def untrusted(error: object) -> str:
    """Why a connection ended, if that was for the certificate of the other side; else an empty text.

    :param error: what Twisted says of the end.
    """
    if isinstance(error, VerificationError):
        return "the certificate there is for another name than the one in the address"
    if isinstance(error, SSL.Error) and "certificate verify failed" in str(error):
        return "the certificate there has expired or is not valid yet, or is not one that is trusted here (link_authority)"
    return ""


def binding_of(transport: Any) -> bytes:
    """What names this TLS connection and no other, the same at both ends (RFC 9266 ``tls-exporter``); empty without TLS.

    :param transport: a Twisted transport after its handshake.
    """
    handle = getattr(transport, "getHandle", lambda: None)()
    if not isinstance(handle, SSL.Connection):
        return b""
    return bytes(handle.export_keying_material(b"EXPORTER-Channel-Binding", 32, b""))
