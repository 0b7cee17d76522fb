"""A certificate to start with: self-signed, ECDSA P-256."""

from __future__ import annotations

import datetime
import os
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fe_twisted.storage.vault.secret import write_secret

#: Nobody but the user decides about a self-signed certificate, so it may last; clients refuse what is longer than this.
DAYS = 825


def create_certificate(certificate: Path, key: Path, hostname: str, now: datetime.datetime) -> None:
    """Make a self-signed certificate for a host name, ``localhost``, 127.0.0.1 and ::1, and its key, mode 0600.

    :param hostname: or an IP address, for boxes that know each other by nothing else.
    :param now: aware; the certificate is valid from an hour before, as clocks differ.
    :raises AlreadyExists: one of the files is there; it is not touched.
    :raises BadSettings: the folder is not writable.
    """
    secret = ec.generate_private_key(ec.SECP256R1())
    # RFC 5280 appendix A.1: a common name has at most 64 characters; clients look at the alternative names anyway.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    # A client that was told an address compares it with the addresses only (RFC 9525 section 6.5), whatever the names look like.
    address = _address(hostname)
    names: list[x509.GeneralName] = [x509.DNSName(each) for each in dict.fromkeys([hostname, "localhost"]) if each != address]
    names += [x509.IPAddress(ip_address(each)) for each in dict.fromkeys([address or "127.0.0.1", "127.0.0.1", "::1"])]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(secret, hashes.SHA256())
    )
    pem = secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificate.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_secret(key, pem)
    # Also 0600 by this way of writing; a certificate is public, but nobody else needs this file.
    write_secret(certificate, made.public_bytes(serialization.Encoding.PEM))


def _address(hostname: str) -> str | None:
    """The host name if it is an IP address."""
    try:
        ip_address(hostname)
    except ValueError:
        return None
    return hostname


def days_left(certificate: Path, now: datetime.datetime) -> int:
    """Full days until the first certificate of a file ends; negative when it has ended.

    :raises OSError, ValueError: it cannot be read, or is no certificate.
    """
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    return (loaded.not_valid_after_utc - now) // datetime.timedelta(days=1)


def readable_by_others(key: Path) -> bool:
    """Whether somebody beside the owner and the group (a certificate tool's, perhaps) can read a key file.

    :raises OSError: it is not there.
    """
    return bool(os.stat(key).st_mode & 0o007)
