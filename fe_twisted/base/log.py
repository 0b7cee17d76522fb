"""One line an event, with named fields; never a password, never message content.

Modules log with :func:`event`; how the lines look and where they go is decided by :mod:`fe_twisted.app.logging`.
Mail addresses are passed in fields named ``address``, ``sender`` or ``recipient``, so that the setting
``log_addresses`` can hash or drop them in one place.
"""

from __future__ import annotations

from twisted.logger import Logger, LogLevel

ADDRESS_FIELDS = frozenset({"address", "sender", "recipient"})

_logger = Logger(namespace="forwardemail")
_followed = True


def follow(followed: bool) -> None:
    """Say whether anybody reads :func:`debug` events; when nobody does they cost next to nothing."""
    global _followed
    _followed = followed


def event(name: str, /, **fields: object) -> None:
    """Log that something happened.

    :param name: what, as ``door.verb``: ``mx.accepted``, ``imap.login``.
    :param fields: plain values; ``conn`` is the connection id, ``reason`` a named reason.
    """
    _logger.emit(LogLevel.info, None, event=name, fields=fields)


def debug(name: str, /, **fields: object) -> None:
    """Log a step that matters only to somebody who follows one message or one session."""
    if _followed:
        _logger.emit(LogLevel.debug, None, event=name, fields=fields)


def warning(name: str, /, **fields: object) -> None:
    """Log something that an operator should look at."""
    _logger.emit(LogLevel.warn, None, event=name, fields=fields)


def failure(name: str, error: BaseException, /, **fields: object) -> None:
    """Log a bug or a broken disk with its traceback; to be used once, at the door where the error is answered."""
    _logger.emit(LogLevel.error, None, event=name, fields=fields, error=error)
