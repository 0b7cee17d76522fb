"""How the log looks: one line an event, text or JSON, with addresses shown as the setting says.

Events of :mod:`fe_twisted.base.log` come with a name and fields.  Everything else, Twisted's own lines included, becomes an event
named after its namespace with the text in ``message``.  A traceback is one field, its newlines escaped.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import os
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from fe_twisted.base.log import ADDRESS_FIELDS

Addresses = Literal["full", "hashed", "none"]

#: A value that can stand in a text line without quotes.
_PLAIN = re.compile(r"[^\s\"=\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+\Z")
_PORT_TALK = re.compile(r".* starting on \S+|\(.*Port .* Closed\)")


@implementer(ILogObserver)
class LineObserver:
    """Writes events to a file.

    :param file: the path of a file, made with mode 0600 and appended to; or a text stream, flushed after each line.
    :param layout: ``text`` or ``json``.
    :param addresses: ``full``, ``hashed`` or ``none``.
    :param level: the name of the least important level that is written.
    :param process: what this process is called in the log, where several write into it.
    :param key: of hashed addresses; without it, one of this process.
    """

    def __init__(self, file: TextIO | Path, layout: str, addresses: str, level: str, *, process: str = "", key: bytes = b"") -> None:
        self._path = file if isinstance(file, Path) else None
        self._file = _open(file) if isinstance(file, Path) else file
        self._line = _json_line if layout == "json" else _text_line
        #: Of this start only: a log tells two addresses apart, and a stolen one cannot be searched for an address.
        self.key = key or os.urandom(16)
        self._address = _address_writer(addresses, self.key)
        self._process = process
        self._level = LogLevel.levelWithName(level)
        self._later: Callable[[Callable[[], None]], object] | None = None
        self._thread = threading.get_ident()
        self._lines: list[str] = []

    def gather(self, later: Callable[[Callable[[], None]], object] | None) -> None:
        """Write the lines of one turn of the reactor together; a write for each was a tenth of the price of accepting a message.

        Warnings, errors and lines of other threads take all before them along at once.

        :param later: has a function called at the end of the turn; None writes each line at once again.
        """
        self._later = later
        self._thread = threading.get_ident()
        self._write()

    def __call__(self, event: LogEvent) -> None:
        """Write one event; what cannot be rendered is said so rather than raised into the caller."""
        level = _level_of(event)
        if level < self._level:
            return
        try:
            line = self._line(event["log_time"], level.name, _name(event), dict(self._fields(event)))
        except Exception as error:  # a __str__ of anybody's that fails must not stop the service
            line = _text_line(event.get("log_time", 0.0), "error", "log.unrenderable", {"error": type(error).__name__})
        self._lines.append(line + "\n")
        if self._later is None or level > LogLevel.info or threading.get_ident() != self._thread:
            self._write()
        elif len(self._lines) == 1:
            self._later(self._write)

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        try:
            self._file.write("".join(lines))
            self._file.flush()
        except (OSError, ValueError):
            # Nowhere left to say it: the disk of the log is full or the terminal is gone.
            return

    def reopen(self) -> None:
        """After a log rotation: write to the file that has the name now; the old one goes on if there can be none."""
        if self._path is None:
            return
        self._write()
        try:
            new = _open(self._path)
        except OSError:
            return
        self._file.close()
        self._file = new

    @property
    def path(self) -> Path | None:
        """The file that is written; None for a stream."""
        return self._path

    def _fields(self, event: LogEvent) -> Iterator[tuple[str, object]]:
        if self._process:
            yield "process", self._process
        if _is_ours(event):
            for name, value in event.get("fields", {}).items():
                if name in ADDRESS_FIELDS:
                    value = self._address(value)
                    if value is None:
                        continue
                yield name, value
            error = event.get("error")
            if error is not None:
                yield "reason", getattr(error, "reason", "") or str(error)
                yield "traceback", "".join(traceback.format_exception(error))
            return
        text = formatEvent(event)
        if text:
            yield "message", text
        failure = event.get("log_failure")
        if isinstance(failure, Failure):
            yield "traceback", failure.getTraceback()


def _open(path: Path) -> TextIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return open(descriptor, "a", encoding="utf-8", errors="backslashreplace")


def _is_ours(event: LogEvent) -> bool:
    return event.get("log_namespace") == "forwardemail" and "event" in event


def _name(event: LogEvent) -> str:
    if _is_ours(event):
        return str(event["event"])
    namespace = str(event.get("log_namespace") or "log_legacy")
    return "twisted" if namespace.startswith(("log_legacy", "twisted.")) else namespace


def _level_of(event: LogEvent) -> Any:
    """Twisted's level; but what it says of every start, for which the service has its own words, is for debugging."""
    level = event.get("log_level", LogLevel.info)
    if str(event.get("log_namespace", "")).startswith("autobahn."):
        return LogLevel.debug  # our own words for it follow
    if level is LogLevel.info and (
        _PORT_TALK.fullmatch(str(event.get("log_text", ""))) or "UnixAppLogger" in event.get("log_namespace", "")
    ):
        return LogLevel.debug
    return level


def _address_writer(addresses: str, key: bytes) -> Callable[[object], object]:
    if addresses == "full":
        return lambda value: value
    if addresses == "none":
        return lambda value: None

    def hashed(value: object) -> object:
        if value is None or value == "":
            return value
        if isinstance(value, list | tuple | set | frozenset):
            return [hashed(item) for item in value]
        return "h:" + hmac.digest(key, str(value).encode("utf-8", "surrogatepass"), hashlib.sha256)[:6].hex()

    return hashed


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat("T", "milliseconds")[:23] + "Z"


def _text_line(time: float, level: str, name: str, fields: dict[str, object]) -> str:
    parts = [_time(time), level, name]
    parts += [f"{key}={_text_value(value)}" for key, value in fields.items() if value is not None]
    return " ".join(parts)


def _text_value(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple | set | frozenset):
        value = ",".join(str(item) for item in value)
    text = str(value)
    if _PLAIN.match(text):
        return text
    # JSON's quoting, which leaves no control character, newline or lone surrogate: nobody can write a line into the log.
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _json_line(time: float, level: str, name: str, fields: dict[str, object]) -> str:
    return json.dumps({"time": _time(time), "level": level, "event": name, **_clear(fields)}, default=_json_value)


def _clear(fields: dict[str, object]) -> dict[str, object]:
    """A field may not take the place of the three that every line has."""
    return {(f"{name}_" if name in {"time", "level", "event"} else name): value for name, value in fields.items()}


def _json_value(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, set | frozenset):
        return sorted(str(item) for item in value)
    return str(value)
