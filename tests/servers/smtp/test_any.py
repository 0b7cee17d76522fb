"""Hypothesis: whatever a client sends, cut wherever, the session answers the same, stores the same and gives everything back."""

from __future__ import annotations

import itertools
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.servers.smtp.limits import MxLimits
from tests.servers.smtp.world import World

LIMITS = MxLimits(message_size=200, text_line=60, command_line=80, recipients=2, errors=8, commands=30, transactions=4, in_flight=150)
LINES = [
    b"EHLO x\r\n",
    b"HELO y\r\n",
    b"MAIL FROM:<a@example.org>\r\n",
    b"RCPT TO:<hello@example.com>\r\n",
    b"RCPT TO:<world@example.com>\r\n",
    b"RCPT TO:<nobody@example.com>\r\n",
    b"DATA\r\n",
    b"Subject: x\r\n",
    b".\r\n",
    b"..\r\n",
    b"BDAT 6\r\n",
    b"BDAT 6 LAST\r\n",
    b"BDAT 0 LAST\r\n",
    b"BDAT\r\n",
    b"RSET\r\n",
    b"QUIT\r\n",
    b"y" * 70 + b"\r\n",
    b"\n",
    b"\r",
    b"\x00\xff",
]
USUAL = [LINES[0], *LINES[2:5]]


def talk(pieces: list[bytes]) -> tuple[str, list[tuple[str, bytes]]]:
    """What the server answered and stored; it must have nothing left of it afterwards."""
    world = World(LIMITS)
    wire = world.connect()
    for piece in pieces:
        wire.protocol.dataReceived(piece)
    got = wire.read()
    wire.lose()
    assert world.factory.budget.free == LIMITS.in_flight
    assert world.factory.shared.sessions == set()
    assert world.clock.getDelayedCalls() == []
    assert world.connections._live.total() == 0
    assert all(re.fullmatch(r"[2-5][0-9][0-9][ -][ -~]*", line) for line in got.split("\r\n")[:-1])
    return got, world.mailboxes.stored


@settings(max_examples=150, deadline=None)
@given(st.booleans(), st.lists(st.sampled_from(LINES), max_size=25), st.lists(st.integers(0, 500), max_size=6))
def test_any_session(usual: bool, lines: list[bytes], cuts: list[int]) -> None:
    """Half of the sessions begin with an envelope, so that content is reached often."""
    data = b"".join([*USUAL, *lines] if usual else lines)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    whole = talk([data])
    assert talk([data[a:b] for a, b in itertools.pairwise(edges)]) == whole
    assert talk([data[i : i + 1] for i in range(len(data))]) == whole
