"""Nobody stores anything for a mailbox once it has been decided that it is elsewhere, and who was at it is waited for."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from fe_twisted.base.errors import Moved
from fe_twisted.services.deliver.gate import Gate
from tests.storage.mailbox.driving import run

ID, OTHER = "a" * 24, "b" * 24


def started(coroutine: Any) -> list[Any]:
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallbacks(results.append, lambda failure: results.append(failure.value))
    return results


async def visit(gate: Gate, until: Deferred[None] | None = None, mailbox_id: str = ID) -> str:
    async with gate.inside(mailbox_id):
        if until is not None:
            await until
        return "stored"


def test_who_is_inside_is_waited_for_and_who_comes_waits() -> None:
    gate = Gate()
    doors: list[Deferred[None]] = [Deferred(), Deferred()]
    inside = [started(visit(gate, each)) for each in doors]
    shut = started(gate.shut(ID))
    late = started(visit(gate))
    assert run(visit(gate, mailbox_id=OTHER)) == "stored"
    doors[0].callback(None)
    assert inside[0] == ["stored"] and not shut and not late
    doors[1].callback(None)
    assert inside[1] == ["stored"] and shut == [None] and not late
    gate.decide(ID, moved=True)
    assert isinstance(late[0], Moved) and isinstance(started(visit(gate))[0], Moved)
    gate.forget(ID)
    assert run(visit(gate)) == "stored" and not gate._doors


def test_a_move_that_failed_lets_everybody_go_on() -> None:
    gate = Gate()
    run(gate.shut(ID))
    late = [started(visit(gate)) for _ in range(3)]
    gate.decide(ID, moved=False)
    assert late == [["stored"]] * 3 and not gate._doors


def test_who_waited_is_counted_at_the_next_shutting() -> None:
    gate = Gate()
    run(gate.shut(ID))
    door: Deferred[None] = Deferred()
    late = started(visit(gate, door))
    gate.decide(ID, moved=False)
    again = started(gate.shut(ID))
    assert not again
    door.callback(None)
    assert late == ["stored"] and again == [None]


def test_one_who_fails_inside_is_gone_too() -> None:
    gate = Gate()
    door: Deferred[None] = Deferred()
    inside = started(visit(gate, door))
    shut = started(gate.shut(ID))
    door.errback(ValueError("disk"))
    assert isinstance(inside[0], ValueError) and shut == [None]
