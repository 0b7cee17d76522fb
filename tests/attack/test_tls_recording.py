"""Attack: somebody records TLS connections today and gets the certificate's private key tomorrow.

Every key exchange has to be ephemeral, with RSA certificates too, where TLS 1.2 also knows one that is not.
"""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from fe_twisted.servers.tls import ServerTLS

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTLS:
    """With a self-signed RSA certificate."""
    folder: Path = tmp_path_factory.mktemp("rsa")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    day = datetime.timedelta(days=1)
    made = builder.not_valid_before(NOW - day).not_valid_after(NOW + day).sign(key, hashes.SHA256())
    (folder / "c.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "k.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return ServerTLS(folder / "c.pem", folder / "k.pem")


def handshake(tls: ServerTLS, ciphers: bytes) -> str:
    """The cipher that a TLS 1.2 client with this list gets.

    :raises SSL.Error: they have none in common.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(ciphers)
    no_protocol: Any = None
    client, server = SSL.Connection(context, None), tls.serverConnectionForTLS(no_protocol)
    client.set_connect_state()
    server.set_accept_state()
    for _ in range(6):
        for one, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))
    return str(client.get_cipher_name())


@pytest.mark.parametrize("ciphers", [b"kRSA:@SECLEVEL=0", b"AES256-GCM-SHA384", b"AES128-SHA"])
def test_a_key_exchange_that_the_certificates_key_opens_is_refused(tls: ServerTLS, ciphers: bytes) -> None:
    with pytest.raises(SSL.Error):
        handshake(tls, ciphers)


@pytest.mark.parametrize("ciphers", [b"DEFAULT", b"ALL:@SECLEVEL=0", b"ECDHE-RSA-AES128-SHA"])
def test_what_other_clients_get_is_ephemeral(tls: ServerTLS, ciphers: bytes) -> None:
    assert handshake(tls, ciphers).startswith(("ECDHE-", "DHE-"))
