"""The handshake: both sides prove themselves, or neither gets in."""

from __future__ import annotations

from typing import Any

import pytest

from fe_twisted.protocols.cluster.frames import Frame, Hello, Proof, decode, encode
from fe_twisted.protocols.cluster.handshake import Handshake, Identity, Reason, Refusal

SECRET, OTHER = b"s" * 32, b"o" * 32
BOX = "0123456789abcdef01234567"


def pair(**changed: Any) -> tuple[Handshake, Handshake]:
    options: dict[str, Any] = {
        "secondary": Identity("worker"),
        "primary": Identity("box"),
        "secret": SECRET,
        "secrets": [SECRET],
        "bindings": (b"", b""),
    } | changed
    calling = Handshake(options["secondary"], [options["secret"]], options["bindings"][0], calling=True)
    answering = Handshake(options["primary"], options["secrets"], options["bindings"][1], calling=False)
    return calling, answering


def talk(calling: Handshake, answering: Handshake) -> list[Frame]:
    """Pass frames to and fro until nobody has any more; returns them."""
    said: list[Frame] = []
    turn = [(answering, calling, frame) for frame in calling.start()]
    while turn:
        to, back, frame = turn.pop(0)
        said.append(frame)
        octets = encode(frame)
        turn += [(back, to, answer) for answer in to.receive(decode(octets), octets)]
    return said


def refused(calling: Handshake, answering: Handshake) -> str:
    with pytest.raises(Refusal) as caught:
        talk(calling, answering)
    assert answering.agreed is None or calling.agreed is None
    return str(caught.value.reason)


def test_both_agree_and_have_keys_for_each_other() -> None:
    calling, answering = pair()
    assert [type(frame) for frame in talk(calling, answering)] == [Hello, Hello, Proof, Proof]
    assert calling.agreed is not None and answering.agreed is not None
    assert (calling.agreed.peer.name, answering.agreed.peer.name) == ("box", "worker")
    wrapped = calling.agreed.keys.wrap(BOX, b"k" * 32)
    assert b"k" * 8 not in wrapped
    assert answering.agreed.keys.unwrap(BOX, wrapped) == b"k" * 32
    back = answering.agreed.keys.wrap(BOX, b"b" * 32)
    assert calling.agreed.keys.unwrap(BOX, back) == b"b" * 32


def test_a_wrapped_key_is_for_one_mailbox_one_direction_and_one_connection() -> None:
    first, second = pair(), pair()
    talk(*first)
    talk(*second)
    assert first[0].agreed and first[1].agreed and second[1].agreed
    wrapped = first[0].agreed.keys.wrap(BOX, b"k" * 32)
    for keys, mailbox, octets in (
        (first[1].agreed.keys, "f" * 24, wrapped),
        (first[0].agreed.keys, BOX, wrapped),
        (second[1].agreed.keys, BOX, wrapped),
        (first[1].agreed.keys, BOX, wrapped[:-1] + bytes((wrapped[-1] ^ 1,))),
        (first[1].agreed.keys, BOX, b""),
        (first[1].agreed.keys, BOX, b"k" * 32),
    ):
        with pytest.raises(ValueError):
            keys.unwrap(mailbox, octets)


def test_a_wrong_secret_is_refused_by_the_primary_before_it_says_anything_more() -> None:
    calling, answering = pair(secret=OTHER)
    assert refused(calling, answering) == Reason.WRONG_SECRET


def test_a_primary_without_the_secret_is_refused_by_the_secondary() -> None:
    calling, _ = pair()
    hello = encode(calling.start()[0])
    impostor = Handshake(Identity("box"), [OTHER], b"", calling=False)
    [answer] = impostor.receive(decode(hello), hello)
    calling.receive(answer, encode(answer))
    for guess in (bytes(32), impostor._mac(OTHER, "primary")):
        with pytest.raises(Refusal) as caught:
            calling.receive(Proof(guess), b"")
        assert caught.value.reason == Reason.WRONG_SECRET
    assert calling.agreed is None


def test_an_own_proof_sent_back_proves_nothing() -> None:
    calling, answering = pair()
    [hello] = calling.start()
    [answer] = answering.receive(hello, encode(hello))
    [proof] = calling.receive(answer, encode(answer))
    with pytest.raises(Refusal):
        calling.receive(proof, encode(proof))


def test_a_replayed_handshake_is_refused() -> None:
    calling, answering = pair()
    said = talk(calling, answering)
    _, again = pair()
    again.receive(said[0], encode(said[0]))
    with pytest.raises(Refusal) as caught:
        again.receive(said[2], encode(said[2]))
    assert caught.value.reason == Reason.WRONG_SECRET


def test_an_echoed_hello_is_refused() -> None:
    calling, _ = pair()
    [hello] = calling.start()
    with pytest.raises(Refusal) as caught:
        calling.receive(hello, encode(hello))
    assert caught.value.reason == Reason.WRONG_ROLE
    mirrored = Hello(1, 1, "primary", "box", (), calling._own.nonce)
    with pytest.raises(Refusal) as caught:
        calling.receive(mirrored, encode(mirrored))
    assert caught.value.reason == Reason.REPLAYED


def test_somebody_between_two_tls_connections_is_noticed() -> None:
    assert refused(*pair(bindings=(b"one channel", b"another"))) == Reason.WRONG_SECRET
    talk(*pair(bindings=(b"one channel", b"one channel")))


def test_a_hello_changed_on_the_way_is_noticed() -> None:
    """For example to make both sides believe that the other speaks only an old version."""
    calling, answering = pair(secondary=Identity("worker", 1, 2), primary=Identity("box", 1, 2))
    [hello] = calling.start()
    assert isinstance(hello, Hello)
    changed = Hello(1, 1, hello.role, hello.name, hello.capabilities, hello.nonce)
    [answer] = answering.receive(changed, encode(changed))
    [proof] = calling.receive(answer, encode(answer))
    with pytest.raises(Refusal) as caught:
        answering.receive(proof, encode(proof))
    assert caught.value.reason == Reason.WRONG_SECRET


@pytest.mark.parametrize(
    ("secondary", "primary", "version"),
    [((1, 1), (1, 1), 1), ((1, 2), (1, 1), 1), ((1, 1), (1, 2), 1), ((2, 3), (1, 2), 2), ((1, 3), (2, 3), 3)],
)
def test_the_highest_common_version_is_taken(secondary: tuple[int, int], primary: tuple[int, int], version: int) -> None:
    calling, answering = pair(secondary=Identity("worker", *secondary), primary=Identity("box", *primary))
    talk(calling, answering)
    assert calling.agreed and answering.agreed
    assert calling.agreed.version == answering.agreed.version == version


@pytest.mark.parametrize(("secondary", "primary"), [((1, 1), (2, 2)), ((3, 4), (1, 2)), ((2, 1), (1, 1))])
def test_versions_that_do_not_meet_are_refused_clearly(secondary: tuple[int, int], primary: tuple[int, int]) -> None:
    calling, answering = pair(secondary=Identity("worker", *secondary), primary=Identity("box", *primary))
    with pytest.raises(Refusal) as caught:
        talk(calling, answering)
    assert caught.value.reason == Reason.WRONG_VERSION
    assert "update the older one" in str(caught.value)


def test_while_a_secret_is_being_replaced_both_are_taken() -> None:
    for secret in (SECRET, OTHER):
        calling, answering = pair(secret=secret, secrets=[OTHER, SECRET])
        talk(calling, answering)
        assert calling.agreed and answering.agreed
        wrapped = calling.agreed.keys.wrap(BOX, b"k" * 32)
        assert answering.agreed.keys.unwrap(BOX, wrapped) == b"k" * 32


def test_short_secrets_are_refused() -> None:
    for secrets in ([], [b""], [SECRET, b"short"]):
        with pytest.raises(ValueError):
            Handshake(Identity("box"), secrets, b"", calling=False)
