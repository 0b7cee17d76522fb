"""kill -9 at every step between two boxes: what was answered is there once, whatever is repeated afterwards."""

from __future__ import annotations

import contextlib
import smtplib
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fe_twisted.base import faults
from tests.soak.boxes import Service, closing, one, several, start
from tests.soak.clients import Away, Lost, Session, Unavailable, contents
from tests.soak.test_away import append, deliver, do
from tests.whole.daemon import Daemon, Owner, until

#: Those that are tested here.
POINTS = {"remote.queued", "remote.handed", "host.delivered", "host.taken", "host.answered"}


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory, module_database: str) -> Iterator[Service]:
    """A primary and one secondary."""
    folder: Path = tmp_path_factory.mktemp("points")
    with closing(several(folder, module_database, 1)) as service:
        yield service


@pytest.fixture
def owner(boxes: Service) -> Owner:
    return owner_of(boxes)


def owner_of(service: Service) -> Owner:
    """A new one, with the folders that :func:`contents` looks at."""
    owner = service.owner()
    session = Session(service.doors[0], owner)
    do(session, "CREATE Work")
    session.close()
    return owner


def test_every_point_of_a_link_is_here() -> None:
    assert {point for point in faults.POINTS if point.startswith(("remote.", "host."))} == POINTS


def arm(daemon: Daemon, spec: str) -> None:
    """Have it die at a point."""
    daemon.stop()
    start(daemon, {faults.VARIABLE: spec})


def buried(daemon: Daemon) -> None:
    """It has died there; start it as ever."""
    process = daemon.process
    assert process is not None
    until(lambda: process.poll() is not None, f"{daemon.data.name} dies at its point", 60)
    assert process.returncode == -9
    daemon.process = None
    start(daemon)


def linked(boxes: Service) -> None:
    """Until the secondary has a connection."""
    log = boxes.daemons[1].log
    until(lambda: log().rfind("link.connected") > max(log().rfind("link.lost"), log().rfind("server.stopped")), "the link is there", 60)


def audit(boxes: Service, owner: Owner, answered: list[str], unanswered: tuple[str, ...] = ()) -> None:
    """All that was answered is there once, what was not at most once; both doors show it; nothing waits."""

    def settled() -> bool:
        Session(boxes.doors[0], owner).close()
        return not boxes.waiting()

    until(settled, "nothing waits", 120)
    views = [contents(door, owner) for door in boxes.doors]
    assert all(view == views[0] for view in views)
    found = Counter(token for folder in views[0].values() for token, _ in folder.values())
    assert not [token for token in answered if found[token] != 1]
    assert not [token for token in found if found[token] > 1 or token not in (*answered, *unanswered)]
    check = boxes.primary.json("mailbox", "check", owner.address, "--password-stdin", stdin=owner.password + "\n")
    assert check["problems"] == []


def test_after_the_queue_has_a_message(boxes: Service, owner: Owner) -> None:
    """The second one gets no answer."""
    secondary = boxes.daemons[1]
    arm(secondary, "remote.queued:2")
    boxes.proxies["secondary-1"].cut()
    deliver(secondary, owner, "queued-1")
    with pytest.raises((OSError, smtplib.SMTPException)):
        deliver(secondary, owner, "queued-2")
    buried(secondary)
    boxes.proxies["secondary-1"].heal()
    audit(boxes, owner, ["queued-1"], ("queued-2",))


def test_between_handing_over_and_removing(boxes: Service, owner: Owner) -> None:
    secondary = boxes.daemons[1]
    arm(secondary, "remote.handed:1")
    boxes.proxies["secondary-1"].cut()
    for number in range(3):
        deliver(secondary, owner, f"handed-{number}")
    boxes.proxies["secondary-1"].heal()
    buried(secondary)
    audit(boxes, owner, [f"handed-{number}" for number in range(3)])


@pytest.mark.parametrize("connected", [False, True], ids=["away", "connected"])
def test_after_a_delivery_before_its_answer(boxes: Service, owner: Owner, connected: bool) -> None:
    """The sender hears 250 all the same."""
    arm(boxes.primary, "host.delivered:1")
    linked(boxes)
    session = Session(boxes.doors[1], owner) if connected else None
    deliver(boxes.daemons[1], owner, "delivered")
    buried(boxes.primary)
    audit(boxes, owner, ["delivered"])
    if session is not None:
        do(session, "SELECT INBOX")
        session.close()


def test_after_what_waited_was_taken_before_the_answer(boxes: Service, owner: Owner) -> None:
    arm(boxes.primary, "host.taken:1")
    linked(boxes)
    boxes.proxies["secondary-1"].cut()
    for number in range(3):
        deliver(boxes.daemons[1], owner, f"taken-{number}")
    boxes.proxies["secondary-1"].heal()
    buried(boxes.primary)
    audit(boxes, owner, [f"taken-{number}" for number in range(3)])


@pytest.mark.parametrize("passing", [1, 3, 5, 6])
def test_after_a_change_before_its_answer(boxes: Service, owner: Owner, passing: int) -> None:
    """The client waits, and then hears the answer of the change that was made, which is made once."""
    arm(boxes.primary, f"host.answered:{passing}")
    linked(boxes)
    burying = threading.Thread(target=buried, args=(boxes.primary,))
    burying.start()
    session = Session(boxes.doors[1], owner)
    do(session, "SELECT INBOX")
    for number in range(2):
        append(session, f"changed-{number}")
    do(session, r"UID STORE 1:2 +FLAGS (\Flagged)")
    do(session, "UID MOVE 1 Archive")
    append(session, "changed-2")
    do(session, r"UID STORE 2 +FLAGS.SILENT (\Deleted)")
    do(session, "UID EXPUNGE 2")
    append(session, "changed-3")
    burying.join(120)
    assert not burying.is_alive()
    audit(boxes, owner, ["changed-0", "changed-2", "changed-3"])
    view = contents(boxes.doors[1], owner)
    assert view["INBOX"].keys() == {3, 4} and view["Archive"][1] == ("changed-0", frozenset({r"\Flagged"}))
    session.close()


# -- one box --------------------------------------------------------------------------------------------


def test_a_primary_that_dies_under_its_workers(tmp_path: Path) -> None:
    """It takes the workers with it; what they had answered is there once after the next start."""
    with closing(one(tmp_path, workers=1)) as service:
        daemon, owner = service.primary, owner_of(service)
        for point in ("host.delivered:1", "host.delivered:3", "host.answered:2", "host.answered:4"):
            answered, unanswered = [], []
            arm(daemon, point)
            for number in range(4):
                token = f"{point.replace(':', '-')}-{number}"
                try:
                    deliver(daemon, owner, token)
                    answered.append(token)
                except (OSError, smtplib.SMTPException):
                    unanswered.append(token)
            with contextlib.suppress(Lost, Away, Unavailable):
                session = Session(service.doors[0], owner)
                do(session, "SELECT INBOX")
                for number in range(4):
                    unanswered.append(f"{point.replace(':', '-')}-appended-{number}")
                    append(session, unanswered[-1])
                    answered.append(unanswered.pop())
            buried(daemon)
            _all_there(service, owner, answered, unanswered)


def _all_there(service: Service, owner: Owner, answered: list[str], unanswered: list[str]) -> None:
    """And nothing else; then it is taken away for the next time."""
    audit(service, owner, answered, tuple(unanswered))
    session = Session(service.doors[0], owner)
    do(session, "SELECT INBOX")
    do(session, r"STORE 1:* +FLAGS.SILENT (\Deleted)")
    do(session, "EXPUNGE")
    session.close()
