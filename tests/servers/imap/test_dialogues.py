r"""Dialogues as text, each at several chunkings.

A line begins with what it is:

* ``>`` the client sends this line; ``\x00`` and the like are escapes, ``{?+}`` is the length of the line that it sends next;
* ``<`` the server sends exactly this line;
* ``~`` the server sends a line that this regular expression matches as a whole;
* ``...`` any number of lines, up to the one that is expected next;
* ``=`` something else happens: ``= login``, ``= select INBOX``, ``= mail INBOX 3``, ``= waiting 2``, ``= wait 30``, ``= closed``,
  ``= open``, ``= peer 192.0.2.1``, ``= hide IDLE MOVE``.

A letter in front names one of several clients: ``B>``.  After the last line the server must have said nothing more.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.servers.imap.house import Client, House, mail

FILES = sorted((Path(__file__).parent / "dialogues").glob("*.txt"))
_LINE = re.compile(r"([A-Z]?)(>|<|~|\.\.\.|=) ?(.*)")


class Dialogue:
    def __init__(self, house: House, chunk: int) -> None:
        self.house = house
        self.chunk = chunk
        self.peer = "127.0.0.1"
        self.clients: dict[str, Client] = {}
        self.heard: dict[str, list[str]] = {}
        self.skip: set[str] = set()

    def client(self, name: str) -> Client:
        if name not in self.clients:
            self.clients[name] = self.house.connect(chunk=self.chunk, peer=self.peer)
            self.heard[name] = []
        return self.clients[name]

    def listen(self, name: str) -> list[str]:
        client = self.client(name)
        self.heard[name] += client.take().decode("latin-1").split("\r\n")[:-1]
        return self.heard[name]

    def play(self, name: str, what: str, text: str) -> None:
        if what == ">":
            self.client(name).send(_octets(text) + b"\r\n")
        elif what == "...":
            self.client(name)
            self.skip.add(name)
        elif what == "=":
            self.happen(name, *text.split())
        else:
            self.expect(name, _pattern(text if what == "~" else re.escape(text)))

    def expect(self, name: str, pattern: re.Pattern[str]) -> None:
        lines = self.listen(name)
        if name in self.skip:
            self.skip.discard(name)
            while lines and not pattern.fullmatch(lines[0]):
                lines.pop(0)
        assert lines, f"nothing was said, {pattern.pattern!r} was expected"
        said = lines.pop(0)
        assert pattern.fullmatch(said), f"{said!r} was said, then {lines[:3]}"

    def happen(self, name: str, verb: str, *words: str) -> None:
        if verb == "login":
            assert self.client(name).ask("LOGIN hello@example.com secret")[-1].startswith("t OK")
        elif verb == "select":
            assert self.client(name).ask(f"SELECT {words[0]}")[-1].startswith("t OK")
        elif verb == "mail":
            self.house.fill(words[0], int(words[1]))
        elif verb == "waiting":
            self.house.waiting += [mail(100 + number) for number in range(int(words[0]))]
        elif verb == "wait":
            self.house.clock.advance(float(words[0]))
        elif verb == "closed":
            assert self.client(name).closing
        elif verb == "open":
            assert not self.client(name).closing
        elif verb == "hide":
            self.house.doorman.hides = frozenset(words)
        elif verb == "peer":
            self.peer = words[0]
        else:
            pytest.fail(f"{verb}?")

    def end(self) -> None:
        for name in self.clients:
            if name not in self.skip:
                assert self.listen(name) == []


def _octets(text: str) -> bytes:
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


def _measured(lines: list[str]) -> list[str]:
    """The lines with every ``{?+}`` replaced by the length of what the next line sends."""
    measured = []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        sent = _LINE.fullmatch(after)
        measured.append(line.replace("{?+}", f"{{{len(_octets(sent[3]))}+}}") if "{?+}" in line and sent else line)
    return measured


def _pattern(text: str) -> re.Pattern[str]:
    """A letter above 127 stands for that octet, or for its octets in UTF-8; :class:`Client` shows octets as letters."""
    return re.compile(f"(?:{text})|(?:{text.encode('utf-8').decode('latin-1')})")


@pytest.mark.parametrize("chunk", [1, 5, 1 << 20], ids=["octets", "fives", "whole"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_dialogue(house: House, path: Path, chunk: int) -> None:
    dialogue = Dialogue(house, chunk)
    for number, line in enumerate(_measured(path.read_text("utf-8").splitlines()), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        assert match, f"{path.name}:{number}: {line!r}"
        try:
            dialogue.play(*match.groups())
        except AssertionError as error:
            raise AssertionError(f"{path.name}:{number}: {line}\n{error}") from error
    dialogue.end()


def test_there_are_dialogues() -> None:
    assert len(FILES) > 15
