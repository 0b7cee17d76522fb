"""One of two servers that are asked the same: what it stores and what it answers, as values that can be compared."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.corpus.mail import Sample
from tests.whole.values import Value, fetched, parse
from tests.whole.wire import Wire

#: How many commands are on their way before answers are read; more would fill both directions at once.
_AHEAD = 40

Items = tuple[str, ...]


@dataclass(frozen=True)
class Refused:
    """A tagged NO or BAD instead of a value, or BYE for a connection that ended."""

    condition: str
    code: str = ""

    def __str__(self) -> str:
        return f"{self.condition} [{self.code}]"


class Server:
    """An IMAP server with one connection over plain TCP from loopback, logged in.

    :param name: who answers, for messages.
    """

    def __init__(self, name: str, port: int, user: str, password: str) -> None:
        self.name = name
        self._port, self._login = port, f"LOGIN {user} {password}".encode()
        self._selected: bytes | None = None
        self._tag = 0
        self._connect()

    def _connect(self) -> None:
        self._wire = Wire(self._port)
        self._response()
        self.ask(self._login)
        if self._selected is not None:
            self.ask(self._selected)

    def close(self) -> None:
        """End the connection."""
        self._wire.close()

    def _response(self) -> bytes:
        """One response with its literals.

        :raises EOFError: the server has ended the connection.
        """
        whole = self._wire.line()
        while found := re.search(rb"\{(\d+)\}\Z", whole):
            whole += b"\r\n" + self._wire.octets(int(found[1])) + self._wire.line()
        if not whole:
            raise EOFError(f"{self.name} ended the connection")
        return whole

    def _answers(self, tag: bytes) -> tuple[list[bytes], bytes]:
        """The untagged responses and the tagged one, without its tag."""
        untagged: list[bytes] = []
        while not (response := self._response()).startswith(tag + b" "):
            untagged.append(response)
        return untagged, response[len(tag) + 1 :]

    def _try(self, text: bytes) -> tuple[list[bytes], bytes]:
        self._tag += 1
        tag = b"t%d" % self._tag
        self._wire.send(tag + b" " + text + b"\r\n")
        return self._answers(tag)

    def ask(self, text: bytes) -> list[bytes]:
        """One command that must succeed; its untagged responses."""
        untagged, tagged = self._try(text)
        assert tagged.startswith(b"OK"), (self.name, text, tagged)
        return untagged

    def select(self, folder: str) -> None:
        """SELECT, again after a lost connection."""
        self._selected = b"SELECT " + folder.encode()
        self.ask(self._selected)

    def pipeline(self, commands: Sequence[bytes], ahead: int = _AHEAD) -> list[tuple[list[bytes], bytes]]:
        """All of them, sent ahead of the answers; fewer answers if the server ends the connection."""
        room = threading.Semaphore(ahead)
        wire = self._wire
        self._tag += 1
        tags = [b"p%d.%d" % (self._tag, number) for number in range(len(commands))]
        ended = threading.Event()

        def send() -> None:
            try:
                for tag, text in zip(tags, commands, strict=True):
                    room.acquire()
                    if ended.is_set():
                        return
                    wire.send(tag + b" " + text + b"\r\n")
            except OSError:
                return  # the reader sees it too

        sender = threading.Thread(target=send)
        sender.start()
        found = []
        try:
            for tag in tags:
                found.append(self._answers(tag))
                room.release()
        except (EOFError, ConnectionError):
            ended.set()
            room.release()
            wire.close()
        sender.join()
        return found

    def append(self, folder: str, samples: Iterable[Sample], arguments: Sequence[bytes]) -> list[bytes]:
        """APPEND each with its flags and date; the tagged answers."""
        commands = [
            b"APPEND %b %b {%d+}\r\n%b" % (folder.encode(), words, len(sample.content), sample.content)
            for sample, words in zip(samples, arguments, strict=True)
        ]
        return [tagged for _, tagged in self.pipeline(commands)]

    def fetch(self, asked: Sequence[tuple[int, Items]]) -> dict[int, dict[str, Value]]:
        """``UID FETCH`` of items of UIDs; what each UID's items are.  All items of a command that is refused are :class:`Refused`."""
        commands = [b"UID FETCH %d (%b)" % (uid, " ".join(items).encode()) for uid, items in asked]
        found: dict[int, dict[str, Value]] = {uid: {} for uid, _ in asked}
        for (uid, items), (untagged, tagged) in zip(asked, self._all(commands), strict=True):
            # A server may answer the next FETCH before it has said OK to this one, so the UID in the response counts.
            for values in filter(None, map(fetched, untagged)):
                found[values.pop("UID")] |= values
            if not tagged.startswith(b"OK"):
                found[uid] |= dict.fromkeys([item.replace(".PEEK", "").upper() for item in items], _refused(self.name, tagged))
        return found

    def _all(self, commands: Sequence[bytes]) -> list[tuple[list[bytes], bytes]]:
        """Answers to all, also when some of them make the server end the connection; those have ``BYE``."""
        found: list[tuple[list[bytes], bytes]] = []
        ahead = _AHEAD
        while len(found) < len(commands):
            left = commands[len(found) :]
            answers = self.pipeline(left if ahead > 1 else left[:_AHEAD], ahead)
            found += answers
            if len(answers) == len(left) or (ahead == 1 and len(answers) == _AHEAD):
                ahead = _AHEAD
                continue
            self._connect()
            if ahead == 1:  # it was this very command
                found.append(([], b"BYE"))
            ahead = _AHEAD if ahead == 1 else 1
        return found

    def search(self, keys: bytes) -> list[int] | Refused:
        """``UID SEARCH``."""
        untagged, tagged = self._try(b"UID SEARCH " + keys)
        if not tagged.startswith(b"OK"):
            return _refused(self.name, tagged)
        (line,) = [response for response in untagged if response.startswith(b"* SEARCH")]
        return parse(line[len(b"* SEARCH") :])


def _refused(name: str, tagged: bytes) -> Refused:
    found = re.match(rb"(NO|BAD|BYE)(?: \[([A-Z-]+)[^\]]*\])?", tagged)
    assert found is not None, (name, tagged)
    return Refused(found[1].decode(), (found[2] or b"").decode())
