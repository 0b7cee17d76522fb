"""Driving a mailbox without a reactor: threads run at once and time stands still."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, execute
from twisted.python.failure import Failure

from fe_twisted.storage.mailbox.local import LocalMailbox

T = TypeVar("T")

KEY = bytes(range(32))
ID = "0123456789abcdef01234567"


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that does not have to wait; raises what it raised."""
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    assert results, "the coroutine is still waiting"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]  # type: ignore[no-any-return]


async def collect(batches: Any) -> list[Any]:
    """All rows of fetch()."""
    return [row async for batch in batches for row in batch]


def at_once(function: Callable[[], Any]) -> Deferred[Any]:
    """A thread that is done before it begins."""
    return execute(function)


async def nothing_waits(mailbox: LocalMailbox) -> int:
    """No temporary mailbox."""
    return 0
