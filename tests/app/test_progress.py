"""How far a move is, as people read it."""

from __future__ import annotations

import sys

import pytest

from fe_twisted.app.cli.progress import LINE, Shown, text
from fe_twisted.protocols.cluster.values import encode
from fe_twisted.services.cluster.progress import ANSWER, Progress


def octets(progress: Progress) -> bytes:
    return b"".join(bytes(each) for each in encode(ANSWER, progress))


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress("copying", 0, 5_000_000, 0, 0), "copying: 0 of 5,000,000 octets (0 %)"),
        (Progress("copying", 1_000_000, 5_000_000, 0, 30), "copying: 1,000,000 of 5,000,000 octets (20 %), about 2 min 0 s left"),
        (Progress("copying", 4_000_000, 5_000_000, 0, 8), "copying: 4,000,000 of 5,000,000 octets (80 %), about 2 s left"),
        (Progress("copying", 6_000_000, 5_000_000, 0, 8), "copying: 5,000,000 of 5,000,000 octets (100 %), about 0 s left"),
        (Progress("closed", 6, 5), "copying what has changed meanwhile; clients wait: 6 octets"),
        (Progress("comparing", 6, 5), "the other primary writes it to its disk and reads it again: 6 octets"),
        (Progress("handing over", 6, 5, 1200), "handing over mail that waits: 1,200 messages"),
        (Progress("something new", 7), "something new: 7 octets"),
    ],
)
def test_lines(progress: Progress, line: str) -> None:
    assert text(progress) == line


def test_a_line_now_and_then_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    shown = Shown(lambda: now)
    for _ in range(35):
        now += 1
        shown.heard(octets(Progress("handing over", messages=int(now))))
    shown.end()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 3 == 35 // LINE


def test_one_line_that_changes_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown = Shown(lambda: 0.0)
    for number in range(3):
        shown.heard(octets(Progress("handing over", messages=number)))
    shown.heard(octets(Progress()))
    shown.end()
    captured = capsys.readouterr()
    assert captured.out == "" and "\n" not in captured.err
    assert captured.err.count("handing over") == 3 and captured.err.endswith("\r\x1b[K")
