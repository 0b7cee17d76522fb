"""``forwardemail status``: what runs, on this box and linked to it, and how it goes."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import Any

import click

from fe_twisted.app.ask import ask
from fe_twisted.app.cli.terminal import table, terminal, verb
from fe_twisted.base.errors import PrimaryAway
from fe_twisted.protocols.cluster.values import BadValue
from fe_twisted.services.cluster.status import ASK, State, state_of

#: Seconds that the server may take to answer.
TIMEOUT = 10.0


@click.command()
@verb
def status() -> None:
    """Show what runs on this box and what is linked to it: roles, versions, sessions, open mailboxes, waiting mail, links."""
    out = terminal()
    try:
        state = state_of(ask(out.settings(), ASK, [], timeout=TIMEOUT))
    except BadValue as error:
        raise PrimaryAway("the server is of another version than this command line; start it again", reason=str(error)) from error
    out.say("\n".join(_lines(state)), facts(state))


def facts(state: State) -> dict[str, Any]:
    """The state as JSON shows it: times in ISO 8601, round trips in milliseconds."""
    return {
        "own": _report(asdict(state.own), state.now),
        "peers": [
            _report(asdict(peer.report), state.now)
            | {"address": peer.address, "since": _moment(peer.since), "told_seconds_ago": state.now - peer.told}
            for peer in state.peers
        ],
    }


def _report(report: dict[str, Any], now: int) -> dict[str, Any]:
    report["links"] = [each | {"round_trip_ms": _ms(each.pop("round_trip"))} for each in report["links"]]
    report["round_trip_ms"] = _ms(report.pop("round_trip"))
    report["uptime_seconds"] = now - report["started"]
    report["started"] = _moment(report["started"])
    return report


def _lines(state: State) -> list[str]:
    own = state.own
    where = f", location {own.location}" if own.location else ""
    lines = [
        f"{own.name}: {own.role}{where}, version {own.version}, up {_span(state.now - own.started)}",
        f"Mail waits for {own.waiting} {'mailbox' if own.waiting == 1 else 'mailboxes'}, sealed: {own.waiting_octets:,} octets on the disk."
        if own.waiting
        else "No mail waits.",
        "",
    ]
    heads = ("PROCESS", "ROLE", "ADDRESS", "VERSION", "IMAP", "MX", "MAILBOXES", "ROUND TRIP", "SINCE")
    rows = [(own.name, own.role, "here", own.version, str(own.imap), str(own.mx), str(own.mailboxes), "", _moment(own.started))]
    for peer in state.peers:
        report, late = peer.report, state.now - peer.told
        trip = "" if report.round_trip is None else f"{report.round_trip / 1000:.1f} ms"
        since = _moment(peer.since) + (f" (silent for {late} s)" if late > 15 else "")
        numbers = (str(report.imap), str(report.mx), str(report.mailboxes))
        rows.append((report.name, report.role, peer.address, report.version, *numbers, trip, since))
    lines.append(table(heads, rows))
    if own.links:
        links = [
            (
                each.name,
                "connected" if each.connected else "NOT CONNECTED",
                "" if _ms(each.round_trip) is None else f"{_ms(each.round_trip)} ms",
            )
            for each in own.links
        ]
        lines += ["", table(("LINK TO", "", "ROUND TRIP"), links)]
    return lines


def _ms(microseconds: int | None) -> float | None:
    return None if microseconds is None else round(microseconds / 1000, 2)


def _moment(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _span(seconds: int) -> str:
    """A time in its two largest units."""
    days, rest = divmod(max(0, seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [f"{number} {unit}" for number, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")) if number]
    return " ".join(parts[:2]) or "0 s"
