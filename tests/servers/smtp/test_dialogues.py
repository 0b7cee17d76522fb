r"""Dialogues as text, run in memory line by line at several chunkings, and pipelined all at once.

``> x`` the client sends ``x`` and CR LF; ``>! x`` it sends exactly ``x``, with backslash escapes; ``< x`` the server answers this line,
``*`` stands for anything; ``@ closed`` the server has hung up; ``@ open`` it has not; ``@ wait N`` seconds pass; ``@ stored ADDRESS N``
messages are there by now; ``@ limits a=1 b=2`` (at the top); ``# x`` is a comment.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fe_twisted.servers.smtp.limits import MxLimits
from tests.servers.smtp.world import Wire, World

DIALOGUES = sorted((Path(__file__).parent / "dialogues").glob("*.txt"))
#: Those in which nothing depends on when something is sent.
TIMELESS = [path for path in DIALOGUES if "@ wait" not in path.read_text(encoding="utf-8")]
Line = tuple[str, str]


def read(path: Path) -> tuple[MxLimits, list[Line]]:
    """The limits and the lines of a dialogue, as (sign, text)."""
    lines: list[Line] = []
    limits: dict[str, int] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        sign, _, text = line.partition(" ")
        if not sign or sign == "#":
            continue
        assert sign in (">", ">!", "<", "@"), line
        if sign == "@" and text.startswith("limits "):
            limits = {name: int(value) for name, _, value in (word.partition("=") for word in text.split()[1:])}
        else:
            lines.append((sign, text))
    return MxLimits(**limits), lines


def wire_bytes(sign: str, text: str) -> bytes:
    """What a client line is on the wire."""
    if sign == ">":
        return text.encode() + b"\r\n"
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


def matches(expected: list[str], got: str) -> bool:
    """Whether the reply lines are the ones expected."""
    lines = got.split("\r\n")
    assert lines.pop() == ""
    return len(lines) == len(expected) and all(
        re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), line) for pattern, line in zip(expected, lines, strict=True)
    )


def check(world: World, wire: Wire, text: str) -> None:
    """Do or verify what an ``@`` line says."""
    match text.split():
        case ["closed"]:
            assert wire.closed
        case ["open"]:
            assert not wire.closed
        case ["wait", seconds]:
            world.clock.advance(float(seconds))
        case ["stored", address, count]:
            assert sum(owner == address for owner, _ in world.mailboxes.stored) == int(count)
        case _:
            raise AssertionError(f"unknown instruction {text}")


@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
@pytest.mark.parametrize("size", [0, 1, 2, 7])
def test_line_by_line(path: Path, size: int) -> None:
    """The client waits for each answer; its bytes arrive in pieces of ``size``."""
    limits, lines = read(path)
    world = World(limits)
    wire = world.connect()
    position = 0
    while position < len(lines):
        sign, text = lines[position]
        if sign == "@":
            check(world, wire, text)
            position += 1
            continue
        sent = b""
        while position < len(lines) and lines[position][0].startswith(">"):
            sent += wire_bytes(*lines[position])
            position += 1
        expected = []
        while position < len(lines) and lines[position][0] == "<":
            expected.append(lines[position][1])
            position += 1
        got = wire.send(sent, size)
        assert matches(expected, got), (sent, expected, got)


@pytest.mark.parametrize("path", TIMELESS, ids=lambda path: path.stem)
def test_pipelined(path: Path) -> None:
    """The client sends everything at once: the same answers in the same order, and the same in the mailboxes."""
    limits, lines = read(path)
    world = World(limits)
    wire = world.connect()
    got = wire.send(b"".join(wire_bytes(sign, text) for sign, text in lines if sign.startswith(">")))
    assert matches([text for sign, text in lines if sign == "<"], got), got
    last = {text.rpartition(" ")[0]: text for sign, text in lines if text.startswith("stored")}
    for text in last.values():
        check(world, wire, text)
