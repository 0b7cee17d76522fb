"""The receive service: who takes mail, trace fields, one answer for many recipients, and retries that are not doubled."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import Deferred

from fe_twisted.base.addresses import POSTMASTER, Address, parse_address
from fe_twisted.base.errors import (
    Busy,
    DiskFull,
    MailError,
    MailLoop,
    NotReady,
    Ours,
    RecipientDeferred,
    RecipientDisabled,
    Refused,
    UnknownDomain,
    UnknownRecipient,
)
from fe_twisted.protocols.smtp.address import Sender
from fe_twisted.services.receive import receive as module
from fe_twisted.services.receive.reasons import Reason, reason_of
from fe_twisted.services.receive.receive import Client, PartlyRefused, PartlyStored, Result, Transaction
from tests.servers.smtp.world import World

T = TypeVar("T")
CLIENT = Client("c0ffee", "192.0.2.7", "mail.example.org", True, None)
SENDER = Sender(Address("a", "example.org"))
MESSAGE = b"Message-ID: <1@example.org>\r\nSubject: x\r\n\r\n\x00\xff.text without line end"


def now(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    results: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(results.append)
    assert results, "it waits"
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    result: T = results[0]
    return result


def transaction(world: World, *recipients: str, content: bytes = MESSAGE, sender: Sender = SENDER, client: Client = CLIENT) -> Transaction:
    """A message from the outside to these addresses."""
    found = tuple(now(world.receive.recipient(parse_address(recipient))) for recipient in recipients)
    return Transaction("c0ffee-1", client, sender, found, content)


def accept(world: World, *recipients: str, **rest: Any) -> Result:
    """Send it and take the outcome."""
    return now(world.receive.accept(transaction(world, *recipients, **rest)))


@pytest.mark.parametrize(
    ("address", "error", "reason"),
    [
        ("nobody@example.com", UnknownRecipient, Reason.UNKNOWN_RECIPIENT),
        ("hello@example.org", UnknownDomain, Reason.UNKNOWN_DOMAIN),
        ("gone@example.com", RecipientDisabled, Reason.ALIAS_REJECTS),
        ("later@example.com", RecipientDeferred, Reason.ALIAS_DEFERS),
        ("new@example.com", NotReady, Reason.NO_MAILBOX),
    ],
)
def test_refused_recipients(address: str, error: type[MailError], reason: Reason) -> None:
    with pytest.raises(error) as caught:
        now(World().receive.recipient(parse_address(address)))
    assert reason_of(caught.value) is reason


def test_accepted_recipients() -> None:
    """Plus-addressing keeps the address as it was given; postmaster needs no domain."""
    receive = World().receive
    found = now(receive.recipient(parse_address("Hello+Shop@EXAMPLE.com")))
    assert str(found.address) == "hello+shop@example.com"
    assert found.alias.address == "hello@example.com"
    assert now(receive.recipient(POSTMASTER)).alias.address == "postmaster@example.com"


def test_stored_byte_for_byte_behind_the_trace_fields() -> None:
    """Each recipient's copy names that recipient and no other."""
    world = World()
    result = accept(world, "hello+shop@example.com", "world@example.com")
    assert result.failure is None
    assert [outcome.reason for outcome in result.outcomes] == [Reason.STORED, Reason.STORED]
    (first, hello), (second, other) = world.mailboxes.stored
    assert (first, second) == ("hello@example.com", "world@example.com")
    head = hello.removesuffix(MESSAGE)
    assert head == (
        b"Return-Path: <a@example.org>\r\nDelivered-To: hello+shop@example.com\r\n"
        b"Received: from mail.example.org ([192.0.2.7])\r\n\tby mx.example.com with ESMTP id c0ffee-1\r\n"
        b"\tfor <hello+shop@example.com>; Fri, 02 Jan 2026 03:04:05 +0000\r\n"
    )
    assert other.endswith(MESSAGE)
    assert b"hello" not in other


def test_null_sender_postmaster_and_utf8() -> None:
    world = World()
    found = now(world.receive.recipient(POSTMASTER))
    now(world.receive.accept(Transaction("i", CLIENT, Sender(None, smtputf8=True), (found,), b"")))
    assert world.mailboxes.stored[0][1].startswith(b"Return-Path: <>\r\nDelivered-To: postmaster@example.com\r\n")
    assert b" with UTF8SMTP id " in world.mailboxes.stored[0][1]


def test_discard_is_success_without_storing() -> None:
    world = World()
    result = accept(world, "void@example.com")
    assert result.failure is None
    assert result.outcomes[0].reason is Reason.DISCARDED
    assert world.mailboxes.stored == []


def test_loop() -> None:
    """50 hops pass, 51 do not."""
    world = World()
    accept(world, "hello@example.com", content=b"Received: x\r\n" * 50 + b"\r\n")
    with pytest.raises(MailLoop):
        accept(world, "hello@example.com", content=b"Received: x\r\n" * 51 + b"\r\n")
    assert len(world.mailboxes.stored) == 1


@pytest.mark.parametrize(
    ("hello", "other", "expected"),
    [
        (None, None, None),
        (DiskFull(), None, PartlyStored),
        (None, ValueError("bug"), PartlyStored),
        (None, Refused(), PartlyRefused),
        (DiskFull(), Refused(), DiskFull),
        (Refused(), Busy(), Busy),
        (Refused(), Refused(), Refused),
        (KeyError("bug"), KeyError("bug"), Ours),
    ],
)
def test_one_answer_for_two(hello: Exception | None, other: Exception | None, expected: type[MailError] | None) -> None:
    """See the module's text."""
    world = World()
    world.mailboxes.fails = {address: error for address, error in (("hello@example.com", hello), ("world@example.com", other)) if error}
    failure = accept(world, "hello@example.com", "world@example.com").failure
    assert (type(failure) if failure else None) is expected
    if expected in (PartlyStored, PartlyRefused):
        assert str(failure).count("<") == 1
        assert len(world.mailboxes.stored) == 1


def test_retry_after_partial_failure_is_not_doubled() -> None:
    """The sender sends the same bytes again to both: each has them once."""
    world = World()
    world.mailboxes.fails = {"world@example.com": DiskFull()}
    assert accept(world, "hello@example.com", "world@example.com").failure
    world.mailboxes.fails = {}
    assert accept(world, "hello@example.com", "world@example.com").failure is None
    assert accept(world, "hello@example.com").failure is None
    assert sorted(address for address, _ in world.mailboxes.stored) == ["hello@example.com", "world@example.com"]


def test_retry_survives_a_restart() -> None:
    """The ids are derived from the message, so another process finds them too."""
    world, again = World(), World()
    again.mailboxes = world.mailboxes
    again.receive._deliver = world.mailboxes
    world.mailboxes.fails = {"world@example.com": DiskFull()}
    accept(world, "hello@example.com", "world@example.com")
    world.mailboxes.fails = {}
    accept(again, "hello@example.com", "world@example.com")
    assert len(world.mailboxes.stored) == 2


def test_equal_messages_are_two_messages() -> None:
    """To one recipient, or without Message-ID, equal bytes are stored as often as they come; so are other bytes or another sender."""
    world = World()
    for _ in range(2):
        accept(world, "hello@example.com")
        accept(world, "hello@example.com", "world@example.com", content=b"Subject: alarm\r\n\r\nMessage-ID: no\r\n")
    assert len(world.mailboxes.stored) == 6
    accept(world, "hello@example.com", "world@example.com")
    accept(world, "hello@example.com", "world@example.com", content=MESSAGE + b"x")
    accept(world, "hello@example.com", "world@example.com", sender=Sender(None))
    assert len(world.mailboxes.stored) == 12


def test_memory_of_partial_failures_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    world = World()
    world.mailboxes.fails = {"world@example.com": DiskFull()}
    for number in range(5):
        accept(world, "hello@example.com", "world@example.com", content=MESSAGE + b"%d" % number)
    assert len(world.receive._partial) == 3


@pytest.mark.parametrize(("size", "at_once"), [(100, 16), (20 << 20, 3), (50 << 20, 1)])
def test_deliveries_at_once_are_bounded_by_memory(size: int, at_once: int) -> None:
    """Many small copies at a time, few large ones, and all of them in the end."""
    world = World()
    world.mailboxes.slow = True
    recipients = [f"hello+{number}@example.com" for number in range(20)]
    results: list[Result] = []
    work = world.receive.accept(transaction(world, *recipients, content=b"x" * size))
    Deferred.fromCoroutine(work).addCallback(results.append)
    while world.mailboxes.waiting:
        world.mailboxes.finish()
        world.mailboxes.stored = [(address, b"") for address, _ in world.mailboxes.stored]
    assert world.mailboxes.most_at_once == at_once
    assert [str(outcome.recipient.address) for outcome in results[0].outcomes] == recipients
    assert len(world.mailboxes.stored) == 20
