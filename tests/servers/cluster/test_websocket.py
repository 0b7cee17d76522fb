"""The link on Autobahn: any chunking, any peer, its limits, unix sockets and TLS."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import txaio
from OpenSSL import SSL, crypto
from twisted.internet import ssl
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from fe_twisted.app.certificates import create_certificate
from fe_twisted.clients.link.conversation import LinkLost
from fe_twisted.clients.link.link import Link
from fe_twisted.clients.link.tls import binding_of
from fe_twisted.clients.link.websocket import OPTIONS, PING, PONG, connector
from fe_twisted.protocols.cluster.frames import MAX_MESSAGE
from fe_twisted.protocols.cluster.handshake import Identity, Refusal
from fe_twisted.servers.cluster.websocket import GOODBYE, PROVE, LinkServerFactory
from fe_twisted.servers.tls import ServerTLS
from fe_twisted.storage.mailbox.api import NewMessage
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes
from fe_twisted.storage.mailbox.remote import open_remote
from tests.servers.cluster.wires import Network, Wire, logged
from tests.storage.mailbox.driving import ID, KEY, at_once, collect, nothing_waits
from tests.storage.mailbox.linked import SECRET, hosting
from tests.storage.mailbox.samples import ALL, mail, with_attachment

UID = os.getuid()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    clock.advance(1_790_000_000)
    monkeypatch.setattr(txaio.config, "loop", clock)  # Autobahn's own timers
    return clock


@pytest.fixture
def files(tmp_path: Path) -> MailboxFiles:
    files = MailboxFiles(tmp_path / "mailboxes")
    files.create(ID, KEY)
    return files


@pytest.fixture
def factory(files: MailboxFiles, clock: Clock) -> Iterator[LinkServerFactory]:
    mailboxes: OpenMailboxes[LocalMailbox] = OpenMailboxes(
        lambda mailbox_id, key: open_mailbox(files, mailbox_id, key, at_once, clock, nothing_waits), clock, grace=0
    )
    yield LinkServerFactory(hosting(mailboxes, files), clock, Identity("box"), [SECRET], networks=[ip_network("127.0.0.0/8")], most=3)
    clock.advance(PING + PONG + 30)
    assert len(mailboxes) == 0
    assert files.check(ID, KEY) == []


def link_to(network: Network, secret: bytes = SECRET, identity: Identity | None = None, **options: Any) -> Link:
    clock = network.clock
    link = Link(connector(network, clock, identity or Identity("worker"), secret, **options), clock, scatter=lambda: 0.5)
    link.start()
    network.move()
    return link


def done(network: Network, coroutine: Any) -> Any:
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    network.move()
    assert results, "still waiting"
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]


def end(network: Network, link: Link) -> None:
    link.stop()
    network.move()
    assert not network.factory_live()


@pytest.fixture
def network(factory: LinkServerFactory, clock: Clock) -> Callable[..., Network]:
    def make(**options: Any) -> Network:
        network = Network(factory, clock, **options)
        network.factory_live = lambda: factory.live  # type: ignore[attr-defined]
        return network

    return make


@pytest.mark.parametrize("chunk", [1, 2, 7, 1000, 65_536, 1 << 20])
@pytest.mark.parametrize("owner", [None, UID])
def test_a_mailbox_over_octets_in_any_chunks(network: Callable[..., Network], chunk: int, owner: int | None) -> None:
    """Over TCP's look the client's octets are masked, over a unix socket's they are not."""
    net = network(chunk=chunk, owner=owner)
    link = link_to(net, url="wss://primary/" if owner is None else "ws://primary/")
    mailbox = done(net, open_remote(link, ID, KEY, print))
    large = with_attachment(2, 1000 if chunk < 1000 else 700_000)
    done(net, mailbox.append("INBOX", [NewMessage(mail(1)), NewMessage(large)]))
    inbox = done(net, mailbox.select("INBOX", claim_recent=False)).folder_id
    assert done(net, collect(mailbox.fetch(inbox, ALL, ["content"]))) == [(mail(1),), (large,)]
    assert mailbox.modseq(inbox) > 1
    done(net, mailbox.close())
    end(net, link)


def test_a_slow_transport_pauses_the_answers_and_resumes_them(network: Callable[..., Network]) -> None:
    net = network(owner=UID)
    link = link_to(net)
    mailbox = done(net, open_remote(link, ID, KEY, print))
    done(net, mailbox.append("INBOX", [NewMessage(with_attachment(number, 150_000)) for number in range(10)]))
    inbox = done(net, mailbox.select("INBOX", claim_recent=False)).folder_id
    found: list[Any] = []
    Deferred.fromCoroutine(collect(mailbox.fetch(inbox, ALL, ["content"]))).addBoth(found.append)
    _client, up, server, down = net.ends[0]
    net._carry(up, server)
    held = len(down.value())
    assert 65_536 < held < 65_536 + 2 * MAX_MESSAGE, "after one piece the rest waits, though there is credit for four"
    net.move()
    assert len(found[0]) == 10
    done(net, mailbox.close())
    end(net, link)


@pytest.mark.parametrize("nonsense", [b"HELO there\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_who_speaks_no_websocket_is_logged_and_cut_off(factory: LinkServerFactory, clock: Clock, nonsense: bytes) -> None:
    """Also when he never hangs up, for which TLS would wait."""
    server = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4711))
    wire = Wire(IPv4Address("TCP", "127.0.0.1", 4711), None)
    server.makeConnection(wire)
    server.dataReceived(nonsense)
    clock.advance(GOODBYE + 0.1)
    assert wire.aborted
    with logged() as events:
        server.connectionLost(Failure(ConnectionLost()))
    assert [event["reason"] for event in events if event["event"] == "cluster.refused"] == ["no-websocket"]


def test_another_user_of_this_machine_is_refused(network: Callable[..., Network]) -> None:
    with logged() as events:
        link = link_to(network(owner=UID + 1))
    assert not link.connected
    assert {"event": "cluster.refused", "peer": "unix", "reason": "wrong-user", "text": "", "by": "us"} in events
    link.stop()


def test_an_address_that_is_not_on_the_list_is_refused(network: Callable[..., Network]) -> None:
    with logged() as events:
        link = link_to(network(address="192.0.2.1"))
    assert not link.connected
    assert [event["reason"] for event in events if event["event"] == "cluster.refused"] == ["wrong-address"]
    link.stop()


def test_a_wrong_secret_is_refused_by_name_on_both_sides_and_tried_ever_more_slowly(network: Callable[..., Network], clock: Clock) -> None:
    net = network(owner=UID)
    with logged() as events:
        link = link_to(net, b"x" * 32)
        for _ in range(200):
            clock.advance(0.5)
            net.move()
    refused = [event for event in events if event["event"] == "cluster.refused"]
    assert {event["reason"] for event in refused} == {"wrong-secret"} and refused[0]["peer"].endswith("unix")
    assert {event["reason"] for event in events if event["event"] == "link.refused"} == {"wrong-secret"}
    assert 10 < len(refused) < 30, "100 seconds, at most 10 apart"
    assert not link.connected
    end(net, link)


def test_with_an_older_secret_where_the_newest_is_not_known_yet(network: Callable[..., Network], clock: Clock) -> None:
    """Boxes get a new secret one after the other, and each links to all others meanwhile."""
    net = network(owner=UID)
    with logged() as events:
        link = link_to(net, b"n" * 32, older=[b"m" * 32, SECRET])
        for _ in range(10):
            clock.advance(0.5)
            net.move()
        assert link.connected
    assert [event["reason"] for event in events if event["event"] == "cluster.refused"] == ["wrong-secret"] * 2
    end(net, link)


def test_a_wrong_version_is_refused_with_a_clear_text(network: Callable[..., Network]) -> None:
    net = network(owner=UID)
    with logged() as events:
        link = link_to(net, identity=Identity("worker", 7, 8))
    texts = [event["text"] for event in events if event.get("reason") == "wrong-version" and event["event"] == "link.refused"]
    assert texts == ["box speaks link versions 1 to 1, worker speaks 7 to 8: update the older one"]
    end(net, link)


def test_connections_are_limited(network: Callable[..., Network]) -> None:
    net = network(owner=UID)
    links = [link_to(net) for _ in range(4)]
    assert [link.connected for link in links] == [True, True, True, False]
    for link in links:
        link.stop()
    net.move()


class Raw(Protocol):
    """A client that says whatever it likes."""

    def __init__(self) -> None:
        self.got = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: primary\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: %s\r\n\r\n"
)


def raw(net: Network, *said: bytes) -> Raw:
    client = Raw()
    net.attach(client)
    for octets in said:
        if client.transport is not None and not client.lost:
            client.transport.write(octets)
        net.move()
    return client


def frame(payload: bytes, opcode: int = 2) -> bytes:
    return bytes((0x80 | opcode, 127)) + len(payload).to_bytes(8, "big") + payload


def short(payload: bytes) -> bytes:
    return bytes((0x82, 126)) + len(payload).to_bytes(2, "big") + payload


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([UPGRADE % b"something.else"], "wrong-subprotocol"),
        ([UPGRADE % b"forwardemail.link", short(b"g" * 200)], "bad-frame"),
        ([UPGRADE % b"forwardemail.link", frame(bytes(70_000))], "too-large"),
        ([UPGRADE % b"forwardemail.link", bytes((0x82, 127)) + (2**40).to_bytes(8, "big")], "too-large"),
    ],
)
def test_strangers_are_refused_by_name(network: Callable[..., Network], said: list[bytes], reason: str) -> None:
    net = network(owner=UID)
    with logged() as events:
        client = raw(net, *said)
    assert [event["reason"] for event in events if event["event"] == "cluster.refused"] == [reason]
    assert client.lost and not net.factory_live()  # type: ignore[attr-defined]


@pytest.mark.parametrize("said", [b"\x00\xff" * 200, b"GET / HTTP/1.0\r\n\r\n", b"* OK IMAP4rev1\r\n\r\n", b"A" * 100_000 + b"\r\n\r\n"])
def test_no_websocket_at_all_is_let_go(network: Callable[..., Network], clock: Clock, said: bytes) -> None:
    net = network(owner=UID)
    client = raw(net, said)
    for _ in range(20):
        clock.advance(1)
        net.move()
    assert client.lost and not net.factory_live()  # type: ignore[attr-defined]


def test_who_does_not_prove_himself_is_let_go(network: Callable[..., Network], clock: Clock) -> None:
    net = network(owner=UID)
    with logged() as events:
        client = raw(net, UPGRADE % b"forwardemail.link")
        for _ in range(int(PROVE) * 2):
            clock.advance(0.55)
            net.move()
    assert client.lost
    assert [event["reason"] for event in events if event["event"] == "cluster.refused"] == ["too-slow"]


def test_a_peer_that_stops_answering_is_noticed(network: Callable[..., Network], clock: Clock) -> None:
    net = network(owner=UID)
    link = link_to(net)
    _client, up, server, _down = net.ends[0]
    clock.advance(PING + 1)
    clock.advance(5)
    net.move()
    assert link.connected and server in net.factory_live(), "stopped for five seconds, it is still there"  # type: ignore[attr-defined]
    for _ in range(PING + PONG + 2):
        clock.advance(1)
        if up.disconnecting:
            break
    assert up.aborted
    end(net, link)


def test_a_frame_from_a_proved_peer_that_is_too_large_is_refused(network: Callable[..., Network]) -> None:
    net = network(owner=UID)
    link = link_to(net)
    client = net.ends[0][0]
    with logged() as events:
        client.sendFrame(opcode=2, payload=bytes(OPTIONS["maxMessagePayloadSize"] + 1))
        net.move()
    assert [event["reason"] for event in events if event["event"] == "cluster.refused"] == ["too-large"]
    end(net, link)


# -- TLS ------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    create_certificate(tmp_path / "cert.pem", tmp_path / "key.pem", "mail.example.com", datetime.datetime.now(datetime.UTC))
    return tmp_path / "cert.pem", tmp_path / "key.pem"


class Tls:
    """Wraps the client's end of a network in TLS, as ``wrapClientTLS`` does."""

    def __init__(self, network: Network, context: Any) -> None:
        self.network = network
        self.context = context
        self.clients: list[Any] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        wrapped = TLSMemoryBIOFactory(self.context, True, factory, clock=self.network.clock)  # type: ignore[call-arg]
        return self.network.connect(wrapped).addCallback(self._unwrap)

    def _unwrap(self, protocol: Any) -> Any:
        self.clients.append(protocol)
        return protocol.wrappedProtocol


def trusting(path: Path, name: str = "mail.example.com") -> Any:
    authority = ssl.Certificate(crypto.load_certificate(crypto.FILETYPE_PEM, path.read_bytes()))  # type: ignore[no-untyped-call]
    options = {"raiseMinimumTo": ssl.TLSVersion.TLSv1_3}
    return ssl.optionsForClientTLS(name, trustRoot=authority, extraCertificateOptions=options)


def secured(factory: LinkServerFactory, certificate: tuple[Path, Path], clock: Clock) -> Network:
    server: Any = TLSMemoryBIOFactory(ServerTLS(*certificate, minimum="1.3"), False, factory, clock=clock)  # type: ignore[arg-type, call-arg]
    network = Network(server, clock)
    network.factory_live = lambda: factory.live  # type: ignore[attr-defined]
    return network


def test_between_boxes_it_is_tls_13_with_a_hybrid_key_exchange(
    factory: LinkServerFactory, certificate: tuple[Path, Path], clock: Clock
) -> None:
    net = secured(factory, certificate, clock)
    tls = Tls(net, trusting(certificate[0]))
    link = Link(connector(tls, clock, Identity("worker"), SECRET, url="wss://mail.example.com/"), clock)
    link.start()
    net.move()
    assert link.connected
    mailbox = done(net, open_remote(link, ID, KEY, print))
    assert done(net, mailbox.status("INBOX")).messages == 0
    handle = tls.clients[0].getHandle()
    assert isinstance(handle, SSL.Connection)
    assert handle.get_protocol_version_name() == "TLSv1.3" and handle.get_group_name() == "X25519MLKEM768"
    [server] = factory.live
    assert len(binding_of(tls.clients[0])) == 32 and binding_of(tls.clients[0]) == binding_of(server.transport)
    assert b"INBOX" not in b"".join(net.raw)
    done(net, mailbox.close())
    end(net, link)


def test_a_certificate_of_somebody_else_is_refused(
    factory: LinkServerFactory, certificate: tuple[Path, Path], clock: Clock, tmp_path: Path
) -> None:
    create_certificate(tmp_path / "other.pem", tmp_path / "otherkey.pem", "mail.example.com", datetime.datetime.now(datetime.UTC))
    for context in (trusting(tmp_path / "other.pem"), trusting(certificate[0], "elsewhere.example.com")):
        net = secured(factory, certificate, clock)
        ready = connector(Tls(net, context), clock, Identity("worker"), SECRET, url="wss://mail.example.com/")(_nobody())
        failed: list[Any] = []
        ready.addBoth(failed.append)
        net.move()
        assert failed[0].check(LinkLost, Refusal, SSL.Error) is not None
        assert not factory.live


@pytest.mark.parametrize("name, shown", [("mail.example.com", "not one that is trusted here"), ("elsewhere.example.com", "another name")])
def test_what_is_wrong_with_a_certificate_is_said_by_name(
    factory: LinkServerFactory, certificate: tuple[Path, Path], clock: Clock, tmp_path: Path, name: str, shown: str
) -> None:
    """The primary sees nothing but that somebody hung up, so the secondary's log has to say it."""
    create_certificate(tmp_path / "other.pem", tmp_path / "otherkey.pem", name, datetime.datetime.now(datetime.UTC))
    net = secured(factory, certificate, clock)
    context = trusting(tmp_path / "other.pem" if "trusted" in shown else certificate[0], name)
    failed: list[Any] = []
    with logged() as events:
        connector(Tls(net, context), clock, Identity("worker"), SECRET, url=f"wss://{name}/")(_nobody()).addBoth(failed.append)
        net.move()
    [refused] = [event for event in events if event.get("reason") == "wrong-certificate"]
    assert refused["peer"] == f"wss://{name}/" and refused["by"] == "us" and shown in refused["text"]
    assert failed[0].check(Refusal) is not None and shown in str(failed[0].value)


def test_somebody_between_with_a_certificate_of_his_own_is_refused(
    factory: LinkServerFactory, certificate: tuple[Path, Path], clock: Clock
) -> None:
    """Even a client that does not look at certificates notices, because the proofs name the TLS channel."""
    net = secured(factory, certificate, clock)
    tls = Tls(net, ssl.CertificateOptions())
    secret = connector(tls, clock, Identity("worker"), SECRET, url="wss://mail.example.com/")
    from fe_twisted.clients.link import websocket

    real = websocket.binding_of
    websocket.binding_of = lambda transport: b"the channel to the one between".ljust(32)  # type: ignore[assignment]
    try:
        failed: list[Any] = []
        with logged() as events:
            secret(_nobody()).addBoth(failed.append)
            net.move()
    finally:
        websocket.binding_of = real
    assert failed[0].check(Refusal) is not None
    assert "wrong-secret" in [event.get("reason") for event in events]


def _nobody() -> Any:
    class Nobody:
        def changed(self, *_: Any) -> None:
            raise AssertionError("nothing is told to nobody")

        evicted = changed

    return Nobody()
