"""TLS on every door: versions, key exchange, injection, certificate change."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import imaplib
import os
import re
import signal
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from tests.whole.daemon import Daemon, Owner, simple, trusting, until
from tests.whole.wire import Imap, Smtp, Wire

#: What is sent before the handshake, line by line; each line is answered.
BEFORE = {"imaps": (), "imap": (b"1 STARTTLS",), "mx": (b"EHLO client.example.net", b"STARTTLS")}


def _handshake(daemon: Daemon, door: str, context: SSL.Context | None = None) -> SSL.Connection:
    """A TLS client by pyOpenSSL, whose OpenSSL is the one that the program uses."""
    plain = socket.create_connection(("127.0.0.1", daemon.port(door)))
    reader = plain.makefile("rb")
    if BEFORE[door]:
        reader.readline()
    for line in BEFORE[door]:
        plain.sendall(line + b"\r\n")
        while reader.readline()[3:4] == b"-":
            pass
    connection = SSL.Connection(context or SSL.Context(SSL.TLS_METHOD), plain)
    connection.set_connect_state()
    connection.do_handshake()
    return connection


@pytest.mark.parametrize("door", ["imaps", "imap", "mx"])
def test_hybrid_key_exchange(daemon: Daemon, door: str) -> None:
    """X25519MLKEM768 when the client can (and OpenSSL 3.5 and later can by default)."""
    connection = _handshake(daemon, door)
    assert connection.get_group_name() == "X25519MLKEM768"
    assert connection.get_protocol_version_name() == "TLSv1.3"
    connection.close()


def test_the_received_field_names_the_hybrid_group(daemon: Daemon, owner: Owner) -> None:
    connection = _handshake(daemon, "mx")
    for step in (b"EHLO c", b"MAIL FROM:<a@example.net>", b"RCPT TO:<" + owner.address.encode() + b">", b"DATA", simple("hybrid") + b"."):
        connection.sendall(step + b"\r\n")
        assert connection.recv(4096)[:1] in b"23"
    connection.close()
    (stored,) = daemon.messages(owner)
    assert b"group X25519MLKEM768" in stored


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_that_are_spoken(daemon: Daemon, owner: Owner, version: ssl.TLSVersion) -> None:
    context = trusting()
    context.minimum_version = context.maximum_version = version
    client = imaplib.IMAP4_SSL("127.0.0.1", daemon.port("imaps"), ssl_context=context)
    client.login(owner.address, owner.password)
    client.logout()


def test_old_versions_are_not(daemon: Daemon) -> None:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    context.set_max_proto_version(SSL.TLS1_1_VERSION)
    with pytest.raises(SSL.Error):
        _handshake(daemon, "imaps", context)
    assert daemon.imaps().logout()[0] == "BYE"


def test_smtp_starttls_injection(daemon: Daemon, owner: Owner) -> None:
    """What was sent before the handshake is discarded (CVE-2011-0411)."""
    with Smtp(daemon) as smtp:
        smtp.hello()
        smtp.send(b"STARTTLS\r\nMAIL FROM:<evil@example.net>\r\nRCPT TO:<" + owner.address.encode() + b">\r\n")
        assert smtp.reply().startswith(b"220")
        smtp.start_tls()
        assert smtp.silent(), "no answer to what came before the handshake"
        smtp.send(b"RCPT TO:<" + owner.address.encode() + b">\r\n")
        assert smtp.reply().startswith(b"503"), "EHLO and MAIL of before the handshake are forgotten"
        smtp.hello()
        assert smtp.ask(b"STARTTLS").startswith(b"503")


def test_imap_starttls_injection(daemon: Daemon, owner: Owner) -> None:
    with Imap(daemon, door="imap") as imap:
        imap.send(b"1 STARTTLS\r\n2 LOGIN " + owner.address.encode() + b" " + owner.password.encode() + b"\r\n3 NOOP\r\n")
        assert imap.line().startswith(b"1 OK")
        imap.start_tls()
        assert imap.silent()
        assert b"BAD" in imap.ask(b"SELECT INBOX")[-1], "not logged in by what came before the handshake"
        (capability, _) = imap.ask(b"CAPABILITY")
        assert b"STARTTLS" not in capability and b"AUTH=PLAIN" in capability


def test_no_tls_where_tls_is_due(daemon: Daemon) -> None:
    """Plain commands on the TLS port end that connection and nothing else."""
    with Wire(daemon.port("imaps")) as wire:
        wire.send(b"1 CAPABILITY\r\n" * 100)
        wire.socket.settimeout(20)
        with contextlib.suppress(ConnectionResetError):
            assert b"CAPABILITY" not in wire.rest()
    assert daemon.imaps().logout()[0] == "BYE"


def test_garbage_after_starttls(daemon: Daemon) -> None:
    with Smtp(daemon) as smtp:
        smtp.hello()
        assert smtp.ask(b"STARTTLS").startswith(b"220")
        smtp.send(os.urandom(5000))
        try:
            rest = smtp.rest()
        except ConnectionResetError:
            rest = b""
        assert not rest.startswith(b"2")
    with Smtp(daemon) as smtp:
        smtp.hello()


def test_login_needs_tls(fresh: Daemon) -> None:
    """Without TLS a password is refused, from loopback too unless the setting allows it."""
    owner = fresh.owner("hello")
    fresh.start({"FORWARDEMAIL_PLAINTEXT_LOGIN_FROM_LOOPBACK": "false"})
    with Imap(fresh, door="imap") as imap:
        capability = imap.ask(b"CAPABILITY")[0]
        assert b"LOGINDISABLED" in capability and b"STARTTLS" in capability and b"AUTH=PLAIN" not in capability
        refused = imap.ask(f"LOGIN {owner.address} {owner.password}".encode())[-1]
        assert b"NO" in refused and b"PRIVACYREQUIRED" in refused
        assert b" NO " in imap.ask(b"AUTHENTICATE PLAIN AGEAYg==")[-1]
    client = imaplib.IMAP4("127.0.0.1", fresh.port("imap"))
    client.starttls(trusting())
    client.login(owner.address, owner.password)
    client.logout()
    fresh.restart()
    client = imaplib.IMAP4("127.0.0.1", fresh.port("imap"))
    client.login(owner.address, owner.password)
    client.logout()


def _certificate(name: str) -> tuple[bytes, bytes]:
    """A new self-signed certificate and its key in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM), secret


def _fingerprint(daemon: Daemon) -> str:
    with socket.create_connection(("127.0.0.1", daemon.port("imaps")), 20) as plain, trusting().wrap_socket(plain) as tls:
        return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Replace a file as certificate clients do."""
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_bytes(content)
    new.rename(path)


def test_certificate_reload(fresh: Daemon) -> None:
    """SIGHUP: new handshakes get the new certificate, sessions go on; a pair that does not match changes nothing."""
    owner = fresh.owner("hello")
    fresh.start()
    assert fresh.process is not None
    first = _fingerprint(fresh)
    certificate, key = _certificate("second.example")
    with Imap(fresh, owner, "INBOX") as imap, Smtp(fresh) as smtp:
        smtp.envelope(owner.address)
        tag = imap.idle()
        _write(fresh.data / "tls" / "certificate.pem", certificate)
        _write(fresh.data / "tls" / "key.pem", key)
        fresh.process.send_signal(signal.SIGHUP)
        second = until(lambda: (now := _fingerprint(fresh)) != first and now, "the new certificate")
        assert second == hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.decode())).hexdigest()
        assert smtp.data(simple("across the reload")).startswith(b"250")
        imap.wait_for(rb"^\* 1 EXISTS")
        assert b"OK" in imap.done(tag)[-1]
        _write(fresh.data / "tls" / "key.pem", _certificate("third.example")[1])
        fresh.process.send_signal(signal.SIGHUP)
        until(lambda: re.search(r"tls|certificate", fresh.log().splitlines()[-1], re.IGNORECASE), "the refusal in the log")
        assert _fingerprint(fresh) == second
        assert b"OK" in imap.ask(b"NOOP")[-1]
    fresh.expected.append(r"certificate|tls")
