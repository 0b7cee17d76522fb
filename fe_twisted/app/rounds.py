"""A look now and then, at something that may be away for hours without a line in the log for each."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from fe_twisted.app.parts import logged
from fe_twisted.base import log
from fe_twisted.base.errors import Later


class Rounds(TimerService):
    """Has a look again and again, whatever comes of it, and says in the log when it begins to fail and when that is over.

    :param seconds: between two looks.
    :param reactor: tells the time.
    :param name: of what is looked at; the events are ``name.away``, ``name.back``, and ``name.look`` for an error of ours.
    """

    def __init__(self, seconds: float, look: Callable[[], Coroutine[Any, Any, None]], reactor: Any, name: str) -> None:
        super().__init__(seconds, self._go)  # type: ignore[no-untyped-call]  # Twisted's has no annotations
        self.clock = self._clock = reactor
        self._look = look
        self._name = name
        self._away_since: float | None = None

    def _go(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._look()).addCallbacks(self._seen, self._failed)

    def _seen(self, _: object) -> None:
        if self._away_since is not None:
            log.event(f"{self._name}.back", seconds=round(self._clock.seconds() - self._away_since))
            self._away_since = None

    def _failed(self, failure: Failure) -> None:
        if not isinstance(failure.value, Later):
            logged(failure, f"{self._name}.look")
        elif self._away_since is None:
            self._away_since = self._clock.seconds()
            logged(failure, f"{self._name}.away")
